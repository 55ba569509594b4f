"""What to know of the rows before training on them.

Takes rows, and what truncation will cost where somebody has counted it. Gives findings: what, where, and what to do.
Knows nothing of tokens, models or tasks; it changes nothing and stops nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pellucid.data import Rows, Split
from pellucid.readers.chunks import CHUNK_ROWS
from pellucid.splitting import key_of
from pellucid.types import Target

FEW = 10  # rows of a class below which its scores mean little
LOST_SHARE = 0.05  # of words that truncation loses, from which it is worth a word
CONTROLS = frozenset(map(chr, (*range(9), 11, 12, *range(14, 32), 127)))  # no TAB, LF, CR
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know: what was found, where, and what to do about it. An "error" makes the training pointless."""

    level: Literal["warning", "error"]
    what: str
    place: str
    cure: str


class Lost(Protocol):
    """What truncation costs; a `tokens.TruncationReport`."""

    @property
    def share_cut(self) -> float:
        """Texts that are cut, 0 to 1."""
        ...

    @property
    def share_lost(self) -> float:
        """Words that are lost, 0 to 1."""
        ...


@dataclass(frozen=True)
class Census:
    """What one pass over a split shows: its texts by key, its labels, and the first rows that are odd."""

    keys: Mapping[int, int]  # text → the first row that has it
    repeats: int
    first_repeat: tuple[int, int] | None
    labels: Mapping[str, int]  # label → rows
    conflicts: tuple[int, int] | None  # two rows with one text and two targets
    empty: tuple[int, ...]
    odd: tuple[int, ...]  # rows with control characters or turned writing direction


def check_rows(rows: Rows, truncation: Lost | None = None) -> tuple[Finding, ...]:
    """Everything worth knowing of these rows before training, the worst first."""
    censuses = {name: census(split) for name, split in rows.splits.items()}
    found: list[Finding] = []
    for name, split in rows.splits.items():
        found += of_texts(name, split, censuses[name])
    if "train" in censuses:
        found += of_labels(rows.train, censuses["train"])
        for name in censuses:
            if name != "train":
                found += between(rows, censuses, name)
    if truncation is not None and truncation.share_cut > 0:
        level = f"{truncation.share_cut:.1%} of the texts are cut, {truncation.share_lost:.1%} of the words are never seen"
        if truncation.share_lost >= LOST_SHARE:
            found.append(Finding("warning", level, "tokens", "Raise max_length, or shorten the texts to what matters."))
    return tuple(sorted(found, key=lambda finding: finding.level != "error"))


def census(split: Split) -> Census:
    """One pass over a split."""
    keys: dict[int, int] = {}
    answers: dict[int, Target] = {}
    labels: dict[str, int] = {}
    repeats, first_repeat, conflicts, empty, odd = 0, None, None, [], []
    for position, texts, target in each(split):
        key = key_of(*texts)
        if key in keys:
            repeats += 1
            first_repeat = first_repeat or (keys[key], position)
            if answers[key] != target:
                conflicts = conflicts or (keys[key], position)
        else:
            keys[key], answers[key] = position, target
        if not texts[0].strip():
            empty.append(position)
        if any(not (CONTROLS | BIDI).isdisjoint(text) for text in texts):
            odd.append(position)
        for label in target if isinstance(target, tuple) else (target,):
            if isinstance(label, str):
                labels[label] = labels.get(label, 0) + 1
    return Census(keys, repeats, first_repeat, labels, conflicts, tuple(empty), tuple(odd))


def each(split: Split) -> Iterator[tuple[int, tuple[str, ...], Target]]:
    """Position, texts and target of every row."""
    for start, stop in split.chunks(CHUNK_ROWS):
        texts = zip(*split.columns(start, stop).values(), strict=True)
        yield from zip(range(start, stop), texts, split.targets(start, stop), strict=True)


def of_texts(name: str, split: Split, seen: Census) -> list[Finding]:
    """Empty, odd and repeated texts within one split."""
    found = []
    if seen.empty:
        what = f"{len(seen.empty):,} of {len(split):,} texts are empty or white space"
        found.append(Finding("warning", what, split.place(seen.empty[0]), "Drop these rows: there is nothing to learn from them."))
    if seen.odd:
        what = f"{len(seen.odd):,} texts hold control characters or turn the writing direction"
        found.append(Finding("warning", what, split.place(seen.odd[0]), "Look at them: the model reads what you do not see."))
    if seen.first_repeat is not None:
        first, second = map(split.place, seen.first_repeat)
        what = f"{seen.repeats:,} rows of {name} repeat a text that is there already"
        found.append(Finding("warning", what, f"{second} repeats {first}", "Drop the repeats, unless they are meant to count more."))
    if seen.conflicts is not None:
        first, second = map(split.place, seen.conflicts)
        found.append(Finding("warning", "one text has two labels", f"{second} and {first}", "Decide which one is right."))
    return found


def of_labels(train: Split, seen: Census) -> list[Finding]:
    """One class only, classes with few rows, and names that look like one label."""
    if not train.has_targets or not seen.labels:
        return []
    column = f"column {', '.join(train.roles.labels)!r}"
    numbers = len(seen.labels) > max(20, len(train) // 4)  # so many names are numbers, or nearly one a row
    found = []
    if len(seen.labels) == 1:
        what = f"every row has the label {next(iter(seen.labels))!r}"
        found.append(Finding("error", what, column, "Add rows of another class: there is nothing to tell apart."))
    few = [f"{label!r} ({count})" for label, count in seen.labels.items() if count < FEW]
    if few and not numbers and len(train) >= FEW * len(seen.labels):
        what = f"{len(few)} classes have fewer than {FEW} rows: {', '.join(few[:8])}{' …' if len(few) > 8 else ''}"
        found.append(Finding("warning", what, column, "Add rows, or put small classes together."))
    folded: dict[str, str] = {}
    for label in seen.labels:
        twin = folded.setdefault(" ".join(label.casefold().split()), label)
        if twin != label:
            what = f"the labels {twin!r} and {label!r} differ only in capitals or spaces"
            found.append(Finding("warning", what, column, "Write them alike if they are one class."))
    return found


def between(rows: Rows, censuses: Mapping[str, Census], name: str) -> list[Finding]:
    """What another split shares with the training rows, and labels that only one of them has."""
    train, other, split = censuses["train"], censuses[name], rows.splits[name]
    found = []
    shared = [key for key in other.keys if key in train.keys]
    if shared:
        place = f"{split.place(other.keys[shared[0]])} is {rows.train.place(train.keys[shared[0]])}"
        what = f"{len(shared):,} of {len(other.keys):,} texts of {name} are also in train: its scores will be too good"
        found.append(Finding("warning", what, place, f"Drop them from {name}."))
    if not train.labels or not other.labels or len(train.labels) > max(20, len(rows.train) // 4):
        return found
    unknown = [label for label in other.labels if label not in train.labels]
    if unknown:
        what = f"{name} has labels that train has not: {', '.join(map(repr, unknown[:8]))}"
        found.append(Finding("error", what, f"split {name}", "Add training rows of these classes, or drop the rows."))
    missing = [label for label in train.labels if label not in other.labels]
    if missing:
        what = f"{name} has no row of {', '.join(map(repr, missing[:8]))}: nothing will be known of these classes"
        found.append(Finding("warning", what, f"split {name}", f"Add rows of them to {name}."))
    return found
