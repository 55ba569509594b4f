"""Answers as stretches of a context: between characters and tokens, and the best ones for scores of both ends.

Takes the tokens of all windows of a row, the acceptable answers, or a score for each token to be the first and the last of an answer.
Gives labels for each window, the best spans with their probabilities, and the threshold above which there is no answer.
Knows nothing of tokenizers, models, tables of many rows or torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pellucid.errors import LabelError
from pellucid.types import BoolArray, FloatArray, IntArray, Prediction, Span, Target, Tokens

COUNTS = "Count characters of the context (not bytes, not tokens) from 0; the end is exclusive."


@dataclass(frozen=True, slots=True, eq=False)
class RowTokens:
    """The tokens of all windows of one row, one window after the other, as question answering sees them."""

    starts: IntArray  # (tokens,) first character in the context, of the tokens that are inside of it
    ends: IntArray  # (tokens,) exclusive
    inside: BoolArray  # (tokens,) whether a token is one of the context
    special: BoolArray  # (tokens,) whether the tokenizer added it
    edges: IntArray  # (windows + 1,) where each window begins

    @classmethod
    def of(cls, windows: Sequence[Tokens], field: str) -> "RowTokens":
        """From what is known of each window; `field` names the context."""
        offsets = np.array([place for window in windows for place in window.offsets], dtype=np.int64).reshape(-1, 2)
        inside = np.array([segment == field for window in windows for segment in window.segments], dtype=np.bool_)
        special = np.array([flag for window in windows for flag in window.special], dtype=np.bool_)
        return cls(offsets[:, 0], offsets[:, 1], inside, special, np.cumsum([0, *map(len, windows)]))

    @property
    def nulls(self) -> IntArray:
        """The token of each window that stands for no answer, (windows,), counted over all windows.

        It is the special token at the beginning ([CLS], <s>), else the one at the end (XLNet's <cls>), else the first token (GPT-2).
        """
        first, last = self.edges[:-1], self.edges[1:] - 1
        return np.where(self.special[first] | ~self.special[last], first, last)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best spans of one row, the best first."""

    places: tuple[tuple[int, int], ...]  # characters in the context, end exclusive; no two are the same
    probabilities: tuple[float, ...]
    null: float  # the probability that there is no answer
    margin: float  # score of no answer less that of the best span; infinite where the context has no token


def answers_of(target: Target, row: int) -> tuple[Span, ...]:
    """The acceptable answers of a question, () for none. Raises LabelError that names the row for any other kind of target."""
    if not isinstance(target, tuple) or not all(isinstance(each, Span) and each.text for each in target):
        came = "no target" if target is None else repr(target)[:60]
        cure = "Give a tuple of Span(start, end, text=…), all that are acceptable; () where there is no answer."
        raise LabelError(f"expected the answers to a question, came {came}", row=row, cure=cure)
    return tuple(each for each in target if isinstance(each, Span))


def checked_answers(target: Target, context: str, row: int) -> tuple[Span, ...]:
    """The same, each of which must stand in the context where it says. Raises LabelError that names the row."""
    answers = answers_of(target, row)
    for answer in answers:
        place = f"characters {answer.start} to {answer.end}"
        if not 0 <= answer.start < answer.end <= len(context):
            where = f"the answer {answer.text[:60]!r} is said to stand at {place}, the context has {len(context)}"
            raise LabelError(where, row=row, cure=COUNTS)
        found = context[answer.start : answer.end]
        if answer.text != found:
            raise LabelError(f"at {place} the context says {found[:60]!r}, the answer {answer.text[:60]!r}", row=row, cure=COUNTS)
    return answers


def texts_of_answers(targets: Sequence[Target]) -> list[tuple[str, ...]]:
    """The texts of the acceptable answers of each row. Raises what `answers_of` raises."""
    return [tuple(answer.text for answer in answers_of(target, row)) for row, target in enumerate(targets)]


def answer_labels(tokens: RowTokens, answers: Sequence[Span], *, row: int, cut: bool = False) -> IntArray:
    """First and last token of the answer in each window, counted from the window's first token: (windows, 2), the last inclusive.

    Of several acceptable answers the first that lies wholly in the window counts; where none does, both are the token for no answer. An
    answer that begins or ends inside a token gets the whole token. `cut` says that truncation took tokens from the row.
    Raises LabelError that names the row for an answer of which no token has a character.
    """
    offset = tokens.edges[:-1]
    labels = np.repeat((tokens.nulls - offset)[:, None], 2, axis=1).astype(np.int64)  # (windows, 2)
    without = np.ones(len(offset), dtype=np.bool_)
    for answer in answers:
        touched = tokens.inside & (tokens.ends > answer.start) & (tokens.starts < answer.end)  # (tokens,)
        if cut and not _kept(tokens, answer):
            continue
        if not touched.any():
            what = f"no token reads the answer {answer.text!r} at characters {answer.start} to {answer.end}"
            raise LabelError(what, row=row, cure="The tokenizer drops these characters: take a longer answer, or () for none.")
        low, high = tokens.starts[touched].min(), tokens.ends[touched].max()
        for window in np.flatnonzero(without):
            places = tokens.edges[window] + np.flatnonzero(touched[tokens.edges[window] : tokens.edges[window + 1]])
            if len(places) and tokens.starts[places[0]] == low and tokens.ends[places[-1]] == high:
                labels[window] = places[[0, -1]] - offset[window]
                without[window] = False
    return labels


def best_spans(tokens: RowTokens, logits: FloatArray, *, count: int, longest: int) -> Ranked:
    """The `count` best spans of at most `longest` tokens over all windows of a row; `logits` (tokens, 2) score both ends of an answer.

    A span scores the sum of its two logits, in the window where that is highest. Its probability is the product of two softmaxes, of the
    starts and of the ends, each over the tokens of the context in all windows and one token for no answer: that of the window which
    speaks least for it (a question has no answer only if no window has one). For one window this is what transformers' own pipeline for
    question answering gave before it was removed.
    """
    scores = np.asarray(logits, dtype=np.float64)
    nulls = tokens.nulls
    null = nulls[np.argmin(scores[nulls].sum(axis=1))]
    pool = tokens.inside.copy()
    pool[null] = True
    total = np.logaddexp.reduce(scores[pool], axis=0).sum()
    null_score = float(scores[null].sum())
    flat = _pair_scores(tokens, scores, longest).reshape(-1)  # the span from token i to i + d stands at i * longest + d
    found: dict[tuple[int, int], float] = {}
    kept = min(4 * count, len(flat))
    while True:  # windows overlap, and several tokens may share a character: look further until there are enough different places
        best = np.argpartition(flat, len(flat) - kept)[len(flat) - kept :]
        best = np.sort(best[np.isfinite(flat[best])])  # of equals the first in the text
        first, distance = np.divmod(best[np.argsort(-flat[best], kind="stable")], longest)
        for start, end, score in zip(tokens.starts[first], tokens.ends[first + distance], flat[first * longest + distance], strict=True):
            if end > start:
                found.setdefault((int(start), int(end)), float(score))
        if len(found) >= count or kept == len(flat):
            break
        kept = min(4 * kept, len(flat))
    ranked = list(found.items())[:count]
    probabilities = tuple(float(np.exp(score - total)) for _, score in ranked)
    margin = null_score - ranked[0][1] if ranked else float("inf")
    return Ranked(tuple(place for place, _ in ranked), probabilities, float(np.exp(null_score - total)), margin)


def margins_of(predictions: Sequence[Prediction]) -> FloatArray:
    """How much better no answer scores than the best span, (rows,): the logarithm of the ratio of their probabilities.

    Predictions of questions that may have no answer have an empty span, whose score is that of no answer.
    """
    nulls = [next((span.score or 0.0 for span in prediction.spans if not span.text), 1.0) for prediction in predictions]
    best = [next((span.score or 0.0 for span in prediction.spans if span.text), 0.0) for prediction in predictions]
    tiny = np.finfo(np.float64).tiny
    margins: FloatArray = np.log(np.maximum(nulls, tiny)) - np.log(np.maximum(best, tiny))
    return margins


def best_margin(margins: FloatArray, spoken: FloatArray, silent: FloatArray) -> float:
    """The threshold with the highest mean score: above it there is no answer.

    `margins` (rows,) are those of `Ranked`; `spoken` and `silent` (rows,) score each row with its best span, and without an answer.
    Thresholds lie half way between two margins that occur; of equally good ones the nearest to 0 is taken.
    """
    if len(margins) == 0:
        return 0.0
    order = np.argsort(margins, kind="stable")
    ordered = np.clip(margins[order], -1e6, 1e6)
    gains = np.concatenate([[0.0], np.cumsum((spoken - silent)[order])])  # of speaking in the first 0, 1, 2, … rows
    least = 0.0 if ordered[0] > 0 else ordered[0] - 1
    most = 0.0 if ordered[-1] < 0 else ordered[-1] + 1
    cuts = np.concatenate([[least], (ordered[1:] + ordered[:-1]) / 2, [most]])
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # equal margins fall together
    best = np.flatnonzero(possible & (gains >= gains[possible].max() - 1e-9))
    return float(cuts[best[np.argmin(np.abs(cuts[best]))]])


def _kept(tokens: RowTokens, answer: Span) -> bool:
    """Whether truncation left the characters of an answer."""
    starts, ends = tokens.starts[tokens.inside], tokens.ends[tokens.inside]
    return bool(len(starts) and starts.min() <= answer.start and answer.end <= ends.max())


def _pair_scores(tokens: RowTokens, scores: FloatArray, longest: int) -> FloatArray:
    """The score of each span from token i to token i + d, (tokens, longest); -inf where it is not within the context of one window."""
    both = np.where(tokens.inside[:, None], scores, -np.inf)  # (tokens, 2)
    windows = np.repeat(np.arange(len(tokens.edges) - 1), np.diff(tokens.edges))  # (tokens,)
    ends = sliding_window_view(np.concatenate([both[:, 1], np.full(longest - 1, -np.inf)]), longest)  # (tokens, longest)
    same = sliding_window_view(np.concatenate([windows, np.full(longest - 1, -1)]), longest) == windows[:, None]
    return np.where(same, both[:, :1] + ends, -np.inf)
