"""Zero-shot classification: transformers' numbers, where entailment is found, embeddings, what is refused, evaluation, back from disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES, TOKENIZERS, tiny_config
from pellucid.pipelines import Pipeline
from pellucid.task import settings_of, task_from
from pellucid.tasks.zero_shot import ZeroShotClassification, nli_classes
from pellucid.testing import (
    Subject,
    encode_leaves_its_input_alone,
    errors_name_the_row,
    inputs_fit_the_model,
    order_does_not_matter,
    provenance_sums_up,
    row_alone_answers_as_in_a_batch,
    settings_come_back,
    trace_answers_as_predict,
)
from pellucid.tokens import LongTexts, TokenOptions

LABELS = ("film", "politics", "a city in Europe")
NLI = {"bert": ("contradiction", "neutral", "entailment"), "xlm-roberta": ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")}
NLI |= {"gpt2": ("Contradiction", "Entailment"), "two": ("entailment", "not_entailment")}
TOKENIZER = {"bert": "wordpiece", "xlm-roberta": "unigram", "gpt2": "bpe", "two": "wordpiece"}
ALL = pl.ReadOptions(valid_fraction=0.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random classifiers whose labels are those of NLI, with three kinds of tokenizer."""
    from transformers import AutoModelForSequenceClassification

    found = {}
    for name, labels in NLI.items():
        tokenizer = TOKENIZERS[TOKENIZER[name]]()  # one of its own: it gets a padding token
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        config = tiny_config("bert" if name == "two" else name, len(tokenizer))
        config.id2label, config.label2id = dict(enumerate(labels)), {label: number for number, label in enumerate(labels)}
        config.pad_token_id = tokenizer.pad_token_id
        folder = tmp_path_factory.mktemp("nli") / name
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = AutoModelForSequenceClassification.from_config(config)
            for parameter in model.parameters():  # so that scores differ
                parameter.data = torch.randn_like(parameter) * 0.3 if parameter.dim() > 1 else parameter.data
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = folder
    return found


def pipe_of(folder: Path, **settings: Any) -> Pipeline:
    return Pipeline.new(ZeroShotClassification(**{"candidate_labels": LABELS, **settings}), folder)


# --- the same numbers as transformers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, ("film",)])
@pytest.mark.parametrize("name", NLI)
def test_the_numbers_of_transformers(name: str, labels: tuple[str, ...], multi_label: bool, folders: dict[str, Path]) -> None:
    from transformers import pipeline

    theirs = pipeline("zero-shot-classification", model=str(folders[name]), tokenizer=str(folders[name]))
    pipe = pipe_of(folders[name], candidate_labels=labels, multi_label=multi_label, template="It is about {}.")
    for text in SENTENCES[:5]:
        wanted = theirs(text, candidate_labels=list(labels), hypothesis_template="It is about {}.", multi_label=multi_label)
        prediction = pipe(text)
        assert dict(prediction.scores) == pytest.approx(dict(zip(wanted["labels"], wanted["scores"], strict=True)), abs=1e-5)
        assert tuple(prediction.scores) == labels, "in the order in which they were given"
        if not multi_label:
            assert prediction.answer == wanted["labels"][0]
        else:
            assert prediction.answer == tuple(label for label in labels if prediction.scores[label] >= 0.5)


def test_one_batch_holds_all_candidates(folders: dict[str, Path]) -> None:
    pipe = pipe_of(folders["bert"])
    table = pipe.task.encode(pipe.tokenizer, {"text": list(SENTENCES[:4])}, None, pipe.options)
    assert table.rows.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert table.windows.tolist() == [0, 1, 2] * 4
    batch = pipe.collate(table, np.arange(len(table)))
    assert len(batch) == 12 and pipe.run(batch).logits.shape == (12, 1, 3)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("contradiction", "neutral", "entailment"), (2, 0)),
        (("entailment", "neutral", "contradiction"), (0, 2)),
        (("Neutral", "ENTAILMENT", "Contradiction"), (1, 2)),
        (("entailment", "not_entailment"), (0, 1)),
        (("not_entailment", "entailment"), (1, 0)),
        (("non-entailment", "entailment", "other"), (1, 0)),
        (("nli_entailment", "nli_neutral"), (0, 1)),
    ],
)
def test_entailment_is_found_by_name(names: tuple[str, ...], expected: tuple[int, int]) -> None:
    assert nli_classes(names, "a checkpoint") == expected


# --- texts ---------------------------------------------------------------------------------------------------------------


