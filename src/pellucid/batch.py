"""Tokens → batches: which windows go together, and how they become rectangles.

Takes lengths of windows, or a TokenTable and a PadSpec. Gives plans (lists of window positions) and padded batches, all numpy.
Knows nothing of texts, tokenizers, labels' meaning, models or torch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pellucid.errors import SettingError
from pellucid.token_table import PadSpec, TokenTable, ragged_positions
from pellucid.types import Array, Batch, IntArray

IGNORED = -100  # the label of what is not scored: padding, special tokens, all but the first piece of a word
CHUNK_BATCHES = 50  # training sorts by length within so many batches: padding is small, and who meets whom still changes each epoch


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The most that one batch may hold: tokens with their padding, and rows. One row alone may be longer than `max_tokens`.

    `multiple_of` is the PadSpec's, where rows are padded to a multiple. Raises SettingError for a number below 1.
    """

    max_tokens: int
    max_rows: int = 256
    multiple_of: int = 1

    def __post_init__(self) -> None:
        for name, value in (("max_tokens", self.max_tokens), ("max_rows", self.max_rows), ("multiple_of", self.multiple_of)):
            _check_positive(name, value)

    def rows_of(self, length: int) -> int:
        """How many rows of this length fit; at least one."""
        return max(1, min(self.max_rows, self.max_tokens // max(_rounded_up(length, self.multiple_of), 1)))


def pad(tokens: TokenTable, windows: IntArray, spec: PadSpec) -> Batch:
    """The named windows as one rectangle: `input_ids` and `attention_mask`, and `token_type_ids` where the model takes them, int64.

    Raises SettingError for a window outside the table, for rows of different lengths without padding, and for a row that is longer than
    the length to pad to.
    """
    chosen = np.asarray(windows, dtype=np.int64)  # (batch,)
    outside = chosen[(chosen < 0) | (chosen >= len(tokens))]
    if len(outside):
        raise SettingError(f"the table has {len(tokens)} windows, asked for window {outside[0]}", place="windows", cure="Count from 0.")
    starts = np.asarray(tokens.starts)[chosen]
    lengths = np.asarray(tokens.starts)[chosen + 1] - starts  # (batch,)
    width = _width(lengths, spec)
    source = ragged_positions(starts, lengths)  # (tokens of the batch,)
    first = np.arange(len(chosen), dtype=np.int64) * width + (width - lengths if spec.side == "left" else 0)
    target = ragged_positions(first, lengths)

    def rectangle(values: int | npt.NDArray[Any], fill: int) -> npt.NDArray[np.int64]:
        flat = np.full(len(chosen) * width, fill, dtype=np.int64)
        flat[target] = values
        return flat.reshape(len(chosen), width)  # (batch, tokens)

    inputs: dict[str, Array] = {"input_ids": rectangle(tokens.ids[source], spec.pad_id), "attention_mask": rectangle(1, 0)}
    if "token_type_ids" in spec.input_names:
        inputs["token_type_ids"] = rectangle(0 if tokens.type_ids is None else tokens.type_ids[source], spec.pad_type_id)
    labels = None if tokens.labels is None else np.asarray(tokens.labels)
    if labels is not None and tokens.label_starts is None:
        labels = labels[chosen]
    elif labels is not None:  # one a token: they stand where their tokens stand; of another length: a rectangle of their own
        labels = rectangle(labels[source], IGNORED) if tokens.has_token_labels else padded_labels(tokens, chosen)
    rows, numbers = np.asarray(tokens.rows)[chosen], np.asarray(tokens.windows)[chosen]
    return Batch(inputs=inputs, labels=labels, rows=rows, windows=numbers, lengths=lengths)


def padded_labels(tokens: TokenTable, windows: IntArray) -> npt.NDArray[np.int64]:
    """The label sequences of the named windows as one rectangle, (batch, labels), filled up with -100 on the right."""
    starts = np.asarray(tokens.label_starts)
    counts = starts[windows + 1] - starts[windows]
    width = int(counts.max(initial=0))
    flat = np.full(len(windows) * width, IGNORED, dtype=np.int64)
    flat[ragged_positions(np.arange(len(windows)) * width, counts)] = np.asarray(tokens.labels)[ragged_positions(starts[windows], counts)]
    return flat.reshape(len(windows), width)


def row_slices(rows: IntArray) -> list[slice]:
    """Which batch entries belong to each row: the windows of a row stand together, in order."""
    edges = np.flatnonzero(np.diff(rows)) + 1
    return [slice(start, stop) for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(rows)], strict=True) if stop > start]


