"""Embeddings: the vectors are those of the body, padding and long texts do not spoil them, pairs are compared, nothing is trained."""

import csv
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import pellucid as pl
from conftest import SENTENCES
from pellucid.pipelines import Pipeline
from pellucid.sentence_files import pooling_of
from pellucid.task import settings_of, task_from
from pellucid.tasks.embeddings import FeatureExtraction, unit
from pellucid.tokens import LongTexts

TEXTS = [*SENTENCES[:5], "Hi.", "A much longer sentence, " * 6]
PAIRS = list(zip(SENTENCES[:6], SENTENCES[6:12], strict=True))
POOLINGS = ("mean", "cls", "last", "max")
CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))


def checkpoint(name: str) -> Path:
    folder = CHECKPOINTS / name
    if not (folder / "model.safetensors").exists():
        pytest.skip(f"the checkpoint {name} is not in {CHECKPOINTS} (set CHECKPOINTS)")
    return folder


def matrix(pipe: Pipeline, texts: Any) -> np.ndarray:
    return np.array(pipe.predict(texts).answers(), dtype=np.float32)


def by_hand(pipe: Pipeline, text: str, pooling: str) -> np.ndarray:
    """The vector of one text with plain transformers: no padding, no batch."""
    encoded = pipe.tokenizer(text, return_tensors="pt", truncation=True, max_length=pipe.options.max_length)
    body = pipe.model.get_encoder() if pipe.model.config.is_encoder_decoder else pipe.model
    names = pipe.pad.input_names
    with torch.no_grad():
        hidden = body(**{name: tensor for name, tensor in encoded.items() if name in names}).last_hidden_state[0].numpy()
    vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "max": hidden.max(0)}[pooling]
    return vector / np.linalg.norm(vector)


# --- vectors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "xlm-roberta"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_vector_is_the_pooled_last_layer_whatever_stands_beside_it(
    kind: str, pooling: Any, side: str, tiny_checkpoints: dict[str, Path]
) -> None:
    pipe = Pipeline.new(FeatureExtraction(pooling=pooling), tiny_checkpoints[kind])
    pipe.tokenizer.padding_side = side
    texts = TEXTS[:6]
    expected = np.stack([by_hand(pipe, text, pooling) for text in texts])
    np.testing.assert_allclose(matrix(pipe, texts), expected, atol=1e-5)


