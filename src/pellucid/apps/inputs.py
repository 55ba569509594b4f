"""What the arguments of a command stand for: rows, texts, a pipeline, a place to save.

Takes paths, column names and lines of standard input. Gives rows, texts and pipelines, or an error before any long work begins.
Knows nothing of flags, of the terminal or of what the commands do.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, BinaryIO

import pellucid as pl
from pellucid.data import Split
from pellucid.errors import CheckpointError, DataError, SettingError, StorageError
from pellucid.files import atomic_file, atomic_folder
from pellucid.manifest import MANIFEST, read_manifest
from pellucid.readers.chunks import LabelKind, ReadOptions
from pellucid.task import Task, with_settings
from pellucid.tasks import task_class
from pellucid.tokens import LongTexts, TokenOptions
from pellucid.training.interrupts import raise_swallowed_interrupt


@dataclass(frozen=True, slots=True)
class Texts:
    """Where the texts of a file are, and how it is written."""

    text: Annotated[str | None, "column of the text; guessed and said if not given"] = None
    text_pair: Annotated[str | None, "column of a second text"] = None
    delimiter: Annotated[str | None, "what stands between columns; found out if not given"] = None
    columns: Annotated[str | None, "names of the columns where the file has no header, with commas between"] = None
    encoding: Annotated[str, "encoding of the file"] = "utf-8"

    def read(self, path: str) -> Split:
        """All rows of a file, in their order, whatever split they belong to and without their labels."""
        options = ReadOptions(
            valid_fraction=0.0, encoding=self.encoding, delimiter=delimiter_of(self.delimiter), columns=named(self.columns)
        )
        return joined(pl.read(path, text=self.text, text_pair=self.text_pair, label=False, options=options))


@dataclass(frozen=True, slots=True)
class Labelled:
    """Which column of a file is what, and how it is written."""

    text: Annotated[str | None, "column of the text; guessed and said if not given"] = None
    text_pair: Annotated[str | None, "column of a second text"] = None
    label: Annotated[str | None, "column of the label, or several columns of 0 and 1 with commas between"] = None
    split: Annotated[str | None, "column that says train or valid (is_valid)"] = None
    label_kind: Annotated[LabelKind, "what labels are: auto, class, number, set, tags, spans, answers or text"] = "auto"
    label_separator: Annotated[str | None, "what stands between the labels of one cell"] = None
    valid_fraction: Annotated[float, "share of the rows kept aside where the file has no split"] = 0.2
    delimiter: Annotated[str | None, "what stands between columns; found out if not given"] = None
    columns: Annotated[str | None, "names of the columns where the file has no header, with commas between"] = None
    encoding: Annotated[str, "encoding of the file"] = "utf-8"

    def read(self, path: str, kind: str = "") -> pl.Rows:
        """The rows for a task of this kind, with a column of labels where it learns from labels. Raises DataError where there is none."""
        several = tuple(self.label.split(",")) if self.label and "," in self.label else self.label
        unlabelled = kind == "language" and several is None  # a language model learns from the texts themselves
        options = ReadOptions(
            valid_fraction=self.valid_fraction,
            encoding=self.encoding,
            delimiter=delimiter_of(self.delimiter),
            columns=named(self.columns),
            label_kind="text" if kind in ("text", "language") and self.label_kind == "auto" else self.label_kind,
            label_separator=self.label_separator,
        )
        label = False if unlabelled else several
        found = pl.read(path, text=self.text, text_pair=self.text_pair, label=label, split=self.split, options=options)
        if found.roles.label is None and not unlabelled:
            raise DataError("no column has a name that means a label", place=found.source, cure="Name it: label=….")
        return found


@dataclass(frozen=True, slots=True)
class LongFlagValues:
    """What is said of long texts on a command line."""

    long: str | None = None
    stride: int = 0

    def added_to(self, tokens: TokenOptions) -> TokenOptions:
        """The token options with it. Raises SettingError."""
        if self.long is None and self.stride:
            raise SettingError("a stride, but no windows", place="stride", cure="Add long=windows.")
        return tokens if self.long is None else replace(tokens, long=LongTexts(self.long, self.stride))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class AdapterFlags:
    """Which small layers learn in place of the whole model, and how they are kept."""

    adapter: Annotated[str | None, "train small layers beside a body that sleeps: lora, dora, loha, lokr or ia3 (needs peft)"] = None
    adapter_rank: Annotated[int | None, "inner width of an adapter; 8 if not given"] = None
    merge: Annotated[bool, "save a whole model with the adapters in its weights, instead of the adapters alone"] = False

    def chosen(self) -> pl.AdapterOptions | None:
        """The adapters, or None for the whole model. Raises SettingError for a kind that does not exist, or a setting without one."""
        if self.adapter is None and (self.merge or self.adapter_rank is not None):
            place = "merge" if self.merge else "adapter_rank"
            raise SettingError("there is no adapter to say that of", place=place, cure="Add --adapter lora.")
        if self.adapter is None:
            return None
        return pl.AdapterOptions(self.adapter) if self.adapter_rank is None else pl.AdapterOptions(self.adapter, self.adapter_rank)

    def to_keep(self, trained: pl.Pipeline) -> pl.Pipeline:
        """What is saved of a trained pipeline: merged where that was asked for."""
        return pl.merged(trained) if self.merge else trained


def delimiter_of(given: str | None) -> str | None:
    """A delimiter as people type it: a backslash and a t, or the word tab, are a TAB."""
    return "\t" if given in ("\\t", "tab", "TAB") else given


def named(columns: str | None) -> tuple[str, ...]:
    """Column names as people type them: `en,es,by`."""
    return tuple(name.strip() for name in columns.split(",")) if columns else ()


def joined(rows: pl.Rows) -> Split:
    """All splits as one, in the order of their rows."""
    import pyarrow as pa

    first = next(iter(rows.splits.values()))
    if len(rows.splits) == 1:
        return first
    table = pa.concat_tables([split.table for split in rows.splits.values()]).sort_by("row")
    return replace(first, name="all", table=table)


@dataclass(frozen=True, slots=True)
class TaskFlags:
    """Which task, and its settings."""

    task: Annotated[str | None, "pipeline tag of the task; text-classification, or what a saved model was saved for"] = None
    setting: Annotated[list[str] | None, "a setting of the task, as name=value; may be given several times"] = None

    def chosen(self) -> Task:
        """The task with these settings. Raises SettingError."""
        return with_settings(task_class(self.task or "text-classification")(), self.setting or ())


@dataclass(frozen=True, slots=True)
class SavedFlags(TaskFlags):
    """Which task a saved model serves, and where the checkpoint under its adapters is."""

    base: Annotated[str | None, "folder of the checkpoint under saved adapters, where it is no longer where it was"] = None


def open_pipeline(model: str, task: SavedFlags = SavedFlags()) -> pl.Pipeline:
    """A saved pipeline, or one from a checkpoint that pellucid did not save; settings change its task for this time.

    Where another task is asked for than the folder was saved for, its weights serve that one: an NLI model's, zero-shot-classification.
    Raises KeyboardInterrupt for a Ctrl-C that was swallowed meanwhile: what follows may wait for texts.
    """
    pipe = opened(model, task)
    raise_swallowed_interrupt()
    return pipe


def opened(model: str, task: SavedFlags) -> pl.Pipeline:
    """The pipeline of `open_pipeline`."""
    folder = Path(model)
    if os.path.exists(folder / MANIFEST):
        saved = pl.load(folder, base=task.base)
        if task.task in (None, saved.task.tag):
            return replace(saved, task=with_settings(saved.task, task.setting)) if task.setting else saved
        if not os.path.exists(folder / "config.json"):
            problem = f"these are adapters for {saved.task.tag}, kept without their model, and serve no other task ({task.task})"
            cure = "Leave --task out; what `pellucid train --merge` saves can serve another task."
            raise SettingError(problem, place=model, cure=cure)
    if os.path.exists(folder) and not os.path.exists(folder / "config.json"):
        cure = "Name a folder that `pellucid train` or transformers wrote."
        raise CheckpointError(f"this is no model: it has neither {MANIFEST} nor config.json", place=model, cure=cure)
    return pl.Pipeline.new(task.chosen(), model)


def given_texts(texts: Sequence[str], stream: BinaryIO, reads: Sequence[str]) -> list[str | tuple[str, ...]]:
    """The texts of the arguments, or a line each of `stream`; for a task that reads two, two arguments or a line with a TAB between.

    Raises SettingError where there is none, DataError for a line that is not UTF-8 or not a pair.
    """
    wanted = len(reads)
    if texts and len(texts) % wanted:
        cure = f"Give {' and '.join(reads)} for each row, as arguments of their own."
        raise SettingError(f"the task reads {wanted} texts a row, {len(texts)} came", place="texts", cure=cure)
    if texts:
        return [texts[start] if wanted == 1 else tuple(texts[start : start + wanted]) for start in range(0, len(texts), wanted)]
    found = [line_of(line, number, wanted) for number, line in enumerate(stream, 1)]
    if not found:
        cure = 'Give them as arguments, or a line each on standard input: pellucid predict my_model "I loved it".'
        raise SettingError("no texts came", place="texts", cure=cure)
    return found


def line_of(line: bytes, number: int, wanted: int) -> str | tuple[str, ...]:
    """One line of standard input as a text, or as the texts of a row."""
    place = f"standard input, line {number}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"byte {error.start + 1} is not UTF-8", place=place, cure="Turn it into UTF-8: iconv -t UTF-8.") from error
    parts = tuple(text.split("\t"))
    if wanted > 1 and len(parts) != wanted:
        raise DataError(f"expected {wanted} texts with a TAB between, came {len(parts)}", place=place, cure="Write one row a line.")
    return text if wanted == 1 else parts


class _Untouched(Exception):
    """Ends a write before anything is replaced."""


def check_folder(output: str) -> None:
    """Whether a model can be saved there, before hours are spent on it. Raises StorageError."""
    attempt(atomic_folder(output))
    folder = Path(output)
    if not os.path.exists(folder) or not any(folder.iterdir()):
        return
    try:
        read_manifest(folder)
    except CheckpointError as error:
        problem = f"the folder is not empty, and pellucid did not save it ({error.problem})"
        raise StorageError(problem, place=output, cure="Choose another folder, or remove this one yourself.") from error


def check_file(output: str) -> None:
    """Whether a file can be written there. Raises StorageError."""
    attempt(atomic_file(output))


def attempt(writing: AbstractContextManager[Path]) -> None:
    """Begin to write, and stop before anything is replaced."""
    with suppress(_Untouched), writing:
        raise _Untouched


def keep(pipe: pl.Pipeline, output: str) -> Path:
    """Save; where that fails after all, save elsewhere, and say where. Raises StorageError."""
    try:
        return pl.save(pipe, output)
    except StorageError as error:
        saved = pl.save(pipe, Path(mkdtemp(prefix="pellucid-")) / "model")
        raise StorageError(error.problem, place=error.place, cure=f"The trained model is safe in {saved}; move it from there.") from error
