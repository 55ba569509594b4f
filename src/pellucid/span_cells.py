"""Label cells that hold spans of a text, or the answers of a question.

Takes one cell as files, frames and Datasets hold it, and the text that it points into. Gives spans that stand where they say.
Knows nothing of columns, rows or files; offsets count characters, and what counts bytes is found out and said.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

from pellucid.errors import LabelError
from pellucid.labels import is_missing
from pellucid.types import Span

STARTS = ("start", "begin", "start_offset", "start_char")
ENDS = ("end", "stop", "end_offset", "end_char")
NAMES = ("label", "entity", "type", "tag")
ANSWER_START = "answer_start"
SPANS_CURE = 'Write spans as [{"start": 0, "end": 5, "label": "PER"}, …] or [[0, 5, "PER"], …]; [] means that there are none.'
ANSWERS_CURE = 'Write answers as {"text": ["…"], "answer_start": [0]} or [{"text": "…", "answer_start": 0}]; [] means that there is none.'
BYTES_CURE = "Count characters: the byte offset b is the character len(text.encode()[:b].decode())."
Name = Callable[[object], str | None]  # a label as it is written → its name, None where it is missing


def plain_list(cell: Any) -> Any:
    """A list for an array or a tuple; anything else as it is."""
    if getattr(cell, "ndim", 0) and hasattr(cell, "tolist"):
        return cell.tolist()
    return list(cell) if isinstance(cell, tuple) else cell


def entries_of(cell: Any, cure: str) -> list[Any]:
    """The entries of a cell: of a list, or of a dict of lists, as Datasets keep lists of dicts. Raises LabelError for anything else."""
    if isinstance(cell, Mapping):
        columns = {key: plain_list(values) for key, values in cell.items()}
        lists = {key: values for key, values in columns.items() if isinstance(values, list)}
        if not lists:
            return [cell]
        if len({len(values) for values in lists.values()}) > 1:
            lengths = ", ".join(f"{key!r} has {len(values)}" for key, values in lists.items())
            raise LabelError(f"the lists of one row differ in length: {lengths}", cure=cure)
        return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    found = plain_list(cell)
    if not isinstance(found, list):
        raise LabelError(f"expected a list, came {type(cell).__name__} ({cell!r:.40})", cure=cure)
    return found


def shape_of(cell: Any) -> str:
    """What a label cell looks like: "answers", "spans", "list" (of anything else), "empty" (a list of nothing), or "" for no list."""
    if isinstance(cell, set | frozenset):
        return "list"
    cell = plain_list(cell)
    if isinstance(cell, Mapping):
        return "answers" if ANSWER_START in cell else "spans" if not cell.keys().isdisjoint(STARTS) else ""
    if not isinstance(cell, list):
        return ""
    if not cell:
        return "empty"
    first = plain_list(cell[0])
    if isinstance(first, Mapping):
        return shape_of(first) or "list"
    numbers = isinstance(first, list) and len(first) == 3 and all(isinstance(edge, Integral) for edge in first[:2])
    return "spans" if numbers else "list"


def spans_of_cell(cell: Any, text: str, name: Name, *, longest: bool = False) -> tuple[Span, ...] | None:
    """The spans of one cell in the order of the text, each once; None where the cell is missing.

    Takes dicts (start or begin, end, label or entity or type; "text" is checked where it is given) or [start, end, label] lists.
    Raises LabelError for spans outside the text, empty ones, offsets that count bytes, and spans that overlap; where `longest`, the
    longest of those is kept, the first of equal ones.
    """
    if is_missing(cell):
        return None
    found = [span_of(entry, f"span {number}", text, name) for number, entry in enumerate(entries_of(cell, SPANS_CURE), 1)]
    ordered = sorted(set(found), key=lambda span: (span.start, -span.end, span.label))
    if longest:
        return without_overlaps(ordered)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            cure = "Keep one of the two, or pass ReadOptions(on_overlap='longest')."
            raise LabelError(f"{told(before)} and {told(after)} overlap", cure=cure)
    return tuple(ordered)


def without_overlaps(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The longest of the spans that overlap, in the order of the text."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start - span.end):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return tuple(sorted(kept, key=lambda span: span.start))


def told(span: Span) -> str:
    """A span for an error: `'Berlin' (10 to 16, 'location')`."""
    return f"{quoted(span.text)} ({span.start} to {span.end}, {span.label!r:.40})"


def span_of(entry: Any, what: str, text: str, name: Name) -> Span:
    """One entry as a Span over `text`. Raises LabelError that begins with `what`."""
    if isinstance(entry, Mapping):
        start, end, label = (first_of(entry, keys, what) for keys in (STARTS, ENDS, NAMES))
        said = entry.get("text")
    else:
        parts = plain_list(entry)
        if not isinstance(parts, list) or len(parts) != 3:
            raise LabelError(f"{what} is {entry!r:.60}, expected its start, its end and its label", cure=SPANS_CURE)
        (start, end, label), said = parts, None
    start, end = offset(start, f"{what}, start"), offset(end, f"{what}, end")
    called = name(label)
    if called is None:
        raise LabelError(f"{what} has no label", cure="Name what it is, or leave the span out.")
    if start >= end:
        raise LabelError(f"{what} begins at character {start} and ends at {end}", cure="The end is exclusive and lies behind the start.")
    said = said if isinstance(said, str) else None
    if said is not None and said != text[start:end] and said == bytes_at(text, start, end):
        raise LabelError(f"{what}: its offsets {start} and {end} count bytes: there stands {quoted(said)}", cure=BYTES_CURE)
    if start < 0 or end > len(text):
        size = len(text.encode("utf-8", "surrogatepass"))
        bytes_ = f", {size} bytes: the offsets seem to count bytes" if 0 <= start and end <= size else ""
        cure = BYTES_CURE if bytes_ else "Mend the offsets: they count the characters of the text from 0."
        raise LabelError(f"{what} is {start} to {end}, the text has {len(text)} characters{bytes_}", cure=cure)
    if said is not None and said != text[start:end]:
        problem = f"{what} is said to be {quoted(said)}, but from {start} to {end} the text says {quoted(text[start:end])}"
        raise LabelError(problem, cure=elsewhere(said, text, "Its start"))
    return Span(start, end, called, text=text[start:end])


def answers_of_cell(cell: Any, context: str) -> tuple[Span, ...] | None:
    """The answers of one question as spans over its context, each once and in their order; () for none, None where the cell is missing.

    Takes {"text": […], "answer_start": […]} or a list of {"text", "answer_start"}. Raises LabelError for an answer that is empty or not
    where it is said to be, with the place where it is.
    """
    if is_missing(cell):
        return None
    found = []
    for number, entry in enumerate(entries_of(cell, ANSWERS_CURE), 1):
        what = f"answer {number}"
        if not isinstance(entry, Mapping):
            raise LabelError(f"{what} is {entry!r:.60}, expected a text and where it starts", cure=ANSWERS_CURE)
        text, start = first_of(entry, ("text",), what), offset(first_of(entry, (ANSWER_START,), what), f"{what}, answer_start")
        if not isinstance(text, str) or not text:
            came = "is empty" if text == "" else f"is no text but {type(text).__name__}"
            raise LabelError(f"{what} {came}", cure="A question without an answer has an empty list of answers.")
        if start < 0 or context[start : start + len(text)] != text:
            raise misplaced(what, text, start, context)
        found.append(Span(start, start + len(text), text=text))
    return tuple(dict.fromkeys(found))


def misplaced(what: str, text: str, start: int, context: str) -> LabelError:
    """What to say of an answer that does not stand where it is said to."""
    if text == bytes_at(context, start, start + len(text.encode("utf-8", "surrogatepass"))):
        right = len(context.encode("utf-8", "surrogatepass")[:start].decode("utf-8", "surrogatepass"))
        return LabelError(
            f"{what}, {quoted(text)}: answer_start {start} counts bytes; in characters it is {right}",
            cure=BYTES_CURE.replace("text", "context"),
        )
    if text not in context:
        cure = "Copy the answer from the context letter by letter, or drop the row."
        return LabelError(f"{what}, {quoted(text)}, is not in the context", cure=cure)
    problem = f"{what}, {quoted(text)}, does not stand at character {start} of the context of {len(context)}"
    return LabelError(problem, cure=elsewhere(text, context, "Its answer_start"))


def elsewhere(said: str, text: str, name: str) -> str:
    """Where a text stands instead, as a cure."""
    places: list[int] = []
    at = text.find(said) if said else -1
    while at >= 0 and len(places) < 4:
        places.append(at)
        at = text.find(said, at + 1)
    if not places:
        return "Mend the offsets or the text."
    if len(places) == 1:
        return f"{name} is {places[0]}."
    return f"{name} may be {', '.join(map(str, places[:3]))}{' or another' if len(places) > 3 else ''}."


def bytes_at(text: str, start: int, end: int) -> str | None:
    """What stands between two byte offsets of a text in UTF-8; None where they cut a character, or lie outside."""
    data = text.encode("utf-8", "surrogatepass")
    if not 0 <= start <= end <= len(data):
        return None
    try:
        return data[start:end].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def in_bytes(span: Span, text: str) -> str:
    """What stands at the offsets of a span if they count bytes, where that is whole words and its characters are not; else "".

    Where the cell does not say the text of its spans, that is all that can be known.
    """
    if text.isascii() or not (cuts_word(text, span.start) or cuts_word(text, span.end)):
        return ""
    said = bytes_at(text, span.start, span.end)
    if not said or said != said.strip() or said == text[span.start : span.end]:
        return ""
    start = len(text.encode("utf-8", "surrogatepass")[: span.start].decode("utf-8", "surrogatepass"))
    return "" if cuts_word(text, start) or cuts_word(text, start + len(said)) else said


def cuts_word(text: str, place: int) -> bool:
    """Whether a place lies between two letters or digits."""
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def first_of(entry: Mapping[Any, Any], keys: Sequence[str], what: str) -> Any:
    """The value of the first key that is there. Raises LabelError with the keys that are."""
    for key in keys:
        if key in entry:
            return entry[key]
    has = ", ".join(map(str, entry))
    raise LabelError(f"{what} has no {keys[0]!r}, only {has:.80}", cure=ANSWERS_CURE if keys[0] in ("text", ANSWER_START) else SPANS_CURE)


def offset(value: Any, what: str) -> int:
    """A whole number of characters."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer():
        return int(float(value))
    raise LabelError(f"{what}: expected a whole number of characters, came {value!r:.40}", cure="Offsets count the characters from 0.")


def quoted(text: str) -> str:
    """A text in quotes, cut where it is long."""
    return repr(text if len(text) <= 60 else text[:60] + "…")
