"""Strange texts: what somebody will paste, and what the tokens say of it. The numbers are those of `faults.toml`, group C."""

import time
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.batch import TokenBudget, pad, plan_in_order, plan_sorted, plan_training
from pellucid.errors import TokenizerError
from pellucid.tokens import TokenOptions, TokenTable, encode, load_tokenizer, pad_spec, tokens_of
from pellucid.types import Example, Tokens

KINDS = ("wordpiece", "bpe", "unigram", "minilm")
STRANGE = {
    "C46 empty": "",
    "C46 spaces": " \t\n\u3000 ",
    "C48 one word": "x" * 100_000,
    "C49 NUL": "a\0b",
    "C52 BOM": "\ufeffa film",
    "C53 bidi": "\u202eevil\u202c \u2066x\u2069 שלום مرحبا",
    "C54 zalgo": "z" + "\u0301" * 5000,
    "C55 family": "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "C57 unknown": "𐎀𐎁𐎂 ꙮ",
    "C58 line ends": "a\r\nb\tc\u2028d\u2029e\x85f\x0bg",
    "C59 markup": "<script>alert(1)</script> \x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07",
    "C60 templates": "{{7*7}} ${7*7} %s %(a)s {0} {text!r}",
    "C65 bait": "a" * 50 + "!",
}


@pytest.fixture(scope="module")
def tokenizers(tiny_tokenizers: dict[str, Any], minilm_folder: Path) -> dict[str, Any]:
    return {**tiny_tokenizers, "minilm": load_tokenizer(minilm_folder)[0]}


def table_of(tokenizer: Any, texts: list[Any], options: TokenOptions = TokenOptions()) -> TokenTable:
    return encode(tokenizer, {"text": texts}, ("text",), options)


def tokens(tokenizer: Any, text: str, options: TokenOptions = TokenOptions()) -> Tokens:
    return tokens_of(tokenizer, Example(0, {"text": text}), ("text",), options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_text_gets_the_ids_of_transformers_and_sound_offsets(tokenizers: dict[str, Any], kind: str, name: str) -> None:
    """C46 to C60, C65: alone or between two plain texts, the same ids; every offset inside the text; nothing of it in the neighbours."""
    from copy import deepcopy

    tokenizer, text = tokenizers[kind], STRANGE[name]
    if text == "" and kind == "bpe":
        return  # no token at all: see the next test
    expected = deepcopy(tokenizer)([text], truncation=True, verbose=False, split_special_tokens=True)["input_ids"][0]
    alone, between = table_of(tokenizer, [text]), table_of(tokenizer, ["a film", text, "a film"])
    assert alone.ids_of(0).tolist() == between.ids_of(1).tolist() == expected
    assert between.ids_of(0).tolist() == between.ids_of(2).tolist() == table_of(tokenizer, ["a film"]).ids_of(0).tolist()
    seen = tokens(tokenizer, text)
    assert list(seen.ids) == expected
    assert all(0 <= start <= end <= len(text) for start, end in seen.offsets)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "minilm"])
def test_an_empty_text_is_its_special_tokens(tokenizers: dict[str, Any], kind: str) -> None:
    """C46: the model gets the ends and no text; as a row it stays in its place."""
    table = table_of(tokenizers[kind], ["", "a", ""])
    assert len(table) == 3 and table.lengths[0] == table.lengths[2] == 2 and table.lost.tolist() == [0, 0, 0]
    assert table_of(tokenizers["minilm"], ["  \n "]).ids.tolist() == [101, 102]


