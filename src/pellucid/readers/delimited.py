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
from pellucid.readers.chunks import Chunk, Reading, ReadOptions, in_chunks
from pellucid.readers.opening import lines_of
from pellucid.types import Note

DELIMITERS = {",": "comma", "\t": "TAB", ";": "semicolon", "|": "bar"}
SAMPLE_LINES, SAMPLE_CHARACTERS = 20_000, 1 << 22  # what is looked at before the rows are read
SNIFFED_LINES = 1000
LONGEST_CELL = 1 << 26  # characters
LONGEST_RECORD = 100  # lines of one quoted cell in a TAB file, while it is being found out whether quotes are quotes there
PARSED_AT_ONCE = 1000  # records: the limit of Python's csv reader is raised only meanwhile
Record = tuple[int, list[str]]  # line where it starts, cells


def open_delimited(path: Path, options: ReadOptions) -> Reading:
    """A file of cells. Raises DataError for an empty file and for what is no table."""
    kinds = [suffix.lower() for suffix in path.suffixes[-2:]]
    if ".txt" in kinds and len(options.columns) == 1 and options.delimiter is None:
        return open_lines(path, options)
    sample, whole = sample_of(path, options)
    if not any(line.strip() for line in sample):
        raise DataError("the file is empty", place=path.name, cure="It needs a header line and rows below it.")
    tabs = ".tsv" in kinds or ".tab" in kinds
    notes: list[Note] = []
    delimiter = options.delimiter or sniffed(sample[:SNIFFED_LINES], tab_first=tabs, columns=len(options.columns))
    if options.delimiter is None and delimiter != ("\t" if tabs else ","):
        why = f"the first lines of {path.name} are cut best by it"
        notes.append(Note(f"delimiter {DELIMITERS[delimiter]}", why, f"Pass ReadOptions(delimiter={delimiter!r}) or another."))
    quotes = options.quotes
    if quotes is None:
        quotes = delimiter != "\t" or not plain_quotes(sample, delimiter, whole=whole)
        if not quotes:
            why = 'in the first lines of this TAB file `"` does not close what it opens'
            notes.append(Note('`"` is a character like any other', why, "Pass ReadOptions(quotes=True)."))
    first = next(records_of(path, options, delimiter, quotes))[1]
    columns = options.columns or tuple(name.strip() for name in first)
    if options.columns and len(options.columns) != len(first):
        cure = f"Name every column: the first line is {', '.join(first)!r:.200}."
        raise DataError(f"{len(options.columns)} column names for {len(first)} cells", place=f"{path.name}, line 1", cure=cure)

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        places = {name: columns.index(name) for name in wanted}
        rows = records_of(path, options, delimiter, quotes)
        for part, number in numbered(rows if options.columns else islice(rows, 1, None), options.max_rows):
            for line, cells in part:
                if len(cells) != len(columns):
                    cure = "Quote a cell that holds the delimiter or a line end, or pass ReadOptions(delimiter=…, quotes=False)."
                    raise DataError(f"expected {len(columns)} cells, came {len(cells)}", place=f"{path.name}, line {line}", cure=cure)
            cells_of = {name: [cells[place] for _, cells in part] for name, place in places.items()}
            yield Chunk(cells_of, number, len(part), [line for line, _ in part])

    hint = "" if options.columns else "If the first line is data and no header, name the columns: ReadOptions(columns=(…))."
    return Reading(path.name, columns, chunks, tuple(notes), hint)


def open_lines(path: Path, options: ReadOptions) -> Reading:
    """A file with one text a line; blank lines are passed over."""
    name = options.columns[0]
    note = Note("each line is a text", f"one column was named for {path.name}", "Pass ReadOptions(delimiter=…) for a table.")

    def chunks(_: tuple[str, ...]) -> Iterator[Chunk]:
        lines = ((number, [line.rstrip("\r\n")]) for number, line in enumerate(lines_of(path, options), 1) if line.strip())
        for part, number in numbered(lines, options.max_rows):
            yield Chunk({name: [cells[0] for _, cells in part]}, number, len(part), [line for line, _ in part])

    return Reading(path.name, options.columns, chunks, (note,))


