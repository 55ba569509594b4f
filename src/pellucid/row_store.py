"""Rows in Arrow: in memory while they are few, in a memory-mapped file when they are many.

Takes chunks of raw cells and the roles of their columns. Gives Arrow tables with the columns text, text_pair, target, row, line, file.
Knows nothing of splits, label sets or tasks.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pellucid.errors import DataError, LabelError, PellucidError
from pellucid.files import atomic_file, cache_folder
from pellucid.labels import canonical_label, is_missing, label_sets, sort_labels
from pellucid.readers.chunks import Chunk, Reading, ReadOptions
from pellucid.roles import Roles

if TYPE_CHECKING:
    import pyarrow as pa

ON = frozenset(("1", "True", "true", "TRUE", "yes"))  # cells of a column of 0 and 1
OFF = frozenset(("0", "False", "false", "FALSE", "no"))


class TableWriter:
    """Collects record batches; beyond `memory_bytes` they go to a file, which is mapped at the end. Use as a context manager."""

    def __init__(self, options: ReadOptions) -> None:
        self.limit = options.memory_bytes
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
        """Add rows."""
        if self.writer is not None:
            self.writer.write_batch(batch)
            return
        self.batches.append(batch)
        self.bytes += batch.nbytes
        if self.bytes > self.limit:
            self.open_file(batch.schema)

    def open_file(self, schema: "pa.Schema") -> None:
        """Move what has been collected to a file."""
        import pyarrow as pa

        folder = self.cache if self.cache is not None else cache_folder("rows")
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
        self.file.unlink()
        return table


def schema_of(roles: Roles, kind: str) -> "pa.Schema":
    """The columns of a stored split."""
    import pyarrow as pa

    target = {"class": pa.string(), "set": pa.list_(pa.string()), "number": pa.float64()}[kind]
    places = [("row", pa.int64()), ("line", pa.int64()), ("file", pa.string())]
    return pa.schema([*((role, pa.string()) for role in roles.texts), ("target", target), *places, ("split", pa.string())])


def target_kind(chunk: Chunk, roles: Roles, options: ReadOptions) -> str:
    """Whether the targets are class names, sets of names, or numbers: what was asked for, or what the first rows show."""
    if options.label_kind != "auto":
        return options.label_kind
    if len(roles.labels) > 1 or options.label_separator is not None:
        return "set"
    if not roles.labels:
        return "class"
    cells = plain(chunk.columns[roles.labels[0]])
    return (
        "set"
        if any(isinstance(cell, list | tuple | set) or (hasattr(cell, "tolist") and getattr(cell, "ndim", 0)) for cell in cells)
        else "class"
    )


def plain(column: Any) -> Sequence[Any]:
    """A column as Python values."""
    return column.to_pylist() if hasattr(column, "to_pylist") else column


def stored(reading: Reading, roles: Roles, options: ReadOptions, name: str | None) -> Iterator["pa.RecordBatch"]:
    """The rows of a reading as record batches; `name` is the split of all of them, None where a column says it or nothing does.

    Raises DataError and LabelError that say where the row is. Rows that miss a cell are left out where the options say so.
    """
    import pyarrow as pa

    kind, schema = "", None
    left = options.max_rows
    for chunk in reading.chunks(roles.columns):
        if schema is None:
            kind = target_kind(chunk, roles, options)
            schema = schema_of(roles, kind)
        cells = converted(chunk, reading.source, roles, options, kind)
        cells["split"] = [name] * len(cells["row"]) if name is not None else cells["split"]
        batch = record_batch(cells, schema, chunk, reading.source)
        if left is not None:
            batch = batch.slice(0, left)
            left -= batch.num_rows
        yield batch
        if left == 0:
            return
    if schema is None:
        yield pa.RecordBatch.from_pylist([], schema_of(roles, "class"))


def converted(chunk: Chunk, source: str, roles: Roles, options: ReadOptions, kind: str) -> dict[str, list[Any]]:
    """The cells of a chunk under their roles, each checked."""
    columns = {name: plain(column) for name, column in chunk.columns.items()}
    cells: dict[str, list[Any]] = {role: [] for role in (*roles.texts, "target", "row", "line", "file", "split")}
    for position in range(chunk.rows):
        column = roles.text
        try:
            texts = []
            for column in roles.texts.values():
                texts.append(text_cell(columns[column][position], options))
            column = ", ".join(roles.labels)
            target = target_cell([columns[label][position] for label in roles.labels], roles.labels, options, kind)
            column = roles.split or ""
            part = None if roles.split is None else split_cell(columns[roles.split][position], options)
        except Missing as missing:
            if options.on_missing == "drop":
                continue
            cure = 'Fill the cell or drop the row; ReadOptions(on_missing="drop") leaves such rows out.'
            raise DataError(str(missing), place=chunk.place(position, source, column), cure=cure) from None
        except PellucidError as error:
            raise error.at(chunk.place(position, source, column)) from error
        for role, text in zip(roles.texts, texts, strict=True):
            cells[role].append(text)
        cells["target"].append(target)
        cells["row"].append(chunk.first_row + position)
        cells["line"].append(None if chunk.lines is None else chunk.lines[position])
        cells["file"].append(None if chunk.files is None else chunk.files[position])
        cells["split"].append(part)
    return cells


class Missing(Exception):
    """A cell that is not there; its place is added by whoever knows it."""


def text_cell(value: Any, options: ReadOptions) -> str:
    """A text. Numbers, bytes and lists are refused: they are no texts."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        raise Missing("the text is missing")
    cure = "Convert the column to text before, or name another column with text=."
    raise DataError(f"expected a text, came {type(value).__name__} ({value!r:.40})", cure=cure)


