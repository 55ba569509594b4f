"""New words: one token each, embeddings from the mean of their pieces, provenance that says so, and the same after saving."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import DataError, SettingError
from pellucid.pipelines import Pipeline
from pellucid.provenance import Origin
from pellucid.scratch import ModelSizes, from_config
from pellucid.vocab import VocabularyOptions, train_tokenizer
from pellucid.vocab_extension import extend_vocabulary, words_worth_adding

WORDS = ("cinematography", "screenplay")
TEXT = "The cinematography is superb, the screenplay is not."
TASKS = {"bert": "fill-mask", "xlm-roberta": "fill-mask", "gpt2": "text-generation", "llama": "text-generation"}


@pytest.mark.parametrize("kind", TASKS)
def test_a_word_becomes_one_token_that_begins_as_the_mean_of_its_pieces(kind: str, tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(TASKS[kind], tiny_checkpoints[kind])
    before = pipe.model.get_input_embeddings().weight.detach().clone()
    longer = extend_vocabulary(pipe, WORDS)
    assert len(longer.tokenizer) == len(pipe.tokenizer) + 2
    after = longer.model.get_input_embeddings().weight.detach()
    for place, word in enumerate(WORDS):
        number = len(pipe.tokenizer) + place
        assert longer.tokenizer.convert_tokens_to_ids(word) == number
        assert number in longer.tokenizer(TEXT)["input_ids"]
        pieces = pipe.tokenizer(word, add_special_tokens=False)["input_ids"]
        pieces = [piece for piece in pieces if piece != pipe.tokenizer.unk_token_id]
        torch.testing.assert_close(after[number], before[pieces].mean(dim=0))
    torch.testing.assert_close(after[: len(before)], before)
    assert longer.tokenizer("A dull film.")["input_ids"] == pipe.tokenizer("A dull film.")["input_ids"]
    head = longer.model.get_output_embeddings()
    assert head.weight.shape[0] == len(longer.tokenizer)
    assert longer.model.config.vocab_size == len(longer.tokenizer)


@pytest.mark.parametrize("kind", TASKS)
def test_the_pipeline_before_stays_as_it_is(kind: str, tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(TASKS[kind], tiny_checkpoints[kind])
    size, answer = len(pipe.tokenizer), pipe.features([TEXT])
    longer = extend_vocabulary(pipe, WORDS)
    assert len(pipe.tokenizer) == size == pipe.model.get_input_embeddings().weight.shape[0]
    np.testing.assert_array_equal(pipe.features([TEXT]), answer)
    np.testing.assert_allclose(longer.features(["A dull film."]), pipe.features(["A dull film."]), atol=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_provenance_says_resized_and_still_counts_every_weight(kind: str, tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(TASKS[kind], tiny_checkpoints[kind])
    longer = extend_vocabulary(pipe, WORDS)
    assert longer.provenance.total == sum(parameter.numel() for parameter in longer.model.parameters())
    resized = [one for one in longer.provenance.parameters if one.origin is Origin.RESIZED]
    assert [one.was[0] for one in resized if one.was] == [len(pipe.tokenizer)] * len(resized)
    assert [one.shape[0] for one in resized] == [len(longer.tokenizer)] * len(resized)
    assert {one.name for one in resized} >= {
        name for name, p in longer.model.named_parameters() if p is longer.model.get_input_embeddings().weight
    }
    assert longer.provenance.new_names() == pipe.provenance.new_names()
    assert "words added to the vocabulary" in str(longer.notes)
    shapes = {name: tuple(parameter.shape) for name, parameter in longer.model.named_parameters(remove_duplicate=False)}
    assert {one.name: one.shape for one in longer.provenance.parameters} == shapes


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_it_is_saved_and_comes_back(kind: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    longer = extend_vocabulary(Pipeline.new(TASKS[kind], tiny_checkpoints[kind]), WORDS)
    pl.save(longer, tmp_path / "longer")
    again = pl.load(tmp_path / "longer")
    assert again.tokenizer(TEXT)["input_ids"] == longer.tokenizer(TEXT)["input_ids"]
    np.testing.assert_array_equal(again.features([TEXT]), longer.features([TEXT]))
    assert again.provenance == type(again.provenance)("tiny-" + kind, longer.provenance.parameters)


def test_random_weights_stay_new(tiny_tokenizers: dict[str, Any]) -> None:
    pipe = from_config("fill-mask", ModelSizes(layers=1, hidden=16, heads=2), tiny_tokenizers["wordpiece"])
    longer = extend_vocabulary(pipe, WORDS)
    assert set(longer.provenance.counts()) <= {Origin.NEW, Origin.TIED}
    assert longer.provenance.total == sum(parameter.numel() for parameter in longer.model.parameters())


def test_a_masked_model_can_answer_with_a_new_word(tiny_checkpoints: dict[str, Path]) -> None:
    longer = extend_vocabulary(Pipeline.new("fill-mask", tiny_checkpoints["bert"]), WORDS)
    with torch.no_grad():
        longer.model.get_output_embeddings().bias[-1] = 100.0
    assert longer("The [MASK] is superb.").answer == "The screenplay is superb."


def test_case_is_the_tokenizer_s(tiny_checkpoints: dict[str, Path]) -> None:
    longer = extend_vocabulary(Pipeline.new("fill-mask", tiny_checkpoints["bert"]), ["Screenplay"])  # an uncased vocabulary
    number = len(longer.tokenizer) - 1
    assert number in longer.tokenizer("the SCREENPLAY")["input_ids"]
    assert number not in longer.tokenizer("the screenplays")["input_ids"]


def test_words_that_cost_tokens_are_found() -> None:
    texts = [f"The cinematography of film {number} is fine." for number in range(20)] + list(SENTENCES)
    tokenizer = train_tokenizer(list(SENTENCES), VocabularyOptions(kind="wordpiece", size=150, lowercase=True, min_frequency=1))
    table = words_worth_adding(tokenizer, texts, most=3, least=5)
    assert table.rows[0][0] == "cinematography"
    assert table.rows[0][1] == 20
    assert len(table.rows) <= 3
    before = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    pipe = extend_vocabulary(from_config("fill-mask", ModelSizes(layers=1, hidden=16, heads=2), tokenizer), ["cinematography"])
    assert before - sum(len(pipe.tokenizer(text)["input_ids"]) for text in texts) == table.rows[0][3]


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram"])
def test_tokens_saved_beside_a_space_that_stays(kind: str) -> None:
    texts = [f"The cinematography of film {number} is fine." for number in range(20)] + list(SENTENCES)
    size = 300 if kind == "byte-bpe" else 150
    tokenizer = train_tokenizer(list(SENTENCES), VocabularyOptions(kind=kind, size=size, family="gpt2"))  # type: ignore[arg-type]
    row = next(row for row in words_worth_adding(tokenizer, texts).rows if row[0] == "cinematography")
    before = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    pipe = extend_vocabulary(from_config("text-generation", ModelSizes("gpt2", 1, 16, 2), tokenizer), ["cinematography"])
    assert before - sum(len(pipe.tokenizer(text)["input_ids"]) for text in texts) == row[3]
    assert pipe.tokenizer.decode(pipe.tokenizer("The cinematography is fine.")["input_ids"]) == "The cinematography is fine."


@pytest.mark.parametrize("words", ["cinematography", ["two words"], [""], [3], []])
def test_what_is_no_list_of_words(words: Any, tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"expected a list of words|expected one word|there is no word to add"):
        extend_vocabulary(Pipeline.new("fill-mask", tiny_checkpoints["bert"]), words)


def test_known_words_are_said_or_refused(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new("fill-mask", tiny_checkpoints["bert"])
    longer = extend_vocabulary(pipe, ["the", "screenplay", "the"])
    assert len(longer.tokenizer) == len(pipe.tokenizer) + 1
    assert "1 words were not added" in str(longer.notes[-1])
    with pytest.raises(SettingError, match="each of the 1 words is one token already"):
        extend_vocabulary(pipe, ["the"])
