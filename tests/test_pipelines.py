"""A pipeline: its steps, predictions in the order of the rows, traces, features, and the same answers as transformers' own pipeline."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pellucid as pl
from pellucid.batch import TokenBudget
from pellucid.pipelines import Pipeline

TEXTS = ["Warm and funny.", "Dull.", "I would watch it again, and again, and again!", "A mess [SEP] of a film"]
TEXTS += ["two words", "überraschend 🎉"]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, ("good", "bad") * 3, strict=True)]


@pytest.fixture(scope="module")
def pipe(tiny_checkpoints: dict[str, Path]) -> Pipeline:
    return Pipeline.new("text-classification", tiny_checkpoints["bert"], pl.read(ROWS, text="text", label="label"))


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Pipeline:
    return Pipeline.new("text-classification", "minilm", pl.read(ROWS, text="text", label="label"))


def test_a_pipeline_is_frozen(pipe: Pipeline) -> None:
    with pytest.raises(FrozenInstanceError):
        pipe.checkpoint = "another"  # type: ignore[misc]


def test_steps_read_in_order(pipe: Pipeline) -> None:
    steps = pipe.steps()
    assert [step.name for step in steps] == ["encode", "collate", "run", "decode"]
    assert [step.gives for step in steps[:-1]] == [step.takes for step in steps[1:]]
    assert "300 pieces" in steps[0].what or "pieces" in steps[0].what
    assert f"{sum(p.numel() for p in pipe.model.parameters()):,} parameters" in steps[2].what


def test_one_text_gives_one_prediction_and_a_list_a_list(pipe: Pipeline) -> None:
    alone = pipe("Warm and funny.")
    assert alone.answer in ("good", "bad")
    assert list(alone.scores) == ["bad", "good"]
    assert sum(alone.scores.values()) == pytest.approx(1.0)
    assert pipe(["Warm and funny."])[0].scores == pytest.approx(alone.scores)
    assert pipe([]) == []


@pytest.mark.parametrize("shape", ["list", "tuple", "dicts", "pandas", "polars", "arrow", "dataset", "split", "series"])
def test_whatever_holds_the_texts_gives_the_same_answers(pipe: Pipeline, shape: str) -> None:
    import datasets
    import pandas
    import polars
    import pyarrow

    columns = {"text": TEXTS}
    given: dict[str, Any] = {
        "list": TEXTS,
        "tuple": tuple(TEXTS),
        "dicts": [{"text": text} for text in TEXTS],
        "pandas": pandas.DataFrame(columns, index=[5, 5, 3, 1, 0, 9]),
        "polars": polars.DataFrame(columns),
        "arrow": pyarrow.table(columns),
        "dataset": datasets.Dataset.from_dict(columns),
        "split": pl.read(ROWS, text="text", label="label", options=pl.ReadOptions(valid_fraction=0.0)).train,
        "series": pandas.Series(TEXTS),
    }
    expected = pipe.predict(TEXTS)
    found = pipe.predict(given[shape])
    assert [prediction.row for prediction in found] == list(range(len(TEXTS)))
    np.testing.assert_array_equal(found.logits, expected.logits)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=12), tokens=st.integers(1, 60))
def test_any_texts_in_any_batches_answer_as_alone(pipe: Pipeline, texts: list[str], tokens: int) -> None:
    together = pipe.predict(texts, budget=TokenBudget(max_tokens=tokens, max_rows=5))
    assert len(together) == len(texts)
    for text, logits in zip(texts, together.logits, strict=True):
        np.testing.assert_allclose(logits, pipe.predict([text]).logits[0], atol=1e-5)


def test_predictions_are_a_sequence(pipe: Pipeline) -> None:
    found = pipe.predict(TEXTS)
    assert len(found) == len(TEXTS)
    assert found[-1] == found[len(TEXTS) - 1] == list(found)[-1]
    assert found[1:3] == [found[1], found[2]]
    assert found.answers() == [prediction.answer for prediction in found]
    with pytest.raises(IndexError):
        found[len(TEXTS)]
    frame = found.to_frame()
    assert frame["text"].tolist() == TEXTS
    assert frame["answer"].tolist() == found.answers()
    assert frame["score good"].to_numpy() == pytest.approx([prediction.scores["good"] for prediction in found])


def test_progress_is_told_after_each_batch(pipe: Pipeline) -> None:
    told: list[tuple[int, int]] = []
    pipe.predict(TEXTS, budget=TokenBudget(max_tokens=20, max_rows=2), progress=lambda done, total: told.append((done, total)))
    assert len(told) > 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (len(TEXTS), len(TEXTS))


def test_prediction_leaves_the_mode_of_the_model_alone(pipe: Pipeline) -> None:
    for mode in (True, False):
        pipe.model.train(mode)
        first, second = pipe("Warm."), pipe("Warm.")
        assert first == second, "dropout must be off"
        assert pipe.model.training is mode
    assert all(parameter.grad is None for parameter in pipe.model.parameters())


def test_the_trace_holds_one_of_each(pipe: Pipeline) -> None:
    trace = pipe.trace("A mess [SEP] of a film")
    assert trace.example.fields == {"text": "A mess [SEP] of a film"}
    (tokens,) = trace.tokens
    assert list(trace.batch.inputs["input_ids"][0]) == list(tokens.ids)
    assert tokens.special[0] and tokens.special[-1] and not any(tokens.special[1:-1]), "[SEP] in a text is text"
    assert trace.output.logits.shape == (1, 2)
    assert set(trace.seconds) == {"read", "encode", "collate", "run", "decode"}
    text = pl.to_text(trace.view())
    assert "which weights made this" in text and "classifier" in text
    for part in ("text", "tokens", "batch", "logits", "scores", "answer", "seconds"):
        assert part in text


def test_a_trace_of_a_row_keeps_its_text(pipe: Pipeline) -> None:
    rows = pl.read(ROWS, text="text", label="label", options=pl.ReadOptions(valid_fraction=0.0))
    assert pipe.trace(rows.train[3]).example.fields["text"] == TEXTS[3]
    assert pipe.trace({"text": TEXTS[3]}).prediction.answer == pipe(TEXTS[3]).answer


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_features_are_those_of_the_body_by_hand(minilm: Pipeline, pooling: str) -> None:
    import torch

    found = minilm.features(TEXTS, pooling=pooling)  # type: ignore[arg-type]
    assert found.shape == (len(TEXTS), 384)
    for text, vector in zip(TEXTS, found, strict=True):
        inputs = minilm.tokenizer(text, return_tensors="pt", split_special_tokens=True)
        with torch.no_grad():
            hidden = minilm.model.base_model(**inputs).last_hidden_state[0]  # (tokens, hidden)
        by_hand = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "max": hidden.amax(0)}[pooling]
        np.testing.assert_allclose(vector, by_hand.numpy(), atol=2e-5)


def test_the_same_answers_as_the_pipeline_of_transformers(minilm: Pipeline, tmp_path: Path, shared_data: Path) -> None:
    from transformers import pipeline

    rows = pl.read(shared_data / "imdb_sample" / "texts.csv.gz", text="text", label="label", options=pl.ReadOptions(max_rows=30))
    texts = [example.fields["text"] for example in rows.train][:16]
    folder = pl.save(minilm, tmp_path / "model")
    theirs = pipeline("text-classification", model=str(folder), top_k=None, truncation=True, max_length=512)(texts)
    for ours, answer in zip(minilm.predict(texts), theirs, strict=True):
        assert ours.scores == pytest.approx({one["label"]: one["score"] for one in answer}, abs=1e-5)
        assert ours.answer == answer[0]["label"]


def test_a_pair_is_read_as_the_tokenizer_reads_pairs(tiny_checkpoints: dict[str, Path]) -> None:
    rows = [{"premise": a, "hypothesis": b, "label": label} for a, b, label in zip(TEXTS, TEXTS[::-1], ("x", "y") * 3, strict=True)]
    pipe = Pipeline.new("text-classification", tiny_checkpoints["bert"], pl.read(rows))
    assert pipe.task.reads == ("text", "text_pair")
    trace = pipe.trace({"text": "Warm", "text_pair": "Dull"})
    assert list(trace.batch.inputs["token_type_ids"][0]) == pipe.tokenizer("Warm", "Dull")["token_type_ids"]
    assert list(trace.batch.inputs["input_ids"][0]) == pipe.tokenizer("Warm", "Dull")["input_ids"]
    with pytest.raises(pl.PellucidError, match="2 texts"):
        pipe.predict(["only one"])


def test_half_a_gpu_is_not_needed(pipe: Pipeline) -> None:
    assert pipe.budget.max_tokens <= 4096, "small batches on a CPU"
    assert replace(pipe, checkpoint="x").budget == pipe.budget


def test_a_frame_with_two_texts_is_not_guessed_at(pipe: Pipeline) -> None:
    import pandas

    frame = pandas.DataFrame({"title": ["T"], "comment": ["C"]})
    with pytest.raises(pl.PellucidError, match="'title', 'comment' may all be the text"):
        pipe.predict(frame)
    assert pipe.predict(frame["title"]).split[0].fields == {"text": "T"}
    assert pipe.predict(frame.assign(text=["X"])).split[0].fields == {"text": "X"}
    assert pipe.predict(pandas.DataFrame({"utterance": ["U"]})).split[0].fields == {"text": "U"}


def test_the_budget_counts_the_padding(pipe: Pipeline) -> None:
    wide = replace(pipe, options=replace(pipe.options, padding="max_length", max_length=64))
    sizes: list[int] = []
    wide.predict(TEXTS, budget=TokenBudget(max_tokens=128, max_rows=100), progress=lambda done, total: sizes.append(done))
    assert sizes == [2, 4, 6], "two rows of 64 tokens fill 128"


def test_a_trace_keeps_the_number_and_the_target_of_a_row(pipe: Pipeline) -> None:
    rows = pl.read(ROWS, text="text", label="label", options=pl.ReadOptions(valid_fraction=0.0))
    assert pipe.trace(rows.train[3]).example == rows.train[3]


def test_a_task_that_reads_other_fields_is_refused_by_name(tiny_checkpoints: dict[str, Path]) -> None:
    class Question(pl.SequenceClassification):
        @property
        def reads(self) -> tuple[str, ...]:
            return ("question", "context")

    with pytest.raises(pl.PellucidError, match="question"):
        Pipeline.new(Question(("a", "b"), "single_label"), tiny_checkpoints["bert"])


def test_a_folder_that_is_called_minilm_gives_tokenizer_and_weights(tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    import shutil

    shutil.copytree(tiny_checkpoints["bert"], tmp_path / "minilm")
    monkeypatch.chdir(tmp_path)
    pipe = Pipeline.new("text-classification", Path("minilm"), pl.read(ROWS, text="text", label="label"))
    assert pipe.model.config.hidden_size == 32
    assert len(pipe.tokenizer) == pipe.model.config.vocab_size
