"""Losses with label smoothing, focus and class weights: the formulas of torch and of the papers, one number an example."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import pellucid as pl
from pellucid.errors import DataError, LabelError, SettingError
from pellucid.training.task_loss import LossOptions, TaskLoss, balanced_weights, task_loss

CLASSES = pl.SequenceClassification(labels=("a", "b", "c"), kind="single_label")
SETS = pl.SequenceClassification(labels=("a", "b", "c"), kind="multi_label")
NUMBERS = pl.SequenceClassification(kind="regression")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SPANS = pl.TokenClassification(labels=("PER", "LOC"), kind="spans", scheme="IOB2", tags=TAGS)
WEIGHTS = {"a": 0.5, "b": 2.0, "c": 1.5}


def batch(seed: int = 0, rows: int = 8, labels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, labels, generator=generator) * 3
    return logits.requires_grad_(), torch.randint(labels, (rows,), generator=generator)


def tokens(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(TAGS), (4, 7), generator=generator)
    labels[torch.rand(4, 7, generator=generator) < 0.4] = -100
    labels[2] = -100  # a row without a label
    return (torch.randn(4, 7, len(TAGS), generator=generator) * 3).requires_grad_(), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_classes_are_those_of_cross_entropy(smoothing, weights):
    logits, labels = batch()
    loss, notes = task_loss(CLASSES, LossOptions(label_smoothing=smoothing, class_weights=weights), None)
    tensor = None if weights is None else torch.tensor(list(weights.values()))
    wanted = functional.cross_entropy(logits, labels, tensor, label_smoothing=smoothing)
    assert torch.allclose(loss(logits, labels), wanted) and notes == ()
    loss.reduction = "none"
    each = functional.cross_entropy(logits, labels, tensor, label_smoothing=smoothing, reduction="none")
    assert loss(logits, labels).shape == (8,) and torch.allclose(loss(logits, labels), each)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, {"PER": 3.0, "O": 0.2}])
def test_tokens_are_those_of_cross_entropy_over_all_of_them(smoothing, weights):
    logits, labels = tokens()
    loss, _ = task_loss(SPANS, LossOptions(label_smoothing=smoothing, class_weights=weights), None)
    tensor = None if weights is None else torch.tensor([0.2, 3.0, 3.0, 1.0, 1.0])
    flat = logits.flatten(0, 1), labels.flatten()
    assert torch.allclose(loss(logits, labels), functional.cross_entropy(*flat, tensor, label_smoothing=smoothing))
    loss.reduction = "none"
    each = functional.cross_entropy(*flat, tensor, label_smoothing=smoothing, reduction="none").view(4, 7)
    counts = (labels != -100).sum(1)
    assert torch.allclose(loss(logits, labels), each.sum(1) / counts.clamp(min=1)) and loss(logits, labels)[2].item() == 0.0


def test_written_texts_are_smoothed_as_transformers_smooths_them():
    from transformers.trainer_pt_utils import LabelSmoother

    logits, labels = tokens()
    loss, _ = task_loss(pl.Text2Text(), LossOptions(label_smoothing=0.1), None)
    wanted = LabelSmoother(0.1)({"logits": logits}, labels)
    assert torch.allclose(loss(logits, labels), wanted)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_of_classes_is_the_formula_of_the_paper(gamma):
    logits, labels = batch(1)
    chances = logits.detach().double().softmax(-1).gather(1, labels[:, None])[:, 0]
    wanted = -((1 - chances) ** gamma) * chances.log()
    loss, _ = task_loss(CLASSES, LossOptions(focal=gamma), None)
    assert torch.allclose(loss.each(logits, labels).double(), wanted, atol=1e-6)
    weighted, _ = task_loss(CLASSES, LossOptions(focal=gamma, class_weights=WEIGHTS), None)
    alpha = torch.tensor(list(WEIGHTS.values()))[labels]
    assert torch.allclose(weighted.each(logits, labels).double(), wanted * alpha, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_several_labels_is_that_of_torchvision(gamma):
    logits, _ = batch(2)
    labels = (torch.rand(8, 3, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    chances = torch.sigmoid(logits)  # torchvision.ops.sigmoid_focal_loss, alpha = -1
    right = chances * labels + (1 - chances) * (1 - labels)
    wanted = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none") * (1 - right) ** gamma
    loss, _ = task_loss(SETS, LossOptions(focal=gamma), None)
    assert torch.allclose(loss.each(logits, labels), wanted.mean(-1), atol=1e-6)


def test_weights_and_smoothing_of_several_labels_are_those_of_torch():
    logits, _ = batch(3)
    labels = (torch.rand(8, 3, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    loss, _ = task_loss(SETS, LossOptions(class_weights=WEIGHTS), None)
    wanted = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(list(WEIGHTS.values())))
    assert torch.allclose(loss(logits, labels), wanted)
    smooth, _ = task_loss(SETS, LossOptions(label_smoothing=0.2), None)
    assert torch.allclose(smooth(logits, labels), functional.binary_cross_entropy_with_logits(logits, labels * 0.8 + 0.1))


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_focal_loss_has_finite_gradients_where_the_model_is_sure(gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    task_loss(CLASSES, LossOptions(focal=gamma), None)[0](logits, torch.tensor([0, 0])).backward()
    assert torch.isfinite(logits.grad).all()


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.random.default_rng(0).choice(3, 200, p=[0.7, 0.2, 0.1])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert np.allclose(balanced_weights(labels, 3), wanted)
    loss, notes = task_loss(CLASSES, LossOptions(class_weights="balanced"), labels)
    assert np.allclose(loss.weights, wanted) and "a 0." in notes[0].what and "balanced" in notes[0].why
    ignored = np.concatenate([labels, np.full(50, -100)])
    assert np.allclose(balanced_weights(ignored, 3), wanted), "what is not scored does not count"
    assert balanced_weights(labels, 4)[3] == 1.0, "a label without rows"


def test_balanced_weights_of_several_labels_are_rows_without_by_rows_with():
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=np.float32)
    assert np.allclose(balanced_weights(labels, 3), [1 / 3, 3.0, 1.0])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 7), st.sampled_from([None, WEIGHTS]), st.sampled_from([0.0, 2.0]))
def test_means_of_parts_make_the_mean_of_the_whole(seed, cut, weights, focal):
    logits, labels = batch(seed)
    loss, _ = task_loss(CLASSES, LossOptions(focal=focal, class_weights=weights), None)
    parts = [(logits[:cut], labels[:cut]), (logits[cut:], labels[cut:])]
    summed = sum(loss(*part) * loss.mass(part[1]) for part in parts) / sum(loss.mass(part[1]) for part in parts)
    assert torch.allclose(summed, loss(logits, labels), rtol=1e-4)


def test_means_of_parts_make_the_mean_of_all_tokens():
    logits, labels = tokens()
    for weights in (None, {"PER": 4.0}):
        loss, _ = task_loss(SPANS, LossOptions(class_weights=weights), None)
        parts = [(logits[:1], labels[:1]), (logits[1:], labels[1:])]
        summed = sum(loss(*part) * loss.mass(part[1]) for part in parts) / loss.mass(labels)
        assert torch.allclose(summed, loss(logits, labels), rtol=1e-5)


def test_without_options_it_is_the_task_itself():
    logits, labels = tokens()
    loss = TaskLoss(SPANS)
    assert torch.equal(loss.each(logits, labels), SPANS.loss(logits, labels))
    flat = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert torch.allclose(loss(logits, labels), flat)
    loss.weights = torch.ones(5)
    assert loss.of(SPANS).weights is loss.weights and loss.of(SPANS).options is loss.options
    assert repr(task_loss(CLASSES, LossOptions(label_smoothing=0.1), None)[0]) == (
        "loss of text-classification (single_label, label smoothing 0.1)"
    )


@pytest.mark.parametrize(
    ("task", "options", "match"),
    [
        (NUMBERS, LossOptions(label_smoothing=0.1), "has no label_smoothing"),
        (NUMBERS, LossOptions(class_weights="balanced"), "has no class_weights"),
        (pl.Text2Text(), LossOptions(focal=2.0), "has no focal"),
        (pl.TextGeneration(), LossOptions(label_smoothing=0.1), "has no label_smoothing"),
        (pl.QuestionAnswering(), LossOptions(focal=2.0), "has no focal"),
    ],
)
def test_what_a_task_has_no_place_for_is_refused(task, options, match):
    with pytest.raises(SettingError, match=match):
        task_loss(task, options, None)


def test_bad_options_are_refused():
    with pytest.raises(SettingError, match=r"label_smoothing is 1\.0"):
        LossOptions(label_smoothing=1.0)
    with pytest.raises(SettingError, match="not used together"):
        LossOptions(label_smoothing=0.1, focal=2.0)
    with pytest.raises(SettingError, match="class_weights is 'equal'"):
        LossOptions(class_weights="equal")
    with pytest.raises(SettingError, match="weight of 'a'"):
        LossOptions(class_weights={"a": -1.0})
    for weight in ("abc", "2.5", float("nan"), float("inf"), None, True, [1.0], torch.ones(2)):
        with pytest.raises(SettingError, match=r"weight of 'a' is .*expected a number from 0 up"):
            LossOptions(class_weights={"a": weight})
    with pytest.raises(LabelError, match="no label 'z'"):
        task_loss(CLASSES, LossOptions(class_weights={"z": 1.0}), None)
    with pytest.raises(DataError, match="no labels to balance"):
        task_loss(CLASSES, LossOptions(class_weights="balanced"), None)


@pytest.mark.parametrize(
    ("given", "came", "shown"),
    [
        ([1.0, 50.0, 2], "a list", r"\{'a': 1, 'b': 50, 'c': 2\}"),
        ((1.0, 50.0, 2.0), "a tuple", r"\{'a': 1, 'b': 50, 'c': 2\}"),
        (torch.tensor([1.0, 50.0, 2.5]), "a Tensor", r"\{'a': 1, 'b': 50, 'c': 2.5\}"),
        (np.array([1.0, 50.0, 2.5]), "a ndarray", r"\{'a': 1, 'b': 50, 'c': 2.5\}"),
        ([1.0, 50.0], "a list", r"\{'a': 1, 'b': 1, 'c': 1\}"),
        (3.0, "a float", r"\{'a': 1, 'b': 1, 'c': 1\}"),
        (True, "a bool", r"\{'a': 1, 'b': 1, 'c': 1\}"),
    ],
)
def test_weights_that_do_not_say_of_which_label_are_refused_with_the_labels(given, came, shown):
    with pytest.raises(SettingError, match=rf'class_weights is {came}.*expected "balanced", None, or a dict.*class_weights={shown}'):
        task_loss(CLASSES, LossOptions(class_weights=given), np.array([0, 1, 2]))
