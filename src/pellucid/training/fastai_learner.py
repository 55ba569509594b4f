"""A real fastai Learner whose model is the bare transformers model.

Takes a pipeline and rows, or loaders made from it. Gives a Learner with fastai's verbs and with sizes that suit transformers.
Knows nothing of how rows become batches or of what a label means: the blocks and the task say that.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fastai.callback.hook  # noqa: F401  # importing it gives a Learner its summary()
import numpy as np
import torch
from fastai.callback.core import Callback, CancelEpochException, CancelTrainException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import LRFinder, ParamScheduler, SchedLin, combine_scheds
from fastai.data.core import DataLoaders
from fastai.imports import dispatch
from fastai.learner import Learner
from fastcore.foundation import L, defaults

from pellucid.adapter_layers import has_adapters
from pellucid.adapters import ADAPTER_FACTOR
from pellucid.batch import IGNORED
from pellucid.data import Rows
from pellucid.errors import DataError, SettingError, StorageError
from pellucid.files import atomic_folder
from pellucid.freezing import group_table
from pellucid.groups import HEAD, layer_groups
from pellucid.inspection import show
from pellucid.task import CLASSES
from pellucid.training.batch_text import TokenInputs
from pellucid.training.fastai_blocks import LoaderOptions, TokenLoader, dataloaders, show_rows
from pellucid.training.fastai_checkpoints import Checkpoints, keeper_among
from pellucid.training.fastai_fingerprint import Asked
from pellucid.training.fastai_memory import Attempt, backward, run_batch
from pellucid.training.fastai_optimizer import FusedAdamW
from pellucid.training.fastai_processes import Sharing
from pellucid.training.fastai_progress import Progress, without_bars
from pellucid.training.fastai_scores import end_epoch, score_columns
from pellucid.training.interrupts import interrupts_wait
from pellucid.training.task_loss import LossOptions, task_loss
from pellucid.types import Batch, Want
from pellucid.weights import load_state, load_weights, save_state, save_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pellucid.pipelines import Pipeline
    from pellucid.token_table import PadSpec

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
HEAD_FACTOR = 20  # a new head alone stands and needs a higher learning rate than a trained body: 20 × 5e-5 = 1e-3


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """The sizes that a transformer wants.

    `lr` is the highest learning rate, reached after the share `warmup` of the steps; `wd` the weight decay (none on biases and norms).
    `loss` says how wrong answers are weighed. `path` and `model_dir` say where `learn.save` and the callbacks write.
    """

    lr: float = 5e-5
    wd: float = 0.01
    warmup: float = 0.1
    loaders: LoaderOptions = field(default_factory=LoaderOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    path: Path | None = None
    model_dir: str = "models"


class PellucidLearner(Learner):
    """fastai's Learner over a pipeline: `learn.model is pipe.model`, and every batch goes through the task's `run` and `loss`.

    Where this says nothing, fastai does as always: lr_find, fit, freeze, unfreeze, callbacks, Interpretation.
    """

    loss_func: Any  # fastai keeps it

    def __init__(
        self, dls: DataLoaders, pipe: "Pipeline", options: LearnerOptions, metrics: Sequence[Any] | None = None, cbs: Any = None
    ) -> None:
        self.pipe, self.options = pipe, options
        self.room: int | None = None  # padded tokens that memory holds, once it did not hold a batch
        self.attempt: Attempt | None = None  # the batch that runs
        loss, self.loss_notes = task_loss(pipe.task, options.loss, dls.train.table.labels)
        self.keeper: Checkpoints | None = None  # while a fit runs that writes checkpoints
        self.weights_at_start = ""  # their digest before any training, once somebody has asked
        self.sharing = Sharing(self)  # with other processes, where there are some
        self.distrib_ctx, self.to_detach = self.sharing.distrib_ctx, self.sharing.to_detach  # fastai's would wrap the model
        self.no_bar = partial(without_bars, self)  # fastai's would bring back bars of its own
        super().__init__(
            dls,
            pipe.model,
            loss_func=loss,
            opt_func=FusedAdamW(pipe.model),
            lr=options.lr,
            splitter=self.split_layers,
            default_cbs=False,
            cbs=[*(Progress if one is ProgressCallback else one for one in defaults.callbacks), *L(cbs)],
            metrics=score_columns(pipe, metrics),
            path=options.path,
            model_dir=options.model_dir,
            wd=options.wd,
            train_bn=False,
            moms=(0.9, 0.9, 0.9),
        )

    def split_layers(self, model: "PreTrainedModel") -> list[list[torch.nn.Parameter]]:
        """The parameters by layer: embeddings, each block, head; new weights inside the body train with the head."""
        named = dict(model.named_parameters())
        return [[named[name] for name in group.parameters] for group in layer_groups(model, self.pipe.provenance.new_names())]

    def adopt(self, pipe: "Pipeline") -> None:
        """Go on with another task around the same model: with thresholds that held-out rows settled."""
        self.pipe, self.loss_func = pipe, self.loss_func.of(pipe.task)

    def _do_one_batch(self) -> None:
        run_batch(self)

    def _backward(self) -> None:
        backward(self)

    def _logits(self, inputs: dict[str, torch.Tensor], labels: torch.Tensor | None = None) -> torch.Tensor:
        rows = np.arange(len(inputs["input_ids"]))
        batch = Batch(inputs, labels, rows, np.zeros_like(rows), np.full_like(rows, inputs["input_ids"].shape[-1]))
        short = any(isinstance(callback, BFloat16) for callback in self.cbs)
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16) if short else nullcontext():
            logits = self.pipe.task.run(self.model, batch, Want(scored=labels is not None)).logits
        return logits.float() if short else logits

    def fit(
        self, n_epoch: int, lr: Any = None, wd: float | None = None, cbs: Any = None, reset_opt: bool = False, start_epoch: int = 0
    ) -> None:
        """As in fastai. With Checkpoints among the callbacks, a fit that was interrupted goes on, and those before it do not run again."""
        callbacks = [callback() if isinstance(callback, type) else callback for callback in L(cbs)]
        looks = any(isinstance(callback, LRFinder) for callback in callbacks)
        keeper = None if looks else keeper_among([*self.cbs, *callbacks])
        asked = Asked(n_epoch, lr, wd, reset_opt, start_epoch, callbacks)
        kept = nullcontext(True) if keeper is None else keeper.keeping(self, asked)
        with self.sharing.of_fit(callbacks), put_back_when_left(self, callbacks), kept as ahead:  # behind what Ctrl-C writes
            self.keeper = keeper
            try:
                if ahead:
                    super().fit(n_epoch, lr, wd, callbacks, reset_opt, start_epoch)
            finally:
                self.keeper = None

    def _call_one(self, event_name: str) -> None:
        end_epoch(self) if event_name == "after_epoch" else super()._call_one(event_name)

    def _do_fit(self) -> None:
        for epoch in range(0 if self.keeper is None else self.keeper.first_epoch(), self.n_epoch):
            self.epoch = epoch
            self._with_events(self._do_epoch, "epoch", CancelEpochException)

    def _do_epoch_train(self) -> None:
        self.dl = self.dls.train
        self._with_events(self._do_batches, "train", CancelTrainException)

    def _do_batches(self) -> None:
        first = 0 if self.keeper is None else self.keeper.go_on()
        if not first:
            self.all_batches()
            return
        self.n_iter = len(self.dl)
        for number, batch in enumerate(self.dl.rest(first), first):
            self.one_batch(number, batch)

    def fit_one_cycle(self, n_epoch: int, lr_max: Any = None, pct_start: float | None = None, **kwargs: Any) -> None:
        """The one cycle of fastai, with the share of warm-up that LearnerOptions says."""
        super().fit_one_cycle(n_epoch, lr_max, pct_start=self.options.warmup if pct_start is None else pct_start, **kwargs)

    def fit_linear(self, n_epoch: int, lr: float | None = None, warmup: float | None = None, cbs: Any = None) -> None:
        """Warm up in a straight line, then down to zero in another: the schedule of most papers on transformers."""
        share = self.options.warmup if warmup is None else warmup
        top = self.lr if lr is None else lr
        line = combine_scheds([share, 1 - share], [SchedLin(0.0, top), SchedLin(top, 0.0)]) if share > 0 else SchedLin(top, 0.0)
        self.fit(n_epoch, top, cbs=[ParamScheduler({"lr": line}), *L(cbs)])

    def fine_tune(self, epochs: int, base_lr: float | None = None, freeze_epochs: int = 1, lr_mult: float = 5, **kwargs: Any) -> None:
        """Train the head alone for `freeze_epochs`, at 20 times `base_lr`; then everything for `epochs`.

        Beside adapters, whose `base_lr` is ten times that of a whole model, the head gets twice that; where there is no head, what
        `freeze` leaves gets `base_lr`. The embeddings then get `base_lr / lr_mult`, the head `base_lr`, the blocks what lies between.
        """
        base = self.lr if base_lr is None else base_lr
        if freeze_epochs:
            self.freeze()
            self.fit_one_cycle(freeze_epochs, slice(base * frozen_factor(self)), **kwargs)
        self.unfreeze()
        self.fit_one_cycle(epochs, slice(base / lr_mult, base), **kwargs)

    def get_preds(self, ds_idx: int = 1, dl: Any = None, with_input: bool = False, reorder: bool = True, **kwargs: Any) -> tuple[Any, ...]:
        """As in fastai; with inputs, the rows are run in their own order and the inputs come padded to one width."""
        if not with_input:
            found = super().get_preds(ds_idx, dl, reorder=reorder, **kwargs)
            return tuple(part if part is None else rectangle(part, IGNORED) for part in found)
        loader = self.dls[ds_idx] if dl is None else dl
        if isinstance(loader, TokenLoader):
            loader = loader.new(shuffle=False, drop_last=False, get_idxs=InOrder(len(loader.table)))
        inputs, *found = super().get_preds(dl=loader, with_input=True, reorder=False, **kwargs)
        filled = (part if part is None else rectangle(part, IGNORED) for part in found)
        return (TokenInputs({name: rectangle(rows, padding(self.pipe.pad, name)) for name, rows in inputs.items()}), *filled)

    def predict(self, item: Any, rm_type_tfms: Any = None, with_input: bool = False) -> Any:
        """(label, its number, probabilities) for one text, as in fastai; a list of those for a list of texts.

        For tasks whose answers are no classes: (answer, the whole Prediction, its scores).
        """
        several = isinstance(item, list | L)
        predictions = self.pipe.predict(list(item) if several else [item])
        if self.pipe.task.kind in CLASSES:
            scores = self.loss_func.activation(torch.from_numpy(predictions.row_logits()))
            answers = predictions.answers()
            numbers = torch.from_numpy(self.loss_func.task.label_array(answers))
            found = [(answer, number, row) for answer, number, row in zip(answers, numbers, scores, strict=True)]
        else:
            found = [(prediction.answer, prediction, dict(prediction.scores)) for prediction in predictions]
        if with_input:
            return [(text, *one) for text, one in zip(item, found, strict=True)] if several else (item, *found[0])
        return found if several else found[0]

    def show_groups(self) -> None:
        """Show the layer groups: modules, parameters, learning rate, and whether each trains."""
        if self.opt is None:
            self.create_opt()
        groups = layer_groups(self.model, self.pipe.provenance.new_names())
        show(group_table(self.model, groups, [hyper["lr"] for hyper in self.opt.hypers]))

    def save(self, file: str | Path, with_opt: bool = True) -> Path:
        """Write weights, and the optimizer's state where there is one, into the folder `path/model_dir/file.pth`, without pickle."""
        target = self._saved_at(file)
        if self.sharing.writes():
            with atomic_folder(target) as fresh:
                save_weights(self.model, fresh / WEIGHTS)
                if with_opt and self.opt is not None:
                    save_state(self.opt.state_dict(), fresh / OPTIMIZER)
        self.sharing.meet()
        return target

    def load(
        self, file: str | Path, device: Any = None, with_opt: bool = True, strict: bool = True, weights_only: bool = True
    ) -> "PellucidLearner":
        """Read what `save` wrote; every weight must fit. `strict` and `weights_only` can only be true here, whatever is passed."""
        source = self._saved_at(file)
        if not source.is_dir():
            there = ", ".join(sorted(path.stem for path in source.parent.glob("*.pth"))) or "nothing"
            raise StorageError(
                f"there is no saved {Path(file).name!r}", place=str(source), cure=f"Call learn.save first. Saved there: {there}."
            )
        if self.opt is None:
            self.create_opt()
        load_weights(self.model, source / WEIGHTS)
        if with_opt and (source / OPTIMIZER).exists():
            self.opt.load_state_dict(load_state(source / OPTIMIZER))
        elif with_opt:
            warnings.warn(f"{source} has no state of the optimizer; it starts afresh", stacklevel=2)
        return self

    def _saved_at(self, file: str | Path) -> Path:
        """Where a saved state of this name lies; fastai's callbacks look for the ending."""
        path = self.path / self.model_dir / file
        return path if path.suffix == ".pth" else path.with_name(f"{path.name}.pth")

    def export(self, fname: str = "export.pkl", pickle_module: Any = None, pickle_protocol: int = 2) -> NoReturn:
        """Refused: fastai's export is a pickle, which can run anything when it is opened."""
        cure = 'Call pl.save(learn.pipe, "my_model"): a plain transformers folder that pl.load and transformers both open.'
        raise SettingError("learn.export writes a pickle, and pellucid writes none", place=fname, cure=cure)


