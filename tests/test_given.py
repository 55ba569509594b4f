"""What somebody hands to `predict`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

from pellucid.data import ReadOptions, read
from pellucid.errors import DataError, SettingError
from pellucid.given import as_split

ONE, TWO = ("text",), ("text", "text_pair")
TEXTS = ["a film", "", "NA"]


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        iter,
        lambda texts: (text for text in texts),
        lambda texts: np.array(texts),
        lambda texts: np.array(texts, dtype=object),
        lambda texts: pd.Series(texts, index=[3, 3, 1]),
        lambda texts: pd.Series(texts, dtype="category"),
        lambda texts: polars.Series(texts),
        lambda texts: pa.array(texts),
        lambda texts: pa.chunked_array([texts]),
        lambda texts: [{"text": text} for text in texts],
        lambda texts: ({"text": text, "more": 1} for text in texts),
        lambda texts: [[text] for text in texts],
        lambda texts: pd.DataFrame({"text": texts, "label": [1, None, 2]}, index=[5, 5, 5]),
        lambda texts: polars.DataFrame({"text": texts}),
        lambda texts: pa.table({"sentence": texts}),
        lambda texts: datasets.Dataset.from_dict({"text": texts}),
        lambda texts: datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset(),
        lambda texts: datasets.Dataset.from_dict({"text": texts})["text"],
        lambda texts: list(read([{"text": text} for text in texts], label=False, options=ReadOptions(valid_fraction=0)).train),
        lambda texts: read([{"text": text} for text in texts], label=False, options=ReadOptions(valid_fraction=0)).train,
    ],
)
def test_texts_in_any_wrapping_keep_their_order(make: Callable[[list[str]], Any]) -> None:
    split = as_split(make(TEXTS), ONE)
    assert [example.fields for example in split] == [{"text": text} for text in TEXTS]
    assert split.row_numbers.tolist() == [0, 1, 2] and split.targets(0, 3) == [None] * 3


@pytest.mark.parametrize(
    "given",
    [
        [("a", "b"), ["c", "d"]],
        np.array([["a", "b"], ["c", "d"]]),
        [{"text": "a", "text_pair": "b"}, {"text_pair": "d", "text": "c"}],
        pd.DataFrame({"premise": ["a", "c"], "hypothesis": ["b", "d"]}),
        (pair for pair in (("a", "b"), ("c", "d"))),
    ],
)
def test_pairs(given: Any) -> None:
    assert [tuple(example.fields.values()) for example in as_split(given, TWO)] == [("a", "b"), ("c", "d")]


def test_one_text_one_dict_one_example_and_nothing() -> None:
    example = as_split("a film", ONE)[0]
    assert as_split({"text": "a film"}, ONE)[0] == as_split(example, ONE)[0] == example
    assert len(as_split([], ONE)) == 0 == len(as_split(iter(()), TWO))


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        (["a", None], "the list, row 1, column 'text'", "the text is missing"),
        (["a", float("nan")], "the list, row 1, column 'text'", "the text is missing"),
        (pd.Series(["a", None], dtype="string"), "row 1", "the text is missing"),
        ([1], "the list, row 0, column 'text'", "came int (1)"),
        (["a", b"x"], "row 1", "came bytes"),
        (iter(["a", 1.5]), "row 1", "came float (1.5)"),
        (["ok", "half \ud800"], "the list, row 1, column 'text'", "character 5 is a lone surrogate"),
        ([("a", "b")], "row 0", "expected a text, came 2"),
        (None, "data", "cannot read texts from NoneType"),
        (3, "data", "cannot read texts from int"),
        (b"text", "data", "cannot read texts from bytes"),
        (Path("a.csv"), "data", "cannot read texts from PosixPath"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "the DataFrame", "no column has a name that means a text"),
    ],
)
def test_what_is_no_text_names_its_row(data: Any, place: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        as_split(data, ONE)
    assert place in caught.value.place and message in str(caught.value) and caught.value.cure


def test_two_texts_are_needed() -> None:
    rows = read([{"text": "a", "label": "x"}] * 2, options=ReadOptions(valid_fraction=0))
    with pytest.raises(DataError, match="row 0: expected 2 texts, came 1"):
        as_split(["a"], TWO)
    with pytest.raises(DataError, match="the task reads two texts, one came"):
        as_split(pd.DataFrame({"text": ["a"]}), TWO)
    with pytest.raises(SettingError, match="the task reads text and text_pair, the rows have text"):
        as_split(rows.train, TWO)
    with pytest.raises(SettingError, match="these are several splits: train"):
        as_split(rows, ONE)


@pytest.mark.parametrize(
    "data",
    [
        [["Bob", "is", "in", "New York"]],
        {"words": ["Bob", "is", "in", "New York"]},
        [{"tokens": ["Bob", "is", "in", "New York"], "ner_tags": [1, 0, 0, 2]}],
        iter([["Bob", "is", "in", "New York"]]),
        pd.DataFrame({"words": [["Bob", "is", "in", "New York"]]}),
        pa.table({"id": [1], "tokens": [["Bob", "is", "in", "New York"]]}),
        "Bob is in New\u00a0York",
    ],
)
def test_the_words_of_a_row_are_one_text(data: Any) -> None:
    assert as_split(data, ONE)[0].fields == {"text": "Bob is in New\u00a0York"}


def test_words_and_texts_may_stand_side_by_side() -> None:
    given = [["two", "words"], "a text", ["one text"]]
    assert [example.fields["text"] for example in as_split(given, ONE)] == ["two words", "a text", "one text"]


@pytest.mark.parametrize(
    "data",
    [
        ("Where?", "In Rome."),
        {"question": "Where?", "context": "In Rome."},
        {"context": "In Rome.", "question": "Where?", "id": "7", "title": "Rome"},
        {"text": "Where?", "text_pair": "In Rome."},
        pd.DataFrame({"context": ["In Rome."], "question": ["Where?"]}),
        datasets.Dataset.from_dict(
            {"id": ["7"], "Context": ["In Rome."], "Question": ["Where?"], "answers": [{"text": [], "answer_start": []}]}
        ),
    ],
)
def test_a_question_and_its_context(data: Any) -> None:
    assert as_split([data] if isinstance(data, tuple) else data, TWO)[0].fields == {"text": "Where?", "text_pair": "In Rome."}


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        ({"text": ["one film", "another"]}, "row 0, column 'text'", "expected a text, came list"),
        ([["a", ""]], "row 0", "word 2 of 2 is empty"),
        ([[]], "row 0", "expected a text, came 0"),
        ([["a", 7]], "row 0", "expected a text, came 2"),
        ({"words": ["a", None]}, "column 'words'", "word 2 of 2 is missing"),
        (pd.DataFrame({"title": ["T"], "article": ["A"]}), "the DataFrame", "'title', 'article' may all be the text"),
    ],
)
def test_what_is_no_row_of_words(data: Any, place: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        as_split(data, ONE)
    assert place in caught.value.place and message in str(caught.value) and caught.value.cure


def test_columns_that_are_seldom_the_text_do_not_stand_in_the_way() -> None:
    frame = pd.DataFrame({"source": ["BBC"], "prompt": ["P"], "text": ["T"]})
    assert as_split(frame, ONE)[0].fields == {"text": "T"}
