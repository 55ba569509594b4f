"""The one line with which the transformers course begins: a task by name, then texts in and plain dicts out.

Takes the name of a task, a checkpoint, and the words of transformers' pipelines. Gives a callable value that answers in their shapes and
holds the pipeline that made the answers. Knows nothing of how an answer is made: the pipeline does.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pellucid.checkpoints import resolve
from pellucid.course_shapes import Said, Words
from pellucid.course_tasks import CourseTask, asked_of, checked, configured, course_of
from pellucid.errors import CheckpointError, SettingError
from pellucid.local_checkpoints import local_choices
from pellucid.manifest import MANIFEST, read_manifest
from pellucid.pipelines import Pipeline, with_length
from pellucid.store import load
from pellucid.tasks import task_class
from pellucid.types import Note

LOG = logging.getLogger(__name__)
OPENING = ("revision", "dtype", "torch_dtype")  # words of transformers for how a model is loaded
CHOOSE = "pl.pipeline(task, checkpoint) names another."


@dataclass(frozen=True)
class OneLiner:
    """A task of the course, ready to be called with a text or a list; `pipe` is the pipeline behind it, and hides nothing.

    `words` are those that it was made with; a call may give others. Raises SettingError for a word that the task does not know.
    """

    task: str  # as it was asked for
    pipe: Pipeline
    words: Words = field(default_factory=dict)

    def __call__(self, *inputs: Any, **words: Any) -> Any:
        """The answers in the shapes of transformers' pipelines: for one text, or in a list for a list."""
        course = course_of(self.pipe.task.tag)
        asked = {**self.words, **checked(self.task, course, words, made=True)}
        rows, single = course.read(inputs, asked)
        task, _ = configured(self.pipe.task, course, asked).for_tokenizer(self.pipe.tokenizer)
        pipe = replace(self.pipe, task=task)
        if not rows:
            return []
        if course.whole is not None:
            return course.arrange(course.whole(pipe, rows), single)
        shapes: dict[int, Any] = {}
        for positions, part in course.parts(pipe, rows, asked):
            shapes.update(zip(positions, told(part, course, [rows[position] for position in positions], asked), strict=True))
        return course.arrange([shapes[position] for position in range(len(rows))], single)


def told(pipe: Pipeline, course: CourseTask, rows: Sequence[Any], words: Words) -> list[Any]:
    """The shape of each row's answer."""
    found = pipe.predict(rows)

    def output(row: int) -> Any:
        first, last = np.searchsorted(found.batch.rows, (row, row + 1))
        return found.output.take(np.arange(first, last))

    return [
        course.say(Said(pipe, words, example, prediction, partial(found.source.windows, row), partial(output, row)))
        for row, (example, prediction) in enumerate(zip(found.split, found, strict=True))
    ]


def pipeline(
    task: str,
    checkpoint: str | os.PathLike[str] | Pipeline | None = None,
    *,
    model: str | os.PathLike[str] | Pipeline | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    device: Any = None,
    **words: Any,
) -> OneLiner:
    """A task by its name, as in `transformers.pipeline`: pl.pipeline("sentiment-analysis")("I've been waiting for this!").

    `task` is a pipeline tag, "sentiment-analysis", "ner", or "translation_en_to_fr". `checkpoint` (or `model`) is "minilm", a folder, a
    name on the Hub or a pipeline; without one it is the Hub's usual choice at a fixed commit, and that is logged. A folder that pellucid
    saved is opened as it was saved. `words` are those of transformers: grouped_entities, top_k, max_length, … Raises SettingError for an
    unknown task or word, and CheckpointError, within seconds where the Hub cannot be reached, with what is on this machine.
    """
    course, said = asked_of(task)
    opening = {name: words.pop(name) for name in OPENING if name in words}
    given = {**said, **checked(task, course, words)}
    if checkpoint is not None and model is not None:
        raise SettingError("a checkpoint and a model were given", place="model", cure="Give one: they mean the same.")
    chosen = model if checkpoint is None else checkpoint
    if isinstance(chosen, Pipeline):
        if chosen.task.tag != course.tag:
            cure = f"Ask for {chosen.task.tag!r}, or name a checkpoint."
            raise SettingError(f"the pipeline is for {chosen.task.tag!r}, not for {course.tag!r}", place="checkpoint", cure=cure)
        pipe = chosen
        check_saved(task, course, pipe, given)
    else:
        pipe = opened(task, course, chosen, {**opening, "device": device}, given)
    if tokenizer is not None:
        pipe = with_tokenizer(pipe, tokenizer)
    return OneLiner(task, pipe, MappingProxyType({word: value for word, value in given.items() if word not in course.when_made}))


