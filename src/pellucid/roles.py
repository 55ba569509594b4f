"""Which column plays which part.

Takes the column names of a source and what the user said. Gives the roles, and a Note for each that was guessed.
Knows nothing of cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pellucid.errors import DataError
from pellucid.types import Note

LabelRole = str | tuple[str, ...] | None

TEXTS = (
    "text",
    "sentence",
    "review",
    "content",
    "document",
    "comment",
    "tweet",
    "message",
    "body",
    "sentence1",
    "premise",
    "question",
    "context",
    "article",
    "dialogue",
    "title",
    "tokens",
    "words",
    "messages",
    "source",
    "prompt",
)
SELDOM = frozenset(
    ("context", "article", "dialogue", "tokens", "words", "messages", "source", "prompt")
)  # often something else beside another text
WORDS = ("tokens", "words")  # lists of words, which have tags
TAGS = ("tags", "ner_tags", "pos_tags", "chunk_tags", "upos", "xpos", "ner", "pos")
TARGET_TEXTS = ("summary", "highlights", "translation", "target_text", "completion", "response")  # what a model shall write
PAIRS = {
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "text1": "text2",
    "question1": "question2",
    "question": "context",
    "text": "text_pair",
}
LABELS = (
    *("label", "labels", "target", "class", "category", "sentiment", "label_name", "score", "similarity", "y"),
    *("tags", "ner_tags", "pos_tags", "upos", "entities", "spans", "answers"),
    *TARGET_TEXTS,
)
SPLITS = ("split", "is_valid", "is_validation")


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of the text, a second text, the label (several columns of 0 and 1: a set of labels) and the split.

    `target` is what the labels are, known when the rows are read: "class", "set", "number", "spans" (of entities, or of words with tags),
    "answers" (spans over the second text), "text", or "" for none. `scheme` is that of the tags which the spans came from: "IOB1",
    "IOB2", "IOBES", "plain" (one span a word), or "" where there were no tags.
    """

    text: str
    text_pair: str | None = None
    label: LabelRole = None
    split: str | None = None
    target: str = ""
    scheme: str = ""

    @property
    def texts(self) -> dict[str, str]:
        """The text fields: role → column."""
        return {"text": self.text} | ({"text_pair": self.text_pair} if self.text_pair else {})

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the label; none, one or several."""
        return () if self.label is None else (self.label,) if isinstance(self.label, str) else self.label

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return tuple(dict.fromkeys((*self.texts.values(), *self.labels, *((self.split,) if self.split else ()))))

    @property
    def spanned(self) -> str:
        """The role of the text that spans point into: an answer stands in the second text, all else in the first."""
        return "text_pair" if self.target == "answers" else "text"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said of the columns. False, for `label` and `split`, means that there is none; None means: find it."""

    text: str | None = None
    text_pair: str | None = None
    label: str | tuple[str, ...] | bool | None = None
    split: str | bool | None = None


def find_roles(columns: Sequence[str], asked: Asked, source: str, hint: str = "") -> tuple[Roles, tuple[Note, ...]]:
    """The roles, those not named guessed by the column's name. Raises DataError for a column that is not there.

    `hint` is what may have gone wrong in this source where no column fits.
    """
    if not columns:
        raise DataError("there are no columns", place=source, cure="Give rows with a text and a label.")
    label = tuple(asked.label) if isinstance(asked.label, list | tuple) else asked.label
    several = label if isinstance(label, tuple) else (label,)
    for name in (asked.text, asked.text_pair, asked.split, *several):
        if isinstance(name, str):
            check_column(name, columns, source, hint)
    notes: list[Note] = []
    taken = {name for name in (asked.text, asked.text_pair, asked.split, *several) if isinstance(name, str)}
    text = asked.text or guess("text", text_names(columns, label), columns, taken, notes)
    if text is None:
        cure = f"Name it: text=…; the columns are {listed(columns)}. {hint}".rstrip()
        raise DataError("no column has a name that means a text", place=source, cure=cure)
    taken.add(text)
    pair = asked.text_pair
    if pair is None and asked.text is None:
        pair = next((column for column in columns if column.lower() == PAIRS.get(text.lower()) and column not in taken), None)
    if pair is not None and asked.text_pair is None:
        taken.add(pair)
        notes.append(Note(f"text_pair is column {pair!r}", f"it goes with {text!r}", "Pass text= and text_pair= to choose."))
    found_label: LabelRole = None
    if label is None or label is True:
        found_label = guess("label", LABELS, columns, taken, notes)
    elif label is not False:
        found_label = label
    split: str | None = asked.split if isinstance(asked.split, str) else None
    if asked.split is None or asked.split is True:
        split = guess("split", SPLITS, columns, taken, notes)
    return Roles(text, pair, found_label, split), tuple(notes)


def text_names(columns: Sequence[str], label: LabelRole | bool) -> tuple[str, ...]:
    """The names that mean a text, the likeliest first: lists of words come first where the label is a list of tags."""
    lower = {column.lower() for column in columns}
    likely = label.lower() if isinstance(label, str) else ""
    if label is None or label is True:
        likely = next((name for name in LABELS if name in lower), "")
    return (*WORDS, *TEXTS) if likely in TAGS else TEXTS


def guess(role: str, names: Sequence[str], columns: Sequence[str], taken: set[str], notes: list[Note]) -> str | None:
    """The first column whose name is usual for the role; a Note says so."""
    by_name = {column.lower(): column for column in reversed(columns) if column not in taken}
    for name in names:
        if name in by_name:
            change = f"Pass {role}= to choose" + ("." if role == "text" else f", {role}=False for none.")
            notes.append(Note(f"{role} is column {by_name[name]!r}", "its name says so", change))
            taken.add(by_name[name])
            return by_name[name]
    return None


def check_column(name: str, columns: Sequence[str], source: str, hint: str = "") -> None:
    """The column must be there; the nearest name is offered."""
    if name in columns:
        return
    near = get_close_matches(name.lower(), [column.lower() for column in columns], 1, 0.4)
    spelled = next((column for column in columns if near and column.lower() == near[0]), None)
    nearest = f"Did you mean {spelled!r}? " if spelled else ""
    raise DataError(f"no column {name!r}", place=source, cure=f"{nearest}The columns are {listed(columns)}. {hint}".rstrip())


def listed(columns: Sequence[str]) -> str:
    """The names of the columns, short enough for an error."""
    shown = ", ".join(name if len(name) <= 60 else f"{name[:57]}…" for name in columns[:20])
    return shown + (f" … {len(columns)} in all" if len(columns) > 20 else "")
