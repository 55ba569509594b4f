"""What a model that answers in text has to beat: the nearest sentence, no answer, the source itself, its first sentences.

Takes questions with contexts, or sources. Gives a text for each row, and how it was made.
Knows nothing of transformers, training or scores.
"""

import re
from collections.abc import Sequence
from statistics import median

from pellucid.baselines import Answers

ENDS = re.compile("(?<=[.!?…])\\s+|(?<=[.!?…][\"'”’)])\\s+|(?<=[。！？])|\n+")  # where a sentence ends
WORD = re.compile(r"\w+")
DOCUMENT = 4  # sentences: sources with as many, in the middle, are documents
LEAD = 3


def sentences(text: str) -> list[str]:
    """The sentences of a text: up to a full stop with white space behind it, or to the end of the line."""
    return [part.strip() for part in ENDS.split(text) if part.strip()]


def nearest_sentences(questions: Sequence[str], contexts: Sequence[str]) -> Answers:
    """The sentence of each context that shares most words with the question; of equally near ones the shortest."""
    answers = tuple(nearest(question, context) for question, context in zip(questions, contexts, strict=True))
    return Answers("nearest sentence", answers, "the sentence of the context that shares most words with the question")


def nearest(question: str, context: str) -> str:
    """The sentence with most of the question's words; nothing where there is no sentence."""
    asked = set(WORD.findall(question.lower()))
    return max(sentences(context), key=lambda each: (len(asked.intersection(WORD.findall(each.lower()))), -len(each)), default="")


def no_answer(rows: int) -> Answers:
    """The answer that needs no text: there is none."""
    return Answers("no answer at all", ("",) * rows, "never an answer")


def from_source(sources: Sequence[str]) -> tuple[Answers, ...]:
    """What needs no model: the source as it is, and its first sentence; of documents the first sentence, and the first three as lines.

    Documents (half of the sources have four sentences or more) are not copied whole: nobody takes them for their summary.
    """
    split = [sentences(source) for source in sources]
    first = lead(split, 1)
    if median(map(len, split)) >= DOCUMENT:
        return first, lead(split, LEAD)
    copied = Answers("copy of the source", tuple(sources), "the source itself")
    return (copied,) if all(len(parts) < 2 for parts in split) else (copied, first)


def lead(split: Sequence[Sequence[str]], count: int) -> Answers:
    """The first sentences of each source, one a line."""
    how = "the first sentence of the source" if count == 1 else f"the first {count} sentences of the source"
    return Answers(f"lead-{count}", tuple("\n".join(parts[:count]) for parts in split), how)
