"""What an evaluation found, as one value that reads like a page.

Takes scores, baselines, confused classes, the worst rows, calibration and truncation. Gives views, plain JSON values and a figure.
Knows nothing of models, pipelines or how the numbers were computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from json import dumps
from math import isfinite
from typing import TYPE_CHECKING, Any

from pellucid.calibration import Bin
from pellucid.comparison import Baseline, strongest
from pellucid.metrics import LOWER_IS_BETTER, LabelScore, Score
from pellucid.render import to_html, to_text
from pellucid.types import Answer, Note, Span, Target
from pellucid.view import Bars, Cell, Grid, Lines, Stack, Table, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS_IN_A_GRID = 20  # more labels than this are no longer read as a matrix or as bars
PAIRS_SHOWN = 10
WITHOUT_INTERVAL = "–"
SPANS_SHOWN = 8  # of a row with more, only those are shown that target and answer do not share
TEXT_SHOWN = 300  # characters of a target or an answer in a cell


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many rows of a class got which answer, by class number; pairs that do not occur are left out."""

    labels: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]  # target, answer, rows

    def grid(self) -> Grid:
        """The whole matrix: a row for each target, a column for each answer."""
        values = [[0.0] * len(self.labels) for _ in self.labels]
        for target, answer, count in self.cells:
            values[target][answer] = float(count)
        return Grid("confusion: rows are targets, columns answers", self.labels, self.labels, tuple(tuple(row) for row in values))

    def pairs(self, limit: int = PAIRS_SHOWN) -> tuple[tuple[str, str, int], ...]:
        """The most frequent mistakes: target, answer, rows."""
        wrong = sorted((cell for cell in self.cells if cell[0] != cell[1]), key=lambda cell: -cell[2])
        return tuple((self.labels[target], self.labels[answer], count) for target, answer, count in wrong[:limit])


@dataclass(frozen=True, slots=True)
class WorstRow:
    """A row that the model got most wrong, by its `loss` or by its own main `score`.

    `loss` is the cross-entropy or the absolute error, `confidence` that of the answer given. None for what a task does not have.
    """

    row: int
    place: str
    text: str
    target: Target
    answer: Answer
    loss: float | None
    confidence: float | None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether confidence means what it says: the expected calibration error and the bins that it comes from."""

    error: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Truncation:
    """What the model did not see, because texts were longer than its limit."""

    rows: int
    rows_cut: int
    tokens: int  # before the cut
    tokens_lost: int
    words_lost: int

    def __str__(self) -> str:
        if not self.rows_cut:
            return "No text was cut."
        share, tokens = self.rows_cut / self.rows, self.tokens_lost / max(1, self.tokens)
        words = f" and {self.words_lost:,} words" if self.words_lost else ""  # of a prompt or a conversation only tokens are counted
        return (
            f"{self.rows_cut:,} of {self.rows:,} texts ({share:.1%}) were longer than the model reads: "
            f"{tokens:.1%} of all tokens{words} were cut."
        )


@dataclass(frozen=True)
class Report:
    """What an evaluation found. Print it, `view()` it, `plot()` it or keep `to_dict()`."""

    task: str
    checkpoint: str
    split: str
    rows: int
    level: float  # of the intervals
    verdict: str = ""  # is the transformer worth it?
    scores: tuple[Score, ...] = ()  # the main one first
    baselines: tuple[Baseline, ...] = ()
    labels: tuple[LabelScore, ...] = ()
    confusion: Confusion | None = None
    worst: tuple[WorstRow, ...] = ()
    calibration: Calibration | None = None
    truncation: Truncation | None = None
    notes: tuple[Note, ...] = ()

    def __str__(self) -> str:
        return to_text(self.view())

    def _repr_html_(self) -> str:
        return to_html(self.view())

    def view(self) -> Stack:
        """The report as views, from what matters most to the details."""
        parts: list[View] = [Lines("is the transformer worth it?", (self.verdict,)), score_table(self)]
        parts += [label_table(self.labels)] if self.labels else []
        parts += confusion_views(self.confusion) if self.confusion is not None else []
        parts += [calibration_table(self.calibration)] if self.calibration is not None else []
        parts += [Lines("truncation", (str(self.truncation),))] if self.truncation is not None else []
        parts += [worst_table(self.worst, self.scores[0].name)] if self.worst else []
        parts += [Lines("notes", tuple(str(note) for note in self.notes))] if self.notes else []
        return Stack(f"{self.task} with {self.checkpoint}: {self.rows:,} rows of {self.split}", tuple(parts))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values; what is not defined is None."""
        return plain(self)

    def to_json(self) -> str:
        """The report as strict JSON text."""
        return dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1)

    def plot(self) -> "Figure":
        """Scores beside the baselines, the confusion matrix and the reliability of the confidences, as a figure of its own.

        Nothing is shown and no global state of matplotlib is touched: save it with `figure.savefig`, or make it the last line of a cell.
        """
        from pellucid.figures import figure_of

        small = self.confusion is not None and len(self.confusion.labels) <= LABELS_IN_A_GRID
        grid = self.confusion.grid() if self.confusion is not None and small else None
        return figure_of(score_bars(self), grid, self.calibration.bins if self.calibration is not None else ())