def numbered(records: Iterator[Record], most: int | None) -> Iterator[tuple[list[Record], int]]:
    """The records in chunks, at most `most` in all, each with the number of its first row."""
    number = 0
    for part in in_chunks(records, lambda record: sum(map(len, record[1])), most):
        yield part, number
        number += len(part)


def records_of(path: Path, options: ReadOptions, delimiter: str, quotes: bool) -> Iterator[Record]:
    """The records that are not blank. Raises DataError for a quoted cell that never ends or ends in the middle."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(lines_of(path, options), delimiter=delimiter, strict=True, quoting=quoting)

    def parsed() -> Iterator[Record]:
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cure = "Close the quotes (a quote inside a quoted cell is written twice), or pass ReadOptions(quotes=False)."
                raise DataError(csv_problem(str(error)), place=f"{path.name}, line {start}", cure=cure) from error
            yield start, cells

    records = parsed()
    while True:
        with csv_field_limit(LONGEST_CELL):  # never across a yield: the caller may run a csv reader of its own
            part = list(islice(records, PARSED_AT_ONCE))
        if not part:
            return
        yield from (record for record in part if record[1])


def csv_problem(said: str) -> str:
    """What Python's csv reader means."""
    if "end of data" in said:
        return "a quoted cell never ends"
    if "field larger" in said:
        return f"a cell of more than {LONGEST_CELL:,} characters: its quotes may never be closed"
    return f"quotes in the wrong place ({said})"


def sample_of(path: Path, options: ReadOptions) -> tuple[list[str], bool]:
    """The first lines, and whether they are the whole file."""
    sample: list[str] = []
    size = 0
    lines = lines_of(path, options)
    for line in lines:
        sample.append(line)
        size += len(line)
        if len(sample) >= SAMPLE_LINES or size >= SAMPLE_CHARACTERS:
            return sample, next(lines, None) is None
    return sample, True


def sniffed(sample: list[str], *, tab_first: bool, columns: int) -> str:
    """The delimiter that cuts the first line into cells (into `columns` of them where that is known) and most others into as many."""
    order = ["\t", ",", ";", "|"] if tab_first else [",", "\t", ";", "|"]
    shares: dict[str, tuple[bool, float, int]] = {}
    for delimiter in order:
        with csv_field_limit(LONGEST_CELL):
            counts = [len(cells) for cells in csv.reader(sample, delimiter=delimiter) if cells]
        whole = counts[:-1] if len(counts) > 2 else counts  # a quoted cell may reach beyond the sample
        expected = columns or counts[0]
        if expected > 1:
            shares[delimiter] = (counts[0] == expected, sum(count == expected for count in whole) / len(whole), expected)
    if columns and not any(first for first, *_ in shares.values()):  # the names do not fit: let the error say how many cells there are
        return sniffed(sample, tab_first=tab_first, columns=0)
    return max(shares, key=lambda delimiter: shares[delimiter]) if shares else order[0]  # max keeps the first of equals


def plain_quotes(sample: list[str], delimiter: str, *, whole: bool) -> bool:
    """Whether `"` stands at the beginning of cells without quoting them: read as quotes, the lines make no table."""
    if not any(cell.startswith('"') for line in sample for cell in line.split(delimiter)):
        return False
    reader, counts, parsed = csv.reader(sample, delimiter=delimiter, strict=True), set(), 0
    try:
        with csv_field_limit(LONGEST_CELL):
            for cells in reader:
                counts.add(len(cells))
                parsed = reader.line_num
    except csv.Error as error:
        return whole or "end of data" not in str(error) or len(sample) - parsed > LONGEST_RECORD
    return len(counts - {0}) > 1
