"""A million rows through reading, tokenization, 200 training steps and prediction, and what it takes in memory.

    python benchmarks/scale.py [--rows 1000000] [--steps 200]

The rows are generated, the model is tiny and random: this measures the road, not the answers. Prints the peak resident memory of the
process, the largest number of `Example` and `Tokens` objects that were alive at once (counted every few seconds and after each
stage), and the rows a second of each stage.
"""

import argparse
import gc
import random
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import contest
from material import scratch

WORDS = "film plot actor scene music long short good bad dull fine warm cold slow quick story ending hero voice light dark".split()


def generated(rows: int) -> Iterator[dict[str, str]]:
    """Rows of three to twenty words, one label in two."""
    draw = random.Random(0)
    for row in range(rows):
        yield {"text": f"{' '.join(draw.choices(WORDS, k=draw.randint(3, 20)))} {row}", "label": draw.choice(("good", "bad"))}


def tiny_checkpoint(folder: Path) -> Path:
    """A random BERT of two layers of 32 with minilm's tokenizer."""
    import torch
    from transformers import AutoModel, BertConfig

    from pellucid.model import resolve
    from pellucid.tokens import load_tokenizer

    tokenizer, _ = load_tokenizer(resolve("minilm"))
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Census:
    """Counts the living values every few seconds, in a thread of its own."""

    def __init__(self) -> None:
        self.most = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self) -> None:
        """Count until told to stop."""
        while not self.stop.wait(5.0):
            self.count()

    def count(self) -> None:
        """The number of Example and Tokens objects that are alive now."""
        from pellucid.types import Example, Tokens

        alive = sum(1 for thing in gc.get_objects() if type(thing) in (Example, Tokens))  # isinstance would wake lazy objects
        self.most = max(self.most, alive)


def peak_mib() -> float:
    """The largest resident memory of this process so far.

    Where Linux tells it of the program that runs: `getrusage` also counts what the process was before it became this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the stages one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()
    import pellucid as pl

    folder = scratch()
    checkpoint = tiny_checkpoint(folder / "tiny")
    contest.say("peak_mib_before_rows", peak_mib())
    census = Census()
    clock = perf_counter()

    def stage(name: str, rows: int) -> None:
        nonlocal clock
        census.count()
        contest.say(f"rows_per_second_{name}", rows / (perf_counter() - clock))
        contest.say(f"peak_mib_after_{name}", peak_mib())
        clock = perf_counter()

    rows = pl.read(generated(given.rows), text="text", label="label")
    stage("read", given.rows)
    pipe = pl.Pipeline.new("text-classification", checkpoint, rows)
    dls = pl.dataloaders(pipe, rows, options=pl.LoaderOptions(cache=folder / "tokens"))
    stage("tokenize", given.rows)
    learn = pl.learner(pipe, dls)
    train_steps(learn, given.steps)
    stage("train", given.steps * 16)
    counts: dict[str, int] = {}
    for split in rows.splits.values():
        for prediction in pipe.predict(split):
            counts[str(prediction.answer)] = counts.get(str(prediction.answer), 0) + 1
    stage("predict", given.rows)
    census.stop.set()
    contest.say("rows_predicted", sum(counts.values()))
    contest.say("most_examples_and_tokens_alive", census.most)
    contest.say("peak_mib", peak_mib())


def train_steps(learn: Any, steps: int) -> None:
    """Stop the epoch after so many steps."""
    from fastai.callback.core import Callback, CancelFitException

    class StopAfter(Callback):  # type: ignore[misc]
        def after_batch(self) -> None:
            if self.training and self.train_iter >= steps:
                raise CancelFitException

    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3, cbs=StopAfter())


if __name__ == "__main__":
    main()
