"""Cells of spans and of answers: every way to write them, and what is said where an offset is wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import LabelError
from pellucid.labels import canonical_label
from pellucid.span_cells import answers_of_cell, shape_of, spans_of_cell
from pellucid.types import Span

TEXT = "Zoë flew from Łódź to Köln."
ZOE, LODZ, KOLN = Span(0, 3, "PER", text="Zoë"), Span(14, 18, "LOC", text="Łódź"), Span(22, 26, "LOC", text="Köln")


def spans(cell, text=TEXT, **how):
    return spans_of_cell(cell, text, canonical_label, **how)


def refused(call, cell, text=TEXT):
    with pytest.raises(LabelError) as caught:
        call(cell, text)
    assert caught.value.cure
    return str(caught.value)


@pytest.mark.parametrize(
    "cell",
    [
        [{"start": 0, "end": 3, "label": "PER"}, {"start": 14, "end": 18, "label": "LOC"}],
        [{"begin": 14, "end": 18, "type": " LOC"}, {"begin": 0, "end": 3, "entity": "PER"}],
        [{"start_offset": 0, "end_offset": 3, "label": "PER"}, {"start": 14.0, "end": np.int64(18), "label": "LOC", "text": "Łódź"}],
        [[0, 3, "PER"], [14, 18, "LOC"], [0, 3, "PER"]],
        [(14, 18, "LOC"), (0, 3, "PER")],
        {"start": [0, 14], "end": [3, 18], "label": ["PER", "LOC"]},
        {"start": np.array([0, 14]), "end": np.array([3, 18]), "label": np.array(["PER", "LOC"], dtype=object)},
        np.array([{"start": 0, "end": 3, "label": "PER"}, {"start": 14, "end": 18, "label": "LOC"}]),
    ],
)
def test_every_way_to_write_spans(cell):
    assert spans(cell) == (ZOE, LODZ) and shape_of(cell) == "spans"


def test_no_spans_and_no_cell():
    assert spans([]) == spans({"start": [], "end": [], "label": []}) == () and spans(None) is None and spans(float("nan")) is None
    assert spans([{"start": 0, "end": 3, "label": 1}]) == (Span(0, 3, "1", text="Zoë"),)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([[0, 28, "X"]], "span 1 is 0 to 28, the text has 27 characters, 32 bytes: the offsets seem to count bytes"),
        ([[0, 40, "X"]], "span 1 is 0 to 40, the text has 27 characters. Mend"),
        ([[-2, 3, "X"]], "span 1 is -2 to 3, the text has 27 characters"),
        ([[0, 3, "X"], [5, 5, "X"]], "span 2 begins at character 5 and ends at 5"),
        ([[5, 2, "X"]], "span 1 begins at character 5 and ends at 2"),
        ([[0, 3, ""]], "span 1 has no label"),
        ([[0, 3, None]], "span 1 has no label"),
        ([[0, 3]], "expected its start, its end and its label"),
        (["PER"], "span 1 is 'PER', expected"),
        ([{"start": 0, "label": "X"}], "span 1 has no 'end', only start, label"),
        ([{"start": 0, "end": 3}], "span 1 has no 'label', only start, end"),
        ([{"start": 0.5, "end": 3, "label": "X"}], "span 1, start: expected a whole number of characters, came 0.5"),
        ([{"start": True, "end": 3, "label": "X"}], "came True"),
        ([{"start": "0", "end": 3, "label": "X"}], "came '0'"),
        ([{"start": None, "end": 3, "label": "X"}], "came None"),
        ("PER", "expected a list, came str ('PER')"),
        ({"start": [0, 1], "end": [3], "label": ["X"]}, "differ in length"),
        ([[0, 5, "A"], [3, 8, "B"]], "'Zoë f' (0 to 5, 'A') and ' flew' (3 to 8, 'B') overlap"),
        ([[0, 5, "A"], [0, 5, "B"]], "overlap"),
        ([{"start": 15, "end": 22, "label": "LOC", "text": "Łódź"}], "span 1: its offsets 15 and 22 count bytes: there stands 'Łódź'"),
        ([{"start": 0, "end": 4, "label": "PER", "text": "Zoë"}], "its offsets 0 and 4 count bytes"),
        ([{"start": 1, "end": 4, "label": "LOC", "text": "Köln"}], "from 1 to 4 the text says 'oë '. Its start is 22."),
        ([{"start": 0, "end": 1, "label": "X", "text": "o"}], "Its start may be 1, 11, 20."),
        ([{"start": 0, "end": 3, "label": "X", "text": "Bob"}], "is said to be 'Bob', but from 0 to 3 the text says 'Zoë'. Mend"),
    ],
)
def test_wrong_spans_are_named(cell, message):
    said = refused(spans, cell)
    assert message in said, said


def test_offsets_in_bytes_come_with_the_cure():
    said = refused(spans, [{"start": 15, "end": 22, "label": "LOC", "text": "Łódź"}])
    assert "len(text.encode()[:b].decode())" in said
    assert len(TEXT.encode()[:15].decode()) == LODZ.start  # the cure holds


def test_the_longest_of_spans_that_overlap():
    cell = [[0, 3, "PER"], [0, 8, "X"], [4, 8, "Y"], [8, 9, "Z"], [14, 18, "LOC"], [14, 18, "ORG"]]
    assert [span.place for span in spans(cell, longest=True)] == [(0, 8, "X"), (8, 9, "Z"), (14, 18, "LOC")]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20), st.data())
def test_any_characters_make_a_span(text, data):
    """Also half of a joined emoji, and a letter without its accent: they are characters."""
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert spans([{"start": start, "end": end, "label": "x", "text": text[start:end]}], text) == (
        Span(start, end, "x", text=text[start:end]),
    )


def test_a_span_within_a_joined_emoji_and_a_combining_sequence():
    assert spans([[0, 1, "x"], [2, 3, "x"]], "👩‍👧 e\u0301")[1].text == "👧"
    assert spans([[1, 2, "x"]], "e\u0301")[0].text == "\u0301"


# --- answers ---


@pytest.mark.parametrize(
    "cell",
    [
        {"text": ["Łódź", "Köln", "Łódź"], "answer_start": [14, 22, 14]},
        [{"text": "Łódź", "answer_start": 14}, {"text": "Köln", "answer_start": 22}, {"text": "Łódź", "answer_start": 14}],
        {"text": np.array(["Łódź", "Köln"], dtype=object), "answer_start": np.array([14, 22])},
    ],
)
def test_every_way_to_write_answers(cell):
    assert answers_of_cell(cell, TEXT) == (Span(14, 18, text="Łódź"), Span(22, 26, text="Köln"))
    assert shape_of(cell) == "answers"


def test_no_answer_and_no_cell():
    assert answers_of_cell({"text": [], "answer_start": []}, TEXT) == answers_of_cell([], TEXT) == ()
    assert answers_of_cell(None, TEXT) is None
    assert answers_of_cell({"text": "Köln", "answer_start": 22}, TEXT) == (Span(22, 26, text="Köln"),)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([{"text": "Köln", "answer_start": 21}], "does not stand at character 21 of the context of 27. Its answer_start is 22."),
        ([{"text": "o", "answer_start": 0}], "Its answer_start may be 1, 11, 20."),
        ([{"text": "Paris", "answer_start": 14}], "answer 1, 'Paris', is not in the context"),
        ([{"text": "Köln", "answer_start": 99}], "Its answer_start is 22."),
        ([{"text": "Köln", "answer_start": -5}], "Its answer_start is 22."),
        ([{"text": "Köln", "answer_start": 26}], "answer_start 26 counts bytes; in characters it is 22"),
        ([{"text": "", "answer_start": 0}], "answer 1 is empty"),
        ([{"text": None, "answer_start": 0}], "answer 1 is no text but NoneType"),
        ([{"text": "Köln"}], "answer 1 has no 'answer_start', only text"),
        ([{"text": "Köln", "answer_start": None}], "answer 1, answer_start: expected a whole number"),
        (["Köln"], "answer 1 is 'Köln', expected a text and where it starts"),
        ("Köln", "expected a list, came str"),
        ({"text": ["Köln"], "answer_start": [22, 3]}, "differ in length"),
    ],
)
def test_wrong_answers_are_named(cell, message):
    said = refused(answers_of_cell, cell)
    assert message in said, said


def test_an_answer_that_begins_inside_a_character_in_bytes():
    said = refused(answers_of_cell, [{"text": "ódź", "answer_start": 16}])  # byte 16 is the second half of Ł
    assert "Its answer_start is 15." in said


def test_a_lone_surrogate_does_not_break_the_search():
    assert "is not in the context" in refused(answers_of_cell, [{"text": "x", "answer_start": 0}], "\ud800")


@pytest.mark.parametrize(
    ("cell", "shape"),
    [("a", ""), (None, ""), (3, ""), ([], "empty"), (["a"], "list"), ({"a"}, "list"), ([["a", "b", "c"]], "list"), ({"en": "a"}, "")],
)
def test_other_shapes(cell, shape):
    assert shape_of(cell) == shape
