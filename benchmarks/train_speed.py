"""Training examples a second, against `transformers.Trainer` and against a bare loop.

    python benchmarks/train_speed.py [--data sentences] [--rounds 5] [--sentences 1500] [--reviews 128]

Contestants, each in a new process for every turn and in turn, one epoch, float32, batch 16, AdamW, the same learning rate and weight
decay, the same checkpoint and head to start from, texts tokenized before the clock starts: `pellucid` (its fastai learner), `floor` (the
batches that pellucid plans, padded beforehand, through a bare loop of forward, backward, step), `trainer_random` and `trainer_grouped`
(transformers' Trainer with its default order, and with `train_sampling_strategy="group_by_length"`).

A ratio counts only where the accuracies agree: beside each stand optimizer steps, tokens seen (padding included) and the accuracy on
other rows with its 95 % interval.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import contest
from material import material, scratch, starting_point

CONTESTANTS = ("pellucid", "floor", "trainer_grouped", "trainer_random")
RATE, DECAY, BATCH, WARM_UP = 1e-4, 0.01, 16, 0.1
MAX_LENGTH = {"sentences": 128, "reviews": 256, "long_reviews": 512}
Rows = Sequence[Mapping[str, str]]
Turn = Callable[[], Mapping[str, Any]]


def accuracy_of(model: Any, folder: str, valid: Rows, length: int) -> list[bool]:
    """Which of the other rows the model gets right, in order; every contestant is scored by this same code."""
    from dataclasses import replace

    import pellucid as pl

    pipe = pl.load(folder)
    pipe.model.load_state_dict(model.state_dict())
    answers = replace(pipe, options=replace(pipe.options, max_length=length)).predict([row["text"] for row in valid]).answers()
    return [answer == row["label"] for answer, row in zip(answers, valid, strict=True)]


def by_pellucid(folder: str, data: str, train: Rows, valid: Rows) -> Turn:
    """The fastai learner."""
    import torch

    import pellucid as pl

    rows = pl.read({"train": list(train), "valid": list(valid)}, text="text", label="label")

    def turn() -> Mapping[str, Any]:
        from dataclasses import replace

        pipe = pl.load(folder)
        pipe = replace(pipe, options=replace(pipe.options, max_length=MAX_LENGTH[data]))
        options = pl.LearnerOptions(lr=RATE, wd=DECAY, warmup=WARM_UP, loaders=pl.LoaderOptions(bs=BATCH, seed=0))
        learn = pl.learner(pipe, rows, options=options, metrics=())
        seen = watch(learn)
        torch.manual_seed(0)
        start = perf_counter()
        with learn.no_bar(), learn.no_logging():
            learn.fit_linear(1)
        seconds = perf_counter() - start
        right = accuracy_of(learn.model, folder, valid, MAX_LENGTH[data])
        return {"seconds": seconds, "steps": seen["steps"], "tokens": seen["tokens"], "right": right}

    return turn


def watch(learn: Any) -> dict[str, int]:
    """Counts steps and tokens while the learner trains, and leaves out the validation that the others do not do either."""
    from fastai.callback.core import Callback, CancelValidException

    seen = {"steps": 0, "tokens": 0}

    class Watch(Callback):  # type: ignore[misc]
        def before_batch(self) -> None:
            if self.training:
                seen["steps"] += 1
                seen["tokens"] += self.xb[0]["input_ids"].numel()

        def before_validate(self) -> None:
            raise CancelValidException

    learn.add_cb(Watch())
    return seen


def by_bare_loop(folder: str, data: str, train: Rows, valid: Rows) -> Turn:
    """Forward, backward, step, over the batches that pellucid plans."""
    import torch

    import pellucid as pl
    from pellucid.batch import plan_training
    from pellucid.groups import no_decay

    rows = pl.read({"train": list(train), "valid": list(valid)}, text="text", label="label")

    def turn() -> Mapping[str, Any]:
        from dataclasses import replace

        pipe = pl.load(folder)
        pipe = replace(pipe, options=replace(pipe.options, max_length=MAX_LENGTH[data]))
        table = pipe.encode(rows.train)
        plan = plan_training(table.lengths, batch_size=BATCH, budget=None, seed=0, epoch=0)
        batches = [pipe.collate(table, windows) for windows in plan]
        ready = [({k: torch.from_numpy(v) for k, v in batch.inputs.items()}, torch.from_numpy(batch.labels)) for batch in batches]
        model = pipe.model.train()
        spared = no_decay(model)
        named = list(model.named_parameters())
        groups = [
            {"params": [p for n, p in named if n not in spared], "weight_decay": DECAY},
            {"params": [p for n, p in named if n in spared], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(linear, steps=len(ready)))
        torch.manual_seed(0)
        start = perf_counter()
        for inputs, labels in ready:
            loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        seconds = perf_counter() - start
        tokens = sum(inputs["input_ids"].numel() for inputs, _ in ready)
        return {"seconds": seconds, "steps": len(ready), "tokens": tokens, "right": accuracy_of(model, folder, valid, MAX_LENGTH[data])}

    return turn


def linear(step: int, steps: int) -> float:
    """Warm up, then down to nothing."""
    warm = max(1, round(WARM_UP * steps))
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))


def by_trainer(strategy: str, folder: str, data: str, train: Rows, valid: Rows, seeds: Iterator[int] = repeat(0)) -> Turn:
    """transformers' Trainer; each turn takes the next of the seeds."""
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer([row["text"] for row in train], truncation=True, max_length=MAX_LENGTH[data])
    seen = {"tokens": 0}
    pad = DataCollatorWithPadding(tokenizer)

    def collate(features: list[dict[str, Any]]) -> Mapping[str, Any]:
        batch: Mapping[str, Any] = pad(features)
        seen["tokens"] += batch["input_ids"].numel()
        return batch

    assert TrainerCallback is not None

    def turn() -> Mapping[str, Any]:
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32")
        labels = [model.config.label2id[row["label"]] for row in train]
        dataset = Dataset.from_dict({**encoded, "labels": labels})
        arguments = TrainingArguments(
            output_dir=str(Path(folder).parent / strategy),
            use_cpu=True,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            weight_decay=DECAY,
            warmup_steps=WARM_UP,
            train_sampling_strategy=strategy,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=next(seeds),
        )
        trainer = Trainer(model, arguments, train_dataset=dataset, processing_class=tokenizer, data_collator=collate)
        seen["tokens"] = 0
        start = perf_counter()
        trainer.train()
        seconds = perf_counter() - start
        right = accuracy_of(model, folder, valid, MAX_LENGTH[data])
        return {"seconds": seconds, "steps": trainer.state.global_step, "tokens": seen["tokens"], "right": right}

    return turn


