"""Scores over plain values.

Takes answers and targets, as strings, sets of strings or numbers. Gives named scores, equal to those of scikit-learn and scipy.
Knows nothing of models, files or how the answers came about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import nan
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from pellucid.errors import DataError, LabelError
from pellucid.intervals import classification_statistic
from pellucid.types import BoolArray, FloatArray, IntArray, Target

Kind = Literal["single_label", "multi_label", "regression"]
CLASSIFICATION = ("accuracy", "F1 macro", "F1 weighted", "precision macro", "recall macro", "Matthews correlation")
MULTILABEL = ("F1 micro", "F1 macro", "F1 weighted", "precision micro", "recall micro", "subset accuracy")
REGRESSION = ("Pearson", "Spearman", "mean absolute error", "root mean squared error")
NAMES: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {"single_label": CLASSIFICATION, "multi_label": MULTILABEL, "regression": REGRESSION}
)
LOWER_IS_BETTER = frozenset(
    {"mean absolute error", "root mean squared error", "perplexity", "cross-entropy per token", "bits per character"}
)


@dataclass(frozen=True, slots=True)
class Score:
    """A named number with its interval where one was computed; `value` is nan where the score is not defined, and `detail` says why."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.3f}, {self.high:.3f}]"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.name} {self.value:.3f}{interval}{detail}"


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Precision, recall and F1 of one label, with the interval of F1; `rows` have it as target, `answers` have it as answer."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int
    answers: int
    low: float | None = None
    high: float | None = None


