"""A training that was interrupted and goes on: the same weights and curves to the bit, or a refusal that names what differs."""

import contextlib
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import GradientAccumulation, GradientClip, ShortEpochCallback
from fastai.learner import Recorder

import pellucid as pl
from pellucid.errors import CheckpointError, SettingError, StorageError
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_callbacks import Accumulate, EmbeddingMixup, FiniteSteps, GradientCheckpointing, WeightAverage
from pellucid.training.fastai_checkpoints import Checkpoints
from pellucid.training.fastai_learner import BFloat16, LearnerOptions
from pellucid.training.fastai_scores import score_columns
from pellucid.training.one_call import TrainOptions, train
from pellucid.training.resume import CheckpointFolder
from pellucid.training.resume_state import differences, random_state, set_random_state
from resumed import BATCHES, VERBS, Crash, Crashed, Training, rows_of, seeded

pytestmark = pytest.mark.usefixtures("ctrl_c")


@pytest.fixture
def make(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Any:
    def training(**options: Any) -> Training:
        return Training(tiny_checkpoints["bert"], tmp_path / "run", **options)

    return training


def steps_in(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in CheckpointFolder(folder / "checkpoints").folders()]


# --- to the bit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("at", [4, 2 * BATCHES + 2])
def test_what_was_interrupted_ends_as_if_nothing_had_happened(make: Any, tmp_path: Path, verb: str, at: int) -> None:
    training = make(verb=VERBS[verb])
    training.broken(at)
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))
    assert len(steps_in(training.folder)) == 2, "the last two are kept"


def test_a_resume_can_be_interrupted_again_and_again(make: Any, tmp_path: Path) -> None:
    training = make(verb=VERBS["fine_tune"])
    training.broken(4)
    for seed in range(1, 5):
        training.broken(4, seed=seed, resume=True)
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


@pytest.mark.parametrize("at", [BATCHES, BATCHES + 1])
def test_between_the_epochs(make: Any, tmp_path: Path, at: int) -> None:
    training = make(steps=BATCHES)  # written behind the last batch of an epoch, before its validation
    with pytest.raises(Crashed):
        training.run(Crash(1 if at == BATCHES else 3, training=False))
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


def early() -> list[Any]:
    return [SaveModelCallback(fname="best"), EarlyStoppingCallback(monitor="accuracy", patience=1), CSVLogger()]


CALLBACKS: dict[str, Any] = {
    "none": list,
    "GradientAccumulation": lambda: [GradientAccumulation(24)],
    "ReduceLROnPlateau": lambda: [ReduceLROnPlateau(monitor="accuracy", patience=1)],
    "SaveModel, EarlyStopping, CSVLogger": early,
    "clip, nan": lambda: [GradientClip(0.1), TerminateOnNaNCallback()],
    "ShortEpoch": lambda: [ShortEpochCallback(0.5)],
    "BFloat16": lambda: [BFloat16()],
    "MixedPrecision": lambda: [MixedPrecision("bf16")],
    "Accumulate": lambda: [Accumulate(2)],
    "WeightAverage": lambda: [WeightAverage(0.9)],
    "EmbeddingMixup, FiniteSteps": lambda: [EmbeddingMixup(0.2), FiniteSteps()],
}


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.filterwarnings("ignore:.*torch.autocast")
@pytest.mark.parametrize("name", CALLBACKS)
def test_what_fastais_callbacks_remember_goes_on(make: Any, tmp_path: Path, name: str) -> None:
    training = make(verb=VERBS["fit"], callbacks=CALLBACKS[name], steps=1)
    training.broken(BATCHES + 3)
    left = training.run(seed=7, resume=True)
    assert left.same(training.without(tmp_path / "whole"))
    if "CSVLogger" in name:
        one, other = ((folder / "history.csv").read_text().splitlines() for folder in (training.folder, tmp_path / "whole"))
        assert [line.rpartition(",")[0] for line in one] == [line.rpartition(",")[0] for line in other], "but for the time"


