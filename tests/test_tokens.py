"""Tokens of many rows and of one: the same ids as the tokenizer's own call, whatever the options, and nothing changed on the way."""

import csv
import gzip
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid import token_reading
from pellucid.errors import LabelError, SettingError, TokenizerError
from pellucid.tokens import (
    TokenOptions,
    TokenTable,
    TruncationReport,
    effective_max_length,
    encode,
    encode_split,
    fingerprint,
    load_tokenizer,
    pad_spec,
    tokens_of,
)
from pellucid.types import Example

KINDS = ("wordpiece", "bpe", "unigram", "roberta", "t5", "llama", "minilm")
TEXTS = (
    "Tokenizing text is a core task of NLP",
    "The animal didn't cross the street because it was too tired.",
    "Überraschend schön, très émouvant, 素晴らしい 🎉!",
    "a  b\t\tc\r\nd   ",
    "word " * 120,
    "x" * 300,
    "it is neither good nor bad; it is merely there. " * 9,
    "I",
)
PAIRS = (TEXTS, tuple(reversed(TEXTS)))
FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def roberta(bpe: Any) -> Any:
    """RoBERTa's kind: byte-level BPE with <s> … </s>, and a mask that eats the space before it."""
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(bpe.backend_tokenizer.to_str())
    backend.add_special_tokens(["<s>", "<pad>", "</s>", AddedToken("<mask>", lstrip=True)])
    ends = [(name, backend.token_to_id(name)) for name in ("</s>", "<s>")]
    backend.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, mask_token="<mask>", **names)


def t5(unigram: Any) -> Any:
    """T5's kind: Unigram with only an end token, and cuts on the left."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(unigram.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, truncation_side="left", padding_side="left", **names)


def llama(unigram: Any) -> Any:
    """Llama's kind: spaces turned into ▁ by the normalizer, no split into words, numbered types for the second text."""
    from tokenizers import Tokenizer, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    template = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    backend.post_processor = template
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=64)


@pytest.fixture(scope="session")
def tokenizers(tiny_tokenizers: dict[str, Any], minilm_folder: Path) -> dict[str, Any]:
    made = {"roberta": roberta(tiny_tokenizers["bpe"]), "t5": t5(tiny_tokenizers["unigram"]), "llama": llama(tiny_tokenizers["unigram"])}
    minilm, notes = load_tokenizer(minilm_folder)
    assert notes == ()
    return {**tiny_tokenizers, **made, "minilm": minilm}


def reference(tokenizer: Any, columns: Sequence[Sequence[str]], options: TokenOptions) -> dict[str, list[list[int]]]:
    """What transformers itself gives."""
    own = deepcopy(tokenizer)
    found: dict[str, list[list[int]]] = own(
        *[list(column) for column in columns],
        truncation=options.truncation,
        max_length=options.max_length,
        padding=False,
        verbose=False,
        return_token_type_ids=True,
        split_special_tokens=not options.special_tokens_in_text,
    )
    return found


def assert_parity(tokenizer: Any, columns: Sequence[Sequence[str]], options: TokenOptions) -> TokenTable:
    reads = ("text", "text_pair")[: len(columns)]
    table = encode(tokenizer, dict(zip(reads, columns, strict=True)), reads, options)
    expected = reference(tokenizer, columns, options)
    assert [table.ids_of(row).tolist() for row in range(len(table))] == expected["input_ids"]
    types = np.zeros(len(table.ids), np.uint8) if table.type_ids is None else table.type_ids
    assert types.tolist() == [kind for row in expected["token_type_ids"] for kind in row]
    uncut = reference(tokenizer, columns, replace(options, truncation=False))
    lost = [len(whole) - len(kept) for whole, kept in zip(uncut["input_ids"], expected["input_ids"], strict=True)]
    assert table.lost.tolist() == lost
    assert ((table.lost_words > 0) <= (table.lost > 0)).all()
    return table


def imdb(shared_data: Path, rows: int = 200) -> list[str]:
    with gzip.open(shared_data / "imdb_sample" / "texts.csv.gz", "rt", encoding="utf-8") as stream:
        return [row["text"] for row in islice(csv.DictReader(stream), rows)]


