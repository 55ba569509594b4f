"""Texts with a prefix, long ones cut or in pieces that a model can read: cut where a reader would pause.

Takes columns of texts, a tokenizer, a prefix and TokenOptions. Gives a TokenTable with a window for each piece, and the characters of each.
Knows nothing of tasks, targets or models.
"""

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
ENDS, CLOSES, ENDS_ALONE = ".!?…", "\"'”’)]", "。！？\n"  # what ends a sentence: before a space, between that and the space, anywhere
JOINER = "\u200d"  # joins the signs on both sides of it into one
MARKS = ("Mn", "Me", "Mc")  # accents and the like
GOES_ON = (range(0x1160, 0x1200), range(0x200C, 0x200E), range(0x1F3FB, 0x1F400), range(0xE0020, 0xE0080))  # jamo, joiners, skins, tags
FLAGS = range(0x1F1E6, 0x1F200)  # letters of flags: two of them are one
VIRAMA = 9  # the combining class of marks that bind two letters of Indian scripts into one


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
        parts = [written_pieces(text, pieces) for text, pieces in zip(given, found, strict=True)]
        rows = [row for row, pieces in enumerate(parts) for _ in pieces]
        numbers = [number for pieces in parts for number in range(len(pieces))]
        texts = [piece for pieces in parts for piece in pieces]
    whole = [prefix + text if isinstance(text, str) else text for text in texts]
    table = encode(tokenizer, {"text": whole}, ("text",), replace(asked, long=None))
    table = replace(table, rows=np.array(rows, dtype=np.int64), windows=np.array(numbers, dtype=np.int32))
    return table if not codes else with_codes(table, codes)


def written_pieces(text: str, places: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces without the spaces around them, and without those of white space alone; a text of one piece as it is."""
    if len(places) == 1:
        return [text]
    pieces = [text[start:end] for start, end in places]
    return [piece.strip() for piece in pieces if piece.strip()] or pieces[:1]


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
        edge = best_edge(text, begin, int(starts[first + room // 2]), int(ends[first + room - 1]))
        pieces.append((begin, edge))
        begin, first = edge, max(first + 1, int(np.searchsorted(starts, edge)))
    return [*pieces, (begin, len(text))]


def best_edge(text: str, begin: int, least: int, most: int) -> int:
    """Where to cut between two characters: after a sentence, at a space, or as late as possible. Before `begin` nothing is looked at."""
    for is_edge in (ends_sentence, follows_space, follows_sign):
        edge = next((edge for edge in range(most, least, -1) if is_edge(text, edge) and not is_inside_sign(text, begin, edge)), None)
        if edge is not None:
            return edge
    return most


def ends_sentence(text: str, edge: int) -> bool:
    """Whether a sentence ends before this character."""
    if text[edge - 1] in ENDS_ALONE:
        return True
    if edge == len(text) or not text[edge].isspace():
        return False
    last = edge - 1
    while last > 0 and text[last] in CLOSES:
        last -= 1
    return text[last] in ENDS


def follows_space(text: str, edge: int) -> bool:
    """Whether a space stands before this character."""
    return text[edge - 1].isspace()


def follows_sign(text: str, edge: int) -> bool:
    """Whether anything stands before this character."""
    return edge > 0


def is_inside_sign(text: str, begin: int, edge: int) -> bool:
    """Whether a place lies within a sign that several characters make up: the rules of UAX 29 in short."""
    if not begin < edge < len(text):
        return False
    left, right = text[edge - 1], text[edge]
    if left in "\r\n" or right in "\r\n":
        return left + right == "\r\n"
    if unicodedata.category(left) in ("Cc", "Zl", "Zp"):
        return False
    if goes_on(right) or unicodedata.combining(left) == VIRAMA:
        return True
    if ord(right) in FLAGS and ord(left) in FLAGS:
        first = edge - 1
        while first > begin and ord(text[first - 1]) in FLAGS:
            first -= 1
        return (edge - first) % 2 == 1
    if left != JOINER or not is_picture(right):
        return False
    before = edge - 2
    while before > begin and goes_on(text[before]):
        before -= 1
    return before >= begin and is_picture(text[before])


def goes_on(character: str) -> bool:
    """Whether a character is part of the sign before it."""
    return unicodedata.category(character) in MARKS or any(ord(character) in kind for kind in GOES_ON)


def is_picture(character: str) -> bool:
    """Whether a joiner may bind a character to another one: emoji and their like."""
    return unicodedata.category(character) == "So" and ord(character) not in FLAGS