def test_only_the_text_is_cut(folders: dict[str, Path]) -> None:
    pipe = pipe_of(folders["bert"])
    text = "the film is old " * 60
    windows = pipe.source(pl.read([{"text": text}], text="text", label=False, options=ALL).train).windows(0)
    for label, tokens in zip(LABELS, windows, strict=True):
        kept = [piece for piece, field in zip(tokens.pieces, tokens.segments, strict=True) if field == "text_pair"]
        assert kept == pipe.tokenizer.tokenize(f"This example is {label}.")
        assert len(tokens) == pipe.options.max_length and tokens.lost > 0
    table = pipe.task.encode(pipe.tokenizer, {"text": [text]}, None, pipe.options)
    assert table.lost.tolist()[1:] == [0, 0], "what is cut is counted once"
    assert len(pipe(text).scores) == 3


def test_texts_in_windows_are_refused(folders: dict[str, Path]) -> None:
    pipe = replace(pipe_of(folders["bert"]), options=TokenOptions(max_length=64, long=LongTexts("windows")))
    with pytest.raises(pl.PellucidError, match="not in windows"):
        pipe("a film")


def test_the_trace_shows_a_window_for_each_label(folders: dict[str, Path]) -> None:
    for settings in ({}, {"method": "embeddings"}):
        pipe = pipe_of(folders["bert"], **settings)
        trace = pipe.trace(SENTENCES[0])
        assert len(trace.tokens) == len(LABELS) + bool(settings)
        assert [tokens.ids for tokens in trace.tokens] == [tuple(row[row != 0].tolist()) for row in trace.batch.inputs["input_ids"]]
        assert trace.prediction.scores == pytest.approx(dict(pipe(SENTENCES[0]).scores), abs=1e-6)
        pl.show(trace)
        pl.show(pipe.task.view(trace.prediction, trace.example))


def test_labels_at_call_time(folders: dict[str, Path]) -> None:
    pipe = Pipeline.new("zero-shot-classification", folders["bert"])
    with pytest.raises(pl.PellucidError, match="no candidate labels"):
        pipe("a film")
    asked = replace(pipe, task=replace(pipe.task, candidate_labels=("a", "b")))
    assert set(asked("a film").scores) == {"a", "b"}


# --- embeddings ----------------------------------------------------------------------------------------------------------


def test_embeddings_are_cosines_of_mean_pooled_vectors(folders: dict[str, Path]) -> None:
    pipe = pipe_of(folders["bert"], method="embeddings")
    assert any("mean-pooled" in str(note) for note in pipe.notes)
    texts = [SENTENCES[0], *(f"This example is {label}." for label in LABELS)]
    vectors = Pipeline.new("feature-extraction", folders["bert"]).features(texts)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit[1:] @ unit[0]
    powers = np.exp(20 * cosines)
    assert list(pipe(texts[0]).scores.values()) == pytest.approx((powers / powers.sum()).tolist(), abs=1e-5)
    several = replace(pipe, task=replace(pipe.task, multi_label=True))
    assert list(several(texts[0]).scores.values()) == pytest.approx(np.maximum(cosines, 0).tolist(), abs=1e-5)


def test_minilm_knows_films_from_cities(minilm_folder: Path) -> None:
    pipe = Pipeline.new(
        ZeroShotClassification(("film", "sport", "cooking"), "This text is about {}.", method="embeddings"), str(minilm_folder)
    )
    texts = {"The actress won an Oscar.": "film", "The striker scored a late goal.": "sport", "Simmer the onions slowly.": "cooking"}
    assert [prediction.answer for prediction in pipe(list(texts))] == list(texts.values())


# --- what is refused -----------------------------------------------------------------------------------------------------


