"""Texts → whole encodings: what the Rust tokenizer says of each text, before anything is cut or added.

Takes columns of texts, a tokenizer of transformers and TokenOptions. Gives a Recipe (the template of special tokens, the room for text)
and, for each column, the encodings. Knows nothing of tables, batches, models or torch.

A text that will be cut to `room` tokens is read up to `READ_PER_TOKEN` characters a token first, back to a space. That gives the same ids
as reading all of it if at least `MARGIN` tokens more than `room` come out; if not, all of it is read. A megabyte then costs milliseconds.
"""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pellucid.errors import SettingError, TokenizerError
from pellucid.labels import is_missing
from pellucid.token_table import TokenOptions
from pellucid.tokenizer import asked_max_length, private_twin, rust_panics_as_errors
from pellucid.types import Columns

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

Counts = npt.NDArray[np.int64]  # (rows,)

READ_PER_TOKEN = 64  # characters
READ_LEAST = 10_000  # characters
MARGIN = 16  # tokens
LIKELY_CUT = 4  # characters a token beyond which a text is probably cut: offsets are then worth asking for at once


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the template: special tokens, or the place of text number `field`."""

    field: int | None
    ids: tuple[int, ...]
    types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the texts of a row become its ids."""

    twin: "Tokenizer"
    reads: tuple[str, ...]
    parts: tuple[Part, ...]
    strategy: str
    side: str  # where truncation cuts: right or left
    room: int | None  # tokens of text in a window, without special tokens; None where nothing is cut
    stride: int | None = None  # tokens that windows share; None where a long text is cut and not read in windows
    first_row: int = 0  # rows in errors are counted from here
    spaces_in_offsets: bool = False  # whether the characters of a token include the space before it

    def cuts(self, field: int) -> bool:
        """Whether truncation may cut this text."""
        return self.room is not None and self.stride is None and self.strategy in ("longest_first", ("only_first", "only_second")[field])

    def place(self, row: int, field: int | None = None) -> str:
        """Where a problem is."""
        column = "" if field is None else f", column {self.reads[field]!r}"
        return f"row {self.first_row + row}{column}"


@dataclass(frozen=True, slots=True)
class Column:
    """One text of every row, tokenized. `spans` are the characters that were read, of the texts that were not read to their end."""

    texts: list[str]
    encodings: list["Encoding"]
    spans: dict[int, tuple[int, int]]
    has_offsets: bool

    @property
    def counts(self) -> Counts:
        """Tokens of each text as it was read."""
        return np.fromiter(map(len, self.encodings), dtype=np.int64, count=len(self.encodings))


def recipe_of(
    tokenizer: "PreTrainedTokenizerBase",
    reads: tuple[str, ...],
    options: TokenOptions,
    first_row: int = 0,
    spelled: tuple[str, ...] = (),
) -> Recipe:
    """What the tokenizer and the options say of every row; `spelled` are special tokens that are read as such in a text in any case.

    Raises SettingError for a length or strategy that cannot work.
    """
    if len(reads) not in (1, 2):
        raise SettingError(f"a tokenizer reads one text or a pair, not {len(reads)} columns", cure="Name one or two columns in `reads`.")
    twin = private_twin(tokenizer, options.special_tokens_in_text, spelled)
    parts = _template(twin, len(reads))
    strategy = options.truncation_strategy
    max_length = None if strategy == "do_not_truncate" else asked_max_length(tokenizer, options)
    special = sum(len(part.ids) for part in parts if part.field is None)
    if max_length is not None and max_length <= special:
        raise SettingError(
            f"max_length is {max_length}, and {special} special tokens leave no room for text",
            place="max_length",
            cure=f"Set it to {special + 1} or more.",
        )
    if strategy == "only_second" and len(reads) == 1:
        cure = "Use 'longest_first', or name two columns."
        raise SettingError("truncation='only_second' needs a pair of texts", place="truncation", cure=cure)
    room = None if max_length is None else max_length - special
    stride = options.long.stride if options.long is not None and options.long.in_windows else None
    if stride and room is not None and stride >= room:
        problem = f"windows of {room} tokens cannot share {stride}"
        raise SettingError(problem, place="stride", cure=f"Set stride below {room}, or a larger max_length.")
    spaces = any(start == 2 and end > 3 for start, end in twin.encode("an an", add_special_tokens=False).offsets)
    return Recipe(twin, reads, parts, strategy, tokenizer.truncation_side, room, stride, first_row, spaces)


def _template(twin: "Tokenizer", fields: int) -> tuple[Part, ...]:
    """The special tokens around one text or two, read off a probe: no tokenizer lets them depend on the text."""
    for probe in _probes(twin):
        encoding = twin.encode(probe, probe if fields == 2 else None)
        owners = [None if special else owner for owner, special in zip(encoding.sequence_ids, encoding.special_tokens_mask, strict=True)]
        if set(owners) - {None} == set(range(fields)):
            break
    else:
        raise TokenizerError("the tokenizer gives no token for any text that was tried", cure="Use a tokenizer that was trained on text.")
    parts = []
    for owner, members in groupby(range(len(owners)), key=lambda position: owners[position]):
        positions = list(members)
        ids, types = (tuple(column[position] for position in positions) for column in (encoding.ids, encoding.type_ids))
        parts.append(Part(owner, ids, types) if owner is None else Part(owner, (), types[:1]))
    if [part.field for part in parts if part.field is not None] != list(range(fields)):
        raise TokenizerError("the tokenizer's template does not hold each text once, in order", cure="Use another tokenizer for pairs.")
    return tuple(parts)


