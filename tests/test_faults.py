"""The list of bad inputs is whole: every number, an expectation, and a test that is there. What the errors say is checked by conftest."""

import re

import pytest

from fault_list import GROUPS, Fault, Seen, answers, faults, functions_of

EXPECTED = [f"{group}{number:02}" for group, (first, last) in (*GROUPS.items(), ("F", (104, 123))) for number in range(first, last + 1)]


def test_every_number_is_there() -> None:
    missing = sorted(set(EXPECTED) - {fault.number for fault in faults()})
    assert not missing, f"tests/faults.toml does not say what happens with {', '.join(missing)}"


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.number)
def test_entry_is_whole(fault: Fault) -> None:
    assert re.fullmatch(r"[A-H]\d{2,3}", fault.number)
    assert fault.kind in ("error", "behaviour", "not-applicable")
    assert len(fault.input.split()) >= 2, "say what is put in"
    if fault.kind == "not-applicable":
        assert len(fault.expected.split()) >= 6, "a sentence must say why there is nothing to do"
        return
    assert fault.expected, "say what comes out"
    file, _, name = fault.function.partition("::")
    assert name in functions_of(file), f"{fault.test} is not there"
    if fault.kind == "behaviour":
        assert len(fault.expected.split()) >= 4, "a sentence must say what happens"


def test_an_error_without_place_or_cure_does_not_count() -> None:
    fault = Fault("A01", "an empty frame", "no rows", "error", "tests/test_x.py::test_y")
    assert answers(fault, [Seen("frame: there are no rows. Give one.", "frame", "Give one.")])
    assert not answers(fault, [Seen("there are no rows. Give one.", "", "Give one.")])
    assert not answers(fault, [Seen("frame: there are no rows.", "frame", "")])
    assert not answers(fault, [Seen("frame: something else. Give one.", "frame", "Give one.")])
