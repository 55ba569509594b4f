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

from pellucid.batch import IGNORED
from pellucid.data import Split
from pellucid.errors import SettingError
from pellucid.training.batch_text import CLASSES, targets_of
from pellucid.types import Batch, Output

if TYPE_CHECKING:
    from pellucid.metrics import Score
    from pellucid.pipelines import Pipeline
    from pellucid.task import Task
    from pellucid.types import Prediction


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
        if self.reduction == "none":
            return each
        if targ.ndim == 2 and not targ.is_floating_point() and self.kind not in CLASSES:  # a label a token: every token counts the same
            weights = (targ != IGNORED).sum(-1).to(each)
            each = each * weights * (len(each) / weights.sum().clamp(min=1))
        return each.sum() if self.reduction == "sum" else each.mean()

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities in label order, (batch, labels) or (batch, tokens, labels), or the numbers themselves.

        Of answers in a context, (batch, tokens, 2): of each token to be the first, and the last.
        """
        if self.kind in ("regression", "language", "text"):  # a probability for each of 30,000 words helps nobody
            return logits.float()
        if self.kind == "answers":
            return logits.float().softmax(1)
        return logits.float().sigmoid() if self.kind == "multi_label" else logits.float().softmax(-1)

    def decodes(self, activations: torch.Tensor) -> torch.Tensor:
        """Class numbers (batch,), zeros and ones (batch, labels), numbers (batch,), or a label a token (batch, tokens)."""
        if self.kind in ("language", "text"):
            return torch.from_numpy(np.asarray(self.task.best_labels(activations.cpu().numpy())))
        values = activations.double().cpu()
        logits = values if self.kind == "regression" else values.logit() if self.kind == "multi_label" else values.log()
        return torch.from_numpy(np.asarray(self.task.best_labels(logits.numpy())))


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


class TokenPerplexity(Metric):
    """The exponential of the mean loss of a label, over all labels of the epoch: what `evaluate` calls perplexity."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start an epoch."""
        self.loss, self.labels = 0.0, 0

    def accumulate(self, learn: Any) -> None:
        """Add the batch that the learner has just run."""
        labels = int((learn.yb[0] != IGNORED).sum())
        self.loss, self.labels = self.loss + float(learn.loss) * labels, self.labels + labels

    @property
    def value(self) -> float:
        """The perplexity; nan where nothing counted."""
        return float(np.exp(self.loss / self.labels)) if self.labels else nan

    @property
    def name(self) -> str:
        """The column's name."""
        return "perplexity"


class PredictedScores:
    """The task's scores of the rows kept aside, from one `predict` at the end of an epoch: for tasks whose answers are no classes."""

    def __init__(self, pipe: "Pipeline") -> None:
        self.pipe = pipe
        self.logits: list[Any] = []
        self.clear()

    def clear(self) -> None:
        """Forget the epoch."""
        self.split: Any = None
        self.found: Mapping[str, float] | None = None

    def hear(self, learn: Any) -> None:
        """Remember whose rows are being validated."""
        split = getattr(getattr(learn.dl, "dataset", None), "split", None)  # show_results runs over a list of one batch
        self.split = split if isinstance(split, Split) else None

    def scores(self) -> Mapping[str, float]:
        """Column name → value; nan where the rows did not come as a split."""
        if self.found is None and self.split is not None:
            answers, targets = list(self.pipe.predict(self.split)), self.split.targets(0, len(self.split))
            self.found = {column_name(score): float(score.value) for score in self.pipe.task.metrics(answers, targets)}
        return self.found or {}


class PredictedScore(Metric):
    """One of the scores of `PredictedScores` as a column of fastai's table."""

    def __init__(self, column: str, predicted: PredictedScores) -> None:
        self.column, self.predicted = column, predicted

    def reset(self) -> None:
        """Start an epoch."""
        self.predicted.clear()

    def accumulate(self, learn: Any) -> None:
        """Nothing is kept of a batch: rows are predicted together at the end."""
        self.predicted.hear(learn)

    @property
    def value(self) -> float:
        """The score of the epoch."""
        return self.predicted.scores().get(self.column, nan)

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column


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


def score_columns(pipe: "Pipeline", wanted: Sequence[Any] | None = None) -> list[Any]:
    """The columns for these names, fastai's own metrics passed through; None means the main score and the weighted F1, or the second.

    Texts are not generated each epoch unless a score of theirs is asked for: that takes longer than the training.
    """
    task = pipe.task
    if wanted is None and task.kind == "text":
        return []
    known = known_columns(task)
    if wanted is None:
        wanted = [*known[:1], *[name for name in known[1:] if name.endswith("weighted")][:1]]
        wanted = known[:2] if len(wanted) == 1 else wanted
    unknown = [name for name in wanted if isinstance(name, str) and name not in known]
    if unknown:
        raise SettingError(
            f"there is no score {unknown[0]!r}", place="metrics", cure=f"Use one of: {', '.join(known)}, or a metric of fastai's."
        )
    if task.kind == "language":
        return [TokenPerplexity(), *[name for name in wanted if not isinstance(name, str)]]
    if task.kind in CLASSES:
        collected = Collected(task)
        return [TaskScore(name, collected) if isinstance(name, str) else name for name in wanted]
    predicted = PredictedScores(pipe)
    return [PredictedScore(name, predicted) if isinstance(name, str) else name for name in wanted]


def known_columns(task: "Task") -> list[str]:
    """The names of the task's scores, as columns."""
    if task.kind == "language":
        return ["perplexity"]
    if task.kind not in CLASSES:
        tally = task.tally([], [])
        return [] if tally is None else [name.lower().replace(" ", "_") for name in tally.names]
    answers = decoded(task, np.zeros((2, max(1, len(getattr(task, "labels", ()))))))
    return [column_name(score) for score in task.metrics(answers, [answer.answer for answer in answers])]  # type: ignore[misc]
