"""How good a pipeline is on rows that it has not seen, and whether a simpler model would do.

Takes a pipeline and a split with targets, and the training rows for the baselines. Gives a Report.
Knows nothing of training, files or screens; its predictions are those of `Pipeline.predict`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from pellucid import tally_evaluation as by_tally
from pellucid.baselines import Answers, constant_answer, linear_answers
from pellucid.calibration import error_of, reliability
from pellucid.comparison import Compared, Problem, compare, compare_tallies, verdict
from pellucid.errors import DataError, LabelError, SettingError
from pellucid.evaluation_rows import Progress, beginning, check_finite, predictions_of, targets_of, texts_of, truncation_of
from pellucid.intervals import Resampling, group
from pellucid.metrics import Kind
from pellucid.reports import Calibration, Confusion, Report, WorstRow
from pellucid.types import FloatArray, Note, Prediction, Target

if TYPE_CHECKING:
    from pellucid.data import Split
    from pellucid.pipelines import Pipeline

LEAST_PROBABILITY = 1e-12  # of a target, so that a certain mistake has a finite loss
FEW_ROWS = 30


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """`bootstrap` resamples with `seed`, intervals at `level`, the `worst` rows kept, `bins` of confidence.

    Raises SettingError for a value outside what is possible.
    """

    bootstrap: int = 1000
    seed: int = 0
    worst: int = 10
    level: float = 0.95
    bins: int = 15

    def __post_init__(self) -> None:
        for name, least in (("bootstrap", 1), ("worst", 0), ("bins", 1)):
            if getattr(self, name) < least:
                raise SettingError(
                    f"expected at least {least}, came {getattr(self, name)}", place=name, cure=f"Pass {name}={least} or more."
                )
        if not 0 < self.level < 1:
            raise SettingError(f"expected a number between 0 and 1, came {self.level}", place="level", cure="0.95 gives 95 % intervals.")

    @property
    def resampling(self) -> Resampling:
        """How the bootstrap is done."""
        return Resampling(self.bootstrap, self.seed, self.level)


@dataclass(frozen=True, slots=True)
class Answered:
    """What the model said, in columns of one entry a row; of 10,000 classes nobody keeps all scores of all rows."""

    predictions: tuple[Prediction, ...]  # without scores
    losses: FloatArray  # (rows,) cross-entropy, or absolute error
    probabilities: FloatArray | None  # (rows,) of the answer, or (rows, labels) of each label; None for numbers

    @property
    def answers(self) -> tuple[Any, ...]:
        """The answers alone."""
        return tuple(prediction.answer for prediction in self.predictions)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be evaluated, on what, and beside what."""

    pipe: "Pipeline"
    rows: "Split"
    targets: Sequence[Target]
    train: "Split | None"  # for the baselines
    baselines: bool
    options: EvaluateOptions


