"""Scores equal to scikit-learn's and scipy's, and intervals that hold what they promise."""

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from pellucid.calibration import best_thresholds, calibration_error, reliability
from pellucid.errors import DataError, LabelError, SettingError
from pellucid.intervals import (
    bootstrap,
    classification_statistic,
    draws,
    group,
    multilabel_statistic,
    percentile_interval,
    regression_statistic,
)
from pellucid.metrics import (
    CLASSIFICATION,
    MULTILABEL,
    REGRESSION,
    Score,
    classification_scores,
    confusion,
    label_scores,
    masked_accuracy,
    multilabel_scores,
    regression_scores,
)

LABELS = ("negative", "neutral", "positive", "<script>alert(1)</script>")
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40)
set_pairs = st.lists(st.tuples(st.frozensets(st.sampled_from(LABELS)), st.frozensets(st.sampled_from(LABELS))), min_size=1, max_size=30)
number_pairs = st.lists(st.tuples(st.integers(-5, 5), st.floats(-100, 100, width=16)), min_size=1, max_size=30)


def values(scores):
    return np.array([score.value for score in scores])


def sklearn_classification(targets, answers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            sk.accuracy_score(targets, answers),
            sk.f1_score(targets, answers, average="macro", zero_division=0),
            sk.f1_score(targets, answers, average="weighted", zero_division=0),
            sk.precision_score(targets, answers, average="macro", zero_division=0),
            sk.recall_score(targets, answers, average="macro", zero_division=0),
            sk.matthews_corrcoef(targets, answers),
        ]


def sklearn_multilabel(wanted, given_):
    both = {"zero_division": 0}
    return [
        sk.f1_score(wanted, given_, average="micro", **both),
        sk.f1_score(wanted, given_, average="macro", **both),
        sk.f1_score(wanted, given_, average="weighted", **both),
        sk.precision_score(wanted, given_, average="micro", **both),
        sk.recall_score(wanted, given_, average="micro", **both),
        sk.accuracy_score(wanted, given_),
    ]


def matrix(sets):
    return np.array([[label in each for label in LABELS] for each in sets])


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_classification_is_scikit_learn(rows):
    targets, answers = zip(*rows, strict=True)
    assert values(classification_scores(answers, targets, LABELS)) == pytest.approx(sklearn_classification(targets, answers), abs=1e-12)
    precision, recall, f1, support = sk.precision_recall_fscore_support(targets, answers, labels=LABELS, zero_division=0)
    found = label_scores(answers, targets, LABELS)
    assert [each.label for each in found] == list(LABELS)
    assert [(each.precision, each.recall, each.f1, each.rows) for each in found] == list(zip(precision, recall, f1, support, strict=True))
    assert [each.answers for each in found] == [answers.count(label) for label in LABELS]
    assert (confusion(answers, targets, LABELS) == sk.confusion_matrix(targets, answers, labels=LABELS)).all()


@given(set_pairs)
@settings(deadline=None, max_examples=60)
def test_multilabel_is_scikit_learn(rows):
    targets, answers = ([tuple(sorted(each)) for each in side] for side in zip(*rows, strict=True))
    wanted, said = matrix(targets), matrix(answers)
    assert values(multilabel_scores(answers, targets, LABELS)) == pytest.approx(sklearn_multilabel(wanted, said), abs=1e-12)
    found = label_scores(answers, targets, LABELS, several=True)
    expected = sk.precision_recall_fscore_support(wanted, said, average=None, zero_division=0)
    assert np.array([[each.precision, each.recall, each.f1, each.rows] for each in found]).T == pytest.approx(np.array(expected))


@given(number_pairs)
@settings(deadline=None, max_examples=60)
def test_regression_is_scipy(rows):
    targets, answers = (np.array(side, dtype=float) for side in zip(*rows, strict=True))
    found = values(regression_scores(answers.tolist(), targets.tolist()))
    assert found[2:] == pytest.approx([sk.mean_absolute_error(targets, answers), sk.root_mean_squared_error(targets, answers)])
    if len(rows) > 1 and np.ptp(targets) > 0 and np.ptp(answers) > 1e-9:
        assert found[:2] == pytest.approx([stats.pearsonr(targets, answers).statistic, stats.spearmanr(targets, answers).statistic])


def test_random_cases_of_five_thousand_rows():
    generator = np.random.default_rng(3)
    wanted = generator.integers(0, 4, 5000)
    said = np.where(generator.random(5000) < 0.7, wanted, generator.integers(0, 4, 5000))
    targets, answers = [LABELS[number] for number in wanted], [LABELS[number] for number in said]
    assert values(classification_scores(answers, targets, LABELS)) == pytest.approx(sklearn_classification(targets, answers), abs=1e-12)