def test_batches_of_a_token_budget(make: Any, tmp_path: Path) -> None:
    training = make(loaders=LoaderOptions(bs=8, max_tokens=120, seed=3))
    training.broken(9)
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


def test_masks_of_a_masked_language_model(make: Any, tmp_path: Path) -> None:
    def texts() -> pl.Rows:
        split = [{"text": example.fields["text"]} for example in (rows_of().train[place] for place in range(24))]
        return pl.read({"train": split, "valid": split[:6]}, text="text", label=False)

    training = make(rows=texts, task="fill-mask", verb=VERBS["fit_linear"])
    training.broken(5)
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


class Counting(Callback):
    """A callback of somebody else that remembers something of the epoch."""

    def __init__(self) -> None:
        self.epoch_losses, self.sums = 0.0, [0.0]

    def before_train(self) -> None:
        self.epoch_losses = 0.0

    def after_batch(self) -> None:
        if self.learn.training:
            self.epoch_losses += float(self.learn.loss.detach())

    def after_epoch(self) -> None:
        self.sums.append(self.epoch_losses)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch_losses": self.epoch_losses, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch_losses, self.sums = state["epoch_losses"], list(state["sums"])


def test_a_callback_with_a_state_dict_takes_part(make: Any, tmp_path: Path) -> None:
    made: list[Counting] = []

    def callbacks() -> list[Any]:
        made.append(Counting())
        return [made[-1]]

    training = make(callbacks=callbacks)
    training.broken(BATCHES + 4)
    training.run(seed=7, resume=True)
    training.without(tmp_path / "whole")
    assert made[1].sums == made[2].sums and len(made[2].sums) == 4


def test_one_call(tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"epochs": 2, "freeze_epochs": 1, "learning_rate": 1e-3, "batch_size": 8}
    whole = train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=TrainOptions(**options))
    told = {**options, "checkpoints": tmp_path / "kept", "checkpoint_every": 2}
    write = CheckpointFolder.write

    def crash(self: CheckpointFolder, position: Any, *rest: Any) -> Path:
        folder = write(self, position, *rest)
        if position.step == 8:
            raise Crashed("on purpose")
        return folder

    monkeypatch.setattr(CheckpointFolder, "write", crash)
    with pytest.raises(Crashed):
        train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=TrainOptions(**told))
    monkeypatch.undo()
    found = train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=TrainOptions(**told, resume=True))
    state = found.pipeline.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.pipeline.model.state_dict().items())
    assert found.history == whole.history and len(found.history) == 3
    assert any("goes on after step 8 (fit 2, epoch 0, batch 3)" in str(note) for note in found.notes)
    assert not any(isinstance(callback, Checkpoints) for callback in found.learner.cbs)


def test_lr_find_and_predictions_are_no_part_of_a_run(make: Any) -> None:
    training = make()
    learn = training.learner(0)
    keeper = Checkpoints(training.folder / "checkpoints", steps=1)
    learn.add_cb(keeper)
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=8, show_plot=False)
        learn.validate()
        learn.get_preds()
        assert not steps_in(training.folder)
        learn.fit(1)
    assert steps_in(training.folder) == [BATCHES, BATCHES - 1]


# --- Ctrl-C --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("in_training", "at", "kept"), [(True, BATCHES + 2, BATCHES + 2), (False, 3, 2 * BATCHES)])
def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(make: Any, tmp_path: Path, in_training: bool, at: int, kept: int) -> None:
    training = make(steps=1000)
    crash = Crash(at, lambda: signal.raise_signal(signal.SIGINT), training=in_training)
    with pytest.raises(KeyboardInterrupt, match=rf"step-0*{kept} is kept in .*: go on with resume=True"):
        training.run(crash)
    assert steps_in(training.folder) == [kept]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


def test_ctrl_c_in_a_validation_keeps_the_epoch_beside_accumulated_batches(make: Any, tmp_path: Path) -> None:
    training = make(steps=1000, callbacks=lambda: [Accumulate(2)])
    with pytest.raises(KeyboardInterrupt, match=rf"step-0*{2 * BATCHES} is kept"):
        training.run(Crash(3, lambda: signal.raise_signal(signal.SIGINT), training=False))
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


