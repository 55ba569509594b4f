"""transformers' own Trainer, with pellucid's batches, loss, scores and parameters without weight decay.

Takes a pipeline, rows, TrainingArguments and options that agree with each other. Gives a Trainer.
Knows nothing of fastai's learner, of files of an optimizer, or of what a label means: the task says that.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from pellucid.adapter_files import fill_adapters
from pellucid.adapter_layers import has_adapters
from pellucid.data import Rows, Split
from pellucid.errors import DataError, SettingError
from pellucid.files import write_text
from pellucid.groups import no_decay
from pellucid.manifest import list_also
from pellucid.store import save
from pellucid.task import CLASSES
from pellucid.training.fastai_blocks import LoaderOptions, TokenLoader
from pellucid.training.fastai_rows import TokenRows
from pellucid.training.fastai_scores import column_name
from pellucid.training.task_loss import LossOptions, task_loss
from pellucid.training.trainer_batches import LABELS, WINDOWS, PlannedLoader, Share, epoch_steps, without
from pellucid.types import Batch, FloatArray, Output, Want

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedModel, TrainingArguments

    from pellucid.pipelines import Pipeline

ARGUMENTS = Path(TRAINING_ARGS_NAME).with_suffix(".json").name


class PellucidTrainer(Trainer):
    """transformers' Trainer over a pipeline: `trainer.model is pipe.model`, and `pipe` answers with what was trained.

    Batches are those of `pl.dataloaders` with the same options, seed and epoch; of several processes each takes one of every round.
    Every batch goes through the task's `run` and loss, and every token or row of an optimizer step counts the same, over accumulated
    batches and over processes. `evaluate` gives the loss and the task's scores of the rows that are kept aside, or of another split.
    No pickle is written, but by DeepSpeed that may not gather the weights, and on a TPU. Where this says nothing, Trainer does as always.
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
        check_parallel({"tensor": self.get_tp_size(), "context": self.get_cp_size(), "sequence": self.get_sp_size()})

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
        short = not return_outputs and not self.args.torch_compile  # nobody looks at logits that the loss does not read
        labels, logits = inputs[LABELS], logits_of(self.pipe, model, inputs, short)
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
        """As in Trainer, from the first step.

        Raises SettingError for a checkpoint to go on from (those here are weights alone), and for adapters in FSDP or DeepSpeed.
        """
        check_start(self.pipe, bool(resume_from_checkpoint), shared_out=self.is_fsdp_enabled or self.is_deepspeed_enabled)
        return super().train(trial=trial, ignore_keys_for_eval=ignore_keys_for_eval)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in Trainer, which gathers weights that are shared out and hands them to `_save`; nothing is uploaded."""
        super().save_model(output_dir, _internal_call=True)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights, config and tokenizer as transformers writes them, adapters as `pl.save` does; and training_args.json.

        Trainer's own would pickle the arguments.
        """
        folder = Path(output_dir or self.args.output_dir)
        if has_adapters(self.pipe.model):
            if self.args.should_save:
                save_adapters(self.pipe, folder, self.args)
            return
        if self.args.should_save or getattr(self, "is_distributed_loading_by_transformers", False):  # the others help to gather
            save_weights(self, folder, state_dict)
        if self.args.should_save:
            self.pipe.tokenizer.save_pretrained(folder)
            write_text(folder / ARGUMENTS, self.args.to_json_string())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in Trainer; the state that it puts beside saved adapters is listed with them, so that `pl.load` opens a checkpoint too."""
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save and has_adapters(self.pipe.model) and (folder / TRAINER_STATE_NAME).exists():  # or it was one too many
            list_also(folder, TRAINER_STATE_NAME)

    def _load_best_model(self) -> None:
        """As in Trainer, which knows no adapters outside of peft's own class of models."""
        if has_adapters(self.pipe.model):
            fill_adapters(self.pipe.model, Path(str(self.state.best_model_checkpoint)))
        else:
            super()._load_best_model()


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


def check_parallel(sizes: Mapping[str, int]) -> None:
    """Raise SettingError where a kind of parallelism that cuts rows apart is more than one wide."""
    for name, size in sizes.items():
        if size > 1:
            cure = "Share out the weights instead: fsdp or deepspeed."
            raise SettingError(f"{name} parallelism cuts rows apart, and the task's loss needs them whole", place="args", cure=cure)


def check_start(pipe: "Pipeline", resume: bool, shared_out: bool) -> None:
    """Raise SettingError for a run that would go on, and for adapters whose body is shared out over processes."""
    if resume:
        opened = "pl.load(folder)" if has_adapters(pipe.model) else "pl.Pipeline.new(task, folder)"
        cure = f"Open the weights with {opened} and train anew, or train with pl.train, which goes on to the bit."
        problem = "its optimizer and random states would be pickles, so none were kept"
        raise SettingError(problem, place="resume_from_checkpoint", cure=cure)
    if shared_out and has_adapters(pipe.model):
        problem = "fsdp and deepspeed share the weights out, and adapters are saved beside whole ones"
        cure = "Train adapters in processes that each hold the model (torchrun), or the whole model: pl.merged(pipe)."
        raise SettingError(problem, place="args", cure=cure)


def save_adapters(pipe: "Pipeline", folder: Path, args: "TrainingArguments") -> None:
    """What `pl.save` writes of adapters; the arguments belong to it, or the next save would not replace them."""
    save(pipe, folder)
    write_text(folder / ARGUMENTS, args.to_json_string())
    list_also(folder, ARGUMENTS)


def save_weights(trainer: Trainer, folder: Path, state_dict: dict[str, Any] | None) -> None:
    """The weights and the config; of a wrapped model, whose names of weights are the wrapper's, as the wrapper gives them."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if state_dict is None and model is not trainer.model:
        state_dict = trainer.model.state_dict()
    model.save_pretrained(folder, state_dict=state_dict, is_main_process=trainer.args.should_save)


def logits_of(pipe: "Pipeline", model: Any, inputs: Mapping[str, Any], scored: bool = False) -> torch.Tensor:
    """What the task's `run` gives, with the model as Trainer wrapped it; `scored`: what the loss reads of it."""
    rows, labels = np.arange(len(inputs["input_ids"])), inputs[LABELS] if scored else None
    batch = Batch(without(inputs), labels, rows, np.zeros_like(rows), np.full_like(rows, inputs["input_ids"].shape[-1]))
    return pipe.task.run(model if model is pipe.model else Wrapped.of(model, pipe.model), batch, Want(scored=scored)).logits


def scores_of(pipe: "Pipeline", loader: TokenLoader, logits: FloatArray | None) -> dict[str, float]:
    """The task's scores of the rows of a loader, by column: of classes from `logits` (windows, labels), else the rows are predicted."""
    table, split = loader.table, loader.dataset.split
    if logits is None:
        answers = list(pipe.predict(split))
    else:
        answers = pipe.decode(Output(logits), Batch({}, None, table.rows, table.windows, table.lengths))
    return {column_name(score): float(score.value) for score in pipe.task.metrics(answers, split.targets(0, len(split)))}
