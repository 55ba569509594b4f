"""Batches: the padding of transformers, and plans that hold every window once, within the budget, in a known order."""

import csv
import gzip
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.batch import TokenBudget, inverse_order, pad, plan_in_order, plan_sorted, plan_training, unpad, useful_share
from pellucid.errors import SettingError
from pellucid.tokens import PadSpec, TokenOptions, TokenTable, encode, load_tokenizer, pad_spec

PROPERTY = settings(max_examples=150, deadline=None)
LENGTHS = st.lists(st.integers(0, 60), max_size=300).map(lambda found: np.array(found, dtype=np.int64))
BUDGETS = st.builds(TokenBudget, st.integers(1, 300), st.integers(1, 40), st.sampled_from([1, 8]))


def table_of(rows: list[list[int]], types: list[list[int]] | None = None, labels: Any = None) -> TokenTable:
    flat = [token for row in rows for token in row]
    type_ids = None if types is None else np.array([kind for row in types for kind in row], dtype=np.uint8)
    count = len(rows)
    return TokenTable(
        ids=np.array(flat, dtype=np.int32),
        starts=np.cumsum([0] + [len(row) for row in rows]).astype(np.int64),
        rows=np.arange(count, dtype=np.int64) + 100,
        windows=np.zeros(count, dtype=np.int32),
        type_ids=type_ids,
        labels=labels,
        lost=np.zeros(count, dtype=np.int32),
        lost_words=np.zeros(count, dtype=np.int32),
    )


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Any:
    return load_tokenizer(minilm_folder)[0]


@pytest.fixture(scope="module")
def reviews(shared_data: Path) -> list[str]:
    with gzip.open(shared_data / "imdb_sample" / "texts.csv.gz", "rt", encoding="utf-8") as stream:
        return [row["text"] for row in islice(csv.DictReader(stream), 64)]


# --- padding -----------------------------------------------------------------------------------------------------------

CHOICES: list[dict[str, Any]] = [
    {},
    {"padding": True, "truncation": True, "max_length": 32},
    {"padding": "longest", "truncation": "longest_first", "max_length": 48, "pad_to_multiple_of": 16},
    {"padding": "max_length", "truncation": True, "max_length": 40},
    {"padding": "max_length", "truncation": True, "max_length": 40, "pad_to_multiple_of": 8},
    {"padding": "max_length", "truncation": True},
    {"padding": True, "truncation": False, "pad_to_multiple_of": 64},
    {"padding": "max_length", "truncation": False, "max_length": 2000},
]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_real_texts_are_padded_as_transformers_pads(minilm: Any, reviews: list[str], choice: dict[str, Any], side: str) -> None:
    from copy import deepcopy

    tokenizer = deepcopy(minilm)
    tokenizer.padding_side = side
    options = TokenOptions(**choice)
    for columns in ([reviews], [reviews, reviews[::-1]]):
        reads = ("text", "text_pair")[: len(columns)]
        table = encode(tokenizer, dict(zip(reads, columns, strict=True)), reads, options)
        batch = pad(table, np.arange(len(table)), pad_spec(tokenizer, options))
        expected = deepcopy(tokenizer)(
            *columns,
            padding=options.padding,
            truncation=options.truncation,
            max_length=options.max_length,
            pad_to_multiple_of=options.pad_to_multiple_of,
            return_tensors="np",
            verbose=False,
            split_special_tokens=True,
        )
        assert set(batch.inputs) == set(expected) == {"input_ids", "attention_mask", "token_type_ids"}
        for name, array in batch.inputs.items():
            assert array.dtype == np.int64 and array.flags.c_contiguous
            assert np.array_equal(array, expected[name]), name


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_every_kind_of_tokenizer_pads_as_its_own_pad_does(tiny_tokenizers: dict[str, Any], kind: str) -> None:
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizers[kind])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    texts = ["the film is good", "warm", "a b c d e f g"]
    table = encode(tokenizer, {"text": texts}, ("text",), TokenOptions())
    batch = pad(table, np.array([2, 0, 1]), pad_spec(tokenizer, TokenOptions()))
    expected = tokenizer([texts[2], *texts[:2]], padding=True, return_tensors="np")
    assert set(batch.inputs) == set(expected)
    assert all(np.array_equal(batch.inputs[name], expected[name]) for name in expected)
    assert batch.rows.tolist() == [2, 0, 1] and batch.lengths.tolist() == table.lengths[[2, 0, 1]].tolist()


