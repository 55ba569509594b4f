"""Which checkpoints on this machine fit a task, for those who have no network.

Takes the endings of the architectures that fit, and the tag of a task. Gives names of folders, and of repositories in the cache of the Hub.
Knows nothing of what a task does, and loads nothing: it reads each folder's config.json.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pellucid.errors import StorageError
from pellucid.files import read_bytes_checked
from pellucid.manifest import MANIFEST

MOST_FOLDERS, MOST_BYTES = 200, 4 << 20  # looked at: this must take no time that anybody notices
NLI = "zero-shot-classification"  # whose classes must say entailment


def local_choices(tag: str, heads: Sequence[str]) -> tuple[str, ...]:
    """The embedded checkpoint where a bare body serves, what is in the cache of the Hub, and folders in the working folder."""
    from huggingface_hub import constants

    found = [] if heads else ["minilm"]
    for repository in folders(Path(constants.HF_HUB_CACHE), "models--"):
        if any(fits(snapshot, tag, heads) for snapshot in folders(repository / "snapshots")):
            found.append(repository.name.removeprefix("models--").replace("--", "/"))
    return (*found, *(f"./{folder.name}" for folder in folders(Path()) if fits(folder, tag, heads)))


def folders(parent: Path, prefix: str = "") -> Iterator[Path]:
    """The folders in a folder, in the order of their names, so many at most; none where there is no such folder."""
    try:
        with os.scandir(parent) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_FOLDERS) if entry.name.startswith(prefix) and entry.is_dir())
    except OSError:
        return
    yield from (parent / name for name in names)


def fits(folder: Path, tag: str, heads: Sequence[str]) -> bool:
    """Whether a folder holds weights with the head that the task needs, or was saved with that task."""
    if not any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        return False
    saved, config = description(folder / MANIFEST).get("task"), description(folder / "config.json")
    if isinstance(saved, Mapping) and saved.get("tag") == tag:
        return True
    if tag == NLI and not any("entail" in str(label).lower() for label in config.get("label2id") or ()):
        return False
    return bool(config) and (not heads or any(str(name).endswith(tuple(heads)) for name in config.get("architectures") or ()))


def description(path: Path) -> Mapping[str, Any]:
    """A JSON object in a file, or an empty one."""
    try:
        found = json.loads(read_bytes_checked(path, max_bytes=MOST_BYTES))
    except (StorageError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
