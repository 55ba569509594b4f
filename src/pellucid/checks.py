"""What to know of the rows before training on them.

Takes rows, and what truncation will cost where somebody has counted it. Gives findings: what, where, and what to do.
Knows nothing of tokens, models or tasks; it changes nothing and stops nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from pellucid.data import Rows, Split
from pellucid.labels import are_numbers, number_of
from pellucid.rows import FREE
from pellucid.splitting import key_of
from pellucid.types import IntArray, Span, Target

FEW = 10  # rows of a class, or spans of a label, below which its scores mean little
MOSTLY = 0.5  # share of rows without any span, from which it is worth a word
CONTROLS = frozenset(map(chr, (*range(9), 11, 12, *range(14, 32), 127)))  # no TAB, LF, CR
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
MOJIBAKE = (
    "Ã©",
    "Ã¨",
    "Ã¼",
    "Ã¶",
    "Ã¤",
    "â€™",
    "â€œ",
    "â€“",
    "Â\xa0",
    "\ufffd",
)  # UTF-8 that was read as cp1252, and what could not be read
UNSAID = frozenset(("nan", "na", "n/a", "none", "null", "unknown", "?", "-1", "-100"))  # labels that often mean: nobody knows


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

    keys: IntArray  # (texts,) the different texts, sorted
    first: IntArray  # (texts,) the first row that has each
    repeats: int
    first_repeat: tuple[int, int] | None
    labels: Mapping[str, int]  # label → rows, or spans
    conflicts: tuple[int, int] | None  # two rows with one text and two targets
    bare: int  # rows whose target is an empty tuple: no label, no span, no answer
    odd: Mapping[str, tuple[int, int]]  # what is odd → rows, the first of them


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
    else:
        what = f"there are no rows to train on, only {' and '.join(rows.splits)}"
        found.append(Finding("error", what, rows.source, "Mark some rows as train."))
    if truncation is not None and truncation.share_cut > 0:
        words = f", {said(truncation.share_lost)} of the words are never seen" if truncation.share_lost else ""
        what = f"{said(truncation.share_cut)} of the texts are cut{words}"
        found.append(Finding("warning", what, "tokens", "Raise max_length, or shorten the texts to what matters."))
    return tuple(sorted(found, key=lambda finding: finding.level != "error"))


def census(split: Split) -> Census:
    """One pass over a split. Numbers are kept for each row, no texts."""
    labels: dict[str, int] = {}
    odd: dict[str, tuple[int, int]] = {}
    numbers: dict[Target, int] = {}  # each target once
    row_keys, row_targets = np.zeros(len(split), dtype=np.int64), np.zeros(len(split), dtype=np.int64)  # (rows,) each
    bare, kind = 0, split.roles.target
    of_rows = kind not in (*FREE, "spans")  # one text may have several answers, summaries or translations
    for position, texts, target in each(split):
        row_keys[position], bare = key_of(*texts), bare + (target == ())
        if of_rows:
            row_targets[position] = numbers.setdefault(target, len(numbers))
        for what in (*oddities(texts), *(of_written(texts, target) if kind == "text" else ())):
            count, first = odd.get(what, (0, position))
            odd[what] = (count + 1, first)
        for label in () if kind in FREE else names_in(target):
            labels[label] = labels.get(label, 0) + 1
    keys, first_rows, which = np.unique(row_keys, return_index=True, return_inverse=True)
    origin = first_rows[which]  # (rows,): the first row with the same text
    repeats = np.flatnonzero(origin != np.arange(len(split)))
    conflicts = np.flatnonzero(row_targets != row_targets[origin])
    pair = tuple((int(origin[found[0]]), int(found[0])) if len(found) else None for found in (repeats, conflicts))
    return Census(keys, first_rows, len(repeats), pair[0], labels, pair[1], bare, odd)


def names_in(target: Target) -> Iterator[str]:
    """The labels of one row: its class, its classes, or those of its spans."""
    for one in target if isinstance(target, tuple) else (target,):
        if isinstance(one, Span):
            yield one.label
        elif isinstance(one, str):
            yield one


def of_written(texts: tuple[str, ...], target: Target) -> Iterator[str]:
    """What is odd about a text that is to be written: a key of ODD."""
    if isinstance(target, str) and not target.strip():
        yield "blank"
    elif target == texts[0]:
        yield "copied"


def oddities(texts: tuple[str, ...]) -> Iterator[str]:
    """What is odd about the texts of one row: a key of ODD."""
    if not all(text.strip() for text in texts):
        yield "empty"
    if any(not text.isprintable() and not (CONTROLS | BIDI).isdisjoint(text) for text in texts):
        yield "hidden"
    if any(not text.isascii() and any(sign in text for sign in MOJIBAKE) for text in texts):
        yield "garbled"


ODD = {  # what one text does, what several do, what to do about it
    "empty": ("is empty or white space", "are empty or white space", "Drop such rows: there is nothing to learn from them."),
    "blank": ("has a target of white space", "have targets of white space", "Drop such rows: there is nothing to learn to write."),
    "copied": (
        "has itself as its target",
        "have themselves as their targets",
        "Drop such rows, unless copying is what is to be learned.",
    ),
    "hidden": (
        "holds control characters or turns the writing direction",
        "hold control characters or turn the writing direction",
        "Look: the model reads what you do not see.",
    ),
    "garbled": (
        "holds signs of a wrong encoding, such as Ã©",
        "hold signs of a wrong encoding, such as Ã©",
        "Read the file again in its own encoding: ReadOptions(encoding=…).",
    ),
}


def said(share: float) -> str:
    """A share above nothing, in per cent: `12.5%`, `less than 0.1%`."""
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def counted(count: int, one: str, many: str) -> str:
    """How many: `1 row repeats`, `3 rows repeat`."""
    return f"1 {one}" if count == 1 else f"{count:,} {many}"


def named(label: str) -> str:
    """A label in quotes, cut where it is long."""
    return repr(label if len(label) <= 40 else label[:40] + "…")


def listed(labels: list[str], limit: int = 8) -> str:
    """The first labels, and how many more there are."""
    return ", ".join(labels[:limit]) + (f" and {len(labels) - limit:,} more" if len(labels) > limit else "")


def each(split: Split) -> Iterator[tuple[int, tuple[str, ...], Target]]:
    """Position, texts and target of every row."""
    for start, stop in split.chunks():
        texts = zip(*split.columns(start, stop).values(), strict=True)
        yield from zip(range(start, stop), texts, split.targets(start, stop), strict=True)


def of_texts(name: str, split: Split, seen: Census) -> list[Finding]:
    """Empty, odd and repeated texts within one split."""
    found = []
    for oddity, (does, do, cure) in ODD.items():
        if oddity in seen.odd:
            count, first = seen.odd[oddity]
            what = counted(count, f"of {len(split):,} texts of {name} {does}", f"of {len(split):,} texts of {name} {do}")
            found.append(Finding("warning", what, split.place(first), cure))
    if seen.first_repeat is not None:
        earlier, later = map(split.place, seen.first_repeat)
        what = counted(seen.repeats, f"row of {name} repeats", f"rows of {name} repeat") + " a text that is there already"
        found.append(Finding("warning", what, f"{later} repeats {earlier}", "Drop the repeats, unless they are meant to count more."))
    if seen.conflicts is not None:
        earlier, later = map(split.place, seen.conflicts)
        found.append(Finding("warning", "one text has two labels", f"{later} and {earlier}", "Decide which one is right."))
    return found


def of_labels(train: Split, seen: Census) -> list[Finding]:
    """One class only, classes with few rows, and names that look like one label; for spans and answers, rows that have none."""
    if not train.has_targets:
        return []
    column = f"column {', '.join(train.roles.labels)!r}"
    if train.roles.target in ("spans", "answers"):
        return of_spans(train, seen, column)
    if not seen.labels or train.roles.target in FREE:
        return []
    if are_numbers(seen.labels):
        return []
    found = []
    if len(seen.labels) == 1 and isinstance(train.targets(0, 1)[0], str):
        what = f"every row has the label {named(next(iter(seen.labels)))}"
        found.append(Finding("error", what, column, "Add rows of another class: there is nothing to tell apart."))
    few = [f"{named(label)} ({count})" for label, count in seen.labels.items() if count < FEW]
    if few and len(train) >= FEW * len(seen.labels):
        what = f"{counted(len(few), 'class has', 'classes have')} fewer than {FEW} rows: {listed(few)}"
        found.append(Finding("warning", what, column, "Add rows, or put small classes together."))
    return found + of_names(seen.labels, column)


def of_spans(train: Split, seen: Census, column: str) -> list[Finding]:
    """Labels with few spans, rows without any, questions without an answer, and tags that are numbers."""
    found = []
    share, place = seen.bare / max(len(train), 1), column
    if train.roles.target == "answers":
        if seen.bare:
            level: Literal["warning", "error"] = "error" if share == 1 else "warning"
            what = f"{share:.1%} of the questions of {train.name} have no answer"
            found.append(Finding(level, what, place, "Train and score them as such, or drop these rows."))
        return found
    if not seen.labels:
        return [Finding("error", "no row has a span", place, "Add rows with some: there is nothing to find.")]
    if share >= MOSTLY:
        what = f"{share:.1%} of the rows of {train.name} have no span"
        found.append(Finding("warning", what, place, "Look whether they were tagged; if so, it may be as it should."))
    few = [f"{named(label)} ({count})" for label, count in seen.labels.items() if count < FEW]
    if few and sum(seen.labels.values()) >= FEW * len(seen.labels):
        what = f"{counted(len(few), 'label has', 'labels have')} fewer than {FEW} spans: {listed(few)}"
        found.append(Finding("warning", what, place, "Add rows with them, or put small labels together."))
    if all(label.isdecimal() for label in seen.labels):
        cure = "Name them: ReadOptions(label_names=(…))."
        found.append(Finding("warning", f"the labels are numbers: {listed([named(label) for label in seen.labels])}", place, cure))
    return found + of_names(seen.labels, column, unit="span")


def of_names(labels: Mapping[str, int], column: str, unit: str = "row") -> list[Finding]:
    """Labels that look like one, and labels that look like none."""
    found = []
    folded: dict[str | float, str] = {}
    for label in labels:
        twin = folded.setdefault(plain_name(label), label)
        if twin != label:
            what = f"the labels {named(twin)} and {named(label)} differ only in how they are written"
            found.append(Finding("warning", what, column, "Write them alike if they are one class."))
    for label in labels:
        if label.casefold() in UNSAID:
            rows = counted(labels[label], unit, unit + "s")
            what = f"the label {label!r} ({rows}) often means that the label is not known; it is a class like any other here"
            found.append(Finding("warning", what, column, "Drop these rows, or empty the cells and pass on_missing='drop'."))
    return found


def plain_name(label: str) -> str | float:
    """A label without capitals and spaces; a number where it is one, so that 1 and 1.0 are alike."""
    number = number_of(label)
    return "".join(label.casefold().split()) if number is None else number


def between(rows: Rows, censuses: Mapping[str, Census], name: str) -> list[Finding]:
    """What another split shares with the training rows, and labels that only one of them has."""
    train, other, split = censuses["train"], censuses[name], rows.splits[name]
    found = []
    _, in_train, in_other = np.intersect1d(train.keys, other.keys, assume_unique=True, return_indices=True)
    if len(in_other):
        where = int(other.first[in_other].argmin())
        place = f"{split.place(int(other.first[in_other[where]]))} is {rows.train.place(int(train.first[in_train[where]]))}"
        texts = f"of {len(other.keys):,} texts of {name}"
        what = counted(len(in_other), f"{texts} is", f"{texts} are") + " also in train: its scores will be too good"
        found.append(Finding("warning", what, place, f"Drop such rows from {name}."))
    if not train.labels or not other.labels or are_numbers({**train.labels, **other.labels}):
        return found
    unknown = [label for label in other.labels if label not in train.labels]
    if unknown:
        labels = "a label" if len(unknown) == 1 else "labels"
        what = f"{name} has {labels} that train has not: {listed([named(label) for label in unknown])}"
        found.append(Finding("error", what, f"split {name}", "Add training rows of these classes, or drop the rows."))
    missing = [label for label in train.labels if label not in other.labels]
    if missing:
        them = "this class" if len(missing) == 1 else "these classes"
        unit = "span" if rows.train.roles.target == "spans" else "row"
        what = f"{name} has no {unit} of {listed([named(label) for label in missing])}: nothing will be known of {them}"
        found.append(Finding("warning", what, f"split {name}", f"Add rows of them to {name}."))
    return found
