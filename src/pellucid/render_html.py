"""A view as a piece of HTML.

Takes a view. Gives markup with inline styles, no script and no reference to anything outside, in the colours of the page around it.
Knows nothing of the values behind the view, or of terminals.
"""

from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite
from typing import assert_never

from pellucid.printable import NOTHING, cell_texts, numbers, plain, width
from pellucid.view import Bars, Cell, Grid, Lines, Spans, Stack, Table, View

CELL_CHARACTERS = 1000  # a longer cell ends with …
BLOCK_COLUMNS = 112  # characters that one block of an across table may take
BLUE, RED, GREY = "66,133,244", "234,67,53", "128,128,128"  # with an alpha they read on white and on black
HUES = (BLUE, "52,168,83", "251,140,0", "171,71,188", "0,172,193", RED, "158,157,36", "236,64,122")
MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12.5px"
FAINT = "opacity:.66"
TABLE = "border-collapse:collapse;border:none;margin:0;width:auto;background:none"
CELL = "padding:2px 16px 2px 0;text-align:left;vertical-align:top;border:none"
RIGHT = "padding:2px 16px 2px 0;text-align:right;vertical-align:top;border:none"
PROSE = "white-space:pre-wrap;overflow-wrap:anywhere;max-width:62em"
WORDS = "white-space:pre-wrap;overflow-wrap:break-word;max-width:62em"  # for cells: a column is as wide as its longest word
BULLET = ";padding-left:1em;text-indent:-.8em"
LONG_WORD = 40  # characters: a word that may be broken, where it would push the other columns off the page
# tex2jax_ignore and mathjax_ignore: a notebook must not read the dollars of a text as mathematics
OPENING = '<div class="pellucid tex2jax_ignore mathjax_ignore" style="font:14px/1.5 system-ui,sans-serif;color:inherit;text-align:left">'


def markup(view: View) -> str:
    """The whole view as one element."""
    return OPENING + "".join(_parts(view, 0)) + "</div>"


def _parts(view: View, depth: int) -> Iterator[str]:
    if isinstance(view, Stack):
        yield _title(view.title, depth)
        for part in view.parts:
            edge = f"border-left:3px solid rgba({BLUE},.45);padding-left:12px;" if depth == 0 else ""
            yield f'<div style="{edge}margin:0 0 14px">'
            yield from _parts(part, depth + 1)
            yield "</div>"
        return
    yield _title(view.title, max(depth, 1))
    match view:
        case Lines():
            yield from (
                f'<div dir="auto" style="{PROSE}{BULLET if line.startswith("•") else ""}">{_safe(line)}</div>' for line in view.lines
            )
        case Table():
            yield from _table(view)
        case Spans():
            yield from _spans(view)
        case Bars():
            yield from _bars(view)
        case Grid():
            yield from _grid(view)
        case _:
            assert_never(view)


def _safe(text: str, limit: int | None = None) -> str:
    return escape(plain(text, limit), quote=True)


def _title(title: str, depth: int) -> str:
    if not title:
        return ""
    size = ("19px", "14px", "13px")[min(depth, 2)]
    style = f"font-size:{size};font-weight:600;margin:0 0 {'12px' if depth == 0 else '3px'}"
    return f'<div role="heading" aria-level="{min(depth + 3, 6)}" style="{style}">{_safe(title)}</div>'


# --- tables -------------------------------------------------------------------------------------------------------------


def _table(table: Table) -> Iterator[str]:
    values: list[list[Cell]] = [[row[number] for row in table.rows] for number in range(len(table.columns))]
    if not table.rows or not table.columns:
        yield f'<div style="{FAINT}">(no rows)</div>'
    elif table.across:
        yield from _across(table.columns, values)
    else:
        yield from _upright(table.columns, values)
    if table.note:
        yield f'<div dir="auto" style="{FAINT};max-width:62em;margin-top:2px">{_safe(table.note)}</div>'


def _upright(names: Sequence[str], values: Sequence[Sequence[Cell]]) -> Iterator[str]:
    columns = [cell_texts(cells) for cells in values]
    yield f'<div style="overflow-x:auto"><table style="{TABLE};{MONO}"><thead><tr style="background:none">'
    for name, (_, numeric) in zip(names, columns, strict=True):
        yield (
            f'<th scope="col" style="{RIGHT if numeric else CELL};border-bottom:1px solid rgba({GREY},.5);font-weight:600">'
            f"{_safe(name, CELL_CHARACTERS)}</th>"
        )
    yield "</tr></thead><tbody>"
    styles = [RIGHT if numeric else f"{CELL};{_breaks(texts)}" for texts, numeric in columns]
    for row in zip(*(texts for texts, _ in columns), strict=True):
        cells = (f'<td style="{style}">{_cell(text)}</td>' for text, style in zip(row, styles, strict=True))
        yield f'<tr style="background:none">{"".join(cells)}</tr>'
    yield "</tbody></table></div>"


def _breaks(texts: Sequence[str]) -> str:
    longest = max((len(word) for text in texts for word in text[:CELL_CHARACTERS].split()), default=0)
    return WORDS if longest <= LONG_WORD else f"{PROSE};min-width:{LONG_WORD // 2}ch"


def _cell(text: str) -> str:
    return f'<span style="{FAINT}">{NOTHING}</span>' if text == NOTHING else _safe(text, CELL_CHARACTERS)