def snli(shared_data: Path, rows: int = 300) -> tuple[list[str], list[str]]:
    with gzip.open(shared_data / "nli" / "snli_dev.csv.gz", "rt", encoding="utf-8") as stream:
        found = [list(row.values()) for row in islice(csv.DictReader(stream), rows)]
    return [row[0] for row in found], [row[1] for row in found]


# --- ids ---------------------------------------------------------------------------------------------------------------


def test_the_sentence_of_the_course(tokenizers: dict[str, Any]) -> None:
    table = encode(tokenizers["minilm"], {"text": [TEXTS[0]]}, ("text",), TokenOptions())
    assert table.ids_of(0).tolist() == [101, 19204, 6026, 3793, 2003, 1037, 4563, 4708, 1997, 17953, 2361, 102]
    assert table.ids.dtype == np.int32 and table.starts.dtype == np.int64 and table.type_ids is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [None, 5, 12, 13, 64])
def test_single_texts_get_the_ids_of_transformers(tokenizers: dict[str, Any], kind: str, max_length: int | None) -> None:
    for truncation in (True, False, "longest_first", "only_first", "do_not_truncate"):
        assert_parity(tokenizers[kind], [TEXTS], TokenOptions(truncation=truncation, max_length=max_length))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [7, 12, 13, 64])
def test_pairs_get_the_ids_of_transformers(tokenizers: dict[str, Any], kind: str, max_length: int) -> None:
    for pairs in (PAIRS, (TEXTS[:3], ("", "b", "")), (("", "a", ""), TEXTS[:3]), (TEXTS, TEXTS)):
        for truncation in (True, False):
            assert_parity(tokenizers[kind], pairs, TokenOptions(truncation=truncation, max_length=max_length))


@pytest.mark.parametrize("kind", KINDS)
def test_only_one_text_of_a_pair_is_cut(tokenizers: dict[str, Any], kind: str) -> None:
    long, short = [TEXTS[4], TEXTS[6], TEXTS[1]], ["a", "I", "b c"]
    assert_parity(tokenizers[kind], [long, short], TokenOptions(truncation="only_first", max_length=15))
    assert_parity(tokenizers[kind], [short, long], TokenOptions(truncation="only_second", max_length=15))


def test_a_text_that_is_too_short_to_be_cut_names_the_row(tokenizers: dict[str, Any]) -> None:
    columns = {"text": ["a b c", "word " * 40], "text_pair": ["word " * 2, "b"]}
    encode(tokenizers["minilm"], columns, ("text", "text_pair"), TokenOptions(truncation="only_first", max_length=10))
    with pytest.raises(TokenizerError, match=r"row 1: 41 tokens of text, room for 7, and only column 'text_pair' may be cut, which has 1"):
        encode(tokenizers["minilm"], columns, ("text", "text_pair"), TokenOptions(truncation="only_second", max_length=10))


@FAST
@given(
    texts=st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), min_size=1, max_size=4),
    kind=st.sampled_from(KINDS),
    data=st.data(),
)
def test_any_text_gets_the_ids_of_transformers(tokenizers: dict[str, Any], texts: list[tuple[str, str]], kind: str, data: Any) -> None:
    options = TokenOptions(max_length=data.draw(st.none() | st.integers(5, 30)), special_tokens_in_text=data.draw(st.booleans()))
    first, second = (["x" + text for text in column] for column in zip(*texts, strict=True))  # "x": no row without tokens
    assert_parity(tokenizers[kind], [first], options)
    assert_parity(tokenizers[kind], [first, second], options)


@pytest.mark.parametrize("kind", ["minilm", "roberta", "t5"])
def test_real_reviews_get_the_ids_of_transformers(tokenizers: dict[str, Any], shared_data: Path, kind: str) -> None:
    texts = imdb(shared_data)
    for max_length in (None, 64, 511):
        assert_parity(tokenizers[kind], [texts], TokenOptions(max_length=max_length))


