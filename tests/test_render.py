"""What is shown is safe and straight: no text that goes in gets a tag, a control character or a crooked column out."""

import csv
import gzip
import io
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pellucid.errors import SettingError
from pellucid.printable import MARKS_SHOWN, aligned, cell_texts, formula_safe, numbers, pad, plain, shorten, width, wrap
from pellucid.render import to_csv, to_frame, to_html, to_text
from pellucid.view import Bars, Grid, Lines, Span, Spans, Stack, Table, View

NASTY = [
    "",
    " ",
    "\x00",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J",
    "\x9b31m",
    "\u202eevil\u202c \u2066isolate\u2069 \u200f\u061c",
    "a\u2028b\u2029c\x85d\x0be\x0cf",
    "\ufeffbom",
    "a\r\nb\tc\rd",
    "\ud800 lone",
    "e" + "\u0301" * 5000,
    "\u0301starts with a mark",
    "<script>alert(1)</script>",
    "\"' onmouseover=alert(1) x='",
    "&lt;b&gt;&#60;",
    "</td></tr></table><img src=x onerror=alert(1)>",
    "]]><!-- --><![CDATA[",
    "$x$ \\(y\\) {{7*7}} %s {0}",
    "素晴らしい映画",
    "🎉👨\u200d👩\u200d👧 👍🏽 🇩🇪 ❤\ufe0f",
    "שלום עולם مرحبا",
    "क्\u200dष नमस्ते",
    "می\u200cخواهم",
    "각",
    "\u3164\u115f\uffa0",
    "\ue000\U000f0000\ufffe\ufdd0\U0010ffff",
    "\U000e0041\U000e0042",
    "a" * 300,
    "wörd " * 60,
    "a" * 50 + "!",
    "⟦fake → LABEL⟧",
]
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=40), st.text(alphabet="ab <>&\"'\x1b\n素🎉\u0301\u202e\u200d", max_size=60))
cells = st.one_of(texts, st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats())
SHOWN_FORMATS = {0x200C, 0x200D}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(st.integers(1, 6))
    names = draw(st.lists(texts, min_size=columns, max_size=columns))
    rows = draw(st.lists(st.tuples(*[cells] * columns), max_size=5))
    return Table(draw(texts), tuple(names), tuple(rows), draw(texts), draw(st.booleans()))


@st.composite
def bars(draw: st.DrawFn) -> Bars:
    count = draw(st.integers(0, 4))
    lists = [tuple(draw(st.lists(st.floats(), min_size=count, max_size=count))) for _ in range(3)]
    intervals = lists[1:] if draw(st.booleans()) else ((), ())
    return Bars(draw(texts), tuple(draw(st.lists(texts, min_size=count, max_size=count))), lists[0], *intervals)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    height, breadth = draw(st.integers(0, 3)), draw(st.integers(0, 9))
    rows, columns = (tuple(draw(st.lists(texts, min_size=size, max_size=size))) for size in (height, breadth))
    values = st.lists(st.floats(), min_size=breadth, max_size=breadth).map(tuple)
    return Grid(draw(texts), rows, columns, tuple(draw(st.lists(values, min_size=height, max_size=height))))


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    marked = st.builds(Span, st.integers(-3, 50), st.integers(-3, 70), texts, st.none() | st.floats())
    return Spans(draw(texts), draw(texts), tuple(draw(st.lists(marked, max_size=4))))


flat = st.one_of(tables(), bars(), grids(), spans(), st.builds(Lines, texts, st.lists(texts, max_size=3).map(tuple)))
views = st.one_of(flat, st.builds(Stack, texts, st.lists(st.one_of(flat, st.builds(Stack, texts, st.tuples(flat))), max_size=3).map(tuple)))


def raw(text: str) -> list[str]:
    """The characters that a screen would obey or hide."""
    return [
        char
        for char in text
        if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or (unicodedata.category(char) == "Cf" and ord(char) not in SHOWN_FORMATS)
    ]


# --- plain --------------------------------------------------------------------------------------------------------------


@given(texts)
def test_plain_leaves_nothing_that_a_screen_obeys(text: str) -> None:
    shown = plain(text)
    assert raw(shown) == [] and raw(aligned(text)) == []
    shown.encode("utf-8")
    assert not re.search(rf"[\u0300-\u036f]{{{MARKS_SHOWN + 1}}}", shown)
    assert plain(shown) == shown  # showing what was shown changes nothing


def test_c59_ansi_and_html_in_a_text_are_shown_not_obeyed() -> None:
    assert plain("\x1b[31mred\x1b[0m") == "⟨ESC⟩[31mred⟨ESC⟩[0m"
    assert plain("\x9b31m") == "⟨U+009B⟩31m"
    page = to_html(Lines("<i>", ("<script>alert(1)</script>",)))
    assert "<script" not in page and "<i>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_c53_bidi_overrides_are_shown_by_their_code() -> None:
    assert plain("a\u202eevil\u202c") == "a⟨U+202E⟩evil⟨U+202C⟩"
    assert plain("\u2066x\u2069\u200f") == "⟨U+2066⟩x⟨U+2069⟩⟨U+200F⟩"


