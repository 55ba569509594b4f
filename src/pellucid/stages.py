"""Transfer in stages: pretrain, adapt to the domain, fine-tune; each one a saved pipeline, and what each one bought.

Takes a pipeline and rows. Gives a folder that the next stage begins with, and the score on rows kept aside before and after.
Knows nothing of how a model is trained or scored: the learner and the evaluation do.
"""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.adapter_layers import has_adapters
from pellucid.adapters import merged
from pellucid.energy_report import Energy
from pellucid.errors import DataError
from pellucid.evaluation import EvaluateOptions, evaluate
from pellucid.metrics import LOWER_IS_BETTER, Score
from pellucid.pipelines import Pipeline
from pellucid.provenance import Origin
from pellucid.render import to_html
from pellucid.store import save
from pellucid.training.one_call import Beside, TrainOptions, train_pipeline
from pellucid.training.processes import first_process, speaking_once, take_part_of_machine
from pellucid.view import Bars, Cell, Lines, Stack, Table, View

if TYPE_CHECKING:
    from pellucid.data import Rows


@dataclass(frozen=True)
class Stage:
    """One stage: what began it, what was trained on what, and its main score on rows kept aside, before and after."""

    name: str
    task: str
    start: str  # the checkpoint that it began with
    folder: Path  # the saved pipeline: the next stage's checkpoint
    parameters: int
    new: int  # of those, random when the stage began
    rows: int
    tokens: int  # read in training, all epochs
    epochs: int
    seconds: float  # of training, with the tokenizing of its rows
    before: Score
    after: Score
    energy: Energy | None = None  # of the training, as `seconds`

    @property
    def gain(self) -> float:
        """How much better the score became, in the direction that is better for it."""
        change = self.after.value - self.before.value
        return -change if self.after.name in LOWER_IS_BETTER else change

    def view(self) -> View:
        """The stage as a page of its own, with how its energy is known."""
        page = StagesReport((self,)).view()
        return page if self.energy is None else replace(page, parts=(*page.parts, self.energy.view()))

    def _repr_html_(self) -> str:
        return to_html(self.view())


@dataclass(frozen=True)
class StagesReport:
    """Several stages, in the order in which they were run."""

    stages: tuple[Stage, ...]

    def view(self) -> Stack:
        """What was trained, what it cost and what it bought; stages with the same task and rows aside as bars."""
        learned = tuple(
            (stage.name, stage.task, stage.start, stage.parameters, stage.new, stage.rows, stage.tokens, round(stage.seconds, 1))
            for stage in self.stages
        )
        columns = ("stage", "task", "began with", "weights", "of them new", "rows", "tokens read", "seconds")
        bought: tuple[tuple[Cell, ...], ...] = tuple(
            (stage.name, stage.after.name, _said(stage.before), _said(stage.after), f"{stage.gain:+.4g}") for stage in self.stages
        )
        parts: list[View] = [
            Table("what was trained", columns, learned),
            *self._took(),
            Table("what each stage bought, on rows kept aside", ("stage", "score", "before", "after", "better by"), bought),
        ]
        return Stack("stages", (*parts, *self._bars(), Lines("folders", tuple(f"{s.name}: {s.folder.name}" for s in self.stages))))

    def _repr_html_(self) -> str:
        return to_html(self.view())

    def _took(self) -> tuple[Table, ...]:
        """The energy of each training, with grams where somebody said how clean the electricity is; nothing where none was measured."""
        said = [(stage.name, *((None, None) if stage.energy is None else stage.energy.said())) for stage in self.stages]
        if not any(watt_hours for _, watt_hours, _ in said):
            return ()
        known = 3 if any(grams for *_, grams in said) else 2
        note = "energy of each training, without its scoring; pl.show(stage.energy) says how it is known"
        return (Table("what each stage took", ("stage", "Wh", "g CO2e")[:known], tuple(line[:known] for line in said), note),)

    def _bars(self) -> tuple[Bars, ...]:
        """Several ways to the same task beside each other; perplexities of different vocabularies are not comparable and get no bars."""
        found = []
        for key in dict.fromkeys((stage.task, stage.after.name) for stage in self.stages):
            same = [stage for stage in self.stages if (stage.task, stage.after.name) == key]
            if len(same) < 2 or key[1] in LOWER_IS_BETTER:
                continue
            scores = [stage.after for stage in same]
            lows = tuple(score.value if score.low is None else score.low for score in scores)
            highs = tuple(score.value if score.high is None else score.high for score in scores)
            values = tuple(score.value for score in scores)
            found.append(Bars(f"{key[1]} of {key[0]}", tuple(stage.name for stage in same), values, lows, highs))
        return tuple(found)


def run_stage(name: str, pipe: Pipeline, rows: "Rows", folder: str | os.PathLike[str], *, options: TrainOptions = TrainOptions()) -> Stage:
    """Train a pipeline on the training rows, score it on `rows.valid` before and after, and save it in `folder`.

    The next stage is `Pipeline.new(task, stage.folder, …)`. The model of `pipe` is trained in place, with all that `options` say; adapters
    are merged into what is saved. The same seed, rows and machine give the same weights. Of several processes, the first one saves.
    Raises DataError where no rows are kept aside, and what training and saving raise.
    """
    import torch

    if "valid" not in rows.splits:
        cure = "Read the rows with ReadOptions(valid_fraction=0.1)."
        raise DataError("no rows are kept aside, so nothing could be said of the stage", place=rows.source, cure=cure)
    new = pipe.provenance.counts().get(Origin.NEW, 0)
    with closing(Beside.of(options)) as beside:
        take_part_of_machine()
        before = main_score(pipe, rows)
        with torch.random.fork_rng(), speaking_once():
            torch.manual_seed(options.seed)
            trained = train_pipeline(pipe, rows, options, beside.begun_now())
    pipe, learn, epochs = trained.pipeline, trained.learner, len(trained.history)
    pipe = merged(pipe) if has_adapters(pipe.model) else pipe
    if first_process():
        save(pipe, folder)
    saved = Path(learn.sharing.first_says(os.path.abspath(folder)))  # the others wait until it is there
    return Stage(
        name=name,
        task=pipe.task.tag,
        start=Path(pipe.checkpoint).name or pipe.checkpoint,
        folder=saved,
        parameters=pipe.provenance.total,
        new=new,
        rows=len(rows.train),
        tokens=int(learn.dls.train.table.lengths.sum()) * epochs,
        epochs=epochs,
        seconds=trained.seconds,
        before=before,
        after=main_score(pipe, rows),
        energy=trained.energy,
    )


def main_score(pipe: Pipeline, rows: "Rows") -> Score:
    """The main score on the rows kept aside, with its interval: perplexity of a language model, accuracy of a classifier.

    Raises DataError where the task has no score for these rows.
    """
    report = evaluate(pipe, rows.valid, baselines=False, options=EvaluateOptions(worst=0))
    if not report.scores:
        cure = "Give the rows kept aside targets, or take a task that is scored."
        raise DataError(f"the task {pipe.task.tag} has no score on these rows", place=rows.source, cure=cure)
    return replace(report.scores[0], detail="")


def stages_report(stages: Sequence[Stage]) -> StagesReport:
    """What each stage bought, in order. Raises DataError for no stage."""
    if not stages:
        raise DataError("there is no stage to report", place="stages", cure="Pass what run_stage gave.")
    return StagesReport(tuple(stages))


def _said(score: Score) -> str:
    interval = "" if score.low is None or score.high is None else f" ({score.low:.4g} to {score.high:.4g})"
    return f"{score.value:.4g}{interval}"