@pytest.mark.parametrize("kind", ["minilm", "roberta", "t5"])
def test_real_pairs_get_the_ids_of_transformers(tokenizers: dict[str, Any], shared_data: Path, kind: str) -> None:
    assert_parity(tokenizers[kind], snli(shared_data), TokenOptions(max_length=24))


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("wordpiece", "[SEP]"),
        ("minilm", "[SEP]"),
        ("bpe", "<|endoftext|>"),
        ("roberta", "</s>"),
        ("roberta", "<mask>"),
        ("unigram", "</s>"),
        ("t5", "</s>"),
        ("llama", "</s>"),
    ],
)
def test_a_special_token_that_somebody_wrote_stays_text(tokenizers: dict[str, Any], kind: str, written: str) -> None:
    tokenizer = tokenizers[kind]
    text = f"hi {written} there"
    kept = encode(tokenizer, {"text": [text, "hi there"]}, ("text",), TokenOptions())
    number = tokenizer.convert_tokens_to_ids(written)
    plain = kept.ids_of(1).tolist()
    assert kept.ids_of(0).tolist().count(number) == plain.count(number)  # only those of the template
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # the tiny vocabularies have no "[": that is unknown
    assert [token for token in kept.ids_of(0).tolist() if token in special] == [token for token in plain if token in special]
    read = encode(tokenizer, {"text": [text]}, ("text",), TokenOptions(special_tokens_in_text=True))
    assert read.ids_of(0).tolist().count(number) == plain.count(number) + 1


def test_written_special_token_in_pieces(tokenizers: dict[str, Any]) -> None:
    tokens = tokens_of(tokenizers["minilm"], Example(0, {"text": "hi [SEP]"}), ("text",), TokenOptions())
    assert tokens.pieces == ("[CLS]", "hi", "[", "sep", "]", "[SEP]")
    assert tokens.special == (True, False, False, False, False, True)


# --- long texts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are read in part from 300 characters on."""
    monkeypatch.setattr(token_reading, "READ_LEAST", 300)
    monkeypatch.setattr(token_reading, "READ_PER_TOKEN", 8)


LONG = " ".join(TEXTS)
SPACES = " " * 900 + "a b c"
LONG_TEXTS = (
    LONG,
    SPACES,
    "x" * 1200,
    LONG + "\n\n  " + LONG,
    "short",
    ("a" * 99 + "  ") * 12,
    "e\u0301 " * 200,
    "the cat " * 90,
    "the cat sat " * 60,
)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_read_in_part_gets_the_same_ids(tokenizers: dict[str, Any], kind: str, side: str) -> None:
    tokenizer = deepcopy(tokenizers[kind])
    tokenizer.truncation_side = side
    for max_length in (12, 16, 17):
        options = TokenOptions(max_length=max_length)
        table = encode(tokenizer, {"text": LONG_TEXTS}, ("text",), options)
        assert [table.ids_of(row).tolist() for row in range(len(table))] == reference(tokenizer, [LONG_TEXTS], options)["input_ids"]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_pair_read_in_part_gets_the_same_ids(tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str, side: str) -> None:
    tokenizer = deepcopy(tokenizers[kind])
    tokenizer.truncation_side = side
    columns = {"text": LONG_TEXTS * 9, "text_pair": [text for text in LONG_TEXTS for _ in LONG_TEXTS]}
    choices = [TokenOptions(max_length=max_length) for max_length in (12, 16, 17)]
    in_part = [encode(tokenizer, columns, ("text", "text_pair"), options).ids.tolist() for options in choices]
    monkeypatch.setattr(token_reading, "READ_LEAST", 10**9)  # the parity of whole texts is tested above; the reference needs minutes here
    assert in_part == [encode(tokenizer, columns, ("text", "text_pair"), options).ids.tolist() for options in choices]


@pytest.mark.usefixtures("small_parts")
def test_only_a_part_of_a_long_text_is_read(tokenizers: dict[str, Any]) -> None:
    tokens = tokens_of(tokenizers["minilm"], Example(0, {"text": "the cat sat " * 1000}), ("text",), TokenOptions(max_length=16))
    assert tokens.lost == pytest.approx(3000 - 14, rel=0.01)
    recipe = token_reading.recipe_of(tokenizers["minilm"], ("text",), TokenOptions(max_length=16))
    (column,) = token_reading.read_columns(recipe, [["the cat sat " * 1000, "the cat"]])
    assert column.spans == {0: (0, 299)} and column.counts.tolist() == [75, 2]


