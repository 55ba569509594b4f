"""Zero-shot classification: which of some labels fits a text, by a model that was never trained on them.

Takes texts and candidate labels, and what a model says of each text beside each label.
Gives token tables with one window a candidate, and predictions with a score a label.
Knows nothing of loops, files, padding or how a model is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, get_args

import numpy as np
import numpy.typing as npt

from pellucid.batch import pad as pad_windows
from pellucid.batch import row_slices
from pellucid.errors import LabelError, SettingError, TokenizerError
from pellucid.labels import LabelSet
from pellucid.metrics import Score, classification_scores, multilabel_scores
from pellucid.task import Task
from pellucid.token_reading import check_unicode
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable, windows_of
from pellucid.tokens import encode as encode_columns
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Tokens, Want
from pellucid.view import Bars, Lines, Stack, View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell

Method = Literal["nli", "embeddings"]
PAIR = ("text", "text_pair")
NO_NLI = (
    "Take a checkpoint that was trained on NLI (pairs of texts with the labels entailment, neutral, contradiction), "
    'or ZeroShotClassification(method="embeddings").'
)


@dataclass(frozen=True, slots=True)
class ZeroShotClassification(Task):
    """The best of `candidate_labels` for each text; with `multi_label` each label that reaches `threshold`, for itself.

    `template` makes a sentence of a label. Method "nli": a model of natural language inference says whether the text entails it. Method
    "embeddings", where there is no such model: the cosine between the mean-pooled vectors of the text and of that sentence; the softmax
    of `scale` times the cosines makes them shares. Raises SettingError and LabelError for what cannot be.
    """

    candidate_labels: tuple[str, ...] = ()
    template: str = "This example is {}."
    multi_label: bool = False
    threshold: float = 0.5
    method: Method = "nli"
    scale: float = 20.0  # with which the checkpoints of sentence-transformers are trained
    entailment: int = -1  # the classes of the NLI head: `build` finds them
    contradiction: int = -1

    def __post_init__(self) -> None:
        if not isinstance(self.candidate_labels, tuple):
            parts = self.candidate_labels.split(",") if isinstance(self.candidate_labels, str) else self.candidate_labels
            cure = f"Pass {tuple(part.strip() for part in parts)!r}."
            raise SettingError(f"expected a tuple of labels, came {self.candidate_labels!r}", place="candidate_labels", cure=cure)
        try:
            LabelSet(self.candidate_labels)
        except LabelError as error:
            raise error.at("candidate_labels") from None
        for name, texts in (("candidate_labels", self.candidate_labels), ("template", (self.template,))):
            for text in texts:
                check_unicode(text, name)
        if "{}" not in self.template:
            cure = 'Write {} where the label goes: "This text is about {}."'
            raise SettingError(f"the template {self.template!r} has no place for a label", place="template", cure=cure)
        if self.method not in get_args(Method):
            raise SettingError(f"there is no method {self.method!r}", place="method", cure=f"Use {' or '.join(get_args(Method))}.")

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "zero-shot-classification"

    @property
    def kind(self) -> str:
        """One label, or several."""
        return "multi_label" if self.multi_label else "single_label"

    @property
    def labels(self) -> tuple[str, ...]:
        """The candidates; the head of the model has others."""
        return self.candidate_labels

    @property
    def outputs(self) -> tuple[str, ...]:
        """None: the head says entailment and its like, whatever the candidates are."""
        return ()

    @property
    def long_texts(self) -> LongTexts:
        """Cut, but never the sentence with the label."""
        return LongTexts("truncate")

    @property
    def reads(self) -> tuple[str, ...]:
        """One text."""
        return ("text",)

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The labels of the rows as candidates, where none are given."""
        if self.candidate_labels or not split.has_targets:
            return self, ()
        targets = [target for start, stop in split.chunks() for target in split.targets(start, stop)]
        found = replace(self, candidate_labels=LabelSet.from_targets(targets).names)
        several = any(isinstance(target, tuple) for target in targets)
        note = Note(f"{len(found.labels)} candidate labels", "the rows have them", "ZeroShotClassification(candidate_labels=(…)).")
        return replace(found, multi_label=self.multi_label or several), (note,)

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The model with its NLI head, or the bare body. Raises LabelError where no class of the head is called entailment."""
        from pellucid.model import build_classifier, build_model

        if self.method == "embeddings":
            built = build_model(checkpoint, options, auto_class="AutoModel")
            why = "cosines of mean-pooled vectors, as method='embeddings' asks; a model trained on NLI is mostly better"
            return self, replace(built, notes=(*built.notes, Note("labels are compared with texts", why)))
        try:
            built = build_classifier(checkpoint, None, options, problem_type="single_label_classification")
        except LabelError as error:
            raise LabelError(error.problem, place=checkpoint, cure=NO_NLI) from error
        names = built.labels.names if built.labels is not None else ()
        entailment, contradiction = nli_classes(names, checkpoint)
        return replace(self, entailment=entailment, contradiction=contradiction), built

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize each text beside each label: one window a candidate; for embeddings the text in a window of its own before them."""
        if targets is not None:
            self.label_array(targets)
        texts, sentences = columns.get("text", ()), self.sentences(options)
        read: dict[str, list[Any]] = {"text": [text for text in texts for _ in sentences], "text_pair": [*sentences] * len(texts)}
        if self.method == "embeddings":
            read = {"text": [each for text in texts for each in (text, *sentences)]}
        try:
            table = encode_columns(tokenizer, read, tuple(read), first_only(options, len(read)))
        except TokenizerError as error:
            encode_columns(tokenizer, columns, self.reads, options)  # names the row of a text that cannot be read
            cure = "Set a larger max_length, or write shorter labels."
            raise SettingError(f"a label leaves no room for a text: {error.problem}", place="candidate_labels", cure=cure) from error
        count = len(sentences) + (self.method == "embeddings")
        windows = (table.rows % count).astype(np.int32)
        lost, lost_words = (counted_once(each, count) for each in (table.lost, table.lost_words))
        return replace(table, rows=table.rows // count, windows=windows, lost=lost, lost_words=lost_words)

    def sentences(self, options: TokenOptions) -> tuple[str, ...]:
        """The template with each label. Raises SettingError without labels, or for texts in windows."""
        if not self.candidate_labels:
            cure = 'Pass ZeroShotClassification(candidate_labels=("sport", "politics")), or dataclasses.replace the task of a pipeline.'
            raise SettingError("there are no candidate labels to choose from", place="candidate_labels", cure=cure)
        if options.long is not None and options.long.in_windows:
            cure = 'Use TokenOptions(long=LongTexts("truncate")).'
            raise SettingError("each label is read beside the beginning of the text, not in windows", place="long", cure=cure)
        return tuple(self.template.replace("{}", label) for label in self.candidate_labels)

    def windows_of(self, tokenizer: "PreTrainedTokenizerBase", example: Example, options: TokenOptions) -> tuple[Tokens, ...]:
        """The tokens of every window of one row, as `encode` makes them; the sentence with the label is the field "text_pair"."""
        found: list[Tokens] = []
        fields, reads = {"text": example.fields["text"]}, ("text",)
        if self.method == "embeddings":
            found += windows_of(tokenizer, Example(example.row, fields), reads, options)
        for sentence in self.sentences(options):
            if self.method == "nli":
                found += windows_of(tokenizer, Example(example.row, {**fields, "text_pair": sentence}), PAIR, first_only(options, 2))
                continue
            tokens = windows_of(tokenizer, Example(example.row, {"text": sentence}), reads, options)[0]
            found.append(replace(tokens, segments=tuple(None if field is None else "text_pair" for field in tokens.segments)))
        return tuple(replace(tokens, window=window) for window, tokens in enumerate(found))

    def label_array(self, targets: Sequence[Target]) -> IntArray:
        """The number of each target among the candidates, (rows,), or zeros and ones, (rows, labels). Raises LabelError with the row."""
        array = np.zeros((len(targets), len(self.labels)), dtype=np.int64)
        for row, target in enumerate(targets):
            names = target if isinstance(target, tuple) and self.multi_label else (target,)
            array[row, [candidate(name, self.labels, row) for name in names]] = 1
        return array if self.multi_label else array.argmax(axis=-1)

    def to_learn(self, table: TokenTable) -> TokenTable:
        """Raises SettingError: such a model is trained on pairs."""
        untrainable()

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad to one length."""
        return pad_windows(tokens, windows, pad)

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One forward pass over texts beside labels: logits (batch, 1, classes of the head), or vectors of length 1, (batch, 1, hidden)."""
        from pellucid.forwarding import features, forward

        if self.method == "nli":
            output = forward(model, batch, want)
            return replace(output, logits=output.logits[:, None], lengths=np.ones(len(batch), dtype=np.int64))
        vectors = features(model, batch, "mean")  # (batch, hidden)
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
        return Output(unit[:, None], lengths=np.ones(len(batch), dtype=np.int64))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Raises SettingError: such a model is trained on pairs."""
        untrainable()

    def best_labels(self, logits: FloatArray) -> IntArray:
        """Raises SettingError: such a model is trained on pairs."""
        untrainable()

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """Raises SettingError: such a model is trained on pairs."""
        untrainable()

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """The label with the highest score, or every label that reaches the threshold."""
        predictions = []
        for windows in row_slices(batch.rows):
            scores = scores_of(self, np.asarray(output.logits[windows, 0], dtype=np.float64))  # (labels,)
            answer: str | tuple[str, ...] = self.labels[int(scores.argmax())]
            if self.multi_label:
                answer = tuple(label for label, score in zip(self.labels, scores, strict=True) if score >= self.threshold)
            predictions.append(Prediction(int(batch.rows[windows.start]), answer, dict(zip(self.labels, scores.tolist(), strict=True))))
        return predictions

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """Accuracy and F1 over the candidates, or the scores of sets of labels; the main score first."""
        given: list[Any] = [prediction.answer for prediction in answers]
        return (multilabel_scores if self.multi_label else classification_scores)(given, targets, self.labels)

    def view(self, prediction: Prediction, example: Example) -> View:
        """The text, the answer, and a bar for each label."""
        best = sorted(prediction.scores.items(), key=lambda scored: -scored[1])
        bars = Bars(f"scores for {self.template!r}", tuple(label for label, _ in best), tuple(score for _, score in best))
        said = prediction.says()
        return Stack(f"row {prediction.row}: {said}", (Lines("text", (example.fields["text"],)), Lines("answer", (said,)), bars))


def counted_once(lost: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
    """What is lost of each row, at the first of its `count` windows: the most that any of them loses."""
    found = np.zeros((len(lost) // count, count), dtype=np.int32)
    found[:, 0] = lost.reshape(-1, count).max(axis=1)
    return found.reshape(-1)


def candidate(name: object, labels: tuple[str, ...], row: int) -> int:
    """The number of a target among the candidates. Raises LabelError with the row."""
    if isinstance(name, str) and name in labels:
        return labels.index(name)
    few, cure = ", ".join(map(repr, labels[:8])), "Add it to the candidate labels, or mend the row."
    raise LabelError(f"expected one of the candidate labels {few}, came {name!r}", row=row, cure=cure)


def scores_of(task: ZeroShotClassification, given: FloatArray) -> FloatArray:
    """The score of each label, (labels,), from what the model gave for each window of a row: (windows, classes or hidden)."""
    from scipy.special import expit, softmax

    found: FloatArray
    if task.method == "embeddings":
        cosines = given[1:] @ given[0]  # (labels,)
        found = np.maximum(cosines, 0.0) if task.multi_label else softmax(task.scale * cosines)
    elif task.multi_label or len(task.labels) == 1:
        found = expit(given[:, task.entailment] - given[:, task.contradiction])
    else:
        found = softmax(given[:, task.entailment])
    return found


def nli_classes(names: Sequence[str], checkpoint: str) -> tuple[int, int]:
    """The class that says entailment and the one that says the contrary, in any case of letters.

    Without a name that says contradiction it is the first class, or the last where the first is entailment: as in transformers.
    Raises LabelError where no class says entailment.
    """
    lowered = [name.lower() for name in names]
    entails = [number for number, name in enumerate(lowered) if "entail" in name and not name.startswith(("not", "non", "no_", "no "))]
    if len(entails) != 1:
        few = ", ".join(map(repr, names[:8]))
        problem = f"the head does not say entailment, its {len(names)} classes are {few}"
        raise LabelError(problem, place=checkpoint, cure=NO_NLI)
    contrary = [number for number, name in enumerate(lowered) if name.startswith("contra")]
    return entails[0], contrary[0] if contrary else (len(names) - 1 if entails[0] == 0 else 0)


def first_only(options: TokenOptions, fields: int) -> TokenOptions:
    """The options under which of two texts only the first may be cut."""
    return replace(options, truncation="only_first") if fields == 2 and options.truncation_strategy != "do_not_truncate" else options


def untrainable() -> NoReturn:
    """Raises SettingError that says how such a model is trained."""
    cure = (
        'Train the task "text-classification" on pairs with the labels entailment, neutral and contradiction, '
        "and open the saved folder with zero-shot-classification."
    )
    raise SettingError("zero-shot classification needs no training, and has none", place="task", cure=cure)
