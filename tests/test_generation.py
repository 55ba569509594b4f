"""Texts made token by token: the ids and scores of transformers, options that are possible, streams that end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.generation import (
    NO_ID,
    GenerationOptions,
    candidates_of,
    continued,
    cut_at,
    generate,
    generation_of,
    log_probabilities,
    positions_of,
    resolved,
    stream_text,
)
from pellucid.types import Output
from tiny_writers import writer

TEXTS = ["A wonderful little film", "Dull", "I laughed, I cried, and I would watch it again tomorrow."]


@pytest.fixture(scope="module")
def folders(tiny_tokenizers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind, tokenizer in (("t5", "unigram"), ("bart", "unigram"), ("gpt2", "bpe"), ("llama", "bpe")):
        made[kind] = writer(kind, tiny_tokenizers[tokenizer], tmp_path_factory.mktemp("writers") / kind)
    return made


def loaded(folder: Path) -> tuple[Any, Any]:
    """A plain tokenizer and a plain model."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left" if folder.name in ("gpt2", "llama") else "right")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    head = AutoModelForCausalLM if folder.name in ("gpt2", "llama") else AutoModelForSeq2SeqLM
    model = head.from_pretrained(folder).eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, model


def inputs_of(tokenizer: Any, texts: list[str]) -> dict[str, Any]:
    found = tokenizer(texts, padding=True, return_tensors="np")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


SEARCHES = {
    "greedy": GenerationOptions(max_new_tokens=9),
    "beams": GenerationOptions(max_new_tokens=9, num_beams=3, num_return_sequences=2, length_penalty=0.6),
    "blocked": GenerationOptions(max_new_tokens=9, no_repeat_ngram_size=2, repetition_penalty=1.3, min_new_tokens=4),
}