def test_lost_words_are_counted_at_white_space(tokenizers: dict[str, Any]) -> None:
    texts = ["one two three four five six", "one two", "unbelievable tokenization"]
    table = encode(tokenizers["minilm"], {"text": texts}, ("text",), TokenOptions(max_length=5))
    assert table.lost.tolist() == [3, 0, 0] and table.lost_words.tolist() == [3, 0, 0]
    report = TruncationReport.of(table, texts)
    assert report == TruncationReport(rows=3, texts_cut=1, words=10, words_lost=3)
    assert report.share_cut == pytest.approx(1 / 3) and report.share_lost == pytest.approx(0.3)


def test_the_estimate_for_a_text_read_in_part_is_near(tokenizers: dict[str, Any]) -> None:
    text = "word " * 100_000
    table = encode(tokenizers["minilm"], {"text": [text]}, ("text",), TokenOptions(max_length=64))
    assert table.lost[0] == pytest.approx(100_000 - 62, rel=0.01) and table.lost_words[0] == 100_000 - 62


# --- one row -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_agrees_with_many(tokenizers: dict[str, Any], kind: str) -> None:
    tokenizer = tokenizers[kind]
    for options in (TokenOptions(), TokenOptions(max_length=12), TokenOptions(max_length=9, special_tokens_in_text=True)):
        table = encode(tokenizer, dict(zip(("text", "text_pair"), PAIRS, strict=True)), ("text", "text_pair"), options)
        for row, (first, second) in enumerate(zip(*PAIRS, strict=True)):
            example = Example(row, {"text": first, "text_pair": second})
            tokens = tokens_of(tokenizer, example, ("text", "text_pair"), options)
            assert list(tokens.ids) == table.ids_of(row).tolist()
            assert tokens.lost == table.lost[row] and tokens.row == row
            assert list(tokens.pieces) == tokenizer.convert_ids_to_tokens(list(tokens.ids))
            columns = (tokens.pieces, tokens.offsets, tokens.words, tokens.special, tokens.segments)
            assert {len(column) for column in columns} == {len(tokens)}
            for (start, end), segment, special in zip(tokens.offsets, tokens.segments, tokens.special, strict=True):
                assert (segment is None) == special
                assert segment is None or 0 <= start <= end <= len(example.fields[segment])


def test_offsets_point_at_the_text(tokenizers: dict[str, Any]) -> None:
    text = "Tokenizing Überraschend 素晴らしい"
    tokens = tokens_of(tokenizers["minilm"], Example(3, {"text": text}), ("text",), TokenOptions())
    assert [text[start:end] for start, end in tokens.offsets[1:4]] == ["Token", "izing", "Uber".replace("U", "Ü")]
    assert tokens.words[1:4] == (0, 0, 1)
    expected = tokenizers["minilm"](text, return_offsets_mapping=True)["offset_mapping"]
    assert list(tokens.offsets) == expected


def test_offsets_of_the_end_of_a_long_text(tokenizers: dict[str, Any]) -> None:
    tokenizer = deepcopy(tokenizers["minilm"])
    tokenizer.truncation_side = "left"
    text = "word " * 10_000 + "the very end"
    tokens = tokens_of(tokenizer, Example(0, {"text": text}), ("text",), TokenOptions(max_length=5))
    assert [text[start:end] for start, end in tokens.offsets[1:-1]] == ["the", "very", "end"]


def test_a_row_has_one_window(tokenizers: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="row 4: a row has one window, asked for window 1"):
        tokens_of(tokenizers["minilm"], Example(4, {"text": "a"}), ("text",), TokenOptions(), 1)


# --- nothing is changed ------------------------------------------------------------------------------------------------


def state(tokenizer: Any) -> tuple[Any, ...]:
    backend = tokenizer.backend_tokenizer
    return backend.truncation, backend.padding, backend.encode_special_tokens, len(tokenizer), backend.to_str()


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_tokenizer_stays_as_it_is(tokenizers: dict[str, Any], kind: str) -> None:
    tokenizer = deepcopy(tokenizers[kind])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer(["a b c"], truncation=True, max_length=2, padding="max_length", split_special_tokens=False)
    before = state(tokenizer)
    columns = {"text": list(TEXTS)}
    encode(tokenizer, columns, ("text",), TokenOptions(max_length=9))
    tokens_of(tokenizer, Example(0, {"text": "a [SEP]"}), ("text",), TokenOptions())
    fingerprint(tokenizer, TokenOptions())
    assert state(tokenizer) == before and columns == {"text": list(TEXTS)}


