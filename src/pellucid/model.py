"""A body with a head on it.

Takes a checkpoint's name and the labels that its head must have. Gives the model with a record of where each weight comes from, and what
was chosen on the way. Knows nothing of rows, tokens or training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pellucid.checkpoints import EMBEDDED, Checkpoint, resolve
from pellucid.errors import CheckpointError, LabelError, SettingError
from pellucid.forwarding import Pooling, accepted_inputs, features, forward, inference, losses_of, max_positions, set_pad_token, to_numpy
from pellucid.labels import LabelSet
from pellucid.outline import Outline, outline_of
from pellucid.process import hide_broken_torchvision, quiet_transformers
from pellucid.provenance import Provenance, Shape, of_model
from pellucid.types import Note
from pellucid.vetting import Weights, check_label_names, read_config, read_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = [
    "EMBEDDED",
    "Built",
    "Checkpoint",
    "ModelOptions",
    "Pooling",
    "accepted_inputs",
    "build_classifier",
    "build_model",
    "features",
    "forward",
    "inference",
    "losses_of",
    "max_positions",
    "resolve",
    "set_pad_token",
    "to_numpy",
]
_NEW_HEAD = "ModelOptions(new_head=True) makes a new head."
_DROPOUT_KEYS = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "attn_dropout")


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is loaded. `new_head` drops a trained head instead of keeping it.

    `attention_dropout` is the share of attention weights that training drops; None keeps the checkpoint's. With 0 long texts train much
    faster on a CPU (docs/speed.md). It is saved in the model's config.
    """

    dtype: Literal["float32", "float16", "bfloat16", "auto"] = "float32"
    device: str = "auto"  # cuda where there is one, else cpu
    revision: str | None = None  # a branch, tag or commit on the Hub
    attention: Literal["sdpa", "eager"] = "sdpa"
    attention_dropout: float | None = None
    new_head: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16", "bfloat16", "auto"):
            raise SettingError(f"no dtype {self.dtype!r}", place="dtype", cure="Use float32, float16, bfloat16 or auto.")
        if self.attention not in ("sdpa", "eager"):
            raise SettingError(f"no attention {self.attention!r}", place="attention", cure="Use sdpa or eager.")
        if self.attention_dropout is not None and not 0 <= self.attention_dropout < 1:
            raise SettingError(f"{self.attention_dropout} is no share", place="attention_dropout", cure="Use 0 up to, not including, 1.")


@dataclass(frozen=True)
class Built:
    """A model with its head, where its weights come from, and its labels in the order of its outputs."""

    model: "PreTrainedModel"
    provenance: Provenance
    labels: LabelSet | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """What is known of a checkpoint before its weights are loaded."""

    checkpoint: Checkpoint
    config: "PreTrainedConfig"
    raw: Mapping[str, Any]
    weights: Weights
    outline: Outline
    notes: tuple[Note, ...]

    @property
    def place(self) -> str:
        return str(self.checkpoint.folder)


@dataclass(frozen=True)
class _Head:
    """The head that the model will have."""

    labels: LabelSet | None = None
    outputs: int | None = None  # None for a head that is as wide as the vocabulary, or for none
    problem_type: str | None = None
    before: int | None = None  # outputs of the trained head that this one replaces
    dropped: bool = False  # a trained head that must not be loaded
    notes: tuple[Note, ...] = ()


def build_classifier(
    checkpoint: str,
    labels: LabelSet | None,
    options: ModelOptions,
    *,
    problem_type: str | None,
    num_outputs: int | None = None,
    auto_class: str = "AutoModelForSequenceClassification",
) -> Built:
    """A checkpoint's body with a head for `labels` (or for `num_outputs` numbers) a row or a token, in evaluation mode.

    A trained head of the right size is kept, its labels matched by name: `Built.labels` are the caller's names in the head's order. One
    of another size is made new. Without labels the trained head says what they are. Weights that are missing, do not fit or are not
    finite are errors; only a head, or a pooler, may be new as a whole. Raises CheckpointError, LabelError, SettingError.
    """
    if labels is not None and num_outputs not in (None, len(labels)):
        raise SettingError(f"{len(labels)} labels, but {num_outputs} outputs", place="num_outputs", cure="Give one of the two.")
    plan = _plan(resolve(checkpoint, options.revision), auto_class, options)
    return _built(plan, _choose_head(plan, labels, num_outputs, problem_type, options.new_head), options)


