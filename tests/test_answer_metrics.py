"""Answers to questions, scored as the two scripts of SQuAD score them."""

import collections
import gzip
import json
import random
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.answer_metrics import ANSWERS, WITH_UNANSWERABLE, answer_scores, answer_tally, normalised
from pellucid.errors import DataError
from pellucid.tallies import row_scores, scores_of
from pellucid.text_baselines import nearest_sentences, no_answer, sentences

texts = st.lists(st.sampled_from(["The", "cat", "sat.", "a", "an", "Mat", "mat's", "1,000", "–", "théâtre"]), max_size=5).map(" ".join)


# --- the definitions, written down again -------------------------------------------------------------------------------


def plain(text):
    """Lower case, without punctuation, without articles, single spaces: in this order."""
    letters = [letter for letter in text.lower() if letter not in set(string.punctuation)]
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", "".join(letters)).split())


def overlap(said, wanted):
    common = collections.Counter(said) & collections.Counter(wanted)
    same = sum(common.values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def first_version(said, golds):
    """Exact match and F1 of version 1.1: every question has an answer."""
    exact = max(float(plain(said) == plain(gold)) for gold in golds)
    return exact, max(overlap(plain(said).split(), plain(gold).split()) for gold in golds)


def second_version(said, golds):
    """Exact match and F1 of version 2.0: a question without an answer has the answer ""."""
    golds = [gold for gold in golds if plain(gold)] or [""]

    def f1(gold):
        a, b = plain(said).split(), plain(gold).split()
        return float(a == b) if not a or not b else overlap(a, b)

    return max(float(plain(said) == plain(gold)) for gold in golds), max(map(f1, golds))


# --- parity ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(texts, st.lists(texts, max_size=3).map(tuple)), min_size=1, max_size=10))
@settings(deadline=None, max_examples=150)
def test_answers_are_scored_as_by_the_script_that_is_for_them(rows):
    said, golds = zip(*rows, strict=True)
    second = any(not any(each) for each in golds)
    script = second_version if second else first_version
    expected = np.array([script(*row) for row in rows])  # exact match, F1
    tally = answer_tally(said, golds)
    found = {score.name: score.value for score in scores_of(tally)}
    assert (found["exact match"], found["F1"]) == pytest.approx(tuple(expected.mean(axis=0)))
    assert row_scores(tally) == pytest.approx(expected[:, 1])
    assert list(found) == list(WITH_UNANSWERABLE if second else ANSWERS)
    if second:
        answerable = np.array([any(plain(gold) for gold in each) for each in golds])
        assert found["right where there is none"] == pytest.approx(expected[~answerable, 0].mean())
        parts = [found[f"{name} where there is an answer"] for name in ("exact match", "F1")]
        means = expected[answerable].mean(axis=0) if answerable.any() else [np.nan, np.nan]
        assert parts == pytest.approx(list(means), nan_ok=True)


@given(texts, st.lists(texts, min_size=1, max_size=3))
@settings(deadline=None, max_examples=150)
def test_one_answer_is_scored_as_by_each_script(said, golds):
    assert answer_scores(said, golds) == pytest.approx(second_version(said, golds)[::-1])
    assert answer_scores(said, golds, second=False) == pytest.approx(first_version(said, golds)[::-1])


@given(st.text(max_size=40))
def test_any_text_is_normalised_alike(text):
    assert normalised(text) == plain(text)


@pytest.fixture(scope="module")
def squad(shared_data):
    """Question, context and answers of the dev set."""
    with gzip.open(shared_data / "squad" / "dev-v1.1.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    return [
        (question["question"], paragraph["context"], tuple(answer["text"] for answer in question["answers"]))
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def worse(golds, context, generator):
    """An answer that is more or less one of these."""
    gold, words = generator.choice(golds), context.split()
    place = generator.randrange(len(words))
    return generator.choice(
        [
            gold,
            gold.upper() + "!",
            f"the {gold}",
            gold + " " + words[place],
            " ".join(gold.split()[:-1]),
            " ".join(words[place : place + 4]),
            "",
        ]
    )


def test_real_answers_are_scored_as_by_both_scripts(squad):
    generator = random.Random(3)
    said = [worse(golds, context, generator) for _, context, golds in squad]
    golds = [golds for _, _, golds in squad]
    f1, exact = (score.value for score in scores_of(answer_tally(said, golds)))
    expected = np.array([first_version(*row) for row in zip(said, golds, strict=True)])
    assert (exact, f1) == pytest.approx(tuple(expected.mean(axis=0)), abs=1e-12)
    assert (expected != [second_version(*row) for row in zip(said, golds, strict=True)]).any()  # the scripts differ here
    assert 0.3 < exact < f1 < 0.8
    withheld = [() if generator.random() < 0.3 else each for each in golds]
    expected = np.array([second_version(*row) for row in zip(said, withheld, strict=True)])
    found = {score.name: score.value for score in scores_of(answer_tally(said, withheld))}
    assert (found["exact match"], found["F1"]) == pytest.approx(tuple(expected.mean(axis=0)), abs=1e-12)
    right = np.mean([plain(answer) == "" for answer, each in zip(said, withheld, strict=True) if not each])
    assert found["right where there is none"] == pytest.approx(right)


def test_the_nearest_sentence_of_real_contexts(squad):
    questions, contexts, golds = zip(*squad[:1500], strict=True)
    found = nearest_sentences(questions, contexts)
    assert all(answer in context for answer, context in zip(found.answers, contexts, strict=True))
    holds = np.mean([any(gold in answer for gold in each) for answer, each in zip(found.answers, golds, strict=True)])
    f1, exact = (score.value for score in scores_of(answer_tally(found.answers, golds)))
    assert holds > 0.5 and f1 > 0.1 and exact < 0.05


# --- words and sentences -----------------------------------------------------------------------------------------------


def test_the_nearest_sentence_shares_most_words_and_is_short():
    context = "The cat sat. The cat sat on a mat. Dogs bark!\nWhere is the cat?"
    found = nearest_sentences(["Who sat on the mat?", "Which dogs?", ""], [context, context, ""])
    assert found.answers == ("The cat sat on a mat.", "Dogs bark!", "")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no." Then 3.5 went.', ['He said "no."', "Then 3.5 went."]),
        ("一。二！ 三", ["一。", "二！", "三"]),
        ("a\n\nb\n", ["a", "b"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences(text, parts):
    assert sentences(text) == parts


def test_sentences_of_bait_take_no_time():
    assert len(sentences("." * 200_000 + " x" + " " * 200_000 + "." * 10)) == 2


def test_no_answer_is_right_where_there_is_none():
    found = {score.name: score.value for score in scores_of(answer_tally(no_answer(3).answers, [(), ("the",), ("cat",)]))}
    assert found["right where there is none"] == 1 and found["F1"] == pytest.approx(2 / 3)
    assert found["F1 where there is an answer"] == 0


def test_what_is_no_text_names_its_row():
    for said, golds in (("a", "cat"), (None, ("cat",)), ("a", (None,)), (1.0, ())):
        with pytest.raises(DataError, match="row 1: expected texts, came"):
            answer_tally(["x", said], [("x",), golds])
