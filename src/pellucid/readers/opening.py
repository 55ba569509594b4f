"""Opens a text file and gives its lines.

Takes a path and the options of a read. Gives lines with their ends, decoded, from a plain or a gzip file, within the limits.
Knows nothing of cells, columns or rows.
"""

import codecs
import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pellucid.errors import DataError
from pellucid.readers.chunks import ReadOptions

BLOCK = 1 << 20  # bytes read at a time
LONGEST_LINE = 1 << 28  # characters; a longer line is not text
BOMB_RATIO, BOMB_BYTES = 1000, 1 << 28  # unpacked bytes a packed byte, looked at once so much has been unpacked
ARCHIVES = {b"PK\x03\x04": "a zip archive", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file", b"(\xb5/\xfd": "a zstd file"}
WIDE = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def checked_path(path: Path) -> Path:
    """The path of a regular file or a folder. Raises DataError for what is not there, and for pipes and devices, which may never end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        cure = "Check the name; a relative path starts at " + str(Path.cwd()) + "."
        raise DataError(f"it cannot be read: {error.strerror or error}", place=str(path), cure=cure) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError("it is a pipe or a device, not a file", place=str(path), cure="Copy its content to a file first.")
    return path


def first_bytes(path: Path, count: int = 512) -> bytes:
    """The first bytes of a file, unpacked where it is gzip. Raises DataError."""
    with opened(path) as stream:
        return stream.read(count)


def opened(path: Path) -> BinaryIO:
    """The file as bytes, unpacked where it begins as gzip does, whatever its name. Raises DataError for other archives."""
    with path.open("rb") as file:
        start = file.read(512)
    for magic, what in ARCHIVES.items():
        if start.startswith(magic):
            raise DataError(
                f"it is {what}", place=str(path), cure="Unpack it yourself and read the file inside; pellucid unpacks gzip only."
            )
    if start[257:262] == b"ustar":
        raise DataError("it is a tar archive", place=str(path), cure="Unpack it yourself and read the file inside.")
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile reads like a file
    return path.open("rb")


def lines_of(path: Path, options: ReadOptions) -> Iterator[str]:
    """The lines with their ends, split at CR, LF and CRLF only. Raises DataError that names the line."""
    place, number = path.name, 0
    encoding = "utf-8-sig" if options.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else options.encoding
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    pending = ""
    for block, last in blocks_of(path, options):
        try:
            text = pending + decoder.decode(block, last)
        except UnicodeDecodeError as error:
            line = number + (pending + error.object[: error.start].decode(encoding, "replace")).count("\n") + 1
            found = f"byte 0x{error.object[error.start]:02x} is not {options.encoding}"
            cure = 'Save the file as UTF-8, or name its encoding: ReadOptions(encoding="cp1252") or "latin-1".'
            raise DataError(found, place=f"{place}, line {line}", cure=cure) from error
        pending = ""
        for line_text in io.StringIO(text, newline=""):
            if not last and not line_text.endswith("\n"):  # the rest is still to come; a CR may be half of CRLF
                pending += line_text
                continue
            number += 1
            if "\0" in line_text:
                cure = "The file is binary, or in UTF-16: save it as UTF-8."
                raise DataError("a NUL byte, which no text file has", place=f"{place}, line {number}", cure=cure)
            yield line_text
        if pending.count("\r") > 1 or (pending and "\r" in pending[:-1]):  # lines that end in CR alone
            *whole, pending = io.StringIO(pending, newline="")
            number += len(whole)
            yield from whole
        if len(pending) > LONGEST_LINE:
            raise DataError(
                "a line of more than 268 million characters", place=f"{place}, line {number + 1}", cure="This is not a text file."
            )


def blocks_of(path: Path, options: ReadOptions) -> Iterator[tuple[bytes, bool]]:
    """Blocks of bytes, and whether it is the last one. Raises DataError for bombs, damage and files above `max_bytes`."""
    packed, total = max(1, path.stat().st_size), 0
    cure = f"Raise ReadOptions(max_bytes={options.max_bytes}) if this is meant."
    try:
        with opened(path) as stream:
            block = stream.read(BLOCK)
            wide = next((name for mark, name in WIDE.items() if block.startswith(mark)), None)
            if wide and "16" not in options.encoding:
                raise DataError(f"it is {wide}", place=path.name, cure='Save it as UTF-8, or pass ReadOptions(encoding="utf-16").')
            while True:
                total += len(block)
                if total > options.max_bytes:
                    raise DataError(f"more than {options.max_bytes:,} bytes of text", place=path.name, cure=cure)
                if total > BOMB_BYTES and total / packed > BOMB_RATIO:
                    raise DataError(f"{packed:,} bytes unpack to more than {total:,}", place=path.name, cure="This looks like a gzip bomb.")
                following = stream.read(BLOCK)
                yield block, not following
                if not following:
                    return
                block = following
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"the gzip file is damaged or cut short: {error}", place=path.name, cure="Fetch it again.") from error
