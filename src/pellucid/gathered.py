"""The outputs of many windows as columns, put together from the batches in which they were made.

Takes the output of each batch with the windows that were in it. Gives the outputs of any windows again, in any order.
Knows nothing of models, rows or what the numbers mean.

A million rows are a handful of arrays: one rectangle where every window has the same shape, else positions one after the other.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pellucid.errors import SettingError
from pellucid.token_table import ragged_positions
from pellucid.types import Array, FloatArray, IntArray, Output

NO_ID = -1  # where a window has no id


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was kept of the outputs. `starts` (windows + 1,) says where the positions of a window begin; None: one entry a window."""

    logits: FloatArray  # (windows, …) or (all positions, …)
    ids: IntArray | None = None  # like `logits`
    starts: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.logits) if self.starts is None else len(self.starts) - 1

    def take(self, windows: IntArray) -> Output:
        """The outputs of these windows; where windows differ in length, filled up on the right (ids with -1), with their `lengths`."""
        if self.starts is None:
            return Output(self.logits[windows], ids=None if self.ids is None else self.ids[windows])
        lengths = self.starts[windows + 1] - self.starts[windows]  # (windows,)
        width = int(lengths.max(initial=0))
        source = ragged_positions(self.starts[windows], lengths)
        target = ragged_positions(np.arange(len(windows)) * width, lengths)

        def rectangle(values: Array, fill: float) -> Array:
            flat = np.full((len(windows) * width, *values.shape[1:]), fill, dtype=values.dtype)
            flat[target] = values[source]
            return flat.reshape(len(windows), width, *values.shape[1:])

        ids = None if self.ids is None else rectangle(self.ids, NO_ID)
        return Output(rectangle(self.logits, 0.0), ids=ids, lengths=lengths)


@dataclass
class Gathering:
    """Collects the outputs of batches: `add` each, then `done`."""

    windows: int
    logits: list[Array] = field(default_factory=list)
    ids: list[Array] = field(default_factory=list)
    members: list[IntArray] = field(default_factory=list)
    lengths: list[IntArray] = field(default_factory=list)
    whole: Array | None = None  # the rectangle, where every window has the same shape

    def add(self, windows: IntArray, output: Output) -> None:
        """Keep the output of one batch. Raises SettingError where rows of one task have logits of several shapes and no lengths."""
        if output.lengths is not None:
            lengths = np.asarray(output.lengths, dtype=np.int64)
            mask = np.arange(output.logits.shape[1]) < lengths[:, None]  # (batch, positions)
            self.logits.append(output.logits[mask])
            self.ids += [] if output.ids is None else [output.ids[mask]]
            self.members.append(windows)
            self.lengths.append(lengths)
            return
        if self.whole is None:  # one array for all: thousands of small ones would scatter over the memory
            self.whole = np.zeros((self.windows, *output.logits.shape[1:]), dtype=output.logits.dtype)
        if self.whole.shape[1:] != output.logits.shape[1:]:
            shapes = f"from {self.whole.shape[1:]} to {output.logits.shape[1:]}"
            cure = "The task's `run` must give logits of one shape a row, or say their lengths: Output(lengths=…)."
            raise SettingError(f"the logits of a row changed their shape {shapes}", cure=cure)
        self.whole[windows] = output.logits

    def done(self) -> Gathered:
        """Everything that was added, in the order of the windows."""
        if not self.members:
            return Gathered(np.zeros((0, 0), dtype=np.float32) if self.whole is None else self.whole)
        lengths = np.zeros(self.windows, dtype=np.int64)
        lengths[np.concatenate(self.members)] = np.concatenate(self.lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

        def placed(parts: list[Array]) -> Array:
            flat = np.zeros((int(starts[-1]), *parts[0].shape[1:]), dtype=parts[0].dtype)
            for windows, part, counts in zip(self.members, parts, self.lengths, strict=True):
                flat[ragged_positions(starts[windows], counts)] = part
            return flat

        return Gathered(placed(self.logits), placed(self.ids) if self.ids else None, starts)


def pooled(output: Output, rows: IntArray, lengths: IntArray, how: str) -> tuple[Output, IntArray]:
    """One entry a row of the windows of each row: the logits (windows, labels) → (rows, labels), and the first window of each row.

    `how`: "mean" weighted by `lengths` (tokens), "max" or "first". `rows` (windows,) stand together.
    """
    firsts = np.flatnonzero(np.diff(rows, prepend=-1) != 0)  # (rows,)
    if len(firsts) == len(rows):
        return output, firsts
    if how == "max":
        logits = np.maximum.reduceat(output.logits, firsts, axis=0)
    elif how == "first":
        logits = output.logits[firsts]
    else:
        weights = np.maximum(lengths, 1).astype(np.float64)
        total = np.add.reduceat(weights, firsts)
        logits = np.add.reduceat(output.logits * weights[:, None], firsts, axis=0) / total[:, None]
    return Output(logits.astype(output.logits.dtype)), firsts
