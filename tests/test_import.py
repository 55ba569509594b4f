"""Importing pellucid is light, the command line answers at once, and every public name is documented."""

import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

import pellucid

HEAVY = ("torch", "transformers", "datasets", "pandas", "fastai", "polars", "sklearn", "matplotlib", "scipy")
IMPORT_SECONDS = 0.3
HELP_SECONDS = 0.5
RUNS = 5  # the best of five: other work on the machine only ever adds time


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(pellucid.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 0, "\n".join([done.stdout, *said])
    return done


def imported(report: str) -> dict[str, int]:
    """Module → cumulative microseconds, from what `-X importtime` writes."""
    lines = re.findall(r"^import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)$", report, re.MULTILINE)
    return {name: int(cumulative) for cumulative, name in lines}


def heavy_in(modules: Iterable[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in modules} & set(HEAVY))


def test_import_is_light() -> None:
    reports = [imported(python("-X", "importtime", "-c", "import pellucid").stderr) for _ in range(RUNS)]
    assert not heavy_in(reports[0])
    assert min(report["pellucid"] for report in reports) / 1e6 < IMPORT_SECONDS


def test_help_loads_nothing_heavy() -> None:
    done = python(
        "-X", "importtime", "-c", "import sys; sys.argv = ['pellucid', '--help']; from pellucid.apps.cli import main; sys.exit(main())"
    )
    assert not heavy_in(imported(done.stderr))
    assert {"train", "predict", "show", "evaluate", "demo"} <= set(re.findall(r"\w+", done.stdout))


def test_help_is_fast() -> None:
    """The whole process, with the interpreter's own start."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        python("-m", "pellucid", "--help")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < HELP_SECONDS


def test_modules_import_with_torch_blocked() -> None:
    """All but training: a module that needs torch imports it inside its functions."""
    package = Path(pellucid.__file__).parent
    paths = [
        path.relative_to(package).with_suffix("") for path in sorted(package.rglob("*.py")) if path.stem not in {"__init__", "__main__"}
    ]
    modules = [".".join(("pellucid", *path.parts)) for path in paths if path.parts[0] != "training"]
    assert len(modules) > 15
    lines = [
        "import sys",
        "class Blocked:",
        "    def find_spec(self, name, path=None, target=None):",
        "        if name.partition('.')[0] in ('torch', 'transformers', 'fastai'): raise ImportError(f'{name} is blocked')",
        "sys.meta_path.insert(0, Blocked())",
        *(f"import {name}" for name in modules),
    ]
    python("-c", "\n".join(lines))


@pytest.mark.parametrize("name", sorted(pellucid.__all__))
def test_public_name_is_documented(name: str) -> None:
    value = getattr(pellucid, name)
    if callable(value) or inspect.ismodule(value):
        assert (inspect.getdoc(value) or "").strip(), f"pellucid.{name} has no docstring"


def test_public_names_are_listed() -> None:
    assert len(set(pellucid.__all__)) == len(pellucid.__all__)
    assert set(pellucid.__all__) <= set(dir(pellucid))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pellucid.no_such_name  # type: ignore[attr-defined]


def test_type_marker_is_in_the_package() -> None:
    assert (Path(pellucid.__file__).parent / "py.typed").exists()
