"""The values that flow through a pipeline: Example → Tokens → Batch → Output → Prediction, and the Trace of one row.

Takes plain strings, integers and arrays. Gives frozen values that can be held, shown and checked.
Knows nothing of files, tokenizers or models; links between values are integers (row, window), never references.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pellucid.portraits import (
    NOTHING,
    answer_text,
    array_table,
    how_scored,
    logit_table,
    numbered,
    score_bars,
    second_bars,
    text_lines,
    token_table,
)
from pellucid.render import to_html
from pellucid.view import Cell, Lines, Spans, Stack, Table, View
from pellucid.view import Span as Marked


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text: what stands there, what it is, and how sure a model was of it."""

    start: int  # characters, in the text that the task answers about
    end: int  # exclusive
    label: str = ""
    score: float | None = None
    text: str = ""  # the characters themselves

    @property
    def place(self) -> tuple[int, int, str]:
        """Where it is and what it is: two spans with the same place are the same answer."""
        return self.start, self.end, self.label

    def __str__(self) -> str:
        return f"{self.text}={self.label}" if self.label else self.text


Target = str | float | tuple[str, ...] | tuple[Span, ...] | None  # a class, a text, a number, a set of classes, spans, or unknown
Answer = str | float | tuple[str, ...] | tuple[Span, ...] | tuple[float, ...]  # what a task says: the same, or a vector
Columns = Mapping[str, Sequence[str]]  # the text fields of many rows: role ("text", "text_pair") → one string a row
IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
TRACED_TOKENS = 60  # a trace shows so many tokens of a window, and so many windows; `Tokens.view` shows all
TRACED_WINDOWS = 3
Array = Any  # a numpy array, or the torch tensor that stands for it between `run` and `loss`


@dataclass(frozen=True, slots=True)
class Note:
    """A choice that was made for the user: what was chosen, why, and how to choose otherwise."""

    what: str
    why: str
    change: str = ""

    def __str__(self) -> str:
        change = f" {self.change}" if self.change else ""
        return f"{self.what}: {self.why}.{change}"

    def view(self) -> Lines:
        """The note as a sentence."""
        return Lines("note", (str(self),))

    def _repr_html_(self) -> str:
        return to_html(self.view())


@dataclass(frozen=True, slots=True)
class Example:
    """One row: its number, the named text fields that its task reads, and the target where it is known."""

    row: int
    fields: Mapping[str, str]
    target: Target = None

    def view(self) -> Lines:
        """The texts, each with its name where there are several."""
        return text_lines(self.fields)

    def _repr_html_(self) -> str:
        return to_html(self.view())


@dataclass(frozen=True, slots=True)
class Tokens:
    """One window of one row, as a person looks at it."""

    row: int
    window: int
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]  # characters start, end (exclusive) in the field named by `segments`
    words: tuple[int | None, ...]  # number of the word within its field; None where a token is of no field
    special: tuple[bool, ...]
    segments: tuple[str | None, ...]  # the text field that a token comes from; None for special tokens, a prefix, a template's words
    lost: int = 0  # tokens that truncation cut from this row
    label_ids: tuple[int, ...] = ()  # one a token, for token-level tasks

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self, fields: Mapping[str, str] | None = None) -> dict[str, Sequence[Cell]]:
        """What is known of each token, name → one cell a token; with the texts, also the characters that each token reads."""
        columns: dict[str, Sequence[Cell]] = {"piece": self.pieces, "id": self.ids}
        if fields is not None:
            texts = [fields.get(field or "") for field in self.segments]
            columns["reads"] = [None if text is None else text[slice(*offset)] for text, offset in zip(texts, self.offsets, strict=True)]
        columns["word"] = self.words
        spans = zip(self.segments, self.offsets, strict=True)
        columns["characters"] = [None if field is None else f"{start}:{end}" for field, (start, end) in spans]
        if len({field for field in self.segments if field is not None}) > 1:
            columns["field"] = self.segments
        columns["special"] = [special or None for special in self.special]
        return columns | ({"label id": self.label_ids} if self.label_ids else {})

    def headline(self) -> str:
        """How many tokens there are, how many are of no field, and which window of the row this is where it is not the first."""
        window = f" of window {self.window}" if self.window else ""
        beside = sum(field is None and not special for field, special in zip(self.segments, self.special, strict=True))
        more = f", {beside} not of the text" if beside else ""
        return f"tokens{window} · {len(self):,}, {sum(self.special)} of them special{more}"

    def cut(self) -> str:
        """What truncation cut off, in words; nothing where it cut nothing."""
        return f"Truncation cut {self.lost:,} tokens of this row: the model never sees them." if self.lost else ""

    def view(self) -> Table:
        """One column a token: piece, id, word, characters, special."""
        return token_table(self.headline(), self.columns(), note=self.cut())

    def _repr_html_(self) -> str:
        return to_html(self.view())


