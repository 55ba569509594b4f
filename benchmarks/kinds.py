"""Pairs, numbers and sets of labels through the command line on real data: train, evaluate, load in a fresh process, predict, trace.

    python benchmarks/kinds.py [--rows 3000]

Pairs are SNLI's development set (premise, hypothesis, three labels), numbers STS-B (similarity from 0 to 5), sets GoEmotions (28 labels).
Each row of the evaluation is one that the training did not see. Prints the main score of each kind, of its TF-IDF baseline, and 1 where
the fresh process gave an answer and a trace.
"""

import argparse
import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contest
from material import DATA, scratch

SECONDS = 1200  # for one command
COMMON = ("--epochs", "1", "--learning-rate", "1e-4")


def pairs(folder: Path, rows: int) -> tuple[Path, Sequence[str], Sequence[str]]:
    """SNLI: the file, the flags that name its columns, and a text to predict."""
    file = folder / "snli.csv"
    with gzip.open(DATA / "nli" / "snli_dev.csv.gz", "rt", encoding="utf-8", newline="") as lines, file.open("w", newline="") as out:
        found = list(csv.DictReader(lines))[:rows]
        writer = csv.DictWriter(out, ["premise", "hypothesis", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found)
    flags = ("--text", "premise", "--text-pair", "hypothesis", "--label", "label")
    return file, flags, ("A man plays a guitar.", "Somebody makes music.")


def numbers(folder: Path, rows: int) -> tuple[Path, Sequence[str], Sequence[str]]:
    """STS-B."""
    file = folder / "stsb.csv"
    with gzip.open(DATA / "stsb" / "stsb-en-train.csv.gz", "rt", encoding="utf-8", newline="") as lines, file.open("w", newline="") as out:
        csv.writer(out).writerows([("first", "second", "similarity"), *list(csv.reader(lines))[:rows]])
    flags = ("--text", "first", "--text-pair", "second", "--label", "similarity")
    return file, flags, ("A man plays a guitar.", "Somebody makes music.")


def sets(folder: Path, rows: int) -> tuple[Path, Sequence[str], Sequence[str]]:
    """GoEmotions."""
    file = folder / "goemotions.jsonl"
    names = (DATA / "goemotions" / "labels.txt").read_text(encoding="utf-8").split()
    with gzip.open(DATA / "goemotions" / "train.tsv.gz", "rt", encoding="utf-8") as lines, file.open("w", encoding="utf-8") as out:
        for text, numbers, _ in (line.rstrip("\n").split("\t") for line in list(lines)[:rows]):
            out.write(json.dumps({"text": text, "labels": [names[int(number)] for number in numbers.split(",")]}) + "\n")
    return file, ("--text", "text", "--label", "labels"), ("Thank you so much, this made me laugh!",)


def run(*arguments: str) -> str:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "pellucid", *arguments]
    print("$ pellucid " + " ".join(arguments), flush=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
    return done.stdout


def main() -> None:
    """The three kinds, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=3000)
    given = parser.parse_args()
    folder = scratch()
    for name, prepare in (("pairs", pairs), ("numbers", numbers), ("sets", sets)):
        file, flags, texts = prepare(folder, given.rows)
        model = str(folder / name)
        run("train", str(file), *flags, *COMMON, "--output", model)
        report: dict[str, Any] = json.loads(run("evaluate", model, str(file), *flags, "--json", "-"))
        answer = run("predict", model, *texts)
        trace = run("predict", model, *texts, "--trace")
        print(answer, trace, sep="\n", flush=True)
        main_score = report["scores"][0]
        key = main_score["name"].lower().replace(" ", "_")
        contest.say(f"{name}_{key}", main_score["value"])
        contest.say(f"{name}_{key}_interval", f"{main_score['low']:.3f} to {main_score['high']:.3f}")
        contest.say(f"{name}_{key}_tfidf", report["baselines"][-1]["scores"][0]["value"])
        contest.say(f"{name}_answered_and_traced", int(bool(answer.strip()) and "logits" in trace and "answer" in trace))


if __name__ == "__main__":
    main()
