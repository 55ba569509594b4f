"""Vocabularies trained on texts: the sizes and special tokens that were asked for, offsets, folders, parity, comparison, bad input."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import DataError, SettingError, TokenizerError
from pellucid.render import to_text
from pellucid.tokenizer import load_tokenizer
from pellucid.vocab import VocabularyOptions, train_tokenizer
from pellucid.vocab_comparison import compare_tokenizers
from pellucid.vocab_kinds import EXACT, FAMILIES

SIZES = {"word": 60, "character": 50, "bpe": 160, "byte-bpe": 300, "wordpiece": 200, "unigram": 150}
TEXT = "A warm film, and a wonderful cast."


def options(kind: str, **others: Any) -> VocabularyOptions:
    often = {} if kind == "unigram" else {"min_frequency": 1}
    return VocabularyOptions(kind=kind, size=SIZES[kind], **often, **others)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """One tokenizer of each kind, for BERT."""
    return {kind: train_tokenizer(list(SENTENCES), options(kind)) for kind in SIZES}


@pytest.fixture(scope="module")
def paragraphs(shared_data: Path) -> list[str]:
    """Real paragraphs of WikiText-2."""
    with gzip.open(shared_data / "wikitext2" / "valid.raw.gz", "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines if len(line) > 200][:150]


@pytest.mark.parametrize("kind", SIZES)
def test_size_is_what_was_asked_for(kind: str, trained: dict[str, Any]) -> None:
    assert len(trained[kind]) == SIZES[kind] if kind in EXACT else len(trained[kind]) <= SIZES[kind]
    assert trained[kind].is_fast
    assert trained[kind].model_max_length == 512


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", SIZES)
def test_special_tokens_of_the_family(kind: str, family: str) -> None:
    tokenizer = train_tokenizer(list(SENTENCES), options(kind, family=family))
    special = options(kind, family=family).special
    assert [tokenizer.convert_tokens_to_ids(token) for token in special.tokens] == list(range(len(special.tokens)))
    assert {name: str(getattr(tokenizer, name)) for name in special.names} == dict(special.names)
    assert tuple(tokenizer.model_input_names) == special.inputs
    ends = {"bert": ("[CLS]", "[SEP]"), "roberta": ("<s>", "</s>"), "gpt2": (), "llama": ("<s>",), "t5": ("</s>",)}[family]
    ids = tokenizer(TEXT)["input_ids"]
    found = [token for token in tokenizer.convert_ids_to_tokens(ids) if token in special.tokens and token != special.names.get("unk_token")]
    assert tuple(found) == ends
    if family == "bert":
        pair = tokenizer(TEXT, "Dull.")
        assert set(pair["token_type_ids"]) == {0, 1}
        assert pair["token_type_ids"][0] == 0 and pair["token_type_ids"][-1] == 1


@pytest.mark.parametrize("kind", SIZES)
def test_offsets_are_the_characters_of_the_piece(kind: str, trained: dict[str, Any]) -> None:
    for text in SENTENCES:
        encoded = trained[kind](text, return_offsets_mapping=True, add_special_tokens=False)
        for number, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            piece = trained[kind].convert_ids_to_tokens(number)
            if piece == "[UNK]" or not text[start:end].isascii():
                continue
            plain = piece if kind == "character" else piece.removeprefix("##").replace("▁", "").replace("Ġ", "")
            if not plain:  # the ▁ before the first word stands on its first character
                continue
            assert plain == (text[start:end] if kind == "character" else text[start:end].strip()), (text, piece)


def test_lower_case_and_accents_are_asked_for() -> None:
    texts = ["Crème Brûlée", "crème brûlée"] * 4
    for kind in SIZES:
        tokenizer = train_tokenizer(
            texts, VocabularyOptions(kind=kind, size=268 if kind == "byte-bpe" else 30, lowercase=True, strip_accents=True)
        ) if kind not in ("unigram", "bpe", "wordpiece") else None  # fmt: skip
        if tokenizer is not None:
            assert tokenizer("CRÈME")["input_ids"] == tokenizer("creme")["input_ids"]
    kept = train_tokenizer(texts, VocabularyOptions(kind="character", size=30))
    assert kept("È")["input_ids"] != kept("e")["input_ids"]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("kind", SIZES)
def test_a_saved_vocabulary_reads_the_same(kind: str, family: str, tmp_path: Path) -> None:
    """Beside a config.json too: transformers must not make another tokenizer of it for the architecture that it names."""
    from pellucid.scratch import ModelSizes

    tokenizer = train_tokenizer(list(SENTENCES), options(kind, family=family))
    tokenizer.save_pretrained(tmp_path)
    ModelSizes(family, layers=1, hidden=8, heads=2).config(len(tokenizer)).save_pretrained(tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "tokenizer.json").is_file()
    again, notes = load_tokenizer(tmp_path)
    assert not notes
    for text in SENTENCES:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.decode(again(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])


def test_bytes_are_those_of_the_reference_implementation() -> None:
    from tokenizers.implementations import ByteLevelBPETokenizer

    asked = options("byte-bpe", family="gpt2")
    theirs: Any = ByteLevelBPETokenizer()
    told = {"vocab_size": asked.size, "min_frequency": 1, "special_tokens": list(asked.special.tokens), "show_progress": False}
    theirs.train_from_iterator(SENTENCES, **told)
    ours = train_tokenizer(list(SENTENCES), asked)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours(TEXT, add_special_tokens=False)["input_ids"] == theirs.encode(TEXT, add_special_tokens=False).ids


def test_pieces_are_those_of_the_reference_implementation(paragraphs: list[str]) -> None:
    """All but those that occur equally often: the reference takes other ones of them each time."""
    from tokenizers.implementations import BertWordPieceTokenizer

    asked = VocabularyOptions(kind="wordpiece", size=1500, lowercase=True, strip_accents=True)
    theirs: Any = BertWordPieceTokenizer()
    told = {"vocab_size": asked.size, "min_frequency": 2, "special_tokens": list(asked.special.tokens), "show_progress": False}
    theirs.train_from_iterator(paragraphs, **told)
    ours = train_tokenizer(paragraphs, asked)
    assert len(set(ours.get_vocab()) & set(theirs.get_vocab())) > 1470
    assert {piece for piece in ours.get_vocab() if len(piece.removeprefix("##")) == 1} == {
        piece for piece in theirs.get_vocab() if len(piece.removeprefix("##")) == 1
    }
    same = [ours.tokenize(text) == theirs.encode(text, add_special_tokens=False).tokens for text in " ".join(paragraphs[:40]).split()]
    assert np.mean(same) > 0.97
    assert set(ours.get_added_vocab()) == set(asked.special.tokens)


@pytest.mark.parametrize("kind", SIZES)
def test_real_texts_give_the_same_vocabulary_each_time(kind: str, paragraphs: list[str]) -> None:
    asked = VocabularyOptions(kind=kind, size=1500)  # type: ignore[arg-type]
    first, second = (train_tokenizer(paragraphs, asked).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


def test_the_same_texts_give_the_same_vocabulary(trained: dict[str, Any]) -> None:
    for kind in SIZES:
        assert train_tokenizer(list(SENTENCES), options(kind)).get_vocab() == trained[kind].get_vocab()


def test_rows_frames_and_texts_are_read() -> None:
    table = [{"text": text, "label": str(number % 2)} for number, text in enumerate(SENTENCES)]
    rows = pl.read(table, text="text", label="label", options=pl.ReadOptions(valid_fraction=0.0))
    expected = train_tokenizer(list(SENTENCES), options("wordpiece")).get_vocab()
    assert train_tokenizer(rows, options("wordpiece")).get_vocab() == expected
    assert train_tokenizer(rows.train, options("wordpiece")).get_vocab() == expected
    pairs = pl.read(
        [{"text": one, "text_pair": two} for one, two in zip(SENTENCES[::2], SENTENCES[1::2], strict=True)],
        text="text", text_pair="text_pair", label=False, options=pl.ReadOptions(valid_fraction=0.0),
    )  # fmt: skip
    assert train_tokenizer(pairs, options("wordpiece")).get_vocab() == expected


def test_a_sample_follows_from_its_seed() -> None:
    def drawn(seed: int) -> dict[str, int]:
        return train_tokenizer(
            list(SENTENCES), VocabularyOptions(kind="word", size=60, most_texts=4, seed=seed, min_frequency=1)
        ).get_vocab()

    assert drawn(1) == drawn(1) != drawn(2)


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_bytes_give_every_text_back(text: str) -> None:
    tokenizer = _bytes()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


_KEPT: dict[str, Any] = {}


def _bytes() -> Any:
    if not _KEPT:
        _KEPT["bytes"] = train_tokenizer(list(SENTENCES), options("byte-bpe", family="gpt2"))
    return _KEPT["bytes"]


# --- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(EXACT))
def test_too_few_texts_for_the_size(kind: str) -> None:
    with pytest.raises(DataError, match=r"the texts give .* tokens, and 30,000 were asked for: 12 texts are too few.*set size="):
        train_tokenizer(list(SENTENCES), VocabularyOptions(kind=kind, size=30_000))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", sorted(EXACT))
def test_a_size_below_the_alphabet(kind: str) -> None:
    with pytest.raises(SettingError, match=r"size is 12, and the characters and special tokens alone are"):
        train_tokenizer(list(SENTENCES), VocabularyOptions(kind=kind, size=12))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "near"), [("word-piece", "wordpiece"), ("bytebpe", "byte-bpe"), ("char", "character"), ("BPE", "bpe")])
def test_an_unknown_kind_names_a_near_one(kind: str, near: str) -> None:
    with pytest.raises(SettingError, match=f"there is no kind '{kind}'. Did you mean '{near}'"):
        VocabularyOptions(kind=kind)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="There are: bert, roberta, gpt2, llama, t5"):
        VocabularyOptions(family="mamba")  # type: ignore[arg-type]


@pytest.mark.parametrize("texts", [[], ["", "  ", "\n"]])
def test_texts_without_a_word(texts: list[str]) -> None:
    with pytest.raises(DataError, match="so there is nothing to learn a vocabulary from"):
        train_tokenizer(texts)


def test_numbers_out_of_range() -> None:
    for wrong in ({"size": 3}, {"size": 8000.0}, {"min_frequency": 0}, {"most_texts": 0}, {"seed": -1}, {"max_length": True}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} is .*, expected a whole number from"):
            VocabularyOptions(**wrong)
    with pytest.raises(SettingError, match="Unigram weighs pieces by how likely they are"):
        VocabularyOptions(kind="unigram", min_frequency=3)
    with pytest.raises(DataError, match="no word occurs 99 times"):
        train_tokenizer(list(SENTENCES), VocabularyOptions(kind="word", min_frequency=99))


# --- comparison --------------------------------------------------------------------------------------------------------


def test_comparison_counts_what_the_tokenizers_do(trained: dict[str, Any]) -> None:
    found = compare_tokenizers(trained, list(SENTENCES), hidden=16, repeats=1)
    words = sum(len(text.split()) for text in SENTENCES)
    assert (found.texts, found.words, found.characters) == (len(SENTENCES), words, sum(map(len, SENTENCES)))
    for kind, tokenizer in trained.items():
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in SENTENCES]
        tokens = sum(map(len, ids))
        measure = found[kind]
        assert measure.tokens == tokens
        assert measure.tokens_per_word == pytest.approx(tokens / words)
        assert measure.unknown == pytest.approx(sum(one.count(tokenizer.unk_token_id) for one in ids) / tokens)
        assert measure.longest == max(map(len, ids))
        decoded = [tokenizer.decode(one, skip_special_tokens=True) for one in ids]
        assert measure.returned == pytest.approx(np.mean([text == back for text, back in zip(SENTENCES, decoded, strict=True)]))
        assert measure.returned_loosely >= measure.returned
        assert measure.seconds > 0
        assert found.embedding_parameters(kind) == len(tokenizer) * 16
    assert found["byte-bpe"].unknown == 0 and found["byte-bpe"].returned == 1 and not found["byte-bpe"].lost
    assert found["character"].tokens == sum(map(len, SENTENCES))
    assert found["word"].unknown > 0 and found["word"].lost
    assert found["character"].whole_words < found["wordpiece"].whole_words


def test_whole_words_are_words_of_one_token() -> None:
    texts = ["good film", "a good day", "good good"] * 5
    tokenizer = train_tokenizer(texts, VocabularyOptions(kind="word", size=50))
    measure = compare_tokenizers({"word": tokenizer}, ["good film", "good filmmaker, a day."])["word"]
    assert measure.whole_words == pytest.approx(4 / 6)  # not "filmmaker,": unknown and a comma; not "day.": two tokens


def test_comparison_can_be_looked_at(trained: dict[str, Any]) -> None:
    found = compare_tokenizers({"letters": trained["character"], "pieces": trained["wordpiece"]}, list(SENTENCES), repeats=1)
    text = to_text(found.view(), width=120)
    for words in ("tokens a word", "unknown tokens", "texts that come back exactly", "MiB in training with AdamW", "letters", "pieces"):
        assert words in text
    assert "<table" in found._repr_html_()


def test_comparison_takes_checkpoints(trained: dict[str, Any], minilm_folder: Path) -> None:
    found = compare_tokenizers({"minilm": "minilm", "ours": trained["wordpiece"], "folder": minilm_folder}, list(SENTENCES), repeats=1)
    assert found["minilm"].vocabulary == found["folder"].vocabulary == 30_522
    assert found["minilm"].tokens == found["folder"].tokens < found["ours"].tokens


def test_comparison_of_nothing(trained: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="there is no tokenizer to compare"):
        compare_tokenizers({}, list(SENTENCES))
    with pytest.raises(DataError, match="there is no text to compare tokenizers on"):
        compare_tokenizers(trained, [" "])
    with pytest.raises(SettingError, match="expected 1 or more"):
        compare_tokenizers(trained, list(SENTENCES), repeats=0)


def test_comparison_of_a_slow_tokenizer() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(TokenizerError, match="slow tokenizer"):
        compare_tokenizers({"slow": Slow()}, list(SENTENCES))  # type: ignore[dict-item]
