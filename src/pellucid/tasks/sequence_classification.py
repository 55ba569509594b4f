"""Text classification: one label, several labels or a number for a text or a pair of texts.

Takes columns of texts, and logits. Gives token tables with a target a row, and predictions with a score a label.
Knows nothing of loops, files, padding or how a model is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from pellucid.batch import pad as pad_windows
from pellucid.calibration import best_thresholds
from pellucid.errors import LabelError, SettingError
from pellucid.labels import LabelSet, are_numbers, number_of
from pellucid.metrics import Score, classification_scores, multilabel_scores, regression_scores
from pellucid.task import Task
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable
from pellucid.tokens import encode as encode_columns
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Want
from pellucid.view import Bars, Lines, Stack, View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell

Kind = Literal["auto", "single_label", "multi_label", "regression"]


@dataclass(frozen=True, slots=True)
class SequenceClassification(Task):
    """One label (`single_label`), any number of labels (`multi_label`) or a number (`regression`) for each row.

    `thresholds` are for multi-label: a label is given from its threshold on; empty until they have been chosen, then one a label.
    """

    labels: tuple[str, ...] = ()
    kind: Kind = "auto"
    pair: bool = False
    thresholds: tuple[float, ...] = ()

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "text-classification"

    @property
    def long_texts(self) -> LongTexts:
        """Cut: the beginning of a text mostly says what it is."""
        return LongTexts("truncate")

    @property
    def reads(self) -> tuple[str, ...]:
        """One text, or two."""
        return ("text", "text_pair") if self.pair else ("text",)

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The kind and the label names that the rows show."""
        if not split.has_targets:
            cure = "Name their column: pl.read(…, label=…)."
            raise LabelError("the rows have no labels to learn from", place=split.source, cure=cure)
        if self.pair and split.roles.text_pair is None:
            raise LabelError("the task reads pairs, the rows have one text", place=split.source, cure="Name the second: text_pair=….")
        targets = [target for start, stop in split.chunks() for target in split.targets(start, stop)]
        kind, notes = (self.kind, ()) if self.kind != "auto" else kind_of(targets)
        labels = self.labels if self.labels or kind == "regression" else LabelSet.from_targets(targets).names
        if kind != "regression" and len(labels) < 2:
            raise LabelError(
                f"a classifier needs at least two labels, the rows have {len(labels)}: {', '.join(labels) or 'none'}",
                place=f"column {', '.join(split.roles.labels)!r}",
                cure='Add rows of another class, or pass SequenceClassification(kind="regression") for numbers.',
            )
        return replace(self, labels=labels, kind=kind, pair=split.roles.text_pair is not None), notes

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The body with a classification head; without rows the head of the checkpoint says what the labels are."""
        from pellucid.model import build_classifier

        kind: Kind = "single_label" if self.kind == "auto" else self.kind
        outputs = 1 if kind == "regression" else None
        labels = LabelSet(self.labels) if self.labels else None
        built = build_classifier(checkpoint, labels, options, problem_type=PROBLEM_TYPES[kind], num_outputs=outputs)
        if self.kind == "auto":
            kind = kind_of_config(built.model.config.problem_type, built.model.config.num_labels)
            built.model.config.problem_type = PROBLEM_TYPES[kind]
        names = built.labels.names if built.labels is not None and kind != "regression" else ()
        thresholds = self.thresholds
        if len(thresholds) not in (0, len(names)):
            problem = f"{len(thresholds)} thresholds for {len(names)} labels"
            raise SettingError(problem, place="thresholds", cure="Give one a label, or none.")
        if thresholds and self.labels and names != self.labels:  # the head has another order: the thresholds follow their labels
            thresholds = tuple(thresholds[self.labels.index(name)] for name in names)
        return replace(self, kind=kind, labels=names, thresholds=thresholds), built

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize one text or two; a target becomes a class number, a row of zeros and ones, or a float."""
        table = encode_columns(tokenizer, columns, self.reads, options)
        return table if targets is None else table.with_row_labels(self.label_array(targets))

    def label_array(self, targets: Sequence[Target]) -> IntArray | FloatArray:
        """The targets as the loss wants them: (rows,) int64, (rows, labels) float32 or (rows,) float32."""
        if self.kind == "regression":
            return np.array([number(target, row) for row, target in enumerate(targets)], dtype=np.float32)  # (rows,)
        numbers = {name: position for position, name in enumerate(self.labels)}
        if self.kind == "multi_label":
            array = np.zeros((len(targets), len(self.labels)), dtype=np.float32)  # (rows, labels)
            for row, target in enumerate(targets):
                names: tuple[Any, ...] = target if isinstance(target, tuple) else (target,)
                array[row, [known(name, numbers, row) for name in names]] = 1.0
            return array
        return np.array([known(target, numbers, row) for row, target in enumerate(targets)], dtype=np.int64)  # (rows,)

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad to one length."""
        return pad_windows(tokens, windows, pad)

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One forward pass: logits (batch, labels)."""
        from pellucid.model import forward

        return forward(model, batch, want)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropy, binary cross-entropy averaged over the labels, or squared error: (batch,)."""
        from torch.nn import functional

        if self.kind == "regression":
            return functional.mse_loss(logits.squeeze(-1).float(), labels.float(), reduction="none")
        if self.kind == "multi_label":
            return functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none").mean(-1)
        return functional.cross_entropy(logits.float(), labels, reduction="none")

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """The name of the class, the names of the set, or the number."""
        values = np.asarray(labels)
        if self.kind == "regression":
            return f"{float(values):.4g}"
        return self.labels[int(values)] if values.ndim == 0 else ", ".join(np.array(self.labels)[values > 0].tolist())

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """The label with the highest probability, every label above its threshold, or the number."""
        rows = [int(row) for row in batch.rows]
        if self.kind == "regression":
            return [Prediction(row, float(value), {"value": float(value)}) for row, value in zip(rows, output.logits[:, 0], strict=True)]
        scores = probabilities(output.logits, self.kind)  # (batch, labels)
        if self.kind == "multi_label":
            chosen = scores >= np.array(self.thresholds or [0.5] * len(self.labels), dtype=scores.dtype)  # (batch, labels)
            answers = [tuple(np.array(self.labels)[mask].tolist()) for mask in chosen]
            return [scored(row, answer, self.labels, values) for row, answer, values in zip(rows, answers, scores, strict=True)]
        best = scores.argmax(-1)  # (batch,)
        return [scored(row, self.labels[top], self.labels, values) for row, top, values in zip(rows, best, scores, strict=True)]

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """Accuracy and F1, the multi-label scores, or the correlations; the main score first."""
        given: list[Any] = [prediction.answer for prediction in answers]
        if self.kind == "regression":
            return regression_scores(given, [number(target, row) for row, target in enumerate(targets)])
        scores = multilabel_scores if self.kind == "multi_label" else classification_scores
        return scores(given, targets, self.labels)

    def view(self, prediction: Prediction, example: Example) -> View:
        """The text, the answer, and a bar for each label."""
        answer = ", ".join(map(str, prediction.answer)) or "(no label)" if isinstance(prediction.answer, tuple) else str(prediction.answer)
        bars = Bars("scores", tuple(prediction.scores), tuple(prediction.scores.values()))
        return Stack(f"row {prediction.row}", (Lines("text", tuple(example.fields.values())), Lines("answer", (answer,)), bars))

    @property
    def settles(self) -> bool:
        """Thresholds, where there are several labels."""
        return self.kind == "multi_label"

    def settled(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> tuple[Self, tuple[Note, ...]]:
        """For several labels, the thresholds with the highest F1 on these rows, one a label."""
        if self.kind != "multi_label":
            return self, ()
        scores = np.array([[prediction.scores[name] for name in self.labels] for prediction in answers])  # (rows, labels)
        thresholds = best_thresholds(scores, targets, self.labels)
        low, high = min(thresholds), max(thresholds)
        why = f"the highest F1 of each label on {len(targets):,} held-out rows; scores on these rows flatter a little"
        change = "dataclasses.replace(task, thresholds=(…)) sets others."
        return replace(self, thresholds=thresholds), (Note(f"thresholds from {low:.2f} to {high:.2f}", why, change),)


PROBLEM_TYPES: Mapping[str, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def probabilities(logits: FloatArray, kind: Kind) -> FloatArray:
    """Softmax over the labels, or a sigmoid each: (batch, labels)."""
    from scipy.special import expit, softmax

    wide = np.asarray(logits, dtype=np.float64)
    found: FloatArray = expit(wide) if kind == "multi_label" else softmax(wide, axis=-1)
    return found


def scored(row: int, answer: str | tuple[str, ...], labels: Sequence[str], values: FloatArray) -> Prediction:
    """A prediction with its probabilities in label order."""
    return Prediction(row, answer, dict(zip(labels, values.tolist(), strict=True)))


def kind_of_config(problem_type: str | None, outputs: int) -> Kind:
    """What a checkpoint's config says it does; without a word, one output is a number and several are classes."""
    for kind, name in PROBLEM_TYPES.items():
        if name == problem_type and (kind == "regression") == (outputs == 1):
            return kind  # type: ignore[return-value]  # the keys of PROBLEM_TYPES are kinds
    return "regression" if outputs == 1 else "single_label"