def evaluate(
    pipe: "Pipeline",
    rows: "Split",
    *,
    train: "Split | None" = None,
    baselines: bool = True,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> Report:
    """Score a pipeline on rows with targets, with bootstrap intervals, beside baselines trained on the rows of `train`.

    A language model is scored by how well it foresees the rows, which need no targets. Without `train` there are only baselines that
    learn nothing; where one is a constant answer, it is taken from the evaluated rows themselves, which flatters it.
    `progress(done, total)` is called while the model predicts.
    Raises LabelError for a row without a target or with one that the model does not know, CheckpointError for scores that are not finite.
    """
    options = options or EvaluateOptions()
    language = pipe.task.kind == by_tally.LANGUAGE
    targets = targets_of(rows, needed=not language)
    problem = problem_of(pipe, rows, targets)
    by_tally.check_targets(pipe.task, rows, targets)
    page = Report(
        pipe.task.tag, pipe.checkpoint, rows.name, len(rows), options.level, truncation=truncation_of(pipe, rows, learned=language)
    )
    if language:
        return with_language(page, pipe, rows, options, progress)
    asked = Asked(pipe, rows, targets, train, baselines, options)
    said = predictions_of(pipe, rows, progress)
    return with_sums(page, asked, said) if problem is None else with_classes(page, asked, said, problem)


def with_classes(page: Report, asked: Asked, said: Iterable[Prediction], problem: Problem) -> Report:
    """The report on a class, a set of classes or a number a row."""
    task, rows, options = asked.pipe.task, asked.rows, asked.options
    answered = answers_of(said, rows, problem)
    simple = simple_answers(problem, task.reads, rows, asked.train, seed=options.seed) if asked.baselines else ()
    scores = task.metrics(answered.predictions, asked.targets)
    compared = compare(problem, scores, answered.answers, simple, resampling=options.resampling)
    return replace(
        with_scores(page, compared),
        confusion=confusion_of(problem, answered) if problem.kind == "single_label" else None,
        worst=worst_rows(rows, problem, answered, options.worst),
        calibration=calibration_of(problem, answered, options.bins),
        notes=notes_of(problem, compared, asked.baselines and asked.train is None),
    )


def with_sums(page: Report, asked: Asked, said: Iterable[Prediction]) -> Report:
    """The report on anything else: by the task's tally, or by its scores alone where it has none."""
    task, rows, targets, options = asked.pipe.task, asked.rows, asked.targets, asked.options
    predictions = []
    for position, prediction in enumerate(said):
        check_finite(prediction, rows, position)
        predictions.append(prediction)
    tally = by_tally.tallied(task, predictions, targets)
    if tally is None:
        alone = Compared(tuple(task.metrics(predictions, targets)), (), ())
        return replace(with_scores(page, alone), notes=(Note("no intervals, no baselines", f"there are none for the task {task.tag}"),))
    simple = by_tally.simple_tallies(task, rows, targets, asked.train) if asked.baselines else ()
    compared = compare_tallies(tally, simple, resampling=options.resampling)
    return replace(
        with_scores(page, compared),
        confusion=by_tally.confused_tags(task, predictions, targets),
        worst=by_tally.worst_rows(rows, tally, [each.answer for each in predictions], options.worst),
        notes=by_tally.notes_of(task, len(targets), compared, low_bar=asked.baselines and asked.train is None),
    )


def with_language(page: Report, pipe: "Pipeline", rows: "Split", options: EvaluateOptions, progress: Progress | None) -> Report:
    """The report on a language model: how well it foresees the rows; nothing is written for it."""
    tally, positions = by_tally.foreseen(pipe, rows, progress)
    compared = compare_tallies(tally, resampling=options.resampling)
    notes = by_tally.notes_of(pipe.task, len(positions), compared, low_bar=False)
    if len(positions) < len(rows):
        why = (
            f"short rows are read together: what is read at once counts for the row that it begins in, {len(positions):,} of {len(rows):,}"
        )
        notes += (Note("rows stand for what was read from them on", why),)
    return replace(with_scores(page, compared), worst=by_tally.worst_rows(rows, tally, (), options.worst, positions), notes=notes)


def with_scores(page: Report, compared: Compared) -> Report:
    """The report with its scores, and whether the transformer is worth it."""
    said = verdict(compared.scores, compared.baselines, page.level)
    return replace(page, verdict=said, scores=compared.scores, baselines=compared.baselines, labels=compared.labels)


def problem_of(pipe: "Pipeline", rows: "Split", targets: Sequence[Target]) -> Problem | None:
    """What the task is to find for each row, where that is a label, a set of labels or a number; None for other tasks.

    Raises LabelError or DataError for a target that is none of the model's labels, or no number, naming the row.
    """
    kind: Any = getattr(pipe.task, "kind", None)
    if kind not in get_args(Kind):
        return None
    problem = Problem(kind, tuple(getattr(pipe.task, "labels", ())), targets)
    try:
        problem.numbers(targets, "target")
    except (LabelError, DataError) as error:
        position = next(position for position, target in enumerate(targets) if not fits(problem, target))
        raise type(error)(error.problem, place=rows.place(position), cure=error.cure) from None
    return problem


def fits(problem: Problem, target: Target) -> bool:
    """Whether this target can be scored."""
    try:
        problem.numbers([target], "target")
    except (LabelError, DataError):
        return False
    return True


def answers_of(said: Iterable[Prediction], rows: "Split", problem: Problem) -> Answered:
    """The predictions in columns. Raises CheckpointError for a score that is not a finite number, naming the row."""
    wanted = problem.numbers(problem.targets, "target")  # (rows,) class numbers or numbers, or (rows, labels)
    predictions: list[Prediction] = []
    losses: list[float] = []
    probabilities: list[Any] = []
    for position, prediction in enumerate(said):
        check_finite(prediction, rows, position)
        predictions.append(replace(prediction, scores={}))
        if problem.kind == "regression":
            losses.append(abs(float(wanted[position]) - float(prediction.answer)))  # type: ignore[arg-type]  # the answer is a float
            continue
        if problem.kind == "multi_label":
            chances = np.array([prediction.scores[label] for label in problem.labels])  # (labels,)
            probabilities.append(chances)
            came_true = np.where(wanted[position], chances, 1 - chances)  # (labels,)
        else:
            probabilities.append(prediction.scores[str(prediction.answer)])
            came_true = np.array(prediction.scores[problem.labels[wanted[position]]])
        losses.append(float(-np.log(np.maximum(came_true, LEAST_PROBABILITY)).mean()))
    return Answered(tuple(predictions), np.array(losses), np.array(probabilities) if probabilities else None)


def simple_answers(problem: Problem, reads: Sequence[str], rows: "Split", train: "Split | None", *, seed: int) -> tuple[Answers, ...]:
    """What the baselines say for each row, the constant answer first."""
    if train is None:
        return (constant_answer(problem.kind, problem.targets, len(rows)),)
    targets = targets_of(train)
    linear = linear_answers(problem.kind, texts_of(train, reads), targets, texts_of(rows, reads), labels=problem.labels, seed=seed)
    return constant_answer(problem.kind, targets, len(rows)), linear


def confusion_of(problem: Problem, answered: Answered) -> Confusion:
    """How often each class got each answer."""
    wanted, given = problem.numbers(problem.targets, "target"), problem.numbers(answered.answers, "answer")
    cells, first = group([wanted, given])
    columns = zip(wanted[first].tolist(), given[first].tolist(), np.bincount(cells).tolist(), strict=True)
    return Confusion(problem.labels, tuple(columns))


def calibration_of(problem: Problem, answered: Answered, bins: int) -> Calibration | None:
    """Confidence against what came true: of the answer for one label a row, of every label of every row for sets of labels."""
    if answered.probabilities is None:
        return None
    wanted = problem.numbers(problem.targets, "target")
    came_true = wanted if problem.kind == "multi_label" else wanted == problem.numbers(answered.answers, "answer")
    found = reliability(answered.probabilities.reshape(-1), came_true.reshape(-1), bins)
    return Calibration(error_of(found), found)


def worst_rows(rows: "Split", problem: Problem, answered: Answered, limit: int) -> tuple[WorstRow, ...]:
    """The rows with the highest loss, the worst first."""
    single = answered.probabilities if problem.kind == "single_label" else None
    worst = []
    for position in np.argsort(-answered.losses, kind="stable")[:limit].tolist():
        example = rows[position]
        text = beginning(example.fields.values())
        confidence = None if single is None else float(single[position])
        said, target = answered.predictions[position].answer, problem.targets[position]
        worst.append(WorstRow(example.row, rows.place(position), text, target, said, float(answered.losses[position]), confidence))
    return tuple(worst)


def notes_of(problem: Problem, compared: Compared, low_bar: bool) -> tuple[Note, ...]:
    """What a careful reader should know about these numbers."""
    notes, rows = [], len(problem.targets)
    if rows < FEW_ROWS:
        notes.append(Note(f"{rows} rows", "intervals from so few rows are too narrow", "Evaluate on a hundred rows or more."))
    if compared.scores and compared.scores[0].name == "accuracy" and compared.scores[0].value == 1.0:
        why = f"resampled rows without a mistake hold none, but up to {min(1.0, 3 / rows):.1%} of new rows may be wrong (the rule of three)"
        notes.append(Note("an interval without width", why))
    if problem.kind == "single_label" and len(set(problem.targets)) == 1:
        notes.append(
            Note("one class only", "every target is the same, so F1 and correlation say little", "Evaluate on rows of every class.")
        )
    if low_bar:
        why = "no training rows were given, so the only baseline is the constant answer"
        notes.append(Note("a low bar", why, "Pass train=rows.train for a linear model on the same rows."))
    return tuple(notes)
