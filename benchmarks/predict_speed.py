"""Texts a second in prediction, against `transformers.pipeline` and against the bare model.

    python benchmarks/predict_speed.py [--rounds 5] [--reviews 120] [--sentences 800]

Contestants, each in its own process and in turn, float32, the same checkpoint and texts, tokenization included:
`pellucid` (Pipeline.predict), `pipeline_1` and `pipeline_32` (transformers' text-classification pipeline at these batch sizes), and
`floor` (the batches that pellucid plans, padded beforehand, through the bare model: no tokenization, nothing but the forward pass).
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import contest
from material import material, scratch, starting_point

CONTESTANTS = ("pellucid", "floor", "pipeline_1", "pipeline_32")
MAX_LENGTH = 512


def by_pellucid(folder: str, texts: Sequence[str]) -> Callable[[], Mapping[str, Any]]:
    """Pipeline.predict."""
    import pellucid as pl

    pipe = pl.load(folder)

    def turn() -> Mapping[str, Any]:
        start = perf_counter()
        predictions = list(pipe.predict(texts))
        seconds = perf_counter() - start
        return {"seconds": seconds, "scores": [prediction.scores["positive"] for prediction in predictions]}

    return turn


def by_bare_model(folder: str, texts: Sequence[str]) -> Callable[[], Mapping[str, Any]]:
    """The planned batches through the bare model."""
    import torch

    import pellucid as pl
    from pellucid.batch import plan_sorted
    from pellucid.given import as_split

    pipe = pl.load(folder)
    table = pipe.encode(as_split(list(texts), ("text",)))
    batches = [pipe.collate(table, windows) for windows in plan_sorted(table.lengths, pipe.budget)]
    inputs = [{name: torch.from_numpy(array) for name, array in batch.inputs.items()} for batch in batches]
    pipe.model.eval()

    def turn() -> Mapping[str, Any]:
        start = perf_counter()
        with torch.inference_mode():
            logits = [pipe.model(**one).logits for one in inputs]
        seconds = perf_counter() - start
        scores = np.empty(len(texts))
        for batch, one in zip(batches, logits, strict=True):
            scores[batch.rows] = one.softmax(-1)[:, 1].numpy()
        return {"seconds": seconds, "scores": scores.tolist()}

    return turn


def by_pipeline(size: int, folder: str, texts: Sequence[str]) -> Callable[[], Mapping[str, Any]]:
    """transformers' own pipeline."""
    from pellucid.process import hide_broken_torchvision

    hide_broken_torchvision()
    from transformers import pipeline

    classify = pipeline(
        "text-classification", model=folder, top_k=None, batch_size=size, truncation=True, max_length=MAX_LENGTH, dtype="float32"
    )

    def turn() -> Mapping[str, Any]:
        start = perf_counter()
        answers = classify(list(texts))
        seconds = perf_counter() - start
        return {"seconds": seconds, "scores": [{one["label"]: one["score"] for one in answer}["positive"] for answer in answers]}

    return turn


WORKERS = {
    "pellucid": by_pellucid,
    "floor": by_bare_model,
    "pipeline_1": partial(by_pipeline, 1),
    "pipeline_32": partial(by_pipeline, 32),
}


def report(data: str, answers: Mapping[str, Sequence[Mapping[str, Any]]], texts: int) -> None:
    """Texts a second, ratios of medians, and the largest difference between two answers."""
    ours = contest.median_seconds(answers["pellucid"])
    scores = np.array(answers["pellucid"][0]["scores"])
    for name in CONTESTANTS:
        contest.say(f"texts_per_second_{data}_{name}", texts / contest.median_seconds(answers[name]))
    for name in ("pipeline_1", "pipeline_32"):
        contest.say(f"ratio_{data}_pellucid_to_{name}", contest.median_seconds(answers[name]) / ours)
        contest.say(f"largest_score_difference_{data}_{name}", float(np.abs(scores - answers[name][0]["scores"]).max()))
    contest.say(f"share_of_floor_{data}", contest.median_seconds(answers["floor"]) / ours)
    contest.say(f"largest_score_difference_{data}_floor", float(np.abs(scores - answers["floor"][0]["scores"]).max()))


def main() -> None:
    """Parent and worker in one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worker", choices=CONTESTANTS)
    parser.add_argument("--data", choices=("sentences", "reviews"))
    parser.add_argument("--folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reviews", type=int, default=120)
    parser.add_argument("--sentences", type=int, default=800)
    given = parser.parse_args()
    counts = {"sentences": given.sentences, "reviews": given.reviews}
    if given.worker:
        texts = [row["text"] for row in material(given.data, counts[given.data], 0)[0]]
        contest.serve(WORKERS[given.worker](given.folder, texts))
        return
    folder = starting_point(scratch() / "model")
    for data in ("sentences", "reviews"):
        arguments = ["--data", data, "--folder", str(folder), "--reviews", str(given.reviews), "--sentences", str(given.sentences)]
        report(data, contest.rounds(Path(__file__), CONTESTANTS, arguments, given.rounds), counts[data])


if __name__ == "__main__":
    main()
