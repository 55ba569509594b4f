"""Masked-language training of minilm's body from a new head, on WikiText-2.

    python benchmarks/masked_language.py [--rows 1500] [--masking tokens]

The body was trained to compare sentences and has no head that says words; the new one shares the body's embeddings. Prints loss and
perplexity over hidden tokens of paragraphs that the training did not see, before and after one epoch, and the five best words for
"Paris is the [MASK] of France." before and after.
"""

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import torch

import contest
import pellucid as pl
from material import DATA, SEED
from pellucid.data import Split
from pellucid.pipelines import Pipeline
from pellucid.tasks.masked_lm import FillMask

ASKED = "Paris is the [MASK] of France."
SHORTEST = 200  # characters of a paragraph; what is shorter is mostly a heading
LENGTH = 128  # tokens of a window


def paragraphs(file: Path, count: int) -> list[dict[str, str]]:
    """The first paragraphs of a part of WikiText-2, as they were before they were cut into words: `@-@` is a hyphen."""
    if not file.exists():
        raise SystemExit(f"{file} is not there; set PELLUCID_DATA to the folder of data sets")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        texts = [line.strip().replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".") for line in lines]
    return [{"text": text} for text in texts if len(text) >= SHORTEST][:count]


def say_loss(pipe: Pipeline, split: Split, when: str) -> float:
    """Loss and perplexity over all hidden tokens of a split; the same tokens are hidden each time. Gives the loss."""
    losses, counts, _ = pipe.losses(split)
    loss = float((losses * counts).sum() / counts.sum())
    contest.say(f"loss_{when}", loss)
    contest.say(f"perplexity_{when}", float(np.exp(loss)))
    return loss


def say_words(pipe: Pipeline, when: str) -> None:
    """The five best words, with their probabilities."""
    contest.say(f"top_five_{when}", ", ".join(f"{span.label} {span.score:.3f}" for span in pipe(ASKED).spans))


def main() -> None:
    """Before, one epoch, after."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--valid", type=int, default=200)
    parser.add_argument("--masking", choices=("tokens", "whole-words", "spans"), default="tokens")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    given = parser.parse_args()
    folder = DATA / "wikitext2"
    texts = {"train": paragraphs(folder / "train.raw.gz", given.rows), "valid": paragraphs(folder / "valid.raw.gz", given.valid)}
    rows = pl.read(texts, text="text", label=False)
    torch.manual_seed(SEED)
    pipe = Pipeline.new(FillMask(masking=given.masking), "minilm", rows, tokens=pl.TokenOptions(max_length=LENGTH))
    contest.say("new_weights", ", ".join(sorted(pipe.provenance.new_names())))
    before = say_loss(pipe, rows.valid, "before")
    say_words(pipe, "before")
    learn = pl.learner(pipe, rows, options=pl.LearnerOptions(lr=given.learning_rate))
    contest.say("training_tokens", int(learn.dls.train.table.lengths.sum()))
    start = time.perf_counter()
    with learn.no_bar():
        learn.fit_one_cycle(1)
    contest.say("training_seconds", time.perf_counter() - start)
    contest.say("loss_falls_by", before - say_loss(pipe, rows.valid, "after"))
    say_words(pipe, "after")


if __name__ == "__main__":
    main()