def test_ctrl_c_that_other_code_swallows_in_a_validation_counts_at_the_next_step(make: Any, tmp_path: Path) -> None:
    def swallowed() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    training = make(steps=1000)
    with pytest.raises(KeyboardInterrupt, match=rf"step-0*{BATCHES + 1} is kept"):
        training.run(Crash(1, swallowed, training=False))
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


def test_a_second_ctrl_c_ends_at_once(make: Any) -> None:
    training = make(steps=3)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="step-00000003 is kept"):
        training.run(Crash(5, twice))
    assert steps_in(training.folder) == [3]


def test_ctrl_c_before_the_first_checkpoint(make: Any) -> None:
    def now() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="no checkpoint was written yet"):
        make(steps=1000).run(Crash(2, now))


def test_a_notebook_goes_on_with_the_learner_that_it_has(make: Any, tmp_path: Path) -> None:
    training = make()
    learn = training.learner(0)
    crash = Crash(7, lambda: signal.raise_signal(signal.SIGINT))
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(KeyboardInterrupt):
            training.verb(learn, [crash, Checkpoints(training.folder / "checkpoints", steps=2)])
        training.verb(learn, [Crash(), Checkpoints(training.folder / "checkpoints", steps=2, resume=True)])
    whole = training.without(tmp_path / "whole")
    assert all(torch.equal(tensor, whole.weights[name]) for name, tensor in learn.model.state_dict().items())


@pytest.mark.parametrize("on_learner", [True, False])
@pytest.mark.parametrize(("in_training", "at"), [(True, BATCHES + 2), (False, 3)])
@pytest.mark.parametrize("name", ["EmbeddingMixup", "EmbeddingMixup, WeightAverage, GradientCheckpointing"])
def test_a_notebook_goes_on_with_callbacks_that_change_a_learner(
    make: Any, tmp_path: Path, name: str, in_training: bool, at: int, on_learner: bool
) -> None:
    made = {"EmbeddingMixup": EmbeddingMixup, "WeightAverage": WeightAverage, "GradientCheckpointing": GradientCheckpointing}
    training = make(callbacks=lambda: [made[each]() for each in name.split(", ")], steps=3)
    learn, mine, kept = training.learner(0), training.callbacks(), training.folder / "checkpoints"
    if on_learner:
        learn.add_cbs(mine)
    crash = Crash(at, lambda: signal.raise_signal(signal.SIGINT), training=in_training)
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(KeyboardInterrupt, match="go on with resume=True"):
            training.verb(learn, [crash, Checkpoints(kept, steps=3), *([] if on_learner else mine)])
        if in_training or "Weight" not in name:  # where another callback has put weights in, the last one from the training counts
            assert steps_in(training.folder)[0] == (at if in_training else 2 * BATCHES)
        training.verb(learn, [Crash(), Checkpoints(kept, steps=3, resume=True), *([] if on_learner else mine)])
    whole = training.without(tmp_path / "whole")
    assert all(torch.equal(tensor, whole.weights[name]) for name, tensor in learn.model.state_dict().items())
    assert np.array_equal(np.array(learn.recorder.values, dtype=float), np.array(whole.values, dtype=float))


# --- damage --------------------------------------------------------------------------------------------------------------


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-9] ^= 4
    file.write_bytes(raw)


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors", "pellucid.json"])
def test_a_damaged_checkpoint_is_left_aside_and_said(make: Any, tmp_path: Path, name: str) -> None:
    training = make()
    training.broken(9)
    assert steps_in(training.folder) == [8, 6]
    flip(training.folder / "checkpoints" / "step-00000008" / name)
    keeper = Checkpoints(training.folder / "checkpoints", steps=2, resume=True)
    with pytest.warns(UserWarning, match=r"damaged checkpoint was left aside: step-00000008"):
        left = training.run(seed=7, keeper=keeper)
    assert left.same(training.without(tmp_path / "whole"))
    assert any("after step 6" in str(note) for note in keeper.notes)


