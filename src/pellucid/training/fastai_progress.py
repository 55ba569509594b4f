"""What a training shows while it runs: fastai's bars where somebody watches, the line of each epoch where nobody does.

Takes the events of a fit. Gives bars in a terminal or a notebook, lines in a pipe or a file. Knows nothing of what is trained.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from fastai.callback.progress import ProgressCallback
from fastcore.imports import IN_NOTEBOOK
from fastprogress.fastprogress import print_and_maybe_save

NARROWEST = 8  # characters of a column


class Progress(ProgressCallback):
    """fastai's ProgressCallback; where nobody watches it draws no bars, which would fill a log with copies of themselves.

    fastprogress 1.1.6 means to draw none there, but does: it asks whether the output has an `isatty`, not what that says.
    """

    only_watches, stateless = True, True

    def before_fit(self) -> None:
        """Begin the bar of the epochs, or the table that has its place."""
        if watched():
            super().before_fit()
            return
        wanted, self.learn.create_mbar = self.create_mbar, False
        if wanted:
            self.mbar = Lines()
        super().before_fit()
        self.learn.create_mbar = wanted

    def _launch_pbar(self) -> None:
        if watched():
            super()._launch_pbar()
        else:
            self.pbar = Lines()


class Lines:
    """In the place of a bar: writes the lines of the table, and nothing in between."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.comment = ""

    def update(self, value: int) -> None:
        """A bar would grow."""

    def update_graph(self, *graphs: Any) -> None:
        """A notebook would draw."""

    def on_iter_end(self) -> None:
        """A bar would go."""

    def write(self, line: Sequence[str], table: bool = False) -> None:
        """One line; the first one has the names of the columns, and says how wide they are."""
        self.widths = self.widths or [max(len(name), NARROWEST) for name in line]
        print_and_maybe_save("  ".join(cell.ljust(width) for cell, width in zip(line, self.widths, strict=False)).rstrip())
        sys.stdout.flush()  # who follows a log sees the epoch when it ends


def watched() -> bool:
    """Whether bars can be drawn and somebody sees them: in a notebook, or in a terminal."""
    asks = getattr(sys.stdout, "isatty", None)
    return IN_NOTEBOOK or (asks is not None and asks())


def without_bars(learn: Any) -> AbstractContextManager[Any]:
    """What fastai's `no_bar` does; the callback that comes back afterwards is the one that was there."""
    found: AbstractContextManager[Any] = learn.removed_cbs([one for one in learn.cbs if isinstance(one, ProgressCallback)])
    return found
