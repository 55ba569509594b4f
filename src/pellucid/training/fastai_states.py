"""What fastai's callbacks and recorder remember between two batches, as plain values and tensors.

Takes a learner and its callbacks. Gives their settings and their state, puts a state back, and refuses by name what it does not know.
Knows nothing of folders, of weights or of when a checkpoint is written.

A callback of somebody else takes part by two methods, `state_dict()` (plain values and tensors) and `load_state_dict(state)`, or by saying
`stateless = True` where it remembers nothing from one batch to the next. `settings = ("alpha",)` in its class names the attributes that
must be the same again, `swaps_weights = False` says that what it remembers are not the weights of the training.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, FetchPredsCallback, TrainEvalCallback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.preds import MCDropoutCallback
from fastai.callback.progress import CSVLogger, ProgressCallback, ShowGraphCallback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback, TerminateOnNaNCallback, TrackerCallback
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip, ShortEpochCallback
from fastai.learner import CastToTensor, Recorder, SkipToEpoch
from fastcore.foundation import L

from pellucid.errors import SettingError
from pellucid.training.resume_state import random_state

_TRACKED = ("monitor", "min_delta", "reset_on_fit")


@dataclass(frozen=True, slots=True)
class Known:
    """A stock callback: the settings that must be the same again, and the attributes that it changes while it trains."""

    settings: tuple[str, ...] = ()
    state: tuple[str, ...] = ()


KNOWN: Mapping[type, Known] = {  # by exact class: a class made from one of these may remember more
    TrainEvalCallback: Known(),
    CastToTensor: Known(),
    ProgressCallback: Known(),
    TerminateOnNaNCallback: Known(),
    BnFreeze: Known(),
    MCDropoutCallback: Known(),
    FetchPredsCallback: Known(),
    SkipToEpoch: Known(("_skip_to",)),
    ShortEpochCallback: Known(("pct", "short_valid")),
    GradientClip: Known(("max_norm", "norm_type")),
    GradientAccumulation: Known(("n_acc",), ("count",)),
    ShowGraphCallback: Known((), ("nb_batches",)),
    TrackerCallback: Known(_TRACKED, ("best",)),
    EarlyStoppingCallback: Known((*_TRACKED, "patience"), ("best", "wait")),
    ReduceLROnPlateau: Known((*_TRACKED, "patience", "factor", "min_lr"), ("best", "wait")),
    SaveModelCallback: Known((*_TRACKED, "fname", "every_epoch", "at_end", "with_opt"), ("best", "last_saved_path")),
    Recorder: Known(("train_metrics", "valid_metrics")),
    ParamScheduler: Known(),
    MixedPrecision: Known(),
    CSVLogger: Known(("append",)),
}


def ordered(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks that matter to a resume, in the order in which they are called: not Checkpoints itself, nor those that only watch."""
    kept = [callback for callback in callbacks if type(callback) is not ProgressCallback and type(callback).__name__ != "Checkpoints"]
    kept = [callback for callback in kept if inspect.getattr_static(callback, "only_watches", False) is not True]
    return sorted(kept, key=lambda callback: callback.order)


def memory_of(learn: Any) -> dict[str, Any]:
    """What a learner remembers between two batches, outside of the weights and the optimizer."""
    return {
        "random": random_state(),
        "learner": {"pct_train": learn.pct_train, "train_iter": learn.train_iter},
        "loader": {"epoch": learn.dls.train.epoch, "peeks": learn.dls.train.peeks},
        "callbacks": [state_of(callback) for callback in ordered(learn.cbs)],
        "scores": [metric.state_dict() if keeps_itself(metric) else None for metric in learn.metrics],
    }


def remember(learn: Any, state: Mapping[str, Any]) -> None:
    """Let callbacks and scores remember again, but for those that do already: some act on it when an epoch begins."""
    for callback, kept in zip(ordered(learn.cbs), state["callbacks"], strict=True):
        if not equal(state_of(callback), kept):
            put_back(callback, kept)
    for metric, kept in zip(learn.metrics, state["scores"], strict=True):
        if kept is not None:
            metric.load_state_dict(kept)


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Raise SettingError that names the first callback whose state nobody knows how to keep."""
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, Recorder) and callback.train_metrics:
            cure = "Leave train_metrics out, or train without Checkpoints."
            raise SettingError("scores of the training rows are half done in the middle of an epoch", place="Recorder", cure=cure)
        if not (type(callback) in KNOWN or is_stateless(callback) or keeps_itself(callback)):
            cure = (
                "Give its class state_dict() and load_state_dict(state), or stateless = True where it remembers nothing from one "
                "batch to the next; or train without Checkpoints."
            )
            raise SettingError(f"what the callback {name} remembers would be lost by a resume", place=name, cure=cure)


def is_stateless(callback: Any) -> bool:
    """Whether it says so itself: fastai's callbacks answer for the learner, so that only its own attributes count."""
    return inspect.getattr_static(callback, "stateless", False) is True