def test_half_a_checkpoint_is_none(make: Any) -> None:
    training = make()
    training.broken(9)
    (training.folder / "checkpoints" / "step-00000008" / "state.safetensors").unlink()
    shutil.rmtree(training.folder / "checkpoints" / "step-00000006")
    with pytest.raises(CheckpointError, match=r"no checkpoint there is whole: step-00000008: the file is missing"):
        training.run(resume=True)


def test_weights_that_are_no_numbers_do_not_replace_good_ones(make: Any) -> None:
    training = make(steps=1)

    def ruin() -> None:
        for parameter in learn.model.parameters():
            parameter.data.fill_(float("nan"))

    learn = training.learner(0)
    with learn.no_bar(), learn.no_logging(), pytest.warns(UserWarning, match=r"could not be written, training goes on"):
        training.verb(learn, [Crash(4, ruin), Checkpoints(training.folder / "checkpoints", steps=1)])
    assert steps_in(training.folder) == [3, 2]


# --- refusals ------------------------------------------------------------------------------------------------------------


class Unknown(Callback):
    """A callback that remembers nobody knows what."""


def test_a_callback_that_nobody_knows_is_refused_by_name(make: Any) -> None:
    with pytest.raises(SettingError, match=r"the callback Unknown remembers.*state_dict\(\).*stateless = True"):
        make(callbacks=lambda: [Unknown()]).run()
    with pytest.raises(SettingError, match=r"the callback Better remembers"):
        make(callbacks=lambda: [type("Better", (SaveModelCallback,), {})()]).run()
    Unknown.stateless = True
    try:
        make(callbacks=lambda: [Unknown()]).run()
    finally:
        del Unknown.stateless


def test_scores_of_the_training_rows_are_refused(make: Any) -> None:
    training = make()
    learn = training.learner(0)
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    with pytest.raises(SettingError, match="Recorder: scores of the training rows"):
        learn.fit(1, cbs=Checkpoints(training.folder))


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "rows": ({"rows": lambda: rows_of(word="once")}, r"rows\.train\.content is another one|rows\.train\.tokens was"),
    "epochs": ({"verb": lambda learn, cbs: learn.fit_one_cycle(4, 1e-3, cbs=cbs)}, "epochs was 3, is 4"),
    "rate": ({"verb": lambda learn, cbs: learn.fit_one_cycle(3, 2e-3, cbs=cbs)}, r"schedule\.lr was up to 0\.001 .*is up to 0\.002"),
    "decay": ({"verb": lambda learn, cbs: learn.fit_one_cycle(3, 1e-3, wd=0.5, cbs=cbs)}, r"wd was 0\.01, is 0\.5"),
    "schedule": ({"verb": VERBS["fit_linear"]}, r"schedule\.lr was"),
    "batch size": ({"loaders": LoaderOptions(bs=4)}, r"batches\.bs was 8, is 4"),
    "seed": ({"loaders": LoaderOptions(bs=8, seed=1)}, r"batches\.seed was 42, is 1"),
    "callbacks": ({"callbacks": lambda: [GradientClip(0.1)]}, "GradientClip is new"),
    "frozen": ({"verb": lambda learn, cbs: (learn.freeze(), learn.fit_one_cycle(3, 1e-3, cbs=cbs))}, r"trained\.tensors was"),
}


SETTINGS: dict[str, tuple[Any, Any, str]] = {
    "accumulate": (lambda: [Accumulate(2)], lambda: [Accumulate(4)], "Accumulate.batches was 2, is 4"),
    "average": (lambda: [WeightAverage(0.9)], lambda: [WeightAverage(0.99)], r"WeightAverage.decay was 0\.9, is 0\.99"),
    "start": (lambda: [WeightAverage(0.9)], lambda: [WeightAverage(0.9, start=0.5)], r"WeightAverage.start was 0\.0, is 0\.5"),
    "mixup": (lambda: [EmbeddingMixup(0.2)], lambda: [EmbeddingMixup(2.0)], r"EmbeddingMixup.alpha was 0\.2, is 2\.0"),
    "own": (lambda: [Longest(3)], lambda: [Longest(4)], "Longest.limit was 3, is 4"),
}


