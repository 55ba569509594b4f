"""The tasks of the course through the command line on real data: train, evaluate, save, a fresh process, predict, trace.

    python benchmarks/course_tasks.py [--only entities,answers]

Each part prints its main score and 1 where the fresh process gave an answer and a trace. Rows of an evaluation are none that the training
saw. The checkpoints are folders of $CHECKPOINTS (default ~/.cache/checkpoints); a part whose checkpoint or data is not there is named and
left out. The sizes fit two cores: the numbers say that the way is whole, not how good a model can become.
"""

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest
from material import DATA, scratch

SECONDS = 2400  # for one command
CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
STORIES = DATA.parent / "checkpoints" / "stories15M"


@dataclass(frozen=True)
class Part:
    """One way through the command line: how it is trained, what is evaluated, what is asked."""

    task: str
    checkpoint: Path | str
    prepare: Callable[[Path], tuple[Path, Sequence[str]]]  # a folder → the file of rows, and the flags that name its columns
    training: Sequence[str]
    asked: Sequence[str]


def unpacked(name: str, folder: Path, file: str, lines: int | None = None) -> Path:
    """A part of a packed data file, under a name that says its kind."""
    target = folder / file
    with gzip.open(DATA / name, "rt", encoding="utf-8") as source, target.open("w", encoding="utf-8") as out:
        for number, line in enumerate(source):
            if lines is not None and number >= lines:
                break
            out.write(line)
    return target


def entities(folder: Path) -> tuple[Path, Sequence[str]]:
    """WNUT-17, named entities."""
    return unpacked("wnut17/wnut17train.conll.gz", folder, "wnut17.conll"), ()


def words(folder: Path) -> tuple[Path, Sequence[str]]:
    """EWT, parts of speech."""
    return unpacked("ud_english_ewt/dev.conllu.gz", folder, "ewt.conllu"), ("--label", "upos")


def answers(folder: Path) -> tuple[Path, Sequence[str]]:
    """SQuAD: the questions of the first articles."""
    file = folder / "squad.json"
    with gzip.open(DATA / "squad" / "dev-v1.1.json.gz", "rt", encoding="utf-8") as source:
        squad = json.load(source)
    file.write_text(json.dumps({"data": squad["data"][:6]}), encoding="utf-8")
    return file, ()


def translations(folder: Path) -> tuple[Path, Sequence[str]]:
    """Tatoeba, English and Spanish."""
    file = folder / "tatoeba.csv"
    with gzip.open(DATA / "tatoeba_en_es" / "spa_sample.tsv.gz", "rt", encoding="utf-8") as source, file.open("w", newline="") as out:
        rows = [line.rstrip("\n").split("\t")[:2] for line in source]
        csv.writer(out).writerows([("english", "spanish"), *rows[::8]])
    return file, ("--text", "english", "--label", "spanish")


def summaries(folder: Path) -> tuple[Path, Sequence[str]]:
    """XSum: a document, and one sentence that sums it up."""
    file = unpacked("xsum_test/test.jsonl.gz", folder, "xsum.jsonl", 300)
    return file, ("--text", "document", "--label", "summary")


def shakespeare(folder: Path) -> tuple[Path, Sequence[str]]:
    """Shakespeare, a paragraph a row."""
    file = folder / "shakespeare.jsonl"
    with gzip.open(DATA / "tinyshakespeare" / "input.txt.gz", "rt", encoding="utf-8") as source:
        text = source.read()
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()][:1500]
    file.write_text("".join(json.dumps({"text": paragraph}) + "\n" for paragraph in paragraphs), encoding="utf-8")
    return file, ("--text", "text")


def wikitext(folder: Path) -> tuple[Path, Sequence[str]]:
    """WikiText-2, a paragraph a row."""
    file = folder / "wikitext.jsonl"
    with gzip.open(DATA / "wikitext2" / "train.raw.gz", "rt", encoding="utf-8") as source:
        texts = [line.strip() for line in source if len(line.split()) > 20][:1500]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file, ("--text", "text")


E5, FLAN = CHECKPOINTS / "e5-small", CHECKPOINTS / "flan-t5-small"
ONE = ("--epochs", "1")
QUESTION = ("Who wrote it?", "The notes were written by Ada Lovelace in London, many years before.")
PARTS: Mapping[str, Part] = {
    "entities": Part(
        "token-classification", E5, entities, ("--epochs", "2", "--learning-rate", "2e-4"), ("Angela Merkel met Tim Cook in Berlin.",)
    ),
    "words": Part("token-classification", E5, words, ("--epochs", "2", "--learning-rate", "2e-4"), ("The old man reads slowly.",)),
    "answers": Part("question-answering", E5, answers, ("--epochs", "2", "--learning-rate", "2e-4", "--max-length", "256"), QUESTION),
    "translation": Part("translation", FLAN, translations, (*ONE, "--learning-rate", "5e-4"), ("Where is the station?",)),
    "summaries": Part(
        "summarization",
        FLAN,
        summaries,
        (*ONE, "--learning-rate", "5e-4", "--max-length", "256"),
        ("The council met on Monday. It rained.",),
    ),
    "language": Part(
        "text-generation", STORIES, shakespeare, (*ONE, "--learning-rate", "2e-4", "--max-length", "128"), ("Once upon a time",)
    ),
    "masks": Part("fill-mask", "minilm", wikitext, (*ONE, "--learning-rate", "3e-4"), ("Paris is the [MASK] of France.",)),
}


def run(*arguments: str) -> str:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "pellucid", *arguments]
    print("$ pellucid " + " ".join(arguments), flush=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-2500:]}")
    return done.stdout


def walk(name: str, part: Part, folder: Path) -> None:
    """One task from its rows to a trace."""
    file, flags = part.prepare(folder)
    model = str(folder / name)
    run("train", str(file), *flags, "--task", part.task, "--checkpoint", str(part.checkpoint), *part.training, "--output", model)
    report: dict[str, Any] = json.loads(run("evaluate", model, str(file), *flags, "--json", "-"))
    answer = run("predict", model, *part.asked)
    trace = run("predict", model, *part.asked, "--trace")
    print(answer, trace, sep="\n", flush=True)
    for score in report["scores"][:3]:
        key = score["name"].lower().replace(" ", "_").replace("-", "_")
        contest.say(f"{name}_{key}", score["value"])
        if score["low"] is not None:
            contest.say(f"{name}_{key}_interval", f"{score['low']:.3f} to {score['high']:.3f}")
    for baseline in report["baselines"]:
        if baseline["scores"]:
            key = baseline["name"].lower().replace(" ", "_").replace("-", "_")
            contest.say(f"{name}_baseline_{key}", baseline["scores"][0]["value"])
    contest.say(f"{name}_answered_and_traced", int(bool(answer.strip()) and "tokens" in trace and "answer" in trace))


def main() -> None:
    """The parts, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    chosen = [name for name in parser.parse_args().only.split(",") if name] or list(PARTS)
    folder = scratch()
    for name in chosen:
        part = PARTS[name]
        if isinstance(part.checkpoint, Path) and not (part.checkpoint / "config.json").exists():
            print(f"# {name}: left out, there is no {part.checkpoint.name} on this machine", flush=True)
            continue
        walk(name, part, folder)


if __name__ == "__main__":
    main()
