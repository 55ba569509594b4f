"""The errors that pellucid raises on purpose.

Takes what went wrong, where, and what to do about it. Gives one readable line.
Knows nothing of data, models or screens.

    PellucidError
    ├── DataError            rows, columns or files that cannot be read as asked      (a ValueError)
    ├── LabelError           labels that do not fit the rows, the task or the weights (a ValueError)
    ├── TokenizerError       a tokenizer that cannot do what the task needs           (a ValueError)
    ├── CheckpointError      a folder or a file of weights that is not what it says   (a ValueError)
    ├── SettingError         an argument outside what is possible                     (a ValueError)
    ├── StorageError         a file that could not be written, locked or read back    (an OSError)
    └── MissingPackageError  a package that only some abilities need                  (an ImportError)
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Self


class PellucidError(Exception):
    """The root of every error that pellucid raises on purpose.

    `problem` says what was expected and what came, `place` where (file, row, column, parameter), `cure` what to do.
    `row` is the position within the rows that were handed over, where only their owner knows the file and the line.
    """

    line = ""

    def __init__(self, problem: str, *, cure: str, place: str = "", row: int | None = None) -> None:
        self.problem = problem
        self.place = place or ("" if row is None else f"row {row}")
        self.cure = cure
        self.row = row
        where = f"{self.place}: " if self.place else ""
        self.line = f"{where}{problem.rstrip('.')}. {cure}"
        super().__init__(self.line)

    def __str__(self) -> str:
        """The line as it was made: fastai puts words of its own around what a callback raises."""
        return self.line or super().__str__()

    def at(self, place: str) -> Self:
        """The same error at a place that its owner can name better."""
        return type(self)(self.problem, cure=self.cure, place=place)


class DataError(PellucidError, ValueError):
    """Rows, columns or files that cannot be read as asked."""


class LabelError(PellucidError, ValueError):
    """Labels that do not fit the rows, the task or the weights."""


class TokenizerError(PellucidError, ValueError):
    """A tokenizer that cannot do what the task needs, or a text that it cannot take."""


class CheckpointError(PellucidError, ValueError):
    """A folder or a file of weights that is not what it says it is."""


class SettingError(PellucidError, ValueError):
    """An argument outside what is possible."""


class StorageError(PellucidError, OSError):
    """A file that could not be written, locked or read back."""


class MissingPackageError(PellucidError, ImportError):
    """A package that only some abilities need and that is not installed."""


def need(package: str, *, extra: str = "", install: str = "", why: str = "") -> ModuleType:
    """Import `package`, or say how to install it.

    `extra` names the extra of pellucid that brings it; `install` replaces the whole line where no extra does.
    `why` says what wanted it. Raises MissingPackageError.
    """
    if find_spec(package.partition(".")[0]) is None:
        line = install or f"pip install 'pellucid[{extra}]'" if extra or install else f"pip install {package}"
        wanted = f"{why} needs" if why else "this needs"
        raise MissingPackageError(f"{wanted} the package {package!r}, which is not installed", cure=f"Run: {line}")
    return import_module(package)
