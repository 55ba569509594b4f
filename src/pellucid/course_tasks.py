"""The tasks of the transformers course: their names, usual checkpoints, words, and what goes in and comes out.

Takes the name of a task, and what somebody calls it with. Gives rows, settings of a task, and answers arranged as transformers does.
Knows nothing of models: it opens none.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from pellucid import course_shapes as shapes
from pellucid.course_shapes import Said, Words
from pellucid.errors import SettingError
from pellucid.given import as_split
from pellucid.pipelines import Pipeline
from pellucid.task import Task

LANGUAGES = re.compile(r"translation_([A-Za-z-]+)_to_([A-Za-z-]+)")
ALIASES = MappingProxyType({"sentiment-analysis": "text-classification", "ner": "token-classification"})
Read = Callable[[tuple[Any, ...], dict[str, Any]], tuple[list[Any], bool]]  # what came, and its words → rows, whether one came alone
Arrange = Callable[[list[Any], bool], Any]  # the shape of each row, whether one came alone → the answer
Part = tuple[Sequence[int], Pipeline]  # positions of rows, and the pipeline that answers them


def one_or_many(inputs: tuple[Any, ...], words: dict[str, Any]) -> tuple[list[Any], bool]:
    """A text (or a dict of texts) alone, or any number of them."""
    if len(inputs) != 1:
        raise SettingError(f"expected one argument, came {len(inputs)}", place="inputs", cure="Give a text, or a list of texts.")
    if isinstance(inputs[0], str | Mapping):
        return [inputs[0]], True
    return list(inputs[0]), False


def questions(inputs: tuple[Any, ...], words: dict[str, Any]) -> tuple[list[Any], bool]:
    """`question=` and `context=`, each alone or in a list, or dicts of both."""
    if inputs:
        rows, single = one_or_many(inputs, words)
        for row, one in enumerate(rows):
            if not isinstance(one, Mapping) or not {"question", "context"} <= set(one):
                cure = 'Give dicts with "question" and "context", or call it with question="…", context="…".'
                raise SettingError(f"expected a question with its context, came {type(one).__name__}", place=f"row {row}", cure=cure)
        return [{"text": one["question"], "text_pair": one["context"]} for one in rows], single
    asked, contexts = words.get("question"), words.get("context")
    if asked is None or contexts is None:
        cure = 'Call it with question="…" and context="…".'
        raise SettingError("a question and a context are needed", place="question", cure=cure)
    many = [asked] if isinstance(asked, str) else list(asked)
    beside = [contexts] * len(many) if isinstance(contexts, str) else list(contexts)
    if len(many) != len(beside):
        cure = "Give one context a question, or one for all."
        raise SettingError(f"{len(many)} questions, {len(beside)} contexts", place="context", cure=cure)
    return [{"text": one, "text_pair": other} for one, other in zip(many, beside, strict=True)], isinstance(asked, str)


def candidates(inputs: tuple[Any, ...], words: dict[str, Any]) -> tuple[list[Any], bool]:
    """Texts, and the candidate labels as the second argument or by their name; in one string they have commas between them."""
    if len(inputs) == 2:
        words["candidate_labels"] = inputs[1]
    return one_or_many(inputs[:1], words)


def prompts(inputs: tuple[Any, ...], words: dict[str, Any]) -> tuple[list[Any], bool]:
    """Texts or chats; a chat is a list of messages, dicts with "role" and "content", and is read as the JSON of that list."""
    rows, single = ([inputs[0]], True) if len(inputs) == 1 and is_chat(inputs[0]) else one_or_many(inputs, words)
    return [json.dumps(one, ensure_ascii=False) if is_chat(one) else one for one in rows], single


def is_chat(one: Any) -> bool:
    """Whether this is one chat."""
    return isinstance(one, list | tuple) and bool(one) and all(isinstance(message, Mapping) and "role" in message for message in one)


def each_alone(said: list[Any], single: bool) -> Any:
    """The shape of the one row, or all of them."""
    return said[0] if single else said


def labels_in_a_list(said: list[Any], single: bool) -> Any:
    """One label a row in one list; where rows have lists, that of the one row, or all of them."""
    return said[0] if single and isinstance(said[0], list) else said


def texts_in_a_list(said: list[Any], single: bool) -> Any:
    """The texts of the one row; of several rows a list, without lists in it where each row has one text."""
    return said[0] if single else [each[0] for each in said] if all(len(each) == 1 for each in said) else said


def one_mask_alone(said: list[Any], single: bool) -> Any:
    """The words of the one row, also where it came in a list: that is transformers' way."""
    return said[0] if single or len(said) == 1 else said


def all_at_once(pipe: Pipeline, rows: Sequence[Any], words: Words) -> list[Part]:
    """Every row through the same pipeline."""
    return [(range(len(rows)), pipe)]


