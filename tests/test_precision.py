"""The precision of a training: asked for, or tried on this machine; scores that are computed once, or only every few epochs."""

import time

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import SettingError
from pellucid.training.fastai_checkpoints import Checkpoints
from pellucid.training.fastai_learner import BFloat16, LearnerOptions, learner
from pellucid.training.fastai_precision import choose_precision, probe_of, set_precision
from pellucid.training.precision import Probe, check_precision, probe, timed


@pytest.fixture
def learn(tiny_checkpoints, tmp_path):
    found = [{"text": f"{text} {place}", "label": "ab"[place % 2]} for place, text in enumerate(SENTENCES * 2)]
    rows = pl.read(found, text="text", label="label")
    return learner(pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows), rows, options=LearnerOptions(path=tmp_path))


def stopped_after(steps, monkeypatch):
    """Training breaks off once so many checkpoints are written."""
    written, write = [], Checkpoints._write

    def stopping(self, *what):
        write(self, *what)
        written.append(1)
        if len(written) == steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "_write", stopping)


@pytest.mark.parametrize(("first", "second"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_run_goes_on_in_the_precision_that_it_chose_whatever_another_trial_would_say(
    first, second, tiny_checkpoints, tmp_path, monkeypatch
):
    rows = pl.read(
        [{"text": f"{text} {place}", "label": "ab"[place % 2]} for place, text in enumerate(SENTENCES)], text="text", label="label"
    )
    probes = {"float32": Probe(0.1, 0.9, 4), "bfloat16": Probe(0.9, 0.1, 4)}

    def fitted(says, **more):
        monkeypatch.setattr("pellucid.training.fastai_precision.probe_of", lambda learn: probes[says])
        options = pl.TrainOptions(epochs=2, batch_size=4, precision="auto", checkpoint_every=1, **more)
        return pl.train(rows, checkpoint=tiny_checkpoints["bert"], options=options)

    whole = fitted(first, checkpoints=tmp_path / "whole")
    with monkeypatch.context() as crash:
        stopped_after(3, crash)
        with pytest.raises(KeyboardInterrupt):
            fitted(first, checkpoints=tmp_path / "kept")
    newest = max((tmp_path / "kept").glob("step-*"))
    (newest / "pellucid.json").write_text("{}")  # a damaged one hides nothing
    with pytest.warns(UserWarning, match="left aside"):
        resumed = fitted(second, checkpoints=tmp_path / "kept", resume=True)
    assert f"training computes in {first}: the run that goes on has begun so" in " ".join(map(str, resumed.notes))
    assert any(isinstance(callback, BFloat16) for callback in resumed.learner.cbs) is (first == "bfloat16")
    for one, other in zip(whole.pipeline.model.parameters(), resumed.pipeline.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_learner_with_checkpoints_to_go_on_from_reads_the_choice_from_them(learn, tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.training.fastai_precision.probe_of", lambda learn: Probe(0.9, 0.1, 4))
    learn.add_cb(Checkpoints(tmp_path / "kept", steps=1, resume=True))
    assert choose_precision(learn)[0] is not None, "nothing was kept yet: the trial decides"
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    callback, note = choose_precision(learn)
    assert callback is None and "has begun so" in str(note)
    assert choose_precision(learn, "bfloat16")[0] is not None, "what is asked for is taken"


def test_bfloat16_has_to_pay():
    assert Probe(0.2, 0.1, 4).best == "bfloat16" and Probe(0.2, 0.19, 4).best == "float32" and Probe(0.1, 0.9, 4).best == "float32"
    said = str(Probe(0.2, 0.1, 4).note())
    assert "0.200 s in float32 and 0.100 s in bfloat16" in said and 'precision="float32"' in said


@pytest.mark.parametrize(("short", "wanted"), [(0.002, "bfloat16"), (0.02, "float32")])
def test_both_are_timed_in_turns_on_enough_rows(short, wanted):
    seen = []

    def step(rows, bfloat16):
        seen.append((rows, bfloat16))
        seconds = 0.001 * rows if not bfloat16 else short
        time.sleep(seconds)
        return seconds

    found = timed(step, 8, 0.05)
    assert found.best == wanted and found.rows == 8 and found.float32 == pytest.approx(0.008)
    turns = [short for rows, short in seen if rows == 8][-4:]
    assert turns == [False, True, False, True]


def test_a_slow_model_is_tried_on_few_rows():
    found = timed(lambda rows, short: 0.3, 64, 0.0)
    assert found.rows == 1


def test_a_probe_leaves_everything_as_it_was(learn):
    before = {name: tensor.clone() for name, tensor in learn.model.state_dict().items()}
    random, epoch = torch.get_rng_state(), learn.dls.train.epoch
    learn.model.eval()
    first = learn.dls.train.plan(learn.dls.train.epoch)
    found = probe_of(learn, seconds=0.05)
    assert found.float32 > 0 and found.bfloat16 > 0 and 1 <= found.rows <= 16
    assert all(torch.equal(tensor, before[name]) for name, tensor in learn.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and not learn.model.training
    assert all(parameter.grad is None for parameter in learn.model.parameters())
    assert learn.dls.train.epoch == epoch and all(map(np.array_equal, first, learn.dls.train.plan(epoch)))


class Memory:
    """Passes with a graph of more rows than `fit` fail, in float32 or in bfloat16, as they would without memory."""

    def __init__(self, model, fit, short):
        self.fit, self.short, self.sizes = fit, short, []
        model.base_model.register_forward_pre_hook(self.forward, with_kwargs=True)

    def forward(self, module, given, named):
        rows, short = len(given[0] if given else named["input_ids"]), torch.is_autocast_enabled("cpu")
        self.sizes.append((rows, short))
        if torch.is_grad_enabled() and rows > self.fit and short is self.short:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("short", [False, True])
def test_a_probe_takes_as_many_rows_as_memory_holds(learn, short, monkeypatch):
    monkeypatch.setattr("pellucid.training.precision.STEP", 60.0)  # a slow machine would try fewer
    memory = Memory(learn.model, 2, short)
    learn.model.eval()
    random, before = torch.get_rng_state(), {name: tensor.clone() for name, tensor in learn.model.state_dict().items()}
    assert probe_of(learn, seconds=0.02).rows == 2, "both precisions on the same rows"
    assert memory.sizes[-2:] == [(2, False), (2, True)] and not learn.model.training
    assert torch.equal(torch.get_rng_state(), random) and all(parameter.grad is None for parameter in learn.model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in learn.model.state_dict().items())


def test_a_learner_that_knows_its_room_begins_the_trial_there(tiny_checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.training.precision.STEP", 60.0)
    rows = pl.read([{"text": text, "label": "ab"[place % 2]} for place, text in enumerate(SENTENCES)], text="text", label="label")
    tokens = pl.TokenOptions(padding="max_length", max_length=32)
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows, tokens=tokens)
    learn = learner(pipe, rows, options=LearnerOptions(path=tmp_path, loaders=pl.LoaderOptions(bs=4)))
    memory = Memory(learn.model, 1, False)
    with learn.no_bar():
        learn.fit(1)
    assert learn.room == 32
    memory.sizes.clear()
    assert probe_of(learn, seconds=0.02).rows == 1 and {rows for rows, _ in memory.sizes} == {1}, "what did not fit is not tried again"


def test_a_trial_for_which_one_row_is_too_much_says_what_to_do(learn):
    Memory(learn.model, 0, False)
    with pytest.raises(SettingError, match=r"one row of \d+ tokens does not fit in memory.*GradientCheckpointing"):
        set_precision(learn, "auto")
    with pytest.raises(SettingError, match="one row of"), learn.no_bar():
        learn.fit(1)


def test_what_is_frozen_is_not_counted(learn):
    learn.freeze()
    assert probe_of(learn, seconds=0.02).float32 > 0
    with pytest.raises(IndexError):
        probe(torch.nn.Linear(1, 1).requires_grad_(False), 1, lambda count: torch.zeros(()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_asked_for_is_done_and_said(learn, precision, capsys):
    learn.add_cb(BFloat16())
    note = set_precision(learn, precision)
    assert f"training computes in {precision}" in capsys.readouterr().out and str(note).startswith("training computes in")
    assert sum(isinstance(callback, BFloat16) for callback in learn.cbs) == (precision == "bfloat16")
    assert note in learn.pipe.notes
    seen = []
    handle = learn.model.classifier.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    with learn.no_bar():
        learn.fit(1)
    handle.remove()
    assert set(seen) == {getattr(torch, precision)}


@pytest.mark.parametrize(("times", "wanted"), [((0.2, 0.1), "bfloat16"), ((0.1, 0.2), "float32")])
def test_auto_takes_the_faster(learn, monkeypatch, times, wanted):
    monkeypatch.setattr("pellucid.training.fastai_precision.probe_of", lambda learn: Probe(*times, 4))
    callback, note = choose_precision(learn)
    assert isinstance(callback, BFloat16) == (wanted == "bfloat16") and wanted in note.what and "4 rows" in note.why


def test_auto_really_measures(learn):
    callback, note = choose_precision(learn)
    assert ("bfloat16" in note.what) == (callback is not None) and " s in float32 and " in note.why


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["auto", "float16", "bfloat16"])
def test_precisions_of_a_gpu(learn, precision):
    learn.model.cuda()
    learn.dls.to(torch.device("cuda"))
    set_precision(learn, precision)
    with learn.no_bar():
        learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1][1])


def test_float16_needs_cuda_and_names_are_checked(learn):
    with pytest.raises(SettingError, match="float16 needs CUDA"):
        set_precision(learn, "float16")
    with pytest.raises(SettingError, match=r"no precision 'fp8'.*bfloat16"):
        set_precision(learn, "fp8")
    check_precision("float16", "cuda")
