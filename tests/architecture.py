"""The budgets and bans of the source tree, as functions.

Takes the text of Python files. Gives one sentence for each violation, with file and line.
Knows nothing of pytest: `test_architecture.py` runs every check on the tree and on a planted violation.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from statistics import median

FILE_LINES, MEDIAN_LINES, FUNCTION_LINES, CLASS_LINES = 400, 175, 50, 200  # the aim for the median is 150: docs/log.md
PARAMETERS, METHODS, KWARGS_SHARE = 6, 12, 0.02
SHARED_RUN, SHARED_SHARE = 6, 0.15

# The exemptions, by name. A line here is a decision: say why.
KWARGS_ALLOWED = frozenset(
    {
        "apps/flags.py::with_flags.wrapper",  # flags of the command line become a dataclass here
        "one_liner.py::OneLiner.__call__",  # the words of the course's own call, each known by name: another one is an error
        "one_liner.py::pipeline",
    }
)
FRAMEWORK_SIGNATURES = frozenset(  # whose parameters fastai or Typer decide
    {
        "apps/cli.py::train",  # Typer makes a flag of every parameter
        "apps/cli.py::predict",
        "training/fastai_blocks.py::TokenLoader.__init__",
        "training/fastai_blocks.py::TokenLoader.new",
        "training/fastai_learner.py::PellucidLearner.fine_tune",
        "training/fastai_learner.py::PellucidLearner.fit_one_cycle",
        "training/fastai_learner.py::PellucidLearner.get_preds",
    }
)
INHERITANCE_EXEMPT = frozenset({"features.py::PipelineFeatures"})  # scikit-learn knows its own by two base classes
CONTRACT = "task.py"  # the methods that its protocol names do not count against a task: the contract is one list, read in one place
TASK_LINES = 250  # a task is one class in one file of this size
WRITERS = ("inspection.py", "apps/cli.py")  # the only code that writes to the terminal
WRITES_ALLOWED: frozenset[str] = frozenset()

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file: its path below `src/pellucid` and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        parts = PurePosixPath(self.path).with_suffix("").parts
        return ".".join(("pellucid", *(parts[:-1] if parts[-1] == "__init__" else parts)))

    @cached_property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]

    @cached_property
    def functions(self) -> list[tuple[str, Function, ast.ClassDef | None]]:
        """Every function with its dotted name and the class that it is a method of."""
        return list(_functions(self.tree, "", None))

    @cached_property
    def modules_by_name(self) -> dict[str, str]:
        """Local name → dotted name, for every `import a.b as c` and `from a import b` in the file."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        return names

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Every call with the dotted name of what is called; imported names are spelled out: `np.save` → `numpy.save`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, self.dotted(node.func)

    def dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.modules_by_name.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        return "?"


Check = Callable[[Sequence[Source]], list[str]]


