"""torch's fused AdamW behind fastai's optimizer interface, with layer groups and without weight decay where it harms.

Takes the parameters of a model by layer group. Gives one optimizer with a learning rate a group. Knows nothing of batches, losses or files.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from fastai.optimizer import OptimWrapper, set_item_pg

from pellucid.groups import no_decay

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayerAdamW(OptimWrapper):
    """AdamW over layer groups.

    Inside torch a layer group is up to two parameter groups, with weight decay and without. fastai sees one, so that `slice` learning
    rates and `freeze_to` count layers.
    """

    def __init__(self, layers: Sequence[Sequence[torch.nn.Parameter]], spared: frozenset[int], lr: Any) -> None:
        self.layer_of: list[int] = []  # torch group → layer group
        self.decays: list[bool] = []  # torch group → has weight decay
        parts = []
        for layer, parameters in enumerate(layers):
            for decays in (True, False):
                chosen = [parameter for parameter in parameters if (id(parameter) not in spared) == decays]
                if chosen:
                    parts.append({"params": chosen})
                    self.layer_of.append(layer)
                    self.decays.append(decays)
        fused = all(
            parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for part in parts for parameter in part["params"]
        )
        super().__init__(opt=torch.optim.AdamW(parts, lr=1e-3, weight_decay=0.0, fused=fused))
        self.first = [self.layer_of.index(layer) for layer in dict.fromkeys(self.layer_of)]  # layer group → its torch group
        self.set_hyper("lr", lr)

    @property
    def param_lists(self) -> list[list[torch.nn.Parameter]]:
        """The parameters of each layer group."""
        lists: list[list[torch.nn.Parameter]] = [[] for _ in self.first]
        for layer, group in zip(self.layer_of, self.opt.param_groups, strict=True):
            lists[layer].extend(group["params"])
        return lists

    @property
    def hypers(self) -> list[dict[str, Any]]:
        """The settings of each layer group, by fastai's names; weight decay is that of the part that has it."""
        names = ("lr", "wd", "mom", "sqr_mom", "eps")  # spelled out, not by fastai's `detuplify_pg`: asked for five times a step
        groups = [self.opt.param_groups[position] for position in self.first]
        return [
            LayerHypers(self, layer, dict(zip(names, (group["lr"], group["weight_decay"], *group["betas"], group["eps"]), strict=True)))
            for layer, group in enumerate(groups)
        ]

    def _set_hyper(self, k: str, v: Sequence[Any]) -> None:
        for layer, decays, group in zip(self.layer_of, self.decays, self.opt.param_groups, strict=True):
            set_item_pg(group, self.bwd_map[k], v[layer] if k != "wd" or decays else 0.0)


class LayerHypers(dict[str, Any]):
    """The settings of one layer group; what a callback writes into them reaches torch (ReduceLROnPlateau writes so)."""

    def __init__(self, optimizer: LayerAdamW, layer: int, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.optimizer, self.layer = optimizer, layer

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        everything = [hypers[name] for hypers in self.optimizer.hypers]
        everything[self.layer] = value
        self.optimizer.set_hyper(name, everything)


class FusedAdamW:
    """Makes the optimizer of a model when fastai asks for it."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model

    def __call__(self, params: Sequence[Sequence[torch.nn.Parameter]], lr: Any) -> LayerAdamW:
        """The optimizer over these layer groups."""
        names = no_decay(self.model)
        return LayerAdamW(params, frozenset(id(parameter) for name, parameter in self.model.named_parameters() if name in names), lr)

    def __repr__(self) -> str:
        return "fused AdamW (torch), no weight decay on biases and norms"
