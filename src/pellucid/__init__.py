"""pellucid: from raw text to a fine-tuned, examined and saved transformer, with every step in the open.

Takes nothing. Gives the public names, in the order of the pipeline; each is imported when it is first used.
Knows nothing of what they do: importing pellucid loads neither torch nor transformers.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.adapters import AdapterOptions as AdapterOptions
    from pellucid.adapters import adapted as adapted
    from pellucid.adapters import merged as merged
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
    from pellucid.scratch import ModelSizes as ModelSizes
    from pellucid.scratch import from_config as from_config
    from pellucid.stages import run_stage as run_stage
    from pellucid.stages import stages_report as stages_report
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
    from pellucid.training.fastai_callbacks import Accumulate as Accumulate
    from pellucid.training.fastai_callbacks import EmbeddingMixup as EmbeddingMixup
    from pellucid.training.fastai_callbacks import FiniteSteps as FiniteSteps
    from pellucid.training.fastai_callbacks import GradientCheckpointing as GradientCheckpointing
    from pellucid.training.fastai_callbacks import WeightAverage as WeightAverage
    from pellucid.training.fastai_checkpoints import Checkpoints as Checkpoints
    from pellucid.training.fastai_learner import BFloat16 as BFloat16
    from pellucid.training.fastai_learner import LearnerOptions as LearnerOptions
    from pellucid.training.fastai_learner import learner as learner
    from pellucid.training.fastai_precision import set_precision as set_precision
    from pellucid.training.fastai_scores import Every as Every
    from pellucid.training.fastai_speed import make_faster as make_faster
    from pellucid.training.fastai_tokens import top_tokens as top_tokens
    from pellucid.training.fastai_tracking import Tracked as Tracked
    from pellucid.training.one_call import TrainOptions as TrainOptions
    from pellucid.training.one_call import train as train
    from pellucid.training.task_loss import LossOptions as LossOptions
    from pellucid.training.trainer_door import hf_trainer as hf_trainer
    from pellucid.types import Span as Span
    from pellucid.vocab import VocabularyOptions as VocabularyOptions
    from pellucid.vocab import train_tokenizer as train_tokenizer
    from pellucid.vocab_comparison import compare_tokenizers as compare_tokenizers
    from pellucid.vocab_extension import extend_vocabulary as extend_vocabulary
    from pellucid.vocab_extension import words_worth_adding as words_worth_adding

__version__ = "0.1.0"

PUBLIC: Mapping[str, str] = MappingProxyType(
    {
        # rows
        "read": "pellucid.data",
        "ReadOptions": "pellucid.data",
        "Rows": "pellucid.data",
        "check_rows": "pellucid.checks",
        "Span": "pellucid.types",
        # a vocabulary, and a model from nothing
        "VocabularyOptions": "pellucid.vocab",
        "train_tokenizer": "pellucid.vocab",
        "compare_tokenizers": "pellucid.vocab_comparison",
        "words_worth_adding": "pellucid.vocab_extension",
        "extend_vocabulary": "pellucid.vocab_extension",
        "ModelSizes": "pellucid.scratch",
        "from_config": "pellucid.scratch",
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
        "AdapterOptions": "pellucid.adapters",
        "adapted": "pellucid.adapters",
        "merged": "pellucid.adapters",
        # training
        "TextBlock": "pellucid.training.fastai_blocks",
        "LoaderOptions": "pellucid.training.fastai_blocks",
        "dataloaders": "pellucid.training.fastai_blocks",
        "LearnerOptions": "pellucid.training.fastai_learner",
        "learner": "pellucid.training.fastai_learner",
        "LossOptions": "pellucid.training.task_loss",
        "Accumulate": "pellucid.training.fastai_callbacks",
        "Checkpoints": "pellucid.training.fastai_checkpoints",
        "EmbeddingMixup": "pellucid.training.fastai_callbacks",
        "Every": "pellucid.training.fastai_scores",
        "FiniteSteps": "pellucid.training.fastai_callbacks",
        "GradientCheckpointing": "pellucid.training.fastai_callbacks",
        "Tracked": "pellucid.training.fastai_tracking",
        "WeightAverage": "pellucid.training.fastai_callbacks",
        "BFloat16": "pellucid.training.fastai_learner",
        "set_precision": "pellucid.training.fastai_precision",
        "make_faster": "pellucid.training.fastai_speed",
        "top_tokens": "pellucid.training.fastai_tokens",
        "hf_trainer": "pellucid.training.trainer_door",
        "TrainOptions": "pellucid.training.one_call",
        "train": "pellucid.training.one_call",
        "run_stage": "pellucid.stages",
        "stages_report": "pellucid.stages",
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
