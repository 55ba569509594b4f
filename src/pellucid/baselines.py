"""What a transformer has to beat: the constant answer, and a linear model on word counts.

Takes the texts and targets of training rows, and the texts to answer. Gives answers, and how they were made.
Knows nothing of transformers, pipelines or scores with intervals.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.metrics import Kind, coded, finite_numbers, members
from pellucid.types import Columns, Target

CLASSES, SETS, NUMBERS = "TF-IDF + logistic regression", "TF-IDF + one-vs-rest logistic regression", "TF-IDF + ridge regression"
LINEAR = {"single_label": CLASSES, "multi_label": SETS, "regression": NUMBERS}
STRENGTHS = (1.0, 10.0, 100.0)  # how far the linear model may follow its rows: C of the logistic regression, 10 / alpha of the ridge
USUAL_STRENGTH = 10.0
ROWS_TO_CHOOSE = (100, 10_000)  # with fewer rows the usual strength is taken; of more rows, these many choose it


@dataclass(frozen=True, slots=True)
class Answers:
    """What a baseline says for each row, and how it came to it; `answers` is empty where it could not be made, and `how` says why."""

    name: str
    answers: tuple[Target, ...]
    how: str


def constant_answer(kind: Kind, targets: Sequence[Target], rows: int) -> Answers:
    """The answer that needs no text: the most frequent class or set of labels, or the mean."""
    if kind == "regression":
        mean = float(finite_numbers(targets, "target").mean())
        return Answers("mean", (mean,) * rows, f"always {mean:.4g}, the mean of {len(targets):,} targets")
    several = kind == "multi_label"
    counts = Counter(tuple(sorted(members(target))) if several else target for target in targets)
    answer, count = max(counts.items(), key=lambda item: (item[1], str(item[0])))
    shown = (", ".join(members(answer)) or "no label") if several else answer
    how = f"always {shown!r}, the answer of {count:,} of {len(targets):,} rows"
    return Answers("majority label set" if several else "majority class", (answer,) * rows, how)


def linear_answers(
    kind: Kind, train: Columns, targets: Sequence[Target], texts: Columns, *, labels: Sequence[str], seed: int = 0
) -> Answers:
    """A linear model on TF-IDF weights of single words and pairs of words, trained on `train` and `targets`, answering `texts`.

    How strongly it follows the rows is chosen on a fifth of them, then it is trained on all. Deterministic with the seed.
    Raises LabelError for a training target that is none of `labels`, naming the row.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with few rows and of an optimizer stopped early: neither needs the reader's help
        wanted = coded(kind, targets, labels, "training target")
        if kind == "single_label" and len(np.unique(wanted)) < 2:
            return Answers(LINEAR[kind], (), "not trained: the training rows have only one class")
        try:
            weights, others = tfidf(train, texts)
        except ValueError:  # scikit-learn's word for texts without a single word is "empty vocabulary"
            return Answers(LINEAR[kind], (), "not trained: the training texts hold no words")
        strength = chosen_strength(kind, weights, wanted, seed)
        given = fitted(kind, weights, wanted, strength)(others)
    knob = f"alpha = {10 / strength:g}" if kind == "regression" else f"C = {strength:g}"
    shared = ", and what both texts share" if len(train) == 2 else ""
    how = f"words and pairs of words{shared}, {weights.shape[1]:,} features, {knob}, trained on {len(targets):,} rows"
    return Answers(LINEAR[kind], answers_of(kind, given, labels), how)


def tfidf(train: Columns, texts: Columns) -> tuple[Any, Any]:
    """Sparse weights of the training texts and of the others: (rows, features) each.

    Two texts a row have one vocabulary; the words that both hold are features as well, and so is how alike the two are.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    every = [text for column in train.values() for text in column]
    seen_in = 1 if len(every) < 500 else 2  # in a few rows every word counts; in many, a word seen once teaches nothing
    words = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=seen_in, max_features=200_000, token_pattern=r"(?u)\b\w+\b", dtype=np.float32
    ).fit(every)
    trained, others = ([words.transform(columns[field]) for field in train] for columns in (train, texts))
    return side_by_side(trained), side_by_side(others)


def side_by_side(fields: Sequence[Any]) -> Any:
    """The weights of each field, and for a pair their product and its sum, the cosine: a linear model cannot compare by itself."""
    from scipy.sparse import csr_matrix, hstack

    if len(fields) != 2:
        return hstack(fields, format="csr")
    shared = fields[0].multiply(fields[1])  # (rows, features)
    return hstack([*fields, shared, csr_matrix(shared.sum(axis=1))], format="csr")


def chosen_strength(kind: Kind, weights: Any, wanted: Any, seed: int) -> float:
    """The strength that does best on a fifth of the rows after training on the rest."""
    order = np.random.default_rng(seed).permutation(len(wanted))[: ROWS_TO_CHOOSE[1]]
    held, kept = np.split(order, [len(order) // 5])
    if len(order) < ROWS_TO_CHOOSE[0] or (kind == "single_label" and len(np.unique(wanted[kept])) < 2):
        return USUAL_STRENGTH

    def quality(strength: float) -> float:
        given = fitted(kind, weights[kept], wanted[kept], strength)(weights[held])
        if kind == "regression":
            return -float(((given - wanted[held]) ** 2).mean())
        if kind == "single_label":
            return float((given == wanted[held]).mean())
        return 2 * float((given & wanted[held]).sum()) / max(1.0, float(given.sum() + wanted[held].sum()))  # micro F1

    return max(STRENGTHS, key=quality)


def fitted(kind: Kind, weights: Any, wanted: Any, strength: float) -> Callable[[Any], Any]:
    """A trained linear model, as a function from weights (rows, features) to class numbers, label matrix or numbers."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    if kind == "regression":
        return Ridge(alpha=10 / strength).fit(weights, wanted).predict
    if kind == "single_label":
        return LogisticRegression(C=strength, max_iter=500, tol=1e-3).fit(weights, wanted).predict
    if wanted.shape[1] == 1:  # scikit-learn takes one column for a single-label problem
        return lambda others: fitted("multi_label", weights, np.repeat(wanted, 2, axis=1), strength)(others)[:, :1]
    one_each = OneVsRestClassifier(LogisticRegression(C=strength, solver="liblinear")).fit(weights, wanted.astype(np.int64))
    return lambda others: np.asarray(one_each.predict(others)) > 0


def answers_of(kind: Kind, given: Any, labels: Sequence[str]) -> tuple[Target, ...]:
    """Class numbers, a label matrix or numbers as answers."""
    if kind == "regression":
        return tuple(given.tolist())
    if kind == "single_label":
        return tuple(labels[number] for number in given.tolist())
    return tuple(tuple(labels[number] for number in np.flatnonzero(row).tolist()) for row in given)
