"""Adapters in files of their own, and the checkpoint that they belong on.

Takes a pipeline that carries adapters, or the record of a saved one. Gives peft's two files and the record, or the model again on a
checkpoint that is still the same to the bit. Knows nothing of manifests, of tokenizers or of how adapters are wrapped around layers.

    adapter_model.safetensors   the adapters, and the head that was learned with them
    adapter_config.json         what peft wants to know: kind, rank, layers, the name and the SHA-256 of the body underneath
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.adapter_layers import WRAPPED, adapter_parameters, head_modules, lies_in
from pellucid.adapter_wrapping import ADAPTER, AdapterOptions, options_of, wrap
from pellucid.checkpoints import EMBEDDED, resolve
from pellucid.errors import CheckpointError, PellucidError
from pellucid.files import write_json
from pellucid.model import ModelOptions
from pellucid.process import quiet_transformers
from pellucid.provenance import Origin
from pellucid.weights import compare, shapes_of, write_error

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from pellucid.pipelines import Pipeline
    from pellucid.task import Task

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."  # peft's names begin so
_DIGEST = "base_sha256"
_KEEP_ALL = "pellucid.save(pellucid.merged(pipe), folder) keeps everything in one plain folder."


def body_digest(model: "PreTrainedModel", heads: Collection[str]) -> str:
    """The SHA-256 of every weight that adapters leave alone: names, dtypes, shapes and numbers, in the order of the names."""
    import torch

    adapters = adapter_parameters(model)
    named = {name.replace(WRAPPED, ""): weight for name, weight in model.named_parameters() if name not in adapters}
    digest = hashlib.sha256()
    for name in sorted(name for name in named if not lies_in(name, heads)):
        weight = named[name].detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_base(pipe: "Pipeline", options: AdapterOptions, heads: Collection[str]) -> dict[str, Any]:
    """What to remember of the checkpoint under a pipeline's adapters, once it is known to give the very body that the pipeline has.

    Raises CheckpointError where it is not there, or gives another body: adapters are saved without it, and would be lost.
    """
    named = os.fspath(options.base or pipe.checkpoint)
    try:
        _, body = _opened(pipe.task, named, _how(pipe, options.revision, heads))
    except PellucidError as error:
        cure = f"{error.cure} Or save the pipeline, and say AdapterOptions(base=that folder)."
        raise CheckpointError(
            f"adapters are kept without their checkpoint, and {named!r} cannot be opened: {error.problem}", cure=cure
        ) from error
    digest = body_digest(pipe.model, heads)
    if body_digest(body, heads) != digest:
        problem = (
            f"the body of the pipeline is not that of {named!r}: it was trained, or loaded otherwise, and adapters are kept without it"
        )
        cure = "Save the pipeline with pellucid.save, and say AdapterOptions(base=that folder)."
        raise CheckpointError(problem, place="pipe.model", cure=cure)
    folder = _folder(named)
    return {"base_model_name_or_path": str(folder or named), "revision": options.revision, _DIGEST: digest}


def write_adapters(pipe: "Pipeline", folder: Path, target: Path) -> dict[str, Any]:
    """Write adapters and head into `folder` under peft's names; gives what `open_adapters` wants to know.

    `target` is where the folder will stand: the way to a checkpoint in another folder is written down from there. Raises CheckpointError
    where the body is no longer the one that the adapters were put on, StorageError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    model: Any = pipe.model
    config, heads = model.peft_config[ADAPTER], head_modules(model)
    digest = body_digest(model, heads)
    if digest != config.auto_mapping[_DIGEST]:
        problem = "the body was changed after the adapters were put around it, and adapters are kept without it"
        raise CheckpointError(problem, place="pipe.model", cure=_KEEP_ALL)
    try:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _saved(model).items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise write_error(error, str(folder)) from error
    base = _folder(config.base_model_name_or_path)
    name = config.base_model_name_or_path if base is None else base.name
    written = {key: sorted(value) if isinstance(value, set | frozenset) else value for key, value in config.to_dict().items()}
    write_json(folder / CONFIG, {**dict(sorted(written.items())), "base_model_name_or_path": name, "inference_mode": True})
    options = options_of(config)
    return {
        "kind": options.kind,
        "rank": options.rank,
        "alpha": options.alpha,
        "dropout": options.dropout,
        "layers": list(config.target_modules),
        "heads": list(heads),
        "new_head": _new_head(pipe, heads),
        "dtype": str(model.dtype).removeprefix("torch."),
        "base": {"name": name, "folder": _way(base, target), "revision": config.revision, "sha256": digest},
    }


