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
    from pellucid.inspection import show as show
    from pellucid.inspection import view_of as view_of
    from pellucid.model import ModelOptions as ModelOptions
    from pellucid.pipelines import Pipeline as Pipeline
    from pellucid.render import to_frame as to_frame
    from pellucid.render import to_html as to_html
    from pellucid.render import to_text as to_text
    from pellucid.store import load as load
    from pellucid.store import save as save
    from pellucid.tasks.sequence_classification import SequenceClassification as SequenceClassification
    from pellucid.testing import check_task as check_task
    from pellucid.tokens import TokenOptions as TokenOptions
    from pellucid.training.fastai_blocks import LoaderOptions as LoaderOptions
    from pellucid.training.fastai_blocks import TextBlock as TextBlock
    from pellucid.training.fastai_blocks import dataloaders as dataloaders
    from pellucid.training.fastai_learner import LearnerOptions as LearnerOptions
    from pellucid.training.fastai_learner import learner as learner
    from pellucid.training.one_call import TrainOptions as TrainOptions
    from pellucid.training.one_call import train as train

__version__ = "0.1.0"

PUBLIC: Mapping[str, str] = MappingProxyType(
    {
        # rows
        "read": "pellucid.data",
        "ReadOptions": "pellucid.data",
        "Rows": "pellucid.data",
        "check_rows": "pellucid.checks",
        # a pipeline and its steps
        "TokenOptions": "pellucid.tokens",
        "ModelOptions": "pellucid.model",
        "SequenceClassification": "pellucid.tasks.sequence_classification",
        "Pipeline": "pellucid.pipelines",
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
