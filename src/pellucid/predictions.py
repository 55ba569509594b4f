"""The predictions for many rows: columns of numbers underneath, one `Prediction` made for each row that is looked at.

Takes the batches and outputs of a run and the way to decode them. Gives a sequence in the order of the rows.
Knows nothing of models or of what an answer means.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pellucid.data import Split
from pellucid.task import Source
from pellucid.tokens import TokenOptions, tokens_of
from pellucid.types import Batch, Example, IntArray, Output, Prediction, Tokens

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedTokenizerBase

Decode = Callable[[Output, Batch, Source | None], list[Prediction]]
DECODED_AT_ONCE = 1024  # rows


@dataclass(frozen=True)
class SplitSource:
    """Looks up the texts and tokens of a split, one row at a time, by row number within the predictions."""

    split: Split
    tokenizer: "PreTrainedTokenizerBase"
    reads: tuple[str, ...]
    options: TokenOptions

    def example(self, row: int) -> Example:
        """The texts of a row."""
        return self.split[row]

    def tokens(self, row: int, window: int = 0) -> Tokens:
        """The tokens of one window of a row."""
        return tokens_of(self.tokenizer, self.split[row], self.reads, self.options, window)


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """The predictions for many rows: columns of numbers underneath, a `Prediction` made for each row that is looked at."""

    decode: Decode
    source: SplitSource
    batches: tuple[Batch, ...]
    outputs: tuple[Output, ...]
    places: IntArray = field(init=False, repr=False)  # (rows, 2): batch, position within it

    def __post_init__(self) -> None:
        places = np.zeros((len(self.split), 2), dtype=np.int64)
        for number, batch in enumerate(self.batches):
            places[batch.rows, 0] = number
            places[batch.rows, 1] = np.arange(len(batch))
        object.__setattr__(self, "places", places)

    @property
    def split(self) -> Split:
        """The rows that were predicted."""
        return self.source.split

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | list[Prediction]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        batch, position = self.places[index]  # IndexError past the end, as for any sequence
        one = np.array([position])
        return self.decode(self.outputs[batch].take(one), self.batches[batch].take(one), self.source)[0]

    def __iter__(self) -> Iterator[Prediction]:
        for start in range(0, len(self), DECODED_AT_ONCE):
            yield from self.decoded(start, min(start + DECODED_AT_ONCE, len(self)))

    def decoded(self, start: int, stop: int) -> list[Prediction]:
        """The predictions of rows start to stop (exclusive), in one call of `decode` where their logits have one shape."""
        picked = [(self.outputs[batch].logits[place], self.batches[batch], place) for batch, place in self.places[start:stop]]
        if len({logits.shape for logits, _, _ in picked}) != 1:
            return [self[position] for position in range(start, stop)]
        columns = ([getattr(batch, name)[place] for _, batch, place in picked] for name in ("rows", "windows", "lengths"))
        batch = Batch({}, None, *map(np.array, columns))
        return self.decode(Output(np.stack([logits for logits, _, _ in picked])), batch, self.source)

    def answers(self) -> list[str | float | tuple[str, ...]]:
        """The answers alone, in the order of the rows."""
        return [prediction.answer for prediction in self]

    @property
    def logits(self) -> np.ndarray[Any, Any]:
        """The logits in the order of the rows: (rows, labels); for tasks with one row of logits a text."""
        first = self.outputs[0].logits if self.outputs else np.zeros((0, 0), dtype=np.float32)
        array = np.empty((len(self), *first.shape[1:]), dtype=first.dtype)
        for batch, output in zip(self.batches, self.outputs, strict=True):
            array[batch.rows] = output.logits
        return array

    def to_frame(self) -> "pandas.DataFrame":
        """A DataFrame: row number, the text fields, the answer, and a score for each candidate."""
        import pandas

        rows = [
            {"row": example.row, **example.fields, "answer": prediction.answer, **{f"score {k}": v for k, v in prediction.scores.items()}}
            for example, prediction in zip(self.split, self, strict=True)
        ]
        return pandas.DataFrame(rows)
