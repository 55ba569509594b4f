"""Contestants in processes of their own, one at a time, in turn.

Takes a script that answers `--worker NAME` by reading "go" lines and printing one JSON object each. Gives the answers of every
round, medians, and lines `key = value` that a machine can read. A contestant that waits does nothing but wait, and begins each
turn without what the last one left: a model of then that still holds memory changes what memory costs now.
"""

import gc
import json
import os
import selectors
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DEADLINE = 900  # seconds for one answer
ANSWER = "answer: "


class Worker:
    """One contestant: a process that holds its model and waits for its turn."""

    def __init__(self, script: Path, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
        )
        self.line()  # it says that it is ready

    def line(self) -> dict[str, Any]:
        """The next answer, within the deadline."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                if not ready.select(timeout=DEADLINE):
                    self.process.kill()
                    raise SystemExit(f"{self.name} gave no answer within {DEADLINE} s")
                text = self.process.stdout.readline()
                if not text:
                    raise SystemExit(f"{self.name} ended with exit code {self.process.wait()}")
                if text.startswith(ANSWER):  # a library may print lines of its own
                    answer: dict[str, Any] = json.loads(text.removeprefix(ANSWER))
                    return answer

    def go(self) -> dict[str, Any]:
        """One turn."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.line()

    def close(self) -> None:
        """The end of the input ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def rounds(script: Path, names: Sequence[str], arguments: Sequence[str], count: int) -> dict[str, list[dict[str, Any]]]:
    """One turn each that is not counted, then `count` rounds in which every contestant has one turn."""
    workers = [Worker(script, name, arguments) for name in names]
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    try:
        for number in range(count + 1):
            for worker in workers:
                answer = worker.go()
                print(f"# round {number} {worker.name}: {answer['seconds']:.2f} s", flush=True)
                if number:
                    answers[worker.name].append(answer)
    finally:
        for worker in workers:
            worker.close()
    return answers


def rounds_in_new_processes(script: Path, names: Sequence[str], arguments: Sequence[str], count: int) -> dict[str, list[dict[str, Any]]]:
    """`count` rounds in which every contestant has a new process, with one turn that is not counted and one that is.

    For differences of a few percent: where the system put the memory of a process stays for as long as the process lives, and would
    otherwise decide all of its rounds at once. Contestants take turns at going first.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(1, count + 1):
        for name in names if number % 2 else reversed(names):
            worker = Worker(script, name, arguments)
            try:
                worker.go()
                answer = worker.go()
            finally:
                worker.close()
            print(f"# round {number} {name}: {answer['seconds']:.2f} s", flush=True)
            answers[name].append(answer)
    return answers


def median_seconds(answers: Sequence[Mapping[str, Any]]) -> float:
    """The median time of a contestant."""
    return statistics.median(answer["seconds"] for answer in answers)


def serve(turn: Callable[[], Mapping[str, Any]]) -> None:
    """The worker's side: say that it is ready, then one JSON line for each "go"."""
    print(f"{ANSWER}{{}}", flush=True)
    for line in sys.stdin:
        if line.strip() == "go":
            gc.collect()
            print(f"{ANSWER}{json.dumps(dict(turn()))}", flush=True)


def say(key: str, value: object) -> None:
    """One line that a person and a machine can read."""
    print(f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}", flush=True)