def pairs_apart(pipe: Pipeline, rows: Sequence[Any], words: Words) -> list[Part]:
    """Rows of two texts, {"text": …, "text_pair": …}, are read as pairs."""
    pairs = [position for position, one in enumerate(rows) if isinstance(one, Mapping) and "text_pair" in one]
    if not pairs:
        return all_at_once(pipe, rows, words)
    task = replace(pipe.task, pair=True)  # type: ignore[type-var]  # a task is a dataclass
    alone = sorted(set(range(len(rows))) - set(pairs))
    return [(pairs, replace(pipe, task=task)), *([(alone, pipe)] if alone else [])]


def by_prompt_length(pipe: Pipeline, rows: Sequence[Any], words: Words) -> list[Part]:
    """Where `max_length` counts the prompt too, prompts of each length by themselves, with as many new tokens as that leaves."""
    longest = words.get("max_length")
    if longest is None or "max_new_tokens" in words:
        return all_at_once(pipe, rows, words)
    table = pipe.encode(as_split(list(rows), pipe.task.reads))
    lengths = np.asarray(table.lengths)[np.searchsorted(table.rows, np.arange(len(rows)))]
    return [
        (np.flatnonzero(lengths == length).tolist(), replace(pipe, task=with_new_tokens(pipe.task, max(1, longest - length))))
        for length in np.unique(lengths).tolist()
    ]


def with_new_tokens(task: Task, count: int) -> Task:
    """The task with a limit of its own."""
    return replace(task, max_new_tokens=count)  # type: ignore[type-var]  # a task is a dataclass


def joined_where_grouped(settings: dict[str, Any], words: Words) -> dict[str, Any]:
    """Groups are of neighbours with the same tag, of words with plain tags too."""
    return {**settings, "kind": "spans"} if settings.get("aggregation", "none") != "none" else settings


def drawn_where_several(settings: dict[str, Any], words: Words) -> dict[str, Any]:
    """Several texts that go on from a prompt are drawn, as the course's are, where nobody says how they are made."""
    if words.get("num_return_sequences", 1) > 1 and "do_sample" not in words:
        settings["do_sample"] = True
    return {**settings, "full_text": False}


def searched_where_several(settings: dict[str, Any], words: Words) -> dict[str, Any]:
    """Several texts from a text are the best of as many beams, where nobody says how they are made."""
    several = words.get("num_return_sequences", 1)
    if several > 1 and not words.get("do_sample"):
        settings["num_beams"] = max(several, words.get("num_beams") or 1)
    return settings


@dataclass(frozen=True)
class CourseTask:
    """One task of the course: what it is here, its usual checkpoint at a commit, how it is asked, and how its answers are told.

    `settings`: the word of the course → the field of the task. `words` only decide what goes in and how it is told. `when_made` are
    settings that the model is built with, `usual` words those of a checkpoint that pellucid did not save. `also` adds
    settings that follow from the words. `parts` are rows that go through a pipeline together; `whole` makes the shapes of all rows where
    no prediction does.
    """

    tag: str
    checkpoint: str
    commit: str
    say: Callable[[Said], Any]
    heads: tuple[str, ...] = ()  # how the architectures that fit end; none: every one fits
    settings: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    when_made: tuple[str, ...] = ()
    usual: Mapping[str, Any] = field(default_factory=dict)
    read: Read = one_or_many
    arrange: Arrange = each_alone
    also: Callable[[dict[str, Any], Words], dict[str, Any]] = lambda settings, words: settings
    parts: Callable[[Pipeline, Sequence[Any], Words], list[Part]] = all_at_once
    whole: Callable[[Pipeline, Sequence[Any]], list[Any]] | None = None


