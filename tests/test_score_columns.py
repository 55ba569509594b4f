"""Scores as columns: those that `evaluate` gives, from the logits of the validation itself, or only every few epochs."""

import math
from dataclasses import replace

import pytest
import torch
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.interpret import Interpretation
from fastai.metrics import accuracy

import pellucid as pl
from conftest import SENTENCES
from matrix import ARCHITECTURES, COLUMNS, rows_for, subject, tokenizers_of
from pellucid.errors import SettingError
from pellucid.pipelines import Pipeline
from pellucid.training.fastai_blocks import LoaderOptions, balanced_draw
from pellucid.training.fastai_learner import LearnerOptions, learner
from pellucid.training.fastai_scores import Every

BERT = next(one for one in ARCHITECTURES if one.name == "BERT")
XLNET = next(one for one in ARCHITECTURES if one.name == "XLNet")
T5 = next(one for one in ARCHITECTURES if one.name == "T5")


def learn_of(tag, architecture, tokenizers, folder, metrics=None, tokens=None):
    column = next(one for one in COLUMNS if one.tag == tag)
    tokenizer = tokenizers_of(tokenizers)[architecture.tokenizer]
    pipe = subject(architecture, column, tokenizer, folder).pipe
    if tokens is not None:
        pipe = replace(pipe, options=replace(pipe.options, **tokens))
    rows = rows_for(tag, tokenizer.mask_token)
    rows = replace(rows, splits={"train": rows.train, "valid": rows.train})
    return learner(pipe, rows, metrics=metrics, options=LearnerOptions(lr=1e-2, path=folder, loaders=LoaderOptions(bs=2)))


@pytest.mark.parametrize("architecture", [BERT, XLNET], ids=lambda one: one.name)
@pytest.mark.parametrize(("tag", "names"), [("token-classification", None), ("question-answering", None)])
def test_columns_come_from_the_validation_itself(tag, names, architecture, tiny_tokenizers, tmp_path, monkeypatch):
    learn = learn_of(tag, architecture, tiny_tokenizers, tmp_path, names)
    calls = []
    real = Pipeline.predict
    monkeypatch.setattr(Pipeline, "predict", lambda *given, **named: calls.append(1) or real(*given, **named))
    with learn.no_bar():
        learn.fit(3)
    assert not calls, "the rows went through the model once an epoch"
    split = learn.dls.valid.dataset.split
    answers = list(real(learn.pipe, split))
    wanted = [float(score.value) for score in learn.pipe.task.metrics(answers, split.targets(0, len(split)))]
    found = list(learn.recorder.values[-1])[2:]
    assert found and found == pytest.approx(wanted[: len(found)], abs=1e-6, nan_ok=True)


def test_windows_of_a_long_context_are_put_together(tiny_tokenizers, tmp_path, capsys):
    tokens = {"max_length": 24, "long": pl.LongTexts("windows", stride=4)}
    learn = learn_of("question-answering", BERT, tiny_tokenizers, tmp_path, tokens=tokens)
    assert len(learn.dls.valid.table) > len(learn.dls.valid.dataset.split)
    with learn.no_bar():
        learn.fit(1)
    split = learn.dls.valid.dataset.split
    wanted = learn.pipe.task.metrics(list(learn.pipe.predict(split)), split.targets(0, len(split)))
    assert learn.recorder.values[-1][2] == pytest.approx(float(wanted[0].value))
    worst = Interpretation.from_learner(learn)
    losses, windows = worst.top_losses(3)
    _, _, picked = worst.top_losses(3, items=True)
    rows = learn.dls.valid.table.rows[windows.numpy()]
    assert [example.fields for example in picked] == [split[int(row)].fields for row in rows], "windows, each with its row"
    capsys.readouterr()
    worst.plot_top_losses(3)
    assert all(f"{float(loss):.4f}"[:5] in capsys.readouterr().out for loss in losses[:1])


def test_written_texts_are_scored_every_few_epochs(tiny_tokenizers, tmp_path, monkeypatch):
    name = "rouge-l"
    learn = learn_of("text2text-generation", T5, tiny_tokenizers, tmp_path, [Every(name, 2)])
    calls = []
    real = Pipeline.predict
    monkeypatch.setattr(Pipeline, "predict", lambda *given, **named: calls.append(1) or real(*given, **named))
    with learn.no_bar():
        learn.fit(5)
    found = [line[2] for line in learn.recorder.values]
    assert list(learn.recorder.metric_names)[3] == name
    assert [math.isnan(value) for value in found] == [True, False, True, False, False], "every second one, and the last"
    assert len(calls) == 3
    with pytest.raises(SettingError, match="epochs is 0"):
        Every(name, 0)
    with pytest.raises(SettingError, match="no score 'rouge-x'"):
        learn_of("text2text-generation", T5, tiny_tokenizers, tmp_path / "other", [Every("rouge-x", 2)])


