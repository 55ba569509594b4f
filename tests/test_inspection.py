"""The view of every value, the trace of one row as a learner reads it, and show() where the user is."""

import io
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import SettingError
from pellucid.inspection import show, view_of
from pellucid.portraits import TEXT_SHOWN, first_row, how_scored, logit_table, score_bars, token_table, weight_lines
from pellucid.printable import plain
from pellucid.render import to_html, to_text
from pellucid.types import Batch, Example, Note, Output, Prediction, Tokens, Trace
from pellucid.view import Bars, Lines, Stack, Table, View

BOOK = "Tokenizing text is a core task of NLP"  # the example of NLP with Transformers
BOOK_PIECES = ("[CLS]", "token", "##izing", "text", "is", "a", "core", "task", "of", "nl", "##p", "[SEP]")
BOOK_IDS = (101, 19204, 6026, 3793, 2003, 1037, 4563, 4708, 1997, 17953, 2361, 102)
BOOK_SPANS = ((0, 0), (0, 5), (5, 10), (11, 15), (16, 18), (19, 20), (21, 25), (26, 30), (31, 33), (34, 36), (36, 37), (0, 0))
BOOK_WORDS = (None, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, None)


def tokens_of_book(row: int = 0) -> Tokens:
    special = tuple(word is None for word in BOOK_WORDS)
    return Tokens(row, 0, BOOK_IDS, BOOK_PIECES, BOOK_SPANS, BOOK_WORDS, special, tuple(None if s else "text" for s in special))


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def trace(
    tokens: Tokens | None = None, *, text: str = BOOK, logits: tuple[float, ...] = (-1.2, 1.4), names: tuple[str, ...] = ("no", "yes")
) -> Trace:
    tokens = tokens or tokens_of_book()
    count = len(tokens)
    ids = np.array([[*tokens.ids, 0, 0]])
    mask = np.array([[1] * count + [0, 0]])
    batch = Batch({"input_ids": ids, "attention_mask": mask}, None, np.array([tokens.row]), np.array([0]), np.array([count]))
    row = np.array(logits, dtype=np.float32)
    prediction = Prediction(tokens.row, names[int(row.argmax())], dict(zip(names, softmax(row).tolist(), strict=True)))
    seconds = {"encode": 0.001, "collate": 0.0002, "run": 0.0123, "decode": 0.0001}
    notes = (Note("max_length 256", "the checkpoint was trained with it", "Pass TokenOptions(max_length=512)."),)
    return Trace(Example(tokens.row, {"text": text}, "yes"), (tokens,), batch, Output(row[None]), prediction, seconds, notes)


def every_token_of(text: str) -> Tokens:
    """One token a character: what a tokenizer of characters would give."""
    count = len(text)
    spans = tuple((place, place + 1) for place in range(count))
    return Tokens(0, 0, tuple(map(ord, text)), tuple(text), spans, tuple(range(count)), (False,) * count, ("text",) * count)


# --- the trace ----------------------------------------------------------------------------------------------------------


def test_the_trace_tells_the_row_in_order() -> None:
    view = trace().view()
    titles = [part.title for part in view.parts]
    assert titles == [
        "1 · text · 37 characters",
        "2 · tokens · 12, 2 of them special",
        "3 · batch · shapes are (batch, tokens)",
        "4 · logits · shape (1, 2) = (batch, labels)",
        "5 · scores · softmax of the logits, together 1",
        "6 · answer",
        "7 · seconds · 0.0136 in all",
        "8 · choices that were made for you",
    ]
    assert view.title == "Row 0: yes (0.9309)"


def test_the_books_example_stands_in_one_block_of_a_terminal() -> None:
    lines = to_text(trace().view(), width=100).split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("piece"))
    assert lines[start : start + 8] == [
        "piece       [CLS]  token  ##izing  text   is     a      core   task   of     nl     ##p    [SEP]",
        "id          101    19204  6026     3793   2003   1037   4563   4708   1997   17953  2361   102",
        "reads       ·      Token  izing    text   is     a      core   task   of     NL     P      ·",
        "word        ·      0      0        1      2      3      4      5      6      7      7      ·",
        "characters  ·      0:5    5:10     11:15  16:18  19:20  21:25  26:30  31:33  34:36  36:37  ·",
        "special     yes    ·      ·        ·      ·      ·      ·      ·      ·      ·      ·      yes",
        "mask        1      1      1        1      1      1      1      1      1      1      1      1",
        "",
    ]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_long_row_wraps_its_tokens_in_blocks(width: int) -> None:
    text = to_text(view_of(every_token_of("abcdefghij" * 20)), width=width)
    blocks = text.split("\n\n")
    assert len(blocks) > 1
    for block in blocks:
        rows = [line for line in block.split("\n") if not line.startswith("──")]
        starts = [[match.start() for match in re.finditer(r"\S+", row)] for row in rows if row]
        assert all(start == starts[0] for start in starts)


