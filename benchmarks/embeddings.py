"""Embeddings of minilm and e5-small against sentence-transformers on the same weights, and what they are good for.

    python benchmarks/embeddings.py [--rounds 5] [--pairs 1500] [--texts 1000] [--rows 8000]

Contestants, each in its own process and in turn, float32, the same folder and texts, tokenization included: `pellucid`
(PipelineFeatures.transform) and `library` (SentenceTransformer.encode, mean pooling and normalisation, at its own batch size of 32).
Prints the Spearman correlation of the cosines with STS-B's development set, the largest difference between two vectors, the ratio of the
times, and the F1 of a logistic regression (one-vs-rest) on the vectors of GoEmotions' training rows, on its test rows.
"""

import argparse
import csv
import gzip
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import contest
import pellucid as pl
from material import DATA
from pellucid.tasks.embeddings import FeatureExtraction

CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
PROMPTS = {"minilm": "", "e5-small": "query: "}  # as their makers say
CONTESTANTS = ("pellucid", "library")


def pairs(count: int) -> list[tuple[str, str, float]]:
    """STS-B's development set: two sentences and how alike they are, 0 to 5."""
    with gzip.open(DATA / "stsb" / "stsb-en-dev.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        return [(first, second, float(score)) for first, second, score in csv.reader(lines)][:count]


def emotions(name: str, count: int | None = None) -> tuple[list[str], list[tuple[str, ...]]]:
    """GoEmotions: texts, and the numbers of their labels."""
    with gzip.open(DATA / "goemotions" / f"{name}.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines][:count]
    return [row[0] for row in rows], [tuple(row[1].split(",")) for row in rows]


def by_pellucid(checkpoint: str, texts: Sequence[str]) -> Callable[[], Mapping[str, Any]]:
    """PipelineFeatures."""
    step = pl.PipelineFeatures(str(CHECKPOINTS / checkpoint), prompt=PROMPTS[checkpoint])
    return timed(lambda: step.transform(list(texts)))


def by_library(checkpoint: str, texts: Sequence[str]) -> Callable[[], Mapping[str, Any]]:
    """sentence-transformers."""
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()  # a torchvision that does not fit torch would keep transformers from loading
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    body = Transformer(str(CHECKPOINTS / checkpoint))
    model = SentenceTransformer(modules=[body, Pooling(384, "mean"), Normalize()], device="cpu")
    prompted = [PROMPTS[checkpoint] + text for text in texts]
    return timed(lambda: model.encode(prompted, convert_to_numpy=True, show_progress_bar=False))


def timed(embed: Callable[[], np.ndarray]) -> Callable[[], Mapping[str, Any]]:
    """A turn: the seconds, and a file with the vectors."""
    place = Path(tempfile.mkdtemp(prefix="pellucid-benchmark-")) / "vectors.npy"

    def turn() -> Mapping[str, Any]:
        start = perf_counter()
        vectors = embed()
        seconds = perf_counter() - start
        np.save(place, vectors)
        return {"seconds": seconds, "vectors": str(place)}

    return turn


WORKERS = {"pellucid": by_pellucid, "library": by_library}


def similarity(checkpoint: str, count: int) -> None:
    """`pellucid evaluate` on pairs."""
    found = pairs(count)
    rows = pl.read(
        [{"first": first, "second": second, "score": score} for first, second, score in found],
        text="first",
        text_pair="second",
        label="score",
        options=pl.ReadOptions(valid_fraction=0.0, label_kind="number"),
    )
    task = FeatureExtraction(prompt=PROMPTS[checkpoint], compare=True, scale=(0.0, 5.0))
    report = pl.evaluate(pl.Pipeline.new(task, CHECKPOINTS / checkpoint), rows.train, baselines=False)
    main = report.scores[0]
    contest.say(f"stsb_dev_spearman_{key(checkpoint)}", main.value)
    contest.say(f"stsb_dev_spearman_{key(checkpoint)}_interval", f"{main.low:.3f} to {main.high:.3f}")


def speed(checkpoint: str, texts: int, rounds: int) -> None:
    """The same vectors, and how long they take."""
    arguments = ["--checkpoint", checkpoint, "--texts", str(texts)]
    answers = contest.rounds(Path(__file__), CONTESTANTS, arguments, rounds)
    ours, theirs = (np.load(answers[name][-1]["vectors"]) for name in CONTESTANTS)
    contest.say(f"largest_difference_{key(checkpoint)}", float(np.abs(ours - theirs).max()))
    for name in CONTESTANTS:
        contest.say(f"texts_per_second_{key(checkpoint)}_{name}", texts / contest.median_seconds(answers[name]))
    ratio = contest.median_seconds(answers["library"]) / contest.median_seconds(answers["pellucid"])
    contest.say(f"ratio_{key(checkpoint)}_pellucid_to_sentence_transformers", ratio)


def heads(checkpoint: str, rows: int, cache: Path) -> None:
    """A logistic regression for each emotion, on vectors that are made once."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    (train, wanted), (test, expected) = emotions("train", rows), emotions("test", rows)
    coded = MultiLabelBinarizer().fit([*wanted, *expected])
    step = pl.PipelineFeatures(str(CHECKPOINTS / checkpoint), prompt=PROMPTS[checkpoint], cache=cache)
    start = perf_counter()
    vectors = step.transform(train)
    made = perf_counter()
    vectors = step.transform(train)  # from the folder
    read = perf_counter()
    head = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=300, class_weight=None)).fit(vectors, coded.transform(wanted))
    trained = perf_counter()
    chances = head.predict_proba(step.transform(test))
    for threshold in (0.5, 0.3):
        given = chances >= threshold
        name = f"goemotions_f1_micro_{key(checkpoint)}" + ("" if threshold == 0.5 else "_from_0_3")
        contest.say(name, float(f1_score(coded.transform(expected), given, average="micro")))
    contest.say(f"goemotions_seconds_vectors_{key(checkpoint)}", made - start)
    contest.say(f"goemotions_seconds_vectors_again_{key(checkpoint)}", read - made)
    contest.say(f"goemotions_seconds_head_{key(checkpoint)}", trained - read)


def key(checkpoint: str) -> str:
    """A name without a hyphen."""
    return checkpoint.replace("-", "_")


def main() -> None:
    """Parent and worker in one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worker", choices=CONTESTANTS)
    parser.add_argument("--checkpoint", choices=tuple(PROMPTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=1500)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=8000)
    given = parser.parse_args()
    if given.worker:
        contest.serve(WORKERS[given.worker](given.checkpoint, [text for pair in pairs(given.texts) for text in pair[:2]][: given.texts]))
        return
    cache = Path(tempfile.mkdtemp(prefix="pellucid-benchmark-"))
    for checkpoint in PROMPTS if given.checkpoint is None else (given.checkpoint,):
        if not (CHECKPOINTS / checkpoint).exists():
            raise SystemExit(f"{CHECKPOINTS / checkpoint} is not there; set CHECKPOINTS to the folder of checkpoints")
        similarity(checkpoint, given.pairs)
        speed(checkpoint, given.texts, given.rounds)
        heads(checkpoint, given.rows, cache)


if __name__ == "__main__":
    main()
