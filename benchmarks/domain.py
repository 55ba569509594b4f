"""A model of children's stories reads Shakespeare: the perplexity of stories15M before and after.

    python benchmarks/domain.py [--characters 250000]

The text is tinyshakespeare in the folder of data sets: the first characters are learned, others from its end are foreseen, all of them in
blocks of 128 tokens. Prints both perplexities, how a prompt goes on, and the seconds.
"""

import argparse
import gzip
from pathlib import Path
from time import perf_counter

import numpy as np

import contest
import pellucid as pl
from material import DATA
from pellucid.data import Split
from pellucid.tasks.causal_lm import TextGeneration
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_learner import LearnerOptions

CHECKPOINT = Path(__file__).resolve().parents[2] / "shared" / "checkpoints" / "stories15M"
PROMPT = "ROMEO:\n"


def perplexity(pipe: pl.Pipeline, split: Split) -> float:
    """e to the mean loss of a token."""
    losses, counts, _ = pipe.losses(split)
    return float(np.exp((losses * counts).sum() / counts.sum()))


def main() -> None:
    """Foreseen, learned, foreseen again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--characters", type=int, default=250_000)
    parser.add_argument("--test", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    with gzip.open(DATA / "tinyshakespeare" / "input.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read()
    rows = pl.read({"train": [{"text": text[: given.characters]}], "valid": [{"text": text[-given.test :]}]}, text="text", label=False)
    pipe = pl.Pipeline.new(TextGeneration(block_tokens=128, max_new_tokens=40), CHECKPOINT, rows)
    before = perplexity(pipe, rows.valid)
    contest.say("perplexity_before", before)
    print(pipe(PROMPT).answer, flush=True)
    started = perf_counter()
    learn = pl.learner(pipe, rows, options=LearnerOptions(lr=5e-4, loaders=LoaderOptions(bs=8)))
    learn.fit_one_cycle(given.epochs)
    contest.say("seconds_of_training", perf_counter() - started)
    after = perplexity(pipe, rows.valid)
    contest.say("perplexity_after", after)
    contest.say("perplexity_falls_to_share", after / before)
    print(pipe(PROMPT).answer, flush=True)
    contest.say("characters_learned", given.characters)
    contest.say("characters_foreseen", given.test)


if __name__ == "__main__":
    main()
