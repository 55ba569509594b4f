"""Runs the commands behind the claims of a topic, keeps what they print, and holds their numbers against bounds.

Takes a TOML file of lines (an id, what it shows, a command, checks). Gives a Markdown report in `evidence-out/`, which git
ignores: the commit, the date, the machine, the versions and the output of every command; exits 1 where a number is not met.
Knows nothing of pellucid: whatever prints a number can be held against a bound.

    python tools/evidence.py evidence/spine.toml                       all lines, one at a time
    python tools/evidence.py evidence/spine.toml --only demo,scale     some lines; the others keep their last result
    python tools/evidence.py evidence/spine.toml --list                what there is to run

Scripts print numbers as `name = value`, one a line: the name in lower case, digits and underscores, with the unit at its end
where it has one; the value a plain number; `# anything` may follow.

    ratio_training_sentences_over_trainer_random = 1.72  # median of 5, 1.69 to 1.75
    accuracy_sentences_pellucid = 0.823
    peak_memory_mib = 812.4

A check names such a number with `key`, or finds another with `find`, a regular expression with one group: the last match counts,
`1:23` is 83 seconds, and `absent` is the value where there is no match. `elapsed_seconds` is there for every line. A number holds
against `min`, `max` or `equal` (with `within`, an absolute tolerance).
Results are written after every line, so that a run that is killed keeps what it has.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "evidence-out"
PACKAGES = ("pellucid", "torch", "transformers", "tokenizers", "datasets", "fastai", "accelerate", "scikit-learn", "numpy")
KEPT_CHARACTERS = 60_000  # of the output of one command; the middle of what is longer is left out, and that is said
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Check:
    """One number of an output, and the bound that it must keep."""

    key: str = ""
    find: str = ""
    min: float | None = None
    max: float | None = None
    equal: float | None = None
    within: float = 0.0
    absent: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The key, or the note of a check that has none."""
        return self.key or self.note or self.find

    @property
    def bound(self) -> str:
        """The bound in words."""
        around = f" ± {self.within:g}" if self.within else ""
        parts = (("≥ ", self.min, ""), ("≤ ", self.max, ""), ("= ", self.equal, around))
        return ", ".join(f"{sign}{value:g}{after}" for sign, value, after in parts if value is not None)

    def read(self, output: str) -> float | None:
        """The number in `output`, or None where it is not there."""
        pattern = rf"^{re.escape(self.key)} = ({NUMBER})\s*(?:#.*)?$" if self.key else self.find
        matches = re.findall(pattern, output, flags=re.MULTILINE)
        if not matches:
            return self.absent
        minutes, _, seconds = matches[-1].replace(",", "").rpartition(":")
        try:
            return 60 * float(minutes or 0) + float(seconds)
        except ValueError:  # what was found is no number: nothing is met by it
            return None

    def met(self, value: float | None) -> bool:
        """Whether `value` is inside the bound; a missing or NaN number is not."""
        if value is None or value != value:
            return False
        equal = self.equal is None or abs(value - self.equal) <= self.within
        return equal and (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


@dataclass(frozen=True)
class Line:
    """One claim: a command and the numbers that it must print."""

    id: str
    shows: str
    command: str
    checks: tuple[Check, ...] = ()
    timeout: float = 600.0  # seconds
    exit: int = 0
    needs: tuple[str, ...] = ()  # files or folders, from the root of the project, without which it cannot run


@dataclass(frozen=True)
class Result:
    """What one command gave. `status` is met, unmet, or missing (something it needs is not on this machine)."""

    id: str
    status: str
    seconds: float
    code: int | None
    numbers: tuple[tuple[str, float | None, str, bool], ...]  # name, value, bound, met
    output: str
    commit: str
    date: str
    load: float  # of the machine when the command started: what else ran beside it


def read_lines(path: Path) -> tuple[str, list[Line]]:
    """The title of a topic and its lines. Exits with one sentence for a line that is not well formed."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    lines = []
    for number, entry in enumerate(document["line"], 1):
        try:
            checks = tuple(Check(**check) for check in entry.pop("check", ()))
            line = Line(**{**entry, "checks": checks, "needs": tuple(entry.get("needs", ()))})
        except TypeError as error:
            sys.exit(f"{path}: line {number} ({entry.get('id', 'without an id')}): {error}")
        bad = [check.name for check in checks if not (check.key or check.find) or not check.bound]
        if bad:
            sys.exit(f"{path}: line {line.id}: a check needs `key` or `find`, and `min`, `max` or `equal`: {', '.join(bad) or 'unnamed'}")
        lines.append(line)
    names = [line.id for line in lines]
    if len(set(names)) < len(names):
        sys.exit(f"{path}: an id stands twice: {', '.join(sorted({name for name in names if names.count(name) > 1}))}")
    return str(document["title"]), lines


def clean(text: str) -> str:
    """The text without colours, and of a line that a progress bar rewrote only what was last to be seen."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def shorten(text: str) -> str:
    """The text with its middle left out where it is longer than what is kept."""
    if len(text) <= KEPT_CHARACTERS:
        return text
    half = KEPT_CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def execute(command: str, timeout: float) -> tuple[int | None, str]:
    """Run `command` in a shell at the root; its exit code (None: stopped at the limit) and what it printed, also shown live."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    environment.setdefault("HF_HUB_OFFLINE", "1")
    for name in [name for name in environment if name.startswith(("MAKE", "MFLAGS"))]:  # a `make` inside is a make of its own
        del environment[name]
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, stop)
    timer.start()
    chunks = []
    try:
        while chunk := os.read(process.stdout.fileno(), 65536) if process.stdout else b"":
            chunks.append(chunk)
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
        code = process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        timer.cancel()
    return (None if stopped.is_set() else code), clean(b"".join(chunks).decode("utf-8", errors="replace"))


def run_line(line: Line, commit: str) -> Result:
    """Run one line and hold its numbers against their bounds."""
    date, load = datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()[0]
    missing = [name for name in line.needs if not (ROOT / name).exists()]
    if missing:
        return Result(line.id, "missing", 0.0, None, (), f"not on this machine: {', '.join(missing)}", commit, date, load)
    start = time.perf_counter()
    code, output = execute(line.command, line.timeout)
    seconds = time.perf_counter() - start
    output = f"{output.rstrip()}\nelapsed_seconds = {seconds:.1f}  # of the whole command\n"
    values = [(check, check.read(output)) for check in line.checks]
    numbers = tuple((check.name, value, check.bound, check.met(value)) for check, value in values)
    met = code == line.exit and all(number[3] for number in numbers)
    if code is None:
        output += f"[stopped after {line.timeout:g} s]"
    return Result(line.id, "met" if met else "unmet", seconds, code, numbers, shorten(output), commit, date, load)


def current_commit() -> str:
    """The commit that is checked out, with `+changes` where the tree differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD") or "no commit"
    return f"{commit}+changes" if git("status", "--porcelain") else commit


def machine() -> str:
    """The machine in one sentence: processor, cores that this process may use, memory, system."""
    files = {path: Path(path).read_text(encoding="utf-8") if Path(path).exists() else "" for path in ("/proc/cpuinfo", "/proc/meminfo")}
    model = re.search(r"^model name\s*:\s*(.+)$", files["/proc/cpuinfo"], re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", files["/proc/meminfo"], re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    size = f"{int(memory[1]) / 2**20:.1f} GiB of memory" if memory else "unknown memory"
    processor = model[1] if model else platform.processor() or platform.machine()
    return f"{processor}, {cores} cores, {size}, {platform.system()} {platform.release()}"


def versions() -> str:
    """The versions of Python and of what the numbers depend on."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    return ", ".join(found)


def table(lines: Sequence[Line], results: Mapping[str, Result], commit: str) -> list[str]:
    """The summary: a row for every check, and for every line that has none."""
    rows = ["| line | number | value | bound | met | seconds | commit |", "|---|---|---|---|---|---|---|"]
    for line in lines:
        result = results.get(line.id)
        if result is None:
            rows.append(f"| {line.id} | | | | not run | | |")
            continue
        when = "this" if result.commit == commit else result.commit
        stopped = "stopped" if result.code is None else f"{result.code}"
        shown = "no" if result.status == "missing" else "yes" if result.code == line.exit else "NO"
        rows.append(f"| {line.id} | exit code | {stopped} | = {line.exit} | {shown} | {result.seconds:.1f} | {when} |")
        rows += [
            f"| {line.id} | {name} | {'absent' if value is None else f'{value:g}'} | {bound} | {'yes' if met else 'NO'} | | {when} |"
            for name, value, bound, met in result.numbers
        ]
    return rows


def report(title: str, lines: Sequence[Line], results: Mapping[str, Result], commit: str) -> str:
    """The whole report as Markdown."""
    parts = [f"# Evidence: {title}", "", f"- commit: {commit}", f"- date: {datetime.now(UTC).isoformat(timespec='seconds')}"]
    parts += [f"- machine: {machine()}", f"- versions: {versions()}", "", *table(lines, results, commit)]
    for line in lines:
        if line.id in results:
            result = results[line.id]
            parts += ["", f"## {line.id}: {result.status}", line.shows, ""]
            parts += [f"{result.date}, commit {result.commit}, {result.seconds:.1f} s, load {result.load:.2f} at the start", ""]
            parts += ["````text", f"$ {line.command.strip()}", result.output.rstrip(), "````"]
    return "\n".join(parts) + "\n"


def load_results(path: Path) -> dict[str, Result]:
    """The results of earlier runs, or none where there are none."""
    if not path.exists():
        return {}
    stored: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {name: Result(**{**entry, "numbers": tuple(tuple(number) for number in entry["numbers"])}) for name, entry in stored.items()}


def write(path: Path, text: str) -> None:
    """Write beside and rename, so that a killed run leaves the last whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a topic; 0 where every number of the lines that ran is met, else 1."""
    parser = argparse.ArgumentParser(description="Run the commands behind the claims of a topic.")
    parser.add_argument("topic", type=Path, help="a TOML file of lines")
    parser.add_argument("--only", default="", help="ids of lines, with commas")
    parser.add_argument("--list", action="store_true", help="say what there is to run, and stop")
    options = parser.parse_args(arguments)
    title, lines = read_lines(options.topic)
    only = [name for name in options.only.replace(",", " ").split() if name]
    unknown = sorted(set(only) - {line.id for line in lines})
    if unknown:
        sys.exit(f"no line {', '.join(unknown)} in {options.topic}; there are {', '.join(line.id for line in lines)}")
    chosen = [line for line in lines if not only or line.id in only]
    if options.list:
        print("\n".join(f"{line.id:<24} {line.shows}" for line in chosen))
        return 0
    commit, stored, written = current_commit(), OUT / f"{options.topic.stem}.json", OUT / f"{options.topic.stem}.md"
    results = {name: result for name, result in load_results(stored).items() if name in {line.id for line in lines}}
    for number, line in enumerate(chosen, 1):
        print(f"\n== {number} of {len(chosen)}: {line.id}: {line.shows}\n$ {line.command.strip()}", flush=True)
        results[line.id] = run_line(line, commit)
        write(stored, json.dumps({name: asdict(result) for name, result in results.items()}, indent=1, ensure_ascii=False))
        write(written, report(title, lines, results, commit))
    print("\n" + "\n".join(table(chosen, results, commit)) + f"\n\nwritten to {written.relative_to(ROOT)}")
    unmet = [line.id for line in chosen if results[line.id].status != "met"]
    print(f"not met: {', '.join(unmet)}" if unmet else f"all {len(chosen)} lines are met")
    return 1 if unmet else 0


if __name__ == "__main__":
    sys.exit(main())