_CLASSES, _SEQ2SEQ = ("ForSequenceClassification",), ("ForConditionalGeneration", "MTModel")
_SAMPLING = {name: name for name in ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_return_sequences", "seed")}
_SAMPLING |= {"max_new_tokens": "max_new_tokens", "stop_sequence": "stop"}
_WRITING = {name: name for name in ("num_beams", "length_penalty", "no_repeat_ngram_size", "min_new_tokens")}
_WRITING |= {**_SAMPLING, "max_length": "max_new_tokens", "min_length": "min_new_tokens"}
_LANGUAGES = {"src_lang": "source_language", "tgt_lang": "target_language"}


def _writer(tag: str, checkpoint: tuple[str, str], name: str, languages: Mapping[str, str] = MappingProxyType({})) -> CourseTask:
    settings = {**_WRITING, "prefix": "prefix", **languages}
    made, say = tuple(languages), partial(shapes.texts_shape, name)
    also = searched_where_several
    return CourseTask(tag, *checkpoint, say, _SEQ2SEQ, settings, when_made=made, arrange=texts_in_a_list, also=also)


_ALL = (
    CourseTask(
        "text-classification",
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        "714eb0f",
        shapes.label_shape,
        _CLASSES,
        words=("top_k",),
        arrange=labels_in_a_list,
        parts=pairs_apart,
    ),
    CourseTask(
        "token-classification",
        "dbmdz/bert-large-cased-finetuned-conll03-english",
        "4c53496",
        shapes.entity_shape,
        ("ForTokenClassification",),
        settings={"aggregation_strategy": "aggregation", "grouped_entities": "aggregation", "ignore_labels": "ignore_labels"},
        usual={"aggregation_strategy": "none"},
        also=joined_where_grouped,
    ),
    CourseTask(
        "question-answering",
        "distilbert/distilbert-base-cased-distilled-squad",
        "564e9b5",
        shapes.answer_shape,
        ("ForQuestionAnswering",),
        settings={"top_k": "n_best", "max_answer_len": "max_answer_tokens", "handle_impossible_answer": "no_answer"},
        words=("question", "context"),
        read=questions,
    ),
    CourseTask(
        "zero-shot-classification",
        "facebook/bart-large-mnli",
        "d7645e1",
        shapes.candidate_shape,
        _CLASSES,
        settings={"candidate_labels": "candidate_labels", "hypothesis_template": "template", "multi_label": "multi_label"},
        read=candidates,
    ),
    CourseTask(
        "fill-mask",
        "distilbert/distilroberta-base",
        "fb53ab8",
        shapes.mask_shape,
        ("ForMaskedLM", "ForPreTraining"),
        settings={"top_k": "top_k", "targets": "targets"},
        arrange=one_mask_alone,
    ),
    _writer("summarization", ("sshleifer/distilbart-cnn-12-6", "a4f8f3e"), "summary_text"),
    _writer("translation", ("google-t5/t5-base", "a9723ea"), "translation_text", _LANGUAGES),
    _writer("text2text-generation", ("google-t5/t5-base", "a9723ea"), "generated_text"),
    CourseTask(
        "text-generation",
        "openai-community/gpt2",
        "607a30d",
        shapes.continued_shape,
        ("ForCausalLM", "LMHeadModel"),
        settings=_SAMPLING,
        words=("max_length", "return_full_text"),
        read=prompts,
        also=drawn_where_several,
        parts=by_prompt_length,
    ),
    CourseTask("feature-extraction", "distilbert/distilbert-base-cased", "6ea8117", shapes.label_shape, whole=shapes.token_vectors),
)
COURSE: Mapping[str, CourseTask] = MappingProxyType({each.tag: each for each in _ALL})
MEANT: Mapping[str, Callable[[Any], Any]] = MappingProxyType(  # what a word's value means in the task, where that is another value
    {
        "grouped_entities": lambda value: "simple" if value else "none",
        "candidate_labels": lambda value: tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value),
        "ignore_labels": tuple,
        "targets": lambda value: (value,) if isinstance(value, str) else tuple(value),
        "stop_sequence": lambda value: (value,) if isinstance(value, str) else tuple(value),
        "max_length": lambda value: value - 1,  # transformers counts the token with which the decoder begins
        "min_length": lambda value: max(value - 1, 0) or None,
    }
)


def course_of(tag: str) -> CourseTask:
    """The task of the course with this tag. Raises SettingError for another."""
    if tag not in COURSE:
        raise SettingError(f"the course has no task {tag!r}", place="task", cure=f"Its tasks are: {', '.join(sorted(COURSE))}.")
    return COURSE[tag]


def asked_of(task: str) -> tuple[CourseTask, Words]:
    """What a name of the course means, and the words that are in it. Raises SettingError with all names there are."""
    name = task if isinstance(task, str) else ""
    languages = LANGUAGES.fullmatch(name)
    if languages is not None:
        return COURSE["translation"], {"src_lang": languages[1], "tgt_lang": languages[2]}
    course = COURSE.get(ALIASES.get(name, name))
    if course is None:
        names = ", ".join(sorted({*COURSE, *ALIASES, "translation_xx_to_yy"}))
        raise SettingError(f"there is no task {task!r}", place="task", cure=f"Use one of: {names}.")
    return course, {}


def checked(task: str, course: CourseTask, words: Words, *, made: bool = False) -> Words:
    """The words as they came. Raises SettingError for one that the task does not know, or that can only be said when it is made."""
    known = set(course.settings) | set(course.words)
    for word in words:
        if word not in known:
            cure = f"Its words are: {', '.join(sorted(known)) or 'none'}."
            raise SettingError(f"{task!r} knows no word {word!r}", place=word, cure=cure)
        if made and word in course.when_made:
            cure = f"pl.pipeline({task!r}, …, {word}=…)."
            raise SettingError(f"{word!r} is said when the pipeline is made", place=word, cure=cure)
    return words


def configured(task: Task, course: CourseTask, words: Words) -> Task:
    """The task with the settings that the words mean. Raises what the task raises for a value that cannot be."""
    names = {each.name for each in fields(task)}  # type: ignore[arg-type]  # a task is a dataclass
    meant = {course.settings[word]: MEANT.get(word, lambda value: value)(value) for word, value in words.items() if word in course.settings}
    settings = {name: value for name, value in course.also(meant, words).items() if name in names}
    return replace(task, **settings)  # type: ignore[type-var]  # a task is a dataclass
