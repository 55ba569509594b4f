"""Rows in, examples out.

Takes files, folders, frames, Datasets and lists, and which column is what. Gives splits whose rows stay in Arrow; one row is an Example.
Knows nothing of tokens, models or tasks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import DataError
from pellucid.readers.chunks import CHUNK_ROWS, Reading, ReadOptions, place_of
from pellucid.readers.delimited import open_delimited
from pellucid.readers.folders import open_folder
from pellucid.readers.frames import open_frame
from pellucid.readers.jsonl import open_jsonl
from pellucid.readers.opening import checked_path, first_bytes
from pellucid.readers.parquet import open_parquet
from pellucid.roles import Asked, Roles, find_roles
from pellucid.row_store import TableWriter, schema_of, stored
from pellucid.splitting import key_of, validation_mask
from pellucid.types import BoolArray, Columns, Example, IntArray, Note, Target
from pellucid.view import Cell, Lines, Stack, Table, View

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ReadOptions", "Roles", "Rows", "Split", "read"]

SPLIT_NAMES = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid"}
LABELS_SHOWN = 12


@dataclass(frozen=True)
class Split:
    """Some rows of a source, in Arrow. `split[i]` is an Example, made when it is asked for."""

    name: str
    table: "pa.Table"  # text, text_pair, target, row, line, file
    roles: Roles
    source: str
    has_targets: bool

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, position: int) -> Example:
        place = range(len(self))[position]  # IndexError past the end, as for any sequence
        row = self.table.slice(place, 1)
        fields = {role: row.column(role)[0].as_py() for role in self.roles.texts}
        return Example(row.column("row")[0].as_py(), fields, self.targets(place, place + 1)[0])

    def __iter__(self) -> Iterator[Example]:
        return (self[position] for position in range(len(self)))

    def chunks(self, size: int = 1024) -> Iterator[tuple[int, int]]:
        """First row and end of each chunk."""
        return ((start, min(start + size, len(self))) for start in range(0, len(self), size))

    def columns(self, start: int, stop: int) -> Columns:
        """The texts of rows start to stop (exclusive): role → one string a row."""
        part = self.table.slice(start, stop - start)
        return {role: part.column(role).to_pylist() for role in self.roles.texts}

    def targets(self, start: int, stop: int) -> list[Target]:
        """The targets of rows start to stop (exclusive); None each where the split has none."""
        if not self.has_targets:
            return [None] * (stop - start)
        found = self.table.column("target").slice(start, stop - start).to_pylist()
        return [tuple(target) if isinstance(target, list) else target for target in found]

    @property
    def row_numbers(self) -> IntArray:
        """The number of each row in its source, (rows,)."""
        numbers: IntArray = self.table.column("row").to_numpy()
        return numbers

    def place(self, position: int) -> str:
        """Where a row is: `reviews.csv, line 18 (row 16)`."""
        row = self.table.slice(range(len(self))[position], 1)
        return place_of(self.source, *(row.column(name)[0].as_py() for name in ("row", "line", "file")))

    def select(self, positions: Sequence[int] | IntArray) -> "Split":
        """The rows at these positions, in this order."""
        return replace(self, table=self.table.take(np.asarray(positions, dtype=np.int64)).combine_chunks())

    def without_targets(self) -> "Split":
        """The same rows, as if nobody knew the answers."""
        return replace(self, has_targets=False)

    def fingerprint(self) -> str:
        """A hash of the texts."""
        digest = blake2b(repr(self.roles.texts).encode(), digest_size=16)
        for start, stop in self.chunks(CHUNK_ROWS):
            for role, texts in self.columns(start, stop).items():
                digest.update(role.encode() + b"\x1e".join(text.encode("utf-8") + str(len(text)).encode() for text in texts))
        return digest.hexdigest()


@dataclass(frozen=True)
class Rows:
    """The splits of a source, with what was chosen on the way."""

    splits: Mapping[str, Split]
    roles: Roles
    source: str
    notes: tuple[Note, ...] = ()

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            cure = "ReadOptions(valid_fraction=0.2) makes one." if name == "valid" else "Name another, or add rows for it."
            raise DataError(f"there is no split {name!r}, only {', '.join(self.splits)}", place=self.source, cure=cure)
        return self.splits[name]

    @property
    def train(self) -> Split:
        """The rows to learn from. Raises DataError where there are none."""
        return self["train"]

    @property
    def valid(self) -> Split:
        """The rows kept aside. Raises DataError where there are none."""
        return self["valid"]

    @property
    def test(self) -> Split:
        """The rows for the very end. Raises DataError where there are none."""
        return self["test"]

    def view(self) -> View:
        """The splits with their labels, a few rows, and what was chosen."""
        counts = {name: label_counts(split) for name, split in self.splits.items()}
        labels = list(dict.fromkeys(label for found in counts.values() for label in found))[:LABELS_SHOWN]
        lines: tuple[tuple[Cell, ...], ...] = tuple(
            (name, len(split), *(counts[name].get(label, 0) for label in labels)) for name, split in self.splits.items()
        )
        first = next(iter(self.splits.values()))
        peek = [first[position] for position in range(min(3, len(first)))]
        texts = tuple((one.row, " ⏐ ".join(one.fields.values())[:160], str(one.target)) for one in peek)
        parts = [
            Table(f"rows of {self.source}", ("split", "rows", *labels), lines),
            Table("the first rows", ("row", "text", "target"), texts),
        ]
        notes = [Lines("chosen for you", tuple(map(str, self.notes)))] if self.notes else []
        return Stack("rows", (*parts, *notes))


def label_counts(split: Split) -> dict[str, int]:
    """How many rows each label has, in label order; nothing where there are too many different ones to be classes."""
    from pellucid.labels import sort_labels

    counts: dict[str, int] = {}
    for start, stop in split.chunks(CHUNK_ROWS):
        for target in split.targets(start, stop):
            for label in target if isinstance(target, tuple) else (target,):
                if isinstance(label, str):
                    counts[label] = counts.get(label, 0) + 1
        if len(counts) > 1000:
            return {}
    return {label: counts[label] for label in sort_labels(counts)}


def read(
    source: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | bool | None = None,
    split: str | None = None,
    options: ReadOptions = ReadOptions(),
) -> Rows:
    """Rows from a file (csv, tsv, jsonl, parquet, also .gz), a folder of classes, a frame, a Dataset, a list or a generator of dicts.

    A dict (or DatasetDict) of such sources gives its keys as splits. Columns that are not named are guessed by their names, and said.
    `label` may name several columns of 0 and 1; `label=False` reads none. `split` names a column of train/valid/test or is_valid.
    Raises DataError and LabelError with file, row and column, SettingError for options that are not possible.
    """
    asked = Asked(text, text_pair, tuple(label) if isinstance(label, list) else label, split)  # type: ignore[arg-type]
    if isinstance(source, Mapping):
        return read_splits(source, asked, options)
    reading = open_source(source, options)
    roles, notes = find_roles(reading.columns, asked, reading.source)
    with TableWriter(options) as writer:
        dropped, schema = write_all(writer, reading, roles, options, None)
        table = writer.table(schema)
    whole = Split("train", table, roles, reading.source, roles.label is not None)
    if not len(whole):
        header = " It has a header and nothing below it" if reading.columns else ""
        raise DataError(f"there are no rows.{header}", place=reading.source, cure="Give at least one row.")
    notes = (*reading.notes, *notes, *dropped)
    if roles.split is not None:
        masks = {name: split_mask(table, name) for name in ("train", "valid", "test")}
    elif options.valid_fraction and len(whole) > 1:
        aside = automatic_mask(whole, options)
        masks = {"train": ~aside, "valid": aside}
        share = f"{int(aside.sum()):,} of {len(whole):,} rows are kept aside for validation"
        why = f"no split was given; drawn with seed {options.seed}, in proportion to the labels, equal texts together"
        notes = (*notes, Note(share, why, "Pass split=, or ReadOptions(valid_fraction=…, seed=…)."))
    else:
        return Rows({"train": whole}, roles, reading.source, notes)
    splits = {name: part(whole, name, mask, options) for name, mask in masks.items() if mask.any()}
    return Rows(splits, roles, reading.source, notes)


def read_splits(sources: Mapping[str, Any], asked: Asked, options: ReadOptions) -> Rows:
    """Each source is a split of its own; the first says which columns there are."""
    splits: dict[str, Split] = {}
    notes: tuple[Note, ...] = ()
    for given, source in sources.items():
        name = SPLIT_NAMES.get(str(given).lower(), str(given).lower())
        reading = open_source(source, options)
        found, found_notes = find_roles(reading.columns, asked, reading.source)
        roles = replace(found, split=None)
        with TableWriter(options) as writer:
            dropped, schema = write_all(writer, reading, roles, options, name)
            table = writer.table(schema)
        if not table.num_rows:
            raise DataError(
                "there are no rows", place=f"{reading.source}, split {name}", cure="Give at least one row, or leave the split out."
            )
        splits[name] = Split(name, table, roles, reading.source, roles.label is not None)
        notes = tuple(dict.fromkeys((*notes, *reading.notes, *found_notes, *dropped)))
    if not splits:
        raise DataError("there are no splits", place="the dict", cure='Give {"train": …, "valid": …}.')
    first = next(iter(splits.values()))
    return Rows(splits, first.roles, first.source, notes)


def write_all(
    writer: TableWriter, reading: Reading, roles: Roles, options: ReadOptions, name: str | None
) -> tuple[tuple[Note, ...], "pa.Schema"]:
    """Store a reading; how many rows were left out is said."""
    schema, last, count = schema_of(roles, "class"), -1, 0
    for batch in stored(reading, roles, options, name):
        writer.write(batch)
        schema, count = batch.schema, count + batch.num_rows
        last = max(last, batch.column("row")[-1].as_py()) if batch.num_rows else last
    lost = last + 1 - count
    notes = (
        Note(f"{lost:,} rows left out", "a text, label or split was missing in them", 'ReadOptions(on_missing="error") names the first.'),
    )
    return (notes if lost > 0 else ()), schema


def open_source(source: Any, options: ReadOptions) -> Reading:
    """The reader for a source, by what it is and, for files, by its name. Raises DataError for what pellucid cannot read."""
    if not isinstance(source, str | Path):
        reading = open_frame(source)
        if reading is None:
            cure = "Give a path, a frame, a Dataset, or a list of dicts."
            raise DataError(f"cannot read rows from {type(source).__name__}", place="source", cure=cure)
        return reading
    path = checked_path(Path(source).expanduser())
    if path.is_dir():
        return open_folder(path, options)
    kinds = {suffix.lower() for suffix in path.suffixes[-2:]}
    if ".parquet" in kinds or first_bytes(path, 4) == b"PAR1":
        return open_parquet(path, options)
    if kinds & {".jsonl", ".ndjson", ".json"}:
        return open_jsonl(path, options)
    if kinds & {".csv", ".tsv", ".txt", ".tab"}:
        return open_delimited(path, options)
    cure = "Give .csv, .tsv, .txt, .jsonl or .parquet (also .gz), or read it into a frame first."
    raise DataError(f"cannot tell what kind of file {path.name} is", place=str(path), cure=cure)


def split_mask(table: "pa.Table", name: str) -> BoolArray:
    """Which rows say that they belong to this split, (rows,)."""
    import pyarrow.compute as pc

    mask: BoolArray = pc.equal(table.column("split"), name).to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask


def automatic_mask(whole: Split, options: ReadOptions) -> BoolArray:
    """Which rows are kept aside where nobody said, (rows,)."""

    def keys() -> Iterator[int]:
        for start, stop in whole.chunks(CHUNK_ROWS):
            yield from map(key_of, *whole.columns(start, stop).values())

    def targets() -> Iterator[Target]:
        for start, stop in whole.chunks(CHUNK_ROWS):
            yield from whole.targets(start, stop)

    return validation_mask(keys(), targets(), fraction=options.valid_fraction, seed=options.seed)


def part(whole: Split, name: str, mask: BoolArray, options: ReadOptions) -> Split:
    """The rows of a mask as a split with a table of its own, so that a chunk of it is a slice."""
    import pyarrow as pa

    with TableWriter(options) as writer:
        start = 0
        for batch in whole.table.to_batches(CHUNK_ROWS):
            writer.write(batch.filter(pa.array(mask[start : start + batch.num_rows])))
            start += batch.num_rows
        return replace(whole, name=name, table=writer.table(whole.table.schema))
