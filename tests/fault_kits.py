"""A small pipeline of every task with every kind of tokenizer, and how a text is put into it: what the list of bad inputs is tried on.

Takes the tag of a task and a kind of tokenizer. Gives a Kit with random models of two layers. Knows nothing of any one bad input.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import pellucid as pl
from conftest import TOKENIZERS
from matrix import ARCHITECTURES, COLUMNS, checkpoint
from pellucid.pipelines import Pipeline
from pellucid.task import Task, with_settings
from pellucid.tasks import task_class
from pellucid.tokens import TokenOptions
from pellucid.types import Prediction, Span

TOKENS = TokenOptions(max_length=32)
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "text2text-generation": ("max_new_tokens=4",),
    "text-generation": ("max_new_tokens=4",),
    "zero-shot-classification": ("candidate_labels=city,film",),
}
WITHOUT_ROWS = ("zero-shot-classification", "feature-extraction")
MODELS: Mapping[str, Mapping[str, str]] = {  # tag → kind of tokenizer → architecture
    "text2text-generation": {"unigram": "T5", "bpe": "BART"},
    "text-generation": {"bpe": "GPT-2", "unigram": "Llama"},
    "fill-mask": {"wordpiece": "BERT", "unigram": "XLM-R", "bpe": "BERT"},
}
USUAL = {"wordpiece": "BERT", "unigram": "XLM-R", "bpe": "GPT-2"}
ALL = pl.ReadOptions(valid_fraction=0.0)
READ: Mapping[str, Mapping[str, Any]] = {  # how `pl.read` is told what the columns are
    "token-classification": {"text": "text", "label": "entities", "options": replace(ALL, label_kind="spans")},
    "question-answering": {
        "text": "question",
        "text_pair": "context",
        "label": "answers",
        "options": replace(ALL, label_kind="answers"),
    },
    "text2text-generation": {"text": "text", "label": "target", "options": replace(ALL, label_kind="text")},
    "text-generation": {"text": "text", "label": False, "options": ALL},
    "fill-mask": {"text": "text", "label": False, "options": ALL},
    "zero-shot-classification": {"text": "text", "label": "label", "options": ALL},
    "feature-extraction": {"text": "text", "label": False, "options": ALL},
}
QUESTION = "Where is it?"
PLAIN = ("Peter lives in Berlin.", "Dull.", "I would watch it again, and again, in Paris!")
MEANT = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class Kit:
    """One task with one kind of tokenizer."""

    tag: str
    kind: str
    pipe: Pipeline

    @property
    def column(self) -> str:
        """The name of the column that a strange text is put into."""
        return "text_pair" if self.tag == "question-answering" else "text"

    def asked(self, text: Any) -> Any:
        """What is handed to `predict` so that the model reads this text."""
        if self.tag == "question-answering":
            return {"text": QUESTION, "text_pair": text}
        return f"{self.pipe.tokenizer.mask_token} {text}" if self.tag == "fill-mask" and isinstance(text, str) else text

    def row(self, text: Any) -> dict[str, Any]:
        """A row to learn from with this text, and a target that fits it."""
        first = text[:1] if isinstance(text, str) else "a"
        match self.tag:
            case "token-classification":
                return {"text": text, "entities": [[0, 1, "place"]] if first.strip() else []}
            case "question-answering":
                answers = {"text": [first], "answer_start": [0]} if first.strip() else {"text": [], "answer_start": []}
                return {"question": QUESTION, "context": text, "answers": answers}
            case "text2text-generation":
                return {"text": text, "target": "Good."}
            case "zero-shot-classification":
                return {"text": text, "label": "city"}
        return {"text": text}

    def read(self, texts: Sequence[Any]) -> pl.Rows:
        """Rows with these texts, as `pl.read` gives them."""
        return pl.read([self.row(text) for text in texts], **READ[self.tag])

    def predict(self, texts: Sequence[Any]) -> list[Prediction]:
        """The predictions for these texts."""
        return list(self.pipe.predict([self.asked(text) for text in texts]))

    def sound(self, text: str, prediction: Prediction) -> None:
        """What must hold of an answer to any text: spans are characters of it, numbers are finite, an answer is of its kind."""
        given = self.asked(text)
        given = given["text_pair"] if isinstance(given, dict) else given
        answer = prediction.answer if isinstance(prediction.answer, tuple) else ()
        spans = [*prediction.spans, *(one for one in answer if isinstance(one, Span))]
        for span in spans:
            assert 0 <= span.start <= span.end <= len(given), (span, len(given))
            assert span.text == given[span.start : span.end], span
            assert span.score is None or np.isfinite(span.score)
        assert all(np.isfinite(score) for score in prediction.scores.values())
        if self.tag == "token-classification":
            places = [(span.start, span.end) for span in spans]
            assert places == sorted(places) and all(start < end for start, end in places)
        elif self.tag == "feature-extraction":
            assert np.isfinite(prediction.answer).all() and len(prediction.answer) == 32  # type: ignore[arg-type]
        elif self.tag == "fill-mask":
            assert str(prediction.answer).endswith(text) or any(mask in text for mask in MEANT)
        else:
            assert isinstance(prediction.answer, str)

    def answered(self, texts: Sequence[str]) -> list[Prediction]:
        """The predictions for these texts between two plain ones, all of them sound, and the neighbours as they are alone."""
        found = self.predict([PLAIN[0], *texts, PLAIN[1]])
        assert [prediction.row for prediction in found] == list(range(len(texts) + 2)), "every row has its answer, in order"
        for text, prediction in zip(texts, found[1:-1], strict=True):
            self.sound(text, prediction)
        alone = self.predict([PLAIN[0]])[0]
        assert alike(alone, found[0]), "a neighbour changes nothing"
        return found[1:-1]


def alike(left: Prediction, right: Prediction) -> bool:
    """Whether two predictions for one text say the same: places and texts exactly, vectors but for rounding."""
    one, other = left.answer, right.answer
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return one == other
    if one and isinstance(one[0], float):
        return bool(np.allclose(one, other, atol=1e-4))  # type: ignore[arg-type]
    places = [[span.place for span in answer if isinstance(span, Span)] for answer in (one, other)]
    return len(one) == len(other) and places[0] == places[1]


@cache
def tokenizers() -> dict[str, Any]:
    """One tokenizer of each kind; "bpe" also with a mask."""
    made = {name: make() for name, make in TOKENIZERS.items()}
    masked = deepcopy(made["bpe"])
    masked.add_special_tokens({"mask_token": "<mask>", "pad_token": "<pad>"})
    return {**made, "masked-bpe": masked}


@cache
def folder_of(tag: str, kind: str) -> Path:
    """A folder with a small random checkpoint for this task and tokenizer."""
    kept = tempfile.TemporaryDirectory(prefix="pellucid-faults-")
    KEPT.append(kept)
    name = MODELS.get(tag, USUAL)[kind]
    architecture = next(one for one in ARCHITECTURES if one.name == name)
    if name == "BART":
        ids = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id")
        architecture = replace(architecture, settings={**architecture.settings, **dict.fromkeys(ids, 0)})
    tokenizer = deepcopy(tokenizers()["masked-bpe" if tag == "fill-mask" and kind == "bpe" else kind])
    column = next(one for one in COLUMNS if one.tag == tag)
    folder = Path(kept.name) / "checkpoint"
    why = checkpoint(architecture, column, tokenizer, folder)
    assert not why, why
    return folder


KEPT: list[Any] = []  # the folders live as long as the process


def kinds_of(tag: str) -> tuple[str, ...]:
    """The kinds of tokenizer that this task is tried with, the usual one first."""
    return tuple(MODELS.get(tag, USUAL))


def task_of(tag: str) -> Task:
    """The task with small settings."""
    return with_settings(task_class(tag)(), SETTINGS.get(tag, ()))


@cache
def kit(tag: str, kind: str = "", tokens: TokenOptions = TOKENS) -> Kit:
    """A pipeline of this task, made from three plain rows."""
    import torch

    kind = kind or kinds_of(tag)[0]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        bare = Kit(tag, kind, None)  # type: ignore[arg-type]  # its rows alone are needed
        rows = None if tag in WITHOUT_ROWS else bare.read(PLAIN)
        return Kit(tag, kind, Pipeline.new(task_of(tag), folder_of(tag, kind), rows, tokens=tokens))


def kits(tag: str) -> Iterator[Kit]:
    """The same task with each kind of tokenizer."""
    return (kit(tag, kind) for kind in kinds_of(tag))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail where this took longer: nothing may hang."""
    start = perf_counter()
    yield
    took = perf_counter() - start
    assert took < seconds, f"{took:.1f} s, expected less than {seconds}"


def conversation(*contents: str) -> str:
    """A conversation that ends with a question."""
    return json.dumps([{"role": "user" if place % 2 == 0 else "assistant", "content": one} for place, one in enumerate(contents)])
