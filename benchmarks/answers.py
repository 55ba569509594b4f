"""Question answering on SQuAD: pellucid's learner beside a plain loop over transformers, on the same rows.

    python benchmarks/answers.py --checkpoint ~/.cache/checkpoints/e5-small [--rows 3000 --epochs 1 --questions 1000]

Both start from the same new head, and train on the same questions (drawn from SQuAD 1.1's training part with the seed) with the same
windows, steps, learning rate, schedule, batch size and seed, each in a process of its own. Both answer the first questions of the
development part and are scored by the same code. Prints F1 and exact match of both with 95 % intervals over questions, the paired
difference, and 1 where pellucid's F1 lies within the interval of the plain loop or above it.

Then pellucid's model answers questions whose context is many paragraphs in a row, 3,000 tokens and more, beside the same questions with
their own paragraph alone; the trace of the first shows its windows.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import contest
from material import DATA, SEED, scratch

LENGTH, STRIDE, LONGEST = 384, 128, 30  # tokens: of a window, shared by two, of an answer
LONG_CHARACTERS = 16_000  # of a long context: more than 3,000 tokens
LONG_ARTICLE = "Amazon_rainforest"
WARM_UP, DECAY = 0.1, 0.01
Question = Mapping[str, Any]


def articles(part: str) -> list[Mapping[str, Any]]:
    """The articles of a part of SQuAD 1.1."""
    file = DATA / "squad" / f"{part}-v1.1.json.gz"
    if not file.exists():
        raise SystemExit(f"{file} is not there; set PELLUCID_DATA to the folder of data sets")
    with gzip.open(file, "rt", encoding="utf-8") as text:
        found: list[Mapping[str, Any]] = json.load(text)["data"]
    return found


def squad(part: str) -> list[Question]:
    """Every question of a part of SQuAD 1.1: id, question, context and answers."""
    paragraphs = [paragraph for article in articles(part) for paragraph in article["paragraphs"]]
    return [{**asked, "context": paragraph["context"]} for paragraph in paragraphs for asked in paragraph["qas"]]


def long_questions() -> tuple[list[Question], str]:
    """The first question of each paragraph from an article on, and the paragraphs as one context."""
    found = articles("dev")
    first = next(number for number, article in enumerate(found) if article["title"] == LONG_ARTICLE)
    asked: list[Question] = []
    context = ""
    for paragraph in (paragraph for article in found[first:] for paragraph in article["paragraphs"]):
        if len(context) >= LONG_CHARACTERS:
            break
        asked.append({**paragraph["qas"][0], "context": paragraph["context"]})
        context += paragraph["context"] + "\n\n"
    return asked, context.rstrip()


def by_pellucid(given: argparse.Namespace, train: Sequence[Question], dev: Sequence[Question]) -> tuple[list[str], Mapping[str, Any]]:
    """The fastai learner, and `predict`."""
    import torch

    import pellucid as pl

    names = {"text": "question", "text_pair": "context", "label": "answers"}
    rows = pl.read({"train": list(train), "valid": list(dev)}, **names)
    pipe = pl.load(given.folder)
    options = pl.LearnerOptions(lr=given.rate, wd=DECAY, warmup=WARM_UP, loaders=pl.LoaderOptions(bs=given.batch, seed=SEED))
    learn = pl.learner(pipe, rows, options=options, metrics=())
    torch.manual_seed(SEED)
    start = perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit_linear(given.epochs, cbs=without_validation())
    seconds = perf_counter() - start
    answers = [str(answer) for answer in pipe.predict(rows.valid).answers()]
    read_long_contexts(pipe)
    return answers, {"seconds": seconds, "steps": len(learn.dls.train) * given.epochs, "windows": len(learn.dls.train.table)}


def read_long_contexts(pipe: Any) -> None:
    """Questions over a context of thousands of tokens."""
    import pellucid as pl
    from pellucid.answer_metrics import answer_scores

    asked, context = long_questions()
    wanted = [[answer["text"] for answer in row["answers"]] for row in asked]
    for name, contexts in (("own", [row["context"] for row in asked]), ("long", [context] * len(asked))):
        answers = pipe.predict([(row["question"], one) for row, one in zip(asked, contexts, strict=True)]).answers()
        scored = [answer_scores(str(answer), texts, second=False) for answer, texts in zip(answers, wanted, strict=True)]
        for score, values in zip(("f1", "exact_match"), zip(*scored, strict=True), strict=True):
            contest.say(f"answers_{score}_{name}_context", float(np.mean(values)))
    trace = pipe.trace((asked[-1]["question"], context))
    pl.show(trace)
    contest.say("answers_long_questions", len(asked))
    contest.say("answers_long_windows", len(trace.tokens))
    contest.say("answers_long_tokens", len(pipe.tokenizer(context, add_special_tokens=False, truncation=False)["input_ids"]))


def without_validation() -> Any:
    """A callback: the plain loop does not validate either."""
    from fastai.callback.core import Callback, CancelValidException

    class Without(Callback):  # type: ignore[misc]
        def before_validate(self) -> None:
            raise CancelValidException

    return Without()


def by_plain_loop(given: argparse.Namespace, train: Sequence[Question], dev: Sequence[Question]) -> tuple[list[str], Mapping[str, Any]]:
    """What the course teaches: the tokenizer's own windows, start and end positions, a loop, the n best spans of each window."""
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()  # a torchvision that does not fit torch would keep transformers from loading
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer, get_linear_schedule_with_warmup

    tokenizer = AutoTokenizer.from_pretrained(given.folder)
    model = AutoModelForQuestionAnswering.from_pretrained(given.folder, dtype="float32").train()

    def encode(rows: Sequence[Question]) -> Any:
        pair = [[row[name] for row in rows] for name in ("question", "context")]
        windows = {"max_length": LENGTH, "stride": STRIDE, "return_overflowing_tokens": True, "return_offsets_mapping": True}
        return tokenizer(*pair, truncation="only_second", **windows)

    def pad(encoded: Any, members: Sequence[int]) -> dict[str, torch.Tensor]:
        names = [name for name in tokenizer.model_input_names if name in encoded]
        batch: dict[str, torch.Tensor] = tokenizer.pad(
            {name: [encoded[name][one] for one in members] for name in names}, return_tensors="pt"
        )
        return batch

    encoded = encode(train)
    positions = []
    for number, offsets in enumerate(encoded["offset_mapping"]):
        answer = train[encoded["overflow_to_sample_mapping"][number]]["answers"][0]
        first, last = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        inside = [place for place, owner in enumerate(encoded.sequence_ids(number)) if owner == 1]
        within = offsets[inside[0]][0] <= first and offsets[inside[-1]][1] >= last
        start = max(place for place in inside if offsets[place][0] <= first) if within else 0
        end = min(place for place in inside if offsets[place][1] >= last) if within else 0
        positions.append((start, end))
    spared = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if n.endswith(spared)], "weight_decay": 0.0},
        {"params": [p for n, p in model.named_parameters() if not n.endswith(spared)], "weight_decay": DECAY},
    ]
    optimizer = torch.optim.AdamW(groups, lr=given.rate)
    steps = -(-len(positions) // given.batch) * given.epochs
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARM_UP * steps), steps)
    torch.manual_seed(SEED)
    begin = perf_counter()
    for _ in range(given.epochs):
        for members in torch.randperm(len(positions)).split(given.batch):
            labels = torch.tensor([positions[one] for one in members])
            model(**pad(encoded, members), start_positions=labels[:, 0], end_positions=labels[:, 1]).loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    seconds = perf_counter() - begin

    model.eval()
    asked = encode(dev)
    found: list[list[tuple[float, str]]] = [[] for _ in dev]
    for members in torch.arange(len(asked["input_ids"])).split(8):
        with torch.no_grad():
            given_back = model(**pad(asked, members))
        for entry, number in enumerate(members.tolist()):
            row = asked["overflow_to_sample_mapping"][number]
            offsets, owners = asked["offset_mapping"][number], asked.sequence_ids(number)
            starts, ends = given_back.start_logits[entry].tolist(), given_back.end_logits[entry].tolist()
            inside = [place for place, owner in enumerate(owners) if owner == 1]
            for start in sorted(inside, key=lambda place: -starts[place])[:20]:
                for end in sorted(inside, key=lambda place: -ends[place])[:20]:
                    if start <= end < start + LONGEST:
                        text = dev[row]["context"][offsets[start][0] : offsets[end][1]]
                        found[row].append((starts[start] + ends[end], text))
    return [max(spans)[1] if spans else "" for spans in found], {"seconds": seconds, "steps": steps, "windows": len(positions)}


