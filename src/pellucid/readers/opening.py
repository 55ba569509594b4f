"""Opens a text file and gives its lines.

Takes a path and the options of a read. Gives lines with their ends, decoded, from a plain or a gzip file, within the limits.
Knows nothing of cells, columns or rows.
"""

import codecs
import gzip
import io
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pellucid.errors import DataError
from pellucid.readers.chunks import ReadOptions

BLOCK = 1 << 20  # bytes read at a time
LONGEST_LINE = 1 << 26  # characters; a longer line is not text
BOMB_RATIO, BOMB_BYTES = 200, 1 << 28  # unpacked bytes a packed byte (text has 3 to 20), looked at once so much has been unpacked
ARCHIVES = {  # what a file begins with → what it is; no text begins so
    rb"PK(\x03\x04|\x05\x06)": "a zip archive (an Excel workbook is one too)",
    rb"BZh[1-9]1AY&SY": "a bzip2 file",
    rb"\xfd7zXZ\x00": "an xz file",
    rb"\x28\xb5\x2f\xfd": "a zstd file",
    rb"7z\xbc\xaf\x27\x1c": "a 7z archive",
    rb"Rar!\x1a\x07": "a rar archive",
    rb"(?s:.{257})ustar[\x00 ]": "a tar archive",
}
WIDE = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}  # the longest mark first
UNPACK = "Unpack it yourself and read the file inside; pellucid unpacks gzip only."


def checked_path(path: Path) -> Path:
    """The path of a regular file or a folder. Raises DataError for what is not there, and for pipes and devices, which may never end."""
    try:
        path = path.expanduser()
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name is a ValueError, a home that is not there a RuntimeError
        cure = f"Check the name; a relative path starts at {Path.cwd()}."
        why = getattr(error, "strerror", None) or error
        raise DataError(f"it cannot be read: {why}", place=repr(str(path)[:500])[1:-1], cure=cure) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError("it is a pipe or a device, not a file", place=str(path), cure="Copy its content to a file first.")
    return path


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as a DataError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"the gzip file is damaged or cut short: {error}", place=str(path), cure="Fetch it again.") from error
    except OSError as error:
        cure = "Check that it is there and that you may read it."
        raise DataError(f"it cannot be read: {error.strerror or error}", place=str(path), cure=cure) from error


def first_bytes(path: Path, count: int = 512) -> bytes:
    """The first bytes of a file, unpacked where it is gzip. Raises DataError."""
    with damage(path), opened(path) as stream:
        return stream.read(count)


def opened(path: Path) -> BinaryIO:
    """The file as bytes, unpacked where it begins as gzip does, whatever its name. Raises DataError for other archives, packed or not."""
    with path.open("rb") as file:
        start = file.read(512)
    packed = start.startswith(b"\x1f\x8b")
    if packed:
        with gzip.open(path, "rb") as inside:
            start = inside.read(512)
    for magic, what in ARCHIVES.items():
        if re.match(magic, start):
            raise DataError(f"it is {what}", place=str(path), cure=UNPACK)
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]  # a GzipFile reads like a file


def lines_of(path: Path, options: ReadOptions) -> Iterator[str]:
    """The lines with their ends, split at CR, LF and CRLF only. Raises DataError that names the line."""
    number = 0
    name = codecs.lookup(options.encoding).name
    encoding = "utf-8-sig" if name == "utf-8" else name  # without the byte order mark that Excel writes
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    pending = ""  # the beginning of a line whose end is in a later block
    for block, last in blocks_of(path, options):
        try:
            text = decoder.decode(block, last)
        except UnicodeError as error:
            raise undecodable(error, path, options, (number, pending)) from error
        # a CR at the very end may be half of CRLF, so it waits too
        end = len(text) if last else max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1
        if end or last:
            for line in io.StringIO(pending + text[:end], newline=""):
                number += 1
                if "\0" in line:
                    cure = 'The file is binary, or in UTF-16: save it as UTF-8, or pass ReadOptions(encoding="utf-16-le").'
                    raise DataError("a NUL byte, which no text file has", place=f"{path.name}, line {number}", cure=cure)
                yield line
            pending = ""
        pending += text[end:]
        if len(pending) > LONGEST_LINE:
            what = f"a line of more than {LONGEST_LINE:,} characters"
            raise DataError(what, place=f"{path.name}, line {number + 1}", cure="This is not a text file.")


def whole_text(path: Path, options: ReadOptions) -> str:
    """All of a text file, however long its lines are. Raises DataError as `lines_of` does."""
    data = b"".join(block for block, _ in blocks_of(path, options))
    name = codecs.lookup(options.encoding).name
    try:
        return data.decode("utf-8-sig" if name == "utf-8" else name)
    except UnicodeError as error:
        raise undecodable(error, path, options, (0, "")) from error


def undecodable(error: UnicodeError, path: Path, options: ReadOptions, before: tuple[int, str]) -> DataError:
    """What to say of bytes that are not in the encoding; `before` is what was read up to this block: lines, and the start of the next."""
    number, pending = before
    found, line = f"the bytes are not {options.encoding}", number + 1
    if isinstance(error, UnicodeDecodeError):
        good = error.object[: error.start].decode(options.encoding, "replace")
        line = number + max(1, len(list(io.StringIO(pending + good + "x", newline=""))))
        found = f"byte 0x{error.object[error.start]:02x} is not {options.encoding}"
    likely = '"utf-16-le")' if b"\0" in getattr(error, "object", b"") else '"cp1252") or "latin-1"'
    cure = f"Save the file as UTF-8, or name its encoding: ReadOptions(encoding={likely}."
    return DataError(found, place=f"{path.name}, line {line}", cure=cure)


def blocks_of(path: Path, options: ReadOptions) -> Iterator[tuple[bytes, bool]]:
    """Blocks of bytes, and whether it is the last one.

    Raises DataError for bombs, damage, files above `max_bytes`, and files that change while they are read.
    """
    total = 0
    cure = f"Raise ReadOptions(max_bytes={options.max_bytes}) if this is meant."
    with damage(path), opened(path) as stream:
        before = path.stat()
        block = stream.read(BLOCK)
        wide = next((name for mark, name in WIDE.items() if block.startswith(mark)), None)
        if wide and not codecs.lookup(options.encoding).name.startswith(("utf-16", "utf-32")):
            said = f'Save it as UTF-8, or pass ReadOptions(encoding="{wide.lower()}").'
            raise DataError(f"it is {wide}", place=path.name, cure=said)
        while True:
            total += len(block)
            if total > options.max_bytes:
                raise DataError(f"more than {options.max_bytes:,} bytes of text", place=path.name, cure=cure)
            if total > BOMB_BYTES and total > BOMB_RATIO * before.st_size:
                what = f"{before.st_size:,} bytes unpack to more than {total:,}: it looks like a gzip bomb"
                raise DataError(what, place=path.name, cure="Unpack it yourself if it is none.")
            following = stream.read(BLOCK)
            if not following:
                after = path.stat()
                if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                    raise DataError("the file changed while it was read", place=path.name, cure="Read it again when nobody writes to it.")
            yield block, not following
            if not following:
                return
            block = following
