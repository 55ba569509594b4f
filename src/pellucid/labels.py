"""Label names: what counts as one label, which set of labels there is, and how two sets compare.

Takes the label values of rows and the label names of a checkpoint. Gives canonical names, label sets in class order, and how they match.
Knows nothing of rows, files or models.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Literal, Self

import numpy as np

from pellucid.errors import LabelError
from pellucid.types import Note, Target

Relation = Literal["same", "reordered", "case", "generic", "other"]
NUMBERS_FROM = 20  # more different numbers than this, not all whole, are a quantity and no classes
_GENERIC = re.compile(r"LABEL_\d{1,6}")


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """How the labels of the rows relate to those of a checkpoint.

    `labels` are the rows' names in the checkpoint's class order; for the relation "other" they keep their own order.
    """

    labels: "LabelSet"
    relation: Relation
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The label names of a task; the position of a name is its class index."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for index, name in enumerate(self.names):
            if not isinstance(name, str) or not name:
                raise LabelError(f"a label must be a non-empty string, class {index} is {name!r}", cure="Name every class.")
            if name in seen:
                cure = "Give every class a name of its own: id ↔ label must be one to one."
                raise LabelError(f"label {name!r} stands for two classes", cure=cure)
            seen.add(name)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_targets(cls, targets: Iterable[Target]) -> Self:
        """The labels that occur in `targets`, of classes, sets or spans, sorted; where every name is a number, sorted as numbers.

        Unknown targets (None) are passed over. Raises LabelError for numeric targets: those are not classes.
        """
        names: set[str] = set()
        for target in targets:
            if isinstance(target, str):
                names.add(target)
            elif isinstance(target, tuple):
                names.update(one if isinstance(one, str) else one.label for one in target)
            elif target is not None:
                raise LabelError(f"numbers are not classes: {target!r}", cure="Read the labels with ReadOptions(label_kind='class').")
        return cls(sort_labels(names))

    @classmethod
    def from_id2label(cls, id2label: Mapping[int | str, str]) -> Self:
        """The label set of a checkpoint's `id2label`; its keys must be 0 … n-1. Raises LabelError."""
        try:
            by_id = {int(key): str(name) for key, name in id2label.items()}
        except (TypeError, ValueError) as error:
            raise LabelError(f"id2label has a key that is no number: {error}", cure="Number the classes 0, 1, 2 … in id2label.") from error
        if sorted(by_id) != list(range(len(id2label))):
            raise LabelError(
                f"id2label numbers its classes {sorted(by_id)[:8]}, expected 0 … {len(id2label) - 1}", cure="Number them without gaps."
            )
        return cls(tuple(by_id[index] for index in range(len(by_id))))

    def index(self, name: str) -> int:
        """The class index of `name`. Raises LabelError with the nearest name."""
        try:
            return self.names.index(name)
        except ValueError:
            known = ", ".join(map(repr, self.names[:10])) + (" …" if len(self) > 10 else "")
            raise LabelError(
                f"no label {name!r} among {len(self)}: {known}", cure="Use one of these, or build the task from rows that hold it."
            ) from None

    @property
    def id2label(self) -> dict[int, str]:
        """Class index → name, as a transformers config holds it."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name → class index."""
        return {name: index for index, name in enumerate(self.names)}

    def match(self, found: Sequence[str]) -> LabelMatch:
        """Compare these labels, which the rows hold, with those `found` in a checkpoint, by name."""
        found = tuple(found)
        if self.names == found:
            return LabelMatch(self, "same")
        if len(found) != len(self) or len(set(found)) != len(found):
            return LabelMatch(self, "other")
        if set(found) == set(self.names):
            note = Note(f"classes in the checkpoint's order ({_few(found)})", "the checkpoint has the same labels in another order")
            return LabelMatch(LabelSet(found), "reordered", (note,))
        folded = {name.casefold().strip(): name for name in self.names}
        keys = [name.casefold().strip() for name in found]
        if len(folded) == len(self) and set(keys) == set(folded):
            ours = tuple(folded[key] for key in keys)
            why = f"the checkpoint spells them {_few(found)}: equal but for capitals and outer spaces"
            return LabelMatch(LabelSet(ours), "case", (Note(f"labels spelled as in the rows ({_few(ours)})", why),))
        if all(_GENERIC.fullmatch(name) for name in found):
            why = f"the checkpoint only numbers its classes ({_few(found)}), so class 0 is taken to be {self.names[0]!r}, and so on"
            note = Note("labels matched by position", why, "Check one known row; ModelOptions(new_head=True) trains a fresh head.")
            return LabelMatch(self, "generic", (note,))
        return LabelMatch(self, "other")


def _few(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" … {len(names)} in all" if len(names) > limit else "")


def number_of(name: str) -> float | None:
    """The finite number that a name spells; None where it spells none."""
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def sort_labels(names: Iterable[str]) -> tuple[str, ...]:
    """The names once each, in class order: as numbers where all are numbers, else by character."""
    unique = sorted(set(names))
    numbers = [number_of(name) for name in unique]
    if any(number is None for number in numbers):
        return tuple(unique)
    return tuple(name for _, name in sorted(zip(numbers, unique, strict=True), key=lambda pair: (pair[0] or 0.0, pair[1])))


def are_numbers(names: Iterable[str]) -> bool:
    """Whether label names are a quantity and no classes: more than 20 different ones, all numbers, and not all whole (4.75 of STS-B)."""
    unique = set(names)
    if len(unique) <= NUMBERS_FROM:
        return False
    values = [number_of(name) for name in unique]
    return None not in values and not all(value is not None and value.is_integer() for value in values)


def is_missing(value: object) -> bool:
    """Whether `value` stands for nothing: None, NaN, pandas' NA and NaT. The empty string does not."""
    if value is None:
        return True
    if isinstance(value, Real | Decimal):
        return bool(value != value)  # only NaN differs from itself
    return type(value).__name__ in {"NAType", "NaTType"}


def canonical_label(value: object) -> str | None:
    """The one name of a label value, or None where the label is missing.

    1, 1.0 and numpy.int64(1) are "1"; True is "True"; strings lose their outer spaces; None, NaN, pandas.NA and "" are missing.
    Raises LabelError for what cannot be one label (bytes, lists, objects).
    """
    if isinstance(value, str):
        return value.strip() or None
    if is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real | Decimal):
        number = float(value)
        return str(int(number)) if math.isfinite(number) and number == int(number) else repr(number)
    raise LabelError(
        f"a label must be a text or a number, not {type(value).__name__}", cure="Convert the column, or pass lists for many labels a row."
    )


def label_sets(value: object, separator: str | None = None) -> tuple[str, ...] | None:
    """The labels of one row that may have many, in label order; None where they are missing.

    Takes a list, tuple, set or array of labels, or one string with `separator` between labels. An empty set is allowed.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str) and separator is not None:
        return sort_labels(part.strip() for part in value.split(separator) if part.strip())
    if isinstance(value, list | tuple | set | frozenset):
        names = [canonical_label(part) for part in value]
        if any(name is None for name in names):
            raise LabelError(f"a set of labels holds a missing one: {value!r:.80}", cure="Remove the missing label.")
        return sort_labels(name for name in names if name is not None)
    name = canonical_label(value)
    return None if name is None else (name,)
