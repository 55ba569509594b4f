"""Several processes that train together: who this one is, and what they say to each other.

Takes the environment that torchrun sets, or a process group that is there. Gives a group: values, tensors and files that are the same in
all processes afterwards. Knows nothing of learners, batches or of who started the processes.

Nothing is pickled: what is no tensor goes as JSON. Every wait has an end: 10 minutes.
"""

import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import PellucidError, SettingError
from pellucid.files import write_bytes

if TYPE_CHECKING:
    import torch

WAIT = timedelta(minutes=10)  # for an answer of another process
BUCKET = 1 << 24  # numbers that are added up in one message: 64 MB of float32
NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


class LostProcessError(PellucidError, RuntimeError):
    """Another process of the training has ended, or gave no answer in time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many processes this one is, counted from 0; `local` among those on this machine."""

    rank: int = 0
    processes: int = 1
    local: int = 0
    on_machine: int = 1


def place() -> Place:
    """The place of this process: of the process group that is there, or of the environment; one alone where nobody says.

    Raises SettingError for an environment that makes no sense.
    """
    local = {"local": _number("LOCAL_RANK", 0), "on_machine": _number("LOCAL_WORLD_SIZE", 1)}
    if _group_is_there():
        import torch.distributed as dist

        return Place(dist.get_rank(), dist.get_world_size(), **local)
    if any(not os.environ.get(name) for name in NAMES):
        return Place()
    rank, processes = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < max(processes, 1):
        raise SettingError(f"RANK is {rank}, WORLD_SIZE is {processes}", place="the environment", cure="Start the processes with torchrun.")
    return Place(rank, processes, **local)


def first_process() -> bool:
    """Whether this is the process that writes files and speaks: the first of several, or the only one."""
    return place().rank == 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise SettingError(f"{name} is {text!r}, expected a number", place="the environment", cure=f"Unset {name}.") from None


def _group_is_there() -> bool:
    import sys

    if "torch" not in sys.modules:
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


class Nowhere(io.TextIOBase):
    """A stream for what a process that is not the first would print."""

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)


@contextmanager
def speaking_once() -> Iterator[None]:
    """During the block, only the first process logs what is no error."""
    log = logging.getLogger("pellucid")
    before = log.level
    if not first_process():
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def take_part_of_machine() -> None:
    """Before a model is built: take a GPU for this process alone, and its part of the cores where OMP_NUM_THREADS does not say how many."""
    import torch

    here = place()
    if here.processes > 1 and here.on_machine <= torch.cuda.device_count():
        torch.cuda.set_device(here.local)
    if here.on_machine > 1 and not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, cores() // here.on_machine))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def group_on(device: "torch.device") -> "Iterator[Group | None]":
    """The group of all processes during the block, None for one alone; one that this block begins, it also ends.

    Raises SettingError where processes share a GPU that each needs alone, LostProcessError where the others do not come.
    """
    import torch.distributed as dist

    here = place()
    if here.processes == 1:
        yield None
        return
    begins = not _group_is_there()
    if begins:
        with talking():
            _begin(here, device)
    try:
        group = Group(here.rank, here.processes, device)
        yield group
        if begins:
            group.meet()
    finally:
        if begins:
            dist.destroy_process_group()


def _begin(here: Place, device: "torch.device") -> None:
    """Meet the others: with gloo on a CPU, with nccl where each process has a GPU of its own."""
    import torch
    import torch.distributed as dist

    own = device.type == "cuda" and here.on_machine <= torch.cuda.device_count()
    if own and here.on_machine > 1 and (device.index or 0) != here.local:
        cure = 'Call torch.cuda.set_device(int(os.environ["LOCAL_RANK"])) before the pipeline is made.'
        raise SettingError(f"process {here.local} on this machine is on cuda:{device.index or 0}", place="device", cure=cure)
    store = _store(here.rank, here.processes)
    time = store.add(f"pellucid/begun by {here.rank}", 1)  # each group has names of its own: a store may outlive it
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if own else "gloo",
        store=dist.PrefixStore(f"pellucid/{time}", store),
        rank=here.rank,
        world_size=here.processes,
        timeout=WAIT,
    )


