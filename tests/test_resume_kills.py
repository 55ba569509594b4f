"""A training that is killed, at random moments and in every step of a save; two runs in one folder; the command line."""

import errno
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid as pl
from conftest import SENTENCES
from injection import STEPS, at_each_step, failing_at, in_child, killed_at, start_child, wait_for
from pellucid.errors import StorageError
from pellucid.training.fastai_learner import PellucidLearner
from pellucid.training.resume import CheckpointFolder
from pellucid.training.resume_state import Position
from resumed import Training

pytestmark = pytest.mark.usefixtures("ctrl_c")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """A process with threads may not be forked."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- deaths --------------------------------------------------------------------------------------------------------------


def test_five_kills_at_random_moments(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    verb = partial(fine_tuned, epochs=8)
    training = Training(tiny_checkpoints["bert"], tmp_path / "run", verb, steps=1)
    whole = training.without(tmp_path / "whole")
    place = CheckpointFolder(training.folder / "checkpoints")
    chance, newest = random.Random(3), set[str]()
    for number in range(5):
        child = start_child(lambda number=number: training.run(seed=number, resume=True) and None)
        end = time.monotonic() + 60
        while newest >= names_in(place) and time.monotonic() < end:
            time.sleep(0.005)  # each kill costs a run that has come further than the one before
        time.sleep(chance.uniform(0.0, 0.1))
        os.kill(child[0], signal.SIGKILL)
        assert wait_for(child).signal == signal.SIGKILL
        assert not newest >= names_in(place)
        newest = names_in(place)
    assert training.run(seed=7, resume=True).same(whole)
    assert not [name for name in os.listdir(place.path) if ".new-" in name], "nothing half-written is left"


def fine_tuned(learn: Any, cbs: Any, epochs: int) -> None:
    """A verb with as many epochs."""
    learn.fine_tune(epochs, 1e-3, cbs=cbs)


def names_in(place: CheckpointFolder) -> set[str]:
    """The checkpoints that are there."""
    return {folder.name for folder in place.folders()}


def save(folder: Path, step: int) -> Path:
    """One checkpoint of a tiny model whose every number is the step."""
    model = torch.nn.Linear(40, 40)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(step))
    state = {"step": step, "memory": torch.full((300,), float(step))}
    return CheckpointFolder(folder).write(Position(0, 0, step, step), {"fits": [step]}, model, state)


def check_whole(folder: Path, allowed: set[int]) -> int:
    """The newest checkpoint is one of these steps, and everything in it is of that step."""
    found, damaged = CheckpointFolder(folder).newest()
    assert found is not None and not damaged
    step = found.position.step
    assert step in allowed and found.told == {"fits": [step]}
    model = torch.nn.Linear(40, 40)
    found.load_weights(model)
    assert all(bool((parameter == step).all()) for parameter in model.parameters())
    assert found.state()["step"] == step and bool((found.state()["memory"] == step).all())
    return step


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with two checkpoints, and how many steps the third one takes."""
    folder = tmp_path_factory.mktemp("kept")
    for name in ("two", "counted"):
        save(folder / name, 1)
        save(folder / name, 2)
    seen: list[str] = []
    with at_each_step(lambda number, name, args: seen.append(name)):
        save(folder / "counted", 3)
    return folder / "two", len(seen)


def test_killed_at_every_step_of_a_save_the_last_whole_one_is_found(two: tuple[Path, int], tmp_path: Path) -> None:
    before, count = two
    assert count > 30
    found = set()
    for step in range(count):
        folder = Path(shutil.copytree(before, tmp_path / f"{step}"))

        def attempt(step: int = step, folder: Path = folder) -> None:
            with killed_at(step):
                save(folder, 3)

        assert in_child(attempt).signal == signal.SIGKILL
        found.add(check_whole(folder, {2, 3}))
        CheckpointFolder(folder).sweep()
        if step % 4 == 0:
            save(folder, 4)
            assert check_whole(folder, {4}) == 4
        assert not [name for name in os.listdir(folder) if ".new-" in name or ".old-" in name]
    assert found == {2, 3}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_at_every_step_of_a_save_is_said_and_costs_nothing(two: tuple[Path, int], tmp_path: Path, number: int) -> None:
    before, count = two
    failures = 0
    for step in range(count):
        folder = Path(shutil.copytree(before, tmp_path / f"{step}"))
        with failing_at(step, number, STEPS) as failed:
            try:
                save(folder, 3)
            except StorageError:
                failures += 1
        assert failed
        check_whole(folder, {2, 3})
        if step % 4 == 0:
            save(folder, 4)
            assert check_whole(folder, {4}) == 4
    assert failures > count / 2


