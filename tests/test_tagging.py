"""Words and tags as spans, and back: every scheme, the rule of conlleval, and seqeval as the reference."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import DataError, LabelError
from pellucid.tagging import Scheme, TagCensus, is_chunked, scheme_of, spans_of_tags, tags_of_spans, word_spans
from pellucid.types import Span

SCHEMES: tuple[Scheme, ...] = ("IOB1", "IOB2", "IOBES")
LABELS = ("PER", "LOC", "creative-work")
WORDS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6), min_size=1, max_size=12)
TAGS = st.lists(st.sampled_from(["O", *(f"{letter}-{label}" for letter in "BIES" for label in LABELS[:2])]), max_size=12)


@st.composite
def entities(draw: st.DrawFn) -> tuple[list[str], list[Span]]:
    """Words, and spans over some of them that do not overlap."""
    words = draw(WORDS)
    _, places = word_spans(words)
    spans, at = [], 0
    while at < len(words):
        length = draw(st.integers(1, 3))
        last = min(at + length, len(words)) - 1
        label = draw(st.sampled_from([None, *LABELS]))
        if label is not None:
            spans.append(Span(places[at][0], places[last][1], label))
        at = last + 1
    return words, spans


# --- words ---


@settings(deadline=None)
@given(WORDS)
def test_words_come_back_from_their_text(words):
    text, places = word_spans(words)
    assert [text[start:end] for start, end in places] == [word.replace(" ", "\u00a0") for word in words] == text.split(" ")


def test_words_are_joined_by_one_space():
    assert word_spans(["New York", "is", "big", "."]) == ("New\u00a0York is big .", [(0, 8), (9, 11), (12, 15), (16, 17)])
    assert word_spans(["👩‍👧", "e\u0301"])[1] == [(0, 3), (4, 6)]
    assert word_spans([]) == ("", [])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", "word 2 of 3 is empty"),
        (None, "word 2 of 3 is missing"),
        (float("nan"), "is missing"),
        (7, "is no text but int (7)"),
    ],
)
def test_a_word_that_is_none_is_named(word, message):
    with pytest.raises(DataError) as caught:
        word_spans(["a", word, "c"])
    assert message in str(caught.value) and caught.value.cure


# --- tags → spans ---


@settings(deadline=None)
@given(TAGS)
def test_spans_are_those_of_seqeval(tags):
    from seqeval.metrics.sequence_labeling import get_entities

    places = [(3 * number, 3 * number + 2) for number in range(len(tags))]
    found = [(span.label, span.start // 3, span.end // 3) for span in spans_of_tags(tags, places)]
    assert found == get_entities(tags)


def test_bilou_is_read_as_iobes():
    places = [(number, number + 1) for number in range(6)]
    bilou, iobes = ["B-X", "I-X", "L-X", "U-X", "O", "L-Y"], ["B-X", "I-X", "E-X", "S-X", "O", "E-Y"]
    assert spans_of_tags(bilou, places) == spans_of_tags(iobes, places) == (Span(0, 3, "X"), Span(3, 4, "X"), Span(5, 6, "Y"))


def test_plain_tags_are_a_span_a_word():
    tags, places = ["DET", "NOUN", "O"], [(0, 3), (4, 7), (8, 9)]
    assert spans_of_tags(tags, places, plain=True) == (Span(0, 3, "DET"), Span(4, 7, "NOUN"), Span(8, 9, "O"))


def test_words_and_tags_must_be_as_many():
    with pytest.raises(LabelError, match=r"^a\.conll, line 3: 5 words but 4 tags\. Give each word one tag\.$"):
        spans_of_tags(["O"] * 4, [(0, 1)] * 5, "a.conll, line 3")
    with pytest.raises(LabelError, match="1 word but 0 tags"):
        spans_of_tags([], [(0, 1)])


def test_a_tag_without_a_prefix_among_others_is_named():
    with pytest.raises(LabelError, match="word 2 has the tag 'PER', expected O or one such as B-PER"):
        spans_of_tags(["O", "PER"], [(0, 1), (2, 3)])


# --- spans → tags ---


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None)
@given(entities())
def test_spans_survive_tags(scheme, given_):
    words, spans = given_
    _, places = word_spans(words)
    tags = tags_of_spans(spans, places, scheme)
    assert list(spans_of_tags(tags, places)) == spans and is_chunked(tags)


@settings(deadline=None)
@given(WORDS.flatmap(lambda words: st.tuples(st.just(words), st.lists(st.sampled_from(LABELS), min_size=len(words), max_size=len(words)))))
def test_plain_tags_survive(given_):
    words, tags = given_
    _, places = word_spans(words)
    assert tags_of_spans(spans_of_tags(tags, places, plain=True), places, "plain") == tags


@settings(deadline=None)
@given(TAGS, st.sampled_from(SCHEMES), st.sampled_from(SCHEMES))
def test_a_change_of_scheme_keeps_the_spans(tags, scheme, other):
    places = [(2 * number, 2 * number + 1) for number in range(len(tags))]
    spans = spans_of_tags(tags, places)
    again = spans_of_tags(tags_of_spans(spans, places, scheme), places)
    assert spans == again == spans_of_tags(tags_of_spans(again, places, other), places)


def test_each_scheme_as_it_is_written():
    places = [(number, number + 1) for number in range(6)]
    spans = [Span(0, 2, "X"), Span(2, 3, "X"), Span(4, 6, "Y")]
    assert tags_of_spans(spans, places, "IOB2") == ["B-X", "I-X", "B-X", "O", "B-Y", "I-Y"]
    assert tags_of_spans(spans, places, "IOB1") == ["I-X", "I-X", "B-X", "O", "I-Y", "I-Y"]
    assert tags_of_spans(spans, places, "IOBES") == ["B-X", "E-X", "S-X", "O", "B-Y", "E-Y"]
    assert tags_of_spans(spans, places, "plain") == ["X", "X", "X", "O", "Y", "Y"]
    assert tags_of_spans([], places) == ["O"] * 6 and tags_of_spans(spans, []) == []


def test_a_token_belongs_where_it_begins_and_special_tokens_nowhere():
    tokens = [(0, 0), (0, 2), (2, 5), (5, 6), (5, 5), (6, 9), (0, 0)]  # [CLS] … [SEP], and a token without characters
    assert tags_of_spans([Span(0, 3, "X"), Span(5, 8, "Y")], tokens) == ["O", "B-X", "I-X", "B-Y", "O", "I-Y", "O"]
    assert tags_of_spans([Span(1, 2, "X")], tokens) == ["O"] * 7  # no token begins there


def test_spans_that_overlap_have_no_tags():
    with pytest.raises(LabelError, match=r"\(0, 3, 'X'\) and \(2, 5, 'Y'\) overlap"):
        tags_of_spans([Span(2, 5, "Y"), Span(0, 3, "X")], [(0, 5)])


# --- which scheme ---


@pytest.mark.parametrize(
    ("tags", "chunked"),
    [
        (["O", "B-PER", "I-PER"], True),
        (["B-PER"], True),
        (["O", "O"], True),
        ([], True),
        (["O", "B-PER", "PER"], True),  # somebody's slip, which is found as an error
        (["NOUN", "VERB"], False),
        (["DET", "O"], False),
        (["-LRB-", "PRP$", ".", "B-X"], False),
        (["B", "I", "O"], False),
        (["S-", "C-", "Ne"], False),
    ],
)
def test_chunked_or_plain(tags, chunked):
    assert is_chunked(tags) is chunked


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scheme_is_found(scheme):
    places = [(number, number + 1) for number in range(4)]
    rows = [[Span(0, 2, "X"), Span(2, 4, "X")], [Span(1, 3, "Y")], []]
    assert scheme_of(tags_of_spans(spans, places, scheme) for spans in rows) == scheme


def test_the_scheme_of_what_has_no_entities_and_of_what_is_plain():
    assert scheme_of([["O", "O"], []]) == "IOB2" and scheme_of([["NOUN", "O"]]) == "plain"
    assert scheme_of([["B-X", "O"], ["O", "I-X"], ["B-Y"]]) == "IOB2"  # one slip does not make another scheme
    assert scheme_of([["B-X", "L-X"], ["U-X"]]) == "IOBES"


def test_entities_without_a_beginning_are_counted():
    census = TagCensus()
    assert [census.add(tags) for tags in (["B-X", "I-X"], ["I-X", "I-Y"], ["O"], ["B-X", "I-Y"])] == [0, 2, 0, 1]
    assert (census.unbegun, census.begun, census.scheme) == (3, 2, "IOB1")
