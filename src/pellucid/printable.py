"""Strings that a screen can print without harm, and how many columns they fill.

Takes any string or cell. Gives text without control characters, escape sequences, direction overrides or piles of combining marks.
Knows nothing of terminals, HTML or layouts.
"""

import math
import unicodedata
from collections.abc import Iterator, Sequence

from pellucid.view import Cell

MARKS_SHOWN = 5  # combining marks in a row; more than these climb over the lines above ("zalgo") and are counted instead
NOTHING = "·"  # an empty cell
_JOINERS = {0x200C, 0x200D}  # zero width non-joiner and joiner: Persian, Indic scripts and emoji families need them
# Not the pictures of U+2400 (one for ESC, one for NUL …): common fonts draw all of them as the same empty box.
_CONTROLS = {"\n": "↵", "\t": "⇥", "\r": "⟨CR⟩", "\0": "⟨NUL⟩", "\a": "⟨BEL⟩", "\b": "⟨BS⟩", "\x1b": "⟨ESC⟩", "\x7f": "⟨DEL⟩"}
_FILLERS = {0x115F, 0x3164, 0xFFA0}
_FORMULA_STARTS = frozenset("=+-@|\t\r\n＝＋－＠")
_LEADING_SPACE = " \u00a0\u3000\ufeff\0"
_EMOJI_STYLES = {0xFE0E, 0xFE0F}  # "as text", "as emoji": the second makes some characters wider, but not on every terminal


def plain(text: str, limit: int | None = None) -> str:
    """`text` with everything visible that a screen would obey or hide; only its first `limit` characters, then "…".

    A new line becomes ↵ and a tab ⇥, other control characters their name (⟨ESC⟩, ⟨NUL⟩), characters that reorder, hide or split
    text their code (⟨U+202E⟩), and of more than five combining marks in a row the rest is counted: ⟨+4995 marks⟩. What comes out
    never holds a character of the categories Cc, Cs, Zl or Zp, and of Cf only a joiner between two characters that it may join.
    """
    return _visible(text, limit, aligned=False)


def aligned(text: str, limit: int | None = None) -> str:
    """`plain`, and characters whose width terminals disagree about (emoji joiners, skin tones, private use) made visible as well."""
    return _visible(text, limit, aligned=True)


def _visible(text: str, limit: int | None, *, aligned: bool) -> str:
    cut = text if limit is None or len(text) <= limit else text[: max(limit, 0)]
    shown = cut if cut.isascii() and cut.isprintable() else "".join(_pieces(cut, aligned))
    return shown if len(cut) == len(text) else shown + "…"


def _pieces(text: str, aligned: bool) -> Iterator[str]:
    marks = 0
    for position, char in enumerate(text):
        category = unicodedata.category(char)
        if aligned and ord(char) in _EMOJI_STYLES:
            continue
        if category[0] == "M":
            marks += 1
            if position == 0:
                yield "◌"  # a mark without a letter would climb on what stands before it on the screen
            if marks <= MARKS_SHOWN:
                yield char
            continue
        if marks > MARKS_SHOWN:
            yield f"⟨+{marks - MARKS_SHOWN} marks⟩"
        marks = 0
        yield _picture(char, category, text[position - 1 : position], text[position + 1 : position + 2], aligned)
    if marks > MARKS_SHOWN:
        yield f"⟨+{marks - MARKS_SHOWN} marks⟩"


def _picture(char: str, category: str, before: str, after: str, aligned: bool) -> str:
    """What stands for one character that is not a combining mark."""
    code = ord(char)
    if category == "Cc":
        return _CONTROLS.get(char) or f"⟨U+{code:04X}⟩"
    if category in {"Cf", "Zl", "Zp", "Cs"}:
        joins = code in _JOINERS and _kind(before) in {"L", "M", "S"} and _kind(after) in {"L", "S"}
        if joins and not (aligned and _kind(after) == "S"):
            return char
        return f"⟨U+{code:04X}⟩"
    if code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF or code in _FILLERS:  # no characters at all, or letters that look like none
        return f"⟨U+{code:04X}⟩"
    if aligned and (category in {"Cn", "Co"} or (0x1F3FB <= code <= 0x1F3FF and before)):
        return f"⟨U+{code:04X}⟩"
    return char


