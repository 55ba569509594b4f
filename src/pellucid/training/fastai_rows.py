"""Rows as fastai's datasets hand them over, and the table of tokens that comes of them.

Takes a pipeline with a split, or the items of fastai's Datasets. Gives token tables with targets.
Knows nothing of batches, loaders or training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastai.data.transforms import CategoryMap

from pellucid.data import Split
from pellucid.errors import DataError, LabelError
from pellucid.given import as_split
from pellucid.labels import canonical_label
from pellucid.task import CLASSES
from pellucid.token_table import ragged_positions

if TYPE_CHECKING:
    from pellucid.pipelines import Pipeline
    from pellucid.tokens import TokenTable
    from pellucid.types import Example, IntArray


class PickedRows:
    """The rows of a split as fastai's Interpretation wants them: `iloc[[3, 1]]` gives those two windows with their rows.

    fastai counts windows; `table` says which row each comes from.
    """

    def __init__(self, split: Split, table: "TokenTable") -> None:
        self.split, self.table = split, table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def iloc(self) -> "PickedRows":
        """What can be indexed by position, in pandas' word."""
        return self

    def __getitem__(self, positions: Any) -> "PickedRows":
        windows = np.atleast_1d(np.asarray(positions, dtype=np.int64))
        return PickedRows(self.split.select(self.table.rows[windows]), taken(self.table, windows))

    def __iter__(self) -> "Iterator[Example]":
        return (self.split[int(row)] for row in self.table.rows)


class TokenRows:
    """A split and its tokens as a fastai dataset: `[i]` is (text, …, target) of the row that window i comes from.

    `vocab` holds the label names in the order of the head. `table` are the tokens, where they are known already.
    """

    n_inp = 1

    def __init__(self, pipe: "Pipeline", split: Split, cache: Path | None = None, table: "TokenTable | None" = None) -> None:
        self.split, self.picked = split, table is not None  # single windows were picked: a row may not be whole
        self.table = pipe.task.to_learn(pipe.encode(split, cache=cache)) if table is None else table
        self.items = PickedRows(split, self.table)
        names = getattr(pipe.task, "labels", ())
        if names:
            self.vocab = CategoryMap(list(names), sort=False)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: int) -> tuple[Any, ...]:
        example = self.split[int(self.table.rows[position])]
        return (*example.fields.values(), example.target)


def taken(table: "TokenTable", windows: "IntArray") -> "TokenTable":
    """These windows alone, in this order, each as a row of its own: 0, 1, 2, …"""
    starts, counts = table.starts[windows], table.lengths[windows]
    source, label_starts, labels = ragged_positions(starts, counts), table.label_starts, table.labels
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if labels is not None and label_starts is None:
        labels = np.asarray(labels)[windows]
    elif labels is not None and label_starts is not None:
        many = np.diff(label_starts)[windows]
        labels = np.asarray(labels)[ragged_positions(label_starts[windows], many)]
        label_starts = ends if table.has_token_labels else np.concatenate([[0], np.cumsum(many)]).astype(np.int64)
    return replace(
        table,
        ids=table.ids[source],
        starts=ends,
        rows=np.arange(len(windows), dtype=np.int64),
        windows=table.windows[windows],
        type_ids=None if table.type_ids is None else table.type_ids[source],
        labels=labels,
        label_starts=label_starts,
        lost=table.lost[windows],
        lost_words=table.lost_words[windows],
    )


def encode_items(pipe: "Pipeline", items: Sequence[Any], n_inp: int, cache: Path | None) -> "TokenTable":
    """The tokens of fastai's items, (text, …, target) each; targets of classes are numbers already, as CategoryBlock and its kin give them.

    Targets of other tasks (spans, texts) come as `pl.read` gives them.
    """
    reads = pipe.task.reads
    tuples = [item if isinstance(item, tuple) else (item,) for item in items]
    split = as_split([text_fields(item[:n_inp], reads, row) for row, item in enumerate(tuples)], reads)
    targets = [item[n_inp:] for item in tuples]
    if not targets or not targets[0]:
        return pipe.task.to_learn(pipe.encode(split, cache=cache))
    if len(targets[0]) > 1:
        raise DataError(f"expected one target a row, came {len(targets[0])}", place="DataBlock", cure="Pass one block after the TextBlock.")
    if pipe.task.kind not in CLASSES:
        wanted = [target[0] for target in targets]
        return pipe.task.to_learn(pipe.task.encode(pipe.tokenizer, split.columns(0, len(split)), wanted, pipe.options))
    labels = np.stack([np.asarray(target[0]) for target in targets])
    labels = labels.astype(np.int64 if labels.dtype.kind in "iub" and labels.ndim == 1 else np.float32)
    return pipe.encode(split, cache=cache).with_row_labels(labels)


def text_fields(given: tuple[Any, ...], reads: tuple[str, ...], row: int) -> Any:
    """What `as_split` reads: a text, or a dict of the texts that the task wants."""
    if len(reads) == 1 and len(given) == 1:
        return given[0]
    if len(given) == 1 and isinstance(given[0], dict):
        return given[0]
    texts = tuple(given[0]) if len(given) == 1 and not isinstance(given[0], str) else given
    if len(texts) != len(reads):
        raise DataError(
            f"expected {len(reads)} texts ({', '.join(reads)}), came {len(texts)}",
            place=f"row {row}",
            cure="Let get_x give them as a tuple.",
        )
    return dict(zip(reads, texts, strict=True))


def check_vocab(vocab: Any, labels: Sequence[str]) -> None:
    """The classes that fastai's block counted must be the labels of the head, in that order. Raises LabelError."""
    if vocab is None or not labels:
        return
    names = [canonical_label(name) for name in vocab]
    if names != list(labels):
        raise LabelError(
            f"the model's labels are {', '.join(labels)}, those of the block are {', '.join(map(str, names))}",
            place="CategoryBlock",
            cure=f"Pass CategoryBlock(vocab={list(labels)!r}, sort=False), or make the pipeline from the same rows.",
        )