class Longest(Callback):
    """A callback of somebody else that says what must be the same again."""

    settings, stateless = ("limit",), True

    def __init__(self, limit: int) -> None:
        self.limit = limit


@pytest.mark.parametrize("name", SETTINGS)
def test_another_setting_of_a_callback_is_refused_by_name(make: Any, name: str) -> None:
    before, now, words = SETTINGS[name]
    make(callbacks=before).broken(4)
    with pytest.raises(SettingError, match=rf"not the run that was interrupted: .*{words}"):
        make(callbacks=now).run(resume=True)


def test_another_rhythm_of_a_score_is_refused(make: Any) -> None:
    def training(epochs: int) -> Any:
        def fit(learn: Any, cbs: Any) -> None:
            learn.metrics = score_columns(learn.pipe, [pl.Every("accuracy", epochs)])
            learn.fit(3, 1e-3, cbs=cbs)

        return make(verb=fit)

    training(2).broken(4)
    with pytest.raises(SettingError, match=r"not the run that was interrupted: .*scores"):
        training(3).run(resume=True)


@pytest.mark.parametrize(("name", "value"), [("alpha", 64.0), ("dropout", 0.5), ("rank", 4), ("kind", "dora")])
def test_another_adapter_is_refused_by_name(make: Any, name: str, value: Any) -> None:
    pytest.importorskip("peft")
    first = pl.AdapterOptions(rank=8, alpha=16.0)
    learn = adapted_learner(make(), first)
    with learn.no_bar(), pytest.raises(Crashed):
        learn.fit(2, 1e-3, cbs=[Crash(4), Checkpoints(make().folder / "checkpoints", steps=1)])
    other = adapted_learner(make(), replace(first, **{name: value}))
    with other.no_bar(), pytest.raises(SettingError, match=rf"not the run that was interrupted: .*adapters\.{name} was .*, is {value!r}"):
        other.fit(2, 1e-3, cbs=[Crash(), Checkpoints(make().folder / "checkpoints", steps=1, resume=True)])


def adapted_learner(training: Training, options: Any) -> Any:
    """A learner of the adapters alone."""
    seeded(0)
    rows = rows_of()
    pipe = pl.adapted(pl.Pipeline.new("text-classification", training.checkpoint, rows), options)
    return pl.learner(pipe, rows, options=LearnerOptions(lr=1e-3, loaders=training.loaders, path=training.folder))


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_is_refused_with_the_difference(make: Any, name: str) -> None:
    training = make()
    training.broken(4)
    changes, words = CHANGES[name]
    with pytest.raises(SettingError, match=rf"not the run that was interrupted: .*({words})"):
        make(**changes).run(resume=True)


def test_other_weights_to_start_from_are_refused(make: Any) -> None:
    training = make()
    training.broken(4)
    learn = training.learner(0)
    with torch.no_grad():
        learn.model.bert.embeddings.word_embeddings.weight[3] += 1e-6
    with learn.no_bar(), pytest.raises(SettingError, match=r"model\.start is another one"):
        training.verb(learn, [Crash(), Checkpoints(training.folder / "checkpoints", resume=True)])


def test_another_dropout_is_refused(make: Any) -> None:
    training = make()
    training.broken(4)
    learn = training.learner(0)
    learn.model.config.attention_probs_dropout_prob = 0.0
    with learn.no_bar(), pytest.raises(SettingError, match=r"model\.dropout\.attention_probs_dropout_prob was 0\.1, is 0\.0"):
        training.verb(learn, [Crash(), Checkpoints(training.folder / "checkpoints", resume=True)])


