"""What is said of rows before training: findings with a place and a cure, the worst first."""

from dataclasses import dataclass

import pytest

from pellucid.checks import Finding, check_rows
from pellucid.data import ReadOptions, Rows, read

NONE = ReadOptions(valid_fraction=0)


def rows_of(texts: list[str], labels: list | None = None, **more: list) -> Rows:
    labels = ["ab"[number % 2] for number in range(len(texts))] if labels is None else labels
    columns = {"text": texts, "label": labels} | more
    return read(columns, options=NONE)


def said(rows: Rows, word: str) -> list[Finding]:
    return [finding for finding in check_rows(rows) if word in finding.what]


def texts(count: int) -> list[str]:
    return [f"text number {number}" for number in range(count)]


def test_sound_rows_have_no_findings():
    assert check_rows(rows_of(texts(40))) == ()
    assert check_rows(read({"text": texts(40)}, label=False)) == ()


def test_every_finding_has_a_place_and_a_cure():
    strange = ["", "a\0b", "\u202eevil", "CafÃ©", "same", "same", *texts(40)]
    labels = ["x"] * 20 + ["X "] * 20 + ["-100", "n/a", "1", "1.0", "x", "x"]
    rows = read({"train": {"text": strange, "label": labels}, "valid": {"text": ["same", "new"], "label": ["x", "unseen"]}})
    found = check_rows(rows)
    assert len(found) >= 10 and all(finding.what and finding.place and finding.cure for finding in found)
    levels = [finding.level for finding in found]
    assert levels == sorted(levels) and levels[0] == "error"  # "error" < "warning"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 of 21 texts of train is empty or white space"),
        (" \n\u3000", "1 of 21 texts of train is empty or white space"),
        ("a\0b", "control characters"),
        ("\x1b[31mred", "control characters"),
        ("a \u202eb", "turns the writing direction"),
        ("CafÃ© crÃ¨me", "signs of a wrong encoding"),
        ("a \ufffd b", "signs of a wrong encoding"),
    ],
)
def test_odd_texts(text, message):
    (finding,) = check_rows(rows_of([*texts(20), text]))
    assert message in finding.what and finding.place == "the dict, row 20" and finding.level == "warning"


def test_texts_that_are_not_odd():
    fine = ["a\tb\nc\r\n", "שלום مرحبا", "日本語", "naïve café", "👨‍👩‍👧", "Ã", "a\u200db", "z\u0301"]
    assert not check_rows(rows_of(fine * 1 + texts(20)))


def test_one_side_of_a_pair_may_be_empty_but_is_said():
    columns = {"text": texts(20), "text_pair": ["other"] * 19 + [" "], "label": ["a", "b"] * 10}
    (finding,) = check_rows(read(columns, text="text", text_pair="text_pair", options=NONE))
    assert "empty" in finding.what and finding.place.endswith("row 19")


def test_repeats_and_contradictions():
    rows = rows_of([*texts(20), "text number 3", "text number 4"], ["a", "b"] * 10 + ["b", "b"])
    (repeats,), (conflict,) = said(rows, "repeat"), said(rows, "two labels")
    assert repeats.what.startswith("2 rows of train") and repeats.place == "the dict, row 20 repeats the dict, row 3"
    assert conflict.place == "the dict, row 21 and the dict, row 4"


def test_a_leak_is_named_with_both_places():
    train, valid = (
        {"text": texts(30), "label": ["a", "b"] * 15},
        {"text": ["new", "text number 7", "text number 5"], "label": ["a", "b", "a"]},
    )
    (leak,) = said(read({"train": train, "valid": valid}), "also in train")
    assert leak.what.startswith("2 of 3 texts of valid") and leak.place == "the dict of valid, row 1 is the dict of train, row 7"


def test_labels_that_only_one_split_has():
    splits = {"train": {"text": texts(20), "label": ["a", "b"] * 10}, "valid": {"text": ["x", "y"], "label": ["a", "c"]}}
    unknown, missing = said(read(splits), "a label that train has not"), said(read(splits), "has no row of")
    assert unknown[0].level == "error" and "'c'" in unknown[0].what
    assert missing[0].level == "warning" and "'b'" in missing[0].what