def open_adapters(
    folder: Path, record: Mapping[str, Any], task: "Task", *, device: str, attention: str, base: str | os.PathLike[str] | None
) -> tuple["Task", "PreTrainedModel"]:
    """The model again: the checkpoint, checked, with the saved adapters and head. `base` says where the checkpoint is now.

    Raises CheckpointError where the checkpoint is not there or another one, or where a weight is missing or does not fit.
    """
    try:
        options = AdapterOptions(str(record["kind"]), record["rank"], record["alpha"], record["dropout"])
        layers, heads = [str(name) for name in record["layers"]], [str(name) for name in record["heads"]]
        under = {key: record["base"][key] for key in ("name", "folder", "revision", "sha256")}
        how = ModelOptions(record["dtype"], device, under["revision"], attention, new_head=bool(record["new_head"]))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        cure = "Save the pipeline again with pellucid.save."
        raise CheckpointError(f"its record of the adapters is of another kind ({error!r})", place=str(folder), cure=cure) from error
    named = _found(folder, under, base)
    cure = f"pellucid.load({folder.name!r}, base=…) names the folder where the checkpoint is as it was."
    try:
        opened, model = _opened(task, named, how)
    except PellucidError as error:
        problem = f"the adapters belong on the checkpoint {under['name']!r}, which cannot be opened: {error.problem}"
        raise CheckpointError(problem, place=str(folder), cure=cure) from error
    if body_digest(model, heads) != under["sha256"]:
        problem = f"the checkpoint {named!r} has changed: its weights are not those that the adapters were trained on"
        raise CheckpointError(problem, place=str(folder), cure=cure)
    config = wrap(model, options, layers, heads)
    remember(config, model, {"base_model_name_or_path": str(_folder(named) or named), "revision": how.revision, _DIGEST: under["sha256"]})
    fill_adapters(model, folder)
    return opened, model.eval()


def fill_adapters(model: "PreTrainedModel", folder: Path) -> None:
    """Put a folder's adapters and head into a model that carries such, in place. Raises CheckpointError where they do not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    wanted = _saved(model)
    try:
        found = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        cure = "Take a whole copy of the folder."
        raise CheckpointError(f"the adapters cannot be read ({error})", place=str(folder / WEIGHTS), cure=cure) from error
    compare(shapes_of(wanted), shapes_of(found), place=str(folder / WEIGHTS))
    with torch.no_grad():
        for name, weight in wanted.items():
            weight.copy_(found[name])


def remember(config: Any, model: "PreTrainedModel", base: Mapping[str, Any]) -> None:
    """Write down in peft's config which checkpoint is under the adapters; peft keeps all of it in its file."""
    config.base_model_name_or_path, config.revision = base["base_model_name_or_path"], base["revision"]
    kind = type(model)
    config.auto_mapping = {"base_model_class": kind.__name__, "parent_library": kind.__module__, _DIGEST: base[_DIGEST]}


def _opened(task: "Task", named: str, how: ModelOptions) -> tuple["Task", "PreTrainedModel"]:
    """A task's model on a checkpoint; the random numbers of a new head are taken from nobody."""
    import torch

    with torch.random.fork_rng(devices=[]), quiet_transformers():
        opened, built = task.build(named, how)
    return opened, built.model


def _how(pipe: "Pipeline", revision: str | None, heads: Collection[str]) -> ModelOptions:
    """How to open a checkpoint as the pipeline has it."""
    attention = "eager" if pipe.model.config._attn_implementation == "eager" else "sdpa"
    dtype: Any = str(pipe.model.dtype).removeprefix("torch.")
    return ModelOptions(dtype, "cpu", revision, attention, new_head=_new_head(pipe, heads))  # type: ignore[arg-type]


def _new_head(pipe: "Pipeline", heads: Collection[str]) -> bool:
    """Whether the head outside the body was made new, so that a trained one in the checkpoint is not wanted."""
    body = {id(parameter) for parameter in pipe.model.base_model.parameters()} if pipe.model.base_model is not pipe.model else set()
    outside = {name for name, parameter in pipe.model.named_parameters() if id(parameter) not in body}
    origins = {parameter.name: parameter.origin for parameter in pipe.provenance.parameters}
    return any(origins[name] is Origin.NEW for name in outside if lies_in(name, heads))


def _saved(model: "PreTrainedModel") -> "dict[str, torch.Tensor]":
    """The weights that go into the file, under peft's names for them."""
    adapters, heads = adapter_parameters(model), head_modules(model)
    chosen = {name: weight for name, weight in model.named_parameters() if name in adapters or lies_in(name, heads)}
    return {_PREFIX + _without_adapter(name): weight for name, weight in chosen.items()}


def _without_adapter(name: str) -> str:
    """peft leaves its name of the adapter out of the file, and `.weight` after the magnitudes of DoRA."""
    plain = name.replace(f".{ADAPTER}", "")
    return plain.removesuffix(".weight") if "lora_magnitude_vector" in plain else plain


def _folder(named: str) -> Path | None:
    """The absolute folder behind the name of a checkpoint; None for an embedded one and for a name on the Hub."""
    where = os.path.abspath(os.path.expanduser(named))
    return Path(where) if named not in EMBEDDED and os.path.isdir(where) else None


def _way(base: Path | None, target: Path) -> str | None:
    """The way from the folder of adapters to that of their checkpoint, with slashes; None where there is none."""
    try:
        return None if base is None else Path(os.path.relpath(base, target)).as_posix()
    except ValueError:  # another drive
        return None


def _found(folder: Path, under: Mapping[str, Any], base: str | os.PathLike[str] | None) -> str:
    """The name under which the checkpoint is opened. Raises CheckpointError where its folder is not where it was."""
    if base is not None:
        return os.fspath(base)
    if under["folder"] is None:
        return str(under["name"])
    where = Path(os.path.normpath(folder / str(under["folder"])))
    if not where.is_dir():
        problem = f"the adapters belong on the checkpoint {under['name']!r}, and there is no folder {str(where)!r}"
        cure = f"pellucid.load({folder.name!r}, base=…) names the folder where the checkpoint is as it was."
        raise CheckpointError(problem, place=str(folder), cure=cure)
    return str(resolve(where))