def test_an_answer_is_a_tuple_of_floats_of_length_one(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new("feature-extraction", tiny_checkpoints["bert"])
    prediction = pipe(TEXTS[0])
    assert isinstance(prediction.answer, tuple) and all(isinstance(value, float) for value in prediction.answer)
    assert len(prediction.answer) == 32
    assert np.linalg.norm(prediction.answer) == pytest.approx(1.0, abs=1e-6)
    assert "a vector of 32 numbers" in prediction.says()


def test_without_normalising_the_length_stays(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(FeatureExtraction(pooling="mean", normalize=False), tiny_checkpoints["bert"])
    found = matrix(pipe, TEXTS[:3])
    np.testing.assert_allclose(found, pipe.features(TEXTS[:3]), atol=1e-6)
    assert not np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)


def test_a_layer_can_be_chosen(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(FeatureExtraction(pooling="cls", normalize=False, layer=0), tiny_checkpoints["bert"])
    encoded = pipe.tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        embedded = pipe.model.embeddings(encoded["input_ids"])[0, 0].numpy()
    np.testing.assert_allclose(pipe(TEXTS[0]).answer, embedded, atol=1e-6)
    with pytest.raises(pl.PellucidError, match="layer is 9"):
        replace(pipe, task=FeatureExtraction(layer=9))(TEXTS[0])


def test_a_prompt_stands_before_every_text(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(FeatureExtraction(prompt="plot: "), tiny_checkpoints["bert"])
    plain = Pipeline.new("feature-extraction", tiny_checkpoints["bert"])
    np.testing.assert_allclose(matrix(pipe, TEXTS[:3]), matrix(plain, [f"plot: {text}" for text in TEXTS[:3]]), atol=1e-6)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_of_an_encoder_decoder_the_encoder_speaks(kind: str, tmp_path: Path, tiny_tokenizers: dict[str, Any]) -> None:
    from transformers import AutoModel, BartConfig, T5Config

    tokenizer = tiny_tokenizers["unigram"]
    size = {"vocab_size": len(tokenizer), "d_model": 32, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    if kind == "t5":
        config: Any = T5Config(**size, d_ff=48, d_kv=8, num_layers=2, num_heads=4)
    else:
        sides = {"encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
        config = BartConfig(**size, **sides, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pipe = Pipeline.new(FeatureExtraction(pooling="mean"), tmp_path)
    np.testing.assert_allclose(matrix(pipe, TEXTS[:4]), np.stack([by_hand(pipe, text, "mean") for text in TEXTS[:4]]), atol=1e-5)


# --- long texts --------------------------------------------------------------------------------------------------------


def test_a_long_text_is_the_mean_of_its_windows_weighted_by_tokens(tiny_checkpoints: dict[str, Path]) -> None:
    long = " ".join(SENTENCES)
    pipe = Pipeline.new(FeatureExtraction(pooling="mean"), tiny_checkpoints["bert"])
    table = pipe.encode(pipe.predict([long]).split)
    assert len(table) > 2
    batch = pipe.collate(table, np.arange(len(table)))
    vectors, lengths = pipe.run(batch).logits, table.lengths
    expected = unit((vectors * lengths[:, None]).sum(0) / lengths.sum())
    np.testing.assert_allclose(pipe(long).answer, expected, atol=1e-6)
    np.testing.assert_allclose(matrix(pipe, [TEXTS[0], long, TEXTS[1]])[1], expected, atol=1e-6)


def test_a_long_text_can_be_cut_instead(tiny_checkpoints: dict[str, Path]) -> None:
    tokens = pl.TokenOptions(long=LongTexts("truncate"))
    pipe = Pipeline.new(FeatureExtraction(pooling="mean"), tiny_checkpoints["bert"], tokens=tokens)
    long = " ".join(SENTENCES)
    np.testing.assert_allclose(pipe(long).answer, by_hand(pipe, long, "mean"), atol=1e-5)


# --- the sentence-transformers files of a checkpoint -------------------------------------------------------------------


def with_files(folder: Path, pooling: Any, kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize")) -> Path:
    types = [f"sentence_transformers.models.{kind}" for kind in kinds]
    modules = [{"idx": place, "path": f"{place}_{kind}" if place else "", "type": types[place]} for place, kind in enumerate(kinds)]
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"word_embedding_dimension": 384}, "mean"),
        ({"embedding_dimension": 384, "pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_checkpoint_may_say_the_pooling(said: dict[str, Any], expected: str, tmp_path: Path) -> None:
    pooling, notes = pooling_of(with_files(tmp_path, said))
    assert pooling == expected
    assert "sentence-transformers" in str(notes[0])


@pytest.mark.parametrize(
    "said",
    [{"pooling_mode_weightedmean_tokens": True}, {"pooling_mode": ["mean", "max"]}, {"pooling_mode_cls_token": 1, "pooling_mode": []}],
)
def test_a_pooling_that_is_not_there_is_told(said: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(pl.PellucidError, match="the checkpoint pools by"):
        pooling_of(with_files(tmp_path, said))


def test_modules_that_are_left_out_are_told(tmp_path: Path) -> None:
    _, notes = pooling_of(with_files(tmp_path, {"pooling_mode": "mean"}, ("Transformer", "Pooling", "Dense")))
    assert "Dense left out" in str(notes[1])


@pytest.mark.parametrize("broken", ["", "{", "[]", '"a"', "[1]", '{"a": 1}'])
def test_broken_files_are_no_files(broken: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(broken)
    assert pooling_of(tmp_path) == ("mean", ())


def test_a_path_in_the_files_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = with_files(tmp_path / "model", {"pooling_mode": "cls"})
    (tmp_path / "config.json").write_text('{"pooling_mode": "max"}')
    modules = [{"idx": 0, "path": "", "type": "a.Transformer"}, {"idx": 1, "path": "..", "type": "a.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert pooling_of(folder)[0] == "cls"


def test_the_embedded_checkpoint_says_its_pooling_aloud(minilm_folder: Path) -> None:
    pipe = Pipeline.new("feature-extraction", "minilm")
    assert pipe.task == FeatureExtraction(pooling="mean")
    assert any("pooling mean" in str(note) for note in pipe.notes)
    asked = Pipeline.new(FeatureExtraction(pooling="cls"), "minilm")
    assert asked.task.pooling == "cls" and not any("pooling" in note.what for note in asked.notes)


# --- two texts ---------------------------------------------------------------------------------------------------------


def test_the_similarity_of_a_pair_is_the_cosine_of_its_vectors(tiny_checkpoints: dict[str, Path]) -> None:
    alone = Pipeline.new("feature-extraction", tiny_checkpoints["bert"])
    both = Pipeline.new(FeatureExtraction(compare=True), tiny_checkpoints["bert"])
    first, second = (matrix(alone, [pair[side] for pair in PAIRS]).astype(np.float64) for side in (0, 1))
    found = both.predict(PAIRS)
    np.testing.assert_allclose([prediction.answer for prediction in found], (first * second).sum(1), atol=1e-6)
    assert found[4].scores == {"cosine": found[4].answer}
    np.testing.assert_allclose(both.predict(PAIRS[4:5])[0].answer, found[4].answer, atol=1e-5)
    scaled = replace(both, task=FeatureExtraction(compare=True, scale=(0.0, 5.0)))
    assert scaled.predict(PAIRS)[4].answer == pytest.approx(5 * found[4].answer)


def test_the_rows_say_the_scale(tiny_checkpoints: dict[str, Path]) -> None:
    rows = pl.read(
        [{"text": a, "text_pair": b, "label": str(number)} for number, (a, b) in enumerate(PAIRS)],
        text="text",
        text_pair="text_pair",
        label="label",
        options=pl.ReadOptions(valid_fraction=0.0, label_kind="number"),
    )
    pipe = Pipeline.new(FeatureExtraction(compare=True), tiny_checkpoints["bert"], rows)
    assert pipe.task.scale == (0.0, 5.0)
    assert any("counts as 5" in str(note) for note in pipe.notes)
    report = pl.evaluate(pipe, rows.train)
    assert report.scores[0].name == "Spearman"


def test_pairs_are_compared_by_their_beginnings(tiny_checkpoints: dict[str, Path]) -> None:
    tokens = pl.TokenOptions(long=LongTexts("windows"))
    pipe = Pipeline.new(FeatureExtraction(compare=True), tiny_checkpoints["bert"], tokens=tokens)
    with pytest.raises(pl.PellucidError, match="by their beginnings"):
        pipe.predict(PAIRS)


def test_a_bad_text_of_a_pair_is_named(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(FeatureExtraction(compare=True), tiny_checkpoints["bert"])
    columns: dict[str, list[Any]] = {"text": ["a", "b", "c"], "text_pair": ["a", None, "c"]}
    with pytest.raises(pl.PellucidError, match=r"row 1.*text_pair"):
        pipe.task.encode(pipe.tokenizer, columns, None, pipe.options)


def test_a_vector_alone_is_not_scored(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new("feature-extraction", tiny_checkpoints["bert"])
    with pytest.raises(pl.PellucidError, match="compare=True"):
        pipe.task.metrics(list(pipe.predict(TEXTS[:2])), ["1", "2"])


# --- nothing is trained ------------------------------------------------------------------------------------------------


def test_training_says_what_to_do_instead(tiny_checkpoints: dict[str, Path]) -> None:
    rows = pl.read([{"text": text, "label": str(place % 2)} for place, text in enumerate(TEXTS)], text="text", label="label")
    with pytest.raises(pl.PellucidError, match="PipelineFeatures"):
        pl.train(rows, "feature-extraction", tiny_checkpoints["bert"])
    pipe = Pipeline.new("feature-extraction", tiny_checkpoints["bert"])
    with pytest.raises(pl.PellucidError, match="trains nothing"):
        pl.learner(pipe, rows)
    with pytest.raises(pl.PellucidError, match="trains nothing"):
        pipe.task.loss(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize("wrong", [{"pooling": "median"}, {"scale": (1.0,)}, {"scale": (2.0, 2.0)}, {"scale": (0.0, float("nan"))}])
def test_a_setting_that_is_not_there_is_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(pl.PellucidError, match=next(iter(wrong))):
        FeatureExtraction(**wrong)


# --- values ------------------------------------------------------------------------------------------------------------


@given(arrays.arrays(np.float32, (5, 7), elements=st.floats(-(2.0**60), 2.0**60, width=32)))
@settings(deadline=None)
def test_unit_vectors_have_length_one_or_none(vectors: np.ndarray) -> None:
    lengths = np.linalg.norm(unit(vectors).astype(np.float64), axis=1)
    empty = ~vectors.any(axis=1)
    np.testing.assert_allclose(lengths, np.where(empty, 0.0, 1.0), atol=1e-5)


def test_settings_come_back(tiny_checkpoints: dict[str, Path]) -> None:
    task = FeatureExtraction(pooling="last", prompt="query: ", compare=True, scale=(0.0, 5.0))
    assert task_from(FeatureExtraction, json.loads(json.dumps(settings_of(task)))) == task


@pytest.mark.parametrize("compare", [False, True])
def test_a_saved_folder_gives_the_same_vectors(compare: bool, tmp_path: Path, tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(FeatureExtraction(compare=compare), tiny_checkpoints["bert"])
    again = pl.load(pl.save(pipe, tmp_path / "saved"))
    assert again.task == pipe.task
    data = PAIRS if compare else TEXTS
    assert again.predict(data).answers() == pipe.predict(data).answers()


def test_a_trace_shows_the_steps(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new("feature-extraction", tiny_checkpoints["bert"])
    trace = pipe.trace(TEXTS[0])
    np.testing.assert_allclose(trace.prediction.answer, pipe(TEXTS[0]).answer, atol=1e-6)
    assert "a vector of 32 numbers" in pl.to_text(trace.view())
    assert "vector" in pl.to_text(pipe.task.view(trace.prediction, trace.example))


def test_a_trace_shows_what_the_model_read(tiny_checkpoints: dict[str, Path]) -> None:
    pipe = Pipeline.new(FeatureExtraction(prompt="the plot: "), tiny_checkpoints["bert"])
    trace = pipe.trace(TEXTS[0])
    (tokens,) = trace.tokens
    assert list(tokens.ids) == trace.batch.inputs["input_ids"][0].tolist()
    read = [TEXTS[0][start:end] for (start, end), role in zip(tokens.offsets, tokens.segments, strict=True) if role is not None]
    assert "".join(read) == TEXTS[0].replace(" ", ""), "characters count in the text, not in the prompt"
    both = Pipeline.new(FeatureExtraction(compare=True), tiny_checkpoints["bert"]).trace(PAIRS[0])
    assert [len(each) for each in both.tokens] == both.batch.lengths.tolist()
    assert [each.window for each in both.tokens] == [0, 1]
    assert [{role for role in each.segments if role} for each in both.tokens] == [{"text"}, {"text_pair"}]
    assert pl.to_text(both.view())


def test_no_rows_give_no_vectors(tiny_checkpoints: dict[str, Path]) -> None:
    assert list(Pipeline.new("feature-extraction", tiny_checkpoints["bert"]).predict([])) == []


# --- real checkpoints --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "e5-small"])
def test_the_vectors_are_those_of_sentence_transformers(name: str) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    folder = checkpoint(name)
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    body = Transformer(str(folder))
    theirs = library.SentenceTransformer(modules=[body, Pooling(384, "mean"), Normalize()], device="cpu")
    prompt = "query: " if name == "e5-small" else ""
    ours = Pipeline.new(FeatureExtraction(prompt=prompt), folder)
    expected = theirs.encode([prompt + text for text in TEXTS], convert_to_numpy=True)
    np.testing.assert_allclose(matrix(ours, TEXTS), expected, atol=1e-5)


@pytest.mark.slow
def test_similar_sentences_are_close(minilm_folder: Path, shared_data: Path) -> None:
    with gzip.open(shared_data / "stsb" / "stsb-en-dev.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        found = [dict(zip(("first", "second", "score"), row, strict=True)) for row in csv.reader(lines)][:200]
    options = pl.ReadOptions(valid_fraction=0.0, label_kind="number")
    rows = pl.read(found, text="first", text_pair="second", label="score", options=options)
    pipe = Pipeline.new(FeatureExtraction(compare=True, scale=(0.0, 5.0)), "minilm")
    report = pl.evaluate(pipe, rows.train, baselines=False)
    assert report.scores[0].name == "Spearman" and report.scores[0].value > 0.8
    assert report.scores[0].low is not None and report.worst
