"""A pipeline as a folder: a plain transformers folder that also says what it is and whether it is whole.

Takes a pipeline and a folder. Gives the folder, or the same pipeline from it, verified file by file and answer by answer.
Knows nothing of rows, training or the Hub.

    config.json  model.safetensors          the model, as transformers writes it
    tokenizer.json  tokenizer_config.json   the tokenizer, as transformers writes it
    pellucid.json                           the task and its settings, token options, where the weights come from, notes, versions,
                                            three golden examples, and the size and SHA-256 of every file

A pipeline that carries adapters is kept without its body: peft's `adapter_model.safetensors` and `adapter_config.json` take the place of
the model's two files, and `load` puts them on the checkpoint that they belong on.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.adapter_files import open_adapters, write_adapters
from pellucid.adapter_layers import has_adapters
from pellucid.errors import CheckpointError, SettingError, StorageError
from pellucid.files import atomic_folder, copy_file, read_bytes_checked, recover, write_json
from pellucid.manifest import MANIFEST, is_active, parse_json, read_manifest, unlisted, verify, write_manifest
from pellucid.pipelines import Pipeline
from pellucid.process import quiet_transformers
from pellucid.task import Task, settings_of, task_from
from pellucid.tasks import task_class
from pellucid.tokens import TokenOptions, load_tokenizer
from pellucid.types import Note
from pellucid.weights import check_finite, compare, header_of, write_error

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pellucid.types import FloatArray
    from pellucid.weights import Shapes

GOLDEN_TEXTS = (
    "A warm, funny and wonderful film.",
    "Crème brûlée costs 12.50 €; naïve readers don’t care 🙂",
    "[SEP] <s> ##ing  two  spaces, UPPER lower, and an unusuallylongcompoundedword",
)
_GOLDEN_PARAMETERS = 500_000_000  # larger models keep golden ids but no logits: a forward pass would slow every save and load
_GOLDEN_LOGITS = 20_000
_TRIES = 5


def save(pipe: Pipeline, folder: str | os.PathLike[str], *, overwrite: bool = True) -> Path:
    """Write `pipe` to `folder`, whole or not at all, and give the folder back; an earlier save there is replaced in one step.

    Documents that you put beside an earlier save (README.md) are kept. Raises StorageError where the folder cannot be written or holds
    something else, CheckpointError for weights that are not numbers, SettingError for a task that `load` would not find.
    """
    target = Path(os.path.abspath(folder))
    _documents(target)
    if task_class(pipe.task.tag) is not type(pipe.task):
        cure = 'Register the class under the entry point group "pellucid.tasks", with its tag.'
        raise SettingError(f"{type(pipe.task).__name__} is not the task behind the tag {pipe.task.tag!r}", place="pipe.task", cure=cure)
    check_finite(pipe.model.named_parameters(), place="pipe.model")
    content = {**_description(pipe), "golden": golden(pipe)}
    with atomic_folder(target, overwrite=overwrite) as fresh:
        documents = _documents(target)
        weights = _write_parts(pipe, fresh, target)
        write_manifest(fresh, {**content, **weights})
        for name in documents:  # after the manifest: they stay the user's, to be changed at will
            copy_file(target / name, fresh / name)
    return target


def load(folder: str | os.PathLike[str], *, device: str = "auto", base: str | os.PathLike[str] | None = None) -> Pipeline:
    """The pipeline that `save` wrote: every file, weight and golden answer is checked, nothing is unpickled, nothing is guessed.

    `base` says where the checkpoint of saved adapters is, where it is no longer where it was; it must be the same to the bit.
    Raises CheckpointError that names what is missing, changed or unknown, StorageError where a file cannot be read.
    """
    target = Path(os.path.abspath(folder))
    for _ in range(_TRIES):
        recover(target)
        if not target.is_dir():
            what = "it is a file, not a folder" if target.exists() else "there is no such folder"
            raise CheckpointError(what, place=str(target), cure="Name a folder that pellucid.save wrote.")
        before = _identity(target)
        try:
            pipe = _load(target, read_manifest(target), device, base)
        except Exception:
            if _identity(target) == before:
                raise
            continue  # a save took the folder's place while it was read
        if _identity(target) == before:
            return pipe
    raise StorageError(f"the folder was replaced {_TRIES} times while it was read", place=str(target), cure="Wait until the saving ends.")


def golden(pipe: Pipeline) -> dict[str, Any]:
    """Three fixed texts with the token ids and, for models that are not huge, the logits that they give today."""
    columns = _golden_columns(GOLDEN_TEXTS, pipe.task.reads)
    table = pipe.task.encode(pipe.tokenizer, columns, None, _cut(pipe.options))
    found: dict[str, Any] = {"texts": list(GOLDEN_TEXTS), "ids": [table.ids_of(window).tolist() for window in range(len(table))]}
    if pipe.provenance.total <= _GOLDEN_PARAMETERS:
        logits = np.asarray(pipe.run(pipe.collate(table, np.arange(len(table)))).logits, dtype=np.float64)
        if not np.isfinite(logits).all():
            cure = "Look at pipe.trace of this text; train again with a lower learning rate."
            raise CheckpointError(f"the logits of {GOLDEN_TEXTS[0]!r} are not finite", place="pipe.model", cure=cure)
        found |= {"logits": _sample(logits).tolist(), "dtype": str(pipe.model.dtype), "device": pipe.model.device.type}
    return found


def check_golden(pipe: Pipeline, expected: Mapping[str, Any], *, place: str) -> None:
    """Check that the golden texts still give the same ids, and logits within 1e-4 (more between devices and for half precision).

    Raises CheckpointError that says which text differs.
    """
    columns = _golden_columns(expected["texts"], pipe.task.reads)
    table = pipe.task.encode(pipe.tokenizer, columns, None, _cut(pipe.options))
    for window, ids in enumerate(expected["ids"]):
        if window >= len(table) or table.ids_of(window).tolist() != ids:
            text = expected["texts"][min(window, len(expected["texts"]) - 1)]
            cure = "Install the versions that are listed under 'versions' in pellucid.json, or save again from the source."
            raise CheckpointError(f"the tokenizer no longer gives the same ids for {text!r}", place=place, cure=cure)
    if "logits" not in expected:
        return
    logits = _sample(np.asarray(pipe.run(pipe.collate(table, np.arange(len(table)))).logits, dtype=np.float64))
    before = np.asarray(expected["logits"], dtype=np.float64)
    allowed = _tolerance(pipe, expected)
    apart = float(np.abs(logits - before).max()) if logits.shape == before.shape else float("inf")
    if not apart <= allowed * max(1.0, float(np.abs(before).max(initial=0.0))):
        raise CheckpointError(
            f"the model no longer gives the same logits for the golden texts: {apart:.3g} apart, {allowed:g} is allowed",
            place=place,
            cure="Install the versions that are listed under 'versions' in pellucid.json, or save again from the source.",
        )


def _load(folder: Path, manifest: Mapping[str, Any], device: str, base: str | os.PathLike[str] | None) -> Pipeline:
    """One reading of the folder; the caller checks that it was not replaced meanwhile."""
    from pellucid.model import set_pad_token
    from pellucid.provenance import Provenance

    place = str(folder)
    try:
        recorded = {name: (str(dtype), tuple(shape)) for name, (dtype, shape) in manifest["weights"].items()}
        task = task_from(task_class(manifest["task"]["tag"]), manifest["task"]["settings"])
        options = TokenOptions.from_settings({**manifest["tokens"]})
        notes = tuple(Note(**note) for note in manifest["notes"])
        provenance = Provenance.from_json(manifest["provenance"])
        attention, checkpoint, examples = manifest["attention"], str(manifest["checkpoint"]), _examples(manifest["golden"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        cure = "Save again with pellucid.save."
        raise CheckpointError(f"a part of it is missing or of another kind ({error!r})", place=str(folder / MANIFEST), cure=cure) from error
    if _weight_files(folder):
        compare(recorded, _headers(folder), place=place)  # before the checksums: this one names the weight
    verify(folder, manifest)
    tokenizer, _ = load_tokenizer(place)
    if "adapters" in manifest:
        built_task, model = open_adapters(folder, manifest["adapters"], task, device=device, attention=attention, base=base)
        set_pad_token(model, tokenizer.pad_token_id)
    else:
        built_task, model = _whole(place, task, device, attention)
    if settings_of(built_task) != settings_of(task):
        raise CheckpointError("config.json does not fit the task's settings", place=place, cure="Take a whole copy of the folder.")
    pipe = Pipeline(built_task, tokenizer, model, options, provenance, checkpoint, notes)
    check_finite(pipe.model.named_parameters(), place=place)
    check_golden(pipe, examples, place=place)
    return pipe


def _whole(place: str, task: Task, device: str, attention: Any) -> tuple[Task, "PreTrainedModel"]:
    """The model of a folder that holds all of it. Raises CheckpointError where a weight is not in the file."""
    from pellucid.model import ModelOptions

    built_task, built = task.build(place, ModelOptions(device=device, dtype="auto", attention=attention))
    unknown = sorted(built.provenance.new_names())
    if unknown:
        cure = "Take a whole copy of the folder."
        raise CheckpointError(f"the weight {unknown[0]!r} was not in the file ({len(unknown)} in all)", place=place, cure=cure)
    return built_task, built.model


def _write_parts(pipe: Pipeline, folder: Path, target: Path) -> dict[str, Any]:
    """Write the tokenizer, and the model or its adapters; gives what the manifest must say of the weights."""
    record: dict[str, Any] = {}
    if has_adapters(pipe.model):
        with quiet_transformers():
            pipe.tokenizer.save_pretrained(folder)
        record["adapters"] = write_adapters(pipe, folder, target)
    else:
        _write_model(pipe, folder)
    record["weights"] = {name: [dtype, list(shape)] for name, (dtype, shape) in _headers(folder).items()}
    return record


def _write_model(pipe: Pipeline, folder: Path) -> None:
    """The model and the tokenizer as transformers writes them, the class names as the task has them."""
    from safetensors import SafetensorError

    config_of_model: Any = pipe.model.config
    architectures = config_of_model.architectures
    try:
        with quiet_transformers():
            pipe.model.save_pretrained(folder)
            pipe.tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        raise write_error(error, str(folder)) from error
    finally:
        config_of_model.architectures = architectures  # save_pretrained sets it; saving must not change the pipeline
    config = parse_json(read_bytes_checked(folder / "config.json", max_bytes=16 << 20), str(folder / "config.json"))
    names = pipe.task.outputs
    if names and len(names) == pipe.model.config.num_labels:
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
        write_json(folder / "config.json", config)


def _description(pipe: Pipeline) -> dict[str, Any]:
    """What pellucid.json says beside the golden examples and the files."""
    provenance = dict(pipe.provenance.to_json())
    return {
        "task": {"tag": pipe.task.tag, "settings": settings_of(pipe.task)},
        "labels": list(getattr(pipe.task, "labels", ())),
        "tokens": dict(pipe.options.settings()),
        "attention": getattr(pipe.model.config, "_attn_implementation", None) or "sdpa",
        "checkpoint": _public_name(pipe.checkpoint),
        "provenance": {**provenance, "checkpoint": _public_name(str(provenance.get("checkpoint", "")))},
        "notes": [asdict(note) for note in pipe.notes],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


_PACKAGES = ("pellucid", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def _documents(target: Path) -> list[str]:
    """The user's documents beside an earlier save, to be kept. Raises StorageError where the folder is anything but an earlier save."""
    if not target.is_dir() or not any(target.iterdir()):
        return []
    cure = "Choose another folder, or remove this one yourself."
    try:
        manifest = read_manifest(target)
    except CheckpointError as error:
        problem = f"saving would replace a folder that pellucid cannot recognise ({error.problem})"
        raise StorageError(problem, place=str(target), cure=cure) from error
    foreign = unlisted(target, manifest)
    folders = sorted(
        path.name for path in target.iterdir() if path.is_dir() and not any(n.startswith(path.name + "/") for n in manifest["files"])
    )
    blocked = [name for name in foreign if is_active(name) or "/" in name or (target / name).is_symlink()] + folders
    if blocked:
        raise StorageError(f"saving would delete {blocked[0]!r}, which pellucid did not write", place=str(target), cure=cure)
    return foreign


