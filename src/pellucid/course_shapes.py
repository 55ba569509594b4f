"""Predictions in the shapes that the pipelines of transformers give: lists of dicts with plain values.

Takes one row's prediction with its texts, tokens and output, and the words that somebody asked with. Gives what the course prints.
Knows nothing of how a pipeline is found, opened or called.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pellucid.batch import plan_sorted, widths
from pellucid.chats import chat_of
from pellucid.given import as_split
from pellucid.pipelines import Pipeline
from pellucid.tokens import LongTexts
from pellucid.types import Example, IntArray, Output, Prediction, Span, Tokens, Want

Words = Mapping[str, Any]
Shape = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What was said to one row, and what its shape needs beside it; `tokens` and `output` are made for those that ask."""

    pipe: Pipeline
    words: Words
    example: Example
    prediction: Prediction
    tokens: Callable[[], Sequence[Tokens]]  # of every window of the row
    output: Callable[[], Output]  # the same windows


def label_shape(said: Said) -> Any:
    """`{'label', 'score'}` of the best label; a list of them with `top_k`, or of all that reach their thresholds."""
    prediction, task = said.prediction, said.pipe.task
    if task.kind == "regression":
        return {"label": said.pipe.model.config.id2label[0], "score": prediction.answer}
    ranked = sorted(prediction.scores.items(), key=lambda pair: -pair[1])
    every = [{"label": label, "score": score} for label, score in ranked]
    if "top_k" in said.words:
        return every[: said.words["top_k"]]
    if task.kind == "multi_label" and getattr(task, "thresholds", None):
        return [one for one in every if one["label"] in prediction.answer]  # type: ignore[operator]  # a tuple of names
    return every[0]


def entity_shape(said: Said) -> list[Shape]:
    """`{'entity', 'score', 'index', 'word', 'start', 'end'}` a token, or `{'entity_group', 'score', 'word', 'start', 'end'}` a group."""
    answer = said.prediction.answer if isinstance(said.prediction.answer, tuple) else ()
    spans = [span for span in answer if isinstance(span, Span)]
    if getattr(said.pipe.task, "aggregation", "none") != "none":
        return [group_shape(said, span) for span in spans]
    return [
        {"entity": span.label, "score": span.score, "index": index, "word": piece, "start": span.start, "end": span.end}
        for span, (index, piece) in zip(spans, own_tokens(said, spans), strict=True)
    ]


def own_tokens(said: Said, spans: Sequence[Span]) -> list[tuple[int, str]]:
    """The token that each span is, in the order of the text: its number in its window, and its piece."""
    names, logits = said.pipe.model.config.id2label, said.output().logits
    known: dict[tuple[int, int, str], list[tuple[int, str]]] = {}  # several tokens may stand for the same characters: a space, a byte
    for window, tokens in enumerate(said.tokens()):
        for index, (start, end) in enumerate(tokens.offsets):
            if not tokens.special[index]:
                label = names[int(logits[window, index].argmax())]
                known.setdefault((start, end, label), []).append((index, tokens.pieces[index]))
    found = []
    for span in spans:
        matching = known.get(span.place, [])
        found.append(matching.pop(0) if len(matching) > 1 else matching[0] if matching else (0, span.text))
    return found


def group_shape(said: Said, span: Span) -> Shape:
    """Tokens that belong together, spelled as the tokenizer does."""
    unknown = said.pipe.tokenizer.unk_token
    inside: dict[tuple[int, int], str] = {}
    for tokens in said.tokens():
        for piece, (start, end), special in zip(tokens.pieces, tokens.offsets, tokens.special, strict=True):
            if not special and span.start <= start < end <= span.end:
                inside[start, end] = said.example.fields["text"][start:end] if piece == unknown else piece
    word = said.pipe.tokenizer.convert_tokens_to_string([inside[place] for place in sorted(inside)]) if inside else span.text
    return {"entity_group": span.label, "score": span.score, "word": word, "start": span.start, "end": span.end}


