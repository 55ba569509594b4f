"""A batch that does not fit in memory is computed in parts, with the gradient of the whole.

Takes a learner that holds a batch. Gives its step with fastai's events, and says once when memory ran out.
Knows nothing of rows, tasks or what else the learner does.

The loss is always that of the whole batch: the parts only differ in what lies between inputs and logits. First the logits of all parts are
computed without a graph; the slope of the loss at them is exact; then each part runs again, with the same dropout, and takes its rows of
that slope back through the model.
"""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixHandler

from pellucid.errors import SettingError

LOG = logging.getLogger(__name__)
ALLOCATOR = ("can't allocate memory", "not enough memory")  # what torch's allocator says on a CPU: a plain RuntimeError


@dataclass
class Attempt:
    """One batch on its way: in how many parts, the random state before it, the loss as the loss function gave it."""

    parts: int
    random: tuple[torch.Tensor, torch.Tensor | None]
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None  # without a graph, where there are several parts


def run_batch(learn: Any) -> None:
    """What fastai's `_do_one_batch` does, in parts where the batch does not fit. Raises SettingError where one row does not."""
    learn.attempt = attempt = Attempt(parts_for(learn), random_state(learn.model.device))
    learn.pred = forward(learn, attempt)
    learn("after_pred")
    if len(learn.yb):
        attempt.loss = learn.loss_func(learn.pred, *learn.yb)
        learn.loss_grad = attempt.loss.clone()  # callbacks change it in place
        learn.loss = attempt.loss.clone()
    learn("after_loss")
    if learn.training and len(learn.yb):
        learn._do_grad_opt()


def backward(learn: Any) -> None:
    """What fastai's `_backward` does, in parts where that does not fit in memory."""
    attempt, model = learn.attempt, learn.model
    held = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    if attempt.logits is not None:
        slope = torch.autograd.grad(learn.loss_grad, attempt.logits)[0]
    else:
        factor = torch.autograd.grad(learn.loss_grad, attempt.loss, retain_graph=True)[0]  # what callbacks made of the loss
        failed = tried(learn.loss_grad.backward)
        if failed is None:
            return
        learn.pred, learn.loss = learn.pred.detach(), learn.loss.detach()
        learn.loss_grad, attempt.loss = learn.loss_grad.detach(), None
        put_back(model, held)
        give_way(learn, attempt, failed)
        slope = slope_again(learn, attempt) * factor
    while (failed := tried(lambda: parts_back(learn, attempt, slope))) is not None:
        put_back(model, held)
        give_way(learn, attempt, failed)


def put_back(model: torch.nn.Module, held: dict[str, torch.Tensor]) -> None:
    """The gradients as they were before a way back that was not finished."""
    for name, parameter in model.named_parameters():
        parameter.grad = held[name].clone() if name in held else None


def forward(learn: Any, attempt: Attempt) -> torch.Tensor:
    """The logits of the batch: with their graph where it fits in one piece, else from parts, as a leaf of the graph of the loss."""
    found: list[torch.Tensor] = []
    if attempt.parts == 1:
        failed = tried(lambda: found.append(learn._logits(learn.xb[0])))
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
            found.extend(learn._logits(part) for part, _ in parts_of(learn.xb[0], attempt.parts))

    while (failed := tried(compute)) is not None:
        give_way(learn, attempt, failed)
    attempt.logits = torch.cat(found).float().requires_grad_(torch.is_grad_enabled())
    return attempt.logits


def slope_again(learn: Any, attempt: Attempt) -> torch.Tensor:
    """The slope of the loss at the logits of a batch that failed on its way back."""
    with autocast_of(learn):
        logits = joined(learn, attempt)
    return torch.autograd.grad(learn.loss_func(logits, *learn.yb), logits)[0]


def parts_back(learn: Any, attempt: Attempt, slope: torch.Tensor) -> None:
    """Run each part again, with its graph and the same dropout, and take its rows of the slope back."""
    set_random_state(learn.model.device, attempt.random)
    for part, rows in parts_of(learn.xb[0], attempt.parts):
        with autocast_of(learn):
            logits = learn._logits(part)
        logits.backward(slope[rows].to(logits.dtype))


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
    """Whether this error says that there was not enough memory, on a GPU or a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in ALLOCATOR)


def give_way(learn: Any, attempt: Attempt, failed: Exception) -> None:
    """Twice as many parts from now on. Raises SettingError where a part is one row already, or where rows of a batch are mixed."""
    inputs = learn.xb[0]
    rows, width = inputs["input_ids"].shape
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if any(isinstance(callback, MixHandler) for callback in learn.cbs):
        raise failed
    if attempt.parts >= rows:
        learn.opt.zero_grad()
        cure = (
            "The weights are those before this step. Set a smaller TokenOptions(max_length=…), or add cbs=GradientCheckpointing(), or "
            "take a smaller model."
        )
        raise SettingError(f"one row of {width} tokens does not fit in memory", place=f"step {learn.iter}", cure=cure) from failed
    attempt.parts = min(rows, 2 * attempt.parts)
    room = -(-rows // attempt.parts) * width
    if learn.room is None or room < learn.room:
        learn.room = room
        size, change = f"{rows} × {width} tokens", f"LoaderOptions(max_tokens={room}) makes smaller batches."
        LOG.warning(
            "A batch of %s does not fit in memory: it is computed in %d parts, with the same gradient. %s", size, attempt.parts, change
        )


def parts_for(learn: Any) -> int:
    """In how many parts a batch of this size begins: 1, or more after a batch that did not fit."""
    rows, width = learn.xb[0]["input_ids"].shape
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