def _kind(char: str) -> str:
    return unicodedata.category(char)[0] if char else ""


def width(text: str) -> int:
    """The columns that a text fills in a terminal: 2 for East Asian wide characters and emoji, 0 for marks, 1 for the rest."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    code = ord(char)
    if code < 0x300:
        return 1
    if unicodedata.category(char) in {"Mn", "Me", "Cf"} or 0x1160 <= code <= 0x11FF or 0xD7B0 <= code <= 0xD7FF:
        return 0  # the last two ranges: vowels and final consonants of Korean, drawn into the syllable before them
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def shorten(text: str, room: int) -> str:
    """`text` if it fits into `room` columns, else its beginning and "…"."""
    if width(text) <= room:
        return text
    used = 0
    for position, char in enumerate(text):
        used += _char_width(char)
        if used > room - 1:
            return text[:position] + "…"
    return text


def pad(text: str, room: int, *, right: bool = False) -> str:
    """`text` with the spaces that fill `room` columns, before it where `right`."""
    space = " " * (room - width(text))
    return space + text if right else text + space


def wrap(text: str, room: int) -> list[str]:
    """Lines of at most `room` (≥ 2) columns, broken at spaces where there are any and between characters where there are not."""
    lines: list[str] = []
    line: list[str] = []
    used = 0
    for word in text.split(" "):
        for part in _breakable(word, room):
            need = width(part) + (1 if line else 0)
            if line and used + need > room:
                lines.append(" ".join(line))
                line, used, need = [], 0, need - 1
            line.append(part)
            used += need
    lines.append(" ".join(line))
    return lines


def _breakable(word: str, room: int) -> Iterator[str]:
    """A word in parts that fit: all but the last fill their line."""
    if width(word) <= room:
        yield word
        return
    start, used = 0, 0
    for position, char in enumerate(word):
        columns = _char_width(char)
        if used + columns > room:
            yield word[start:position]
            start, used = position, 0
        used += columns
    yield word[start:]


def number(value: float) -> str:
    """A number on its own, with about four significant digits."""
    return numbers([value])[0]


def numbers(values: Sequence[float]) -> list[str]:
    """Numbers that stand under each other: the same count of decimals for all, chosen by the largest."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    largest = max(finite, default=0.0)
    if largest and (largest < 1e-3 or largest >= 1e7):
        return [f"{value:.3g}" for value in values]
    decimals = 0 if all(value == int(value) for value in finite) else max(1, 4 - max(0, math.floor(math.log10(largest))))
    return [f"{value:.{decimals}f}" for value in values]


def cell_texts(values: Sequence[Cell]) -> tuple[list[str], bool]:
    """The cells of one column as raw text, and whether all of them are numbers. Nothing is escaped yet."""
    kinds = {type(value) for value in values if value is not None}
    if bool in kinds or not kinds <= {int, float}:
        return [_text(value) for value in values], False
    if float not in kinds:
        return [NOTHING if value is None else str(value) for value in values], bool(kinds)
    shown = iter(numbers([float(value) for value in values if value is not None]))
    return [NOTHING if value is None else next(shown) for value in values], True


def _text(value: Cell) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)


def formula_safe(text: str) -> str:
    """`text` for a file that a spreadsheet may open: what would run as a formula gets an apostrophe in front.

    Plain numbers ("-1.5") stay as they are. Lone surrogates, which no file can hold, become U+FFFD.
    """
    whole = "".join("\ufffd" if 0xD800 <= ord(char) <= 0xDFFF else char for char in text)
    risky = whole.lstrip(_LEADING_SPACE)[:1] in _FORMULA_STARTS and not _is_number(whole)
    return "'" + whole if risky else whole


def _is_number(text: str) -> bool:
    if not text or not set(text) <= set("0123456789.eE+-"):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
