"""One way to answer beside others on the same rows: scores with intervals, and the paired difference.

Takes targets and the answers of each system, or a tally of each. Gives scores, differences and a sentence on whether the first is worth it.
Knows nothing of models, pipelines or how the answers came about.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from pellucid.baselines import Answers
from pellucid.errors import SettingError
from pellucid.intervals import Resampling, Statistic, bootstrap, group, percentile_interval, statistic_of
from pellucid.metrics import LOWER_IS_BETTER, NAMES, Kind, LabelScore, Score, coded, label_scores, scores_of
from pellucid.tallies import Tally, label_scores_of
from pellucid.tallies import resampled as resampled_tallies
from pellucid.tallies import scores_of as tally_scores
from pellucid.types import FloatArray, IntArray, Target

Limits = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be answered: the kind of problem, the labels in class order (none for numbers) and a target a row."""

    kind: Kind
    labels: tuple[str, ...]
    targets: Sequence[Target]

    def numbers(self, values: Sequence[Target], what: str) -> Any:
        """Targets or answers as numbers: (rows,) or (rows, labels). Raises LabelError and DataError, naming the row."""
        return coded(self.kind, values, self.labels, what)


@dataclass(frozen=True, slots=True)
class Difference:
    """Transformer minus baseline in one score, with the interval from the same resamples for both; nan where one is not defined."""

    score: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def gain(self) -> float:
        """How much better the transformer is, in the direction that is better for this score."""
        return -self.value if self.score in LOWER_IS_BETTER else self.value

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out a difference of nothing."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A simple way to answer, its scores, and what the transformer adds to each; without scores where it could not be made."""

    name: str
    how: str
    scores: tuple[Score, ...] = ()
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """The scores of the transformer with their intervals, those of each label, and the baselines."""

    scores: tuple[Score, ...]
    labels: tuple[LabelScore, ...]
    baselines: tuple[Baseline, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Sampled:
    """The scores of one way to answer, and the same on resampled rows: `samples` (resamples, names)."""

    names: tuple[str, ...]
    scores: Sequence[Score]
    samples: FloatArray


def compare(
    problem: Problem,
    scores: Sequence[Score],
    answers: Sequence[Target],
    baselines: Sequence[Answers] = (),
    *,
    resampling: Resampling = Resampling(),
) -> Compared:
    """Intervals for `scores` of `answers`, and each baseline scored on the same resamples of the rows.

    A score whose name is none of the problem's kind keeps no interval. One row has no intervals. Raises LabelError and DataError.
    """
    made = [baseline for baseline in baselines if baseline.answers]
    systems = [answers, *(baseline.answers for baseline in made)]
    samples = resampled(problem, systems, resampling)  # one array (resamples, scores and labels) a system
    names = NAMES[problem.kind]
    several = problem.kind == "multi_label"
    labels = () if problem.kind == "regression" else label_scores(answers, problem.targets, problem.labels, several=several)
    ours = Sampled(names, scores, samples[0][:, : len(names)])
    found = {}
    for baseline, drawn in zip(made, samples[1:], strict=True):
        points = scores_of(problem.kind, baseline.answers, problem.targets, problem.labels)
        found[baseline.name] = beside(baseline, Sampled(names, points, drawn), ours, resampling.level)
    return compared(ours, bounded(labels, samples[0][:, len(names) :], resampling.level), baselines, found, resampling.level)


def compare_tallies(
    tally: Tally, baselines: Sequence[tuple[Answers, Tally | None]] = (), *, resampling: Resampling = Resampling()
) -> Compared:
    """The scores of a tally with intervals, and each baseline's on the same resamples of the rows; None for one that could not be made.

    One row has no intervals. Raises SettingError for a baseline with other rows or other scores.
    """
    made = [(baseline, each) for baseline, each in baselines if each is not None]
    odd = next((baseline.name for baseline, each in made if each.names != tally.names), None)
    if odd is not None:
        raise SettingError(f"the baseline {odd} has other scores", place="tally", cure="Tally every system in the same way.")
    points = tally_scores(tally)
    first, *others = resampled_tallies([tally, *(each for _, each in made)], resampling)
    width, level = len(tally.names), resampling.level
    ours = Sampled(tally.names, points, first[:, :width])
    found = {
        baseline.name: beside(baseline, Sampled(tally.names, tally_scores(each), drawn[:, :width]), ours, level)
        for (baseline, each), drawn in zip(made, others, strict=True)
    }
    return compared(ours, bounded(label_scores_of(tally), first[:, width:], level), [baseline for baseline, _ in baselines], found, level)


def compared(
    ours: Sampled, labels: tuple[LabelScore, ...], baselines: Sequence[Answers], found: dict[str, Baseline], level: float
) -> Compared:
    """Everything put together; a baseline that was not `found` could not be made, and its `how` says why."""
    every = tuple(found.get(baseline.name, Baseline(baseline.name, baseline.how)) for baseline in baselines)
    return Compared(with_limits(ours.scores, dict(zip(ours.names, limits(ours.samples, level), strict=True))), labels, every)


def beside(baseline: Answers, theirs: Sampled, ours: Sampled, level: float) -> Baseline:
    """A baseline with its scores, and what the transformer adds to each, both with intervals."""
    scores = with_limits(theirs.scores, dict(zip(theirs.names, limits(theirs.samples, level), strict=True)))
    apart = dict(zip(ours.names, limits(ours.samples - theirs.samples, level), strict=True))
    values = {score.name: score.value for score in scores}
    differences = tuple(
        Difference(score.name, score.value - values[score.name], *apart[score.name]) for score in ours.scores if score.name in values
    )
    return Baseline(baseline.name, baseline.how, scores, differences)


def bounded(labels: Sequence[LabelScore], samples: FloatArray, level: float) -> tuple[LabelScore, ...]:
    """The scores of the labels with the interval of F1; `samples` (resamples, labels)."""
    return tuple(replace(each, low=low, high=high) for each, (low, high) in zip(labels, limits(samples, level), strict=True))


def resampled(problem: Problem, systems: Sequence[Sequence[Target]], resampling: Resampling) -> list[FloatArray]:
    """The scores of each system on the same resamples: (resamples, scores), and for the first also those of the labels."""
    cells: IntArray
    wanted = problem.numbers(problem.targets, "target")
    given = [problem.numbers(answers, "answer") for answers in systems]
    if problem.kind == "regression":  # no two rows are alike
        every: IntArray = np.arange(len(wanted))
        cells, first = every, every
    else:
        cells, first = group([wanted, *given])
    classes = len(problem.labels)
    statistics = [statistic_of(problem.kind, wanted[first], each[first], classes) for each in given]
    scores = len(NAMES[problem.kind])
    widths = [scores + classes, *[scores] * (len(given) - 1)]

    def statistic(counts: FloatArray) -> FloatArray:
        return np.concatenate([each(counts)[:, :width] for each, width in zip(statistics, widths, strict=True)], axis=1)

    joint: Statistic = statistic
    samples = bootstrap(joint, cells, resamples=resampling.resamples, seed=resampling.seed, width=4 * classes)
    if len(wanted) < 2:
        samples = np.full_like(samples, np.nan)  # one row, drawn again and again, would claim to be certain
    return np.split(samples, np.cumsum(widths)[:-1], axis=1)


def limits(samples: FloatArray, level: float) -> list[Limits]:
    """The interval of each column, None where it is not defined."""
    lows, highs = percentile_interval(samples, level)
    return [(low, high) if isfinite(low) else (None, None) for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]


def with_limits(scores: Sequence[Score], bounds: dict[str, Limits]) -> tuple[Score, ...]:
    """The scores with the intervals of their names; a score that is not defined gets none."""
    nothing: Limits = (None, None)
    found = [bounds.get(score.name, nothing) if isfinite(score.value) else nothing for score in scores]
    return tuple(replace(score, low=low, high=high) for score, (low, high) in zip(scores, found, strict=True))


def strongest(scores: Sequence[Score], baselines: Sequence[Baseline]) -> tuple[Score, Baseline, Difference] | None:
    """The first score that a baseline has as well, and the baseline that comes nearest to the transformer in it, or passes it."""
    for score in scores:
        beside = [
            (baseline, each) for baseline in baselines for each in baseline.differences if each.score == score.name and isfinite(each.value)
        ]
        if beside:
            baseline, difference = min(beside, key=lambda pair: pair[1].gain)
            return score, baseline, difference
    return None


def verdict(scores: Sequence[Score], baselines: Sequence[Baseline], level: float) -> str:
    """Whether the transformer is worth it, in a sentence or two."""
    found = strongest(scores, baselines)
    if found is None:
        return "Whether the transformer is worth it cannot be said: there is no baseline to hold it against."
    score, baseline, difference = found
    theirs = next(each.value for each in baseline.scores if each.name == score.name)
    if difference.low is None or difference.high is None:
        answer, why = "is not clearly worth it", "so few rows give the difference no interval"
    else:
        limits_of = f"{difference.low:+.3f} to {difference.high:+.3f}"
        between = f"the difference of {difference.value:+.3f} has a {100 * level:g} % interval of {limits_of}"
        if not difference.clear:
            answer, why = "is not clearly worth it", f"{between}, which includes none at all"
        else:
            answer, why = "is worth it" if difference.gain > 0 else "is not worth it", between
    return f"The transformer {answer}: {score.name} {score.value:.3f} against {theirs:.3f} of the baseline {baseline.name}; {why}."