@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2", "llama"])
@pytest.mark.parametrize("name", SEARCHES)
def test_the_ids_are_those_of_plain_generate(folders: dict[str, Path], kind: str, name: str) -> None:
    tokenizer, model = loaded(folders[kind])
    inputs = inputs_of(tokenizer, TEXTS)
    options = SEARCHES[name]
    output = generate(model, inputs, options)
    plain = {
        field: getattr(options, field)
        for field in ("num_beams", "num_return_sequences", "length_penalty", "no_repeat_ngram_size", "repetition_penalty", "min_new_tokens")
        if getattr(options, field) is not None
    }
    wanted = model.generate(
        **{name: torch.from_numpy(array) for name, array in inputs.items()},
        max_new_tokens=9,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_scores=True,
        **plain,
    )
    first = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    sequences = wanted.sequences[:, first:].reshape(len(TEXTS), options.num_return_sequences, -1).transpose(1, 2).numpy()
    there = output.ids.numpy() != NO_ID
    np.testing.assert_array_equal(output.ids.numpy()[there], sequences[there])
    assert int(output.lengths.max()) == output.ids.shape[1] == output.logits.shape[1]
    if name == "beams":
        totals = output.logits.sum(1) / torch.from_numpy(there.sum(1)) ** 0.6  # (batch, candidates)
        torch.testing.assert_close(totals.reshape(-1), wanted.sequences_scores, atol=1e-4, rtol=1e-4)
    if name == "greedy":
        steps = model.compute_transition_scores(wanted.sequences, wanted.scores, normalize_logits=True).numpy()
        np.testing.assert_allclose(output.logits.numpy()[:, :, 0][there[:, :, 0]], steps[there[:, :, 0]], atol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2", "llama"])
def test_a_batch_writes_what_each_row_would_alone(folders: dict[str, Path], kind: str) -> None:
    tokenizer, model = loaded(folders[kind])
    options = GenerationOptions(max_new_tokens=12)
    together = generate(model, inputs_of(tokenizer, TEXTS), options)
    for entry, text in enumerate(TEXTS):
        alone = generate(model, inputs_of(tokenizer, [text]), options)
        length = int(alone.lengths[0])
        assert int(together.lengths[entry]) == length
        assert together.ids[entry, :length, 0].tolist() == alone.ids[0, :length, 0].tolist()
        torch.testing.assert_close(together.logits[entry, :length, 0], alone.logits[0, :length, 0], atol=1e-5, rtol=1e-5)


def test_scores_do_not_depend_on_how_many_texts_are_scored_at_a_time(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, model = loaded(folders["gpt2"])
    inputs = {name: torch.from_numpy(array) for name, array in inputs_of(tokenizer, TEXTS).items()}
    sequences = torch.cat([inputs["input_ids"], torch.randint(5, 50, (3, 4))], dim=1)
    with torch.no_grad():
        at_once = log_probabilities(model, inputs, sequences, inputs["input_ids"].shape[1])
        monkeypatch.setattr("pellucid.generation.NUMBERS_AT_ONCE", 1)
        one_by_one = log_probabilities(model, inputs, sequences, inputs["input_ids"].shape[1])
    torch.testing.assert_close(at_once, one_by_one)


def test_draws_follow_from_the_seed_and_leave_the_others_alone(folders: dict[str, Path]) -> None:
    tokenizer, model = loaded(folders["gpt2"])
    inputs = inputs_of(tokenizer, TEXTS)
    options = GenerationOptions(max_new_tokens=8, do_sample=True, top_k=0, seed=3, num_return_sequences=3)
    torch.manual_seed(0)
    first = generate(model, inputs, options)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1)), "the draws of others go on as if nothing had been"
    assert torch.equal(first.ids, generate(model, inputs, options).ids)
    other = generate(model, inputs, GenerationOptions(max_new_tokens=8, do_sample=True, top_k=0, seed=4, num_return_sequences=3))
    assert not torch.equal(first.ids, other.ids[:, : first.ids.shape[1]])
    assert first.ids.shape[2] == 3


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"num_beams": 2.5}, "num_beams"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"stop": "end"}, "stop"),
        ({"stop": ("",)}, "stop"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"seed": -1}, "seed"),
        ({"repetition_penalty": True}, "repetition_penalty"),
    ],
)
def test_options_that_are_not_possible_are_named(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(pl.PellucidError, match=names) as error:
        GenerationOptions(**settings)
    assert error.value.cure


def test_what_the_checkpoint_says_is_taken_and_said(folders: dict[str, Path]) -> None:
    _, model = loaded(folders["bart"])
    model.generation_config.num_beams, model.generation_config.max_length, model.generation_config.do_sample = 4, 21, True
    found, notes = resolved(GenerationOptions(), model, {}, {})
    assert (found.num_beams, found.max_new_tokens, found.do_sample) == (4, 20, False)
    said = " ".join(map(str, notes))
    assert "num_beams 4" in said and "most likely" in said
    again, silent = resolved(found, model, {}, {})
    assert again == found and not silent, "what is decided stays so"
    asked, _ = resolved(GenerationOptions(num_beams=1, do_sample=True), model, {"length_penalty": 2.0}, {"max_new_tokens": 7})
    assert (asked.num_beams, asked.do_sample, asked.length_penalty) == (1, True, 2.0)
    assert generation_of(asked) == asked


def test_several_texts_need_as_many_beams(folders: dict[str, Path]) -> None:
    _, model = loaded(folders["t5"])
    found, notes = resolved(GenerationOptions(num_return_sequences=3), model, {}, {})
    assert found.num_beams == 3 and "num_beams 3" in str(notes[0])


def test_left_padding_does_not_shift_positions() -> None:
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(positions_of(mask), [[0, 0, 0, 1], [0, 1, 2, 3]])
    assert torch.equal(positions_of(torch.from_numpy(mask)), torch.from_numpy(positions_of(mask)))


def test_a_text_ends_before_the_first_stop_string() -> None:
    assert cut_at("one. two! three.", ("!", ".")) == "one"
    assert cut_at("one", ("!",)) == cut_at("one", ()) == "one"


def test_a_continuation_keeps_the_space_before_its_first_word(tiny_tokenizers: dict[str, Any]) -> None:
    def spell(ids: Any) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    for tokenizer in tiny_tokenizers.values():
        ids = tokenizer("the film was funny", add_special_tokens=False)["input_ids"]
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        for cut in range(1, len(ids)):
            assert spell(ids[:cut]) + continued(spell, ids[cut:]) == whole
    assert continued(lambda ids: "", []) == ""


def test_candidates_of_another_output_are_refused() -> None:
    with pytest.raises(pl.PellucidError, match="no ids"):
        candidates_of(Output(np.zeros((1, 2, 3))), 0, str, ())


# --- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_the_pieces_of_a_stream_are_the_whole_text(folders: dict[str, Path], kind: str) -> None:
    tokenizer, model = loaded(folders[kind])
    options = GenerationOptions(max_new_tokens=10)
    inputs = inputs_of(tokenizer, TEXTS[:1])
    pieces = list(stream_text(model, tokenizer, inputs, options))
    output = generate(model, inputs, options)
    ids = output.ids[0, :, 0].tolist()
    assert "".join(pieces).strip() == tokenizer.decode([one for one in ids if one >= 0], skip_special_tokens=True).strip()


def test_a_stream_ends_at_a_stop_string(folders: dict[str, Path]) -> None:
    tokenizer, model = loaded(folders["gpt2"])
    inputs = inputs_of(tokenizer, TEXTS[:1])
    whole = "".join(stream_text(model, tokenizer, inputs, GenerationOptions(max_new_tokens=12)))
    stop = whole[3:5]
    assert "".join(stream_text(model, tokenizer, inputs, GenerationOptions(max_new_tokens=12, stop=(stop,)))) == whole[: whole.find(stop)]


def test_a_stream_that_cannot_be_is_refused(folders: dict[str, Path]) -> None:
    tokenizer, model = loaded(folders["gpt2"])
    with pytest.raises(pl.PellucidError, match="cannot be streamed"):
        next(stream_text(model, tokenizer, inputs_of(tokenizer, TEXTS[:1]), GenerationOptions(num_beams=2)))
    with pytest.raises(pl.PellucidError, match="cannot be streamed"):
        next(stream_text(model, tokenizer, inputs_of(tokenizer, TEXTS), GenerationOptions()))


def test_a_stream_that_is_left_ends_its_work(folders: dict[str, Path]) -> None:
    import threading

    tokenizer, model = loaded(folders["gpt2"])
    pieces: Iterator[str] = stream_text(model, tokenizer, inputs_of(tokenizer, TEXTS[:1]), GenerationOptions(max_new_tokens=60))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "pellucid-stream"]


def test_an_error_in_a_stream_reaches_the_reader(folders: dict[str, Path]) -> None:
    tokenizer, model = loaded(folders["gpt2"])
    inputs = inputs_of(tokenizer, TEXTS[:1])
    inputs["input_ids"] = inputs["input_ids"] + 100_000
    with pytest.raises((IndexError, pl.PellucidError)):
        list(stream_text(model, tokenizer, inputs, GenerationOptions(max_new_tokens=4), seconds=5))
