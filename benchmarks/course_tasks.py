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
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest
from material import DATA, scratch
from pellucid.apps.demo import review_rows

SPANISH = "translate English to Spanish: "
SECONDS = 2400  # for one command
CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
STORIES = DATA.parent / "checkpoints" / "stories15M"


@dataclass(frozen=True)
class Part:
    """One way through the command line: how it is trained, what is evaluated, what is asked.

    Rows are a function of a folder → the file of rows, and the flags that name its columns and, for a checkpoint of another task, the task.
    """

    task: str
    checkpoint: Path | str
    rows: Callable[[Path], tuple[Path, Sequence[str]]]
    asked: Sequence[str]
    training: Sequence[str] = ()
    trains: bool = True
    untouched: bool = False  # whether the checkpoint itself is evaluated too, before it is trained
    served: Callable[[Path], tuple[Path, Sequence[str]]] | None = None  # the rows and flags of the task that the trained weights serve


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
    file.write_text(json.dumps({"data": squad["data"][:4]}), encoding="utf-8")
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


def conversations(folder: Path) -> tuple[Path, Sequence[str]]:
    """Tatoeba as conversations: somebody asks for the Spanish of a sentence."""
    file = folder / "conversations.jsonl"
    with gzip.open(DATA / "tatoeba_en_es" / "spa_sample.tsv.gz", "rt", encoding="utf-8") as source:
        rows = [line.rstrip("\n").split("\t")[:2] for line in source][::20][:200]
    asked = [[{"role": "user", "content": f"Say it in Spanish: {english}"}] for english, _ in rows]
    lines = [json.dumps({"chat": json.dumps(chat), "answer": answer}) for chat, (_, answer) in zip(asked, rows, strict=True)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file, ("--text", "chat", "--label", "answer")


def prompted(folder: Path) -> tuple[Path, Sequence[str]]:
    """Film reviews; the answer is a word."""
    file = folder / "reviews.jsonl"
    lines = [json.dumps({"text": row["text"], "word": row["label"]}) for row in review_rows(600)[:600]]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file, ("--text", "text", "--label", "word")


def inference(folder: Path) -> tuple[Path, Sequence[str]]:
    """SNLI: does one sentence follow from another?"""
    file = unpacked("nli/snli_dev.csv.gz", folder, "snli.csv")
    return file, ("--text", "premise", "--text-pair", "hypothesis", "--label", "label")


def feelings(folder: Path) -> tuple[Path, Sequence[str]]:
    """Six emotions, whose names are the candidates."""
    file = folder / "emotion.csv"
    with gzip.open(DATA / "emotion" / "test.txt.gz", "rt", encoding="utf-8") as source, file.open("w", newline="") as out:
        rows = [line.rstrip("\n").split(";") for line in source]
        csv.writer(out).writerows([("text", "feeling"), *rows[1:501]])  # the first line names columns
    return file, ("--text", "text", "--label", "feeling", "--on", "all")


def zero_shot(folder: Path) -> tuple[Path, Sequence[str]]:
    """The same, by the classes of an NLI model."""
    file, flags = feelings(folder)
    return file, (*flags, "--task", "zero-shot-classification", "--setting", FEELINGS, "--setting", "template=This person feels {}.")


def by_vectors(folder: Path) -> tuple[Path, Sequence[str]]:
    """The same, by how near a text is to the name of a label."""
    file, flags = zero_shot(folder)
    return file, (*flags, "--setting", "method=embeddings")


def alike(folder: Path) -> tuple[Path, Sequence[str]]:
    """STS-B: how alike two sentences are, from 0 to 5."""
    file = folder / "stsb.csv"
    with gzip.open(DATA / "stsb" / "stsb-en-dev.csv.gz", "rt", encoding="utf-8", newline="") as source, file.open("w", newline="") as out:
        csv.writer(out).writerows([("first", "second", "similarity"), *csv.reader(source)])
    columns = ("--text", "first", "--text-pair", "second", "--label", "similarity", "--label-kind", "number", "--on", "all")
    return file, (*columns, "--task", "feature-extraction", "--setting", "compare=true", "--setting", "scale=0,5")


E5, FLAN, SMOL = (CHECKPOINTS / name for name in ("e5-small", "flan-t5-small", "smollm2-135m-instruct"))
FEELINGS = "candidate_labels=sadness,joy,love,anger,fear,surprise"
ONE = ("--epochs", "1")
QUESTION = ("Who wrote it?", "The notes were written by Ada Lovelace in London, many years before.")
ALIKE = ("A man plays a guitar.", "Somebody makes music.")
GREETING = json.dumps([{"role": "user", "content": "Say it in Spanish: Where is the station?"}])
PROMPT = ("--setting", "prefix=Is this review positive or negative? ", "--setting", "max_new_tokens=4")
PARTS: Mapping[str, Part] = {
    "entities": Part(
        "token-classification", "minilm", entities, ("Angela Merkel met Tim Cook in Berlin.",), ("--epochs", "2", "--learning-rate", "3e-4")
    ),
    "words": Part("token-classification", "minilm", words, ("The old man reads slowly.",), ("--epochs", "3", "--learning-rate", "3e-4")),
    "answers": Part("question-answering", E5, answers, QUESTION, (*ONE, "--learning-rate", "2e-4", "--max-length", "256")),
    "translation": Part(
        "translation", FLAN, translations, ("Where is the station?",), (*ONE, "--learning-rate", "5e-4", "--setting", "prefix=" + SPANISH)
    ),
    "summaries": Part(
        "summarization",
        FLAN,
        summaries,
        ("The council met on Monday. It rained.",),
        (*ONE, "--learning-rate", "5e-4", "--max-length", "256"),
    ),
    "prompted": Part(
        "text2text-generation",
        FLAN,
        prompted,
        ("A warm and funny film.",),
        (*ONE, "--learning-rate", "5e-4", *PROMPT),
        untouched=True,
    ),
    "language": Part(
        "text-generation",
        STORIES,
        shakespeare,
        ("Once upon a time",),
        (*ONE, "--learning-rate", "2e-4", "--max-length", "128"),
        untouched=True,
    ),
    "conversations": Part(
        "text-generation", SMOL, conversations, (GREETING,), (*ONE, "--learning-rate", "1e-4", "--batch-size", "8"), untouched=True
    ),
    "masks": Part("fill-mask", "minilm", wikitext, ("Paris is the [MASK] of France.",), (*ONE, "--learning-rate", "3e-4")),
    "zero_shot": Part(
        "text-classification", "minilm", inference, ("i feel so alone tonight",), (*ONE, "--learning-rate", "1e-4"), served=zero_shot
    ),
    "zero_shot_by_vectors": Part("zero-shot-classification", "minilm", by_vectors, ("i feel so alone tonight",), trains=False),
    "alike": Part("feature-extraction", "minilm", alike, ALIKE, trains=False),
}


def run(*arguments: str) -> str:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "pellucid", *arguments]
    print("$ pellucid " + " ".join(arguments), flush=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-2500:]}")
    return done.stdout


