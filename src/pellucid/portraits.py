"""The pictures that the values of `types` have in common: a list of tokens, arrays, logits, scores, seconds.

Takes plain columns, names and arrays. Gives views, shortened where they would fill pages, and says so where they are.
Knows nothing of screens, of the values' classes, or of where their numbers come from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from pellucid.printable import number, numbers
from pellucid.view import Bars, Cell, Lines, Stack, Table, View

TEXT_SHOWN = 2000  # characters of a field
LABELS_SHOWN = 12  # more labels than this are sorted by score, and the first are shown
TOKENS_SHOWN = 600  # a longer list of tokens shows its beginning and its end
LAST = 12  # of a shortened list
NOTHING = "(no answer)"  # where a text is empty: a question without an answer, nothing written


def text_lines(fields: Mapping[str, str]) -> Lines:
    """The texts of a row, each with its name where there are several; the start of very long ones."""
    many = len(fields) > 1
    lines = tuple(f"{name}: {_beginning(text)}" if many else _beginning(text) for name, text in fields.items())
    count = sum(map(len, fields.values()))
    return Lines(f"text · {count:,} character{'' if count == 1 else 's'}", lines)


def _beginning(text: str) -> str:
    more = len(text) - TEXT_SHOWN
    if more > 0:
        return f"{text[:TEXT_SHOWN]} … and {more:,} more characters"
    return text if text.strip() else f"(empty: {text!r})"


def token_table(title: str, columns: Mapping[str, Sequence[Cell]], *, note: str = "", limit: int = TOKENS_SHOWN) -> Table:
    """One row a token, to be laid out across the page; the middle of a list longer than `limit` is left out."""
    rows = list(zip(*columns.values(), strict=True))
    if len(rows) > limit:
        left = len(rows) - limit
        rows = [*rows[: limit - LAST], ("…",) * len(columns), *rows[len(rows) - LAST :]]
        note = f"{left:,} tokens in the middle are not shown. {note}".strip()
    return Table(title, tuple(columns), tuple(rows), note, across=True)


def array_table(title: str, arrays: Mapping[str, Any], *, note: str = "") -> Table:
    """Each array's name, shape and type, and its first row in short."""
    rows = tuple((name, str(tuple(array.shape)), str(array.dtype), first_row(array)) for name, array in arrays.items())
    return Table(title, ("name", "shape", "type", "first row"), rows, note)


def first_row(array: Any) -> str:
    """The first entry of a batch in short: runs where it repeats (`1 ×12, 0 ×4`), else its beginning and its end."""
    values = as_numpy(array)
    if values.size == 0:
        return "(empty)"
    flat = np.atleast_1d(values[0] if values.ndim else values).ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    if len(flat) > 1 and len(edges) <= 3 and len(flat) > 2 * len(edges) + 1:
        starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(flat)]
        shown = _numbers(flat[starts])
        return ", ".join(f"{text} ×{stop - start}" for text, start, stop in zip(shown, starts, stops, strict=True))
    if len(flat) <= 10:
        return " ".join(_numbers(flat))
    shown = _numbers(np.concatenate([flat[:7], flat[-2:]]))
    return " ".join([*shown[:7], "…", *shown[7:]])


def _numbers(values: Any) -> list[str]:
    return numbers(values.tolist()) if np.issubdtype(values.dtype, np.floating) else [str(value) for value in values.tolist()]


def as_numpy(array: Any) -> Any:
    """A numpy array of what may be a tensor."""
    if hasattr(array, "detach"):
        tensor = array.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.asarray(array)


def how_scored(logits: Any, scores: Sequence[float]) -> Literal["softmax", "sigmoid", ""]:
    """Which function makes these scores of these logits, (labels,); "" where neither does."""
    values = np.asarray(logits, dtype=np.float64)
    given = np.asarray(scores, dtype=np.float64)
    if values.shape != given.shape or not len(values) or not np.isfinite(values).all():
        return ""
    powers = np.exp(values - values.max())
    if np.allclose(powers / powers.sum(), given, atol=1e-3):
        return "softmax"
    return "sigmoid" if np.allclose(np.exp(-np.logaddexp(0.0, -values)), given, atol=1e-3) else ""


