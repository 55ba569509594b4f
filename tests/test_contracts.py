"""The import contracts of pyproject.toml hold, cover every module, and catch what they are there for."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = {
    contract["id"]: contract for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def lint_imports(root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": str(root / "src"), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, to plant violations in."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(ROOT / "src" / "pellucid", root / "src" / "pellucid", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_contracts_are_kept() -> None:
    code, output = lint_imports(ROOT)
    assert code == 0, output


@pytest.mark.parametrize(
    ("path", "text", "contract"),
    [
        ("newcomer.py", "", "layers"),
        ("training/newcomer.py", "", "training"),
        ("errors.py", "import pellucid.view", "layers"),
        ("view.py", "def f():\n    import pellucid.files", "layers"),
        ("readers/newcomer.py", "", "readers"),
        ("readers/jsonl.py", "import pellucid.readers.parquet", "readers"),
        ("tasks/newcomer.py", "import pellucid.tasks.sequence_classification", "tasks"),
        ("evaluation.py", "def f():\n    import fastai.learner", "fastai"),
        ("batch.py", "def f():\n    import torch", "torch"),
    ],
    ids=lambda value: value.replace("/", "_") if isinstance(value, str) and value.endswith(".py") else "",
)
def test_contract_catches_a_planted_violation(copied: Path, path: str, text: str, contract: str) -> None:
    planted = copied / "src" / "pellucid" / path
    before = planted.read_text() if planted.exists() else None
    planted.write_text(f"{before or ''}\n{text}\n")
    try:
        code, output = lint_imports(copied)
    finally:
        planted.write_text(before) if before is not None else planted.unlink()
    assert code == 1, output
    assert re.search(rf"{re.escape(CONTRACTS[contract]['name'])}\s+BROKEN", output), output