def classification_scores(answers: Sequence[Target], targets: Sequence[Target], labels: Sequence[str]) -> tuple[Score, ...]:
    """Accuracy first, then macro and weighted F1, macro precision and recall, and Matthews correlation.

    Macro means are taken over the classes that occur in a target or an answer; a division by nothing counts 0 (scikit-learn's rules).
    Raises LabelError for a label that is not one of `labels`, DataError where there is nothing to score.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    wanted, given = class_numbers(targets, labels, "target"), class_numbers(answers, labels, "answer")
    check_lengths(given, wanted)
    present = np.union1d(wanted, given)
    precision, recall, f1, support = precision_recall_fscore_support(wanted, given, labels=present, average=None, zero_division=0)
    weighted = float(np.average(f1, weights=support))
    # scikit-learn's own Matthews correlation wants a dense matrix of classes × classes: 800 MB for 10,000 classes
    matthews = classification_statistic(wanted, given, len(labels))(np.ones((1, len(wanted))))[0, 5]
    detail = "" if len(present) == len(labels) else f"mean of the {len(present)} of {len(labels)} classes that occur"
    values = (float(accuracy_score(wanted, given)), f1.mean(), weighted, precision.mean(), recall.mean(), matthews)
    return tuple(
        Score(name, float(value), detail=detail if "macro" in name else "") for name, value in zip(CLASSIFICATION, values, strict=True)
    )


def multilabel_scores(answers: Sequence[Target], targets: Sequence[Target], labels: Sequence[str]) -> tuple[Score, ...]:
    """Micro F1 first, then macro and weighted F1, micro precision and recall, and the subset accuracy: the share of rows quite right.

    Macro means are taken over all `labels`, those that never occur count 0 (scikit-learn's rule). Raises LabelError and DataError.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    wanted, given = label_matrix(targets, labels, "target"), label_matrix(answers, labels, "answer")
    check_lengths(given, wanted)
    per_label = precision_recall_fscore_support(wanted, given, average=None, zero_division=0)
    precision, recall, f1, _ = precision_recall_fscore_support(wanted, given, average="micro", zero_division=0)
    weights = per_label[3]
    weighted = float(np.average(per_label[2], weights=weights)) if weights.sum() else 0.0
    absent = int((~(wanted | given).any(axis=0)).sum())
    detail = f"{absent} of {len(labels)} labels never occur and count 0" if absent else ""
    values = (f1, per_label[2].mean(), weighted, precision, recall, accuracy_score(wanted, given))
    return tuple(
        Score(name, float(value), detail=detail if "macro" in name else "") for name, value in zip(MULTILABEL, values, strict=True)
    )


def regression_scores(answers: Sequence[Target], targets: Sequence[Target]) -> tuple[Score, ...]:
    """Pearson and Spearman correlation, mean absolute error, root mean squared error.

    A correlation is nan, and says why, where there are fewer than two rows or a side is constant. Raises DataError for what is not finite.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    wanted, given = finite_numbers(targets, "target"), finite_numbers(answers, "answer")
    check_lengths(given, wanted)
    why = undefined_correlation(given, wanted)
    pearson, spearman = (nan, nan) if why else (pearsonr(wanted, given).statistic, spearmanr(wanted, given).statistic)
    values = (pearson, spearman, mean_absolute_error(wanted, given), root_mean_squared_error(wanted, given))
    return tuple(
        Score(name, float(value), detail=why if name in REGRESSION[:2] else "") for name, value in zip(REGRESSION, values, strict=True)
    )


def undefined_correlation(answers: FloatArray, targets: FloatArray) -> str:
    """Why the correlation of these is not defined; empty where it is."""
    if len(targets) < 2:
        return "not defined for one row"
    for name, values in (("targets", targets), ("answers", answers)):
        if np.ptp(values) <= 2e-13 * np.abs(values).max():
            return f"not defined: the {name} are all equal"
    return ""


def label_scores(
    answers: Sequence[Target], targets: Sequence[Target], labels: Sequence[str], *, several: bool = False
) -> tuple[LabelScore, ...]:
    """Precision, recall and F1 of every label, in label order; `several` for sets of labels a row. Raises LabelError and DataError."""
    from sklearn.metrics import precision_recall_fscore_support

    numbers = label_matrix if several else class_numbers
    wanted, given = numbers(targets, labels, "target"), numbers(answers, labels, "answer")
    check_lengths(given, wanted)
    codes = np.arange(len(labels))
    precision, recall, f1, rows = precision_recall_fscore_support(wanted, given, labels=codes, average=None, zero_division=0)
    counts = given.sum(axis=0) if several else np.bincount(given, minlength=len(labels))
    columns = zip(labels, precision.tolist(), recall.tolist(), f1.tolist(), rows.tolist(), counts.tolist(), strict=True)
    return tuple(LabelScore(*values) for values in columns)


def confusion(answers: Sequence[Target], targets: Sequence[Target], labels: Sequence[str]) -> IntArray:
    """How many rows of each class (rows of the matrix) got each answer (columns): (classes, classes). Raises LabelError and DataError."""
    wanted, given = class_numbers(targets, labels, "target"), class_numbers(answers, labels, "answer")
    check_lengths(given, wanted)
    size = len(labels)
    return np.bincount(wanted * size + given, minlength=size * size).reshape(size, size)


def masked_accuracy(logits: FloatArray, labels: IntArray, ignore: int = -100) -> float:
    """The share of tokens whose highest logit is their label, without those labelled `ignore`; nan where all are.

    `logits` (..., classes), `labels` (...).
    """
    counted = np.asarray(labels) != ignore
    right = np.asarray(logits).argmax(axis=-1) == labels
    return float(right[counted].mean()) if counted.any() else nan


def coded(kind: Kind, values: Sequence[Target], labels: Sequence[str], what: str) -> Any:
    """The values as numbers: class numbers (rows,), a label matrix (rows, labels) or floats (rows,). Raises LabelError and DataError."""
    if kind == "regression":
        return finite_numbers(values, what)
    return (label_matrix if kind == "multi_label" else class_numbers)(values, labels, what)


def scores_of(kind: Kind, answers: Sequence[Target], targets: Sequence[Target], labels: Sequence[str]) -> tuple[Score, ...]:
    """The scores that go with this kind of problem, the main one first. Raises LabelError and DataError."""
    if kind == "regression":
        return regression_scores(answers, targets)
    return (multilabel_scores if kind == "multi_label" else classification_scores)(answers, targets, labels)


def class_numbers(values: Sequence[Target], labels: Sequence[str], what: str) -> IntArray:
    """The number of each label: (rows,). Raises LabelError for one that is not in `labels`, naming the row."""
    numbers = {label: position for position, label in enumerate(labels)}
    codes = np.fromiter((numbers.get(value, -1) if isinstance(value, str) else -1 for value in values), np.int64, len(values))
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise unknown_label(values[row], labels, f"row {row}, {what}")
    return codes


def label_matrix(values: Sequence[Target], labels: Sequence[str], what: str) -> BoolArray:
    """Which labels each row has: (rows, labels). Raises LabelError for one that is not in `labels`, naming the row."""
    numbers = {label: position for position, label in enumerate(labels)}
    matrix = np.zeros((len(values), len(labels)), dtype=np.bool_)
    for row, value in enumerate(values):
        for label in members(value):
            if label not in numbers:
                raise unknown_label(label, labels, f"row {row}, {what}")
            matrix[row, numbers[label]] = True
    return matrix


def members(value: Target) -> tuple[Any, ...]:
    """The labels of a row: a single one is a set of one."""
    return tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)


def unknown_label(value: object, labels: Sequence[str], place: str) -> LabelError:
    """The error for a label that is none of the model's."""
    if value is None:
        return LabelError("there is no label, one is needed to score an answer", place=place, cure="Label the row or leave it out.")
    few = ", ".join(repr(label) for label in labels[:8]) + (", …" if len(labels) > 8 else "")
    near = get_close_matches(str(value), labels, n=1)
    cure = f"Did you mean {near[0]!r}?" if near else "Mend the row, or train with the labels of all rows."
    return LabelError(f"expected one of {len(labels)} labels ({few}), came {value!r}", place=place, cure=cure)


def finite_numbers(values: Sequence[Target], what: str) -> FloatArray:
    """The values as floats: (rows,). Raises DataError for one that is not a finite number, naming the row."""
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array([float_or_nan(value) for value in values])
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(f"expected a finite number, came {values[row]!r}", place=f"row {row}, {what}", cure="Mend the row or leave it out.")
    return numbers


def float_or_nan(value: Target) -> float:
    """The value as a float, nan where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]  # what is no number raises, and is named by the caller
    except (TypeError, ValueError):
        return nan


def check_lengths(answers: Any, targets: Any) -> None:
    """As many answers as targets, and at least one. Raises DataError."""
    if len(answers) != len(targets):
        raise DataError(
            f"expected one answer for each of {len(targets)} targets, came {len(answers)}", cure="Score the rows that were predicted."
        )
    if len(targets) == 0:
        raise DataError("there are no rows to score", cure="Pass at least one row with a target.")
