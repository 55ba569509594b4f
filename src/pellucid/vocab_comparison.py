"""Tokenizers beside each other on the same texts: what each makes of them, and what each costs.

Takes tokenizers by name and texts. Gives numbers for each: tokens a word, unknown tokens, texts that come back whole, time and memory.
Knows nothing of models or of how a vocabulary was learned.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.checkpoints import resolve
from pellucid.errors import DataError, SettingError
from pellucid.render import to_html
from pellucid.tokenizer import load_tokenizer, private_twin
from pellucid.types import IntArray
from pellucid.view import Cell, Lines, Stack, Table
from pellucid.vocab import split_to_read, texts_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"\S+")
BYTES, MEBIBYTE = 4, 2**20  # of a float32
TRAINED = 4  # AdamW holds a weight, its gradient and two averages
SHOWN = 200  # characters of a text that are shown


@dataclass(frozen=True, slots=True)
class TokenizerMeasure:
    """What one tokenizer makes of the texts. Shares lie between 0 and 1; words are what stands between spaces."""

    name: str
    kind: str  # the model in its tokenizer.json: WordPiece, BPE, Unigram, WordLevel
    vocabulary: int  # tokens, special ones too
    tokens: int  # of all texts, without special tokens at the ends
    tokens_per_word: float
    whole_words: float  # share of words that are one known token
    unknown: float  # share of tokens that are the unknown one
    longest: int  # tokens of the longest text
    returned: float  # share of texts that decoding gives back to the character
    returned_loosely: float  # the same, but for case, accents and spaces
    seconds: float  # for a million characters
    pieces: tuple[str, ...]  # of the beginning of the first text
    lost: str  # the first thing that did not come back: "what was → what came"


@dataclass(frozen=True, slots=True)
class TokenizerComparison:
    """Tokenizers on the same texts; `hidden` is the width of the model whose embeddings are counted."""

    measures: tuple[TokenizerMeasure, ...]
    texts: int
    words: int
    characters: int
    hidden: int

    def __getitem__(self, name: str) -> TokenizerMeasure:
        """The numbers of one tokenizer. Raises KeyError."""
        return {measure.name: measure for measure in self.measures}[name]

    def embedding_parameters(self, name: str) -> int:
        """How many weights the embeddings of this vocabulary have in a model of that width."""
        return self[name].vocabulary * self.hidden

    def view(self) -> Stack:
        """One column a tokenizer, then the pieces of the first text, and what each one loses."""
        note = f"{self.texts:,} texts, {self.words:,} words between spaces, {self.characters:,} characters; times on this machine."
        table = Table("tokenizers", ("", *(measure.name for measure in self.measures)), tuple(self._lines()), note)
        pieces = tuple(f"{measure.name}: {' '.join(measure.pieces)}" for measure in self.measures)
        lost = tuple(f"{measure.name}: {measure.lost}" for measure in self.measures if measure.lost)
        parts = (table, Lines("the first text", pieces), *((Lines("what does not come back", lost),) if lost else ()))
        return Stack("tokenizers compared", parts)

    def _repr_html_(self) -> str:
        return to_html(self.view())

    def _lines(self) -> list[tuple[Cell, ...]]:
        fewest = min(measure.tokens for measure in self.measures)
        sizes = [self.embedding_parameters(measure.name) for measure in self.measures]
        lines: list[tuple[str, list[Cell]]] = [
            ("kind", [measure.kind for measure in self.measures]),
            ("tokens in the vocabulary", [measure.vocabulary for measure in self.measures]),
            ("tokens a word", [round(measure.tokens_per_word, 3) for measure in self.measures]),
            ("tokens, the fewest = 1", [round(measure.tokens / max(fewest, 1), 3) for measure in self.measures]),
            ("words that are one token", [f"{measure.whole_words:.1%}" for measure in self.measures]),
            ("unknown tokens", [f"{measure.unknown:.2%}" for measure in self.measures]),
            ("tokens of the longest text", [measure.longest for measure in self.measures]),
            ("texts that come back exactly", [f"{measure.returned:.1%}" for measure in self.measures]),
            ("… but for case, accents, spaces", [f"{measure.returned_loosely:.1%}" for measure in self.measures]),
            ("seconds for a million characters", [round(measure.seconds, 3) for measure in self.measures]),
            (f"embedding weights, {self.hidden} wide", list(sizes)),
            ("… MiB in float32", [round(size * BYTES / MEBIBYTE, 1) for size in sizes]),
            ("… MiB in training with AdamW", [round(size * BYTES * TRAINED / MEBIBYTE, 1) for size in sizes]),
        ]
        return [(name, *cells) for name, cells in lines]


def compare_tokenizers(
    tokenizers: "Mapping[str, PreTrainedTokenizerBase | str | Path]", texts: Any, *, hidden: int = 256, repeats: int = 3
) -> TokenizerComparison:
    """Put tokenizers (or checkpoints that have one, by name or folder) to work on the same texts: a list, a split, rows, a frame.

    Tokens are counted without the special ones at the ends; a special token that somebody wrote in a text is text. Times are the median of
    `repeats`. Raises DataError without a text, SettingError without a tokenizer, TokenizerError for one without character offsets.
    """
    if not tokenizers:
        raise SettingError("there is no tokenizer to compare", place="tokenizers", cure='Pass {"a": one, "b": another}.')
    if hidden < 1 or repeats < 1:
        raise SettingError(f"hidden={hidden}, repeats={repeats}: expected 1 or more", place="hidden, repeats", cure="256 and 3 are usual.")
    split = split_to_read(texts)
    read = list(texts_in(split))
    if not read:
        raise DataError("there is no text to compare tokenizers on", place=split.source, cure="Pass texts with words in them.")
    loaded = {name: load_tokenizer(resolve(one).folder)[0] if isinstance(one, str | Path) else one for name, one in tokenizers.items()}
    words = [np.array([match.span() for match in WORD.finditer(text)], dtype=np.int64).reshape(-1, 2) for text in read]
    measures = tuple(_measure(name, tokenizer, read, words, repeats) for name, tokenizer in loaded.items())
    return TokenizerComparison(measures, len(read), sum(map(len, words)), sum(map(len, read)), hidden)


def _measure(
    name: str, tokenizer: "PreTrainedTokenizerBase", texts: list[str], words: Sequence[IntArray], repeats: int
) -> TokenizerMeasure:
    twin = private_twin(tokenizer, special_tokens_in_text=False)
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        encoded = twin.encode_batch(texts, add_special_tokens=False)
        seconds.append(perf_counter() - start)
    ids = [one.ids for one in encoded]
    tokens, unknown = sum(map(len, ids)), tokenizer.unk_token_id
    strange = 0 if unknown is None else sum(one.count(unknown) for one in ids)
    whole = sum(_whole(one, spans, unknown) for one, spans in zip(encoded, words, strict=True))
    decoded = twin.decode_batch(ids, skip_special_tokens=True)
    exact = [text == back for text, back in zip(texts, decoded, strict=True)]
    loosely = [same or _bare(text) == _bare(back) for same, text, back in zip(exact, texts, decoded, strict=True)]
    worst = loosely if not all(loosely) else exact  # what is lost for good is shown before what is only spelled otherwise
    first = next((position for position, same in enumerate(worst) if not same), None)
    return TokenizerMeasure(
        name=name,
        kind=type(twin.model).__name__,
        vocabulary=len(tokenizer),
        tokens=tokens,
        tokens_per_word=tokens / max(sum(map(len, words)), 1),
        whole_words=whole / max(sum(map(len, words)), 1),
        unknown=strange / max(tokens, 1),
        longest=max(map(len, ids)),
        returned=sum(exact) / len(texts),
        returned_loosely=sum(loosely) / len(texts),
        seconds=median(seconds) * 1e6 / sum(map(len, texts)),
        pieces=tuple(twin.encode(texts[0][:SHOWN], add_special_tokens=False).tokens),
        lost="" if first is None else _difference(texts[first], decoded[first]),
    )


def _whole(encoded: Any, words: IntArray, unknown: int | None) -> int:
    """How many of the words (words, 2) of a text are one token that is not the unknown one."""
    if not len(words) or not encoded.ids:
        return 0
    lasts = np.array(encoded.offsets, dtype=np.int64)[:, 1] - 1  # (tokens,): a piece may begin with the space before its word
    known = np.array(encoded.ids) != (-1 if unknown is None else unknown)
    word = np.searchsorted(words[:, 0], lasts, side="right") - 1  # (tokens,)
    inside = (word >= 0) & (lasts < words[word, 1])
    counts = np.bincount(word[inside], minlength=len(words))
    good = np.bincount(word[inside & known], minlength=len(words))
    return int(((counts == 1) & (good == 1)).sum())


def _bare(text: str) -> str:
    """The letters and signs of a text, without case, accents and spaces."""
    return "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(c) and not c.isspace())


def _difference(text: str, back: str, around: int = 12) -> str:
    """The first stretch that differs, with some characters on both sides."""
    blocks: Sequence[Any] = SequenceMatcher(None, text[:1000], back[:1000], autojunk=False).get_opcodes()
    for tag, start, end, other_start, other_end in blocks:
        if tag != "equal":
            was = text[max(0, start - around) : min(end, start + 2 * around) + around]
            came = back[max(0, other_start - around) : min(other_end, other_start + 2 * around) + around]
            return f"{was!r} → {came!r}"
    return f"{text[-2 * around :]!r} → {back[-2 * around :]!r}"
