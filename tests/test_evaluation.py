"""Reports: what they hold, what they say, and that they say it honestly."""

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from fake_rows import HTML, FakeSplit, OwnTask, tokens_of
from pellucid.baselines import CLASSES, NUMBERS, SETS, constant_answer, linear_answers
from pellucid.comparison import Baseline, Difference, Problem, compare, strongest, verdict
from pellucid.errors import CheckpointError, DataError, LabelError, SettingError
from pellucid.evaluation import EvaluateOptions, evaluate
from pellucid.metrics import Score, scores_of
from pellucid.render import to_html, to_text
from pellucid.reports import Confusion, Report, Truncation
from pellucid.types import Prediction
from pellucid.view import Grid, Stack, Table

LABELS = ("negative", "positive", HTML)


@dataclass(frozen=True)
class FakePipe(OwnTask):
    """Says what it is told to say."""

    said: Sequence[Prediction]
    kind: str = "single_label"
    labels: tuple[str, ...] = LABELS
    reads: tuple[str, ...] = ("text",)
    lost: Sequence[int] = ()
    checkpoint: str = "fake"
    tag: str = "text-classification"
    seen: list = field(default_factory=list)

    def metrics(self, predictions, targets):
        return scores_of(self.kind, [prediction.answer for prediction in predictions], targets, self.labels)

    def predict(self, split):
        self.seen.append(split)
        return self.said

    def encode(self, split):
        assert split.given == [None] * len(split)
        return tokens_of(split, self.lost)


WORDS = {
    "negative": ["dull", "bad", "a mess", "boring"],
    "positive": ["great", "lovely", "a joy", "superb"],
    HTML: ["tag", "angle", "bracket"],
}


def rows_of(size, seed=0, noise=0.0, name="valid"):
    """Texts whose words tell their label, but for a share of `noise`."""
    generator = np.random.default_rng(seed)
    targets = [LABELS[number] for number in generator.integers(0, 3, size)]
    shown = [target if generator.random() > noise else LABELS[generator.integers(0, 3)] for target in targets]
    texts = [f"the film number {row} was {generator.choice(WORDS[label])}" for row, label in enumerate(shown)]
    return FakeSplit(texts, targets, name)


def says(targets, right=1.0, seed=1, confidence=0.8, labels=LABELS):
    """Predictions that are right in a share of rows."""
    generator = np.random.default_rng(seed)
    said = []
    for row, target in enumerate(targets):
        wrong = [label for label in labels if label != target]
        answer = target if generator.random() < right else wrong[generator.integers(len(wrong))]
        rest = (1 - confidence) / (len(labels) - 1)
        said.append(Prediction(row, answer, {label: confidence if label == answer else rest for label in labels}))
    return said


@pytest.fixture(scope="module")
def report():
    split = rows_of(400)
    pipe = FakePipe(says(split.given, right=0.9), lost=[6] * 40 + [0] * 360)
    return evaluate(pipe, split, train=rows_of(600, seed=5, noise=0.3, name="train"))


# --- what a report holds -----------------------------------------------------------------------------------------------


def test_the_scores_are_those_of_scikit_learn_with_an_interval_around_them(report):
    split = rows_of(400)
    answers = [prediction.answer for prediction in says(split.given, right=0.9)]
    by_name = {score.name: score for score in report.scores}
    assert by_name["accuracy"].value == sk.accuracy_score(split.given, answers)
    assert by_name["F1 macro"].value == pytest.approx(sk.f1_score(split.given, answers, average="macro"))
    for score in report.scores:
        assert score.low < score.value < score.high
    assert by_name["accuracy"].high - by_name["accuracy"].low == pytest.approx(2 * 1.96 * (0.9 * 0.1 / 400) ** 0.5, rel=0.2)


def test_the_confusion_matrix_adds_up(report):
    split = rows_of(400)
    answers = [prediction.answer for prediction in says(split.given, right=0.9)]
    grid = report.confusion.grid()
    assert np.array(grid.values).tolist() == sk.confusion_matrix(split.given, answers, labels=LABELS).tolist()
    assert sum(count for *_, count in report.confusion.pairs()) == sum(a != t for a, t in zip(answers, split.given, strict=True))


