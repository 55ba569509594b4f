"""A view as lines of a terminal.

Takes a view, a width in columns and whether colours may be used. Gives lines that never exceed the width, columns straight.
Knows nothing of the values behind the view, or of HTML.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from pellucid.printable import aligned, cell_texts, numbers, pad, plain, shorten, width, wrap
from pellucid.view import Bars, Cell, Grid, Lines, Spans, Stack, Table, View

GAP = 2  # spaces between columns
NARROW = 14  # a column of prose is not squeezed below this
PIECE = 24  # the widest column of a table that runs across
CELL_LINES = 4  # lines that one cell may take
EIGHTHS = " ▏▎▍▌▋▊▉"
BOLD, DIM, MARKED, BLUE, RED = "1", "2", "7", "34", "31"


@dataclass(frozen=True, slots=True)
class Paper:
    """What is written on: columns, and whether colours may be used."""

    width: int
    color: bool

    def ink(self, text: str, style: str) -> str:
        """`text` in a style (an SGR code), where colours may be used."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.color and text.strip() else text


def lines_of(view: View, paper: Paper, depth: int = 0) -> Iterator[str]:
    """The lines of a view, title first."""
    if isinstance(view, Stack):
        yield from _title(view.title, paper, depth)
        for number, part in enumerate(view.parts):
            if number or view.title:
                yield ""
            yield from lines_of(part, paper, depth + 1)
        return
    yield from _title(view.title, paper, max(depth, 1))
    match view:
        case Lines():
            yield from (line for text in view.lines for line in _paragraph(plain(text), paper.width))
        case Table():
            yield from _table(view, paper)
        case Spans():
            yield from _spans(view, paper)
        case Bars():
            yield from _bars(view, paper)
        case Grid():
            yield from _grid(view, paper)
        case _:
            assert_never(view)


def _title(title: str, paper: Paper, depth: int) -> Iterator[str]:
    """The outermost title stands over a double rule, those within it stand in a single one."""
    if not title:
        return
    if depth == 0:
        lines = wrap(plain(title), paper.width)
        yield from (paper.ink(line, BOLD) for line in lines)
        yield paper.ink("═" * max(map(width, lines)), DIM)
        return
    shown = shorten(aligned(title, paper.width), paper.width - 6)
    if depth > 1:
        yield paper.ink(f"▸ {shown}", BOLD)
        return
    rule = "─" * (paper.width - 4 - width(shown))
    yield f"{paper.ink('──', DIM)} {paper.ink(shown, BOLD)} {paper.ink(rule, DIM)}"


def _paragraph(text: str, room: int) -> list[str]:
    """A text in lines; under a bullet they are indented."""
    if not text.startswith("• "):
        return wrap(text, room)
    first, *others = wrap(text.removeprefix("• "), room - 2)
    return [f"• {first}", *(f"  {line}" for line in others)]


# --- columns ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One printed column: its head, its cells, how wide it may be and whether it holds numbers."""

    head: str
    cells: tuple[str, ...]
    room: int
    right: bool

    def squeezed(self, room: int) -> "Column":
        """The same column, at most `room` wide."""
        return Column(self.head, self.cells, min(self.room, room), self.right)


def _column(head: str, texts: Sequence[str], numeric: bool, most: int) -> Column:
    """A column as wide as its widest cell, at most `most`; cells are cut to what it can ever show."""
    limit = most * CELL_LINES
    cells = tuple(aligned(text, limit) for text in texts)
    return Column(aligned(head, limit), cells, min(most, max(map(width, (aligned(head, limit), *cells)))), numeric)


def _table(table: Table, paper: Paper) -> Iterator[str]:
    values: list[list[Cell]] = [[row[number] for row in table.rows] for number in range(len(table.columns))]
    if not table.rows or not table.columns:
        yield paper.ink("(no rows)", DIM)
    elif table.across:
        yield from _across(table.columns, values, paper)
    else:
        columns = []
        for name, cells in zip(table.columns, values, strict=True):
            texts, numeric = cell_texts(cells)
            columns.append(_column(name, texts, numeric, paper.width))
        yield from _columns(columns, paper)
    for line in wrap(plain(table.note), paper.width) if table.note else ():
        yield paper.ink(line, DIM)


