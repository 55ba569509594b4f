"""Where a training can be followed: Weights & Biases, trackio, TensorBoard.

Takes numbers, tables, pages of HTML and pictures, each under a name and at a step. Gives them to the tracker that the user named, and
says what it has already. Knows nothing of learners, batches or tasks.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from pellucid.errors import SettingError, need
from pellucid.training.wandb_files import last_steps
from pellucid.view import Table

PROJECT = "pellucid"
SECONDS = 30.0  # that anybody is waited for: to begin, and to end
STEP, EPOCH = "step", "epoch"  # the names of what is counted
Pixels = npt.NDArray[np.uint8]  # (height, width, 3)
Sent = Mapping[str, int]  # name → the last step that a tracker has of it


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told: the project, the run's name, a folder to write in, the settings, whether an interrupted run goes on."""

    project: str | None
    name: str
    folder: Path
    settings: Mapping[str, Any]
    goes_on: bool = False


class Tracker(Protocol):
    """What takes a training down. Whatever it raises ends the tracking, never the training."""

    @property
    def sent(self) -> Sent:
        """What it has of this run from an earlier process: not sent again."""
        ...

    @property
    def where(self) -> str:
        """Where the run can be looked at, in words."""
        ...

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at a step; the steps rise."""
        ...

    def table(self, name: str, table: Table, step: int) -> None:
        """A table of texts and numbers."""
        ...

    def page(self, name: str, html: str, step: int) -> None:
        """A piece of HTML without scripts."""
        ...

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        """A picture, (height, width, 3) from 0 to 255."""
        ...

    def flush(self) -> None:
        """What was given so far can be looked at."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class WandbTracker:
    """Weights & Biases: offline unless there is a key or WANDB_MODE says otherwise; nobody is asked, and no wait is without end.

    It is told not to take the console, the code, git, the list of packages or the machine along.
    """

    def __init__(self, run: TrackedRun) -> None:
        self.wandb: Any = need("wandb", extra="track", why='track="wandb"')
        mode = wandb_mode()
        offline = mode in ("offline", "dryrun")
        self.sent: Sent = last_steps(run.folder / "wandb", run.name) if run.goes_on and offline else {}
        run.folder.mkdir(parents=True, exist_ok=True)
        settings = self.wandb.Settings(
            mode=mode,
            console="off",
            silent=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_save_requirements=False,
            x_disable_machine_info=True,
            x_disable_stats=True,
            init_timeout=SECONDS,
            login_timeout=SECONDS,
            finish_timeout=SECONDS,
            x_service_wait=SECONDS,
            x_transaction_log_flush_interval=0.1,  # what a process that is killed has said stays
        )
        self.run: Any = self.wandb.init(
            project=run.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run.name,
            name=run.name,
            dir=str(run.folder),
            config=dict(run.settings),
            resume="allow" if run.goes_on and not offline else None,
            reinit="create_new",
            settings=settings,
        )
        self.run.define_metric("*", step_metric=STEP)
        folder = Path(self.run.dir).parent
        self.where = f"Weights & Biases, offline in {folder}; wandb sync {folder} sends it" if offline else f"{self.run.url or mode}"

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """A line of the history; that of an epoch is done with the step that follows."""
        ends = EPOCH in values
        self.run.log({**values, STEP: step}, step=2 * step + ends, commit=not ends)

    def table(self, name: str, table: Table, step: int) -> None:
        """A table of theirs."""
        found = self.wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows], allow_mixed_types=True)
        self._beside(name, found, step)

    def page(self, name: str, html: str, step: int) -> None:
        """A page of theirs."""
        self._beside(name, self.wandb.Html(html, inject=False), step)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        """A picture of theirs."""
        self._beside(name, self.wandb.Image(pixels), step)

    def _beside(self, name: str, shown: Any, step: int) -> None:
        """In the line of the epoch. Their lines have a count of their own: each step has two, its own and that of an epoch that ends."""
        self.run.log({name: shown, STEP: step}, step=2 * step + 1, commit=False)

    def flush(self) -> None:
        """Their service writes by itself."""

    def close(self) -> None:
        """End the run; what could not be sent in time stays on the disk."""
        self.run.finish()


def wandb_mode() -> str:
    """What WANDB_MODE says; else online where there is a key, and offline where there is none."""
    said = os.environ.get("WANDB_MODE", "")
    if said:
        return said
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    known = bool(os.environ.get("WANDB_API_KEY"))
    with suppress(OSError, NetrcParseError):
        known = known or netrc(os.environ.get("NETRC") or None).authenticators(host) is not None
    return "online" if known else "offline"


