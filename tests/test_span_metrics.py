"""Entities as seqeval scores them, tagged words as scikit-learn does, and the baselines of both on real rows."""

import gzip
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pellucid.errors import DataError, LabelError
from pellucid.span_baselines import dictionary_entities, no_entities, one_tag, usual_tags
from pellucid.span_metrics import ENTITIES, entity_tally, word_tally
from pellucid.tallies import label_scores_of, row_scores, scores_of
from pellucid.types import Span

LABELS = ("location", "person", "group")
stretches = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([None, *LABELS])), max_size=5)  # words of an entity, or of none


def sentence_of(parts):
    """Tags (IOB2) and spans of a sentence of one-letter words."""
    tags, spans = [], []
    for count, label in parts:
        start = len(tags)
        tags += ["O"] * count if label is None else [f"B-{label}", *[f"I-{label}"] * (count - 1)]
        spans += [] if label is None else [Span(2 * start, 2 * (start + count) - 1, label)]
    return tags, tuple(spans)


def padded(tags, other):
    """As many tags as the other sentence has: seqeval wants that."""
    return tags + ["O"] * (len(other) - len(tags))


def seqeval_scores(targets, answers):
    from seqeval.metrics import f1_score, precision_score, recall_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        micro = [score(targets, answers, zero_division=0) for score in (f1_score, precision_score, recall_score)]
        anything = any(tag != "O" for row in targets + answers for tag in row)
        macro = f1_score(targets, answers, average="macro", zero_division=0) if anything else 0
    return [*micro, macro]


@given(st.lists(st.tuples(stretches, stretches), min_size=1, max_size=8))
@settings(deadline=None, max_examples=80)
def test_entities_are_scored_as_by_seqeval(rows):
    pairs = [(sentence_of(target), sentence_of(answer)) for target, answer in rows]
    targets = [padded(target, answer) or ["O"] for (target, _), (answer, _) in pairs]
    answers = [padded(answer, target) or ["O"] for (target, _), (answer, _) in pairs]
    tally = entity_tally([said for _, (_, said) in pairs], [wanted for (_, wanted), _ in pairs], LABELS)
    found = scores_of(tally)
    assert [score.name for score in found] == list(ENTITIES)
    assert [score.value for score in found] == pytest.approx(seqeval_scores(targets, answers), abs=1e-12)


def conll(path):
    """Sentences of a file with a word and a tag a line: words and tags."""
    words, tags = [], []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in [*file, ""]:
            if line.strip():
                word, tag = line.rstrip("\n").split("\t")[:2]
                words.append(word.replace(" ", "\u00a0"))
                tags.append(tag)
            elif words:
                yield words, tags
                words, tags = [], []


def stretches_of(tags):
    """First word, end and type of each entity of IOB2 tags."""
    found = []
    for place, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append([place, place + 1, tag[2:]])
        elif tag.startswith("I-"):
            found[-1][1] = place + 1
    return [tuple(each) for each in found]


def tags_of(stretches, size):
    tags = ["O"] * size
    for start, stop, label in stretches:
        tags[start:stop] = [f"B-{label}", *[f"I-{label}"] * (stop - start - 1)]
    return tags


def spans_of(stretches, words):
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    text = " ".join(words)
    places = [(int(starts[first]), int(starts[stop]) - 1, label) for first, stop, label in stretches]
    return tuple(Span(start, end, label, text=text[start:end]) for start, end, label in places)


def noisy(stretches, size, labels, generator):
    """Some entities lost, shifted, renamed, and some made up; without overlap."""
    made = []
    for start, stop, label in [*stretches, *((place, place + 1, "") for place in range(size))]:
        lot = generator.random()
        if not label:
            start, stop, label = (start, stop, generator.choice(labels)) if lot < 0.02 else (0, 0, "")
        elif lot < 0.3:
            continue
        elif lot < 0.4:
            label = generator.choice(labels)
        elif lot < 0.5:
            stop = min(stop + 1, size)
        if stop > start and all(stop <= other[0] or start >= other[1] for other in made):
            made.append((start, stop, label))
    return sorted(made)


@pytest.fixture(scope="module")
def wnut(shared_data):
    return {
        name: list(conll(shared_data / "wnut17" / file))
        for name, file in {"train": "wnut17train.conll.gz", "dev": "emerging.dev.conll.gz"}.items()
    }


