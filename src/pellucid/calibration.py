"""Whether a probability means what it says, and where to put a threshold.

Takes confidences or scores with what was right. Gives reliability bins, the calibration error and a threshold a label.
Knows nothing of models, rows or how the scores came about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.errors import DataError, SettingError
from pellucid.metrics import label_matrix
from pellucid.types import BoolArray, FloatArray, Target


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers whose confidence lies in (low, high]: how many, how confident on average, and what share of them is right."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


def reliability(confidences: FloatArray, correct: BoolArray, bins: int = 15) -> tuple[Bin, ...]:
    """The bins of equal width that hold an answer. `confidences` (answers,) in [0, 1], `correct` (answers,).

    Raises DataError for a confidence that is not a probability, SettingError for fewer than one bin.
    """
    confidences, correct = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    if bins < 1:
        raise SettingError(f"bins must be at least 1, came {bins}", cure="15 is usual.")
    if confidences.shape != correct.shape or confidences.size == 0:
        raise DataError(f"expected one verdict a confidence, came {correct.size} for {confidences.size}", cure="Pass as many of both.")
    odd = ~((confidences >= 0) & (confidences <= 1 + 1e-9))  # nan is odd too
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise DataError(f"expected a probability, came {confidences[row]}", place=f"row {row}", cure="Pass probabilities, not logits.")
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.digitize(confidences, edges, right=True) - 1, 0, bins - 1)  # 0 itself belongs to the first bin
    counts = np.bincount(bin_of, minlength=bins)
    confidence_sums, right_sums = (np.bincount(bin_of, weights=values, minlength=bins) for values in (confidences, correct))
    filled = np.flatnonzero(counts).tolist()
    return tuple(
        Bin(
            float(edges[number]),
            float(edges[number + 1]),
            int(counts[number]),
            float(confidence_sums[number] / counts[number]),
            float(right_sums[number] / counts[number]),
        )
        for number in filled
    )


def calibration_error(confidences: FloatArray, correct: BoolArray, bins: int = 15) -> float:
    """How far confidence and share of right answers lie apart, averaged over the answers: the expected calibration error.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), equation 3. Raises what `reliability` raises.
    """
    return error_of(reliability(confidences, correct, bins))


def error_of(bins: Sequence[Bin]) -> float:
    """The expected calibration error of these bins."""
    answers = sum(each.count for each in bins)
    return sum(each.count * abs(each.confidence - each.right) for each in bins) / answers


def best_thresholds(scores: FloatArray, targets: Sequence[Target], labels: Sequence[str]) -> tuple[float, ...]:
    """For each label the threshold with the highest F1: a label is given where its score is at or above it.

    `scores` (rows, labels). Thresholds lie half way between two scores that occur; of equally good ones the nearest to 0.5
    is taken, and 0.5 for a label that no row has. Choose them on validation rows, not on those that the final score is
    taken on.
    Raises DataError for scores that are not finite, LabelError for unknown labels.
    """
    scores = np.asarray(scores)
    scores = scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(np.float64)
    wanted = label_matrix(targets, labels, "target")  # (rows, labels)
    if scores.shape != wanted.shape or len(wanted) == 0:
        raise DataError(f"expected scores of shape {wanted.shape}, came {scores.shape}", cure="Pass one row of scores a target.")
    if not np.isfinite(scores).all():
        row, column = (int(number) for number in np.argwhere(~np.isfinite(scores))[0])
        raise DataError(f"the score of label {labels[column]!r} is {scores[row, column]}", place=f"row {row}", cure="Mend the model first.")
    return tuple(best_threshold(scores[:, column], wanted[:, column]) for column in range(len(labels)))


def best_threshold(scores: FloatArray, wanted: BoolArray) -> float:
    """The threshold with the highest F1 for one label; `scores` and `wanted` (rows,)."""
    positives = int(wanted.sum())
    if positives == 0:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.cumsum(wanted[order])  # (rows,) right answers when the first 1, 2, … rows get the label
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])  # a cut goes between two different scores only
    f1 = 2 * hits[last] / (last + 1 + positives)
    upper, lower = ranked[last], np.r_[ranked[last[1:]], ranked[-1:]]
    middle = lower + (upper - lower) / 2
    cuts = np.where(middle > lower, middle, upper)  # two neighbouring floats have no middle
    best = np.flatnonzero(f1 == f1.max())
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])
