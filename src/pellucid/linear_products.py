"""The products of linear layers through oneDNN, where this machine is faster with it.

Takes a model on a CPU. Gives hooks that let its linear layers multiply float32 matrices through oneDNN, forward and backward, and a trial
of both ways. Knows nothing of training, tasks or rows.

torch multiplies float32 matrices with MKL, which has slower kernels for processors of other makers; oneDNN, which torch carries as well,
takes the widest instructions of any. The sums are the same numbers in another order: results differ by rounding alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pellucid.types import Note

if TYPE_CHECKING:
    import torch

WORTH = 1.5  # times faster that oneDNN must be: it is about twice or about once, so that chance does not decide
SMALLEST = 128 * 128  # numbers in the weight of a layer: a smaller product takes less time than the way to it
FEWEST = 64  # rows of a product: below, oneDNN is no faster
ROUNDS, ROWS = 5, 256  # of a trial


@dataclass(frozen=True, slots=True)
class Trial:
    """The least seconds of one product of `rows` rows with a layer's weights: as torch multiplies, and through oneDNN."""

    usual: float
    onednn: float
    rows: int = ROWS

    @property
    def pays(self) -> bool:
        """Whether oneDNN is at least 1.5 times faster."""
        return self.onednn * WORTH <= self.usual

    def note(self) -> Note:
        """What was chosen, with both times."""
        times = f"a product of {self.rows} rows took {1e3 * self.usual:.2f} ms as torch does it and {1e3 * self.onednn:.2f} ms so"
        return Note("linear layers multiply through oneDNN", f"on this machine {times}; numbers differ by rounding alone")


def linear_layers(model: "torch.nn.Module") -> "list[torch.nn.Module]":
    """The layers that are one product with a matrix of float32 on a CPU, and large enough that it matters."""
    import torch
    from transformers.pytorch_utils import Conv1D

    found = [module for module in model.modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    return [layer for layer in found if layer.weight.numel() >= SMALLEST and _plain(layer.weight)]


def trial(model: "torch.nn.Module") -> Trial | None:
    """Both ways on the largest linear layer of the model, in turns, a few milliseconds; None where there is no choice.

    Draws no random numbers. What stands in the matrices has no part in the time.
    """
    import torch

    layers = linear_layers(model)
    if not layers or not torch.backends.mkldnn.is_available():
        return None
    columns, outputs = max((tuple(layer.weight.shape) for layer in layers), key=lambda shape: shape[0] * shape[1])
    rows, weight = torch.ones(ROWS, columns), torch.ones(outputs, columns)
    try:
        usual, onednn = _times((lambda: torch.nn.functional.linear(rows, weight), lambda: _multiply(rows, weight, None)))
    except (AttributeError, RuntimeError):  # a torch without this operator, or a processor that oneDNN has nothing for
        return None
    return Trial(usual, onednn)


def through_onednn(model: "torch.nn.Module") -> "list[torch.utils.hooks.RemovableHandle]":
    """Let the linear layers of the model multiply through oneDNN from now on; `remove()` on each of the handles takes that back.

    Nothing changes under autocast, for other precisions, on other devices, for layers below 128 × 128 and for fewer than 64 rows.
    """
    import torch

    mode = _mode()

    def enter(layer: torch.nn.Module, inputs: Any) -> None:
        mode.__enter__()

    def leave(layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        mode.__exit__(None, None, None)

    handles = []
    for layer in linear_layers(model):
        handles.append(layer.register_forward_pre_hook(enter))
        handles.append(layer.register_forward_hook(leave, always_call=True))
    return handles


def _times(ways: tuple[Callable[[], Any], ...]) -> list[float]:
    """The least seconds of each way; the first round is not counted."""
    import torch

    found: list[list[float]] = [[] for _ in ways]
    with torch.no_grad():
        for _ in range(ROUNDS + 1):
            for way, seconds in zip(ways, found, strict=True):
                start = perf_counter()
                way()
                seconds.append(perf_counter() - start)
    return [min(seconds[1:]) for seconds in found]


def _plain(tensor: Any) -> bool:
    """Whether a tensor is float32 on a CPU."""
    import torch

    return isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32 and tensor.device.type == "cpu" and not tensor.is_sparse


def _many(rows: Any) -> bool:
    """Whether these are float32 rows on a CPU, and enough of them."""
    return _plain(rows) and rows.numel() >= FEWEST * rows.shape[-1] > 0


def _multiply(rows: "torch.Tensor", weight: "torch.Tensor", bias: "torch.Tensor | None") -> "torch.Tensor":
    """rows (…, in) · weight (out, in) transposed + bias (out,) → (…, out)."""
    import torch

    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found


def _mode() -> Any:
    """The mode in which torch's own `linear` and `addmm` go through oneDNN; it is on only while a linear layer runs."""
    import torch
    from torch.autograd.function import once_differentiable
    from torch.overrides import TorchFunctionMode

    class Product(torch.autograd.Function):
        """A linear layer, forward and backward."""

        @staticmethod
        def forward(ctx: Any, rows: Any, weight: Any, bias: Any) -> Any:
            ctx.save_for_backward(rows, weight)
            return _multiply(rows.contiguous(), weight, bias)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, slope: Any) -> Any:
            rows, weight = ctx.saved_tensors
            # oneDNN takes a hundred times longer for rows that do not stand side by side in memory
            flat, given = (part.reshape(-1, part.shape[-1]).contiguous() for part in (slope, rows))  # (tokens, out), (tokens, in)
            to_rows = _multiply(flat, weight.t(), None).view(rows.shape) if ctx.needs_input_grad[0] else None
            to_weight = _multiply(flat.t(), given.t(), None) if ctx.needs_input_grad[1] else None
            return to_rows, to_weight, flat.sum(0) if ctx.needs_input_grad[2] else None

    class Products(TorchFunctionMode):
        """Takes the two calls that linear layers make."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if not kwargs and len(args) == 3 and not torch.is_autocast_enabled("cpu"):
                if func is torch.nn.functional.linear and _many(args[0]) and _plain(args[1]):
                    return Product.apply(*args)
                if func is torch.addmm and _plain(args[0]) and args[0].ndim == 1 and _many(args[1]) and _plain(args[2]):
                    return Product.apply(args[1], args[2].t(), args[0])  # Conv1D: bias, rows, weight
            return func(*args, **(kwargs or {}))

    return Products()