# --- the statistics of the bootstrap -----------------------------------------------------------------------------------


@given(pairs, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_every_resample_of_classes_is_what_scikit_learn_gives(rows, seed):
    wanted, said = (np.array([LABELS.index(label) for label in side]) for side in zip(*rows, strict=True))
    cells, first = group([wanted, said])
    counts = np.concatenate(list(draws(cells, 3, seed)))
    assert (counts.sum(axis=1) == len(rows)).all()
    found = classification_statistic(wanted[first], said[first], len(LABELS))(counts)
    for row, count in zip(found, counts.astype(int), strict=True):
        targets, answers = np.repeat(wanted[first], count), np.repeat(said[first], count)
        assert row[:6] == pytest.approx(sklearn_classification(targets, answers), abs=1e-9)
        assert row[6:] == pytest.approx(sk.f1_score(targets, answers, average=None, labels=range(4), zero_division=0))


@given(set_pairs, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_every_resample_of_label_sets_is_what_scikit_learn_gives(rows, seed):
    wanted, said = (matrix(side) for side in zip(*rows, strict=True))
    cells, first = group([wanted, said])
    counts = np.concatenate(list(draws(cells, 3, seed)))
    found = multilabel_statistic(wanted[first], said[first])(counts)
    for row, count in zip(found, counts.astype(int), strict=True):
        targets, answers = np.repeat(wanted[first], count, axis=0), np.repeat(said[first], count, axis=0)
        assert row[:6] == pytest.approx(sklearn_multilabel(targets, answers), abs=1e-9)


@given(number_pairs.filter(lambda rows: len(rows) > 3), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_every_resample_of_numbers_is_what_scipy_gives(rows, seed):
    wanted, said = (np.array(side, dtype=float) for side in zip(*rows, strict=True))
    counts = np.concatenate(list(draws(np.arange(len(rows)), 3, seed)))
    found = regression_statistic(wanted, said)(counts)
    for row, count in zip(found, counts.astype(int), strict=True):
        targets, answers = np.repeat(wanted, count), np.repeat(said, count)
        assert row[2] == pytest.approx(sk.mean_absolute_error(targets, answers), abs=1e-9)
        assert row[3] == pytest.approx(sk.root_mean_squared_error(targets, answers), abs=1e-9)
        if len(set(targets)) == 1 or len(set(answers)) == 1:
            assert np.isnan(row[:2]).all()
        elif np.ptp(answers) > 1e-3 * np.ptp(said):
            expected = [stats.pearsonr(targets, answers).statistic, stats.spearmanr(targets, answers).statistic]
            assert row[:2] == pytest.approx(expected, abs=1e-7)


def test_cells_are_the_distinct_rows():
    cells, first = group([np.array([5, 5, 1, 5]), np.array([[0, 1], [0, 1], [1, 1], [1, 1]])])
    assert cells.tolist() == [1, 1, 0, 2]
    assert [cells[row] for row in first] == [0, 1, 2]


@pytest.mark.parametrize("few", [True, False])
def test_both_ways_to_draw_have_the_same_distribution(few):
    cells = np.repeat(np.arange(4), [10, 20, 30, 40]) if few else np.arange(100) % 25
    counts = np.concatenate(list(draws(cells, 4000, 0)))
    share = np.bincount(cells) / 100
    assert counts.sum(axis=1) == pytest.approx(100)
    assert counts.mean(axis=0) == pytest.approx(100 * share, abs=0.6)
    assert counts.var(axis=0) == pytest.approx(100 * share * (1 - share), rel=0.12)


def test_draws_in_chunks_are_the_same_draws(monkeypatch):
    cells = np.arange(50)
    whole = np.concatenate(list(draws(cells, 20, 7)))
    monkeypatch.setattr("pellucid.intervals.COUNTS_AT_ONCE", 150)
    parts = list(draws(cells, 20, 7))
    assert len(parts) == 7
    assert (np.concatenate(parts) == whole).all()


def accuracy_interval(right, rows, seed):
    """The interval of the accuracy of `right` of `rows` right answers."""
    said = np.r_[np.ones(right, dtype=int), np.zeros(rows - right, dtype=int)]
    cells, first = group([said])
    samples = bootstrap(classification_statistic(np.ones(len(first), dtype=int), said[first], 2), cells, resamples=400, seed=seed)
    lows, highs = percentile_interval(samples[:, :1])
    return lows[0], highs[0]


@pytest.mark.parametrize("truth", [0.6, 0.85])
def test_the_interval_covers_the_truth_ninety_five_times_in_a_hundred(truth):
    generator = np.random.default_rng(11)
    covered = 0
    for trial in range(500):
        low, high = accuracy_interval(int(generator.binomial(300, truth)), 300, trial)
        covered += low <= truth <= high
    assert 0.92 <= covered / 500 <= 0.98  # the share of 500 fair trials lies within 0.95 ± 0.03 with more than 99.7 %


def test_a_thousand_resamples_of_five_thousand_rows_take_a_second():
    generator = np.random.default_rng(0)
    wanted, said, other = (generator.integers(0, 6, 5000) for _ in range(3))
    start = time.perf_counter()
    cells, first = group([wanted, said, other])
    mine, theirs = (classification_statistic(wanted[first], each[first], 6) for each in (said, other))
    samples = bootstrap(lambda counts: np.concatenate([mine(counts), theirs(counts)], axis=1), cells)
    bootstrap(regression_statistic(generator.normal(size=5000), generator.normal(size=5000)), np.arange(5000))
    assert samples.shape == (1000, 24)
    assert time.perf_counter() - start < 5  # a second and less on one idle core


def test_the_same_seed_gives_the_same_interval():
    assert accuracy_interval(40, 50, 1) == accuracy_interval(40, 50, 1) != accuracy_interval(40, 50, 2)


def test_an_interval_leaves_out_what_is_not_defined():
    lows, highs = percentile_interval(np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, 1.0]]), 0.5)
    assert (lows[0], highs[0]) == (1.25, 1.75)
    assert np.isnan([lows[1], highs[1]]).all()


