"""The budgets and bans of DESIGN, measured on the tree; each check is shown a planted violation that it must catch."""

import re
import subprocess
from pathlib import Path

import pytest

import architecture
from architecture import Check, Source

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "pellucid"
TREE = tuple(Source(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py")))

DOC = '"""Takes a. Gives b. Knows nothing of c."""\n'
BODY = "\n".join(f"    line_{number} = {number} * len(rows)" for number in range(12))


def plant(text: str, path: str = "thing.py") -> tuple[Source, ...]:
    return (Source(path, DOC + text),)


# check → (violations that it must catch, texts that it must let pass)
PLANTED: dict[Check, tuple[list[tuple[Source, ...]], list[tuple[Source, ...]]]] = {
    architecture.file_length: ([plant("x = 1\n" * 400)], [plant("x = 1\n" * 399)]),
    architecture.file_median: (
        [plant("x = 1\n" * 175)],
        [plant("x = 1\n" * 174), (*plant("x = 1\n" * 250), *plant("x = 1\n" * 2, "b.py"))],
    ),
    architecture.function_length: (
        [plant("def f() -> None:\n" + "    x = 1\n" * 50), plant("class A:\n    async def f(self) -> None:\n" + "        x = 1\n" * 50)],
        [plant("def f() -> None:\n" + "    x = 1\n" * 49)],
    ),
    architecture.parameter_count: (
        [plant("def f(a, b, c, d, e, f, g): ..."), plant("class A:\n    def f(self, a, b, c, *, d, e, f, g): ...")],
        [plant("class A:\n    def f(self, a, b, c, d, e, f): ...")],
    ),
    architecture.keyword_soup: ([plant("def f(**kwargs: int) -> None: ...")], [plant("def f(*names: int) -> None: ...")]),
    architecture.annotations: (
        [
            plant("def f(a) -> None: ..."),
            plant("def f(a: int): ..."),
            plant("def f(*a) -> None: ..."),
            plant("class A:\n    def f(self, a) -> None: ..."),
        ],
        [plant("class A:\n    def f(self, a: int) -> None: ..."), plant("class A:\n    @staticmethod\n    def f(a: int) -> None: ...")],
    ),
    architecture.docstrings: (
        [
            (Source("thing.py", "x = 1\n"),),
            plant("def f() -> None: ..."),
            plant("class A: ..."),
            plant('class A:\n    "d"\n    def f(self) -> None: ...'),
        ],
        [plant('def f() -> None:\n    "d"\n    def inner() -> None: ...'), plant("class _A:\n    def f(self) -> None: ...")],
    ),
    architecture.three_sentences: ([(Source("thing.py", '"""Takes a. Gives b."""\nx = 1\n'),)], [plant("x = 1\n")]),
    architecture.class_size: (
        [
            plant("class A:\n" + "    x = 1\n" * 200),
            plant("class A:\n" + "".join(f"    def f{number}(self) -> None: ...\n" for number in range(13))),
            plant("class A:\n" + "    x = 1\n" * 250, "tasks/a.py"),
            plant("class A:\n" + "".join(f"    def f{number}(self) -> None: ...\n" for number in range(13)), "tasks/a.py"),
        ],
        [
            plant("class A:\n" + "".join(f"    def f{number}(self) -> None: ...\n" for number in range(12))),
            (  # what the contract names does not count against a task
                *plant("class Task:\n" + "".join(f"    def f{number}(self) -> None: ...\n" for number in range(13)), "task.py"),
                *plant("class A:\n" + "".join(f"    def f{number}(self) -> None: ...\n" for number in range(13)), "tasks/a.py"),
            ),
        ],
    ),
    architecture.inheritance: (
        [plant("class A: ...\nclass B(A): ...\nclass C(B): ..."), plant("class A: ...\nclass Mixin: ...\nclass B(A, Mixin): ...")],
        [
            plant("class A: ...\nclass B(A): ..."),
            plant("class RootError(Exception): ...\nclass RowError(RootError, ValueError): ..."),
            plant("class A(Protocol): ..."),
            plant("class Contract(Protocol): ...\nclass A(Contract): ...\nclass B(A): ..."),
        ],
    ),
    architecture.file_names: (
        [plant("", "utils.py"), plant("", "helpers/rows.py"), plant("", "tasks/_common.py")],
        [plant("", "tokens.py")],
    ),
    architecture.shadowing: (
        [
            (*plant("PUBLIC = {'pipeline': 'pellucid.one_liner'}", "__init__.py"), *plant("", "pipeline.py")),
            (*plant("from pellucid.x.y import read", "x/__init__.py"), *plant("", "x/read.py")),
            (*plant("from pellucid.explaining import explain", "__init__.py"), *plant("", "explain/a.py")),
        ],
        [
            (*plant("PUBLIC = {'pipeline': 'pellucid.one_liner'}", "__init__.py"), *plant("", "one_liner.py"), *plant("", "x/pipeline.py")),
        ],
    ),
    architecture.import_cycles: (
        [
            (*plant("from pellucid import b", "a.py"), *plant("def f() -> None:\n    import pellucid.a", "b.py")),
            (*plant("from .b import f", "x/a.py"), *plant("from pellucid.x.a import g", "x/b.py"), *plant("", "x/__init__.py")),
        ],
        [(*plant("import pellucid.b", "a.py"), *plant("if TYPE_CHECKING:\n    import pellucid.a", "b.py"))],
    ),
    architecture.star_imports: ([plant("from fastai.text.all import *")], [plant("from fastai.text.all import Learner")]),
    architecture.file_writes: (
        [
            plant("open(path, 'w')"),
            plant("path.open(mode='ab')"),
            plant("path.write_text('x')"),
            plant("import numpy as np\nnp.save(path, x)"),
            plant("from os import replace\nreplace(a, b)"),
            plant("gzip.open(path, 'xt')"),
        ],
        [plant("open(path)"), plant("open(path, 'rb')"), plant("text.replace('a', 'b')"), plant("open(path, 'w')", "files.py")],
    ),
    architecture.environment: (
        [
            plant("import os\nos.environ['A'] = '1'"),
            plant("from os import environ\nenviron.setdefault('A', '1')"),
            plant("import os\ndel os.environ['A']"),
            plant("import os\nos.putenv('A', '1')"),
        ],
        [plant("import os\nx = os.environ.get('A') or os.environ['B']")],
    ),
    architecture.pickles: (
        [
            plant("import pickle"),
            plant("def f() -> None:\n    from cloudpickle import dumps"),
            plant("import torch\ntorch.load(path)"),
            plant("from torch import save\nsave(x, path)"),
            plant("import numpy as np\nnp.load(path, allow_pickle=True)"),
        ],
        [plant("import numpy as np\nnp.load(path, allow_pickle=False)")],
    ),
    architecture.printing: (
        [plant("print('x')"), plant("import sys\nsys.stdout.write('x')")],
        [plant("print('x')", "inspection.py"), plant("pprint('x')")],
    ),
    architecture.remote_code: ([plant("load(name, trust_remote_code=True)")], [plant("load(name, trust_remote_code=False)")]),
    architecture.patching: (
        [
            plant("import torch\ntorch.backends.x = 1"),
            plant("from fastai.learner import Learner\nLearner.save = f"),
            plant("def f() -> None:\n    global x"),
        ],
        [plant("import torch\nmodel.x = torch.y"), plant("import torch\ntorch.backends.x = 1", "process.py")],
    ),
    architecture.asserts: ([plant("assert rows, 'no rows'")], [plant("x = 'assert'")]),
    architecture.copied_tasks: (
        [(*plant(BODY, "tasks/a.py"), *plant(BODY + "\n    y = 2", "tasks/b.py"))],
        [
            (*plant(BODY, "tasks/a.py"), *plant(BODY.replace("rows", "texts"), "tasks/b.py")),
            (*plant(BODY, "tasks/a.py"), *plant(BODY, "data.py")),
        ],
    ),
}


def test_tree_is_there() -> None:
    assert len(TREE) > 15


@pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)
def test_tree_keeps_the_budget(check: Check) -> None:
    violations = check(TREE)
    assert not violations, "\n".join(["", *violations])


@pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)
def test_check_catches_a_planted_violation(check: Check) -> None:
    caught, passed = PLANTED[check]
    for sources in caught:
        assert check(sources), f"not caught: {[source.text for source in sources]}"
    for sources in passed:
        assert not check(sources), f"caught without reason: {check(sources)}"


