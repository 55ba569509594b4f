"""The rows of a source: splits in Arrow, one row of which is an Example.

Takes Arrow tables as `row_store` writes them, and the roles of their columns. Gives texts, targets and Examples, all or some of them.
Knows nothing of files, readers, tokens or tasks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pellucid.errors import DataError
from pellucid.labels import are_numbers, sort_labels
from pellucid.readers.chunks import CHUNK_ROWS, place_of
from pellucid.roles import Roles
from pellucid.types import Columns, Example, IntArray, Note, Span, Target
from pellucid.view import Cell, Lines, Stack, Table, View

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Rows", "Split", "label_counts", "target_text"]

LABELS_SHOWN = 12
NAME_SHOWN = 40  # characters of a label at the head of a column
TEXT_SHOWN = 160  # characters of a text or a target among the first rows
MOST_CLASSES = 1000
FREE = frozenset(("answers", "text"))  # targets that are no labels: nothing to count


@dataclass(frozen=True)
class Split:
    """Some rows of a source, in Arrow. `split[i]` is an Example, made when it is asked for."""

    name: str
    table: "pa.Table"  # text, text_pair, target, row, line, file
    roles: Roles
    source: str
    has_targets: bool

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, position: int) -> Example: ...

    @overload
    def __getitem__(self, position: slice) -> "Split": ...

    def __getitem__(self, position: int | slice) -> "Example | Split":
        places = range(len(self))[position]  # IndexError past the end, as for any sequence
        if isinstance(places, range):
            return self.select(np.arange(places.start, places.stop, places.step))
        row = self.table.slice(places, 1)
        fields = {role: row.column(role)[0].as_py() for role in self.roles.texts}
        return Example(row.column("row")[0].as_py(), fields, self.targets(places, places + 1)[0])

    def __iter__(self) -> Iterator[Example]:
        for start, stop in self.chunks():
            numbers, texts = self.row_numbers[start:stop].tolist(), self.columns(start, stop)
            for place, (row, target) in enumerate(zip(numbers, self.targets(start, stop), strict=True)):
                yield Example(row, {role: texts[role][place] for role in texts}, target)

    def chunks(self, size: int = 1024) -> Iterator[tuple[int, int]]:
        """First row and end of each chunk."""
        return ((start, min(start + size, len(self))) for start in range(0, len(self), size))

    def columns(self, start: int, stop: int) -> Columns:
        """The texts of rows start to stop (exclusive): role → one string a row."""
        part = self.table.slice(start, stop - start)
        return {role: part.column(role).to_pylist() for role in self.roles.texts}

    def targets(self, start: int, stop: int) -> list[Target]:
        """The targets of rows start to stop (exclusive); None each where the split has none."""
        if not self.has_targets:
            return [None] * (stop - start)
        found = self.table.column("target").slice(start, stop - start).to_pylist()
        if self.roles.target in ("spans", "answers"):
            texts = self.table.column(self.roles.spanned).slice(start, stop - start).to_pylist()
            return [None if spans is None else spans_over(text, spans) for text, spans in zip(texts, found, strict=True)]
        return [tuple(target) if isinstance(target, list) else target for target in found]

    @property
    def row_numbers(self) -> IntArray:
        """The number of each row in its source, (rows,)."""
        numbers: IntArray = self.table.column("row").to_numpy()
        return numbers

    def place(self, position: int) -> str:
        """Where a row is: `reviews.csv, line 18 (row 16)`."""
        row = self.table.slice(range(len(self))[position], 1)
        return place_of(self.source, *(row.column(name)[0].as_py() for name in ("row", "line", "file")))

    def select(self, positions: Sequence[int] | IntArray) -> "Split":
        """The rows at these positions, in this order; or those where a mask (rows,) is true. Raises IndexError beyond the end."""
        chosen = np.asarray(positions)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise IndexError(f"a mask for {len(self)} rows has the shape {chosen.shape}")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        if len(chosen) and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"positions {chosen.min()} to {chosen.max()} of {len(self)} rows")
        return replace(self, table=self.table.take(np.where(chosen < 0, chosen + len(self), chosen)).combine_chunks())

    def without_targets(self) -> "Split":
        """The same rows, as if nobody knew the answers."""
        return replace(self, has_targets=False)

    def fingerprint(self) -> str:
        """A hash of the texts."""
        digest = blake2b(repr((self.roles.texts.keys(), len(self))).encode(), digest_size=16)
        for start, stop in self.chunks():
            for texts in self.columns(start, stop).values():
                digest.update(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)).tobytes())
                digest.update("".join(texts).encode("utf-8"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Rows:
    """The splits of a source, with what was chosen on the way."""

    splits: Mapping[str, Split]
    roles: Roles
    source: str
    notes: tuple[Note, ...] = ()

    def __getitem__(self, name: str) -> Split:
        if name not in self.splits:
            draws = name == "valid" and "train" in self.splits
            cure = "ReadOptions(valid_fraction=0.2) keeps some rows of train aside." if draws else "Name another, or add rows for it."
            raise DataError(f"there is no split {name!r}, only {', '.join(self.splits)}", place=self.source, cure=cure)
        return self.splits[name]

    @property
    def train(self) -> Split:
        """The rows to learn from. Raises DataError where there are none."""
        return self["train"]

    @property
    def valid(self) -> Split:
        """The rows kept aside. Raises DataError where there are none."""
        return self["valid"]

    @property
    def test(self) -> Split:
        """The rows for the very end. Raises DataError where there are none."""
        return self["test"]

    def view(self) -> View:
        """The splits with their labels, a few rows, and what was chosen."""
        counts = {name: label_counts(split) for name, split in self.splits.items()}
        every = list(dict.fromkeys(label for found in counts.values() for label in found))
        labels, left = every[:LABELS_SHOWN], len(every) - LABELS_SHOWN
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (name, len(split), *(counts[name].get(label, 0) for label in labels)) for name, split in self.splits.items()
        )
        heads = tuple(label if len(label) <= NAME_SHOWN else label[:NAME_SHOWN] + "…" for label in labels)
        first = next(iter(self.splits.values()))
        peek = [first[position] for position in range(min(3, len(first)))]
        nothing = {"spans": "(no spans)", "answers": "(no answer)"}.get(self.roles.target, "(no label)")
        texts = tuple((one.row, " ⏐ ".join(one.fields.values())[:TEXT_SHOWN], target_text(one.target, nothing)) for one in peek)
        unit = "Under a label stand its spans." if self.roles.target == "spans" else ""
        more = f"{left:,} more labels are not shown." if left > 0 else ""
        parts = [
            Table(f"rows of {self.source}", ("split", "rows", *heads), rows, f"{unit} {more}".strip()),
            Table("the first rows", ("row", "text", "target"), texts),
        ]
        notes = [Lines("chosen for you", tuple(map(str, self.notes)))] if self.notes else []
        return Stack("rows", (*parts, *notes))


def spans_over(text: str, spans: Sequence[Mapping[str, Any]]) -> tuple[Span, ...]:
    """Stored spans with their characters."""
    return tuple(Span(one["start"], one["end"], one["label"], text=text[one["start"] : one["end"]]) for one in spans)


def label_counts(split: Split) -> dict[str, int]:
    """How many rows each label has, or how many spans, in label order; nothing for numbers, answers, texts, or too many to be classes."""
    if split.roles.target in FREE or not split.has_targets:
        return {}
    if split.roles.target == "spans":
        counts = span_counts(split.table)
        return {} if len(counts) > MOST_CLASSES else {label: counts[label] for label in sort_labels(counts)}
    counts = {}
    for start, stop in split.chunks(CHUNK_ROWS):
        for target in split.targets(start, stop):
            for label in target if isinstance(target, tuple) else (target,):
                if isinstance(label, str):
                    counts[label] = counts.get(label, 0) + 1
        if len(counts) > MOST_CLASSES:
            return {}
    return {} if are_numbers(counts) else {label: counts[label] for label in sort_labels(counts)}


def span_counts(table: "pa.Table") -> dict[str, int]:
    """How many spans of a stored table have each label."""
    import pyarrow.compute as pc

    labels = pc.struct_field(pc.list_flatten(table.column("target")), "label")
    return {one["values"]: one["counts"] for one in pc.value_counts(labels).to_pylist()}


def target_text(target: Target, nothing: str = "(no label)") -> Cell:
    """A target as a cell: nothing where it is unknown, several labels or spans with commas between, `nothing` where there are none."""
    if not isinstance(target, tuple):
        return target if not isinstance(target, str) or len(target) <= TEXT_SHOWN else target[:TEXT_SHOWN] + "…"
    return ", ".join(map(str, target))[:TEXT_SHOWN] or nothing
