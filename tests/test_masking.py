"""Masks: how many tokens are hidden, what stands in their place, which never are, and that words and spans stay whole."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from pellucid.batch import IGNORED, pad
from pellucid.masking import CONTINUES, LONGEST_SPAN, Masking, learnable, learnable_words, masked
from pellucid.token_table import PadSpec, TokenTable
from pellucid.types import Batch

SPECIAL = (0, 2, 3, 4)  # padding, beginning, end, mask
MASK, VOCABULARY = 4, 1000
PLAIN = Masking(MASK, VOCABULARY, SPECIAL)
WAYS = ("tokens", "whole-words", "spans")


def table_of(words: list[list[int]]) -> tuple[TokenTable, np.ndarray]:
    """A table with one window a list of word sizes, between special tokens, and the word number of each token."""
    random = np.random.default_rng(7)
    ids, numbers, starts = [], [], [0]
    for sizes in words:
        ids += [2, *random.integers(5, VOCABULARY, size=sum(sizes)).tolist(), 3]
        numbers += [-1, *np.repeat(np.arange(len(sizes)), sizes).tolist(), -1]
        starts.append(len(ids))
    rows = np.arange(len(words), dtype=np.int64)
    nothing = np.zeros(len(words), dtype=np.int32)
    table = TokenTable(np.array(ids, dtype=np.int32), np.array(starts), rows, nothing, None, None, nothing, nothing)
    return table, np.array(numbers, dtype=np.int64)


def batch_of(words: list[list[int]], side: str = "right") -> Batch:
    table, numbers = table_of(words)
    spec = PadSpec(0, side=side)  # type: ignore[arg-type]
    return pad(learnable_words(table, numbers, SPECIAL), np.arange(len(words)), spec)


def word_numbers(batch: Batch) -> np.ndarray:
    """The word that each token belongs to, counted over the whole entry; -1 for what cannot be learned."""
    labels = np.asarray(batch.labels)
    begins = (labels != IGNORED) & (labels < CONTINUES)
    return np.where(labels == IGNORED, -1, begins.cumsum(axis=1))


TEXTS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=60), min_size=1, max_size=6)


@given(words=TEXTS, how=st.sampled_from(WAYS), share=st.floats(0.01, 1.0), draw=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_the_share_is_kept_and_special_tokens_are_never_hidden(words: list[list[int]], how: str, share: float, draw: int) -> None:
    batch = batch_of(words)
    found = masked(batch, replace(PLAIN, how=how, share=share), draw)
    ids, before = np.asarray(found.inputs["input_ids"]), np.asarray(batch.inputs["input_ids"])
    hidden = np.asarray(found.labels) != IGNORED
    assert not (hidden & np.isin(before, SPECIAL)).any(), "special tokens and padding are never hidden"
    assert (ids[~hidden] == before[~hidden]).all(), "what is not hidden stays"
    assert (np.asarray(found.labels)[hidden] == before[hidden]).all(), "labels are what stood there"
    for entry, sizes in enumerate(words):
        budget, count = max(1, round(share * sum(sizes))), int(hidden[entry].sum())
        if how == "tokens":
            assert count == budget
        else:
            assert 1 <= count <= max(budget, max(sizes) if min(sizes) > budget or how == "spans" else budget)


@given(words=TEXTS, how=st.sampled_from(("whole-words", "spans")), share=st.floats(0.05, 0.6))
@settings(max_examples=100, deadline=None)
def test_words_are_hidden_whole(words: list[list[int]], how: str, share: float) -> None:
    batch = batch_of(words)
    numbers = word_numbers(batch)
    hidden = np.asarray(masked(batch, replace(PLAIN, how=how, share=share), 1).labels) != IGNORED
    for entry in range(len(words)):
        for word in set(numbers[entry].tolist()) - {-1}:
            assert len(set(hidden[entry, numbers[entry] == word].tolist())) == 1


@given(words=TEXTS, how=st.sampled_from(WAYS), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_masks_of_a_window_do_not_depend_on_its_batch(words: list[list[int]], how: str, seed: int) -> None:
    masking = replace(PLAIN, how=how, seed=seed)
    together, left = batch_of(words), batch_of(words, side="left")
    whole = masked(together, masking, 3)
    for entry in range(len(words)):
        alone = masked(together.take(np.array([entry])), masking, 3)
        assert (alone.inputs["input_ids"] == whole.inputs["input_ids"][[entry]]).all()
    mask, other = np.asarray(together.inputs["attention_mask"]) > 0, np.asarray(left.inputs["attention_mask"]) > 0
    assert (masked(left, masking, 3).inputs["input_ids"][other] == whole.inputs["input_ids"][mask]).all(), "the side of the padding"


def test_eighty_ten_ten() -> None:
    batch = batch_of([[1] * 100] * 200)
    found = masked(batch, PLAIN, 1)
    hidden = np.asarray(found.labels) != IGNORED
    ids, labels = np.asarray(found.inputs["input_ids"])[hidden], np.asarray(found.labels)[hidden]
    assert hidden.sum() == 200 * 15
    assert (ids == MASK).mean() == pytest.approx(0.8, abs=0.03)
    assert (ids == labels).mean() == pytest.approx(0.1, abs=0.03)
    strange = ids[(ids != MASK) & (ids != labels)]
    assert len(strange) / hidden.sum() == pytest.approx(0.1, abs=0.03)
    assert not np.isin(strange, SPECIAL).any() and strange.max() < VOCABULARY, "random tokens are ordinary ones"
    assert len(set(strange.tolist())) > 200, "from all over the vocabulary"
    always = masked(batch, replace(PLAIN, as_mask=1.0, as_random=0.0), 1)
    assert (np.asarray(always.inputs["input_ids"])[np.asarray(always.labels) != IGNORED] == MASK).all()


def test_random_tokens_cover_the_ordinary_vocabulary_evenly() -> None:
    batch = batch_of([[1] * 400] * 50)
    found = masked(batch, Masking(1, 8, (0, 1, 5, 7), as_mask=0.0, as_random=1.0, share=1.0), 1)
    ids = np.asarray(found.inputs["input_ids"])[np.asarray(found.labels) != IGNORED]
    counts = Counter(ids.tolist())
    assert set(counts) == {2, 3, 4, 6}
    assert max(counts.values()) / min(counts.values()) < 1.1


def test_every_epoch_hides_other_tokens_and_validation_always_the_same() -> None:
    batch = batch_of([[1] * 60] * 8)
    epochs = [np.asarray(masked(batch, PLAIN, epoch).labels) for epoch in (1, 2, 3)]
    assert not any((one == other).all(axis=1).any() for one, other in pairwise(epochs))
    assert (np.asarray(masked(batch, PLAIN, 2).labels) == epochs[1]).all(), "the same epoch again gives the same masks"
    assert not (np.asarray(masked(batch, replace(PLAIN, seed=1), 1).labels) == epochs[0]).all(), "another seed, other masks"
    held_out = np.asarray(masked(batch, PLAIN, 0).inputs["input_ids"])
    assert (np.asarray(masked(batch, replace(PLAIN, seed=1), 0).inputs["input_ids"]) == held_out).all(), "whatever the seed"
    assert (np.asarray(batch.labels) == np.asarray(batch_of([[1] * 60] * 8).labels)).all(), "the batch that was given is left alone"


def test_each_token_is_hidden_as_often_as_any_other() -> None:
    batch = batch_of([[2] * 20] * 4)
    for how in WAYS:
        often = np.zeros(np.asarray(batch.labels).shape)
        for epoch in range(1, 301):
            often += np.asarray(masked(batch, replace(PLAIN, how=how), epoch).labels) != IGNORED
        share = often[np.asarray(batch.labels) != IGNORED] / 300
        assert share.mean() == pytest.approx(0.15, abs=0.02)
        if how != "spans":  # a span begins at its anchor: the first words of a text are in fewer of them, as in SpanBERT
            assert share.min() > 0.08 and share.max() < 0.24


def test_spans_have_the_lengths_of_spanbert_and_one_fate() -> None:
    batch = batch_of([[1] * 400] * 60)
    found = masked(batch, replace(PLAIN, how="spans"), 1)
    lengths, fates = [], []
    for labels, ids in zip(np.asarray(found.labels), np.asarray(found.inputs["input_ids"]), strict=True):
        hidden = np.flatnonzero(labels != IGNORED)
        for run in np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1):
            lengths.append(len(run))
            fates.append((ids[run] == MASK).mean())
    assert 3.0 < np.mean(lengths) < 5.0, "3.8 words on average, a little more where two spans touch"
    assert np.median(lengths) <= 4 and max(lengths) > LONGEST_SPAN / 2
    assert np.mean([fate in (0.0, 1.0) for fate in fates]) > 0.85, "a span becomes masks as a whole"


def test_a_window_with_nothing_to_learn_is_left_alone() -> None:
    table, _ = table_of([[], [1]])
    batch = pad(learnable(table, SPECIAL), np.arange(2), PadSpec(0))
    found = masked(batch, PLAIN, 1)
    assert (np.asarray(found.labels)[0] == IGNORED).all()
    assert (np.asarray(found.labels)[1] != IGNORED).sum() == 1, "one token is always hidden"


def test_a_word_cut_by_the_edge_of_a_window_begins_again() -> None:
    table, numbers = table_of([[3, 1], [2, 2]])
    numbers = np.where(numbers >= 0, 0, numbers)  # as if all were one word
    labels = np.asarray(learnable_words(table, numbers, SPECIAL).labels)
    assert (labels[[1, 7]] < CONTINUES).all() and (labels[[2, 3, 4, 8, 9, 10]] >= CONTINUES).all()
    assert (labels[[0, 5, 6, 11]] == IGNORED).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"how": "letters"}, "no masking 'letters'"),
        ({"share": 0.0}, "share of hidden tokens is 0"),
        ({"share": 1.5}, "share of hidden tokens is 1.5"),
        ({"as_mask": 0.8, "as_random": 0.4}, "add up to 1"),
        ({"as_mask": -0.1}, "add up to 1"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(pl.PellucidError, match=says):
        replace(PLAIN, **change)
