"""A look at a checkpoint's folder before anything loads it.

Takes a folder. Gives its config without the keys that could run code or fetch files, and the names, shapes and types of its weights.
Knows nothing of models, labels or tasks.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from pellucid.errors import CheckpointError, PellucidError
from pellucid.files import read_bytes_checked
from pellucid.types import Note

MAX_JSON_BYTES = 64 * 1024 * 1024  # an index of a very large model has some ten megabytes
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")
_WHOLE_COPY = "Take a whole copy of the folder, as save_pretrained wrote it."
_CODE_KEYS = frozenset({"trust_remote_code", "auto_map", "custom_pipelines"})
_ATTENTION_KEYS = frozenset({"attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"})
_COUNT = re.compile(r"(layers?|experts|heads|groups|blocks)$|^n_(layer|head)s?$")
_SIZE = re.compile(
    r"(_size|_dim|_positions?|_position_embeddings|_embd|d_model|d_ff|d_inner|d_kv)$|^(dim|d_model|d_ff|d_inner|d_kv|n_positions)$"
)
_MOST_OF_A_COUNT, _LARGEST_SIZE, _MOST_LABELS = 1024, 100_000_000, 100_000


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor in a file: its type as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def floating(self) -> bool:
        """Whether it is a float of 16 bits or more."""
        return self.dtype in _FLOATS


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight files of a checkpoint and every tensor in them, by name."""

    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]

    @property
    def numbers(self) -> int:
        """How many numbers the files hold."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def half(self) -> str | None:
        """The 16-bit type that most of the numbers have, where that is so."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + prod(tensor.shape)
        most = max(counts, key=lambda dtype: counts[dtype], default="")
        return {"F16": "float16", "BF16": "bfloat16"}.get(most)


def read_config(folder: Path) -> tuple[dict[str, Any], tuple[Note, ...]]:
    """The config of a checkpoint, stripped of keys that could run code, and what was stripped. Raises CheckpointError."""
    place = folder / "config.json"
    if (folder / "adapter_config.json").exists():
        cure = (
            "Open one that pellucid saved with pellucid.load; merge others into their base model (peft: merge_and_unload), and save that."
        )
        raise CheckpointError("the folder holds an adapter, expected a whole model", place=str(folder), cure=cure)
    config = _json_object(place)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError("no model_type, so the architecture is unknown", place=str(place), cure=_WHOLE_COPY)
    if config.get("quantization_config") is not None:
        cure = "Use the checkpoint that it was made from."
        raise CheckpointError("the weights are quantized; they cannot be trained or checked", place=str(place), cure=cure)
    stripped: list[str] = []
    clean = _clean(config, str(place), stripped)
    if not stripped:
        return clean, ()
    why = "a config must not decide what code runs or which kernels are fetched"
    return clean, (Note(f"config keys ignored: {', '.join(sorted(set(stripped)))}", why),)


