"""The door to Hugging Face: a pipeline in transformers' own Trainer, for FSDP, DeepSpeed and whatever else it can do.

Takes a pipeline, rows and TrainingArguments. Gives a Trainer, or an error for arguments that would do nothing or write pickles.
Knows nothing of how that Trainer makes its batches or computes its loss.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pellucid.data import Rows
from pellucid.errors import SettingError
from pellucid.process import hide_broken_torchvision
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_scores import known_columns
from pellucid.training.task_loss import LossOptions

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from pellucid.pipelines import Pipeline
    from pellucid.training.planned_trainer import PellucidTrainer


def hf_trainer(
    pipe: "Pipeline",
    rows: Rows,
    args: "TrainingArguments",
    *,
    loaders: LoaderOptions | None = None,
    metrics: Sequence[str] | None = None,
    loss: LossOptions = LossOptions(),
) -> "PellucidTrainer":
    """transformers' Trainer for this pipeline and these rows, with pellucid's batches, loss and scores.

    Rows a batch are `args.per_device_train_batch_size`, the seed of their order `args.data_seed` or else `args.seed`; `loaders` says more
    (max_tokens, bucket, cache) and must agree with that. `metrics` are names of the task's scores: all of them where nothing is said, but
    no texts are written unless a score of them is named; `()` leaves the loss alone. Optimizer, schedule, precision and everything about
    devices are those of `args`. Raises SettingError for arguments that would do nothing here or write pickles, DataError, LabelError.
    """
    hide_broken_torchvision()  # Trainer's module imports it
    from pellucid.training.planned_trainer import PellucidTrainer

    check_args(args)
    half = [name for name, one in pipe.model.named_parameters() if one.requires_grad and one.dtype != torch.float32]
    if half and not args.deepspeed:
        cure = 'Load with ModelOptions(dtype="float32"), and pass bf16=True in args to compute in 16 bits.'
        raise SettingError(f"weights must be float32 to be trained, {half[0]} is not: small steps would be lost", place="dtype", cure=cure)
    return PellucidTrainer(pipe, rows, args, agreed(args, loaders), loss, score_names(pipe, metrics))


def agreed(args: "TrainingArguments", loaders: LoaderOptions | None) -> LoaderOptions:
    """How rows become batches, by `args` or by both. Raises SettingError where the two say different things."""
    size, seed = args.per_device_train_batch_size, args.seed if args.data_seed is None else args.data_seed
    if loaders is None:
        return LoaderOptions(bs=size, seed=seed)
    cure = "Say the same in both."
    if loaders.bs != size:
        problem = f"bs is {loaders.bs} in loaders and {size} in args"
        raise SettingError(problem, place="per_device_train_batch_size", cure=cure)
    if args.data_seed is not None and loaders.seed != seed:
        raise SettingError(f"seed is {loaders.seed} in loaders and {seed} in args", place="data_seed", cure=cure)
    return loaders


def score_names(pipe: "Pipeline", metrics: Sequence[str] | None) -> Sequence[str]:
    """The scores to compute, by name. Raises SettingError for one that the task has not."""
    known = known_columns(pipe.task)
    chosen = (() if pipe.task.kind == "text" else known) if metrics is None else metrics
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise SettingError(f"there is no score {unknown[0]!r}", place="metrics", cure=f"Use some of: {', '.join(known) or 'none here'}.")
    return chosen


def check_args(args: "TrainingArguments") -> None:
    """Raise SettingError for arguments that would do nothing here, or write pickles."""
    writes = str(args.save_strategy.value) != "no" or args.enable_jit_checkpoint
    planned = "the batches are pellucid's"
    refused = (
        (writes and not args.save_only_model, "save_only_model", "optimizer and random states would be written as pickles", "=True"),
        (args.push_to_hub, "push_to_hub", "Trainer would put a pickle into the repository", "=False, save_model, and upload the folder"),
        (args.label_smoothing_factor, "label_smoothing_factor", "the loss is the task's", "=0 and loss=LossOptions(label_smoothing=…)"),
        (args.use_liger_kernel, "use_liger_kernel", "the loss is the task's, from logits", "=False"),
        (args.dataloader_num_workers, "dataloader_num_workers", "a batch is one gather from a table of tokens", "=0"),
        (str(args.train_sampling_strategy) != "random", "train_sampling_strategy", planned, '="random" and LoaderOptions(bucket=True)'),
        (args.auto_find_batch_size, "auto_find_batch_size", planned, "=False and LoaderOptions(max_tokens=…)"),
        (args.prediction_loss_only, "prediction_loss_only", "metrics=() leaves the loss alone", "=False"),
        (args.batch_eval_metrics, "batch_eval_metrics", "scores are those of all rows", "=False"),
        (not args.eval_do_concat_batches, "eval_do_concat_batches", "scores are those of all rows", "=True"),
        (args.n_gpu > 1, "n_gpu", "several GPUs in one process would make other batches", "=1: start one process a GPU, with torchrun"),
    )
    for found, name, why, cure in refused:
        if found:
            raise SettingError(f"{name} is {getattr(args, name)!r}, but {why}", place=name, cure=f"Pass {name}{cure}.")
