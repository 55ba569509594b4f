"""Batches that do not fit in memory: the same gradient in parts, and a plain word where one row is too much."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastcore.foundation import L

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import SettingError
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_callbacks import Accumulate, EmbeddingMixup
from pellucid.training.fastai_learner import LearnerOptions, PellucidLearner, learner
from pellucid.training.fastai_memory import backward, out_of_memory, parts_of, run_batch
from pellucid.types import Batch

ON_GPU = torch.OutOfMemoryError("CUDA out of memory")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
BY_ONEDNN = RuntimeError("could not create a primitive")


@pytest.fixture(scope="module")
def rows():
    texts = [f"{'good' if place % 3 else 'bad'} {SENTENCES[place % 12]} {place}" for place in range(24)]
    found = [{"text": t, "label": t.split()[0], "split": "valid" if place > 15 else "train"} for place, t in enumerate(texts)]
    return pl.read(found, text="text", label="label", split="split")


@pytest.fixture
def pipe(rows, tiny_checkpoints):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)


def _logits(learn, inputs, labels=None):
    """As in PellucidLearner._do_one_batch."""
    rows = np.arange(len(inputs["input_ids"]))
    return learn.pipe.task.run(learn.model, Batch(inputs, None, rows, rows, rows)).logits


@pytest.fixture(autouse=True)
def _in_parts(monkeypatch):
    """A learner that does not run its batches so by itself yet."""
    if "_logits" not in vars(PellucidLearner):
        for name, value in {"_logits": _logits, "_do_one_batch": run_batch, "_backward": backward, "room": None}.items():
            monkeypatch.setattr(PellucidLearner, name, value, raising=False)


class Memory:
    """Forward or backward passes of more rows than `fit` fail, as they would without memory."""

    def __init__(self, model, fit, where, error):
        self.fit, self.where, self.error, self.calls = fit, where, error, []
        model.base_model.register_forward_pre_hook(self.forward, with_kwargs=True)
        model.base_model.encoder.layer[0].register_full_backward_hook(self.backward)

    def forward(self, module, given, named):
        rows = len(given[0] if given else named["input_ids"])
        self.calls.append(rows)
        if rows > self.fit and (self.where == "always" or (self.where == "forward" and torch.is_grad_enabled())):
            raise self.error

    def backward(self, module, slopes, out):
        if self.where == "backward" and len(slopes[0]) > self.fit:
            raise self.error


def without_dropout(pipe, share=0.0):
    for module in pipe.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


class Gradients(Callback):
    """The gradients of each step."""

    order = 50

    def __init__(self):
        super().__init__()
        self.found = []

    def before_step(self):
        named = self.learn.model.named_parameters()
        self.found.append({name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None})


def trained(pipe, rows, path, cbs=None, epochs=2):
    """The gradients of every step, and the lines of the table."""
    start = {name: tensor.clone() for name, tensor in pipe.model.state_dict().items()}
    gradients = Gradients()
    learn = learner(pipe, rows, options=LearnerOptions(path=path, loaders=LoaderOptions(bs=8)), cbs=[gradients, *L(cbs)])
    with learn.no_bar():
        learn.fit(epochs, 1e-5)
    pipe.model.load_state_dict(start)
    return gradients.found, [list(line) for line in learn.recorder.values]


def close(one, other):
    assert len(one) == len(other)
    return all(
        step.keys() == same.keys() and all(torch.allclose(step[name], same[name], atol=1e-6) for name in step)
        for step, same in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("where", ["forward", "backward", "always"])
@pytest.mark.parametrize("error", [ON_GPU, ON_CPU, MemoryError("no"), BY_ONEDNN], ids=["gpu", "cpu", "host", "onednn"])
@pytest.mark.parametrize("fit", [4, 3, 1])
def test_the_training_is_that_of_whole_batches(pipe, rows, tmp_path, where, error, fit, caplog):
    without_dropout(pipe)
    wanted, lines = trained(pipe, rows, tmp_path)
    memory = Memory(pipe.model, fit, where, error)
    found, others = trained(pipe, rows, tmp_path)
    assert close(wanted, found)
    assert np.allclose(lines, others, atol=1e-4)
    said = [record.getMessage() for record in caplog.records]
    assert "does not fit in memory" in said[0] and "max_tokens=" in said[0]
    assert len(said) <= 5, "once for each size"
    assert max(memory.calls[-6:]) <= max(fit, 1), "later batches begin in parts"


@pytest.mark.parametrize("callback", [lambda: Accumulate(2), lambda: GradientAccumulation(16)])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_accumulated_gradients_are_kept(pipe, rows, tmp_path, where, callback):
    without_dropout(pipe)
    wanted, _ = trained(pipe, rows, tmp_path, callback())
    Memory(pipe.model, 3, where, ON_CPU)
    found, _ = trained(pipe, rows, tmp_path, callback())
    assert close(wanted, found)


def test_both_runs_of_a_part_have_the_same_dropout(pipe, rows, tmp_path):
    without_dropout(pipe, 0.5)
    Memory(pipe.model, 4, "forward", ON_CPU)
    learn = learner(pipe, rows, options=LearnerOptions(path=tmp_path, loaders=LoaderOptions(bs=8)))
    seen, real = [], learn._logits
    learn._logits = lambda inputs, labels: seen.append(real(inputs, labels)) or seen[-1]
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    first = [each.detach() for each in seen[:4]]
    assert torch.allclose(first[0], first[2], atol=1e-6) and torch.allclose(first[1], first[3], atol=1e-6)


@pytest.mark.parametrize(
    ("error", "reason"), [(ON_CPU, ""), (BY_ONEDNN, r", or oneDNN has another reason \(could not create a primitive\)")]
)
def test_one_row_that_does_not_fit_is_said_and_nothing_is_lost(pipe, rows, tmp_path, error, reason):
    start = {name: tensor.clone() for name, tensor in pipe.model.state_dict().items()}
    Memory(pipe.model, 0, "always", error)
    learn = learner(pipe, rows, options=LearnerOptions(path=tmp_path, loaders=LoaderOptions(bs=8)))
    with (
        pytest.raises(SettingError, match=rf"one row of \d+ tokens does not fit in memory{reason}\. .*weights are those before"),
        learn.no_bar(),
    ):
        learn.fit(1)
    assert all(torch.equal(tensor, start[name]) for name, tensor in pipe.model.state_dict().items())


def test_other_errors_and_mixed_rows_are_not_tried_again(pipe, rows, tmp_path):
    memory = Memory(pipe.model, 4, "forward", RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        trained(pipe, rows, tmp_path)
    assert len(memory.calls) == 1
    memory.error = ON_GPU
    with pytest.raises(torch.OutOfMemoryError):
        trained(pipe, rows, tmp_path, EmbeddingMixup())


LIMITED = """
import resource, sys
from pathlib import Path
import torch
import pellucid as pl
from pellucid.training.fastai_learner import LearnerOptions, learner

