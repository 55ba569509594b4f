"""The list of what belongs in a folder, with sizes and checksums, in `pellucid.json` beside the files.

Takes a folder that has been filled, and plain JSON values to keep with it. Gives the manifest, and CheckpointError for any file that is
not as it was written. Knows nothing of what the files mean.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pellucid.errors import CheckpointError, StorageError
from pellucid.files import read_bytes_checked, sha256_of, write_json

MANIFEST = "pellucid.json"
FORMAT = 1
_LIMIT = 64 << 20  # bytes of JSON
_WHOLE_COPY = "Take a whole copy of the folder, or save again with pellucid.save."
# What a loader would read, run or unpickle. Other files beside a save (README.md, a picture) are the user's own.
_ACTIVE_SUFFIXES = frozenset(
    """.bin .pt .pt2 .pth .pkl .pickle .ckpt .joblib .h5 .msgpack .npy .npz .gguf .onnx .safetensors
    .json .jinja .model .spm .tiktoken .py .pyc .so .dll .dylib .zip .tar""".split()
)
_ACTIVE_NAMES = frozenset(["vocab.txt", "merges.txt", "vocab", "bpe.codes"])
_FOREIGN_FOLDERS = frozenset([".git", ".cache"])  # of git, and of the Hub's client


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """List every file of `folder` with size and SHA-256 beside `content`, in `pellucid.json`. Raises StorageError."""
    names = sorted(name for name in _names(folder) if name != MANIFEST)
    _write(folder, {"format": FORMAT, **content, "files": {name: _entry(folder / name) for name in names}})


def list_also(folder: Path, name: str) -> None:
    """List one more file of `folder`, that came after `write_manifest`. Raises CheckpointError, StorageError."""
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "checksum"}
    files = {**manifest["files"], name: _entry(folder / name)}
    _write(folder, {**manifest, "files": dict(sorted(files.items()))})


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote: readable, of a known format, unchanged. The files are checked by `verify`.

    Raises CheckpointError, and StorageError where it cannot be read.
    """
    place = str(folder / MANIFEST)
    if not os.path.lexists(folder / MANIFEST):
        raise CheckpointError(
            f"there is no {MANIFEST}, so this is no folder that pellucid saved",
            place=str(folder),
            cure="For a plain transformers folder use pellucid.Pipeline.new(task, folder).",
        )
    manifest = parse_json(read_bytes_checked(folder / MANIFEST, max_bytes=_LIMIT), place)
    if not isinstance(manifest, dict):
        raise CheckpointError(f"expected a JSON object, found {type(manifest).__name__}", place=place, cure=_WHOLE_COPY)
    found = manifest.get("format")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise CheckpointError(f"its format is {found!r}, expected a number from 1 to {FORMAT}", place=place, cure=_WHOLE_COPY)
    if found > FORMAT:
        cure = "Install a newer pellucid: pip install --upgrade pellucid."
        raise CheckpointError(f"it was saved in format {found} by a newer pellucid, this one reads up to {FORMAT}", place=place, cure=cure)
    if manifest.get("checksum") != _checksum({key: value for key, value in manifest.items() if key != "checksum"}):
        raise CheckpointError("it was changed after it was saved: its checksum is another one", place=place, cure=_WHOLE_COPY)
    return manifest


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check that every listed file is there, of its size and content, and that nothing beside them would be loaded too.

    Raises CheckpointError that names the file.
    """
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise CheckpointError("it lists no files", place=str(folder / MANIFEST), cure=_WHOLE_COPY)
    for name, entry in files.items():
        _check_name(name, folder)
        _check_file(folder / name, entry)
    for name in unlisted(folder, manifest):
        if is_active(name):
            raise CheckpointError(
                f"the file {name!r} is not in the list of {MANIFEST}, and a loader might read or run it",
                place=str(folder),
                cure="Remove it, or keep it outside this folder.",
            )


def unlisted(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The files in `folder` that the manifest does not list; those of git and of the Hub's client apart."""
    return sorted(set(_names(folder)) - set(manifest.get("files", {})) - {MANIFEST})


def is_active(name: str) -> bool:
    """Whether a loader might read, run or unpickle a file of this name."""
    last = PurePosixPath(name).name.lower()
    return last in _ACTIVE_NAMES or bool(_ACTIVE_SUFFIXES & set(PurePosixPath(last).suffixes)) or last in _ACTIVE_SUFFIXES


def parse_json(raw: bytes, place: str) -> Any:
    """Strict JSON: UTF-8, no key twice, no NaN, not nested without end. Raises CheckpointError that says what is wrong."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key occurs twice in one object")
        return found

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON number")

    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise CheckpointError("its JSON is nested too deep", place=place, cure=_WHOLE_COPY) from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise CheckpointError(f"it is no valid JSON ({error})", place=place, cure=_WHOLE_COPY) from error


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest with its checksum."""
    write_json(folder / MANIFEST, {**manifest, "checksum": _checksum(manifest)})


def _entry(path: Path) -> dict[str, Any]:
    """What is listed of one file."""
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def _check_name(name: str, folder: Path) -> None:
    """Refuse a listed name that leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise CheckpointError(f"it lists {name!r}, which is outside the folder", place=str(folder / MANIFEST), cure=_WHOLE_COPY)


def _check_file(path: Path, entry: Any) -> None:
    """Compare one file with its line in the manifest."""
    expected = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    try:
        size = path.stat().st_size
        digest = sha256_of(path) if size == expected[0] else ""
    except FileNotFoundError:
        raise CheckpointError("the file is missing", place=str(path), cure=_WHOLE_COPY) from None
    except StorageError as error:
        raise CheckpointError(f"the file cannot be checked: {error.problem}", place=str(path), cure=_WHOLE_COPY) from error
    if size != expected[0]:
        raise CheckpointError(f"the file has {size:,} bytes, and {expected[0]:,} were saved", place=str(path), cure=_WHOLE_COPY)
    if digest != expected[1]:
        raise CheckpointError("the content was changed after it was saved: its SHA-256 is another one", place=str(path), cure=_WHOLE_COPY)


def _names(folder: Path) -> list[str]:
    """Every file below `folder` (and every link), as a path with slashes."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _FOREIGN_FOLDERS]
        linked = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found += [(Path(root) / name).relative_to(folder).as_posix() for name in (*names, *linked)]
    return found


def _checksum(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 of the manifest in one canonical spelling."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
