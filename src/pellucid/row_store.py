"""Rows in Arrow: in memory while they are few, in a memory-mapped file when they are many.

Takes chunks of raw cells and the roles of their columns. Gives Arrow tables with the columns text, text_pair, target, row, line, file.
Knows nothing of splits, label sets or tasks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pellucid.disk import storage_errors
from pellucid.errors import DataError, LabelError, PellucidError, SettingError
from pellucid.files import atomic_file, cache_folder
from pellucid.labels import canonical_label, is_missing, label_sets, number_of, sort_labels
from pellucid.readers.chunks import SPLIT_NAMES, Chunk, Reading, ReadOptions
from pellucid.roles import Roles

if TYPE_CHECKING:
    import pyarrow as pa

ON = frozenset(("1", "1.0", "True", "true", "TRUE", "yes"))  # cells of a column of 0 and 1
OFF = frozenset(("0", "0.0", "False", "false", "FALSE", "no"))


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
    """The columns of a stored split."""
    import pyarrow as pa

    string = pa.large_string()  # more than 2 GiB of text in one column do not fit the offsets of a plain string
    target = {"class": string, "set": pa.large_list(string), "number": pa.float64()}[kind]
    places = [("row", pa.int64()), ("line", pa.int64()), ("file", pa.string())]
    return pa.schema([*((role, string) for role in roles.texts), ("target", target), *places, ("split", pa.string())])


def target_kind(columns: dict[str, Sequence[Any]], roles: Roles, options: ReadOptions) -> str:
    """Whether the targets are class names, sets of names, or numbers: what was asked for, or what the first rows show."""
    if options.label_kind in ("class", "number") and (len(roles.labels) > 1 or options.label_separator is not None):
        several = "several label columns" if len(roles.labels) > 1 else "a label_separator"
        problem = f"{several} make sets of labels, but label_kind is {options.label_kind!r}"
        raise SettingError(problem, place="label_kind", cure="Leave label_kind out, or name one label column.")
    if options.label_kind != "auto":
        return options.label_kind
    if len(roles.labels) > 1 or options.label_separator is not None:
        return "set"
    return "set" if roles.labels and any(is_set(cell) for cell in columns[roles.labels[0]]) else "class"


def is_set(cell: Any) -> bool:
    """Whether a cell holds several labels: a list, a set, an array."""
    return isinstance(cell, list | tuple | set | frozenset) or bool(getattr(cell, "ndim", 0))


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
class Dropped:
    """The rows that were left out because a text or a split was missing: how many, and where the first is."""

    rows: int = 0
    first: str = ""

    def note(self, what: str, place: str) -> None:
        """One more row is left out."""
        self.rows += 1
        self.first = self.first or f"{place}: {what}"


def stored(reading: Reading, roles: Roles, options: ReadOptions, name: str | None, dropped: Dropped) -> Iterator["pa.RecordBatch"]:
    """The rows of a reading as record batches; `name` is the split of all of them, None where a column says it or nothing does.

    Raises DataError and LabelError that say where the row is. Rows that miss a text or split are left out where the options say so;
    a missing label is kept as null, for whoever knows whether its split may be without.
    """
    import pyarrow as pa

    kind, schema = "", None
    left = options.max_rows
    for whole in reading.chunks(roles.columns):
        rows = whole.rows if left is None else min(whole.rows, left)
        if not rows:
            continue
        columns = {name: plain(column, whole.place(0, reading.source, name) + " or below")[:rows] for name, column in whole.columns.items()}
        chunk = replace(whole, rows=rows, columns=columns)
        if schema is None:
            kind = target_kind(columns, roles, options)
            schema = schema_of(roles, kind)
        cells = by_columns(chunk, roles, options, kind) or by_rows(chunk, reading.source, roles, options, (kind, dropped))
        cells["split"] = [name] * len(cells["row"]) if name is not None else cells["split"]
        yield record_batch(cells, schema, chunk, reading.source, roles)
        if left is not None:
            left -= rows
            if left == 0:
                return
    if schema is None:
        yield pa.RecordBatch.from_pylist([], schema_of(roles, "class"))


def by_columns(chunk: Chunk, roles: Roles, options: ReadOptions, kind: str) -> dict[str, Any] | None:
    """The cells of a chunk under their roles, whole columns at a time; None where some cell needs a closer look."""
    columns: dict[str, Any] = dict(chunk.columns)
    cells: dict[str, Any] = {role: columns[column] for role, column in roles.texts.items()}
    if any(set(map(type, texts)) != {str} for texts in cells.values()):
        return None
    nothing = [None] * chunk.rows
    try:
        if len(roles.labels) > 1:
            values = zip(*(columns[label] for label in roles.labels), strict=True)
            cells["target"] = [target_cell(list(some), roles.labels, options, kind) for some in values]
        else:
            column = columns[roles.labels[0]] if roles.labels else nothing
            cells["target"] = once_each(column, lambda cell: target_cell([cell], roles.labels, options, kind)) if roles.labels else nothing
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


def by_rows(chunk: Chunk, source: str, roles: Roles, options: ReadOptions, state: tuple[str, Dropped]) -> dict[str, Any]:
    """The cells of a chunk under their roles, row by row: what is wrong is named, what is missing may be left out.

    `state`: the kind of the targets, and what is left out.
    """
    kind, dropped = state
    columns: dict[str, Any] = dict(chunk.columns)
    texts, labels = [(role, columns[column]) for role, column in roles.texts.items()], [columns[label] for label in roles.labels]
    cells: dict[str, list[Any]] = {role: [] for role in (*roles.texts, "target", "row", "line", "file", "split")}
    for position in range(chunk.rows):
        role = "text"
        try:
            found = {}
            for role, values in texts:
                found[role] = text_cell(values[position])
            role = "target"
            target = target_cell([values[position] for values in labels], roles.labels, options, kind)
            role = "split"
            part = None if roles.split is None else split_cell(columns[roles.split][position])
        except Missing as missing:
            place = chunk.place(position, source, column_of(roles, role))
            if options.on_missing == "drop":
                dropped.note(str(missing), place)
                continue
            cure = 'Fill the cell or drop the row; ReadOptions(on_missing="drop") leaves such rows out.'
            raise DataError(str(missing), place=place, cure=cure) from None
        except PellucidError as error:
            raise error.at(chunk.place(position, source, column_of(roles, role))) from error
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


class Missing(Exception):
    """A cell that is not there; its place is added by whoever knows it."""


def text_cell(value: Any) -> str:
    """A text. Numbers, bytes and lists are refused: they are no texts."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        raise Missing("the text is missing")
    cure = "Convert the column to text before, or name another column with text=."
    raise DataError(f"expected a text, came {type(value).__name__} ({value!r:.40})", cure=cure)