def target_cell(values: list[Any], names: tuple[str, ...], options: ReadOptions, kind: str) -> Any:
    """A class name, the sorted names of a set, or a number; None where the rows have no labels."""
    if not names:
        return None
    if len(names) > 1:
        return sort_labels(name for name, value in zip(names, values, strict=True) if is_on(value))
    if kind == "set":
        found = label_sets(values[0], options.label_separator)
        if found is None:
            raise Missing("the labels are missing")
        return list(named(found, options))
    name = canonical_label(values[0])
    if name is None:
        raise Missing("the label is missing")
    if kind == "number":
        try:
            return float(name)
        except ValueError:
            cure = "Mend the row, or read classes: ReadOptions(label_kind='class')."
            raise LabelError(f"expected a number, came {name!r}", cure=cure) from None
    return named((name,), options)[0]


def named(labels: tuple[str, ...], options: ReadOptions) -> tuple[str, ...]:
    """The names that belong to class numbers, where they were given."""
    if not options.label_names:
        return labels
    known = options.label_names
    for label in labels:
        if label not in known and not (label.isdigit() and int(label) < len(known)):
            cure = f"label_names has {len(known)} names, numbered from 0."
            raise LabelError(f"label {label!r} has no name", cure=cure)
    return tuple(label if label in known else known[int(label)] for label in labels)


def is_on(value: Any) -> bool:
    """Whether a cell of a column of 0 and 1 says yes."""
    name = canonical_label(value)
    if name in ON or name in OFF:
        return name in ON
    if name is None:
        raise Missing("a label column has no 0 or 1")
    raise LabelError(f"expected 0 or 1, came {value!r:.40}", cure="Name one label column, or columns of 0 and 1.")


SPLIT_NAMES = {"train": "train", "training": "train", "false": "train", "0": "train"}
SPLIT_NAMES |= dict.fromkeys(("valid", "validation", "val", "dev", "true", "1"), "valid") | {"test": "test"}


def split_cell(value: Any, options: ReadOptions) -> str:
    """train, valid or test."""
    name = canonical_label(value)
    if name is None:
        raise Missing("the split is missing")
    if name.lower() not in SPLIT_NAMES:
        cure = "Use train, valid and test, or True for the rows that are kept aside (is_valid)."
        raise DataError(f"expected train, valid or test, came {name!r:.40}", cure=cure)
    return SPLIT_NAMES[name.lower()]


def record_batch(cells: dict[str, list[Any]], schema: "pa.Schema", chunk: Chunk, source: str) -> "pa.RecordBatch":
    """The cells in Arrow; a text that no encoding can hold is named."""
    import pyarrow as pa

    try:
        return pa.RecordBatch.from_arrays([pa.array(cells[field.name], field.type) for field in schema], schema=schema)
    except UnicodeEncodeError as error:
        role, number, character = first_surrogate(cells)
        place = chunk.place(cells["row"][number] - chunk.first_row, source, role)
        cure = 'It is half of a character: mend it with text.encode("utf-8", "replace").decode().'
        raise DataError(f"character {character} is a lone surrogate, which is no text", place=place, cure=cure) from error


def first_surrogate(cells: dict[str, list[Any]]) -> tuple[str, int, int]:
    """The role, the place in the chunk and the character of the first text that UTF-8 cannot hold."""
    for role, values in cells.items():
        for number, value in enumerate(values):
            for place, character in enumerate(value if isinstance(value, str) else ()):
                if "\ud800" <= character <= "\udfff":
                    return role, number, place
    return "text", 0, 0
