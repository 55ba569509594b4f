"""Views on a screen: terminal text, HTML, a DataFrame, CSV.

Takes a view. Gives strings that are safe to print, to embed and to open in a spreadsheet, or a frame with the raw values.
Knows nothing of the values behind the view, and writes nothing anywhere.
"""

import csv
import io
from typing import TYPE_CHECKING

from pellucid.errors import SettingError
from pellucid.printable import formula_safe, plain
from pellucid.render_html import markup
from pellucid.render_text import Paper, lines_of
from pellucid.view import Bars, Cell, Grid, Spans, Table, View

if TYPE_CHECKING:
    import pandas

__all__ = ["NARROWEST", "formula_safe", "plain", "to_csv", "to_frame", "to_html", "to_text"]

NARROWEST = 40  # columns; below this a table of numbers cannot be read


def to_text(view: View, *, width: int = 100, color: bool = False) -> str:
    """The view for a terminal of `width` columns (at least 40), without a trailing new line.

    No line is wider, columns stand straight under wide characters, and nothing in it can move the cursor or change a colour but
    the styles that `color` asks for. Raises SettingError.
    """
    if width < NARROWEST:
        raise SettingError(f"width is {width}, expected at least {NARROWEST} columns", cure=f"Pass width={NARROWEST} or more.")
    return "\n".join(lines_of(view, Paper(width, color)))


def to_html(view: View) -> str:
    """The view as one element with inline styles and no script; it takes its colours from the page, light or dark."""
    return markup(view)


def to_frame(view: View) -> "pandas.DataFrame":
    """The raw values of a Table, Bars, Grid or Spans: one row a row, bar, line of the matrix, or marked stretch.

    Raises SettingError for Lines and Stack, which have no columns.
    """
    import pandas

    if isinstance(view, Grid):
        return pandas.DataFrame(list(view.values), index=list(view.rows), columns=list(view.columns))
    columns, rows = _columns_and_rows(view)
    return pandas.DataFrame(rows, columns=list(columns), dtype=object).infer_objects()


def to_csv(view: View) -> str:
    """The values of a Table, Bars, Grid or Spans as CSV with a header; what a spreadsheet would run gets an apostrophe in front.

    Raises SettingError for Lines and Stack, which have no columns.
    """
    columns, rows = _columns_and_rows(view)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # minimal quoting forgets a bare CR
    writer.writerow([formula_safe(name) for name in columns])
    writer.writerows([formula_safe(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue()


def _columns_and_rows(view: View) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    match view:
        case Table():
            return view.columns, list(view.rows)
        case Bars():
            if view.lows and view.highs:
                return ("label", "value", "low", "high"), list(zip(view.labels, view.values, view.lows, view.highs, strict=True))
            return ("label", "value"), list(zip(view.labels, view.values, strict=True))
        case Grid():
            return ("", *view.columns), [(name, *row) for name, row in zip(view.rows, view.values, strict=True)]
        case Spans():
            spans = [(span.start, span.end, view.text[span.start : span.end], span.label, span.score) for span in view.spans]
            return ("start", "end", "text", "label", "score"), list(spans)
    kind = type(view).__name__
    raise SettingError(f"a {kind} has no columns", cure="Take a Table, Bars, Grid or Spans: the parts of a Stack are in view.parts.")