def test_c54_zalgo_is_counted_not_piled_up() -> None:
    assert plain("e" + "\u0301" * 5000) == "e" + "\u0301" * 5 + "⟨+4995 marks⟩"
    assert plain("\u0301x") == "◌\u0301x"
    assert plain("Việt e\u0302\u0301") == "Việt e\u0302\u0301"  # what languages need stays


def test_c49_c58_nul_new_lines_tabs_and_separators_are_visible() -> None:
    assert plain("a\0b\r\nc\td\u2028e\ufefff") == "a⟨NUL⟩b⟨CR⟩↵c⇥d⟨U+2028⟩e⟨U+FEFF⟩f"


def test_c50_lone_surrogates_can_be_printed() -> None:
    assert plain("a\ud800b") == "a⟨U+D800⟩b"


def test_joiners_stay_where_a_script_needs_them() -> None:
    for text in ("می\u200cخواهم", "क्\u200dष", "👨\u200d👩\u200d👧"):
        assert plain(text) == text
    assert plain("a\u200d\u200db") == "a⟨U+200D⟩⟨U+200D⟩b"
    assert aligned("👨\u200d👩") == "👨⟨U+200D⟩👩"  # terminals disagree about its width, so columns show it


def test_plain_stops_at_the_limit() -> None:
    assert plain("abcdef", 3) == "abc…" and plain("abc", 3) == "abc"
    start = perf_counter()
    assert plain("\x1b" * 10**7, 4) == "⟨ESC⟩" * 4 + "…"
    assert perf_counter() - start < 0.5


def test_c47_c48_a_million_characters_take_linear_time() -> None:
    start = perf_counter()
    view = Table("", ("text", "n"), (("é" * 1_000_000, 1), ("word " * 200_000, 2)))
    assert len(to_text(view)) < 2000 and len(to_html(view)) < 6000
    assert perf_counter() - start < 1
    assert len(wrap("x" * 1_000_000, 80)) == 12_500
    assert perf_counter() - start < 10


# --- widths -------------------------------------------------------------------------------------------------------------


def test_width_agrees_with_what_terminals_do() -> None:
    """An independent table of widths (rich's), over every character whose width is not in dispute."""
    from rich.cells import cell_len

    disputed = {*range(0x2630, 0x2638), *range(0x268A, 0x2690), *range(0x4DC0, 0x4E00), *range(0x1D300, 0x1D380)}  # changed in Unicode 16
    wrong = []
    for code in range(0x110000):
        shown = aligned(f"a{chr(code)}b")
        if (
            len(shown) == 3
            and unicodedata.category(chr(code)) not in {"Mc", "Cf"}
            and code not in disputed
            and width(shown) != cell_len(shown)
        ):
            wrong.append(f"{code:04X}")
    assert wrong == []