def test_real_entities_with_noisy_answers_are_scored_as_by_seqeval(wnut):
    from seqeval.metrics import classification_report

    generator = random.Random(7)
    wanted = [stretches_of(tags) for _, tags in wnut["dev"]]
    labels = sorted({label for row in wanted for _, _, label in row})
    said = [noisy(row, len(words), labels, generator) for row, (words, _) in zip(wanted, wnut["dev"], strict=True)]
    words = [words for words, _ in wnut["dev"]]
    targets, answers = ([spans_of(row, each) for row, each in zip(side, words, strict=True)] for side in (wanted, said))
    tally = entity_tally(answers, targets, labels)
    tags = [tags_of(row, len(each)) for row, each in zip(said, words, strict=True)]
    assert [score.value for score in scores_of(tally)] == pytest.approx(seqeval_scores([tags for _, tags in wnut["dev"]], tags), abs=1e-12)
    assert 0.4 < scores_of(tally)[0].value < 0.8
    report = classification_report([tags for _, tags in wnut["dev"]], tags, output_dict=True, zero_division=0)
    for score in label_scores_of(tally):
        expected = report[score.label]
        assert (score.precision, score.recall, score.f1) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"]), abs=1e-12
        )
        assert score.rows == expected["support"]
    assert sum(score.answers for score in label_scores_of(tally)) == sum(map(len, answers))


def texts_and_spans(rows):
    return [" ".join(words) for words, _ in rows], [spans_of(stretches_of(tags), words) for words, tags in rows]


def test_the_dictionary_finds_real_entities_again(wnut):
    train, targets = texts_and_spans(wnut["train"])
    labels = sorted({span.label for row in targets for span in row})
    texts, wanted = train[2400:], targets[2400:]
    found = dictionary_entities(train[:2400], targets[:2400], texts)
    f1, precision, recall, _ = (score.value for score in scores_of(entity_tally(found.answers, wanted, labels)))
    assert 0.15 < f1 < 0.2 and precision > 0.5 and recall > 0.1
    assert all(span.text == text[span.start : span.end] for text, row in zip(texts, found.answers, strict=True) for span in row)
    assert "strings that are mostly entities in 2,400 training rows" in found.how
    again = scores_of(entity_tally(dictionary_entities(train, targets, train).answers, targets, labels))
    assert again[0].value > 0.95  # on its own rows
    new = dictionary_entities(train, targets, texts_and_spans(wnut["dev"])[0])
    # these rows were chosen so that no entity of the training rows is in them
    assert not any(new.answers) and new.how.endswith("; none of them stands in these rows")


def test_the_dictionary_takes_the_longest_whole_words_with_their_usual_label():
    train = ["New York City", "York won", "York", "may May May", "Yorker"]
    targets = [
        (Span(0, 13, "place"),),
        (Span(0, 4, "group"),),
        (Span(0, 4, "group"),),
        (Span(4, 7, "person"),),
        (),
    ]
    found = dictionary_entities(train, targets, ["in New York City, York Yorker york", "May", ""])
    assert found.answers[0] == (Span(3, 16, "place", text="New York City"), Span(18, 22, "group", text="York"))
    assert found.answers[1] == (Span(0, 3, "person", text="May"),)  # half of its places are entities
    assert found.answers[2] == ()
    third = dictionary_entities([*train, "May"], [*targets, ()], ["May"])
    assert third.answers == ((),)


def test_baselines_without_anything_to_learn_from():
    assert no_entities(2).answers == ((), ())
    assert dictionary_entities(["a"], [()], ["a"]).answers == ()
    assert "not made" in dictionary_entities(["a"], [()], ["a"]).how
    assert usual_tags(["a"], [()], ["a"], [(Span(0, 1, "X"),)]).answers == ()
    assert one_tag([()], [()]).answers == ()


