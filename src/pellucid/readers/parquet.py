"""Parquet files.

Takes a path and the limits of a read. Gives a Reading of Arrow columns, a batch at a time.
Knows nothing of what a column means.
"""

from collections.abc import Iterator
from pathlib import Path

from pellucid.errors import DataError
from pellucid.readers.chunks import CHUNK_ROWS, Chunk, Reading, ReadOptions


def open_parquet(path: Path, options: ReadOptions) -> Reading:
    """A Parquet file. Raises DataError where it is damaged, no Parquet, or larger than `max_bytes`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"it cannot be read as Parquet: {one_line(error)}", place=path.name, cure="Write it again, or pass CSV or JSONL."
        ) from error
    unpacked = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
    if unpacked > options.max_bytes:
        cure = f"Raise ReadOptions(max_bytes={options.max_bytes}) if this is meant."
        raise DataError(f"{unpacked:,} bytes unpacked, at most {options.max_bytes:,}", place=path.name, cure=cure)

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=list(wanted)):
                yield Chunk({name: batch.column(name) for name in wanted}, number, batch.num_rows)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"the file is damaged: {one_line(error)}", place=f"{path.name}, after row {number}", cure="Write it again."
            ) from error

    return Reading(path.name, tuple(file.schema_arrow.names), chunks)


def one_line(error: Exception) -> str:
    """What Arrow says, without its line ends."""
    return " ".join(str(error).split())
