"""Training in one call."""

from pathlib import Path

import pytest
import torch

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import SettingError
from pellucid.training.one_call import TrainOptions, train


@pytest.fixture(scope="module")
def rows():
    texts = [f"{'good' if place % 2 else 'bad'} {text} {copy}" for copy in range(4) for place, text in enumerate(SENTENCES)]
    data = [{"text": text, "label": text.split()[0], "split": "train" if place < 36 else "valid"} for place, text in enumerate(texts)]
    return pl.read(data, text="text", label="label", split="split")


def trained(rows, tiny_checkpoints, **options):
    small = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 4}
    return train(rows, checkpoint=tiny_checkpoints["bert"], options=TrainOptions(**{**small, **options}))


def test_the_same_seed_gives_the_same_weights_bit_for_bit(rows, tiny_checkpoints):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = trained(rows, tiny_checkpoints)
    assert torch.equal(torch.get_rng_state(), state), "torch's random numbers are left as they were"
    torch.manual_seed(99)
    other, third = trained(rows, tiny_checkpoints), trained(rows, tiny_checkpoints, seed=1)
    first = one.pipeline.model.state_dict()
    assert all(torch.equal(tensor, other.pipeline.model.state_dict()[name]) for name, tensor in first.items())
    assert not all(torch.equal(tensor, third.pipeline.model.state_dict()[name]) for name, tensor in first.items())


def test_it_learns_and_says_what_it_did(rows, tiny_checkpoints, capsys):
    found = trained(rows, tiny_checkpoints, epochs=8)
    assert "train_loss" in capsys.readouterr().out, "progress is shown"
    assert found.learner.model is found.pipeline.model and found.seconds > 0
    assert found.columns == ("train_loss", "valid_loss", "accuracy", "f1_weighted") and len(found.history) == 8
    assert found.history[-1][0] < found.history[0][0]
    assert set(found.pipeline.notes) <= set(found.notes)
    pl.show(found)
    assert "valid_loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [{"scheduler": "linear"}, {"scheduler": "linear", "warmup": 0.0}, {"freeze_epochs": 1}, {"max_tokens": 60}]
)
def test_other_ways_to_train(rows, tiny_checkpoints, options):
    found = trained(rows, tiny_checkpoints, **options)
    assert all(parameter.requires_grad for parameter in found.pipeline.model.parameters())
    rates = found.learner.recorder.hps["lr"]
    assert max(rates) <= 1e-3 + 1e-12
    if options.get("scheduler") == "linear":
        assert rates[-1] < 2e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"scheduler": "cosine"}, "there is no schedule 'cosine'"),
    ],
)
def test_options_outside_what_is_possible(options, message):
    with pytest.raises(SettingError, match=message):
        TrainOptions(**options)


def test_validation_rows_without_labels_are_refused_before_the_training(tiny_checkpoints: dict[str, Path]) -> None:
    labelled = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(12)]
    rows = pl.read({"train": labelled, "valid": [{"text": "t", "label": None}]}, text="text", label="label")
    with pytest.raises(pl.PellucidError, match="validation rows have no labels"):
        pl.train(rows, "text-classification", tiny_checkpoints["bert"])


def test_the_history_has_a_line_for_every_epoch(tiny_checkpoints: dict[str, Path]) -> None:
    rows = pl.read([{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(20)], text="text", label="label")
    options = pl.TrainOptions(epochs=2, freeze_epochs=1)
    assert len(pl.train(rows, "text-classification", tiny_checkpoints["bert"], options=options).history) == 3