def read_weights(folder: Path) -> Weights:
    """Every tensor in the safetensors files of a folder, from their headers alone. Raises CheckpointError; never reads a pickle."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.exists():
        wanted: dict[str, str] | None = None
        files: tuple[Path, ...] = (single,)
    elif index.exists():
        wanted = _weight_map(index)
        files = tuple(folder / name for name in sorted(set(wanted.values())))
    else:
        _no_weights(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        _check_file(file, folder)
        for name, tensor in _header(file):
            if name in tensors:
                raise CheckpointError(f"tensor {name!r} is in two files", place=str(file), cure=_WHOLE_COPY)
            if wanted is not None and wanted.get(name) != file.name:
                came = wanted.get(name, "no file")
                raise CheckpointError(f"tensor {name!r} is here, but the index says {came}", place=str(file), cure=_WHOLE_COPY)
            if name.endswith(".weight") and not tensor.floating:
                cure = "Use the checkpoint in float32, float16 or bfloat16 that it was made from."
                raise CheckpointError(f"tensor {name!r} is {tensor.dtype}, expected a float of 16 bits or more", place=str(file), cure=cure)
            tensors[name] = tensor
    lost = sorted(set(wanted or ()) - set(tensors))
    if lost:
        raise CheckpointError(f"the index names {lost[0]!r}, but no file holds it ({len(lost)} such)", place=str(index), cure=_WHOLE_COPY)
    if not tensors:
        raise CheckpointError("there is no tensor in it", place=str(files[0]), cure=_WHOLE_COPY)
    return Weights(files, tensors)


def check_label_names(config: Mapping[str, Any], place: str) -> None:
    """Whether num_labels, id2label and label2id of a config say the same. Raises CheckpointError."""
    names, numbers, count = config.get("id2label"), config.get("label2id"), config.get("num_labels")
    cure = "Mend the config, or drop the trained head: ModelOptions(new_head=True)."
    if names is None:
        return
    if not isinstance(names, dict) or sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        raise CheckpointError("id2label does not number its labels 0, 1, 2, …", place=place, cure=cure)
    if len(set(map(str, names.values()))) != len(names):
        raise CheckpointError("two classes in id2label have one name", place=place, cure=cure)
    if count is not None and count != len(names):
        raise CheckpointError(f"num_labels is {count}, but id2label names {len(names)}", place=place, cure=cure)
    if numbers is None:
        return
    wrong = [name for index, name in names.items() if not isinstance(numbers, dict) or str(numbers.get(name)) != str(index)]
    if wrong or len(numbers) != len(names):
        raise CheckpointError(f"label2id is not id2label turned round (label {(wrong or list(numbers))[0]!r:.80})", place=place, cure=cure)


def _json_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        cure = "Give a folder that save_pretrained wrote: config.json, model.safetensors, tokenizer.json."
        raise CheckpointError(f"there is no {path.name}", place=str(path.parent), cure=cure)
    try:
        value = json.loads(read_bytes_checked(path, max_bytes=MAX_JSON_BYTES), object_pairs_hook=_no_duplicates, parse_constant=_no_nan)
    except PellucidError as error:  # too large, a pipe, a device, not readable
        raise CheckpointError(error.problem, place=str(path), cure=_WHOLE_COPY) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise CheckpointError(f"expected JSON: {reason}", place=str(path), cure=_WHOLE_COPY) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"expected a JSON object, came {type(value).__name__}", place=str(path), cure=_WHOLE_COPY)
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return value


def _no_nan(constant: str) -> float:
    if constant == "NaN":
        raise ValueError("NaN is no setting")
    return float(constant)  # the infinities occur in honest configs


def _clean(value: Mapping[str, Any], place: str, stripped: list[str]) -> dict[str, Any]:
    """The config without private and dangerous keys, all levels down."""
    clean: dict[str, Any] = {}
    for key, entry in value.items():
        if key.endswith("_implementation_internal") or (key in _ATTENTION_KEYS and "/" in str(entry)):
            problem = f"the key {key!r} would fetch code from the Hub ({entry!r:.80})"
            raise CheckpointError(problem, place=place, cure="Do not use this checkpoint; tell who published it.")
        if key in _CODE_KEYS or key in _ATTENTION_KEYS or key == "transformers_weights":
            stripped.append(key)
        elif not key.startswith("_"):
            _check_size(key, entry, place)
            names = key in ("id2label", "label2id")  # a label may be called anything
            clean[key] = _clean(entry, place, stripped) if isinstance(entry, dict) and not names else entry
    return clean


def _check_size(key: str, value: object, place: str) -> None:
    """Refuse what could only be a mistake or a memory bomb, before anything is allocated."""
    if isinstance(value, dict) and key in ("id2label", "label2id") and len(value) > _MOST_LABELS:
        raise CheckpointError(f"{key} has {len(value):,} entries, expected at most {_MOST_LABELS:,}", place=place, cure=_WHOLE_COPY)
    if isinstance(value, bool) or not isinstance(value, int):
        return
    if key == "num_labels":
        least, most = 0, _MOST_LABELS
    elif key == "vocab_size":
        least, most = 1, _LARGEST_SIZE
    elif _COUNT.search(key):
        least, most = -1, _MOST_OF_A_COUNT
    elif _SIZE.search(key):
        least, most = -1, _LARGEST_SIZE
    else:
        return
    if not least <= value <= most:
        raise CheckpointError(f"{key} is {value:,}, expected {max(least, 0)} to {most:,}", place=place, cure=_WHOLE_COPY)


def _weight_map(index: Path) -> dict[str, str]:
    found = _json_object(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError("expected a weight_map from tensor names to files, found none", place=str(index), cure=_WHOLE_COPY)
    for name, file in found.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            problem = f"the weight_map leads {name!r} to {file!r:.120}, expected a .safetensors file of this folder"
            raise CheckpointError(problem, place=str(index), cure="Do not use this checkpoint; tell who published it.")
    return found


def _check_file(file: Path, folder: Path) -> None:
    if not file.exists():
        raise CheckpointError("the index names this file, but it is not there", place=str(file), cure=_WHOLE_COPY)
    if not file.is_file():
        raise CheckpointError("expected a regular file", place=str(file), cure=_WHOLE_COPY)
    home, target = folder.resolve(), file.resolve()
    blobs = home.parent.parent / "blobs"  # where the cache of the Hub keeps the files that its snapshots link to
    if not target.is_relative_to(home) and not target.is_relative_to(blobs):
        raise CheckpointError(
            f"it is a link that leads out of the folder, to {target}", place=str(file), cure="Copy the file into the folder."
        )


def _header(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Names, types and shapes from the header; safetensors checks that it fits the size of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # the handle is no mapping
                part = opened.get_slice(name)
                yield name, Tensor(str(part.get_dtype()), tuple(part.get_shape()))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"not a whole safetensors file: {error}", place=str(file), cure=_WHOLE_COPY) from error


def _no_weights(folder: Path) -> NoReturn:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"the weights are only there as {pickles[0]}, a format that can run code when it is loaded",
            place=str(folder),
            cure="Ask who published it for model.safetensors, or convert it with transformers on a machine that may be lost.",
        )
    raise CheckpointError("there is no model.safetensors", place=str(folder), cure=_WHOLE_COPY)
