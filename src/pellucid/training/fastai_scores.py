"""A task's scores in the form that fastai's Recorder expects.

Takes a pipeline. Gives metrics that are columns of the progress table.
Knows nothing of loaders, optimizers or files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau
from fastai.learner import Metric, mk_metric
from fastai.torch_core import to_detach

from pellucid.batch import IGNORED
from pellucid.data import Split
from pellucid.errors import SettingError
from pellucid.forwarding import aligned
from pellucid.gathered import Gathering
from pellucid.predictions import Predictions
from pellucid.task import CLASSES
from pellucid.training.batch_text import targets_of
from pellucid.training.task_loss import TaskLoss as TaskLoss
from pellucid.types import Batch, Output

if TYPE_CHECKING:
    from pellucid.metrics import Score
    from pellucid.pipelines import Pipeline
    from pellucid.task import Task
    from pellucid.types import Prediction


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
            self.logits.append(to_detach(pred, gather=False).float())
            self.labels.append(to_detach(targ, gather=False))

    def scores(self) -> Mapping[str, float]:
        """Column name → value."""
        if self.found is None:
            logits, labels = torch.cat(self.logits).numpy(), torch.cat(self.labels).numpy()
            scores = self.task.metrics(decoded(self.task, logits), targets_of(self.task, labels))
            self.found = {column_name(score): float(score.value) for score in scores}
        return self.found


FROM_LOGITS = ("spans", "words", "answers")  # kinds whose answers follow from the logits that training sees


class TokenPerplexity(Metric):
    """The exponential of the mean loss of a label, over all labels of the epoch: what `evaluate` calls perplexity."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start an epoch."""
        self.loss, self.labels = 0.0, 0

    def accumulate(self, learn: Any) -> None:
        """Add the batch that the learner has just run."""
        counts = (learn.yb[0] != IGNORED).sum(-1)  # (batch,)
        loss = learn.loss.detach()
        summed = (loss * counts).sum() if loss.ndim else loss * counts.sum()  # get_preds asks for the loss of each row
        self.loss, self.labels = self.loss + float(summed), self.labels + int(counts.sum())

    @property
    def value(self) -> float:
        """The perplexity; nan where nothing counted."""
        return float(np.exp(self.loss / self.labels)) if self.labels else nan

    @property
    def name(self) -> str:
        """The column's name."""
        return "perplexity"


class PredictedScores:
    """The task's scores of the rows kept aside at the end of an epoch, for tasks whose answers are no classes.

    Where answers follow from the logits of the validation (spans, words, answers in a context) those are used; what has to be written is
    predicted, once.
    """

    def __init__(self, pipe: "Pipeline") -> None:
        self.pipe = pipe
        self.clear()

    def clear(self) -> None:
        """Forget the epoch."""
        self.loader: Any = None
        self.gathering: Gathering | None = None
        self.last: torch.Tensor | None = None
        self.count = 0
        self.found: Mapping[str, float] | None = None

    def hear(self, learn: Any) -> None:
        """Remember whose rows are being validated, and what the model says of them; the columns of one epoch all offer it."""
        loader = learn.dl
        dataset = getattr(loader, "dataset", None)  # show_results runs over a list of one batch
        if not isinstance(getattr(dataset, "split", None), Split) or getattr(dataset, "picked", False) or learn.pred is self.last:
            return
        self.loader, self.last, self.found = loader, learn.pred, None
        if self.pipe.task.kind not in FROM_LOGITS:
            return
        mask = learn.xb[0]["attention_mask"].bool()  # (batch, tokens)
        windows = loader.sent[learn.iter]
        self.gathering = self.gathering or Gathering(len(loader.table))
        logits = aligned(to_detach(learn.pred, gather=False).float(), mask.cpu())
        self.gathering.add(windows, Output(logits.numpy(), lengths=mask.sum(dim=1).cpu().numpy()))
        self.count += len(windows)

    def predictions(self) -> "Sequence[Prediction]":
        """What the model answers for the rows of the epoch."""
        table, split = self.loader.table, self.loader.dataset.split
        if self.gathering is None or self.count != len(table):
            return self.pipe.predict(split)
        everything = Batch({}, None, table.rows, table.windows, table.lengths)
        return Predictions(self.pipe.decode, self.pipe.source(split), everything, self.gathering.done())

    def scores(self) -> Mapping[str, float]:
        """Column name → value; nothing where the rows did not come as a split."""
        if self.found is None and self.loader is not None:
            split = self.loader.dataset.split
            answers, targets = list(self.predictions()), split.targets(0, len(split))
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
        """Keep what the model says of the batch that the learner has just run."""
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