WORKERS: Mapping[str, Callable[..., Turn]] = {
    "pellucid": by_pellucid,
    "floor": by_bare_loop,
    "trainer_random": partial(by_trainer, "random"),
    "trainer_grouped": partial(by_trainer, "group_by_length"),
}


def report(data: str, answers: Mapping[str, Sequence[Mapping[str, Any]]], rows: int) -> None:
    """Examples a second, ratios of medians, and what stands beside each ratio."""
    ours = contest.median_seconds(answers["pellucid"])
    draw = np.random.default_rng(0)
    intervals = {}
    for name in CONTESTANTS:
        right = np.array(answers[name][0]["right"])
        low, high = np.quantile(draw.choice(right, (1000, len(right))).mean(1), [0.025, 0.975])
        intervals[name] = (right.mean(), low, high)
        contest.say(f"examples_per_second_{data}_{name}", rows / contest.median_seconds(answers[name]))
        contest.say(f"steps_{data}_{name}", answers[name][0]["steps"])
        contest.say(f"tokens_{data}_{name}", answers[name][0]["tokens"])
        contest.say(f"accuracy_{data}_{name}", float(right.mean()))
        contest.say(f"accuracy_interval_{data}_{name}", f"{low:.3f} to {high:.3f}")
    for name in ("trainer_random", "trainer_grouped"):
        contest.say(f"ratio_{data}_pellucid_to_{name}", contest.median_seconds(answers[name]) / ours)
        agree = intervals[name][1] <= intervals["pellucid"][0] <= intervals[name][2]
        contest.say(f"accuracy_agrees_{data}_{name}", int(agree))
    contest.say(f"share_of_floor_{data}", contest.median_seconds(answers["floor"]) / ours)


def main() -> None:
    """Parent and worker in one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", choices=CONTESTANTS)
    parser.add_argument("--data", choices=("sentences", "reviews"))
    parser.add_argument("--folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--reviews", type=int, default=128)
    parser.add_argument("--valid", type=int, default=400)
    given = parser.parse_args()
    counts = {"sentences": given.sentences, "reviews": given.reviews}
    if given.worker:
        train, valid = material(given.data, counts[given.data], given.valid)
        contest.serve(WORKERS[given.worker](given.folder, given.data, train, valid))
        return
    folder = starting_point(scratch() / "model")
    for data in (given.data,) if given.data else ("sentences", "reviews"):
        arguments = ["--data", data, "--folder", str(folder), "--valid", str(given.valid)]
        arguments += ["--sentences", str(given.sentences), "--reviews", str(given.reviews)]
        report(data, contest.rounds_in_new_processes(Path(__file__), CONTESTANTS, arguments, given.rounds), counts[data])


if __name__ == "__main__":
    main()
