"""Rows in, examples out.

Takes files, folders, frames, Datasets and lists, and which column is what. Gives splits whose rows stay in Arrow; one row is an Example.
Knows nothing of tokens, models or tasks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import DataError, PellucidError
from pellucid.readers.chunks import CHUNK_ROWS, SPLIT_NAMES, LabelKind, Reading, ReadOptions
from pellucid.readers.conll import DOCUMENT, SUFFIXES, UNIVERSAL_SUFFIXES, open_conll, open_universal
from pellucid.readers.delimited import open_delimited
from pellucid.readers.folders import open_folder, split_files
from pellucid.readers.frames import open_frame
from pellucid.readers.jsonl import open_jsonl
from pellucid.readers.opening import checked_path, first_bytes
from pellucid.readers.parquet import open_parquet
from pellucid.readers.squad import is_squad, open_squad
from pellucid.roles import Asked, Roles, find_roles
from pellucid.row_store import Found, TableWriter, left_out, schema_of, stored
from pellucid.rows import Rows, Split
from pellucid.splitting import key_of, validation_mask
from pellucid.types import BoolArray, Note, Target

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ReadOptions", "Roles", "Rows", "Split", "read"]

TABLES = frozenset((".csv", ".tsv", ".txt", ".tab"))
NOT_IN_PROPORTION = frozenset(("spans", "answers", "text"))  # targets that are no classes of a whole row


def read(
    source: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | bool | None = None,
    split: str | bool | None = None,
    options: ReadOptions = ReadOptions(),
) -> Rows:
    """Rows from a file (csv, tsv, jsonl, parquet, conll, conllu, SQuAD's json, also .gz), a folder of classes, a frame, a Dataset, a list
    or a generator of dicts.

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
    whole, said = load(reading, roles, options, "train")
    if not len(whole):
        dropped = any("left out" in note.what for note in said)
        header = ": each misses a text or a split" if dropped else ", only a header" if reading.columns else ""
        raise DataError(f"there are no rows{header}", place=reading.source, cure="Give at least one row.")
    masks = {"train": np.ones(len(whole), dtype=np.bool_)}
    if roles.split is not None:
        masks = {name: split_mask(whole.table, name) for name in ("train", "valid", "test")}
    found = {name: part(whole, name, mask, options) for name, mask in masks.items() if mask.any()}
    splits, chosen = finished(found, options)
    return Rows(splits, whole.roles, reading.source, (*reading.notes, *notes, *said, *chosen))


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
            found[name], said = one_split(name, source, replace(asked, split=False), like(found, options), bare=bool(found))
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


def like(found: Mapping[str, Split], options: ReadOptions) -> ReadOptions:
    """The options for a further split: lists and texts are read as those of the first were, whatever its own first rows show."""
    if options.label_kind != "auto" or not found:
        return options
    roles = next(iter(found.values())).roles
    kinds: dict[str, LabelKind] = {"spans": "tags" if roles.scheme else "spans", "answers": "answers", "text": "text"}
    return replace(options, label_kind=kinds.get(roles.target, "auto"))


def one_split(name: str, source: Any, asked: Asked, options: ReadOptions, *, bare: bool) -> tuple[Split, tuple[Note, ...]]:
    """A whole source as one split; `bare`: it may lack the label column that was asked for."""
    reading = open_source(source, options)
    labels = (asked.label,) if isinstance(asked.label, str) else asked.label if isinstance(asked.label, tuple) else ()
    if bare and labels and not set(labels) & set(reading.columns):
        asked = replace(asked, label=False)
    roles, notes = find_roles(reading.columns, asked, reading.source, reading.hint)
    split, said = load(reading, roles, options, name)
    if not len(split):
        raise DataError("there are no rows", place=reading.source, cure="Give at least one row, or leave the split out.")
    called = reading.source if isinstance(source, str | Path) else f"{reading.source} of {name}"
    return replace(split, source=called), (*reading.notes, *notes, *said)


def load(reading: Reading, roles: Roles, options: ReadOptions, name: str) -> tuple[Split, tuple[Note, ...]]:
    """All rows of a reading, and what is to be said of them."""
    with TableWriter(options) as writer:
        notes, schema, roles = write_all(writer, reading, roles, options, None if roles.split else name)
        return Split(name, writer.table(schema), roles, reading.source, roles.label is not None), notes


def write_all(
    writer: TableWriter, reading: Reading, roles: Roles, options: ReadOptions, name: str | None
) -> tuple[tuple[Note, ...], "pa.Schema", Roles]:
    """Store a reading. Gives what is to be said of it, and the roles with what the targets turned out to be."""
    schema, found = schema_of(roles, "class"), Found()
    for batch in stored(reading, roles, options, name, found):
        writer.write(batch)
        schema = batch.schema
    return tuple(found.notes()), schema, roles if found.reader is None else found.reader.found_roles


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
            how = how_drawn(train)
            notes.append(Note(share, f"no row was marked for it; drawn with seed {options.seed}, {how}", change))
        else:
            notes.append(Note("no rows are kept aside for validation", f"there are too few different {apart(train)}", change))
    order = {name: splits[name] for name in ("train", "valid", "test") if name in splits}
    return order | splits, tuple(notes)


def in_proportion(split: Split) -> bool:
    """Whether rows are drawn in proportion to their labels."""
    return split.has_targets and split.roles.target not in NOT_IN_PROPORTION


def how_drawn(train: Split) -> str:
    """How the rows that are kept aside were drawn."""
    if train.roles.target == "answers":
        return "all questions on one context together"
    return "in proportion to labels that repeat, equal texts together" if in_proportion(train) else "equal texts together"


def apart(train: Split) -> str:
    """What must differ for rows to be drawn."""
    if train.roles.target == "answers":
        return "contexts"
    return "texts of each label" if in_proportion(train) else "texts"


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
    start = first_bytes(path, len(DOCUMENT))  # of any archive it says so
    if ".parquet" in kinds or (start.startswith(b"PAR1") and not kinds & TABLES):
        return open_parquet(path, options)
    if kinds & SUFFIXES or start == DOCUMENT.encode():
        return open_conll(path, options)
    if kinds & UNIVERSAL_SUFFIXES:
        return open_universal(path, options)
    if ".json" in kinds and is_squad(path):
        return open_squad(path, options)
    if kinds & {".jsonl", ".ndjson", ".json"}:
        return open_jsonl(path, options)
    if kinds & TABLES:
        return open_delimited(path, options)
    cure = "Give .csv, .tsv, .txt, .jsonl, .parquet, .conll or .conllu (also .gz), or read it into a frame first."
    raise DataError(f"cannot tell what kind of file {path.name} is", place=str(path), cure=cure)


def split_mask(table: "pa.Table", name: str) -> BoolArray:
    """Which rows say that they belong to this split, (rows,)."""
    import pyarrow.compute as pc

    mask: BoolArray = pc.equal(table.column("split"), name).to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask


def automatic_mask(whole: Split, options: ReadOptions) -> BoolArray:
    """Which rows are kept aside where nobody said, (rows,). A context must not be on both sides: its questions stay together."""
    together = ("text_pair",) if whole.roles.target == "answers" else tuple(whole.roles.texts)

    def keys() -> Iterator[int]:
        for start, stop in whole.chunks():
            columns = whole.columns(start, stop)
            yield from map(key_of, *(columns[role] for role in together))

    def targets() -> Iterator[Target]:
        for start, stop in whole.chunks(CHUNK_ROWS):
            yield from whole.targets(start, stop)

    known = targets() if in_proportion(whole) else repeat(None, len(whole))
    return validation_mask(keys(), known, fraction=options.valid_fraction, seed=options.seed)


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