folder = Path(sys.argv[1])
found = [{"text": "a film " * 60, "label": "ab"[place % 2], "split": "valid" if place > 127 else "train"} for place in range(130)]
rows = pl.read(found, text="text", label="label", split="split")
pipe = pl.Pipeline.new("text-classification", folder / "model", rows)
learn = learner(pipe, rows, options=LearnerOptions(path=folder, loaders=pl.LoaderOptions(bs=64)))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, resource.RLIM_INFINITY))
with learn.no_bar(), learn.no_logging():
    learn.fit(1, 1e-4)
print("room", learn.room, all(bool(torch.isfinite(each).all()) for each in pipe.model.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits the memory of a process by what it has")
@pytest.mark.parametrize("mebibytes", [80, 140])
def test_a_machine_that_has_no_more_memory(tiny_tokenizers, tmp_path, mebibytes):
    """RLIMIT_AS: a step of the whole batch asks for more than there is, its parts do not. A new process: this one has holes for it.

    RLIMIT_AS counts addresses, not memory: with holes in glibc's heap, some of what was freed would count on. So nothing large lies there.
    """
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2048}
    BertModel(BertConfig(vocab_size=len(tiny_tokenizers["wordpiece"]), **sizes)).save_pretrained(tmp_path / "model")
    tiny_tokenizers["wordpiece"].save_pretrained(tmp_path / "model")
    heap = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    environment = {**os.environ, **heap, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(mebibytes)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    room, finite = ended.stdout.splitlines()[-1].removeprefix("room ").split()
    assert finite == "True" and room != "None" and int(room) < 64 * 120, "in parts"


def test_memory_errors_are_known():
    assert all(out_of_memory(error) for error in (ON_GPU, ON_CPU, BY_ONEDNN, MemoryError()))
    assert not out_of_memory(RuntimeError("x")) and not out_of_memory(
        RuntimeError("could not create a primitive descriptor for a matmul primitive")
    )


@pytest.mark.parametrize(("rows", "parts", "sizes"), [(8, 2, [4, 4]), (7, 2, [4, 3]), (5, 4, [2, 2, 1]), (3, 3, [1, 1, 1])])
def test_parts_are_all_rows_in_order(rows, parts, sizes):
    inputs = {"input_ids": torch.arange(rows * 2).view(rows, 2)}
    found = parts_of(inputs, parts)
    assert [len(part["input_ids"]) for part, _ in found] == sizes
    assert torch.equal(torch.cat([part["input_ids"] for part, _ in found]), inputs["input_ids"])