def build_model(checkpoint: str, options: ModelOptions, *, auto_class: str) -> Built:
    """A checkpoint's body with the head of its pretraining (AutoModelForMaskedLM and its kin), or the bare body (AutoModel).

    A head that the checkpoint does not have is made new, and said. Raises CheckpointError, SettingError.
    """
    plan = _plan(resolve(checkpoint, options.revision), auto_class, options)
    known = [name for name in plan.outline.head if name in plan.weights.tensors]
    notes: tuple[Note, ...] = ()
    if plan.outline.head and (options.new_head or not known):
        why = "new_head=True was asked for" if known else "the checkpoint has no such head"
        what = f"a new {auto_class.removeprefix('AutoModelFor')} head"
        notes = (Note(what, why, "What it answers comes from training here alone."),)
    return _built(plan, _Head(dropped=bool(known) and options.new_head, notes=notes), options)


def _built(plan: _Plan, head: _Head, options: ModelOptions) -> Built:
    """Load the weights under a head, and record where each comes from."""
    _configure(plan.config, head)
    notes = _set_attention_dropout(plan, options)
    model, missing, misfits, dropped = _load(plan, head, options)
    _check_finite(model, plan.place)
    _own_memory(model)
    provenance = of_model(model, checkpoint=plan.checkpoint.name, missing=missing, mismatched=misfits)
    model.to(_device(options.device)).eval()
    return Built(model, provenance, head.labels, (*plan.notes, *head.notes, *notes, *_dropped_note(dropped)))


def _plan(checkpoint: Checkpoint, auto_class: str, options: ModelOptions) -> _Plan:
    """Read config and weight headers, and draw the model without its weights."""
    broken = hide_broken_torchvision()
    raw, notes = read_config(checkpoint.folder)
    weights = read_weights(checkpoint.folder)
    outline, config = outline_of(raw, auto_class, attention=options.attention, place=str(checkpoint.folder))
    notes = (*checkpoint.notes, *notes)
    if broken is not None:
        notes += (Note("torchvision hidden in this process", broken, "pip uninstall torchvision, or install the one that fits torch."),)
    if outline.attention != options.attention:
        notes += (Note(f"attention {outline.attention}", f"{outline.model_class.__name__} has no {options.attention} attention"),)
    if weights.half is not None and options.dtype == "float32":
        notes += (Note("weights turned into float32", f"the checkpoint holds {weights.half}", "ModelOptions(dtype='auto') keeps them."),)
    if outline.total > 3 * weights.numbers + 10_000_000:  # before anything of that size is allocated
        problem = f"the config describes {outline.total:,} parameters, but the files hold {weights.numbers:,} numbers"
        raise CheckpointError(problem, place=str(checkpoint.folder), cure="Take a config and weights that belong together.")
    return _Plan(checkpoint, config, raw, weights, outline, notes)