def keeps_itself(callback: Any) -> bool:
    """Whether it has a state_dict and a load_state_dict of its own."""
    return all(callable(getattr(type(callback), name, None)) for name in ("state_dict", "load_state_dict"))


def swaps_nothing(callbacks: Sequence[Callback]) -> bool:
    """Whether no callback may have put other weights into the model for the validation: those that do remember the real ones."""
    asked = [callback for callback in callbacks if type(callback) not in KNOWN and keeps_itself(callback)]
    return not any(inspect.getattr_static(callback, "swaps_weights", True) for callback in asked)


def settings_of(what: Any) -> dict[str, Any]:
    """The class of a callback or a score, and the settings that must be the same again, as JSON values."""
    names = KNOWN[type(what)].settings if type(what) in KNOWN else inspect.getattr_static(what, "settings", ())
    return {"class": type(what).__name__, **{name: plain(getattr(what, name)) for name in names}}


def state_of(callback: Callback) -> dict[str, Any]:
    """What a callback remembers."""
    if keeps_itself(callback):
        return dict(callback.state_dict())
    if isinstance(callback, Recorder):
        return recorder_state(callback)
    if isinstance(callback, ParamScheduler):
        return {"hps": {name: np.asarray(values, dtype=np.float64) for name, values in getattr(callback, "hps", {}).items()}}
    if isinstance(callback, MixedPrecision):
        return {"scaler": callback.learn.scaler.state_dict(), "scales": [float(scale) for scale in callback.scales]}
    if isinstance(callback, CSVLogger):
        return {"lines": (callback.path / callback.fname).read_text(encoding="utf-8")}
    names = KNOWN[type(callback)].state if type(callback) in KNOWN else ()
    return {name: plain(vars(callback)[name]) for name in names if name in vars(callback)}


def put_back(callback: Callback, state: Mapping[str, Any]) -> None:
    """Let a callback remember this again."""
    if keeps_itself(callback):
        callback.load_state_dict(state)
    elif isinstance(callback, Recorder):
        restore_recorder(callback, state)
    elif isinstance(callback, ParamScheduler):
        callback.hps = {name: values.tolist() for name, values in state["hps"].items()}
    elif isinstance(callback, MixedPrecision):
        callback.learn.scaler.load_state_dict(state["scaler"])
        callback.scales = L(state["scales"])
    elif isinstance(callback, CSVLogger):
        callback.file.seek(0)
        callback.file.truncate()
        callback.file.write(state["lines"])
        callback.file.flush()
    else:
        for name, value in state.items():
            setattr(callback, name, Path(value) if name == "last_saved_path" and value is not None else value)


def recorder_state(recorder: Recorder) -> dict[str, Any]:
    """The curves so far: losses, rates, one line of scores an epoch, and the smooth loss with its weight."""
    losses = [torch.as_tensor(loss).detach().cpu() for loss in recorder.losses]
    return {
        "losses": torch.stack(losses) if losses else None,  # (batches,)
        "lrs": np.asarray(recorder.lrs, dtype=np.float64),
        "iters": [int(count) for count in recorder.iters],
        "values": [[plain(value) for value in line] for line in recorder.values],
        "smooth": {"count": int(recorder.smooth_loss.count), "value": torch.as_tensor(recorder.smooth_loss.val).detach().clone()},
    }


def restore_recorder(recorder: Recorder, state: Mapping[str, Any]) -> None:
    """The same curves again."""
    recorder.losses = [] if state["losses"] is None else list(state["losses"].unbind())
    recorder.lrs, recorder.iters = state["lrs"].tolist(), list(state["iters"])
    recorder.values = [L(line) for line in state["values"]]
    recorder.smooth_loss.count, recorder.smooth_loss.val = state["smooth"]["count"], state["smooth"]["value"]
    if recorder.smooth_loss.count:
        recorder.learn.smooth_loss = recorder.smooth_loss.value


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, tensors and arrays to the bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


def plain(value: Any) -> Any:
    """A number, text or path as JSON has it; lists of them too."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return value.item()
    return [plain(part) for part in value] if isinstance(value, list | tuple | L) else value
