"""Rows as a language model learns them: every token, only what should follow, or only the answers of a conversation; packed or not.

Takes columns of texts, targets that are texts, and a tokenizer. Gives token tables with a label a token, and the same in blocks.
Knows nothing of tasks, batches or models.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pellucid.batch import IGNORED
from pellucid.chats import ANSWERS, chat_of, chat_tokens
from pellucid.errors import LabelError
from pellucid.token_table import ragged_positions
from pellucid.tokens import TokenOptions, TokenTable, encode, encode_aligned
from pellucid.types import Columns, IntArray, Target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def language_table(
    tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions, end_id: int | None
) -> TokenTable:
    """One window a row, nothing cut, with a label a token: the token itself where it is learned, else -100.

    Of a plain text all is learned but its first token, which nothing foresees. A target follows its text directly and ends with `end_id`;
    it alone is learned. Of a conversation the answers are learned; a target is one more answer. Raises what `tokens.encode` raises,
    LabelError for a target that is empty or no text, DataError and TokenizerError for conversations (see `chats`).
    """
    whole = replace(options, long=None, truncation=False)
    given = columns.get("text")
    if given is None or isinstance(given, str | bytes):
        return encode(tokenizer, columns, ("text",), whole)  # which says what is wrong
    wanted = None if targets is None else [followed(target, row) for row, target in enumerate(targets)]
    chats = {row: chat for row, text in enumerate(given) if isinstance(text, str) and (chat := chat_of(text, row)) is not None}
    texts = (
        given if wanted is None else [text + target if isinstance(text, str) else text for text, target in zip(given, wanted, strict=True)]
    )
    if not chats and wanted is None:
        table = encode(tokenizer, {"text": texts}, ("text",), whole)
        return table.with_token_labels(all_but_first(table))
    table, alignment = encode_aligned(tokenizer, {"text": texts}, ("text",), whole)
    ids: list[IntArray] = []
    labels: list[IntArray] = []
    for row in range(len(table)):
        stretch = slice(int(table.starts[row]), int(table.starts[row + 1]))
        if row in chats:
            chat = [*chats[row], {"role": ANSWERS, "content": wanted[row]}] if wanted is not None else chats[row]
            made = chat_tokens(tokenizer, chat, row)
            own, learned = np.array(made.ids, dtype=np.int32), np.array(made.learned, dtype=np.bool_)
        else:
            own, learned = table.ids[stretch], np.ones(stretch.stop - stretch.start, dtype=np.bool_)
            if wanted is not None:
                inside = (alignment.ends[stretch] > len(given[row])) & (alignment.fields[stretch] >= 0)  # also a token that both share
                learned = np.maximum.accumulate(inside)  # and what the tokenizer puts after it
                if end_id is not None and own[-1] != end_id:
                    own, learned = np.append(own, np.int32(end_id)), np.append(learned, True)
        learned[:1] = False
        ids.append(own)
        labels.append(np.where(learned, own, IGNORED))
    return table_of(ids, labels)


def followed(target: Target, row: int) -> str:
    """What should follow a text. Raises LabelError for nothing, or what is no text."""
    if isinstance(target, str) and target:
        return target
    came = "no target" if target is None else "an empty text" if isinstance(target, str) else type(target).__name__
    raise LabelError(f"expected the text that follows, came {came}", row=row, cure="Write it, drop the row, or read label=False.")


def table_of(ids: Sequence[IntArray], labels: Sequence[IntArray]) -> TokenTable:
    """A table of one window a row with these ids and labels."""
    rows = np.arange(len(ids), dtype=np.int64)
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    nothing = np.zeros(len(ids), dtype=np.int32)
    flat = np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.int32)
    table = TokenTable(flat, starts, rows, nothing, type_ids=None, labels=None, lost=nothing, lost_words=nothing)
    return table.with_token_labels(np.concatenate([np.zeros(0, np.int32), *labels]).astype(np.int32))


def all_but_first(table: TokenTable) -> IntArray:
    """The ids as labels, (all tokens,), but for the first of each window."""
    labels = np.array(table.ids, dtype=np.int32)
    labels[table.starts[:-1]] = IGNORED
    return labels


def packed(table: TokenTable, block: int, end_id: int | None) -> TokenTable:
    """All rows one after the other, `end_id` after each that does not end with it, cut into blocks; each is of the row it begins in."""
    ids = np.asarray(table.ids)
    rows = np.repeat(table.rows, table.lengths)
    if end_id is not None and len(table):
        ends = table.starts[1:][ids[table.starts[1:] - 1] != end_id]
        ids, rows = np.insert(ids, ends, end_id), np.insert(rows, ends, rows[ends - 1])
    return blocks(ids, rows, np.array([0, len(ids)], dtype=np.int64), block)


def split_up(table: TokenTable, block: int) -> TokenTable:
    """The rows as they are, long ones in blocks."""
    return blocks(np.asarray(table.ids), np.repeat(table.rows, table.lengths), np.asarray(table.starts), block)


def blocks(ids: IntArray, rows: IntArray, starts: IntArray, block: int) -> TokenTable:
    """Each stretch from one start to the next in blocks of at most `block` tokens; `rows` (all tokens,) says where each token comes from.

    A block of one token, which nothing foresees, is left out where there are others.
    """
    lengths = np.diff(starts)
    many = -(-lengths // block)
    firsts = np.repeat(starts[:-1], many) + block * ragged_positions(np.zeros_like(many), many)
    counts = np.minimum(np.repeat(starts[1:], many) - firsts, block)
    kept = counts > 1 if (counts > 1).any() else counts > 0
    firsts, counts = firsts[kept], counts[kept]
    source = ragged_positions(firsts, counts)
    own = rows[firsts]
    numbers = np.arange(len(own)) - np.searchsorted(own, own)  # of blocks of one row
    nothing = np.zeros(len(firsts), dtype=np.int32)
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    made = TokenTable(ids[source].astype(np.int32), ends, own, numbers.astype(np.int32), None, None, nothing, nothing)
    return made.with_token_labels(all_but_first(made))
