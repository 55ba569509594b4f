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
    """True for the rows to keep aside, (rows,): `fraction` of each class, and all rows of one text on the same side.

    `texts` are the keys of the texts (`key_of`), `targets` anything hashable. A class with one text stays in training.
    """
    keys: Keys = np.fromiter(texts, dtype=np.int64)  # (rows,)
    numbers: dict[object, int] = {}
    classes = np.fromiter((numbers.setdefault(target, len(numbers)) for target in targets), dtype=np.int64)  # (rows,)
    if len(numbers) > max(20, len(keys) // 4):  # numbers, or sets that hardly repeat: nothing to keep in proportion
        classes[:] = 0
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)  # (texts,), (texts,), (rows,)
    draw = np.random.default_rng(seed)
    aside = np.zeros(len(first), dtype=np.bool_)  # (texts,)
    class_of = classes[first]  # a text with two labels counts with its first
    for number in np.unique(class_of):
        members = draw.permutation(np.flatnonzero(class_of == number))
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        aside[members[:count]] = True
    chosen: BoolArray = aside[group]
    return chosen
