"""Training faster with the same numbers: memory that is kept, products through oneDNN.

Takes a learner. Gives it what makes its steps faster on this machine without changing what is computed, and a note of each.
Knows nothing of rows, losses or files.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from fastai.callback.core import Callback

from pellucid.errors import CheckpointError, StorageError
from pellucid.inspection import show
from pellucid.linear_products import through_onednn, trial
from pellucid.manifest import read_manifest
from pellucid.process import keep_freed_memory
from pellucid.training.fastai_checkpoints import Checkpoints, keeper_among
from pellucid.types import Note

PRODUCTS = Note("linear layers multiply through oneDNN", "the run that goes on has begun so")
KEPT = "It holds for the whole process; pellucid.process.release_freed_memory() takes it back."


class OneDNNProducts(Callback):
    """While a fit runs, linear layers multiply float32 matrices through oneDNN: the same sums in another order.

    `make_faster` adds it where a trial shows that it pays.
    """

    stateless = True
    handles: tuple[Any, ...] = ()

    def before_fit(self) -> None:
        """Turn it on."""
        self.handles = tuple(through_onednn(self.learn.model))

    def after_fit(self) -> None:
        """Turn it off."""
        for handle in self.handles:
            handle.remove()
        self.handles = ()

    def left_fit(self) -> None:
        """A fit was left by an error or Ctrl-C: put back what was changed."""
        self.after_fit()


def make_faster(learn: Any) -> tuple[Note, ...]:
    """Train faster on a CPU from now on, with the same numbers up to rounding; what was done is shown.

    Memory that is freed stays in the process, for everything that runs in it (glibc only; `process.release_freed_memory` takes it back).
    Linear layers multiply through oneDNN while a fit runs, where a trial of some milliseconds shows that to be 1.5 times faster.
    """
    notes = faster(learn)
    learn.pipe = replace(learn.pipe, notes=(*learn.pipe.notes, *notes))  # they are saved with the model
    for note in notes:
        show(note)
    return notes


def faster(learn: Any, keeper: Checkpoints | None = None) -> tuple[Note, ...]:
    """What `make_faster` does, without a word: the notes say it.

    Where `keeper`, or Checkpoints that the learner has, will go on with a run, its products are what that run chose.
    """
    if learn.model.device.type != "cpu":
        return ()
    kept = keep_freed_memory()
    notes = () if kept is None else (Note(kept, "long texts train faster so, with the same numbers", KEPT),)
    begun, note = begun_with(keeper or keeper_among(learn.cbs)), PRODUCTS
    pays = begun is not None and OneDNNProducts.__name__ in begun
    if begun is None:
        found = trial(learn.model)
        if found is not None:
            pays, note = found.pays, found.note()
    pays = learn.sharing.first_says(pays)  # trials of several processes may differ
    if not pays:
        return notes
    if not any(isinstance(callback, OneDNNProducts) for callback in learn.cbs):
        learn.add_cb(OneDNNProducts())
    return (*notes, note)


def begun_with(keeper: Checkpoints | None) -> str | None:
    """The names of the callbacks with which the run that `keeper` goes on with has begun; None where there is no such run."""
    for folder in keeper.place.folders() if keeper is not None and keeper.resume else ():
        with suppress(CheckpointError, StorageError, LookupError, TypeError):  # a damaged one: those of a run all say the same
            return " ".join(read_manifest(folder)["told"]["fits"][0]["callbacks"])
    return None


@contextmanager
def as_in_a_fit(learn: Any) -> Iterator[None]:
    """The products that a fit of this learner would use, outside of one."""
    handles = through_onednn(learn.model) if any(isinstance(callback, OneDNNProducts) for callback in learn.cbs) else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
