"""Scores of spans: entities that are found, and words that are tagged.

Takes the spans that were answered and those that were wanted, a tuple a row. Gives tallies with a block of counts for each label.
Knows nothing of tokens, tags (IOB and its kin), models or texts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pellucid.errors import DataError, LabelError
from pellucid.intervals import divided
from pellucid.metrics import unknown_label
from pellucid.tallies import Tally, check_pairs, label_f1, label_sums, macro_f1
from pellucid.types import FloatArray, Span

ENTITIES = ("F1", "precision", "recall", "F1 macro")
WORDS = ("accuracy", "F1 macro")


def entity_tally(answers: Sequence[object], targets: Sequence[object], labels: Sequence[str]) -> Tally:
    """Entities: a span is right where start, end and label are those of a target. Names: F1, precision, recall, F1 macro.

    F1, precision and recall are over all entities together (micro), as seqeval gives them; the macro mean is over the labels that occur.
    A division by nothing counts 0. By itself, a row without entities in target and answer scores 1.
    Raises LabelError for a label that is not one of `labels`, DataError for rows that hold no spans; both name the row.
    """
    counts = label_counts(answers, targets, labels, exact=True)

    def combine(sums: FloatArray) -> FloatArray:
        hits, given, wanted = label_sums(sums, len(labels))
        every = [each.sum(axis=-1) for each in (hits, given, wanted)]
        micro = (label_f1(*every), divided(every[0], every[1]), divided(every[0], every[2]))
        return np.stack([*micro, macro_f1(hits, given, wanted)], axis=-1)

    hits, given, wanted = (each.sum(axis=-1) for each in label_sums(counts, len(labels)))
    return Tally(ENTITIES, counts, combine, tuple(labels), divided(2 * hits, given + wanted, empty=1.0))


def word_tally(answers: Sequence[object], targets: Sequence[object], labels: Sequence[str]) -> Tally:
    """Tagged words: every span of a target is a word, and right where the answer with its start and end has its label.

    Names: accuracy (over words), F1 macro (over the labels that occur). An answer at a place that is no word counts against the precision
    of its label alone. Of two spans at one place the first counts. Raises LabelError and DataError, naming the row.
    """
    counts = label_counts(answers, targets, labels, exact=False)

    def combine(sums: FloatArray) -> FloatArray:
        hits, given, wanted = label_sums(sums, len(labels))
        return np.stack([divided(hits.sum(axis=-1), wanted.sum(axis=-1)), macro_f1(hits, given, wanted)], axis=-1)

    hits, _, wanted = (each.sum(axis=-1) for each in label_sums(counts, len(labels)))
    return Tally(WORDS, counts, combine, tuple(labels), divided(hits, wanted, empty=1.0))


def label_counts(answers: Sequence[object], targets: Sequence[object], labels: Sequence[str], *, exact: bool) -> FloatArray:
    """Right answers, answers and targets of each label in each row: (rows, 3 × labels), a block each.

    `exact`: the label is part of where a span is, so that there may be several at one place.
    """
    check_pairs(answers, targets)
    if not labels:
        raise LabelError("there are no labels to score", cure="Give the names of the labels.")
    numbers = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(targets), 3, len(labels)))
    for row, (said, had) in enumerate(zip(answers, targets, strict=True)):
        given = placed(said, numbers, row, "answer", exact=exact)
        wanted = placed(had, numbers, row, "target", exact=exact)
        for block, found in enumerate((given & wanted, given, wanted)):
            for _, _, number in found:
                counts[row, block, number] += 1
    return counts.reshape(len(targets), 3 * len(labels))


def placed(value: object, numbers: Mapping[str, int], row: int, what: str, *, exact: bool) -> set[tuple[int, int, int]]:
    """Start, end and label number of each span of a row; unless `exact`, only the first at each place."""
    found: dict[tuple[int, ...], tuple[int, int, int]] = {}
    for span in checked_spans(value, row, what):
        if span.label not in numbers:
            raise unknown_label(span.label, tuple(numbers), f"row {row}, {what}")
        place = (span.start, span.end, numbers[span.label])
        found.setdefault(place if exact else place[:2], place)
    return set(found.values())


def checked_spans(value: object, row: int, what: str) -> Sequence[Span]:
    """The spans of a row. Raises DataError for anything else."""
    if not isinstance(value, tuple | list) or not all(isinstance(span, Span) for span in value):
        cure = "Give a tuple of spans a row; () where there are none."
        raise DataError(f"expected spans, came {value!r}", place=f"row {row}, {what}", row=row, cure=cure)
    return value