def test_every_check_is_planted() -> None:
    """A check that nobody plants a violation for may have stopped to catch anything."""
    checks = {
        value
        for name, value in vars(architecture).items()
        if callable(value) and getattr(value, "__annotations__", {}).get("sources") and name[0] != "_"
    }
    assert checks == set(PLANTED)


def test_exemptions_are_needed() -> None:
    """An exemption whose function or file is gone is removed."""
    functions = {f"{source.path}::{name}" for source in TREE for name, _, _ in source.functions}
    assert functions >= architecture.KWARGS_ALLOWED | architecture.FRAMEWORK_SIGNATURES
    assert {f"{source.path}::{node.name}" for source in TREE for node in source.classes} >= architecture.INHERITANCE_EXEMPT
    assert len(architecture.KWARGS_ALLOWED) <= 3


def test_no_machine_is_named() -> None:
    """The files of the project name no path that exists on one machine only."""
    private = re.compile("|".join(("/wo" + "rk/", "/tm" + "p/venv", "/ro" + "ot/", "/ho" + "me/[a-z]", "localhost:[0-9]{4,}/simple")))
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    if not names:
        pytest.skip("not a git checkout")
    found = []
    for name in names:
        path = ROOT / name
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".json"}:
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{name}:{number}: {line.strip()[:100]}" for number, line in enumerate(text.splitlines(), 1) if private.search(line)]
    assert not found, "\n".join(["", *found])