def frozen_factor(learn: PellucidLearner) -> float:
    """How much higher a rate than the whole what `freeze` leaves stands."""
    last = layer_groups(learn.model, learn.pipe.provenance.new_names())[-1]
    if last.name != HEAD:
        return 1.0
    return HEAD_FACTOR / (ADAPTER_FACTOR if has_adapters(learn.model) else 1)


@contextmanager
def put_back_when_left(learn: Learner, callbacks: Sequence[Callback]) -> Iterator[None]:
    """Around one fit: where an error or Ctrl-C ends it, callbacks with a method `left_fit` put back what they changed."""
    try:
        yield
    except BaseException as reason:
        with interrupts_wait(lambda: True):  # another Ctrl-C waits, and is then no news
            for callback in [*learn.cbs, *callbacks]:
                put_back(learn, callback, reason)
        raise


def put_back(learn: Learner, callback: Callback, reason: BaseException) -> None:
    """Call the `left_fit` of a callback that has one; what goes wrong there is a note to the reason, and does not hide it."""
    left_fit = getattr(type(callback), "left_fit", None)  # of its class: a callback itself answers for the learner too
    if left_fit is None:
        return
    held, callback.learn = callback.learn, learn  # fastai has taken it from the callbacks of this fit already
    try:
        left_fit(callback)
    except Exception as error:
        reason.add_note(f"{type(callback).__name__} could not put back what it had changed: {type(error).__name__}: {error}")
    finally:
        callback.learn = held


