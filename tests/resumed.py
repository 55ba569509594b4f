"""Tiny trainings that stop and go on, for the tests of the resume.

Takes a way to make a learner, a verb, and where to stop. Gives what is left at the end: weights and the recorder's values.
Knows nothing of pytest.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback

import pellucid as pl
from conftest import SENTENCES
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_checkpoints import Checkpoints
from pellucid.training.fastai_learner import LearnerOptions, learner

BATCHES = 5  # an epoch: 36 rows in batches of 8
Verb = Callable[[Any, Any], None]
VERBS: dict[str, Verb] = {
    "fit": lambda learn, cbs: learn.fit(3, 1e-3, cbs=cbs),
    "fit_one_cycle": lambda learn, cbs: learn.fit_one_cycle(3, 1e-3, cbs=cbs),
    "fit_linear": lambda learn, cbs: learn.fit_linear(3, 1e-3, cbs=cbs),
    "fine_tune": lambda learn, cbs: learn.fine_tune(2, 1e-3, cbs=cbs),
}


class Crashed(Exception):
    """The end of a process, as far as its training is concerned."""


class Crash(Callback):
    """Ends the training before a batch is run: number `at` of all batches that this object sees in training (or in validation)."""

    stateless = True

    def __init__(self, at: int | None = None, act: Callable[[], None] | None = None, training: bool = True) -> None:
        self.at, self.act, self.in_training, self.seen = at, act, training, 0

    def before_batch(self) -> None:
        if self.learn.training != self.in_training:
            return
        self.seen += 1
        if self.seen == self.at:
            if self.act is None:
                raise Crashed("on purpose")
            self.act()


@dataclass
class Left:
    """What is left of a training."""

    weights: dict[str, torch.Tensor]
    values: list[list[Any]]
    losses: list[float]
    rates: list[float]
    hps: dict[str, list[float]] = field(default_factory=dict)

    def same(self, other: "Left") -> bool:
        """Equal to the bit."""
        assert self.weights.keys() == other.weights.keys()
        assert all(torch.equal(tensor, other.weights[name]) for name, tensor in self.weights.items())
        assert np.array_equal(np.array(self.values, dtype=float), np.array(other.values, dtype=float), equal_nan=True)
        assert self.losses == other.losses and self.rates == other.rates and self.hps == other.hps
        return True


def rows_of(count: int = 48, word: str = "again") -> pl.Rows:
    """Short texts of different lengths in two classes: 36 to learn from, 12 aside."""
    texts = [f"{text} {f'{word} ' * (place % 5)}{place}" for place, text in zip(range(count), SENTENCES * 4, strict=False)]
    table = [
        {
            "text": ("good " if place % 3 else "bad ") + text,
            "label": "good" if place % 3 else "bad",
            "split": "train" if place < 36 else "valid",
        }
        for place, text in enumerate(texts)
    ]
    return pl.read(table, text="text", label="label", split="split")


def seeded(seed: int) -> None:
    """Set every generator."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global one
    random.seed(seed)


@dataclass
class Training:
    """A training that can be made again in what stands for another process."""

    checkpoint: Path
    folder: Path
    verb: Verb = VERBS["fit_one_cycle"]
    callbacks: Callable[[], list[Any]] = list
    loaders: LoaderOptions = field(default_factory=lambda: LoaderOptions(bs=8))
    rows: Callable[[], pl.Rows] = rows_of
    task: Any = "text-classification"
    steps: int = 2

    def learner(self, seed: int) -> Any:
        """A new learner; what `seed` draws (the new head, dropout) must not matter to a resume."""
        seeded(seed)
        rows = self.rows()
        pipe = pl.Pipeline.new(self.task, self.checkpoint, rows)
        return learner(pipe, rows, options=LearnerOptions(lr=1e-3, loaders=self.loaders, path=self.folder))

    def run(self, crash: Crash | None = None, *, seed: int = 0, resume: bool = False, keeper: Checkpoints | None = None) -> Left:
        """Train to the end, or to the crash."""
        learn = self.learner(seed)
        keeper = keeper or Checkpoints(self.folder / "checkpoints", steps=self.steps, resume=resume)
        with learn.no_bar(), learn.no_logging():
            self.verb(learn, [*self.callbacks(), crash or Crash(), keeper])
        recorder = learn.recorder
        return Left(
            {name: tensor.detach().clone() for name, tensor in learn.model.state_dict().items()},
            [list(line) for line in recorder.values],
            [float(loss) for loss in recorder.losses],
            [float(rate) for rate in recorder.lrs],
            {name: [float(value) for value in values] for name, values in getattr(recorder, "hps", {}).items()},
        )

    def broken(self, at: int, **more: Any) -> None:
        """Train until the crash."""
        try:
            self.run(Crash(at), **more)
        except Crashed:
            return
        raise AssertionError("it did not crash")

    def without(self, folder: Path) -> Left:
        """The training that nobody stops."""
        other = Training(self.checkpoint, folder, self.verb, self.callbacks, self.loaders, self.rows, self.task, steps=1000)
        return other.run()