@pytest.mark.parametrize(("resamples", "rows", "level"), [(0, 5, 0.95), (10, 0, 0.95), (10, 5, 1.0), (10, 5, float("nan"))])
def test_a_bootstrap_that_cannot_be_done_says_so(resamples, rows, level):
    statistic = classification_statistic(np.zeros(1, dtype=int), np.zeros(1, dtype=int), 1)
    with pytest.raises(SettingError):
        percentile_interval(bootstrap(statistic, np.zeros(rows, dtype=int), resamples=resamples), level)


def test_ten_thousand_classes_need_no_dense_matrix():
    labels = [f"class {number}" for number in range(10_000)]
    scores = classification_scores(labels[:500], labels[250:750], labels)
    assert scores[0].value == 0
    cells, first = group([np.arange(500)])
    samples = bootstrap(classification_statistic(first, first, 10_000), cells, resamples=50, width=40_000)
    assert samples.shape == (50, 10_006)
    assert samples[:, 0].tolist() == [1.0] * 50


# --- degenerate input --------------------------------------------------------------------------------------------------


def test_one_row():
    assert [score.value for score in classification_scores(["positive"], ["positive"], LABELS)] == [1, 1, 1, 1, 1, 0]
    pearson, spearman, absolute, squared = regression_scores([1.5], [1.0])
    assert np.isnan(pearson.value) and np.isnan(spearman.value)
    assert "one row" in pearson.detail
    assert absolute.value == squared.value == 0.5


def test_one_class_only():
    scores = classification_scores(["neutral"] * 3, ["neutral"] * 3, LABELS)
    assert [score.name for score in scores] == list(CLASSIFICATION)
    assert scores[0].value == 1 and scores[-1].value == 0
    assert scores[1].detail == "mean of the 1 of 4 classes that occur"


def test_a_class_that_is_never_answered():
    by_name = {score.label: score for score in label_scores(["negative"] * 4, ["negative", "neutral"] * 2, LABELS)}
    assert by_name["neutral"].f1 == 0 and by_name["neutral"].rows == 2 and by_name["neutral"].answers == 0
    assert by_name["positive"].rows == 0


def test_a_constant_side_has_no_correlation():
    scores = regression_scores([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
    assert [score.name for score in scores] == list(REGRESSION)
    assert np.isnan(scores[0].value) and scores[0].detail == "not defined: the answers are all equal"
    assert scores[2].value == pytest.approx(2 / 3)


def test_labels_that_never_occur_are_said():
    scores = multilabel_scores([("neutral",), ()], [("neutral",), ()], LABELS)
    assert [score.name for score in scores] == list(MULTILABEL)
    assert scores[1].detail == "3 of 4 labels never occur and count 0"
    assert scores[-1].value == 1


def test_an_empty_set_is_an_answer():
    assert multilabel_scores([(), ()], [(), ()], LABELS)[0].value == 0
    assert multilabel_scores([(), ()], [(), ()], LABELS)[-1].value == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "many"])
