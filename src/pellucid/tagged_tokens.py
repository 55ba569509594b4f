"""The tokens of one row with a tag each, as spans of its text.

Takes the tokens of all windows of a row with their characters, and a score for each tag of each token. Gives each token of the text once,
the words that tokens make up, and spans with exact characters. Knows nothing of tokenizers, models, tables of many rows or torch.

The five ways to make spans of tokens have the meanings of transformers' TokenClassificationPipeline, with these differences: the characters
of a span have no white space around them, no two spans overlap, and tags of IOBES are read as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from pellucid.tagging import OUTSIDE, Place, Scheme
from pellucid.types import FloatArray, IntArray, Span, Tokens

Aggregation = Literal["none", "simple", "first", "average", "max"]
WordRule = Literal["hub", "spaces", "tokenizer"]
SPACE_MARKS = ("▁", "Ġ")  # pieces that begin with one follow a space: such vocabularies do not mark what goes on with a word
UNKNOWN = ("[UNK]", "<unk>")
WHITE = " \t\r\n\f\v"  # a no-break space may be part of a word
BEGIN, END = "BSU", "ELSU"  # letters of tags that begin an entity, and that end one
Piece = tuple[int, int, int]  # a token: its id and its characters


class Unit(NamedTuple):
    """A token or a word with its tag: characters, the number of the tag, and how sure the model is of it."""

    start: int
    end: int
    tag: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class RowPieces:
    """Each token of a text once, in its order, and which window says what it is: one entry a token, special tokens left out."""

    windows: IntArray  # (tokens,) the window where most text stands around it
    positions: IntArray  # (tokens,) its position in that window, special tokens counted
    places: NDArray[np.int64]  # (tokens, 2) characters: start, end (exclusive)
    words: IntArray  # (tokens,) number of the tokenizer's word
    pieces: tuple[str, ...] = ()  # (tokens,) as the vocabulary spells them

    @classmethod
    def of(cls, windows: Sequence[Tokens]) -> "RowPieces":
        """From what is known of each window of a row.

        Of the tokens that two neighbouring windows share, the first half comes from the first and the second half from the second, so that
        each is taken where it has the most text on its nearer side.
        """
        kept = [[position for position, special in enumerate(window.special) if not special] for window in windows]
        shared = [[(window.ids[p], *window.offsets[p]) for p in positions] for window, positions in zip(windows, kept, strict=True)]
        firsts = first_tokens(shared)
        ends = [first + len(positions) for first, positions in zip(firsts, kept, strict=True)]
        cuts = [0, *((first + end + 1) // 2 for first, end in zip(firsts[1:], ends[:-1], strict=True)), ends[-1] if ends else 0]
        chosen = [
            (number, kept[number][token - first])
            for number, first in enumerate(firsts)
            for token in range(max(cuts[number], first), min(cuts[number + 1], ends[number]))
        ]
        words = [windows[number].words[position] for number, position in chosen]
        return cls(
            np.array([number for number, _ in chosen], dtype=np.int64),
            np.array([position for _, position in chosen], dtype=np.int64),
            np.array([windows[number].offsets[position] for number, position in chosen], dtype=np.int64).reshape(-1, 2),
            np.array([-1 if word is None else word for word in words], dtype=np.int64),
            tuple(windows[number].pieces[position] for number, position in chosen),
        )


@dataclass(frozen=True, slots=True)
class TagReading:
    """How tags become spans. `tags` are those of the head, in its order; `joins` says whether neighbours may be one span."""

    tags: tuple[str, ...]
    scheme: Scheme
    aggregation: Aggregation
    words: WordRule
    joins: bool = True
    ignored: tuple[str, ...] = (OUTSIDE,)

    def spans(self, text: str, pieces: RowPieces, scores: FloatArray) -> tuple[Span, ...]:
        """The spans of a text, ordered, none over another, from the probability of each tag for each token, (tokens, tags)."""
        whole = self.aggregation not in ("none", "simple")
        units = self.word_units(text, pieces, scores) if whole else self.token_units(pieces, scores)
        names = [self.tags[unit.tag] for unit in units]
        if self.joins and self.aggregation != "none":
            groups = grouped(names, self.scheme)
        else:
            named = names if self.aggregation == "none" else [parted(name, self.scheme)[1] for name in names]
            groups = [(name, place, place + 1) for place, name in enumerate(named)]
        found = []
        for label, first, end in groups:
            if label in self.ignored:
                continue
            members = units[first:end]
            start, stop = trimmed(text, members[0].start, max(unit.end for unit in members))
            score = float(np.mean([unit.score for unit in members]))
            found.append(Span(start, stop, label, score, text[start:stop]))
        return apart([span for span in found if span.end > span.start])

    def token_units(self, pieces: RowPieces, scores: FloatArray) -> list[Unit]:
        """Each token with its best tag."""
        tags, values = scores.argmax(axis=1).tolist(), scores.max(axis=1, initial=0.0).tolist()
        return [Unit(start, end, tag, value) for (start, end), tag, value in zip(pieces.places.tolist(), tags, values, strict=True)]

    def word_units(self, text: str, pieces: RowPieces, scores: FloatArray) -> list[Unit]:
        """Each word with one tag: that of its first token, of its surest token, or the best of the mean of its tokens."""
        numbers = hub_words(text, pieces) if self.words == "hub" else word_numbers(text, pieces.places, pieces.words, self.words)
        edges = [*np.flatnonzero(np.diff(numbers, prepend=-2) != 0).tolist(), len(numbers)]
        units = []
        for first, end in pairwise(edges):
            rows = scores[first:end]  # (tokens of the word, tags)
            if self.aggregation == "average":
                row = rows.mean(axis=0)
            else:
                row = rows[0 if self.aggregation == "first" else int(rows.max(axis=1).argmax())]
            start, stop = int(pieces.places[first:end, 0].min()), int(pieces.places[first:end, 1].max())
            if self.words == "spaces":
                start, stop = around(text, start, stop)
            units.append(Unit(start, stop, int(row.argmax()), float(row.max())))
        return units


def first_tokens(windows: Sequence[Sequence[Piece]]) -> list[int]:
    """Which token of the text each window begins with, counted from 0.

    A window goes on where the end of the one before is its own beginning: the longest such end is what the two share.
    """
    firsts: list[int] = []
    for number, window in enumerate(windows):
        if number == 0:
            firsts.append(0)
            continue
        before = windows[number - 1]
        begins = (place for place, piece in enumerate(before) if window and piece == window[0])
        fits = (place for place in begins if list(before[place:]) == list(window[: len(before) - place]))
        firsts.append(firsts[-1] + next(fits, len(before)))
    return firsts


def word_numbers(text: str, places: NDArray[np.int64], words: IntArray, rule: WordRule) -> IntArray:
    """A number for the word of each token, (tokens,), which only rises: what stands between spaces, or the tokenizer's words.

    By the rule "tokenizer", signs stand apart from letters whatever the tokenizer does (XLM-R takes "Berlin." for one word).
    """
    if rule == "spaces":
        spaces = np.array([place for place, letter in enumerate(text) if letter == " "], dtype=np.int64)
        return np.searchsorted(spaces, places[:, 0], side="right")
    breaks = np.diff(words, prepend=words[:1]) != 0
    if rule == "tokenizer" and len(places):
        stretches = [text[start:end].strip() for start, end in places.tolist()]
        ends, begins = np.array([[is_sign(each[-1:]), is_sign(each[:1])] for each in stretches]).T
        breaks[1:] |= ends[:-1] != begins[1:]
    found: IntArray = np.cumsum(breaks)
    return found


def hub_words(text: str, pieces: RowPieces) -> IntArray:
    """A number for the word of each token, (tokens,), as transformers' pipeline takes it.

    Where pieces are marked as going on with a word (##), those without a mark begin one; where they are marked as coming after a space,
    those that stand at a space. A piece that is not in the vocabulary is a word of its own.
    """
    marked = any(piece.startswith(SPACE_MARKS) for piece in pieces.pieces)
    begins = []
    for piece, (start, end) in zip(pieces.pieces, pieces.places.tolist(), strict=True):
        whole = start == 0 or " " in text[start - 1 : start + 1] if marked else len(piece) == end - start
        begins.append(whole or piece in UNKNOWN)
    found: IntArray = np.cumsum(np.array(begins, dtype=np.int64))
    return found


def is_sign(letter: str) -> bool:
    """Whether a character is a mark of punctuation or a symbol; an accent belongs to its letter."""
    return letter != "" and category(letter)[0] in "PS"


def around(text: str, start: int, end: int) -> Place:
    """The whole word between spaces that these characters stand in."""
    while start < end and text[start] == " ":
        start += 1
    stop = text.find(" ", start)
    return text.rfind(" ", 0, start) + 1, len(text) if stop < 0 else stop


def trimmed(text: str, start: int, end: int) -> Place:
    """The same characters without white space at their ends."""
    while start < end and text[start] in WHITE:
        start += 1
    while start < end and text[end - 1] in WHITE:
        end -= 1
    return start, end


def apart(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The spans in order, of those that overlap the surest: pieces of one character (bytes, a space mark) may each have a tag."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if kept and span.start < kept[-1].end:
            if (span.score or 0.0) > (kept[-1].score or 0.0):
                kept[-1] = span
        else:
            kept.append(span)
    return tuple(kept)


def parted(tag: str, scheme: Scheme) -> tuple[str, str]:
    """The letter of a tag and its label; a tag without a letter goes on with what it stands behind, as I- does."""
    if scheme == "plain" or tag[1:2] != "-" or tag[0] not in ("BIESLU" if scheme == "IOBES" else "BI"):
        return "I", tag
    return tag[0], tag[2:]


def grouped(tags: Sequence[str], scheme: Scheme) -> list[tuple[str, int, int]]:
    """Neighbours with the same label together: label, first, end (exclusive). B-, S-, U- begin a group, E-, L-, S-, U- end one."""
    found: list[tuple[str, int, int]] = []
    before = ""
    for place, tag in enumerate(tags):
        letter, label = parted(tag, scheme)
        if found and found[-1][0] == label and letter not in BEGIN and before not in END:
            found[-1] = (label, found[-1][1], place + 1)
        else:
            found.append((label, place, place + 1))
        before = letter
    return found


def spelled(words: Sequence[str], tags: Sequence[str], scheme: Scheme, *, joins: bool) -> str:
    """Tagged words as a person reads them: `Peter=PER, New York=LOC`, or, where nothing `joins` them, `Peter/NOUN sings/VERB`."""
    if not joins:
        return " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
    found = [(label, " ".join(words[first:end])) for label, first, end in grouped(tags, scheme) if label != OUTSIDE]
    return ", ".join(f"{text}={label}" for label, text in found) or "(none)"
