"""One process, two processes and two "machines" on this one train the same model on the same sentences: weights, accuracy, seconds.

    python benchmarks/processes.py [--train 400] [--valid 200] [--epochs 2]

Each contestant is the command that a user types: `pellucid train … --nproc 2`. Dropout is off, since random numbers differ between
processes; all else is as always. What is left of a difference comes from the order in which numbers are added up: the same command in one
process with one thread and with all threads says how much that alone is. Adam makes whole steps of gradients that are nothing but such
rounding (those of the biases of keys, which no answer depends on); so the answers are compared as well.
"""

import argparse
import csv
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import contest
import pellucid as pl
from material import material, scratch, starting_point

CONTESTANTS = ("one", "one_thread", "two", "two_machines")


def start(folder: Path, name: str, epochs: int, *more: str, threads: int = 0) -> "subprocess.Popen[str]":
    """A command that trains and saves."""
    options = ["--text", "text", "--label", "label", "--split", "split", "--checkpoint", "start"]
    options += ["--epochs", str(epochs), "--learning-rate", "3e-4"]
    command = [sys.executable, "-m", "pellucid", "train", "rows.csv", *options, "-o", name, *more]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(name: str, running: "list[subprocess.Popen[str]]", begun: float) -> None:
    """Wait for the commands of a contestant, and say how long the training took, and all of it."""
    said = [one.communicate(timeout=contest.DEADLINE) for one in running]
    for one, (_, errors) in zip(running, said, strict=True):
        if one.returncode:
            raise SystemExit(f"{name} ended with exit code {one.returncode}: {errors[-2000:]}")
    found = re.search(r"^([\d.]+) s$", said[0][0], re.MULTILINE)
    contest.say(f"seconds_of_training_{name}", float(found[1]) if found else -1.0)
    contest.say(f"seconds_{name}", perf_counter() - begun)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def largest_difference(one: Any, other: Any) -> float:
    """Of any weight of two models."""
    weights = other.state_dict()
    return max(float((tensor - weights[name]).abs().max()) for name, tensor in one.state_dict().items() if tensor.is_floating_point())


def main() -> None:
    """Train four times, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--valid", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    folder = scratch()
    begin = pl.load(starting_point(folder / "with_dropout"))
    begin.model.config.hidden_dropout_prob = begin.model.config.attention_probs_dropout_prob = 0.0
    pl.save(begin, folder / "start")
    train, valid = material("sentences", given.train, given.valid)
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ("text", "label", "split"))
        writer.writeheader()
        writer.writerows([{**row, "split": name} for name, rows in (("train", train), ("valid", valid)) for row in rows])

    port = ("--nnodes", "2", "--master-port", str(free_port()))
    for name, commands in {
        "one": [()],
        "one_thread": [()],
        "two": [("--nproc", "2")],
        "two_machines": [(*port, "--node-rank", "0"), (*port, "--node-rank", "1")],
    }.items():
        begun = perf_counter()
        threads = 1 if name in ("one_thread", "two", "two_machines") else 0  # the same in both ways of two, on any number of cores
        ended(name, [start(folder, name, given.epochs, *more, threads=threads) for more in commands], begun)

    pipes = {name: pl.load(folder / name) for name in CONTESTANTS}
    answers = {name: pipe.predict([row["text"] for row in valid]) for name, pipe in pipes.items()}
    labels = [row["label"] for row in valid]
    for name in CONTESTANTS:
        right = sum(answer == label for answer, label in zip(answers[name].answers(), labels, strict=True))
        contest.say(f"accuracy_{name}", right / len(labels))
    contest.say("largest_step_of_a_weight", largest_difference(begin.model, pipes["one"].model))
    same = True
    for name in CONTESTANTS[1:]:
        weights = largest_difference(pipes["one"].model, pipes[name].model)
        scores = float(abs(answers["one"].row_logits() - answers[name].row_logits()).max())
        contest.say(f"largest_difference_of_weights_{name}", weights)
        contest.say(f"largest_difference_of_logits_{name}", scores)
        same = same and scores < 2e-3 and answers[name].answers() == answers["one"].answers()
    contest.say("largest_difference_between_two_and_two_machines", largest_difference(pipes["two"].model, pipes["two_machines"].model))
    contest.say("processes_same_result", int(same))


if __name__ == "__main__":
    main()
