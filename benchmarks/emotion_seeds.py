"""Fine-tuning on emotion over three seeds: discriminative rates and one cycle, against the defaults of `transformers.Trainer`.

    python benchmarks/emotion_seeds.py [--rows 8000] [--seeds 3]

`pellucid`: batches of 16 rows of like length, one cycle, a rate for each layer group from HIGH / 5 (embeddings) to HIGH (head), AdamW
without decay on biases and norms. HIGH is the better of 2e-4 and 5e-4 on the validation rows, after 2,000 rows. `trainer`:
transformers' Trainer as it comes: 5e-5, linear, batch 8, AdamW.

The budget is the same for both: minilm with the same new head for a seed, one epoch over the same rows (the first 8,000 of 16,000, so that
this ends within 20 minutes on two cores), float32, the same 2,000 test rows. Seconds and steps are printed, not made equal. Accuracy and
weighted F1 are means over the seeds, with 95 % intervals that draw rows and seeds.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import contest
import pellucid as pl
from material import DATA, scratch
from train_speed import watch

NAMES = ("pellucid", "trainer")
HIGH, FACTOR = 5e-4, 5.0
DRAWS = 1000


def emotion(rows: int, scored: str) -> pl.Rows:
    """Training rows, and the rows that are scored: "val" or "test"."""
    folder = DATA / "emotion"
    files = {"train": str(folder / "train.txt.gz"), "valid": str(folder / f"{scored}.txt.gz")}
    return pl.read(files, text="text", label="label_name", options=pl.ReadOptions(max_rows=rows))


def start_of(rows: pl.Rows, seed: int) -> pl.Pipeline:
    """minilm with the new head of this seed."""
    import torch

    torch.manual_seed(seed)
    return pl.Pipeline.new("text-classification", "minilm", rows)


def answers_of(pipe: pl.Pipeline, rows: pl.Rows) -> list[str]:
    """What it answers for the rows that are scored."""
    return [str(answer) for answer in pipe.predict(rows.valid).answers()]


def by_pellucid(rows: pl.Rows, high: float, seed: int) -> Mapping[str, Any]:
    """Discriminative rates and one cycle."""
    import torch

    from pellucid.training.fastai_speed import make_faster

    pipe = start_of(rows, seed)
    learn = pl.learner(pipe, rows, options=pl.LearnerOptions(lr=high, loaders=pl.LoaderOptions(bs=16, seed=seed)), metrics=())
    seen = watch(learn)
    torch.manual_seed(seed)
    start = perf_counter()
    make_faster(learn)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, slice(high / FACTOR, high))
    return {"seconds": perf_counter() - start, "steps": seen["steps"], "answers": answers_of(learn.pipe, rows)}


def by_trainer(rows: pl.Rows, folder: str, seed: int) -> Mapping[str, Any]:
    """transformers' Trainer with its defaults."""
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    pipe = start_of(rows, seed)
    texts, labels = zip(*((example.fields["text"], example.target) for example in rows.train), strict=True)
    encoded = pipe.tokenizer(list(texts), truncation=True, max_length=pipe.options.max_length)
    dataset = Dataset.from_dict({**encoded, "labels": [pipe.model.config.label2id[label] for label in labels]})
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    arguments = TrainingArguments(output_dir=folder, use_cpu=True, num_train_epochs=1, seed=seed, **quiet)
    trainer = Trainer(pipe.model, arguments, train_dataset=dataset, data_collator=DataCollatorWithPadding(pipe.tokenizer))
    start = perf_counter()
    trainer.train()
    return {"seconds": perf_counter() - start, "steps": trainer.state.global_step, "answers": answers_of(pipe, rows)}


def report(rows: pl.Rows, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Means over the seeds with intervals, and the difference of both, row by row."""
    from sklearn.metrics import f1_score

    wanted = np.array([str(target) for target in rows.valid.targets(0, len(rows.valid))])
    answers = {name: np.array([turn["answers"] for turn in turns]) for name, turns in found.items()}  # (seeds, rows)
    draw = np.random.default_rng(0)
    drawn: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for _ in range(DRAWS):
        chosen = draw.integers(len(wanted), size=len(wanted))
        for name, given in answers.items():
            one = given[draw.integers(len(given)), chosen]
            drawn[name].append((float((one == wanted[chosen]).mean()), weighted_f1(wanted[chosen], one)))
    for name, turns in found.items():
        each = [(float((one == wanted).mean()), float(f1_score(wanted, one, average="weighted"))) for one in answers[name]]
        for place, score in enumerate(("accuracy", "weighted_f1")):
            low, high = np.quantile([pair[place] for pair in drawn[name]], [0.025, 0.975])
            contest.say(f"{score}_{name}", float(np.mean([pair[place] for pair in each])))
            contest.say(f"{score}_interval_{name}", f"{low:.3f} to {high:.3f}")
            contest.say(f"{score}_seeds_{name}", ", ".join(f"{pair[place]:.4f}" for pair in each))
        contest.say(f"seconds_{name}", contest.median_seconds(turns))
        contest.say(f"steps_{name}", turns[0]["steps"])
    for place, score in enumerate(("accuracy", "weighted_f1")):
        differences = [ours[place] - theirs[place] for ours, theirs in zip(drawn["pellucid"], drawn["trainer"], strict=True)]
        low, high = np.quantile(differences, [0.025, 0.975])
        contest.say(f"{score}_difference", float(np.mean(differences)))
        contest.say(f"{score}_difference_interval", f"{low:.3f} to {high:.3f}")


def weighted_f1(wanted: "np.ndarray[Any, Any]", given: "np.ndarray[Any, Any]") -> float:
    """F1 of each class, weighted by its rows: what scikit-learn gives, without its checks, which a thousand draws would wait for."""
    names, counts = np.unique(wanted, return_counts=True)
    hits = np.array([np.sum((wanted == name) & (given == name)) for name in names])
    guesses = np.array([np.sum(given == name) for name in names])
    return float(np.sum(counts * 2 * hits / (counts + guesses)) / len(wanted))


def main() -> None:
    """Parent and worker in one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", choices=NAMES)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--high", type=float, default=HIGH)
    parser.add_argument("--scored", choices=("val", "test"), default="test")
    parser.add_argument("--only", choices=NAMES)
    given = parser.parse_args()
    rows = emotion(given.rows, given.scored)
    if given.worker:
        ways: Mapping[str, Callable[[int], Mapping[str, Any]]] = {
            "pellucid": partial(by_pellucid, rows, given.high),
            "trainer": partial(by_trainer, rows, str(scratch())),
        }
        seeds = count()
        contest.serve(lambda: ways[given.worker](next(seeds)))
        return
    arguments = ["--rows", str(given.rows), "--high", str(given.high), "--scored", given.scored]
    names = [given.only] if given.only else list(NAMES)
    workers = [contest.Worker(Path(__file__), name, arguments) for name in names]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(given.seeds):
        for worker in workers:
            found[worker.name].append(worker.go())
            print(f"# seed {seed} {worker.name}: {found[worker.name][-1]['seconds']:.1f} s", flush=True)
    for worker in workers:
        worker.close()
    if given.only:
        wanted = [str(target) for target in rows.valid.targets(0, len(rows.valid))]
        for turn in found[given.only]:
            contest.say("accuracy", float(np.mean([one == other for one, other in zip(turn["answers"], wanted, strict=True)])))
        return
    report(rows, found)


if __name__ == "__main__":
    main()
