"""Which targets are classes, sets of labels or numbers: the task and the rows say the same."""

from pathlib import Path

import pytest

from pellucid.data import ReadOptions, read
from pellucid.labels import are_numbers
from pellucid.tasks.sequence_classification import SequenceClassification, kind_of


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"{number / 4:.2f}" for number in range(21)], True),
        ([f"{number / 4:.2f}" for number in range(20)], False),  # stars and half stars are classes
        ([str(number) for number in range(10_000)], False),  # whole numbers are class numbers
        ([*(f"{number / 4}" for number in range(40)), "good"], False),
        ([*(f"{number / 4}" for number in range(40)), "nan"], False),  # a name that spells no finite number is a name
        ([], False),
    ],
)
def test_names_are_numbers_where_the_kind_is_regression(names: list[str], expected: bool) -> None:
    assert are_numbers(names) is expected
    assert (kind_of(names)[0] == "regression") is expected


def test_similarities_are_numbers(shared_data: Path) -> None:
    options = ReadOptions(columns=("text", "text_pair", "score"))
    rows = read(shared_data / "stsb" / "stsb-en-dev.csv.gz", text_pair="text_pair", options=options)
    task, notes = SequenceClassification().for_rows(rows.train)
    assert (task.kind, task.labels, task.pair) == ("regression", (), True) and notes[0].what == "kind regression"


def test_targets_read_as_numbers_are_a_quantity_even_when_they_are_few() -> None:
    rows = read([{"text": "a", "label": 1}, {"text": "b", "label": 2}], options=ReadOptions(valid_fraction=0, label_kind="number"))
    task, notes = SequenceClassification().for_rows(rows.train)
    assert (task.kind, task.labels) == ("regression", ()) and notes[0].why == "the targets are numbers, 2 different"


def test_sets_and_classes() -> None:
    assert kind_of([("a",), (), None])[0] == "multi_label"
    assert kind_of(["0", "1"] * 50) == ("single_label", ()) == kind_of([None])