def test_every_label_has_its_scores_with_an_interval(report):
    assert [score.label for score in report.labels] == list(LABELS)
    assert sum(score.rows for score in report.labels) == 400
    assert all(score.low < score.f1 < score.high for score in report.labels)


def test_both_baselines_stand_beside_the_transformer(report):
    majority, linear = report.baselines
    assert (majority.name, linear.name) == ("majority class", CLASSES)
    assert majority.how.startswith("always ") and "of 600 rows" in majority.how
    assert "trained on 600 rows" in linear.how
    for baseline in report.baselines:
        assert [score.name for score in baseline.scores] == [score.name for score in report.scores]
        for mine, theirs, difference in zip(report.scores, baseline.scores, baseline.differences, strict=True):
            assert difference.value == pytest.approx(mine.value - theirs.value)
            assert difference.low <= difference.value <= difference.high


def test_the_worst_rows_come_first_with_their_place(report):
    assert len(report.worst) == 10
    assert all(worst.target != worst.answer and worst.confidence == 0.8 for worst in report.worst)
    assert [worst.loss for worst in report.worst] == pytest.approx([-np.log(0.1)] * 10)
    first = report.worst[0]
    assert first.place == f"reviews.csv, line {first.row - 100 + 2} (row {first.row - 100})"
    assert first.text.startswith("the film number")


def test_calibration_and_truncation(report):
    assert report.calibration.error == pytest.approx(abs(report.scores[0].value - 0.8))
    (only,) = report.calibration.bins
    assert (only.count, only.right) == (400, report.scores[0].value)
    assert report.truncation == Truncation(400, 40, 400 * 10 + 240, 240, 120)
    assert str(report.truncation).startswith("40 of 400 texts (10.0%) were longer than the model reads: 5.7% of all tokens and 120 words")


def test_a_report_reads_like_a_page(report):
    page = str(report)
    for part in ("accuracy", "majority class", CLASSES, "The transformer is", "F1 macro", "calibration error", "were longer", "row "):
        assert part in page
    assert isinstance(report.view(), Stack)
    assert to_text(report.view()) == page


def test_labels_with_html_are_escaped(report):
    assert HTML in report.view().parts[2].rows[2][0]
    assert "<script" not in to_html(report.view())
    assert "<script" not in report._repr_html_()


def test_to_dict_is_strict_json_and_says_everything(report):
    found = json.loads(report.to_json())
    assert found == json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["rows"] == 400 and found["scores"][0]["name"] == "accuracy"
    assert {
        "task",
        "checkpoint",
        "split",
        "level",
        "verdict",
        "baselines",
        "labels",
        "confusion",
        "worst",
        "calibration",
        "truncation",
    } <= set(found)


def test_the_same_evaluation_gives_the_same_report():
    split, train = rows_of(120), rows_of(150, seed=3)
    first, second = (evaluate(FakePipe(says(split.given, right=0.8)), split, train=train) for _ in range(2))
    assert first == second


# --- is it worth it? ---------------------------------------------------------------------------------------------------


def test_a_transformer_that_a_word_count_matches_is_not_clearly_worth_it():
    split = rows_of(300)
    report = evaluate(FakePipe(says(split.given, right=1.0)), split, train=rows_of(600, seed=5))
    assert report.baselines[1].scores[0].value > 0.99
    assert report.verdict.startswith("The transformer is not clearly worth it: accuracy 1.000 against")


def test_a_transformer_that_a_word_count_beats_is_not_worth_it():
    split = rows_of(300)
    report = evaluate(FakePipe(says(split.given, right=0.6)), split, train=rows_of(600, seed=5))
    assert report.verdict.startswith("The transformer is not worth it: accuracy 0.")
    assert report.baselines[1].differences[0].high < 0


def test_a_transformer_that_beats_a_word_count_is_worth_it():
    split = rows_of(300, noise=0.6)
    report = evaluate(FakePipe(says(split.given, right=0.97)), split, train=rows_of(600, seed=5, noise=0.6))
    assert report.verdict.startswith("The transformer is worth it: accuracy 0.9")
    assert f"of the baseline {CLASSES}" in report.verdict


