"""What long work looks like where somebody watches, and where nobody does.

Takes streams and counts. Gives bars that write one line again in a terminal, and plain lines in a pipe or a file.
Knows nothing of what the work is.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import TextIO

SECONDS_WITHOUT_A_WORD = 1.0
SECONDS_BETWEEN_LINES = 10.0  # where lines are not written again
FLAGS: Mapping[str, str] = MappingProxyType(  # what a script passes → what a shell passes
    {
        r"ModelOptions\(new_head=True\)": "--new-head",
        r"ReadOptions\(valid_fraction=…, seed=…\)": "--valid-fraction",
        r"ReadOptions\(valid_fraction=([\d.]+)\)": r"--valid-fraction \1",
        r'SequenceClassification\(kind="regression"\)': "--label-kind number",
        r"pellucid\.load\('[^']+', base=…\)": "--base …",
        r"\b([Ss]et) size=": r"\1 --size ",
        r'\btake kind="([a-z-]+)"': r"take --kind \1",
        r"\blower min_frequency\b": "lower --min-frequency",
        r"Pass label=False for none": "Pass --label to choose",
        r"\b(text|label|split|delimiter|encoding|max_length|device)=": r"--\1 ",
        r"\btext_pair=": "--text-pair ",
    }
)


def in_shell_words(text: str) -> str:
    """A sentence for a script, `Pass text=…`, as one for a shell: `Pass --text …`."""
    for spoken, flag in FLAGS.items():
        text = re.sub(spoken, flag, text)
    return re.sub(r"(--[a-z-]+)  ?(?=[\s.,;]|$)", r"\1", text)


def progress(what: str, stream: TextIO) -> Callable[[int, int], None]:
    """A `progress(done, total)` that writes to `stream`: nothing in the first second, then a line that is written again, or a few lines."""
    terminal = stream.isatty()
    start = monotonic()
    last = start if terminal else start + SECONDS_WITHOUT_A_WORD - SECONDS_BETWEEN_LINES
    spoken = False

    def write(done: int, total: int) -> None:
        nonlocal last, spoken
        now = monotonic()
        finished = done >= total
        quiet = now - start < SECONDS_WITHOUT_A_WORD if terminal else now - last < SECONDS_BETWEEN_LINES
        if (quiet and not finished) or (finished and not spoken):
            return
        spoken, last = True, now
        share = f"{what} {done:,}/{total:,}"
        stream.write(f"\r{share}" + ("\n" if finished else "") if terminal else share + "\n")
        stream.flush()

    return write


def forgiving_streams() -> None:
    """Characters that a stream does not know are written as their codes, so that a report never ends in the middle."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_quietly() -> None:
    """Write what is left; a reader that has gone away (`| head`) is no mistake."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