def answer_shape(said: Said) -> Any:
    """`{'score', 'start', 'end', 'answer'}`; a list of them with `top_k`. No answer is an empty one."""
    spans = said.prediction.spans or (Span(0, 0, score=0.0),)
    shapes = [{"score": span.score, "start": span.start, "end": span.end, "answer": span.text} for span in spans]
    return shapes[: said.words["top_k"]] if said.words.get("top_k", 1) != 1 else shapes[0]


def candidate_shape(said: Said) -> Shape:
    """`{'sequence', 'labels', 'scores'}`, the best label first."""
    ranked = sorted(said.prediction.scores.items(), key=lambda pair: -pair[1])
    labels, scores = [label for label, _ in ranked], [score for _, score in ranked]
    return {"sequence": said.example.fields["text"], "labels": labels, "scores": scores}


def mask_shape(said: Said) -> Any:
    """`{'score', 'token', 'token_str', 'sequence'}` a word that was weighed; a list of such lists where there are several masks."""
    tokenizer, output = said.pipe.tokenizer, said.output()
    masks = []
    for window, tokens in enumerate(said.tokens()):
        ids = np.array(tokens.ids)
        places = np.flatnonzero(ids == tokenizer.mask_token_id)
        for mask, place in enumerate(places.tolist()):
            numbers, chances = output.ids[window, mask].tolist(), np.exp(output.logits[window, mask]).tolist()  # type: ignore[index]
            masks.append([(ids, place, number, chance) for number, chance in zip(numbers, chances, strict=True) if number >= 0])
    alone = len(masks) == 1  # else the other masks must stay to be seen
    shapes = [[word_shape(tokenizer, *word, alone=alone) for word in weighed] for weighed in masks]
    return shapes[0] if alone else shapes


def word_shape(tokenizer: Any, ids: IntArray, place: int, number: int, chance: float, *, alone: bool) -> Shape:
    """A word that was weighed for a mask, and the text with it."""
    filled = ids.copy()
    filled[place] = number
    sequence = tokenizer.decode(filled.tolist(), skip_special_tokens=alone)
    return {"score": chance, "token": number, "token_str": tokenizer.decode([number]), "sequence": sequence}


def texts_shape(name: str, said: Said) -> list[Shape]:
    """`{name}` for each text that was made."""
    made = [text for text, _ in said.prediction.alternatives] or [str(said.prediction.answer)]
    return [{name: text} for text in made]


def continued_shape(said: Said) -> list[Shape]:
    """`{'generated_text'}` for each text that was made: behind its prompt, or without it; of a chat its messages with the answer."""
    prompt, whole = said.example.fields["text"], said.words.get("return_full_text", True)
    made = [shape["generated_text"] for shape in texts_shape("generated_text", said)]
    chat = chat_of(prompt)
    if not whole:
        return [{"generated_text": text} for text in made]
    if chat is None:
        return [{"generated_text": prompt + text} for text in made]
    return [{"generated_text": [*chat, {"role": "assistant", "content": text}]} for text in made]


def token_vectors(pipe: Pipeline, rows: Sequence[Any]) -> list[Any]:
    """The last hidden state of every token, special ones too: for each row [1][tokens][hidden], as transformers gives it."""
    cut = replace(pipe, options=replace(pipe.options, long=LongTexts("truncate")))
    table = cut.encode(as_split(list(rows), cut.task.reads))
    found: dict[int, Any] = {}
    for windows in plan_sorted(widths(table, cut.pad), cut.budget):
        batch = cut.collate(table, windows)
        layers = cut.run(batch, Want(hidden_states=True)).hidden_states
        for row, hidden, mask in zip(batch.rows.tolist(), layers[-1], batch.inputs["attention_mask"], strict=True):
            found[row] = [hidden[: len(mask)][mask.astype(bool)].tolist()]
    return [found[row] for row in range(len(found))]