def task_flags(flags: Sequence[str]) -> list[str]:
    """Those flags of an evaluation that a prediction needs too: the task and its settings."""
    pairs = list(zip(flags[::2], flags[1::2], strict=True))
    return [each for name, value in pairs if name in ("--task", "--setting") for each in (name, value)]


def say_report(name: str, report: Mapping[str, Any]) -> None:
    """The first scores of an evaluation, with their intervals, and those of the baselines."""
    for score in report["scores"][:3]:
        key = score["name"].lower().replace(" ", "_").replace("-", "_")
        contest.say(f"{name}_{key}", score["value"])
        if score["low"] is not None:
            contest.say(f"{name}_{key}_interval", f"{score['low']:.3f} to {score['high']:.3f}")
    for baseline in report["baselines"]:
        if baseline["scores"]:
            key = re.sub(r"\W+", "_", baseline["name"].lower())
            contest.say(f"{name}_baseline_{key}", baseline["scores"][0]["value"])


def evaluated(model: str, file: Path, flags: Sequence[str]) -> Mapping[str, Any]:
    """`pellucid evaluate` in a process of its own."""
    report: dict[str, Any] = json.loads(run("evaluate", model, str(file), *flags, "--json", "-"))
    return report


def walk(name: str, part: Part, folder: Path) -> None:
    """One task from its rows to a trace."""
    file, flags = part.rows(folder)
    model = str(part.checkpoint)
    if part.untouched:
        settings = task_flags(["--task", part.task, *part.training])
        say_report(f"{name}_untouched", evaluated(model, file, (*flags, *settings)))
    if part.trains:
        model = str(folder / name)
        run("train", str(file), *flags, "--task", part.task, "--checkpoint", str(part.checkpoint), *part.training, "--output", model)
        say_report(name if part.served is None else f"{name}_source", evaluated(model, file, flags))
    if part.served is not None:
        file, flags = part.served(folder)
    if part.served is not None or not part.trains:
        say_report(name, evaluated(model, file, flags))
    asked = (model, *part.asked, *task_flags(flags))
    answer = run("predict", *asked)
    trace = run("predict", *asked, "--trace")
    print(answer, trace, sep="\n", flush=True)
    contest.say(f"{name}_answered_and_traced", int(bool(answer.strip()) and "tokens" in trace and "answer" in trace))


def main() -> None:
    """The parts, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="parts, with commas between")
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
