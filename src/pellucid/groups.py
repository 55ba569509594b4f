"""The parameters of a model in groups, from the embeddings to the head.

Takes a model and the names of its new weights. Gives layer groups for freezing and layer-wise learning rates, and the names that weight
decay must spare. Knows nothing of optimizers, checkpoints or tasks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pellucid.adapter_layers import WRAPPED, adapter_parameters, has_adapters, head_modules, lies_in
from pellucid.errors import SettingError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_NORM_CLASS = re.compile(r"norm$|layernorm|rmsnorm", re.IGNORECASE)
_NORM_NAME = re.compile(r"(^|_)(norm|ln|layernorm)(_|\d|$)", re.IGNORECASE)
HEAD = "head"


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are frozen together and share a learning rate."""

    name: str
    parameters: tuple[str, ...]


def layer_groups(model: "PreTrainedModel", new: frozenset[str] = frozenset()) -> tuple[Group, ...]:
    """Embeddings, one group a block, head: every parameter in exactly one group, a tied one under its first name.

    The blocks are found as the lists of layers inside `model.base_model`, whatever the architecture calls them; an encoder-decoder has
    both. The head is what is outside the body, and whatever is `new` inside a body that is not: of a model made from a config all of it
    is, and the body is no head. What comes after the last block (a final norm, a trained pooler) belongs to that block. Groups without
    parameters are left out: a head that only shares the embeddings' matrix is no group, and the last one is then the last block. Of a
    model that carries adapters only these and the head that is learned with them are in groups, the adapters by block; the body sleeps
    whatever is unfrozen.
    """
    prefix = _prefix(model)
    inside = _body_parameters(model)
    blocks = block_modules(model)
    members: dict[str, list[str]] = {"embeddings": [], **{group: [] for group in dict.fromkeys(blocks.values())}, HEAD: []}
    embeddings = _embedding_parameters(model)
    late = frozenset() if all(name in new for name, one in model.named_parameters() if id(one) in inside) else new
    current = "embeddings"  # what is no block belongs with what stands before it
    for name, parameter in model.named_parameters():
        block = next((blocks[stem] for stem in _stems(name) if stem in blocks), None)
        if id(parameter) not in inside or name in late:
            members[HEAD].append(name)
        elif block is not None:
            current = block
            members[block].append(name)
        elif id(parameter) in embeddings or "embed" in name.removeprefix(prefix):
            members["embeddings"].append(name)
        else:
            members[current].append(name)
    if has_adapters(model):
        members = _awake(model, members)
    return tuple(Group(group, tuple(names)) for group, names in members.items() if names)


def block_modules(model: "PreTrainedModel") -> dict[str, str]:
    """Module path of a block → name of its group, as `layer_groups` calls it."""
    return _block_names(model.base_model, _prefix(model))


def no_decay(model: "PreTrainedModel") -> frozenset[str]:
    """The parameters that weight decay must spare: biases, weights of norms of any class, and vectors of adapters. Embeddings do decay."""
    spared = set()
    for module_name, module in model.named_modules():
        own = module_name.rpartition(".")[2]
        norm = bool(_NORM_CLASS.search(type(module).__name__)) or bool(_NORM_NAME.search(own))
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias") or (parameter.ndim <= 1 and (norm or _NORM_CLASS.search(name) is not None)):
                spared.add(f"{module_name}.{name}" if module_name else name)
    vectors = {name for name in adapter_parameters(model) if "magnitude" in name or "ia3_l" in name}  # factors around one
    return frozenset((spared | vectors) & {name for name, _ in model.named_parameters()})


def freeze_to(model: "PreTrainedModel", groups: Sequence[Group], n: int) -> tuple[str, ...]:
    """Train only `groups[n:]`, as in fastai: -1 trains the last group (the head), 0 everything. Gives the names that train.

    Raises SettingError where there is no such group.
    """
    if not -len(groups) <= n < len(groups):
        raise SettingError(
            f"freeze_to({n}), but there are {len(groups)} groups: {', '.join(group.name for group in groups)}",
            place="n",
            cure=f"Pass {-len(groups)} to {len(groups) - 1}; -1 trains the last one only.",
        )
    training = {name for group in groups[n:] for name in group.parameters}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in training)
    return tuple(name for group in groups[n:] for name in group.parameters)


def _awake(model: "PreTrainedModel", members: dict[str, list[str]]) -> dict[str, list[str]]:
    """Only what adapters brought along and what is learned with them, in the groups that they are in."""
    adapters, heads = adapter_parameters(model), head_modules(model)
    awake: dict[str, list[str]] = {}
    for group, names in members.items():
        if group != HEAD:
            awake[f"adapters of {group}"] = [name for name in names if name in adapters]
    awake[HEAD] = [name for names in members.values() for name in names if name not in adapters and lies_in(name, heads)]
    return awake


def _prefix(model: "PreTrainedModel") -> str:
    """What the names of the body begin with."""
    base = model.base_model
    return next((f"{name}." for name, module in model.named_modules() if module is base and name), "")


def _stems(name: str) -> list[str]:
    """Every module path that `name` lies in, the outermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _body_parameters(model: "PreTrainedModel") -> set[int]:
    """The parameters of the body. T5 keeps its heads beside the parts of its body: there the bare body says which names are its own."""
    import torch
    import transformers

    base = model.base_model
    everything = {id(parameter) for parameter in base.parameters()}
    kinds = transformers.AutoModel._model_mapping
    if base is not model or type(model.config) not in kinds:
        return everything
    bare = kinds[type(model.config)]
    kind = bare[0] if isinstance(bare, tuple) else bare
    if isinstance(model, kind):
        return everything
    with torch.device("meta"):
        known = {name for name, _ in kind(model.config).named_parameters(remove_duplicate=False)}
    named = {name.replace(WRAPPED, ""): parameter for name, parameter in model.named_parameters(remove_duplicate=False)}
    adapters = adapter_parameters(model)  # they are on layers of blocks, and these are the body's
    wrapped = {id(parameter) for name, parameter in model.named_parameters() if name in adapters}
    return wrapped | {id(parameter) for name, parameter in named.items() if name in known}


def _block_names(base: "torch.nn.Module", prefix: str) -> dict[str, str]:
    """Module path of a block → name of its group. Lists of one length under one parent run in parallel and share their groups."""
    from torch import nn

    lists: dict[str, nn.ModuleList] = {}
    for name, module in base.named_modules():
        nested = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and not nested and not all(isinstance(block, nn.Embedding) for block in module):
            lists[name] = module
    sizes: dict[tuple[str, int], int] = {}
    for name, module in lists.items():
        key = (name.rpartition(".")[0], len(module))
        sizes[key] = sizes.get(key, 0) + sum(parameter.numel() for parameter in module.parameters())
    stacks = [key for key, size in sizes.items() if size > 0 and size * 20 >= max(sizes.values())]  # smaller lists are parts, not stacks
    groups: dict[str, str] = {}
    for name, module in lists.items():
        parent = name.rpartition(".")[0]
        if (parent, len(module)) in stacks:
            side = f"{parent.rpartition('.')[2]} " if len(stacks) > 1 else ""
            groups |= {f"{prefix}{name}.{number}": f"{side}block {number}" for number in range(len(module))}
    return groups


def _embedding_parameters(model: "torch.nn.Module") -> set[int]:
    from torch import nn

    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
