"""What every reader gives, and what it may be told.

Takes the options of a read. Gives the shape of a reading: its column names, and raw columns in chunks that say where every row is.
Knows nothing of roles, labels or splits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from pellucid.errors import DataError, SettingError
from pellucid.types import Note

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 10_000
CHUNK_CHARACTERS = 1 << 25  # of text: a chunk of long texts has fewer rows
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
LabelKind = Literal["auto", "class", "number", "set", "tags", "spans", "answers", "text"]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read. Every limit is here, and every default can be changed.

    valid_fraction, seed       the validation split that is made where the source has none; 0 makes none
    encoding, delimiter        of text files; the delimiter is found among `,` `;` TAB `|` where None
    columns                    the column names of a file without a header line; one name for a .txt file: each line is a text
    quotes                     whether `"` quotes a cell; None: yes, but not in TAB files whose first lines use it as a plain character
    on_missing                 what a missing text, label or split does: stop, or leave the row out and say so
    label_kind                 what a label cell is: one class, a number (regression), a set of classes, a tag for each word, spans of
                               characters, the answers of a question, a text to be written; "auto" finds out, and never makes numbers
    on_overlap                 what spans that overlap do: stop, or keep the longest of them
    label_separator            what stands between the labels of one cell
    label_names                names for labels that are integers: label 2 becomes label_names[2]
    max_bytes, max_rows        the most that is read, unpacked
    memory_bytes, cache        rows above this size lie in a file of the folder `cache` (None: ~/.cache/pellucid/rows) and are memory-mapped
    """

    valid_fraction: float = 0.2
    seed: int = 42
    encoding: str = "utf-8"
    delimiter: str | None = None
    columns: tuple[str, ...] = ()
    quotes: bool | None = None
    on_missing: Literal["error", "drop"] = "error"
    label_kind: LabelKind = "auto"
    on_overlap: Literal["error", "longest"] = "error"
    label_separator: str | None = None
    label_names: tuple[str, ...] = ()
    max_bytes: int = 16 * 1024**3
    max_rows: int | None = None
    memory_bytes: int = 64 * 1024**2
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        for wrong, problem, cure in self._checks():
            if wrong:
                raise SettingError(problem, place="ReadOptions", cure=cure)
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            cure = "Python knows 'utf-8', 'cp1252', 'latin-1', 'utf-16' and others."
            raise SettingError(f"unknown encoding {self.encoding!r}", place="ReadOptions", cure=cure) from None

    def _checks(self) -> tuple[tuple[bool, str, str], ...]:
        """What may be wrong: whether it is, what to say, and the cure."""
        fraction, mark, kinds = self.valid_fraction, self.delimiter, ", ".join(map(repr, get_args(LabelKind)))
        delimiter = mark is not None and (len(mark) != 1 or mark in '\r\n"')
        choose = "Choose one of them."
        twice = len(set(self.label_names)) < len(self.label_names)
        return (
            (not 0.0 <= fraction < 1.0, f"valid_fraction must be at least 0 and less than 1, not {fraction}", "0.2 takes every fifth row."),
            (self.seed < 0, f"seed must be at least 0, not {self.seed}", "Any whole number from 0 will do."),
            (delimiter, f"delimiter must be one character between cells, not {mark!r}", "Use ',', ';', '\\t' or '|'."),
            (self.on_missing not in ("error", "drop"), f"on_missing must be 'error' or 'drop', not {self.on_missing!r}", choose),
            (self.label_kind not in get_args(LabelKind), f"label_kind must be one of {kinds}, not {self.label_kind!r}", choose),
            (self.on_overlap not in ("error", "longest"), f"on_overlap must be 'error' or 'longest', not {self.on_overlap!r}", choose),
            (self.label_separator == "", "label_separator is empty", "Name the character between labels, or leave it None."),
            (twice, "label_names names two classes alike", "Give every class a name of its own."),
            (
                min(self.max_bytes, 1 if self.max_rows is None else self.max_rows) <= 0,
                "max_bytes and max_rows must be above 0",
                "None reads all.",
            ),
            (isinstance(self.columns, str), f"columns must be a tuple of names, not {self.columns!r}", f"Write ({self.columns!r},)."),
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a source: raw columns of equal length, as Arrow arrays or as plain Python values."""

    columns: Mapping[str, "pa.Array | Sequence[object]"]
    first_row: int  # number of the first row in the source
    rows: int
    lines: Sequence[int] | None = None  # line of the file where each row starts, counted from 1
    files: Sequence[str] | None = None  # what a row is called where its number says little: its file in a folder, the id of a question

    def place(self, position: int, source: str, column: str) -> str:
        """Where the row at `position` of this chunk is, for an error."""
        line = None if self.lines is None else self.lines[position]
        file = None if self.files is None else self.files[position]
        return f"{place_of(source, self.first_row + position, line, file)}, column {column!r}"


@dataclass(frozen=True, slots=True)
class Reading:
    """An opened source: `chunks(wanted)` reads the wanted columns, once."""

    source: str  # the name for errors: a file name, "DataFrame"
    columns: tuple[str, ...]
    chunks: Callable[[tuple[str, ...]], Iterator[Chunk]]
    notes: tuple[Note, ...] = ()
    hint: str = ""  # what may have gone wrong where a column is not found

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for column in self.columns:
            if column in seen and column:
                cure = "Rename one of them; a column must be found by its name."
                raise DataError(f"two columns are called {column!r}", place=self.source, cure=cure)
            seen.add(column)


def in_chunks(rows: Iterable[Row], size_of: Callable[[Row], int], most: int | None = None) -> Iterator[list[Row]]:
    """The rows in lists of at most CHUNK_ROWS; a list ends as soon as it has CHUNK_CHARACTERS, counted by `size_of`.

    No more than `most` rows are taken: a generator that is slow, or has no end, is not asked for more than was wanted.
    """
    part: list[Row] = []
    size = 0
    for row in islice(rows, most):
        part.append(row)
        size += size_of(row)
        if len(part) >= CHUNK_ROWS or size >= CHUNK_CHARACTERS:
            yield part
            part, size = [], 0
    if part:
        yield part


def place_of(source: str, row: int, line: int | None = None, file: str | None = None) -> str:
    """Where a row is: `reviews.csv, line 18 (row 16)`."""
    if file is not None:
        return f"{file} (row {row})"
    if line is not None:
        return f"{source}, line {line} (row {row})"
    return f"{source}, row {row}" if source else f"row {row}"