def widths(tokens: TokenTable, spec: PadSpec) -> npt.NDArray[np.int64]:
    """How wide each window makes its batch, (windows,): its own length, rounded up, or the fixed one."""
    if spec.padding == "max_length" and spec.max_length is not None:
        return np.full(len(tokens), spec.max_length, dtype=np.int64)
    multiple = spec.multiple_of or 1
    return -(-tokens.lengths // multiple) * multiple


def unpad(batch: Batch, name: str = "input_ids") -> list[IntArray]:
    """The rows of one input without their padding: what went into `pad`."""
    mask = batch.inputs["attention_mask"].astype(bool)  # (batch, tokens)
    return [row[kept] for row, kept in zip(batch.inputs[name], mask, strict=True)]


def plan_sorted(lengths: IntArray, budget: TokenBudget) -> list[IntArray]:
    """Batches for prediction: all windows sorted by length, the longest first, each batch filled up to the budget.

    Restore the order with `Batch.rows` or `inverse_order`. The largest batch comes first, so that too little memory shows at once.
    """
    lengths = _checked_lengths(lengths)
    order = np.argsort(-lengths, kind="stable")
    return list(_cut(order, lengths, budget))


def plan_in_order(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Batches of `batch_size` windows in the order of the table; the last may be smaller."""
    _check_positive("batch_size", batch_size)
    count = len(_checked_lengths(lengths))
    return [np.arange(start, min(start + batch_size, count), dtype=np.int64) for start in range(0, count, batch_size)]


def plan_training(
    lengths: IntArray, *, batch_size: int | None = None, budget: TokenBudget | None = None, seed: int = 0, epoch: int = 0
) -> list[IntArray]:
    """Batches for one epoch of training: shuffled, sorted by length within stretches of 50 batches, then the batches shuffled.

    Give `batch_size` (rows), or a `budget` of tokens, or both (then no batch has more than `batch_size` rows). The same seed and epoch
    give the same plan; another epoch gives another. The batch with the longest window comes first, so that too little memory shows at once.
    Raises SettingError for neither.
    """
    if batch_size is not None:
        _check_positive("batch_size", batch_size)
    if batch_size is None and budget is None:
        raise SettingError(
            "a training plan needs a size of its batches", cure="Give batch_size (rows), or budget=TokenBudget(max_tokens=...)."
        )
    if min(seed, epoch) < 0:
        raise SettingError(f"seed and epoch are whole numbers from 0 up, not {seed} and {epoch}", cure="Use another seed.")
    lengths = _checked_lengths(lengths)
    if len(lengths) == 0:
        return []
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    limit = TokenBudget(2**62, batch_size or 1) if budget is None else budget
    if batch_size is not None and limit.max_rows > batch_size:
        limit = TokenBudget(limit.max_tokens, batch_size, limit.multiple_of)
    stretch = CHUNK_BATCHES * limit.rows_of(round(float(lengths.mean())))
    batches: list[IntArray] = []
    for start in range(0, len(order), stretch):
        members = order[start : start + stretch]
        batches += _cut(members[np.argsort(-lengths[members], kind="stable")], lengths, limit)
    shuffled = [batches[position] for position in random.permutation(len(batches))]
    longest = max(range(len(shuffled)), key=lambda position: int(lengths[shuffled[position][0]]))
    return [shuffled[longest], *shuffled[:longest], *shuffled[longest + 1 :]]


def inverse_order(plan: Sequence[IntArray]) -> npt.NDArray[np.int64]:
    """Where each window stands when the batches are laid end to end: `np.concatenate(outputs)[inverse_order(plan)]` is in table order."""
    order = np.concatenate([np.zeros(0, dtype=np.int64), *plan])
    inverse = np.empty(len(order), dtype=np.int64)
    inverse[order] = np.arange(len(order))
    return inverse


def useful_share(lengths: IntArray, plan: Iterable[IntArray], multiple_of: int = 1) -> float:
    """The share of the model's input that is text and not padding, 0 to 1, if each batch is padded to its longest window."""
    useful = padded = 0
    for batch in plan:
        members = lengths[batch]
        useful += int(members.sum())
        padded += len(members) * _rounded_up(int(members.max(initial=0)), multiple_of)
    return useful / padded if padded else 1.0


def _cut(order: IntArray, lengths: IntArray, budget: TokenBudget) -> Iterator[IntArray]:
    """Cut windows that are sorted longest first into batches within the budget: the first of a batch says how many fit."""
    start = 0
    while start < len(order):
        stop = start + budget.rows_of(int(lengths[order[start]]))
        yield order[start:stop]
        start = stop


def _width(lengths: IntArray, spec: PadSpec) -> int:
    longest = int(lengths.max(initial=0))
    if spec.padding == "do_not_pad":
        if len(lengths) and longest != int(lengths.min()):
            raise SettingError(
                f"rows of {int(lengths.min())} to {longest} tokens cannot stand in one batch without padding",
                cure="Set TokenOptions.padding to True, or make batches of one row.",
            )
        return longest
    if spec.padding == "max_length":
        if spec.max_length is None:
            raise SettingError("padding='max_length' needs a length", place="max_length", cure="Set TokenOptions.max_length.")
        if longest > spec.max_length:
            raise SettingError(
                f"a row of {longest} tokens cannot be padded to {spec.max_length}", cure="Turn truncation on, or set a larger max_length."
            )
        longest = spec.max_length
    return _rounded_up(longest, spec.multiple_of or 1)


def _rounded_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _checked_lengths(lengths: IntArray) -> npt.NDArray[np.int64]:
    array = np.asarray(lengths)
    if array.ndim != 1 or (len(array) and (array.dtype.kind not in "iu" or int(array.min()) < 0)):
        raise SettingError("lengths are whole numbers from 0 up, one a window", place="lengths", cure="Pass TokenTable.lengths.")
    return array.astype(np.int64)


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingError(f"{name} is a whole number from 1 up, not {value!r}", place=name, cure=f"Set {name} to such a number.")
