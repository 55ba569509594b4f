"""Small trainable layers around the frozen ones of a model.

Takes a model, and which kind of adapter goes around which of its layers. Gives the model with them, everything else asleep, or a plain
model with them merged into its weights. Knows nothing of pipelines, checkpoints or files; the adapters themselves are peft's.
"""

import math
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.adapter_layers import adapted_layers, adapter_parameters, has_adapters, lies_in, modules_of
from pellucid.errors import CheckpointError, SettingError, need
from pellucid.groups import HEAD, block_modules, layer_groups

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

KINDS = ("lora", "dora", "loha", "lokr", "ia3")
ADAPTER = "default"  # peft's name of the only adapter there is


@dataclass(frozen=True, slots=True)
class AdapterOptions:
    """Which adapters go around which layers.

    `kind` is lora, dora, loha, lokr or ia3. `rank` is the inner width, `alpha / rank` the factor of what is added, `dropout` the share
    that training drops; ia3 multiplies by one learned vector a layer and reads none of the three. `targets` are names of layers as they
    end ("query", "attention.output.dense"); None means every linear layer of every block. `base` and `revision` say where the
    checkpoint under the adapters is, where it is not the pipeline's own.
    """

    kind: str = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    base: str | Path | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            near = get_close_matches(str(self.kind).lower(), KINDS, n=1, cutoff=0.5)
            guess = f"Did you mean {near[0]!r}? " if near else ""
            raise SettingError(f"no kind of adapter is called {self.kind!r}", place="kind", cure=f"{guess}There are {', '.join(KINDS)}.")
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise SettingError(f"expected a rank of 1 or more, came {self.rank!r}", place="rank", cure="8 is usual.")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not 0 < self.alpha < math.inf:
            raise SettingError(f"expected an alpha above 0, came {self.alpha!r}", place="alpha", cure="Twice the rank is usual.")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise SettingError(f"{self.dropout!r} is no share", place="dropout", cure="Use 0 up to, not including, 1.")
        if self.targets is not None and (isinstance(self.targets, str) or not self.targets):
            cure = 'Write targets=("query", "value"), or leave it at None for every linear layer of the blocks.'
            raise SettingError(f"expected names of layers, came {self.targets!r}", place="targets", cure=cure)


def check_free(model: "PreTrainedModel") -> None:
    """Whether adapters can go around this model's layers. Raises SettingError where some are there already, or it is quantized."""
    if has_adapters(model) or getattr(model, "peft_config", None):
        cure = "Call pellucid.merged(pipe) first, or go on training the adapters that are there."
        raise SettingError("the model carries adapters already", place="pipe.model", cure=cure)
    marked = getattr(model, "is_quantized", False) or getattr(model.config, "quantization_config", None) is not None
    whole = any(not parameter.is_floating_point() for parameter in model.parameters())
    packed = any("quantized" in type(module).__module__ for module in model.modules())
    if marked or whole or packed:
        cure = "Load the checkpoint in float32, and quantize the merged model afterwards."
        raise SettingError("the model is quantized: its weights cannot be compared with its checkpoint", place="pipe.model", cure=cure)


