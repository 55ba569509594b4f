"""The contract of a task: everything that is peculiar to it, and nothing that is shared.

Takes the values of `types` and the tables of `tokens`. Gives the names that every task must have, in pipeline order.
Knows nothing of loops, files, training or screens: somebody else owns those.

A task is a frozen dataclass. Its fields are its settings: they make the JSON on disk and the flags of the command line.
Its methods, in the order of the pipeline, are the differences between it and every other task:

    reads   which columns it wants           for_rows  the settings that follow from the rows (label names, kind)
    build   which head goes on the body      for_tokenizer  those that follow from the tokenizer (the id of the mask)
    outputs the names of what the head puts out
    encode  rows → token table               windows_of     the tokens of one row, to be looked at
    to_learn, drawn  what only training changes in a table, or in a batch
    collate token table → batch              run       batch → output, in torch
    loss    logits, labels → loss a row      best_labels, label_text  how a training batch looks
    decode  output → predictions
    metrics predictions, targets → scores    tally     what each row adds to them
    view    how one prediction looks
    settled what held-out rows decide: thresholds, kept with the model
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, get_type_hints

import numpy as np

from pellucid.errors import SettingError
from pellucid.metrics import Score
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable
from pellucid.tokens import windows_of as windows_as_encoded
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Tokens, Want
from pellucid.view import View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.tallies import Tally


CLASSES = ("single_label", "multi_label", "regression")  # kinds whose answer is read off one row of logits: a class, a set, a number
LABELLED_TOKENS = ("spans", "words")  # kinds with a label a token

Spell = Callable[[Sequence[int]], str]


class Source(Protocol):
    """Where `decode` and `view` look a row up: made on demand, one row at a time."""

    def example(self, row: int) -> Example:
        """The texts of a row."""
        ...

    def tokens(self, row: int, window: int = 0) -> Tokens:
        """The tokens of one window of a row, with pieces and offsets."""
        ...

    def windows(self, row: int) -> tuple[Tokens, ...]:
        """The tokens of every window of a row."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text that token ids spell, without special tokens."""
        ...


