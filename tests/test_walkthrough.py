"""The study group's walk-through, step by step, on real reviews with a real checkpoint."""

import pandas as pd
import pytest
import torch

import pellucid as pl
from pellucid.tokens import TokenOptions
from pellucid.training.fastai_learner import LearnerOptions, learner

BOOK = "Tokenizing text is a core task of NLP"
BOOK_IDS = [101, 19204, 6026, 3793, 2003, 1037, 4563, 4708, 1997, 17953, 2361, 102]


@pytest.fixture(scope="module")
def frame(shared_data):
    reviews = pd.read_csv(shared_data / "imdb_sample" / "texts.csv.gz")
    short = reviews[reviews["text"].str.len() < 900]
    parts = [short[short["is_valid"] == valid].head(count) for valid, count in ((False, 48), (True, 16))]
    return pd.concat(parts, ignore_index=True)


def blocks(pipe):
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import ColReader, ColSplitter

    return DataBlock(blocks=(pl.TextBlock(pipe), CategoryBlock), get_x=ColReader("text"), get_y=ColReader("label"), splitter=ColSplitter())


def test_the_book_s_sentence(minilm_folder):
    from pellucid.tokens import load_tokenizer

    tokenizer, _ = load_tokenizer(str(minilm_folder))
    assert tokenizer(BOOK)["input_ids"] == BOOK_IDS


@pytest.mark.slow
def test_the_walk_through(frame, minilm_folder, tmp_path, capsys):
    assert {"label", "text", "is_valid"} <= set(frame.columns)
    rows = pl.read(frame, text="text", label="label", split="is_valid")

    # config, tokenizer and model from a checkpoint in one call
    tokens = TokenOptions(max_length=96)
    pipe = pl.Pipeline.new("text-classification", "minilm", rows, tokens=tokens)
    assert pipe.model.config.num_labels == 2 and set(pipe.task.labels) == {"negative", "positive"}
    assert pipe.tokenizer(BOOK)["input_ids"] == BOOK_IDS

    # the data, in fastai's words
    dls = blocks(pipe).dataloaders(frame, bs=4)
    capsys.readouterr()
    dls.show_batch()
    shown = capsys.readouterr().out
    assert "[CLS]" in shown and ("positive" in shown or "negative" in shown)
    inputs, targets = dls.one_batch()
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (4, inputs["input_ids"].shape[1])
    assert targets.shape == (4,) and inputs["input_ids"].shape[1] <= 96

    # the inputs through the bare model: logits, softmax, labels
    with torch.no_grad():
        logits = pipe.model.eval()(**inputs).logits
    assert logits.shape == (4, 2) and torch.allclose(logits.softmax(-1).sum(-1), torch.ones(4))
    assert [pipe.model.config.id2label[int(number)] for number in logits.argmax(-1)] == [
        pipe.task.labels[int(number)] for number in logits.argmax(-1)
    ]

    # the learner: freeze, unfreeze, train, look
    learn = learner(pipe, dls, options=LearnerOptions(path=tmp_path))
    assert learn.model is pipe.model
    learn.freeze()
    learn.fit_one_cycle(1, 1e-3)
    learn.unfreeze()
    learn.fit_one_cycle(1, slice(1e-5, 1e-4))
    learn.show_results()
    assert "predicted" in capsys.readouterr().out
    label, number, scores = learn.predict("I loved every minute of it.")
    assert label == pipe.task.labels[int(number)] and scores.shape == (2,)
    several = learn.predict(["I loved every minute of it.", "A waste of time."])
    assert several[0][0] == label and torch.allclose(several[0][2], scores, atol=1e-5)

    # save, load by folder, same answers
    folder = pl.save(pipe, tmp_path / "my_model")
    again = pl.load(folder)
    texts = frame["text"].head(8).tolist()
    assert torch.allclose(torch.tensor(pipe.predict(texts).logits), torch.tensor(again.predict(texts).logits), atol=1e-5)
    assert pipe.predict(texts).answers() == again.predict(texts).answers()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        by_hand = plain.eval()(**tokenizer(texts, padding=True, truncation=True, max_length=96, return_tensors="pt")).logits
    assert torch.allclose(by_hand, torch.tensor(pipe.predict(texts).logits), atol=1e-5)


def test_padding_to_128(frame, minilm_folder):
    rows = pl.read(frame, text="text", label="label", split="is_valid")
    pipe = pl.Pipeline.new("text-classification", "minilm", rows, tokens=TokenOptions(padding="max_length", max_length=128))
    inputs, targets = blocks(pipe).dataloaders(frame, bs=4).one_batch()
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (4, 128) and targets.shape == (4,)
