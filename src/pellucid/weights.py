"""Tensors and plain values in one safetensors file, in and out, without pickle.

Takes a module, or a mapping of tensors and plain values (an optimizer's state). Gives one file, and the same values back, checked by name.
Knows nothing of tasks, tokenizers or folders.

The file is a safetensors file that any reader opens; what is no tensor is JSON in its metadata, under "pellucid".
"""

import base64
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import CheckpointError, SettingError, StorageError
from pellucid.files import atomic_file, read_prefix

if TYPE_CHECKING:
    import torch

FORMAT = 1  # of the JSON in the metadata
_HEADER_LIMIT = 100_000_000  # what safetensors itself allows
_DEPTH = 64
_MARK = "$"  # the key of a JSON object that stands for something JSON has not
_WHOLE_COPY = "Take a whole copy of the file, or save again."

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # tensor name → dtype as safetensors calls it, shape


def save_weights(model: "torch.nn.Module", path: str | os.PathLike[str]) -> None:
    """Write the weights and buffers of `model` to one safetensors file; weights that are shared are stored once. Raises StorageError."""
    tensors, aliases = _unique(model.state_dict())
    _write(path, tensors, "weights", {"aliases": aliases})


def load_weights(model: "torch.nn.Module", path: str | os.PathLike[str]) -> None:
    """Put weights that `save_weights` wrote into `model`, in place: the same names, shapes and dtypes, all finite, or nothing is changed.

    Raises CheckpointError that names what does not fit, StorageError where the file cannot be read.
    """
    tensors, extra = _read(path, "weights")
    aliases = extra.get("aliases", {})
    if not isinstance(aliases, dict) or not set(aliases.values()) <= set(tensors):
        raise CheckpointError("its list of shared weights names weights that are not there", place=str(path), cure=_WHOLE_COPY)
    state = {**tensors, **{name: tensors[first] for name, first in aliases.items()}}
    compare(shapes_of(model.state_dict()), shapes_of(state), place=str(path))
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    check_finite(((name, state[name]) for name in state if name in parameters), place=str(path))
    model.load_state_dict(state, strict=True)


def save_state(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write nested mappings, lists and tuples of tensors, numpy arrays and plain values (numbers, texts, bytes, booleans, None).

    Raises SettingError that names the first value of another kind, StorageError.
    """
    tensors: dict[str, Any] = {}
    seen: dict[int, str] = {}
    tree = _pack(state, "state", _Packer(tensors, seen).pack, 0)
    _write(path, tensors, "state", {"state": tree})


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_state` wrote, equal in types and values; tensors come on the CPU.

    Raises CheckpointError where the file is not what `save_state` writes, StorageError where it cannot be read.
    """
    tensors, extra = _read(path, "state")
    try:
        state = _unpack(extra["state"], tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"its JSON is not a saved state ({error!r})", place=str(path), cure=_WHOLE_COPY) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"it holds a {type(state).__name__}, not a mapping", place=str(path), cure=_WHOLE_COPY)
    return state