def _choose_head(plan: _Plan, labels: LabelSet | None, num_outputs: int | None, problem_type: str | None, new_head: bool) -> _Head:
    """Keep the trained head, or say why not."""
    shapes = {name: plan.weights.tensors[name].shape for name in plan.outline.head if name in plan.weights.tensors}
    trained = bool(plan.outline.head) and len(shapes) == len(plan.outline.head)
    if not trained or new_head:
        if labels is None and num_outputs is None:
            why = "its head is dropped (new_head=True)" if trained else "has no trained head"
            cure = "Pass rows with labels, or a checkpoint that was trained for this task."
            raise LabelError(f"no labels were given, and the checkpoint {plan.checkpoint.name!r} {why}", cure=cure)
        outputs = num_outputs or len(labels or ())
        why = "new_head=True was asked for" if trained else "the checkpoint has no trained head for this task"
        note = Note(f"a new head with {outputs} outputs", why, "What it answers comes from training here alone.")
        return _Head(labels, outputs, problem_type, dropped=trained, notes=(note,))
    check_label_names(plan.raw, f"{plan.place}/config.json")
    inferred = _outputs_in_file(plan, shapes)
    if inferred is not None:
        plan.config.num_labels = inferred
        return _keep_head(plan, labels, num_outputs, problem_type)
    odd = next((name for name, shape in shapes.items() if shape != plan.outline.head[name]), None)
    if odd is not None:
        problem = f"{odd!r} has the shape {shapes[odd]}, but the config ({plan.config.num_labels} labels) makes it {plan.outline.head[odd]}"
        raise CheckpointError(problem, place=plan.place, cure=f"Mend id2label in config.json, or drop the head: {_NEW_HEAD}")
    return _keep_head(plan, labels, num_outputs, problem_type)


def _outputs_in_file(plan: _Plan, shapes: Mapping[str, Shape]) -> int | None:
    """The outputs of a trained head whose config says nothing of labels: transformers leaves out what it takes for the default."""
    if "id2label" in plan.raw or "num_labels" in plan.raw:
        return None
    expected = plan.outline.head
    differing = [(shape, expected[name]) for name, shape in shapes.items() if shape != expected[name]]
    counts = {was[0] for was, drawn in differing if was[1:] == drawn[1:] and drawn[:1] == (plan.config.num_labels,)}
    return counts.pop() if len(counts) == 1 and all(was[1:] == drawn[1:] for was, drawn in differing) else None


def _keep_head(plan: _Plan, labels: LabelSet | None, num_outputs: int | None, problem_type: str | None) -> _Head:
    """The trained head under the rows' labels, or a new one where another number of outputs is wanted."""
    before, kind = int(plan.config.num_labels), plan.config.problem_type
    if labels is None and num_outputs is None:
        said = kind or ("regression" if before == 1 and problem_type is not None else problem_type)
        return _Head(LabelSet.from_id2label(plan.config.id2label), before, said)
    outputs = num_outputs or len(labels or ())
    notes: tuple[Note, ...] = ()
    if outputs != before:
        why = f"the checkpoint's head has {before} outputs"
        note = Note(f"a new head with {outputs} outputs", why, "What it answers comes from training here alone.")
        return _Head(labels, outputs, problem_type, before, notes=(note,))
    if kind is not None and problem_type is not None and kind != problem_type:
        notes += (Note(f"the trained head is used for {problem_type}", f"it was trained for {kind}", _NEW_HEAD),)
    if labels is None:
        return _Head(None, outputs, problem_type, notes=notes)
    found = [plan.config.id2label[index] for index in range(before)]
    match = labels.match(found)
    if match.relation == "other":
        theirs, ours = ", ".join(map(repr, found[:8])), ", ".join(map(repr, labels.names[:8]))
        problem = f"the trained head of {plan.checkpoint.name!r} has as many labels as the rows, but others: {theirs}; the rows have {ours}"
        raise LabelError(problem, cure=f"Rename the rows' labels if they mean the same; {_NEW_HEAD}")
    return _Head(match.labels, outputs, problem_type, notes=notes + match.notes)


def _configure(config: "PreTrainedConfig", head: _Head) -> None:
    if head.outputs is not None:
        config.num_labels = head.outputs
    if head.labels is not None:
        config.id2label, config.label2id = head.labels.id2label, head.labels.label2id
    if head.problem_type is not None:
        config.problem_type = head.problem_type