@pytest.mark.parametrize("deadly", [True, False])
def test_a_full_disk_within_the_rust_library(tmp_path: Path, deadly: bool) -> None:
    folder = tmp_path / "kept"
    save(folder, 1)
    for limit in (0, 1, 100, 1000, 6000):

        def attempt(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(folder, 2)

        ended = in_child(attempt)
        assert ended.signal == signal.SIGXFSZ if deadly else ended.error.startswith("StorageError"), ended
        assert check_whole(folder, {1}) == 1


# --- two runs in one folder ----------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_a_dead_one_is_no_obstacle(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    training = Training(tiny_checkpoints["bert"], tmp_path / "run")
    place = CheckpointFolder(training.folder / "checkpoints")

    def hold() -> None:
        with place.held(), place.held():
            (tmp_path / "held").touch()
            time.sleep(60)

    started = start_child(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    try:
        with pytest.raises(StorageError, match=r"another run is training there just now.*choose another folder"):
            training.run()
        assert not place.folders()
    finally:
        os.kill(started[0], signal.SIGKILL)
        wait_for(started)
    training.run()
    assert place.folders()


# --- the command line ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, standard output, standard error."""
    from pellucid.apps import cli

    def command(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return command


STOPS = {  # where, the signals that come there, and the step whose checkpoint is the newest
    "step": (True, 2, [signal.SIGINT], 11),
    "step, TERM": (True, 0, [signal.SIGTERM], 9),
    "validation": (False, 0, [signal.SIGINT], 16),
    "validation, TERM": (False, 0, [signal.SIGTERM], 16),
    "twice in a step": (True, 2, [signal.SIGINT, signal.SIGINT], 9),
}


@pytest.mark.parametrize("place", STOPS)
def test_a_command_that_is_stopped_says_how_to_go_on(
    run: Any, tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    rows = tmp_path / "rows.csv"
    lines = [f'"{"good" if place % 2 else "bad"} {SENTENCES[place % 12]} {place}",{place % 2},{int(place % 4 == 3)}' for place in range(40)]
    rows.write_text("\n".join(["text,label,is_valid", *lines]) + "\n", encoding="utf-8")
    options = ["--checkpoint", tiny_checkpoints["bert"], "--epochs", 2, "--batch-size", 4]
    assert run("train", rows, *options, "-o", tmp_path / "whole")[0] == 0
    assert not (tmp_path / "whole.checkpoints").exists()
    output = tmp_path / "my model"
    in_training, batch, signals, kept = STOPS[place]
    work = PellucidLearner._do_one_batch
    with monkeypatch.context() as patch:

        def stopped(self: PellucidLearner) -> None:
            if self.epoch == 1 and self.training == in_training and self.iter == batch:
                for number in signals:
                    signal.raise_signal(number)
            work(self)

        patch.setattr(PellucidLearner, "_do_one_batch", stopped)
        code, _, errors = run("train", rows, *options, "--checkpoint-every", 3, "-o", output)
    assert code == 130 and not output.exists()
    assert f"step-{kept:08d} is kept; go on with: pellucid train" in errors and errors.rstrip().endswith("stopped")
    assert f"'{output}' --resume" in errors
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    code, _, errors = run("train", rows, *options, "-o", output)
    assert code == 2 and "a run was interrupted" in errors and "--resume" in errors
    code, out, _ = run("train", rows, *options, "--resume", "--checkpoint-every", 3, "-o", output)
    assert code == 0 and f"the training goes on after step {kept} (epoch 1, batch {kept - 8})" in out
    assert not (tmp_path / "my model.checkpoints").exists(), "the model is saved"
    whole, found = (pl.load(folder).model.state_dict() for folder in (tmp_path / "whole", output))
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())


def test_a_second_command_for_one_output_is_refused(run: Any, tmp_path: Path) -> None:
    def hold() -> None:
        with CheckpointFolder(tmp_path / "model.checkpoints").held():
            (tmp_path / "held").touch()
            time.sleep(60)

    started = start_child(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    try:
        code, _, errors = run("train", tmp_path / "rows.csv", "-o", tmp_path / "model")
    finally:
        os.kill(started[0], signal.SIGKILL)
        wait_for(started)
    assert code == 2 and "another run is training there just now" in errors