def _columns(columns: Sequence[Column], paper: Paper) -> Iterator[str]:
    """Columns side by side; prose is squeezed until they fit, and where it cannot they go on in further blocks."""
    room = paper.width - GAP * (len(columns) - 1)
    level = _level([column.room for column in columns], room)
    if level is not None:
        yield from _block([column.squeezed(level) for column in columns], paper)
        return
    lead = columns[0].squeezed(max(NARROW, paper.width // 4))
    for number, block in enumerate(_blocks(columns[1:], paper.width - lead.room)):
        if number:
            yield ""
        yield from _block([lead, *block], paper)


def _level(rooms: Sequence[int], room: int) -> int | None:
    """The greatest width at which columns cut to it fit into `room`; None where they would get too narrow to read."""
    if sum(rooms) <= room:
        return max(rooms)
    left, level = room, 0
    for number, wanted in enumerate(sorted(rooms)):
        level = max(left, 0) // (len(rooms) - number)
        if wanted > level:
            break
        left -= wanted
    return level if level >= NARROW else None


def _blocks(columns: Sequence[Column], room: int) -> Iterator[list[Column]]:
    """As many columns as fit at a time; a gap stands before each."""
    block: list[Column] = []
    used = 0
    for column in columns:
        squeezed = column.squeezed(room - GAP)
        if block and used + GAP + squeezed.room > room:
            yield block
            block, used = [], 0
        block.append(squeezed)
        used += GAP + squeezed.room
    if block:
        yield block


def _block(columns: Sequence[Column], paper: Paper) -> Iterator[str]:
    heads = [pad(shorten(column.head, column.room), column.room, right=column.right) for column in columns]
    yield paper.ink((" " * GAP).join(heads).rstrip(), BOLD)
    yield paper.ink((" " * GAP).join("─" * column.room for column in columns), DIM)
    for row in zip(*(column.cells for column in columns), strict=True):
        yield from _row(row, columns)


def _row(row: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
    """The lines of one row: as many as its tallest cell."""
    wrapped = [_cell_lines(text, column.room) for text, column in zip(row, columns, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = [lines[number] if number < len(lines) else "" for lines in wrapped]
        yield (" " * GAP).join(pad(part, column.room, right=column.right) for part, column in zip(parts, columns, strict=True)).rstrip()


def _cell_lines(text: str, room: int) -> list[str]:
    lines = wrap(text, room)
    if len(lines) <= CELL_LINES:
        return lines
    last = lines[CELL_LINES - 1]
    return [*lines[: CELL_LINES - 1], shorten(last, room - 1).removesuffix("…") + "…"]


def _across(names: Sequence[str], values: Sequence[Sequence[Cell]], paper: Paper) -> Iterator[str]:
    """Every row of the table is a column of the page; names are repeated in front of each block."""
    fields = [[aligned(text, PIECE * 2) for text in cell_texts(cells)[0]] for cells in values]  # (fields, rows)
    heads = [shorten(aligned(name, PIECE), min(PIECE, paper.width // 3)) for name in names]
    lead = max(map(width, heads))
    columns = []
    for values_of_one in zip(*fields, strict=True):
        short = tuple(shorten(text, PIECE) for text in values_of_one)
        columns.append(Column("", short, max(map(width, short)), False))
    for number, block in enumerate(_blocks(columns, paper.width - lead)):
        if number:
            yield ""
        for line, head in enumerate(heads):
            cells = [pad(shorten(column.cells[line], column.room), column.room) for column in block]
            text = (" " * GAP).join(cells).rstrip()
            if not text:
                yield paper.ink(head.rstrip(), DIM)
                continue
            yield paper.ink(pad(head, lead), DIM) + " " * GAP + (paper.ink(text, BOLD) if line == 0 else text)


# --- marked text, bars, matrices ----------------------------------------------------------------------------------------


def _spans(view: Spans, paper: Paper) -> Iterator[str]:
    """⟦marked → label score⟧ within the text; where colours may be used, marked stretches are inverted."""
    parts: list[str] = []
    end = 0
    for span in view.spans:
        start, stop = max(span.start, end), min(span.end, len(view.text))
        if start >= stop:
            continue
        score = "" if span.score is None else f"{span.score:.2f}"
        label = " ".join(part for part in (plain(span.label), score) if part)
        parts += [plain(view.text[end:start]), "⟦", plain(view.text[start:stop]), f" → {label}" if label else "", "⟧"]
        end = stop
    parts.append(plain(view.text[end:]))
    inside = False
    for line in wrap("".join(parts), paper.width):
        text, inside = _invert(line, inside) if paper.color else (line, inside)
        yield text


def _invert(line: str, inside: bool) -> tuple[str, bool]:
    """A line with what stands between ⟦ and ⟧ inverted, and whether a mark is still open at its end."""
    on, off = f"\x1b[{MARKED}m", "\x1b[0m"
    shown = line.replace("⟦", on + "⟦").replace("⟧", "⟧" + off)
    still = line.rfind("⟦") > line.rfind("⟧") if "⟦" in line or "⟧" in line else inside
    return (on if inside else "") + shown + (off if still else ""), still


def _bars(view: Bars, paper: Paper) -> Iterator[str]:
    if not view.values:
        yield paper.ink("(nothing to show)", DIM)
        return
    most = max(8, paper.width // 3)
    labels = [shorten(aligned(label, most * 2), most) for label in view.labels]
    shown = numbers(view.values)
    if view.lows and view.highs:
        ends = numbers([*view.lows, *view.highs])
        count = len(view.values)
        shown = [f"{value} ({low} to {high})" for value, low, high in zip(shown, ends[:count], ends[count:], strict=True)]
    lead, tail = max(map(width, labels)), max(map(len, shown))
    room = min(40, paper.width - lead - tail - 2 * GAP)
    for number, (label, value, text) in enumerate(zip(labels, view.values, shown, strict=True)):
        if room < 4:  # no place for a bar: the number is what counts
            yield from wrap(f"{label}  {text}", paper.width)
            continue
        bar = _bar(view, number, room)
        yield f"{pad(label, lead)}{' ' * GAP}{paper.ink(bar, RED if value < 0 else BLUE)}{' ' * GAP}{pad(text, tail, right=True)}"


def _bar(view: Bars, number: int, room: int) -> str:
    """One bar in eighths of a column; ░ marks the interval around its end, ▒ a negative number."""
    scale = view.scale()
    value = abs(view.values[number])
    eighths = round(min(value / scale, 1.0) * room * 8) if value < float("inf") else 0 if value != value else room * 8
    bar = "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")
    if view.lows and view.highs:
        start, end = (round(min(max(edge / scale, 0.0), 1.0) * room) if abs(edge) < float("inf") else 0 for edge in _ends(view, number))
        bar = "█" * start + "░" * (end - start)
    return (bar if view.values[number] >= 0 else "▒" * round(eighths / 8)).ljust(room)


def _ends(view: Bars, number: int) -> tuple[float, float]:
    ends = sorted((view.lows[number], view.highs[number]))
    return (ends[0], ends[1]) if view.values[number] >= 0 else (-ends[1], -ends[0])


def _grid(view: Grid, paper: Paper) -> Iterator[str]:
    if not view.rows or not view.columns:
        yield paper.ink("(nothing to show)", DIM)
        return
    count = len(view.columns)
    shown = numbers([value for row in view.values for value in row])  # one scale for the whole matrix
    most = max(NARROW, paper.width // 4)
    columns = [_column("", view.rows, False, most)]
    for number, name in enumerate(view.columns):
        column = _column(name, shown[number::count], True, most)
        columns.append(column)
    yield from _columns(columns, paper)