def test_the_trace_says_what_truncation_cut() -> None:
    assert "Truncation cut 38 tokens of this row" in to_text(trace(replace(tokens_of_book(), lost=38)).view())
    assert "Truncation" not in to_text(trace().view())


def test_the_trace_names_the_target_and_the_notes() -> None:
    text = to_text(trace().view())
    assert "yes (0.9309); the target is yes" in text
    assert "• max_length 256: the checkpoint was trained with it. Pass TokenOptions(max_length=512)." in text


def test_the_mask_is_that_of_the_batch_with_padding_on_either_side() -> None:
    value = trace()
    batch = value.batch
    left = {name: np.roll(array, 2, axis=1) for name, array in batch.inputs.items()}
    for inputs in (batch.inputs, left):
        text = to_text(replace(value, batch=replace(batch, inputs=inputs)).view())
        assert re.search(r"^mask +1( +1){11}$", text, re.MULTILINE)
    assert re.search(r"attention_mask +\(1, 14\) +int64 +1 ×12, 0 ×2", to_text(value.view()))


def test_several_windows_have_a_logit_each() -> None:
    value = trace()
    second = replace(tokens_of_book(), window=1)
    inputs = {name: np.repeat(array, 5, axis=0) for name, array in value.batch.inputs.items()}
    batch = Batch(inputs, None, np.zeros(5, int), np.arange(5), np.full(5, 12))
    many = replace(value, tokens=(value.tokens[0], *[second] * 4), batch=batch, output=Output(np.ones((5, 2), np.float32)))
    text = to_text(many.view())
    assert "tokens of window 1" in text and "2 more windows are not shown" in text and "logit, window 4" in text
    assert "shape (5, 2) = (windows, labels)" in text


def test_logits_of_every_token_are_shown_by_their_shape() -> None:
    value = replace(trace(), output=Output(np.zeros((1, 14, 9), np.float32)), prediction=Prediction(0, "B-PER I-PER"))
    assert re.search(r"logits +\(1, 14, 9\) +float32 +0 ×126", to_text(value.view()))


def test_c46_an_empty_text_is_named_empty() -> None:
    assert "(empty: '')" in to_text(view_of(Example(3, {"text": ""})))
    assert "(empty: ' \\n')" in to_text(view_of(Example(3, {"text": " \n"})))


def test_c47_a_million_characters_show_their_beginning() -> None:
    text = to_text(view_of(Example(0, {"text": "word " * 200_000})))
    assert "and 998,000 more characters" in text and len(text) < TEXT_SHOWN * 2


def test_c62_a_pair_shows_both_fields_by_name() -> None:
    text = to_text(view_of(Example(0, {"text": "How old are you?", "text_pair": ""})))
    assert "text: How old are you?" in text and "text_pair: (empty: '')" in text


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(min_size=1, max_size=20), st.sampled_from([40, 60, 100]))
def test_c59_b41_no_text_and_no_label_breaks_the_trace(text: str, label: str, width: int) -> None:
    value = trace(every_token_of(text) if text else None, text=text or BOOK, names=(label, label + "2"))
    shown = to_text(value.view(), width=width)
    assert shown == "\n".join(shown.split("\n")) and "\x1b" not in shown
    assert all(char.isprintable() or char == "\n" or plain(char) == char or char in "\u200c\u200d" for char in shown)
    page = to_html(value.view())
    assert set(re.findall(r"<(\w+)", page)) <= {"div", "span", "table", "thead", "tbody", "tr", "th", "td"}


