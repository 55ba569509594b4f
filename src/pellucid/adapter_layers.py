"""What a model says of the adapters that it carries.

Takes a model. Gives the layers that adapters of peft are wrapped around, the names of the parameters that they brought along, and the
modules that are learned beside them. Knows nothing of peft itself: it reads the marks that peft leaves.
"""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WRAPPED = ".base_layer"  # what peft puts into the name of a weight that an adapter is wrapped around


def has_adapters(model: "torch.nn.Module") -> bool:
    """Whether layers of the model are wrapped in adapters of peft."""
    return any(True for _ in adapted_layers(model))


def adapted_layers(model: "torch.nn.Module") -> "Iterator[tuple[str, torch.nn.Module]]":
    """The layers that adapters are wrapped around, by name."""
    for name, module in model.named_modules():
        if getattr(module, "adapter_layer_names", None) is not None and hasattr(module, "base_layer"):
            yield name, module


def adapter_parameters(model: "torch.nn.Module") -> frozenset[str]:
    """The names of the parameters that adapters brought along."""
    found: set[str] = set()
    for layer, module in adapted_layers(model):
        inner = [name for name, _ in module.named_parameters() if not name.startswith(f"{WRAPPED[1:]}.")]
        found |= {f"{layer}.{name}" for name in inner}
    return frozenset(found)


def head_modules(model: "torch.nn.Module") -> tuple[str, ...]:
    """The modules outside the adapters that are learned and kept with them, as their config says; none without adapters."""
    configs = getattr(model, "peft_config", None) or {}
    return tuple(name for config in configs.values() for name in (config.modules_to_save or ()))


def lies_in(name: str, modules: Collection[str]) -> bool:
    """Whether a parameter is one of these modules, or in one of them."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def modules_of(model: "torch.nn.Module", names: Collection[str]) -> tuple[str, ...]:
    """The fewest modules that hold exactly these parameters; a parameter beside others is named itself."""
    wanted = frozenset(names)
    found: list[str] = []

    def visit(module: "torch.nn.Module", path: str) -> None:
        parameters = [f"{path}.{name}" if path else name for name, _ in module.named_parameters()]
        chosen = [name for name in parameters if name in wanted]
        if path and chosen and len(chosen) == len(parameters):
            found.append(path)
            return
        if not chosen:
            return
        own = [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)]
        found.extend(name for name in own if name in wanted)
        for name, child in module.named_children():
            visit(child, f"{path}.{name}" if path else name)

    visit(model, "")
    return tuple(dict.fromkeys(found))
