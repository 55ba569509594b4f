"""In which precision this machine trains this model fastest: tried, not guessed.

Takes a model and a way to compute its loss. Gives the seconds of a step in float32 and in bfloat16, and the better of both.
Knows nothing of learners, tasks or where the rows come from.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, get_args

from pellucid.errors import SettingError
from pellucid.types import Note

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]
STEP = 0.25  # seconds: rows are added until a step takes so long; of one short row bfloat16 shows little
WORTH = 1.1  # times faster than float32 that bfloat16 must be


@dataclass(frozen=True, slots=True)
class Probe:
    """The median seconds of a forward and a backward pass of `rows` rows, in float32 and in bfloat16."""

    float32: float
    bfloat16: float
    rows: int

    @property
    def best(self) -> Literal["float32", "bfloat16"]:
        """bfloat16 where it is at least a tenth faster: it rounds, so it has to pay."""
        return "bfloat16" if self.bfloat16 * WORTH <= self.float32 else "float32"

    def note(self) -> Note:
        """What was chosen, with both times."""
        times = f"a step of {self.rows} rows took {self.float32:.3f} s in float32 and {self.bfloat16:.3f} s in bfloat16"
        other = "float32" if self.best == "bfloat16" else "bfloat16"
        return Note(f"training computes in {self.best}", f"on this machine {times}", f'precision="{other}" sets the other.')


def check_precision(precision: str, device: str) -> None:
    """Raise SettingError for an unknown precision, or one that this device has not. `device` is the type: cpu, cuda, mps."""
    if precision not in get_args(Precision):
        cure = f"Use one of: {', '.join(get_args(Precision))}."
        raise SettingError(f"there is no precision {precision!r}", place="precision", cure=cure)
    if precision == "float16" and device != "cuda":
        cure = 'Pass precision="auto", which tries bfloat16.'
        raise SettingError(f"float16 needs CUDA, the model is on {device}", place="precision", cure=cure)


def probe(model: "torch.nn.Module", rows: int, loss: "Callable[[int], torch.Tensor]", seconds: float = 1.0) -> Probe:
    """Try both precisions for about `seconds`, in turns. `loss(n)` is the loss of the first n of `rows` rows, in training mode.

    Weights, gradients and random states are left as they were. Few rows are tried first, more until a step takes a quarter of a second, so
    that a large model does not take longer than the training. The first passes in each precision are not counted.
    """
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = trained[0].device
    modes = {module: module.training for module in model.modules()}

    def step(count: int, short: bool) -> float:
        start = perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16) if short else nullcontext():
            found = loss(count)
        torch.autograd.grad(found, trained, allow_unused=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter() - start

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            model.train()
            return timed(step, rows, seconds)
        finally:
            for module, training in modes.items():
                module.training = training


def timed(step: Callable[[int, bool], float], rows: int, seconds: float) -> Probe:
    """The medians of `step(rows, in bfloat16)`, float32 and bfloat16 in turns, at least twice each."""
    count = 1
    step(count, False)
    while count < rows and step(count, False) < STEP:
        count = min(rows, 2 * count)
    step(count, True)  # the first pass prepares kernels
    found: dict[bool, list[float]] = {False: [], True: []}
    start = perf_counter()
    while len(found[True]) < 2 or (perf_counter() - start < seconds and len(found[True]) < 50):
        for short in (False, True):
            found[short].append(step(count, short))
    return Probe(median(found[False]), median(found[True]), count)


def takes_bfloat16(device: Any) -> bool:
    """Whether torch computes in bfloat16 there at all."""
    import torch

    return device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())
