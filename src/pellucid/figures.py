"""Scores, a confusion matrix and reliability bins as a picture.

Takes bars, a grid and bins. Gives a matplotlib Figure of its own, which no global state knows of.
Knows nothing of reports, models or screens: nothing is shown, and pyplot is never imported.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.calibration import Bin
from pellucid.printable import plain
from pellucid.view import Bars, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL_LENGTH = 28  # characters of a label beside an axis


def figure_of(scores: Bars, confusion: Grid | None = None, bins: Sequence[Bin] = ()) -> "Figure":
    """One panel for each of the three that there is, side by side."""
    from matplotlib.figure import Figure

    panels = 1 + (confusion is not None) + bool(bins)
    figure = Figure(figsize=(4.6 * panels, 4.2), layout="constrained")
    axes = iter(figure.subplots(1, panels, squeeze=False)[0])
    draw_bars(next(axes), scores)
    if confusion is not None:
        draw_grid(next(axes), confusion)
    if bins:
        draw_reliability(next(axes), bins)
    return figure


def draw_bars(axes: Any, bars: Bars) -> None:
    """A horizontal bar for each system with its interval, the first on top."""
    places = np.arange(len(bars.labels))
    values = np.array(bars.values)
    axes.barh(places, values, color=["#3b6ea5", *["#b0b7bf"] * (len(values) - 1)][: len(values)])
    if bars.lows:
        below, above = values - np.array(bars.lows), np.array(bars.highs) - values
        axes.errorbar(values, places, xerr=np.maximum(0, [below, above]), fmt="none", ecolor="black", capsize=3)
    axes.invert_yaxis()
    name(axes, yticks=bars.labels, title=bars.title)


def draw_grid(axes: Any, grid: Grid) -> None:
    """The counts in a square each, shaded by their share of the row."""
    counts = np.array(grid.values)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(grid.rows) <= 12:  # more numbers than this do not fit
        for row, column in np.ndindex(*counts.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=color, fontsize=8)
    name(axes, yticks=grid.rows, xticks=grid.columns, title="confusion", across="answer", up="target")
    axes.tick_params(axis="x", rotation=90)


def draw_reliability(axes: Any, bins: Sequence[Bin]) -> None:
    """The share of right answers over the confidence; on the diagonal confidence means what it says."""
    axes.plot([0, 1], [0, 1], color="#b0b7bf", linestyle="--")
    largest = max(each.count for each in bins)
    sizes = [20 + 180 * each.count / largest for each in bins]
    axes.plot([each.confidence for each in bins], [each.right for each in bins], color="#3b6ea5")
    axes.scatter([each.confidence for each in bins], [each.right for each in bins], s=sizes, color="#3b6ea5", alpha=0.6)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    name(axes, title="reliability (size: answers)", across="confidence", up="share right")


def name(
    axes: Any, *, title: str, across: str = "", up: str = "", xticks: Sequence[str] | None = None, yticks: Sequence[str] | None = None
) -> None:
    """Title, axis names and labels, none of which is read as mathematics: a label may hold a dollar sign."""
    texts = [axes.set_title(title), axes.set_xlabel(across), axes.set_ylabel(up)]
    if xticks is not None:
        axes.set_xticks(range(len(xticks)), [plain(label, LABEL_LENGTH) for label in xticks])
    if yticks is not None:
        axes.set_yticks(range(len(yticks)), [plain(label, LABEL_LENGTH) for label in yticks])
    for text in [*texts, *axes.get_xticklabels(), *axes.get_yticklabels()]:
        text.set_parse_math(False)