@dataclass(frozen=True, slots=True)
class Batch:
    """What the model is given. `inputs` hold only what its forward accepts."""

    inputs: Mapping[str, Array]  # each (batch, tokens)
    labels: Array | None  # (batch,), (batch, labels) or (batch, tokens)
    rows: IntArray  # (batch,) row numbers
    windows: IntArray  # (batch,) window numbers within the row
    lengths: IntArray  # (batch,) tokens before padding

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: IntArray) -> "Batch":
        """The batch entries at `positions`, in that order."""
        labels = None if self.labels is None else self.labels[positions]
        inputs = {name: array[positions] for name, array in self.inputs.items()}
        return Batch(inputs, labels, self.rows[positions], self.windows[positions], self.lengths[positions])

    def without_inputs(self) -> "Batch":
        """The same entries, without the arrays that only the model needs."""
        return replace(self, inputs={})

    def view(self) -> Table:
        """The name, shape, type and first row of each array that the model is given."""
        arrays = dict(self.inputs) if self.labels is None else {**self.inputs, "labels": self.labels}
        ids = self.inputs.get("input_ids")
        useful = int(self.lengths.sum())
        padding = "" if ids is None else f", {useful:,} tokens and {max(ids.shape[0] * ids.shape[1] - useful, 0):,} of padding"
        return array_table("batch · shapes are (batch, tokens)", arrays, note=f"{len(self)} in the batch{padding}")

    def _repr_html_(self) -> str:
        return to_html(self.view())


@dataclass(frozen=True, slots=True)
class Want:
    """What a run should give beside the logits."""

    hidden_states: bool = False
    attentions: bool = False
    answers: bool = False  # the run is for answering, not for a loss: text is generated, and only what `decode` needs comes out
    scored: bool = False  # only the logits that `batch.labels` are compared with, where the task knows how to leave out the others


@dataclass(frozen=True, slots=True)
class Output:
    """What the model gave: tensors between `run` and `loss`, numpy arrays everywhere else."""

    logits: Array  # (batch, labels) or (batch, tokens, labels); for generated ids (batch, tokens, candidates) log-probabilities
    loss: Array | None = None  # (batch,) per example
    hidden_states: tuple[Array, ...] = ()  # one a layer, each (batch, tokens, hidden)
    attentions: tuple[Array, ...] = ()  # one a layer, each (batch, heads, tokens, tokens)
    ids: Array | None = None  # (batch, tokens, candidates) token ids that the model chose; -1 where there is none
    lengths: Array | None = None  # (batch,) how many positions along axis 1 count, where entries differ in that

    def take(self, positions: IntArray) -> "Output":
        """The entries at `positions`, in that order."""
        loss, ids, lengths = (None if array is None else array[positions] for array in (self.loss, self.ids, self.lengths))
        hidden, attentions = (tuple(layer[positions] for layer in layers) for layers in (self.hidden_states, self.attentions))
        return Output(self.logits[positions], loss, hidden, attentions, ids, lengths)

    def view(self) -> Table:
        """The name, shape, type and first row of each array that the model gave."""
        given = {"logits": self.logits, "loss": self.loss, "ids": self.ids}
        arrays = {name: array for name, array in given.items() if array is not None}
        layers = {f"hidden state {number}": layer for number, layer in enumerate(self.hidden_states)}
        maps = {f"attention {number}": layer for number, layer in enumerate(self.attentions, 1)}
        return array_table("output", {**arrays, **layers, **maps})

    def _repr_html_(self) -> str:
        return to_html(self.view())


