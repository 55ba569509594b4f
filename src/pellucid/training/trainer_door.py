"""The door to Hugging Face: a pipeline in transformers' own Trainer, for FSDP, DeepSpeed and whatever else it can do.

Takes a pipeline, rows and TrainingArguments. Gives a Trainer with pellucid's batches, loss, scores and parameters without weight decay.
Knows nothing of fastai's learner, of files of an optimizer, or of what a label means: the task says that.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from pellucid.data import Rows, Split
from pellucid.errors import DataError, SettingError
from pellucid.files import write_text
from pellucid.groups import no_decay
from pellucid.training.batch_text import CLASSES
from pellucid.training.fastai_blocks import LoaderOptions, TokenLoader
from pellucid.training.fastai_rows import TokenRows
from pellucid.training.fastai_scores import column_name, known_columns
from pellucid.training.task_loss import LossOptions, task_loss
from pellucid.training.trainer_batches import LABELS, WINDOWS, PlannedLoader, Share, epoch_steps, without
from pellucid.types import Batch, FloatArray, Output

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedModel, TrainingArguments

    from pellucid.pipelines import Pipeline


class PellucidTrainer(Trainer):
    """transformers' Trainer over a pipeline: `trainer.model is pipe.model`, and `pipe` answers with what was trained.

    Batches are those of `pl.dataloaders` with the same options, seed and epoch; of several processes each takes one of every round.
    Every batch goes through the task's `run` and loss, and every token or row of an optimizer step counts the same, over accumulated
    batches and over processes. `evaluate` gives the loss and the task's scores of the rows that are kept aside, or of another split.
    No pickle is written. Where this says nothing, Trainer does as always.
    """

    loss_is_scaled_for_ga = True  # by compute_loss, over all batches of a step

    def __init__(
        self, pipe: "Pipeline", rows: Rows, args: "TrainingArguments", options: LoaderOptions, loss: LossOptions, metrics: Sequence[str]
    ) -> None:
        self.pipe, self.options, self.metrics = pipe, options, tuple(metrics)
        self.training = TokenLoader(
            TokenRows(pipe, rows.train, options.cache),
            args.per_device_train_batch_size,
            True,
            pipe=pipe,
            options=options,
            drop_last=args.dataloader_drop_last,
        )
        if self.training.table.labels is None:
            cure = "Read the rows with label=, or take a task that learns from texts alone."
            raise DataError("the training rows have no labels", place="rows", cure=cure)
        self.loss, self.notes = task_loss(pipe.task, loss, self.training.table.labels)
        self.held_out: dict[int, TokenLoader] = {}  # id of a split → its tokens
        self.evaluated = self.training
        config: Any = pipe.model.config
        cached = getattr(config, "use_cache", None)
        super().__init__(
            model=pipe.model,
            args=args,
            train_dataset=rows.train,
            eval_dataset=rows.splits.get("valid"),
            processing_class=pipe.tokenizer,
            compute_metrics=self.scored,
        )
        if cached is None:
            del config.use_cache
        else:
            config.use_cache = cached  # Trainer turns it off for good; a task turns it off where it must be
        sharded = {"tensor": self.get_tp_size(), "context": self.get_cp_size(), "sequence": self.get_sp_size()}
        for name, size in sharded.items():
            if size > 1:
                cure = "Share out the weights instead: fsdp or deepspeed."
                raise SettingError(f"{name} parallelism cuts rows apart, and the task's loss needs them whole", place="args", cure=cure)

    def _share(self, loader: TokenLoader) -> PlannedLoader:
        """What this process takes of the batches of a loader."""
        pinned = self.args.dataloader_pin_memory and self.args.device.type == "cuda"
        return PlannedLoader(Share(loader, self.args.process_index, self.args.world_size), pin_memory=pinned)

    def get_train_dataloader(self) -> PlannedLoader:
        """The training batches of this process; Trainer says which epoch it is."""
        return self._share(self.training)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> PlannedLoader:
        """The batches of a split, of the rows kept aside where none is given. Raises SettingError for what is no split of rows."""
        split = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(split, Split):
            came = "nothing" if split is None else type(split).__name__
            raise SettingError(f"expected a split of rows, came {came}", place="eval_dataset", cure="Pass rows.valid, or another split.")
        if id(split) not in self.held_out:
            rows = TokenRows(self.pipe, split, self.options.cache)
            if rows.table.labels is None:
                raise DataError("the rows have no labels to evaluate", place=split.name, cure="Use pipe.predict for rows without labels.")
            self.held_out[id(split)] = TokenLoader(rows, self.args.per_device_eval_batch_size, False, pipe=self.pipe, options=self.options)
        self.evaluated = self.held_out[id(split)]
        return self._share(self.evaluated)

    def get_test_dataloader(self, test_dataset: Any) -> PlannedLoader:
        """Not here: an answer is more than logits. Raises SettingError."""
        cure = "Use pipe.predict(rows) for answers, and trainer.evaluate(split) for scores."
        raise SettingError("Trainer.predict gives logits without their rows", place="test_dataset", cure=cure)

    def set_initial_training_values(self, args: "TrainingArguments", dataloader: PlannedLoader) -> tuple[Any, ...]:
        """As in Trainer, where all epochs have equally many batches; with `max_tokens` they have not, and no batch is to be left out."""
        values = super().set_initial_training_values(args, dataloader)
        if self.options.max_tokens is None:
            return values
        share = dataloader.share
        begun, longest, steps = epoch_steps(share.rounds, args.num_train_epochs, args.max_steps * args.gradient_accumulation_steps)
        if args.gradient_accumulation_steps > 1:
            if len({share.rounds(epoch) for epoch in range(begun)}) > 1:
                cure = "Set gradient_accumulation_steps=1 and a larger max_tokens, or leave max_tokens out."
                problem = "with max_tokens the epochs have different numbers of batches, and Trainer would mix gradients of two steps"
                raise SettingError(problem, place="gradient_accumulation_steps", cure=cure)
            return values
        _, _, examples, samples, size, _, _ = values
        return begun, longest, examples, samples, size, longest, steps

    def get_decay_parameter_names(self, model: "PreTrainedModel") -> list[str]:
        """All parameters but those that pellucid spares: biases, and the weights of norms of any class."""
        spared = no_decay(model)
        return [name for name, _ in model.named_parameters() if name not in spared]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor | None]:
        """The batches of one optimizer step, and what they weigh together in all processes: labelled tokens, rows, or class weights."""
        batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return [], None
        weight = torch.stack([self.loss.mass(batch[LABELS]) for batch in batches]).sum().to(device)
        if self.over_processes:
            weight = self.accelerator.gather(weight).sum()
        return batches, weight

    @property
    def over_processes(self) -> bool:
        """Whether a step is the mean over the labels of all processes, and not of the means of each."""
        return bool(self.args.world_size > 1 and self.args.average_tokens_across_devices)

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: torch.Tensor | None = None
    ) -> Any:
        """The task's loss of a batch, as its part of the mean over the step that `num_items_in_batch` weighs; its own mean without."""
        labels, logits = inputs[LABELS], logits_of(self.pipe, model, inputs)
        loss = self.loss(logits, labels)
        if num_items_in_batch is not None:
            loss = loss * self.loss.mass(labels) / num_items_in_batch
            if self.over_processes:
                loss = loss * self.args.world_size  # the gradients of the processes are averaged, not added
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, tuple[torch.Tensor, ...], torch.Tensor]:
        """What `scored` needs of a batch: its mean loss, its weight, its first window and, of classes, its logits; and its windows.

        All have the same shape in every process, so that they can be gathered: rows that a batch lacks have the window -1.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, given = self.compute_loss(model, inputs, return_outputs=True)
        labels, windows = inputs[LABELS], inputs[WINDOWS]
        missing = 0 if self.args.world_size == 1 else max(map(len, self.evaluated.plan(0))) - len(windows)
        found: tuple[torch.Tensor, ...] = (loss[None].float(), self.loss.mass(labels)[None].float(), windows[:1])
        if self.pipe.task.kind in CLASSES:
            found += (torch.nn.functional.pad(given["logits"].float(), (0, 0, 0, missing)),)
        return None, found, torch.nn.functional.pad(windows, (0, missing), value=-1)

    def scored(self, found: "EvalPrediction") -> dict[str, float]:
        """The loss of the rows that were evaluated last, over all their labels, and the task's scores of them."""
        means, weights, firsts, *logits = map(np.asarray, found.predictions)
        own = np.unique(firsts, return_index=True)[1]  # a batch may have been run by two processes
        weighed = weights[own].astype(np.float64)
        loss = float(np.average(means[own], weights=weighed)) if weighed.sum() else float("nan")
        scores = {"loss": loss}
        if self.pipe.task.kind == "language":
            return scores | ({"perplexity": float(np.exp(loss))} if self.metrics else {})
        if not self.metrics:
            return scores
        windows, places = np.unique(np.asarray(found.label_ids), return_index=True)
        each = logits[0][places[windows >= 0]] if logits else None
        known = scores_of(self.pipe, self.evaluated, each)
        return scores | {name: known[name] for name in self.metrics}

    def train(self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: list[str] | None = None) -> Any:
        """As in Trainer, from the first step. Raises SettingError for a checkpoint to go on from: those here are weights alone."""
        if resume_from_checkpoint:
            cure = "Open the weights with pl.Pipeline.new(task, folder) and train anew, or train with pl.train, which goes on to the bit."
            raise SettingError(
                "its optimizer and random states would be pickles, so none were kept", place="resume_from_checkpoint", cure=cure
            )
        return super().train(trial=trial, ignore_keys_for_eval=ignore_keys_for_eval)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Weights, config and tokenizer as transformers writes them; the arguments as training_args.json and not as a pickle."""
        folder = Path(output_dir or self.args.output_dir)
        super().save_model(str(folder), _internal_call=True)
        if self.args.should_save:
            with suppress(FileNotFoundError):
                (folder / TRAINING_ARGS_NAME).unlink()
            write_text(folder / Path(TRAINING_ARGS_NAME).with_suffix(".json"), self.args.to_json_string())


class Wrapped(partial):  # type: ignore[type-arg]
    """A model as Trainer wrapped it (DDP, DeepSpeed, compiled), to be called; all else that a task asks of it is the model's own."""

    inner: Any

    @classmethod
    def of(cls, wrapper: Any, model: "PreTrainedModel") -> "Wrapped":
        """The wrapper around this model."""
        made = cls(wrapper)
        made.inner = model
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def logits_of(pipe: "Pipeline", model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """What the task's `run` gives, with the model as Trainer wrapped it."""
    rows = np.arange(len(inputs["input_ids"]))
    batch = Batch(without(inputs), None, rows, np.zeros_like(rows), np.full_like(rows, inputs["input_ids"].shape[-1]))
    return pipe.task.run(model if model is pipe.model else Wrapped.of(model, pipe.model), batch).logits


def hf_trainer(
    pipe: "Pipeline",
    rows: Rows,
    args: "TrainingArguments",
    *,
    loaders: LoaderOptions | None = None,
    metrics: Sequence[str] | None = None,
    loss: LossOptions = LossOptions(),
) -> PellucidTrainer:
    """transformers' Trainer for this pipeline and these rows, with pellucid's batches, loss and scores.

    Rows a batch are `args.per_device_train_batch_size`, the seed of their order `args.data_seed` or else `args.seed`; `loaders` says more
    (max_tokens, bucket, cache) and must agree with that. `metrics` are names of the task's scores: all of them where nothing is said, but
    no texts are written unless a score of them is named; `()` leaves the loss alone. Optimizer, schedule, precision and everything about
    devices are those of `args`. Raises SettingError for arguments that would do nothing here or write pickles, DataError, LabelError.
    """
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


def scores_of(pipe: "Pipeline", loader: TokenLoader, logits: FloatArray | None) -> dict[str, float]:
    """The task's scores of the rows of a loader, by column: of classes from `logits` (windows, labels), else the rows are predicted."""
    table, split = loader.table, loader.dataset.split
    if logits is None:
        answers = list(pipe.predict(split))
    else:
        answers = pipe.decode(Output(logits), Batch({}, None, table.rows, table.windows, table.lengths))
    return {column_name(score): float(score.value) for score in pipe.task.metrics(answers, split.targets(0, len(split)))}
