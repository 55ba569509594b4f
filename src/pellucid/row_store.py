"""Rows in Arrow: in memory while they are few, in a memory-mapped file when they are many.

Takes chunks of raw cells and the roles of their columns. Gives Arrow tables with the columns text, text_pair, target, row, line, file.
Knows nothing of splits, label sets or tasks, nor of what a cell means.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pellucid.disk import storage_errors
from pellucid.errors import DataError, PellucidError
from pellucid.files import atomic_file, cache_folder
from pellucid.readers.chunks import Chunk, Reading, ReadOptions
from pellucid.roles import Roles
from pellucid.target_cells import SPANS, CellReader, Missing, reader_of, split_cell
from pellucid.types import Note

if TYPE_CHECKING:
    import pyarrow as pa


class TableWriter:
    """Collects record batches; beyond `memory_bytes` they go to a file, which is mapped at the end. Use as a context manager."""

    def __init__(self, options: ReadOptions) -> None:
        self.limit, self.most = options.memory_bytes, options.max_bytes
        self.cache = Path(options.cache) if options.cache is not None else None
        self.batches: list[pa.RecordBatch] = []
        self.bytes = 0
        self.stack = ExitStack()
        self.file: Path | None = None
        self.writer: Any = None

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    def write(self, batch: "pa.RecordBatch") -> None:
        """Add rows. Raises DataError above `max_bytes`."""
        self.bytes += batch.nbytes
        if self.bytes > self.most:
            cure = "Raise ReadOptions(max_bytes=…), or take fewer: ReadOptions(max_rows=…)."
            raise DataError(f"the rows have more than {self.most:,} bytes", place=f"row {batch.column('row')[-1]}", cure=cure)
        if self.writer is not None:
            self.writer.write_batch(batch)
            return
        self.batches.append(batch)
        if self.bytes > self.limit:
            self.open_file(batch.schema)

    def open_file(self, schema: "pa.Schema") -> None:
        """Move what has been collected to a file."""
        import pyarrow as pa

        folder = self.cache if self.cache is not None else cache_folder("rows")
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"rows-{uuid4().hex}.arrow"
        temporary = self.stack.enter_context(atomic_file(self.file))
        self.writer = self.stack.enter_context(pa.ipc.new_file(str(temporary), schema))
        for batch in self.batches:
            self.writer.write_batch(batch)
        self.batches.clear()

    def table(self, schema: "pa.Schema") -> "pa.Table":
        """Everything that was written; the file is closed and mapped. It is removed from its folder at once: the map keeps it alive."""
        import pyarrow as pa

        if self.file is None:
            return pa.Table.from_batches(self.batches, schema)
        self.stack.close()
        mapped = pa.memory_map(str(self.file))
        table = pa.ipc.open_file(mapped).read_all()
        with suppress(OSError):  # a system that cannot remove a mapped file keeps it
            self.file.unlink()
        return table


def schema_of(roles: Roles, kind: str) -> "pa.Schema":
    """The columns of a stored split; `kind` is that of a CellReader."""
    import pyarrow as pa

    string = pa.large_string()  # more than 2 GiB of text in one column do not fit the offsets of a plain string
    spans = pa.large_list(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", string)]))
    target = {"set": pa.large_list(string), "number": pa.float64()} | dict.fromkeys(SPANS, spans)
    places = [("row", pa.int64()), ("line", pa.int64()), ("file", pa.string())]
    return pa.schema([*((role, string) for role in roles.texts), ("target", target.get(kind, string)), *places, ("split", pa.string())])


def plain(column: Any, place: str) -> Sequence[Any]:
    """A column as Python values. Raises DataError for bytes that claim to be UTF-8 and are not."""
    if not hasattr(column, "to_pylist"):
        return column
    try:
        return column.to_pylist()
    except UnicodeDecodeError as error:
        cure = "Write the file or the table again: Arrow strings must be UTF-8."
        raise DataError(f"byte 0x{error.object[error.start]:02x} is not UTF-8", place=place, cure=cure) from error


@dataclass
class Found:
    """What came up while rows were read: how their cells are read, what was left out, and tags that are not as the others."""

    reader: CellReader | None = None
    dropped: int = 0  # rows left out because a text or a split was missing
    first_dropped: str = ""
    loose: int = 0  # entities that begin without B-
    first_loose: str = ""
    first_suspect: str = ""  # where the first span is that seems to count bytes

    def drop(self, what: str, place: str) -> None:
        """One more row is left out."""
        self.dropped += 1
        self.first_dropped = self.first_dropped or f"{place}: {what}"

    def notes(self) -> Iterator[Note]:
        """What is to be said of it."""
        if self.reader is not None:
            yield from self.reader.notes()
            if self.loose and self.reader.found_roles.scheme in ("IOB2", "IOBES"):
                entities = "1 entity begins" if self.loose == 1 else f"{self.loose:,} entities begin"
                yield Note(f"{entities} with I- or E- where B- was expected", f"the first is in {self.first_loose}", "They count as begun.")
        if self.reader is not None and self.first_suspect:
            count, word = len(self.reader.suspects), self.reader.suspects[0]
            why = f"as characters they cut words, as bytes they do not; the first, in {self.first_suspect}, may mean {word[:40]!r}"
            change = "Count characters: the byte offset b is the character len(text.encode()[:b].decode())."
            yield Note("1 span seems to count bytes" if count == 1 else f"{count:,} spans seem to count bytes", why, change)
        if self.dropped:
            yield left_out(self.dropped, self.first_dropped)


def left_out(rows: int, first: str) -> Note:
    """What to say of rows that were not read."""
    what = f"{rows:,} row left out" if rows == 1 else f"{rows:,} rows left out"
    return Note(what, f"a cell is missing; the first is {first}", 'ReadOptions(on_missing="error") stops there.')


def stored(reading: Reading, roles: Roles, options: ReadOptions, name: str | None, found: Found) -> Iterator["pa.RecordBatch"]:
    """The rows of a reading as record batches; `name` is the split of all of them, None where a column says it or nothing does.

    Raises DataError and LabelError that say where the row is. Rows that miss a text or split are left out where the options say so;
    a missing label is kept as null, for whoever knows whether its split may be without.
    """
    import pyarrow as pa

    left = options.max_rows
    for whole in reading.chunks(roles.columns):
        rows = whole.rows if left is None else min(whole.rows, left)
        if not rows:
            continue
        columns = {name: plain(column, whole.place(0, reading.source, name) + " or below")[:rows] for name, column in whole.columns.items()}
        chunk = replace(whole, rows=rows, columns=columns)
        found.reader = found.reader or reader_of(columns, roles, options)
        cells = by_columns(chunk, found.reader) or by_rows(chunk, reading.source, found.reader, found)
        cells["split"] = [name] * len(cells["row"]) if name is not None else cells["split"]
        yield record_batch(cells, schema_of(roles, found.reader.kind), chunk, reading.source, roles)
        if left is not None:
            left -= rows
            if left == 0:
                return
    if found.reader is None:
        yield pa.RecordBatch.from_pylist([], schema_of(roles, "class"))


def by_columns(chunk: Chunk, reader: CellReader) -> dict[str, Any] | None:
    """The cells of a chunk under their roles, whole columns at a time; None where some cell needs a closer look."""
    roles, columns = reader.roles, dict[str, Any](chunk.columns)
    cells: dict[str, Any] = {role: columns[column] for role, column in roles.texts.items()}
    if reader.kind in SPANS or any(set(map(type, texts)) != {str} for texts in cells.values()):
        return None
    nothing = [None] * chunk.rows
    try:
        if len(roles.labels) > 1:
            values = zip(*(columns[label] for label in roles.labels), strict=True)
            cells["target"] = [reader.target(list(some), {}) for some in values]
        else:
            cells["target"] = once_each(columns[roles.labels[0]], lambda cell: reader.target([cell], {})) if roles.labels else nothing
        cells["split"] = once_each(columns[roles.split], split_cell) if roles.split is not None else nothing
    except (Missing, PellucidError):
        return None
    cells["row"] = range(chunk.first_row, chunk.first_row + chunk.rows)
    cells["line"] = nothing if chunk.lines is None else chunk.lines[: chunk.rows]
    cells["file"] = nothing if chunk.files is None else chunk.files[: chunk.rows]
    return cells


def once_each(column: Sequence[Any], convert: Callable[[Any], Any]) -> list[Any]:
    """Each cell converted, equal strings only once."""
    if set(map(type, column)) != {str}:
        return [convert(cell) for cell in column]
    known = {cell: convert(cell) for cell in set(column)}
    return [known[cell] for cell in column]


def by_rows(chunk: Chunk, source: str, reader: CellReader, seen: Found) -> dict[str, Any]:
    """The cells of a chunk under their roles, row by row: what is wrong is named, what is missing may be left out."""
    roles, columns = reader.roles, dict[str, Any](chunk.columns)
    texts, labels = [(role, columns[column]) for role, column in roles.texts.items()], [columns[label] for label in roles.labels]
    cells: dict[str, list[Any]] = {role: [] for role in (*roles.texts, "target", "row", "line", "file", "split")}
    for position in range(chunk.rows):
        role, loose, suspects = "text", reader.census.unbegun, len(reader.suspects)
        try:
            found = {}
            for role, values in texts:
                found[role] = reader.text(role, values[position])
            role = "target"
            target = reader.target([values[position] for values in labels], found)
            role = "split"
            part = None if roles.split is None else split_cell(columns[roles.split][position])
        except Missing as missing:
            place = chunk.place(position, source, column_of(roles, role))
            if reader.options.on_missing == "drop":
                seen.drop(str(missing), place)
                continue
            cure = 'Fill the cell or drop the row; ReadOptions(on_missing="drop") leaves such rows out.'
            raise DataError(str(missing), place=place, cure=cure) from None
        except PellucidError as error:
            raise error.at(chunk.place(position, source, column_of(roles, role))) from error
        if reader.census.unbegun > loose:
            place = chunk.place(position, source, column_of(roles, "target"))
            seen.loose, seen.first_loose = reader.census.unbegun, seen.first_loose or place
        if len(reader.suspects) > suspects:
            seen.first_suspect = seen.first_suspect or chunk.place(position, source, column_of(roles, "target"))
        for role, text in found.items():
            cells[role].append(text)
        cells["target"].append(target)
        cells["row"].append(chunk.first_row + position)
        cells["line"].append(None if chunk.lines is None else chunk.lines[position])
        cells["file"].append(None if chunk.files is None else chunk.files[position])
        cells["split"].append(part)
    return cells


def column_of(roles: Roles, role: str) -> str:
    """The name of the column that plays a role."""
    if role == "target":
        return ", ".join(roles.labels)
    return roles.split or "" if role == "split" else roles.texts[role]


def record_batch(cells: dict[str, Any], schema: "pa.Schema", chunk: Chunk, source: str, roles: Roles) -> "pa.RecordBatch":
    """The cells in Arrow; a text that no encoding can hold is named."""
    import pyarrow as pa

    try:
        return pa.RecordBatch.from_arrays([pa.array(cells[field.name], field.type) for field in schema], schema=schema)
    except UnicodeEncodeError as error:
        role, number, character = first_surrogate(cells)
        place = chunk.place(cells["row"][number] - chunk.first_row, source, column_of(roles, role))
        cure = 'It is half of a character: mend it with text.encode("utf-8", "replace").decode().'
        raise DataError(f"character {character} is a lone surrogate, which is no text", place=place, cure=cure) from error


def first_surrogate(cells: dict[str, Any]) -> tuple[str, int, int]:
    """The role, the place among the cells and the character of the first text or label that UTF-8 cannot hold."""
    for role, values in cells.items():
        for number, value in enumerate(values):
            parts = value if isinstance(value, list | tuple) else [value or ""]
            for place, character in enumerate("".join(part["label"] if isinstance(part, dict) else str(part) for part in parts)):
                if "\ud800" <= character <= "\udfff":
                    return role, number, place
    return "text", 0, 0
