"""What a model of spans has to beat: no entity at all, a dictionary of the training entities, the usual tag of each word.

Takes texts, and the spans of the training rows. Gives a tuple of spans for each row, and how it was made.
Knows nothing of transformers, tokenizers or scores.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pellucid.baselines import Answers
from pellucid.types import Span

Spans = Sequence[Span]
PIECE = re.compile(r"\w+|[^\w\s]")  # a word or a sign: an entity begins and ends with one


def no_entities(rows: int) -> Answers:
    """The answer that needs no text: there is none."""
    return Answers("no entity at all", ((),) * rows, "never an entity")


def dictionary_entities(train: Sequence[str], targets: Sequence[Spans], texts: Sequence[str]) -> Answers:
    """The strings that were entities in training, found again: the longest first, each with its most frequent label.

    A string is kept where at least half of its places in the training texts are entities: "May" is mostly no month. No text matches in
    part of a word, and case counts.
    """
    labels = usual_labels(train, targets)
    if not labels:
        return Answers("dictionary", (), "not made: the training rows hold no entity")
    trusted = dependable(train, targets, labels)
    kept = {string: label for string, label in labels.items() if string in trusted}
    longest = max(map(pieces_in, kept), default=0)
    strings = f"{len(kept):,} strings that are mostly entities in {len(train):,} training rows"
    answers = tuple(tuple(matches(text, kept, longest)) for text in texts)
    here = "" if any(answers) else "; none of them stands in these rows"
    return Answers("dictionary", answers, f"the longest match among the {strings}, with its most frequent label{here}")


def usual_labels(train: Sequence[str], targets: Sequence[Spans]) -> dict[str, str]:
    """The most frequent label of each string that is an entity; of equally frequent ones the first that came."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for text, spans in zip(train, targets, strict=True):
        for span in spans:
            counts[text[span.start : span.end]][span.label] += 1
    return {string: found.most_common(1)[0][0] for string, found in counts.items()}


def dependable(train: Sequence[str], targets: Sequence[Spans], labels: Mapping[str, str]) -> set[str]:
    """The strings of which at least half of the places in the training texts are entities."""
    longest = max(map(pieces_in, labels), default=0)
    seen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for text, spans in zip(train, targets, strict=True):
        places = {(span.start, span.end) for span in spans}
        for match in matches(text, labels, longest):
            seen[match.text] += 1
            right[match.text] += (match.start, match.end) in places
    return {string for string, count in seen.items() if 2 * right[string] >= count}


def matches(text: str, labels: Mapping[str, str], longest: int) -> Iterator[Span]:
    """Where the strings stand in a text, from left to right without overlap; at each place the longest, of at most `longest` pieces."""
    pieces = [match.span() for match in PIECE.finditer(text)]
    position = 0
    while position < len(pieces):
        start = pieces[position][0]
        stops = range(min(position + longest, len(pieces)), position, -1)
        stop = next((stop for stop in stops if text[start : pieces[stop - 1][1]] in labels), None)
        if stop is not None:
            end = pieces[stop - 1][1]
            yield Span(start, end, labels[text[start:end]], text=text[start:end])
        position = position + 1 if stop is None else stop


def pieces_in(string: str) -> int:
    """How many words and signs there are."""
    return sum(1 for _ in PIECE.finditer(string))


def usual_tags(train: Sequence[str], targets: Sequence[Spans], texts: Sequence[str], words: Sequence[Spans]) -> Answers:
    """Each word with its most frequent tag in training; a word that was not there gets the most frequent tag of all.

    `words` are the spans of the rows to answer: where the words are is given, only their tags are asked for.
    """
    usual = usual_labels(train, targets)
    counts = Counter(span.label for spans in targets for span in spans)
    if not counts:
        return Answers("usual tag", (), "not made: the training rows hold no tagged word")
    most = counts.most_common(1)[0][0]
    answers = tuple(
        tuple(Span(word.start, word.end, usual.get(text[word.start : word.end], most), text=text[word.start : word.end]) for word in spans)
        for text, spans in zip(texts, words, strict=True)
    )
    how = f"the most frequent tag of each of {len(usual):,} words in {len(train):,} training rows, {most!r} for any other word"
    return Answers("usual tag", answers, how)


def one_tag(targets: Sequence[Spans], words: Sequence[Spans]) -> Answers:
    """The same tag for every word: the most frequent one of the targets."""
    counts = Counter(span.label for spans in targets for span in spans)
    if not counts:
        return Answers("majority tag", (), "not made: there is no tagged word")
    most, count = counts.most_common(1)[0]
    answers = tuple(tuple(Span(word.start, word.end, most, text=word.text) for word in spans) for spans in words)
    return Answers("majority tag", answers, f"always {most!r}, the tag of {count:,} of {counts.total():,} words")
