"""What sentence-transformers wrote beside a checkpoint: how its vectors are pooled.

Takes a folder. Gives the pooling that its files name, and notes on what of them is not followed.
Knows nothing of models or vectors.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pellucid.errors import SettingError, StorageError
from pellucid.files import read_bytes_checked
from pellucid.types import Note

Pooled = Literal["mean", "cls", "last", "max"]
MODULES, CONFIG = "modules.json", "config.json"
MOST_BYTES = 1 << 20  # of such a file
FOLDER = re.compile(r"\w[\w.-]*")  # a name that leads nowhere else
POOLINGS: Mapping[str, Pooled] = MappingProxyType(  # its names, the older ones too → ours
    {
        "mean": "mean",
        "cls": "cls",
        "max": "max",
        "lasttoken": "last",
        "mean_tokens": "mean",
        "cls_token": "cls",
        "max_tokens": "max",
    }
)
NEEDED = ("Transformer", "Pooling", "Normalize", "Dropout")  # the modules that are in the vectors here


def pooling_of(folder: Path) -> tuple[Pooled, tuple[Note, ...]]:
    """The pooling that the files name, and what of them is not followed; the mean where there are none.

    Raises SettingError for a pooling that is not there here.
    """
    modules = [module for module in read(folder / MODULES, list) if isinstance(module, dict)]
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    named = next((str(module.get("path", "")) for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "")
    place = folder / (named if FOLDER.fullmatch(named) else "1_Pooling") / CONFIG
    said = read(place, dict)
    if not said:
        return "mean", ()
    flags = [name.removeprefix("pooling_mode_") for name, value in said.items() if value is True and name.startswith("pooling_mode_")]
    asked = said.get("pooling_mode", flags or "mean")
    names = [str(one) for one in (asked if isinstance(asked, list) else [asked])]
    if len(names) != 1 or names[0] not in POOLINGS:
        cure = "Choose one yourself: FeatureExtraction(pooling=…), one of mean, cls, last, max."
        raise SettingError(f"the checkpoint pools by {', '.join(names) or 'nothing'}", place=str(place), cure=cure)
    pooling = POOLINGS[names[0]]
    why = "the checkpoint's sentence-transformers files say so"
    notes: tuple[Note, ...] = (Note(f"pooling {pooling}", why, "FeatureExtraction(pooling=…) sets another."),)
    unused = [kind for kind in kinds if kind not in NEEDED]
    if unused:
        why = "the sentence-transformers files name it, and it is not in these vectors: they differ from that library's"
        notes += (Note(f"{', '.join(unused)} left out", why),)
    return pooling, notes


def read(path: Path, kind: type) -> Any:
    """A small JSON file that holds this kind of value, or an empty one where there is none."""
    try:
        found = json.loads(read_bytes_checked(path, max_bytes=MOST_BYTES))
    except (StorageError, ValueError, RecursionError):
        return kind()
    return found if isinstance(found, kind) else kind()
