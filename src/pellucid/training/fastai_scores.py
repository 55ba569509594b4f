"""A task's loss and scores in the form that fastai's Learner, Interpretation and Recorder expect.

Takes a task. Gives a loss object (reduction, activation, decodes) and metrics that are columns of the progress table.
Knows nothing of loaders, optimizers or files.
"""

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fastai.learner import Metric
from fastai.torch_core import to_detach

from pellucid.errors import SettingError
from pellucid.training.batch_text import targets_of
from pellucid.types import Batch, Output

if TYPE_CHECKING:
    from pellucid.metrics import Score
    from pellucid.task import Task
    from pellucid.types import Prediction

IGNORED = -100  # the label of a token that is not scored: padding, special tokens, all but the first piece of a word


class TaskLoss:
    """The loss of a task, from logits: one number an example, and their mean for training.

    `activation` turns logits into probabilities (regression: leaves them), `decodes` those into class numbers, by the task's own `decode`.
    """

    def __init__(self, task: "Task") -> None:
        self.task: Any = task
        self.reduction = "mean"
        self.kind = getattr(task, "kind", "single_label")

    def __repr__(self) -> str:
        return f"loss of {self.task.tag} ({self.kind})"

    def __call__(self, pred: torch.Tensor, targ: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch; each example's, (batch,), where `reduction` is "none"."""
        each = self.task.loss(pred, targ)  # (batch,)
        return each if self.reduction == "none" else each.sum() if self.reduction == "sum" else each.mean()

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities in label order, (batch, labels), or the numbers themselves."""
        if self.kind == "regression":
            return logits.float()
        return logits.float().sigmoid() if self.kind == "multi_label" else logits.float().softmax(-1)

    def decodes(self, activations: torch.Tensor) -> torch.Tensor:
        """Class numbers (batch,), zeros and ones (batch, labels), or numbers (batch,)."""
        values = activations.double().cpu()
        logits = values if self.kind == "regression" else values.logit() if self.kind == "multi_label" else values.log()
        answers = [prediction.answer for prediction in decoded(self.task, logits.numpy())]
        return torch.from_numpy(self.task.label_array(answers))


def decoded(task: "Task", logits: Any) -> "list[Prediction]":
    """The predictions for logits of which no more is known than their order."""
    rows = np.arange(len(logits))
    return task.decode(Output(logits), Batch({}, None, rows, np.zeros_like(rows), np.zeros_like(rows)))


class Collected:
    """The logits and labels of an epoch, and the task's scores of them, computed once."""

    def __init__(self, task: "Task") -> None:
        self.task = task
        self.clear()

    def clear(self) -> None:
        """Forget the epoch."""
        self.logits: list[torch.Tensor] = []
        self.labels: list[torch.Tensor] = []
        self.last: torch.Tensor | None = None
        self.found: Mapping[str, float] | None = None

    def add(self, pred: torch.Tensor, targ: torch.Tensor) -> None:
        """Keep a batch; the columns of one epoch all offer it, the first is heard."""
        if pred is not self.last:
            self.last, self.found = pred, None
            self.logits.append(to_detach(pred).float())
            self.labels.append(to_detach(targ))

    def scores(self) -> Mapping[str, float]:
        """Column name → value."""
        if self.found is None:
            logits, labels = torch.cat(self.logits).numpy(), torch.cat(self.labels).numpy()
            scores = self.task.metrics(decoded(self.task, logits), targets_of(self.task, labels))
            self.found = {column_name(score): float(score.value) for score in scores}
        return self.found


class TaskScore(Metric):
    """One of the task's scores as a column of fastai's table, computed over the whole epoch as `evaluate` computes it."""

    def __init__(self, column: str, collected: Collected) -> None:
        self.column, self.collected = column, collected

    def reset(self) -> None:
        """Start an epoch."""
        self.collected.clear()

    def accumulate(self, learn: Any) -> None:
        """Keep the batch that the learner has just run."""
        self.collected.add(learn.pred, learn.yb[0])

    @property
    def value(self) -> float | None:
        """The score of the epoch; None before it."""
        return self.collected.scores()[self.column] if self.collected.logits else None

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column


class MaskedAccuracy(Metric):
    """The share of right labels, token by token, where the label is not -100: padding and special tokens do not count."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start an epoch."""
        self.right = self.counted = 0

    def accumulate(self, learn: Any) -> None:
        """Count the batch that the learner has just run."""
        labels = learn.yb[0]
        scored = labels != IGNORED
        self.right += int(((learn.pred.argmax(-1) == labels) & scored).sum())
        self.counted += int(scored.sum())

    @property
    def value(self) -> float:
        """The share; nan where nothing counted."""
        return self.right / self.counted if self.counted else nan

    @property
    def name(self) -> str:
        """The column's name."""
        return "masked_accuracy"


def column_name(score: "Score") -> str:
    """The name of a score as fastai writes names: f1_weighted."""
    return score.name.lower().replace(" ", "_")


def score_columns(task: "Task", wanted: Sequence[Any] | None = None) -> list[Any]:
    """The columns for these names, fastai's own metrics passed through; None means the main score and the weighted F1, or the second."""
    answers = decoded(task, np.zeros((2, max(1, len(getattr(task, "labels", ()))))))
    known = [column_name(score) for score in task.metrics(answers, [answer.answer for answer in answers])]
    if wanted is None:
        wanted = [known[0], *[name for name in known[1:] if name.endswith("weighted")][:1]] if len(known) > 1 else known
        wanted = [*wanted, known[1]] if len(wanted) == 1 and len(known) > 1 else wanted
    unknown = [name for name in wanted if isinstance(name, str) and name not in known]
    if unknown:
        raise SettingError(
            f"there is no score {unknown[0]!r}", place="metrics", cure=f"Use one of: {', '.join(known)}, or a metric of fastai's."
        )
    collected = Collected(task)
    return [TaskScore(name, collected) if isinstance(name, str) else name for name in wanted]