def _across(names: Sequence[str], values: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """Every row of the table is a column of the page, in blocks; names are repeated in front of each."""
    fields = [cell_texts(cells)[0] for cells in values]  # (fields, rows)
    lead = max(width(plain(name, 40)) for name in names) + 2
    columns = list(zip(*fields, strict=True))  # (rows, fields)
    for start, stop in _blocks([max(width(plain(text, 40)) for text in column) for column in columns], BLOCK_COLUMNS - lead):
        yield f'<div style="overflow-x:auto;margin:4px 0 10px"><table style="{TABLE};{MONO}"><tbody>'
        for number, name in enumerate(names):
            head = f"{CELL};{FAINT};font-weight:400;min-width:{lead - 2}ch"
            chip = (
                f"border:none;border-right:4px solid transparent;background:rgba({BLUE},.18);background-clip:padding-box;font-weight:600;"
            )
            style = f"{chip if number == 0 else 'border:none;'}padding:1px 6px;text-align:left;white-space:pre"
            yield f'<tr style="background:none"><th scope="row" style="{head}">{_safe(name, 40)}</th>'
            yield from (f'<td style="{style}">{_cell(text)}</td>' for text in fields[number][start:stop])
            yield "</tr>"
        yield "</tbody></table></div>"


def _blocks(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Start and stop of as many columns as fit at a time."""
    start, used = 0, 0
    for number, columns in enumerate(widths):
        if number > start and used + columns + 2 > room:
            yield start, number
            start, used = number, 0
        used += columns + 2
    yield start, len(widths)


# --- marked text, bars, matrices ----------------------------------------------------------------------------------------


def _spans(view: Spans) -> Iterator[str]:
    hues = {label: HUES[number % len(HUES)] for number, label in enumerate(dict.fromkeys(span.label for span in view.spans))}
    largest = max((abs(span.score) for span in view.spans if span.score is not None and isfinite(span.score)), default=0.0) or 1.0
    yield f'<div dir="auto" style="{PROSE}">'
    end = 0
    for span in view.spans:
        start, stop = max(span.start, end), min(span.end, len(view.text))
        if start >= stop:
            continue
        yield _safe(view.text[end:start])
        strength, hue = 0.3, hues[span.label]
        if not span.label and span.score is not None and isfinite(span.score):  # a strength: how far the colour is turned up
            strength, hue = 0.55 * abs(span.score) / largest, RED if span.score < 0 else BLUE
        score = "" if span.score is None else f"{span.score:.2f}"
        says = _safe(" ".join(part for part in (span.label, score) if part))
        label = f' <span style="font-size:11px;font-weight:600">{says}</span>' if span.label else ""
        style = f"background:rgba({hue},{strength:.2f});color:inherit;border-radius:3px;padding:1px 3px"
        yield f'<mark style="{style}">{_safe(view.text[start:stop])}{label}</mark>'
        end = stop
    yield _safe(view.text[end:]) + "</div>"


def _bars(view: Bars) -> Iterator[str]:
    if not view.values:
        yield f'<div style="{FAINT}">(nothing to show)</div>'
        return
    shown = numbers(view.values)
    intervals = bool(view.lows and view.highs)
    ends = numbers([*view.lows, *view.highs]) if intervals else []
    scale = view.scale()
    yield f'<div style="overflow-x:auto"><table style="{TABLE};{MONO}"><tbody>'
    for number, (name, value) in enumerate(zip(view.labels, view.values, strict=True)):
        hue = RED if value < 0 else BLUE
        fill = f'<div style="height:12px;width:{share(value, scale):.2f}%;background:rgba({hue},.75);border-radius:2px"></div>'
        line, extent = "", ""
        if intervals:
            low, high = sorted((share(view.lows[number], scale), share(view.highs[number], scale)))
            line = (
                f'<div style="position:absolute;top:5px;left:{low:.2f}%;width:{high - low:.2f}%;'
                f'border-top:2px solid currentColor;opacity:.8"></div>'
            )
            extent = f' <span style="{FAINT}">({ends[number]} to {ends[len(view.values) + number]})</span>'
        track = f"position:relative;width:260px;height:12px;margin-top:4px;background:rgba({GREY},.18);border-radius:2px"
        yield (
            f'<tr style="background:none"><th scope="row" style="{CELL};font-weight:400">{_safe(name, CELL_CHARACTERS)}</th>'
            f'<td style="{CELL}"><div style="{track}">{fill}{line}</div></td><td style="{RIGHT}">{shown[number]}{extent}</td></tr>'
        )
    yield "</tbody></table></div>"


def share(value: float, scale: float) -> float:
    """How many per cent of a bar a number fills: 0 to 100, and 0 for what is no number."""
    return 0.0 if value != value else 100.0 * min(abs(value) / scale, 1.0)


def _grid(view: Grid) -> Iterator[str]:
    if not view.rows or not view.columns:
        yield f'<div style="{FAINT}">(nothing to show)</div>'
        return
    count = len(view.columns)
    shown = numbers([value for row in view.values for value in row])  # one scale for the whole matrix
    largest = max((abs(value) for row in view.values for value in row if isfinite(value)), default=0.0) or 1.0
    head = "padding:3px 8px;border:none;font-weight:600"
    yield f'<div style="overflow-x:auto"><table style="{TABLE};{MONO}"><thead><tr style="background:none"><td style="{head}"></td>'
    yield from (f'<th scope="col" style="{head};text-align:right">{_safe(name, 80)}</th>' for name in view.columns)
    yield "</tr></thead><tbody>"
    for number, (name, row) in enumerate(zip(view.rows, view.values, strict=True)):
        yield f'<tr style="background:none"><th scope="row" style="{head};text-align:left">{_safe(name, 80)}</th>'
        for text, value in zip(shown[number * count : (number + 1) * count], row, strict=True):
            strength = 0.6 * abs(value) / largest if isfinite(value) else 0.0
            color = f"background:rgba({RED if value < 0 else BLUE},{strength:.2f})"
            yield f'<td style="padding:3px 8px;border:none;text-align:right;{color}">{text}</td>'
        yield "</tr>"
    yield "</tbody></table></div>"
