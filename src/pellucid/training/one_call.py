"""Training in one call: rows in, a trained pipeline out.

Takes rows, a task's tag, a checkpoint and options. Gives the pipeline, the learner, what was chosen and found, and how long it took.
Knows nothing of fastai's ways: the learner does.
"""

import logging
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pellucid.checks import check_rows
from pellucid.data import Rows
from pellucid.errors import DataError, SettingError
from pellucid.pipelines import Pipeline
from pellucid.token_table import TruncationReport
from pellucid.types import Note
from pellucid.view import Lines, Stack, Table, View

if TYPE_CHECKING:
    from pathlib import Path

    from pellucid.checks import Finding
    from pellucid.data import Split
    from pellucid.model import ModelOptions
    from pellucid.task import Task
    from pellucid.token_table import TokenOptions, TokenTable
    from pellucid.training.fastai_learner import PellucidLearner

LOG = logging.getLogger(__name__)
Scheduler = Literal["one_cycle", "linear"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. Raises SettingError for a value outside of what is possible."""

    epochs: Annotated[int, "times to go through the rows"] = 2
    learning_rate: Annotated[float, "highest learning rate"] = 5e-5
    batch_size: Annotated[int, "rows in a batch, at most"] = 16
    max_tokens: Annotated[int | None, "padded tokens in a batch, at most"] = None
    weight_decay: Annotated[float, "weight decay, none on biases and norms"] = 0.01
    warmup: Annotated[float, "share of the steps in which the learning rate rises"] = 0.1
    freeze_epochs: Annotated[int, "times to go through the rows with the head alone, before the rest"] = 0
    seed: Annotated[int, "the new weights, the order of the batches and dropout follow from it"] = 42
    scheduler: Annotated[Scheduler, "one_cycle or linear: how the learning rate falls"] = "one_cycle"

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (1, 10_000),
            "learning_rate": (0, 10),
            "batch_size": (1, 1_000_000),
            "weight_decay": (0, 10),
            "warmup": (0, 1),
            "freeze_epochs": (0, 10_000),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                cure = f"Pass a number from {low} to {high}."
                raise SettingError(f"{name} is {getattr(self, name)!r}, expected {low} to {high}", place=name, cure=cure)
        if self.scheduler not in ("one_cycle", "linear"):
            cure = 'Pass "one_cycle" or "linear".'
            raise SettingError(f"there is no schedule {self.scheduler!r}", place="scheduler", cure=cure)


@dataclass(frozen=True)
class Trained:
    """A trained pipeline, the learner that trained it, what was chosen for you, what the rows were warned of, and the seconds it took."""

    pipeline: Pipeline
    learner: "PellucidLearner"
    notes: tuple[Note, ...]
    findings: "tuple[Finding, ...]"
    seconds: float
    history: tuple[tuple[float, ...], ...]  # one line an epoch, under `columns`
    columns: tuple[str, ...]

    def view(self) -> View:
        """The epochs as a table, with the notes and the findings below."""
        lines = tuple((epoch, *(round(value, 4) for value in line)) for epoch, line in enumerate(self.history))
        table = Table("training", ("epoch", *self.columns), lines, f"{self.seconds:.1f} s")
        findings = tuple(f"{finding.level}: {finding.what} ({finding.place}). {finding.cure}" for finding in self.findings)
        parts = [Lines("chosen for you", tuple(map(str, self.notes))), Lines("found in the rows", findings)]
        return Stack("trained", (table, *(part for part in parts if part.lines)))


def train(
    rows: Rows,
    task: "str | Task" = "text-classification",
    checkpoint: "str | Path" = "minilm",
    *,
    options: TrainOptions = TrainOptions(),
    tokens: "TokenOptions | None" = None,
    model: "ModelOptions | None" = None,
) -> Trained:
    """Make a pipeline for `rows`, check them, train it, and say what was done.

    The same seed, rows and machine give the same weights, bit for bit on a CPU. torch's own random numbers are left as they were.
    Raises DataError, LabelError, SettingError, CheckpointError, TokenizerError.
    """
    import torch

    start = perf_counter()
    if "valid" in rows.splits and not rows.valid.has_targets and rows.train.has_targets:
        cure = "Label them, or leave them out: a part of the training rows is then kept aside."
        raise DataError("the validation rows have no labels, so nothing could be said of the training", place=rows.source, cure=cure)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        pipe = Pipeline.new(task, checkpoint, rows, tokens=tokens, model=model)
        learn = untrained(pipe, rows, options)
        findings = check_rows(rows, truncation(learn.dls.train.table, rows.train))
        for finding in findings:
            LOG.warning("%s: %s (%s). %s", finding.level, finding.what, finding.place, finding.cure)
        history = fit(learn, options)
        pipe = settled(pipe, rows)
        learn.adopt(pipe)
    columns = tuple(name for name in learn.recorder.metric_names[1:] if name != "time")
    return Trained(pipe, learn, (*rows.notes, *pipe.notes), findings, perf_counter() - start, history, columns)


def settled(pipe: Pipeline, rows: Rows) -> Pipeline:
    """The pipeline with what the rows that were kept aside decide, such as the thresholds of a multi-label task."""
    if "valid" not in rows.splits or not pipe.task.settles:
        return pipe
    task, notes = pipe.task.settled(pipe.predict(rows.valid), rows.valid.targets(0, len(rows.valid)))
    return replace(pipe, task=task, notes=(*pipe.notes, *notes))


def untrained(pipe: Pipeline, rows: Rows, options: TrainOptions) -> "PellucidLearner":
    """A learner of the sizes that `options` say."""
    from pellucid.training.fastai_blocks import LoaderOptions
    from pellucid.training.fastai_learner import LearnerOptions, learner

    loaders = LoaderOptions(bs=options.batch_size, seed=options.seed, max_tokens=options.max_tokens)
    sizes = LearnerOptions(lr=options.learning_rate, wd=options.weight_decay, warmup=options.warmup, loaders=loaders)
    return learner(pipe, rows, options=sizes)


def fit(learn: "PellucidLearner", options: TrainOptions) -> tuple[tuple[float, ...], ...]:
    """Train the head alone where that is asked for, then everything; the scores after each epoch."""
    from pellucid.training.fastai_learner import HEAD_FACTOR

    lines: list[Any] = []
    if options.freeze_epochs:
        learn.freeze()
        learn.fit_one_cycle(options.freeze_epochs, slice(HEAD_FACTOR * options.learning_rate))
        learn.unfreeze()
        lines += learn.recorder.values
    (learn.fit_linear if options.scheduler == "linear" else learn.fit_one_cycle)(options.epochs, options.learning_rate)
    lines += learn.recorder.values
    return tuple(tuple(float(value) for value in line) for line in lines)


def truncation(table: "TokenTable", split: "Split") -> TruncationReport:
    """How many texts and words of a split the model never sees."""
    columns = (split.columns(start, stop) for start, stop in split.chunks())
    return TruncationReport.of(table, (text for part in columns for texts in part.values() for text in texts))