def tokens_from(tokenizer: Any, text: str) -> Tokens:
    """What `tokens_of` gives, straight from a tokenizer."""
    found = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    special = tuple(map(bool, found["special_tokens_mask"]))
    segments = tuple(None if mark else "text" for mark in special)
    pieces = tuple(tokenizer.convert_ids_to_tokens(found["input_ids"]))
    return Tokens(0, 0, tuple(found["input_ids"]), pieces, tuple(found["offset_mapping"]), tuple(found.word_ids()), special, segments)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_the_trace_shows_which_characters_a_token_reads(tiny_tokenizers: dict[str, Any], kind: str) -> None:
    text = "Überraschend 素晴らしい 🎉!"
    tokens = tokens_from(tiny_tokenizers[kind], text)
    reads = tokens.columns({"text": text})["reads"]
    assert [None if special else text[start:end] for special, (start, end) in zip(tokens.special, tokens.offsets, strict=True)] == reads
    shown = to_text(trace(tokens, text=text).view())
    assert "素" in shown and all(plain(piece) in shown for piece in tokens.pieces)


# --- weights ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FakeProvenance:
    """What inspection asks of a provenance."""

    def counts(self) -> Mapping[str, int]:
        return {"pretrained": 22_713_216, "new": 770}

    def new_names(self) -> frozenset[str]:
        return frozenset({"classifier.weight", "classifier.bias"})


def test_the_trace_says_which_weights_made_it() -> None:
    text = to_text(view_of(trace(), FakeProvenance()))  # type: ignore[arg-type]
    assert "22,713,986 parameters: 22,713,216 pretrained, 770 new." in text
    assert "New: classifier.bias, classifier.weight. They were not in the checkpoint" in text
    assert "which weights" not in to_text(view_of(trace()))


def test_weight_lines_name_the_first_new_ones() -> None:
    assert weight_lines({"pretrained": 5}, []) == ("5 parameters: 5 pretrained.",)
    assert "a, b, c, d and 2 more" in weight_lines({"new": 6}, list("fedcba"))[1]


# --- the parts ----------------------------------------------------------------------------------------------------------


def test_scores_are_told_by_the_function_that_made_them() -> None:
    logits = np.array([2.0, -1.0, 0.5])
    assert how_scored(logits, softmax(logits)) == "softmax"
    assert how_scored(logits, 1 / (1 + np.exp(-logits))) == "sigmoid"
    assert how_scored(logits, [0.1, 0.2, 0.3]) == "" and how_scored(logits, []) == "" and how_scored([np.nan], [1.0]) == ""
    table = logit_table(np.array([[800.0, -800.0]]), ("a", "b"), "softmax")
    assert table.columns == ("label", "logit")  # e^800 has no place in a table


def test_b36_ten_thousand_classes_show_the_highest() -> None:
    values = np.linspace(0, 1, 10_000)
    bars = score_bars({f"class {number}": float(value) for number, value in enumerate(values)})
    assert bars.labels[0] == "class 9999" and len(bars.labels) == 12 and "the 12 highest of 10,000" in bars.title
    table = logit_table(values[None], tuple(map(str, range(10_000))), "")
    assert table.rows[0][0] == "9999" and table.note == "the 12 highest of 10,000"


@pytest.mark.parametrize(
    ("array", "short"),
    [
        (np.array([[1, 1, 1, 1, 0, 0]]), "1 ×4, 0 ×2"),
        (np.array([[101, 7, 8, 102]]), "101 7 8 102"),
        (np.arange(20)[None], "0 1 2 3 4 5 6 … 18 19"),
        (np.array([[0.5, -1.25]], dtype=np.float32), "0.5000 -1.2500"),
        (np.array([], dtype=int), "(empty)"),
        (np.array(3), "3"),
        (np.array([2, 1]), "2"),
        (np.array([[5] * 12]), "5 ×12"),
        (np.array([[True, False]]), "True False"),
    ],
)
def test_the_first_row_of_an_array_in_short(array: Any, short: str) -> None:
    assert first_row(array) == short


def test_tensors_are_shown_like_arrays() -> None:
    import torch

    output = Output(torch.tensor([[1.5, -2.0]], requires_grad=True).bfloat16(), torch.tensor([0.25]))
    text = to_text(view_of(output))
    assert re.search(r"logits +\(1, 2\) +torch.bfloat16 +1\.5000 -2\.0000", text) and re.search(
        r"loss +\(1,\) +torch.float32 +0.2500", text
    )


