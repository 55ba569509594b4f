"""Which tokens cost the most: the losses of single tokens, shown in their text.

Takes a learner of a task with a label a token. Gives the tokens that the model was most wrong about, as values and as a table.
Knows nothing of how a token got its label, and changes nothing.
"""

from dataclasses import dataclass
from heapq import nlargest
from typing import Any

import numpy as np
from fastai.callback.core import Callback
from fastai.learner import Recorder
from torch.nn import functional

from pellucid.batch import IGNORED
from pellucid.errors import SettingError
from pellucid.task import LABELLED_TOKENS
from pellucid.types import IntArray
from pellucid.view import Table

LABELLED = ("spans", "words", "text", "language")  # kinds with a label a token
AROUND = 6  # tokens shown on either side


@dataclass(frozen=True, slots=True, order=True)
class TokenCost:
    """A token and its loss: `row` is its row in the split, `before`, `text` and `after` how it stands there, `label` what was right."""

    loss: float
    row: int
    before: str
    text: str
    after: str
    label: str
    predicted: str


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """The tokens that cost the most, the most expensive first, and how many were scored in all."""

    costs: tuple[TokenCost, ...]
    scored: int

    def view(self) -> Table:
        """A line for each token, the token between ▸ and ◂."""
        lines = tuple((f"{one.before}▸{one.text}◂{one.after}", one.label, one.predicted, round(one.loss, 4), one.row) for one in self.costs)
        note = f"{len(self.costs):,} of {self.scored:,} scored tokens"
        return Table("tokens that cost the most", ("token in its text", "label", "predicted", "loss", "row"), lines, note)


def top_tokens(learn: Any, k: int = 20, ds_idx: int = 1) -> TokenCosts:
    """The `k` tokens of a loader (1: validation) with the highest cross-entropy; of written texts and language models what had to follow.

    The whole text of the row is read, of a language model what its window holds. Raises SettingError for tasks without a label a token.
    """
    kind = learn.pipe.task.kind
    if kind not in LABELLED:
        cure = "Use Interpretation.from_learner(learn).plot_top_losses(9): it shows rows."
        raise SettingError(f"{learn.pipe.task.tag} has no label a token", place="top_tokens", cure=cure)
    collected = Collecting(k)
    loader = learn.dls[ds_idx].new(shuffle=False, drop_last=False)
    with learn.removed_cbs([callback for callback in learn.cbs if isinstance(callback, Recorder)]):  # no scores are wanted
        learn.get_preds(dl=loader, inner=True, reorder=False, with_preds=False, with_targs=False, cbs=collected)
    return TokenCosts(tuple(cost for _, cost in collected.best), collected.scored)


class Collecting(Callback):
    """Keeps the most expensive tokens while the learner goes through a loader."""

    stateless = True

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k, self.scored = k, 0
        self.best: list[tuple[float, TokenCost]] = []

    def after_pred(self) -> None:
        """Look at the tokens of this batch."""
        pipe, logits, labels = self.learn.pipe, self.learn.pred.detach().float(), self.learn.yb[0]
        follows = is_next(pipe.task)
        logits, labels = (logits[:, :-1], labels[:, 1:]) if follows else (logits, labels)
        each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        each = each.view(labels.shape).masked_fill(labels == IGNORED, -1.0).cpu().numpy()  # (batch, tokens)
        self.scored += int((labels != IGNORED).sum())
        order = np.argsort(-each, axis=None)[: self.k]
        places = [
            (int(entry), int(place)) for entry, place in zip(*np.unravel_index(order, each.shape), strict=True) if each[entry, place] >= 0
        ]
        windows, table = self.learn.dl.sent[self.learn.iter], self.learn.dl.table
        shown = labels if pipe.task.kind == "text" else self.learn.xb[0]["input_ids"]
        found = []
        for entry, place in places:
            at = place + follows if pipe.task.kind != "text" else place
            label, guess = int(labels[entry, place]), int(logits[entry, place].argmax())
            before, text, after = stretch(pipe.tokenizer, shown[entry].cpu().numpy(), at, label if pipe.task.kind == "language" else None)
            names = pipe.task.outputs if pipe.task.kind in LABELLED_TOKENS else ()
            label_text, guess_text = ((names[one] if names else spelling(pipe.tokenizer, one)) for one in (label, guess))
            row = int(table.rows[windows[entry]])
            found.append(
                (float(each[entry, place]), TokenCost(float(each[entry, place]), row, before, text, after, label_text, guess_text))
            )
        self.best = nlargest(self.k, [*self.best, *found], key=lambda pair: pair[0])


def is_next(task: Any) -> bool:
    """Whether the label of a token is foreseen by the token before it: then nothing foresees the first."""
    return task.kind == "language" and int(np.asarray(task.best_labels(np.zeros((1, 2, 3), dtype=np.float32)))[0, 0]) == IGNORED


def spelling(tokenizer: Any, token: int) -> str:
    """How a token reads; one that alone spells nothing, by its name in the vocabulary."""
    return str(tokenizer.decode([token]) or tokenizer.convert_ids_to_tokens(token))


def stretch(tokenizer: Any, ids: IntArray, place: int, token: int | None) -> tuple[str, str, str]:
    """The text before a token, its own and that after it; `token` is what really stands there, where the ids hide it."""
    kept = np.where((ids == IGNORED) | (ids == tokenizer.pad_token_id), -1, ids)

    def spelled(some: IntArray) -> str:
        text: str = tokenizer.decode([int(one) for one in some if one >= 0])
        return text

    own = np.array([ids[place] if token is None else token])
    return spelled(kept[max(0, place - AROUND) : place]), spelled(own), spelled(kept[place + 1 : place + 1 + AROUND])