def test_without_padding_rows_must_be_equally_long(minilm: Any) -> None:
    options = TokenOptions(padding=False)
    table = encode(minilm, {"text": ["a b", "c d", "e"]}, ("text",), options)
    spec = pad_spec(minilm, options)
    expected = minilm(["a b", "c d"], padding=False, return_tensors="np")
    assert np.array_equal(pad(table, np.array([0, 1]), spec).inputs["input_ids"], expected["input_ids"])
    with pytest.raises(SettingError, match="rows of 3 to 4 tokens cannot stand in one batch without padding"):
        pad(table, np.array([0, 2]), spec)


def test_a_row_longer_than_the_rectangle_is_refused(minilm: Any) -> None:
    options = TokenOptions(padding="max_length", truncation=False, max_length=4)
    table = encode(minilm, {"text": ["a b c d"]}, ("text",), options)
    with pytest.raises(SettingError, match="a row of 6 tokens cannot be padded to 4"):
        pad(table, np.array([0]), pad_spec(minilm, options))
    with pytest.raises(SettingError, match="needs a length"):
        pad(table, np.array([0]), PadSpec(0, padding="max_length"))


def test_windows_outside_the_table_are_refused() -> None:
    table = table_of([[1], [2]])
    for wrong in (2, -1):
        with pytest.raises(SettingError, match=f"the table has 2 windows, asked for window {wrong}"):
            pad(table, np.array([0, wrong]), PadSpec(0))


def test_an_empty_batch_is_an_empty_rectangle() -> None:
    batch = pad(table_of([[1], [2]]), np.array([], dtype=np.int64), PadSpec(0))
    assert len(batch) == 0 and batch.inputs["input_ids"].shape == (0, 0)
    assert len(pad(table_of([]), np.array([], dtype=np.int64), PadSpec(0))) == 0


ROWS = st.lists(st.lists(st.integers(1, 30_000), max_size=30), max_size=12)


@PROPERTY
@given(rows=ROWS, side=st.sampled_from(["left", "right"]), multiple=st.sampled_from([None, 8]), data=st.data())
def test_unpad_undoes_pad(rows: list[list[int]], side: Any, multiple: int | None, data: Any) -> None:
    types = [[token % 2 for token in row] for row in rows]
    table = table_of(rows, types, labels=np.arange(len(rows)) * 10)
    order = np.array(data.draw(st.permutations(range(len(rows)))), dtype=np.int64)
    names = ("input_ids", "attention_mask", "token_type_ids")
    batch = pad(table, order, PadSpec(0, 3, side, names, multiple_of=multiple))
    assert [row.tolist() for row in unpad(batch)] == [rows[position] for position in order]
    assert [row.tolist() for row in unpad(batch, "token_type_ids")] == [types[position] for position in order]
    assert batch.labels is not None and batch.labels.tolist() == (order * 10).tolist()
    assert batch.rows.tolist() == (order + 100).tolist()
    width = batch.inputs["input_ids"].shape[1]
    assert width == max(map(len, rows), default=0) if multiple is None else width % multiple == 0
    masked = batch.inputs["attention_mask"] == 0
    assert (batch.inputs["input_ids"][masked] == 0).all() and (batch.inputs["token_type_ids"][masked] == 3).all()


# --- plans -------------------------------------------------------------------------------------------------------------


def assert_each_once(plan: list[Any], count: int) -> None:
    assert sorted(position for batch in plan for position in batch.tolist()) == list(range(count))
    assert all(len(batch) for batch in plan)


