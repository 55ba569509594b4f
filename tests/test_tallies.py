"""Scores from sums over rows: every resample is scored exactly, whatever is counted."""

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.answer_metrics import answer_tally, normalised
from pellucid.baselines import Answers
from pellucid.comparison import compare_tallies, verdict
from pellucid.errors import DataError, SettingError
from pellucid.intervals import Resampling, draws
from pellucid.language_metrics import perplexity_tally
from pellucid.metrics import LOWER_IS_BETTER
from pellucid.span_metrics import entity_tally, word_tally
from pellucid.tallies import Tally, label_scores_of, resampled, row_scores, scores_of
from pellucid.text_metrics import TEXTS, text_tally
from pellucid.types import Span

LABELS = ("person", "place", "<script>alert(1)</script>")
WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mats", "A", "cat,", "sitting"]), max_size=6).map(" ".join)
spans = st.lists(st.builds(Span, st.integers(0, 3), st.integers(4, 6), st.sampled_from(LABELS)), max_size=4).map(tuple)


def entities(rows):
    answers, targets = zip(*rows, strict=True)
    return entity_tally(answers, targets, LABELS)


def words(rows):
    answers, targets = zip(*rows, strict=True)
    return word_tally(answers, targets, LABELS)


def answers(rows):
    said, acceptable = zip(*rows, strict=True)
    return answer_tally(said, acceptable)


def texts(rows):
    said, wanted = zip(*rows, strict=True)
    return text_tally(said, wanted)


def language(rows):
    likelihoods, tokens, characters = zip(*rows, strict=True)
    return perplexity_tally(likelihoods, tokens, characters)


# what makes a tally of rows, and how rows of it look
FAMILIES = {
    "entities": (entities, st.tuples(spans, spans)),
    "words": (words, st.tuples(spans, spans)),
    "answers": (answers, st.tuples(WORDS, st.lists(WORDS.filter(normalised), max_size=2).map(tuple))),
    "texts": (texts, st.tuples(WORDS, WORDS)),
    "language": (language, st.tuples(st.floats(0, 50, width=16), st.integers(0, 9), st.integers(0, 30))),
}
families = pytest.mark.parametrize("family", FAMILIES)
quick = settings(deadline=None, max_examples=15)
SHORT = Resampling(60, 3)


def some_rows(data, family, least=1, most=12):
    make, row = FAMILIES[family]
    return make, data.draw(st.lists(row, min_size=least, max_size=most))


def values(tally):
    return np.array([score.value for score in scores_of(tally)])


def bounds(compared):
    everything = [*compared.scores, *compared.labels]
    return [(each.low, each.high) for each in everything]


# --- what holds for every tally ----------------------------------------------------------------------------------------


@families
@given(st.data())
@quick
def test_a_resample_is_scored_as_if_its_rows_had_been_given(family, data):
    make, rows = some_rows(data, family, least=2)
    tally = make(rows)
    (counts,) = draws(np.arange(len(rows)), 1, data.draw(st.integers(0, 99)))
    again = [row for row, count in zip(rows, counts[0].astype(int), strict=True) for _ in range(count)]
    found, expected = dict(zip(tally.names, tally.combine(counts[0] @ tally.counts), strict=True)), scores_of(make(again))
    for score in expected:  # answers to questions have fewer scores where no question without an answer was drawn
        assert found[score.name] == pytest.approx(score.value, abs=1e-9, nan_ok=True)


@families
@given(st.data())
@quick
def test_identical_rows_have_an_interval_without_width(family, data):
    make, row = FAMILIES[family]
    tally = make([data.draw(row)] * data.draw(st.integers(2, 9)))
    compared = compare_tallies(tally, resampling=SHORT)
    for score, value in zip(compared.scores, values(tally), strict=True):
        assert score.low == score.high
        assert score.low is None or score.low == pytest.approx(value, abs=1e-9)
    assert all(each.low == each.high == pytest.approx(each.f1) for each in compared.labels)


