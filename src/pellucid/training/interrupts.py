"""A Ctrl-C that waits for the end of a step, so that what is written down then is whole; and one that other code swallowed, raised again.

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

STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    """Whether somebody has asked to stop."""

    asked: bool = False


@dataclass
class Interrupt(Stop):
    """A handler that stops as Ctrl-C does, and remembers it."""

    def __call__(self, number: int, frame: Any) -> None:
        """Raise KeyboardInterrupt."""
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def stopped_by(number: int) -> Iterator[None]:
    """During the block, this signal stops as Ctrl-C does and is remembered; a program that ignores it goes on ignoring it."""
    before = signal.getsignal(number)
    ours = before in (signal.default_int_handler, signal.SIG_DFL)
    if ours:
        signal.signal(number, Interrupt())
    try:
        yield
    finally:
        if ours:
            signal.signal(number, before)


def raise_swallowed_interrupt() -> None:
    """Raise KeyboardInterrupt where one was raised and work went on: other code may catch everything, in an import for example."""
    if any(isinstance(handler, Interrupt) and handler.asked for handler in map(signal.getsignal, STOPS)):
        raise KeyboardInterrupt


@contextmanager
def interrupts_wait(may_wait: Callable[[], bool]) -> Iterator[Stop]:
    """During the block, the first Ctrl-C only sets the flag where `may_wait()` says so; a second one, or any other time, raises at once."""
    stop = Stop()

    def handle(number: int, frame: Any) -> None:
        waits = not stop.asked and may_wait()
        stop.asked = True
        if not waits:
            raise KeyboardInterrupt

    found: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in STOPS}
    ours = {number: handler for number, handler in found.items() if handler is signal.default_int_handler or isinstance(handler, Interrupt)}
    for number in ours:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