def test_metrics_of_fastai_may_rest_too(tiny_checkpoints, tmp_path):
    rows = pl.read([{"text": text, "label": "ab"[place % 2]} for place, text in enumerate(SENTENCES * 2)], text="text", label="label")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    learn = learner(pipe, rows, metrics=["accuracy", Every(accuracy, 3), Every("f1_weighted", 3)], options=LearnerOptions(path=tmp_path))
    with learn.no_bar():
        learn.fit(4)
        lines = [list(line)[2:] for line in learn.recorder.values]
        after = list(learn.validate())
    assert [math.isnan(line[1]) for line in lines] == [math.isnan(line[2]) for line in lines] == [True, True, False, False]
    assert lines[3][0] == pytest.approx(lines[3][1]) and not math.isnan(after[3])


@pytest.fixture
def resting(tiny_checkpoints, tmp_path):
    """A learner with a score every third epoch, whose weights hardly move, so that no score is better than the first."""
    rows = pl.read([{"text": text, "label": "ab"[place % 2]} for place, text in enumerate(SENTENCES)], text="text", label="label")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    options = LearnerOptions(lr=1e-12, path=tmp_path)
    return learner(pipe, rows, metrics=[Every("accuracy", 3), "f1_weighted"], options=options)


@pytest.mark.parametrize(
    ("monitor", "train_metrics", "epochs"), [("accuracy", False, 9), ("valid_accuracy", True, 9), ("f1_weighted", False, 3)]
)
def test_stopping_early_counts_the_epochs_that_have_a_score(resting, monitor, train_metrics, epochs):
    resting.recorder.train_metrics = train_metrics
    with resting.no_bar():
        resting.fit(12, cbs=EarlyStoppingCallback(monitor=monitor, patience=2))
    assert len(resting.recorder.values) == epochs, "the first score is the best, two others are no better"


def test_a_plateau_is_made_of_epochs_that_have_a_score(resting):
    with resting.no_bar():
        resting.fit(9, cbs=ReduceLROnPlateau(monitor="accuracy", patience=1))
    assert resting.opt.hypers[-1]["lr"] == pytest.approx(1e-14, abs=1e-18)


def test_what_counts_no_epochs_goes_on_in_all_of_them(resting):
    saver = SaveModelCallback(monitor="accuracy", every_epoch=1, fname="each")
    with resting.no_bar():
        resting.fit(4, cbs=saver)
    assert sorted(path.stem for path in (resting.path / resting.model_dir).glob("each_*")) == [f"each_{epoch}" for epoch in range(4)]


@pytest.mark.parametrize(("device", "tokens"), [("cpu", 4096), ("cuda", 32768)])
def test_auto_is_a_budget_of_tokens(device, tokens):
    assert LoaderOptions(bs="auto").sized(device) == LoaderOptions(bs=32, max_tokens=tokens)
    assert LoaderOptions(bs="auto", max_tokens=100).sized(device) == LoaderOptions(bs=32, max_tokens=100)
    assert LoaderOptions(bs=7).sized(device) == LoaderOptions(bs=7)
    with pytest.raises(SettingError, match="bs is 'many'"):
        LoaderOptions(bs="many")


def test_auto_makes_batches_within_it(tiny_checkpoints, tmp_path):
    rows = pl.read(skewed(), text="text", label="label")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    options = LearnerOptions(path=tmp_path, loaders=LoaderOptions(bs="auto", max_tokens=200))
    dls = learner(pipe, rows, options=options).dls
    shapes = [batch[0]["input_ids"].shape for batch in dls.train]
    assert sum(rows for rows, _ in shapes) == len(rows.train) and all(count * width <= 200 for count, width in shapes)


# --- balanced rows -----------------------------------------------------------------------------------------------------


def skewed():
    texts = [f"{SENTENCES[place % 12]} {place}" for place in range(60)]
    return [{"text": text, "label": "rare" if place % 10 == 0 else "usual"} for place, text in enumerate(texts)]


@pytest.mark.parametrize("bucket", [True, False])
def test_balanced_rows_come_equally_often(bucket, tiny_checkpoints, tmp_path):
    rows = pl.read(skewed(), text="text", label="label")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    options = LearnerOptions(path=tmp_path, loaders=LoaderOptions(bs=8, balanced=True, bucket=bucket, max_tokens=400))
    dls = learner(pipe, rows, options=options).dls
    labels = torch.cat([batch[1] for _ in range(20) for batch in dls.train])
    assert len(labels) == 20 * len(rows.train)
    assert abs(float((labels == pipe.task.labels.index("rare")).float().mean()) - 0.5) < 0.05
    assert torch.cat([batch[1] for batch in dls.valid]).shape == (len(rows.valid),)
    one, other = dls.train.plan(0), dls.train.plan(0)
    assert all(part.tolist() == same.tolist() for part, same in zip(one, other, strict=True)), "the same seed and epoch, the same rows"
    assert [part.tolist() for part in one] != [part.tolist() for part in dls.train.plan(1)]


def test_balance_needs_one_label_a_row(tiny_checkpoints):
    rows = rows_for("token-classification", None)
    pipe = pl.Pipeline.new("token-classification", tiny_checkpoints["bert"], rows)
    rows = replace(rows, splits={"train": rows.train, "valid": rows.train})
    with pytest.raises(SettingError, match="no single label"):
        learner(pipe, rows, options=LearnerOptions(loaders=LoaderOptions(balanced=True)))
    assert set(balanced_draw([0, 0, 0, 2], 1, 0).tolist()) <= {0, 1, 2, 3}
