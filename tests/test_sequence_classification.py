"""Text classification: what the rows say about the kind and the labels, targets as numbers, losses, answers and thresholds."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.pipelines import Pipeline
from pellucid.task import settings_of, task_from
from pellucid.tasks.sequence_classification import SequenceClassification, kind_of
from pellucid.types import Batch, Output

ALL = pl.ReadOptions(valid_fraction=0.0)


def batch_of(rows: int) -> Batch:
    return Batch({}, None, np.arange(rows), np.zeros(rows, dtype=np.int64), np.ones(rows, dtype=np.int64))


def split_of(labels: list[object]) -> pl.Rows:
    return pl.read([{"text": f"text {row}", "label": label} for row, label in enumerate(labels)], text="text", label="label", options=ALL)


def test_the_rows_say_the_kind() -> None:
    assert kind_of(["a", "b"])[0] == "single_label"
    assert kind_of([("a",), ("a", "b"), ()])[0] == "multi_label"
    assert kind_of([str(value / 7) for value in range(50)])[0] == "regression"
    assert kind_of(["0", "1", "2"] * 20)[0] == "single_label", "whole numbers are classes"
    assert kind_of([str(value) for value in range(100)])[0] == "single_label", "many whole numbers may be codes"
    _, notes = kind_of([("a",), ()])
    assert "sets of labels" in str(notes[0]), "what was chosen is said"


def test_the_labels_of_the_rows_are_sorted_as_numbers_where_they_are_numbers() -> None:
    task, _ = SequenceClassification().for_rows(split_of(["10", "9", "2", "10"]).train)
    assert task.labels == ("2", "9", "10")


def test_one_label_is_not_enough() -> None:
    with pytest.raises(pl.PellucidError, match="at least two labels"):
        SequenceClassification().for_rows(split_of(["a", "a", "a"]).train)


def test_regression_with_one_value_is_fine() -> None:
    task, _ = SequenceClassification(kind="regression").for_rows(split_of(["1", "1"]).train)
    assert task.labels == ()


@pytest.mark.parametrize(
    ("task", "targets", "expected"),
    [
        (SequenceClassification(("a", "b"), "single_label"), ["b", "a", "b"], np.array([1, 0, 1])),
        (SequenceClassification(("a", "b"), "multi_label"), [("a", "b"), (), ("b",)], np.array([[1, 1], [0, 0], [0, 1]], dtype=np.float32)),
        (SequenceClassification((), "regression"), ["1.5", -2, 0.25], np.array([1.5, -2, 0.25], dtype=np.float32)),
    ],
)
def test_targets_become_numbers(task: SequenceClassification, targets: list, expected: np.ndarray) -> None:
    found = task.label_array(targets)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize(
    ("task", "bad", "says"),
    [
        (SequenceClassification(("a", "b"), "single_label"), "c", "row 1: the label 'c', expected one of 2: 'a', 'b'"),
        (SequenceClassification(("a", "b"), "single_label"), None, "row 1: no label"),
        (SequenceClassification(("a", "b"), "multi_label"), ("a", "zzz"), "row 1: the label 'zzz'"),
        (SequenceClassification((), "regression"), "many", "row 1: expected a finite number, came 'many'"),
        (SequenceClassification((), "regression"), float("inf"), "row 1: expected a finite number"),
    ],
)
def test_a_target_that_does_not_fit_is_named_with_its_row(task: SequenceClassification, bad: object, says: str) -> None:
    good = {"single_label": "a", "multi_label": ("a",), "regression": "1"}[task.kind]
    with pytest.raises(pl.PellucidError, match="row 1") as error:
        task.label_array([good, bad])  # type: ignore[list-item]
    assert says in str(error.value)


def test_errors_in_a_file_name_the_line(tmp_path: Path, tiny_checkpoints: dict[str, Path]) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\none,good\ntwo,bad\nthree,odd\n", encoding="utf-8")
    pipe = Pipeline.new(SequenceClassification(("bad", "good"), "single_label"), tiny_checkpoints["bert"])
    with pytest.raises(pl.PellucidError, match=r"reviews\.csv, line 4 \(row 2\)"):
        pipe.encode(pl.read(file, text="text", label="label", options=ALL).train)


def test_losses_are_those_of_torch_one_a_row() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=draw)
    single = SequenceClassification(("a", "b", "c"), "single_label")
    classes = torch.tensor([0, 2, 1, 1, 0])
    torch.testing.assert_close(single.loss(logits, classes).mean(), torch.nn.CrossEntropyLoss()(logits, classes))
    several = SequenceClassification(("a", "b", "c"), "multi_label")
    sets = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]]).float()
    torch.testing.assert_close(several.loss(logits, sets).mean(), torch.nn.BCEWithLogitsLoss()(logits, sets))
    numbers = SequenceClassification((), "regression")
    torch.testing.assert_close(numbers.loss(logits[:, :1], sets[:, 0]).mean(), torch.nn.MSELoss()(logits[:, 0], sets[:, 0]))
    assert single.loss(logits, classes).shape == several.loss(logits, sets).shape == numbers.loss(logits[:, :1], sets[:, 0]).shape == (5,)


def test_answers() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, -2.0, -1.0]], dtype=np.float32)
    single = SequenceClassification(("a", "b", "c"), "single_label").decode(Output(logits), batch_of(2))
    assert [prediction.answer for prediction in single] == ["a", "c"]
    several = SequenceClassification(("a", "b", "c"), "multi_label").decode(Output(logits), batch_of(2))
    assert [prediction.answer for prediction in several] == [("a", "c"), ()]
    numbers = SequenceClassification((), "regression").decode(Output(logits[:, :1]), batch_of(2))
    assert [prediction.answer for prediction in numbers] == [2.0, -3.0]


def test_logits_as_large_as_float32_goes_do_not_overflow() -> None:
    big = np.array([[3e38, -3e38], [1e38, 1e38]], dtype=np.float32)
    for kind in ("single_label", "multi_label"):
        for prediction in SequenceClassification(("a", "b"), kind).decode(Output(big), batch_of(2)):
            assert np.isfinite(list(prediction.scores.values())).all()


def test_thresholds_decide_and_are_part_of_the_settings() -> None:
    logits = np.array([[-1.0, 1.0]], dtype=np.float32)  # probabilities 0.27, 0.73
    strict = SequenceClassification(("a", "b"), "multi_label", thresholds=(0.2, 0.8))
    assert strict.decode(Output(logits), batch_of(1))[0].answer == ("a",)
    assert task_from(SequenceClassification, settings_of(strict)) == strict


def test_thresholds_are_settled_on_held_out_rows() -> None:
    task = SequenceClassification(("rare", "common"), "multi_label")
    draw = np.random.default_rng(0)
    wanted = np.stack([draw.random(400) < 0.1, draw.random(400) < 0.6], axis=1)
    logits = (np.where(wanted, -2.0, -4.0) + draw.normal(0, 0.3, (400, 2))).astype(np.float32)  # right in order, far below 0.5
    answers = task.decode(Output(logits), batch_of(400))
    targets = [tuple(np.array(task.labels)[row].tolist()) for row in wanted]
    assert not any(prediction.answer for prediction in answers), "0.5 finds nothing"
    settled, notes = task.settled(answers, targets)
    assert all(threshold < 0.3 for threshold in settled.thresholds)
    right = [prediction.answer == target for prediction, target in zip(settled.decode(Output(logits), batch_of(400)), targets, strict=True)]
    assert np.mean(right) > 0.95
    assert "held-out" in str(notes[0])


def test_thresholds_follow_their_labels_into_the_order_of_the_head(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = split_of([["b"], ["a"], ["a", "b"], []])
    saved = pl.save(Pipeline.new("text-classification", tiny_checkpoints["bert"], rows), tmp_path / "saved")
    turned = Pipeline.new(SequenceClassification(("b", "a"), "multi_label", thresholds=(0.9, 0.1)), saved)
    assert turned.task.labels == ("a", "b")
    assert turned.task.thresholds == (0.1, 0.9)


def test_training_settles_thresholds_and_saving_keeps_them(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    rows = pl.read(
        [
            {"text": f"{text} {number}", "label": labels}
            for number in range(10)
            for text, labels in (("warm and funny", ["warm", "funny"]), ("dull", ["dull"]), ("cold", []))
        ],
        text="text",
        label="label",
        options=pl.ReadOptions(valid_fraction=0.34),
    )
    trained = pl.train(rows, "text-classification", tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1))
    thresholds = trained.pipeline.task.thresholds  # type: ignore[attr-defined]
    assert len(thresholds) == 3
    again = pl.load(pl.save(trained.pipeline, tmp_path / "saved"))
    assert again.task.thresholds == thresholds  # type: ignore[attr-defined]
    assert any("thresholds" in note.what for note in again.notes)


def test_without_rows_the_checkpoint_says_what_it_does(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for labels in (["x", "y", "x"], [["x"], ["x", "y"], []], [str(value / 7) for value in range(30)]):
        pipe = Pipeline.new("text-classification", tiny_checkpoints["bert"], split_of(labels))
        folder = pl.save(pipe, tmp_path / pipe.task.kind)
        (folder / "pellucid.json").unlink()  # as if transformers had written it
        opened = Pipeline.new("text-classification", folder)
        assert opened.task == pipe.task
        np.testing.assert_allclose(opened.predict(["text 1"]).logits, pipe.predict(["text 1"]).logits, atol=1e-6)


def test_rows_without_labels_are_told_so() -> None:
    rows = pl.read([{"text": "a", "stars": "1"}, {"text": "b", "stars": "2"}], options=ALL)
    with pytest.raises(pl.PellucidError, match=r"no labels to learn from.*label="):
        SequenceClassification().for_rows(rows.train)


def test_a_pair_that_is_not_there_is_told() -> None:
    with pytest.raises(pl.PellucidError, match="text_pair="):
        SequenceClassification(pair=True).for_rows(split_of(["a", "b"]).train)


def test_numbers_that_become_classes_are_told() -> None:
    kind, notes = kind_of([str(number) for number in range(40)])
    assert kind == "single_label"
    assert "40 numbers are read as names of classes" in str(notes[0])


@pytest.mark.parametrize("thresholds", [(0.9,), (0.2, 0.4, 0.6)])
def test_thresholds_must_be_one_a_label(thresholds: tuple[float, ...], tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(pl.PellucidError, match="for 2 labels"):
        Pipeline.new(SequenceClassification(("a", "b"), "multi_label", thresholds=thresholds), tiny_checkpoints["bert"])
