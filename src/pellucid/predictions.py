"""The predictions for many rows: columns of numbers underneath, one `Prediction` made for each row that is looked at.

Takes the output of a run over all windows of a table, and the way to decode it. Gives a sequence in the order of the rows.
Knows nothing of models or of what an answer means.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from pellucid.data import Split
from pellucid.errors import PellucidError
from pellucid.gathered import Gathered, pooled
from pellucid.task import Source
from pellucid.tokens import TokenOptions, window_of
from pellucid.types import Answer, Batch, Example, FloatArray, Output, Prediction, Tokens

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedTokenizerBase

Decode = Callable[[Output, Batch, Source | None], list[Prediction]]
WindowsOf = Callable[["PreTrainedTokenizerBase", Example, TokenOptions], tuple[Tokens, ...]]
DECODED_AT_ONCE = 1024  # rows


@dataclass(frozen=True)
class SplitSource:
    """Looks up the texts and tokens of a split, one row at a time, by row number within the predictions."""

    split: Split
    tokenizer: "PreTrainedTokenizerBase"
    options: TokenOptions
    windows_by: WindowsOf  # the task's `windows_of`

    def example(self, row: int) -> Example:
        """The texts of a row."""
        return self.split[row]

    def tokens(self, row: int, window: int = 0) -> Tokens:
        """The tokens of one window of a row."""
        return window_of(self.windows(row), row, window)

    def windows(self, row: int) -> tuple[Tokens, ...]:
        """The tokens of every window of a row."""
        return self.windows_by(self.tokenizer, self.split[row], self.options)

    def text(self, ids: Sequence[int]) -> str:
        """The text that token ids spell, without special tokens."""
        spelled: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return spelled


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """The predictions for many rows: columns of numbers underneath, a `Prediction` made for each row that is looked at.

    `batch` and `output` hold one entry a window, in the order of the rows; a row's windows are decoded together.
    """

    decode: Decode
    source: SplitSource
    batch: Batch
    output: Gathered

    def __len__(self) -> int:
        return len(self.source.split)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | list[Prediction]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # IndexError past the end, as for any sequence
        return self.decoded(position, position + 1)[0]

    def __iter__(self) -> Iterator[Prediction]:
        for start in range(0, len(self), DECODED_AT_ONCE):
            yield from self.decoded(start, min(start + DECODED_AT_ONCE, len(self)))

    def decoded(self, start: int, stop: int) -> list[Prediction]:
        """The predictions of rows start to stop (exclusive), in one call of `decode`; an error says where its row is in the source."""
        first, last = np.searchsorted(self.batch.rows, (start, stop))  # the windows of these rows
        windows = np.arange(first, last)
        try:
            return self.decode(self.output.take(windows), self.batch.take(windows), self.source)
        except PellucidError as error:
            if error.row is None:
                raise
            raise error.at(self.split.place(error.row)) from error

    @property
    def split(self) -> Split:
        """The rows that were predicted."""
        return self.source.split

    def answers(self) -> list[Answer]:
        """The answers alone, in the order of the rows."""
        return [prediction.answer for prediction in self]

    @property
    def logits(self) -> FloatArray:
        """The logits of every window, in the order of the rows: (windows, labels), or (positions of all windows, labels)."""
        found: FloatArray = self.output.logits
        return found

    def row_logits(self) -> FloatArray:
        """The logits of each row as `decode` sees them, the windows of a row pooled: (rows, labels)."""
        every = self.output.take(np.arange(len(self.output)))
        long = self.source.options.long
        logits: FloatArray = pooled(every, self.batch.rows, self.batch.lengths, "mean" if long is None else long.pooling)[0].logits
        return logits

    def to_frame(self) -> "pandas.DataFrame":
        """A DataFrame: row number, the text fields, the answer, and a score for each candidate."""
        import pandas

        rows = [
            {"row": example.row, **example.fields, "answer": prediction.answer, **{f"score {k}": v for k, v in prediction.scores.items()}}
            for example, prediction in zip(self.split, self, strict=True)
        ]
        return pandas.DataFrame(rows)
