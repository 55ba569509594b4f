"""A callback that lets a training be followed: numbers at each step, tables and pictures at the end of each epoch.

Takes the events of a fit and the names of trackers. Gives them what the terminal shows and what an epoch looks like.
Knows nothing of what a tracker does with it; one that fails is left out, and the training goes on.
"""

import json
import logging
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from math import isnan
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastai.callback.core import Callback
from fastai.learner import Recorder
from fastai.torch_core import rank_distrib

from pellucid.errors import PellucidError, SettingError
from pellucid.files import write_json
from pellucid.groups import layer_groups
from pellucid.training.resume_state import random_state, set_random_state
from pellucid.training.tracked_epoch import EpochRows, learning_curve, run_settings, token_page
from pellucid.training.trackers import Open, Pixels, TrackedRun, Tracker, check_names, names_of, opener
from pellucid.view import Table

LOG = logging.getLogger(__name__)
FOLDER = "tracking"


class Tracked(Callback):
    """Follow a training with Weights & Biases ("wandb"), "trackio" or "tensorboard"; several with commas, or a list.

    Each step gets its loss and learning rate, each epoch the columns of the terminal, a table of `rows` predictions and of the worst ones,
    the first text of the validation with its tokens, and the learning curve: all under their names. `rows=0` keeps texts out of it.
    `to` may also hold what makes a tracker of your own from a TrackedRun. `folder` is where event files and offline runs are written;
    `run_name` is made from the task and the time where none is given; `settings` go beside those that are found.

    The training is the same with and without, bit for bit. A tracker that fails is left out with one warning. With Checkpoints, a run that
    goes on is followed under the name it had, and no step is sent twice. `close` ends the run, and so does the end of the program.
    Raises SettingError for an unknown name, MissingPackageError for one that is not installed.
    """

    order, remove_on_fetch, stateless, only_watches = Recorder.order + 20, True, True, True

    def __init__(
        self,
        to: str | Open | Sequence[str | Open] = "tensorboard",
        *,
        project: str | None = None,
        run_name: str | None = None,
        folder: str | Path = FOLDER,
        rows: int = 8,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
            raise SettingError(f"rows is {rows!r}, expected 0 or more", place="rows", cure="Pass Tracked(rows=8).")
        self.openers = openers_of(to)
        self.project, self.run_name, self.folder = project, run_name, Path(folder)
        self.table_rows, self.asked = rows, dict(settings or {})
        self.seen = EpochRows(rows)
        self.live: dict[str, Tracker] = {}
        self.opened, self.wanted, self.following, self.shows = False, False, False, True
        self.steps = self.epochs = 0
        self.closing = weakref.finalize(self, close_all, self.live)  # at the end of the program too

    def before_fit(self) -> None:
        """A look for a learning rate and predictions are not followed, nor is any process but the first."""
        self.wanted = not hasattr(self.learn, "lr_finder") and not hasattr(self.learn, "gather_preds") and not rank_distrib()

    def before_train(self) -> None:
        """Begin to follow: learn.validate() alone comes not as far as this."""
        self.following = self.wanted
        if self.following:
            self.groups = [group.name for group in layer_groups(self.learn.model, self.learn.pipe.provenance.new_names())]
        if self.following and not self.opened:
            self.opened = True
            with same_random_numbers():
                self._open()

    def _open(self) -> None:
        """Open each tracker."""
        keeper = getattr(self.learn, "keeper", None)
        goes_on = keeper is not None and (keeper.pending is not None or keeper.fits > 0)
        name = self.run_name or named_before(self.folder, keeper, goes_on) or new_name(self.learn.pipe.task.tag)
        name = re.sub(r"[^\w.-]+", "-", name)[:100]
        run = TrackedRun(self.project, name, self.folder, run_settings(self.learn, self.asked), goes_on)
        if keeper is not None:
            remember_name(self.folder, keeper, name)
        for kind, open_one in self.openers.items():
            with self._watched(kind):
                self.live[kind] = tracker = open_one(run)
                LOG.warning("this training can be followed: %s", tracker.where)

    def before_validate(self) -> None:
        """Another epoch's rows."""
        self.seen.clear()

    def after_batch(self) -> None:
        """A step of training is sent; of a validation some rows are kept."""
        if not self.following or not self.live:
            return
        if not self.learn.training:
            if self.table_rows and self.shows and self.learn.dl is self.learn.dls.valid:
                with same_random_numbers(), self._watched(""):
                    self.seen.add(self.learn)
            return
        keeper = self.learn.keeper
        self.steps = self.steps + 1 if keeper is None else keeper.steps_done + 1  # Checkpoints counts after this
        with same_random_numbers():
            self._numbers({"loss": float(self.learn.loss.detach()), **self._rates()})
            if keeper is not None and writes_now(keeper):
                self._flush()  # what a checkpoint has behind it is not sent again

    def _rates(self) -> dict[str, float]:
        """The learning rate; of each layer group where they differ."""
        rates = [float(hyper["lr"]) for hyper in self.learn.opt.hypers]
        if len(set(rates)) == 1:
            return {"lr": rates[0]}
        names = self.groups if len(self.groups) == len(rates) else [str(number) for number in range(len(rates))]
        return {"lr": max(rates), **{f"lr_{name}": rate for name, rate in zip(names, rates, strict=True)}}

    def after_epoch(self) -> None:
        """The columns of the terminal, tables, tokens and the curve."""
        if not self.following or not self.live:
            return
        keeper, recorder = self.learn.keeper, getattr(self.learn, "recorder", None)
        past = self.epochs if keeper is None else sum(len(curves["values"]) for curves in keeper.past) + self.learn.epoch
        self.epochs, self.steps = past + 1, self.steps if keeper is None else keeper.steps_done
        if recorder is None or not recorder.values:
            return
        names = [name for name in recorder.metric_names[1:] if name != "time"]
        columns = {name: as_number(value) for name, value in zip(names, recorder.values[-1], strict=False)}
        with same_random_numbers():
            said = {name: value for name, value in columns.items() if value is not None and (not isnan(value) or "loss" in name)}
            self._numbers({"epoch": self.epochs, **said})
            if self.shows:
                with self._watched(""):
                    self._pictures(names)

    def _pictures(self, names: Sequence[str]) -> None:
        """What is more than a number at the end of an epoch."""
        recorder = self.learn.recorder
        if self.table_rows:
            for name, table in self.seen.tables().items():
                self._each(name, table)
            self._each("tokens", token_page(self.learn))
        valid: list[tuple[int, float]] = []
        if "valid_loss" in names:
            place = names.index("valid_loss")
            valid = [(int(at), float(line[place])) for at, line in zip(recorder.iters, recorder.values, strict=False) if len(line) > place]
        self._each("learning_curve", learning_curve(recorder.losses, valid))

    def after_fit(self) -> None:
        """What was sent can be looked at; further fits go on with the same run."""
        if self.following:
            self.following = False
            with same_random_numbers():
                self._flush()

    def _flush(self) -> None:
        for kind, tracker in list(self.live.items()):
            with self._watched(kind):
                tracker.flush()

    def close(self) -> None:
        """End the run with every tracker; a fit that comes afterwards is another run."""
        with same_random_numbers():
            close_all(self.live)
        self.opened, self.following = False, False
        self.steps = self.epochs = 0

    def _numbers(self, values: Mapping[str, float]) -> None:
        """Send what a tracker does not have yet."""
        for kind, tracker in list(self.live.items()):
            fresh = {name: value for name, value in values.items() if self.steps > tracker.sent.get(name, -1)}
            if fresh:
                with self._watched(kind):
                    tracker.numbers(fresh, self.steps)

    def _each(self, name: str, shown: Table | str | Pixels) -> None:
        """Send something to each tracker that does not have it yet."""
        for kind, tracker in list(self.live.items()):
            if self.steps > tracker.sent.get(name, -1):
                with self._watched(kind):
                    send(tracker, name, shown, self.steps)

    @contextmanager
    def _watched(self, kind: str) -> Iterator[None]:
        """What fails here is said once, and never stops a training: a tracker is left out, or, where none is meant, tables and pictures."""
        try:
            yield
        except Exception as error:  # whatever a tracker, a network or a full disk may raise
            self._leave_out(kind, error)

    def _leave_out(self, kind: str, error: Exception) -> None:
        """Go on without a tracker, or without tables."""
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        if not kind:
            self.shows = False
            LOG.warning("tables and pictures are left out of the tracking, the training goes on: %s", what)
            return
        broken = self.live.pop(kind, None)
        LOG.warning("%s is left out from here on, the training goes on: %s", kind, what)
        with suppress(Exception):
            if broken is not None:
                broken.close()


class Readings(Callback):
    """Read counters of energy once a minute: they begin again at 0 when they are full."""

    stateless, only_watches = True, True

    def __init__(self, look: Callable[[], None], seconds: float = 60.0) -> None:
        super().__init__()
        self.look, self.seconds, self.due = look, seconds, time.monotonic() + seconds

    def after_batch(self) -> None:
        """Read them where it is time."""
        if time.monotonic() >= self.due:
            self.look()
            self.due = time.monotonic() + self.seconds


def openers_of(to: str | Open | Sequence[str | Open]) -> dict[str, Open]:
    """Name → what opens the tracker. Raises SettingError, MissingPackageError."""
    found: dict[str, Open] = {}
    for one in [to] if isinstance(to, str) or callable(to) else to:
        if isinstance(one, str):
            check_names(one)  # all of them, before a package is looked for
            found |= {name: opener(name) for name in names_of(one)}
        else:
            found[getattr(one, "__name__", type(one).__name__)] = one
    return found


def writes_now(keeper: Any) -> bool:
    """Whether a checkpoint is written at the end of this step."""
    by_steps = keeper.steps_between is not None and (keeper.steps_done + 1) % keeper.steps_between == 0
    return bool(by_steps or keeper.stop.asked or time.monotonic() >= keeper.due)


def send(tracker: Tracker, name: str, shown: Table | str | Pixels, step: int) -> None:
    """Hand over a table, a page of HTML or a picture."""
    if isinstance(shown, Table):
        tracker.table(name, shown, step)
    elif not isinstance(shown, str):
        tracker.picture(name, shown, step)
    elif shown:
        tracker.page(name, shown, step)


def close_all(live: dict[str, Tracker]) -> None:
    """Close every tracker; one that fails does not keep the others from it."""
    while live:
        kind, tracker = live.popitem()
        try:
            tracker.close()
        except Exception as error:
            LOG.warning("%s could not be closed: %s", kind, error)


def as_number(value: Any) -> float | None:
    """A column's value as a number; None for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """What is drawn in here is not missing afterwards."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def new_name(tag: str) -> str:
    """A name that no other run has."""
    return f"{tag}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:4]}"


def note_of(folder: Path, keeper: Any) -> Path:
    """Where the name of the run stands whose checkpoints `keeper` writes."""
    return folder / f".run-{sha256(str(keeper.place.path).encode()).hexdigest()[:12]}.json"


def named_before(folder: Path, keeper: Any, goes_on: bool) -> str:
    """The name under which a run that goes on was followed; "" for another one."""
    if not goes_on:
        return ""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads(note_of(folder, keeper).read_text(encoding="utf-8"))["name"])
    return ""


def remember_name(folder: Path, keeper: Any, name: str) -> None:
    """Write down under which name a run is followed; without it, one that goes on gets another name."""
    with suppress(PellucidError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note_of(folder, keeper), {"name": name})