def assert_within(plan: list[Any], lengths: Any, budget: TokenBudget) -> None:
    for batch in plan:
        width = -(-int(lengths[batch].max()) // budget.multiple_of) * budget.multiple_of
        assert len(batch) <= budget.max_rows
        assert len(batch) == 1 or len(batch) * width <= budget.max_tokens


@PROPERTY
@given(lengths=LENGTHS, budget=BUDGETS)
def test_a_sorted_plan_holds_each_window_once_within_the_budget(lengths: Any, budget: TokenBudget) -> None:
    plan = plan_sorted(lengths, budget)
    assert_each_once(plan, len(lengths))
    assert_within(plan, lengths, budget)
    flat = [int(lengths[position]) for batch in plan for position in batch]
    assert flat == sorted(flat, reverse=True)


@PROPERTY
@given(lengths=LENGTHS, budget=BUDGETS)
def test_the_order_comes_back(lengths: Any, budget: TokenBudget) -> None:
    plan = plan_sorted(lengths, budget)
    outputs = [batch * 7 for batch in plan]  # what a model would give, one value a window
    restored = np.concatenate([np.zeros(0, dtype=np.int64), *outputs])[inverse_order(plan)]
    assert restored.tolist() == [7 * position for position in range(len(lengths))]


@PROPERTY
@given(lengths=LENGTHS, size=st.none() | st.integers(1, 20), budget=st.none() | BUDGETS, seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_a_training_plan_holds_each_window_once(lengths: Any, size: int | None, budget: TokenBudget | None, seed: int, epoch: int) -> None:
    if size is None and budget is None:
        return
    plan = plan_training(lengths, batch_size=size, budget=budget, seed=seed, epoch=epoch)
    again = plan_training(lengths, batch_size=size, budget=budget, seed=seed, epoch=epoch)
    assert [batch.tolist() for batch in plan] == [batch.tolist() for batch in again]
    assert_each_once(plan, len(lengths))
    if budget is not None:
        assert_within(plan, lengths, budget)
    if size is not None:
        assert all(len(batch) <= size for batch in plan)
    if size is not None and budget is None:
        assert [len(batch) for batch in plan].count(size) >= len(lengths) // size
    if plan:
        assert lengths[plan[0]].max() == lengths.max()  # too little memory shows in the first step


def test_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    plans = {
        (seed, epoch): str([batch.tolist() for batch in plan_training(lengths, batch_size=8, seed=seed, epoch=epoch)])
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(plans.values())) == 9


def test_who_meets_whom_changes_between_epochs() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 2000)
    first, second = ({frozenset(batch.tolist()) for batch in plan_training(lengths, batch_size=8, epoch=epoch)} for epoch in range(2))
    assert len(first & second) == 0


def test_the_longest_batch_comes_first_and_the_rest_are_not_sorted() -> None:
    lengths = np.random.default_rng(1).integers(3, 400, 4000)
    widths = [int(lengths[batch].max()) for batch in plan_training(lengths, batch_size=16)]
    assert widths[0] == lengths.max()
    assert 0.3 < np.mean(np.diff(widths) > 0) < 0.7


def test_buckets_waste_little() -> None:
    """Reviews cut at 512: shuffled batches are half padding, buckets nearly none, a full sort next to none."""
    lengths = np.minimum(np.random.default_rng(0).lognormal(5.4, 0.7, 20_000), 512).astype(np.int64)
    shuffled = [np.random.default_rng(0).permutation(20_000)[start : start + 32] for start in range(0, 20_000, 32)]
    assert useful_share(lengths, shuffled) < 0.6
    assert useful_share(lengths, plan_training(lengths, batch_size=32)) > 0.95
    assert useful_share(lengths, plan_sorted(lengths, TokenBudget(8192))) > 0.99
    assert useful_share(lengths, plan_training(lengths, budget=TokenBudget(8192))) > 0.95


def test_the_useful_share_counts_padding() -> None:
    assert useful_share(np.array([4, 2, 3]), [np.array([0, 1]), np.array([2])]) == pytest.approx(9 / 11)
    assert useful_share(np.array([4, 2, 3]), [np.array([0, 1, 2])], multiple_of=8) == pytest.approx(9 / 24)
    assert useful_share(np.array([], dtype=np.int64), []) == 1.0


@PROPERTY
@given(count=st.integers(0, 100), size=st.integers(1, 30))
def test_a_plan_in_order_is_in_order(count: int, size: int) -> None:
    plan = plan_in_order(np.ones(count, dtype=np.int64), size)
    assert [position for batch in plan for position in batch.tolist()] == list(range(count))
    assert all(len(batch) == size for batch in plan[:-1]) and len(plan) == -(-count // size)


def test_wrong_numbers_are_refused() -> None:
    lengths = np.array([1, 2])
    with pytest.raises(SettingError, match="max_tokens is a whole number from 1 up, not 0"):
        TokenBudget(0)
    with pytest.raises(SettingError, match=r"max_rows is a whole number from 1 up, not 2\.5"):
        TokenBudget(9, 2.5)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="a training plan needs a size"):
        plan_training(lengths)
    for size in (0, -1, True, "8"):
        with pytest.raises(SettingError, match="batch_size is a whole number from 1 up"):
            plan_training(lengths, batch_size=size)  # type: ignore[arg-type]
        with pytest.raises(SettingError, match="batch_size is a whole number from 1 up"):
            plan_in_order(lengths, size)  # type: ignore[arg-type]
    for wrong in (np.array([[1]]), np.array([1.5]), np.array([-1])):
        with pytest.raises(SettingError, match="lengths are whole numbers from 0 up"):
            plan_sorted(wrong, TokenBudget(9))
    with pytest.raises(SettingError, match="seed and epoch are whole numbers from 0 up"):
        plan_training(lengths, batch_size=2, seed=-1)


def test_a_million_rows_are_planned_in_seconds() -> None:
    from time import perf_counter

    lengths = np.random.default_rng(0).integers(3, 60, 1_000_000)
    start = perf_counter()
    assert sum(map(len, plan_sorted(lengths, TokenBudget(4096)))) == sum(map(len, plan_training(lengths, batch_size=32))) == 1_000_000
    assert perf_counter() - start < 20
