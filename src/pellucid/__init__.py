"""pellucid: from raw text to a fine-tuned, examined and saved transformer, with every step in the open.

Takes nothing. Gives the public names, in the order of the pipeline; each is imported when it is first used.
Knows nothing of what they do: importing pellucid loads neither torch nor transformers.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.checks import check_rows as check_rows
    from pellucid.data import ReadOptions as ReadOptions
    from pellucid.data import Rows as Rows
    from pellucid.data import read as read
    from pellucid.errors import PellucidError as PellucidError
    from pellucid.evaluation import evaluate as evaluate
    from pellucid.features import PipelineFeatures as PipelineFeatures
    from pellucid.inspection import show as show
    from pellucid.inspection import view_of as view_of
    from pellucid.model import ModelOptions as ModelOptions
    from pellucid.one_liner import pipeline as pipeline
    from pellucid.pipelines import Pipeline as Pipeline
    from pellucid.render import to_frame as to_frame
    from pellucid.render import to_html as to_html
    from pellucid.render import to_text as to_text
    from pellucid.store import load as load
    from pellucid.store import save as save
    from pellucid.task import Task as Task
    from pellucid.tasks.causal_lm import TextGeneration as TextGeneration
    from pellucid.tasks.embeddings import FeatureExtraction as FeatureExtraction
    from pellucid.tasks.masked_lm import FillMask as FillMask
    from pellucid.tasks.question_answering import QuestionAnswering as QuestionAnswering
    from pellucid.tasks.seq2seq import Summarization as Summarization
    from pellucid.tasks.seq2seq import Text2Text as Text2Text
    from pellucid.tasks.seq2seq import Translation as Translation
    from pellucid.tasks.sequence_classification import SequenceClassification as SequenceClassification
    from pellucid.tasks.token_classification import TokenClassification as TokenClassification
    from pellucid.tasks.zero_shot import ZeroShotClassification as ZeroShotClassification
    from pellucid.testing import check_task as check_task
    from pellucid.tokens import LongTexts as LongTexts
    from pellucid.tokens import TokenOptions as TokenOptions
    from pellucid.training.fastai_blocks import LoaderOptions as LoaderOptions
    from pellucid.training.fastai_blocks import TextBlock as TextBlock
    from pellucid.training.fastai_blocks import dataloaders as dataloaders
    from pellucid.training.fastai_learner import LearnerOptions as LearnerOptions
    from pellucid.training.fastai_learner import learner as learner
    from pellucid.training.one_call import TrainOptions as TrainOptions
    from pellucid.training.one_call import train as train
    from pellucid.types import Span as Span

__version__ = "0.1.0"

PUBLIC: Mapping[str, str] = MappingProxyType(
    {
        # rows
        "read": "pellucid.data",
        "ReadOptions": "pellucid.data",
        "Rows": "pellucid.data",
        "check_rows": "pellucid.checks",
        "Span": "pellucid.types",
        # a pipeline and its steps
        "LongTexts": "pellucid.tokens",
        "TokenOptions": "pellucid.tokens",
        "ModelOptions": "pellucid.model",
        "SequenceClassification": "pellucid.tasks.sequence_classification",
        "TokenClassification": "pellucid.tasks.token_classification",
        "QuestionAnswering": "pellucid.tasks.question_answering",
        "Summarization": "pellucid.tasks.seq2seq",
        "Translation": "pellucid.tasks.seq2seq",
        "Text2Text": "pellucid.tasks.seq2seq",
        "TextGeneration": "pellucid.tasks.causal_lm",
        "FillMask": "pellucid.tasks.masked_lm",
        "ZeroShotClassification": "pellucid.tasks.zero_shot",
        "FeatureExtraction": "pellucid.tasks.embeddings",
        "Pipeline": "pellucid.pipelines",
        "PipelineFeatures": "pellucid.features",
        "pipeline": "pellucid.one_liner",
        "show": "pellucid.inspection",
        "view_of": "pellucid.inspection",
        "to_text": "pellucid.render",
        "to_html": "pellucid.render",
        "to_frame": "pellucid.render",
        # training
        "TextBlock": "pellucid.training.fastai_blocks",
        "LoaderOptions": "pellucid.training.fastai_blocks",
        "dataloaders": "pellucid.training.fastai_blocks",
        "LearnerOptions": "pellucid.training.fastai_learner",
        "learner": "pellucid.training.fastai_learner",
        "TrainOptions": "pellucid.training.one_call",
        "train": "pellucid.training.one_call",
        # what it is worth, and keeping it
        "evaluate": "pellucid.evaluation",
        "save": "pellucid.store",
        "load": "pellucid.store",
        # for those who add a task
        "Task": "pellucid.task",
        "check_task": "pellucid.testing",
        "PellucidError": "pellucid.errors",
    }
)

__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
