"""Text → tokens: the ids of many rows at once, and everything about the tokens of one row.

Takes columns of texts, a Rust tokenizer of transformers and TokenOptions. Gives a TokenTable of many rows, or the Tokens of one.
Knows nothing of where the rows come from, of labels, batches, models or torch.

The texts are tokenized in one Rust call without truncation or special tokens; both are then added here, in numpy, by the tokenizer's own
template (which is read off a probe). The ids are those of `tokenizer(text, text_pair, truncation=…, max_length=…)`. Doing it this way tells
what was cut, leaves the caller's tokenizer as it is, and keeps two long texts from filling the memory with overflow windows.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pellucid.errors import SettingError, TokenizerError
from pellucid.token_cache import encode_split
from pellucid.token_reading import Column, Counts, Recipe, read_columns, recipe_of, texts_of
from pellucid.token_table import PadSpec, TokenOptions, TokenTable, TruncationReport, ragged_positions
from pellucid.tokenizer import effective_max_length, fingerprint, load_tokenizer, pad_spec
from pellucid.types import Columns, Example, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "PadSpec",
    "TokenOptions",
    "TokenTable",
    "TruncationReport",
    "effective_max_length",
    "encode",
    "encode_split",
    "fingerprint",
    "load_tokenizer",
    "pad_spec",
    "tokens_of",
]


def encode(tokenizer: "PreTrainedTokenizerBase", columns: Columns, reads: tuple[str, ...], options: TokenOptions) -> TokenTable:
    """Tokenize rows: one text each, or a pair where `reads` names two columns. One window a row; `rows` count from 0.

    `lost` is exact for texts up to 64 characters a token of `max_length` (and up to 10,000); beyond that it is estimated from the part
    that was read. Never changes `tokenizer`. Raises TokenizerError naming the row for a text that is None, NaN, a number, bytes or not
    Unicode, or that gives no token at all; SettingError for a length or strategy that cannot work.
    """
    recipe = recipe_of(tokenizer, reads, options)
    texts = [texts_of(columns, field, recipe) for field in range(len(reads))]
    if len({len(column) for column in texts}) > 1:
        sizes = ", ".join(f"{role!r}: {len(column)}" for role, column in zip(reads, texts, strict=True))
        raise SettingError(f"the columns have different numbers of rows ({sizes})", cure="Give one text of each column for every row.")
    read = read_columns(recipe, texts)
    counts = [column.counts for column in read]
    kept = _kept(recipe, counts)
    ids, starts, type_ids = _compose(recipe, read, kept)
    lost = [_lost(recipe, *each) for each in zip(read, counts, kept, strict=True)]
    rows = len(texts[0])
    return TokenTable(
        ids=ids,
        starts=starts,
        rows=np.arange(rows, dtype=np.int64),
        windows=np.zeros(rows, dtype=np.int32),
        type_ids=type_ids,
        labels=None,
        lost=np.sum([tokens for tokens, _ in lost], axis=0).astype(np.int32),
        lost_words=np.sum([words for _, words in lost], axis=0).astype(np.int32),
    )


def tokens_of(
    tokenizer: "PreTrainedTokenizerBase", example: Example, reads: tuple[str, ...], options: TokenOptions, window: int = 0
) -> Tokens:
    """Everything about the tokens of one row, made on demand: the same ids as `encode` gives, with pieces, character offsets and words.

    Raises what `encode` raises, and SettingError for a window that the row does not have.
    """
    if window != 0:
        raise SettingError(f"a row has one window, asked for window {window}", place=f"row {example.row}", cure="Ask for window 0.")
    recipe = recipe_of(tokenizer, reads, options, example.row)
    texts = [texts_of({role: [text] for role, text in example.fields.items()}, field, recipe) for field in range(len(reads))]
    read = read_columns(recipe, texts, offsets=True)
    counts = [column.counts for column in read]
    kept = _kept(recipe, counts)
    ids, _, _ = _compose(recipe, read, kept)
    lost = sum(int(_lost(recipe, *each)[0][0]) for each in zip(read, counts, kept, strict=True))
    offsets: list[tuple[int, int]] = []
    words: list[int | None] = []
    segments: list[str | None] = []
    for part in recipe.parts:
        if part.field is None:
            offsets += [(0, 0)] * len(part.ids)
            words += [None] * len(part.ids)
            segments += [None] * len(part.ids)
            continue
        column = read[part.field]
        encoding, (start, _) = column.encodings[0], column.spans.get(0, (0, 0))
        stretch = _stretch(recipe, len(encoding), int(kept[part.field][0]))
        offsets += [(start + first, start + last) for first, last in encoding.offsets[stretch]]
        words += encoding.word_ids[stretch]
        segments += [reads[part.field]] * len(range(len(encoding))[stretch])
    special = tuple(segment is None for segment in segments)
    return Tokens(
        row=example.row,
        window=window,
        ids=tuple(ids.tolist()),
        pieces=tuple(recipe.twin.id_to_token(number) or "" for number in ids.tolist()),  # what the model sees, [UNK] too
        offsets=tuple(offsets),
        words=tuple(words),
        special=special,
        segments=tuple(segments),
        lost=lost,
    )


def _kept(recipe: Recipe, counts: list[Counts]) -> list[Counts]:
    """How many tokens of each text stay: the arithmetic of the tokenizers library, for all rows at once."""
    if recipe.room is None:
        return counts
    if len(counts) == 1:
        return [np.minimum(counts[0], recipe.room)]
    total = counts[0] + counts[1]
    if recipe.strategy != "longest_first":
        field = 0 if recipe.strategy == "only_first" else 1
        kept = list(counts)
        kept[field] = counts[field] - np.maximum(total - recipe.room, 0)
        too_short = np.flatnonzero((kept[field] < 1) & (total > recipe.room))
        if len(too_short):
            row = int(too_short[0])
            only = f"only column {recipe.reads[field]!r} may be cut, which has {counts[field][row]}"
            problem = f"{total[row]} tokens of text, room for {recipe.room}, and {only}"
            raise TokenizerError(problem, place=recipe.place(row), cure="Use truncation='longest_first', or a larger max_length.")
        return kept
    short, long = np.minimum(*counts), np.maximum(*counts)
    short_kept = np.where(total <= recipe.room, short, np.minimum(short, recipe.room // 2))
    long_kept = np.where(total <= recipe.room, long, recipe.room - short_kept)
    first_is_longer = counts[0] > counts[1]
    return [np.where(first_is_longer, long_kept, short_kept), np.where(first_is_longer, short_kept, long_kept)]


def _stretch(recipe: Recipe, count: int, kept: int) -> slice:
    """Which tokens of a text stay."""
    return slice(0, kept) if recipe.side == "right" else slice(count - kept, count)


def _compose(
    recipe: Recipe, read: list[Column], kept: list[Counts]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.uint8] | None]:
    """The ids of all rows one after the other, where each row starts, and the type ids where any is not 0."""
    special = sum(len(part.ids) for part in recipe.parts if part.field is None)
    lengths = np.sum(kept, axis=0) + special
    if not lengths.all():
        row = int(np.flatnonzero(lengths == 0)[0])
        raise TokenizerError(
            "the text gives no token, and this tokenizer adds none of its own",
            place=recipe.place(row),
            cure="Drop the row, or write a text.",
        )
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.empty(int(starts[-1]), dtype=np.int32)
    typed = any(number for part in recipe.parts for number in part.types)
    type_ids = np.zeros(len(ids), dtype=np.uint8) if typed else None
    cursor = starts[:-1].copy()
    for part in recipe.parts:
        if part.field is None:
            for number, kind in zip(part.ids, part.types, strict=True):
                ids[cursor] = number
                if type_ids is not None:
                    type_ids[cursor] = kind
                cursor += 1
            continue
        where = ragged_positions(cursor, kept[part.field])
        ids[where] = _flat(_kept_ids(recipe, read[part.field], kept[part.field]), len(where))
        if type_ids is not None:
            type_ids[where] = part.types[0]
        cursor += kept[part.field]
    return ids, starts, type_ids


def _kept_ids(recipe: Recipe, column: Column, kept: Counts) -> Iterable[Sequence[int]]:
    for encoding, keep in zip(column.encodings, kept.tolist(), strict=True):
        ids: list[int] = encoding.ids
        yield ids if keep == len(ids) else ids[_stretch(recipe, len(ids), keep)]


def _flat(lists: Iterable[Sequence[int]], count: int) -> npt.NDArray[np.int32]:
    return np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=count)


def _lost(recipe: Recipe, column: Column, counts: Counts, kept: Counts) -> tuple[Counts, Counts]:
    """Tokens and words that were cut from each row of a column."""
    tokens, words = counts - kept, np.zeros_like(counts)
    cut = np.flatnonzero(tokens).tolist()
    encodings: Any = column.encodings
    if cut and not column.has_offsets:
        encodings = dict(zip(cut, recipe.twin.encode_batch([column.texts[row] for row in cut], add_special_tokens=False), strict=True))
    for row in cut:
        text, keep, count = column.texts[row], int(kept[row]), int(counts[row])
        start, end = column.spans.get(row, (0, len(text)))
        stretch = _stretch(recipe, count, keep)
        if recipe.side == "right":
            edge = start + (encodings[row].token_to_chars(stretch.stop - 1)[1] if keep else 0)
            words[row] = len(text[edge:].split())
        else:
            edge = start + encodings[row].token_to_chars(stretch.start)[0] if keep else end
            words[row] = len(text[:edge].split())
        tokens[row] += round((len(text) - (end - start)) * count / (end - start))
    return tokens, words
