"""The list of bad inputs, `faults.toml`, what each does in each task, `task_faults.toml`, and the errors that their tests raise.

Takes the lists, and the errors that are made while a test runs. Gives, for each number, whether an error was seen that says what the list
expects, where it is, and what to do; and the table of docs/bad_input.md.

    python tests/fault_list.py --write    write that table again
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {"A": (1, 28), "B": (29, 45), "C": (46, 65)}  # every number of these groups must stand in the list
TASK_GROUPS = {"B": "Labels", "C": "Texts"}  # groups that are tried in every task
TASKS = (
    "token-classification",
    "question-answering",
    "text2text-generation",
    "text-generation",
    "fill-mask",
    "zero-shot-classification",
    "feature-extraction",
)
WRITERS = "summarization, translation, text2text-generation"  # one file, one cell
DOCUMENT = ROOT / "docs" / "bad_input.md"
BEGIN, END = "<!-- bad input: written by tests/fault_list.py -->", "<!-- end of bad input -->"


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


@dataclass(frozen=True)
class TaskFault:
    """One bad input in one task: a part of the message, what happens instead or beside it, or `nothing`: why it cannot happen."""

    number: str
    task: str
    error: str = ""
    behaviour: str = ""
    nothing: str = ""

    @property
    def says(self) -> str:
        """What a reader should know."""
        refused = f"refused: “{self.error}”" if self.error else ""
        return "; ".join(part for part in (self.behaviour, refused) if part) or f"does not apply: {self.nothing}"


@cache
def task_faults() -> tuple[TaskFault, ...]:
    """Every number of the groups in every task; a number or task that is not in the list has a cell without anything."""
    with (ROOT / "tests" / "task_faults.toml").open("rb") as file:
        listed = tomllib.load(file)
    numbers = [fault.number for fault in faults() if fault.number[0] in TASK_GROUPS]
    odd = sorted(set(listed) - set(numbers)) + sorted({task for cells in listed.values() for task in cells} - {*TASKS, "every"})
    if odd:
        raise ValueError(f"tests/task_faults.toml: nobody knows {', '.join(odd)}")
    found = []
    for number in numbers:
        cells = listed.get(number, {})
        for task in TASKS:
            said = cells.get(task, cells.get("every", ""))
            found.append(TaskFault(number, task, nothing=said) if isinstance(said, str) else TaskFault(number, task, **said))
    return tuple(found)


def bad_input_table() -> str:
    """The lists as tables of Markdown, one a group: what is put in, in which tasks, what happens; tasks that do the same stand together."""
    return "\n\n".join(f"## {title}\n\n" + "\n".join(rows_of(group)) for group, title in TASK_GROUPS.items())


def rows_of(group: str) -> Iterator[str]:
    """The lines of one table."""
    yield "| | what is put in | task | what happens |"
    yield "|---|---|---|---|"
    for fault in faults():
        if fault.number[0] != group:
            continue
        refused = f"refused: “{fault.expected}”" if fault.kind == "error" else fault.expected
        same: dict[str, list[str]] = {refused: ["reading, text-classification"]}
        for cell in task_faults():
            if cell.number == fault.number:
                same.setdefault(cell.says, []).append(WRITERS if cell.task == "text2text-generation" else cell.task)
        first = (fault.number, fault.input.partition(" (")[0])
        for says, tasks in same.items():
            yield "| " + " | ".join(map(plain, (*first, ", ".join(tasks), says))) + " |"
            first = ("", "")


def plain(cell: str) -> str:
    """A cell that Markdown leaves as it is."""
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("\n", " ")


if __name__ == "__main__" and "--write" in sys.argv:
    page = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(f"{page.partition(BEGIN)[0]}{BEGIN}\n\n{bad_input_table()}\n\n{END}{page.partition(END)[2]}", encoding="utf-8")
