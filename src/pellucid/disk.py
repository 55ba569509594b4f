"""The calls to the operating system that saving needs: flush, exchange, lock, and errors in plain words.

Takes paths inside folders that `files` manages. Gives bytes that are on the disk, locks that die with their process, and StorageError.
Knows nothing of temporary names or of what is saved.
"""

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pellucid.errors import StorageError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}
_HIDDEN = re.compile(r"\.[^/]{1,255}\.new-[0-9a-f]{12}/?")
_CURES = {
    errno.ENOSPC: "The disk is full: free some space, or choose a folder on another disk.",
    errno.EDQUOT: "Your disk quota is used up: free some space, or choose a folder on another disk.",
    errno.EFBIG: "The file is larger than this disk or this process may write: see `ulimit -f`.",
    errno.EACCES: "You may not write there: choose another folder, or change its permissions.",
    errno.EPERM: "You may not write there: choose another folder, or change its permissions.",
    errno.EROFS: "That disk is read-only: choose another folder.",
    errno.EIO: "The disk reports a failure: check it, and save somewhere else.",
    errno.EXDEV: "That folder is a mount point or crosses disks: choose a folder inside one disk.",
    errno.EBUSY: "That folder is in use as a mount point: choose a folder inside it.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOTDIR: "A part of that path is a file, not a folder: choose another path.",
    errno.EEXIST: "A part of that path is a file, not a folder: choose another path.",
}


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn what the system says into a StorageError that names the path and the cure."""
    try:
        yield
    except StorageError as error:
        if _HIDDEN.search(error.place):
            raise StorageError(error.problem, place=_shown(error.place), cure=error.cure) from error
        raise
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "Check the disk and the permissions of the folder.")
        place = error.filename if isinstance(error.filename, str) else ""
        where = f" at {_shown(place)}" if place and not place.startswith(str(target)) else ""
        problem = f"it could not be written ({error.strerror or error}{where}); nothing is half-written"
        raise StorageError(problem, place=str(target), cure=cure) from error


def _shown(place: str) -> str:
    """A path as the user knows it: the final name instead of the hidden one beside it."""
    return _HIDDEN.sub("", place)


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A regular file, open for reading: a pipe without a writer, or an endless device, must not hang the reader."""
    place = str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise StorageError(f"the file cannot be read: {error}", place=place, cure="Check the path and its permissions.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError("expected a file, and it is a folder, a pipe or a device", place=place, cure="Name a plain file.")
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def flush(path: Path) -> None:
    """Have the disk confirm that a file, or the names in a folder, are on it."""
    if sys.platform == "win32" and path.is_dir():
        return  # the system has no such call
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path, mode: int) -> None:
    """Give every file and folder its normal permissions and flush it to the disk, the deepest first."""
    for root, folders, names in os.walk(folder, topdown=False):
        for path in (Path(root) / name for name in (*folders, *names)):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StorageError("only plain files can be saved", place=str(path), cure="Copy the content instead of linking to it.")
            if path.is_file():
                path.chmod(mode & 0o666)
                flush(path)
        flush(Path(root))


def make_parents(folder: Path) -> None:
    """Make the folders above a target, each flushed into the one that holds it."""
    if folder.is_dir():
        return
    make_parents(folder.parent)
    folder.mkdir(exist_ok=True)
    flush(folder.parent)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if library.renameat2(here, os.fsencode(first), here, os.fsencode(second), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def try_lock(beside: Path) -> int | None:
    """The descriptor of the locked file, or None where another holds it."""
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    held = False
    try:
        if _flock(descriptor):
            with suppress(FileNotFoundError):  # the one before us has removed the name: this lock is on a file that nobody else sees
                held = os.path.samestat(os.fstat(descriptor), os.stat(beside))
    finally:
        if not held:
            os.close(descriptor)
    return descriptor if held else None


def claim(hidden: Path) -> int | None:
    """Lock a hidden folder as a sign of life; None where it has just been removed by another writer.

    -1 where the file system cannot lock folders: then nobody can call this one dead either.
    """
    if sys.platform == "win32":
        return -1
    try:
        descriptor = os.open(hidden, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        mine = _flock(descriptor) and hidden.exists()
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _NO_LOCKS:
            raise
        return -1
    if not mine:
        os.close(descriptor)
    return descriptor if mine else None


def remove_if_dead(leftover: Path) -> None:
    """Remove a hidden folder whose writer is gone; one that cannot be judged or removed stays."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if _flock(descriptor):
                shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(descriptor)


def _flock(descriptor: int) -> bool:
    """Lock an open file or folder at once; False where another holds it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
