"""The contract of a task, over every task, on tiny encoders and decoders with three kinds of tokenizer."""

from dataclasses import replace
from pathlib import Path

import pytest

import pellucid as pl
from pellucid.pipelines import Pipeline
from pellucid.task import Task
from pellucid.tasks.sequence_classification import SequenceClassification
from pellucid.testing import CHECKS, ContractError, Subject, check_task, labels_survive, row_alone_answers_as_in_a_batch, subject_of

TEXTS = ("Warm and funny.", "Dull.", "I would watch it again, and again, and again!", "A mess [SEP]", "überraschend schön 🎉", "two words")
ALL = pl.ReadOptions(valid_fraction=0.0)


def rows_for(kind: str) -> pl.Rows:
    """Six texts of very different lengths with targets of one kind; "pair" has two texts a row."""
    targets: dict[str, list[object]] = {
        "single_label": ["good", "bad", "good", "bad", "good", "neither"],
        "multi_label": [["warm", "funny"], ["dull"], [], ["dull", "long"], ["warm"], ["long"]],
        "regression": [4.5, 0.25, 3.75, 0.5, 5.0, 2.125],
        "pair": ["same", "other", "same", "other", "same", "other"],
    }
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, targets[kind], strict=True)]
    if kind == "pair":
        rows = [{**row, "text_pair": text} for row, text in zip(rows, reversed(TEXTS), strict=True)]
    return pl.read(rows, text="text", label="label", text_pair="text_pair" if kind == "pair" else None, options=ALL)


def task_for(kind: str) -> Task:
    return SequenceClassification(kind="single_label" if kind == "pair" else kind)  # type: ignore[arg-type]


KINDS = ("single_label", "multi_label", "regression", "pair")
MODELS = ("bert", "xlm-roberta", "gpt2", "llama")


@pytest.fixture(scope="module")
def subjects(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Subject]:
    folder = tmp_path_factory.mktemp("contract")
    return {
        (kind, model): subject_of(task_for(kind), tiny_checkpoints[model], rows_for(kind), folder=folder / f"{kind}-{model}")
        for kind in KINDS
        for model in MODELS
    }


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_sequence_classification(kind: str, model: str, check, subjects: dict[tuple[str, str], Subject]) -> None:
    check(subjects[kind, model])


def test_check_task_names_what_passed(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    passed = check_task("text-classification", tiny_checkpoints["bert"], rows_for("single_label"), folder=tmp_path)
    assert passed == tuple(check.__name__ for check in CHECKS)


class Forgetful(SequenceClassification):
    """Decodes everything to its first label."""

    def decode(self, output, batch, source=None):
        return [replace(prediction, answer=self.labels[0]) for prediction in super().decode(output, batch, source)]


class Padded(SequenceClassification):
    """Lets the model see the padding."""

    def collate(self, tokens, windows, pad):
        batch = super().collate(tokens, windows, pad)
        return replace(batch, inputs={"input_ids": batch.inputs["input_ids"]})


BROKEN = [(Forgetful, labels_survive, "came out"), (Padded, row_alone_answers_as_in_a_batch, "alone")]


@pytest.mark.parametrize(("broken", "check", "says"), BROKEN)
def test_a_task_that_breaks_the_contract_is_caught(broken, check, says: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    pipe = Pipeline.new(broken(), tiny_checkpoints["bert"], rows_for("single_label"))
    with pytest.raises(ContractError, match=says):
        check(Subject(pipe, rows_for("single_label").train, tmp_path))
