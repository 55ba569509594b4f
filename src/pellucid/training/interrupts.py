"""A Ctrl-C that waits for the end of a step, so that what is written down then is whole.

Takes a question: may it wait now? Gives a flag that a training loop looks at. Knows nothing of training or of files.

It changes the handlers of SIGINT and SIGTERM during a block, in the main thread and only where Python's own handler stands, or the one that
a program put there to be stopped by; the old ones come back.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Stop:
    """Whether somebody has asked to stop."""

    asked: bool = False


def interrupt(number: int, frame: Any) -> None:
    """A handler that stops as Ctrl-C does, for SIGTERM. Raises KeyboardInterrupt."""
    raise KeyboardInterrupt


@contextmanager
def interrupts_wait(may_wait: Callable[[], bool]) -> Iterator[Stop]:
    """During the block, the first Ctrl-C only sets the flag where `may_wait()` says so; a second one, or any other time, raises at once."""
    stop = Stop()

    def handle(number: int, frame: Any) -> None:
        if stop.asked or not may_wait():
            raise KeyboardInterrupt
        stop.asked = True

    found: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in found.items() if handler in (signal.default_int_handler, interrupt)}
    for number in ours:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
