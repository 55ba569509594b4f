"""A neutral picture of a value.

Takes plain strings and numbers. Gives frozen views that `render` turns into terminal text, HTML or a DataFrame.
Knows nothing of screens, models or tokens.
"""

from dataclasses import dataclass

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Lines:
    """Plain lines of text under a title."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns; `note` is one line below them.

    `across` asks for a page on which every row is a column, in blocks as wide as the page: a list of tokens reads like that.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    across: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A marked stretch of a text: characters `start` to `end` (exclusive), with a label and an optional score or strength."""

    start: int
    end: int
    label: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Spans:
    """A text with marked stretches; spans are ordered and do not overlap."""

    title: str
    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Named numbers, with an interval each where `lows` and `highs` are given (same length as `values`)."""

    title: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()

    def scale(self) -> float:
        """The number that fills a bar: 1 for shares and probabilities, else the largest there is."""
        numbers = [abs(value) for value in (*self.values, *self.lows, *self.highs) if abs(value) < float("inf")]
        largest = max(numbers, default=0.0)
        shares = 0.1 < largest <= 1.0 and all(value >= 0 for value in self.values)
        return 1.0 if shares else largest or 1.0


@dataclass(frozen=True, slots=True)
class Grid:
    """A matrix of numbers with named rows and columns (a confusion matrix, an attention map)."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """Views one below the other, in order."""

    title: str
    parts: tuple["View", ...]


View = Lines | Table | Spans | Bars | Grid | Stack