def target_cell(values: list[Any], names: tuple[str, ...], options: ReadOptions, kind: str) -> Any:
    """A class name, the sorted names of a set, or a number; None where the label is missing, or the rows have none."""
    if not names:
        return None
    if len(names) > 1:
        on = [is_on(value) for value in values]
        return None if None in on else list(sort_labels(name for name, yes in zip(names, on, strict=True) if yes))
    if kind == "set":
        found = label_sets(values[0], options.label_separator)
        return None if found is None else list(sort_labels(named(found, options)))
    name = canonical_label(values[0])
    if name is None:
        return None
    if kind != "number":
        return named((name,), options)[0]
    number = number_of(name)
    if number is None:
        cure = "Mend the row, or read classes: ReadOptions(label_kind='class')."
        raise LabelError(f"expected a finite number, came {name!r:.60}", cure=cure)
    return number


def named(labels: tuple[str, ...], options: ReadOptions) -> tuple[str, ...]:
    """The names that belong to class numbers, where they were given."""
    if not options.label_names:
        return labels
    known = options.label_names
    for label in labels:
        if label not in known and not (label.isdecimal() and int(label) < len(known)):
            cure = f"label_names has {len(known)} names, numbered from 0."
            raise LabelError(f"label {label!r:.60} has no name", cure=cure)
    return tuple(label if label in known else known[int(label)] for label in labels)


def is_on(value: Any) -> bool | None:
    """Whether a cell of a column of 0 and 1 says yes; None where it is missing."""
    name = canonical_label(value)
    if name is None or name in ON or name in OFF:
        return None if name is None else name in ON
    raise LabelError(f"expected 0 or 1, came {value!r:.40}", cure="Name one label column, or columns of 0 and 1.")


SPLIT_CELLS = SPLIT_NAMES | {"false": "train", "0": "train", "true": "valid", "1": "valid"}


def split_cell(value: Any) -> str:
    """train, valid or test."""
    name = canonical_label(value)
    if name is None:
        raise Missing("the split is missing")
    if name.lower() not in SPLIT_CELLS:
        cure = "Use train, valid and test, or True for the rows that are kept aside (is_valid); split=False reads no split."
        raise DataError(f"expected train, valid or test, came {name!r:.40}", cure=cure)
    return SPLIT_CELLS[name.lower()]


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
            for place, character in enumerate("".join(value) if isinstance(value, list | tuple) else str(value or "")):
                if "\ud800" <= character <= "\udfff":
                    return role, number, place
    return "text", 0, 0
