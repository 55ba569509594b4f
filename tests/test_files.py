"""Writes that are whole or not there, under kills, full disks, failing disks, other writers and wrong paths."""

import errno
import json
import os
import random
import resource
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from injection import STEPS, Ended, at_each_step, failing_at, in_child, killed_at, no_exchange, start_child, wait_for
from pellucid import disk, files
from pellucid.errors import StorageError

RANDOM_KILLS = 60
SWAPS = {"exchange": nullcontext, "aside": no_exchange}


@pytest.fixture(params=list(SWAPS))
def swap(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways of replacing a folder: the exchange in one step, and the step aside where the system has no exchange."""
    with SWAPS[request.param]():
        yield request.param


def fill(folder: Path, version: int) -> None:
    """A folder whose every file says which version it belongs to."""
    for name in ("a.txt", "b.txt", "c.txt"):
        files.write_text(folder / name, f"{version}\n" * 1000)
    (folder / "sub").mkdir()
    files.write_json(folder / "sub" / "d.json", {"version": version})


def version_of(folder: Path) -> int:
    """The one version that all files of the folder have; fails for a mixture or a part."""
    texts = [(folder / name).read_text() for name in ("a.txt", "b.txt", "c.txt")]
    found = {json.loads((folder / "sub" / "d.json").read_text())["version"]} | {int(line) for text in texts for line in text.split()}
    assert len(found) == 1 and {len(text.split()) for text in texts} == {1000}
    return found.pop()


def put(folder: Path, version: int) -> None:
    with files.atomic_folder(folder) as fresh:
        fill(fresh, version)


def until_it_passes(attempt: Callable[[int], Ended]) -> Iterator[tuple[int, Ended]]:
    """Attempts with the fault at step 0, 1, 2 … until one ends without it."""
    for step in range(2000):
        ended = attempt(step)
        if ended.signal == 0 and not ended.error:
            return
        yield step, ended
    raise AssertionError("the fault never passed")


# --- whole or not there --------------------------------------------------------------------------------------------------


def test_folder_killed_at_every_step_is_old_or_new(tmp_path: Path, swap: str) -> None:
    target = tmp_path / "model"
    put(target, 0)
    seen = set()

    def attempt(step: int) -> Ended:
        def save() -> None:
            with killed_at(step):
                put(target, step + 1)

        return in_child(save)

    old = 0
    for step, ended in until_it_passes(attempt):
        assert ended.signal == signal.SIGKILL
        files.recover(target)
        now = version_of(target)
        assert now in (old, step + 1)
        seen.add(now == step + 1)
        old = now
    assert seen == {True, False}  # some kills came after the new one was in place
    put(target, -1)
    assert version_of(target) == -1
    assert os.listdir(tmp_path) == ["model"]  # what the dead left is gone


def test_first_save_killed_at_every_step_leaves_nothing_or_all(tmp_path: Path, swap: str) -> None:
    target = tmp_path / "new" / "model"
    for step, _ in until_it_passes(lambda step: in_child(lambda: _killed_put(step, target))):
        if target.exists():
            assert version_of(target) == step
            with files.atomic_folder(target):
                pass
            target.rmdir()
    assert os.listdir(target.parent) == ["model"]


def _killed_put(step: int, target: Path) -> None:
    with killed_at(step):
        put(target, step)


def test_file_killed_at_every_step_is_old_or_new(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    old, new = b"old" * 1000, b"new" * 5000
    files.write_bytes(target, old)

    def attempt(step: int) -> Ended:
        def save() -> None:
            with killed_at(step):
                files.write_bytes(target, new)

        return in_child(save)

    found = [target.read_bytes() for _ in until_it_passes(attempt)]
    assert {old, new} == set(found)
    files.write_bytes(target, new)
    assert os.listdir(tmp_path) == ["a.bin"]


def test_folder_killed_at_random_times(tmp_path: Path, swap: str) -> None:
    target = tmp_path / "model"
    put(target, 0)
    moments = random.Random(0)
    for number in range(RANDOM_KILLS):
        child, reader = start_child(lambda base=number * 1000: [put(target, base + i) for i in range(1000)])
        time.sleep(moments.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert wait_for((child, reader)).signal == signal.SIGKILL
        files.recover(target)
        version_of(target)
    put(target, 1)
    assert os.listdir(tmp_path) == ["model"]


def test_everything_is_flushed_before_it_is_moved_into_place(tmp_path: Path, swap: str) -> None:
    """The model of a power cut: what was not flushed is lost, so nothing unflushed may get the final name."""
    target = tmp_path / "model"
    put(target, 0)
    flushed: dict[int, tuple[int, int]] = {}
    moved: list[str] = []

    def look(number: int, name: str, args: tuple[Any, ...]) -> None:
        if name == "fsync":
            found = os.fstat(args[0])
            flushed[found.st_ino] = (found.st_size, found.st_mtime_ns)
        if name in ("exchange", "rename") and Path(args[0]).name == "model" and Path(args[0]).parent != tmp_path:
            moved.append(name)
            for path in (Path(args[0]), *Path(args[0]).rglob("*")):
                found = path.stat()
                assert flushed[found.st_ino] == (found.st_size, found.st_mtime_ns), path
            flushed.pop(tmp_path.stat().st_ino, None)
        if name in ("unlink", "rmdir") and moved and not str(args[0]).startswith("."):
            assert tmp_path.stat().st_ino in flushed  # nothing of the old folder goes before the new name is on the disk

    with at_each_step(look):
        put(target, 1)
    assert moved


def test_body_that_fails_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"
    put(target, 1)

    def broken(error: BaseException) -> None:
        with files.atomic_folder(target) as fresh:
            fill(fresh, 2)
            raise error

    for error in (ValueError("no"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)):
            broken(error)
        assert version_of(target) == 1 and os.listdir(tmp_path) == ["model"]


def test_readers_see_one_version_while_it_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model"
    put(target, 0)
    child = start_child(lambda: [put(target, i) for i in range(1, 60)])
    looked = 0
    while os.waitid(os.P_PID, child[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        folder = os.open(target, os.O_RDONLY)  # never missing, not for a moment
        os.close(folder)
        looked += 1
    assert wait_for(child).error == "" and version_of(target) == 59 and looked > 10


# --- disks that fail -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 500, 1999, 2001, 4000])
def test_disk_full_keeps_the_old_folder(tmp_path: Path, limit: int) -> None:
    target = tmp_path / "model"
    put(target, 7)

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        put(target, 12345)

    ended = in_child(save)
    assert ended.error.startswith("StorageError") and "nothing is half-written" in ended.error and "ulimit -f" in ended.error
    assert version_of(target) == 7 and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("number", "names", "words"),
    [
        (errno.ENOSPC, ("write", "mkdir", "open"), "disk is full"),
        (errno.EIO, ("fsync",), "reports a failure"),
        (errno.EXDEV, ("rename", "replace"), "inside one disk"),
        (errno.EBUSY, ("rename", "replace"), "mount point"),
        (errno.EROFS, ("mkdir", "open"), "read-only"),
        (errno.EACCES, ("chmod",), "may not write"),
    ],
)
@pytest.mark.parametrize("once", [True, False])
def test_failing_call_at_every_place(tmp_path: Path, swap: str, number: int, names: tuple[str, ...], words: str, once: bool) -> None:
    target = tmp_path / "model"
    put(target, 0)
    for step in range(500):
        error = None
        with failing_at(step, number, names, once=once) as failed:
            try:
                put(target, step + 1)
            except StorageError as raised:
                error = raised
        message = str(error)
        assert error is None or (words in message and f"{target}" in message and ".new-" not in message), message
        if error is None:  # what was passed over was the removal of leftovers
            assert version_of(target) == step + 1
        files.recover(target)
        assert version_of(target) in range(step + 2)
        if not failed:
            break
    else:
        raise AssertionError("the fault never passed")
    put(target, -1)
    assert os.listdir(tmp_path) == ["model"]


def test_file_write_failures_keep_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"old": True})
    for step in range(100):
        with failing_at(step, errno.EIO, STEPS) as failed:
            try:
                files.write_json(target, {"old": False})
            except StorageError:
                pass
        assert json.loads(target.read_text()) in ({"old": True}, {"old": False})
        if not failed:
            break
    assert os.listdir(tmp_path) == ["a.json"]


# --- locks ---------------------------------------------------------------------------------------------------------------


def test_second_writer_stops_at_the_deadline(tmp_path: Path) -> None:
    target = tmp_path / "model"
    put(target, 1)
    with files.lock(target):
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"another process has been writing there for 0\.2 seconds"):
            with files.atomic_folder(target, deadline=0.2):
                raise AssertionError("the lock was not held")
        assert 0.15 < time.monotonic() - start < 2
    put(target, 2)
    assert version_of(target) == 2 and os.listdir(tmp_path) == ["model"]


def test_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    def die() -> None:
        with files.lock(tmp_path / "model"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die).signal == signal.SIGKILL
    with files.lock(tmp_path / "model", deadline=0.0):
        pass
    assert os.listdir(tmp_path) == []


def test_many_processes_save_to_one_folder(tmp_path: Path, swap: str) -> None:
    target = tmp_path / "model"
    children = [start_child(lambda worker=worker: [put(target, worker * 100 + i) for i in range(6)]) for worker in range(5)]
    ended = [wait_for(child) for child in children]
    assert [e.error for e in ended] == [""] * 5
    assert version_of(target) % 100 == 5
    assert os.listdir(tmp_path) == ["model"]


def test_many_threads_write_one_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    threads = [threading.Thread(target=lambda n=n: [files.write_text(target, f"{n}\n" * 500) for _ in range(10)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(target.read_text().split())) == 1
    assert os.listdir(tmp_path) == ["a.txt"]


def test_living_writers_folder_is_not_swept_away(tmp_path: Path) -> None:
    with files.atomic_file(tmp_path / "a.txt") as slow:
        slow.write_text("slow")
        files.write_text(tmp_path / "a.txt", "fast")
        assert slow.exists()
    assert (tmp_path / "a.txt").read_text() == "slow"


def test_recovery_prefers_what_is_in_place(tmp_path: Path) -> None:
    target = tmp_path / "model"
    put(target, 1)
    assert files.recover(target) is False
    os.rename(target, tmp_path / ".model.old-0123456789ab")
    assert files.recover(target) is True and version_of(target) == 1
    fill_aside = tmp_path / ".model.old-0123456789ab"
    fill_aside.mkdir()
    put(target, 2)
    assert version_of(target) == 2 and os.listdir(tmp_path) == ["model"]


# --- paths ---------------------------------------------------------------------------------------------------------------


def test_symbolic_link_is_refused_with_the_place_it_points_to(tmp_path: Path) -> None:
    put(tmp_path / "real", 1)
    files.write_text(tmp_path / "real.txt", "1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling"):
        with pytest.raises(StorageError, match=r"symbolic link.*Save to .*(real|nowhere)"):
            put(tmp_path / name, 2)
    with pytest.raises(StorageError, match="symbolic link"):
        files.write_text(tmp_path / "link.txt", "2")
    assert version_of(tmp_path / "real") == 1 and (tmp_path / "real.txt").read_text() == "1"


def test_target_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="expected a folder or a new path, and it is a file"):
        put(tmp_path / "file", 1)
    with pytest.raises(StorageError, match="expected a file or a new path, and it is a folder"):
        files.write_text(tmp_path / "folder", "x")
    for write in (lambda: put(tmp_path / "pipe", 1), lambda: files.write_text(tmp_path / "pipe", "x")):
        with pytest.raises(StorageError, match="a pipe or a device"):
            write()
    with pytest.raises(StorageError, match="A part of that path is a file"):
        put(tmp_path / "file" / "below", 1)
    assert (tmp_path / "file").read_text() == "x"


def test_read_only_target_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "model", 1)
    (tmp_path / "model").chmod(0o555)
    with pytest.raises(StorageError, match=r"folder is read-only.*chmod"):
        put(tmp_path / "model", 2)
    files.write_text(tmp_path / "a.txt", "1")
    (tmp_path / "a.txt").chmod(0o444)
    with pytest.raises(StorageError, match="file is read-only"):
        files.write_text(tmp_path / "a.txt", "2")
    (tmp_path / "model").chmod(0o755)
    assert version_of(tmp_path / "model") == 1 and (tmp_path / "a.txt").read_text() == "1"


def test_working_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for target in (".", "..", "/"):
        with pytest.raises(StorageError, match=r"working folder|root folder"):
            put(Path(target), 1)


def test_full_folder_is_kept_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with files.atomic_folder(tmp_path / "model", overwrite=False) as fresh:
        fill(fresh, 1)
    with pytest.raises(StorageError, match=r"not empty.*overwrite=True"):
        with files.atomic_folder(tmp_path / "model", overwrite=False) as fresh:
            fill(fresh, 2)
    assert version_of(tmp_path / "model") == 1


@pytest.mark.parametrize("name", ["with space", "ünïcodé 🙂", "new\nline", "-dash", "%s {x}", "a" * 255, "é" * 127, "[glob]*"])
def test_odd_names(tmp_path: Path, name: str, swap: str) -> None:
    for version in (1, 2):
        put(tmp_path / name, version)
        assert version_of(tmp_path / name) == version
    files.write_text(tmp_path / "sub" / name, "x")
    assert sorted(os.listdir(tmp_path)) == sorted([name, "sub"])
    with pytest.raises(StorageError):
        put(tmp_path / ("b" * 300), 1)
    with pytest.raises(StorageError):
        put(tmp_path / "nul\0", 1)


def test_other_hard_links_keep_the_old_content(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "1")
    os.link(tmp_path / "a.txt", tmp_path / "other.txt")
    files.write_text(tmp_path / "a.txt", "2")
    assert (tmp_path / "other.txt").read_text() == "1"


def test_permissions_follow_the_umask_and_the_folder_that_was_there(tmp_path: Path) -> None:
    def save() -> list[str]:
        os.umask(0o027)
        put(tmp_path / "model", 1)
        first = [oct(stat.S_IMODE(path.stat().st_mode)) for path in (tmp_path / "model", tmp_path / "model" / "a.txt")]
        (tmp_path / "model").chmod(0o770)
        put(tmp_path / "model", 2)
        return [*first, oct(stat.S_IMODE((tmp_path / "model").stat().st_mode))]

    assert in_child(save).value == ["0o750", "0o640", "0o770"]


def test_hidden_work_is_private(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "model") as fresh:
        assert stat.S_IMODE(fresh.parent.stat().st_mode) == 0o700
        assert fresh.name == "model" and fresh.parent.parent == tmp_path


def test_links_inside_a_new_folder_are_refused(tmp_path: Path) -> None:
    for there in ("/etc", "/etc/hostname"):
        with pytest.raises(StorageError, match="only plain files"):
            with files.atomic_folder(tmp_path / "model") as fresh:
                (fresh / "out").symlink_to(there)
    assert os.listdir(tmp_path) == []


# --- reading and small writers ---------------------------------------------------------------------------------------------


def test_pipe_or_device_does_not_hang_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (lambda path=path: files.read_bytes_checked(path, max_bytes=10), lambda path=path: files.sha256_of(path)):
            with pytest.raises(StorageError, match="a folder, a pipe or a device"):
                read()
    with pytest.raises(StorageError, match="cannot be read"):
        files.sha256_of(tmp_path / "absent")


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "a", b"12345")
    assert files.read_bytes_checked(tmp_path / "a", max_bytes=5) == b"12345"
    assert files.read_prefix(tmp_path / "a", 3) == b"123"
    with pytest.raises(StorageError, match="larger than 4 bytes"):
        files.read_bytes_checked(tmp_path / "a", max_bytes=4)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=5000))
def test_bytes_come_back(tmp_path: Path, data: bytes) -> None:
    import hashlib

    files.write_bytes(tmp_path / "a", data)
    assert files.read_bytes_checked(tmp_path / "a", max_bytes=5000) == data
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    files.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


def test_arrays_are_written_without_pickle(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    files.write_npy(tmp_path / "a.npy", array)
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), array)
    with pytest.raises(ValueError, match="Object arrays"):
        files.write_npy(tmp_path / "b.npy", np.array([object()]))
    assert os.listdir(tmp_path) == ["a.npy"]


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = files.cache_folder("rows")
    assert folder == tmp_path / "cache" / "pellucid" / "rows" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says: not absolute, not used
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert files.cache_folder("rows") == tmp_path / "home" / ".cache" / "pellucid" / "rows"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="XDG_CACHE_HOME"):
        files.cache_folder("rows")


def test_file_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(disk, "_flock", unsupported)
    files.write_text(tmp_path / "a.txt", "one file needs no lock")
    with pytest.raises(StorageError, match="No locks available"):
        put(tmp_path / "model", 1)
