"""The book's two ways on six emotions: features of `[CLS]` with logistic regression, and fine-tuning.

    python benchmarks/emotion.py [--epochs 1] [--rows 16000]

The data set is `emotion` (16,000 rows to learn from, 2,000 to score on). The settings are those of *NLP with Transformers*, chapter 2:
`LogisticRegression(max_iter=3000)` on the last hidden state of `[CLS]`; and batch 64, learning rate 2e-5, weight decay 0.01, accuracy
and weighted F1 after each epoch. The checkpoint is minilm.
"""

import argparse
from time import perf_counter

import contest
import pellucid as pl
from material import DATA


def emotion_rows(limit: int) -> pl.Rows:
    """The training and the validation rows as they come."""
    options = pl.ReadOptions(max_rows=limit)
    train, valid = str(DATA / "emotion" / "train.txt.gz"), str(DATA / "emotion" / "val.txt.gz")
    return pl.read({"train": train, "valid": valid}, text="text", label="label_name", options=options)


def by_features(rows: pl.Rows) -> None:
    """Embed once, fit a linear model on top."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    start = perf_counter()
    pipe = pl.Pipeline.new("text-classification", "minilm", rows)
    vectors = {name: pipe.features(split, pooling="cls") for name, split in rows.splits.items()}  # each (rows, hidden)
    targets = {name: split.targets(0, len(split)) for name, split in rows.splits.items()}
    answers = LogisticRegression(max_iter=3000).fit(vectors["train"], targets["train"]).predict(vectors["valid"])
    contest.say("features_accuracy", float(accuracy_score(targets["valid"], answers)))
    contest.say("features_weighted_f1", float(f1_score(targets["valid"], answers, average="weighted")))
    contest.say("features_minutes", (perf_counter() - start) / 60)


def by_fine_tuning(rows: pl.Rows, epochs: int) -> None:
    """Train every weight."""
    start = perf_counter()
    options = pl.TrainOptions(epochs=epochs, learning_rate=2e-5, batch_size=64, weight_decay=0.01)
    trained = pl.train(rows, "text-classification", "minilm", options=options)
    report = pl.evaluate(trained.pipeline, rows.valid, train=rows.train)
    pl.show(report)
    for score in report.scores:
        contest.say(f"fine_tuning_{score.name.lower().replace(' ', '_').replace('-', '_')}", score.value)
    contest.say("fine_tuning_minutes", (perf_counter() - start) / 60)


def main() -> None:
    """Both ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=16_000)
    given = parser.parse_args()
    rows = emotion_rows(given.rows)
    by_features(rows)
    by_fine_tuning(rows, given.epochs)


if __name__ == "__main__":
    main()