# --- tagged words ------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), max_size=6), min_size=1, max_size=6))
@settings(deadline=None, max_examples=80)
def test_words_are_scored_as_by_scikit_learn(rows):
    targets = [tuple(Span(2 * place, 2 * place + 1, tag) for place, (tag, _) in enumerate(row)) for row in rows]
    answers = [tuple(Span(2 * place, 2 * place + 1, tag) for place, (_, tag) in enumerate(row) if tag) for row in rows]
    accuracy, macro = (score.value for score in scores_of(word_tally(answers, targets, LABELS)))
    wanted, said = [tag for row in rows for tag, _ in row], [str(tag) for row in rows for _, tag in row]
    if not wanted:
        assert accuracy == macro == 0
        return
    assert accuracy == pytest.approx(sk.accuracy_score(wanted, said))
    present = [label for label in LABELS if label in wanted or label in said]
    expected = sk.precision_recall_fscore_support(wanted, said, labels=LABELS, zero_division=0)
    assert macro == pytest.approx(sum(f1 for label, f1 in zip(LABELS, expected[2], strict=True) if label in present) / len(present))
    found = label_scores_of(word_tally(answers, targets, LABELS))
    assert np.array([(each.precision, each.recall, each.f1, each.rows) for each in found]).T == pytest.approx(np.array(expected))


def conllu(path):
    """Sentences of a file with ten columns a word: words and parts of speech."""
    words, tags = [], []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in [*file, ""]:
            columns = line.rstrip("\n").split("\t")
            if len(columns) == 10 and columns[0].isdigit():
                words.append(columns[1].replace(" ", "\u00a0"))
                tags.append(columns[3])
            elif not line.strip() and words:
                yield words, tags
                words, tags = [], []


def test_the_usual_tag_of_real_words(shared_data):
    both = [list(conllu(shared_data / "ud_english_ewt" / f"{name}.conllu.gz")) for name in ("dev", "test")]
    parts = [
        ([" ".join(words) for words, _ in rows], [spans_of([(i, i + 1, tag) for i, tag in enumerate(tags)], words) for words, tags in rows])
        for rows in both
    ]
    (train, targets), (texts, wanted) = parts
    labels = sorted({span.label for row in (*targets, *wanted) for span in row})
    usual, single = usual_tags(train, targets, texts, wanted), one_tag(targets, wanted)
    flat = [tag for _, tags in both[1] for tag in tags]
    said = [span.label for row in usual.answers for span in row]
    accuracy, macro = (score.value for score in scores_of(word_tally(usual.answers, wanted, labels)))
    assert accuracy == pytest.approx(sk.accuracy_score(flat, said))
    assert macro == pytest.approx(sk.f1_score(flat, said, average="macro"))
    assert 0.75 < accuracy < 0.9
    assert scores_of(word_tally(single.answers, wanted, labels))[0].value == pytest.approx(flat.count("NOUN") / len(flat))


# --- rows by themselves, and what is refused ---------------------------------------------------------------------------


def test_a_row_without_entities_is_right_by_itself():
    target, other = (Span(0, 4, "person"),), (Span(0, 4, "group"),)
    tally = entity_tally([(), (), target, other], [(), target, target, target], LABELS)
    assert row_scores(tally).tolist() == [1, 0, 1, 0]
    assert row_scores(word_tally([(), target], [(), target], LABELS)).tolist() == [1, 1]
    assert [score.value for score in scores_of(entity_tally([()], [()], LABELS))] == [0, 0, 0, 0]  # as seqeval has it


def test_scores_texts_and_doubles_of_spans_do_not_matter():
    said = (Span(0, 4, "person", 0.3, "Anna"), Span(0, 4, "person", 0.9))
    assert scores_of(entity_tally([said], [(Span(0, 4, "person"),)], LABELS))[0].value == 1
    both = (Span(0, 4, "person"), Span(0, 4, "group"))
    assert scores_of(entity_tally([both], [both], LABELS))[0].value == 1  # one place may have two labels
    assert scores_of(word_tally([both], [both[1:]], LABELS))[0].value == 0  # a word has one


def test_labels_and_rows_that_cannot_be_name_their_row():
    with pytest.raises(LabelError, match=r"row 1, target: .*came 'persn'.*Did you mean 'person'"):
        entity_tally([(), ()], [(), (Span(0, 1, "persn"),)], LABELS)
    with pytest.raises(LabelError, match="row 0, answer"):
        word_tally([(Span(0, 1, "odd"),)], [()], LABELS)
    for odd in ("person", ("person",), None, 1.0):
        with pytest.raises(DataError, match=r"row 0, target: expected spans, came"):
            entity_tally([()], [odd], LABELS)
    with pytest.raises(LabelError, match="no labels"):
        entity_tally([()], [()], ())
    with pytest.raises(DataError, match="one answer for each"):
        entity_tally([()], [(), ()], LABELS)