def _probes(twin: "Tokenizer") -> Iterator[str]:
    """Texts that should give at least one token; the vocabulary, which takes milliseconds to list, is asked only if the usual ones fail."""
    yield from ("a", "0", ".")
    yield from (piece.strip("#▁Ġ") for piece in islice(twin.get_vocab(), 100))


def texts_of(columns: Columns, field: int, recipe: Recipe) -> list[str]:
    """The texts of a column, all of them real strings. Raises TokenizerError for the first that is not, SettingError without the column."""
    role = recipe.reads[field]
    if role not in columns:
        raise SettingError(
            f"expected a column {role!r}, came {', '.join(map(repr, columns)) or 'none'}", cure="Give every column of `reads`."
        )
    given = columns[role]
    if isinstance(given, str | bytes):
        raise SettingError(f"expected a list of texts in column {role!r}, came one {type(given).__name__}", cure="Put it into a list.")
    texts = given if isinstance(given, list) else list(given)
    if set(map(type, texts)) <= {str}:
        return texts
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            cure = "Decode it first: value.decode('utf-8')." if isinstance(text, bytes) else "Give a string; drop the row if it has none."
            came = "a missing value" if is_missing(text) else f"{type(text).__name__} {reprlib.repr(text)[:40]}"
            raise TokenizerError(f"expected a text, came {came}", place=recipe.place(row, field), cure=cure)
    return [str(text) for text in texts]


def read_columns(recipe: Recipe, texts: list[list[str]], *, offsets: bool = False) -> list[Column]:
    """Tokenize each column, long texts in part where that cannot change the result."""
    read = [_read_column(recipe, field, column, offsets=offsets) for field, column in enumerate(texts)]
    counts = [column.counts for column in read]
    unsure = [[row for row in column.spans if not _read_enough(recipe, read, counts, (field, row))] for field, column in enumerate(read)]
    for field, (column, rows) in enumerate(zip(read, unsure, strict=True)):
        whole = _encodings(recipe, field, [column.texts[row] for row in rows], offsets=column.has_offsets)
        for row, encoding in zip(rows, whole, strict=True):
            column.encodings[row] = encoding
            del column.spans[row]
    return read


def _read_enough(recipe: Recipe, read: list[Column], counts: list[Counts], place: tuple[int, int]) -> bool:
    """Whether the part that was read of a text decides the result: it has tokens to spare, and the longer text of a pair is known."""
    field, row = place
    if recipe.room is None or counts[field][row] < recipe.room + MARGIN:
        return False
    if len(read) == 1 or recipe.strategy != "longest_first":
        return True
    other = 1 - field
    return row not in read[other].spans and bool(counts[other][row] < counts[field][row])


def _read_column(recipe: Recipe, field: int, texts: list[str], *, offsets: bool) -> Column:
    spans: dict[int, tuple[int, int]] = {}
    longest = max(map(len, texts), default=0)
    room = recipe.room or 0
    if recipe.cuts(field):
        offsets = offsets or longest > LIKELY_CUT * room
        limit = max(READ_PER_TOKEN * room, READ_LEAST)
        for row, text in enumerate(texts) if longest > limit else ():
            span = _part_to_read(text, limit, recipe.side) if len(text) > limit else None
            if span is not None:
                check_unicode(text, recipe.place(row, field))  # Rust will not see the rest
                spans[row] = span
    pieces = texts if not spans else [text[slice(*spans.get(row, (0, len(text))))] for row, text in enumerate(texts)]
    return Column(texts, _encodings(recipe, field, pieces, offsets=offsets), spans, offsets)


def _part_to_read(text: str, limit: int, side: str) -> tuple[int, int] | None:
    """The first (or last) `limit` characters at most, up to where a stretch of white space begins; None where there is no space."""
    if side == "right":
        space = text.rfind(" ", limit // 2, limit)
        while space > 0 and text[space - 1].isspace():
            space -= 1
        return (0, space) if space > 0 else None
    space = text.find(" ", len(text) - limit, len(text) - limit // 2)
    while space > 0 and text[space - 1].isspace():
        space -= 1
    return (space, len(text)) if space > 0 else None


def _encodings(recipe: Recipe, field: int, texts: list[str], *, offsets: bool) -> list["Encoding"]:
    """One Rust call; the fast one leaves character offsets out."""
    if not texts:
        return []
    call = recipe.twin.encode_batch if offsets else recipe.twin.encode_batch_fast
    try:
        with rust_panics_as_errors():
            encodings: list[Encoding] = call(texts, add_special_tokens=False)
            return encodings
    except TokenizerError:
        raise
    except Exception as error:  # a lone surrogate is a TypeError about TextEncodeInput; the Rust side raises bare Exceptions
        for row, text in enumerate(texts):
            check_unicode(text, recipe.place(row, field))
        raise TokenizerError(f"the tokenizer failed: {str(error)[:200]}", cure="Check the tokenizer's files.") from error


def check_unicode(text: str, place: str) -> None:
    """Raise TokenizerError with this place for half a character, which no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as broken:
        problem = f"character {broken.start} is half a character (lone surrogate U+{ord(text[broken.start]):04X})"
        cure = "Read the source again with its true encoding, or replace it: text.encode('utf-8', 'replace').decode()."
        raise TokenizerError(problem, place=place, cure=cure) from broken
