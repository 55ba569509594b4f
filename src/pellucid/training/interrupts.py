"""A Ctrl-C that waits for the end of a step, so that what is written down then is whole.

Takes a question: may it wait now? Gives a flag that a training loop looks at. Knows nothing of training or of files.

It changes the handler of SIGINT during a block, in the main thread and only where Python's own handler stands; the old one comes back.
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


@contextmanager
def interrupts_wait(may_wait: Callable[[], bool]) -> Iterator[Stop]:
    """During the block, the first Ctrl-C only sets the flag where `may_wait()` says so; a second one, or any other time, raises at once."""
    stop = Stop()

    def handle(number: int, frame: Any) -> None:
        if stop.asked or not may_wait():
            raise KeyboardInterrupt
        stop.asked = True

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours:
        yield stop
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
