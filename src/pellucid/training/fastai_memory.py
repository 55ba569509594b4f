"""A batch that does not fit in memory is computed in parts, with the gradient of the whole.

Takes a learner that holds a batch. Gives its step with fastai's events, and says once when memory ran out.
Knows nothing of rows, tasks or what else the learner does.

Several processes share a batch in the same way: each runs its own rows, and all have the logits, and so the loss, of the whole batch.
Where those are many, a label for each token, and nobody looks at them, only what each adds to the loss is exchanged.

The loss is always that of the whole batch: the parts only differ in what lies between inputs and logits. First the logits of all parts are
computed without a graph; the slope of the loss at them is exact; then each part runs again, with the same dropout, and takes its rows of
that slope back through the model.
"""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixHandler

from pellucid.errors import SettingError
from pellucid.process import trim_freed_memory

LOG = logging.getLogger(__name__)
ALLOCATOR = ("can't allocate memory", "not enough memory")  # what torch's allocator says on a CPU: a plain RuntimeError
ONEDNN = ("could not create a primitive", "could not execute a primitive")  # all that it says where it gets no memory, and of other reasons


@dataclass
class Attempt:
    """One batch on its way: what of it is run here, in how many parts, the random state before it, the loss as its function gave it."""

    inputs: dict[str, torch.Tensor]  # of the batch, or of the rows that are this process's
    parts: int
    random: tuple[torch.Tensor, torch.Tensor | None]
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None  # of the whole batch and without a graph, where there are several parts or processes
    share: Any = None  # of this process, where several work on the batch
    own: torch.Tensor | None = None  # the logits of that share, with their graph where it fits in one piece


def run_batch(learn: Any) -> None:
    """What fastai's `_do_one_batch` does, in parts where the batch does not fit. Raises SettingError where one row does not."""
    share = learn.sharing.of_batch()
    inputs = learn.xb[0] if share is None else share.inputs
    random = random_state(learn.model.device) if share is None else share.random
    learn.attempt = attempt = Attempt(inputs, parts_for(learn, inputs), random, share=share)
    learn.pred = forward(learn, attempt) if share is None else forward_together(learn, attempt)
    learn("after_pred")
    if len(learn.yb):
        attempt.loss = learn.loss_func(learn.pred, *learn.yb) if share is None or not share.apart else share.loss(learn.pred)
        learn.loss_grad = attempt.loss.clone()  # callbacks change it in place
        learn.loss = attempt.loss.clone()
    learn("after_loss")
    if learn.training and len(learn.yb):
        learn._do_grad_opt()


def backward(learn: Any) -> None:
    """What fastai's `_backward` does, in parts where that does not fit in memory."""
    attempt, model = learn.attempt, learn.model
    if attempt.share is not None:
        with attempt.share.adding_up():
            if not attempt.share.spare:
                backward_of_share(learn, attempt)
        return
    backward_alone(learn, attempt, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})


def backward_alone(learn: Any, attempt: Attempt, held: dict[str, torch.Tensor]) -> None:
    """From the loss through the model; `held` are the gradients that were there before."""
    if attempt.logits is not None:
        slope = torch.autograd.grad(learn.loss_grad, attempt.logits)[0]
    else:
        factor = torch.autograd.grad(learn.loss_grad, attempt.loss, retain_graph=True)[0]  # what callbacks made of the loss
        failed = tried(learn.loss_grad.backward)
        if failed is None:
            return
        learn.pred, learn.loss = learn.pred.detach(), learn.loss.detach()
        learn.loss_grad, attempt.loss = learn.loss_grad.detach(), None
        put_back(learn.model, held)
        give_way(learn, attempt, failed)
        slope = slope_again(learn, attempt) * factor
    parts_back_that_fit(learn, attempt, slope, held)


def forward_together(learn: Any, attempt: Attempt) -> torch.Tensor:
    """The logits of the whole batch, of which each process computes its share, as a leaf of the graph of the loss; or its share alone."""
    with attempt.share.own_numbers():
        attempt.own = forward(learn, attempt)
    if attempt.share.apart:
        return attempt.own
    attempt.logits = attempt.share.whole(attempt.own.detach().float()).requires_grad_(torch.is_grad_enabled())
    return attempt.logits


def backward_of_share(learn: Any, attempt: Attempt) -> None:
    """Take the rows of the slope that are this process's back through the model."""
    own, attempt.own = attempt.own, None
    if attempt.share.apart:
        with attempt.share.own_numbers():
            backward_alone(learn, attempt, {})
        return
    slope = torch.autograd.grad(learn.loss_grad, attempt.logits)[0][attempt.share.rows]
    if attempt.parts == 1 and own is not None:
        failed = tried(partial(own.backward, slope.to(own.dtype)))
        if failed is None:
            return
        put_back(learn.model, {})
        give_way(learn, attempt, failed)
    with attempt.share.own_numbers():
        parts_back_that_fit(learn, attempt, slope, {})


def parts_back_that_fit(learn: Any, attempt: Attempt, slope: torch.Tensor, held: dict[str, torch.Tensor]) -> None:
    """The way back in parts, in as many as it takes; `held` are the gradients that were there before."""
    while (failed := tried(lambda: parts_back(learn, attempt, slope))) is not None:
        put_back(learn.model, held)
        give_way(learn, attempt, failed)


def put_back(model: torch.nn.Module, held: dict[str, torch.Tensor]) -> None:
    """The gradients as they were before a way back that was not finished."""
    for name, parameter in model.named_parameters():
        parameter.grad = held[name].clone() if name in held else None