@dataclass(frozen=True, slots=True)
class Every:
    """A column that is only computed every `epochs` epochs and after the last one; in between it says nan.

    EarlyStoppingCallback and ReduceLROnPlateau that watch it count the epochs that have a score.
    For scores of texts that have to be written: `metrics=[pl.Every("rouge-l", 3)]`. `score` is a name of the task's or a metric of
    fastai's. Raises SettingError for a number below 1.
    """

    score: Any
    epochs: int

    def __post_init__(self) -> None:
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise SettingError(f"epochs is {self.epochs!r}, expected 1 or more", place="Every", cure='Pass Every("rouge-l", 2).')


class Sparse(Metric):
    """A metric that rests in most epochs: what `Every` asks for."""

    settings = ("epochs",)

    def __init__(self, metric: Metric, epochs: int) -> None:
        self.metric, self.epochs, self.due = metric, epochs, False

    def reset(self) -> None:
        """Start an epoch."""
        self.due = False
        self.metric.reset()

    def accumulate(self, learn: Any) -> None:
        """Add the batch that the learner has just run, where this epoch counts."""
        epoch = learn.epoch + 1
        self.due = epoch % self.epochs == 0 or epoch >= learn.n_epoch or not learn.train_iter  # nothing was trained: learn.validate()
        if self.due:
            self.metric.accumulate(learn)

    @property
    def value(self) -> Any:
        """The metric's own value; nan in an epoch in which it rests."""
        return self.metric.value if self.due else nan

    @property
    def name(self) -> str:
        """The metric's own name."""
        return str(self.metric.name)


def end_epoch(learn: Any) -> None:
    """fastai's event `after_epoch`, but for callbacks whose score rests: to them nan would be an epoch without a better one."""
    for callback in learn.cbs.sorted("order"):
        if not rests(callback, learn.metrics):
            callback("after_epoch")


def rests(callback: Any, metrics: Sequence[Any]) -> bool:
    """Whether this callback counts the epochs without a better score, and the score that it watches was not computed in this one."""
    if not isinstance(callback, EarlyStoppingCallback | ReduceLROnPlateau):
        return False
    columns = ("{}", "train_{}", "valid_{}")  # fastai's Recorder names them so
    watched = (metric for metric in metrics if callback.monitor in [column.format(metric.name) for column in columns])
    first = next(watched, None)
    return isinstance(first, Sparse) and not first.due


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
    names = [each.score if isinstance(each, Every) else each for each in wanted]
    unknown = [name for name in names if isinstance(name, str) and name not in known]
    if unknown:
        raise SettingError(
            f"there is no score {unknown[0]!r}", place="metrics", cure=f"Use one of: {', '.join(known)}, or a metric of fastai's."
        )
    collected, predicted = Collected(task), PredictedScores(pipe)

    def column(name: Any) -> Any:
        if not isinstance(name, str):
            return mk_metric(name)
        if task.kind == "language":
            return TokenPerplexity()
        return TaskScore(name, collected) if task.kind in CLASSES else PredictedScore(name, predicted)

    columns = [Sparse(column(each.score), each.epochs) if isinstance(each, Every) else column(each) for each in wanted]
    if task.kind == "language" and "perplexity" not in names:
        columns.insert(0, TokenPerplexity())
    return columns


def known_columns(task: "Task") -> list[str]:
    """The names of the task's scores, as columns."""
    if task.kind == "language":
        return ["perplexity"]
    if task.kind not in CLASSES:
        tally = task.tally([], [])
        return [] if tally is None else [name.lower().replace(" ", "_") for name in tally.names]
    answers = decoded(task, np.zeros((2, max(1, len(getattr(task, "labels", ()))))))
    return [column_name(score) for score in task.metrics(answers, [answer.answer for answer in answers])]  # type: ignore[misc]
