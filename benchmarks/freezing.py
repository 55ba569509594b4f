"""What trains after freeze(), by the printed table, and how much of the backward pass that saves.

    python benchmarks/freezing.py [--layers 6] [--width 256] [--rounds 15]

Six architectures with a new head for two labels and random weights (times do not depend on their values), and BERT with LoRA. For each:
the table after `learn.freeze()`, whether exactly the head trains, and the median time of a backward pass frozen and unfrozen, taken in
turn on the same batch. Of LoRA also its backward pass beside that of the whole model.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import contest
import pellucid as pl
from pellucid.adapters import AdapterOptions, adapted
from pellucid.freezing import GroupTable, group_table
from pellucid.groups import layer_groups
from pellucid.pipelines import Pipeline
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_learner import LearnerOptions, PellucidLearner, learner

TESTS = Path(__file__).resolve().parents[1] / "tests"
HEADS = {  # the modules that stand on the body, by the names that transformers gives them
    "BERT": {"classifier"},
    "DistilBERT": {"pre_classifier", "classifier"},
    "ModernBERT": {"head", "classifier"},
    "GPT-2": {"score"},
    "T5": {"classification_head"},
    "Llama": {"score"},
    "LoRA": {"classifier"},
}
SEED, ROWS, TOKENS = 0, 16, 64


@dataclass(frozen=True)
class Subject:
    """A learner and the batch that it is timed on."""

    name: str
    learn: PellucidLearner
    batch: Any

    def backward(self) -> float:
        """Seconds of one backward pass, as the model is frozen now."""
        pipe, model = self.learn.pipe, self.learn.model.train()
        loss = pipe.task.loss(pipe.task.run(model, self.batch).logits, torch.as_tensor(np.asarray(self.batch.labels))).mean()
        start = perf_counter()
        loss.backward()
        seconds = perf_counter() - start
        model.zero_grad(set_to_none=True)
        return seconds

    def table(self) -> GroupTable:
        """What trains now."""
        groups = layer_groups(self.learn.model, self.learn.pipe.provenance.new_names())
        return group_table(self.learn.model, groups, [hyper["lr"] for hyper in self.learn.opt.hypers])


def larger(name: str, layers: int, width: int) -> Mapping[str, Any]:
    """The sizes of an architecture under the names that its config has for them."""
    if name == "DistilBERT":
        return {"dim": width, "n_layers": layers, "n_heads": 4, "hidden_dim": 4 * width}
    if name == "GPT-2":
        return {"n_embd": width, "n_layer": layers, "n_head": 4}
    if name == "T5":
        return {"d_model": width, "d_ff": 4 * width, "d_kv": width // 4, "num_layers": layers // 2, "num_decoder_layers": layers // 2}
    return {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 4 * width}


def made(name: str, rows: pl.Rows, folder: Path, layers: int, width: int) -> Pipeline:
    """A pipeline of that architecture, from a checkpoint with random weights."""
    import transformers

    from conftest import TOKENIZERS
    from matrix import ARCHITECTURES

    known = next(each for each in ARCHITECTURES if each.name == name)
    tokenizer = TOKENIZERS[known.tokenizer]()
    settings = {**known.settings, **larger(name, layers, width), "vocab_size": len(tokenizer)}
    torch.manual_seed(SEED)
    transformers.AutoModel.from_config(getattr(transformers, known.config)(**settings)).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return Pipeline.new("text-classification", folder / name, rows, tokens=pl.TokenOptions(max_length=TOKENS))


def subject(name: str, pipe: Pipeline, rows: pl.Rows, folder: Path) -> Subject:
    """A learner of that pipeline, and one batch of full width."""
    learn = learner(pipe, rows, options=LearnerOptions(loaders=LoaderOptions(bs=ROWS), path=folder))
    table = pipe.task.to_learn(pipe.encode(rows.train))
    return Subject(name, learn, pipe.task.drawn(pipe.collate(table, np.arange(len(table))), 0))


def in_turn(rounds: int, *ways: Callable[[], float]) -> Sequence[float]:
    """The median of each way to spend time, one of each in every round; the first round is not counted."""
    seen = [[way() for way in ways] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*seen, strict=True)]


def examine(found: Subject, rounds: int) -> bool:
    """Print the table and the times of one learner; gives whether exactly its head trains after freeze()."""
    key = found.name.lower().replace("-", "")
    found.learn.freeze()
    table = found.table()
    print(f"\n{found.name}: learn.freeze()")
    pl.show(table)
    training = {name.partition(".")[0] for name, parameter in found.learn.model.named_parameters() if parameter.requires_grad}
    lines = [line.trainable for line in table.lines]
    exact = training == HEADS[found.name] and lines == ["no"] * (len(lines) - 1) + ["yes"] and table.lines[-1].name == "head"

    def frozen() -> float:
        found.learn.freeze()
        return found.backward()

    def unfrozen() -> float:
        found.learn.unfreeze()
        return found.backward()

    short, long = in_turn(rounds, frozen, unfrozen)
    contest.say(f"exactly_the_head_{key}", int(exact))
    contest.say(f"backward_ms_frozen_{key}", 1e3 * short)
    contest.say(f"backward_ms_unfrozen_{key}", 1e3 * long)
    contest.say(f"backward_ratio_{key}", short / long)
    return exact


def main() -> None:
    """All seven, one after the other."""
    sys.path[:0] = [str(TESTS)]  # the tiny tokenizers and configs of the tests, here with more layers
    from conftest import SENTENCES

    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    text = " ".join(SENTENCES)
    lines = [{"text": f"{n} {text}", "label": "ab"[n % 2], "split": "train" if n < ROWS else "valid"} for n in range(ROWS + 2)]
    rows = pl.read(lines, text="text", label="label", split="split")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pipes = {name: made(name, rows, folder, given.layers, given.width) for name in HEADS if name != "LoRA"}
        subjects = {name: subject(name, pipe, rows, folder) for name, pipe in pipes.items()}
        lora = adapted(made("BERT", rows, folder / "under", given.layers, given.width), AdapterOptions(rank=8))
        subjects["LoRA"] = subject("LoRA", lora, rows, folder)
        exact = [examine(each, given.rounds) for each in subjects.values()]
        for name in ("BERT", "LoRA"):
            subjects[name].learn.unfreeze()
        part, whole = in_turn(given.rounds, subjects["LoRA"].backward, subjects["BERT"].backward)
        shares = subjects["LoRA"].table()
        print("\nLoRA: learn.unfreeze()")
        pl.show(shares)
        contest.say("lora_trainable_share", shares.training / shares.total)
        contest.say("lora_backward_to_whole", part / whole)
        contest.say("exactly_the_head_all", int(all(exact)))


if __name__ == "__main__":
    main()
