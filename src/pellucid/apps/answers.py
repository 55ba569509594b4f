"""Answers on a terminal and in a file: a line or a row of a table for each.

Takes examples with their predictions. Gives lines with TABs between, and a Table for a CSV.
Knows nothing of models, flags or where the texts came from.
"""

from collections.abc import Iterable

from pellucid.portraits import NOTHING, answer_text
from pellucid.render import plain
from pellucid.types import Example, Prediction, Span
from pellucid.view import Cell, Table


def answer_line(example: Example, prediction: Prediction, shown: int | None = None) -> str:
    """Row, answer, score and text (its first `shown` characters), with TABs between; several labels have commas between."""
    answer, scores = prediction.answer, prediction.scores
    if isinstance(answer, float):
        cells = [f"{answer:.4f}", ""]
    elif answer == ():
        cells = ["none", ""]
    elif isinstance(answer, tuple) and all(isinstance(one, str) for one in answer):
        cells = [", ".join(plain(str(one)) for one in answer), ", ".join(f"{scores[str(one)]:.4f}" for one in answer if one in scores)]
    elif isinstance(answer, tuple):
        spans = [one for one in answer if isinstance(one, Span)]
        cells = [
            plain(answer_text(answer, {})),
            ", ".join(f"{span.score:.4f}" for span in spans if span.score is not None),
        ]
    else:
        best = [scores[answer]] if answer in scores else [span.score for span in prediction.spans[:1]]
        best = best or [score for _, score in prediction.alternatives[:1]]
        cells = [plain(answer or NOTHING), ", ".join(f"{score:.4f}" for score in best if score is not None)]
    return "\t".join([str(example.row), *cells, *(plain(text, shown) for text in example.fields.values())])


def answer_cell(prediction: Prediction) -> Cell:
    """An answer as a cell: names with semicolons between, spans as start:end:label, a vector as its numbers."""
    answer = prediction.answer
    if not isinstance(answer, tuple):
        return answer
    parts = [f"{one.start}:{one.end}:{one.label}" if isinstance(one, Span) else str(one) for one in answer]
    return ";".join(parts)


def answer_table(answers: Iterable[tuple[Example, Prediction]]) -> Table:
    """A line for each row: its number, its texts, the answer and a score for each label."""
    columns: tuple[str, ...] = ("row", "answer")
    lines: list[tuple[Cell, ...]] = []
    for example, prediction in answers:
        one_set = not prediction.alternatives  # the candidates of a text are other words in every row
        scores = prediction.scores if one_set and not prediction.spans else {}
        columns = ("row", *example.fields, "answer", *(f"score {label}" for label in scores))
        lines.append((example.row, *example.fields.values(), answer_cell(prediction), *scores.values()))
    return Table("answers", columns, tuple(lines))
