"""A task is one file: taken out, with its lines among the names, nothing else in the library misses it.

That is what adding one takes, read backwards: its file, the map of tasks, the public names. What stands on top of a task on purpose (the
transformer for scikit-learn on the vectors) and what keeps the course's own words (its names, its answers) are named here.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.tasks import TASKS

SOURCES = Path(__file__).resolve().parents[1] / "src" / "pellucid"
NAMES = ("tasks/__init__.py", "__init__.py")
BUILT_ON = {"embeddings": ("features.py",)}  # task → what has no meaning without it
OTHER_WORDS = {  # files whose words only look like those of a task
    "course_tasks.py",  # the names of the course, and the shapes of its answers
    "local_checkpoints.py",  # what a checkpoint must be able to do for such a name
    "roles.py",  # names of columns: one may be called "translation"
}
TASK_FILES = sorted({place.partition(":")[0].rpartition(".")[2] for place in TASKS.values()})
USUAL = "text-classification"  # what is meant where nobody names a task


def copy_without(folder: Path, gone: set[str]) -> Path:
    """A copy of the sources in which these task files, and all lines that name them, are not there."""
    root = folder / "pellucid"
    shutil.copytree(SOURCES, root, ignore=shutil.ignore_patterns("__pycache__"))
    files = [f"tasks/{name}.py" for name in gone] + [file for name in gone for file in BUILT_ON.get(name, ())]
    for file in files:
        (root / file).unlink()
    modules = ["pellucid." + file.removesuffix(".py").replace("/", ".") for file in files]
    for file in NAMES:
        lines = (root / file).read_text(encoding="utf-8").splitlines(keepends=True)
        (root / file).write_text("".join(line for line in lines if not any(re.search(rf"{module}\b", line) for module in modules)))
    return root


def defined(path: Path) -> set[str]:
    """The names that a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return found


def module_file(root: Path, module: str) -> Path | None:
    """The file of a module of ours, if it is there."""
    place = root.parent / Path(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()), None)


def dangling(root: Path) -> list[str]:
    """Imports of modules or names of ours that are not there."""
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("pellucid"):
                continue
            file = module_file(root, str(node.module))
            names = set() if file is None else defined(file)
            for alias in node.names:
                if alias.name not in names and module_file(root, f"{node.module}.{alias.name}") is None:
                    found.append(f"{path.relative_to(root)}: {alias.name} of {node.module}")
    return found


def mentions(root: Path, names: set[str]) -> list[str]:
    """Where code, not prose, says one of these names: a string that is nothing else, or an identifier."""
    found = []
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).as_posix() in OTHER_WORDS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = node.value if isinstance(node, ast.Constant) else getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
            if isinstance(said, str) and said in names:
                found.append(f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}: {said}")
    return found


@pytest.mark.parametrize("name", TASK_FILES)
def test_nothing_else_misses_a_task_that_is_taken_out(name: str, tmp_path: Path) -> None:
    places = {tag: place for tag, place in TASKS.items() if place.partition(":")[0].endswith(f".{name}")}
    root = copy_without(tmp_path, {name})
    assert dangling(root) == []
    classes = {place.partition(":")[2] for place in places.values()}
    assert mentions(root, (classes | set(places)) - {USUAL}) == []


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    root = copy_without(tmp_path, {"masked_lm"})
    (root / "batch.py").write_text('from pellucid.tasks.masked_lm import FillMask\nKIND = FillMask if "fill-mask" else None\n')
    assert "batch.py: FillMask of pellucid.tasks.masked_lm" in dangling(root)
    assert {line.rpartition(" ")[2] for line in mentions(root, {"FillMask", "fill-mask"})} == {"FillMask", "fill-mask"}


WHOLE_WAY = """
import sys
import pellucid as pl
assert pl.__file__.startswith(sys.argv[1]), pl.__file__
labelled = (("A fine film.", "good"), ("Dull.", "bad"), ("Very fine.", "good"), ("No.", "bad"))
some = [{"text": text, "label": label} for text, label in labelled]
rows = pl.read({"train": some, "valid": some}, text="text", label="label")
trained = pl.train(rows, checkpoint=sys.argv[2], options=pl.TrainOptions(epochs=1, batch_size=4))
pl.show(pl.evaluate(trained.pipeline, rows.valid, train=rows.train))
pl.save(trained.pipeline, "saved")
again = pl.load("saved")
text = "A dull film."
assert again.predict([text])[0] == trained.pipeline.predict([text])[0]
pl.show(again.trace(text))
"""


def test_one_task_alone_goes_the_whole_way(tmp_path: Path, tiny_checkpoints: dict[str, Path]) -> None:
    """All other task files taken out, the remaining one trains, evaluates, saves, loads, predicts and traces."""
    root = copy_without(tmp_path, set(TASK_FILES) - {"sequence_classification"})
    assert [path.name for path in sorted((root / "tasks").glob("*.py"))] == ["__init__.py", "sequence_classification.py"]
    script = tmp_path / "whole_way.py"
    script.write_text(WHOLE_WAY)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(tiny_checkpoints["bert"])],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "saved").is_dir()