def logit_table(logits: Any, names: Sequence[str], scored: str) -> Table:
    """One row a label: its logit (in each window, where there are several) and what the score is made of.

    `logits` is (windows, labels).
    """
    values = as_numpy(logits).astype(np.float64)
    windows, count = values.shape
    labels = list(names) if len(names) == count else [str(position) for position in range(count)]
    order = range(count) if count <= LABELS_SHOWN else np.argsort(-values.max(axis=0), kind="stable")[:LABELS_SHOWN].tolist()
    heads = ["logit"] if windows == 1 else [f"logit, window {window}" for window in range(windows)]
    columns: dict[str, list[float]] = {head: [float(values[window, label]) for label in order] for window, head in enumerate(heads)}
    note = "" if count <= LABELS_SHOWN else f"the {LABELS_SHOWN} highest of {count:,}"
    if windows == 1 and scored == "softmax" and np.abs(values).max() < 50:
        powers = np.exp(values[0])
        columns["e^logit"] = [float(powers[label]) for label in order]
        note = f"{note + '; ' if note else ''}softmax: each e^logit divided by their sum, {number(float(powers.sum()))}"
    elif windows == 1 and scored == "sigmoid":
        note = f"{note + '; ' if note else ''}sigmoid: 1 / (1 + e^-logit), each label for itself"
    rows = tuple((labels[label], *cells) for label, *cells in zip(order, *columns.values(), strict=True))
    shape = "batch, labels" if windows == 1 else "windows, labels"
    return Table(f"logits · shape {tuple(values.shape)} = ({shape})", ("label", *columns), rows, note)


def score_bars(scores: Mapping[str, float], scored: str = "") -> Bars:
    """The scores in label order, or the highest where there are many labels."""
    names = list(scores)
    title = {"softmax": "scores · softmax of the logits, together 1", "sigmoid": "scores · sigmoid of each logit"}.get(scored, "scores")
    if len(names) > LABELS_SHOWN:
        names = sorted(names, key=lambda name: -math.inf if math.isnan(scores[name]) else scores[name], reverse=True)[:LABELS_SHOWN]
        title = f"{title} · the {LABELS_SHOWN} highest of {len(scores):,}"
    return Bars(title, tuple(names), tuple(float(scores[name]) for name in names))


def answer_text(answer: Any, scores: Mapping[str, float]) -> str:
    """An answer as a person says it, with its score where it has one: a name, a text, a number, names, spans or a vector."""
    if isinstance(answer, tuple) and answer and isinstance(answer[0], float):
        few = " ".join(numbers(list(answer[:4])))
        return f"a vector of {len(answer)} numbers: {few}{' …' if len(answer) > 4 else ''}"
    if isinstance(answer, tuple):
        return ", ".join(map(str, answer)) if answer else "no label"
    if answer == "":
        return NOTHING
    if isinstance(answer, str):
        return f"{answer} ({number(float(scores[answer]))})" if answer in scores else answer
    return number(float(answer))


def second_bars(seconds: Mapping[str, float]) -> Bars:
    """How long each step took."""
    return Bars(f"seconds · {number(sum(seconds.values()))} in all", tuple(seconds), tuple(seconds.values()))


def weight_lines(counts: Mapping[str, int], new_names: Sequence[str]) -> tuple[str, ...]:
    """Which weights made an answer, for `Trace.weights`: how many of each origin, and the names of the new ones."""
    shares = ", ".join(f"{count:,} {origin}" for origin, count in counts.items())
    names = sorted(new_names)
    if not names:
        return (f"{sum(counts.values()):,} parameters: {shares}.",)
    few = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return (
        f"{sum(counts.values()):,} parameters: {shares}.",
        f"New: {few}. They were not in the checkpoint and started as random numbers: they know only what training here has taught them.",
    )


def numbered(title: str, parts: Sequence[View]) -> Stack:
    """Parts one below the other, with their number in their title."""
    return Stack(title, tuple(replace(part, title=f"{position} · {part.title}") for position, part in enumerate(parts, 1)))
