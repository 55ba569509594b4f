"""Words put into the masks of a text.

Takes a text, where its masks stand, and the pieces of a vocabulary that were weighed for each. Gives texts with the masks filled, as a
prediction. Knows nothing of models, of how a text becomes tokens, or of how likely a piece is.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pellucid.types import Prediction, Span, Tokens

Place = tuple[int, int]  # characters: start, end (exclusive)
MASKS = ("[MASK]", "<mask>")  # what people write, whatever the tokenizer calls it


class Word(NamedTuple):
    """A piece of the vocabulary: its name, how it stands in a text, whether it belongs to what is before it, and how likely it is."""

    name: str
    fill: str
    glued: bool
    chance: float


def places_of(text: str, mask: str) -> list[Place]:
    """Where the masks of a text stand, written as the tokenizer does or as people do."""
    return [match.span() for match in _written(mask).finditer(text)]


def with_masks(text: str, mask: str) -> str:
    """The text with each of its masks written as the tokenizer does; what is no text stays, for others to name."""
    return _written(mask).sub(lambda _: mask, text) if isinstance(text, str) else text


def _written(mask: str) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(one) for one in dict.fromkeys((mask, *MASKS)) if one))


def word_of(spell: Callable[[Sequence[int]], str], number: int, chance: float) -> Word:
    """A piece as it reads. Written twice in a row it shows whether a space stands before it, and how it is spelled within a word."""
    name, twice = spell([number]), spell([number, number])
    again = twice.removeprefix(name) if twice.startswith(name) else name
    return Word(name, again.strip() or name.strip(), bool(again) and not again[0].isspace(), chance)


def filled(text: str, places: Sequence[Place], words: Sequence[Word]) -> str:
    """The text with a word at each place. A piece that continues a word takes the spaces before it away; all else stays as it is."""
    parts, last = [], 0
    for (start, end), word in zip(places, words, strict=True):
        before = text[last:start]
        parts += [before.rstrip(" ") if word.glued else before, word.fill]
        last = end
    return "".join(parts) + text[last:]


def filled_in(row: int, text: str, places: Sequence[Place], words: Sequence[Sequence[Word]]) -> Prediction:
    """The prediction of a row, from the words that were weighed for each of its masks, the best first.

    `spans` are all of these words, mask after mask; of a single mask `scores` and `alternatives` say the same. Two pieces may spell the
    same word, one at its beginning and one within: `scores` adds the two up.
    """
    answer = filled(text, places, [each[0] for each in words])
    spans = tuple(
        Span(start, end, word.name, word.chance, text[start:end])
        for (start, end), weighed in zip(places, words, strict=True)
        for word in weighed
    )
    if len(places) > 1:
        return Prediction(row, answer, spans=spans)
    scores: dict[str, float] = {}
    for word in words[0]:
        scores[word.name] = scores.get(word.name, 0.0) + word.chance
    others = tuple((filled(text, places, [word]), word.chance) for word in words[0][1:])
    return Prediction(row, answer, scores, spans, others)


def characters(text: str, places: Sequence[Place], width: int) -> list[int]:
    """For each character of a text whose masks were made `width` characters wide, and for its end: the character of the text itself."""
    found: list[int] = []
    last = 0
    for start, end in places:
        found += [*range(last, start), *[start] * width]
        last = end
    return [*found, *range(last, len(text) + 1)]


def seen_once(windows: Sequence[Tokens], places: Sequence[Place], mask_id: int) -> dict[int, int]:
    """Place → number of its mask among all that the windows hold; of a mask in several windows the one farthest from an edge."""
    best: dict[int, tuple[int, int]] = {}  # place → tokens to the nearest edge, number of the mask
    firsts, number = [first for first, _ in places], 0
    for tokens in windows:
        for position, token in enumerate(tokens.ids):
            if token != mask_id:
                continue
            place = bisect_left(firsts, tokens.offsets[position][0])  # with the space before it, where the tokenizer's mask takes that in
            best[place] = max(best.get(place, (-1, 0)), (min(position, len(tokens) - 1 - position), number))
            number += 1
    return {place: best[place][1] for place in sorted(best)}