class TrackioTracker:
    """trackio: in its folder on this machine (TRACKIO_DIR), unless TRACKIO_SPACE_ID names a Space of yours; no readings of the machine."""

    def __init__(self, run: TrackedRun) -> None:
        self.trackio: Any = need("trackio", extra="track", why='track="trackio"')
        project = run.project or PROJECT
        self.sent: Sent = self._has(project, run.name) if run.goes_on else {}
        with redirect_stdout(StringIO()):  # it greets on standard output
            self.run: Any = self.trackio.init(
                project=project,
                name=run.name,
                config=dict(run.settings),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.where = f"trackio: trackio show --project {project}"

    def _has(self, project: str, name: str) -> Sent:
        """What its store has of a run."""
        from trackio.sqlite_storage import SQLiteStorage

        found: dict[str, int] = {}
        for line in SQLiteStorage.get_logs(project, name):
            for key in line.keys() - {"step", "timestamp"}:
                found[key] = max(found.get(key, -1), int(line["step"]))
        return found

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """A line of the history."""
        self.run.log(dict(values), step=step)

    def table(self, name: str, table: Table, step: int) -> None:
        """A table of theirs."""
        self.run.log({name: self.trackio.Table(columns=list(table.columns), data=[list(row) for row in table.rows])}, step=step)

    def page(self, name: str, html: str, step: int) -> None:
        """A page of theirs."""
        self.run.log({name: self.trackio.Html(html, inject=False)}, step=step)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        """A picture of theirs."""
        self.run.log({name: self.trackio.Image(pixels)}, step=step)

    def flush(self) -> None:
        """It writes by itself, twice a second."""

    def close(self) -> None:
        """End the run; it waits 30 seconds at most."""
        current = self.trackio.context_vars.current_run
        with redirect_stdout(StringIO()):
            (self.trackio if current.get() is self.run else self.run).finish()  # theirs forgets the run as well


class TensorBoardTracker:
    """TensorBoard: event files in the folder, which `tensorboard --logdir` reads. Pages are shown as text, without their colours."""

    def __init__(self, run: TrackedRun) -> None:
        need("tensorboard", extra="track", why='track="tensorboard"')
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / run.name
        self.sent: Sent = events_in(folder) if run.goes_on else {}
        self.writer: Any = SummaryWriter(log_dir=str(folder))
        if not run.goes_on:
            self.writer.add_text("settings", f"```\n{json.dumps(run.settings, indent=2, ensure_ascii=False)}\n```", 0)
        self.where = f"TensorBoard: tensorboard --logdir {run.folder}"

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """A point of each curve."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def table(self, name: str, table: Table, step: int) -> None:
        """A table in Markdown."""
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        self.writer.add_text(name, "\n".join(f"| {' | '.join(map(in_markdown, line))} |" for line in lines), step)

    def page(self, name: str, html: str, step: int) -> None:
        """The page as text."""
        self.writer.add_text(name, html, step)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        """A picture of theirs."""
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Write what is waiting."""
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def events_in(folder: Path) -> Sent:
    """What TensorBoard's files of a run hold."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "tensors", "images"), 1)).Reload()
    kinds = (("scalars", events.Scalars), ("tensors", events.Tensors), ("images", events.Images))
    tags = events.Tags()
    return {tag.removesuffix("/text_summary"): max(event.step for event in read(tag)) for kind, read in kinds for tag in tags[kind]}


def in_markdown(cell: object) -> str:
    """A cell of a table in Markdown; HTML in it is text."""
    said = f"{cell:.4g}" if isinstance(cell, float) else "" if cell is None else str(cell)
    for found, instead in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("\r", " "), ("\n", " ")):
        said = said.replace(found, instead)
    return said


Open = Callable[[TrackedRun], Tracker]
PACKAGES = ("wandb", "trackio", "tensorboard")


def opener(name: str) -> Open:
    """What opens the tracker of this name. Raises SettingError for another name, MissingPackageError where it is not installed."""
    check_names(name)
    known: dict[str, Open] = dict(zip(PACKAGES, (WandbTracker, TrackioTracker, TensorBoardTracker), strict=True))
    need(name, extra="track", why=f'track="{name}"')
    return known[name]


def check_names(said: str | None) -> None:
    """Raise SettingError for a name that no tracker has."""
    unknown = [name for name in names_of(said) if name not in PACKAGES] if said is not None else []
    if unknown:
        raise SettingError(f"there is no tracker {unknown[0]!r}", place="track", cure=f"Use one of: {', '.join(PACKAGES)}.")


def names_of(said: str) -> tuple[str, ...]:
    """The names in "wandb,tensorboard", each once. Raises SettingError for none."""
    names = tuple(dict.fromkeys(name.strip() for name in said.split(",") if name.strip()))
    if not names:
        raise SettingError("no tracker is named", place="track", cure=f"Use one of: {', '.join(PACKAGES)}.")
    return names