def test_another_version_is_said_and_not_refused(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make()
    training.broken(4)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    with pytest.warns(UserWarning, match=r"another setting: torch was .*, is '9\.9\.9'"):
        left = training.run(seed=7, resume=True)
    assert left.same(training.without(tmp_path / "whole"))


def test_checkpoints_of_an_earlier_run_are_not_overwritten(make: Any) -> None:
    training = make()
    training.broken(4)
    with pytest.raises(SettingError, match=r"step-00000002 of an earlier run is there.*resume=True"):
        training.run()
    CheckpointFolder(training.folder / "checkpoints").discard()
    assert not (training.folder / "checkpoints").exists()
    training.run()


def test_a_resume_without_checkpoints_begins(make: Any, tmp_path: Path) -> None:
    training = make()
    keeper = Checkpoints(training.folder / "checkpoints", resume=True)
    assert training.run(keeper=keeper).same(training.without(tmp_path / "whole"))
    assert "begins with the first step" in str(keeper.notes[0])


def test_by_the_clock(make: Any, tmp_path: Path) -> None:
    training = make()
    keeper = Checkpoints(training.folder / "checkpoints", steps=None, minutes=1e-9, keep=3)
    training.run(keeper=keeper)
    assert steps_in(training.folder) == [15, 14, 13]
    other = Checkpoints(tmp_path / "never", steps=None, minutes=60)
    training.run(keeper=other)
    assert not (tmp_path / "never").exists()


def test_a_clock_that_jumps_changes_nothing(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time between checkpoints is not that of the day, and the newest is the one of the last step, whatever the files' dates say."""
    training, real, seen = make(), time.time, [0]

    def jumping() -> float:
        seen[0] += 1
        return real() + (1e9 if seen[0] % 2 else -1e9)

    monkeypatch.setattr(time, "time", jumping)
    training.broken(BATCHES + 4, keeper=Checkpoints(training.folder / "checkpoints", steps=3, minutes=60))
    assert steps_in(training.folder) == [6, 3]
    for place, folder in enumerate(CheckpointFolder(training.folder / "checkpoints").folders()):
        for path in (folder, *folder.iterdir()):
            os.utime(path, (1e9 * place, 1e9 * place))  # the newest looks the oldest
    assert training.run(seed=7, resume=True).same(training.without(tmp_path / "whole"))


def test_settings_are_checked(tmp_path: Path) -> None:
    for options, words in (({"steps": 0}, "steps"), ({"minutes": 0}, "minutes"), ({"keep": 0}, "keep")):
        with pytest.raises(SettingError, match=words):
            Checkpoints(tmp_path, **options)
    with pytest.raises(SettingError, match="nobody said where"):
        train(rows_of(), options=TrainOptions(resume=True))
    with pytest.raises(SettingError, match="checkpoint_every"):
        TrainOptions(checkpoint_every=0)


def test_a_write_that_fails_does_not_end_the_training(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make()
    write, calls = CheckpointFolder.write, []

    def full(self: CheckpointFolder, *rest: Any) -> Path:
        calls.append(1)
        if len(calls) == 2:
            raise StorageError("the disk is full", cure="Free some space.")
        return write(self, *rest)

    monkeypatch.setattr(CheckpointFolder, "write", full)
    with pytest.warns(UserWarning, match=r"could not be written, training goes on, the last whole one is step-00000002"):
        left = training.run()
    assert left.same(training.without(tmp_path / "whole"))


# --- the parts -----------------------------------------------------------------------------------------------------------


def test_random_numbers_go_on() -> None:
    import random

    seeded(4)
    np.random.standard_normal(3)  # noqa: NPY002  # leaves a second number for the next call
    state = random_state()
    first = (torch.rand(3), np.random.standard_normal(3), random.random())  # noqa: NPY002
    set_random_state(state)
    again = (torch.rand(3), np.random.standard_normal(3), random.random())  # noqa: NPY002
    assert torch.equal(first[0], again[0]) and np.array_equal(first[1], again[1]) and first[2] == again[2]


def test_differences_are_words() -> None:
    assert differences({"a": 1, "b": {"c": [1, 2]}, "d": 3}, {"a": 1, "b": {"c": [1, 4]}, "e": 3}) == [
        "b.c was [1, 2], is [1, 4]",
        "d is gone",
        "e is new",
    ]
