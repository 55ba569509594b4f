"""Questions with their contexts and answers, in the JSON of SQuAD 1.1 and 2.0.

Takes a path and the options of a read. Gives a Reading with the columns question, context, answers and id.
Knows nothing of whether an answer stands where it is said to stand.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.readers.chunks import Chunk, Reading, ReadOptions, in_chunks
from pellucid.readers.opening import first_bytes, whole_text

COLUMNS = ("question", "context", "answers", "id")
HEAD = 1 << 16  # bytes in which a file of this kind shows itself
CURE = 'Expected {"data": [{"paragraphs": [{"context": "…", "qas": [{"question": "…", "answers": [{"text": "…", "answer_start": 0}]}]}]}]}.'
_BEFORE = rb'\A(?:\xef\xbb\xbf)?\s{0,100}\{\s{0,100}(?:"version"\s{0,100}:[^,\[{]{1,100},)?\s{0,100}'
_DATA = re.compile(_BEFORE + rb'"data"\s{0,100}:\s{0,100}\[')
Question = dict[str, Any]  # one cell for each of COLUMNS


def is_squad(path: Path) -> bool:
    """Whether a JSON file begins as one of SQuAD does: an object with a list of `data` that has `paragraphs`."""
    head = first_bytes(path, HEAD)
    return _DATA.match(head) is not None and b'"paragraphs"' in head


def open_squad(path: Path, options: ReadOptions) -> Reading:
    """A file of SQuAD 1.1 or 2.0; `plausible_answers` are no answers. Raises DataError that names what is not as it should be."""

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        row = 0
        for part in in_chunks(questions(path, options), lambda question: len(question["context"]), options.max_rows):
            names = [f"{path.name}, question {question['id']!r:.60}" if question["id"] else path.name for question in part]
            yield Chunk({name: [question[name] for question in part] for name in wanted}, row, len(part), files=names)
            row += len(part)

    return Reading(path.name, COLUMNS, chunks)


def questions(path: Path, options: ReadOptions) -> Iterator[Question]:
    """Every question with its context."""
    try:
        document = json.loads(whole_text(path, options), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        what = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"this is no JSON: {what}", place=path.name, cure="Fetch the file again, or mend it there.") from error
    for number, article in enumerate(part_of(document, "data", path.name)):
        place = f"{path.name}, data[{number}]"
        for count, paragraph in enumerate(part_of(article, "paragraphs", place)):
            within = f"{place}.paragraphs[{count}]"
            asked = part_of(paragraph, "qas", within)
            context = paragraph.get("context")
            if not isinstance(context, str):
                raise DataError(f"expected a context, came {type(context).__name__}", place=within, cure=CURE)
            for index, entry in enumerate(asked):
                yield question_of(entry, context, f"{within}.qas[{index}]")


def question_of(entry: Any, context: str, place: str) -> Question:
    """One question; its answers are None where the file has none to tell, and an empty list where it says that there is none."""
    if not isinstance(entry, dict):
        raise DataError(f"expected a question, came {type(entry).__name__}", place=place, cure=CURE)
    answers, called = entry.get("answers"), entry.get("id")
    if entry.get("is_impossible") is True:
        if answers:
            cure = "Decide which one is right."
            raise DataError("is_impossible is true, and there is an answer", place=f"{place} (id {called!r:.60})", cure=cure)
        answers = []
    return {"question": entry.get("question"), "context": context, "answers": answers, "id": None if called is None else str(called)}


def part_of(value: Any, key: str, place: str) -> list[Any]:
    """A list under a key. Raises DataError where it is not there."""
    if not isinstance(value, dict):
        raise DataError(f"expected an object with {key!r}, came {type(value).__name__}", place=place, cure=CURE)
    found = value.get(key)
    if not isinstance(found, list):
        came = "is missing" if found is None else f"is no list but {type(found).__name__}"
        raise DataError(f"{key!r} {came}", place=place, cure=CURE)
    return found
