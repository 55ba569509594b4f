"""Three levels, one answer: one call, a pipeline with a learner, and every step by hand; transformers alone gives it too."""

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES
from pellucid.model import accepted_inputs
from pellucid.tokens import pad_spec

BATCH, SEED = 8, 7
CLOSE = 1e-5


def seeded(make):
    """What `make` gives from the same random numbers as in `pl.train`."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return make()


def one_call(rows, checkpoint, tokens, rate):
    options = pl.TrainOptions(epochs=1, learning_rate=rate, batch_size=BATCH, seed=SEED)
    trained = pl.train(rows, checkpoint=checkpoint, options=options, tokens=tokens)
    assert trained.learner.model is trained.pipeline.model
    return trained.pipeline


def pipeline_and_learner(rows, checkpoint, tokens, rate):
    def make():
        pipe = pl.Pipeline.new("text-classification", checkpoint, rows, tokens=tokens)
        sizes = pl.LearnerOptions(lr=rate, loaders=pl.LoaderOptions(bs=BATCH, seed=SEED))
        learn = pl.learner(pipe, rows, options=sizes)
        assert learn.model is pipe.model
        learn.fit_one_cycle(1, rate)
        return pipe

    return seeded(make)


def steps_by_hand(folder, rows, tokens):
    """Config, tokenizer and model taken by hand; then encode → collate → run → decode, batch by batch in the order of the rows."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=config).eval()
    labels = tuple(config.id2label[number] for number in range(config.num_labels))
    task = pl.SequenceClassification(labels=labels, kind="single_label")
    table = task.encode(tokenizer, rows.columns(0, len(rows)), None, tokens)
    pad = pad_spec(tokenizer, tokens, accepted_inputs(model))
    logits, predictions = [], []
    for start in range(0, len(table), BATCH):
        batch = task.collate(table, np.arange(start, min(start + BATCH, len(table))), pad)
        with torch.no_grad():
            output = task.run(model, batch)
        output = type(output)(output.logits.numpy())
        logits.append(output.logits)
        predictions += task.decode(output, batch)
    return np.concatenate(logits), [prediction.answer for prediction in predictions]


def transformers_alone(folder, rows, tokens):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = rows.columns(0, len(rows))["text"]
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=tokens.max_length, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def check_levels(rows, checkpoint, tokens, rate, folder):
    first = one_call(rows, checkpoint, tokens, rate)
    wanted, answers = first.predict(rows.valid).logits, first.predict(rows.valid).answers()
    untrained = seeded(lambda: pl.Pipeline.new("text-classification", checkpoint, rows, tokens=tokens))
    assert np.abs(untrained.predict(rows.valid).logits - wanted).max() > 100 * CLOSE, "the training changed the answers"

    second = pipeline_and_learner(rows, checkpoint, tokens, rate)
    assert np.abs(second.predict(rows.valid).logits - wanted).max() <= CLOSE

    pl.save(first, folder)
    by_hand, said = steps_by_hand(folder, rows.valid, tokens)
    assert np.abs(by_hand - wanted).max() <= CLOSE and said == answers

    assert np.abs(transformers_alone(folder, rows.valid, tokens) - wanted).max() <= CLOSE
    assert np.abs(pl.load(folder).predict(rows.valid).logits - wanted).max() <= CLOSE


@pytest.mark.parametrize("kind", ["bert", "gpt2", "xlm-roberta"])
def test_three_levels_on_a_tiny_model(kind, tiny_checkpoints, tmp_path):
    texts = [f"{'good' if place % 2 else 'bad'} {text} {copy}" for copy in range(3) for place, text in enumerate(SENTENCES)]
    data = [{"text": text, "label": text.split()[0], "split": "train" if place < 26 else "valid"} for place, text in enumerate(texts)]
    rows = pl.read(data, text="text", label="label", split="split")
    check_levels(rows, tiny_checkpoints[kind], pl.TokenOptions(max_length=32), 1e-3, tmp_path / "model")


@pytest.mark.slow
def test_three_levels_on_real_reviews(shared_data, minilm_folder, tmp_path):
    import pandas as pd

    reviews = pd.read_csv(shared_data / "imdb_sample" / "texts.csv.gz")
    parts = [reviews[reviews["is_valid"] == valid].head(count) for valid, count in ((False, 48), (True, 16))]
    rows = pl.read(pd.concat(parts, ignore_index=True), text="text", label="label", split="is_valid")
    check_levels(rows, "minilm", pl.TokenOptions(max_length=64), 1e-4, tmp_path / "model")
