"""The tokens of a whole split, kept on disk so that the second run starts at once.

Takes the function that encodes a chunk, rows that can be read in chunks, and a folder. Gives one TokenTable, memory-mapped from the folder.
Knows nothing of how a text becomes tokens, of tasks or models.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pellucid import files
from pellucid.errors import PellucidError, SettingError
from pellucid.token_table import TokenOptions, TokenTable
from pellucid.tokenizer import fingerprint
from pellucid.types import Columns, Target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EncodeChunk = Callable[[Columns, Sequence[Target] | None, TokenOptions], TokenTable]
FORMAT = 2
ARRAYS = {
    "ids": "int32",
    "starts": "int64",
    "rows": "int64",
    "windows": "int32",
    "type_ids": "uint8",
    "lost": "int32",
    "lost_words": "int32",
    "label_starts": "int64",
}
OPTIONAL = ("type_ids", "labels", "label_starts")


class Chunked(Protocol):
    """Rows that can be read a chunk at a time (a `data.Split`)."""

    def __len__(self) -> int: ...

    @property
    def has_targets(self) -> bool:
        """Whether the rows say what the answer is."""
        ...

    def chunks(self, size: int = 1024) -> Iterator[tuple[int, int]]:
        """First row and end of each chunk."""
        ...

    def columns(self, start: int, stop: int) -> Columns:
        """The texts of rows start to stop (exclusive)."""
        ...

    def targets(self, start: int, stop: int) -> list[Target]:
        """The targets of rows start to stop (exclusive)."""
        ...

    def place(self, row: int) -> str:
        """Where a row is in its source."""
        ...

    def fingerprint(self) -> str:
        """A hash of the texts."""
        ...


def encode_split(
    encode_chunk: EncodeChunk,
    split: Chunked,
    *,
    options: TokenOptions,
    tokenizer: "PreTrainedTokenizerBase",
    cache: Path | None = None,
    key: str = "",
) -> TokenTable:
    """The tokens of every row, chunk by chunk; `rows` are positions in `split`, and errors say where the row is in its source.

    With a folder `cache`, the arrays are written there and memory-mapped, and the next call with the same texts, targets, tokenizer,
    options and `key` reads them back. `key` says what else decides the labels: the task's tag and settings. Raises what `encode_chunk`
    raises, SettingError for a cache without a key, StorageError where the folder cannot be written.
    """
    if cache is None:
        return TokenTable.concatenate(list(_chunks(encode_chunk, split, options)))
    if split.has_targets and not key:
        raise SettingError("the cache needs to know what decides the labels", place="key", cure="Pass the task's tag and settings as text.")
    digest = blake2b(json.dumps([FORMAT, key, fingerprint(tokenizer, options), split.fingerprint(), len(split)]).encode(), digest_size=20)
    if split.has_targets:
        for start, stop in split.chunks():
            digest.update(repr(list(split.targets(start, stop))).encode("utf-8", "surrogatepass"))
    folder = Path(cache) / f"tokens-{digest.hexdigest()}"
    table = open_table(folder)
    if table is None:
        save_table(TokenTable.concatenate(list(_chunks(encode_chunk, split, options))), folder)
        table = open_table(folder)
    if table is None:
        raise SettingError(
            "the token cache cannot be read back", place=str(folder), cure="Choose a folder on a local disk, or leave `cache` out."
        )
    return table


def save_table(table: TokenTable, folder: Path) -> None:
    """Write the arrays of a table into a folder, whole or not at all. Raises StorageError."""
    present = [name for name in (*ARRAYS, "labels") if getattr(table, name) is not None]
    with files.atomic_folder(folder) as fresh:
        for name in present:
            files.write_npy(fresh / f"{name}.npy", getattr(table, name))
        sizes = {name: [str(getattr(table, name).dtype), *getattr(table, name).shape] for name in present}
        files.write_json(fresh / "table.json", {"format": FORMAT, "arrays": sizes})


def open_table(folder: Path) -> TokenTable | None:
    """The table of a folder that `save_table` wrote, memory-mapped; None where there is none or it is not whole (a cache is made again)."""
    try:
        described = json.loads((folder / "table.json").read_text("utf-8"))
        if described["format"] != FORMAT:
            return None
        arrays = {name: _mapped(folder / f"{name}.npy", shape) for name, shape in described["arrays"].items()}
        content: dict[str, Any] = dict.fromkeys(OPTIONAL) | arrays
        table = TokenTable(**content)
        return table if _is_whole(table) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _chunks(encode_chunk: EncodeChunk, split: Chunked, options: TokenOptions) -> Iterator[TokenTable]:
    """The table of each chunk, its rows counted from the start of the split; one empty table where there are no rows."""
    for start, stop in list(split.chunks()) or [(0, 0)]:
        columns = split.columns(start, stop)
        targets = split.targets(start, stop) if split.has_targets else None
        try:
            table = encode_chunk(columns, targets, options)
        except PellucidError as error:
            raise _placed(error, encode_chunk, split, (start, stop), options) from error
        yield replace(table, rows=table.rows + start)


def _placed(
    error: PellucidError, encode_chunk: EncodeChunk, split: Chunked, bounds: tuple[int, int], options: TokenOptions
) -> PellucidError:
    """The same error with the place in the source: the rows of the chunk are tried one at a time until one fails. A setting has no row."""
    if isinstance(error, SettingError):
        return error
    for row in range(*bounds):
        try:
            encode_chunk(split.columns(row, row + 1), split.targets(row, row + 1) if split.has_targets else None, options)
        except PellucidError as single:
            column = single.place.partition(", ")[2]
            place = f"{split.place(row)}, {column}" if column else split.place(row)
            return type(single)(single.problem, place=place, cure=single.cure)
    return error


def _mapped(path: Path, described: list[Any]) -> np.ndarray[Any, Any]:
    kind, *shape = described
    empty = 0 in shape  # an empty file cannot be mapped
    array = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
    if array.dtype != np.dtype(kind) or list(array.shape) != shape:
        raise ValueError(f"{path.name} is not what table.json says")
    return np.asarray(array)


def _is_whole(table: TokenTable) -> bool:
    kinds = all(getattr(table, name) is None or getattr(table, name).dtype == np.dtype(kind) for name, kind in ARRAYS.items())
    windows = len(table.rows)
    flat = table.label_starts is not None
    columns = (table.windows, table.lost, table.lost_words, *([] if table.labels is None or flat else [table.labels]))
    aligned = len(table.starts) == windows + 1 and all(len(column) == windows for column in columns)
    if table.label_starts is not None:
        labels = 0 if table.labels is None else len(table.labels)
        aligned = aligned and len(table.label_starts) == windows + 1 and int(table.label_starts[-1]) == labels
    typed = table.type_ids is None or len(table.type_ids) == len(table.ids)
    return kinds and aligned and typed and int(table.starts[0]) == 0 and int(table.starts[-1]) == len(table.ids)
