"""Rows in memory for the tests of reports, with what evaluation asks of a split.

Takes texts and what was given as their labels. Gives a split that was read from no file, and the part that two fake pipelines share.
Knows nothing of tasks, of answers or of reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from pellucid.types import Example

HTML = "<script>alert(1)</script>"  # a label that must not run


@dataclass(frozen=True)
class FakeSplit:
    """Rows in memory; their numbers begin at 100, their lines below a header."""

    texts: Sequence[str]
    given: Sequence[object]
    name: str = "valid"
    pairs: Sequence[str] = ()

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, position):
        fields = {"text": self.texts[position]} | ({"text_pair": self.pairs[position]} if self.pairs else {})
        return Example(position + 100, fields, self.given[position])

    def chunks(self, size=7):
        return ((start, min(start + size, len(self))) for start in range(0, len(self), size))

    def targets(self, start, stop):
        return list(self.given[start:stop])

    def columns(self, start, stop):
        return {"text": list(self.texts[start:stop])} | ({"text_pair": list(self.pairs[start:stop])} if self.pairs else {})

    def place(self, position):
        return f"reviews.csv, line {position + 2} (row {position})"

    def without_targets(self):
        return replace(self, given=[None] * len(self.texts))


class OwnTask:
    """A pipeline that is its own task."""

    @property
    def task(self):
        return self


def tokens_of(split, lost=()):
    """What a pipeline's `encode` says of rows of ten tokens: how many tokens and words of each it has `lost`."""
    cut = np.array(lost or [0] * len(split))
    return SimpleNamespace(lost=cut, lost_words=cut // 2, rows=np.arange(len(split)), lengths=np.full(len(split), 10))
