"""Kill a training at random moments, let it go on, and compare the end, bit for bit, with that of a run that nobody stopped.

    python benchmarks/kills.py [--kills 200] [--failures no] [--against trainer] [--trainer-kills 30] [--seed 0]

Each run is forked from this process, which has imported everything, so that a kill costs a second or two. A run trains a tiny random model
on the CPU and writes a checkpoint after every step; it is killed by SIGKILL after a random time, goes on in a new process, may be killed
again, and at last runs to its end. Six kinds of run take turns: one cycle, a short one, both phases of fine_tune with accumulated
gradients, early stopping with the best model kept, batches of a token budget, masks of a masked language model.

Then a failure is injected at every write, fsync, rename and their kin of one save, as a death and as an error (the disk full, an I/O
error), and the writes of the Rust library are hit through the limit on the size of a file.

`--against trainer` sets transformers' Trainer, which goes on from its `get_last_checkpoint`, beside pellucid: a checkpoint after every
step, one kill at a random moment after the first save has begun, one resume.
"""

import argparse
import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # tiny models, and the injected failures

from injection import STEPS, Ended, at_each_step, failing_at, in_child, killed_at, start_child, wait_for

MOST_KILLS = 3  # of one run
TRAINER_STEPS = 15
LONGEST_START = 60.0  # seconds until the first save of a run has begun


def digest(left: Any) -> str:
    """The weights and the recorder's values of a run, as one number."""
    found = hashlib.sha256()
    for name, tensor in left.weights.items():
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    found.update(repr((left.values, left.losses, left.rates, left.hps)).encode())
    return found.hexdigest()


