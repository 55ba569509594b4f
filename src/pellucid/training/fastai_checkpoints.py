"""A callback that writes down where a training stands, and lets another process go on there as if nothing had happened.

Takes the events of a fit. Gives checkpoints in a folder, the first epoch and batch of a fit that goes on, and notes of what was found.
Knows nothing of how files are written, nor of what each callback remembers.
"""

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastai.callback.core import Callback

from pellucid.errors import CheckpointError, SettingError, StorageError
from pellucid.training.fastai_fingerprint import Asked, described_fit, described_run, start_of
from pellucid.training.fastai_states import check_callbacks, memory_of, ordered, recorder_state, remember, restore_recorder, swaps_nothing
from pellucid.training.interrupts import Stop, interrupts_wait, raise_swallowed_interrupt
from pellucid.training.resume import Checkpoint, CheckpointFolder, could_not_write
from pellucid.training.resume_state import Position, differences, sentence_of, set_random_state, surroundings
from pellucid.training.resume_together import Together
from pellucid.types import Note

LOG = logging.getLogger(__name__)


class Checkpoints(Callback):
    """Write a checkpoint every `steps` batches of training, every `minutes`, or both; the last `keep` are there.

    A new process builds the same learner, calls the same verbs and passes `Checkpoints(folder, resume=True)`: it goes on behind the last
    whole checkpoint, or begins where there is none. On a CPU the weights and the recorder's values are then, bit for bit, those of a run
    that nobody stopped. One object serves all fits of a run, in their order: both phases of `fine_tune`.
    Ctrl-C waits for the end of the step, writes a checkpoint and raises KeyboardInterrupt; a second one raises at once.
    Of several processes the first one writes, reads and decides; all go on from the same checkpoint, and as many must be there again.

    `notes` says what a resume has found. When the training starts, raises SettingError for a callback whose state nobody can keep, for
    checkpoints of an earlier run without `resume`, and for rows or settings that are not those of the run that was interrupted;
    StorageError where another run is at work in the folder; CheckpointError where every checkpoint is damaged.
    """

    order, run_valid, stateless = 1_000_000, False, True  # behind all others, when a batch is done with

    def __init__(
        self,
        folder: str | os.PathLike[str] | CheckpointFolder,
        *,
        steps: int | None = 100,
        minutes: float | None = None,
        keep: int = 2,
        resume: bool = False,
    ) -> None:
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise SettingError(f"steps is {steps!r}, expected 1 or more, or None", place="steps", cure="Pass steps=100.")
        if minutes is not None and not minutes > 0:
            raise SettingError(f"minutes is {minutes!r}, expected more than 0, or None", place="minutes", cure="Pass minutes=10.")
        self.place = folder if isinstance(folder, CheckpointFolder) else CheckpointFolder(folder, keep)
        self.steps_between, self.minutes_between, self.resume = steps, minutes, resume
        self.notes: tuple[Note, ...] = ()
        self.active, self.in_batches, self.stop = False, False, Stop()
        self.together = Together(self.place)  # with the other processes, where there are some
        self._forget()

    def _forget(self) -> None:
        """Stand before the first fit of a run."""
        self.fits, self.steps_done, self.due = 0, 0, 0.0
        self.told: dict[str, Any] = {}
        self.past: list[dict[str, Any]] = []  # the recorder's curves of the fits that have ended
        self.pending: Checkpoint | None = None  # to go on from
        self.trained: tuple[Position, dict[str, Any]] | None = None  # the state between an epoch's training and its validation
        self.last: Path | None = None

    @contextmanager
    def keeping(self, learn: Any, asked: Asked) -> Iterator[bool]:
        """Around one fit of `learn`: gives False where it lies behind the checkpoint, and need not run again."""
        try:
            self.together.group = learn.sharing.group
            with self.together.held():
                check_possible(learn, asked)
                if not self.fits:
                    self._begin(learn)
                if self._lies_behind(learn, asked):
                    yield False
                else:
                    with self._watched(learn):
                        yield True
                    self.past.append(recorder_state(learn.recorder))
                self.fits += 1
        except BaseException:
            self._forget()
            raise

    @contextmanager
    def _watched(self, learn: Any) -> Iterator[None]:
        """While a fit runs: checkpoints are written, and Ctrl-C leaves one."""
        try:
            raise_swallowed_interrupt()
            with interrupts_wait(lambda: self.in_batches) as self.stop:
                self.active, self.due = True, self._next_time()
                yield
                if self.stop.asked:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            if self.trained is not None:  # within a validation the weights still stand as training left them
                self._write(learn, *self.trained)
            raise KeyboardInterrupt(f"stopped; {what_is_kept(self.last)}") from None
        finally:
            self.active = self.in_batches = False

    def first_epoch(self) -> int:
        """The epoch that this fit begins with; the callbacks remember again what they did when it was interrupted."""
        if self.pending is None:
            return 0
        state = self.pending.state()
        loader = self.learn.dls.train
        loader.epoch, loader.peeks = state["loader"]["epoch"] - bool(loader.shuffle), state["loader"]["peeks"]
        remember(self.learn, state)
        bar = getattr(getattr(self.learn, "progress", None), "mbar", None)
        if bar is not None:
            bar.update(0)  # it must have begun before it can be further on
        return self.pending.position.epoch

    def go_on(self) -> int:
        """The batch that this epoch begins with. Where that is not the first, everything is now as it was before it."""
        if self.pending is None:
            return 0
        found, self.pending = self.pending, None
        state = restored(self.learn, found)
        self.steps_done, self.past, self.last = found.position.step, list(state["past"]), found.folder
        set_random_state(state["random"])
        return found.position.batch

    def before_train(self) -> None:
        """An epoch's training begins: from here on Ctrl-C waits for the end of a step."""
        self.trained, self.in_batches = None, self.active

    def after_batch(self) -> None:
        """Write a checkpoint where it is time for one, or where somebody has asked to stop."""
        if not self.active:
            return
        self.steps_done += 1
        learn = self.learn
        position = Position(self.fits, learn.epoch, learn.iter + 1, self.steps_done)
        by_steps = self.steps_between is not None and self.steps_done % self.steps_between == 0
        stops, by_time = self.together.agreed(self.stop.asked, time.monotonic() >= self.due)
        if stops or by_steps or by_time:
            self._write(learn, position, memory_of(learn))
            self.due = self._next_time()
        if stops:
            self.together.meet()  # nobody leaves before it is written
            raise KeyboardInterrupt
        if learn.iter + 1 == learn.n_iter and swaps_nothing(ordered(learn.cbs)):
            self.trained = position, memory_of(learn)

    def after_train(self) -> None:
        """The training part is over: a Ctrl-C that came too late for the last step counts now."""
        self.in_batches = False
        if self.active and self.together.agreed(self.stop.asked, False)[0]:
            raise KeyboardInterrupt

    def after_validate(self) -> None:
        """What follows may change the weights or the rates."""
        self.trained = None

    def _begin(self, learn: Any) -> None:
        """Before the first fit: look for what an earlier process has left."""
        self._forget()
        self.notes = ()
        found, damaged = self.together.newest(self.resume)
        for what in damaged:
            self._say(Note("a damaged checkpoint was left aside", what, "The one before it is used."), warning=True)
        learn.weights_at_start = learn.weights_at_start or start_of(learn)  # it stays: a notebook may go on with a trained learner
        run = {**described_run(learn, learn.weights_at_start), "processes": self.together.processes}
        self.told = {"run": run, "fits": [], "surroundings": surroundings(learn.model.device.type)}
        self.pending = found
        if found is not None:
            self._check_same({"processes": 1, **found.told["run"]}, run)
            for what in differences(found.told["surroundings"], self.told["surroundings"]):
                why = "the last bits may differ from those of a run in one go"
                self._say(Note(f"the training goes on in another setting: {what}", why), warning=True)
            self._say(Note(f"the training goes on after {found.position}", f"{found.folder.name} is whole", "Leave resume out."))
        elif self.resume:
            self._say(Note("the training begins with the first step", f"there is no checkpoint in {self.place.path}"))

    def _lies_behind(self, learn: Any, asked: Asked) -> bool:
        """Whether this fit lies behind the checkpoint; what it was told must be what it was told then."""
        now = described_fit(learn, asked)
        self.told["fits"].append(now)
        found = self.pending
        if found is None or self.fits > found.position.fit:
            return False
        self._check_same(found.told["fits"][self.fits], now)
        if self.fits == found.position.fit:
            return False
        curves = found.state()["past"][self.fits]
        restore_recorder(learn.recorder, curves)
        self.past.append(curves)
        return True

    def _check_same(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        found = differences(then, now)
        if found:
            cure = "Pass what that run had, or train from the beginning in another folder."
            raise SettingError(f"this is not the run that was interrupted: {sentence_of(found)}", place=str(self.place.path), cure=cure)

    def _write(self, learn: Any, position: Position, memory: Mapping[str, Any]) -> None:
        """One checkpoint, by the first process; where it cannot be written the training goes on without."""
        if not self.together.first:
            return
        model = learn.model
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        state = {"optimizer": learn.opt.state_dict(), "gradients": gradients, "past": self.past, **memory}
        try:
            self.last = self.place.write(position, self.told, model, state)
        except (StorageError, CheckpointError) as error:
            warnings.warn(could_not_write(error, self.last), stacklevel=2)

    def _next_time(self) -> float:
        return float("inf") if self.minutes_between is None else time.monotonic() + 60 * self.minutes_between

    def _say(self, note: Note, *, warning: bool = False) -> None:
        """Keep a note, and say it at once."""
        self.notes = (*self.notes, note)
        if warning and self.together.first:
            warnings.warn(str(note), stacklevel=2)
        elif self.together.first:
            LOG.warning("%s", note)


def what_is_kept(last: Path | None) -> str:
    """What an interrupted run leaves behind, and how to go on."""
    return "no checkpoint was written yet" if last is None else f"{last.name} is kept in {last.parent}: go on with resume=True"


def restored(learn: Any, found: Checkpoint) -> dict[str, Any]:
    """Put weights, optimizer, gradients and memory back into a learner, but for the random numbers; gives what was kept."""
    state = found.state()
    found.load_weights(learn.model)
    learn.opt.load_state_dict(state["optimizer"])
    for name, parameter in learn.model.named_parameters():
        gradient = state["gradients"].get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    remember(learn, state)
    learn.pct_train, learn.train_iter = state["learner"]["pct_train"], state["learner"]["train_iter"]
    return state


def check_possible(learn: Any, asked: Asked) -> None:
    """Raise SettingError for a training whose state cannot be kept whole."""
    check_callbacks(ordered([*learn.cbs, *asked.callbacks]))
    if "get_idxs" in vars(learn.dls.train):
        cure = "Let the loader itself order the rows."
        raise SettingError("the order of the training rows is not the loader's own", place="get_idxs", cure=cure)


def keeper_among(callbacks: Any) -> Checkpoints | None:
    """The Checkpoints among callbacks, if any. Raises SettingError for two."""
    found = [callback for callback in callbacks if isinstance(callback, Checkpoints)]
    if len(found) > 1:
        raise SettingError("two Checkpoints in one fit", place="cbs", cure="Pass one.")
    return found[0] if found else None
