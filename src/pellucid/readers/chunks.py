"""What every reader gives, and what it may be told.

Takes the options of a read. Gives the shape of a reading: its column names, and raw columns in chunks that say where every row is.
Knows nothing of roles, labels or splits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pellucid.errors import DataError, SettingError
from pellucid.types import Note

if TYPE_CHECKING:
    import pyarrow as pa

RawColumn = "pa.Array | Sequence[object]"
CHUNK_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read. Every limit is here, and every default can be changed.

    valid_fraction, seed       the validation split that is made where the source has none; 0 makes none
    encoding, delimiter        of text files; the delimiter is sniffed among `,` `;` TAB `|` where None
    columns                    the column names of a file without a header line
    quotes                     whether `"` quotes a cell; None: yes, but in TAB files only where the first lines show it
    on_missing                 what a missing text, label or split does: stop, or leave the row out and say so
    label_kind                 class names, numbers (regression), sets of names (many a row), or found out
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
    label_kind: Literal["auto", "class", "number", "set"] = "auto"
    label_separator: str | None = None
    label_names: tuple[str, ...] = ()
    max_bytes: int = 16 * 1024**3
    max_rows: int | None = None
    memory_bytes: int = 64 * 1024**2
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.valid_fraction < 1.0:
            raise SettingError(
                f"valid_fraction must be at least 0 and less than 1, not {self.valid_fraction}", cure="0.2 takes every fifth row."
            )
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise SettingError(f"delimiter must be one character, not {self.delimiter!r}", cure="Use ',', ';', '\\t' or '|'.")
        if self.on_missing not in ("error", "drop"):
            raise SettingError(f"on_missing must be 'error' or 'drop', not {self.on_missing!r}", cure="Choose one of them.")
        if self.label_kind not in ("auto", "class", "number", "set"):
            raise SettingError(
                f"label_kind must be 'auto', 'class', 'number' or 'set', not {self.label_kind!r}", cure="Choose one of them."
            )
        if self.label_separator == "":
            raise SettingError("label_separator is empty", cure="Name the character between labels, or leave it None.")
        if self.max_bytes <= 0 or (self.max_rows is not None and self.max_rows <= 0):
            raise SettingError("max_bytes and max_rows must be above 0", cure="Leave max_rows None to read every row.")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise SettingError(
                f"unknown encoding {self.encoding!r}", cure="Python knows 'utf-8', 'cp1252', 'latin-1', 'utf-16' and others."
            ) from None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a source: raw columns of equal length, as Arrow arrays or as plain Python values."""

    columns: Mapping[str, "pa.Array | Sequence[object]"]
    first_row: int  # number of the first row in the source
    rows: int
    lines: Sequence[int] | None = None  # line of the file where each row starts, counted from 1
    files: Sequence[str] | None = None  # the file of each row, where every row is a file

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
    header_is_guess: bool = False  # the names come from the first line of a file, which may be data

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for column in self.columns:
            if column in seen and column:
                cure = "Rename one of them; a column must be found by its name."
                raise DataError(f"two columns are called {column!r}", place=self.source, cure=cure)
            seen.add(column)


def place_of(source: str, row: int, line: int | None = None, file: str | None = None) -> str:
    """Where a row is: `reviews.csv, line 18 (row 16)`."""
    if file is not None:
        return f"{file} (row {row})"
    if line is not None:
        return f"{source}, line {line} (row {row})"
    return f"{source}, row {row}" if source else f"row {row}"
