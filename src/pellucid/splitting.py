"""Which rows are kept aside for validation where nobody said.

Takes texts and targets in chunks, a share and a seed. Gives a mask over the rows.
Knows nothing of files or tables.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from pellucid.types import BoolArray

Keys = npt.NDArray[np.int64]


def key_of(*texts: str) -> int:
    """A number that is the same for the same texts."""
    return int.from_bytes(blake2b("\x1f".join(texts).encode("utf-8"), digest_size=8).digest(), "little", signed=True)


def validation_mask(texts: Iterable[int], targets: Iterable[object], *, fraction: float, seed: int) -> BoolArray:
    """True for the rows to keep aside, (rows,): `fraction` of the rows of each class, and all rows of one text on the same side.

    `texts` are the keys of the texts (`key_of`), `targets` anything hashable. Every class keeps at least one text in training.
    """
    keys: Keys = np.fromiter(texts, dtype=np.int64)  # (rows,)
    numbers: dict[object, int] = {}
    classes = np.fromiter((numbers.setdefault(target, len(numbers)) for target in targets), dtype=np.int64)  # (rows,)
    if len(numbers) > max(20, len(keys) // 4):  # numbers, or sets that hardly repeat: nothing to keep in proportion
        classes[:] = 0
    _, first, group, sizes = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    class_of = classes[first]  # (texts,): a text with two labels counts with its first
    draw = np.random.default_rng(seed)
    aside = np.zeros(len(first), dtype=np.bool_)  # (texts,)
    order = draw.permutation(len(first))
    order = order[np.argsort(class_of[order], kind="stable")]  # by class, in a drawn order within it
    ends = np.cumsum(np.bincount(class_of, minlength=max(1, len(numbers))))
    for members, wanted in zip(np.split(order, ends[:-1]), shares(classes, len(ends), fraction, draw), strict=True):
        rows = sizes[members]
        fitting = members[rows <= wanted]  # a text with more rows than that stays in training
        chosen = fitting[np.cumsum(sizes[fitting]) <= wanted]
        aside[chosen[: len(members) - 1]] = True
    mask: BoolArray = aside[group]
    return mask


def shares(classes: Keys, count: int, fraction: float, draw: np.random.Generator) -> Keys:
    """How many rows to keep aside of each class, (classes,): near `fraction` of each, and `fraction` of all rows in sum."""
    exact = np.bincount(classes, minlength=count) * fraction  # (classes,)
    whole = np.floor(exact).astype(np.int64)
    left = max(round(float(exact.sum())), 1) - int(whole.sum())
    order = np.lexsort((draw.random(len(exact)), -(exact - whole)))  # the largest remainders first, ties drawn
    whole[order[:left]] += 1
    return whole
