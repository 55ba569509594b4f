"""The precision of a learner: float32, bfloat16 or float16, given or tried out on this machine.

Takes a learner and the name of a precision. Gives the callback that computes in it, and a note of what was chosen.
Knows nothing of how a probe is timed.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision

from pellucid.inspection import show
from pellucid.training.fastai_checkpoints import Checkpoints, keeper_among
from pellucid.training.fastai_learner import BFloat16, PellucidLearner
from pellucid.training.fastai_memory import free_what_is_kept, one_row_too_large, parts_for, tried
from pellucid.training.fastai_speed import as_in_a_fit, begun_with
from pellucid.training.precision import Precision, Probe, check_precision, probe, takes_bfloat16
from pellucid.types import Batch, Note, Want


def set_precision(learn: PellucidLearner, precision: Precision = "auto") -> Note:
    """Train in this precision from now on; "auto" tries float32 and bfloat16 for a second and takes the faster. What is chosen is shown.

    Weights and the sums of gradients stay float32. Raises SettingError for an unknown name, and for float16 without CUDA.
    """
    callback, note = choose_precision(learn, precision)
    learn.remove_cbs([MixedPrecision, BFloat16])
    if callback is not None:
        learn.add_cb(callback)
    learn.pipe = replace(learn.pipe, notes=(*learn.pipe.notes, note))  # it is saved with the model
    show(note)
    return note


def choose_precision(
    learn: PellucidLearner, precision: Precision = "auto", keeper: Checkpoints | None = None
) -> tuple[Callback | None, Note]:
    """The callback for this precision, None for float32, and what to say of it; the learner is left as it is.

    Where `keeper`, or Checkpoints that the learner has, will go on with a run, "auto" is what that run chose: another trial might end
    otherwise. Raises SettingError.
    """
    device = learn.model.device
    kept = kept_precision(keeper or keeper_among(learn.cbs)) if precision == "auto" else None
    check_precision(precision, device.type)
    note = Note(f"training computes in {precision}", "that was asked for")
    if kept is not None:
        precision, note = kept, Note(f"training computes in {kept}", "the run that goes on has begun so")
    elif precision == "auto" and not takes_bfloat16(device):
        precision, note = "float32", Note("training computes in float32", f"{device.type} has no bfloat16")
    elif precision == "auto":
        found = probe_of(learn)
        precision, note = found.best, found.note()
    precision = learn.sharing.first_says(precision)  # trials of several processes may differ
    if precision == "float16":
        return MixedPrecision("fp16"), note
    return (BFloat16() if precision == "bfloat16" else None), note


def kept_precision(keeper: Checkpoints | None) -> Precision | None:
    """In which precision the run that `keeper` goes on with has begun; None where there is no such run."""
    callbacks = begun_with(keeper)
    if callbacks is None:
        return None
    return "bfloat16" if BFloat16.__name__ in callbacks else "float16" if MixedPrecision.__name__ in callbacks else "float32"


def probe_of(learn: PellucidLearner, seconds: float = 1.0) -> Probe:
    """The seconds of a step of this learner's own model, with its own loss on a batch of its own rows, or on as many as memory holds.

    Raises SettingError where one row does not fit.
    """
    inputs, labels = learn.dls.train.one_batch()[:2]
    found: list[Probe] = []

    def loss(count: int) -> Any:
        part = {name: tensor[:count] for name, tensor in inputs.items()}
        rows = np.arange(count)
        batch = Batch(part, labels[:count], rows, np.zeros_like(rows), np.full_like(rows, part["input_ids"].shape[-1]))
        return learn.loss_func(learn.pipe.task.run(learn.model, batch, Want(scored=True)).logits.float(), labels[:count])

    def trial(count: int) -> None:
        found.append(probe(learn.model, count, loss, seconds))

    rows = -(-len(labels) // parts_for(learn, inputs))
    with as_in_a_fit(learn):
        while (failed := tried(partial(trial, rows))) is not None:
            free_what_is_kept()
            if rows == 1:
                raise one_row_too_large(inputs["input_ids"].shape[-1], "trial of precisions", failed) from failed
            rows = -(-rows // 2)
    return found[0]
