"""Scores that are functions of sums over rows, and the bootstrap over those rows.

Takes what each row adds to some scores. Gives the scores, those of each label, those of each row, and the same on resampled rows.
Knows nothing of spans, texts, models or what the numbers count.

Entity F1, BLEU or perplexity are no means over rows, but they are functions of sums over rows: right answers, answers, targets. Whoever
keeps what each row adds can score any resample of the rows exactly: draw how often each row occurs, add up, combine.
"""

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from pellucid.errors import DataError, SettingError
from pellucid.intervals import Resampling, bootstrap, divided, group
from pellucid.metrics import LabelScore, Score
from pellucid.types import FloatArray, IntArray

Combine = Callable[[FloatArray], FloatArray]  # sums (…, k) → scores (…, names)


@dataclass(frozen=True, eq=False)
class Tally:
    """What each row adds to some scores: `counts` (rows, k), and how sums of them become the scores.

    `names` are those of the scores, the main one first. `combine` takes sums (…, k) and gives scores (…, names), nan where one is not
    defined. With `labels`, the first columns of `counts` are three blocks of one column a label: right answers, answers, targets.
    `own` (rows,) is the main score of each row by itself, where `combine` of one row does not say it; `details` (name → words) is what
    to know of a score. Raises SettingError for counts of another shape, DataError for a count that is not finite, naming the row.
    """

    names: tuple[str, ...]
    counts: FloatArray
    combine: Combine
    labels: tuple[str, ...] = ()
    own: FloatArray | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = max(1, 3 * len(self.labels))
        if not self.names or self.counts.ndim != 2 or self.counts.shape[1] < least:
            cure = "Give a name a score, and for each row and each label its right answers, answers and targets."
            raise SettingError(f"expected counts (rows, {least} or more) and names, came {self.counts.shape}, {self.names}", cure=cure)
        odd = ~np.isfinite(self.counts).all(axis=1)
        if odd.any():
            raise DataError("a count is not a finite number", row=int(np.flatnonzero(odd)[0]), cure="Look for nan in what is counted.")

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def sums(self) -> FloatArray:
        """The counts of all rows, added up: (k,)."""
        total: FloatArray = self.counts.sum(axis=0)
        return total


def scores_of(tally: Tally) -> tuple[Score, ...]:
    """The scores over all rows, without intervals, the main one first. Raises DataError where there are no rows."""
    if not len(tally):
        raise DataError("there are no rows to score", cure="Pass at least one row with a target.")
    values = tally.combine(tally.sums).tolist()
    return tuple(Score(name, value, detail=tally.details.get(name, "")) for name, value in zip(tally.names, values, strict=True))


def row_scores(tally: Tally) -> FloatArray:
    """The main score of each row by itself: (rows,), nan where it is not defined."""
    return tally.own if tally.own is not None else tally.combine(tally.counts)[:, 0]


def check_pairs(answers: Sized, targets: Sized) -> None:
    """As many answers as targets. Raises DataError."""
    if len(answers) != len(targets):
        problem = f"expected one answer for each of {len(targets)} targets, came {len(answers)}"
        raise DataError(problem, cure="Score the rows that were predicted.")


def label_sums(sums: FloatArray, labels: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Right answers, answers and targets of each label, (…, labels) each, from sums (…, k)."""
    return sums[..., :labels], sums[..., labels : 2 * labels], sums[..., 2 * labels : 3 * labels]


def label_scores_of(tally: Tally) -> tuple[LabelScore, ...]:
    """Precision, recall and F1 of each label, in label order; a division by nothing counts 0. Nothing where there are no labels."""
    hits, given, wanted = label_sums(tally.sums, len(tally.labels))
    numbers = np.stack([divided(hits, given), divided(hits, wanted), label_f1(hits, given, wanted), wanted, given], axis=1).tolist()
    return tuple(
        LabelScore(label, precision, recall, f1, int(rows), int(answers))
        for label, (precision, recall, f1, rows, answers) in zip(tally.labels, numbers, strict=True)
    )


def label_f1(hits: FloatArray, given: FloatArray, wanted: FloatArray) -> FloatArray:
    """The harmonic mean of precision and recall; 0 where there is neither answer nor target."""
    return divided(2 * hits, given + wanted)


def macro_f1(hits: FloatArray, given: FloatArray, wanted: FloatArray) -> FloatArray:
    """The mean F1 of the labels that occur, in a target or an answer: (…, labels) each → (…,)."""
    return divided(label_f1(hits, given, wanted).sum(axis=-1), (given + wanted > 0).sum(axis=-1))


def resampled(tallies: Sequence[Tally], resampling: Resampling) -> list[FloatArray]:
    """The scores of each tally on the same resamples of the rows: (resamples, names and labels), the F1 of each label last.

    All nan for a single row: drawn again and again, it would claim to be certain. The order of the rows does not matter.
    Raises SettingError where the tallies have different rows.
    """
    rows = len(tallies[0])
    if any(len(tally) != rows for tally in tallies):
        sizes = ", ".join(str(len(tally)) for tally in tallies)
        raise SettingError(f"tallies of {sizes} rows", cure="Score every system on the same rows.")
    cells, first = group([alike(tally.counts) for tally in tallies])
    kept = [tally.counts[first] for tally in tallies]  # (cells, k) each
    parts = [len(tally.names) + len(tally.labels) for tally in tallies]

    def statistic(counts: FloatArray) -> FloatArray:
        return np.concatenate([with_labels(tally, counts @ each) for tally, each in zip(tallies, kept, strict=True)], axis=1)

    width = 4 * sum(each.shape[1] for each in kept)  # numbers a resample
    drawn = bootstrap(statistic, np.sort(cells), resamples=resampling.resamples, seed=resampling.seed, width=width)
    samples = drawn if rows > 1 else np.full_like(drawn, np.nan)
    return [samples[:, start:stop] for start, stop in pairwise([0, *np.cumsum(parts).tolist()])]


def with_labels(tally: Tally, sums: FloatArray) -> FloatArray:
    """The scores, and after them the F1 of each label: (resamples, k) → (resamples, names and labels)."""
    return np.concatenate([tally.combine(sums), label_f1(*label_sums(sums, len(tally.labels)))], axis=1)


def alike(counts: FloatArray) -> IntArray:
    """A number for each row, (rows,), the same for rows with the same counts (rows, k)."""
    solid = np.ascontiguousarray(counts)
    as_bytes = solid.view(np.dtype((np.void, solid.dtype.itemsize * solid.shape[1]))).reshape(-1)  # one key a row sorts quickly
    codes: IntArray = np.unique(as_bytes, return_inverse=True)[1].reshape(-1)
    return codes