def test_classes():
    (only,) = said(rows_of(texts(20), ["a"] * 20), "every row has the label 'a'")
    assert only.level == "error" and only.place == "column 'label'"
    (few,) = said(rows_of(texts(40), ["a"] * 20 + ["b"] * 17 + ["c"] * 3), "fewer than 10 rows")
    assert "'c' (3)" in few.what and "'a'" not in few.what
    assert not said(rows_of(texts(20), list("abcdefghij") * 2), "fewer than")  # all are small: it is a small set


@pytest.mark.parametrize(("one", "other"), [("Good", "good"), ("a b", "ab"), ("1", "1.0"), ("1", "01"), ("ß", "SS")])
def test_labels_that_look_like_one(one, other):
    (finding,) = said(rows_of(texts(20), [one, other] * 10), "differ only in how they are written")
    assert repr(one) in finding.what and repr(other) in finding.what


@pytest.mark.parametrize("label", ["-100", "-1", "NaN", "n/a", "null", "Unknown"])
def test_labels_that_often_mean_nothing(label):
    (finding,) = said(rows_of(texts(20), ["a", label] * 10), "often means that the label is not known")
    assert f"{label!r} (10 rows)" in finding.what


def test_numbers_are_not_classes():
    quarters = [str(number / 4) for number in range(40)]
    assert not check_rows(rows_of(texts(40), quarters))
    assert not check_rows(read({"text": texts(40), "label": quarters}, options=ReadOptions(label_kind="number")))


def test_sets_of_labels():
    rows = rows_of(texts(20), [["a"], ["a", "b"], [], ["c"]] * 5)
    assert not [finding for finding in check_rows(rows) if finding.level == "error"]


def test_rows_without_training_rows():
    (finding,) = check_rows(read({"test": {"text": texts(3), "label": ["a", "b", "a"]}}))
    assert finding.level == "error" and "no rows to train on, only test" in finding.what


@dataclass
class Lost:
    """What a token table would report."""

    share_cut: float
    share_lost: float


def test_what_truncation_loses():
    rows = rows_of(texts(40))
    assert check_rows(rows, Lost(0.0, 0.0)) == ()
    for lost, what in (
        (Lost(0.3, 0.125), "30.0% of the texts are cut, 12.5% of the words are never seen"),
        (Lost(0.3, 0.00001), "30.0% of the texts are cut, less than 0.1% of the words are never seen"),
        (Lost(0.001, 0.0), "0.1% of the texts are cut"),
    ):
        (finding,) = check_rows(rows, lost)
        assert finding.what == what


def test_real_rows(shared_data):
    found = check_rows(read(shared_data / "emotion"))
    assert {finding.level for finding in found} == {"warning"}
    leaks = [finding.what for finding in found if "also in train" in finding.what]
    assert leaks[0].startswith("5 of 1,998 texts of valid") and leaks[1].startswith("11 of 2,000 texts of test")
    assert not check_rows(read(shared_data / "imdb_sample" / "texts.csv.gz"))


def test_one_is_not_called_many_and_long_names_are_cut():
    train = {"text": [*texts(40), "text number 3", ""], "label": ["a", "b"] * 20 + ["x" * 100_000, "n/a"]}
    found = check_rows(read({"train": train, "valid": {"text": ["text number 3"], "label": ["new"]}}))
    said = " | ".join(finding.what for finding in found)
    assert len(found) == 8 and all(len(finding.what) < 300 for finding in found), said
    assert not any(wrong in said for wrong in ("1 rows", "1 classes", "texts of train are", "texts of valid are", "labels that train")), (
        said
    )
    many = {"text": texts(60), "label": [f"class {number}" for number in range(60)]}
    (unknown,) = [one for one in check_rows(read({"train": train, "valid": many})) if "labels that train has not" in one.what]
    assert unknown.what.endswith("'class 7' and 52 more")


def test_numbers_that_hash_alike_are_two_targets():
    rows = read({"text": ["a", "a"], "label": [-1.0, -2.0]}, options=ReadOptions(label_kind="number", valid_fraction=0))
    assert said(rows, "one text has two labels")