def linear_layers(model: "torch.nn.Module") -> "dict[str, torch.nn.Module]":
    """Every layer that multiplies by a matrix of its own, by name: torch's Linear, and GPT-2's Conv1D."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def learned_heads(model: "PreTrainedModel", new: frozenset[str]) -> tuple[str, ...]:
    """The modules that are learned beside adapters: a head that answers, and whatever is new. A trained head of words stays asleep."""
    head = next((group.parameters for group in layer_groups(model, new) if group.name == HEAD), ())
    words = model.get_output_embeddings() is not None
    return modules_of(model, [name for name in head if not words or name in new])


def target_layers(model: "PreTrainedModel", targets: Sequence[str] | None, heads: Collection[str]) -> tuple[str, ...]:
    """The layers that adapters go around, in the model's order: what `targets` name, or every linear layer of every block.

    Raises SettingError for a name that fits no such layer, with the names that there are.
    """
    words = model.get_output_embeddings()
    possible = [name for name, module in linear_layers(model).items() if module is not words and not lies_in(name, heads)]
    blocks = tuple(block_modules(model))
    inside = [name for name in possible if lies_in(name, blocks)]
    if targets is None:
        if not inside:
            raise SettingError(f"{type(model).__name__} has no linear layers in blocks", place="targets", cure="Name the layers.")
        return tuple(inside)
    for target in targets:
        if not any(_ends(name, target) for name in possible):
            raise _nothing_called(str(target), model, inside or possible)
    return tuple(name for name in possible if any(_ends(name, target) for target in targets))


def wrap(model: "PreTrainedModel", options: AdapterOptions, layers: Sequence[str], heads: Sequence[str]) -> Any:
    """Put adapters around `layers`, in place; only they and `heads` train from here on. Gives peft's config, which the model keeps.

    Raises SettingError where this kind cannot go around these layers, MissingPackageError without peft.
    """
    peft = need("peft", extra="peft", why=f"an adapter of kind {options.kind!r}")
    known = linear_layers(model)
    turned = [name for name in layers if hasattr(known[name], "nf")]  # Conv1D keeps its matrix the other way round
    if turned and options.kind in ("loha", "lokr"):
        cure = "Use lora, dora or ia3 for this architecture."
        raise SettingError(f"{options.kind} cannot go around the Conv1D {turned[0]!r}", place="kind", cure=cure)
    widest = max((min(known[name].weight.shape), name) for name in layers)
    if options.kind != "ia3" and options.rank > widest[0]:
        problem = f"the rank {options.rank} is more than the width {widest[0]} of the widest layer, {widest[1]!r}"
        raise SettingError(problem, place="rank", cure="8 is usual; more than the width saves nothing.")
    config = _config(peft, options, list(layers), bool(turned))
    try:
        peft.inject_adapter_in_model(config, model, ADAPTER)
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:300]
        cure = "Use another kind, or other targets."
        raise SettingError(f"peft cannot put {options.kind} around these layers: {reason}", place="kind", cure=cure) from error
    config.target_modules, config.modules_to_save = sorted(layers), list(heads) or None
    adapters = adapter_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in adapters or lies_in(name, heads))
    return config


def options_of(config: Any) -> AdapterOptions:
    """The options again, from the config that a model keeps of its adapters."""
    kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    kind = "dora" if kind == "lora" and config.use_dora else kind
    if kind == "ia3":
        return AdapterOptions(kind)
    if kind in ("lora", "dora"):
        return AdapterOptions(kind, config.r, config.lora_alpha, config.lora_dropout)
    return AdapterOptions(kind, config.r, config.alpha, config.rank_dropout)


def unwrapped(model: "PreTrainedModel") -> tuple["PreTrainedModel", tuple[str, ...]]:
    """A copy of the model in which the adapters are part of the weights, and the layers that took one in; all of it trains again.

    Raises CheckpointError where the sum is not finite.
    """
    plain = deepcopy(model)
    layers = [(name, layer) for name, layer in adapted_layers(plain)]
    for name, layer in layers:
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            cure = "The training diverged: go back to an earlier save, and train with a lower learning rate."
            raise CheckpointError(
                f"the adapter of {name!r} holds values that are NaN or infinite", place="pipe.model", cure=cure
            ) from error
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    plain.zero_grad(set_to_none=True)
    plain.requires_grad_(True)
    return plain, tuple(name for name, _ in layers)


def _config(peft: Any, options: AdapterOptions, layers: list[str], turned: bool) -> Any:
    match options.kind:
        case "lora" | "dora":
            return peft.LoraConfig(
                r=options.rank,
                lora_alpha=options.alpha,
                lora_dropout=options.dropout,
                target_modules=layers,
                fan_in_fan_out=turned,
                use_dora=options.kind == "dora",
            )
        case "loha":
            return peft.LoHaConfig(r=options.rank, alpha=options.alpha, rank_dropout=options.dropout, target_modules=layers)
        case "lokr":
            return peft.LoKrConfig(r=options.rank, alpha=options.alpha, rank_dropout=options.dropout, target_modules=layers)
    return peft.IA3Config(target_modules=layers, feedforward_modules=[], fan_in_fan_out=turned)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _nothing_called(target: str, model: "PreTrainedModel", layers: Sequence[str]) -> SettingError:
    """What to say of a name that fits no layer: whether it fits something else, and what there is."""
    last = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
    near = get_close_matches(target.rpartition(".")[2], last, n=1, cutoff=0.5)
    other = next((type(module).__name__ for name, module in model.named_modules() if name and _ends(name, target)), None)
    problem = f"no linear layer of {type(model).__name__} outside its head is called {target!r}"
    problem += "" if other is None else f" (there is a {other} of that name)"
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return SettingError(problem, place="targets", cure=f"{guess}Its blocks have {', '.join(last)}.")