def forward(learn: Any, attempt: Attempt) -> torch.Tensor:
    """The logits of the batch: with their graph where it fits in one piece, else from parts, as a leaf of the graph of the loss."""
    found: list[torch.Tensor] = []
    if attempt.parts == 1:
        failed = tried(lambda: found.append(learn._logits(attempt.inputs, scored_labels(learn, attempt))))
        if failed is None:
            return found[0]
        give_way(learn, attempt, failed)
    return joined(learn, attempt)


def joined(learn: Any, attempt: Attempt) -> torch.Tensor:
    """The logits of all parts, computed without a graph."""
    found: list[torch.Tensor] = []

    def compute() -> None:
        found.clear()
        set_random_state(learn.model.device, attempt.random)
        with torch.no_grad():
            parts = parts_of(attempt.inputs, attempt.parts)
            found.extend(learn._logits(part, scored_labels(learn, attempt, rows)) for part, rows in parts)

    while (failed := tried(compute)) is not None:
        give_way(learn, attempt, failed)
    attempt.logits = torch.cat(found).float().requires_grad_(torch.is_grad_enabled())
    return attempt.logits


def slope_again(learn: Any, attempt: Attempt) -> torch.Tensor:
    """The slope of the loss at the logits of a batch that failed on its way back."""
    with autocast_of(learn):
        logits = joined(learn, attempt)
    loss = learn.loss_func(logits, *learn.yb) if attempt.share is None else attempt.share.part(logits)
    return torch.autograd.grad(loss, logits)[0]


def parts_back(learn: Any, attempt: Attempt, slope: torch.Tensor) -> None:
    """Run each part again, with its graph and the same dropout, and take its rows of the slope back."""
    set_random_state(learn.model.device, attempt.random)
    begun = 0  # logits of a part: one a row, or one a token that is scored
    for part, rows in parts_of(attempt.inputs, attempt.parts):
        with autocast_of(learn):
            logits = learn._logits(part, scored_labels(learn, attempt, rows))
        logits.backward(slope[begun : begun + len(logits)].to(logits.dtype))
        begun += len(logits)


def scored_labels(learn: Any, attempt: Attempt, rows: slice = slice(None)) -> torch.Tensor | None:
    """The labels of these rows where the logits are for the loss alone; None where others look at them too."""
    recorder = getattr(learn, "recorder", None)  # summary() takes it away for a while
    watched = getattr(recorder, "train_metrics", False) or any(isinstance(callback, MixHandler) for callback in learn.cbs)
    if not learn.training or not len(learn.yb) or watched:
        return None
    if attempt.share is None:
        return learn.yb[0][rows]
    return attempt.share.labels[rows] if attempt.share.apart else None


def autocast_of(learn: Any) -> Any:
    """The precision of fastai's MixedPrecision, which has been left when the way back begins."""
    callbacks = [callback for callback in learn.cbs if isinstance(callback, MixedPrecision)]
    return callbacks[0].autocast if callbacks else nullcontext()


def tried(step: Any) -> Exception | None:
    """Nothing, or the error that says that memory ran out; others go on. The error comes without what it held in memory."""
    try:
        step()
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not out_of_memory(error):
            raise
        return error.with_traceback(None)
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether this error says that there was not enough memory, on a GPU or a CPU, or may mean it."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in ALLOCATOR)
    return known or str(error) in ONEDNN


def give_way(learn: Any, attempt: Attempt, failed: Exception) -> None:
    """Twice as many parts from now on. Raises SettingError where a part is one row already, or where rows of a batch are mixed."""
    rows, width = attempt.inputs["input_ids"].shape
    free_what_is_kept()
    if any(isinstance(callback, MixHandler) for callback in learn.cbs):
        raise failed
    if attempt.parts >= rows:
        learn.opt.zero_grad()
        raise one_row_too_large(width, f"step {learn.iter}", failed) from failed
    attempt.parts = min(rows, 2 * attempt.parts)
    room = -(-rows // attempt.parts) * width
    if learn.room is None or room < learn.room:
        learn.room = room
        size, change = f"{rows} × {width} tokens", f"LoaderOptions(max_tokens={room}) makes smaller batches."
        LOG.warning(
            "A batch of %s does not fit in memory: it is computed in %d parts, with the same gradient. %s", size, attempt.parts, change
        )


def free_what_is_kept() -> None:
    """Give memory back that was freed and is kept for the next tensors: other libraries, such as oneDNN, could not have it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_freed_memory()


def one_row_too_large(width: int, place: str, failed: Exception) -> SettingError:
    """What to say where memory does not hold one row of `width` tokens, by the error that came."""
    cure = (
        "The weights are those before this step. Set a smaller TokenOptions(max_length=…), or add cbs=GradientCheckpointing(), or "
        "take a smaller model."
    )
    other = f", or oneDNN has another reason ({failed})" if str(failed) in ONEDNN else ""
    return SettingError(f"one row of {width} tokens does not fit in memory{other}", place=place, cure=cure)


def parts_for(learn: Any, inputs: dict[str, torch.Tensor]) -> int:
    """In how many parts a batch of this size begins: 1, or more after a batch that did not fit."""
    rows, width = inputs["input_ids"].shape
    return 1 if learn.room is None else max(1, min(rows, -(-rows * width // learn.room)))


def parts_of(inputs: dict[str, torch.Tensor], parts: int) -> list[tuple[dict[str, torch.Tensor], slice]]:
    """The inputs of each part, and which rows of the batch these are."""
    rows = len(inputs["input_ids"])
    size = -(-rows // parts)
    slices = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    return [({name: tensor[chosen] for name, tensor in inputs.items()}, chosen) for chosen in slices]


def random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """torch's random state, of the CPU and of the device."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(device: torch.device, state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