def test_threads_with_different_options_share_a_tokenizer(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["minilm"]
    texts = ["hi [SEP] there " * count for count in range(1, 30)]
    choices = [TokenOptions(max_length=5 + n % 7, special_tokens_in_text=bool(n % 2)) for n in range(40)]
    alone = [encode(tokenizer, {"text": texts}, ("text",), options).ids.tolist() for options in choices]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda options: encode(tokenizer, {"text": texts}, ("text",), options).ids.tolist(), choices))
    assert together == alone


def test_added_tokens_are_kept(tokenizers: dict[str, Any]) -> None:
    tokenizer = deepcopy(tokenizers["minilm"])
    tokenizer.add_tokens(["pellucidum", "New York"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<extra>"]})
    assert_parity(tokenizer, [["in New York a pellucidum <extra>", "plain"]], TokenOptions(max_length=8))
    assert_parity(tokenizer, [["in New York a pellucidum <extra>"]], TokenOptions(special_tokens_in_text=True))


def test_a_tokenizer_that_cannot_be_taken_apart_is_copied(tokenizers: dict[str, Any]) -> None:
    class Backend:
        """A Rust tokenizer whose added tokens are not what adding them again would give."""

        def __init__(self, whole: Any) -> None:
            self.whole = whole

        def __getattr__(self, name: str) -> Any:
            return getattr(self.whole, name)

        def get_added_tokens_decoder(self) -> dict[int, Any]:
            return {**self.whole.get_added_tokens_decoder(), 10**6: next(iter(self.whole.get_added_tokens_decoder().values()))}

    class Wrapped:
        is_fast, model_max_length, truncation_side = True, 64, "right"
        backend_tokenizer = Backend(tokenizers["minilm"].backend_tokenizer)

    table = encode(Wrapped(), {"text": TEXTS}, ("text",), TokenOptions(max_length=9))  # type: ignore[arg-type]
    assert_same(table, encode(tokenizers["minilm"], {"text": TEXTS}, ("text",), TokenOptions(max_length=9)))


# --- settings ----------------------------------------------------------------------------------------------------------


def test_options_survive_json() -> None:
    options = TokenOptions(padding="max_length", truncation="only_first", max_length=32, pad_to_multiple_of=8, special_tokens_in_text=True)
    assert TokenOptions.from_settings(json.loads(json.dumps(options.settings()))) == options
    assert TokenOptions.from_settings({}) == TokenOptions()
    assert options.describe().startswith(
        "padding max_length, truncation only_first, max_length 32, padded to a multiple of 8, special tokens"
    )
    assert TokenOptions().describe() == "padding longest, truncation longest_first"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("padding", "longer"),
        ("padding", 1),
        ("truncation", "first"),
        ("truncation", None),
        ("max_length", 0),
        ("max_length", True),
        ("pad_to_multiple_of", 2.0),
        ("special_tokens_in_text", "no"),
    ],
)
def test_options_refuse_what_transformers_does_not_know(name: str, value: object) -> None:
    with pytest.raises(SettingError, match=name):
        TokenOptions(**{name: value})  # type: ignore[arg-type]


def test_options_refuse_an_unknown_field() -> None:
    with pytest.raises(SettingError, match=r"token options have no field 'stride'. The fields are padding, "):
        TokenOptions.from_settings({"stride": 4})


def test_a_length_without_room_for_text_is_refused(tokenizers: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"max_length is 2, and 2 special tokens leave no room for text. Set it to 3 or more"):
        encode(tokenizers["minilm"], {"text": ["a"]}, ("text",), TokenOptions(max_length=2))
    with pytest.raises(SettingError, match="needs a pair"):
        encode(tokenizers["minilm"], {"text": ["a"]}, ("text",), TokenOptions(truncation="only_second"))


def test_columns_that_do_not_fit_are_refused(tokenizers: dict[str, Any]) -> None:
    minilm, options = tokenizers["minilm"], TokenOptions()
    with pytest.raises(SettingError, match="expected a column 'text', came 'txt'"):
        encode(minilm, {"txt": ["a"]}, ("text",), options)
    with pytest.raises(SettingError, match="expected a list of texts in column 'text', came one str"):
        encode(minilm, {"text": "abc"}, ("text",), options)
    with pytest.raises(SettingError, match=r"different numbers of rows \('text': 2, 'text_pair': 1\)"):
        encode(minilm, {"text": ["a", "b"], "text_pair": ["c"]}, ("text", "text_pair"), options)
    with pytest.raises(SettingError, match="one text or a pair, not 3 columns"):
        encode(minilm, {}, ("a", "b", "c"), options)


