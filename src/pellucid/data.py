"""Rows in, examples out.

Takes files, folders, frames, Datasets and lists, and which column is what. Gives splits whose rows stay in Arrow; one row is an Example.
Knows nothing of tokens, models or tasks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pellucid.errors import DataError, PellucidError
from pellucid.labels import are_numbers, sort_labels
from pellucid.readers.chunks import CHUNK_ROWS, SPLIT_NAMES, Reading, ReadOptions, place_of
from pellucid.readers.delimited import open_delimited
from pellucid.readers.folders import open_folder, split_files
from pellucid.readers.frames import open_frame
from pellucid.readers.jsonl import open_jsonl
from pellucid.readers.opening import checked_path, first_bytes
from pellucid.readers.parquet import open_parquet
from pellucid.roles import Asked, Roles, find_roles
from pellucid.row_store import Dropped, TableWriter, schema_of, stored
from pellucid.splitting import key_of, validation_mask
from pellucid.types import BoolArray, Columns, Example, IntArray, Note, Target
from pellucid.view import Cell, Lines, Stack, Table, View

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ReadOptions", "Roles", "Rows", "Split", "read"]

LABELS_SHOWN = 12
NAME_SHOWN = 40  # characters of a label at the head of a column


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

    @overload
    def __getitem__(self, position: int) -> Example: ...

    @overload
    def __getitem__(self, position: slice) -> "Split": ...

    def __getitem__(self, position: int | slice) -> "Example | Split":
        places = range(len(self))[position]  # IndexError past the end, as for any sequence
        if isinstance(places, range):
            return self.select(np.arange(places.start, places.stop, places.step))
        row = self.table.slice(places, 1)
        fields = {role: row.column(role)[0].as_py() for role in self.roles.texts}
        return Example(row.column("row")[0].as_py(), fields, self.targets(places, places + 1)[0])

    def __iter__(self) -> Iterator[Example]:
        for start, stop in self.chunks():
            numbers, texts = self.row_numbers[start:stop].tolist(), self.columns(start, stop)
            for place, (row, target) in enumerate(zip(numbers, self.targets(start, stop), strict=True)):
                yield Example(row, {role: texts[role][place] for role in texts}, target)

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
        """The rows at these positions, in this order; or those where a mask (rows,) is true. Raises IndexError beyond the end."""
        chosen = np.asarray(positions)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise IndexError(f"a mask for {len(self)} rows has the shape {chosen.shape}")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        if len(chosen) and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"positions {chosen.min()} to {chosen.max()} of {len(self)} rows")
        return replace(self, table=self.table.take(np.where(chosen < 0, chosen + len(self), chosen)).combine_chunks())

    def without_targets(self) -> "Split":
        """The same rows, as if nobody knew the answers."""
        return replace(self, has_targets=False)

    def fingerprint(self) -> str:
        """A hash of the texts."""
        digest = blake2b(repr((self.roles.texts.keys(), len(self))).encode(), digest_size=16)
        for start, stop in self.chunks():
            for texts in self.columns(start, stop).values():
                digest.update(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)).tobytes())
                digest.update("".join(texts).encode("utf-8"))
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
            draws = name == "valid" and "train" in self.splits
            cure = "ReadOptions(valid_fraction=0.2) keeps some rows of train aside." if draws else "Name another, or add rows for it."
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
        every = list(dict.fromkeys(label for found in counts.values() for label in found))
        labels, left = every[:LABELS_SHOWN], len(every) - LABELS_SHOWN
        lines: tuple[tuple[Cell, ...], ...] = tuple(
            (name, len(split), *(counts[name].get(label, 0) for label in labels)) for name, split in self.splits.items()
        )
        heads = tuple(label if len(label) <= NAME_SHOWN else label[:NAME_SHOWN] + "…" for label in labels)
        first = next(iter(self.splits.values()))
        peek = [first[position] for position in range(min(3, len(first)))]
        texts = tuple((one.row, " ⏐ ".join(one.fields.values())[:160], target_text(one.target)) for one in peek)
        parts = [
            Table(f"rows of {self.source}", ("split", "rows", *heads), lines, f"{left:,} more labels are not shown." if left > 0 else ""),
            Table("the first rows", ("row", "text", "target"), texts),
        ]
        notes = [Lines("chosen for you", tuple(map(str, self.notes)))] if self.notes else []
        return Stack("rows", (*parts, *notes))


def label_counts(split: Split) -> dict[str, int]:
    """How many rows each label has, in label order; nothing where they are numbers, or too many to be classes."""
    counts: dict[str, int] = {}
    for start, stop in split.chunks(CHUNK_ROWS):
        for target in split.targets(start, stop):
            for label in target if isinstance(target, tuple) else (target,):
                if isinstance(label, str):
                    counts[label] = counts.get(label, 0) + 1
        if len(counts) > 1000:
            return {}
    return {} if are_numbers(counts) else {label: counts[label] for label in sort_labels(counts)}


def target_text(target: Target) -> Cell:
    """A target as a cell: nothing where it is unknown, several labels with commas between."""
    return ", ".join(target) or "(no label)" if isinstance(target, tuple) else target


def read(
    source: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | bool | None = None,
    split: str | bool | None = None,
    options: ReadOptions = ReadOptions(),
) -> Rows:
    """Rows from a file (csv, tsv, jsonl, parquet, also .gz), a folder of classes, a frame, a Dataset, a list or a generator of dicts.

    A dict (or DatasetDict) of such sources, or a folder with train.csv, valid.csv …, gives its keys as splits; a dict of lists holds
    columns. Columns that are not named are guessed by their names, and said. `label` may name several columns of 0 and 1; `label=False`
    reads none. `split` names a column of train/valid/test or is_valid; `split=False` reads none. Rows without a validation split get one.
    Raises DataError and LabelError with file, row and column, SettingError for options that are not possible.
    """
    several = label if label is None or isinstance(label, str | bool) else tuple(label)
    asked = Asked(text, text_pair, several, split)
    if isinstance(source, str | Path):
        source = checked_path(Path(source))
        source = (split_files(source) if source.is_dir() else None) or source
    if isinstance(source, Mapping) and open_frame(source) is None:
        return read_splits(source, asked, options)
    reading = open_source(source, options)
    roles, notes = find_roles(reading.columns, asked, reading.source, reading.hint)
    whole, dropped = load(reading, roles, options, "train")
    if not len(whole):
        header = ": each misses a text or a split" if dropped else ", only a header" if reading.columns else ""
        raise DataError(f"there are no rows{header}", place=reading.source, cure="Give at least one row.")
    masks = {"train": np.ones(len(whole), dtype=np.bool_)}
    if roles.split is not None:
        masks = {name: split_mask(whole.table, name) for name in ("train", "valid", "test")}
    found = {name: part(whole, name, mask, options) for name, mask in masks.items() if mask.any()}
    splits, chosen = finished(found, options)
    return Rows(splits, roles, reading.source, (*reading.notes, *notes, *dropped, *chosen))


def read_splits(sources: Mapping[Any, Any], asked: Asked, options: ReadOptions) -> Rows:
    """Each source is a split of its own; the first says which columns there are, and a later one may lack the label."""
    if not sources:
        raise DataError("there are no splits", place="the dict", cure='Give {"train": …, "valid": …}.')
    found: dict[str, Split] = {}
    notes: tuple[Note, ...] = ()
    for given, source in sources.items():
        name = SPLIT_NAMES.get(str(given).lower(), str(given).lower())
        if name in found:
            raise DataError(f"{given!r} is a second split {name}", place="the dict", cure="Put the two together, or leave one out.")
        try:
            found[name], said = one_split(name, source, replace(asked, split=False), options, bare=bool(found))
        except PellucidError as error:
            raise error if isinstance(source, str | Path) else error.at(f"split {str(given)!r}, {error.place}") from error
        notes = tuple(dict.fromkeys((*notes, *said)))
    splits, chosen = finished(found, options)
    first = next(iter(splits.values()))
    odd = next((name for name, split in splits.items() if split.roles.texts.keys() != first.roles.texts.keys()), None)
    if odd is not None:
        cure = "Name the columns with text= and text_pair=, the same in every split."
        raise DataError(f"split {odd!r} has other text columns than split {first.name!r}", place="the dict", cure=cure)
    return Rows(splits, first.roles, first.source, (*notes, *chosen))


def one_split(name: str, source: Any, asked: Asked, options: ReadOptions, *, bare: bool) -> tuple[Split, tuple[Note, ...]]:
    """A whole source as one split; `bare`: it may lack the label column that was asked for."""
    reading = open_source(source, options)
    labels = (asked.label,) if isinstance(asked.label, str) else asked.label if isinstance(asked.label, tuple) else ()
    if bare and labels and not set(labels) & set(reading.columns):
        asked = replace(asked, label=False)
    roles, notes = find_roles(reading.columns, asked, reading.source, reading.hint)
    split, dropped = load(reading, roles, options, name)
    if not len(split):
        raise DataError("there are no rows", place=reading.source, cure="Give at least one row, or leave the split out.")
    called = reading.source if isinstance(source, str | Path) else f"{reading.source} of {name}"
    return replace(split, source=called), (*reading.notes, *notes, *dropped)


def load(reading: Reading, roles: Roles, options: ReadOptions, name: str) -> tuple[Split, tuple[Note, ...]]:
    """All rows of a reading, and how many were left out."""
    with TableWriter(options) as writer:
        notes, schema = write_all(writer, reading, roles, options, None if roles.split else name)
        return Split(name, writer.table(schema), roles, reading.source, roles.label is not None), notes


def write_all(
    writer: TableWriter, reading: Reading, roles: Roles, options: ReadOptions, name: str | None
) -> tuple[tuple[Note, ...], "pa.Schema"]:
    """Store a reading; how many rows were left out is said."""
    schema, dropped = schema_of(roles, "class"), Dropped()
    for batch in stored(reading, roles, options, name, dropped):
        writer.write(batch)
        schema = batch.schema
    return ((left_out(dropped.rows, dropped.first),) if dropped.rows else ()), schema


def left_out(rows: int, first: str) -> Note:
    """What to say of rows that were not read."""
    what = f"{rows:,} row left out" if rows == 1 else f"{rows:,} rows left out"
    return Note(what, f"a cell is missing; the first is {first}", 'ReadOptions(on_missing="error") stops there.')


def finished(found: Mapping[str, Split], options: ReadOptions) -> tuple[dict[str, Split], tuple[Note, ...]]:
    """The splits with labels where there must be some, and with a validation split where nobody gave one."""
    splits: dict[str, Split] = {}
    notes: list[Note] = []
    for name, split in found.items():
        splits[name], said = labelled(split, options)
        notes += said
    if options.valid_fraction and "valid" not in splits and "train" in splits:
        train = splits["train"]
        aside = automatic_mask(train, options)
        change = "Pass split=, or ReadOptions(valid_fraction=…, seed=…)."
        if aside.any():
            splits |= {"train": part(train, "train", ~aside, options), "valid": part(train, "valid", aside, options)}
            share = f"{int(aside.sum()):,} of {len(train):,} rows {'is' if aside.sum() == 1 else 'are'} kept aside for validation"
            how = "in proportion to labels that repeat, equal texts together" if train.has_targets else "equal texts together"
            notes.append(Note(share, f"no row was marked for it; drawn with seed {options.seed}, {how}", change))
        else:
            notes.append(Note("no rows are kept aside for validation", "there are too few different texts of each label", change))
    order = {name: splits[name] for name in ("train", "valid", "test") if name in splits}
    return order | splits, tuple(notes)


def labelled(split: Split, options: ReadOptions) -> tuple[Split, tuple[Note, ...]]:
    """The split with a label in every row, or, where it is not for training and has none at all, without labels.

    Raises DataError for the first row without a label, unless such rows may be left out.
    """
    missing = split.table.column("target").is_null().to_numpy()
    if not split.has_targets or not missing.any():
        return split, ()
    if missing.all() and split.name != "train":
        why = "none of its rows has one"
        return replace(split, has_targets=False), (Note(f"split {split.name!r} has no labels", why, "It can be predicted, not evaluated."),)
    first = split.place(int(missing.argmax()))
    if missing.all() and options.on_missing == "drop":
        raise DataError("there are no rows: each misses the label", place=split.source, cure="Fill the labels; label=False reads none.")
    if options.on_missing == "error":
        column = ", ".join(split.roles.labels)
        cure = 'Fill the cell or drop the row; ReadOptions(on_missing="drop") leaves such rows out, label=False reads no labels.'
        raise DataError("the label is missing", place=f"{first}, column {column!r}", cure=cure)
    return part(split, split.name, ~missing, options), (left_out(int(missing.sum()), f"{first}: the label is missing"),)


def open_source(source: Any, options: ReadOptions) -> Reading:
    """The reader for a source, by what it is and, for files, by its name. Raises DataError for what pellucid cannot read."""
    if not isinstance(source, str | Path):
        reading = open_frame(source, options)
        if reading is None:
            cure = "Give a path, a frame, a Dataset, or a list of dicts."
            raise DataError(f"cannot read rows from {type(source).__name__}", place="source", cure=cure)
        return reading
    path = checked_path(Path(source))
    if path.is_dir():
        return open_folder(path, options)
    kinds = {suffix.lower() for suffix in path.suffixes[-2:]}
    start = first_bytes(path, 4)  # of any archive it says so
    if ".parquet" in kinds or (start == b"PAR1" and not kinds & {".csv", ".tsv", ".txt", ".tab"}):
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
        for start, stop in whole.chunks():
            yield from map(key_of, *whole.columns(start, stop).values())

    def targets() -> Iterator[Target]:
        for start, stop in whole.chunks(CHUNK_ROWS):
            yield from whole.targets(start, stop)

    return validation_mask(keys(), targets(), fraction=options.valid_fraction, seed=options.seed)


def part(whole: Split, name: str, mask: BoolArray, options: ReadOptions) -> Split:
    """The rows of a mask as a split with a table of its own, so that a chunk of it is a slice."""
    import pyarrow as pa

    if mask.all():
        return replace(whole, name=name)
    with TableWriter(options) as writer:
        start = 0
        for batch in whole.table.to_batches(CHUNK_ROWS):
            writer.write(batch.filter(pa.array(mask[start : start + batch.num_rows])))
            start += batch.num_rows
        return replace(whole, name=name, table=writer.table(whole.table.schema))