def kinds(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """The runs that take turns: name → how one is made in a folder of its own."""
    import torch
    from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
    from fastai.callback.training import GradientAccumulation
    from transformers import AutoModel, AutoModelForMaskedLM

    import pellucid as pl
    from conftest import tiny_config, wordpiece
    from resumed import VERBS, Training, rows_of

    tokenizer = wordpiece()
    for name, kind in (("body", AutoModel), ("masked", AutoModelForMaskedLM)):
        torch.manual_seed(0)
        kind.from_config(tiny_config("bert", len(tokenizer))).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    texts = [{"text": rows_of().train[place].fields["text"]} for place in range(36)]
    language = pl.read({"train": texts, "valid": texts[:8]}, text="text", label=False)
    body, small = folder / "body", pl.LoaderOptions(bs=8, max_tokens=120)
    return {
        "one_cycle": lambda place: Training(body, place, steps=1),
        "fine_tune": lambda place: Training(body, place, VERBS["fine_tune"], lambda: [GradientAccumulation(16)], steps=1),
        "stopping": lambda place: Training(
            body, place, VERBS["fit"], lambda: [SaveModelCallback(), EarlyStoppingCallback(monitor="accuracy", patience=2)], steps=1
        ),
        "short": lambda place: Training(body, place, lambda learn, cbs: learn.fit_one_cycle(1, 1e-3, cbs=cbs), steps=1),
        "budget": lambda place: Training(body, place, VERBS["fit_linear"], loaders=small, steps=1),
        "masks": lambda place: Training(folder / "masked", place, VERBS["fit_one_cycle"], rows=lambda: language, task="fill-mask", steps=1),
    }


def quietly(action: Callable[[], Any]) -> Any:
    """Run in a child without a word on the terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return action()


def unshared_progress_lock() -> None:
    """Give each child its own lock of progress bars. tqdm's is shared with the children, and one that dies holding it stops all later ones.

    To be called before the first bar, which makes tqdm's own.
    """
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


def killed_after(seconds: float, action: Callable[[], Any]) -> Ended:
    """Run in a child and kill it after so long; it may have ended before."""
    child, reader = start_child(lambda: quietly(action))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # a child that has ended waits to be fetched: its number is still its own
    return wait_for((child, reader))


def campaign(wanted: int, chance: random.Random, scratch: Path) -> None:
    """Kill `wanted` times."""
    made = kinds(scratch)
    whole: dict[str, tuple[str, float]] = {}
    for name, make in made.items():
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            ended = in_child(partial(quietly, partial(trained, make, scratch / "whole", 0)))
            assert not ended.error, ended.error
            whole[name] = ended.value, time.perf_counter() - start
            shutil.rmtree(scratch / "whole")
        alone = in_child(partial(quietly, partial(uncovered, make, scratch / "whole")))
        assert alone.value == ended.value, f"{name}: checkpoints change the training"
        shutil.rmtree(scratch / "whole", ignore_errors=True)
    counts = {"kills": 0, "runs": 0, "resumes": 0, "resumes_that_failed": 0, "runs_that_differ": 0}
    start = time.perf_counter()
    while counts["kills"] < wanted:
        name = list(made)[counts["runs"] % len(made)]
        one_run(made[name], whole[name], min(wanted - counts["kills"], chance.randint(1, MOST_KILLS)), chance, (scratch / "run", counts))
    for key, value in counts.items():
        print(f"{key} = {value}")
    print(f"seconds_a_run = {sum(seconds for _, seconds in whole.values()) / len(whole):.2f}")
    print(f"seconds_a_kill = {(time.perf_counter() - start) / counts['kills']:.2f}")


def trained(make: Callable[[Path], Any], folder: Path, seed: int) -> str:
    """Begin or go on, to the end."""
    return digest(make(folder).run(seed=seed, resume=True))


def uncovered(make: Callable[[Path], Any], folder: Path) -> str:
    """The run without a single checkpoint."""
    return digest(make(folder).without(folder))


def one_run(make: Callable[[Path], Any], whole: tuple[str, float], kills: int, chance: random.Random, where: tuple[Path, Any]) -> None:
    """One run, killed up to `kills` times, to its end."""
    folder, counts = where
    shutil.rmtree(folder, ignore_errors=True)
    done = 0
    while True:
        counts["resumes"] += done > 0
        seed = chance.randrange(2**31) if any((folder / "checkpoints").glob("step-*")) else 0  # a resume needs no seed, a beginning does
        action = partial(trained, make, folder, seed)
        ended = killed_after(chance.uniform(0, whole[1]), action) if done < kills else in_child(partial(quietly, action))
        if ended.signal:
            done += 1
            counts["kills"] += 1
            continue
        break
    counts["runs"] += 1
    if ended.error:
        counts["resumes_that_failed"] += 1
        print(f"failed: {ended.error}", file=sys.stderr)
    elif ended.value != whole[0]:
        counts["runs_that_differ"] += 1


# --- failures at every step of a save ------------------------------------------------------------------------------------


@contextmanager
def second_save(around: Callable[[], Any]) -> Iterator[None]:
    """During the block, the second checkpoint of this process is written inside of `around()`."""
    from unittest import mock

    from pellucid.training.resume import CheckpointFolder

    write, calls = CheckpointFolder.write, []

    def watched(self: Any, *rest: Any) -> Path:
        calls.append(1)
        if len(calls) != 2:
            return write(self, *rest)
        with around():
            return write(self, *rest)

    with mock.patch.object(CheckpointFolder, "write", watched):
        yield


@contextmanager
def small_files(limit: int, deadly: bool) -> Iterator[None]:
    """No file may grow beyond `limit` bytes: an error in the library that writes, or its death."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def failures(scratch: Path) -> None:
    """Hit one save at each of its steps, in each way, and let the run go on."""
    make = kinds(scratch)["short"]
    folder, seen = scratch / "failures", []

    def attempt(around: Callable[[], Any]) -> Callable[[], Any]:
        def action() -> Any:
            with second_save(around):
                return digest(make(folder).run(resume=True))

        return lambda: quietly(action)

    def counted() -> Any:
        return at_each_step(lambda number, name, args: seen.append(name))

    def size() -> list[str]:
        with second_save(counted):
            make(folder).run()
        return seen

    names = in_child(lambda: quietly(size)).value
    shutil.rmtree(folder)
    whole = in_child(lambda: quietly(lambda: digest(make(folder).without(folder)))).value
    shutil.rmtree(folder, ignore_errors=True)
    ways = [("killed", lambda step=step: killed_at(step)) for step in range(len(names))]
    for number in (errno.EIO, errno.ENOSPC):
        ways += [(os.strerror(number), lambda step=step, number=number: failing_at(step, number, STEPS)) for step in range(len(names))]
    for limit in (0, 1, 100, 5_000, 50_000, 100_000, 200_000):
        ways += [(f"files of {limit}", lambda limit=limit, deadly=deadly: small_files(limit, deadly)) for deadly in (False, True)]
    failed = differ = died = 0
    for way, around in ways:
        shutil.rmtree(folder, ignore_errors=True)
        ended = in_child(attempt(around))
        if ended.signal:
            died += 1
            ended = in_child(lambda: quietly(lambda: digest(make(folder).run(seed=5, resume=True))))
        failed += bool(ended.error)
        differ += not ended.error and ended.value != whole
        if ended.error:
            print(f"failed ({way}): {ended.error}", file=sys.stderr)
    print(f"steps_of_a_save = {len(names)}")
    print(f"failures = {len(ways)}")
    print(f"failures_that_were_deaths = {died}")
    print(f"failures_after_which_it_failed = {failed}")
    print(f"failures_after_which_it_differs = {differ}")


# --- transformers' Trainer -----------------------------------------------------------------------------------------------


def by_trainer(folder: Path) -> str:
    """The same kind of run: a checkpoint after every step, going on from the last one that Trainer finds."""
    import torch
    from transformers import BertForSequenceClassification, Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    from conftest import tiny_config

    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config("bert", 300))
    rows = [{"input_ids": torch.randint(5, 300, (16,)), "labels": torch.tensor(place % 2)} for place in range(36)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=TRAINER_STEPS,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        report_to=[],
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    Trainer(model, arguments, train_dataset=rows).train(resume_from_checkpoint=last)
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def once_killed(name: str, first: str, wanted: int, chance: random.Random, run: tuple[Path, Callable[[Path], str]]) -> None:
    """Kill a run once, after its first save has begun (`first` is the pattern of its folder), and let it go on; `wanted` times."""
    folder, action = run

    def begun() -> tuple[int, int]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        started = start_child(lambda: quietly(lambda: action(folder)))
        deadline = time.monotonic() + LONGEST_START
        while not any(folder.glob(first)):
            if time.monotonic() > deadline:
                os.kill(started[0], signal.SIGKILL)
                sys.exit(f"{name}: no save had begun after {LONGEST_START:g} s")
            time.sleep(0.001)
        return started

    whole, seconds = "", 0.0
    for _ in range(2):  # the first one warms up
        started, start = begun(), time.perf_counter()
        ended = wait_for(started)
        assert not ended.error, ended.error
        whole, seconds = ended.value, time.perf_counter() - start
    counts = {"kills": 0, "resumes_that_failed": 0, "runs_that_differ": 0}
    while counts["kills"] < wanted:
        started = begun()
        time.sleep(chance.uniform(0, seconds))
        os.kill(started[0], signal.SIGKILL)
        if not wait_for(started).signal:
            continue
        counts["kills"] += 1
        ended = in_child(lambda: quietly(lambda: action(folder)))
        counts["resumes_that_failed"] += bool(ended.error)
        counts["runs_that_differ"] += not ended.error and ended.value != whole
        if ended.error:
            print(f"{name}: {ended.error[:160]}", file=sys.stderr)
    for key, value in counts.items():
        print(f"{name}_{key} = {value}")
    print(f"{name}_seconds_of_training = {seconds:.2f}")


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--failures", choices=("yes", "no"), default="yes")
    parser.add_argument("--against", choices=("trainer", "nobody"), default="nobody")
    parser.add_argument("--trainer-kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    import torch

    from pellucid.process import hide_broken_torchvision

    torch.set_num_threads(1)  # a process with threads may not be forked
    hide_broken_torchvision()
    unshared_progress_lock()
    import pellucid.training.fastai_learner  # noqa: F401  # imported once, for every child

    if given.against == "trainer":
        import accelerate.checkpointing  # noqa: F401
        import transformers.trainer  # noqa: F401

    scratch = Path(mkdtemp(prefix="kills-"))
    chance = random.Random(given.seed)
    try:
        if given.kills:
            campaign(given.kills, chance, scratch)
        if given.failures == "yes":
            failures(scratch)
        if given.against == "trainer":
            make = kinds(scratch)["one_cycle"]
            runs = {"trainer": ("checkpoint-*", by_trainer), "pellucid": ("checkpoints", lambda folder: trained(make, folder, 0))}
            for name, (first, action) in runs.items():
                once_killed(name, first, given.trainer_kills, chance, (scratch / name, action))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
