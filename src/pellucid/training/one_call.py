"""Training in one call: rows in, a trained pipeline out.

Takes rows, a task's tag, a checkpoint and options. Gives the pipeline, the learner, what was chosen and found, and how long it took.
Knows nothing of fastai's ways: the learner does.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pellucid.adapters import ADAPTER_FACTOR, AdapterOptions, adapted
from pellucid.checks import check_rows
from pellucid.data import Rows
from pellucid.energy import EnergyMeter, Reading, check_intensity, total
from pellucid.energy_report import Energy
from pellucid.errors import DataError, SettingError
from pellucid.pipelines import Pipeline
from pellucid.provenance import Origin
from pellucid.task import LABELLED_TOKENS
from pellucid.token_table import TruncationReport
from pellucid.training.precision import Precision
from pellucid.training.processes import LostProcessError, place, speaking_once, take_part_of_machine
from pellucid.training.resume import CheckpointFolder
from pellucid.training.trackers import check_names
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
    from pellucid.training.fastai_tracking import Tracked

LOG = logging.getLogger(__name__)
Scheduler = Literal["one_cycle", "linear"]
MINUTES = 10.0  # between checkpoints, where no number of steps is given
RATE = 5e-5  # the highest, of a whole model
COUNTS: dict[str, tuple[float, float]] = {  # name → lowest and highest, for whole numbers
    "epochs": (1, 10_000),
    "batch_size": (1, 1_000_000),
    "max_tokens": (1, 10**12),
    "freeze_epochs": (0, 10_000),
    "seed": (0, 2**32 - 1),
    "accumulate": (1, 10_000),
    "checkpoint_every": (1, 10**12),
}
SIZES: dict[str, tuple[float, float]] = {"learning_rate": (0, 10), "weight_decay": (0, 10), "warmup": (0, 1), "label_smoothing": (0, 0.999)}
UNDECIDED = ("learning_rate", "max_tokens", "freeze_epochs", "checkpoint_every")  # may be None


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise SettingError for what is no number from `low` to `high`, or none that counts something; None is what nobody decided."""
    if value is None and name in UNDECIDED:
        return
    right = isinstance(value, Integral if name in COUNTS else Real) and not isinstance(value, bool)
    if not (right and low <= value <= high):
        also = ', or "auto"' if name == "batch_size" else ""
        cure = f"Pass a {'whole ' if name in COUNTS else ''}number from {low} to {high}{also}."
        raise SettingError(f"{name} is {value!r}, expected {low} to {high}{also}", place=name, cure=cure)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. Raises SettingError for a value outside of what is possible.

    `checkpoints` is a folder: what a run writes there lets another one with `resume` go on behind the last step that was written, with the
    same weights at the end, bit for bit on a CPU. Remove the folder once the model is saved. `adapter`, AdapterOptions or the name of a
    kind, puts small layers beside the body, which then sleeps. `faster` is `make_faster`: the same numbers, up to rounding, in less time;
    it keeps freed memory in the process, so that is for a program to decide. `pellucid train` does it. `batch_size="auto"` is
    `LoaderOptions(bs="auto")`.
    """

    epochs: Annotated[int, "times to go through the rows"] = 2
    learning_rate: Annotated[float | None, "highest learning rate; if not given, 5e-5, and 5e-4 with adapters"] = None
    batch_size: Annotated[int | Literal["auto"], "rows in a batch, at most; auto: 32, with a bound on their tokens"] = 16
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
    faster: bool = False
    checkpoints: Path | str | CheckpointFolder | None = None
    checkpoint_every: Annotated[int | None, "steps between checkpoints to go on from after a crash; 10 minutes if not given"] = None
    resume: Annotated[bool, "go on with the run that was interrupted"] = False
    track: Annotated[str | None, "wandb, trackio or tensorboard, several with commas: where the training can be followed"] = None
    energy: Annotated[str, "counters, or codecarbon where it is installed: how the energy of the training is known"] = "counters"
    carbon_intensity: Annotated[float | None, "grams of CO2e for a kilowatt-hour of your electricity; none is guessed"] = None
    adapter: AdapterOptions | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.adapter, str):
            object.__setattr__(self, "adapter", AdapterOptions(self.adapter))
        if not isinstance(self.adapter, AdapterOptions | None):
            cure = 'Pass AdapterOptions(kind="lora"), or the name of a kind.'
            raise SettingError(f"adapter is {self.adapter!r}", place="adapter", cure=cure)
        for name, (low, high) in (COUNTS | SIZES).items():
            if (name, getattr(self, name)) != ("batch_size", "auto"):
                check_number(name, getattr(self, name), low, high)
        if self.scheduler not in ("one_cycle", "linear"):
            cure = 'Pass "one_cycle" or "linear".'
            raise SettingError(f"there is no schedule {self.scheduler!r}", place="scheduler", cure=cure)
        for name, known in {
            "precision": get_args(Precision),
            "class_weights": (None, "balanced"),
            "energy": ("counters", "codecarbon"),
        }.items():
            if getattr(self, name) not in known:
                cure = f"Use one of: {', '.join(map(str, known))}."
                raise SettingError(f"there is no {name} {getattr(self, name)!r}", place=name, cure=cure)
        check_names(self.track)
        check_intensity(self.carbon_intensity)

    @property
    def rate(self) -> float:
        """The highest learning rate: what was given, or what suits a whole model or adapters."""
        if self.learning_rate is not None:
            return self.learning_rate
        return RATE if self.adapter is None else ADAPTER_FACTOR * RATE


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
    energy: Energy | None = None  # what all its processes took from the first step of `train` to the last

    def view(self) -> View:
        """The epochs as a table, with the energy, the notes and the findings below."""
        lines = tuple((epoch, *(round(value, 4) for value in line)) for epoch, line in enumerate(self.history))
        table = Table("training", ("epoch", *self.columns), lines, f"{self.seconds:.1f} s")
        findings = tuple(f"{finding.level}: {finding.what} ({finding.place}). {finding.cure}" for finding in self.findings)
        parts = [Lines("chosen for you", tuple(map(str, self.notes))), Lines("found in the rows", findings)]
        energy = () if self.energy is None else (self.energy.view(),)
        return Stack("trained", (table, *energy, *(part for part in parts if part.lines)))


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

    with closing(Beside.of(options)) as beside, torch.random.fork_rng(), speaking_once():
        take_part_of_machine()
        torch.manual_seed(options.seed)
        check_scored(rows)
        return train_pipeline(Pipeline.new(task, checkpoint, rows, tokens=tokens, model=model), rows, options, beside)


@dataclass(frozen=True)
class Beside:
    """What goes on beside a training: the clock, the meter of its energy, what writes its checkpoints and what lets it be followed."""

    start: float
    meter: EnergyMeter
    keeper: "Checkpoints | None"
    tracked: "Tracked | None"

    @classmethod
    def of(cls, options: TrainOptions) -> "Beside":
        """All of it, begun now: what is missing is said before any work is done. Raises SettingError, MissingPackageError."""
        start = perf_counter()
        keeper, tracked = keeper_of(options), tracked_of(options)  # what may be refused comes before a meter that runs
        return cls(start, EnergyMeter(codecarbon=options.energy == "codecarbon"), keeper, tracked)

    def begun_now(self) -> "Beside":
        """The same, with the clock and the meter at nothing."""
        self.meter.begin()
        return replace(self, start=perf_counter())

    def close(self) -> None:
        """End the meter, however the training ended."""
        self.meter.close()


def train_pipeline(pipe: Pipeline, rows: Rows, options: TrainOptions, beside: Beside) -> Trained:
    """Train a pipeline that is there as `options` say; its model is trained in place."""
    pipe = with_adapters(pipe, options)
    learn = untrained(pipe, rows, options)
    findings = check_rows(rows, truncation(learn.dls.train.table, rows.train))
    for finding in findings:
        LOG.warning("%s: %s (%s). %s", finding.level, finding.what, finding.place, finding.cure)
    freeze_epochs, freezing_notes = head_first(pipe, options)
    computing = (*made_faster(learn, options.faster, beside.keeper), *in_precision(learn, options.precision, beside.keeper))
    pipe = replace(pipe, notes=(*pipe.notes, *freezing_notes, *learn.loss_notes, *computing))
    callbacks = [*([] if beside.keeper is None else [beside.keeper]), *readings(beside.meter)]
    with learn.added_cbs(callbacks), followed(learn, beside.tracked):
        history = fit(learn, replace(options, freeze_epochs=freeze_epochs))
    pipe = settled(pipe, rows)
    learn.adopt(pipe)
    columns = tuple(name for name in learn.recorder.metric_names[1:] if name != "time")
    notes = (*rows.notes, *pipe.notes, *(() if beside.keeper is None else beside.keeper.notes))
    energy = energy_of(learn, beside.meter, options.carbon_intensity)
    return Trained(pipe, learn, notes, findings, perf_counter() - beside.start, history, columns, energy)


def check_scored(rows: Rows) -> None:
    """Raise DataError where rows were kept aside that could say nothing of the training."""
    if "valid" in rows.splits and not rows.valid.has_targets and rows.train.has_targets:
        cure = "Label them, or leave them out: a part of the training rows is then kept aside."
        raise DataError("the validation rows have no labels, so nothing could be said of the training", place=rows.source, cure=cure)


def tracked_of(options: TrainOptions) -> "Tracked | None":
    """The callback that lets the training be followed, where that is asked for. Raises MissingPackageError."""
    from pellucid.training.fastai_tracking import Tracked

    if options.track is None:
        return None
    untold = ("track", "checkpoints", "checkpoint_every", "resume", "energy", "carbon_intensity")
    return Tracked(options.track, settings={one.name: getattr(options, one.name) for one in fields(options) if one.name not in untold})


@contextmanager
def followed(learn: "PellucidLearner", tracked: "Tracked | None") -> Iterator[None]:
    """While it trains it can be followed; the run ends with the training, however that ends."""
    if tracked is None:
        yield
        return
    with closing(tracked), learn.added_cbs(tracked):
        yield


def readings(meter: EnergyMeter) -> list[Any]:
    """The callback that reads counters which begin again at 0; none where there are no such counters."""
    from pellucid.training.fastai_tracking import Readings

    return [Readings(meter.look)] if meter.rapl.zones else []


def energy_of(learn: "PellucidLearner", meter: EnergyMeter, carbon_intensity: float | None) -> Energy:
    """What all processes took together, the same in each; of this one alone where the others no longer answer."""
    mine = asdict(meter.reading(gpus_of(learn)))
    try:
        said = learn.sharing.all_say(mine)
    except LostProcessError as error:  # the training is done, and what it took is no reason to lose it
        LOG.warning("what the other processes took is not known: %s", error)
        said = [mine]
    return total([Reading.of(one) for one in said], carbon_intensity, place().processes)


def gpus_of(learn: "PellucidLearner") -> tuple[str, ...]:
    """The UUID of the GPU that trains; none on a CPU."""
    import torch

    device = learn.model.device
    return (str(torch.cuda.get_device_properties(device).uuid),) if device.type == "cuda" else ()


def with_adapters(pipe: Pipeline, options: TrainOptions) -> Pipeline:
    """The pipeline with the adapters that `options` ask for, and a word on the learning rate where nobody chose one."""
    if not isinstance(options.adapter, AdapterOptions):
        return pipe
    small = adapted(pipe, options.adapter)
    if options.learning_rate is not None:
        return small
    why = f"adapters begin at nothing, and the usual {RATE:.5f} of a whole model would hardly move them"
    note = Note(f"the highest learning rate is {options.rate:g}", why, "Pass learning_rate=… for another.")
    return replace(small, notes=(*small.notes, note))


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
    sizes = LearnerOptions(lr=options.rate, wd=options.weight_decay, warmup=options.warmup, loaders=loaders, loss=loss)
    callbacks: list[Any] = [FiniteSteps(), *([Accumulate(options.accumulate)] if options.accumulate > 1 else [])]
    callbacks += [GradientCheckpointing()] if options.gradient_checkpointing else []
    return learner(pipe, rows, options=sizes, cbs=callbacks)


def made_faster(learn: "PellucidLearner", wanted: bool, keeper: "Checkpoints | None" = None) -> tuple[Note, ...]:
    """Let the learner train faster with the same numbers, where that is wanted; what was done is said before the work starts."""
    from pellucid.training.fastai_speed import faster

    notes = faster(learn, keeper) if wanted else ()
    for note in notes:
        LOG.warning("%s", note)
    return notes


def in_precision(learn: "PellucidLearner", precision: Precision, keeper: "Checkpoints | None" = None) -> tuple[Note, ...]:
    """Let the learner compute in this precision; what was chosen is said before the work starts, but for float32 that nobody tried.

    Where `keeper` goes on with a run, "auto" is what that run chose.
    """
    from pellucid.training.fastai_precision import choose_precision

    if precision == "float32":
        return ()
    callback, note = choose_precision(learn, precision, keeper)
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
    counts = pipe.provenance.counts()
    if pipe.task.kind not in LABELLED_TOKENS or not pipe.provenance.new_names() or not counts.get(Origin.PRETRAINED, 0):
        return 0, ()  # beside a body that knows nothing, a head has nothing to learn from
    why = "most tokens have no label, and a body that moves from the first step mostly learns to say only that"
    return 1, (Note("the new head is trained alone for one epoch first", why, "Pass freeze_epochs=0."),)


def fit(learn: "PellucidLearner", options: TrainOptions) -> tuple[tuple[float, ...], ...]:
    """Train the head alone where that is asked for, then everything; the scores after each epoch."""
    from pellucid.training.fastai_learner import HEAD_FACTOR

    lines: list[Any] = []
    if options.freeze_epochs:
        learn.freeze()  # a head wants the same rate beside adapters
        learn.fit_one_cycle(options.freeze_epochs, slice(HEAD_FACTOR * options.rate / (1 if options.adapter is None else ADAPTER_FACTOR)))
        learn.unfreeze()
        lines += learn.recorder.values
    (learn.fit_linear if options.scheduler == "linear" else learn.fit_one_cycle)(options.epochs, options.rate)
    lines += learn.recorder.values
    return tuple(tuple(float(value) for value in line) for line in lines)


def truncation(table: "TokenTable", split: "Split") -> TruncationReport:
    """How many texts and words of a split the model never sees."""
    columns = (split.columns(start, stop) for start, stop in split.chunks())
    return TruncationReport.of(table, (text for part in columns for texts in part.values() for text in texts))
