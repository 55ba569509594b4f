"""Rows: roles, splits, columns, places, the memory-mapped path, and the validation split that nobody asked for."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data import ReadOptions, Rows, Split, read
from pellucid.errors import DataError, PellucidError
from pellucid.render import to_html, to_text
from pellucid.roles import Asked, find_roles
from pellucid.splitting import key_of, validation_mask

WHOLE = ReadOptions(valid_fraction=0)
ROWS = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(20)]


def everything(rows: Rows) -> dict[str, list[tuple[int, dict[str, str], Any, str]]]:
    return {
        name: [(example.row, dict(example.fields), example.target, split.place(number)) for number, example in enumerate(split)]
        for name, split in rows.splits.items()
    }


# --- splits --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=2, max_size=120),
    st.sampled_from((0.1, 0.2, 0.5)),
    st.integers(0, 5),
)
def test_a_drawn_split_is_disjoint_covering_and_the_same_again(rows: list[tuple[int, str]], fraction: float, seed: int) -> None:
    dicts = [{"text": f"text {number}", "label": label} for number, label in rows]
    options = ReadOptions(valid_fraction=fraction, seed=seed)
    found, again = read(dicts, options=options), read(iter(dicts), options=options)
    parts = {name: split.row_numbers.tolist() for name, split in found.splits.items()}
    assert sorted(row for part in parts.values() for row in part) == list(range(len(rows)))
    assert parts == {name: split.row_numbers.tolist() for name, split in again.splits.items()}
    texts = {name: {example.fields["text"] for example in split} for name, split in found.splits.items()}
    assert texts["train"] and texts["train"].isdisjoint(texts.get("valid", set()))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.sampled_from((0.1, 0.2, 0.33)), st.integers(0, 99))
def test_every_class_is_kept_in_proportion(sizes: list[int], fraction: float, seed: int) -> None:
    classes = [number for number, size in enumerate(sizes) for _ in range(size)]
    aside = validation_mask(range(len(classes)), classes, fraction=fraction, seed=seed)
    for number, size in enumerate(sizes):
        count = int(aside[np.array(classes) == number].sum())
        assert count < size and abs(count - fraction * size) < 1
    assert abs(int(aside.sum()) - max(1, round(fraction * len(classes)))) <= len(sizes)


def test_another_seed_draws_another_split() -> None:
    drawn = {tuple(read(ROWS, options=ReadOptions(seed=seed)).valid.row_numbers) for seed in range(5)}
    assert len(drawn) > 1 and all(len(rows) == 4 for rows in drawn)


def test_the_split_of_real_rows_is_stratified(shared_data: Path) -> None:
    rows = read(shared_data / "emotion" / "train.txt.gz")
    train, valid = (Counter(split.targets(0, len(split))) for split in (rows.train, rows.valid))
    for label, count in train.items():
        assert abs(valid[label] - (count + valid[label]) / 5) <= 2  # equal texts stay together
    assert {key_of(example) for example in rows.train.columns(0, 20_000)["text"]}.isdisjoint(
        {key_of(example) for example in rows.valid.columns(0, 20_000)["text"]}
    )


def test_where_nothing_can_be_kept_aside_it_is_said() -> None:
    rows = read([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    assert set(rows.splits) == {"train"} and rows.notes[-1].what == "no rows are kept aside for validation"
    with pytest.raises(DataError, match="there is no split 'valid', only train"):
        rows.valid  # noqa: B018
    assert "1 of 3 rows is kept aside" in str(read([{"text": text, "label": "x"} for text in "abc"]).notes[-1])


@pytest.mark.parametrize(
    "values", [(False, True), (0, 1), (0.0, 1.0), ("train", "dev"), ("Training", "VAL"), ("False", "True"), ("0", "1")]
)
def test_the_ways_to_write_a_split(values: tuple[Any, Any]) -> None:
    rows = read([{"text": "a", "label": "x", "is_valid": values[0]}, {"text": "b", "label": "y", "is_valid": values[1]}])
    assert [rows.train[0].fields["text"], rows.valid[0].fields["text"]] == ["a", "b"]


def test_a_dict_of_sources_is_splits() -> None:
    rows = read({"training": ROWS, "dev": pd.DataFrame(ROWS[:3]), "test": iter(ROWS[:2])})
    assert {name: len(split) for name, split in rows.splits.items()} == {"train": 20, "valid": 3, "test": 2}
    assert rows.valid.place(1) == "the DataFrame of valid, row 1"
    assert not any("split" in note.what for note in read({"train": [{**ROWS[0], "split": "x"}]}).notes)
    for bad, message in (
        ({"valid": ROWS, "dev": ROWS}, "'dev' is a second split valid"),
        ({"train": ROWS, "valid": []}, "split 'valid', the list: there are no columns"),
        ({"train": ROWS, "valid": [{"text": 7, "label": "a"}]}, "split 'valid', the list, row 0, column 'text': expected a text, came int"),
        ({"train": ROWS, "valid": [{"sentence1": "a", "sentence2": "b", "label": "a"}]}, "split 'valid' has other text columns"),
        ({}, "there are no splits"),
    ):
        with pytest.raises(DataError, match=message):
            read(bad)


# --- roles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "asked", "roles"),
    [
        (("label", "Text"), Asked(), ("Text", None, "label", None)),
        (("Premise", "Hypothesis", "gold", "target"), Asked(), ("Premise", "Hypothesis", "target", None)),
        (("sentence", "class", "is_valid"), Asked(), ("sentence", None, "class", "is_valid")),
        (("sentence", "class", "set"), Asked(split=False), ("sentence", None, "class", None)),
        (("a", "b"), Asked(text="a"), ("a", None, None, None)),
        (("text", "label"), Asked(label=False), ("text", None, None, None)),
        (("text", "text_pair", "label"), Asked(text="text"), ("text", None, "label", None)),
        (("text", "x", "y"), Asked(label=("x", "y")), ("text", None, ("x", "y"), None)),
    ],
)
def test_roles(columns: tuple[str, ...], asked: Asked, roles: tuple[Any, ...]) -> None:
    found, notes = find_roles(columns, asked, "a.csv")
    assert (found.text, found.text_pair, found.label, found.split) == roles
    assert all(note.change for note in notes)


def test_a_column_that_is_not_there_names_the_nearest() -> None:
    for asked in ({"text": "txt"}, {"text_pair": "tex"}, {"label": "lable"}, {"split": "labels"}, {"label": ["label", "texts"]}):
        with pytest.raises(DataError, match=r"^the list: no column '(txt|tex|lable|labels|texts)'\. Did you mean '(text|label)'\?"):
            read(ROWS, **asked)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no column has a name that means a text"):
        read([{"a": "x", "label": "y"}])


# --- one split -----------------------------------------------------------------------------------------------------------


def test_a_split_is_columns_and_one_row_is_an_example() -> None:
    split = read(ROWS, options=WHOLE).train
    assert split.columns(3, 5) == {"text": ["text 3", "text 4"]} and split.targets(3, 5) == ["b", "a"]
    assert split[-1] == split[19] and split[19].row == 19 and list(split.chunks(8)) == [(0, 8), (8, 16), (16, 20)]
    with pytest.raises(IndexError):
        split[20]
    chosen = split.select([5, -1, 5])
    assert [example.row for example in chosen] == [5, 19, 5] and chosen.place(1) == "the list, row 19"
    assert split.select(np.arange(20) < 3).row_numbers.tolist() == [0, 1, 2] and len(split.select([])) == 0
    for bad in ([20], [-21], np.array([True])):
        with pytest.raises(IndexError):
            split.select(bad)
    blind = split.without_targets()
    assert blind[0].target is None and blind.targets(0, 2) == [None, None]


def test_the_fingerprint_is_that_of_the_texts() -> None:
    one = read(ROWS, options=WHOLE).train
    same = read([{**row, "label": "z"} for row in ROWS], options=WHOLE).train
    other = read([*ROWS[:-1], {"text": "text 1", "label": "a"}], options=WHOLE).train
    joined = read([{"text": "ab", "label": "a"}, {"text": "c", "label": "a"}], options=WHOLE).train
    moved = read([{"text": "a", "label": "a"}, {"text": "bc", "label": "a"}], options=WHOLE).train
    assert one.fingerprint() == same.fingerprint() != other.fingerprint() and joined.fingerprint() != moved.fingerprint()


@pytest.mark.parametrize("source", ["imdb_sample/texts.csv.gz", "emotion/val.txt.gz", "nli/sick_train.csv.gz"])
def test_rows_in_a_mapped_file_are_the_same_rows(shared_data: Path, tmp_path: Path, source: str) -> None:
    small = read(shared_data / source)
    mapped = read(shared_data / source, options=ReadOptions(memory_bytes=1000, cache=tmp_path / "cache"))
    assert everything(small) == everything(mapped) and small.notes == mapped.notes
    assert {name: split.fingerprint() for name, split in small.splits.items()} == {
        name: split.fingerprint() for name, split in mapped.splits.items()
    }
    assert (tmp_path / "cache").is_dir() and not list((tmp_path / "cache").iterdir())  # the map keeps its file alive
    assert all(split.table.nbytes > 0 for split in mapped.splits.values())


def test_an_error_in_the_middle_of_a_mapped_read_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = [*({"text": "x" * 50, "label": "a"} for _ in range(30_000)), {"text": None, "label": "a"}]
    with pytest.raises(DataError, match="row 30000"):
        read(rows, options=ReadOptions(memory_bytes=1000, cache=tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())


def test_rows_that_are_left_out_are_counted_wherever_they_stand() -> None:
    bad = {"text": "x", "label": None}
    for rows, count in (([bad, *ROWS], "1 row left out"), ([*ROWS, bad], "1 row left out"), ([bad, *ROWS, bad, bad], "3 rows left out")):
        found = read(rows, options=ReadOptions(valid_fraction=0, on_missing="drop"))
        assert found.notes[-1].what == count and len(found.train) == 20
    assert found.train.row_numbers.tolist() == list(range(1, 21))
    with pytest.raises(DataError, match="there are no rows: each misses the label"):
        read([bad], options=ReadOptions(on_missing="drop"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.text("ab", max_size=3)), st.one_of(st.none(), st.sampled_from("xy"))), min_size=1, max_size=30
    )
)
def test_dropping_keeps_every_whole_row_in_order(rows: list[tuple[str | None, str | None]]) -> None:
    whole = [(number, text, label) for number, (text, label) in enumerate(rows) if text is not None and label is not None]
    options = ReadOptions(valid_fraction=0, on_missing="drop")
    dicts = [{"text": text, "label": label} for text, label in rows]
    if not whole:
        with pytest.raises(DataError, match="there are no rows"):
            read(dicts, options=options)
        return
    found: Split = read(dicts, options=options).train
    assert [(example.row, example.fields["text"], example.target) for example in found] == whole


# --- what is shown -------------------------------------------------------------------------------------------------------


def test_a_view_counts_labels_but_not_numbers(shared_data: Path) -> None:
    shown = to_text(read(ROWS).view())
    assert "train" in shown and "valid" in shown and "kept aside" in shown
    options = ReadOptions(columns=("text", "text_pair", "score"))
    scores = read(shared_data / "stsb" / "stsb-en-dev.csv.gz", text_pair="text_pair", options=options)
    table = scores.view().parts[0]  # type: ignore[union-attr]
    assert table.columns == ("split", "rows")  # type: ignore[union-attr]  # no column a similarity


def test_a_view_survives_strange_labels() -> None:
    names = ["<script>alert(1)</script>", "__proto__", "x" * 5000, "\u202eevil", *(f"class {number}" for number in range(30))]
    rows = read([{"text": f"t{number}", "label": name} for number, name in enumerate(names * 3)])
    page, lines = to_html(rows.view()), to_text(rows.view())
    assert "<script>" not in page and "\u202e" not in lines and "x" * 100 not in lines
    assert "22 more labels are not shown." in lines


def test_several_label_columns_do_not_make_one_class() -> None:
    rows = [{"text": "t", "a": 1, "b": 0}]
    with pytest.raises(PellucidError, match="make sets of labels"):
        read(rows, text="text", label=["a", "b"], options=ReadOptions(label_kind="class"))


def test_a_column_that_only_later_rows_have_is_read() -> None:
    options = ReadOptions(valid_fraction=0.0, on_missing="drop")
    rows = read([{"text": "x"}, {"text": "y", "label": "a"}], text="text", options=options)
    assert rows.roles.label == "label"
