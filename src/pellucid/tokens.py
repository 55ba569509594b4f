"""Text → tokens: the ids of many rows at once, and everything about the tokens of one row.

Takes columns of texts, a Rust tokenizer of transformers and TokenOptions. Gives a TokenTable of many rows, or the Tokens of one window.
Knows nothing of where the rows come from, of labels, batches, models or torch.

The texts are tokenized in one Rust call without truncation or special tokens; both are then added here, in numpy, by the tokenizer's own
template (which is read off a probe). The ids are those of `tokenizer(text, text_pair, truncation=…, max_length=…)`. Doing it this way tells
what was cut, leaves the caller's tokenizer as it is, and keeps two long texts from filling the memory with overflow windows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pellucid.errors import SettingError, TokenizerError
from pellucid.token_cache import encode_split
from pellucid.token_reading import Column, Counts, Recipe, read_columns, recipe_of, texts_of
from pellucid.token_table import LongTexts, PadSpec, TokenOptions, TokenTable, TruncationReport, ragged_positions
from pellucid.tokenizer import effective_max_length, fingerprint, load_tokenizer, pad_spec
from pellucid.types import Columns, Example, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Alignment",
    "LongTexts",
    "PadSpec",
    "TokenOptions",
    "TokenTable",
    "TruncationReport",
    "effective_max_length",
    "encode",
    "encode_aligned",
    "encode_split",
    "fingerprint",
    "load_tokenizer",
    "pad_spec",
    "tokens_of",
    "window_of",
    "windows_of",
]


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Where each token of a table stands in the texts, for labels of characters and words: one entry a token, in table order."""

    starts: npt.NDArray[np.int32]  # (all tokens,) first character in the text field of the token; 0 for special tokens
    ends: npt.NDArray[np.int32]  # (all tokens,) exclusive
    fields: npt.NDArray[np.int8]  # (all tokens,) position of the text field in `reads`; -1 for special tokens
    words: npt.NDArray[np.int32]  # (all tokens,) number of the word within its field; -1 for special tokens


@dataclass(frozen=True, slots=True)
class Cut:
    """Which tokens of each text go into each window: `firsts` and `counts` have one array (windows,) a text field."""

    rows: Counts
    windows: Counts
    firsts: tuple[Counts, ...]
    counts: tuple[Counts, ...]


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    columns: Columns,
    reads: tuple[str, ...],
    options: TokenOptions,
    *,
    spelled: tuple[str, ...] = (),
) -> TokenTable:
    """Tokenize rows: one text each, or a pair where `reads` names two columns; `rows` count from 0.

    `spelled` are special tokens that are read as such in a text, whatever the options say of the others ("[MASK]"). A row has one window,
    or several where `options.long` reads long texts in windows. `lost` is exact for texts up to 64 characters a token of `max_length`
    (and up to 10,000); beyond that it is estimated from the part that was read. Never changes `tokenizer`.
    Raises TokenizerError naming the row for a text that is None, NaN, a number, bytes or not Unicode, or that gives no token at all;
    SettingError for a length, stride or strategy that cannot work.
    """
    recipe = recipe_of(tokenizer, reads, options, spelled=spelled)
    return _table(recipe, *_read(recipe, columns, offsets=False))


def encode_aligned(
    tokenizer: "PreTrainedTokenizerBase",
    columns: Columns,
    reads: tuple[str, ...],
    options: TokenOptions,
    *,
    spelled: tuple[str, ...] = (),
) -> tuple[TokenTable, Alignment]:
    """What `encode` gives, and where each token stands in the texts. Raises what `encode` raises."""
    recipe = recipe_of(tokenizer, reads, options, spelled=spelled)
    read, cut = _read(recipe, columns, offsets=True)
    parts: list[list[Any]] = [[], [], [], []]
    for window in _aligned(recipe, read, cut):
        for part, values in zip(parts, window, strict=True):
            part.append(values)
    starts, ends, fields, words = (np.fromiter(chain.from_iterable(part), dtype=np.int32) for part in parts)
    return _table(recipe, read, cut), Alignment(starts, ends, fields.astype(np.int8), words)


def tokens_of(
    tokenizer: "PreTrainedTokenizerBase", example: Example, reads: tuple[str, ...], options: TokenOptions, window: int = 0
) -> Tokens:
    """Everything about the tokens of one row, made on demand: the same ids as `encode` gives, with pieces, character offsets and words.

    Raises what `encode` raises, and SettingError for a window that the row does not have.
    """
    return window_of(windows_of(tokenizer, example, reads, options), example.row, window)


