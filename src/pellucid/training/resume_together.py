"""What several processes agree on about the checkpoints of their training: the first one writes, reads and decides.

Takes a folder of checkpoints, and the group of processes where there are several. Gives the checkpoint to go on from, the same for all, and
whether to stop or to write. Knows nothing of fastai, of learners or of what a checkpoint holds.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from pellucid.training.processes import Group
from pellucid.training.resume import FILES, Checkpoint, CheckpointFolder, read_checkpoint


class Together:
    """The processes of a run and its folder; one process alone agrees with itself."""

    def __init__(self, place: CheckpointFolder) -> None:
        self.place = place
        self.group: Group | None = None
        self.copy: TemporaryDirectory[str] | None = None  # of a checkpoint that only the first process sees

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.group is None or self.group.rank == 0

    @property
    def processes(self) -> int:
        """How many there are."""
        return 1 if self.group is None else self.group.processes

    def held(self) -> AbstractContextManager[None]:
        """The lock of the folder, held by the first process. Raises StorageError where another run is at work."""
        return self.place.held() if self.first else nullcontext()

    def agreed(self, stop: bool, due: bool) -> tuple[bool, bool]:
        """Whether to stop, as soon as one process was asked to; whether it is time for a checkpoint, by the clock of the first one."""
        if self.group is None:
            return stop, due
        stop, due = self.group.any(stop, due and self.first)
        return stop, due

    def meet(self) -> None:
        """Wait for the others."""
        if self.group is not None:
            self.group.meet()

    def newest(self, resume: bool) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The checkpoint that all go on from, and what is wrong with those that are newer; None where the run begins.

        Raises SettingError for checkpoints that are there without `resume`, CheckpointError where each is damaged.
        """
        found: Checkpoint | None = None
        damaged: tuple[str, ...] = ()
        if self.first:
            if resume:
                found, damaged = self.place.newest()
            else:
                self.place.check_unused()
            self.place.sweep()
        return (found if self.group is None or not resume else self._same_for_all(self.group, found)), damaged

    def _same_for_all(self, group: Group, found: Checkpoint | None) -> Checkpoint | None:
        """What the first process has found; those that do not see its folder get a copy, which goes with this object."""
        name = group.told(None if found is None else found.name())
        if name is None:
            return None
        mine = found or self.place.named(name)
        if not group.any(mine is None)[0]:
            return mine
        self.copy = self.copy or TemporaryDirectory(prefix="pellucid-")
        group.sent_files(None if found is None else found.folder, FILES, Path(self.copy.name))
        return found or read_checkpoint(Path(self.copy.name))