def score_table(report: Report) -> Table:
    """A line for each score: the transformer with its interval, the baselines, and the difference to the one that is hardest to beat."""
    made = [baseline for baseline in report.baselines if baseline.scores]
    hardest = strongest(report.scores, report.baselines)
    columns = ("score", "transformer", "interval", *(baseline.name for baseline in made))
    apart = {difference.score: difference for difference in hardest[1].differences} if hardest is not None else {}
    columns += ("difference", "its interval") if hardest is not None else ()
    rows: list[tuple[Cell, ...]] = []
    for score in report.scores:
        values = [{other.name: other.value for other in baseline.scores}.get(score.name) for baseline in made]
        cells: tuple[Cell, ...] = (score.name, defined(score.value), interval(score.low, score.high), *map(defined, values))
        if hardest is not None:
            difference = apart.get(score.name)
            cells += (
                (None, WITHOUT_INTERVAL) if difference is None else (defined(difference.value), interval(difference.low, difference.high))
            )
        rows.append(cells)
    details = [f"{score.name}: {score.detail}." for score in report.scores if score.detail]
    how = [f"{baseline.name}: {baseline.how}." for baseline in report.baselines]
    lower = [score.name for score in report.scores if score.name in LOWER_IS_BETTER]
    details += [f"Lower is better for {', '.join(lower)}."] if lower else []
    details += [f"Differences are to {hardest[1].name}, the strongest baseline, on the same resamples."] if hardest is not None else []
    note = " ".join([f"Intervals hold {100 * report.level:g} % of the scores of resampled rows.", *details, *how])
    return Table("scores", columns, tuple(rows), note)


def label_table(labels: Sequence[LabelScore]) -> Table:
    """A line for each label; of many labels those with the lowest F1."""
    few = len(labels) <= 2 * LABELS_IN_A_GRID
    shown = labels if few else sorted(labels, key=lambda score: score.f1)[: 2 * LABELS_IN_A_GRID]
    rows = tuple(
        (
            each.label,
            *(defined(value) for value in (each.precision, each.recall, each.f1)),
            interval(each.low, each.high),
            each.rows,
            each.answers,
        )
        for each in shown
    )
    note = "" if few else f"The {len(shown)} labels with the lowest F1, of {len(labels):,}."
    return Table("labels", ("label", "precision", "recall", "F1", "interval of F1", "targets", "answers"), rows, note)


def confusion_views(confusion: Confusion) -> list[View]:
    """The matrix where it is small enough to read, and the most frequent mistakes."""
    views: list[View] = [confusion.grid()] if len(confusion.labels) <= LABELS_IN_A_GRID else []
    pairs = confusion.pairs()
    if pairs and len(confusion.labels) > 2:
        views.append(Table("most frequent mistakes", ("target", "answer", "rows"), pairs))
    return views


def calibration_table(calibration: Calibration) -> Table:
    """A line for each bin of confidence."""
    rows = tuple(
        (f"{each.low:.2f} to {each.high:.2f}", each.count, defined(each.confidence), defined(each.right)) for each in calibration.bins
    )
    note = f"Expected calibration error {calibration.error:.3f}: how far confidence and share of right answers lie apart on average."
    return Table("calibration", ("confidence", "answers", "mean confidence", "share right"), rows, note)


