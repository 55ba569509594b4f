"""How far a score could lie from the truth: the bootstrap, from counts instead of from rows.

Takes the number of the cell that each row falls in, and a statistic over weighted cells. Gives resampled scores and percentile intervals.
Knows nothing of labels' names, models or scikit-learn.

Rows that a statistic cannot tell apart are one *cell*: 5,000 rows of a three-class problem are at most nine cells (target, answer).
To draw the rows again with replacement is to draw how often each cell occurs, so a resample is one row of a (resamples, cells) array and a
thousand scores are a few matrix products. Several systems on the same cells are scored on the same resamples: the bootstrap is then paired.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.errors import SettingError
from pellucid.types import Array, FloatArray, IntArray

Statistic = Callable[[FloatArray], FloatArray]  # how often each cell occurs (resamples, cells) → (resamples, scores)
COUNTS_AT_ONCE = 2_000_000  # entries of the (resamples, cells) array in memory at a time: 16 MB


@dataclass(frozen=True, slots=True)
class Resampling:
    """How a bootstrap is done: how many times the rows are drawn again, from which seed, and how much of the scores an interval holds."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95


def group(columns: Sequence[Array]) -> tuple[IntArray, IntArray]:
    """The cells of rows: `columns` are arrays (rows,) or (rows, n) of what tells rows apart.

    Gives the cell of each row, (rows,), and one row of each cell, (cells,).
    """
    cell = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, code = np.unique(column, axis=0, return_inverse=True)
        joint = cell * len(values) + code.reshape(-1)  # less than rows², so no overflow however many columns there are
        cell = np.unique(joint, return_inverse=True)[1].reshape(-1)
    return cell, np.unique(cell, return_index=True)[1]


def bootstrap(statistic: Statistic, cells: IntArray, *, resamples: int = 1000, seed: int = 0, width: int = 1) -> FloatArray:
    """The scores of `resamples` draws of as many rows, with replacement: (resamples, scores).

    `cells` (rows,) is the cell of each row, counted from 0 without gaps. `width` is what the statistic needs a resample, in numbers, where
    that is more than there are cells (10,000 classes): it bounds the memory. The same seed gives the same draws. Raises SettingError.
    """
    if resamples < 1:
        raise SettingError(f"resamples must be at least 1, came {resamples}", cure="1000 is a good number.")
    if len(cells) == 0:
        raise SettingError("there are no rows to resample", cure="Pass at least one row.")
    return np.concatenate([statistic(counts) for counts in draws(cells, resamples, seed, width)])


