"""Scores of answers to questions: exact match and F1 over words, as the scripts of SQuAD compute them.

Takes the answer to each question as text, and every acceptable answer. Gives a tally, with parts for questions without an answer.
Knows nothing of contexts, offsets, models or thresholds.

Source: Rajpurkar et al., SQuAD (2016) and Know What You Don't Know (2018), and the evaluation scripts that belong to them. The two scripts
differ for questions without an answer, and for acceptable answers of which the normalisation leaves nothing ("the").
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pellucid.errors import DataError
from pellucid.intervals import divided
from pellucid.tallies import Tally, check_pairs
from pellucid.types import FloatArray

ANSWERS = ("F1", "exact match")
WITH_UNANSWERABLE = (*ANSWERS, "F1 where there is an answer", "exact match where there is an answer", "right where there is none")
ARTICLE = re.compile(r"\b(?:a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """What two answers are compared by: lower case, no ASCII punctuation, no English articles, single spaces."""
    bare = text.lower().translate(WITHOUT_PUNCTUATION)
    return " ".join(ARTICLE.sub(" ", bare).split())


def answer_scores(answer: str, acceptable: Sequence[str], *, second: bool = True) -> tuple[float, float]:
    """F1 over words and exact match, each with the acceptable answer that comes nearest; `second` as in the second script, or the first.

    In the second, an acceptable answer of which nothing is left is none, and without any, no answer is right. In the first such an answer
    can be matched exactly, but shares no word.
    """
    said, wanted = normalised(answer), [normalised(text) for text in acceptable]
    if second:
        wanted = [text for text in wanted if text] or [""]
    exact = float(said in wanted)
    if second and not said:
        return exact, exact
    return max(shared_f1(said.split(), text.split()) for text in wanted), exact


def shared_f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    """The harmonic mean of the shares of words that both have; 0 where there are none."""
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def answer_tally(answers: Sequence[str], acceptable: Sequence[Sequence[str]]) -> Tally:
    """Answers against every acceptable one: the best counts. Names: F1, exact match, both from 0 to 1.

    A question without an acceptable answer, or with "" alone, has none: "" is right, and nothing else. Where there are such questions,
    everything is as in the second script, and there are three more names: F1 and exact match where there is an answer, and the share right
    where there is none. Otherwise it is as in the first. Raises DataError for what is no text, naming the row.
    """
    check_pairs(answers, acceptable)
    for row, (answer, texts) in enumerate(zip(answers, acceptable, strict=True)):
        if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in (answer, *texts)):
            cure = 'An answer is a text, "" for none; acceptable answers are a tuple of texts.'
            raise DataError(f"expected texts, came {answer!r} for {texts!r}", row=row, cure=cure)
    second = not all(map(any, acceptable))
    counts = np.zeros((len(answers), 5))  # answerable, their F1, their exact match; unanswerable, right among them
    for row, (answer, texts) in enumerate(zip(answers, acceptable, strict=True)):
        f1, exact = answer_scores(answer, texts, second=second)
        answerable = not second or any(map(normalised, texts))
        counts[row] = (1, f1, exact, 0, 0) if answerable else (0, 0, 0, 1, exact)
    names = WITH_UNANSWERABLE if second else ANSWERS
    return Tally(names, counts, lambda sums: combined(sums)[..., : len(names)])


def combined(sums: FloatArray) -> FloatArray:
    """All five scores from sums (…, 5); those of a part without questions are nan."""
    answerable, f1, exact, unanswerable, right = np.moveaxis(sums, -1, 0)
    rows = answerable + unanswerable
    parts = (divided(f1, answerable, np.nan), divided(exact, answerable, np.nan), divided(right, unanswerable, np.nan))
    return np.stack([divided(f1 + right, rows), divided(exact + right, rows), *parts], axis=-1)
