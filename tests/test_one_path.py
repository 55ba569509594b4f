"""One path: prediction, training, trace and evaluation go through the same encode, collate, run and decode of the task."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import pellucid as pl
from conftest import SENTENCES
from pellucid.tasks.sequence_classification import SequenceClassification

STEPS = ("encode", "collate", "run", "decode")
CALLS: Counter[str] = Counter()


@dataclass(frozen=True)
class Counting(SequenceClassification):
    """The task itself, counting its calls; with `contrary` it decodes every logit with the opposite sign."""

    contrary: bool = field(default=False)

    def encode(self, tokenizer, columns, targets, options):
        CALLS["encode"] += 1
        return SequenceClassification.encode(self, tokenizer, columns, targets, options)

    def collate(self, tokens, windows, pad):
        CALLS["collate"] += 1
        return SequenceClassification.collate(self, tokens, windows, pad)

    def run(self, model, batch, *want):
        CALLS["run"] += 1
        return SequenceClassification.run(self, model, batch, *want)

    def loss(self, logits, labels):
        CALLS["loss"] += 1
        return SequenceClassification.loss(self, logits, labels)

    def decode(self, output, batch, source=None):
        CALLS["decode"] += 1
        output = replace(output, logits=-output.logits) if self.contrary else output
        return SequenceClassification.decode(self, output, batch, source)


@pytest.fixture(scope="module")
def rows():
    texts = [f"{'good' if place % 2 else 'bad'} {text} {copy}" for copy in range(3) for place, text in enumerate(SENTENCES)]
    data = [{"text": text, "label": text.split()[0], "split": "train" if place < 24 else "valid"} for place, text in enumerate(texts)]
    return pl.read(data, text="text", label="label", split="split")


@pytest.fixture(scope="module")
def pipe(rows, tiny_checkpoints):
    return pl.Pipeline.new(Counting(), tiny_checkpoints["bert"], rows)


@pytest.fixture(scope="module")
def learn(pipe, rows):
    return pl.learner(pipe, rows, options=pl.LearnerOptions(loaders=pl.LoaderOptions(bs=4)))


def counted(action):
    CALLS.clear()
    action()
    return {name: CALLS[name] for name in (*STEPS, "loss")}


def test_every_path_takes_the_same_four_steps(pipe, learn, rows):
    paths = {
        "predict": lambda: pipe.predict(rows.valid).answers(),
        "call": lambda: pipe(["good", "bad"]),
        "trace": lambda: pipe.trace("good"),
        "evaluate": lambda: pl.evaluate(pipe, rows.valid, train=rows.train),
        "learn.predict": lambda: learn.predict("good"),
    }
    for name, action in paths.items():
        found = counted(action)
        assert all(found[step] > 0 for step in STEPS), (name, found)
    assert paths["trace"] and counted(paths["trace"]) == {"encode": 1, "collate": 1, "run": 1, "decode": 1, "loss": 0}


def test_training_takes_the_same_steps(pipe, rows):
    def fit():
        learn = pl.learner(pipe, rows, options=pl.LearnerOptions(loaders=pl.LoaderOptions(bs=4)))
        learn.fit_one_cycle(1, 1e-5)

    found = counted(fit)
    assert found["encode"] >= 2, "training rows and those kept aside"
    assert found["run"] == found["loss"] >= 24 // 4 + 12 // 8
    assert found["collate"] >= found["run"]


def test_bulk_answers_are_decoded_a_thousand_at_a_time(pipe, rows):
    found = counted(lambda: list(pipe.predict(rows.valid)))
    assert found["decode"] == 1 and found["collate"] == found["run"]


def test_another_decode_changes_every_path(pipe, rows):
    contrary = replace(pipe, task=replace(pipe.task, contrary=True))
    texts = rows.valid.columns(0, len(rows.valid))["text"]
    other = {"good": "bad", "bad": "good"}
    assert np.array_equal(pipe.predict(rows.valid).logits, contrary.predict(rows.valid).logits), "the model is the same"

    def answers(one):
        learn = pl.learner(one, rows, options=pl.LearnerOptions(loaders=pl.LoaderOptions(bs=4)))
        return {
            "predict": one.predict(rows.valid).answers(),
            "indexed": [one.predict(rows.valid)[position].answer for position in range(len(rows.valid))],
            "call": [prediction.answer for prediction in one(texts)],
            "trace": [one.trace(text).prediction.answer for text in texts],
            "learn.predict": [answer for answer, _, _ in learn.predict(texts)],
        }

    before, after = answers(pipe), answers(contrary)
    assert len({tuple(found) for found in before.values()}) == 1, "all paths agree"
    for name, found in before.items():
        assert after[name] == [other[answer] for answer in found], name
    scores = [pl.evaluate(one, rows.valid, baselines=False).scores[0].value for one in (pipe, contrary)]
    assert sum(scores) == pytest.approx(1.0), "the accuracy of the opposite answers"