def test_the_length_is_the_least_of_those_who_know(tokenizers: dict[str, Any]) -> None:
    minilm, unknown = tokenizers["minilm"], deepcopy(tokenizers["minilm"])
    unknown.model_max_length = int(1e30)
    assert effective_max_length(minilm, TokenOptions()) == (512, None)
    assert effective_max_length(minilm, TokenOptions(max_length=128), 512) == (128, None)
    length, note = effective_max_length(minilm, TokenOptions(max_length=1000), 512)
    assert length == 512 and note is not None and note.what == "max_length 512 instead of 1000"
    length, note = effective_max_length(minilm, TokenOptions(), 64)
    assert length == 64 and note is not None and "claims 512" in note.why
    length, note = effective_max_length(unknown, TokenOptions(), 64)
    assert length == 64 and note is not None and "does not say" in note.why
    length, note = effective_max_length(unknown, TokenOptions())
    assert length is None and note is not None and note.what == "texts are not cut"
    assert effective_max_length(unknown, TokenOptions(max_length=9)) == (9, None)


def test_pad_spec_follows_tokenizer_options_and_model(tokenizers: dict[str, Any]) -> None:
    spec = pad_spec(tokenizers["minilm"], TokenOptions(padding="max_length", max_length=32, pad_to_multiple_of=8))
    assert (spec.pad_id, spec.side, spec.padding, spec.max_length, spec.multiple_of) == (0, "right", "max_length", 32, 8)
    assert set(spec.input_names) == {"input_ids", "token_type_ids", "attention_mask"}
    assert pad_spec(tokenizers["minilm"], TokenOptions(), frozenset({"input_ids", "attention_mask"})).input_names == (
        "input_ids",
        "attention_mask",
    )
    everything = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
    assert "token_type_ids" not in pad_spec(tokenizers["unigram"], TokenOptions(), everything).input_names
    assert pad_spec(tokenizers["t5"], TokenOptions()).side == "left"


def test_pad_spec_refuses_what_cannot_be_padded(tokenizers: dict[str, Any]) -> None:
    unknown = deepcopy(tokenizers["minilm"])
    unknown.model_max_length = int(1e30)
    with pytest.raises(SettingError, match="padding='max_length' needs a length"):
        pad_spec(unknown, TokenOptions(padding="max_length"))
    with pytest.raises(SettingError, match=r"rows cut to 30 tokens cannot be padded to a multiple of 8. Set TokenOptions.max_length to 24"):
        pad_spec(tokenizers["minilm"], TokenOptions(max_length=30, pad_to_multiple_of=8))
    with pytest.raises(TokenizerError, match="no pad token"):
        pad_spec(tokenizers["bpe"], TokenOptions())
    assert pad_spec(tokenizers["bpe"], TokenOptions(padding=False)).pad_id == 0


def test_fingerprints_differ_where_ids_would(tokenizers: dict[str, Any]) -> None:
    minilm = tokenizers["minilm"]
    other = deepcopy(minilm)
    other.add_tokens(["pellucidum"])
    left = deepcopy(minilm)
    left.truncation_side = "left"
    variants = [TokenOptions(), TokenOptions(max_length=9), TokenOptions(special_tokens_in_text=True)]
    found = [fingerprint(minilm, options) for options in variants] + [fingerprint(each, TokenOptions()) for each in (other, left)]
    assert len(set(found)) == len(found)
    used = deepcopy(minilm)
    used(["a"], truncation=True, max_length=3, padding="max_length")
    assert fingerprint(used, TokenOptions()) == found[0]


# --- loading -----------------------------------------------------------------------------------------------------------


def test_a_missing_pad_token_is_the_end_token_and_said(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    tokenizers["bpe"].save_pretrained(tmp_path)
    loaded, notes = load_tokenizer(tmp_path)
    assert loaded.pad_token == "<|endoftext|>" and [note.what for note in notes] == ["'<|endoftext|>' pads"]
    assert tokenizers["bpe"].pad_token is None


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(TokenizerError, match=r"expected a tokenizer.json"):
        load_tokenizer(tmp_path)


def test_the_vocabulary_of_five_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"of them are text|cannot be loaded"):
        load_tokenizer(tmp_path)


