"""CSV, TSV and other files of cells with a delimiter.

Takes a path and the options of a read. Gives a Reading whose cells are all strings, with the line of every row.
Knows nothing of what a column means; "NA", "null" and "None" are texts like any other.
"""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from pellucid.errors import DataError
from pellucid.process import csv_field_limit
from pellucid.readers.chunks import CHUNK_ROWS, Chunk, Reading, ReadOptions
from pellucid.readers.opening import lines_of
from pellucid.types import Note

DELIMITERS = {",": "comma", "\t": "TAB", ";": "semicolon", "|": "bar"}
SAMPLE_LINES = 50
LONGEST_CELL = 2**31 - 1
Record = tuple[int, list[str]]  # line where it starts, cells


def open_delimited(path: Path, options: ReadOptions) -> Reading:
    """A file of cells. Raises DataError for an empty file and for what is no table."""
    sample = list(islice(lines_of(path, options), SAMPLE_LINES))
    if not any(line.strip() for line in sample):
        raise DataError("the file is empty", place=path.name, cure="It needs a header line and rows below it.")
    delimiter, notes = options.delimiter, tuple[Note, ...]()
    if delimiter is None:
        delimiter = sniffed(sample, tab_first=".tsv" in path.name)
        if delimiter != ("\t" if ".tsv" in path.name else ","):
            why = f"the first lines of {path.name} are cut best by it"
            notes = (Note(f"delimiter {DELIMITERS[delimiter]}", why, f"Pass ReadOptions(delimiter={delimiter!r}) or another."),)
    quotes = options.quotes if options.quotes is not None else delimiter != "\t" or quoted(sample, delimiter)
    records = records_of(path, options, delimiter, quotes)
    first = next(records)[1]
    columns = options.columns or tuple(name.strip() for name in first)
    if options.columns and len(options.columns) != len(first):
        cure = "Name every column: ReadOptions(columns=(…))."
        raise DataError(f"{len(options.columns)} column names for {len(first)} cells", place=f"{path.name}, line 1", cure=cure)

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        places = {name: columns.index(name) for name in wanted}
        rows = records_of(path, options, delimiter, quotes)
        if not options.columns:
            next(rows)
        number = 0
        while part := list(islice(rows, CHUNK_ROWS)):
            for line, cells in part:
                if len(cells) != len(columns):
                    cure = "Quote a cell that holds the delimiter or a line end, or pass ReadOptions(delimiter=…, quotes=False)."
                    raise DataError(f"expected {len(columns)} cells, came {len(cells)}", place=f"{path.name}, line {line}", cure=cure)
            cells_of = {name: [cells[place] for _, cells in part] for name, place in places.items()}
            yield Chunk(cells_of, number, len(part), [line for line, _ in part])
            number += len(part)

    return Reading(path.name, columns, chunks, notes, header_is_guess=not options.columns)


def records_of(path: Path, options: ReadOptions, delimiter: str, quotes: bool) -> Iterator[Record]:
    """The records that are not blank. Raises DataError for a quoted cell that never ends or ends in the middle."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    with csv_field_limit(LONGEST_CELL):
        reader = csv.reader(lines_of(path, options), delimiter=delimiter, strict=True, quoting=quoting)
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cure = "Close the quotes (a quote inside a quoted cell is written twice), or pass ReadOptions(quotes=False)."
                found = "a quoted cell never ends" if "end of data" in str(error) else f"quotes in the wrong place ({error})"
                raise DataError(found, place=f"{path.name}, line {start}", cure=cure) from error
            if cells:
                yield start, cells


def sniffed(sample: list[str], *, tab_first: bool) -> str:
    """The delimiter that cuts the first lines into the same number of cells, more than one; the header decides where several do."""
    order = ["\t", ",", ";", "|"] if tab_first else [",", "\t", ";", "|"]
    even, header = {}, {}
    for delimiter in order:
        try:
            counts = [len(cells) for cells in csv.reader(sample, delimiter=delimiter) if cells]
        except csv.Error:
            continue
        header[delimiter] = counts[0]
        whole = counts[:-1] if len(counts) > 2 else counts  # a quoted cell may reach beyond the sample
        if counts[0] > 1 and len(set(whole)) == 1:
            even[delimiter] = counts[0]
    best = even or header
    return max(best, key=lambda delimiter: (best[delimiter], -order.index(delimiter))) if best else order[0]


def quoted(sample: list[str], delimiter: str) -> bool:
    """Whether some cell of the first lines begins and ends with a quote."""
    cells = (cell for line in sample for cell in line.rstrip("\r\n").split(delimiter))
    return any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)
