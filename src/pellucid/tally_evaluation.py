"""The part of an evaluation that is for tasks with a tally: spans, tagged words, answers, texts, language models.

Takes a task, its predictions and the targets, and the training rows. Gives baselines, the worst rows, confused tags and notes.
Knows nothing of classes, probabilities or how the predictions came about.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.answer_spans import answers_of
from pellucid.baselines import Answers
from pellucid.comparison import Compared
from pellucid.errors import CheckpointError, DataError, LabelError, PellucidError
from pellucid.evaluation_rows import Progress, beginning, targets_of, texts_of
from pellucid.language_metrics import perplexity_tally
from pellucid.metrics import LOWER_IS_BETTER
from pellucid.reports import Confusion, WorstRow
from pellucid.span_baselines import dictionary_entities, no_entities, one_tag, usual_tags
from pellucid.span_metrics import checked_spans, placed
from pellucid.tallies import Tally, row_scores
from pellucid.text_baselines import from_source, nearest_sentences, no_answer
from pellucid.types import Answer, Columns, IntArray, Note, Prediction, Target

if TYPE_CHECKING:
    from pellucid.data import Split
    from pellucid.pipelines import Pipeline
    from pellucid.task import Task

LANGUAGE = "language"  # the kind of task whose rows are scored by how well they are foreseen
LABELLED = ("spans", "words")  # the kinds whose targets are spans with one of the task's labels
LEARNED = ("spans", "words")  # the kinds with a baseline that learns from the training rows
NO_TAG = "(no answer)"
FEW_ROWS = 30


def check_targets(task: "Task", rows: "Split", targets: Sequence[Target]) -> None:
    """Raises LabelError or DataError for a target that cannot be scored, naming the row: before the work starts."""
    numbers = {label: number for number, label in enumerate(getattr(task, "labels", ()))}
    for position, target in enumerate(targets):
        try:
            if task.kind in LABELLED:
                placed(target, numbers, position, "target", exact=True)
            elif task.kind == "answers":
                answers_of(target, position)
            elif task.kind == "text" and not (isinstance(target, str) and target.strip()):
                came = "an empty text" if isinstance(target, str) else type(target).__name__
                cure = "Write one, or leave the row out with split.select(...)."
                raise LabelError(f"expected a text to be written, came {came}", row=position, cure=cure)
        except PellucidError as error:
            raise error.at(rows.place(position)) from None


def tallied(task: "Task", predictions: Sequence[Prediction], targets: Sequence[Target]) -> Tally | None:
    """The tally of a task that has one."""
    tally = getattr(task, "tally", None)
    found: Tally | None = None if tally is None else tally(predictions, targets)
    return found


def foreseen(pipe: "Pipeline", rows: "Split", progress: Progress | None) -> tuple[Tally, IntArray]:
    """How well a language model foresees the rows, and the position of each row that has something to foresee.

    Where short rows are read together, what is read at once counts for the row that it begins in.
    Raises CheckpointError for a loss that is not finite, naming the row, DataError where there is nothing to foresee.
    """
    losses, counts, places = pipe.losses(rows, progress=progress)  # (windows,) each
    odd = ~np.isfinite(losses)
    if odd.any():
        cure = 'Look for nan in the weights, and load the model with ModelOptions(dtype="float32").'
        place = rows.place(int(places[np.flatnonzero(odd)[0]]))
        raise CheckpointError(f"expected a finite loss, came {losses[odd][0]}", place=place, cure=cure)
    nats = np.bincount(places, weights=losses.astype(np.float64) * counts, minlength=len(rows))
    tokens = np.bincount(places, weights=counts, minlength=len(rows))
    positions = np.flatnonzero(tokens)
    if not len(positions):
        raise DataError("there is no token to foresee", place=rows.name, cure="Pass longer texts.")
    return perplexity_tally(nats[positions], tokens[positions]), positions


def simple_tallies(
    task: "Task", rows: "Split", targets: Sequence[Target], train: "Split | None"
) -> tuple[tuple[Answers, Tally | None], ...]:
    """What the baselines say for each row, tallied as the task does it; without a tally where one could not be made."""
    known = None
    if train is not None and task.kind in LEARNED:
        known = texts_of(train, task.reads), targets_of(train)
        check_targets(task, train, known[1])
    found = simple_answers(task.kind, texts_of(rows, task.reads), targets, known)
    return tuple((each, tallied(task, said(each), targets) if each.answers else None) for each in found)


def simple_answers(kind: str, texts: Columns, targets: Sequence[Any], train: tuple[Columns, Sequence[Any]] | None) -> tuple[Answers, ...]:
    """The baselines for this kind of target, the simplest first; nothing for a kind that has none.

    `train` is texts and targets of the training rows. Without it, only what needs no training is there, and of words the most frequent tag
    of the evaluated rows themselves, which flatters it.
    """
    rows = len(targets)
    match kind, train:
        case "spans", None:
            return (no_entities(rows),)
        case "spans", (columns, known):
            return no_entities(rows), dictionary_entities(columns["text"], known, texts["text"])
        case "words", None:
            return (one_tag(targets, targets),)
        case "words", (columns, known):
            return one_tag(known, targets), usual_tags(columns["text"], known, texts["text"], targets)
        case "answers", _:
            nothing = () if all(targets) else (no_answer(rows),)  # a fair guess only where some questions have no answer
            return (*nothing, nearest_sentences(texts["text"], texts["text_pair"]))
        case "text", _:
            return from_source(texts["text"])
    return ()


def said(baseline: Answers) -> list[Prediction]:
    """The answers of a baseline as predictions."""
    answers: Sequence[Any] = baseline.answers
    return [Prediction(row, answer) for row, answer in enumerate(answers)]


def worst_rows(
    rows: "Split", tally: Tally, answers: Sequence[Answer], limit: int, positions: IntArray | None = None
) -> tuple[WorstRow, ...]:
    """The rows whose own main score is worst, the worst first; `positions` are those of its rows in the split, where they are not all.

    `answers` are one a row of the split, or nothing where a row has none.
    """
    own = row_scores(tally)
    order = np.argsort(-own if tally.names[0] in LOWER_IS_BETTER else own, kind="stable")
    worst = []
    for place in order[np.isfinite(own[order])][:limit].tolist():
        position = place if positions is None else int(positions[place])
        example = rows[position]
        text, answer = beginning(example.fields.values()), answers[position] if answers else ""
        worst.append(WorstRow(example.row, rows.place(position), text, example.target, answer, None, None, float(own[place])))
    return tuple(worst)


def confused_tags(task: "Task", predictions: Sequence[Prediction], targets: Sequence[Target]) -> Confusion | None:
    """How often words of each tag got each tag, or none; only for tagged words."""
    if task.kind != "words":
        return None
    counts: Counter[tuple[str, str]] = Counter()
    for row, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        given = {(span.start, span.end): span.label for span in reversed(checked_spans(prediction.answer, row, "answer"))}
        wanted = {(span.start, span.end): span.label for span in reversed(checked_spans(target, row, "target"))}
        counts.update((label, given.get(place, NO_TAG)) for place, label in wanted.items())
    labels = tuple(getattr(task, "labels", ()))
    labels += (NO_TAG,) if any(answer == NO_TAG for _, answer in counts) and NO_TAG not in labels else ()
    numbers = {label: number for number, label in enumerate(labels)}
    cells = sorted((numbers[target], numbers[answer], count) for (target, answer), count in counts.items())
    return Confusion(labels, tuple(cells))


def notes_of(task: "Task", rows: int, compared: Compared, *, low_bar: bool) -> tuple[Note, ...]:
    """What a careful reader should know about these numbers."""
    notes = []
    if rows < FEW_ROWS:
        notes.append(Note(f"{rows} rows", "intervals from so few rows are too narrow", "Evaluate on a hundred rows or more."))
    main = compared.scores[0]
    if main.low is not None and main.low == main.high:
        why = f"every resample of the rows has the {main.name} {main.value:.3f}; new rows need not"
        notes.append(Note("an interval without width", why))
    if low_bar and task.kind in LEARNED:
        why = "no training rows were given, so the only baseline is one that knows nothing of them"
        notes.append(Note("a low bar", why, "Pass train=rows.train for one that learned from the same rows."))
    return tuple(notes)
