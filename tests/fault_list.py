"""The list of bad inputs, `faults.toml`, and the errors that its tests raise.

Takes the list, and the errors that are made while a test runs. Gives, for each number, whether an error was seen that says what the list
expects, where it is, and what to do.
"""

import ast
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {"A": (1, 28), "B": (29, 45), "C": (46, 65)}  # every number of these groups must stand in the list


@dataclass(frozen=True)
class Fault:
    """One bad input. `expected` is a part of the message (kind "error"), what happens ("behaviour"), or why there is nothing to do."""

    number: str
    input: str
    expected: str
    kind: str
    test: str = ""

    @property
    def function(self) -> str:
        """The test without its parameters: file::function."""
        return self.test.partition("[")[0]


@cache
def faults() -> tuple[Fault, ...]:
    """The list."""
    with (ROOT / "tests" / "faults.toml").open("rb") as file:
        return tuple(Fault(number, **entry) for number, entry in tomllib.load(file).items())


@cache
def functions_of(file: str) -> frozenset[str]:
    """The test functions of a file."""
    path = ROOT / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@dataclass(frozen=True)
class Seen:
    """An error that was made during a test."""

    text: str
    place: str
    cure: str


def answers(fault: Fault, seen: list[Seen]) -> bool:
    """Whether one of the errors is what the list expects: its words, a place and a cure."""
    return any(fault.expected in error.text and error.place and error.cure for error in seen)
