"""What `pl.train` and the command line can be told of a training, and what is chosen where nobody says."""

from dataclasses import replace

import numpy as np
import pytest

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import SettingError


def rows() -> pl.Rows:
    """Forty rows; one label is rare."""
    found = [{"text": f"{SENTENCES[p % 12]} {p}", "label": "rare" if p % 5 == 0 else "usual"} for p in range(40)]
    return pl.read(found, text="text", label="label")


def tagged() -> pl.Rows:
    """Twenty rows of words with tags."""
    sentences = [SENTENCES[place % 12].split() for place in range(20)]
    found = [{"words": words, "tags": ["B-x", *["O"] * (len(words) - 1)]} for words in sentences]
    return pl.read(found, text="words", label="tags")


def test_what_was_asked_for_reaches_the_learner(tiny_checkpoints):
    options = pl.TrainOptions(
        epochs=1, precision="auto", label_smoothing=0.1, class_weights="balanced", accumulate=2, gradient_checkpointing=True
    )
    trained = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=options)
    said = " ".join(map(str, trained.notes))
    assert "training computes in" in said and "labels are weighed in the loss: rare 2.67" in said
    assert any("training computes" in note.what for note in trained.pipeline.notes)
    assert "label smoothing 0.1" in repr(trained.learner.loss_func) and "class weights" in repr(trained.learner.loss_func)
    assert np.isfinite(trained.history[-1][1])


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"class_weights": "x"}, "no class_weights 'x'"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"freeze_epochs": -1}, "freeze_epochs is -1"),
        ({"batch_size": "many"}, 'batch_size is .many., expected 1 to 1000000, or "auto"'),
        ({"batch_size": 2.5}, "batch_size is 2.5.*Pass a whole number"),
        ({"batch_size": True}, "batch_size is True"),
        ({"epochs": 1.5}, "epochs is 1.5.*Pass a whole number"),
        ({"epochs": "auto"}, "epochs is 'auto'"),
        ({"epochs": None}, "epochs is None"),
        ({"max_tokens": 0}, "max_tokens is 0, expected 1 to"),
        ({"checkpoint_every": 2.5}, "checkpoint_every is 2.5"),
        ({"warmup": "long"}, "warmup is 'long', expected 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(bad, match):
    with pytest.raises(SettingError, match=match):
        pl.TrainOptions(**bad)


def test_batches_of_a_size_that_is_chosen(tiny_checkpoints, tmp_path):
    """`batch_size="auto"` is what LoaderOptions makes of it; a run that was interrupted goes on with it."""
    options = pl.TrainOptions(epochs=1, batch_size="auto", checkpoints=tmp_path / "kept", checkpoint_every=1)
    trained = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=options)
    loader = trained.learner.dls.train
    assert (loader.bs, loader.options.bs, loader.options.max_tokens) == (32, 32, 4096)
    again = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=replace(options, resume=True))
    assert again.history == trained.history and any("goes on" in str(note) for note in again.notes)
    bounded = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1, batch_size="auto", max_tokens=90))
    assert all(batch[0]["input_ids"].numel() <= 90 for batch in bounded.learner.dls.train)


def test_a_new_head_that_labels_tokens_is_trained_alone_first_and_that_is_said(tiny_checkpoints):
    """With everything at once named entities learned nothing in three epochs; with the head alone before, two were enough."""
    trained = pl.train(tagged(), "token-classification", tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1))
    assert len(trained.history) == 2 and "trained alone for one epoch first" in " ".join(map(str, trained.notes))
    at_once = pl.train(tagged(), "token-classification", tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1, freeze_epochs=0))
    assert len(at_once.history) == 1 and "trained alone" not in " ".join(map(str, at_once.notes))
    rest = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1))
    assert len(rest.history) == 1, "a head for whole texts learns with the rest"


def test_a_learner_shows_its_groups(tiny_checkpoints, capsys):
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows())
    learn = pl.learner(pipe, rows())
    learn.freeze()
    learn.show_groups()
    said = capsys.readouterr().out
    trainable = [line for line in said.splitlines() if line.rstrip().endswith("yes")]
    assert "head" in said and len(trainable) == 1 and trainable[0].lstrip().startswith("head"), said
