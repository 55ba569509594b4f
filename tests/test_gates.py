"""ruff and mypy really fail: each is shown planted violations that it must catch, and a file that it must let pass."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOC = '"""Takes a. Gives b. Knows nothing of c."""\n\n'


def gate(*command: str, text: str = "") -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, input=text, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("ANN001", 'def f(a) -> None:\n    "D"\n'),
        ("ANN201", 'def f():\n    "D"\n'),
        ("B006", 'def f(a: list[int] = []) -> None:\n    "D"\n'),
        ("C901", 'def f(a: int) -> None:\n    "D"\n' + "    if a:\n        a += 1\n" * 12),
        ("D103", "def f() -> None: ...\n"),
        ("E501", "x = 1  # " + "long " * 40 + "\n"),
        ("F401", "import json\n"),
        ("F403", "from json import *\n"),
        ("I001", "import sys\nimport json\n\nx = sys, json\n"),
        ("NPY002", "import numpy as np\n\nx = np.random.rand(3)\n"),
        ("S101", "x = 1\nassert x\n"),
        ("T201", "print(1)\n"),
        ("UP006", "from typing import List\n\nx: List[int] = []\n"),
    ],
)
def test_ruff_catches(rule: str, code: str) -> None:
    status, output = gate(
        "ruff", "check", "--no-cache", "--output-format=concise", "--stdin-filename=src/pellucid/planted.py", "-", text=DOC + code
    )
    assert status == 1
    assert rule in output, output


def test_ruff_lets_pass() -> None:
    code = DOC + '\ndef double(number: int) -> int:\n    """Twice the number."""\n    return 2 * number\n'
    assert gate("ruff", "check", "--no-cache", "--stdin-filename=src/pellucid/planted.py", "-", text=code)[0] == 0
    assert gate("ruff", "format", "--check", "--no-cache", "--stdin-filename=src/pellucid/planted.py", "-", text=code)[0] == 0
    assert gate("ruff", "format", "--check", "--no-cache", "--stdin-filename=src/pellucid/planted.py", "-", text="x=1\n")[0] == 1


def test_mypy_catches(tmp_path: Path) -> None:
    planted = {
        "no-untyped-def": "def f(a): return a",
        "assignment": "x: int = 'one'",
        "type-arg": "def f(a: dict) -> None: ...",
        "union-attr": "def f(a: str | None) -> str: return a.upper()",
        "attr-defined": "from pellucid.errors import NoSuchError",
    }
    for name, code in planted.items():
        (tmp_path / f"planted_{name.replace('-', '_')}.py").write_text(code + "\n")
    status, output = gate("mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache"), str(tmp_path))
    assert status == 1
    for name in planted:
        assert f"[{name}]" in output, output
