"""The plan of a model without its weights.

Takes a vetted config and the name of an auto class. Gives the model's class and the names and shapes of its parameters, body and head
apart, and judges what a loader reports against them. Knows nothing of files, labels or values of weights.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from pellucid.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Shape = tuple[int, ...]
_WHOLE_COPY = "Take a whole copy of the checkpoint, or another one; random weights are never put in its place."
_BUFFERS = ("position_ids", "inv_freq", "masked_bias", ".attn.bias", ".attention.bias")  # constants that older versions saved


@dataclass(frozen=True, slots=True)
class Outline:
    """A model's class, and its parameters by name: those of the head are outside the base model."""

    model_class: Any
    attention: str
    prefix: str  # of the base model's parameters, "bert."
    body: Mapping[str, Shape]
    head: Mapping[str, Shape]
    place: str

    @property
    def total(self) -> int:
        """The number of parameters, tied ones once."""
        return sum(map(prod, self.body.values())) + sum(map(prod, self.head.values()))

    def judge_misfits(self, misfits: Mapping[str, tuple[Shape, Shape]], *, outputs: tuple[int, int] | None) -> None:
        """Only a head may differ from the file, and only in its number of outputs (before, now). Raises CheckpointError."""
        for name, (was, now) in sorted(misfits.items()):
            fits = name in self.head and was[1:] == now[1:] and (was[:1], now[:1]) == tuple((side,) for side in outputs or ())
            if not fits:
                problem = f"the weight {name!r} has the shape {was}, but the config makes it {now}"
                raise CheckpointError(problem, place=self.place, cure="Take a config and weights that belong together.")

    def judge_missing(self, missing: Collection[str], misfits: Collection[str], unused: Collection[str]) -> None:
        """A head module or a pooler may be absent as a whole; everything else must be there. Raises CheckpointError."""
        wrong = sorted(name for name in missing if not self._may_be_new(name, {*missing, *misfits}))
        if not wrong:
            return
        known = f"; the file has {min(unused)!r}, which the model does not know" if unused else ""
        many = f"{len(wrong)} weights of the model are" if len(wrong) > 1 else "one weight of the model is"
        raise CheckpointError(f"{many} missing from the checkpoint: {wrong[0]!r}{known}", place=self.place, cure=_WHOLE_COPY)

    def judge_unused(self, unused: Collection[str], buffers: Collection[str]) -> None:
        """What the model does not use must belong to a head or a pooler, not to the body. Raises CheckpointError."""
        parts = {self._part(name) for name in self.body}
        for name in sorted(unused):
            part = self._part(name)
            if part in parts and "pool" not in part and name not in buffers and not name.endswith(_BUFFERS):
                problem = f"the checkpoint has the weight {name!r}, for which the config has no place"
                raise CheckpointError(problem, place=self.place, cure="Take a config and weights that belong together.")

    def _may_be_new(self, name: str, absent: Collection[str]) -> bool:
        part = self._part(name)
        tied = name not in self.body and part in {self._part(other) for other in self.head}  # a bias under its second name
        side = self.head if name in self.head or tied else self.body
        if side is self.body and "pool" not in part:
            return False
        return all(other in absent for other in side if self._part(other) == part)

    def _part(self, name: str) -> str:
        """The module directly below the base model, or below the model where it is outside: "encoder", "classifier"."""
        return name.removeprefix(self.prefix).partition(".")[0]


def outline_of(raw: Mapping[str, Any], auto_class: str, *, attention: str, place: str) -> tuple[Outline, "PreTrainedConfig"]:
    """Draw the model that a config describes, on no device, and the config object. Raises CheckpointError.

    `attention` gives way to "eager" where the architecture has no such kernel.
    """
    import torch
    import transformers

    model_type = str(raw["model_type"])
    if model_type not in transformers.CONFIG_MAPPING:
        problem = f"transformers {transformers.__version__} knows no model type {model_type!r}"
        raise CheckpointError(problem, place=place, cure="Update transformers, or use another checkpoint; code in the folder is never run.")
    try:
        config = transformers.CONFIG_MAPPING[model_type].from_dict(dict(raw))
    except Exception as error:  # validation errors of many kinds
        raise _unusable(error, place) from error
    auto = getattr(transformers, auto_class)
    if type(config) not in auto._model_mapping:
        kind = "an encoder-decoder" if getattr(config, "is_encoder_decoder", False) else f"a {model_type!r} model"
        wanted = auto_class.removeprefix("AutoModelFor").removeprefix("AutoModel") or "plain"
        problem = f"the checkpoint is {kind} ({model_type}), and transformers has no {wanted} head for it"
        raise CheckpointError(problem, place=place, cure="Use an encoder or decoder, such as 'minilm'.")
    try:
        with torch.device("meta"):
            model = _drawn(auto, config, attention)
    except Exception as error:  # sizes that do not fit each other
        raise _unusable(error, place) from error
    base = model.base_model
    prefix = next((f"{name}." for name, module in model.named_modules() if module is base and name), "")
    inside = {id(parameter) for parameter in base.parameters()}
    if base is model and auto_class != "AutoModel":  # T5 keeps its head beside the parts of its body
        known = _names_of_body(config, attention)
        inside = {id(parameter) for name, parameter in model.named_parameters() if name in known}
    body: dict[str, Shape] = {}
    head: dict[str, Shape] = {}
    for name, parameter in model.named_parameters():
        (body if id(parameter) in inside else head)[name] = tuple(parameter.shape)
    return Outline(type(model), model.config._attn_implementation, prefix, body, head, place), config


def _names_of_body(config: "PreTrainedConfig", attention: str) -> frozenset[str]:
    """The names of the parameters of the bare body; of all parameters where transformers has no bare body for this config."""
    import torch
    import transformers

    with torch.device("meta"):
        body = _drawn(transformers.AutoModel, config, attention)
    return frozenset(name for name, _ in body.named_parameters())


def _drawn(auto: Any, config: "PreTrainedConfig", attention: str) -> Any:
    try:
        return auto.from_config(config, attn_implementation=attention, trust_remote_code=False)
    except ValueError:
        if attention == "eager":
            raise
        return auto.from_config(config, attn_implementation="eager", trust_remote_code=False)


def _unusable(error: Exception, place: str) -> CheckpointError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return CheckpointError(f"config.json describes no model: {reason[:300]}", place=place, cure="Take a whole copy of the folder.")
