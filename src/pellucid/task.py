"""The contract of a task: everything that is peculiar to it, and nothing that is shared.

Takes the values of `types` and the tables of `tokens`. Gives the names that every task must have, in pipeline order.
Knows nothing of loops, files, training or screens: somebody else owns those.

A task is a frozen dataclass. Its fields are its settings: they make the JSON on disk and the flags of the command line.
Its methods, in the order of the pipeline, are the differences between it and every other task:

    reads   which columns it wants           for_rows  the settings that follow from the rows (label names, kind)
    build   which head goes on the body      encode    rows → token table
    collate token table → batch              run       batch → output, in torch
    loss    logits, labels → loss a row      decode    output → predictions
    metrics predictions, targets → scores    view      how one prediction looks
    settled what held-out rows decide: thresholds, kept with the model
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol, Self

from pellucid.errors import SettingError
from pellucid.metrics import Score
from pellucid.tokens import PadSpec, TokenOptions, TokenTable
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Tokens, Want
from pellucid.view import View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions


class Source(Protocol):
    """Where `decode` and `view` look a row up: made on demand, one row at a time."""

    def example(self, row: int) -> Example:
        """The texts of a row."""
        ...

    def tokens(self, row: int, window: int = 0) -> Tokens:
        """The tokens of one window of a row, with pieces and offsets."""
        ...


class Task(Protocol):
    """What a task must have. `pellucid.testing.check_task` runs this contract as tests."""

    @property
    def tag(self) -> str:
        """The name of the task on the Hub: its pipeline tag."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The text fields it reads, in the order in which the tokenizer gets them: ("text",) or ("text", "text_pair")."""
        ...

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The same task with the settings that follow from the training rows, and what was chosen."""
        ...

    @property
    def kind(self) -> str:
        """What its answers are, where a task has several kinds: "single_label", "multi_label", "regression"."""
        ...

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The model with this task's head; the task comes back with its labels in the order of the head."""
        ...

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize rows; `targets` become `labels` where given. Does not change its input."""
        ...

    def label_array(self, targets: Sequence[Target]) -> IntArray | FloatArray:
        """Targets as the numbers that the loss wants, (rows, …); raises LabelError with the row."""
        ...

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad the named windows of the table into one batch."""
        ...

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One forward pass. Tensors come out, with their graph where gradients are on."""
        ...

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The loss of each example, (batch,), from logits alone."""
        ...

    def decode(self, output: Output, batch: Batch, source: Source | None = None) -> list[Prediction]:
        """What the numbers mean: one prediction a row. Only `output.logits` and the rows, windows and lengths of `batch` are there."""
        ...

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """The scores of these predictions, without intervals, the main score first."""
        ...

    def view(self, prediction: Prediction, example: Example) -> View:
        """How one prediction looks."""
        ...

    def settled(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> tuple[Self, tuple[Note, ...]]:
        """The same task with what held-out rows decide (thresholds), and what was decided; itself where there is nothing."""
        ...


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
