"""The tasks by name.

Takes a pipeline tag of the Hub. Gives the class of the task, imported when it is asked for.
Knows nothing of what a task does; a package from elsewhere adds its own under the entry point group "pellucid.tasks".
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING

from pellucid.errors import SettingError

if TYPE_CHECKING:
    from pellucid.task import Task

TASKS: Mapping[str, str] = MappingProxyType(
    {
        "text-classification": "pellucid.tasks.sequence_classification:SequenceClassification",
        "token-classification": "pellucid.tasks.token_classification:TokenClassification",
        "question-answering": "pellucid.tasks.question_answering:QuestionAnswering",
        "summarization": "pellucid.tasks.seq2seq:Summarization",
        "translation": "pellucid.tasks.seq2seq:Translation",
        "text2text-generation": "pellucid.tasks.seq2seq:Text2Text",
        "text-generation": "pellucid.tasks.causal_lm:TextGeneration",
        "fill-mask": "pellucid.tasks.masked_lm:FillMask",
        "zero-shot-classification": "pellucid.tasks.zero_shot:ZeroShotClassification",
        "feature-extraction": "pellucid.tasks.embeddings:FeatureExtraction",
    }
)


def task_class(tag: str) -> "type[Task]":
    """The class behind a tag such as "text-classification". Raises SettingError that lists the tags there are."""
    places = {point.name: point.value for point in entry_points(group="pellucid.tasks")} | dict(TASKS)
    if tag not in places:
        raise SettingError(f"there is no task {tag!r}", cure=f"Use one of: {', '.join(sorted(places))}.", place="task")
    module, _, name = places[tag].partition(":")
    found: type[Task] = getattr(import_module(module), name)
    return found