def kind_of(targets: Sequence[Target]) -> tuple[Kind, tuple[Note, ...]]:
    """What the targets look like: sets of labels, many different numbers that are not all whole, or classes."""
    change = 'Pass the task SequenceClassification(kind="single_label"), "multi_label" or "regression".'
    known_targets = [target for target in targets if target is not None]
    if any(isinstance(target, tuple) for target in known_targets):
        return "multi_label", (Note("kind multi_label", "the targets are sets of labels", change),)
    distinct = set(known_targets)
    read_as_numbers = bool(distinct) and all(isinstance(target, float) for target in distinct)  # ReadOptions(label_kind="number")
    if read_as_numbers or are_numbers(str(target) for target in distinct):
        return "regression", (Note("kind regression", f"the targets are numbers, {len(distinct):,} different", change),)
    if len(distinct) > 2 and all(number_of(str(target)) is not None for target in distinct):
        return "single_label", (Note("kind single_label", f"the {len(distinct):,} numbers are read as names of classes", change),)
    return "single_label", ()


def known(target: Target, numbers: Mapping[str, int], row: int) -> int:
    """The class number of a target."""
    if isinstance(target, str) and target in numbers:
        return numbers[target]
    came = "no label" if target is None else f"the label {target!r}"
    few = ", ".join(repr(name) for name in list(numbers)[:8]) + (", …" if len(numbers) > 8 else "")
    raise LabelError(f"{came}, expected one of {len(numbers)}: {few}", row=row, cure="Mend the row, or train with the labels of all rows.")


def number(target: Target, row: int) -> float:
    """A target as a finite number."""
    try:
        value = float(target)  # type: ignore[arg-type]  # what is no number raises, and is named below
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise LabelError(f"expected a finite number, came {target!r}", row=row, cure="Mend the row or drop it.")
    return value
