"""A small model learns a language: flan-t5-small on English → Spanish, before and after some thousand sentence pairs.

    python benchmarks/translation.py [--rows 2000] [--test 200] [--epochs 1]

The pairs are those of Tatoeba in the folder of data sets, drawn with a fixed seed; no sentence of the test stands in the training. The
checkpoint is taken from the folder CHECKPOINTS (~/.cache/checkpoints). Prints chrF, BLEU and the loss of both with intervals,
and the seconds.
"""

import argparse
import gzip
import os
from pathlib import Path
from time import perf_counter

import numpy as np

import contest
import pellucid as pl
from material import DATA, SEED
from pellucid.baselines import Answers
from pellucid.comparison import compare_tallies
from pellucid.data import Split
from pellucid.evaluation import EvaluateOptions
from pellucid.tasks.seq2seq import Translation
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_learner import LearnerOptions

CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
PREFIX = "translate English to Spanish: "


def pairs(rows: int, test: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and test pairs; every English sentence once."""
    with gzip.open(DATA / "tatoeba_en_es" / "spa_sample.tsv.gz", "rt", encoding="utf-8") as lines:
        found = {english: spanish for english, spanish, _ in (line.rstrip("\n").split("\t") for line in lines)}
    order = np.random.default_rng(SEED).permutation(len(found))
    english = list(found)
    drawn = [{"text": english[place], "target": found[english[place]]} for place in order[: rows + test]]
    return drawn[test:], drawn[:test]


def answered(pipe: pl.Pipeline, split: Split) -> tuple[object, float]:
    """The tally of the answers, and the loss of a token."""
    predictions = list(pipe.predict(split))
    losses, counts, _ = pipe.losses(split)
    for prediction in predictions[:3]:
        print(f"  {split[prediction.row].fields['text']} → {prediction.answer}", flush=True)
    return pipe.task.tally(predictions, split.targets(0, len(split))), float((losses * counts).sum() / counts.sum())


def main() -> None:
    """Untouched, trained, compared."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    train, test = pairs(given.rows, given.test)
    options = pl.ReadOptions(label_kind="text")
    rows = pl.read({"train": train, "valid": test[:50], "test": test}, text="text", label="target", options=options)
    task = Translation(prefix=PREFIX, max_new_tokens=48, max_target_tokens=64)
    pipe = pl.Pipeline.new(task, CHECKPOINTS / "flan-t5-small", rows, tokens=pl.TokenOptions(max_length=64))
    before, loss_before = answered(pipe, rows.test)
    started = perf_counter()
    learn = pl.learner(pipe, rows, options=LearnerOptions(lr=1e-3, loaders=LoaderOptions(bs=16)), metrics=[])
    learn.fit_one_cycle(given.epochs)
    seconds = perf_counter() - started
    after, loss_after = answered(pipe, rows.test)
    untouched = (Answers("untouched", (), "the checkpoint as it came"), before)
    compared = compare_tallies(after, [untouched], resampling=EvaluateOptions().resampling)
    for name, scores, loss in (("untouched", compared.baselines[0].scores, loss_before), ("trained", compared.scores, loss_after)):
        for score in scores[:2]:
            contest.say(f"{score.name.lower()}_{name}", score.value)
            if score.low is not None:
                contest.say(f"{score.name.lower()}_{name}_interval", f"{score.low:.2f} to {score.high:.2f}")
        contest.say(f"loss_{name}", loss)
    for difference in compared.baselines[0].differences[:2]:
        contest.say(f"{difference.score.lower()}_rise", difference.value)
        contest.say(f"{difference.score.lower()}_rise_low", difference.low)
        contest.say(f"{difference.score.lower()}_rise_high", difference.high)
    contest.say("training_pairs", len(train))
    contest.say("test_pairs", len(test))
    contest.say("seconds_of_training", seconds)


if __name__ == "__main__":
    main()
