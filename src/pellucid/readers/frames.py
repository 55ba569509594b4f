"""Rows that are already in memory, or come one by one: frames, tables, Datasets, lists of dicts, generators.

Takes such an object, or a dict of columns. Gives a Reading of its columns.
Knows nothing of what a column means; pandas, polars and datasets are recognised without importing them.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from pellucid.errors import DataError
from pellucid.readers.chunks import CHUNK_ROWS, SPLIT_NAMES, Chunk, Reading, ReadOptions, in_chunks

SAMPLE = 100  # rows whose keys are the columns


def open_frame(source: Any, options: ReadOptions = ReadOptions()) -> Reading | None:
    """A Reading of a frame, an Arrow table, a Dataset, columns or an iterable of dicts; None for anything else."""
    families = families_of(source)
    if "pandas" in families and hasattr(source, "iloc") and hasattr(source, "columns"):
        return from_pandas(source)
    if "polars" in families and hasattr(source, "collect"):
        source = source.collect()
    if "polars" in families and hasattr(source, "iter_slices"):
        return from_polars(source)
    if "pyarrow" in families and hasattr(source, "schema") and hasattr(source, "num_rows"):
        return from_arrow(source)
    if "datasets" in families and hasattr(source, "features") and hasattr(source, "with_format"):
        return from_dataset(source) if hasattr(source, "num_rows") else from_stream(source, options)
    if isinstance(source, Mapping) and is_columns(source):
        return from_columns(source)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | bytearray | Mapping):
        return from_dicts(source, "the list" if isinstance(source, list | tuple) else "the rows", options)
    return None


def families_of(source: Any) -> frozenset[str]:
    """The packages that the class of a value comes from, those of its parents too: a GeoDataFrame is pandas'."""
    return frozenset(parent.__module__.partition(".")[0] for parent in type(source).__mro__)


def from_pandas(frame: Any) -> Reading:
    """A pandas DataFrame; its index plays no part."""
    columns = tuple(str(name) for name in frame.columns)
    places = {name: place for place, name in enumerate(columns)}

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        for start in range(0, len(frame), CHUNK_ROWS):
            part = frame.iloc[start : start + CHUNK_ROWS]
            yield Chunk({name: part.iloc[:, places[name]].tolist() for name in wanted}, start, len(part))

    return Reading("the DataFrame", columns, chunks)


def from_polars(frame: Any) -> Reading:
    """A polars DataFrame."""

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        for start in range(0, len(frame), CHUNK_ROWS):
            part = frame.slice(start, CHUNK_ROWS)
            yield Chunk({name: part.get_column(name).to_list() for name in wanted}, start, len(part))

    return Reading("the DataFrame", tuple(frame.columns), chunks)


def from_arrow(table: Any) -> Reading:
    """A pyarrow Table or RecordBatch."""

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        for start in range(0, table.num_rows, CHUNK_ROWS):
            part = table.slice(start, CHUNK_ROWS)
            yield Chunk({name: part.column(name) for name in wanted}, start, part.num_rows)

    return Reading("the Table", tuple(table.schema.names), chunks)


def from_dataset(dataset: Any) -> Reading:
    """A Dataset of Hugging Face; class numbers become the names that its features know."""
    names = class_names(dataset)

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        start = 0
        for part in dataset.select_columns(list(wanted)).with_format("arrow").iter(CHUNK_ROWS):
            values = {name: part.column(name).to_pylist() for name in wanted}
            columns = {name: [named(v, names[name]) for v in cells] if name in names else cells for name, cells in values.items()}
            yield Chunk(columns, start, part.num_rows)
            start += part.num_rows

    return Reading("the Dataset", tuple(dataset.column_names), chunks)


def from_stream(dataset: Any, options: ReadOptions) -> Reading:
    """An IterableDataset of Hugging Face, which has no length."""
    names = class_names(dataset)
    rows = ({key: named(value, names[key]) if key in names else value for key, value in row.items()} for row in dataset)
    return from_dicts(rows, "the IterableDataset", options)


def class_names(dataset: Any) -> dict[str, list[str]]:
    """The columns of class numbers, or of lists of them, with the names of the classes."""
    found = {}
    for column, feature in (dataset.features or {}).items():
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if names:
            found[column] = list(names)
    return found


def named(value: Any, names: list[str]) -> Any:
    """The name of a class number, or of each in a list; -1 is how Datasets say that the label is not known."""
    if isinstance(value, list):
        return [named(one, names) for one in value]
    if not isinstance(value, int) or value >= len(names):
        return value
    return None if value < 0 else names[value]


def is_columns(source: Mapping[Any, Any]) -> bool:
    """Whether a dict holds columns ({"text": ["…", "…"], "label": [0, 1]}) and not splits; some of its columns may hold dicts."""
    firsts: list[Any] = []
    if all(str(name).lower() in SPLIT_NAMES for name in source):
        return False
    for column in source.values():
        if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__getitem__") or not hasattr(column, "__len__"):
            return False
        if hasattr(column, "columns") or hasattr(column, "column_names"):  # a frame or a Dataset: a split
            return False
        firsts += list(column[:1])
    dicts = [isinstance(first, Mapping) for first in firsts]
    return not any(dicts) or not (all(dicts) or any(str(name).lower() in SPLIT_NAMES for name in source))


def from_columns(source: Mapping[Any, Any]) -> Reading:
    """A dict of columns: lists or arrays of one length. Raises DataError where their lengths differ."""
    columns = {str(name): column.tolist() if hasattr(column, "tolist") else column for name, column in source.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise DataError(f"the columns differ in length: {said}", place="the dict", cure="Give each column one cell a row.")
    rows = next(iter(lengths.values()))

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        for start in range(0, rows, CHUNK_ROWS):
            end = min(start + CHUNK_ROWS, rows)
            yield Chunk({name: columns[name][start:end] for name in wanted}, start, end - start)

    return Reading("the dict", tuple(columns), chunks)


def from_dicts(source: Iterable[Any], name: str, options: ReadOptions) -> Reading:
    """Dicts, one a row, from a list or from anything that gives them one by one; the first hundred say which columns there are."""
    rows = iter(source)
    first = [checked(row, number, name) for number, row in enumerate(islice(rows, min(SAMPLE, options.max_rows or SAMPLE)))]
    columns = tuple(dict.fromkeys(str(key) for row in first for key in row))

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        start = 0
        for part in in_chunks((checked(row, number, name) for number, row in enumerate(chain(first, rows))), characters, options.max_rows):
            yield Chunk({column: [row.get(column) for row in part] for column in wanted}, start, len(part))
            start += len(part)

    return Reading(name, columns, chunks)


def checked(row: Any, number: int, name: str) -> Mapping[str, Any]:
    """Each row must be a mapping."""
    if not isinstance(row, Mapping):
        cure = 'Give rows such as {"text": "…", "label": "…"}.'
        raise DataError(f"expected a dict, came {type(row).__name__}", place=f"{name}, row {number}", cure=cure)
    return row


def characters(row: Mapping[str, Any]) -> int:
    """How long the texts of a row are together."""
    return sum(len(value) for value in row.values() if isinstance(value, str))