@families
@given(st.data())
@quick
def test_the_order_of_the_rows_changes_nothing(family, data):
    make, rows = some_rows(data, family, least=2)
    order = data.draw(st.permutations(range(len(rows))))
    first, second = (compare_tallies(make(each), resampling=SHORT) for each in (rows, [rows[place] for place in order]))
    for one, other in zip(first.scores, second.scores, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-12, nan_ok=True)
    assert bounds(first) == bounds(second)
    assert first.labels == second.labels


@families
@given(st.data())
@quick
def test_a_system_differs_from_itself_by_nothing_at_all(family, data):
    make, rows = some_rows(data, family, least=2)
    compared = compare_tallies(make(rows), [(Answers("itself", (1,), "the same"), make(rows))], resampling=SHORT)
    for difference in compared.baselines[0].differences:
        if np.isfinite(difference.value):
            assert difference.value == 0
            assert (difference.low, difference.high) in ((0, 0), (None, None))
            assert not difference.clear


@families
def test_one_row_has_no_interval(family):
    make, _ = FAMILIES[family]
    compared = compare_tallies(make([ONE[family]]), resampling=SHORT)
    assert all(score.low is None and score.high is None for score in (*compared.scores, *compared.labels))


ONE = {
    "entities": ((Span(0, 4, "person"),), (Span(0, 4, "person"),)),
    "words": ((Span(0, 4, "person"),), (Span(0, 4, "place"),)),
    "answers": ("a cat", ("cat",)),
    "texts": ("the cat sat", "the cat sat on the mat"),
    "language": (12.0, 5, 20),
}


# --- the bootstrap -----------------------------------------------------------------------------------------------------


def shares(right):
    """A tally of a share: right or not in each row."""
    counts = np.stack([np.ones(len(right)), np.asarray(right, dtype=float)], axis=1)
    return Tally(("share",), counts, lambda sums: sums[..., 1:2] / sums[..., :1])


def test_the_interval_covers_the_truth_ninety_five_times_in_a_hundred():
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(400):
        (score,) = compare_tallies(shares(generator.random(200) < 0.7), resampling=Resampling(300, trial)).scores
        covered += score.low <= 0.7 <= score.high
    assert 0.915 <= covered / 400 <= 0.985


def test_a_difference_is_paired():
    generator = np.random.default_rng(0)
    hard = generator.random(400) < 0.5
    theirs = hard.copy()
    theirs[:12] = False
    compared = compare_tallies(shares(hard), [(Answers("nearly", (1,), "the same but for a few rows"), shares(theirs))])
    score, difference = compared.scores[0], compared.baselines[0].differences[0]
    assert difference.high - difference.low < 0.5 * (score.high - score.low)
    assert difference.value == pytest.approx(score.value - compared.baselines[0].scores[0].value)
    assert difference.clear and "is worth it" in verdict(compared.scores, compared.baselines, 0.95)


def test_a_baseline_that_could_not_be_made_says_why():
    compared = compare_tallies(shares([1, 0]), [(Answers("none", (), "not made: there is nothing"), None)])
    assert compared.baselines[0].scores == () and compared.baselines[0].how == "not made: there is nothing"


def test_all_draws_come_in_pieces_that_memory_holds(monkeypatch):
    generator = np.random.default_rng(1)
    tally = shares(generator.random(60))
    whole = resampled([tally], Resampling(50, 2))[0]
    sizes = []

    def seen(sums):
        sizes.append(sums.shape[:-1])
        return tally.combine(sums)

    monkeypatch.setattr("pellucid.intervals.COUNTS_AT_ONCE", 600)
    parts = resampled([Tally(("share",), tally.counts, seen)], Resampling(50, 2))[0]
    assert sizes == [(10,)] * 5
    assert parts == pytest.approx(whole, abs=1e-12)


def test_a_thousand_resamples_of_ten_thousand_rows_take_seconds():
    generator = random.Random(0)
    rows = [tuple(Span(start, start + 3, generator.choice(LABELS)) for start in range(generator.randrange(4))) for _ in range(10_000)]
    other = [tuple(span for span in row if generator.random() < 0.7) for row in rows]
    start = time.perf_counter()
    compare_tallies(entity_tally(other, rows, LABELS), [(Answers("none", (1,), ""), entity_tally([()] * len(rows), rows, LABELS))])
    assert time.perf_counter() - start < 20


