"""A step of masked-language training that computes the logits of the hidden tokens alone, beside one that computes all of them.

    python benchmarks/masked_speed.py [--rows 16] [--tokens 128] [--rounds 10]

minilm's body with a head that says words, on paragraphs of WikiText-2, 15 % of the tokens hidden. Both take turns on the same batches with
the same dropout, forward, backward and AdamW. Prints medians, the ratio, the largest difference between losses and between gradients, and
on a GPU the memory of each.
"""

import argparse
import statistics
import time

import numpy as np
import torch

import contest
import pellucid as pl
from masked_language import paragraphs
from material import DATA, SEED
from pellucid.pipelines import Pipeline
from pellucid.tasks.masked_lm import FillMask
from pellucid.types import Batch, Want

NAMES = {False: "whole", True: "hidden"}


class Contest:
    """One model and one optimizer, and a step of either kind."""

    def __init__(self, rows: int, tokens: int, batches: int) -> None:
        torch.manual_seed(SEED)
        texts = pl.read(paragraphs(DATA / "wikitext2" / "train.raw.gz", rows * batches), text="text", label=False)
        self.pipe = Pipeline.new(FillMask(), "minilm", texts, tokens=pl.TokenOptions(max_length=tokens))
        task = self.pipe.task
        table = task.to_learn(self.pipe.encode(texts.train))
        windows = [np.arange(start, start + rows) for start in range(0, rows * batches, rows)]
        self.batches = [task.drawn(self.pipe.collate(table, chosen), 1) for chosen in windows]
        self.optimizer = torch.optim.AdamW(self.pipe.model.parameters(), lr=1e-5, fused=True)
        self.pipe.model.train()

    def loss(self, batch: Batch, scored: bool) -> torch.Tensor:
        """The mean loss over the hidden tokens, with its graph."""
        pipe = self.pipe
        labels = torch.as_tensor(np.asarray(batch.labels)).to(pipe.model.device)
        return pipe.task.loss(pipe.task.run(pipe.model, batch, Want(scored=scored)).logits, labels).mean()

    def step(self, batch: Batch, scored: bool) -> float:
        """Seconds of a whole step."""
        start = time.perf_counter()
        self.loss(batch, scored).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.pipe.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def apart(self, batch: Batch) -> tuple[float, float]:
        """How far losses and gradients of the two are apart, with the same dropout."""
        found = []
        for scored in (False, True):
            torch.manual_seed(SEED)
            loss = self.loss(batch, scored)
            loss.backward()
            gradients = {name: one.grad for name, one in self.pipe.model.named_parameters() if one.grad is not None}
            self.optimizer.zero_grad()
            found.append((float(loss.detach()), gradients))
        (one, whole), (other, hidden) = found
        return abs(one - other), max(float((whole[name] - hidden[name]).abs().max()) for name in whole)


def main() -> None:
    """Both in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    both = Contest(given.rows, given.tokens, min(given.rounds, 8))
    loss, gradient = both.apart(both.batches[0])
    contest.say("largest_loss_difference", loss)
    contest.say("largest_gradient_difference", gradient)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    peak = dict.fromkeys(seconds, 0.0)
    gpu = both.pipe.model.device.type == "cuda"
    for number in range(-1, given.rounds):  # the first round prepares kernels
        for scored in (False, True):
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            taken = both.step(both.batches[number % len(both.batches)], scored)
            if number >= 0:
                seconds[scored].append(taken)
            peak[scored] = max(peak[scored], torch.cuda.max_memory_allocated() / 2**20 if gpu else 0.0)
    for scored, name in NAMES.items():
        contest.say(f"seconds_a_step_{name}", statistics.median(seconds[scored]))
        if gpu:
            contest.say(f"mebibytes_{name}", peak[scored])
    contest.say("ratio_masked_step", statistics.median(seconds[False]) / statistics.median(seconds[True]))


if __name__ == "__main__":
    main()