def worst_table(worst: Sequence[WorstRow], measure: str) -> Table:
    """The rows with the highest loss, or where they were judged by it, those with the worst `measure` (the main score); the worst first."""
    lines: tuple[tuple[Cell, ...], ...]
    if worst[0].score is None:
        columns: tuple[str, ...]
        title, columns = "rows with the highest loss", ("target", "answer", "confidence", "loss")
        lines = tuple((answer_text(row.target), answer_text(row.answer), defined(row.confidence), defined(row.loss)) for row in worst)
    elif all(row.target is None for row in worst):
        title, columns = worst_title(measure), (measure,)
        lines = tuple((defined(row.score),) for row in worst)
    else:
        title, columns = worst_title(measure), ("target", "answer", measure)
        lines = tuple((*both_texts(row.target, row.answer), defined(row.score)) for row in worst)
    rows = tuple((row.place, row.text, *cells) for row, cells in zip(worst, lines, strict=True))
    return Table(title, ("place", "text", *columns), rows)


def worst_title(measure: str) -> str:
    """What the rows with the worst score have."""
    return f"rows with the {'highest' if measure in LOWER_IS_BETTER else 'lowest'} {measure}"


def score_bars(report: Report) -> Bars:
    """The main score of the transformer and of the baselines, with intervals."""
    main = report.scores[0].name
    systems = [("transformer", report.scores), *((baseline.name, baseline.scores) for baseline in report.baselines)]
    found = [(name, score) for name, scores in systems for score in scores if score.name == main and isfinite(score.value)]
    values = tuple(score.value for _, score in found)
    lows = tuple(score.value if score.low is None else score.low for _, score in found)
    highs = tuple(score.value if score.high is None else score.high for _, score in found)
    return Bars(main, tuple(name for name, _ in found), values, lows, highs)


def both_texts(target: Target, answer: Answer) -> tuple[Cell, Cell]:
    """A target and its answer in two cells; of many spans only those that differ."""
    spans, others = (tuple(each) if isinstance(each, tuple) else () for each in (target, answer))
    said = [
        spans_text(value, beside) if isinstance(value, tuple) else answer_text(value) or "(none)"
        for value, beside in ((target, others), (answer, spans))
    ]
    return said[0], said[1]


def spans_text(spans: Sequence[Any], beside: Sequence[Any] = ()) -> str:
    """Spans as one line: `Empire State Building=location, …`, or the texts alone where they have no label; "(none)" for none.

    Of many spans those are left out that stand `beside` as well, and how many is said.
    """
    same = {span.place for span in beside if isinstance(span, Span)}
    shown = [span for span in spans if len(spans) <= SPANS_SHOWN or not isinstance(span, Span) or span.place not in same]
    texts = [span_text(span) if isinstance(span, Span) else str(span) for span in shown]
    if not any(isinstance(span, Span) and span.label for span in shown):
        texts = list(dict.fromkeys(texts))  # several people gave the same answer to a question
    more = len(texts) - 2 * SPANS_SHOWN
    parts = texts[: 2 * SPANS_SHOWN] + ([f"{more} more"] if more > 0 else [])
    parts += [f"{len(spans) - len(shown)} that agree"] if len(shown) < len(spans) else []
    return shortened(", ".join(parts)) or "(none)"


def span_text(span: Span) -> str:
    """A span as a person reads it: its characters, or where they stand, and its label."""
    said = span.text or f"{span.start}:{span.end}"
    return f"{said}={span.label}" if span.label else said


def answer_text(value: Target | Answer) -> Cell:
    """A target or an answer in a cell; a set of labels is joined."""
    if isinstance(value, tuple):
        return ", ".join(str(member) for member in value) or "(no label)"
    if isinstance(value, float):
        return defined(value)
    return shortened(value) if isinstance(value, str) else value


def shortened(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "…"


def defined(value: float | None) -> float | None:
    """The number to four places, None where it is not defined."""
    return round(float(value), 4) if value is not None and isfinite(value) else None


def interval(low: float | None, high: float | None) -> str:
    """An interval in a cell."""
    return WITHOUT_INTERVAL if low is None or high is None else f"{low:.3f} to {high:.3f}"


def plain(value: Any) -> Any:
    """A value made of dataclasses, tuples and numbers as JSON values: lists, dicts, and None for what is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value
