"""Texts with a prefix, long ones cut or in pieces that a model can read: cut where a reader would pause.

Takes columns of texts, a tokenizer, a prefix and TokenOptions. Gives a TokenTable with a window for each piece, and the characters of each.
Knows nothing of tasks, targets or models.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pellucid.errors import SettingError
from pellucid.tokens import TokenOptions, TokenTable, encode, encode_aligned
from pellucid.types import Columns, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPARE = 4  # tokens left free in a piece of a long text: cut out, it may give a few more than it did within the text
LEAST_ROOM = 8  # tokens of text beside the prefix
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+|\n")
JOINED = "\u200d"  # joins what stands on both sides of it into one sign
VARIANTS = range(0xFE00, 0xFE10)  # say how the sign before is drawn


def read(tokenizer: "PreTrainedTokenizerBase", columns: Columns, prefix: str, codes: tuple[int, ...], options: TokenOptions) -> TokenTable:
    """The tokens of the texts, each with the prefix and the ids of `codes` before it; long ones cut, or in pieces."""
    given = columns.get("text")
    asked = options if options.max_length is None else replace(options, max_length=options.max_length - len(codes))
    if given is None or isinstance(given, str | bytes):
        return encode(tokenizer, columns, ("text",), replace(asked, long=None))  # which says what is wrong
    rows: Sequence[int] = range(len(given))
    numbers: Sequence[int] = [0] * len(given)
    texts: Sequence[str] = given
    if options.long is not None and options.long.in_windows and options.truncation_strategy != "do_not_truncate":
        found = pieces_of(tokenizer, given, room_of(tokenizer, prefix, asked), asked)
        rows = [row for row, pieces in enumerate(found) for _ in pieces]
        numbers = [number for pieces in found for number in range(len(pieces))]
        texts = [
            given[row][start:end].strip() if len(found[row]) > 1 else given[row] for row in range(len(found)) for start, end in found[row]
        ]
    whole = [prefix + text if isinstance(text, str) else text for text in texts]
    table = encode(tokenizer, {"text": whole}, ("text",), replace(asked, long=None))
    table = replace(table, rows=np.array(rows, dtype=np.int64), windows=np.array(numbers, dtype=np.int32))
    return table if not codes else with_codes(table, codes)


def room_of(tokenizer: "PreTrainedTokenizerBase", prefix: str, options: TokenOptions) -> int:
    """How many tokens of text a piece may have beside the prefix. Raises SettingError for too few, or for pieces that share tokens."""
    if options.long is not None and options.long.policy == "windows":
        cure = "Use LongTexts('chunk-and-join'), or LongTexts('truncate')."
        raise SettingError("windows that share tokens cannot be joined to one text", place="long", cure=cure)
    alone = encode(tokenizer, {"text": [f"{prefix}a"]}, ("text",), replace(options, long=None, truncation=False))
    room = (options.max_length or int(tokenizer.model_max_length)) - len(alone.ids) + 1 - SPARE
    if room < LEAST_ROOM:
        problem = f"max_length {options.max_length} leaves {max(room, 0)} tokens of text beside the prefix"
        raise SettingError(problem, place="max_length", cure=f"Set it to {(options.max_length or 0) - room + LEAST_ROOM} or more.")
    return room


def with_codes(table: TokenTable, codes: tuple[int, ...]) -> TokenTable:
    """The same windows with these ids before each."""
    ids = np.insert(table.ids, np.repeat(table.starts[:-1], len(codes)), np.tile(np.array(codes, np.int32), len(table)))
    return replace(table, ids=ids, starts=table.starts + len(codes) * np.arange(len(table) + 1))


def pieces_of(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], room: int, options: TokenOptions) -> list[list[tuple[int, int]]]:
    """The pieces of each text: characters start to end (exclusive), each of `room` tokens at most; one piece for a text that fits.

    A piece ends with a sentence where one ends in its second half, else at a space, else anywhere but within a sign that several characters
    make up. Raises what `tokens.encode` raises.
    """
    whole = replace(options, long=None, truncation=False, max_length=None)
    table, alignment = encode_aligned(tokenizer, {"text": texts}, ("text",), whole)
    found = []
    for row, text in enumerate(texts):
        stretch = slice(int(table.starts[row]), int(table.starts[row + 1]))
        own = alignment.fields[stretch] >= 0  # without special tokens
        found.append(cut(text, alignment.starts[stretch][own], alignment.ends[stretch][own], room))
    return found


def cut(text: str, starts: IntArray, ends: IntArray, room: int) -> list[tuple[int, int]]:
    """The pieces of one text; `starts` and `ends` are the characters of its tokens."""
    pieces = []
    begin = first = 0  # a character, a token
    while len(starts) - first > room:
        edge = best_edge(text, int(starts[first + room // 2]), int(ends[first + room - 1]))
        pieces.append((begin, edge))
        begin, first = edge, max(first + 1, int(np.searchsorted(starts, edge)))
    return [*pieces, (begin, len(text))]


def best_edge(text: str, least: int, most: int) -> int:
    """Where to cut between two characters: after a sentence, at a space, or as late as possible."""
    for pattern in (SENTENCE_END, re.compile(r"\s")):
        last = max((match.end() for match in pattern.finditer(text, least, most)), default=0)
        if last > least:
            return last
    edge = most
    while least < edge < len(text) and belongs_together(text[edge - 1], text[edge]):
        edge -= 1
    return edge if edge > least else most


def belongs_together(left: str, right: str) -> bool:
    """Whether two characters are parts of one sign."""
    return JOINED in (left, right) or unicodedata.combining(right) > 0 or ord(right) in VARIANTS