WORKERS: Mapping[str, Callable[..., tuple[list[str], Mapping[str, Any]]]] = {"pellucid": by_pellucid, "plain": by_plain_loop}


def starting_point(checkpoint: str, folder: Path) -> Path:
    """The checkpoint with a new head, the same for both."""
    import torch

    import pellucid as pl
    from pellucid.tokens import LongTexts

    torch.manual_seed(SEED)
    tokens = pl.TokenOptions(max_length=LENGTH, long=LongTexts("windows", stride=STRIDE))
    return Path(pl.save(pl.Pipeline.new("question-answering", checkpoint, tokens=tokens), folder))


def report(told: Mapping[str, Mapping[str, Any]], dev: Sequence[Question]) -> None:
    """The scores of both by the same code, and pellucid's interval: questions drawn again and again."""
    from pellucid.answer_metrics import answer_scores

    wanted = [[answer["text"] for answer in row["answers"]] for row in dev]
    draw = np.random.default_rng(SEED).integers(0, len(dev), (1000, len(dev)))
    rows: dict[str, Any] = {}
    for name, one in told.items():
        for key in ("seconds", "steps", "windows"):
            contest.say(f"answers_{key}_{name}", one[key])
        scored = np.array([answer_scores(answer, texts, second=False) for answer, texts in zip(one["answers"], wanted, strict=True)])
        for score, each in zip(("f1", "exact_match"), scored.T, strict=True):  # (questions,)
            rows[f"{score}_{name}"] = each
            contest.say(f"answers_{score}_{name}", float(each.mean()))
            low, high = np.quantile(each[draw].mean(axis=1), [0.025, 0.975])
            contest.say(f"answers_{score}_{name}_low", float(low))
            contest.say(f"answers_{score}_{name}_high", float(high))
    low = float(np.quantile(rows["f1_plain"][draw].mean(axis=1), 0.025))
    contest.say("answers_f1_inside_interval", int(float(rows["f1_pellucid"].mean()) >= low))
    differences = (rows["f1_pellucid"] - rows["f1_plain"])[draw].mean(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975])
    contest.say("answers_f1_difference", float((rows["f1_pellucid"] - rows["f1_plain"]).mean()))
    contest.say("answers_f1_difference_interval", f"{low:.3f} to {high:.3f}")


def main() -> None:
    """Parent and worker in one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default=str(Path.home() / ".cache" / "checkpoints" / "e5-small"))
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--worker", choices=WORKERS)
    parser.add_argument("--folder")
    given = parser.parse_args()
    train = random.Random(SEED).sample(squad("train"), given.rows)
    dev = squad("dev")[: given.questions]
    if given.worker:
        answers, told = WORKERS[given.worker](given, train, dev)
        (Path(given.folder).parent / f"{given.worker}.json").write_text(json.dumps({"answers": answers, **told}), encoding="utf-8")
        return
    folder = starting_point(given.checkpoint, scratch() / "model")
    told = {}
    for name in WORKERS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--worker", name, "--folder", str(folder)], check=True, timeout=7200)
        told[name] = json.loads((folder.parent / f"{name}.json").read_text(encoding="utf-8"))
        print(f"# {name}: {told[name]['seconds']:.0f} s for {told[name]['steps']} steps", flush=True)
    report(told, dev)


if __name__ == "__main__":
    main()
