"""Named entities and parts of speech, against a plain loop over transformers.

    python benchmarks/entities.py [--checkpoint e5-small] [--part entities] [--epochs 3] [--rows 3400] [--test-rows 1300]

Entities are those of WNUT-17 (its training rows; its test rows to score on), parts of speech those of English EWT (its development rows to
learn from; its test rows). Both contestants, each in a process of its own, learn from the same rows in the same number of steps, with the
same checkpoint, new head, seed, learning rate, warm-up, weight decay and batch size, and batches in random order; the words of the rows are
words. `pellucid` trains with its fastai learner (`--bucket`: texts of like length in a batch), `plain` with the loop below. The same code
scores what they answer. Prints each score with its 95 % interval, and 1 where pellucid's lies inside of the plain loop's, or above it.
"""

import argparse
import gzip
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import contest
from material import DATA, SEED, scratch

RATE, DECAY, BATCH, WARM_UP = 3e-4, 0.01, 16, 0.1
CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
PARTS = {
    "entities": ("wnut17/wnut17train.conll.gz", "wnut17/emerging.test.annotated.gz", 0, 1, "f1"),
    "words": ("ud_english_ewt/dev.conllu.gz", "ud_english_ewt/test.conllu.gz", 1, 3, "accuracy"),
}
Sentences = list[dict[str, list[str]]]
Turn = Callable[[], Mapping[str, Any]]


def sentences(part: str, number: int, limit: int) -> Sentences:
    """Words and tags of the file to learn from (0) or to score on (1)."""
    word, tag = PARTS[part][2:4]
    found: Sentences = [{"words": [], "tags": []}]
    with gzip.open(DATA / str(PARTS[part][number]), "rt", encoding="utf-8") as lines:
        for line in lines:
            cells = line.rstrip("\n").split("\t")
            if not line.strip():
                found += [{"words": [], "tags": []}] if found[-1]["words"] else []
            elif len(cells) > tag and (part == "entities" or cells[0].isdecimal()):
                found[-1]["words"].append(cells[word].strip())
                found[-1]["tags"].append(cells[tag].strip())
    return [sentence for sentence in found if sentence["words"]][:limit]


def by_pellucid(folder: str, epochs: int, train: Sentences, test: Sentences, bucket: bool = False) -> Turn:
    """The fastai learner; answers are spans."""
    import torch

    import pellucid as pl

    def turn() -> Mapping[str, Any]:
        none = pl.ReadOptions(valid_fraction=0.0)
        rows = pl.read(train, text="words", label="tags", options=none)
        pipe = pl.load(folder)
        torch.manual_seed(SEED)
        options = pl.LearnerOptions(lr=RATE, wd=DECAY, warmup=WARM_UP, loaders=pl.LoaderOptions(bs=BATCH, seed=SEED, bucket=bucket))
        both = pl.Rows({"train": rows.train, "valid": rows.train[:1]}, rows.roles, rows.source)
        learn = pl.learner(pipe, both, options=options, metrics=())
        start = perf_counter()
        with learn.no_bar(), learn.no_logging():
            learn.fit_linear(epochs)
        seconds = perf_counter() - start
        answers: list[Any] = list(pipe.predict([sentence["words"] for sentence in test]).answers())
        spans = [[(span.start, span.end, span.label) for span in answer] for answer in answers]
        return {"seconds": seconds, "steps": epochs * len(learn.dls.train), "spans": spans}

    return turn


