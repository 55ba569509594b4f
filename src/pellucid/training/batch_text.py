"""How tokens and labels of a fastai batch look to a person.

Takes tensors of a batch, the tokenizer and the task. Gives strings. Knows nothing of loaders, learners or losses.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.task import CLASSES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from pellucid.task import Spell, Task
    from pellucid.types import Target


class TokenInputs(dict[str, "torch.Tensor"]):
    """The inputs of a batch, name → (batch, tokens): a dict of its own kind, so that fastai's type dispatch knows it from others."""


def shown_text(tokenizer: "PreTrainedTokenizerBase", inputs: "dict[str, torch.Tensor]") -> list[str]:
    """Each row as the model reads it: special tokens spelled out, padding left out."""
    masks = inputs.get("attention_mask", inputs["input_ids"] * 0 + 1).bool()
    return [tokenizer.decode(ids[mask].tolist()) for ids, mask in zip(inputs["input_ids"], masks, strict=True)]


def shown_label(task: "Task", label: Any, ids: Any = (), spell: "Spell" = str) -> str | float:
    """A label as the loss sees it (class number, zeros and ones, number, a label a token) as a person reads it.

    `ids` (tokens,) are those of the same batch entry, and `spell` turns ids into text.
    """
    if task.kind not in CLASSES:
        return task.label_text(np.asarray(label), np.asarray(ids), spell)
    target = targets_of(task, np.asarray(label)[None])[0]
    if isinstance(target, tuple):
        return ", ".join(map(str, target))
    return target if isinstance(target, str) else round(float(target or 0.0), 4)


def targets_of(task: "Task", labels: Any) -> "Sequence[Target]":
    """The inverse of what `encode` does to targets: names, sets of names or numbers for an array of labels, one a row."""
    names = getattr(task, "labels", ())
    values = np.asarray(labels)
    if not names:
        return [float(value) for value in values.reshape(len(values), -1)[:, 0]]
    if values.ndim == 1:
        return [names[int(value)] for value in values]
    return [tuple(name for name, is_on in zip(names, row, strict=True) if is_on) for row in values]
