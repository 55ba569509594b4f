"""A task's loss in the form that fastai expects, and how wrong answers are weighed in it.

Takes a task, logits and labels as tensors. Gives one number an example, or their mean, and how much a batch counts beside others.
Knows nothing of learners, loaders or optimizers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn import functional

from pellucid.batch import IGNORED
from pellucid.errors import DataError, LabelError, SettingError
from pellucid.task import CLASSES
from pellucid.types import FloatArray, IntArray, Note

if TYPE_CHECKING:
    from pellucid.task import Task

WEIGHED = ("single_label", "multi_label", "spans", "words")  # kinds with few labels, each of which has a weight
SMOOTHED = (*WEIGHED, "text")
LOWEST = -1e9  # a logit that no softmax sees
SMALLEST = 1e-12  # 1 - p, for exponents below 1: their slope at 0 is infinite
ClassWeights = Mapping[str, float] | Literal["balanced"] | None


@dataclass(frozen=True, slots=True)
class LossOptions:
    """How wrong answers are weighed in training.

    `label_smoothing`: the share of each target that is spread evenly over all labels (Szegedy et al. 2016, arXiv:1512.00567).
    `focal`: the exponent γ by which answers that are nearly right count less, 0 is none (Lin et al. 2017, arXiv:1708.02002).
    `class_weights`: a weight for each label, 1 where none is given, or "balanced": as much for all rows of a rare label as for all of a
    common one. Of several labels a text it weighs the rows that have the label. Raises SettingError for values outside of these; for a list
    of weights once the labels are known.
    """

    label_smoothing: float = 0.0
    focal: float = 0.0
    class_weights: ClassWeights = None

    def __post_init__(self) -> None:
        for name, value, most in (("label_smoothing", self.label_smoothing, 0.999), ("focal", self.focal, 20.0)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise SettingError(f"{name} is {value!r}, expected 0 to {most}", place=name, cure="Pass 0 to leave it out.")
        if self.label_smoothing and self.focal:
            cure = "Choose one of them: the first makes the model less sure of itself, the second gives hard rows more weight."
            raise SettingError("label_smoothing and focal are not used together", place="focal", cure=cure)
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise SettingError(
                f"class_weights is {self.class_weights!r}", place="class_weights", cure='Pass "balanced" or a weight a label.'
            )
        if isinstance(self.class_weights, Mapping):
            for name, weight in self.class_weights.items():
                if not is_weight(weight):
                    problem = f"the weight of {name!r} is {weight!r}, expected a number from 0 up"
                    raise SettingError(problem, place="class_weights", cure=f"Pass {{{name!r}: 1.0}} or another such number.")


class TaskLoss:
    """The loss of a task, from logits: one number an example, and their mean for training.

    `activation` turns logits into probabilities (regression: leaves them), `decodes` those into class numbers, by the task's own `decode`.
    `weights` (labels,) and the other `options` weigh wrong answers; a mean is then over the weights, as in torch's cross_entropy.
    """

    def __init__(self, task: "Task", options: LossOptions = LossOptions(), weights: Sequence[float] | None = None) -> None:
        self.task: Any = task
        self.options, self.weights = options, None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.reduction = "mean"
        self.kind = getattr(task, "kind", "single_label")

    def __repr__(self) -> str:
        changed = [f"label smoothing {self.options.label_smoothing}"] * bool(self.options.label_smoothing)
        changed += [f"focal {self.options.focal}"] * bool(self.options.focal)
        changed += [] if self.weights is None else ["class weights " + " ".join(f"{weight:.4g}" for weight in self.weights.tolist())]
        return f"loss of {self.task.tag} ({', '.join((self.kind, *changed))})"

    def __call__(self, pred: torch.Tensor, targ: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch; each example's, (batch,), where `reduction` is "none"."""
        each = self.each(pred, targ)  # (batch,)
        if self.reduction == "none":
            return each
        counts = label_counts(targ, self.kind)
        if counts is None and self.weights is None:
            return each.sum() if self.reduction == "sum" else each.mean()
        summed = (each if counts is None else each * counts).sum() / self.mass(targ)
        return summed * len(each) if self.reduction == "sum" else summed

    def of(self, task: "Task") -> "TaskLoss":
        """The same weighing for another task with the same labels."""
        other = TaskLoss(task, self.options)
        other.weights = self.weights
        return other

    def each(self, pred: torch.Tensor, targ: torch.Tensor) -> torch.Tensor:
        """The loss of each example, (batch,): of tokens the mean over those that are scored."""
        options, weights = self.options, self.weights
        if weights is None and not options.label_smoothing and not options.focal:
            found: torch.Tensor = self.task.loss(pred, targ)
            return found
        weights = None if weights is None else weights.to(pred.device)
        if self.kind == "multi_label":
            return several_labels(pred.float(), targ.float(), options, weights)
        if targ.ndim == 1:
            return one_label(pred.float(), targ, options, weights)
        flat = one_label(pred.float().flatten(0, 1), targ.flatten(), options, weights).view(targ.shape)  # (batch, tokens)
        return flat.sum(dim=1) / (targ != IGNORED).sum(dim=1).clamp(min=1)

    def mass(self, targ: torch.Tensor) -> torch.Tensor:
        """What the mean of a batch is divided by: its labels, or their weights. Means of several batches are put together with it."""
        scored = targ[targ != IGNORED] if label_counts(targ, self.kind) is not None else targ
        if self.weights is None or self.kind == "multi_label":
            number = float(len(scored))
            return torch.tensor(max(number, 1.0), device=targ.device)
        return self.weights.to(targ.device)[scored].sum().clamp(min=torch.finfo(torch.float32).tiny)

    def activation(self, logits: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Probabilities in label order, (batch, labels) or (batch, tokens, labels), or the numbers themselves.

        Of answers in a context, (batch, tokens, 2): of each token to be the first, and the last. Rows of different lengths, as fastai
        collects them from several batches, are filled up on the right.
        """
        if not isinstance(logits, torch.Tensor):
            logits = padded(logits, LOWEST if self.kind == "answers" else 0.0)
        if self.kind in ("regression", "language", "text"):  # a probability for each of 30,000 words helps nobody
            return logits.float()
        if self.kind == "answers":
            return logits.float().softmax(1)
        return logits.float().sigmoid() if self.kind == "multi_label" else logits.float().softmax(-1)

    def decodes(self, activations: torch.Tensor) -> torch.Tensor:
        """Class numbers (batch,), zeros and ones (batch, labels), numbers (batch,), or a label a token (batch, tokens)."""
        if self.kind in ("language", "text"):
            return torch.from_numpy(np.asarray(self.task.best_labels(activations.cpu().numpy())))
        values = activations.double().cpu()
        logits = values if self.kind == "regression" else values.logit() if self.kind == "multi_label" else values.log()
        return torch.from_numpy(np.asarray(self.task.best_labels(logits.numpy())))


def task_loss(task: "Task", options: LossOptions, labels: IntArray | FloatArray | None) -> tuple[TaskLoss, tuple[Note, ...]]:
    """The loss with these options, and what was chosen. `labels` are those of the training rows: "balanced" weights follow from them.

    Raises SettingError for what this kind of task has no place for, LabelError for a weight of an unknown label, DataError without labels.
    """
    smoothing = options.label_smoothing and task.kind not in SMOOTHED
    if smoothing or ((options.focal or options.class_weights is not None) and task.kind not in WEIGHED):
        name = "label_smoothing" if smoothing else "focal" if options.focal else "class_weights"
        cure = "Leave it out: it is for labels of texts and of tokens" + (", and for written texts." if smoothing else ".")
        raise SettingError(f"{task.tag} ({task.kind}) has no {name}", place=name, cure=cure)
    names = task.outputs
    if options.class_weights is None:
        return TaskLoss(task, options), ()
    if isinstance(options.class_weights, Mapping):
        return TaskLoss(task, options, given_weights(options.class_weights, names)), ()
    if not isinstance(options.class_weights, str):
        raise unlabelled_weights(options.class_weights, names)
    if labels is None or not len(labels):
        raise DataError("there are no labels to balance", place="class_weights", cure="Pass training rows with labels, or weights.")
    weights = balanced_weights(labels, len(names))
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names[:8], weights, strict=False))
    more = "" if len(names) <= 8 else f" and {len(names) - 8} more"
    note = Note(f"labels are weighed in the loss: {shown}{more}", "class_weights is balanced", "class_weights=None weighs all rows alike.")
    return TaskLoss(task, options, weights), (note,)


def padded(rows: Sequence[torch.Tensor], value: float) -> torch.Tensor:
    """(rows, longest, …) from rows of different lengths, filled up on the right."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def label_counts(labels: torch.Tensor, kind: str) -> torch.Tensor | None:
    """How many tokens of each row are scored, (batch,), where there is a label a token; None where there is one a row."""
    if labels.ndim != 2 or labels.is_floating_point() or kind in CLASSES:
        return None
    return (labels != IGNORED).sum(-1)


def one_label(logits: torch.Tensor, labels: torch.Tensor, options: LossOptions, weights: torch.Tensor | None) -> torch.Tensor:
    """Cross-entropy of each row, (rows,), from logits (rows, labels); 0 where the label is -100."""
    if not options.focal:
        smoothing = options.label_smoothing
        return functional.cross_entropy(logits, labels, weights, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing)
    plain = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    weighted = plain if weights is None else plain * weights[labels.clamp(min=0)]
    return (-torch.expm1(-plain)).clamp(min=SMALLEST) ** options.focal * weighted  # 1 - p of the right label


def several_labels(logits: torch.Tensor, labels: torch.Tensor, options: LossOptions, weights: torch.Tensor | None) -> torch.Tensor:
    """Binary cross-entropy, (rows,), the mean over the labels of logits (rows, labels); `weights` are of the rows that have a label."""
    smooth = labels * (1 - options.label_smoothing) + options.label_smoothing / 2  # half of it to yes, half to no
    each = functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="none")
    if options.focal:
        chances = logits.sigmoid()
        wrong = chances * (1 - labels) + (1 - chances) * labels
        each = each * wrong.clamp(min=SMALLEST) ** options.focal
    return each.mean(-1)