@given(texts, st.integers(2, 30))
def test_wrap_keeps_every_character_and_the_width(text: str, room: int) -> None:
    shown = aligned(text)
    lines = wrap(shown, room)
    assert all(width(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == shown.replace(" ", "")


@given(texts, st.integers(2, 30))
def test_shorten_and_pad_fill_exactly(text: str, room: int) -> None:
    assert width(pad(shorten(aligned(text), room), room)) == room


# --- text ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(views, st.sampled_from([40, 60, 100]), st.booleans())
def test_no_text_breaks_the_lines(view: View, columns: int, color: bool) -> None:
    text = to_text(view, width=columns, color=color)
    for line in text.split("\n"):
        bare = re.sub(r"\x1b\[\d+m", "", line) if color else line
        assert raw(bare) == []
        assert width(bare) <= columns
    text.encode("utf-8")
    if color:
        assert re.sub(r"\x1b\[\d+m", "", text) == to_text(view, width=columns)  # colours add nothing else
        assert text.count("\x1b[0m") * 2 == text.count("\x1b[")  # and each is switched off again


def columns_on_screen(line: str) -> list[str]:
    """One entry a screen column: the character there, and an empty string for the second half of a wide one."""
    shown: list[str] = []
    for char in line:
        size = width(char)
        shown += [char, ""][:size]
    return shown


@settings(max_examples=300, deadline=None)
@given(tables(), st.sampled_from([40, 60, 100]))
@example(Table("t", ("a", "b"), (("素晴らしい", "x"), ("e" + "\u0301" * 50, "y"), ("\x1b[31m", "z"))), 60)
def test_columns_stand_straight(table: Table, columns: int) -> None:
    lines = to_text(Table("", table.columns, table.rows), width=columns).split("\n")
    gaps: list[int] = []
    for number, line in enumerate(lines):
        if line and set(line) <= {"─", " "} and number and (number == 1 or not lines[number - 2]):
            gaps = [place for place, char in enumerate(line) if char == " "]
            continue
        if not line:
            gaps = []
        screen = columns_on_screen(line)
        assert [screen[place] for place in gaps if place < len(screen)] == [" "] * len([place for place in gaps if place < len(screen)])


def test_a_table_with_wide_characters_looks_like_this() -> None:
    table = Table("words", ("word", "count"), (("素晴らしい", 1), ("fine", 20), (None, 300)), "three words")
    assert to_text(table, width=40).split("\n") == [
        "── words ───────────────────────────────",
        "word        count",
        "──────────  ─────",
        "素晴らしい      1",
        "fine           20",
        "·             300",
        "three words",
    ]


def test_a_token_table_wraps_in_blocks_under_each_other() -> None:
    pieces = tuple((f"piece{number}", number * 1000) for number in range(12))
    blocks = "\n".join(to_text(Table("", ("piece", "id"), pieces, across=True), width=60).split("\n")).split("\n\n")
    assert len(blocks) == 2
    for block in blocks:
        piece, ids = block.split("\n")
        assert piece.startswith("piece") and ids.startswith("id")
        starts = [match.start() for match in re.finditer(r"\S+", piece)]
        assert starts == [match.start() for match in re.finditer(r"\S+", ids)]


def test_prose_is_squeezed_before_numbers_and_cut_where_it_is_long() -> None:
    text = to_text(Table("", ("row", "text", "loss"), ((1, "many words " * 100, 0.5),)), width=60)
    assert "0.5000" in text and "…" in text and len(text.split("\n")) == 6


def test_many_columns_go_on_in_further_blocks() -> None:
    names = tuple(f"class number {number}" for number in range(20))
    text = to_text(Grid("confusion", names, names, tuple(tuple(float(i * j) for j in range(20)) for i in range(20))), width=80)
    assert all(f"class number {number}" in text for number in range(20))
    assert text.count("class number 3 ") >= 3  # the names of the rows are repeated


def test_a_narrow_page_is_refused_with_its_cure() -> None:
    with pytest.raises(SettingError, match="width is 39, expected at least 40 columns"):
        to_text(Lines("", ()), width=39)


def test_bars_are_as_long_as_their_numbers() -> None:
    lines = to_text(Bars("", ("a", "b", "c", "d"), (1.0, 0.5, 0.0, float("nan"))), width=60).split("\n")
    assert [line.count("█") for line in lines] == [40, 20, 0, 0]
    assert lines[3].endswith("nan")
    signed = to_text(Bars("", ("up", "down"), (2.0, -1.0)), width=60).split("\n")
    assert signed[0].count("█") == 40 and signed[1].count("▒") == 20
    ends = to_text(Bars("", ("f1",), (0.9,), (0.8,), (1.0,)), width=100)
    assert "0.9000 (0.8000 to 1.0000)" in ends and ends.count("░") == 8


def test_numbers_in_a_column_share_their_decimals() -> None:
    assert numbers([1.5, 22.25]) == ["1.500", "22.250"]
    assert numbers([3.0, 4.0]) == ["3", "4"] and numbers([0.00001]) == ["1e-05"] and numbers([]) == []
    assert numbers([float("inf"), float("nan"), 0.5]) == ["inf", "nan", "0.5000"]
    assert cell_texts([True, None, False]) == (["yes", "·", "no"], False)
    assert cell_texts([1, None, 30]) == (["1", "·", "30"], True)
    assert cell_texts([1, 0.5]) == (["1.0000", "0.5000"], True)


def test_marked_text_says_its_labels() -> None:
    view = Spans("", "I work at Hugging Face.", (Span(10, 22, "ORG", 0.951),))
    assert to_text(view) == "I work at ⟦Hugging Face → ORG 0.95⟧."
    assert "Hugging Face <span" in to_html(view) and "ORG 0.95" in to_html(view)


# --- HTML ---------------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Collects tags, attributes and text, and whether every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.styles: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value or "" for name, value in attrs if name == "style"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    handle_decl = handle_pi = unknown_decl = handle_comment


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@settings(max_examples=300, deadline=None)
@given(views)
def test_no_text_gets_a_tag_into_the_page(view: View) -> None:
    page = to_html(view)
    reader = read(page)
    assert reader.tags <= {"div", "span", "table", "thead", "tbody", "tr", "th", "td", "mark"}
    assert reader.attributes <= {"style", "class", "dir", "scope", "role", "aria-level"}
    assert raw(page) == []
    page.encode("utf-8")
    for style in reader.styles:
        assert re.fullmatch(r"[\w\s:;,.%#()'/+-]*", style) and "url" not in style and "nan" not in style and "inf;" not in style


@given(texts)
def test_the_text_of_the_page_is_what_was_said(text: str) -> None:
    assert read(to_html(Lines("", (text,)))).text == plain(text)


def test_c60_dollars_are_not_read_as_mathematics() -> None:
    page = to_html(Lines("", ("$5 and $10", "{{7*7}} %s")))
    assert "mathjax_ignore" in page and "tex2jax_ignore" in page and "{{7*7}} %s" in page


def test_html_takes_its_colours_from_the_page() -> None:
    view = Stack("s", (Bars("b", ("x",), (0.5,), (0.4,), (0.6,)), Grid("g", ("r",), ("c",), ((1.0,),)), Table("t", ("a",), ((1,),))))
    page = to_html(view)
    assert re.findall(r"[;\"]color:([^;\"]+)", page) and set(re.findall(r"[;\"]color:([^;\"]+)", page)) == {"inherit"}
    assert set(re.findall(r"background:([^;\"]+)", page)) <= {"none"} | set(re.findall(r"background:(rgba\([^)]+\))", page))


# --- frames and CSV -----------------------------------------------------------------------------------------------------


def test_to_frame_gives_the_raw_values() -> None:
    frame = to_frame(Table("", ("word", "id", "p"), (("<b>", 1, 0.5), (None, 2, 0.25)), across=True))
    assert list(frame.columns) == ["word", "id", "p"] and frame["id"].tolist() == [1, 2] and frame["word"][0] == "<b>"
    assert str(frame["id"].dtype) == "int64" and str(frame["p"].dtype) == "float64"
    bars_frame = to_frame(Bars("", ("a",), (0.5,), (0.4,), (0.6,)))
    assert bars_frame.to_dict("records") == [{"label": "a", "value": 0.5, "low": 0.4, "high": 0.6}]
    grid = to_frame(Grid("", ("r",), ("c", "c"), ((1.0, 2.0),)))
    assert grid.loc["r"].tolist() == [1.0, 2.0]
    assert to_frame(Spans("", "my text", (Span(3, 7, "X"),)))["text"].tolist() == ["text"]


@pytest.mark.parametrize("view", [Lines("", ()), Stack("", ())])
def test_what_has_no_columns_makes_no_frame(view: View) -> None:
    with pytest.raises(SettingError, match="has no columns"):
        to_frame(view)
    with pytest.raises(SettingError, match=r"view\.parts"):
        to_csv(view)


@pytest.mark.parametrize(
    "formula", ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", " =1", "\n=1", "|x", "-", "\0=1", "'=1"[1:]]
)
def test_a18_formulas_are_neutralised_in_csv(formula: str) -> None:
    text = to_csv(Table("", ("=head", "b"), ((formula, -1.5), ("-1.5", -2))))
    head, first, second = csv.reader(io.StringIO(text, newline=""))
    assert head == ["'=head", "b"] and first == ["'" + formula, "-1.5"] and second == ["-1.5", "-2"]


@given(st.text(max_size=30))
def test_csv_gives_every_text_back(text: str) -> None:
    written = to_csv(Table("", ("t", "n"), ((text, 1),)))
    written.encode("utf-8")
    (_, (value, number)) = list(csv.reader(io.StringIO(written, newline="")))
    assert value == formula_safe(text) and number == "1"
    assert value.removeprefix("'") == text.removeprefix("'") or "\ufffd" in value


def test_columns_show_what_terminals_draw_in_different_widths() -> None:
    from rich.cells import cell_len

    texts = ("👨\u200d👩", "👍🏽", "❤\ufe0f", "\ue000", "plain")
    lines = to_text(Table("", ("text", "n"), tuple((text, 1) for text in texts))).split("\n")
    assert [line.split("  ")[0].strip() for line in lines[2:]] == ["👨⟨U+200D⟩👩", "👍⟨U+1F3FD⟩", "❤", "⟨U+E000⟩", "plain"]
    assert len({cell_len(line) for line in lines}) == 1


def test_real_reviews_are_shown_whole_and_straight(shared_data: Path) -> None:
    with gzip.open(shared_data / "imdb_sample" / "texts.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [(number, row["text"], row["label"]) for number, row in zip(range(200), csv.DictReader(file), strict=False)]
    table = Table("reviews", ("row", "text", "label"), tuple(rows))
    for columns in (60, 100):
        lines = to_text(table, width=columns).split("\n")
        assert all(width(line) <= columns for line in lines)
        assert sum(line.endswith(("positive", "negative")) for line in lines) == 200
    reader = read(to_html(table))
    assert "br" not in reader.tags  # the reviews hold <br />
    whole = read(to_html(Lines("", tuple(text for _, text, _ in rows))))
    assert whole.text == "".join(plain(text) for _, text, _ in rows)
