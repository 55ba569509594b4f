"""Files with one JSON object a line.

Takes a path and the options of a read. Gives a Reading of plain Python values, with the line of every row.
Knows nothing of what a column means.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.readers.chunks import Chunk, Reading, ReadOptions, in_chunks
from pellucid.readers.opening import lines_of

CURE = 'Each line must be one object such as {"text": "…", "label": "…"}.'
ARRAY = "The file is one JSON array: pass its rows, pl.read(json.load(open(…)))."
SAMPLE = 100  # objects whose keys are the columns
Parsed = tuple[int, int, dict[str, Any]]  # line, its length, the object


def open_jsonl(path: Path, options: ReadOptions) -> Reading:
    """A file of JSON objects. The columns are the keys of the first hundred. Raises DataError that names the line."""
    columns = tuple(dict.fromkeys(key for *_, row in islice(objects_of(path, options), SAMPLE) for key in row))
    if not columns:
        raise DataError("no objects came", place=path.name, cure=CURE)

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        number = 0
        for part in in_chunks(objects_of(path, options), lambda parsed: parsed[1], options.max_rows):
            yield Chunk({name: [row.get(name) for *_, row in part] for name in wanted}, number, len(part), [line for line, *_ in part])
            number += len(part)

    return Reading(path.name, columns, chunks)


def objects_of(path: Path, options: ReadOptions) -> Iterator[Parsed]:
    """The objects with their lines; blank lines are passed over. NaN and Infinity are missing."""
    for number, line in enumerate(lines_of(path, options), start=1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        cure = ARRAY if line.lstrip().startswith("[") else CURE
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            what = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            raise DataError(f"this is no JSON: {what}", place=place, cure=cure) from error
        if not isinstance(row, dict):
            raise DataError(f"expected an object, came {type(row).__name__}", place=place, cure=cure)
        yield number, len(line), row