class InOrder:
    """The order of the rows, for a loader that must not sort them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self) -> range:
        """The rows as they stand."""
        return range(self.count)


class BFloat16(Callback):
    """Forward passes in bfloat16 where it pays, on a CPU as on a GPU; weights, loss and gradients' sums stay float32.

    fastai's own MixedPrecision knows CUDA only. A CPU without bfloat16 instructions becomes slower by it.
    """

    order, stateless = MixedPrecision.order, True


def learner(
    pipe: "Pipeline",
    data: Rows | DataLoaders,
    *,
    options: LearnerOptions = LearnerOptions(),
    metrics: Sequence[Any] | None = None,
    cbs: Callback | Callable[[], Callback] | Sequence[Any] | None = None,
) -> PellucidLearner:
    """A fastai Learner for this pipeline, on rows or on loaders made from it.

    `metrics` are names of the task's scores (accuracy, f1_weighted, …) or metrics of fastai's; `cbs` are fastai's callbacks.
    Raises SettingError for loaders that were not made by pellucid or for another pipeline, DataError, LabelError, TokenizerError.
    """
    dls = dataloaders(pipe, data, options=options.loaders) if isinstance(data, Rows) else data
    for loader in getattr(dls, "loaders", [None]):
        if not isinstance(loader, TokenLoader):
            cure = "Pass rows, pl.dataloaders(pipe, rows), or loaders of a DataBlock with pl.TextBlock(pipe)."
            raise SettingError(f"these are not loaders that pellucid made: {type(loader or data).__name__}", place="data", cure=cure)
        if loader.pipe.tokenizer is not pipe.tokenizer or loader.pipe.task != pipe.task or loader.pipe.options != pipe.options:
            cure = "Make the loaders from the pipeline that is trained."
            raise SettingError("the loaders were made for another pipeline: tokenizer, labels or options differ", place="data", cure=cure)
    if dls.train.table.labels is None:
        raise DataError(
            "the training rows have no labels", place="data", cure="Read the rows with label=, or a DataBlock with a block for them."
        )
    trained = [(name, str(weight.dtype)) for name, weight in pipe.model.named_parameters() if weight.requires_grad]
    half = next((f"{name} is {dtype.removeprefix('torch.')}" for name, dtype in trained if dtype != "torch.float32"), "")
    if half:
        cure = 'Load with ModelOptions(dtype="float32"), and pass cbs=BFloat16() to compute in 16 bits.'
        raise SettingError(f"weights must be float32 to be trained, {half}: small steps would be rounded away", place="dtype", cure=cure)
    return PellucidLearner(dls, pipe, options, metrics, cbs)


def padding(pad: "PadSpec", name: str) -> int:
    """What stands where an input is longer than its text."""
    return {"input_ids": pad.pad_id, "token_type_ids": pad.pad_type_id}.get(name, 0)


def rectangle(rows: Any, value: int) -> torch.Tensor:
    """(rows, widest) from rows of different widths, filled up on the right."""
    return rows if isinstance(rows, torch.Tensor) else torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


@dispatch
def plot_top_losses(x: TokenInputs, y: Any, samples: Any, outs: Any, raws: Any, losses: Any) -> None:
    """The rows that the model was most wrong about, as a table; fastai's Interpretation finds this by the type of the inputs."""
    said = raws.ndim == 2 and not (y.ndim == 1 and y.is_floating_point())  # one probability for each label of a row
    rows = [
        (*sample, *out, *([round(float(scores.max()), 4)] if said else []), round(float(loss), 4))
        for sample, out, scores, loss in zip(samples, outs, raws, losses, strict=True)
    ]
    columns = ("text", "label", "predicted", *(["probability"] if said else []), "loss")
    show_rows("top losses", columns, rows, 150)
