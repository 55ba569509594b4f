"""Rows that are already in memory, or come one by one: frames, tables, Datasets, lists of dicts, generators.

Takes such an object. Gives a Reading of its columns.
Knows nothing of what a column means; pandas, polars and datasets are recognised without importing them.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from pellucid.errors import DataError
from pellucid.readers.chunks import CHUNK_ROWS, Chunk, Reading


def open_frame(source: Any) -> Reading | None:
    """A Reading of a frame, an Arrow table, a Dataset or an iterable of dicts; None for anything else."""
    family = type(source).__module__.partition(".")[0]
    if family == "pandas" and hasattr(source, "iloc") and hasattr(source, "columns"):
        return from_pandas(source)
    if family == "polars" and hasattr(source, "collect"):
        source = source.collect()
    if family == "polars" and hasattr(source, "iter_slices"):
        return from_polars(source)
    if family == "pyarrow" and hasattr(source, "column_names"):
        return from_arrow(source)
    if family == "datasets" and hasattr(source, "features") and hasattr(source, "with_format"):
        return from_dataset(source) if hasattr(source, "num_rows") else from_dicts(source, "IterableDataset")
    if isinstance(source, Iterable) and not isinstance(source, str | bytes | Mapping):
        return from_dicts(source, "the list" if isinstance(source, list | tuple) else "the rows")
    return None


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
    names = {column: getattr(feature, "names", None) for column, feature in dataset.features.items()}

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        start = 0
        for part in dataset.select_columns(list(wanted)).with_format("arrow").iter(CHUNK_ROWS):
            columns: dict[str, Any] = {}
            for name in wanted:
                values = part.column(name).to_pylist()
                known = names[name]
                columns[name] = [known[v] if isinstance(v, int) and 0 <= v < len(known) else None for v in values] if known else values
            yield Chunk(columns, start, part.num_rows)
            start += part.num_rows

    return Reading("the Dataset", tuple(dataset.column_names), chunks)


def from_dicts(source: Iterable[Any], name: str) -> Reading:
    """Dicts, one a row, from a list or from anything that gives them one by one; the first says which columns there are."""
    rows = iter(source)
    first = list(islice(rows, 1))
    for row, given in enumerate(first):
        check_dict(given, row, name)
    columns = tuple(str(key) for key in first[0]) if first else ()

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        start, following = 0, chain(first, rows)
        while part := list(islice(following, CHUNK_ROWS)):
            for place, row in enumerate(part):
                check_dict(row, start + place, name)
            yield Chunk({column: [row.get(column) for row in part] for column in wanted}, start, len(part))
            start += len(part)

    return Reading(name, columns, chunks)


def check_dict(row: object, number: int, name: str) -> None:
    """Each row must be a mapping."""
    if not isinstance(row, Mapping):
        cure = 'Give rows such as {"text": "…", "label": "…"}.'
        raise DataError(f"expected a dict, came {type(row).__name__}", place=f"{name}, row {number}", cure=cure)