def draws(cells: IntArray, resamples: int, seed: int, width: int = 1) -> Iterator[FloatArray]:
    """How often each cell occurs in each resample: arrays (some resamples, cells) of whole numbers, `resamples` in all."""
    generator = np.random.default_rng(seed)
    occurrences = np.bincount(cells)  # (cells,)
    size, rows = len(occurrences), len(cells)
    few_cells = size * 8 < rows  # then one multinomial draw is cheaper than drawing every row; both have the same distribution
    at_once = max(1, COUNTS_AT_ONCE // max(size, width, 0 if few_cells else rows))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        if few_cells:
            drawn = generator.multinomial(rows, occurrences / rows, size=count)  # (count, cells)
        else:
            chosen = cells[generator.integers(0, rows, size=(count, rows))]  # (count, rows)
            chosen += np.arange(count, dtype=chosen.dtype)[:, None] * size
            drawn = np.bincount(chosen.reshape(-1), minlength=count * size).reshape(count, size)
        yield drawn.astype(np.float64)


def percentile_interval(samples: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """The middle `level` of resampled scores (resamples, scores): lows (scores,) and highs (scores,).

    Resamples where a score is not defined (nan) are left out; an interval is nan where less than half of the resamples define it.
    Raises SettingError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise SettingError(f"level must lie between 0 and 1, came {level}", cure="0.95 gives 95 % intervals.")
    tail = (1 - level) / 2
    bounds = np.full((2, samples.shape[1]), np.nan)
    defined = np.isfinite(samples)
    for column in np.flatnonzero(defined.mean(axis=0) >= 0.5):
        bounds[:, column] = np.quantile(samples[defined[:, column], column], [tail, 1 - tail])
    return bounds[0], bounds[1]


def divided(above: FloatArray, below: FloatArray, empty: float = 0.0) -> FloatArray:
    """`above / below`, and `empty` where `below` is 0."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, empty, dtype=np.float64), where=below != 0)


def summed(codes: IntArray, size: int, counts: FloatArray) -> FloatArray:
    """Counts of cells added up by code: codes (cells,) < size, counts (resamples, cells) → (resamples, size)."""
    from scipy.sparse import csr_matrix

    cells = np.arange(len(codes))
    indicator = csr_matrix((np.ones(len(codes)), (codes, cells)), shape=(size, len(codes)))
    return np.asarray(indicator @ counts.T).T


def classification_statistic(targets: IntArray, answers: IntArray, classes: int) -> Statistic:
    """The scores of single-label answers; `targets` and `answers` (cells,) are class numbers.

    Gives accuracy, macro F1, weighted F1, macro precision, macro recall, Matthews correlation, then the F1 of each class:
    (resamples, 6 + classes). A macro mean is taken over the classes that occur, in a target or an answer, in the resample;
    an empty division counts 0. Both are what scikit-learn does.
    """
    right = targets == answers

    def statistic(counts: FloatArray) -> FloatArray:
        rows = counts.sum(axis=1)  # (resamples,)
        hits = summed(targets[right], classes, counts[:, right])  # (resamples, classes)
        wanted, given = summed(targets, classes, counts), summed(answers, classes, counts)
        present = (wanted + given) > 0
        precision, recall = divided(hits, given), divided(hits, wanted)
        f1 = divided(2 * hits, wanted + given)
        macro = [(score * present).sum(axis=1) / present.sum(axis=1) for score in (f1, precision, recall)]
        correct = hits.sum(axis=1)
        covariance = correct * rows - (wanted * given).sum(axis=1)
        spread = (rows**2 - (wanted**2).sum(axis=1)) * (rows**2 - (given**2).sum(axis=1))
        matthews = divided(covariance, np.sqrt(np.maximum(spread, 0)))
        weighted = (f1 * wanted).sum(axis=1) / rows
        return np.column_stack([correct / rows, macro[0], weighted, macro[1], macro[2], matthews, f1])

    return statistic


def multilabel_statistic(targets: IntArray, answers: IntArray) -> Statistic:
    """The scores of sets of labels; `targets` and `answers` (cells, labels) are 0 or 1.

    Gives micro F1, macro F1, weighted F1, micro precision, micro recall, subset accuracy, then the F1 of each label:
    (resamples, 6 + labels).
    """
    wanted_of, given_of = targets.astype(np.float64), answers.astype(np.float64)
    hits_of, exact = wanted_of * given_of, (targets == answers).all(axis=1).astype(np.float64)

    def statistic(counts: FloatArray) -> FloatArray:
        rows = counts.sum(axis=1)  # (resamples,)
        hits, wanted, given = counts @ hits_of, counts @ wanted_of, counts @ given_of  # (resamples, labels)
        f1 = divided(2 * hits, wanted + given)
        all_hits, all_wanted, all_given = hits.sum(axis=1), wanted.sum(axis=1), given.sum(axis=1)
        micro = divided(2 * all_hits, all_wanted + all_given)
        weighted = divided((f1 * wanted).sum(axis=1), all_wanted)
        precision, recall = divided(all_hits, all_given), divided(all_hits, all_wanted)
        return np.column_stack([micro, f1.mean(axis=1), weighted, precision, recall, (counts @ exact) / rows, f1])

    return statistic


def regression_statistic(targets: FloatArray, answers: FloatArray) -> Statistic:
    """The scores of numbers; `targets` and `answers` (cells,).

    Gives Pearson and Spearman correlation (nan where either side is constant), mean absolute error, root mean squared error:
    (resamples, 4). Ranks are taken anew in every resample, ties get their mean rank.
    """
    error = answers - targets
    scaled_targets, scaled_answers = standardised(targets), standardised(answers)
    target_ranks, answer_ranks = rank_statistic(targets), rank_statistic(answers)

    def statistic(counts: FloatArray) -> FloatArray:
        rows = counts.sum(axis=1)  # (resamples,)
        pearson = correlation(scaled_targets, scaled_answers, counts)
        spearman = correlation(target_ranks(counts), answer_ranks(counts), counts)
        absolute, squared = counts @ np.abs(error) / rows, np.sqrt(counts @ error**2 / rows)
        return np.column_stack([pearson, spearman, absolute, squared])

    return statistic


def standardised(values: FloatArray) -> FloatArray:
    """The values around 0 and at most 1 apart from it, or all 0 where they are constant: (cells,)."""
    if values.min() == values.max():
        return np.zeros_like(values)
    centred = values - values.mean()
    return centred / np.abs(centred).max()


def rank_statistic(values: FloatArray) -> Statistic:
    """The mean rank of each cell in a resample: counts (resamples, cells) → (resamples, cells), as a share of the rows, around 0."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])  # (distinct values,): where a run of ties begins
    tie_of = np.empty(len(values), dtype=np.int64)
    tie_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))

    def statistic(counts: FloatArray) -> FloatArray:
        in_tie = np.add.reduceat(counts[:, order], starts, axis=1)  # (resamples, distinct values)
        rows = counts.sum(axis=1, keepdims=True)
        mean_rank = (np.cumsum(in_tie, axis=1) - in_tie / 2) / rows - 0.5
        return mean_rank[:, tie_of]

    return statistic


def correlation(first: FloatArray, second: FloatArray, counts: FloatArray) -> FloatArray:
    """The weighted Pearson correlation: (cells,) or (resamples, cells) each → (resamples,); nan where a side is constant."""
    rows = counts.sum(axis=1, keepdims=True)
    first = first - (counts * first).sum(axis=1, keepdims=True) / rows  # (resamples, cells)
    second = second - (counts * second).sum(axis=1, keepdims=True) / rows
    above = (counts * first * second).sum(axis=1)
    below = np.sqrt((counts * first**2).sum(axis=1) * (counts * second**2).sum(axis=1))
    constant = below <= 1e-13 * rows[:, 0]  # rounding leaves a constant side a little above 0; both sides are at most 1
    return divided(above, np.where(constant, 0.0, below), np.nan)


def statistic_of(kind: str, targets: Array, answers: Array, classes: int) -> Statistic:
    """The statistic that goes with this kind of problem ("single_label", "multi_label" or "regression")."""
    if kind == "regression":
        return regression_statistic(targets, answers)
    return multilabel_statistic(targets, answers) if kind == "multi_label" else classification_statistic(targets, answers, classes)