@cache
def _store(rank: int, processes: int) -> Any:
    """Where the processes leave their addresses for each other; it is opened once."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://", rank, processes, timeout=WAIT))[0]


@contextmanager
def talking() -> Iterator[None]:
    """What goes wrong between processes, in one line. Raises LostProcessError."""
    try:
        yield
    except PellucidError:
        raise
    except RuntimeError as error:  # torch.distributed.DistBackendError and what gloo raises are RuntimeErrors
        minutes = WAIT.total_seconds() / 60
        problem = f"another process of this training has ended, or gave no answer for {minutes:g} minutes"
        raise LostProcessError(problem, cure="What it says itself is the cause; then go on from the last checkpoint.") from error


@dataclass(frozen=True)
class Group:
    """The processes of one training. Every method is called by all of them, in the same order."""

    rank: int
    processes: int
    device: "torch.device"

    def meet(self) -> None:
        """Wait until all are here."""
        self.any(False)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, set where any process has set it."""
        import torch
        import torch.distributed as dist

        found = torch.tensor([int(flag) for flag in flags], device=self.device)
        with talking():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in found.tolist())

    def told(self, value: Any) -> Any:
        """What the first process says, as JSON has it."""
        return json.loads(self._sent(json.dumps(value).encode() if self.rank == 0 else b""))

    def all_say(self, value: Any) -> list[Any]:
        """What each process says, in their order, as JSON has it."""
        mine = json.dumps(value).encode()
        return [json.loads(self._sent(mine if self.rank == source else b"", source)) for source in range(self.processes)]

    def _sent(self, data: bytes, source: int = 0) -> bytes:
        """The bytes of one process."""
        import torch
        import torch.distributed as dist

        size = torch.tensor([len(data)], device=self.device)
        with talking():
            dist.broadcast(size, source)
            if not int(size):
                return b""
            empty = torch.empty(int(size), dtype=torch.uint8)
            content = (torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.rank == source else empty).to(self.device)
            dist.broadcast(content, source)
        return content.cpu().numpy().tobytes()

    def sent_files(self, source: Path | None, names: Sequence[str], target: Path) -> None:
        """Files of a folder that the first process sees, written into `target` by the others."""
        for name in names:
            content = self._sent(b"" if source is None else (source / name).read_bytes())
            if self.rank:
                write_bytes(target / name, content)

    def same(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Make these tensors those of the first process, in place."""
        import torch
        import torch.distributed as dist

        with talking():
            for tensor in tensors.values():
                whole = tensor.detach().contiguous()
                if whole.numel():
                    dist.broadcast(whole.reshape(-1).view(torch.uint8), 0)  # as bytes: of any dtype
                if whole.data_ptr() != tensor.data_ptr():
                    tensor.detach().copy_(whole)

    def rows(self, count: int) -> slice:
        """Which rows of a batch are those of this process."""
        return slice(self.rank, count, self.processes)

    def whole(self, part: "torch.Tensor", count: int) -> "torch.Tensor":
        """A batch of `count` rows, of the rows of each process; all processes have rows of one shape."""
        import torch
        import torch.distributed as dist

        most = -(-count // self.processes)
        padded = part.new_zeros(most, *part.shape[1:])
        own = len(range(count)[self.rows(count)])
        padded[:own] = part[:own]
        parts = [torch.empty_like(padded) for _ in range(self.processes)]
        with talking():
            dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count]  # (most, processes, …): the rows in their order

    def added(self, number: "torch.Tensor") -> "torch.Tensor":
        """The sum of what all processes have."""
        import torch.distributed as dist

        found = number.clone()
        with talking():
            dist.all_reduce(found)
        return found

    def add_up(self, parameters: "Sequence[torch.nn.Parameter]") -> None:
        """Replace each gradient by the sum of all processes'; one that no process has stays absent."""
        import torch

        group: list[torch.nn.Parameter] = []
        for number, parameter in enumerate(parameters, 1):
            group.append(parameter)
            if number == len(parameters) or sum(one.numel() for one in group) >= BUCKET:
                self._add_up(group)
                group = []

    def _add_up(self, parameters: "list[torch.nn.Parameter]") -> None:
        """One message: the gradients one after the other, and for each how many processes have one."""
        import torch
        import torch.distributed as dist

        there = [0.0 if one.grad is None else 1.0 for one in parameters]
        flat = [(torch.zeros_like(one) if one.grad is None else one.grad).flatten().float() for one in parameters]
        message = torch.cat([*flat, torch.tensor(there, device=flat[0].device)])
        with talking():
            dist.all_reduce(message)
        *sums, counts = message.split([*(len(one) for one in flat), len(there)])
        for parameter, gradient, count in zip(parameters, sums, counts.tolist(), strict=True):
            if count:
                parameter.grad = gradient.view_as(parameter).to(parameter.dtype, copy=True)
