"""What makes training faster on a CPU, lever by lever, against `transformers.Trainer`.

    python benchmarks/levers.py --data reviews [--rounds 5] [--rows 160] [--valid 100]
    python benchmarks/levers.py --data sentences [--rows 1500] [--valid 400]

Contestants, each in its own process and in turn, one epoch, batch 16, AdamW, the same learning rate, weight decay, checkpoint and head:

    trainer_random   transformers' Trainer, its default order
    trainer_grouped  the same with train_sampling_strategy="group_by_length"
    exact            what changes no number but for rounding: batches of like length, a token budget, freed memory that is kept,
                     linear layers through oneDNN where a trial shows that to be faster
    all              these, bfloat16 where a trial shows that to be faster, and on reviews no attention dropout, so that attention runs
                     in torch's flash kernel (sentences gain nothing from it)

Reviews are fastai's IMDB_SAMPLE, cut at 512 tokens. Each turn takes the next of three seeds. Beside each ratio of median seconds stand
optimizer steps, tokens seen (padding included) and the accuracy on other rows over the three seeds, with its 95 % interval over the rows.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import contest
import pellucid as pl
from material import material, scratch, starting_point
from pellucid.training.precision import Precision
from train_speed import BATCH, DECAY, MAX_LENGTH, RATE, WARM_UP, Rows, Turn, accuracy_of, by_trainer, watch

SEEDS = (0, 1, 2)
BUDGET = 4096  # padded tokens of a batch: eight reviews of full length
ROWS, VALID = {"reviews": 160, "sentences": 1500}, {"reviews": 100, "sentences": 400}
LENGTHS = {"reviews": "long_reviews", "sentences": "sentences"}


@dataclass(frozen=True)
class Levers:
    """What a contestant of ours pulls."""

    precision: Precision = "float32"
    attention_dropout: float | None = None


def by_pellucid(levers: Levers, folder: str, data: str, train: Rows, valid: Rows) -> Turn:
    """The learner with these levers; each turn takes the next seed."""
    import torch

    from pellucid.training.fastai_precision import set_precision
    from pellucid.training.fastai_speed import make_faster

    length, seeds = MAX_LENGTH[LENGTHS[data]], cycle(SEEDS)
    rows = pl.read({"train": list(train), "valid": list(valid)}, text="text", label="label")
    options = pl.ModelOptions(attention_dropout=levers.attention_dropout)

    def turn() -> Mapping[str, Any]:
        seed = next(seeds)
        pipe = pl.Pipeline.new("text-classification", folder, rows, tokens=pl.TokenOptions(max_length=length), model=options)
        loaders = pl.LoaderOptions(bs=BATCH, seed=seed, max_tokens=BUDGET)
        learn = pl.learner(pipe, rows, options=pl.LearnerOptions(lr=RATE, wd=DECAY, warmup=WARM_UP, loaders=loaders), metrics=())
        seen = watch(learn)
        torch.manual_seed(seed)
        start = perf_counter()
        make_faster(learn)  # the trials count
        if levers.precision != "float32":
            set_precision(learn, levers.precision)
        with learn.no_bar(), learn.no_logging():
            learn.fit_linear(1)
        seconds = perf_counter() - start
        right = accuracy_of(learn.model, folder, valid, length)
        return {"seconds": seconds, "steps": seen["steps"], "tokens": seen["tokens"], "right": right, "said": said(learn.pipe)}

    return turn


def said(pipe: pl.Pipeline) -> list[str]:
    """What was said of the levers."""
    words = ("oneDNN", "freed memory", "computes in", "attention dropout")
    return [str(note) for note in pipe.notes if any(word in note.what for word in words)]


def trainer(strategy: str, folder: str, data: str, train: Rows, valid: Rows) -> Turn:
    """transformers' Trainer, the next seed each turn."""
    return by_trainer(strategy, folder, LENGTHS[data], train, valid, cycle(SEEDS))


def with_all(folder: str, data: str, train: Rows, valid: Rows) -> Turn:
    """Every lever that pays on these rows."""
    return by_pellucid(Levers("auto", 0.0 if data == "reviews" else None), folder, data, train, valid)


WORKERS: Mapping[str, Callable[..., Turn]] = {
    "all": with_all,
    "exact": partial(by_pellucid, Levers()),
    "trainer_grouped": partial(trainer, "group_by_length"),
    "trainer_random": partial(trainer, "random"),
}


def right_of(answers: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How often each of the other rows was right over the last three turns, which are the three seeds: (rows,)."""
    return np.mean([answer["right"] for answer in answers[-len(SEEDS) :]], axis=0)


def report(data: str, answers: Mapping[str, Sequence[Mapping[str, Any]]], rows: int) -> None:
    """Ratios of medians, and what stands beside each ratio."""
    draw, intervals = np.random.default_rng(0), {}
    for name in WORKERS:
        right = right_of(answers[name])
        low, high = np.quantile(draw.choice(right, (2000, len(right))).mean(1), [0.025, 0.975])
        intervals[name] = float(right.mean()), float(low), float(high)
        contest.say(f"seconds_{data}_{name}", contest.median_seconds(answers[name]))
        contest.say(f"examples_per_second_{data}_{name}", rows / contest.median_seconds(answers[name]))
        contest.say(f"steps_{data}_{name}", answers[name][-1]["steps"])
        contest.say(f"tokens_{data}_{name}", answers[name][-1]["tokens"])
        contest.say(f"accuracy_{data}_{name}", float(right.mean()))
        contest.say(f"accuracy_interval_{data}_{name}", f"{low:.3f} to {high:.3f}")
    for name in ("exact", "all"):
        for other in ("trainer_random", "trainer_grouped"):
            contest.say(f"ratio_{data}_{name}_to_{other}", contest.median_seconds(answers[other]) / contest.median_seconds(answers[name]))
        inside = intervals["trainer_random"][1] <= intervals[name][0] <= intervals["trainer_random"][2]
        contest.say(f"accuracy_inside_{data}_{name}", int(inside))
        for line in answers[name][-1]["said"]:
            print(f"# {name} said: {line}", flush=True)


def main() -> None:
    """Parent and worker in one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", choices=tuple(WORKERS))
    parser.add_argument("--data", choices=tuple(ROWS), required=True)
    parser.add_argument("--folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--valid", type=int)
    given = parser.parse_args()
    rows, valid = given.rows or ROWS[given.data], given.valid or VALID[given.data]
    if given.worker:
        contest.serve(WORKERS[given.worker](given.folder, given.data, *material(given.data, rows, valid)))
        return
    folder = starting_point(scratch() / "model")
    arguments = ["--data", given.data, "--folder", str(folder), "--rows", str(rows), "--valid", str(valid)]
    report(given.data, contest.rounds(Path(__file__), tuple(WORKERS), arguments, given.rounds), rows)


if __name__ == "__main__":
    main()
