"""What an evaluation reads of rows and predictions, whatever the task.

Takes a split, a pipeline and predictions. Gives targets, texts, how much was cut, and an error that names the row.
Knows nothing of scores, baselines or reports.
"""

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from pellucid.errors import CheckpointError, LabelError, SettingError
from pellucid.reports import Truncation
from pellucid.types import Columns, Prediction, Span, Target

if TYPE_CHECKING:
    from pellucid.data import Split
    from pellucid.pipelines import Pipeline

TEXT_START = 120  # characters of a text in the table of worst rows
Progress = Callable[[int, int], None]  # done, total


def targets_of(rows: "Split", *, needed: bool = True) -> list[Target]:
    """The targets of all rows. Raises SettingError for what is no split, LabelError for no rows, or where one is `needed` and not there."""
    if not hasattr(rows, "targets"):
        cure = "Pass one split of them, as in evaluate(pipe, rows.valid, train=rows.train)."
        raise SettingError(f"expected a split, came {type(rows).__name__}", place="rows", cure=cure)
    targets = [target for start, stop in rows.chunks() for target in rows.targets(start, stop)]
    if not targets:
        raise LabelError("there are no rows to evaluate", place=rows.name, cure="Pass a split with at least one row.")
    for position, target in enumerate(targets):
        if target is None and needed:
            cure = "An answer can only be scored against a label: label the row, or leave it out with split.select(...)."
            raise LabelError("the row has no label", place=rows.place(position), cure=cure)
    return targets


def texts_of(rows: "Split", reads: Sequence[str]) -> Columns:
    """The columns that the task reads."""
    columns = rows.columns(0, len(rows))
    return {name: columns[name] for name in reads}


def beginning(fields: Iterable[str]) -> str:
    """The start of the texts of a row, in one line."""
    text = " | ".join(fields)
    return text if len(text) <= TEXT_START else text[:TEXT_START] + "…"


def predictions_of(pipe: "Pipeline", rows: "Split", progress: Progress | None) -> Iterable[Prediction]:
    """The predictions, in the order of the rows."""
    return pipe.predict(rows) if progress is None else pipe.predict(rows, progress=progress)


def check_finite(prediction: Prediction, rows: "Split", position: int) -> None:
    """Raises CheckpointError for a score or an answer that is not a finite number."""
    numbers = dict(prediction.scores)
    if isinstance(prediction.answer, float):
        numbers["answer"] = prediction.answer
    if isinstance(prediction.answer, tuple):
        spans = [each for each in prediction.answer if isinstance(each, Span)]
        numbers |= {str(span): span.score for span in spans if span.score is not None}
    if isfinite(sum(numbers.values())):
        return
    for name, number in numbers.items():
        if not isfinite(number):
            cure = 'Look for nan in the weights, and load the model with ModelOptions(dtype="float32").'
            raise CheckpointError(f"expected finite scores, came {number} for {name!r}", place=rows.place(position), cure=cure)


def truncation_of(pipe: "Pipeline", rows: "Split", *, learned: bool = False) -> Truncation:
    """What was cut from the texts, counted over the tokens that the model gets: to answer, or those that it would be trained on."""
    table = pipe.task.to_learn(pipe.encode(rows)) if learned else pipe.encode(rows.without_targets())
    cut, kept = np.asarray(table.lost), int(np.sum(table.lengths))
    lost, words = int(cut.sum()), int(np.sum(table.lost_words))
    return Truncation(len(rows), len(np.unique(np.asarray(table.rows)[cut > 0])), kept + lost, lost, words)
