"""Words with a tag each as one text with spans, and spans as a tag for each token.

Takes the words of a row and their tags, or spans and the characters that tokens stand for. Gives one text with spans, or tags.
Knows nothing of files, tokenizers or models.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from pellucid.errors import DataError, LabelError
from pellucid.types import Span

Scheme = Literal["IOB1", "IOB2", "IOBES", "plain"]
Place = tuple[int, int]  # characters: start, end (exclusive)
OUTSIDE = "O"
NO_BREAK_SPACE = "\u00a0"
_CHUNKED = re.compile("[BIESLU]-.")


class Marked(NamedTuple):
    """Words that belong together: their label, the first of them, the one after the last, and the letter that begins them."""

    label: str
    first: int
    end: int
    letter: str


@dataclass
class TagCensus:
    """What the tags of many rows show of their scheme. Only for tags with B-, I- and the like."""

    closed: bool = False  # E-, L-, S- or U- was seen
    begun: int = 0  # entities that begin with B- where IOB1 begins them with I-
    unbegun: int = 0  # entities that begin without B-, S- or U-

    def add(self, tags: Sequence[str]) -> int:
        """Look at one more row; how many of its entities begin without B-, S- or U-."""
        self.closed = self.closed or any(tag[:1] in ("E", "L", "S", "U") for tag in tags)
        before, loose = Marked("", -1, -1, ""), 0
        for one in marked(tags):
            if one.letter in "IEL":
                loose += 1
            elif one.letter == "B" and (before.end, before.label) != (one.first, one.label):
                self.begun += 1
            before = one
        self.unbegun += loose
        return loose

    @property
    def scheme(self) -> Scheme:
        """The scheme that most entities were written in."""
        if self.closed:
            return "IOBES"
        return "IOB1" if self.unbegun > self.begun else "IOB2"


def word_spans(words: Sequence[str]) -> tuple[str, list[Place]]:
    """The words as one text with single spaces between, and the characters of each word.

    A space within a word becomes a no-break space, so that `text.split(" ")` gives the words again. Raises DataError for an empty word.
    """
    places: list[Place] = []
    start = 0
    for number, word in enumerate(words, 1):
        if not isinstance(word, str) or not word:
            nothing = word is None or (isinstance(word, float) and word != word) or type(word).__name__ == "NAType"  # NaN != NaN
            came = "is missing" if nothing else f"is no text but {type(word).__name__} ({word!r:.40})"
            what = "is empty" if isinstance(word, str) else came
            raise DataError(f"word {number} of {len(words)} {what}", cure="Leave the word out, and its tag, or write what stands there.")
        places.append((start, start + len(word)))
        start += len(word) + 1
    return joined(words), places


def joined(words: Sequence[str]) -> str:
    """The words with single spaces between; spaces within a word become no-break spaces."""
    return " ".join(word.replace(" ", NO_BREAK_SPACE) for word in words)


def is_chunked(tags: Iterable[str]) -> bool:
    """Whether tags mark entities of several words: B-, I-, E-, S-, L-, U- with a type, and O outside.

    Where tags of another kind stand without an O among them (NOUN, VERB), each word has a label of its own. Only O means: no entities.
    """
    seen = set(tags)
    inside = seen - {OUTSIDE}
    prefixed = {tag for tag in inside if _CHUNKED.match(tag)}
    return prefixed == inside or (bool(prefixed) and OUTSIDE in seen)


def scheme_of(tags_of_rows: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that the tags of these rows are in; BILOU counts as IOBES, of which it is another spelling."""
    rows = list(tags_of_rows)
    if not is_chunked(tag for tags in rows for tag in tags):
        return "plain"
    census = TagCensus()
    for tags in rows:
        census.add(tags)
    return census.scheme


def marked(tags: Sequence[str]) -> list[Marked]:
    """The entities that tags mark, in order, read as conlleval reads them whatever the scheme.

    B-, S- and U- begin one; E-, L-, S- and U- end one; I-, E- and L- go on with an open entity of the same type, or begin one.
    """
    found: list[Marked] = []
    is_open = False
    for number, tag in enumerate(tags):
        if tag == OUTSIDE:
            is_open = False
            continue
        letter, label = tag[:1], tag[2:]
        if is_open and letter in "IEL" and found[-1].label == label:
            found[-1] = found[-1]._replace(end=number + 1)
        else:
            found.append(Marked(label, number, number + 1, letter))
        is_open = letter in "BI"
    return found


def spans_of_tags(tags: Sequence[str], places: Sequence[Place], place: str = "", *, plain: bool = False) -> tuple[Span, ...]:
    """One Span for each entity, from the characters of each word (`word_spans`); where tags are `plain`, one for each word.

    Reads IOB1, IOB2, IOBES and BILOU alike. `place` is said in errors. Raises LabelError where words and tags differ in number, and for
    a tag without a type where others have one.
    """
    if len(tags) != len(places):
        words, said = (f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in ((len(places), "word"), (len(tags), "tag")))
        raise LabelError(f"{words} but {said}", place=place, cure="Give each word one tag.")
    if plain:
        return tuple(Span(start, end, tag) for (start, end), tag in zip(places, tags, strict=True))
    for number, tag in enumerate(tags, 1):
        if tag != OUTSIDE and not _CHUNKED.match(tag):
            cure = "Mend the tag; the others have a prefix, or are O."
            raise LabelError(f"word {number} has the tag {tag!r:.60}, expected O or one such as B-PER", place=place, cure=cure)
    return tuple(Span(places[one.first][0], places[one.end - 1][1], one.label) for one in marked(tags))


def tags_of_spans(spans: Sequence[Span], tokens: Sequence[Place], scheme: Scheme = "IOB2") -> list[str]:
    """One tag for each token, from spans that do not overlap and the characters of each token.

    A token belongs to the span in which it begins; the first such token is B-, and a token without characters is outside. In the scheme
    "plain" the tag is the label itself. Raises LabelError for spans that overlap.
    """
    ordered = sorted(spans, key=lambda span: span.start)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            raise LabelError(f"the spans {before.place} and {after.place} overlap", cure="A token has one tag: keep one of the two.")
    tags = [OUTSIDE] * len(tokens)
    if not ordered:
        return tags
    edges = np.asarray(tokens, dtype=np.int64).reshape(-1, 2)  # (tokens, 2)
    real = np.flatnonzero(edges[:, 1] > edges[:, 0])
    begins = edges[real, 0]
    owners = np.searchsorted(np.array([span.start for span in ordered]), begins, side="right") - 1  # the span that began last
    ends = np.array([span.end for span in ordered])
    owners[(owners >= 0) & (begins >= ends[owners])] = -1
    around = [-1, *owners.tolist(), -1]
    for number, token in enumerate(real.tolist(), 1):
        before, owner, after = around[number - 1 : number + 2]
        if owner >= 0:
            label = ordered[owner].label
            touches = before >= 0 and before != owner and ordered[before].label == label
            tags[token] = letter_of(scheme, first=before != owner, last=after != owner, touches=touches) + label
    return tags


def letter_of(scheme: Scheme, *, first: bool, last: bool, touches: bool) -> str:
    """The prefix of a token's tag. `touches`: the token before belongs to another span of the same label."""
    if scheme == "plain":
        return ""
    if scheme == "IOB1":
        return "B-" if first and touches else "I-"
    if scheme == "IOBES" and last:
        return "S-" if first else "E-"
    return "B-" if first else "I-"