def test_the_paired_interval_is_narrower_than_the_two_alone():
    split = rows_of(300, noise=0.2)
    answers = linear_answers(
        "single_label", {"text": rows_of(600, 5, 0.2).texts}, rows_of(600, 5, 0.2).given, {"text": split.texts}, labels=LABELS
    )
    said = [Prediction(row, answer, dict.fromkeys(LABELS, 1 / 3)) for row, answer in enumerate(answers.answers)]
    other = says(split.given, right=0.0)
    said[:6] = other[:6]  # all but six rows as the baseline says
    report = evaluate(FakePipe(said), split, train=rows_of(600, 5, 0.2))
    difference, score = report.baselines[1].differences[0], report.scores[0]
    assert difference.high - difference.low < 0.6 * (score.high - score.low)


def test_an_error_is_better_when_it_is_lower():
    difference = Difference("mean absolute error", -0.2, -0.3, -0.1)
    assert difference.gain == 0.2 and difference.clear
    baseline = Baseline("mean", "", (Score("mean absolute error", 0.7),), (difference,))
    scores = (Score("Pearson", 0.5), Score("mean absolute error", 0.5))
    assert strongest(scores, [baseline]) == (scores[1], baseline, difference)
    assert verdict(scores, [baseline], 0.9).startswith("The transformer is worth it: mean absolute error 0.500 against 0.700")
    assert "90 % interval of -0.300 to -0.100" in verdict(scores, [baseline], 0.9)


def test_without_training_rows_the_bar_is_said_to_be_low():
    split = rows_of(60)
    report = evaluate(FakePipe(says(split.given, right=0.8)), split)
    assert [baseline.name for baseline in report.baselines] == ["majority class"]
    assert any(note.what == "a low bar" and "train=rows.train" in note.change for note in report.notes)
    bare = evaluate(FakePipe(says(split.given, right=0.8)), split, baselines=False)
    assert bare.baselines == () and "cannot be said" in bare.verdict
    assert not any(note.what == "a low bar" for note in bare.notes)


# --- the other kinds ---------------------------------------------------------------------------------------------------


def test_sets_of_labels():
    generator = np.random.default_rng(0)
    names = ("joy", "anger", "love")
    had = generator.random((300, 3)) < 0.4
    targets = [tuple(name for name, yes in zip(names, row, strict=True) if yes) for row in had]
    texts = [f"row {row} " + " ".join(f"word{name}" for name in target) for row, target in enumerate(targets)]
    chances = np.clip(had * 0.6 + 0.2 + generator.normal(0, 0.15, had.shape), 0, 1)
    said = [
        Prediction(row, tuple(np.array(names)[each >= 0.5].tolist()), dict(zip(names, each.tolist(), strict=True)))
        for row, each in enumerate(chances)
    ]
    report = evaluate(FakePipe(said, kind="multi_label", labels=names), FakeSplit(texts, targets), train=FakeSplit(texts, targets, "train"))
    assert report.scores[0].value == pytest.approx(sk.f1_score(had, chances >= 0.5, average="micro"))
    assert report.confusion is None
    assert [baseline.name for baseline in report.baselines] == ["majority label set", SETS]
    assert report.baselines[1].scores[0].value > 0.95
    assert sum(each.count for each in report.calibration.bins) == 900
    expected = -np.log(np.maximum(np.where(had, chances, 1 - chances), 1e-12)).mean(axis=1)
    assert report.worst[0].loss == pytest.approx(expected.max())
    json.dumps(report.to_dict(), allow_nan=False)
    assert "(no label)" in str(replace(report, worst=(replace(report.worst[0], answer=()),)))
    assert report.plot().axes[1].get_title().startswith("reliability")


