"""What somebody hands to `predict`, as a split.

Takes a text, a list of texts, pairs or words, dicts, a frame, a Dataset or a split. Gives a split with the text fields that a task reads.
Knows nothing of targets, tokens or models.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pellucid.chats import ANSWERS, chat_text, is_chat
from pellucid.data import Rows, Split, write_all
from pellucid.errors import DataError, SettingError
from pellucid.readers.chunks import Reading, ReadOptions
from pellucid.readers.frames import families_of, open_frame
from pellucid.roles import PAIRS, SELDOM, TEXTS, Asked, Roles, find_roles
from pellucid.row_store import TableWriter
from pellucid.span_cells import plain_list
from pellucid.tagging import word_spans
from pellucid.types import Example


def as_split(data: Any, reads: tuple[str, ...]) -> Split:
    """What somebody hands to `predict`, as a split with these text fields: a text, a list of texts or pairs, dicts, a frame, a Dataset.

    Where the task reads one text, a list within the list is the words of one. A list keeps its order; row numbers are positions. Raises
    DataError that names the row, SettingError for splits without these fields.
    """
    if isinstance(data, Rows):
        cure = "Pass rows.valid, rows.train or rows.test."
        raise SettingError(f"these are several splits: {', '.join(data.splits)}", place="data", cure=cure)
    if isinstance(data, Split):
        if not set(reads) <= set(data.roles.texts):
            cure = "Read the rows with text= and text_pair=."
            raise SettingError(
                f"the task reads {' and '.join(reads)}, the rows have {' and '.join(data.roles.texts)}", place="data", cure=cure
            )
        return data
    reading = open_frame(text_rows([data] if isinstance(data, str | Mapping | Example) else data, reads))
    if reading is None:
        cure = "Give a text, a list of texts, a frame or a Dataset."
        raise DataError(f"cannot read texts from {type(data).__name__}", place="data", cure=cure)
    return split_of(reading, reads)


def split_of(reading: Reading, reads: tuple[str, ...]) -> Split:
    """A reading as one split without targets. Its columns are named like the fields, or there is only one that can be meant."""
    roles = Roles("text", "text_pair" if len(reads) > 1 else None)  # of no rows at all
    if reading.columns:
        text, pair = (name if name in reading.columns else None for name in ("text", "text_pair"))
        asked = Asked(text or only_text(reading), pair, label=False)
        roles, _ = find_roles(reading.columns, asked, reading.source)
    roles = replace(roles, split=None, text_pair=roles.text_pair if len(reads) > 1 else None)
    if len(reads) > 1 and roles.text_pair is None:
        cure = 'Give pairs, or dicts with "text" and "text_pair" ("question" and "context").'
        raise DataError("the task reads two texts, one came", place=reading.source, cure=cure)
    options = ReadOptions()
    with TableWriter(options) as writer:
        _, schema, roles = write_all(writer, reading, roles, options, "given")
        return Split("given", writer.table(schema), roles, reading.source, has_targets=False)


def only_text(reading: Reading) -> str | None:
    """The one column that can be meant by the text. Raises DataError where several can: a model must not read another one unseen."""
    if len(reading.columns) == 1:
        return reading.columns[0]
    known = [column for column in reading.columns if column.lower() in TEXTS]
    likeliest = min((column.lower() for column in known), key=TEXTS.index, default="")
    if likeliest not in SELDOM:  # beside a text, "source" is where it comes from, and so on
        known = [column for column in known if column.lower() not in SELDOM]
    if len(known) > 1 and PAIRS.get(likeliest) not in [column.lower() for column in reading.columns]:
        cure = f"Pass that column alone, for example frame[{known[0]!r}], or rename it to 'text'."
        raise DataError(f"the columns {', '.join(map(repr, known))} may all be the text", place=reading.source, cure=cure)
    return None


def text_rows(data: Any, reads: tuple[str, ...]) -> Any:
    """Plain texts, pairs and Examples as dicts, one by one; frames, tables and Datasets as they came."""
    families = families_of(data)
    if hasattr(data, "columns") or hasattr(data, "column_names"):
        return data
    if families & {"numpy", "pandas", "polars", "pyarrow"}:  # an array or a column of texts
        for convert in ("to_pylist", "tolist", "to_list"):
            if hasattr(data, convert):
                return text_rows(getattr(data, convert)(), reads)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        if len(reads) == 1 and is_chat(data) and {one["role"] for one in data} <= {"system", "user", "tool", ANSWERS}:
            cure = "Pass [messages] for one conversation, or a list of the contents for texts."
            raise DataError("a list of messages may be one conversation, or a text each", place="data", cure=cure)
        return [as_fields(one, reads, row) for row, one in enumerate(data)]
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | bytearray | Mapping):
        return (as_fields(one, reads, row) for row, one in enumerate(data))
    return data


def as_fields(one: Any, reads: tuple[str, ...], row: int) -> Mapping[str, Any]:
    """One text, or as many as the task reads, under the names of its fields; words are joined, messages written as JSON; a dict is left."""
    if isinstance(one, Mapping):
        several = next((name for name in reads if isinstance(one.get(name), list) and not is_chat(one[name])), None)
        if several is not None:
            cure = 'Give many texts as a list of them; the words of one text go under "words".'
            raise DataError(f"expected a text, came list ({one[several]!r:.40})", place=f"row {row}, column {several!r}", cure=cure)
        return one
    if isinstance(one, Example):
        return one.fields
    if len(reads) == 1 and (chat := chat_text(plain_list(one))) is not None:
        return {reads[0]: chat}
    if isinstance(one, list) and len(one) > len(reads) == 1 and all(isinstance(word, str) for word in one):
        return {reads[0]: words_of(one, row)}
    texts = tuple(one) if isinstance(one, list | tuple) else (one,)
    if len(texts) != len(reads):
        what = "a text" if len(reads) == 1 else f"{len(reads)} texts"
        cure = "Give a string a row, or a pair for tasks that read two."
        raise DataError(f"expected {what}, came {len(texts)}", place=f"row {row}", cure=cure)
    return dict(zip(reads, texts, strict=True))


def words_of(words: list[str], row: int) -> str:
    """The words of one row as its text. Raises DataError that names the row."""
    try:
        return word_spans(words)[0]
    except DataError as error:
        raise error.at(f"row {row}") from error
