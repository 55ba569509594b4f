"""Training in several processes: the weights and scores of one, a run that goes on after any of them dies, one line for what went wrong."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback

import pellucid as pl
from conftest import SENTENCES
from injection import start_child, wait_for
from matrix import ARCHITECTURES, COLUMNS, rows_for, subject, tokenizers_of
from pellucid import stages
from pellucid.apps import several
from pellucid.energy import CORE_WATTS, JOULES, EnergyMeter, cpu_seconds
from pellucid.errors import SettingError
from pellucid.files import atomic_folder
from pellucid.store import save
from pellucid.training import processes
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_callbacks import Accumulate, EmbeddingMixup, FiniteSteps
from pellucid.training.fastai_learner import LearnerOptions, learner
from pellucid.training.fastai_processes import Sharing
from pellucid.training.launching import KILLED, EndedError, ProcessOptions, check_port
from pellucid.training.resume import CheckpointFolder
from pellucid.training.task_loss import LossOptions
from resumed import BATCHES, VERBS, Crash, Training, rows_of, seeded

pytestmark = pytest.mark.usefixtures("ctrl_c")
ROOT = Path(__file__).resolve().parents[1]
HOMES = {
    "text-classification": "BERT",
    "token-classification": "BERT",
    "question-answering": "BERT",
    "fill-mask": "BERT",
    "text-generation": "GPT-2",
    "text2text-generation": "T5",
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process with threads may not be forked; nobody waits for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(processes, "WAIT", timedelta(seconds=60))
    yield
    torch.set_num_threads(before)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def together(action: Callable[[int], Any], count: int = 2) -> list[Any]:
    """What `action` gives in each of several processes, which see each other."""
    port = free_port()

    def run(rank: int) -> Any:
        place = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        return action(rank)

    started = [start_child(lambda rank=rank: run(rank)) for rank in range(count)]
    return [wait_for(one) for one in started]


def values_of(ended: list[Any]) -> list[Any]:
    assert not [one.error for one in ended if one.error] and not any(one.signal for one in ended), ended
    return [one.value for one in ended]


def without_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def made(case: str, tokenizers: Any, folder: Path) -> Any:
    """A pipeline of one task over seven rows of different lengths."""
    torch.manual_seed(0)
    architecture = next(one for one in ARCHITECTURES if one.name == HOMES[case])
    column = next(one for one in COLUMNS if one.tag == case)
    tokenizer = tokenizers_of(tokenizers)[architecture.tokenizer]
    pipe = subject(architecture, column, tokenizer, folder).pipe
    rows = rows_for(case, tokenizer.mask_token)
    if case == "text-generation":
        pipe = replace(pipe, task=replace(pipe.task, pack=False))
    without_dropout(pipe.model)
    return pipe, replace(rows, splits={"train": rows.train, "valid": rows.train})


def calm(learn: Any) -> None:
    """Adam divides by the size of a gradient, and one that is nothing but rounding would become a step."""
    learn.create_opt()
    learn.opt.set_hyper("eps", 1e-3)


def left(learn: Any) -> Any:
    """What a training leaves: weights, scores, losses and rates."""
    weights = {name: tensor.detach().numpy().copy() for name, tensor in learn.model.state_dict().items()}
    recorder = learn.recorder
    losses, rates = [float(loss) for loss in recorder.losses], [float(rate) for rate in recorder.lrs]
    return SimpleNamespace(weights=weights, values=np.array([list(line) for line in recorder.values], float), losses=losses, rates=rates)


def assert_close(one: Any, other: Any, within: float = 2e-5) -> None:
    assert one.rates == other.rates and len(one.losses) == len(other.losses)
    assert np.allclose(one.losses, other.losses, atol=1e-4)
    assert np.allclose(one.values, other.values, atol=1e-3, equal_nan=True)
    for name, tensor in one.weights.items():
        assert np.allclose(tensor, other.weights[name], atol=within), name


def assert_equal(one: Any, other: Any) -> None:
    assert one.rates == other.rates and one.losses == other.losses and np.array_equal(one.values, other.values, equal_nan=True)
    assert all(np.array_equal(tensor, other.weights[name]) for name, tensor in one.weights.items())


# --- the same as one process ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", HOMES)
def test_two_processes_end_with_the_weights_and_scores_of_one(case: str, tiny_tokenizers: Any, tmp_path: Path) -> None:
    def run(rank: int = 0) -> Any:
        pipe, rows = made(case, tiny_tokenizers, tmp_path / str(rank))
        learn = learner(pipe, rows, options=LearnerOptions(lr=1e-3, path=tmp_path, loaders=LoaderOptions(bs=4)))
        calm(learn)
        with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(sync_bn=False):
            learn.fit_one_cycle(2)
            kept = left(learn)
            preds = learn.get_preds(with_loss=True)
        assert learn.model is pipe.model
        return kept, [part.numpy() for part in preds]

    alone, wanted = run()
    (first, preds), (second, others) = values_of(together(run))
    assert_close(alone, first)
    assert_equal(first, second)
    for mine, yours, expected in zip(preds, others, wanted, strict=True):
        assert np.array_equal(mine, yours) and np.allclose(mine, expected, atol=1e-4)


WAYS: dict[str, Any] = {
    "accumulated": ({}, [Accumulate(3)], VERBS["fit"]),
    "a budget of tokens": ({"loaders": LoaderOptions(bs=8, max_tokens=100)}, [FiniteSteps()], VERBS["fit_linear"]),
    "balanced": ({"loaders": LoaderOptions(bs=5, balanced=True)}, [], VERBS["fit"]),
    "weights and smoothing": ({"loss": LossOptions(label_smoothing=0.1, class_weights="balanced")}, [], VERBS["fine_tune"]),
    "fewer rows than processes": ({"loaders": LoaderOptions(bs=1)}, [], lambda learn, cbs: learn.fit(1, 1e-3, cbs=cbs)),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_the_batches_and_the_loss(way: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    options, callbacks, verb = WAYS[way]

    def run(rank: int = 0) -> Any:
        seeded(5 + rank)  # processes that begin with other heads begin with that of the first
        rows = rows_of()
        pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
        without_dropout(pipe.model)
        learn = learner(pipe, rows, options=LearnerOptions(lr=1e-3, path=tmp_path, **options))
        calm(learn)
        with learn.no_bar(), learn.no_logging():
            verb(learn, callbacks)
        return left(learn)

    first, second = values_of(together(run))
    assert_equal(first, second)
    assert_close(run(), first)


@pytest.mark.parametrize("case", ["text-classification", "token-classification", "fill-mask"])
def test_a_batch_that_one_process_cannot_hold(case: str, tiny_tokenizers: Any, tmp_path: Path) -> None:
    def run(rank: int = 0) -> Any:
        pipe, rows = made(case, tiny_tokenizers, tmp_path / str(rank))
        learn = learner(pipe, rows, options=LearnerOptions(lr=1e-3, path=tmp_path, loaders=LoaderOptions(bs=4)))
        calm(learn)
        learn.room = 20 if rank else None
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, 1e-3, cbs=[Accumulate(2)])
        return left(learn)

    first, second = values_of(together(run))
    assert_equal(first, second)
    assert_close(run(), first)


@pytest.mark.parametrize("case", ["token-classification", "text2text-generation"])
def test_memory_that_runs_out_on_the_way_back(case: str, tiny_tokenizers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(rank: int = 0) -> Any:
        pipe, rows = made(case, tiny_tokenizers, tmp_path / str(rank))
        learn = learner(pipe, rows, options=LearnerOptions(lr=1e-3, path=tmp_path, loaders=LoaderOptions(bs=4)))
        calm(learn)
        if rank:
            backward, calls = torch.Tensor.backward, []

            def failing(self: torch.Tensor, *rest: Any, **more: Any) -> None:
                calls.append(1)
                if len(calls) == 1:
                    raise MemoryError
                backward(self, *rest, **more)

            monkeypatch.setattr(torch.Tensor, "backward", failing)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3)
        assert not rank or learn.room
        return left(learn)

    first, second = values_of(together(run))
    assert_equal(first, second)
    assert_close(run(), first)


def test_a_search_for_a_rate_and_the_best_model(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(rank: int) -> Any:
        seeded(rank)
        rows = rows_of()
        learn = learner(pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows), rows, options=LearnerOptions(path=tmp_path))
        with learn.no_bar():
            found = learn.lr_find(num_it=6, show_plot=False)
            learn.fit(2, 1e-3, cbs=[SaveModelCallback(fname="best"), EarlyStoppingCallback(patience=1), CSVLogger()])
        return found.valley, left(learn)

    (valley, first), (other, second) = values_of(together(run))
    assert valley == other
    assert_equal(first, second)
    assert (tmp_path / "models" / "best.pth").is_dir()
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3, "one process writes it"


def test_dropout_differs_and_the_weights_stay_the_same(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(rank: int) -> Any:
        training = Training(tiny_checkpoints["bert"], tmp_path / "run", VERBS["fit"])
        learn, drawn = training.learner(rank), []

        class Seen(Callback):
            stateless = True

            def after_batch(self) -> None:
                if self.learn.training:
                    drawn.append((float(torch.rand(1)), int(self.learn.attempt.random[0].long().sum())))

        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3, cbs=[Seen()])
        return drawn, left(learn)

    (drawn, first), (other, second) = values_of(together(run))
    assert [common for common, _ in drawn] == [common for common, _ in other] and len(drawn) == BATCHES
    assert not {own for _, own in drawn} & {own for _, own in other}
    assert_equal(first, second)


def test_processes_with_other_rows_are_refused(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(rank: int) -> None:
        training = Training(tiny_checkpoints["bert"], tmp_path / f"{rank}", VERBS["fit"], rows=lambda: rows_of(word="again" * (1 + rank)))
        learn = training.learner(0)
        learn.fit(1, cbs=[EmbeddingMixup()] if rank > 1 else [])

    first, second = together(run)
    assert first.error.startswith("SettingError: the processes: another process differs")
    assert "process 1 differs from the first one: rows.0" in second.error


def test_mixed_rows_cannot_be_shared_out(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(rank: int) -> None:
        Training(tiny_checkpoints["bert"], tmp_path, VERBS["fit"]).learner(0).fit(1, cbs=EmbeddingMixup())

    assert all("EmbeddingMixup: rows that are mixed with each other" in ended.error for ended in together(run))


# --- a resume ------------------------------------------------------------------------------------------------------------


def of_training(found: Any) -> Any:
    return {name: tensor.numpy() for name, tensor in found.weights.items()}, found.values, found.losses, found.rates


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(tensor, other[0][name]) for name, tensor in one[0].items()) and repr(one[1:]) == repr(other[1:])


@pytest.mark.filterwarnings("ignore:a damaged checkpoint was left aside")
@pytest.mark.parametrize("apart", [False, True])
def test_what_was_killed_goes_on_to_the_bit(tiny_checkpoints: dict[str, Path], tmp_path: Path, apart: bool) -> None:
    """With folders of their own the others see nothing of what the first process writes: as on machines without a common disk."""

    def training(folder: Path, rank: int) -> Training:
        return Training(tiny_checkpoints["bert"], folder / (str(rank) if apart else "run"), VERBS["fine_tune"])

    def killed(rank: int) -> None:
        crash = Crash(7, lambda: os.kill(os.getpid(), signal.SIGKILL)) if rank else Crash()
        training(tmp_path, rank).run(crash, seed=rank)

    ended = together(killed)
    assert ended[1].signal == signal.SIGKILL
    assert ended[0].error.startswith("LostProcessError: another process of this training has ended")
    place = CheckpointFolder(training(tmp_path, 0).folder / "checkpoints")
    assert [folder.name for folder in place.folders()] == ["step-00000006", "step-00000004"]
    if not apart:  # the newest is damaged: all take the one before
        (place.folders()[0] / "state.safetensors").write_bytes(b"nothing")
    first, second = values_of(together(lambda rank: of_training(training(tmp_path, rank).run(seed=7 + rank, resume=True))))
    whole = values_of(together(lambda rank: of_training(training(tmp_path / "whole", rank).run(seed=rank))))
    assert same(first, second) and same(first, whole[0])


class KilledAt(Callback):
    """At the second time of one event its process is killed, if it is not the first one."""

    stateless, order = True, -100

    def __init__(self, event: str, rank: int) -> None:
        self.seen, self.rank = 0, rank
        setattr(self, event, self.one_more)

    def one_more(self) -> None:
        self.seen += 1
        if self.seen == 2 and self.rank:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "event", ["before_batch", "after_pred", "after_loss", "before_step", "after_step", "after_batch", "before_validate", "after_epoch"]
)
def test_the_other_says_that_it_was_left(event: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    training = Training(tiny_checkpoints["bert"], tmp_path / "run", steps=1000)
    ended = together(lambda rank: training.run(KilledAt(event, rank)))
    assert ended[1].signal == signal.SIGKILL
    assert ended[0].error.startswith("LostProcessError: ") and "another process of this training has ended" in ended[0].error


def test_one_that_hangs_is_waited_for_as_long_as_was_said(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "WAIT", timedelta(seconds=6))

    def run(rank: int) -> None:
        hangs = Crash(4, lambda: time.sleep(12)) if rank else Crash()
        Training(tiny_checkpoints["bert"], tmp_path / "run").run(hangs)

    waited, hung = together(run)
    assert "another process of this training has ended, or gave no answer for 0.1 minutes" in waited.error
    assert hung.error.startswith("LostProcessError")  # it finds nobody any more
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()


def test_one_that_is_slow_changes_nothing(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(rank: int, seconds: float) -> Any:
        slow = Crash(4, lambda: time.sleep(seconds)) if rank else Crash()
        return of_training(Training(tiny_checkpoints["bert"], tmp_path / f"{seconds}", steps=1000).run(slow))

    first, second = values_of(together(lambda rank: run(rank, 3.0)))
    undisturbed = values_of(together(lambda rank: run(rank, 0.0)))[0]
    assert same(first, second) and same(first, undisturbed)


class NoNumber(Callback):
    """From the third batch on, what one process computes is no number: its logits, or a gradient."""

    stateless = True

    def __init__(self, what: str, rank: int) -> None:
        self.seen, self.what, self.rank = 0, what, rank

    def before_batch(self) -> None:
        self.seen += self.learn.training
        if self.seen == 3 and self.rank:
            head = self.learn.model.classifier
            if self.what == "loss":
                head.register_forward_hook(lambda module, inputs, logits: logits * float("nan"))
            else:
                head.weight.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize("what", ["loss", "gradients"])
def test_a_number_that_is_none_in_one_stops_all_before_the_step(what: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(rank: int) -> Any:
        learn = Training(tiny_checkpoints["bert"], tmp_path / "run").learner(0)
        with learn.no_bar(), learn.no_logging(), pytest.raises(SettingError) as caught:
            learn.fit(1, 1e-3, cbs=[NoNumber(what, rank), FiniteSteps()])
        return str(caught.value), [tensor.detach().numpy().copy() for tensor in learn.model.parameters()]

    (said, weights), (other, others) = values_of(together(run))
    assert said == other and said.startswith("epoch 0, step 2: the ") and f"{what} is nan" in said
    assert all(np.isfinite(one).all() and np.array_equal(one, two) for one, two in zip(weights, others, strict=True))


def test_another_number_of_processes_is_refused(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    training = Training(tiny_checkpoints["bert"], tmp_path / "run")
    training.broken(4)
    first, second = together(lambda rank: training.run(resume=True))
    assert "not the run that was interrupted: processes was 1, is 2" in first.error and second.error


def test_ctrl_c_to_one_stops_all_with_a_checkpoint(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    training = Training(tiny_checkpoints["bert"], tmp_path / "run", steps=1000)

    def stopped(rank: int) -> None:
        training.run(Crash(3, lambda: signal.raise_signal(signal.SIGINT)) if rank else Crash())

    ended = together(stopped)
    assert all("KeyboardInterrupt: stopped" in one.error for one in ended)
    first, second = values_of(together(lambda rank: of_training(training.run(resume=True))))
    whole = values_of(together(lambda rank: of_training(replace(training, folder=tmp_path / "whole").run())))
    assert same(first, second) and same(first, whole[0])


# --- one call, and the command line --------------------------------------------------------------------------------------


def test_one_call_in_a_script_that_torchrun_starts(tiny_checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    def run(rank: int) -> Any:
        options = pl.TrainOptions(epochs=1, freeze_epochs=1, learning_rate=1e-3, batch_size=8, accumulate=2)
        trained = pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=options)
        assert not torch.distributed.is_initialized(), "the group ends with the training"
        return left(trained.learner), trained.history, torch.get_num_threads()

    (first, history, _), (second, other, _) = values_of(together(run))
    assert_equal(first, second)
    assert history == other and len(history) == 2
    assert capfd.readouterr().out.count("train_loss") == 2, "only the first process speaks: one table a fit"


@pytest.mark.parametrize("answers", [True, False])
def test_what_all_processes_took_is_one_total(
    answers: bool, tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EnergyMeter.__init__.__kwdefaults__, "powercap", tmp_path / "no counters")

    def lost(*_: Any) -> Any:
        raise processes.LostProcessError("another process has ended", cure="None.")

    def run(rank: int) -> Any:
        if not answers:
            monkeypatch.setattr(Sharing, "all_say", lost)
        before = cpu_seconds()
        trained = pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=6, carbon_intensity=100))
        return trained.energy, cpu_seconds() - before  # the meter leaves out what is checked before it, and what is told after it

    (first, took), (second, other) = values_of(together(run))
    if not answers:
        assert first.of == second.of == "1 of 2 processes only" and "g CO2e of 1 of 2 processes only" in first.view().note
        return
    seconds = first.watt_hours / CORE_WATTS * JOULES
    assert first.parts == second.parts and 0.7 * (took + other) < seconds < 1.05 * (took + other), "counted, each once"
    assert not first.unknown and not first.of and "2 processes and their children" in first.parts[0].method


def test_a_stage_is_saved_once(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The next stage finds it in every process; a second save would be a second version."""

    def run(rank: int) -> Any:
        saves = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages, "save", lambda *given: saves.append(save(*given)))
            pipe, rows = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows_of()), rows_of()
            stage = pl.run_stage("classify", pipe, rows, tmp_path / "stage", options=pl.TrainOptions(epochs=1, learning_rate=1e-3))
        found = pl.Pipeline.new("text-classification", stage.folder, rows)
        return len(saves), stage.after.value, {name: tensor.clone() for name, tensor in found.model.state_dict().items()}

    (once, score, first), (never, other, second) = values_of(together(run))
    assert (once, never, score) == (1, 0, other)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_a_trial_finds_is_what_the_first_process_found(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def run(rank: int) -> Any:
        learn = Training(tiny_checkpoints["bert"], tmp_path / "run", VERBS["fit"]).learner(0)
        return learn.sharing.first_says(["float32", "bfloat16"][rank])

    assert values_of(together(run)) == ["float32", "float32"]


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    lines = [
        f'"{"good" if place % 3 else "bad"} {SENTENCES[place % 12]} {place}",{int(place % 3 > 0)},{int(place % 5 == 0)}'
        for place in range(40)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,is_valid", *lines]) + "\n", encoding="utf-8")
    return tmp_path


def start(folder: Path, checkpoint: Path, *more: Any) -> "subprocess.Popen[str]":
    options = ["--checkpoint", checkpoint, "--epochs", 15, "--batch-size", 4, "--checkpoint-every", 5, "-o", "out"]
    command = [sys.executable, "-m", "pellucid", "train", "rows.csv", *map(str, (*options, *more))]
    unset = {name: value for name, value in os.environ.items() if name not in (*processes.NAMES, "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    environment = {**unset, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **streams)


def wait_for_step(folder: Path, step: int, running: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 120
    while running.poll() is None and time.monotonic() < end:
        found = CheckpointFolder(folder / "out.checkpoints").folders()
        if found and int(found[0].name.removeprefix("step-")) >= step:
            return
        time.sleep(0.02)
    running.kill()
    raise AssertionError(running.communicate())


def said_by(running: "subprocess.Popen[str]") -> tuple[str, str]:
    """What a command has written, at its end; one that does not end is killed with its children."""
    try:
        return running.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        for rank in range(2):
            os.kill(number_of(rank, running.pid), signal.SIGKILL)
        running.kill()
        raise


def number_of(rank: int, parent: int) -> int:
    """The number of the process at this place among those that `parent` has started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and f"PPid:\t{parent}\n" in (entry / "status").read_text():
            if f"RANK={rank}" in (entry / "environ").read_text().split("\0"):
                return int(entry.name)
    raise AssertionError(f"no process {rank}")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds its children in /proc")
def test_stopped_killed_and_ended_on_two_machines(folder: Path, tiny_checkpoints: dict[str, Path]) -> None:
    """Ctrl-C, then a process killed, then the rest as two machines on this one: the weights are those of a run that nobody stopped."""
    checkpoint = tiny_checkpoints["bert"]
    first = start(folder, checkpoint, "--nproc", 2)
    wait_for_step(folder, 5, first)
    first.send_signal(signal.SIGINT)
    out, errors = said_by(first)
    assert first.returncode == 130, errors
    assert errors.count("is kept; go on with: pellucid train rows.csv") == 1 and errors.rstrip().endswith("stopped")
    assert out.count("chosen for you") == 1 and "Traceback" not in errors

    second = start(folder, checkpoint, "--nproc", 2, "--resume")
    wait_for_step(folder, 25, second)
    os.kill(number_of(1, second.pid), signal.SIGKILL)
    before = time.monotonic()
    _, errors = said_by(second)
    assert time.monotonic() - before < 20
    last = errors.rstrip().splitlines()[-1]
    assert second.returncode == 2 and last.startswith("error: process 1 was killed by SIGKILL")
    assert "is kept; go on with: pellucid train rows.csv" in last and last.endswith("--resume")
    assert "Traceback" not in errors and errors.count("error:") == 1

    port = free_port()
    nodes = [start(folder, checkpoint, "--nnodes", 2, "--node-rank", rank, "--master-port", port, "--resume") for rank in (0, 1)]
    said = [said_by(one) for one in nodes]
    assert [one.returncode for one in nodes] == [0, 0], said
    assert "saved in" in said[0][0] and not said[1][0] and "the model is on machine 0" in said[1][1]
    assert not (folder / "out.checkpoints").exists()

    def whole(rank: int) -> Any:
        rows = pl.read(folder / "rows.csv", text="text", label="label", split="is_valid")
        learn = pl.train(rows, checkpoint=checkpoint, options=pl.TrainOptions(epochs=15, batch_size=4)).learner
        return left(learn).weights

    wanted, found = values_of(together(whole))[0], pl.load(folder / "out").model.state_dict()
    assert all(np.array_equal(tensor.numpy(), wanted[name]) for name, tensor in found.items())


@pytest.mark.parametrize("there", [False, True])
def test_a_death_after_the_save_says_where_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    output, kept = tmp_path / "out", CheckpointFolder(tmp_path / "out.checkpoints")
    if there:
        output.mkdir()

    def dies(saves: bool) -> Any:
        def launch(options: ProcessOptions, command: list[str]) -> None:
            if saves:
                with atomic_folder(output) as fresh:
                    (fresh / "model").touch()
            raise EndedError("process 0 was killed by SIGKILL.", KILLED)

        return launch

    monkeypatch.setattr(several, "launch", dies(saves=False))
    with pytest.raises(EndedError, match=r"process 0 was killed by SIGKILL. No checkpoint was written yet"):
        several.run_in_processes(ProcessOptions(nproc=2), kept, str(output))
    monkeypatch.setattr(several, "launch", dies(saves=True))
    with pytest.raises(EndedError, match=r"process 0 was killed by SIGKILL. The model is saved in .*out; only what comes after"):
        several.run_in_processes(ProcessOptions(nproc=2), kept, str(output))


def test_a_bad_row_is_said_once(folder: Path, tiny_checkpoints: dict[str, Path]) -> None:
    with (folder / "rows.csv").open("a") as rows:
        rows.write("no label here,,0\n")
    out, errors = said_by(running := start(folder, tiny_checkpoints["bert"], "--nproc", 2))
    assert running.returncode == 2 and not out
    assert errors.count("error:") == 1 and "rows.csv, line 42" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"nproc": 0}, "nproc is 0, expected 1 to 1024"),
        ({"nnodes": 2, "node_rank": 2}, "node_rank is 2. Pass a number from 0 to 1"),
        ({"master_port": 0}, "master_port is 0"),
    ],
)
def test_numbers_that_make_no_sense(numbers: dict[str, int], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        ProcessOptions(**numbers)


def test_a_port_in_use_and_more_processes_than_cores() -> None:
    with socket.socket() as one:
        one.bind(("", 0))
        one.listen()
        options = ProcessOptions(nnodes=2, master_port=one.getsockname()[1])
        with pytest.raises(SettingError, match=r"master_port: port \d+ cannot be used: .*another --master-port"):
            check_port(options)
    assert "this machine has" in ProcessOptions(nproc=1000).warnings()[0] and not ProcessOptions().warnings()


def test_an_environment_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.place() == processes.Place()
    for name, value in {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match="RANK is 2, WORLD_SIZE is 2"):
        processes.place()
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(SettingError, match="RANK is 'one', expected a number"):
        processes.place()
