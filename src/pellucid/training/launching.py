"""Starts the processes of one training on this machine, waits for them, and says in one line why they failed.

Takes how many processes and machines there are, and the command that each runs. Gives nothing where all end well, else the error of the
process that failed first. Knows nothing of what the command does.

The rendezvous is torch's own (torch.distributed.launcher, what torchrun uses): its environment is what `processes` reads.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pellucid.errors import PellucidError, SettingError
from pellucid.files import write_json
from pellucid.training.processes import WAIT, LostProcessError, cores, place

MARK = "pellucid-"  # begins the name of a run that this module has started
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torch's launcher looks for what a process died of
STOP_SECONDS = 300  # a process that was asked to stop may write its checkpoint
LOST, SAID, BROKEN, KILLED = "lost", "said", "broken", "killed"  # others ended first; an error of ours; any other; no error at all


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How many processes train together. Raises SettingError for numbers that do not go together.

    On several machines the same command is run on each, with another `node_rank`; the machine with 0 is `master_addr`.
    """

    nproc: Annotated[int, "processes on this machine; they share each batch, and the result is that of one"] = 1
    nnodes: Annotated[int, "machines; the same command runs on each"] = 1
    node_rank: Annotated[int, "which of the machines this is, from 0"] = 0
    master_addr: Annotated[str, "address of machine 0"] = "127.0.0.1"
    master_port: Annotated[int, "a free port of machine 0"] = 29500

    def __post_init__(self) -> None:
        for name, low, high in (("nproc", 1, 1024), ("nnodes", 1, 1024), ("master_port", 1, 65535)):
            if not low <= getattr(self, name) <= high:
                cure = f"Pass a number from {low} to {high}."
                raise SettingError(f"{name} is {getattr(self, name)!r}, expected {low} to {high}", place=name, cure=cure)
        if not 0 <= self.node_rank < self.nnodes:
            cure = f"Pass a number from 0 to {self.nnodes - 1}: there are nnodes={self.nnodes} machines."
            raise SettingError(f"node_rank is {self.node_rank}", place="node_rank", cure=cure)

    @property
    def several(self) -> bool:
        """Whether this process is to start others; a process that was started has its place already."""
        return self.nproc * self.nnodes > 1 and place().processes == 1

    def warnings(self) -> tuple[str, ...]:
        """What is possible, but hardly meant."""
        if self.nproc <= max(cores(), gpus()):
            return ()
        return (f"--nproc {self.nproc}: this machine has {cores()} cores, so that processes wait for each other",)


def gpus() -> int:
    """How many GPUs there are."""
    import torch

    return torch.cuda.device_count()


def launched() -> bool:
    """Whether this process was started by `launch`: it leaves its errors to the process that started it."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "").startswith(MARK) and bool(os.environ.get(ERROR_FILE))


def report(error: BaseException, text: str) -> None:
    """Leave what this process dies of where the process that started it looks; `text` is what a person reads."""
    kind = LOST if isinstance(error, LostProcessError) else SAID if isinstance(error, PellucidError) else BROKEN
    message = {"message": text, "kind": kind, "extraInfo": {"timestamp": str(int(time.time()))}}
    with suppress(OSError):
        write_json(os.environ[ERROR_FILE], {"message": message})


def launch(options: ProcessOptions, command: Sequence[str]) -> None:
    """Run the command in each process, to the end of all; the first of all processes writes to this terminal.

    Raises EndedError with what the process that failed first says or died of, SettingError for a port that is in use, KeyboardInterrupt
    after Ctrl-C or SIGTERM, when all have stopped.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import elastic_launch

    if options.nnodes > 1 and options.node_rank == 0:
        check_port(options)
    with TemporaryDirectory(prefix="pellucid-") as folder, quiet_launcher():
        try:
            elastic_launch(config(options, folder), command[0])(*command[1:])
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            raise cause_of(error.failures) from None
        except (ConnectionError, TimeoutError, RuntimeError) as error:  # torch.distributed's errors are RuntimeErrors
            where = f"{options.master_addr}:{options.master_port}" if options.nnodes > 1 else "this machine"
            cure = "Start the same command on every machine, with --node-rank 0, 1, …; let them reach that address and port."
            raise LostProcessError(f"the processes did not come together ({error})", place=where, cure=cure) from error


def config(options: ProcessOptions, folder: str) -> Any:
    """What torch's launcher is told: no restarts, logs of all but the first process kept aside."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher import LaunchConfig

    aside = {local: Std.NONE if local == options.node_rank == 0 else Std.ALL for local in range(options.nproc)}
    one = options.nnodes == 1
    known = LaunchConfig.__dataclass_fields__  # older ones wait 30 seconds for a process to stop
    return LaunchConfig(
        min_nodes=options.nnodes,
        max_nodes=options.nnodes,
        nproc_per_node=options.nproc,
        run_id=f"{MARK}{token_hex(6)}" if one else f"{MARK}{options.master_port}",
        rdzv_backend="c10d" if one else "static",
        rdzv_endpoint="localhost:0" if one else f"{options.master_addr}:{options.master_port}",
        rdzv_configs={"timeout": int(WAIT.total_seconds()), **({} if one else {"rank": options.node_rank})},
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="127.0.0.1" if one else None,
        logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=aside),
        **({"shutdown_timeout": STOP_SECONDS} if "shutdown_timeout" in known else {}),
    )


@contextmanager
def quiet_launcher() -> Iterator[None]:
    """During the block torch's launcher logs nothing; the handlers of signals that it changes come back afterwards."""
    names = ["torch.distributed", *(name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed."))]
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check_port(options: ProcessOptions) -> None:
    """Raise SettingError where the port cannot be listened on."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", options.master_port))
        except OSError as error:
            cure = "Pass another --master-port, the same on every machine."
            raise SettingError(f"port {options.master_port} cannot be used: {error.strerror}", place="master_port", cure=cure) from None


def cause_of(failures: Mapping[int, Any]) -> "EndedError":
    """The error that tells why: what a process said, or the signal that killed it, before what follows from that."""
    ranked = sorted(failures.items(), key=lambda item: (weight_of(item[1]), item[0]))
    number, failure = ranked[0]
    kind, text = told_by(failure)
    if kind:
        return EndedError(text, kind)
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        more = " (the machine may be out of memory)" if name == "SIGKILL" else ""
        return EndedError(f"process {number} was killed by {name}{more}", KILLED)
    return EndedError(f"process {number} ended with exit code {failure.exitcode}", KILLED)


class EndedError(LostProcessError):
    """Why a training in several processes has ended: the words of the process that failed first; `kind` says of what sort they are."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text, cure="")
        self.text, self.kind = text.strip(), kind

    def __str__(self) -> str:
        return self.text


def told_by(failure: Any) -> tuple[str, str]:
    """What a process has left: (kind, text); ("", "") where it left nothing."""
    message = failure.error_file_data.get("message")
    found = message if isinstance(message, dict) else {}
    return str(found.get("kind", "")), str(found.get("message", ""))


def weight_of(failure: Any) -> int:
    """The first cause weighs least: an error, a signal from outside, then processes that were left alone or stopped."""
    kind, _ = told_by(failure)
    stopped = failure.exitcode in (-signal.SIGTERM, 128 + signal.SIGINT)
    return 0 if kind in (SAID, BROKEN) else 3 if kind == LOST else 4 if stopped else 1