def test_numbers():
    generator = np.random.default_rng(0)
    truth = generator.uniform(0, 5, 200)
    texts = [f"a {'very ' * int(value)}good film {row}" for row, value in enumerate(truth)]
    guess = truth + generator.normal(0, 0.3, 200)
    said = [Prediction(row, float(value), {"value": float(value)}) for row, value in enumerate(guess)]
    split = FakeSplit(texts, [str(value) if row % 2 else float(value) for row, value in enumerate(truth)])
    report = evaluate(FakePipe(said, kind="regression", labels=()), split, train=replace(split, name="train"))
    assert [baseline.name for baseline in report.baselines] == ["mean", NUMBERS]
    assert np.isnan(report.baselines[0].scores[0].value)
    assert report.to_dict()["baselines"][0]["scores"][0]["value"] is None
    assert report.calibration is None and report.confusion is None and report.labels == ()
    assert report.worst[0].loss == pytest.approx(np.abs(guess - truth).max())
    assert "Pearson" in report.verdict
    assert len(report.plot().axes) == 1
    str(report)


def test_pairs_of_texts_get_a_vocabulary_each():
    split = rows_of(120)
    paired = FakeSplit(["the same words"] * 120, split.given, pairs=split.texts)
    report = evaluate(FakePipe(says(split.given), reads=("text", "text_pair")), paired, train=replace(paired, name="train"))
    assert report.baselines[1].scores[0].value == 1
    assert report.worst[0].text.startswith("the same words | the film")


def test_another_task_keeps_its_own_scores():
    split = FakeSplit(["a b"], ["c d"])
    pipe = FakePipe([Prediction(0, "c d")], kind="translation", tag="translation")
    object.__setattr__(pipe, "metrics", lambda predictions, targets: [Score("exact", float(predictions[0].answer == targets[0]))])
    report = evaluate(pipe, split)
    assert report.scores == (Score("exact", 1.0),)
    assert report.notes[0].what == "no intervals, no baselines"
    str(report)


# --- baselines ---------------------------------------------------------------------------------------------------------


def test_the_constant_answer():
    assert constant_answer("single_label", ["a", "b", "b"], 2).answers == ("b", "b")
    assert constant_answer("multi_label", [("b", "a"), ("a", "b"), ()], 1).answers == (("a", "b"),)
    assert constant_answer("multi_label", [(), ()], 1).how == "always 'no label', the answer of 2 of 2 rows"
    assert constant_answer("regression", [1.0, "2"], 1).answers == (1.5,)


@pytest.mark.parametrize(
    ("texts", "targets", "why"),
    [(["", "…", " "], ["negative", "positive", "negative"], "hold no words"), (["a", "b"], ["negative"] * 2, "only one class")],
)
def test_a_linear_model_that_cannot_be_trained_says_why(texts, targets, why):
    found = linear_answers("single_label", {"text": texts}, targets, {"text": ["a"]}, labels=LABELS)
    assert found.answers == () and why in found.how
    report = evaluate(FakePipe(says(["negative"])), FakeSplit(["a"], ["negative"]), train=FakeSplit(texts, targets))
    assert report.baselines[1].scores == ()
    assert why in str(report)


def test_a_training_label_that_the_model_does_not_know_names_its_row():
    split = rows_of(20)
    train = FakeSplit(["a", "b"], ["negative", "neutral"], "train")
    with pytest.raises(LabelError, match=r"row 1, training target: .*came 'neutral'"):
        evaluate(FakePipe(says(split.given)), split, train=train)


def test_one_label_with_or_without_it():
    texts = [f"yes {row}" if row % 2 else f"no {row}" for row in range(40)]
    targets = [("a",) if row % 2 else () for row in range(40)]
    found = linear_answers("multi_label", {"text": texts}, targets, {"text": ["yes", "no"]}, labels=("a",))
    assert found.answers == (("a",), ())


# --- degenerate input --------------------------------------------------------------------------------------------------


def test_one_row_has_no_intervals():
    report = evaluate(FakePipe(says(["positive"])), FakeSplit(["fine"], ["positive"]))
    assert report.scores[0].value == 1 and report.scores[0].low is None and report.scores[0].high is None
    assert "not clearly worth it" in report.verdict
    assert [note.what for note in report.notes] == ["1 rows", "an interval without width", "one class only", "a low bar"]
    assert json.loads(report.to_json())["scores"][0]["low"] is None
    report.plot()