def _headers(folder: Path) -> "Shapes":
    """The weights in all safetensors files of a folder. Raises CheckpointError where two files hold the same weight."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in _weight_files(folder):
        header = header_of(folder / name)
        twice = sorted(set(header) & set(found))
        if twice:
            cure = "Take a whole copy of the folder."
            raise CheckpointError(f"weight {twice[0]!r} is in two files", place=str(folder / name), cure=cure)
        found |= header
    return found


def _weight_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def _examples(value: Any) -> Mapping[str, Any]:
    """Golden examples as they were read, refused where they are of another kind."""
    texts, ids = value["texts"], value["ids"]
    if not (texts and all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for row in ids for number in row)):
        raise TypeError("the golden examples are no texts and ids")
    return {**value, "texts": list(texts), "ids": [list(row) for row in ids]}


def _cut(options: TokenOptions) -> TokenOptions:
    """One window a text, however long it is: a golden text as the first of a pair may leave a small window no room for the second."""
    return replace(options, long=None)


def _sample(logits: "FloatArray") -> "FloatArray":
    """All logits where there are few, else some of each position, spread over the vocabulary."""
    if logits.size <= _GOLDEN_LOGITS:
        return logits
    step = -(-logits.size // _GOLDEN_LOGITS)
    return logits.reshape(-1)[:: step + 1 - step % 2]  # an odd step, so that not one part of the vocabulary is seen alone


def _golden_columns(texts: Sequence[str], reads: Sequence[str]) -> dict[str, list[str]]:
    """The texts in the first column, shifted by one in the second, and so on."""
    return {name: [*texts[shift:], *texts[:shift]] for shift, name in enumerate(reads)}


def _tolerance(pipe: Pipeline, expected: Mapping[str, Any]) -> float:
    """How far logits may be apart: float32 on the same kind of device 1e-4; half precision and other devices round otherwise."""
    by_dtype = {"torch.float32": 1e-4, "torch.float64": 1e-4, "torch.float16": 1e-2}.get(str(pipe.model.dtype), 8e-2)
    return by_dtype if expected.get("device") == pipe.model.device.type else max(by_dtype, 1e-2)


def _public_name(checkpoint: str) -> str:
    """The name of a checkpoint without the path on this machine."""
    return Path(checkpoint).name if os.path.isabs(checkpoint) else checkpoint


def _identity(folder: Path) -> tuple[int, ...]:
    """What tells a folder from the one that takes its place: a save never changes a folder, it makes another."""
    try:
        found = folder.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