def by_plain_loop(folder: str, epochs: int, train: Sentences, test: Sentences, bucket: bool = False) -> Turn:
    """What a course on transformers writes: words cut into pieces, the first of each labelled, AdamW, a straight warm-up and decay."""
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def batch_of(part: Sentences, number_of: Mapping[str, int]) -> Any:
        words = [sentence["words"] for sentence in part]
        batch = tokenizer(words, is_split_into_words=True, truncation=True, padding=True, return_tensors="pt")
        labels = torch.full(batch["input_ids"].shape, -100)
        for row, sentence in enumerate(part):
            before = None
            for place, word in enumerate(batch.word_ids(row)):
                if word is not None and word != before:
                    labels[row, place] = number_of[sentence["tags"][word]]
                before = word
        return batch, labels

    def turn() -> Mapping[str, Any]:
        model = AutoModelForTokenClassification.from_pretrained(folder, dtype="float32")
        names, number_of = model.config.id2label, model.config.label2id
        torch.manual_seed(SEED)
        steps = epochs * -(-len(train) // BATCH)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = get_linear_schedule_with_warmup(optimizer, round(WARM_UP * steps), steps)
        start = perf_counter()
        model.train()
        for _ in range(epochs):
            order = torch.randperm(len(train)).tolist()
            for first in range(0, len(order), BATCH):
                batch, labels = batch_of([train[place] for place in order[first : first + BATCH]], number_of)
                model(**batch, labels=labels).loss.backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        seconds = perf_counter() - start
        model.eval()
        tags = []
        for sentence in test:
            batch, labels = batch_of([{**sentence, "tags": [names[0]] * len(sentence["words"])}], number_of)
            with torch.no_grad():
                best = model(**batch).logits[0].argmax(-1)
            found = [names[int(number)] for number, label in zip(best, labels[0], strict=True) if label != -100]
            said = dict(zip(dict.fromkeys(word for word in batch.word_ids(0) if word is not None), found, strict=True))
            tags.append([said.get(place, names[0]) for place in range(len(sentence["words"]))])
        return {"seconds": seconds, "steps": steps, "tags": tags}

    return turn


WORKERS = {"pellucid": by_pellucid, "plain": by_plain_loop}


def starting_point(part: str, checkpoint: str, train: Sentences) -> Path:
    """The checkpoint with a new head for the tags of the rows, the same for both."""
    import torch

    import pellucid as pl
    from pellucid.tasks.token_classification import TokenClassification

    here = CHECKPOINTS / checkpoint
    torch.manual_seed(SEED)
    rows = pl.read(train, text="words", label="tags", options=pl.ReadOptions(valid_fraction=0.0))
    pipe = pl.Pipeline.new(TokenClassification(words="spaces"), here if here.is_dir() else checkpoint, rows)
    return Path(pl.save(pipe, scratch() / part))


def scored(part: str, spans: Sequence[Sequence[Any]], test: Sentences) -> tuple[float, float, float]:
    """The main score of answered spans, and its 95 % interval."""
    from pellucid.intervals import Resampling
    from pellucid.span_metrics import entity_tally, word_tally
    from pellucid.tagging import spans_of_tags, word_spans
    from pellucid.tallies import resampled, scores_of
    from pellucid.types import Span

    wanted = [spans_of_tags(each["tags"], word_spans(each["words"])[1], plain=part == "words") for each in test]
    given = [tuple(Span(*span) for span in answer) for answer in spans]
    labels = sorted({span.label for target in (*wanted, *given) for span in target})
    tally = (word_tally if part == "words" else entity_tally)(given, wanted, labels)
    low, high = np.quantile(resampled([tally], Resampling(1000, SEED))[0][:, 0], [0.025, 0.975])
    return scores_of(tally)[0].value, float(low), float(high)


def spans_in(part: str, answer: Mapping[str, Any], test: Sentences) -> list[Any]:
    """What a contestant answered, as spans."""
    from pellucid.tagging import spans_of_tags, word_spans

    if "spans" in answer:
        return list(answer["spans"])
    places = [word_spans(sentence["words"])[1] for sentence in test]
    found = [spans_of_tags(tags, place, plain=part == "words") for tags, place in zip(answer["tags"], places, strict=True)]
    return [[(span.start, span.end, span.label) for span in spans] for spans in found]


def compete(part: str, given: argparse.Namespace) -> None:
    """Both contestants on one part, one after the other."""
    folder = scratch()
    train, test = sentences(part, 0, given.rows), sentences(part, 1, given.test_rows)
    (folder / "rows.json").write_text(json.dumps([train, test]), encoding="utf-8")
    start = starting_point(part, given.checkpoint, train)
    contest.say(f"{part}_rows", f"{len(train)} to learn from, {len(test)} to score on")
    score, found = str(PARTS[part][4]), {}
    for name in WORKERS:
        arguments = ["--folder", str(start), "--rows-file", str(folder / "rows.json"), "--epochs", str(given.epochs)]
        arguments += ["--bucket"] if given.bucket else []
        worker = contest.Worker(Path(__file__), name, arguments)
        try:
            answer = worker.go()
        finally:
            worker.close()
        found[name] = scored(part, spans_in(part, answer, test), test)
        contest.say(f"{part}_steps_{name}", answer["steps"])
        contest.say(f"{part}_seconds_{name}", answer["seconds"])
        for key, value in zip(("", "_low", "_high"), found[name], strict=True):
            contest.say(f"{part}_{score}_{name}{key}", value)
    contest.say(f"{part}_{score}_inside_interval", int(found["pellucid"][0] >= found["plain"][1]))


def main() -> None:
    """Parent and worker in one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", choices=WORKERS)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--checkpoint", default="minilm", help="minilm, or a folder in CHECKPOINTS such as e5-small")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=3400)
    parser.add_argument("--test-rows", type=int, default=2100)
    parser.add_argument("--bucket", action="store_true", help="pellucid's batches of like length")
    parser.add_argument("--folder")
    parser.add_argument("--rows-file")
    given = parser.parse_args()
    if given.worker:
        train, test = json.loads(Path(given.rows_file).read_text(encoding="utf-8"))
        contest.serve(WORKERS[given.worker](given.folder, given.epochs, train, test, given.bucket))
        return
    for part in (given.part,) if given.part else PARTS:
        compete(part, given)


if __name__ == "__main__":
    main()
