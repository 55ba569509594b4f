"""Texts, scored as rouge_score and sacrebleu score them, in every resample."""

import gzip
import json
import random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from pellucid.comparison import compare_tallies
from pellucid.errors import DataError, SettingError
from pellucid.intervals import Resampling, draws
from pellucid.tallies import row_scores, scores_of
from pellucid.text_baselines import from_source
from pellucid.text_metrics import ROUGE, SUMMARIES, TEXTS, TRANSLATIONS, corpus_part, text_tally

words = st.sampled_from(["the", "cat", "sat", "sitting", "Mats,", "on", "!", "é", "今日", "is\n", "3.5"])
texts = st.lists(words, max_size=12).map(" ".join)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)


def expected_scores(answers, targets):
    scorer = RougeScorer(list(ROUGE.values()), use_stemmer=True)
    rows = [scorer.score(target, answer) for answer, target in zip(answers, targets, strict=True)]
    return {
        "BLEU": sacrebleu.corpus_bleu(answers, [targets], force=True).score,
        "chrF": sacrebleu.corpus_chrf(answers, [targets]).score,
        "exact match": np.mean([answer.strip() == target.strip() for answer, target in zip(answers, targets, strict=True)]),
        **{name: np.mean([row[kind].fmeasure for row in rows]) for name, kind in ROUGE.items()},
    }


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_texts_are_scored_as_by_rouge_score_and_sacrebleu(rows):
    answers, targets = (list(side) for side in zip(*rows, strict=True))
    found = {score.name: score.value for score in scores_of(text_tally(answers, targets))}
    expected = expected_scores(answers, targets)
    assert set(found) == set(expected) == set(TEXTS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


@given(pairs.filter(lambda rows: len(rows) > 1), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_every_resample_is_what_sacrebleu_gives(rows, seed):
    answers, targets = (list(side) for side in zip(*rows, strict=True))
    tally = text_tally(answers, targets, TRANSLATIONS)
    counts = np.concatenate(list(draws(np.arange(len(rows)), 3, seed)))
    for row, count in zip(tally.combine(counts @ tally.counts), counts.astype(int), strict=True):
        drawn = [list(np.repeat(np.array(side, dtype=object), count)) for side in (answers, targets)]
        expected = expected_scores(*drawn)
        assert row == pytest.approx([expected[name] for name in TRANSLATIONS], abs=1e-9)


def test_what_sacrebleu_keeps_private_is_still_there():
    answers, targets = ["the cat sat on the mat", "no"], ["the cat is on the mat", "yes"]
    for name, width, public in (("BLEU", 10, sacrebleu.corpus_bleu), ("chrF", 18, sacrebleu.corpus_chrf)):
        added, score = corpus_part(name, answers, targets, "13a")
        assert added.shape == (2, width)
        assert score(added.sum(axis=0)) == pytest.approx(public(answers, [targets]).score, abs=1e-9)
        assert score(np.stack([added[0], added.sum(axis=0)])).shape == (2,)


def test_real_translations(shared_data):
    with gzip.open(shared_data / "tatoeba_en_es" / "spa_sample.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.split("\t")[:2] for line in file][::25]
    generator = random.Random(0)
    targets = [target for _, target in rows]
    answers = [" ".join(word for word in target.split() if generator.random() < 0.8) for target in targets]
    expected = expected_scores(answers, targets)
    tally = text_tally(answers, targets, TRANSLATIONS)
    assert [score.value for score in scores_of(tally)] == pytest.approx([expected[name] for name in TRANSLATIONS], abs=1e-9)
    simple = [(each, text_tally(each.answers, targets, TRANSLATIONS)) for each in from_source([source for source, _ in rows])]
    compared = compare_tallies(tally, simple)
    assert all(score.low < score.value < score.high for score in compared.scores)
    copied = compared.baselines[0]
    assert copied.name == "copy of the source" and copied.scores[0].value < 30
    assert copied.differences[0].low > 20


def test_real_summaries(shared_data):
    with gzip.open(shared_data / "xsum_test" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(150), file, strict=False)]
    targets = [row["summary"] for row in rows]
    found = from_source([row["document"] for row in rows])
    assert [each.name for each in found] == ["lead-1", "lead-3"]
    first = text_tally(found[0].answers, targets, SUMMARIES)
    expected = expected_scores(list(found[0].answers), targets)
    assert [score.value for score in scores_of(first)] == pytest.approx([expected[name] for name in SUMMARIES], abs=1e-9)
    assert 0.08 < scores_of(first)[0].value < 0.3
    compared = compare_tallies(first, [(found[1], text_tally(found[1].answers, targets, SUMMARIES))], resampling=Resampling(200))
    assert compared.baselines[0].differences[0].low < compared.baselines[0].differences[0].high


# --- what is stated ----------------------------------------------------------------------------------------------------


def test_empty_texts():
    both, one = text_tally(["", "a b"], ["", "a b"]), text_tally(["", "a b"], ["c d e f", "a b"])
    values = [{score.name: score.value for score in scores_of(tally)} for tally in (both, one)]
    assert values[0]["exact match"] == 1 and values[1]["exact match"] == 0.5
    assert values[0]["ROUGE-1"] == values[1]["ROUGE-1"] == 0.5
    assert values[0]["chrF"] == pytest.approx(100) and values[1]["chrF"] < 100
    assert {score.value for score in scores_of(text_tally([""], [""], ("BLEU", "chrF", "ROUGE-L")))} == {0}


def test_the_first_score_is_the_main_one_and_that_of_a_row():
    answers, targets = ["the cat", "a dog ran off"], ["the cat", "no"]
    assert row_scores(text_tally(answers, targets, ("BLEU",))) == pytest.approx(
        [sacrebleu.sentence_bleu(a, [t]).score for a, t in zip(answers, targets, strict=True)]
    )
    assert row_scores(text_tally(answers, targets, ("chrF", "BLEU"))) == pytest.approx(
        [sacrebleu.sentence_chrf(a, [t]).score for a, t in zip(answers, targets, strict=True)]
    )
    assert row_scores(text_tally(answers, targets, ("exact match", "chrF"))).tolist() == [1, 0]


def test_a_script_that_rouge_does_not_read_is_said():
    tally = text_tally(["今日は", "hello"], ["今日は", "hello"], SUMMARIES)
    assert scores_of(tally)[0].value == 0.5
    assert scores_of(tally)[0].detail == "ROUGE reads a to z and 0 to 9 only: 1 of 2 targets hold nothing of that and count 0"
    assert scores_of(text_tally(["x"], ["x"], SUMMARIES))[0].detail == ""


def test_characters_of_chinese_for_bleu():
    answers, targets = ["今天天气很好啊"], ["今天天气真好啊"]
    found = scores_of(text_tally(answers, targets, ("BLEU",), tokenizer="zh"))[0].value
    assert found == pytest.approx(sacrebleu.corpus_bleu(answers, [targets], tokenize="zh").score)
    assert found > scores_of(text_tally(answers, targets, ("BLEU",)))[0].value


def test_what_is_refused():
    with pytest.raises(DataError, match="row 1: expected texts, came None for 'b'"):
        text_tally(["a", None], ["a", "b"])
    with pytest.raises(SettingError, match=r"names: there is no score 'bleu' of texts.*chrF, BLEU"):
        text_tally(["a"], ["a"], ("bleu",))
    with pytest.raises(SettingError, match="no score was named"):
        text_tally(["a"], ["a"], ())
    with pytest.raises(SettingError, match=r"tokenizer: BLEU has no tokenizer 'spacy'"):
        text_tally(["a"], ["a"], ("BLEU",), tokenizer="spacy")


def test_sources_of_one_sentence_are_copied_and_documents_are_not():
    assert [each.name for each in from_source(["Go.", "Run!"])] == ["copy of the source"]
    assert [each.name for each in from_source(["Go. Now.", "Run!"])] == ["copy of the source", "lead-1"]
    copied, first = from_source(["Go. Now.", ""])
    assert copied.answers == ("Go. Now.", "") and first.answers == ("Go.", "")
    one, three = from_source(["a.\nb. c.\nd."])
    assert one.answers == ("a.",) and three.answers == ("a.\nb.\nc.",)