def header_of(path: str | os.PathLike[str]) -> Shapes:
    """The names, dtypes and shapes in a safetensors file, from its first bytes alone. Raises CheckpointError, StorageError."""
    start = read_prefix(path, 8)
    length = int.from_bytes(start, "little") if len(start) == 8 else _HEADER_LIMIT + 1
    if length > _HEADER_LIMIT:
        raise CheckpointError("it is no safetensors file: its header has no sensible length", place=str(path), cure=_WHOLE_COPY)
    raw = read_prefix(path, 8 + length)[8:]
    try:
        header = json.loads(raw)
        return {
            name: (str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its safetensors header cannot be read ({error})", place=str(path), cure=_WHOLE_COPY) from error


def shapes_of(state: "Mapping[str, torch.Tensor]") -> Shapes:
    """The names, dtypes and shapes of tensors."""
    return {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in state.items()}


def compare(expected: Shapes, found: Shapes, *, place: str) -> None:
    """Check that two sets of weights have the same names, shapes and dtypes. Raises CheckpointError that names the first differences."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if missing and extra:
        problem = f"weights are renamed: {_few(missing)} missing, {_few(extra)} unknown"
    elif missing:
        problem = f"weights are missing: {_few(missing)}"
    elif extra:
        problem = f"weights are there that nothing uses: {_few(extra)}"
    else:
        other = [name for name in expected if tuple(expected[name]) != tuple(found[name])]
        if not other:
            return
        name = other[0]
        (dtype, shape), (found_dtype, found_shape) = expected[name], found[name]
        problem = f"weight {name!r} is {found_dtype} {list(found_shape)}, expected {dtype} {list(shape)} ({len(other)} differ)"
    raise CheckpointError(problem, place=place, cure="Take the weights that belong to this model, or a whole copy of the file.")


def check_finite(tensors: "Iterable[tuple[str, torch.Tensor]]", *, place: str) -> None:
    """Check that every floating-point tensor holds only numbers. Raises CheckpointError that names the first that does not."""
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        finite = (tensor.float() if tensor.element_size() == 1 else tensor).isfinite()  # float8 has no isfinite of its own
        if not bool(finite.all()):
            count = int((~finite).sum())
            raise CheckpointError(
                f"weight {name!r} holds {count:,} values that are NaN or infinite, of {tensor.numel():,}",
                place=place,
                cure="The training diverged or the file is damaged: go back to an earlier save, and train with a lower learning rate.",
            )


def _write(path: str | os.PathLike[str], tensors: "dict[str, torch.Tensor]", kind: str, extra: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    text = json.dumps({"kind": kind, "format": FORMAT, **extra}, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as fresh:
        try:
            save_file(tensors, fresh, metadata={"format": "pt", "pellucid": text})
        except SafetensorError as error:
            raise write_error(error, str(path)) from error


def write_error(error: Exception, place: str) -> StorageError:
    """The StorageError for what safetensors says when it cannot write."""
    number = re.search(r"os error (\d{1,4})", str(error))
    what = os.strerror(int(number[1])) if number else str(error)
    return StorageError(
        f"the weights could not be written ({what}); nothing is half-written",
        place=place,
        cure="Free some space or choose another disk.",
    )


def _read(path: str | os.PathLike[str], kind: str) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """Every tensor, copied out of the file so that the file may be replaced, and the JSON beside them."""
    from safetensors import SafetensorError, safe_open

    header_of(path)  # a pipe, a device or another format is refused before the file is mapped into memory
    try:
        with safe_open(path, framework="pt") as file:
            extra = json.loads((file.metadata() or {}).get("pellucid", "null"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the file is damaged ({error})", place=str(path), cure=_WHOLE_COPY) from error
    except OSError as error:
        raise StorageError(f"the file cannot be read: {error}", place=str(path), cure="Check the path and its permissions.") from error
    if not isinstance(extra, dict) or extra.get("kind") != kind:
        other = f"it holds {extra.get('kind')}" if isinstance(extra, dict) else "it was not written by pellucid"
        raise CheckpointError(
            f"expected a file of pellucid's {kind}, and {other}", place=str(path), cure=f"Name a file that save_{kind} wrote."
        )
    if not isinstance(extra.get("format"), int) or extra["format"] > FORMAT:
        raise CheckpointError(
            f"it has format {extra.get('format')}, and this pellucid reads up to {FORMAT}",
            place=str(path),
            cure="Install a newer pellucid.",
        )
    return tensors, extra


def _unique(state: "Mapping[str, torch.Tensor]") -> "tuple[dict[str, torch.Tensor], dict[str, str]]":
    """The tensors without those that are another one's twin (same memory, shape and strides), and which twin each of those has."""
    first: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        known = first.setdefault(place, name) if tensor.numel() else name
        if known == name:
            tensors[name] = _own(tensor)
        else:
            aliases[name] = known
    return tensors, aliases


def _own(tensor: "torch.Tensor") -> "torch.Tensor":
    """The tensor alone in contiguous memory on the CPU: views of larger ones are copied."""
    tensor = tensor.detach().cpu().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


class _Packer:
    """Collects the tensors of a state; one that occurs twice is stored once."""

    def __init__(self, tensors: dict[str, Any], seen: dict[int, str]) -> None:
        self.tensors = tensors
        self.seen = seen

    def pack(self, tensor: "torch.Tensor", kind: str, key: int) -> dict[str, str]:
        name = self.seen.setdefault(key, f"t{len(self.tensors)}")
        self.tensors.setdefault(name, tensor)
        return {_MARK: kind, "name": name}


def _pack(value: object, place: str, store: Callable[..., dict[str, str]], depth: int) -> Any:
    """JSON that stands for `value`; tensors go to `store`."""
    import numpy as np
    import torch

    def inner(part: object, where: object) -> Any:
        return _pack(part, f"{place}[{where!r}]", store, depth + 1)

    if depth > _DEPTH:
        raise SettingError(f"the state is nested more than {_DEPTH} deep", place=place[:200], cure="Save a flatter state.")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, torch.Tensor):
        return store(value.detach().cpu().contiguous().clone(), "tensor", id(value))
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.itemsize <= 8:
        return store(torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C")), "array", id(value))
    if isinstance(value, int | float | np.number | np.bool_):
        plain = value.item() if isinstance(value, np.generic) else value
        return plain if not isinstance(plain, float) or math.isfinite(plain) else {_MARK: "float", "value": repr(plain)}
    if isinstance(value, bytes):
        return {_MARK: "bytes", "value": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key != _MARK for key in value):
            return {key: inner(part, key) for key, part in value.items()}
        return {_MARK: "mapping", "items": [[inner(key, "key"), inner(part, key)] for key, part in value.items()]}
    if isinstance(value, list):
        return [inner(part, index) for index, part in enumerate(value)]
    if isinstance(value, tuple):
        return {_MARK: "tuple", "items": [inner(part, index) for index, part in enumerate(value)]}
    cure = "Save tensors, arrays, numbers, texts, bytes, booleans, None, and lists, tuples and mappings of them."
    raise SettingError(f"a {type(value).__qualname__} cannot be saved without pickle", place=place, cure=cure)


def _unpack(value: Any, tensors: "Mapping[str, torch.Tensor]") -> Any:
    """The value that JSON from `_pack` stands for."""
    if isinstance(value, list):
        return [_unpack(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    match value.get(_MARK):
        case None:
            return {key: _unpack(part, tensors) for key, part in value.items()}
        case "tensor":
            return tensors[value["name"]]
        case "array":
            return tensors[value["name"]].numpy()
        case "float":
            return float(value["value"])
        case "bytes":
            return base64.b64decode(value["value"], validate=True)
        case "tuple":
            return tuple(_unpack(part, tensors) for part in value["items"])
        case "mapping":
            return {_unpack(key, tensors): _unpack(part, tensors) for key, part in value["items"]}
    raise ValueError(f"unknown mark {value[_MARK]!r}")


def _few(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
