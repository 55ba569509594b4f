"""What a training was told, as plain JSON values: two runs with the same values and the same random numbers do the same.

Takes a learner, and what its `fit` was called with. Gives the rows, the task and the weights of a run by digest, and the settings of a fit.
Knows nothing of checkpoints, folders or of how far a training is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler

from pellucid.adapter_layers import has_adapters
from pellucid.adapter_wrapping import ADAPTER, options_of
from pellucid.provenance import Origin
from pellucid.task import settings_of as settings_of_task
from pellucid.training.fastai_states import ordered, plain, settings_of
from pellucid.training.resume_state import described_table, digest_of

POINTS = 101  # of a schedule, from the first step to the last: a peak after any whole percent of the steps is one of them


@dataclass(frozen=True)
class Asked:
    """What `fit` was called with: epochs, learning rate (a number, a slice, or None for the learner's), weight decay, its callbacks."""

    epochs: int
    lr: Any = None
    wd: Any = None
    reset_opt: bool = False
    start_epoch: int = 0
    callbacks: Sequence[Callback] = ()


def described_run(learn: Any, start: str) -> dict[str, Any]:
    """The rows, the task and the model of a learner; `start` is the digest of its weights as `start_of` gave it before any training."""
    tables = [getattr(loader, "table", None) for loader in learn.dls.loaders]
    names = ["train", "valid", *(f"split {number}" for number in range(2, len(tables)))]
    return as_json(
        {
            "rows": {name: described_table(table) for name, table in zip(names, tables, strict=False)},
            "task": {"tag": learn.pipe.task.tag, **settings_of_task(learn.pipe.task)},
            "model": {"class": type(learn.model).__name__, "start": start, "dropout": dropout_of(learn.model.config)},
            "adapters": adapter_settings(learn.model),
        }
    )


def dropout_of(config: Any) -> dict[str, Any]:
    """The settings of a model that say how much is dropped in training: its weights do not tell."""
    return {name: value for name, value in config.to_dict().items() if "drop" in name}


def adapter_settings(model: Any) -> dict[str, Any]:
    """What adapters were asked to be: the shapes of their weights say neither how much is added nor how much is dropped."""
    return asdict(options_of(model.peft_config[ADAPTER])) if has_adapters(model) else {}


def start_of(learn: Any) -> str:
    """The digest of the weights that came from the checkpoint; new ones may be drawn otherwise, since a resume brings their values."""
    drawn_names = {one.name for one in learn.pipe.provenance.parameters if one.origin not in (Origin.PRETRAINED, Origin.TIED)}
    return digest_of((name, tensor) for name, tensor in learn.model.state_dict().items() if name not in drawn_names)


def described_fit(learn: Any, asked: Asked) -> dict[str, Any]:
    """What this fit was told, apart from the rows."""
    loader, weights = learn.dls.train, getattr(learn.loss_func, "weights", None)
    callbacks = ordered([*learn.cbs, *asked.callbacks])
    trains = [name for name, parameter in learn.model.named_parameters() if parameter.requires_grad]
    return as_json(
        {
            "epochs": asked.epochs,
            "lr": rate(learn.lr if asked.lr is None else asked.lr),
            "wd": rate(learn.wd if asked.wd is None else asked.wd),
            "reset_opt": asked.reset_opt,
            "start_epoch": asked.start_epoch,
            "schedule": {
                name: drawn(schedule) for each in callbacks if isinstance(each, ParamScheduler) for name, schedule in each.scheds.items()
            },
            "callbacks": {f"{place} {type(each).__name__}": settings_of(each) for place, each in enumerate(callbacks)},
            "trained": {"tensors": len(trains), "content": hashlib.sha256("\n".join(trains).encode()).hexdigest()},
            "batches": {
                **{name: value for name, value in asdict(loader.options).items() if name != "cache"},
                "bs": loader.bs,
                "shuffle": loader.shuffle,
                "drop_last": loader.drop_last,
            },
            "loss": named(learn.loss_func),
            "loss_weights": rate(np.asarray(weights, dtype=np.float64)) if weights is not None else None,
            "optimizer": named(learn.opt_func),
            "scores": [{**settings_of(metric), "name": metric.name} for metric in learn.metrics],
        }
    )


def drawn(schedule: Any) -> list[Any]:
    """The values of a schedule at points of equal distance; of each layer group where they differ."""
    return [np.asarray(schedule(float(place)), dtype=np.float64).tolist() for place in np.linspace(0.0, 1.0, POINTS)]


def rate(value: Any) -> Any:
    """A learning rate as JSON has it."""
    if isinstance(value, slice):
        return ["slice", plain(value.start), plain(value.stop)]
    return np.asarray(value, dtype=np.float64).tolist() if isinstance(value, np.ndarray) else plain(value)


def named(what: Any) -> str:
    """What an object says of itself, or its class where that is only an address."""
    text = repr(what)
    return type(what).__name__ if " at 0x" in text else text


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same values as they come back from a file."""
    return dict(json.loads(json.dumps(value, default=str)))