def opened(task: str, course: CourseTask, chosen: str | os.PathLike[str] | None, opening: Mapping[str, Any], words: Words) -> Pipeline:
    """The pipeline of a folder that pellucid saved for this task, or a new one of any other checkpoint."""
    revision, notes = opening.get("revision"), []
    if chosen is None:
        chosen, revision = course.checkpoint, revision or course.commit
        why = f"none was given, and it is the Hub's usual choice for {task!r}"
        notes = [Note(f"checkpoint {chosen!r} at commit {revision}", why, CHOOSE)]
        LOG.warning("%s", notes[0])
    if not isinstance(chosen, str | os.PathLike):
        cure = "Give its folder, its name on the Hub, or a pipeline of pellucid."
        raise SettingError(f"expected the name of a checkpoint, came a {type(chosen).__name__}", place="model", cure=cure)
    folder = found(task, course, chosen, revision)
    device = device_of(opening.get("device"))
    if (folder / MANIFEST).exists() and read_manifest(folder).get("task", {}).get("tag") == course.tag:
        pipe = load(folder, device=device)
        check_saved(task, course, pipe, words)
        return pipe
    from pellucid.model import ModelOptions

    dtype: Any = str(opening.get("dtype", opening.get("torch_dtype", "float32"))).removeprefix("torch.")
    start = configured(task_class(course.tag)(), course, {**course.usual, **words})
    named = chosen if isinstance(chosen, str) else Path(chosen)
    pipe = Pipeline.new(start, named, model=ModelOptions(dtype=dtype, device=device, revision=revision))
    return replace(pipe, notes=(*notes, *pipe.notes))


def check_saved(task: str, course: CourseTask, pipe: Pipeline, words: Words) -> None:
    """Raises SettingError for languages that are not those which the pipeline was made with; says so where it does not know its own."""
    for word in course.when_made:
        asked, saved = words.get(word), getattr(pipe.task, course.settings[word], None)
        if asked and saved and asked != saved:
            cure = f"Leave it out, or take another checkpoint for {task!r}."
            raise SettingError(f"{word} {asked!r} was asked for, the pipeline was made with {saved!r}", place=word, cure=cure)
        if asked and not saved:
            LOG.warning("%s", Note(f"{word} {asked!r} changes nothing", "the pipeline was made without it, and knows no other languages"))


def found(task: str, course: CourseTask, chosen: str | os.PathLike[str], revision: str | None) -> Path:
    """The folder of a checkpoint. Raises CheckpointError with what fits on this machine where there is none."""
    try:
        return resolve(chosen, revision).folder
    except CheckpointError as error:
        choices = ", ".join(map(repr, local_choices(course.tag, course.heads))) or "nothing"
        cure = f"{error.cure} Of what is on this machine, these fit {task!r}: {choices}."
        raise CheckpointError(error.problem, place=error.place, cure=cure) from error


def device_of(given: Any) -> str:
    """The device in torch's words; transformers takes numbers too: -1 the CPU, 0 the first GPU."""
    if isinstance(given, int) and not isinstance(given, bool):
        return "cpu" if given < 0 else f"cuda:{given}"
    return "auto" if given is None else str(given)


def with_tokenizer(pipe: Pipeline, tokenizer: str | os.PathLike[str]) -> Pipeline:
    """The pipeline with the tokenizer of another checkpoint. Raises SettingError for what is no name of one."""
    from pellucid.model import set_pad_token
    from pellucid.tokens import load_tokenizer

    if not isinstance(tokenizer, str | os.PathLike):
        cure = "Give the folder or the name of a checkpoint."
        raise SettingError(f"expected the name of a tokenizer, came a {type(tokenizer).__name__}", place="tokenizer", cure=cure)
    loaded, notes = load_tokenizer(resolve(tokenizer).folder)
    task, more = pipe.task.for_tokenizer(loaded)
    set_pad_token(pipe.model, loaded.pad_token_id)
    options, length_notes = with_length(pipe.options, task, loaded, pipe.model)
    return replace(pipe, task=task, tokenizer=loaded, options=options, notes=(*pipe.notes, *notes, *more, *length_notes))