def test_a_head_that_says_no_entailment(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(pl.PellucidError, match=r"no trained head.*embeddings"):
        pipe_of(tiny_checkpoints["bert"])
    rows = pl.read(
        [{"text": text, "label": "good" if row % 2 else "bad"} for row, text in enumerate(SENTENCES)], label="label", options=ALL
    )
    folder = pl.save(Pipeline.new("text-classification", tiny_checkpoints["bert"], rows), tmp_path / "good")
    with pytest.raises(pl.PellucidError, match=r"does not say entailment.*'bad', 'good'.*embeddings"):
        pipe_of(folder)


def test_training_is_refused_and_says_how_it_is_done(folders: dict[str, Path]) -> None:
    rows = pl.read([{"text": text, "label": "good" if row % 2 else "bad"} for row, text in enumerate(SENTENCES)], label="label")
    pipe = Pipeline.new("zero-shot-classification", folders["bert"], rows)
    assert pipe.task.labels == ("bad", "good"), "the labels of the rows are the candidates"
    with pytest.raises(pl.PellucidError, match=r"no training.*text-classification.*pairs"):
        pl.learner(pipe, rows)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"candidate_labels": "film, city"}, r"Pass \('film', 'city'\)"),
        ({"candidate_labels": ["film", "city"]}, r"Pass \('film', 'city'\)"),
        ({"candidate_labels": ("film", "film")}, "two classes"),
        ({"candidate_labels": ("film", "")}, "non-empty"),
        ({"template": "about it"}, "no place for a label"),
        ({"method": "guess"}, "no method 'guess'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(pl.PellucidError, match=says):
        ZeroShotClassification(**{"candidate_labels": LABELS, **settings})


@pytest.mark.parametrize("text", [None, 3, b"a film"])
def test_what_is_no_text_is_named_by_its_row(text: object, folders: dict[str, Path]) -> None:
    pipe = pipe_of(folders["bert"])
    with pytest.raises(pl.PellucidError, match=r"row 2, column 'text'"):
        pipe.task.encode(pipe.tokenizer, {"text": ["a", "b", text, "d"]}, None, pipe.options)  # type: ignore[list-item]


@pytest.mark.parametrize("target", ["weather", None, ("film", "politics")])
def test_a_target_that_is_no_candidate_is_named(target: Any, folders: dict[str, Path]) -> None:
    pipe = pipe_of(folders["bert"])
    with pytest.raises(pl.PellucidError, match="row 1"):
        pipe.task.encode(pipe.tokenizer, {"text": ["a", "b"]}, ["film", target], pipe.options)


# --- scores, the contract, the disk ----------------------------------------------------------------------------------------


def rows_of(several: bool = False) -> pl.Rows:
    names = [["film"], ["film", "politics"], [], ["a city in Europe"]] if several else ["film", "politics", "film", "a city in Europe"]
    rows = [{"text": text, "label": names[row % 4]} for row, text in enumerate(SENTENCES)]
    return pl.read(rows, text="text", label="label", options=ALL)


@pytest.mark.parametrize("several", [False, True])
def test_evaluation_is_that_of_classes(several: bool, folders: dict[str, Path]) -> None:
    pipe = Pipeline.new(ZeroShotClassification(multi_label=several), folders["bert"], rows_of(several))
    report = pl.evaluate(pipe, rows_of(several).train)
    right = [prediction.answer == target for prediction, target in zip(pipe.predict(rows_of(several).train), targets(several), strict=True)]
    scores = {score.name: score.value for score in report.scores}
    assert scores["subset accuracy" if several else "accuracy"] == pytest.approx(np.mean(right))


def targets(several: bool) -> list[Any]:
    split = rows_of(several).train
    return split.targets(0, len(split))


CHECKED = (
    inputs_fit_the_model,
    encode_leaves_its_input_alone,
    row_alone_answers_as_in_a_batch,
    order_does_not_matter,
    provenance_sums_up,
    settings_come_back,
    trace_answers_as_predict,
    errors_name_the_row,
)


@pytest.mark.parametrize("check", CHECKED, ids=lambda check: check.__name__)
@pytest.mark.parametrize("settings", [{}, {"multi_label": True}, {"method": "embeddings"}], ids=str)
@pytest.mark.parametrize("name", NLI)
def test_contract(name: str, settings: dict[str, Any], check: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    several = settings.get("multi_label", False)
    pipe = Pipeline.new(ZeroShotClassification(**settings), folders[name], rows_of(several))
    check(Subject(pipe, rows_of(several).train, tmp_path))


@pytest.mark.parametrize("settings", [{}, {"multi_label": True}, {"method": "embeddings"}], ids=str)
def test_saved_and_loaded_it_answers_the_same(settings: dict[str, Any], folders: dict[str, Path], tmp_path: Path) -> None:
    pipe = pipe_of(folders["bert"], **settings)
    again = pl.load(pl.save(pipe, tmp_path / "model"))
    assert again.task == pipe.task == task_from(ZeroShotClassification, settings_of(pipe.task))
    assert again(SENTENCES[0]) == pipe(SENTENCES[0])
    if not settings:
        from transformers import AutoConfig

        assert AutoConfig.from_pretrained(tmp_path / "model").id2label == dict(enumerate(NLI["bert"])), "the head keeps its own labels"


def test_a_model_trained_on_pairs_becomes_a_zero_shot_model(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"text": SENTENCES[row % 12], "text_pair": SENTENCES[(row * 7) % 12], "label": NLI["bert"][row % 3]} for row in range(24)]
    pairs = pl.read(rows, text="text", text_pair="text_pair", label="label")
    pipe = Pipeline.new("text-classification", tiny_checkpoints["bert"], pairs)
    learn = pl.learner(pipe, pairs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    zero = pipe_of(pl.save(pipe, tmp_path / "nli"))
    assert (zero.task.entailment, zero.task.contradiction) == (1, 0), "labels are sorted: contradiction, entailment, neutral"
    assert sum(zero(SENTENCES[0]).scores.values()) == pytest.approx(1.0)
