"""The only code that changes something for the whole process.

Takes nothing but the process that it runs in. Gives a sentence on what it changed, or None where it changed nothing; every change can
be taken back. Knows nothing of models, rows or tasks.
"""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pellucid.errors import MissingPackageError, SettingError

_TORCHVISION_CHECKS = ("is_torchvision_available", "is_torchvision_v2_available", "is_torchvision_greater_or_equal")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, from malloc.h
_GLIBC_DEFAULT = 128 * 1024  # bytes; M_TRIM_THRESHOLD and M_MMAP_THRESHOLD when nobody sets them


def hide_broken_torchvision() -> str | None:
    """Let transformers load text models beside a torchvision that does not fit torch.

    transformers imports torchvision where it is installed; one that was built for another torch then breaks every model.
    A torchvision that is absent or works is left alone (None). A broken one is marked as absent for this process;
    `show_torchvision` takes that back. Raises MissingPackageError where transformers still believes in it.
    """
    if "torchvision" in sys.modules and sys.modules["torchvision"] is None:
        return None  # marked as absent already, by us or by the user
    try:
        if find_spec("torchvision") is None:
            return None
        import_module("torchvision")
    except Exception as error:  # whatever a package raises when it is imported: RuntimeError, ImportError, OSError, AttributeError
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    else:
        return None
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # what Python itself takes for "absent"
    if _transformers_believes_in_torchvision():
        raise MissingPackageError(
            f"torchvision is installed, but importing it fails ({reason}), and transformers has already taken it for working",
            cure="Run: pip uninstall torchvision, or install the torchvision that fits your torch, and start again.",
        )
    return f"torchvision is installed, but importing it fails ({reason})"


def show_torchvision() -> None:
    """Take back what `hide_broken_torchvision` did."""
    if "torchvision" in sys.modules and sys.modules["torchvision"] is None:
        del sys.modules["torchvision"]
        _transformers_believes_in_torchvision()


def _transformers_believes_in_torchvision() -> bool:
    """Ask transformers again; it remembers its first answer, so that memory is cleared through its own `cache_clear`."""
    checks = sys.modules.get("transformers.utils.import_utils")
    if checks is None:
        return False  # it has not looked yet
    for name in _TORCHVISION_CHECKS:
        clear = getattr(getattr(checks, name, None), "cache_clear", None)
        if clear is not None:
            clear()
    ask = getattr(checks, "is_torchvision_available", None)
    return bool(ask is not None and ask())


def keep_freed_memory() -> str | None:
    """Keep freed memory in the process instead of giving it back to the kernel after every large tensor.

    Training on long texts on a CPU is 1.3 to 1.7 times faster for it, with the same numbers; the process keeps its peak memory.
    Does something under glibc only. `release_freed_memory` takes it back.
    """
    if not _set_allocator(mmap_threshold=1 << 30, trim_threshold=2**31 - 1):
        return None
    return "freed memory is kept in the process (glibc mallopt: M_MMAP_THRESHOLD 1 GiB, M_TRIM_THRESHOLD 2 GiB)"


def release_freed_memory() -> bool:
    """Give freed memory back to the kernel as glibc does by default; whether that could be set."""
    done = _set_allocator(mmap_threshold=_GLIBC_DEFAULT, trim_threshold=_GLIBC_DEFAULT)
    trim_freed_memory()
    return done


def trim_freed_memory() -> None:
    """Give back to the kernel, once, what is freed now: other libraries than the one that freed it can have it. Only under glibc."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _set_allocator(*, mmap_threshold: int, trim_threshold: int) -> bool:
    library = _glibc()
    if library is None:
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, mmap_threshold) == 1 and library.mallopt(_TRIM_THRESHOLD, trim_threshold) == 1)


def _glibc() -> Any:
    """The C library of this process where it is glibc: musl and others have no mallopt that does this."""
    import ctypes

    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


@contextmanager
def csv_field_limit(characters: int) -> Iterator[None]:
    """Let Python's csv reader take fields of up to `characters`; the old limit comes back afterwards. Raises SettingError."""
    if not 0 < characters < 2**31:
        raise SettingError(
            f"expected 1 to {2**31 - 1} characters, came {characters}", place="characters", cure="Pass a limit in that range."
        )
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no log lines below errors from transformers; both come back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
