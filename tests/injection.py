"""Faults for tests that save: die, fail or look at the n-th call that changes the disk; children that may die."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from pellucid import disk

STEPS = ("open", "write", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "chmod")


@contextmanager
def at_each_step(act: Callable[[int, str, tuple[Any, ...]], None], names: tuple[str, ...] = STEPS) -> Iterator[None]:
    """Call `act(number, name, arguments)` before each call of os.<name>, and before an exchange of folders ("exchange")."""
    count = [0]

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            number = count[0]
            count[0] += 1
            act(number, name, args)
            return real(*args, **kwargs)

        return call

    with mock.patch.multiple(os, **{name: watched(name, getattr(os, name)) for name in names}):
        with mock.patch.object(disk, "exchange", watched("exchange", disk.exchange)):
            yield


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Die by SIGKILL before the call number `step`."""

    def act(number: int, name: str, args: tuple[Any, ...]) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with at_each_step(act):
        yield


@contextmanager
def failing_at(step: int, error: int, names: tuple[str, ...], *, once: bool = True) -> Iterator[list[str]]:
    """Raise OSError(error) at the `step`-th call of one of `names` (and at all later ones unless `once`); gives the names that failed."""
    failed: list[str] = []

    def act(number: int, name: str, args: tuple[Any, ...]) -> None:
        if name in (*names, "exchange") and (number == step or (not once and number > step)):
            failed.append(name)
            raise OSError(error, os.strerror(error))

    with at_each_step(act, names):
        yield failed


@contextmanager
def no_exchange() -> Iterator[None]:
    """A system that cannot exchange two folders in one step."""
    with mock.patch.object(disk, "exchange", return_value=False):
        yield


@dataclass(frozen=True)
class Ended:
    """How a child ended: the signal that killed it (0 for none), and what it gave or raised."""

    signal: int
    value: Any = None
    error: str = ""


def in_child(action: Callable[[], Any]) -> Ended:
    """Run `action` in a forked child, which may die."""
    return wait_for(start_child(action))


def start_child(action: Callable[[], Any]) -> tuple[int, int]:
    """Start `action` in a forked child; gives its process number and the end of its pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    try:
        answer: tuple[Any, str] = (action(), "")
    except BaseException as error:
        answer = (None, f"{type(error).__name__}: {error}")
    os.write(writer, pickle.dumps(answer))
    os._exit(0)


def wait_for(started: tuple[int, int]) -> Ended:
    """Wait until a child has ended."""
    child, reader = started
    with os.fdopen(reader, "rb") as stream:
        raw = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Ended(os.WTERMSIG(status))
    value, error = pickle.loads(raw)
    return Ended(0, value, error)