def test_a_broken_tokenizer_file_is_refused(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    tokenizers["wordpiece"].save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "trunc')
    with pytest.raises(TokenizerError, match="cannot be loaded"):
        load_tokenizer(tmp_path)


def test_a_panic_inside_the_tokenizer_is_an_error_with_a_cure() -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", model_max_length=64)
    with pytest.raises(TokenizerError, match=r"tokenizer failed"):
        encode(tokenizer, {"text": ["a" * 40 + "!"]}, ("text",), TokenOptions())


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(TokenizerError, match="Slow is a slow tokenizer, without character offsets"):
        encode(Slow(), {"text": ["a"]}, ("text",), TokenOptions())  # type: ignore[arg-type]


# --- tables ------------------------------------------------------------------------------------------------------------


def test_no_rows_make_an_empty_table(tokenizers: dict[str, Any]) -> None:
    table = encode(tokenizers["minilm"], {"text": []}, ("text",), TokenOptions())
    assert len(table) == 0 and table.starts.tolist() == [0] and table.lengths.tolist() == []


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_join_to_the_whole(tokenizers: dict[str, Any], kind: str) -> None:
    columns = dict(zip(("text", "text_pair"), PAIRS, strict=True))
    whole = encode(tokenizers[kind], columns, ("text", "text_pair"), TokenOptions(max_length=20))
    parts = [
        encode(
            tokenizers[kind],
            {role: texts[start : start + 3] for role, texts in columns.items()},
            ("text", "text_pair"),
            TokenOptions(max_length=20),
        )
        for start in (0, 3, 6)
    ]
    joined = TokenTable.concatenate([replace(part, rows=part.rows + start) for part, start in zip(parts, (0, 3, 6), strict=True)])
    assert_same(joined, whole)


def assert_same(first: TokenTable, second: TokenTable) -> None:
    for name in ("ids", "starts", "rows", "windows", "type_ids", "labels", "lost", "lost_words"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        assert one is None or (one.dtype == other.dtype and one.tolist() == other.tolist()), name


def test_labels_belong_to_windows(tokenizers: dict[str, Any]) -> None:
    table = encode(tokenizers["minilm"], {"text": ["a", "b"]}, ("text",), TokenOptions())
    assert table.with_labels(np.array([1, 0])).labels is not None and table.labels is None
    with pytest.raises(SettingError, match="2 windows but 3 labels"):
        table.with_labels(np.array([1, 0, 1]))
    with pytest.raises(SettingError, match="some tables have labels"):
        TokenTable.concatenate([table, table.with_labels(np.array([1, 0]))])
    with pytest.raises(SettingError, match="2 windows, asked for window 2"):
        table.ids_of(2)
    with pytest.raises(SettingError, match="no table"):
        TokenTable.concatenate([])


# --- whole splits ------------------------------------------------------------------------------------------------------


class FakeSplit:
    """Rows that can be read in chunks, as a data.Split can."""

    def __init__(self, texts: Sequence[Any], targets: Sequence[Any] | None = None) -> None:
        self.texts, self.answers, self.reads = list(texts), targets, 0

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def has_targets(self) -> bool:
        return self.answers is not None

    def chunks(self, size: int = 3) -> Any:
        return iter([(start, min(start + size, len(self))) for start in range(0, len(self), size)])

    def columns(self, start: int, stop: int) -> dict[str, list[str]]:
        self.reads += 1
        return {"text": self.texts[start:stop]}

    def targets(self, start: int, stop: int) -> list[Any]:
        return list((self.answers or [])[start:stop])

    def place(self, row: int) -> str:
        return f"reviews.csv, line {row + 2} (row {row})"

    def fingerprint(self) -> str:
        return json.dumps(self.texts)


def encoder(tokenizer: Any) -> Any:
    def encode_chunk(columns: Any, targets: Any, options: TokenOptions) -> TokenTable:
        table = encode(tokenizer, columns, ("text",), options)
        if targets is None:
            return table
        if "bad" in targets:
            raise LabelError("no such label", place="row 0, column 'label'", cure="Drop it.")
        return table.with_labels(np.array([len(target) for target in targets], dtype=np.int64))

    return encode_chunk


def test_a_split_is_the_table_of_all_its_rows(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["minilm"]
    table = encode_split(encoder(tokenizer), FakeSplit(TEXTS, [*"abcdefg", "hh"]), options=TokenOptions(), tokenizer=tokenizer)
    whole = encode(tokenizer, {"text": TEXTS}, ("text",), TokenOptions()).with_labels(np.array([1] * 7 + [2]))
    assert_same(table, whole)
    assert len(encode_split(encoder(tokenizer), FakeSplit([]), options=TokenOptions(), tokenizer=tokenizer)) == 0


@pytest.mark.parametrize("pairs", [False, True])
def test_the_second_run_reads_the_cache(tokenizers: dict[str, Any], tmp_path: Path, pairs: bool) -> None:
    tokenizer = tokenizers["llama" if pairs else "minilm"]
    split, answers = FakeSplit(TEXTS), list("abcdefgh")
    chunk = encoder(tokenizer)
    first = encode_split(chunk, split, options=TokenOptions(), tokenizer=tokenizer, cache=tmp_path)
    reads = split.reads
    second = encode_split(chunk, split, options=TokenOptions(), tokenizer=tokenizer, cache=tmp_path)
    assert split.reads == reads
    assert_same(first, second)
    assert_same(first, encode(tokenizer, {"text": TEXTS}, ("text",), TokenOptions()))
    assert not second.ids.flags.writeable and not second.ids.flags.owndata  # memory-mapped
    for other in (FakeSplit([*TEXTS, "more"]), FakeSplit(TEXTS, answers), FakeSplit(TEXTS, [*answers[:-1], "hh"])):
        assert len(encode_split(chunk, other, options=TokenOptions(), tokenizer=tokenizer, cache=tmp_path, key="task")) == len(other)
        assert other.reads == len(list(other.chunks()))
    encode_split(chunk, split, options=TokenOptions(max_length=9), tokenizer=tokenizer, cache=tmp_path)
    assert split.reads == 2 * reads
    assert len(list(tmp_path.glob("tokens-*"))) == 5


def test_the_cache_keeps_labels_apart_by_task(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = tokenizers["minilm"]
    split = FakeSplit(TEXTS, list("abcdefgh"))
    with pytest.raises(SettingError, match="what decides the labels"):
        encode_split(encoder(tokenizer), split, options=TokenOptions(), tokenizer=tokenizer, cache=tmp_path)
    tables = [encode_split(encoder(tokenizer), split, options=TokenOptions(), tokenizer=tokenizer, cache=tmp_path, key=key) for key in "ab"]
    assert tables[0].labels is not None and tables[0].labels.tolist() == [1] * 8
    assert len(list(tmp_path.glob("tokens-*"))) == 2


@pytest.mark.parametrize("damage", ["table.json", "ids.npy", "starts.npy", "lost.npy"])
def test_a_damaged_cache_is_made_again(tokenizers: dict[str, Any], tmp_path: Path, damage: str) -> None:
    tokenizer = tokenizers["minilm"]
    split = FakeSplit(TEXTS)
    first = encode_split(encoder(tokenizer), split, options=TokenOptions(), tokenizer=tokenizer, cache=tmp_path)
    expected = replace(first, ids=first.ids.copy(), starts=first.starts.copy(), lost=first.lost.copy())
    (folder,) = tmp_path.glob("tokens-*")
    file = folder / damage
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) - 9])
    assert_same(encode_split(encoder(tokenizer), split, options=TokenOptions(), tokenizer=tokenizer, cache=tmp_path), expected)


def test_errors_name_the_row_in_the_source(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["minilm"]
    texts: list[Any] = [*TEXTS]
    texts[4] = None
    with pytest.raises(TokenizerError, match=r"reviews.csv, line 6 \(row 4\), column 'text': expected a text, came a missing value"):
        encode_split(encoder(tokenizer), FakeSplit(texts), options=TokenOptions(), tokenizer=tokenizer)
    answers = ["a", "b", "c", "d", "e", "f", "g", "bad"]
    with pytest.raises(LabelError, match=r"reviews.csv, line 9 \(row 7\), column 'label': no such label"):
        encode_split(encoder(tokenizer), FakeSplit(TEXTS, answers), options=TokenOptions(), tokenizer=tokenizer)