# --- what a tally refuses ----------------------------------------------------------------------------------------------


def test_a_tally_of_nothing_or_of_something_else_is_refused():
    def combine(sums):
        return sums[..., :1]

    for nothing in (scores_of, compare_tallies):
        with pytest.raises(DataError, match="no rows to score"):
            nothing(Tally(("a",), np.zeros((0, 2)), combine))
    with pytest.raises(SettingError, match=r"expected counts \(rows, 6 or more\)"):
        Tally(("a",), np.zeros((2, 5)), combine, labels=("x", "y"))
    with pytest.raises(SettingError, match="expected counts"):
        Tally((), np.zeros((2, 5)), combine)
    with pytest.raises(DataError, match="row 1: a count is not a finite number"):
        Tally(("a",), np.array([[1.0], [np.nan]]), combine)
    with pytest.raises(SettingError, match="tallies of 2, 3 rows"):
        resampled([shares([1, 0]), shares([1, 0, 1])], SHORT)
    other = Tally(("part",), np.ones((2, 2)), combine)
    with pytest.raises(SettingError, match="the baseline odd has other scores"):
        compare_tallies(shares([1, 0]), [(Answers("odd", (1,), ""), other)])


def test_the_names_are_known_before_there_is_a_row():
    assert entity_tally([], [], LABELS).names[0] == "F1"
    assert word_tally([], [], LABELS).names[0] == "accuracy"
    assert answer_tally([], []).names == ("F1", "exact match")
    assert text_tally([], []).names == TEXTS
    assert perplexity_tally([], []).names[0] == "perplexity"


def test_a_tally_without_labels_has_no_label_scores():
    assert label_scores_of(shares([1, 0])) == ()
    assert row_scores(shares([1, 0])).tolist() == [1, 0]
    assert scores_of(Tally(("share",), np.ones((1, 2)), lambda sums: sums[..., :1], details={"share": "why"}))[0].detail == "why"


# --- language models ---------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(1, 50), st.integers(1, 99)), min_size=1, max_size=20))
@settings(deadline=None)
def test_perplexity_is_its_definition(rows):
    likelihoods, tokens, characters = (np.array(side, dtype=float) for side in zip(*rows, strict=True))
    nats = likelihoods.sum() / tokens.sum()
    found = scores_of(perplexity_tally(likelihoods, tokens, characters))
    assert [score.name for score in found] == ["perplexity", "cross-entropy per token", "bits per character"]
    bits = likelihoods.sum() / np.log(2) / characters.sum()
    assert [score.value for score in found] == pytest.approx([np.exp(nats), nats, bits])
    assert {score.name for score in found} <= LOWER_IS_BETTER
    assert len(scores_of(perplexity_tally(likelihoods, tokens))) == 2


def test_perplexity_of_uniform_guesses_is_the_number_of_choices():
    tally = perplexity_tally([4 * np.log(50), 2 * np.log(50)], [4, 2])
    assert scores_of(tally)[0].value == pytest.approx(50)
    assert row_scores(tally) == pytest.approx([50, 50])


def test_no_tokens_have_no_perplexity_and_a_hopeless_model_an_infinite_one():
    assert np.isnan(values(perplexity_tally([0.0, 0.0], [0, 0], [0, 0]))).all()
    assert values(perplexity_tally([1e6], [10]))[0] == np.inf
    assert compare_tallies(perplexity_tally([1e6, 1e6], [10, 10])).scores[0].low is None


def test_likelihoods_that_cannot_be_name_their_row():
    with pytest.raises(DataError, match=r"row 1: expected finite sums and counts, came \[nan, 3.0\]"):
        perplexity_tally([1.0, float("nan")], [3, 3])
    with pytest.raises(DataError, match="row 0"):
        perplexity_tally([1.0], [-3])
    with pytest.raises(DataError, match="one answer for each"):
        perplexity_tally([1.0], [3, 3])


def test_all_scores_of_texts_are_in_the_families():
    assert [score.name for score in scores_of(texts([ONE["texts"]]))] == list(TEXTS)
