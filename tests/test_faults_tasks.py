"""Every bad label and every strange text in every task: the list `task_faults.toml` is whole, and each of its cells holds."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

import fault_cases
import fault_cases_labels
from fault_list import DOCUMENT, GROUPS, TASK_GROUPS, TASKS, TaskFault, bad_input_table, faults, task_faults
from pellucid.errors import PellucidError

NUMBERS = [fault.number for fault in faults() if fault.number[0] in TASK_GROUPS]
CELLS = task_faults()


def case_of(cell: TaskFault) -> Callable[[], Iterable[Any] | None] | None:
    """What is tried for a cell: the function of its number for this task, or the one for all tasks; None where there is neither."""
    name = cell.number.lower()
    for module in (fault_cases, fault_cases_labels):
        own = getattr(module, f"{name}_{cell.task.replace('-', '_')}", None)
        if own is not None:
            return own  # type: ignore[no-any-return]
    every = getattr(fault_cases, name, None)
    return None if every is None else lambda: every(cell.task)


def test_every_cell_is_there() -> None:
    assert [(cell.number, cell.task) for cell in CELLS] == [(number, task) for number in NUMBERS for task in TASKS]
    assert len(NUMBERS) == sum(last - first + 1 for group, (first, last) in GROUPS.items() if group in TASK_GROUPS)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.number}-{cell.task}")
def test_cell(cell: TaskFault) -> None:
    case = case_of(cell)
    if cell.nothing:
        assert case is None, "the list says that this cannot happen, and there is a case for it"
        assert len(cell.nothing.split()) >= 4, "a sentence must say why there is nothing to do"
        return
    assert case is not None, "nothing is tried"
    assert cell.error or len(cell.behaviour.split()) >= 4, "a sentence must say what happens"
    seen: list[PellucidError] = []
    for words, act in case() or ():
        with pytest.raises(PellucidError) as caught:
            act()
        error = caught.value
        assert words in str(error), str(error)
        assert error.place, f"no place: {error}"
        assert error.cure, f"no cure: {error}"
        str(error).encode("utf-8")
        seen.append(error)
    assert bool(seen) == bool(cell.error), "the list says that there is an error where there is one"
    assert not cell.error or any(cell.error in str(error) for error in seen), "\n".join(map(str, seen))


def test_the_document_is_the_list() -> None:
    assert bad_input_table() in DOCUMENT.read_text(encoding="utf-8"), "docs/bad_input.md: run python tests/fault_list.py --write"
