"""Feature extraction: one vector for a text, or how alike two texts are.

Takes columns of texts, and vectors of the body. Gives token tables, and predictions that hold a vector, or the similarity of a pair.
Knows nothing of loops, files, padding or how a model is loaded; it learns nothing: what is trained stands on the vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, get_args

import numpy as np

from pellucid.batch import pad as pad_windows
from pellucid.errors import SettingError, TokenizerError
from pellucid.metrics import REGRESSION, Score, finite_numbers, regression_scores
from pellucid.sentence_files import pooling_of
from pellucid.task import Task
from pellucid.token_reading import check_unicode
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable, windows_of
from pellucid.tokens import encode as encode_columns
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Tokens, Want
from pellucid.view import Lines, Stack, View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell

VectorPooling = Literal["auto", "mean", "cls", "last", "max"]


@dataclass(frozen=True, slots=True)
class FeatureExtraction(Task):
    """A vector for each text: the hidden states of one layer pooled over its tokens.

    `pooling`: "mean" over the tokens, "cls" (the first), "last", "max"; "auto" takes what the checkpoint's sentence-transformers files
    say, else the mean. `normalize` makes vectors of length 1. `prompt` stands before every text ("query: "). `layer` numbers the hidden
    states: 0 the embeddings, -1 the last. With `compare` a row is two texts, and the answer the cosine of their vectors, or, with a
    `scale`, a number: the first of its two for a cosine of 0, the second for 1. Raises SettingError for a value outside of these.
    """

    pooling: VectorPooling = "auto"
    normalize: bool = True
    prompt: str = ""
    layer: int = -1
    compare: bool = False
    scale: tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        choices = get_args(VectorPooling)
        if self.pooling not in choices:
            raise SettingError(f"pooling is {self.pooling!r}", place="pooling", cure=f"Use one of: {', '.join(choices)}.")
        check_unicode(self.prompt, "prompt")
        if len(self.scale) != 2 or not np.isfinite(self.scale).all() or self.scale[0] == self.scale[1]:
            cure = "Give what a cosine of 0 and of 1 mean, such as (0.0, 5.0)."
            raise SettingError(f"a scale is two different numbers, not {self.scale}", place="scale", cure=cure)

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "feature-extraction"

    @property
    def long_texts(self) -> LongTexts:
        """Read whole, in windows whose vectors become their mean, weighted by tokens; of two texts the beginnings are compared."""
        return LongTexts("truncate" if self.compare else "windows")

    @property
    def reads(self) -> tuple[str, ...]:
        """One text, or the two to compare."""
        return ("text", "text_pair") if self.compare else ("text",)

    @property
    def kind(self) -> str:
        """A vector; the similarity of two texts is a number."""
        return "regression" if self.compare else "vector"

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """To compare: the scale of the targets. Raises SettingError else: vectors are not trained here."""
        if not self.compare or not split.has_targets:
            _untrainable()
        targets = finite_numbers([target for start, stop in split.chunks() for target in split.targets(start, stop)], "target")
        low, high = float(targets.min()), float(targets.max())
        if self.scale != (0.0, 1.0) or low == high:
            return self, ()
        note = Note(f"a cosine of 1 counts as {high:g}, one of 0 as {low:g}", "the targets reach so far", "Set scale=(…, …).")
        return replace(self, scale=(low, high)), (note,)

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The bare body, and the pooling that goes with it."""
        from pellucid.model import build_model, resolve

        built = build_model(checkpoint, options, auto_class="AutoModel")
        if self.pooling != "auto":
            return self, built
        pooling, notes = pooling_of(resolve(checkpoint, options.revision).folder)
        return replace(self, pooling=pooling), replace(built, notes=(*built.notes, *notes))

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize the texts behind their prompt; two texts to compare are two windows of a row. Targets are left aside."""
        texts = {role: [self.prompt + text if isinstance(text, str) else text for text in columns[role]] for role in self.reads}
        if not self.compare:
            return encode_columns(tokenizer, texts, self.reads, options)
        if options.long is not None and options.long.in_windows:
            cure = "Leave TokenOptions.long out, or compare the vectors of whole texts yourself: FeatureExtraction()."
            raise SettingError("two texts are compared by their beginnings, not in windows", place="TokenOptions.long", cure=cure)
        both = [text for pair in zip(*texts.values(), strict=True) for text in pair]
        try:
            table = encode_columns(tokenizer, {"text": both}, ("text",), options)
        except TokenizerError:
            for role in self.reads:
                encode_columns(tokenizer, texts, (role,), options)  # names the row and the column
            raise
        return replace(table, rows=table.rows // 2, windows=(table.rows % 2).astype(np.int32))

    def windows_of(self, tokenizer: "PreTrainedTokenizerBase", example: Example, options: TokenOptions) -> tuple[Tokens, ...]:
        """The tokens of every window of one row, as `encode` makes them; characters count in the text as it was given, without prompt."""
        texts = {role: self.prompt + example.fields[role] for role in self.reads}
        found = [each for role in texts for each in windows_of(tokenizer, replace(example, fields=texts), (role,), options)]
        return tuple(without_prompt(replace(each, window=number), len(self.prompt)) for number, each in enumerate(found))

    def label_array(self, targets: Sequence[Target]) -> IntArray | FloatArray:
        """Raises SettingError: there is nothing to learn."""
        _untrainable()

    def to_learn(self, table: TokenTable) -> TokenTable:
        """Raises SettingError: there is nothing to learn."""
        _untrainable()

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad to one length."""
        return pad_windows(tokens, windows, pad)

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One pass of the body: `logits` are the pooled vectors, (batch, hidden)."""
        from pellucid.forwarding import vectors

        return vectors(model, batch, "mean" if self.pooling == "auto" else self.pooling, self.layer, want)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Raises SettingError: there is nothing to learn."""
        _untrainable()

    def best_labels(self, logits: FloatArray) -> IntArray | FloatArray:
        """Raises SettingError: there is nothing to learn."""
        _untrainable()

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """Nothing: there are no labels."""
        return ""

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """The vector of each row, or how alike its two texts are."""
        if not self.compare:
            found = finished(self, output.logits).tolist()
            return [Prediction(int(row), tuple(vector)) for row, vector in zip(batch.rows, found, strict=True)]
        vectors = unit(output.logits).astype(np.float64)  # (2 × rows, hidden): the two texts of a row stand together
        cosines = (vectors[0::2] * vectors[1::2]).sum(axis=-1).tolist()  # (rows,)
        low, high = self.scale
        rows = batch.rows[0::2].tolist()
        return [Prediction(row, low + cosine * (high - low), {"cosine": cosine}) for row, cosine in zip(rows, cosines, strict=True)]

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """The rank correlation of the similarities first, then the other scores of numbers."""
        if not self.compare:
            cure = "FeatureExtraction(compare=True) scores pairs of texts whose target says how alike they are."
            raise SettingError("a vector alone is neither right nor wrong", place="task", cure=cure)
        given: list[Any] = [prediction.answer for prediction in answers]
        scores = {score.name: score for score in regression_scores(given, targets)}
        return tuple(scores[name] for name in sorted(REGRESSION, key=lambda name: name != "Spearman"))

    def view(self, prediction: Prediction, example: Example) -> View:
        """The texts, and the beginning of the vector or the similarity."""
        return Stack(f"row {prediction.row}", (Lines("text", tuple(example.fields.values())), Lines("answer", (prediction.says(),))))


def finished(task: FeatureExtraction, vectors: FloatArray) -> FloatArray:
    """Pooled vectors (rows, hidden) as the settings want them, float32."""
    return unit(vectors) if task.normalize else np.asarray(vectors, dtype=np.float32)


def unit(vectors: FloatArray) -> FloatArray:
    """Vectors of length 1, (…, hidden) float32; a vector of zeros stays one."""
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0).astype(np.float32)


def without_prompt(tokens: Tokens, length: int) -> Tokens:
    """The tokens with characters counted after the first `length` ones of the text; a token that stands before belongs to no text."""
    before = [end <= length for _, end in tokens.offsets]
    return replace(
        tokens,
        offsets=tuple((max(start - length, 0), max(end - length, 0)) for start, end in tokens.offsets),
        segments=tuple(None if early else role for early, role in zip(before, tokens.segments, strict=True)),
        words=tuple(None if early else word for early, word in zip(before, tokens.words, strict=True)),
    )


def _untrainable() -> NoReturn:
    cure = "Train a head on the vectors, PipelineFeatures with a classifier of scikit-learn, or take the task text-classification."
    raise SettingError("feature extraction makes vectors and trains nothing", place="task", cure=cure)