def test_an_empty_text_without_special_tokens_names_the_row(tokenizers: dict[str, Any]) -> None:
    """C46: GPT-2's kind adds nothing, so that an empty text would be a row of nothing."""
    with pytest.raises(
        TokenizerError, match=r"row 1, column 'text': the text gives no token, and this tokenizer adds none of its own\. Drop the row"
    ):
        table_of(tokenizers["bpe"], ["a", "", "b"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_million_characters_are_cut_fast(tokenizers: dict[str, Any], kind: str) -> None:
    """C47: the same ids as the whole text, in a small part of its time."""
    text = "the film is good and the jokes are old " * 25_000
    options = TokenOptions(max_length=64)
    start = time.perf_counter()
    table = table_of(tokenizers[kind], [text], options)
    seconds = time.perf_counter() - start
    assert seconds < 2  # 0.02 on a quiet machine; that only a part is read is tested in test_tokens.py
    assert table.ids_of(0).tolist() == tokenizers[kind](text, truncation=True, max_length=64)["input_ids"]
    assert table.lost_words[0] > 190_000


def test_two_million_characters_as_a_pair_do_not_fill_the_memory(tokenizers: dict[str, Any]) -> None:
    """C47: transformers' own call makes an overflow window for each pair of windows: gigabytes from 40,000 characters on."""
    text = "the film is good and the jokes are old " * 25_000
    columns = {"text": [text], "text_pair": [text]}
    table = encode(tokenizers["minilm"], columns, ("text", "text_pair"), TokenOptions(max_length=64))
    assert table.lengths.tolist() == [64] and table.type_ids is not None and table.type_ids.sum() == 64 - 1 - 30 - 1


def test_a_word_of_a_hundred_thousand_characters(tokenizers: dict[str, Any]) -> None:
    """C48: one unknown piece for WordPiece; there is no space to stop reading at, so all of it is read."""
    assert tokens(tokenizers["minilm"], "x" * 100_000).pieces == ("[CLS]", "[UNK]", "[SEP]")
    assert tokens(tokenizers["minilm"], "x" * 100_000).offsets[1] == (0, 100_000)
    assert table_of(tokenizers["bpe"], ["x" * 100_000], TokenOptions(max_length=16)).lengths.tolist() == [16]


def test_a_nul_byte_is_dropped_by_bert_and_kept_by_bytes(tokenizers: dict[str, Any]) -> None:
    """C49: the tokenizer decides; offsets still point at the original."""
    seen = tokens(tokenizers["minilm"], "a\0b c")
    assert seen.pieces[1:-1] == ("ab", "c") and seen.offsets[1] == (0, 3)
    assert tokens(tokenizers["bpe"], "a\0b").pieces == ("a", "Ā", "b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["half \ud83d a smile", "\udc80", "x " * 9000 + "\ud800"])
def test_a_lone_surrogate_names_row_column_and_character(tokenizers: dict[str, Any], kind: str, text: str) -> None:
    """C50: a text that is not Unicode is refused, even where truncation would have cut that character."""
    position = next(number for number, character in enumerate(text) if 0xD800 <= ord(character) < 0xE000)
    message = rf"row 2, column 'text': character {position} is half a character \(lone surrogate U\+[0-9A-F]{{4}}\)"
    with pytest.raises(TokenizerError, match=message) as caught:
        table_of(tokenizers[kind], ["a", "b", text, "\ud83d"], TokenOptions(max_length=8))
    str(caught.value).encode("utf-8")  # the message itself can be written


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (None, "a missing value"),
        (float("nan"), "a missing value"),
        (7, "int 7"),
        (2.5, r"float 2\.5"),
        (b"caf\xe9", r"bytes b'caf\\xe9'\. Decode it first"),
        (["a", "list"], "list"),
        (np.array([1, 2]), "ndarray"),
    ],
)
def test_what_is_not_a_text_names_the_row(tokenizers: dict[str, Any], value: object, came: str) -> None:
    """C51: bytes are never guessed at; neither is anything else that is not a string."""
    with pytest.raises(TokenizerError, match=f"row 1, column 'text': expected a text, came {came}"):
        table_of(tokenizers["minilm"], ["fine", value, "fine"])


def test_a_missing_value_of_pandas_names_the_row(tokenizers: dict[str, Any]) -> None:
    """C51: pd.NA cannot even be compared with itself."""
    pandas = pytest.importorskip("pandas")
    for value in (pandas.NA, pandas.NaT):
        with pytest.raises(TokenizerError, match="row 0, column 'text': expected a text, came a missing value"):
            table_of(tokenizers["minilm"], [value])


def test_numpy_strings_are_texts(tokenizers: dict[str, Any]) -> None:
    assert (
        table_of(tokenizers["minilm"], list(np.array(["a film", "b"]))).ids.tolist()
        == table_of(tokenizers["minilm"], ["a film", "b"]).ids.tolist()
    )


def test_a_byte_order_mark_is_no_word(tokenizers: dict[str, Any]) -> None:
    """C52: BERT drops it."""
    assert table_of(tokenizers["minilm"], ["\ufeffa film"]).ids.tolist() == table_of(tokenizers["minilm"], ["a film"]).ids.tolist()


def test_direction_marks_do_not_move_offsets(tokenizers: dict[str, Any]) -> None:
    """C53: characters are counted in the order of the text, whatever the screen does with it."""
    text = "\u202eevil\u202c good"
    seen = tokens(tokenizers["minilm"], text)
    assert seen.pieces[1:-1] == ("evil", "good")
    assert [text[start:end].strip("\u202e\u202c") for start, end in seen.offsets[1:-1]] == ["evil", "good"]


@pytest.mark.parametrize("kind", KINDS)
def test_five_thousand_accents_on_a_letter(tokenizers: dict[str, Any], kind: str) -> None:
    """C54: no more tokens than the model reads, in no time."""
    start = time.perf_counter()
    table = table_of(tokenizers[kind], ["z" + "\u0301" * 5000], TokenOptions(max_length=32))
    assert time.perf_counter() - start < 1 and table.lengths[0] <= 32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", range(3, 30))
def test_an_emoji_at_the_cut_keeps_sound_offsets(tokenizers: dict[str, Any], kind: str, max_length: int) -> None:
    """C55: a cut in the middle of an emoji leaves offsets that are whole characters of the text, and counts the word as lost."""
    text = "a 👨‍👩‍👧‍👦 b 🏳️‍🌈 c 👍🏽"
    options = TokenOptions(max_length=max_length)
    seen, table = tokens(tokenizers[kind], text, options), table_of(tokenizers[kind], [text], options)
    assert len(seen) <= max_length and list(seen.ids) == table.ids.tolist()
    inside = [offset for offset, special in zip(seen.offsets, seen.special, strict=True) if not special]
    assert all(0 <= start <= end <= len(text) for start, end in inside)
    assert all(first[0] <= second[0] for first, second in pairwise(inside))
    assert (table.lost_words[0] > 0) == (table.lost[0] > 0) or kind == "bpe"  # bytes: the last character may be cut in its middle
    assert 0 <= table.lost_words[0] <= len(text.split())


@pytest.mark.parametrize(("kind", "written"), [("minilm", "[SEP]"), ("minilm", "[MASK]"), ("bpe", "<|endoftext|>"), ("unigram", "</s>")])
def test_a_special_token_in_a_text_is_text(tokenizers: dict[str, Any], kind: str, written: str) -> None:
    """C56: nobody can write a model's own marks into it; who wants that says so."""
    tokenizer = tokenizers[kind]
    number = tokenizer.convert_tokens_to_ids(written)
    text = f"a {written} b{written}{written.lower()} [CLS]<s>"
    seen = tokens(tokenizer, text)
    assert number not in [token for token, special in zip(seen.ids, seen.special, strict=True) if not special]
    asked = tokens(tokenizer, text, TokenOptions(special_tokens_in_text=True))
    assert number in [token for token, special in zip(asked.ids, asked.special, strict=True) if not special]


def test_only_unknown_tokens(tokenizers: dict[str, Any]) -> None:
    """C57: the pieces say that the model sees nothing of the text."""
    assert tokens(tokenizers["minilm"], "𐎀𐎁𐎂 ꙮ").pieces == ("[CLS]", "[UNK]", "[UNK]", "[SEP]")
    assert set(tokens(tokenizers["unigram"], "𐎀𐎁𐎂").pieces[1:-1]) <= {"▁", "<unk>"}


def test_line_ends_and_tabs_are_spaces_to_bert(tokenizers: dict[str, Any]) -> None:
    """C58."""
    assert tokens(tokenizers["minilm"], "a\r\nb\tc\u2028d").pieces[1:-1] == ("a", "b", "c", "d")


def test_markup_and_escapes_are_kept_as_they_are(tokenizers: dict[str, Any]) -> None:
    """C59: values hold the text; what shows them escapes it (`render`)."""
    text = STRANGE["C59 markup"]
    seen = tokens(tokenizers["minilm"], text)
    assert seen.pieces[1:4] == ("<", "script", ">")
    assert [text[start:end] for start, end in seen.offsets[1:4]] == ["<", "script", ">"]
    assert not any("\x1b" in piece for piece in seen.pieces)


def test_templates_in_texts_and_errors_are_not_filled_in(tokenizers: dict[str, Any]) -> None:
    """C60: braces and per cent signs are characters, in tokens and in messages."""
    assert "49" not in "".join(tokens(tokenizers["minilm"], "{{7*7}} ${7*7}").pieces)
    with pytest.raises(TokenizerError, match=r"came bytes b'\{\{7\*7\}\} %s \{0\}'"):
        table_of(tokenizers["minilm"], [b"{{7*7}} %s {0}"])


def test_composed_and_decomposed_text(tokenizers: dict[str, Any]) -> None:
    """C61: BERT and NFKC tokenizers give the same ids for both; bytes do not, and say so by their pieces."""
    composed, decomposed = unicodedata.normalize("NFC", "café très"), unicodedata.normalize("NFD", "café très")
    assert composed != decomposed
    for kind in ("minilm", "wordpiece", "unigram"):
        assert table_of(tokenizers[kind], [composed]).ids.tolist() == table_of(tokenizers[kind], [decomposed]).ids.tolist()
    assert tokens(tokenizers["bpe"], composed).pieces != tokens(tokenizers["bpe"], decomposed).pieces
    seen = tokens(tokenizers["minilm"], decomposed)
    assert next(decomposed[start:end] for start, end in seen.offsets[1:-1]).startswith("cafe")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_with_one_empty_side(tokenizers: dict[str, Any], kind: str) -> None:
    """C62: still a pair, with the template of a pair."""
    from copy import deepcopy

    first, second = ["a film", "", "b"], ["", "a film", ""]
    table = encode(tokenizers[kind], {"text": first, "text_pair": second}, ("text", "text_pair"), TokenOptions())
    expected = deepcopy(tokenizers[kind])(first, second, truncation=True)["input_ids"]
    assert [table.ids_of(row).tolist() for row in range(3)] == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("difference", "lost"), [(-1, 0), (0, 0), (1, 1)])
