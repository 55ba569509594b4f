"""LoRA and its kin as a kind of freezing: a pipeline that learns a few small layers and leaves its body asleep.

Takes a pipeline, and which adapters to put around which layers. Gives a pipeline with them, or a plain one with them merged into its
weights. Knows nothing of optimizers, rows or folders: `learner`, `evaluate` and `save` treat it as any other pipeline.
"""

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

from pellucid.adapter_files import check_base, remember
from pellucid.adapter_layers import WRAPPED, adapter_parameters, has_adapters
from pellucid.adapter_wrapping import ADAPTER, KINDS, AdapterOptions, check_free, learned_heads, target_layers, unwrapped, wrap
from pellucid.errors import SettingError
from pellucid.provenance import Origin, renamed
from pellucid.types import Note

if TYPE_CHECKING:
    from pellucid.pipelines import Pipeline

__all__ = ["ADAPTER", "ADAPTER_FACTOR", "KINDS", "AdapterOptions", "adapted", "merged"]

ADAPTER_FACTOR = 10  # adapters begin at nothing and are all that moves: they want about ten times the rate of a whole model


def adapted(pipe: "Pipeline", options: AdapterOptions = AdapterOptions()) -> "Pipeline":
    """A pipeline with adapters around its layers: they and the head learn, the body never wakes. `pipe` stays as it is.

    At first it answers as `pipe` does. Its checkpoint is opened once more, to be sure that adapters which are saved alone will find the
    same body again. Raises SettingError for targets that fit nothing, and for a model that is quantized, adapted already or all random,
    CheckpointError where the checkpoint does not give this body, MissingPackageError without peft.
    """
    check_free(pipe.model)
    if pipe.provenance.counts().get(Origin.PRETRAINED, 0) == 0:
        cure = "Train the whole model first, then put adapters around what it has learned."
        raise SettingError("every weight of this model is random, and its body would sleep as it is", place="adapter", cure=cure)
    heads = learned_heads(pipe.model, pipe.provenance.new_names())
    layers = target_layers(pipe.model, options.targets, heads)
    base = check_base(pipe, options, heads)
    model = deepcopy(pipe.model)
    model.zero_grad(set_to_none=True)
    config = wrap(model, options, layers, heads)
    remember(config, model, base)
    model.train(pipe.model.training)
    provenance = renamed(pipe.provenance, model, adapters=adapter_parameters(model), plain=lambda name: name.replace(WRAPPED, ""))
    return replace(pipe, model=model, provenance=provenance, notes=(*pipe.notes, *_notes(options, layers, heads)))


def merged(pipe: "Pipeline") -> "Pipeline":
    """A plain pipeline that answers as the adapted one does (float32: within 1e-5), its adapters part of its weights.

    `pipe` stays as it is. Raises SettingError where there are no adapters, CheckpointError where their numbers are not finite.
    """
    if not has_adapters(pipe.model):
        raise SettingError("the model carries no adapters", place="pipe.model", cure="Put some around it with pellucid.adapted(pipe).")
    model, layers = unwrapped(pipe.model)
    before = {parameter.name.replace(WRAPPED, ""): parameter.name for parameter in pipe.provenance.parameters}
    provenance = renamed(pipe.provenance, model, adapters=frozenset(), plain=before.__getitem__)
    note = Note(f"adapters merged into {len(layers)} layers", "the pipeline was asked to be plain again", "They cannot be taken out again.")
    return replace(pipe, model=model, provenance=provenance, notes=(*pipe.notes, note))


def _notes(options: AdapterOptions, layers: tuple[str, ...], heads: tuple[str, ...]) -> tuple[Note, ...]:
    """Which layers carry adapters, and what is learned beside them."""
    names = ", ".join(dict.fromkeys(layer.rpartition(".")[2] for layer in layers))
    size = "" if options.kind == "ia3" else f" of rank {options.rank}"
    why = "no targets were named: every linear layer of every block" if options.targets is None else "they were named"
    around = Note(f"{options.kind} adapters{size} around {len(layers)} layers ({names})", why, "AdapterOptions(targets=…) names others.")
    beside = f"{', '.join(heads)} learn beside them" if heads else "nothing learns beside them"
    reason = "it is the head of this task, or new" if heads else "the head was trained with the body, and stays asleep with it"
    return around, Note(beside, reason)
