"""What the cells of a source mean: texts, lists of words, splits, and every kind of label.

Takes raw cells and the roles of their columns. Gives texts and targets as they are stored, or an error that its row is added to.
Knows nothing of chunks, files or tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pellucid.chats import chat_text, is_chat
from pellucid.errors import DataError, LabelError, SettingError
from pellucid.labels import canonical_label, is_missing, label_sets, number_of, sort_labels
from pellucid.readers.chunks import SPLIT_NAMES, ReadOptions
from pellucid.roles import TARGET_TEXTS, Roles
from pellucid.span_cells import answers_of_cell, in_bytes, plain_list, shape_of, spans_of_cell
from pellucid.tagging import TagCensus, is_chunked, spans_of_tags, word_spans
from pellucid.types import Note, Span

ON = frozenset(("1", "1.0", "True", "true", "TRUE", "yes"))  # cells of a column of 0 and 1
OFF = frozenset(("0", "0.0", "False", "false", "FALSE", "no"))
SPLIT_CELLS = SPLIT_NAMES | {"false": "train", "0": "train", "true": "valid", "1": "valid"}
SPANS = frozenset(("tags", "spans", "answers"))  # kinds whose targets are stored as spans
REPEATED = 5  # texts to be written that come so often each, on average, are classes


class Missing(Exception):
    """A cell that is not there; its place is added by whoever knows it."""


@dataclass
class CellReader:
    """How the cells of one source are read. `kind` is one of `ReadOptions.label_kind`, but never "auto"."""

    roles: Roles
    options: ReadOptions
    kind: str = "class"
    words: frozenset[str] = frozenset()  # the text roles whose cells are lists of words
    chats: frozenset[str] = frozenset()  # the text roles whose first rows have lists of messages
    chunked: bool = False  # whether tags mark entities: B-, I-, O
    census: TagCensus = field(default_factory=TagCensus)
    suspects: list[str] = field(default_factory=list)  # what stands at the offsets of spans that seem to count bytes

    @property
    def found_roles(self) -> Roles:
        """The roles, with what the targets turned out to be."""
        if not self.roles.labels:
            return self.roles
        scheme = "" if self.kind != "tags" else self.census.scheme if self.chunked else "plain"
        return replace(self.roles, target="spans" if self.kind == "tags" else self.kind, scheme=scheme)

    def text(self, role: str, value: Any) -> str:
        """A text, the words of a list as one, or the JSON of messages. Numbers, bytes and other lists are refused: they are no texts."""
        if role not in self.words and (chat := chat_text(plain_list(value))) is not None:
            return chat
        if role in self.words and not is_missing(value):
            words = plain_list(value)
            if not isinstance(words, list):
                cure = "Give each row a list of words, or each a text."
                raise DataError(f"expected a list of words, came {type(value).__name__} ({value!r:.40})", cure=cure)
            return word_spans(words)[0]
        return text_cell(value)

    def target(self, values: list[Any], texts: Mapping[str, str]) -> Any:
        """The target of one row as it is stored; None where the label is missing, or the rows have none.

        `values` are the cells of the label columns, `texts` those of the row: role → text.
        """
        if not values:
            return None
        if len(values) > 1:
            on = [is_on(value) for value in values]
            return None if None in on else list(sort_labels(name for name, yes in zip(self.roles.labels, on, strict=True) if yes))
        value = values[0]
        if self.kind in SPANS:
            spans = self.spans(value, texts)
            return None if spans is None else [{"start": span.start, "end": span.end, "label": span.label} for span in spans]
        if self.kind == "text":
            return written(value)
        if self.kind == "set":
            found = label_sets(value, self.options.label_separator)
            return None if found is None else list(sort_labels(named(found, self.options)))
        name = self.name(value)
        return number(name) if self.kind == "number" and name is not None else name

    def name(self, value: object) -> str | None:
        """The name of one label; None where it is missing."""
        name = canonical_label(value)
        return name if name is None or not self.options.label_names or self.kind == "number" else named((name,), self.options)[0]

    def spans(self, value: Any, texts: Mapping[str, str]) -> tuple[Span, ...] | None:
        """The spans that a cell of tags, spans or answers stands for."""
        if self.kind == "answers":
            if "text_pair" not in texts:
                raise LabelError("answers stand in a context, and no column is one", cure='Name it: text_pair="context".')
            return answers_of_cell(value, texts["text_pair"])
        if self.kind == "tags":
            return self.tags(value, texts["text"])
        if "text" in self.words and self.options.label_kind == "auto":
            cure = "Give one tag a word; ReadOptions(label_kind='spans') counts characters, of the words joined by single spaces."
            raise LabelError("spans over a list of words: it is not clear whether they count words or characters", cure=cure)
        found = spans_of_cell(value, texts["text"], self.name, longest=self.options.on_overlap == "longest")
        self.suspects += [said for span in found or () if (said := in_bytes(span, texts["text"]))]
        return found

    def tags(self, value: Any, text: str) -> tuple[Span, ...] | None:
        """The spans that the tags of a row stand for."""
        if is_missing(value):
            return None
        if "text" not in self.words:
            cure = "Name the column of words with text=…; a text is cut into words with text.split()."
            raise LabelError("one tag a word needs a list of words, and the text is no list", cure=cure)
        cells = plain_list(value)
        if not isinstance(cells, list):
            raise LabelError(f"expected a list of tags, came {type(value).__name__} ({value!r:.40})", cure="Give each word one tag.")
        names: list[str] = []
        for position, cell in enumerate(cells, 1):
            name = self.name(cell)
            if name is None:
                raise LabelError(f"word {position} has no tag", cure="Tag it (O is outside), or leave the word out.")
            names.append(name)
        found = spans_of_tags(names, word_spans(text.split(" "))[1] if text else [], plain=not self.chunked)
        if self.chunked:
            self.census.add(names)
        return found

    def notes(self) -> Iterator[Note]:
        """What was chosen for the user."""
        for role in sorted(self.words):
            change = "A space within a word is a no-break space there."
            yield Note(f"{role} is the words with single spaces between", f"column {self.roles.texts[role]!r} holds lists", change)
        for role in sorted(self.chats):
            yield Note(f"{role} is a conversation, written as JSON", f"column {self.roles.texts[role]!r} holds lists of messages")
        if not self.roles.labels or self.options.label_kind != "auto" or self.kind in ("class", "set", "number"):
            return
        column, change = self.roles.labels[0], "Pass ReadOptions(label_kind=…) to choose."
        if self.kind == "text":
            yield Note("the targets are texts to be written", f"the name of column {column!r} says so", change)
        elif self.kind == "tags":
            scheme = self.found_roles.scheme
            spans = "each word is a span" if scheme == "plain" else f"read as {scheme}, each entity is a span"
            yield Note(f"the targets are a tag for each word; {spans}", f"columns {self.roles.text!r} and {column!r} hold lists", change)
        else:
            yield Note(f"the targets are {self.kind}", f"the cells of column {column!r} say where each begins", change)


def reader_of(columns: Mapping[str, Sequence[Any]], roles: Roles, options: ReadOptions) -> CellReader:
    """How to read the cells of a source, by its first rows. Raises SettingError for options that contradict each other."""
    chats = frozenset(role for role, column in roles.texts.items() if any(is_chat(plain_list(cell)) for cell in columns[column]))
    words = frozenset(role for role, column in roles.texts.items() if role not in chats and holds_words(columns[column]))
    kind = kind_of(columns, roles, options, words="text" in words)
    chunked = kind == "tags" and is_chunked(tags_in(columns[roles.labels[0]], options))
    return CellReader(roles, options, kind, words, chats, chunked)


def holds_words(column: Sequence[Any]) -> bool:
    """Whether the first cell that is not missing is a list."""
    return next((isinstance(plain_list(cell), list) for cell in column if not is_missing(cell)), False)


def kind_of(columns: Mapping[str, Sequence[Any]], roles: Roles, options: ReadOptions, *, words: bool) -> str:
    """What the label cells are: what was asked for, or what the first rows show. `words`: the texts are lists of words."""
    asked = options.label_kind
    many = len(roles.labels) > 1 or options.label_separator is not None
    if many and asked not in ("auto", "set"):
        several = "several label columns" if len(roles.labels) > 1 else "a label_separator"
        problem = f"{several} make sets of labels, but label_kind is {asked!r}"
        raise SettingError(problem, place="label_kind", cure="Leave label_kind out, or name one label column.")
    if asked != "auto" or many:
        return "set" if many else asked
    if not roles.labels:
        return "class"
    column, name = columns[roles.labels[0]], roles.labels[0].lower()
    shapes = set(map(shape_of, column))
    for shape in ("answers", "spans"):
        if shape in shapes:
            return shape
    if shapes & {"list", "empty"}:
        if words:
            return "tags"
        empty = {"answers": "answers", "spans": "spans", "entities": "spans"}.get(name, "set")
        return "set" if "list" in shapes else empty
    return "text" if name in TARGET_TEXTS and are_written(column) else "class"


def are_written(column: Sequence[Any]) -> bool:
    """Whether cells are texts that somebody wrote, each hardly more than once, and no names of classes."""
    texts = [cell for cell in column if isinstance(cell, str) and cell]
    return bool(texts) and len(texts) < REPEATED * len(set(texts))


def tags_in(column: Sequence[Any], options: ReadOptions) -> Iterator[str]:
    """The tags in a column, as far as they are tags."""
    names = options.label_names
    for cell in column:
        tags = plain_list(cell)
        for tag in tags if isinstance(tags, list) else ():
            if isinstance(tag, str):
                yield tag.strip()
            elif isinstance(tag, int):
                yield names[tag] if 0 <= tag < len(names) else str(tag)


def text_cell(value: Any) -> str:
    """A text. Numbers, bytes and lists are refused: they are no texts."""
    if isinstance(value, str):
        return value
    if is_missing(value):
        raise Missing("the text is missing")
    cure = "Convert the column to text before, or name another column with text=."
    raise DataError(f"expected a text, came {type(value).__name__} ({value!r:.40})", cure=cure)


def written(value: Any) -> str | None:
    """A text that is to be written, as it is; None where it is empty or missing."""
    if isinstance(value, str):
        return value or None
    if is_missing(value):
        return None
    raise LabelError(f"expected a text, came {type(value).__name__} ({value!r:.40})", cure="Convert the column to text before.")


def number(name: str) -> float:
    """A finite number."""
    value = number_of(name)
    if value is None:
        cure = "Mend the row, or read classes: ReadOptions(label_kind='class')."
        raise LabelError(f"expected a finite number, came {name!r:.60}", cure=cure)
    return value


def named(labels: tuple[str, ...], options: ReadOptions) -> tuple[str, ...]:
    """The names that belong to class numbers, where they were given."""
    if not options.label_names:
        return labels
    known = options.label_names
    for label in labels:
        if label not in known and not (label.isdecimal() and int(label) < len(known)):
            cure = f"label_names has {len(known)} names, numbered from 0."
            raise LabelError(f"label {label!r:.60} has no name", cure=cure)
    return tuple(label if label in known else known[int(label)] for label in labels)


def is_on(value: Any) -> bool | None:
    """Whether a cell of a column of 0 and 1 says yes; None where it is missing."""
    name = canonical_label(value)
    if name is None or name in ON or name in OFF:
        return None if name is None else name in ON
    raise LabelError(f"expected 0 or 1, came {value!r:.40}", cure="Name one label column, or columns of 0 and 1.")


def split_cell(value: Any) -> str:
    """train, valid or test."""
    name = canonical_label(value)
    if name is None:
        raise Missing("the split is missing")
    if name.lower() not in SPLIT_CELLS:
        cure = "Use train, valid and test, or True for the rows that are kept aside (is_valid); split=False reads no split."
        raise DataError(f"expected train, valid or test, came {name!r:.40}", cure=cure)
    return SPLIT_CELLS[name.lower()]