def window_of(found: Sequence[Tokens], row: int, window: int) -> Tokens:
    """One of the windows of a row. Raises SettingError for one that it does not have."""
    if not 0 <= window < len(found):
        has = "a row has one window" if len(found) == 1 else f"the row has {len(found)} windows"
        raise SettingError(f"{has}, asked for window {window}", place=f"row {row}", cure="Count from 0.")
    return found[window]


def windows_of(
    tokenizer: "PreTrainedTokenizerBase",
    example: Example,
    reads: tuple[str, ...],
    options: TokenOptions,
    *,
    spelled: tuple[str, ...] = (),
) -> tuple[Tokens, ...]:
    """The tokens of every window of one row. Raises what `encode` raises."""
    recipe = recipe_of(tokenizer, reads, options, example.row, spelled)
    read, cut = _read(recipe, {role: [text] for role, text in example.fields.items()}, offsets=True)
    table = _table(recipe, read, cut)
    found = []
    for number, (starts, ends, fields, words) in enumerate(_aligned(recipe, read, cut)):
        ids = tuple(table.ids_of(number).tolist())
        found.append(
            Tokens(
                row=example.row,
                window=number,
                ids=ids,
                pieces=tuple(recipe.twin.id_to_token(one) or "" for one in ids),  # what the model sees, [UNK] too
                offsets=tuple(zip(starts, ends, strict=True)),
                words=tuple(None if word < 0 else word for word in words),
                special=tuple(field < 0 for field in fields),
                segments=tuple(None if field < 0 else reads[field] for field in fields),
                lost=int(table.lost[number]),
            )
        )
    return tuple(found)


def _read(recipe: Recipe, columns: Columns, *, offsets: bool) -> tuple[list[Column], Cut]:
    """Every text tokenized, and which of its tokens go into which window."""
    texts = [texts_of(columns, field, recipe) for field in range(len(recipe.reads))]
    if len({len(column) for column in texts}) > 1:
        sizes = ", ".join(f"{role!r}: {len(column)}" for role, column in zip(recipe.reads, texts, strict=True))
        raise SettingError(f"the columns have different numbers of rows ({sizes})", cure="Give one text of each column for every row.")
    read = read_columns(recipe, texts, offsets=offsets)
    counts = [column.counts for column in read]
    return read, _windows(recipe, counts) if recipe.stride is not None else _cut(recipe, counts)


def _table(recipe: Recipe, read: list[Column], cut: Cut) -> TokenTable:
    ids, starts, type_ids = _compose(recipe, read, cut)
    lost = np.zeros((2, len(cut.rows)), dtype=np.int64)  # tokens, words
    if recipe.stride is None:  # one window a row
        lost = np.sum([_lost(recipe, *each) for each in zip(read, cut.counts, strict=True)], axis=0)
    return TokenTable(
        ids=ids,
        starts=starts,
        rows=cut.rows,
        windows=cut.windows.astype(np.int32),
        type_ids=type_ids,
        labels=None,
        lost=lost[0].astype(np.int32),
        lost_words=lost[1].astype(np.int32),
    )


def _cut(recipe: Recipe, counts: list[Counts]) -> Cut:
    """One window a row, with what truncation leaves."""
    kept = _kept(recipe, counts)
    firsts = tuple(np.zeros_like(count) if recipe.side == "right" else count - keep for count, keep in zip(counts, kept, strict=True))
    rows = np.arange(len(counts[0]), dtype=np.int64)
    return Cut(rows, np.zeros_like(rows), firsts, tuple(kept))


