"""Every write to disk: a hidden sibling first, flushed to the disk, then moved into place in one step.

Takes paths and bytes, or a block of code that fills a temporary path. Gives files and folders that are whole or not there, StorageError.
Knows nothing of what the files mean.

How a folder is replaced: the new one is filled in `.name.new-xxxx/name` beside it, every file and folder is flushed, the two are exchanged
in one system call where the system has one (Linux: renameat2), and the old one is deleted. Where it has none, the old one steps aside to
`.name.old-xxxx` and `recover` puts it back if the process dies before the new one is in place. A killed process leaves hidden siblings
at most; the next write to the same path removes them (it can tell them from those of a living writer: a living one holds a lock on them).
"""

import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pellucid import disk
from pellucid.errors import StorageError

LOCK_SECONDS = 60.0  # how long a writer waits for another one by default
_CHUNK = 1 << 20


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path with the same file name: fill it, and at the end of the block it replaces `path` in one step.

    Where the block fails, the old file stays whole and nothing is left behind. Two writers may meet: the last one wins, whole.
    Raises StorageError where the file cannot be written, or `path` is a folder, a symbolic link or a device.
    """
    target = _writable_target(path, "file")
    with disk.storage_errors(target), _hidden_sibling(target) as hidden:
        fresh = hidden / target.name
        yield fresh
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else _default_mode(hidden) & 0o666
        fresh.chmod(mode)
        disk.flush(fresh)
        os.replace(fresh, target)
        disk.flush(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = True, deadline: float = LOCK_SECONDS) -> Iterator[Path]:
    """A temporary empty folder with the same name: fill it, and at the end of the block it replaces `path` in one step.

    The old folder is whole until the new one is in place, and is then deleted: the caller has made sure that it may be.
    Other writers of the same folder wait, `deadline` seconds at most. Raises StorageError; the old folder is then whole.
    """
    target = _writable_target(path, "folder")
    _may_be_replaced(target, overwrite)
    with disk.storage_errors(target), lock(target, deadline=deadline):
        _recover_locked(target)
        _may_be_replaced(target, overwrite)  # another writer may have come first
        with _hidden_sibling(target) as hidden:
            fresh = hidden / target.name
            fresh.mkdir()
            yield fresh
            disk.flush_tree(fresh, _default_mode(hidden))
            if target.exists():
                fresh.chmod(stat.S_IMODE(target.stat().st_mode))
            _swap(fresh, target)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all. Raises StorageError."""
    with atomic_file(path) as fresh:
        _write(fresh, data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all. Raises StorageError."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` to `path` as strict, indented JSON. Raises StorageError; ValueError or TypeError for what JSON cannot hold, NaN too."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_npy(path: str | os.PathLike[str], array: Any) -> None:
    """Write a numpy array to `path` in numpy's own format, never pickled. Raises StorageError, and ValueError for an array of objects."""
    import numpy as np

    with atomic_file(path) as fresh, fresh.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def copy_file(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Copy the content of a regular file to `path`, whole or not at all. Raises StorageError."""
    with atomic_file(path) as fresh, disk.open_regular(source) as reader, fresh.open("wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)


def read_bytes_checked(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`; a pipe or a device is refused at once. Raises StorageError."""
    with disk.open_regular(path) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise StorageError(
            f"the file is larger than {max_bytes:,} bytes", place=str(path), cure="This is not the file that was expected here."
        )
    return bytes(data)


def read_prefix(path: str | os.PathLike[str], count: int) -> bytes:
    """The first `count` bytes of a regular file, or all of it where it is shorter. Raises StorageError."""
    with disk.open_regular(path) as stream:
        return bytes(stream.read(count))


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a regular file, as 64 hexadecimal digits. Raises StorageError."""
    with disk.open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder(name: str) -> Path:
    """`~/.cache/pellucid/name`, or the same under XDG_CACHE_HOME where that is set to an absolute path; made private where absent."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    folder = root / "pellucid" / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        cure = "Set XDG_CACHE_HOME to a folder that you may write to."
        raise StorageError(f"the cache folder cannot be made: {error.strerror}", place=str(folder), cure=cure) from error
    return folder


@contextmanager
def lock(path: str | os.PathLike[str], *, deadline: float = LOCK_SECONDS) -> Iterator[None]:
    """Be the only process (and thread) that works on `path` during the block; others wait, `deadline` seconds at most.

    The kernel frees the lock of a process that dies. `path` need not exist: the lock is a hidden file beside it, gone afterwards.
    Raises StorageError at the deadline, or where the file system has no locks.
    """
    target = Path(os.path.abspath(path))
    beside = target.parent / f".{_stem(target)}.lock"
    with disk.storage_errors(target):
        disk.make_parents(target.parent)
        end = time.monotonic() + deadline
        while (descriptor := disk.try_lock(beside)) is None:
            if time.monotonic() >= end:
                cure = "Wait until it has finished, or choose another folder."
                raise StorageError(f"another process has been writing there for {deadline:g} seconds", place=str(target), cure=cure)
            time.sleep(0.02)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(beside)  # while it is still held, so that nobody locks a file that is about to go
        os.close(descriptor)


def recover(path: str | os.PathLike[str], *, deadline: float = LOCK_SECONDS) -> bool:
    """Put a folder back that a killed writer had moved aside; True where there was one. Costs one look where `path` exists.

    Raises StorageError where the folder cannot be moved back.
    """
    target = Path(os.path.abspath(path))
    if os.path.lexists(target) or not _siblings(target, "old"):
        return False
    with disk.storage_errors(target), lock(target, deadline=deadline):
        return _recover_locked(target)


def _writable_target(path: str | os.PathLike[str], kind: str) -> Path:
    """`path` made absolute, refused where writing there would not do what it says."""
    target = Path(os.path.abspath(path))
    if not target.name:
        raise StorageError(f"the root folder cannot be written as a {kind}", place=str(target), cure="Name a folder inside it.")
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except (OSError, ValueError) as error:
        raise StorageError(f"the {kind} cannot be looked at: {error}", place=str(target), cure="Choose another path.") from error
    if stat.S_ISLNK(mode):
        there = os.path.realpath(target)
        raise StorageError(
            "it is a symbolic link, which a save would replace", place=str(target), cure=f"Save to {there}, or remove the link."
        )
    fits = stat.S_ISDIR(mode) if kind == "folder" else stat.S_ISREG(mode)
    if not fits:
        what = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a pipe or a device"
        raise StorageError(f"expected a {kind} or a new path, and it is {what}", place=str(target), cure="Choose another path.")
    if not mode & 0o222:
        raise StorageError(f"the {kind} is read-only", place=str(target), cure="Choose another path, or allow writing with chmod u+w.")
    return target


def _may_be_replaced(target: Path, overwrite: bool) -> None:
    """Refuse a folder that is full where overwriting was not allowed, or that this process stands in."""
    if not target.exists():
        return
    if not overwrite and any(target.iterdir()):
        raise StorageError("the folder exists and is not empty", place=str(target), cure="Choose another folder, or pass overwrite=True.")
    working = Path(os.path.realpath(os.getcwd()))
    if working.is_relative_to(os.path.realpath(target)):
        raise StorageError(
            "this is the working folder, or holds it", place=str(target), cure="Save into a folder below the working folder."
        )


@contextmanager
def _hidden_sibling(target: Path) -> Iterator[Path]:
    """A private folder beside `target`, locked while this process lives, removed at the end; those of dead writers are removed first."""
    disk.make_parents(target.parent)
    for leftover in _siblings(target, "new"):
        disk.remove_if_dead(leftover)
    descriptor = None
    while descriptor is None:  # between making and locking it, another writer may take it for a dead one's and remove it
        hidden = _named(target, "new")
        hidden.mkdir(mode=0o700)
        descriptor = disk.claim(hidden)
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if descriptor >= 0:
            os.close(descriptor)


def _swap(fresh: Path, target: Path) -> None:
    """Put `fresh` where `target` is (or is not). The old folder ends inside the hidden sibling, which is removed later."""
    if not target.exists():
        os.rename(fresh, target)
    elif not disk.exchange(fresh, target):
        aside = _named(target, "old")
        os.rename(target, aside)
        try:
            os.rename(fresh, target)
        except BaseException:
            if not target.exists():
                os.rename(aside, target)
            raise
        disk.flush(target.parent)
        os.rename(aside, fresh)  # only whole folders are ever called .old-: before it is deleted, it takes the other name
    disk.flush(target.parent)


def _recover_locked(target: Path) -> bool:
    """With the lock held: bring back the folder that had stepped aside, or drop it where the new one made it into place."""
    found = False
    for aside in _siblings(target, "old"):
        if not target.exists():
            os.rename(aside, target)
            found = True
        else:
            doomed = _named(target, "new")
            os.rename(aside, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
    if found:
        disk.flush(target.parent)
    return found


def _siblings(target: Path, kind: str) -> list[Path]:
    """The hidden folders of this kind that belong to `target`, oldest name first."""
    prefix = f".{_stem(target)}.{kind}-"
    try:
        names = os.listdir(target.parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [target.parent / name for name in sorted(names) if name.startswith(prefix) and len(name) == len(prefix) + 12]


def _named(target: Path, kind: str) -> Path:
    """A fresh name for a hidden folder of this kind beside `target`."""
    return target.parent / f".{_stem(target)}.{kind}-{secrets.token_hex(6)}"


def _stem(target: Path) -> str:
    """The name of `target`, or a digest of it where a longer name would not fit on the disk."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= 200 else hashlib.sha256(name).hexdigest()[:32]


def _default_mode(hidden: Path) -> int:
    """The permissions that a new folder gets from this process (its umask), found without touching the umask."""
    probe = hidden / f".{secrets.token_hex(4)}"
    probe.mkdir()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    return mode


def _write(path: Path, data: bytes | memoryview) -> None:
    """Write all of `data` to a new file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest[:_CHUNK]) :]
    finally:
        os.close(descriptor)
