"""Looking at values: the view of anything that pellucid gives, on the screen that is there.

Takes a value. Gives its view, or shows it: text in a terminal or a file, HTML in a notebook.
Knows nothing of how a value was made; what has a `view()` is shown through it.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from inspect import Parameter, isfunction, signature
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeGuard, get_args

from pellucid.errors import SettingError
from pellucid.portraits import weight_lines
from pellucid.render import NARROWEST, to_html, to_text
from pellucid.types import Note, Prediction, Trace
from pellucid.view import Lines, Stack, Table, View

if TYPE_CHECKING:
    from pellucid.provenance import Provenance

PAGE = 100  # columns, where no terminal says how wide it is
WIDEST = 140
ROWS_SHOWN = 20  # of a list of predictions
ASCII = str.maketrans("─═█▒░▏▎▍▌▋▊▉·•…×→⟦⟧⟨⟩▸↵⇥", "-=#~:.......-*.x>[]<>>/>")


class Viewable(Protocol):
    """Anything that can draw itself as a view."""

    def view(self) -> View:
        """The value as a view."""
        ...


def view_of(value: object, provenance: "Provenance | None" = None) -> View:
    """The view of a value of pellucid, of a text, or of a list of such values.

    `provenance` adds to a Trace which weights made the answer, and which of them are new. Raises SettingError for anything else.
    """
    if isinstance(value, Trace) and provenance is not None:
        return replace(value, weights=_weights(provenance)).view()
    if isinstance(value, get_args(View)):
        return value
    if _draws_itself(value):
        return value.view()
    if isinstance(value, str):
        return Lines("", tuple(value.split("\n")))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return _many(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise SettingError(
        f"a {kind} has no view", cure="Show a value of pellucid, a list of them, or anything with a method view() that gives a View."
    )


def _draws_itself(value: object) -> TypeGuard[Viewable]:
    """Whether a value has our kind of `view()`. Arrays and tensors have another kind, tasks one that wants arguments."""
    method = getattr(type(value), "view", None)
    if not isfunction(method):
        return False
    needed = [p for p in signature(method).parameters.values() if p.default is Parameter.empty and p.kind is not Parameter.VAR_KEYWORD]
    return len(needed) == 1


def _weights(provenance: "Provenance") -> tuple[str, ...]:
    counts = {str(origin): count for origin, count in provenance.counts().items()}
    return weight_lines(counts, sorted(provenance.new_names()))


def _steps(steps: Sequence[Any]) -> Table:
    rows = tuple((step.name, step.takes, step.gives, step.what) for step in steps)
    return Table("steps", ("step", "takes", "gives", "what does it here"), rows)


def _many(values: Sequence[Any]) -> View:
    """A list: notes as sentences, steps and predictions as a table, everything else one below the other."""
    first = list(values[:ROWS_SHOWN])
    if all(isinstance(value, Note) for value in values):
        return Lines("notes", tuple(f"• {note}" for note in values) or ("(none)",))
    if all(all(hasattr(value, name) for name in ("name", "takes", "gives", "what")) for value in first):
        return _steps(values)
    note = f"the first {ROWS_SHOWN} of {len(values):,}" if len(values) > ROWS_SHOWN else ""
    if all(isinstance(value, Prediction) for value in first):
        rows = tuple((value.row, value.says()) for value in first)
        return Table("predictions", ("row", "answer"), rows, note)
    return Stack(note, tuple(view_of(value) for value in first))


def show(value: object, *, file: TextIO | None = None, width: int | None = None) -> None:
    """Show a value where the user is: HTML in a notebook, text in a terminal or in `file`.

    `width` is in columns; without it, the terminal's (100 where there is none). Colours only on a terminal, and not where the
    environment variable NO_COLOR is set. Raises SettingError for a value without a view.
    """
    view = view_of(value)
    kernel = _kernel() if file is None else None
    if kernel is not None:
        from IPython.display import HTML, display

        display(HTML(to_html(view)))
        return
    stream = sys.stdout if file is None else file
    terminal = _is_terminal(stream)
    columns = shutil.get_terminal_size((PAGE, 24)).columns if terminal else PAGE
    color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    text = to_text(view, width=width or max(NARROWEST, min(columns, WIDEST)), color=color)
    print(_encodable(text, getattr(stream, "encoding", None)), file=stream)


def _kernel() -> object | None:
    """The running kernel of a notebook. IPython is only asked where somebody has loaded it."""
    ipython = sys.modules.get("IPython")
    shell = getattr(ipython, "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None)


def _is_terminal(stream: TextIO) -> bool:
    asks = getattr(stream, "isatty", None)
    return bool(asks()) if callable(asks) else False


def _encodable(text: str, encoding: str | None) -> str:
    """`text` for a stream that may not know all characters: rules and bars in ASCII, the rest as its escaped code."""
    if encoding is None:
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text