def test_a_text_at_the_length(tokenizers: dict[str, Any], kind: str, difference: int, lost: int) -> None:
    """C63: one below, exactly at and one above max_length."""
    tokenizer = tokenizers[kind]
    text = "the film is good and the jokes are old"
    whole = int(table_of(tokenizer, [text]).lengths[0])
    table = table_of(tokenizer, [text], TokenOptions(max_length=whole - difference))
    assert table.lost.tolist() == [lost] and table.lengths[0] == whole - lost
    assert table.lost_words[0] == lost
    batch = pad(table, np.array([0]), pad_spec_of(tokenizer))
    assert batch.inputs["attention_mask"].all()


def pad_spec_of(tokenizer: Any) -> Any:
    from copy import deepcopy

    own = deepcopy(tokenizer)
    own.pad_token = own.pad_token or own.eos_token
    return pad_spec(own, TokenOptions())


@pytest.mark.parametrize("lengths", [[5], [5] * 9, [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_batches_of_one_of_equal_and_of_different_lengths(tokenizers: dict[str, Any], lengths: list[int]) -> None:
    """C64: every plan, every shape."""
    table = table_of(tokenizers["minilm"], ["a " * length for length in lengths])
    spec = pad_spec_of(tokenizers["minilm"])
    plans = (
        plan_sorted(table.lengths, TokenBudget(24)),
        plan_training(table.lengths, batch_size=4),
        plan_in_order(table.lengths, 1),
        plan_in_order(table.lengths, 100),
    )
    for plan in plans:
        rows = []
        for windows in plan:
            batch = pad(table, windows, spec)
            width = int(table.lengths[windows].max())
            assert batch.inputs["input_ids"].shape == (len(windows), width)
            assert batch.inputs["attention_mask"].sum(axis=1).tolist() == table.lengths[windows].tolist()
            rows += batch.rows.tolist()
        assert sorted(rows) == list(range(len(lengths)))


@pytest.mark.parametrize("kind", KINDS)
def test_bait_for_slow_patterns_is_fast(tokenizers: dict[str, Any], kind: str) -> None:
    """C65: none of our own patterns ever sees a text, and the tokenizers' are linear."""
    bait = ["a" * 50 + "!", "a" * 20_000 + "!", "(" * 20_000, " " * 20_000 + "x", "ab" * 10_000, "\t\n" * 10_000 + "."]
    start = time.perf_counter()
    for text in bait:
        assert table_of(tokenizers[kind], [text], TokenOptions(max_length=16)).lengths[0] <= 16
    assert time.perf_counter() - start < 5


def test_a_tokenizer_with_a_slow_pattern_is_an_error_not_a_crash() -> None:
    """C65: Rust's panic is no Exception in Python; it becomes one."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", model_max_length=64)
    with pytest.raises(TokenizerError, match="the tokenizer failed"):
        table_of(tokenizer, ["a" * 40 + "!"])