def _windows(recipe: Recipe, counts: list[Counts]) -> Cut:
    """Windows over the last text field, each beginning `room - stride` tokens after the one before; the first field whole in each.

    Beside a first field that leaves little room, windows share half of it at most.
    """
    last = counts[-1]
    room = np.full(len(last), np.iinfo(np.int64).max) if recipe.room is None else recipe.room - sum(counts[:-1], np.zeros_like(last))
    narrow = np.flatnonzero((last > room) & (room < 1))
    if len(narrow):
        row = int(narrow[0])
        problem = f"{counts[0][row]} tokens of column {recipe.reads[0]!r} leave a window no room for column {recipe.reads[-1]!r}"
        raise TokenizerError(problem, place=recipe.place(row), cure="Use a larger max_length, or a shorter text.")
    stride = np.minimum(recipe.stride or 0, room // 2) if len(counts) > 1 else recipe.stride or 0  # a long question leaves little room
    step = np.maximum(room - stride, 1)
    many = 1 + np.maximum(-(-(last - room) // step), 0)  # (rows,) windows of each row
    rows = np.repeat(np.arange(len(last), dtype=np.int64), many)
    windows = ragged_positions(np.zeros_like(many), many)
    first = windows * step[rows]
    count = np.minimum(last[rows] - first, room[rows])
    zero = np.zeros_like(rows)
    return Cut(rows, windows, (*(zero for _ in counts[:-1]), first), (*(each[rows] for each in counts[:-1]), count))


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


def _compose(
    recipe: Recipe, read: list[Column], cut: Cut
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.uint8] | None]:
    """The ids of all windows one after the other, where each window starts, and the type ids where any is not 0."""
    special = sum(len(part.ids) for part in recipe.parts if part.field is None)
    lengths = np.sum(cut.counts, axis=0) + special
    if not lengths.all():
        row = int(cut.rows[int(np.flatnonzero(lengths == 0)[0])])
        raise TokenizerError(
            "the text gives no token, and this tokenizer adds none of its own",
            place=recipe.place(row, 0 if len(recipe.reads) == 1 else None),
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
        counts = cut.counts[part.field]
        where = ragged_positions(cursor, counts)
        pieces = _pieces(read[part.field], cut.rows, cut.firsts[part.field], counts)
        ids[where] = np.fromiter(chain.from_iterable(pieces), dtype=np.int32, count=len(where))
        if type_ids is not None:
            type_ids[where] = part.types[0]
        cursor += counts
    return ids, starts, type_ids


def _pieces(column: Column, rows: Counts, firsts: Counts, counts: Counts) -> Iterator[Sequence[int]]:
    """The ids of each window's stretch of a text."""
    last, ids = -1, []
    for row, first, count in zip(rows.tolist(), firsts.tolist(), counts.tolist(), strict=True):
        if row != last:
            last, ids = row, column.encodings[row].ids
        yield ids if count == len(ids) else ids[first : first + count]


def _aligned(recipe: Recipe, read: list[Column], cut: Cut) -> Iterator[tuple[list[int], list[int], list[int], list[int]]]:
    """Starts, ends, fields and words of the tokens of each window, special tokens included."""
    last, known = -1, []
    for position, row in enumerate(cut.rows.tolist()):
        if row != last:
            last, known = row, [_places(recipe, column, row) for column in read]
        starts: list[int] = []
        ends: list[int] = []
        fields: list[int] = []
        words: list[int] = []
        for part in recipe.parts:
            if part.field is None:
                nothing = len(part.ids)
                starts += [0] * nothing
                ends += [0] * nothing
                fields += [-1] * nothing
                words += [-1] * nothing
                continue
            first, count = int(cut.firsts[part.field][position]), int(cut.counts[part.field][position])
            offsets, numbers = known[part.field]
            stretch = slice(first, first + count)
            starts += [start for start, _ in offsets[stretch]]
            ends += [end for _, end in offsets[stretch]]
            fields += [part.field] * count
            words += numbers[stretch]
        yield starts, ends, fields, words


def _places(recipe: Recipe, column: Column, row: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Characters and word of each token of a text; a space that a token carries in front does not count as its own."""
    encoding, (shift, _), text = column.encodings[row], column.spans.get(row, (0, 0)), column.texts[row]
    offsets = [(shift + start, shift + end) for start, end in encoding.offsets]
    if recipe.spaces_in_offsets:
        offsets = [_trimmed(text, start, end) for start, end in offsets]
    return offsets, [-1 if word is None else word for word in encoding.word_ids]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end - 1 and text[start].isspace():
        start += 1
    return start, end


def _lost(recipe: Recipe, column: Column, kept: Counts) -> tuple[Counts, Counts]:
    """Tokens and words that were cut from each row of a column."""
    counts = column.counts
    tokens, words = counts - kept, np.zeros_like(counts)
    cut = np.flatnonzero(tokens).tolist()
    encodings: Any = column.encodings
    if cut and not column.has_offsets:
        encodings = dict(zip(cut, recipe.twin.encode_batch([column.texts[row] for row in cut], add_special_tokens=False), strict=True))
    for row in cut:
        text, keep, count = column.texts[row], int(kept[row]), int(counts[row])
        start, end = column.spans.get(row, (0, len(text)))
        if recipe.side == "right":
            edge = start + (encodings[row].token_to_chars(keep - 1)[1] if keep else 0)
            words[row] = len(text[edge:].split())
        else:
            edge = start + encodings[row].token_to_chars(count - keep)[0] if keep else end
            words[row] = len(text[:edge].split())
        tokens[row] += round((len(text) - (end - start)) * count / (end - start))
    return tokens, words
