"""What an epoch looks like to somebody who follows a training: tables of answers, the tokens of a text, the curve of the loss.

Takes a learner in the middle of its validation, or after it. Gives tables, HTML, pixels, and the settings of the run as plain values.
Knows nothing of trackers, and changes nothing: what it shows is computed from what the validation computed.
"""

import json
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Any

import numpy as np
import numpy.typing as npt

from pellucid.data import Split
from pellucid.errors import PellucidError
from pellucid.render import to_html
from pellucid.task import settings_of
from pellucid.training.fastai_fingerprint import start_of
from pellucid.training.resume_state import surroundings
from pellucid.view import Cell, Stack, Table

COLUMNS = ("row", "text", "label", "predicted", "score", "loss")
WORST = 5
TEXT_SHOWN = 300  # characters of a cell
POINTS = 2000  # of a curve


class EpochRows:
    """Some rows of a validation with what the model says of them, and those that cost the most; no row runs twice for it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.clear()

    def clear(self) -> None:
        """Forget the epoch."""
        self.shown: dict[int, tuple[Cell, ...]] = {}
        self.worst: list[tuple[float, tuple[Cell, ...]]] = []

    def add(self, learn: Any) -> None:
        """Look at the batch that the learner has just validated."""
        loader = learn.dl
        sent, table = getattr(loader, "sent", ()), getattr(loader, "table", None)
        if table is None or learn.iter >= len(sent) or not learn.yb:
            return
        windows = np.asarray(sent[learn.iter])
        rows, firsts = np.asarray(table.rows)[windows], np.asarray(table.windows)[windows] == 0
        losses = learn.loss_func.each(learn.pred, learn.yb[0]).detach().float().reshape(len(windows), -1).mean(-1).cpu().numpy()
        wanted = np.unique(np.linspace(0, len(table) - 1, self.count).astype(int))  # spread over the windows: the same in each epoch
        chosen = np.flatnonzero(np.isin(windows, wanted) & firsts)
        least = self.worst[-1][0] if len(self.worst) >= WORST else -np.inf
        costly = np.array([place for place in np.argsort(-losses)[:WORST] if losses[place] > least], dtype=int)
        places = np.unique(np.concatenate([chosen, costly]))
        if not len(places):
            return
        lines = dict(zip(places.tolist(), answered(learn, places, rows[places], losses[places]), strict=True))
        self.shown |= {int(windows[place]): lines[place] for place in chosen.tolist()}
        found = [(float(losses[place]), lines[place]) for place in costly.tolist()]
        self.worst = nlargest(WORST, [*self.worst, *found], key=lambda pair: pair[0])

    def tables(self) -> dict[str, Table]:
        """Name → table: the rows that are shown in each epoch, and the worst ones."""
        found = {"predictions": [line for _, line in sorted(self.shown.items())], "worst": [line for _, line in self.worst]}
        return {name: Table(name, COLUMNS, tuple(lines)) for name, lines in found.items() if lines}


def answered(learn: Any, places: npt.NDArray[Any], rows: Sequence[int], losses: Sequence[float]) -> list[tuple[Cell, ...]]:
    """Row, text, label, answer, its probability (where the answer is one class) and the loss of some entries of a batch."""
    inputs = {name: tensor[places] for name, tensor in learn.xb[0].items()}
    chances = learn.loss_func.activation(learn.pred.detach()[places])
    answers = learn.loss_func.decodes(chances)
    _, _, samples, outs = learn.dl.show_results((inputs, learn.yb[0][places]), answers, max_n=len(places), show=False)
    scores: list[Any] = [None] * len(places)
    if learn.pipe.task.kind == "single_label":
        scores = [round(chance, 4) for chance in chances.max(-1).values.tolist()]
    texts = [tuple(shortened(cell) for cell in (*sample, *out)) for sample, out in zip(samples, outs, strict=True)]
    return [(int(row), *text, score, round(float(loss), 4)) for row, text, score, loss in zip(rows, texts, scores, losses, strict=True)]


def shortened(cell: Any) -> Cell:
    """A cell that is not too long."""
    return cell if not isinstance(cell, str) or len(cell) <= TEXT_SHOWN else cell[:TEXT_SHOWN] + "…"


def token_page(learn: Any) -> str:
    """The first row of the validation through every step of the pipeline, as HTML; its tokens alone where it cannot be answered so."""
    split = getattr(learn.dls.valid.dataset, "split", None)
    if not isinstance(split, Split) or not len(split):
        return ""
    try:
        return to_html(learn.pipe.trace(split[0]).view())
    except PellucidError:  # a text without a mask
        return to_html(Stack("tokens", tuple(tokens.view() for tokens in learn.pipe.source(split).windows(0))))


def learning_curve(losses: Sequence[Any], valid: Sequence[tuple[int, float]]) -> npt.NDArray[np.uint8]:
    """The smoothed loss of each step, and that of the validation at its steps, as a picture (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    steps = np.unique(np.linspace(0, max(len(losses) - 1, 0), POINTS).astype(int)) if len(losses) else np.zeros(0, dtype=int)
    axes.plot(steps + 1, [float(losses[step]) for step in steps], color="#b0b7bf", label="train_loss")
    if valid:
        axes.plot(*zip(*valid, strict=True), color="#3b6ea5", marker="o", label="valid_loss")
    axes.set_title("learning curve")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    canvas.draw()
    pixels: npt.NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    return pixels


def run_settings(learn: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was told, as plain JSON values: `asked`, task, checkpoint with the digest of its weights, rows, loss, versions."""
    learn.weights_at_start = learn.weights_at_start or start_of(learn)
    loaders = dict(zip(("train", "valid"), learn.dls.loaders, strict=False))
    train, pipe = learn.dls.train, learn.pipe
    options = train.options
    found = {
        "task": {"tag": pipe.task.tag, "kind": pipe.task.kind, **settings_of(pipe.task)},
        "checkpoint": {"name": pipe.checkpoint, "sha256": learn.weights_at_start, "parameters": pipe.provenance.total},
        "rows": {name: len(np.unique(np.asarray(loader.table.rows))) for name, loader in loaders.items()},
        "tokens": {name: int(np.sum(loader.table.lengths)) for name, loader in loaders.items()},
        "batches": {"bs": train.bs, "max_tokens": options.max_tokens, "bucket": options.bucket, "balanced": options.balanced},
        "seed": options.seed,
        "max_length": pipe.options.max_length,
        "learning_rate": learn.lr,
        "weight_decay": learn.wd,
        "loss": repr(learn.loss_func),
        "surroundings": surroundings(learn.model.device.type),
        "asked": dict(asked),
    }
    return dict(json.loads(json.dumps(found, default=str)))