class Task(Protocol):
    """What a task must have. `pellucid.testing.check_task` runs this contract as tests.

    A task may inherit from it: then what most tasks have in common (nothing is drawn, nothing settled, long texts are cut) is there.
    """

    @property
    def tag(self) -> str:
        """The name of the task on the Hub: its pipeline tag."""
        ...

    @property
    def long_texts(self) -> LongTexts:
        """What happens to texts that are longer than the model reads, where nobody says."""
        return LongTexts("truncate")

    @property
    def reads(self) -> tuple[str, ...]:
        """The text fields it reads, in the order in which the tokenizer gets them: ("text",) or ("text", "text_pair")."""
        ...

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The same task with the settings that follow from the training rows, and what was chosen."""
        ...

    @property
    def kind(self) -> str:
        """What its answers are: "single_label", "multi_label", "regression", "spans", "words", "answers", "text", "vector"."""
        ...

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The model with this task's head; the task comes back with its labels in the order of the head."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the head's outputs, in their order: the labels; () where none has a name."""
        return tuple(getattr(self, "labels", ()))

    def for_tokenizer(self, tokenizer: "PreTrainedTokenizerBase") -> tuple[Self, tuple[Note, ...]]:
        """The same task with the settings that follow from the tokenizer, and what was chosen; itself where there are none."""
        return self, ()

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize rows; `targets` become `labels` where given. Does not change its input."""
        ...

    def windows_of(self, tokenizer: "PreTrainedTokenizerBase", example: Example, options: TokenOptions) -> tuple[Tokens, ...]:
        """The tokens of every window of one row, as `encode` makes them."""
        return windows_as_encoded(tokenizer, example, self.reads, options)

    def to_learn(self, table: TokenTable) -> TokenTable:
        """The table of rows to learn from: as it is, or with labels that the text itself gives, or packed."""
        return table

    def drawn(self, batch: Batch, draw: int) -> Batch:
        """A batch to learn from: as it is, or with masks that follow from `draw`, which is another number in each epoch."""
        return batch

    def label_array(self, targets: Sequence[Target]) -> IntArray | FloatArray:
        """Targets as the numbers that the loss wants, (rows, …); raises LabelError with the row."""
        ...

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad the named windows of the table into one batch."""
        ...

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One forward pass. Tensors come out, with their graph where gradients are on.

        With `want.scored` a task may leave out logits that its `loss` would not read; most cannot, and give them all.
        """
        ...

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The loss of each example, (batch,), from logits alone."""
        ...

    def best_labels(self, logits: FloatArray) -> IntArray | FloatArray:
        """The labels that these logits speak for, shaped as `loss` takes them: to look at a batch while training."""
        rows = np.arange(len(logits))
        answers: Any = self.decode(Output(logits), Batch({}, None, rows, np.zeros_like(rows), np.zeros_like(rows)))
        return self.label_array([prediction.answer for prediction in answers])

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: Spell) -> str:
        """How the labels of one batch entry read, beside its token `ids`, (tokens,) both with padding; `spell` turns ids into text."""
        return str(np.asarray(labels).tolist())

    def decode(self, output: Output, batch: Batch, source: Source | None = None) -> list[Prediction]:
        """What the numbers mean: one prediction a row. Of `batch`, only rows, windows and lengths are there; of `output`, logits and ids.

        The windows of a row stand together, in order. Where `output.lengths` is None there is one entry a row: windows were pooled.
        """
        ...

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """The scores of these predictions, without intervals, the main score first."""
        ...

    def tally(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> "Tally | None":
        """What each row adds to the scores; None where the scores of `kind` are known without."""
        return None

    def view(self, prediction: Prediction, example: Example) -> View:
        """How one prediction looks."""
        ...

    @property
    def settles(self) -> bool:
        """Whether held-out rows decide anything: then they are predicted once after training."""
        return False

    def settled(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> tuple[Self, tuple[Note, ...]]:
        """The same task with what held-out rows decide (thresholds), and what was decided; itself where there is nothing."""
        return self, ()


def settings_of(task: Task) -> dict[str, Any]:
    """The fields of a task as plain JSON values."""
    values = {field.name: getattr(task, field.name) for field in fields(task)}  # type: ignore[arg-type]  # a task is a dataclass
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def task_from(kind: type[Task], settings: Mapping[str, Any]) -> Task:
    """The task again, from what `settings_of` gave. Raises SettingError for an unknown or missing field."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a task is a dataclass
    if set(settings) != names:
        odd = ", ".join(sorted(set(settings) ^ names))
        raise SettingError(f"the settings of {kind.__name__} do not fit: {odd}", cure="Save the model again with this version.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def with_settings(task: Task, assignments: Sequence[str]) -> Task:
    """The task with settings as people type them: `num_beams=4`, `labels=good,bad`, `pack=false`. Raises SettingError."""
    kinds = {name: str(kind) for name, kind in get_type_hints(type(task)).items()}
    names = [field.name for field in fields(task)]  # type: ignore[arg-type]  # a task is a dataclass
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in names:
            what = f"{type(task).__name__} has no setting {name!r}" if equals else f"expected name=value, came {assignment!r}"
            raise SettingError(what, place="setting", cure=f"Its settings are {', '.join(names)}.")
        values[name] = typed(text, kinds[name], name)
    return replace(task, **values)  # type: ignore[type-var]  # a task is a dataclass


def typed(text: str, kind: str, name: str) -> Any:
    """What a text means where a value of this type is wanted. Raises SettingError."""
    if "Literal" in kind:  # the task itself says which names there are
        return text
    if "None" in kind and text.lower() in ("none", ""):
        return None
    if "tuple" in kind:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return tuple(typed(part, "float" if "float" in kind else "int" if "int" in kind else "str", name) for part in parts)
    if "bool" in kind and text.lower() in ("true", "false", "1", "0", "yes", "no"):
        return text.lower() in ("true", "1", "yes")
    for wanted, convert in (("int", int), ("float", float)):
        if wanted in kind:
            try:
                return convert(text)
            except ValueError:
                if "str" not in kind:
                    raise SettingError(f"expected a number, came {text!r}", place=name, cure=f"Write {name}=4 or another number.") from None
    if "bool" in kind:
        raise SettingError(f"expected true or false, came {text!r}", place=name, cure=f"Write {name}=true or {name}=false.")
    return text