def test_no_mistakes_are_no_proof_of_perfection():
    split = rows_of(300)
    report = evaluate(FakePipe(says(split.given)), split)
    assert (report.scores[0].low, report.scores[0].high) == (1, 1)
    assert "up to 1.0% of new rows may be wrong" in str(report.notes[0])


def test_a_class_that_is_never_answered_is_in_the_report():
    split = rows_of(60)
    report = evaluate(FakePipe(says(["positive"] * 60)), split, train=split)
    by_label = {score.label: score for score in report.labels}
    assert by_label["negative"].f1 == 0 and by_label["negative"].answers == 0
    assert by_label["positive"].answers == 60


def test_many_labels_are_not_drawn_as_a_matrix():
    labels = tuple(f"class {number}" for number in range(60))
    targets = [labels[number % 60] for number in range(600)]
    split = FakeSplit([f"text {row}" for row in range(600)], targets)
    report = evaluate(FakePipe(says(targets, right=0.5, labels=labels), labels=labels), split)
    parts = report.view().parts
    assert not any(isinstance(part, Grid) for part in parts)
    mistakes = next(part for part in parts if isinstance(part, Table) and part.title == "most frequent mistakes")
    assert len(mistakes.rows) == 10
    assert "The 40 labels with the lowest F1, of 60." in str(report)
    assert len(report.plot().axes) == 2


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_name_the_row(odd):
    split = rows_of(10)
    said = says(split.given)
    said[7] = replace(said[7], scores={**said[7].scores, "positive": odd})
    with pytest.raises(CheckpointError, match=r"reviews.csv, line 9 \(row 7\): expected finite scores, came -?(nan|inf) for 'positive'"):
        evaluate(FakePipe(said), split)
    numbers = [Prediction(0, 1.0), Prediction(1, odd)]
    with pytest.raises(CheckpointError, match=r"line 3 \(row 1\)"):
        evaluate(FakePipe(numbers, kind="regression", labels=()), FakeSplit(["a", "b"], [1.0, 2.0]))


def test_a_row_without_a_label_names_its_place():
    with pytest.raises(LabelError, match=r"reviews.csv, line 3 \(row 1\): the row has no label"):
        evaluate(FakePipe(says(["positive"] * 2)), FakeSplit(["a", "b"], ["positive", None]))


def test_a_label_that_the_model_does_not_know_names_its_place_before_the_work_starts():
    pipe = FakePipe(says(["positive"] * 2))
    with pytest.raises(LabelError, match=r"reviews.csv, line 3 \(row 1\): .*came 'Positive'.*Did you mean 'positive'"):
        evaluate(pipe, FakeSplit(["a", "b"], ["positive", "Positive"]))
    with pytest.raises(DataError, match=r"line 2 \(row 0\): expected a finite number, came 'inf'"):
        evaluate(replace(pipe, kind="regression"), FakeSplit(["a"], ["inf"]))
    assert pipe.seen == []


def test_no_rows_and_no_split():
    with pytest.raises(LabelError, match="no rows to evaluate"):
        evaluate(FakePipe([]), FakeSplit([], []))
    with pytest.raises(SettingError, match=r"rows: expected a split, came dict.*evaluate\(pipe, rows.valid"):
        evaluate(FakePipe([]), {"valid": []})