def is_weight(value: Any) -> bool:
    """Whether this is a number from 0 up."""
    try:
        return not isinstance(value, str | bytes | bool) and 0 <= float(value) < float("inf")
    except (TypeError, ValueError, RuntimeError, OverflowError):  # torch raises a RuntimeError for several numbers
        return False


def unlabelled_weights(given: Any, names: Sequence[str]) -> SettingError:
    """What to say of weights that do not tell which label each is of; the cure is them as a dict, in the order of the head."""
    found = given.tolist() if hasattr(given, "tolist") else given
    fits = isinstance(found, list | tuple) and len(found) == len(names) and all(map(is_weight, found))
    pairs = zip(names[:20], found if fits else [1.0] * len(names), strict=False)
    example = ", ".join(f"{name!r}: {float(weight):.6g}" for name, weight in pairs) + (", …" if len(names) > 20 else "")
    came = f"class_weights is a {type(given).__name__}: {str(found)[:80]}"
    problem = f'{came}; expected "balanced", None, or a dict of label and number'
    return SettingError(problem, place="class_weights", cure=f"Say which label each weight is of: class_weights={{{example}}}.")


def given_weights(given: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """The weight of each label of the head; the type of an entity stands for its tags (PER for B-PER and I-PER), 1 is for all others."""
    types = {name: name.partition("-")[2] or name for name in names}
    unknown = [name for name in given if name not in types and name not in types.values()]
    if unknown:
        cure = f"Its labels are {', '.join(names[:20])}."
        raise LabelError(f"the model has no label {unknown[0]!r}", place="class_weights", cure=cure)
    return [float(given.get(name, given.get(types[name], 1.0))) for name in names]


def balanced_weights(labels: IntArray | FloatArray, count: int) -> list[float]:
    """rows / (labels × rows of the label), as in scikit-learn; of several labels a row, rows without each by rows with it.

    `labels` (rows,), (rows, labels) of zeros and ones, or a label a token with -100 for those that are not scored. A label without rows
    weighs 1.
    """
    if labels.ndim == 2:
        with_it = np.maximum(labels.sum(axis=0), 0).astype(np.float64)
        return [float((len(labels) - some) / some) if 0 < some < len(labels) else 1.0 for some in with_it]
    scored = labels[labels != IGNORED].astype(np.int64)
    rows = np.bincount(scored, minlength=count)
    return [float(len(scored) / (count * some)) if some else 1.0 for some in rows]
