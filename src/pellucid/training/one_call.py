"""Training in one call: rows in, a trained pipeline out.

Takes rows, a task's tag, a checkpoint and options. Gives the pipeline, the learner, what was chosen and found, and how long it took.
Knows nothing of fastai's ways: the learner does.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pellucid.checks import check_rows
from pellucid.data import Rows
from pellucid.errors import DataError, SettingError
from pellucid.pipelines import Pipeline
from pellucid.task import LABELLED_TOKENS
from pellucid.token_table import TruncationReport
from pellucid.training.precision import Precision
from pellucid.training.resume import CheckpointFolder
from pellucid.types import Note
from pellucid.view import Lines, Stack, Table, View

if TYPE_CHECKING:
    from pellucid.checks import Finding
    from pellucid.data import Split
    from pellucid.model import ModelOptions
    from pellucid.task import Task
    from pellucid.token_table import TokenOptions, TokenTable
    from pellucid.training.fastai_checkpoints import Checkpoints
    from pellucid.training.fastai_learner import PellucidLearner

LOG = logging.getLogger(__name__)
Scheduler = Literal["one_cycle", "linear"]
MINUTES = 10.0  # between checkpoints, where no number of steps is given


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. Raises SettingError for a value outside of what is possible.

    `checkpoints` is a folder: what a run writes there lets another one with `resume` go on behind the last step that was written, with the
    same weights at the end, bit for bit on a CPU. Remove the folder once the model is saved.
    """

    epochs: Annotated[int, "times to go through the rows"] = 2
    learning_rate: Annotated[float, "highest learning rate"] = 5e-5
    batch_size: Annotated[int, "rows in a batch, at most"] = 16
    max_tokens: Annotated[int | None, "padded tokens in a batch, at most"] = None
    weight_decay: Annotated[float, "weight decay, none on biases and norms"] = 0.01
    warmup: Annotated[float, "share of the steps in which the learning rate rises"] = 0.1
    freeze_epochs: Annotated[
        int | None, "times to go through the rows with the head alone, before the rest; if not given, 1 for a new head that labels tokens"
    ] = None
    seed: Annotated[int, "the new weights, the order of the batches and dropout follow from it"] = 42
    scheduler: Annotated[Scheduler, "one_cycle or linear: how the learning rate falls"] = "one_cycle"
    precision: Annotated[Precision, "float32, bfloat16, float16 (CUDA), or auto: what a second's trial shows to be faster"] = "float32"
    label_smoothing: Annotated[float, "share of each target that is spread over all labels"] = 0.0
    class_weights: Annotated[str | None, "balanced: the rows of a rare label together count as much as those of a common one"] = None
    accumulate: Annotated[int, "batches for one step of the optimizer"] = 1
    gradient_checkpointing: Annotated[bool, "less memory for about a third more time"] = False
    checkpoints: Path | str | CheckpointFolder | None = None
    checkpoint_every: Annotated[int | None, "steps between checkpoints to go on from after a crash; 10 minutes if not given"] = None
    resume: Annotated[bool, "go on with the run that was interrupted"] = False

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (1, 10_000),
            "learning_rate": (0, 10),
            "batch_size": (1, 1_000_000),
            "weight_decay": (0, 10),
            "warmup": (0, 1),
            "freeze_epochs": (0, 10_000),
            "seed": (0, 2**32 - 1),
            "label_smoothing": (0, 0.999),
            "accumulate": (1, 10_000),
        }
        for name, (low, high) in ranges.items():
            if getattr(self, name) is not None and not low <= getattr(self, name) <= high:
                cure = f"Pass a number from {low} to {high}."
                raise SettingError(f"{name} is {getattr(self, name)!r}, expected {low} to {high}", place=name, cure=cure)
        if self.scheduler not in ("one_cycle", "linear"):
            cure = 'Pass "one_cycle" or "linear".'
            raise SettingError(f"there is no schedule {self.scheduler!r}", place="scheduler", cure=cure)
        for name, known in {"precision": get_args(Precision), "class_weights": (None, "balanced")}.items():
            if getattr(self, name) not in known:
                cure = f"Use one of: {', '.join(map(str, known))}."
                raise SettingError(f"there is no {name} {getattr(self, name)!r}", place=name, cure=cure)
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            cure = "Pass a number of steps from 1 up."
            raise SettingError(f"checkpoint_every is {self.checkpoint_every!r}", place="checkpoint_every", cure=cure)


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

    The same seed, rows and machine give the same weights, bit for bit on a CPU; so does a run that was interrupted and goes on.
    torch's own random numbers are left as they were.
    Raises DataError, LabelError, SettingError, CheckpointError, TokenizerError.
    """
    import torch

    start, keeper = perf_counter(), keeper_of(options)
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
        freeze_epochs, freezing_notes = head_first(pipe, options)
        pipe = replace(pipe, notes=(*pipe.notes, *freezing_notes, *learn.loss_notes, *in_precision(learn, options.precision)))
        with learn.added_cbs(keeper):
            history = fit(learn, replace(options, freeze_epochs=freeze_epochs))
        pipe = settled(pipe, rows)
        learn.adopt(pipe)
    columns = tuple(name for name in learn.recorder.metric_names[1:] if name != "time")
    notes = (*rows.notes, *pipe.notes, *(() if keeper is None else keeper.notes))
    return Trained(pipe, learn, notes, findings, perf_counter() - start, history, columns)


def settled(pipe: Pipeline, rows: Rows) -> Pipeline:
    """The pipeline with what the rows that were kept aside decide, such as the thresholds of a multi-label task."""
    if "valid" not in rows.splits or not pipe.task.settles:
        return pipe
    task, notes = pipe.task.settled(pipe.predict(rows.valid), rows.valid.targets(0, len(rows.valid)))
    return replace(pipe, task=task, notes=(*pipe.notes, *notes))


def untrained(pipe: Pipeline, rows: Rows, options: TrainOptions) -> "PellucidLearner":
    """A learner of the sizes that `options` say."""
    from pellucid.training.fastai_blocks import LoaderOptions
    from pellucid.training.fastai_callbacks import Accumulate, FiniteSteps, GradientCheckpointing
    from pellucid.training.fastai_learner import LearnerOptions, learner
    from pellucid.training.task_loss import LossOptions

    loaders = LoaderOptions(bs=options.batch_size, seed=options.seed, max_tokens=options.max_tokens)
    loss = LossOptions(options.label_smoothing, class_weights="balanced" if options.class_weights else None)
    sizes = LearnerOptions(lr=options.learning_rate, wd=options.weight_decay, warmup=options.warmup, loaders=loaders, loss=loss)
    callbacks: list[Any] = [FiniteSteps(), *([Accumulate(options.accumulate)] if options.accumulate > 1 else [])]
    callbacks += [GradientCheckpointing()] if options.gradient_checkpointing else []
    return learner(pipe, rows, options=sizes, cbs=callbacks)


def in_precision(learn: "PellucidLearner", precision: Precision) -> tuple[Note, ...]:
    """Let the learner compute in this precision; what was chosen is said before the work starts, but for float32 that nobody tried."""
    from pellucid.training.fastai_precision import choose_precision

    if precision == "float32":
        return ()
    callback, note = choose_precision(learn, precision)
    learn.add_cbs([] if callback is None else [callback])
    LOG.warning("%s", note)
    return (note,)


def keeper_of(options: TrainOptions) -> "Checkpoints | None":
    """The callback that writes checkpoints, where there is a folder for them. Raises SettingError where one is needed and missing."""
    from pellucid.training.fastai_checkpoints import Checkpoints

    if options.checkpoints is None and (options.resume or options.checkpoint_every is not None):
        cure = 'Pass checkpoints="a_folder" with it.'
        raise SettingError("nobody said where the checkpoints are", place="checkpoints", cure=cure)
    if options.checkpoints is None:
        return None
    steps = options.checkpoint_every
    return Checkpoints(options.checkpoints, steps=steps, minutes=MINUTES if steps is None else None, resume=options.resume)


def head_first(pipe: Pipeline, options: TrainOptions) -> tuple[int, tuple[Note, ...]]:
    """How many epochs the head is trained alone, and what is to be said of that where nobody decided it."""
    if options.freeze_epochs is not None:
        return options.freeze_epochs, ()
    if pipe.task.kind not in LABELLED_TOKENS or not pipe.provenance.new_names():
        return 0, ()
    why = "most tokens have no label, and a body that moves from the first step mostly learns to say only that"
    return 1, (Note("the new head is trained alone for one epoch first", why, "Pass freeze_epochs=0."),)


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
