"""Spans of texts as labels of their tokens, and what the spans of many rows show.

Takes spans over texts, tables of tokens with their characters, and the tags of a head. Gives the number of a tag for each token that is to
be scored, the tags that labels need, and how the spans of rows lie in their words. Knows nothing of tokenizers, models, scores or torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pellucid.batch import IGNORED, row_slices
from pellucid.errors import LabelError
from pellucid.tagged_tokens import END, WordRule, first_tokens, parted, word_numbers
from pellucid.tagging import OUTSIDE, Place, Scheme, is_chunked, tags_of_spans
from pellucid.tokens import Alignment, TokenTable
from pellucid.types import IntArray, Span, Target

if TYPE_CHECKING:
    from pellucid.data import Split

COUNTS = "Count characters (not bytes, not tokens) from 0; the end is exclusive."
SPELLINGS = {"E": "L", "S": "U", "B": "I"}  # letters that a head may have instead: BILOU, and IOB1 without B-


@dataclass
class SpanCensus:
    """What the spans of many rows show."""

    labels: set[str] = field(default_factory=set)
    one_a_word: bool = True  # every character but white space is in a span, and no span holds white space
    between_spaces: bool = True  # every span is all that stands between two spaces
    whole_words: bool = True  # no span begins or ends between two letters or digits

    def add(self, text: str, spans: Sequence[Span]) -> None:
        """Look at one more row."""
        self.labels.update(span.label for span in spans)
        words = [text[span.start : span.end] for span in spans]
        covered = sum(map(len, words)) == sum(map(len, text.split())) and not any(len(word.split()) != 1 for word in words)
        self.one_a_word = self.one_a_word and covered
        self.between_spaces = self.between_spaces and sorted(words) == sorted(word for word in text.split(" ") if word)
        self.whole_words = self.whole_words and not any(is_inside(text, edge) for span in spans for edge in (span.start, span.end))


def census_of(split: "Split", labels: frozenset[str]) -> SpanCensus:
    """Look at all rows of a split. Raises LabelError, with its place, for a row whose target is no spans of its text with these labels."""
    census = SpanCensus()
    for start, stop in split.chunks():
        texts = split.columns(start, stop)["text"]
        for row, (text, target) in enumerate(zip(texts, split.targets(start, stop), strict=True), start):
            try:
                census.add(text, checked_spans(target, text, labels, row))
            except LabelError as error:
                raise error.at(split.place(row)) from None
    return census


def is_inside(text: str, place: int) -> bool:
    """Whether a place lies between two letters or digits."""
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def checked_spans(target: Target, text: str, labels: frozenset[str], row: int) -> tuple[Span, ...]:
    """The spans of a row, each within its text and with one of the labels (any where there are none). Raises LabelError with the row."""
    if not isinstance(target, tuple) or not all(isinstance(span, Span) for span in target):
        came = "no target" if target is None else repr(target)[:60]
        cure = "Give a tuple of Span(start, end, label); () where there are none. pl.read makes them of tags and of offsets."
        raise LabelError(f"expected spans of the text, came {came}", row=row, cure=cure)
    spans = tuple(span for span in target if isinstance(span, Span))
    for span in spans:
        where = f"{span.label!r:.60} from {span.start} to {span.end}"
        if not 0 <= span.start < span.end <= len(text):
            raise LabelError(f"the span {where} does not lie in the text of {len(text)} characters", row=row, cure=COUNTS)
        found = text[span.start : span.end]
        if span.text and span.text != found:
            raise LabelError(f"the span {where} says {span.text[:60]!r}, the text {found[:60]!r}", row=row, cure=COUNTS)
        if labels and span.label not in labels:
            few = ", ".join(map(repr, sorted(labels)[:8])) + (", …" if len(labels) > 8 else "")
            cure = "Mend the row, or train with the labels of all rows."
            raise LabelError(f"the span {where} has none of the {len(labels)} labels {few}", row=row, cure=cure)
    return spans


@dataclass(frozen=True, slots=True)
class TokenTags:
    """How spans become numbers of tags: `known` are the tags of the head with their numbers; -100 stands for what is not scored.

    `first_only`: of a word only the first token is scored. `every_word`: each word has a span, and what stands in none is not scored.
    """

    known: Mapping[str, int]
    scheme: Scheme
    words: WordRule
    first_only: bool
    every_word: bool

    def table(
        self, table: TokenTable, alignment: Alignment, texts: Sequence[str], spans: Sequence[Sequence[Span]]
    ) -> tuple[IntArray, list[str]]:
        """The tag of each token of a table, (all tokens,), the same in every window that it is in, and which spans nothing stands for.

        `spans` are those of each row, over its text. Raises LabelError that names the row.
        """
        labels = np.full(len(table.ids), IGNORED, dtype=np.int64)
        missed: list[str] = []
        for windows in row_slices(table.rows):
            row = int(table.rows[windows.start])
            firsts, parts, whole = tokens_in_order(table, alignment, windows)
            places = np.stack([alignment.starts[whole], alignment.ends[whole]], axis=1).astype(np.int64)
            try:
                numbers, unscored = self.numbers(texts[row], spans[row], places, alignment.words[whole])
            except LabelError as error:
                raise LabelError(error.problem, row=row, cure=error.cure) from None
            missed += [f"{texts[row][span.start : span.end][:40]!r} in {texts[row][:60]!r}" for span in unscored]
            for first, part in zip(firsts, parts, strict=True):
                labels[part] = numbers[first : first + len(part)]
        return labels, missed

    def numbers(self, text: str, spans: Sequence[Span], places: NDArray[np.int64], words: IntArray) -> tuple[IntArray, list[Span]]:
        """The tag of each token of a text, (tokens,), and the spans that no scored token stands for; those that were cut off do not count.

        `places` (tokens, 2) are the characters of the tokens in their order, `words` (tokens,) the tokenizer's. Raises LabelError for spans
        that overlap, and for a label that the head has no tag for.
        """
        ordered = sorted(spans, key=lambda span: span.start)
        begins = begun(text, places, words)
        scored = np.arange(len(begins))
        if self.first_only:
            scored = np.flatnonzero(np.diff(word_numbers(text, places, words, self.words), prepend=-2) != 0)
        begins = [begins[token] for token in scored.tolist()]
        tags = [self.number(tag) for tag in tags_of_spans(ordered, begins, self.scheme)]
        owners = owners_of(ordered, begins)
        numbers = np.full(len(places), IGNORED, dtype=np.int64)
        numbers[scored] = np.where(owners < 0, IGNORED, tags) if self.every_word else tags
        seen = set(owners.tolist())
        first, end = (int(places[:, 0].min()), int(places[:, 1].max())) if len(places) else (0, len(text))
        return numbers, [span for one, span in enumerate(ordered) if one not in seen and span.end > first and span.start < end]

    def number(self, tag: str) -> int:
        """The number of a tag; where the head does not have it, that of its other spelling: L- for E-, U- for S-, I- for B-."""
        number = self.known.get(tag, self.known.get(SPELLINGS.get(tag[:1], "") + tag[1:]))
        if number is None and tag != OUTSIDE:
            few = ", ".join(list(self.known)[:8]) + (", …" if len(self.known) > 8 else "")
            cure = "ModelOptions(new_head=True) makes a head for these labels."
            raise LabelError(f"the head has no tag {tag!r:.60}, only {few}", cure=cure)
        return IGNORED if number is None else number


def owners_of(ordered: Sequence[Span], begins: Sequence[Place]) -> IntArray:
    """The span in which each token begins, (tokens,), -1 for none. `ordered`: the spans by their start, none over another."""
    if not ordered:
        return np.full(len(begins), -1, dtype=np.int64)
    edges = np.array(begins, dtype=np.int64).reshape(-1, 2)
    owners = np.searchsorted(np.array([span.start for span in ordered]), edges[:, 0], side="right") - 1
    outside = (edges[:, 0] >= np.array([span.end for span in ordered])[owners]) | (edges[:, 0] == edges[:, 1])
    return np.where((owners < 0) | outside, -1, owners)


def tokens_in_order(table: TokenTable, alignment: Alignment, windows: slice) -> tuple[list[int], list[IntArray], IntArray]:
    """The tokens of the text of one row, special ones left out, as positions in the table.

    Gives which token of the text each window begins with, the tokens of each window, and every token of the text once.
    """
    edges = np.asarray(table.starts[windows.start : windows.stop + 1]).tolist()
    parts: list[IntArray] = [start + np.flatnonzero(alignment.fields[start:end] >= 0) for start, end in pairwise(edges)]
    if len(parts) == 1:
        return [0], parts, parts[0]
    columns = (table.ids, alignment.starts, alignment.ends)
    firsts = first_tokens(
        [[(int(a), int(b), int(c)) for a, b, c in zip(*(column[part] for column in columns), strict=True)] for part in parts]
    )
    whole = parts[0]
    for first, part in zip(firsts[1:], parts[1:], strict=True):
        whole = np.concatenate([whole, part[len(whole) - first :]])
    return firsts, parts, whole


def begun(text: str, places: NDArray[np.int64], words: IntArray) -> list[Place]:
    """The characters by which tokens are labelled, (start, end) each: those of the next token of the word for a mark of a space alone."""
    found = [(int(start), int(end)) for start, end in places]
    for token in range(len(found) - 2, -1, -1):
        start, end = found[token]
        if words[token] == words[token + 1] and not text[start:end].strip():
            found[token] = found[token + 1]
    return found


def tags_of_labels(labels: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """The tags that a head needs to mark entities of these labels."""
    letters = {"plain": ("",), "IOBES": ("B-", "I-", "E-", "S-")}.get(scheme, ("B-", "I-"))
    return (OUTSIDE, *(letter + label for label in labels for letter in letters))


def scheme_of_tags(tags: Sequence[str]) -> Scheme:
    """The scheme that the tags of a head are made for: plain unless all of them mark entities."""
    letters = {tag[0] for tag in tags if tag[1:2] == "-"}
    if not letters or not is_chunked(tags):
        return "plain"
    return "IOBES" if letters & set(END) else "IOB2" if "B" in letters else "IOB1"


def labels_of_tags(tags: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """The labels that tags mark, each once, sorted; in the scheme "plain" the tags themselves, as they stand."""
    if scheme == "plain":
        return tuple(tag for tag in tags if tag != OUTSIDE)
    return tuple(sorted({parted(tag, scheme)[1] for tag in tags} - {OUTSIDE}))