@pytest.mark.parametrize("wrong", [{"bootstrap": 0}, {"worst": -1}, {"bins": 0}, {"level": 1.0}, {"level": float("nan")}])
def test_options_outside_what_is_possible(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        EvaluateOptions(**wrong)


# --- the figure --------------------------------------------------------------------------------------------------------


def test_a_plot_is_a_figure_of_its_own(report, tmp_path):
    figure = report.plot()
    assert len(figure.axes) == 3
    figure.savefig(tmp_path / "report.png", dpi=50)
    assert (tmp_path / "report.png").stat().st_size > 5000


def test_a_label_with_a_dollar_sign_can_be_drawn(tmp_path):
    confusion = Confusion(("$x_", "\\frac{$", "a$b$c"), ((0, 1, 3), (2, 2, 4)))
    report = Report("text-classification", "fake", "valid", 7, 0.95, "", (Score("accuracy", 0.5),), confusion=confusion)
    report.plot().savefig(tmp_path / "report.svg")
    assert (tmp_path / "report.svg").stat().st_size > 5000


def test_plotting_leaves_pyplot_and_importing_leaves_torch_alone():
    code = """
import sys
from pellucid.evaluation import evaluate
from pellucid.reports import Report
from pellucid.metrics import Score
assert not {"torch", "sklearn", "matplotlib", "pandas", "scipy"} & set(sys.modules), sorted(sys.modules)
Report("t", "c", "s", 1, 0.95, "", (Score("accuracy", 0.5),)).plot()
assert "matplotlib.pyplot" not in sys.modules
"""
    source = Path(__file__).resolve().parents[1] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=source)


# --- on real rows ------------------------------------------------------------------------------------------------------


def test_word_counts_on_real_emotions(shared_data):
    columns = {}
    for name in ("train", "val"):
        with gzip.open(shared_data / "emotion" / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
            rows = [line.rstrip("\n").rsplit(";", 1) for line in file if ";" in line]
        columns[name] = ([text for text, _ in rows][:6000], [label for _, label in rows][:6000])
    (train, targets), (texts, wanted) = columns["train"], columns["val"]
    labels = tuple(sorted(set(targets)))
    linear = linear_answers("single_label", {"text": train}, targets, {"text": texts}, labels=labels)
    scores = scores_of("single_label", linear.answers, wanted, labels)
    constant = constant_answer("single_label", targets, len(texts))
    compared = compare(Problem("single_label", labels, wanted), scores, linear.answers, [constant])
    accuracy = compared.scores[0]
    assert 0.8 < accuracy.value < 0.9
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * (accuracy.value * (1 - accuracy.value) / len(texts)) ** 0.5, rel=0.15)
    assert constant.answers[0] == "joy"
    assert "is worth it" in verdict(compared.scores, compared.baselines, 0.95)


def test_word_counts_compare_the_two_texts_of_a_pair(shared_data):
    columns = []
    for name in ("train", "dev"):
        with gzip.open(shared_data / "stsb" / f"stsb-en-{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        columns.append(({"text": [row[0] for row in rows], "text_pair": [row[1] for row in rows]}, [row[2] for row in rows]))
    (train, targets), (texts, wanted) = columns
    found = linear_answers("regression", train, targets, texts, labels=())
    assert "what both texts share" in found.how
    assert scores_of("regression", found.answers, wanted, ())[0].value > 0.6  # each text for itself gives 0.19


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_a_real_pipeline(kind, tiny_checkpoints):
    from pellucid.data import read
    from pellucid.pipelines import Pipeline
    from pellucid.tasks.sequence_classification import SequenceClassification

    fake = rows_of(60)
    make = {"single_label": lambda label: label, "multi_label": lambda label: [label, "film"], "regression": lambda label: len(label) + 0.5}
    table = [{"text": text * 3, "label": make[kind](label)} for text, label in zip(fake.texts, fake.given, strict=True)]
    rows = read(table, text="text", label="label")
    pipe = Pipeline.new(SequenceClassification(kind=kind), tiny_checkpoints["bert"], rows)
    report = evaluate(pipe, rows.valid, train=rows.train, options=EvaluateOptions(bootstrap=50))
    predictions = pipe.predict(rows.valid)
    targets = rows.valid.targets(0, len(rows.valid))
    expected = pipe.task.metrics(list(predictions), targets)
    assert [(score.name, score.value) for score in report.scores] == [
        (score.name, pytest.approx(score.value, nan_ok=True)) for score in expected
    ]
    assert report.rows == len(rows.valid)
    assert len(report.baselines) == 2 and all(baseline.scores for baseline in report.baselines)
    assert {worst.row for worst in report.worst} <= {rows.valid[position].row for position in range(len(rows.valid))}
    json.dumps(report.to_dict(), allow_nan=False)
    assert "The transformer is" in str(report)
