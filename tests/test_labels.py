"""Label names: one name for a value, one order for a set, and how the rows' labels meet those of a checkpoint."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import LabelError
from pellucid.labels import LabelSet, are_numbers, canonical_label, is_missing, label_sets, number_of, sort_labels

NAMES = st.text(min_size=1, max_size=8).map(str.strip).filter(bool)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "1"),
        (1.0, "1"),
        (np.int64(1), "1"),
        (np.float32(1.0), "1"),
        (np.uint8(1), "1"),
        ("1", "1"),
        (" 1 ", "1"),
        (-100, "-100"),
        (0, "0"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (10**30, str(10**30)),
        (True, "True"),
        (False, "False"),
        (np.bool_(True), "True"),
        ("True", "True"),
        ("good\n", "good"),
        ("NA", "NA"),
        ("null", "null"),
        ("None", "None"),
        (math.inf, "inf"),
        (Fraction(1, 2), "0.5"),
        (Decimal("1.0"), "1"),
        (np.str_("x"), "x"),
    ],
)
def test_one_name_for_a_value(value, name):
    assert canonical_label(value) == name


@pytest.mark.parametrize("value", [None, math.nan, np.nan, np.float32("nan"), pd.NA, pd.NaT, Decimal("NaN"), "", "  \n"])
def test_missing_labels(value):
    assert canonical_label(value) is None


def test_missing_is_not_empty():
    assert is_missing(None) and is_missing(float("nan")) and is_missing(pd.NA)
    assert not is_missing("") and not is_missing(0) and not is_missing(False) and not is_missing([])


@pytest.mark.parametrize("value", [b"good", ["good"], {"a": 1}, object(), 1j, (1, 2)])
def test_what_cannot_be_one_label(value):
    with pytest.raises(LabelError, match="a label must be a text or a number, not "):
        canonical_label(value)


@given(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans()))
def test_a_name_is_its_own_name(value):
    name = canonical_label(value)
    assert name is None or canonical_label(name) == name


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_have_one_name(number):
    assert canonical_label(number) == canonical_label(float(number)) == canonical_label(str(number)) == str(number)


@pytest.mark.parametrize(
    ("value", "separator", "names"),
    [
        (["b", "a"], None, ("a", "b")),
        (("b", "a", "b"), None, ("a", "b")),
        ({"b", "a"}, None, ("a", "b")),
        (np.array([10, 9]), None, ("9", "10")),
        ([10.0, 9], None, ("9", "10")),
        ("27", ",", ("27",)),
        ("4, 27 ,4", ",", ("4", "27")),
        ("a;b", ";", ("a", "b")),
        ("a;b", None, ("a;b",)),
        ([], None, ()),
        ("", ";", ()),
        (" ; ;", ";", ()),
        (frozenset(), None, ()),
        (np.array([]), None, ()),
        ("x", None, ("x",)),
        (None, ";", None),
        (math.nan, None, None),
        (None, None, None),
    ],
)
def test_sets_of_labels(value, separator, names):
    assert label_sets(value, separator) == names


def test_a_set_with_a_missing_label():
    with pytest.raises(LabelError, match="holds a missing one"):
        label_sets(["a", None])
    with pytest.raises(LabelError, match="must be a text or a number"):
        label_sets([["a"]])


def test_numbers_are_sorted_as_numbers():
    assert sort_labels(["10", "9", "-1", "2.5"]) == ("-1", "2.5", "9", "10")
    assert sort_labels(["10", "9", "x"]) == ("10", "9", "x")
    assert sort_labels(["1", "1.0"]) == ("1", "1.0")
    assert sort_labels(["nan", "1"]) == ("1", "nan")
    assert sort_labels([]) == ()


@given(st.lists(NAMES, max_size=8), st.randoms())
def test_order_does_not_depend_on_the_rows(names, dice):
    shuffled = names[:]
    dice.shuffle(shuffled)
    assert sort_labels(names) == sort_labels(shuffled)
    assert len(sort_labels(names)) == len(set(names))


def test_a_label_set():
    labels = LabelSet.from_targets(["b", None, "a", ("c", "a"), ()])
    assert labels.names == ("a", "b", "c") and len(labels) == 3
    assert labels.id2label == {0: "a", 1: "b", 2: "c"} and labels.label2id == {"a": 0, "b": 1, "c": 2}
    assert [labels.index(name) for name in labels.names] == [0, 1, 2]
    with pytest.raises(LabelError, match="no label 'd' among 3: 'a', 'b', 'c'"):
        labels.index("d")
    with pytest.raises(LabelError, match=r"numbers are not classes: 2\.5"):
        LabelSet.from_targets([2.5])


@pytest.mark.parametrize("names", [("a", "a"), ("a", ""), ("a", None)])
def test_names_are_one_to_one(names):
    with pytest.raises(LabelError):
        LabelSet(names)


def test_from_id2label():
    assert LabelSet.from_id2label({"1": "b", "0": "a"}).names == ("a", "b")
    for wrong in ({0: "a", 2: "b"}, {1: "a"}, {"x": "a"}, {0: "a", 1: "a"}):
        with pytest.raises(LabelError):
            LabelSet.from_id2label(wrong)


@pytest.mark.parametrize(
    ("ours", "found", "relation", "names"),
    [
        ("ab", "ab", "same", "ab"),
        ("ab", "ba", "reordered", "ba"),
        (("neg", "pos"), ("POS", "Neg "), "case", ("pos", "neg")),
        (("neg", "pos"), ("LABEL_0", "LABEL_1"), "generic", ("neg", "pos")),
        (("neg", "pos"), ("LABEL_1", "LABEL_0"), "generic", ("neg", "pos")),
        ("ab", "cd", "other", "ab"),
        ("ab", "abc", "other", "ab"),
        ("abc", "ab", "other", "abc"),
        (("a", "A"), ("A", "B"), "other", ("a", "A")),
        (("a", "A"), ("A", "a"), "reordered", ("A", "a")),
        (("a", "b"), ("a", "a"), "other", ("a", "b")),
        (("LABEL_0", "LABEL_1"), ("LABEL_1", "LABEL_0"), "reordered", ("LABEL_1", "LABEL_0")),
    ],
)
def test_match_by_name(ours, found, relation, names):
    match = LabelSet(tuple(ours)).match(found)
    assert (match.relation, match.labels.names) == (relation, tuple(names))
    assert len(match.notes) == (relation in ("reordered", "case", "generic"))


@given(st.sets(NAMES, min_size=2, max_size=6), st.randoms())
def test_a_reordered_checkpoint_never_swaps_a_meaning(names, dice):
    ours = LabelSet(sort_labels(names))
    found = list(ours.names)
    dice.shuffle(found)
    match = ours.match(found)
    assert match.relation in ("same", "reordered") and match.labels.names == tuple(found)


def test_numbers_and_classes():
    assert [number_of(name) for name in ("1", " 2.5 ", "1e3", "nan", "inf", "x", "")] == [1.0, 2.5, 1000.0, None, None, None, None]
    quarters = [str(number / 4) for number in range(21)]
    assert are_numbers(quarters) and not are_numbers(quarters[:20]) and not are_numbers([*quarters, "x"])
    assert not are_numbers(map(str, range(1000))) and not are_numbers([])
