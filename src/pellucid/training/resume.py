"""A folder of checkpoints: each written whole, with checksums, the last ones kept; the newest that is good is the one to go on from.

Takes a model, a mapping of plain values and tensors, and where training stands. Gives folders `step-00000340` of safetensors and JSON, and
what they hold, checked to the bit. Knows nothing of fastai, of learners or of what the state means.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid import disk
from pellucid.errors import CheckpointError, PellucidError, SettingError, StorageError
from pellucid.files import atomic_folder, lock, sha256_of
from pellucid.manifest import MANIFEST, read_manifest, verify, write_manifest
from pellucid.training.resume_state import Position
from pellucid.weights import check_finite, load_state, load_weights, save_state, save_weights

if TYPE_CHECKING:
    import torch

WEIGHTS, STATE, KIND, FORMAT = "weights.safetensors", "state.safetensors", "checkpoint of a training", 1
FILES = (WEIGHTS, STATE, MANIFEST)
_STEP = re.compile(r"step-(\d{8,})")
_HIDDEN = re.compile(r"\.step-\d{8,}\.(new-[0-9a-f]{12}|lock)")


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint: its folder, where training stood, and what had been said of the run, as plain JSON."""

    folder: Path
    position: Position
    told: Mapping[str, Any]

    def state(self) -> dict[str, Any]:
        """The values and tensors that were written beside the weights. Raises CheckpointError, StorageError."""
        return load_state(self.folder / STATE)

    def name(self) -> list[str]:
        """The name of its folder, and the digest of what is in it: two that have them in common are the same."""
        return [self.folder.name, sha256_of(self.folder / MANIFEST)]

    def load_weights(self, model: "torch.nn.Module") -> None:
        """Put the weights into `model`; all must fit. Raises CheckpointError, StorageError."""
        load_weights(model, self.folder / WEIGHTS)


class CheckpointFolder:
    """Where the checkpoints of one run are, `keep` of them. Raises SettingError for fewer than one."""

    def __init__(self, path: str | os.PathLike[str], keep: int = 2) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise SettingError(f"keep is {keep!r}, expected 1 or more", place="keep", cure="Pass keep=2.")
        self.path, self.keep = Path(os.path.abspath(path)), keep
        self._held = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only run that writes here; within one object the blocks may lie in each other. The lock of a dead process is free.

        Raises StorageError where another run is at work.
        """
        with ExitStack() as stack:
            if not self._held:
                try:
                    stack.enter_context(lock(self.path, deadline=0.0))
                except StorageError as error:
                    if isinstance(error.__cause__, OSError):  # no lock could be made at all
                        raise
                    cure = "Wait until it has finished, or choose another folder."
                    raise StorageError("another run is training there just now", place=str(self.path), cure=cure) from None
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1

    def folders(self) -> list[Path]:
        """The checkpoints that are there, good or not, the newest first."""
        try:
            names = os.listdir(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [(int(match[1]), name) for name in names if (match := _STEP.fullmatch(name))]
        return [self.path / name for _, name in sorted(found, reverse=True)]

    def check_unused(self) -> None:
        """Raise SettingError where an earlier run has left checkpoints: they may be hours of somebody's work."""
        found = self.folders()
        if found:
            cure = "Pass resume=True to go on with it, or remove the folder."
            raise SettingError(f"{found[0].name} of an earlier run is there", place=str(self.path), cure=cure)

    def write(self, position: Position, told: Mapping[str, Any], model: "torch.nn.Module", state: Mapping[str, Any]) -> Path:
        """Write one checkpoint, whole or not at all, and remove what is older than the last ones, or stood further on.

        Raises StorageError, CheckpointError for weights that are no numbers, SettingError for a value that cannot be written down.
        """
        target = self.path / f"step-{position.step:08d}"
        check_finite(model.named_parameters(), place=str(target))
        with atomic_folder(target) as fresh:
            save_weights(model, fresh / WEIGHTS)
            save_state(state, fresh / STATE)
            write_manifest(fresh, {"kind": KIND, "checkpoint_format": FORMAT, "position": asdict(position), "told": dict(told)})
        known = self.folders()
        place = known.index(target)
        for outdated in (*known[:place], *known[place + self.keep :]):
            shutil.rmtree(outdated, ignore_errors=True)
        return target

    def newest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest checkpoint that is as it was written, and what is wrong with those that are newer. None where there is none at all.

        Raises CheckpointError where there are some and each is damaged.
        """
        damaged: list[str] = []
        for folder in self.folders():
            try:
                return read_checkpoint(folder), tuple(damaged)
            except (CheckpointError, StorageError) as error:
                damaged.append(f"{folder.name}: {error.problem}" + (f" ({error.place})" if error.place else ""))
        if damaged:
            cure = "Remove the folder, and train from the beginning."
            raise CheckpointError(f"no checkpoint there is whole: {'; '.join(damaged)}", place=str(self.path), cure=cure)
        return None, ()

    def named(self, name: Sequence[str]) -> Checkpoint | None:
        """The checkpoint with what `Checkpoint.name` gave, if it is here and whole."""
        with suppress(CheckpointError, StorageError):
            found = read_checkpoint(self.path / name[0])
            return found if found.name() == list(name) else None
        return None

    def sweep(self) -> None:
        """Remove what writers that were killed have left; those that live are not touched."""
        with suppress(OSError):
            for name in os.listdir(self.path):
                if _HIDDEN.fullmatch(name) and ".new-" in name:
                    disk.remove_if_dead(self.path / name)

    def discard(self) -> None:
        """Remove the checkpoints, once what they were for is safe elsewhere; files of others stay."""
        with self.held():
            self.sweep()
            for folder in self.folders():
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                for name in os.listdir(self.path):
                    if _HIDDEN.fullmatch(name) and name.endswith(".lock"):
                        (self.path / name).unlink()
                self.path.rmdir()


def read_checkpoint(folder: Path) -> Checkpoint:
    """One checkpoint, every file of it compared with its checksum. Raises CheckpointError, StorageError."""
    manifest = read_manifest(folder)
    verify(folder, manifest)
    place = str(folder / MANIFEST)
    if manifest.get("kind") != KIND or manifest.get("checkpoint_format") != FORMAT:
        what = f"{manifest.get('kind')!r} in format {manifest.get('checkpoint_format')!r}"
        raise CheckpointError(f"expected a checkpoint of a training in format {FORMAT}, found {what}", place=place, cure="Remove it.")
    try:
        return Checkpoint(folder, Position(**manifest["position"]), manifest["told"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"a part of it is missing ({error!r})", place=place, cure="Remove it.") from error


def could_not_write(error: PellucidError, last: Path | None) -> str:
    """What to say where a checkpoint could not be written while training can go on."""
    kept = f"the last whole one is {last.name}" if last is not None else "there is none yet"
    return f"a checkpoint could not be written, training goes on, {kept}: {error}"