@dataclass(frozen=True, slots=True)
class Prediction:
    """The human answer for one row, with what it was weighed against."""

    row: int
    answer: Answer
    scores: Mapping[str, float] = field(default_factory=dict)  # candidate → score, in label order
    spans: tuple[Span, ...] = ()  # where the answer stands in the text, the best first: of a question, the n best
    alternatives: tuple[tuple[str, float], ...] = ()  # other texts that were weighed, the best first, with their scores

    def says(self) -> str:
        """The answer in words, with its score where it has one."""
        return answer_text(self.answer, self.scores)

    def view(self) -> Stack:
        """The answer, and a bar for each candidate."""
        return Stack(f"row {self.row}: {self.says()}", (score_bars(self.scores),) if len(self.scores) > 1 else ())

    def _repr_html_(self) -> str:
        return to_html(self.view())


@dataclass(frozen=True, slots=True)
class Trace:
    """One of each value for one row, with the seconds that each step took."""

    example: Example
    tokens: tuple[Tokens, ...]
    batch: Batch
    output: Output
    prediction: Prediction
    seconds: Mapping[str, float]  # step name → seconds
    notes: tuple[Note, ...] = ()
    weights: tuple[str, ...] = ()  # which weights made the answer, in sentences: `portraits.weight_lines`

    def view(self) -> Stack:
        """Every value between the text and the answer, in the order in which they were made."""
        scores = self.prediction.scores
        parts: list[View] = [self.example.view(), *self._token_parts(), self.batch.view()]
        scored = ""
        if self.output.logits.ndim == 2 and self.output.logits.shape[1] == len(scores):  # (windows, labels)
            scored = how_scored(self.output.logits[0], list(scores.values()))
            parts.append(logit_table(self.output.logits, tuple(scores), scored))
        else:
            parts.append(self.output.view())
        if len(scores) > 1:
            parts.append(score_bars(scores, scored))
        parts += self._marked()
        target = "" if self.example.target is None else f"; the target is {answer_text(self.example.target, {})}"
        parts.append(Lines("answer", (self.prediction.says() + target,)))
        if self.weights:
            parts.append(Lines("which weights made this", self.weights))
        parts.append(second_bars(self.seconds))
        if self.notes:
            parts.append(Lines("choices that were made for you", tuple(f"• {note}" for note in self.notes)))
        return numbered(f"Row {self.example.row}: {self.prediction.says()}", parts)

    def _marked(self) -> list[View]:
        """The text that the answer stands in, marked; the other texts that were weighed."""
        answer, fields = self.prediction.answer, list(self.example.fields.values())
        spans = [one for one in answer if isinstance(one, Span)] if isinstance(answer, tuple) else list(self.prediction.spans[:1])
        parts: list[View] = []
        if spans:
            marks = tuple(Marked(span.start, span.end, span.label or "answer", span.score) for span in spans)
            parts.append(Spans("the answer in the text", fields[-1], marks))
        if isinstance(answer, str) and len(self.prediction.spans) > 1:
            best = tuple((span.label or span.text or NOTHING, f"{span.start}:{span.end}", span.score) for span in self.prediction.spans)
            parts.append(Table("the best answers", ("text", "characters", "score"), best))
        if self.prediction.alternatives:
            parts.append(Table("texts that were weighed", ("text", "score"), self.prediction.alternatives))
        return parts

    def _token_parts(self) -> list[Table]:
        """The tokens of the first windows, with their row of the attention mask under them."""
        mask = self.batch.inputs.get("attention_mask")
        parts = []
        for position, tokens in enumerate(self.tokens[:TRACED_WINDOWS]):
            columns = tokens.columns(self.example.fields)
            if mask is not None and position < len(mask):
                row = mask[position]
                start = len(row) - len(tokens) if len(row) > len(tokens) and not row[0] else 0  # padding may stand on the left
                columns["mask"] = [int(seen) for seen in row[start : start + len(tokens)]]
            left = len(self.tokens) - TRACED_WINDOWS
            more = f"{left:,} more windows are not shown." if position + 1 == TRACED_WINDOWS and left > 0 else ""
            note = " ".join(sentence for sentence in (tokens.cut(), more) if sentence)
            parts.append(token_table(tokens.headline(), columns, note=note, limit=TRACED_TOKENS))
        return parts

    def _repr_html_(self) -> str:
        return to_html(self.view())