def _set_attention_dropout(plan: _Plan, options: ModelOptions) -> tuple[Note, ...]:
    """Give the config the attention dropout that was asked for; what that means. Raises SettingError where it has none of its own."""
    wanted, config = options.attention_dropout, plan.config
    if wanted is None:
        return ()
    known = [key for key in _DROPOUT_KEYS if hasattr(config, key)]
    if not known:
        cure = "Leave attention_dropout out for this architecture."
        raise SettingError(f"{config.model_type} has no attention dropout of its own", place="attention_dropout", cure=cure)
    before = getattr(config, known[0])
    for key in known:
        setattr(config, key, wanted)
    why = "that was asked for" if before == wanted else f"that was asked for, the checkpoint has {before:g}"
    if plan.outline.attention != "sdpa":
        why += f"; {plan.outline.model_class.__name__} has no sdpa attention, so that it trains no faster"
    elif wanted == 0:
        why += "; on a CPU attention then runs in torch's flash kernel, forward and backward, and long texts train faster"
    return (Note(f"attention dropout {wanted:g}", why, "Leave attention_dropout out to keep that of the checkpoint."),)


def _load(plan: _Plan, head: _Head, options: ModelOptions) -> tuple["PreTrainedModel", frozenset[str], dict[str, Shape], tuple[str, ...]]:
    """The model, the names that are new, those that did not fit with their old shapes, and what of the file was not used."""
    source: str | None = plan.place
    state = None
    if head.dropped:  # transformers would load it: hand over the tensors without those of the head
        source, state = None, _tensors_without(plan.weights, plan.outline)
    try:
        with quiet_transformers():
            model, info = plan.outline.model_class.from_pretrained(
                source,
                config=plan.config,
                state_dict=state,
                dtype=options.dtype,
                attn_implementation=plan.outline.attention,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # judged below, by name
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises anything from KeyError to RuntimeError for weights that it cannot place
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        cure = "Take a whole copy of the folder, as save_pretrained wrote it."
        raise CheckpointError(f"the weights cannot be loaded: {reason[:300]}", place=plan.place, cure=cure) from error
    misfits = {str(name): (tuple(was), tuple(now)) for name, was, now in info["mismatched_keys"]}
    missing = frozenset(map(str, info["missing_keys"]))
    unused = tuple(sorted(map(str, info["unexpected_keys"])))
    plan.outline.judge_misfits(misfits, outputs=None if head.before is None or head.outputs is None else (head.before, head.outputs))
    plan.outline.judge_missing(missing, frozenset(misfits), unused)
    plan.outline.judge_unused(unused, {name for name, tensor in plan.weights.tensors.items() if not tensor.floating})
    return model, missing, {name: was for name, (was, _) in misfits.items()}, unused


def _tensors_without(weights: Weights, outline: Outline) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors = {name: tensor for file in weights.files for name, tensor in load_file(file).items()}
    return {name: tensor for name, tensor in tensors.items() if name not in outline.head}


def _check_finite(model: "PreTrainedModel", place: str) -> None:
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            wrong = int((~parameter.isfinite()).sum())
            problem = f"the weight {name!r} has {wrong:,} of {parameter.numel():,} numbers that are NaN or infinite"
            raise CheckpointError(problem, place=place, cure="Take an earlier checkpoint: this one is spoilt.")


def _own_memory(model: "PreTrainedModel") -> None:
    """Copy the weights out of the file that transformers maps into memory.

    The file may then be cut or rewritten by anyone; and kernels add up in another order where memory is not aligned, as in a file: in
    memory of its own a model answers the same to the bit, whether it has just been made or comes from what was saved.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise SettingError(f"the device {name!r} cannot be used: {reason}", place="device", cure="Use device='auto' or 'cpu'.") from error
    return name


def _dropped_note(dropped: tuple[str, ...]) -> tuple[Note, ...]:
    if not dropped:
        return ()
    modules = dict.fromkeys(".".join(name.split(".")[:2]) if name.count(".") > 1 else name.rpartition(".")[0] or name for name in dropped)
    what = f"{len(dropped)} tensors of the checkpoint are not used: {', '.join(list(modules)[:6])}"
    return (Note(what, "they belong to a head of another kind, or to a pooler that this head does not read"),)