def test_a_number_that_is_none_names_its_row(value):
    with pytest.raises(DataError, match="row 1, answer"):
        regression_scores([1.0, value], [1.0, 2.0])


def test_an_unknown_label_names_its_row_and_the_nearest():
    with pytest.raises(LabelError, match=r"row 2, target: .*came 'positiv'.*Did you mean 'positive'"):
        classification_scores(["neutral"] * 3, ["neutral", "neutral", "positiv"], LABELS)
    with pytest.raises(LabelError, match="row 0, answer"):
        multilabel_scores([("odd",)], [("neutral",)], LABELS)
    with pytest.raises(LabelError, match="there is no label"):
        classification_scores(["neutral"], [None], LABELS)


def test_a_target_too_many():
    with pytest.raises(DataError, match="one answer for each of 2 targets, came 1"):
        classification_scores(["neutral"], ["neutral"] * 2, LABELS)
    with pytest.raises(DataError, match="no rows"):
        regression_scores([], [])


def test_a_score_reads_like_a_sentence():
    assert str(Score("accuracy", 0.91234, 0.9, 0.92)) == "accuracy 0.912 [0.900, 0.920]"
    assert str(Score("Pearson", float("nan"), detail="not defined for one row")) == "Pearson nan (not defined for one row)"


def test_masked_accuracy_leaves_out_what_is_ignored():
    logits = np.eye(3)[[[0, 1, 2], [0, 0, 0]]]  # (2, 3, 3)
    assert masked_accuracy(logits, np.array([[0, 1, 1], [-100, -100, 0]])) == 0.75
    assert np.isnan(masked_accuracy(logits, np.full((2, 3), -100)))


# --- calibration and thresholds ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
@settings(deadline=None)
def test_calibration_error_is_its_definition(rows, bins):
    confidences, correct = (np.array(side) for side in zip(*rows, strict=True))
    expected = 0.0
    edges = np.linspace(0, 1, bins + 1)
    for number in range(bins):
        inside = (confidences > edges[number]) & (confidences <= edges[number + 1]) | ((number == 0) & (confidences == 0))
        if inside.any():
            expected += inside.mean() * abs(confidences[inside].mean() - correct[inside].mean())
    assert calibration_error(confidences, correct, bins) == pytest.approx(expected, abs=1e-12)
    assert sum(each.count for each in reliability(confidences, correct, bins)) == len(rows)


def test_calibrated_confidences_have_little_error():
    generator = np.random.default_rng(0)
    confidences = generator.random(50_000)
    assert calibration_error(confidences, generator.random(50_000) < confidences) < 0.02
    assert calibration_error(np.ones(10), np.zeros(10, dtype=bool)) == 1


@pytest.mark.parametrize("odd", [float("nan"), -0.1, 3.2])
def test_a_confidence_that_is_no_probability_names_its_row(odd):
    with pytest.raises(DataError, match="row 1: expected a probability"):
        calibration_error(np.array([0.5, odd]), np.array([True, True]))


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=25))
@settings(deadline=None)
def test_no_threshold_is_better_than_the_best(rows):
    scores, wanted = (np.array(side) for side in zip(*rows, strict=True))
    scores = scores.astype(np.float32)
    (threshold,) = best_thresholds(scores[:, None], [("yes",) if each else () for each in wanted], ["yes"])
    candidates = [*np.unique(scores), 0.0, 0.5]
    best = max(sk.f1_score(wanted, scores >= each, zero_division=0) for each in candidates)
    assert sk.f1_score(wanted, scores >= threshold, zero_division=0) == pytest.approx(best)
    assert threshold == 0.5 or wanted.any()


def test_thresholds_lie_between_the_scores_and_near_the_middle():
    scores = np.array([[0.9, 0.2], [0.8, 0.1], [0.2, 0.0], [0.1, 0.0]])
    assert best_thresholds(scores, [("a",), ("a",), (), ()], ["a", "b"]) == (pytest.approx(0.5), 0.5)
    assert best_thresholds(scores, [("a", "b"), "a", (), ()], ["a", "b"]) == (pytest.approx(0.5), pytest.approx(0.15))


def test_a_score_that_is_not_finite_names_row_and_label():
    with pytest.raises(DataError, match="row 1: the score of label 'b' is nan"):
        best_thresholds(np.array([[0.1, 0.2], [0.3, np.nan]]), ["a", "b"], ["a", "b"])
    with pytest.raises(DataError, match=r"expected scores of shape \(1, 2\)"):
        best_thresholds(np.zeros((1, 3)), ["a"], ["a", "b"])