def test_long_token_lists_leave_their_middle_out() -> None:
    table = token_table("t", {"piece": [str(n) for n in range(100)], "id": list(range(100))}, limit=20)
    assert len(table.rows) == 21 and table.rows[8] == ("…", "…") and table.rows[-1] == ("99", 99)
    assert table.note == "80 tokens in the middle are not shown."


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Prediction(3, "yes", {"no": 0.25, "yes": 0.75}), "row 3: yes (0.7500)"),
        (Prediction(3, ("a", "b"), {"a": 0.75, "b": 0.75}), "row 3: a, b"),
        (Prediction(3, (), {"a": 0.1}), "row 3: no label"),
        (Prediction(3, 2.5, {"value": 2.5}), "row 3: 2.5000"),
        (Note("dtype float32", "the checkpoint holds float16"), "dtype float32: the checkpoint holds float16."),
        ([], "(none)"),
        ([Note("a", "b"), Note("c", "d")], "• a: b.\n• c: d."),
        ([Prediction(0, "x"), Prediction(1, "y")], "row  answer"),
        ("a\nb", "a\nb"),
        (Table("t", ("c",), ((1,),)), "── t ─"),
        (tokens_of_book(), "##izing"),
        (trace().batch, "1 in the batch, 12 tokens and 2 of padding"),
    ],
)
def test_every_value_has_a_view(value: object, says: str) -> None:
    assert says in to_text(view_of(value))


@pytest.mark.parametrize(
    "value",
    [trace(), trace().example, tokens_of_book(), trace().batch, trace().output, trace().prediction, Note("a", "b")],
    ids=lambda v: type(v).__name__,
)
def test_every_value_shows_itself_in_a_notebook(value: Any) -> None:
    assert value._repr_html_() == to_html(value.view()) and value._repr_html_().startswith("<div")


def test_steps_are_a_table() -> None:
    step = types.SimpleNamespace(name="encode", takes="Example", gives="Tokens", what="BertTokenizer")
    table = view_of((step, step))
    assert isinstance(table, Table) and table.rows[0] == ("encode", "Example", "Tokens", "BertTokenizer")


def test_many_predictions_show_the_first() -> None:
    table = view_of([Prediction(row, "x") for row in range(1000)])
    assert isinstance(table, Table) and len(table.rows) == 20 and table.note == "the first 20 of 1,000"


@pytest.mark.parametrize("value", [3, None, object(), b"bytes", np.zeros(3), Trace, {"a": 1}])
def test_what_has_no_view_is_refused_with_its_cure(value: object) -> None:
    with pytest.raises(SettingError, match=r"has no view\. Show a value of pellucid"):
        view_of(value)


# --- show ---------------------------------------------------------------------------------------------------------------


class Screen(io.StringIO):
    """A terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_show_writes_text_to_a_file_without_colours() -> None:
    out = io.StringIO()
    show(trace(), file=out)
    assert out.getvalue() == to_text(trace().view()) + "\n"


def test_show_writes_to_the_terminal_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    show(Lines("t", ("hello",)), width=50)
    assert capsys.readouterr().out == "── t " + "─" * 45 + "\nhello\n"


def test_show_asks_a_terminal_for_its_width_and_uses_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = Screen()
    show(trace(), file=out)
    assert out.getvalue() == to_text(trace().view(), width=60, color=True) + "\n"
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    out = Screen()
    show(trace(), file=out)
    assert out.getvalue() == to_text(trace().view(), width=40) + "\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_show_never_fails_for_the_encoding_of_a_terminal(encoding: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    show(trace(text=BOOK + " 素\ud800"), file=out)
    out.flush()
    written = raw.getvalue().decode(encoding)
    assert "-- 2 " in written or "── 2 " in written
    assert "##izing" in written


def test_show_displays_html_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[object] = []
    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    vars(ipython)["get_ipython"] = lambda: types.SimpleNamespace(kernel=object())
    vars(display).update(HTML=lambda text: ("html", text), display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    value = trace()
    show(value)
    assert shown == [("html", to_html(value.view()))] and capsys.readouterr().out == ""
    out = io.StringIO()
    show(value, file=out)
    assert len(shown) == 1 and out.getvalue()  # a file gets text
    vars(ipython)["get_ipython"] = lambda: types.SimpleNamespace()  # the IPython of a terminal has no kernel
    show(value)
    assert len(shown) == 1 and "##izing" in capsys.readouterr().out


def test_a_stack_of_stacks_keeps_its_order() -> None:
    inner: View = Stack("inner", (Lines("a", ("1",)), Bars("b", ("x",), (1.0,))))
    text = to_text(Stack("outer", (inner, Lines("c", ("2",)))))
    assert [text.index(word) for word in ("outer", "inner", "▸ a", "▸ b", "── c")] == sorted(
        text.index(word) for word in ("outer", "inner", "▸ a", "▸ b", "── c")
    )