def _functions(node: ast.AST, prefix: str, owner: ast.ClassDef | None) -> Iterator[tuple[str, Function, ast.ClassDef | None]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield f"{prefix}{child.name}", child, owner
            yield from _functions(child, f"{prefix}{child.name}.", None)
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.", child)
        else:
            yield from _functions(child, prefix, owner)


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _decorators(node: Function) -> set[str]:
    return {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}


def _parameters(node: Function, owner: ast.ClassDef | None) -> list[ast.arg]:
    """Named parameters, without self and cls."""
    positional = [*node.args.posonlyargs, *node.args.args]
    if owner is not None and "staticmethod" not in _decorators(node):
        positional = positional[1:]
    return [*positional, *node.args.kwonlyargs]


def _public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


def _string(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


# --------------------------------------------------------------------------------------------------------------- budgets
def file_length(sources: Sequence[Source]) -> list[str]:
    return [f"{source.path}: {source.lines} lines, at most {FILE_LINES}" for source in sources if source.lines > FILE_LINES]


def file_median(sources: Sequence[Source]) -> list[str]:
    """Empty `__init__` files do not help the median: only files with more than a docstring count."""
    lengths = [source.lines for source in sources if len(source.tree.body) > 1]
    middle = median(lengths) if lengths else 0
    return [f"the median file has {middle:.0f} lines, at most {MEDIAN_LINES}"] if middle > MEDIAN_LINES else []


def function_length(sources: Sequence[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno}: {name} has {_length(node)} lines, at most {FUNCTION_LINES}"
        for source in sources
        for name, node, _ in source.functions
        if _length(node) > FUNCTION_LINES
    ]


def parameter_count(sources: Sequence[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno}: {name} has {len(_parameters(node, owner))} parameters, at most {PARAMETERS}: make a dataclass"
        for source in sources
        for name, node, owner in source.functions
        if len(_parameters(node, owner)) > PARAMETERS and f"{source.path}::{name}" not in FRAMEWORK_SIGNATURES
    ]


def keyword_soup(sources: Sequence[Source]) -> list[str]:
    functions = [(source, name, node) for source in sources for name, node, _ in source.functions]
    ours = [function for function in functions if f"{function[0].path}::{function[1]}" not in FRAMEWORK_SIGNATURES]
    with_kwargs = [function for function in ours if function[2].args.kwarg is not None]
    total = len(ours)
    share = len(with_kwargs) / max(total, 1)
    found = [
        f"{source.path}:{node.lineno}: {name} takes **kwargs, and is not on the allow-list"
        for source, name, node in with_kwargs
        if f"{source.path}::{name}" not in KWARGS_ALLOWED
    ]
    return [*found, f"{share:.1%} of {total} functions take **kwargs, at most {KWARGS_SHARE:.0%}"] if share > KWARGS_SHARE else found


def annotations(sources: Sequence[Source]) -> list[str]:
    found = []
    for source in sources:
        for name, node, owner in source.functions:
            stars = [star for star in (node.args.vararg, node.args.kwarg) if star is not None]
            bare = [argument.arg for argument in [*_parameters(node, owner), *stars] if argument.annotation is None]
            bare += [] if node.returns is not None else ["return"]
            found += [f"{source.path}:{node.lineno}: {name} is not annotated: {', '.join(bare)}"] if bare else []
    return found


def docstrings(sources: Sequence[Source]) -> list[str]:
    found = []
    for source in sources:
        if source.tree.body and ast.get_docstring(source.tree) is None:
            found.append(f"{source.path}:1: the module has no docstring")
        top = [node for node in source.tree.body if isinstance(node, ast.ClassDef) and _public(node.name)]
        found += [f"{source.path}:{node.lineno}: class {node.name} has no docstring" for node in top if ast.get_docstring(node) is None]
        nested = {id(inner) for _, node, _ in source.functions for inner in ast.walk(node) if inner is not node}
        for name, node, _ in source.functions:
            exempt = not _public(name) or id(node) in nested or {"overload", "typing.overload", "override"} & _decorators(node)
            if not exempt and not any(d.endswith(".setter") for d in _decorators(node)) and ast.get_docstring(node) is None:
                found.append(f"{source.path}:{node.lineno}: {name} has no docstring")
    return found


def three_sentences(sources: Sequence[Source]) -> list[str]:
    """Every module says what it takes, what it gives and what it knows nothing of."""
    found = []
    for source in sources:
        text = ast.get_docstring(source.tree) or ""
        missing = [word for word in ("Takes", "Gives", "Knows nothing") if word not in text]
        if missing and len(source.tree.body) > 1 and not source.path.endswith("__init__.py"):
            found.append(f"{source.path}:1: the module docstring does not say {', '.join(missing)}")
    return found


def _contract_of(sources: Sequence[Source]) -> frozenset[str]:
    """The methods that the protocol of a task names."""
    classes = [node for source in sources if source.path == CONTRACT for node in source.classes if node.name == "Task"]
    return frozenset(item.name for node in classes for item in node.body if isinstance(item, Function))


def class_size(sources: Sequence[Source]) -> list[str]:
    """Properties are counted apart from methods: twelve of each."""
    found = []
    contract = _contract_of(sources)
    for source in sources:
        for node in source.classes:
            task = source.path == CONTRACT or source.path.startswith("tasks/")
            public = [item for item in node.body if isinstance(item, Function) and _public(item.name)]
            public = [item for item in public if not (task and item.name in contract)]
            properties = [item for item in public if {"property", "cached_property", "functools.cached_property"} & _decorators(item)]
            lines = TASK_LINES if task else CLASS_LINES
            numbers = ((_length(node), lines, "lines"), (len(public) - len(properties), METHODS, "public methods"))
            for number, most, what in (*numbers, (len(properties), METHODS, "properties")):
                found += [f"{source.path}:{node.lineno}: class {node.name} has {number} {what}, at most {most}"] if number > most else []
    return found


def inheritance(sources: Sequence[Source]) -> list[str]:
    """A class may inherit from one class that itself inherits from nothing of ours; exceptions and protocols are exempt."""
    every = {node.name: [_base(base) for base in node.bases] for source in sources for node in source.classes}
    protocols = {"Protocol", "Generic", *(name for name, found in every.items() if "Protocol" in found)}
    bases = {name: [base for base in found if base not in protocols] for name, found in every.items()}

    def depth(name: str, seen: frozenset[str] = frozenset()) -> int:
        if name in seen or name not in bases or not bases[name]:
            return 0
        return 1 + max(depth(base, seen | {name}) for base in bases[name])

    def is_exception(name: str) -> bool:
        return name.endswith(("Error", "Exception", "Warning")) or any(is_exception(base) for base in bases.get(name, ()))

    found = []
    for source in sources:
        for node in source.classes:
            parents = bases[node.name]
            if is_exception(node.name) or not parents or f"{source.path}::{node.name}" in INHERITANCE_EXEMPT:
                continue
            if depth(node.name) > 1 or len(parents) > 1:
                found.append(f"{source.path}:{node.lineno}: class {node.name} inherits from {', '.join(parents)}: depth 1 and one base")
    return found


def _base(node: ast.expr) -> str:
    return ast.unparse(node).partition("[")[0].rpartition(".")[2]


# ------------------------------------------------------------------------------------------------------------------ bans
def file_names(sources: Sequence[Source]) -> list[str]:
    banned = re.compile(r"^_?(utils?|commons?|helpers?|misc)$")
    return [
        f"{source.path}: a file or folder called {part} says nothing of what it holds"
        for source in sources
        for part in PurePosixPath(source.path).with_suffix("").parts
        if banned.match(part)
    ]


def shadowing(sources: Sequence[Source]) -> list[str]:
    """A module with a public name of its package would replace that name once the module is imported."""
    found = []
    for package in (source for source in sources if source.path.endswith("__init__.py")):
        folder = PurePosixPath(package.path).parent
        siblings = {path for source in sources if (path := PurePosixPath(source.path)) != PurePosixPath(package.path)}
        modules = {path.relative_to(folder).with_suffix("").parts[0] for path in siblings if path.is_relative_to(folder)}
        found += [f"{package.path}: {name} is a public name and a module" for name in sorted(_offered(package.tree) & modules)]
    return found


def _offered(tree: ast.Module) -> set[str]:
    """The names that a package offers: defined, imported from a module, or listed in a lazy table or `__all__`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Dict):
            names |= {_string(key) for key in node.keys}
        elif isinstance(node, ast.List | ast.Tuple):
            names |= {_string(item) for item in node.elts}
    return names


def import_cycles(sources: Sequence[Source]) -> list[str]:
    """Late imports count, imports for the type checker do not; the lazy `pellucid/__init__.py` is a door, not a module."""
    modules = {source.module for source in sources}
    graph = {source.module: _imports(source, modules) for source in sources if source.module != "pellucid"}
    found, done = [], set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            found.append("import cycle: " + " → ".join((*path[path.index(module) :], module)))
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())
    return found


def _imports(source: Source, modules: set[str]) -> set[str]:
    for_types = {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(source.tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = source.module.split(".") if source.path.endswith("__init__.py") else source.module.split(".")[:-1]
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module or "") if part)
            found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in modules else module for alias in node.names}
    return (found & modules) - {source.module, "pellucid"}


def star_imports(sources: Sequence[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno}: star import from {node.module}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]


def file_writes(sources: Sequence[Source]) -> list[str]:
    """Only `files.py` opens a file for writing, moves one or removes one."""
    direct = {
        "numpy.save",
        "numpy.savez",
        "numpy.savez_compressed",
        "os.rename",
        "os.replace",
        "shutil.move",
        "numpy.lib.format.open_memmap",
    }
    found = []
    for source in sources:
        if source.path == "files.py":
            continue
        for node, name in source.calls():
            if name.startswith("pellucid.files."):
                continue
            last = name.rpartition(".")[2]
            modes = [_string(argument) for argument in node.args] + [_string(k.value) for k in node.keywords if k.arg == "mode"]
            opens = last in {"open", "fdopen", "OSFile", "memmap"} and any(
                re.fullmatch(r"[rwaxbtU+]*[wax+][rwaxbtU+]*", mode) for mode in modes
            )
            if (opens or name in direct or last in {"write_text", "write_bytes"}) and f"{source.path}::{last}" not in WRITES_ALLOWED:
                found.append(f"{source.path}:{node.lineno}: {ast.unparse(node.func)} writes a file; only files.py may")
    return found


def environment(sources: Sequence[Source]) -> list[str]:
    calls = {f"os.environ.{name}" for name in ("setdefault", "update", "pop", "clear", "popitem")} | {"os.putenv", "os.unsetenv"}
    found = []
    for source in sources:
        written = [f"{source.path}:{node.lineno}" for node, name in source.calls() if name in calls]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del) and source.dotted(node.value) == "os.environ":
                written.append(f"{source.path}:{node.lineno}")
        found += [f"{place}: an environment variable is written" for place in written]
    return found


def pickles(sources: Sequence[Source]) -> list[str]:
    modules = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
    found = []
    for source in sources:
        for node in ast.walk(source.tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{source.path}:{node.lineno}: imports {n}: no pickle in or out" for n in names if n.partition(".")[0] in modules]
        for node, name in source.calls():
            allowed = name == "numpy.load" and any(k.arg == "allow_pickle" and ast.unparse(k.value) == "True" for k in node.keywords)
            if allowed or name in {"torch.load", "torch.save", "pandas.read_pickle"} or name.endswith(".to_pickle"):
                found.append(f"{source.path}:{node.lineno}: {name} pickles: no pickle in or out")
    return found


def printing(sources: Sequence[Source]) -> list[str]:
    banned = {"print", "sys.stdout.write", "sys.stderr.write", "breakpoint"}
    return [
        f"{source.path}:{node.lineno}: {name}: only {' and '.join(WRITERS)} write to the terminal"
        for source in sources
        if source.path not in WRITERS
        for node, name in source.calls()
        if name in banned
    ]


def remote_code(sources: Sequence[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno}: trust_remote_code runs code from a checkpoint"
        for source in sources
        for node, _ in source.calls()
        for keyword in node.keywords
        if keyword.arg == "trust_remote_code" and ast.unparse(keyword.value) != "False"
    ]


def patching(sources: Sequence[Source]) -> list[str]:
    """Setting an attribute of something imported changes it for everybody; only `process.py` may, and takes it back."""
    found = []
    for source in sources:
        if source.path == "process.py":
            continue
        for node in ast.walk(source.tree):
            targets = (
                node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []
            )
            for target in targets:
                root = target
                while isinstance(root, ast.Attribute):
                    root = root.value
                if isinstance(target, ast.Attribute) and isinstance(root, ast.Name) and root.id in source.modules_by_name:
                    found.append(f"{source.path}:{node.lineno}: {ast.unparse(target)} is set: no monkey-patching")
            if isinstance(node, ast.Global):
                found.append(f"{source.path}:{node.lineno}: global {', '.join(node.names)}: no global state")
    return found


def asserts(sources: Sequence[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno}: assert: raise an error with a place and a cure"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assert)
    ]


def copied_tasks(sources: Sequence[Source]) -> list[str]:
    """A task whose lines are its sibling's should have moved them down to what both import."""
    tasks = {source.path: _runs(source.text) for source in sources if re.fullmatch(r"tasks/(?!__init__).*\.py", source.path)}
    found = []
    for path, (lines, runs) in tasks.items():
        others = set().union(*(set(other) for name, (_, other) in tasks.items() if name != path))
        shared = {start + step for run, starts in runs.items() if run in others for start in starts for step in range(SHARED_RUN)}
        share = len(shared) / max(lines, 1)
        if share > SHARED_SHARE:
            found.append(f"{path}: {share:.0%} of its lines stand in a sibling too, at most {SHARED_SHARE:.0%}")
    return found


def _runs(text: str) -> tuple[int, dict[tuple[str, ...], list[int]]]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    runs: dict[tuple[str, ...], list[int]] = {}
    for start in range(len(lines) - SHARED_RUN + 1):
        runs.setdefault(tuple(lines[start : start + SHARED_RUN]), []).append(start)
    return len(lines), runs
