"""Callbacks of a training step: accumulated gradients, averaged weights, mixed embeddings, less memory, a stop before bad numbers.

Takes what fastai hands to callbacks. Gives callbacks that stand beside fastai's own, with their state for an exact resume. fastai calls no
`after_…` where a fit is left by an error or Ctrl-C: the learner then calls `left_fit`, also where the fit had not begun.
Knows nothing of rows, loaders or files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixHandler
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from pellucid.errors import SettingError

MIXED = ("single_label", "multi_label", "regression")  # kinds with one target a text, which another text's can be mixed with


class Accumulate(Callback):
    """One step of the optimizer for every `batches` batches, exactly that of one large batch.

    fastai's GradientAccumulation takes the mean of the batches' means, which gives a token in a short batch more weight. Here the sum over
    all labels is divided by their number (or by the sum of their class weights). What is left at the end of an epoch makes a step too.
    """

    order, run_valid = MixedPrecision.order - 4, False
    settings, swaps_weights = ("batches",), False

    def __init__(self, batches: int = 4) -> None:
        super().__init__()
        if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
            raise SettingError(f"batches is {batches!r}, expected 1 or more", place="batches", cure="Pass Accumulate(4).")
        self.batches = batches
        self.mass, self.seen = 0.0, 0

    def before_train(self) -> None:
        """Begin an epoch without what was left of a training that was stopped."""
        if self.seen:
            self.learn.opt.zero_grad()
            self.mass, self.seen = 0.0, 0

    def left_fit(self) -> None:
        """A fit was left by an error or Ctrl-C: put back what was changed."""
        self.before_train()

    def after_loss(self) -> None:
        """Turn the mean of this batch into its sum."""
        mass = float(mass_of(self.learn))
        self.learn.loss_grad = self.learn.loss_grad * mass
        self.mass, self.seen = self.mass + mass, self.seen + 1

    def before_step(self) -> None:
        """Wait for more batches, or divide what they gave together and let the step be made."""
        if self.seen < self.batches and self.learn.iter + 1 < self.learn.n_iter:
            raise CancelBatchException
        gradients = [parameter.grad for parameter in self.learn.model.parameters() if parameter.grad is not None]
        torch._foreach_div_(gradients, self.mass)
        self.mass, self.seen = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands between two steps; the gradients so far are the model's own."""
        return {"mass": self.mass, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand there again."""
        self.mass, self.seen = float(state["mass"]), int(state["seen"])


def mass_of(learn: Any) -> Any:
    """What the loss of this batch is a mean of: its labels, or their weights; rows where the loss does not say."""
    measure = getattr(learn.loss_func, "mass", None)
    return len(learn.yb[0]) if measure is None else measure(*learn.yb)


class WeightAverage(Callback):
    """Validate and keep the average of the weights over the steps, while the training goes on with its own.

    `decay` near 1 averages over more steps; in the first ones less (step n: at most (1 + n) / (10 + n)), so that short trainings gain
    too. None averages all steps alike (Polyak; Izmailov et al. 2018, arXiv:1803.05407). `start`: the share of the training after which it
    begins. The averaged weights are those that the validation sees, that SaveModelCallback writes, and that are left at the end.
    """

    order, run_valid, remove_on_fetch, _only_train_loop = 50, False, True, True  # its after_fit comes before SaveModelCallback's
    settings = ("decay", "start")

    def __init__(self, decay: float | None = 0.999, start: float = 0.0) -> None:
        super().__init__()
        if decay is not None and not 0 <= decay < 1:
            raise SettingError(f"decay is {decay!r}, expected 0 to below 1, or None", place="decay", cure="Pass 0.999.")
        if not 0 <= start < 1:
            raise SettingError(f"start is {start!r}, expected 0 to below 1", place="start", cure="Pass 0.75 for the last quarter.")
        self.decay, self.start = decay, start
        self.averaged: Any = None
        self.exchanged = False

    def before_fit(self) -> None:
        """Begin at the weights that are there; a look for a learning rate and predictions are left alone."""
        self.run = not hasattr(self.learn, "lr_finder") and not hasattr(self.learn, "gather_preds")
        if self.run:
            self.make()

    def make(self) -> None:
        """An average that has seen no step."""
        function = get_swa_multi_avg_fn() if self.decay is None else Decaying(self.decay)
        self.averaged, self.exchanged = AveragedModel(self.learn.model, multi_avg_fn=function), False

    def before_train(self) -> None:
        """Go on with the weights of the training."""
        if self.exchanged:
            self.exchange()

    def after_step(self) -> None:
        """Take the weights after this step in."""
        if self.learn.pct_train >= self.start:
            self.averaged.update_parameters(self.learn.model)

    def before_validate(self) -> None:
        """Validate the average."""
        if self.averaged is not None and not self.exchanged and int(self.averaged.n_averaged):
            self.exchange()

    def after_fit(self) -> None:
        """Leave the average in the model."""
        if self.averaged is not None and not self.exchanged and int(self.averaged.n_averaged):
            self.exchange()
        self.averaged, self.exchanged = None, False

    def left_fit(self) -> None:
        """A fit was left by an error or Ctrl-C: put the training's own weights back, and forget the average."""
        if self.exchanged:
            self.exchange()
        self.averaged, self.run = None, True  # it does not run in a look for a learning rate, and fastai turns it on after a whole fit only

    def exchange(self) -> None:
        """Put the average into the model and the model's weights into its place, or back."""
        with torch.no_grad():
            for one, other in zip(self.learn.model.parameters(), self.averaged.module.parameters(), strict=True):
                kept = one.detach().clone()
                one.copy_(other)
                other.copy_(kept)
        self.exchanged = not self.exchanged

    def state_dict(self) -> dict[str, Any]:
        """The steps in the average, whether the model holds it just now, and the weights `beside` the model's: the other ones."""
        if self.averaged is None:
            return {"beside": {}, "steps": 0, "exchanged": False}
        beside = {name: tensor.detach().clone() for name, tensor in self.averaged.module.named_parameters()}
        return {"beside": beside, "steps": int(self.averaged.n_averaged), "exchanged": self.exchanged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same average again."""
        self.averaged = None
        if not state["beside"]:
            return
        self.make()
        with torch.no_grad():
            for name, parameter in self.averaged.module.named_parameters():
                parameter.copy_(state["beside"][name])
        self.averaged.n_averaged.fill_(int(state["steps"]))
        self.exchanged = bool(state["exchanged"])


class Decaying:
    """The average that forgets: old × decay + new × (1 - decay), with less decay in the first steps."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averaged: list[torch.Tensor], current: list[torch.Tensor], seen: Any) -> None:
        """Move `averaged` towards `current`; `seen` steps are in it."""
        steps = int(seen)
        torch._foreach_lerp_(averaged, current, 1 - min(self.decay, (1 + steps) / (10 + steps)))


class EmbeddingMixup(MixHandler):
    """Mix each text of a batch with another one, and their targets in the same shares: mixup (arXiv:1710.09412) on word embeddings.

    As wordMixup of Guo et al. 2019 (arXiv:1905.08941), but the share of each row is drawn anew from Beta(α, α). What is mixed is what the
    table of embeddings gives for the ids of the batch, padding included; a place is seen where either text has one. For tasks with one
    target a text. Draws from torch's own random numbers.
    """

    order, run_valid, stateless, settings = MixedPrecision.order - 6, False, True, ("alpha",)

    def __init__(self, alpha: float = 0.2) -> None:
        if not alpha > 0:
            raise SettingError(f"alpha is {alpha!r}, expected more than 0", place="alpha", cure="Pass EmbeddingMixup(0.2).")
        super().__init__(alpha)
        self.alpha = alpha
        self.hook: Any = None

    def before_fit(self) -> None:
        """Raises SettingError for a task whose targets cannot be mixed."""
        kind = self.learn.pipe.task.kind
        if kind not in MIXED:
            cure = f"Leave it out: it is for {', '.join(MIXED)}."
            raise SettingError(f"targets of the kind {kind!r} cannot be mixed", place="EmbeddingMixup", cure=cure)

    def before_train(self) -> None:
        """Put the mixed loss in the place of the task's."""
        if self.learn.loss_func != self.lf:  # an epoch that was cancelled has left it there
            self.old_lf, self.learn.loss_func = self.learn.loss_func, self.lf

    def after_train(self) -> None:
        """Give the task's loss back."""
        self.unhook()
        if self.learn.loss_func == self.lf:
            self.learn.loss_func = self.old_lf

    def after_fit(self) -> None:
        """The same where the last epoch was cancelled."""
        self.after_train()

    def left_fit(self) -> None:
        """A fit was left by an error or Ctrl-C: put back what was changed."""
        self.after_train()

    def before_batch(self) -> None:
        """Draw who is mixed with whom, and how much, (batch,)."""
        inputs = dict(self.learn.xb[0])
        rows = len(inputs["input_ids"])
        other = torch.randperm(rows).to(inputs["input_ids"].device)
        share = self.distrib.sample((rows,)).to(other.device)
        share = torch.maximum(share, 1 - share)  # a row stays the larger part of itself
        if "attention_mask" in inputs:
            inputs["attention_mask"] = torch.maximum(inputs["attention_mask"], inputs["attention_mask"][other])
        self.learn.xb = (inputs,)
        self.yb1, self.lam = tuple(labels[other] for labels in self.learn.yb), share
        self.unhook()
        table = self.learn.model.get_input_embeddings()
        self.hook = table.register_forward_hook(Mixing(other, share))

    def after_pred(self) -> None:
        """Let the embeddings alone again."""
        self.unhook()

    def unhook(self) -> None:
        """Take the mixing off the table of embeddings."""
        if self.hook is not None:
            self.hook.remove()
            self.hook = None


class Mixing:
    """A hook of torch: what a module gives for each row, mixed with what it gives for another one."""

    def __init__(self, other: torch.Tensor, share: torch.Tensor) -> None:
        self.other, self.share = other, share

    def __call__(self, module: torch.nn.Module, given: Sequence[Any], found: torch.Tensor) -> torch.Tensor:
        """`found` (batch, tokens, hidden), mixed."""
        share = self.share.to(found.dtype)[:, None, None]
        return torch.lerp(found[self.other], found, share)


class GradientCheckpointing(Callback):
    """Less memory for about a third more time: what lies between the layers is computed again for the gradients, not kept.

    The numbers are the same. Raises SettingError for a model that cannot do so.
    """

    stateless, turned_on = True, False

    def before_fit(self) -> None:
        """Turn it on."""
        model = self.learn.model
        if not getattr(model, "supports_gradient_checkpointing", False):
            name = type(model).__name__
            raise SettingError(f"{name} has no gradient checkpointing", place="gradient_checkpointing", cure="Use smaller batches.")
        self.turned_on = not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # the older name
        enable({"use_reentrant": False})  # works with frozen embeddings too

    def after_fit(self) -> None:
        """Turn it off, where it was off."""
        model = self.learn.model
        if self.turned_on:
            (getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable)()
        self.turned_on = False

    def left_fit(self) -> None:
        """A fit was left by an error or Ctrl-C: put back what was changed."""
        self.after_fit()


class FiniteSteps(Callback):
    """Stop before a step with a loss or a gradient that is no number; the weights stay those before it.

    fastai's TerminateOnNaNCallback stops after the step, when the weights are lost. In float16 a step whose gradients overflow is left out,
    and the scale of the loss halved; where that scale has fallen below 1, every step is left out, and this stops. Raises SettingError.
    """

    order, run_valid, stateless = MixedPrecision.order + 10, False, True  # after autocast is left and gradients are clipped

    def after_loss(self) -> None:
        """Look at the loss."""
        if not bool(torch.isfinite(self.learn.loss).all()):
            self.stop("the loss", self.learn.loss.item())

    def before_step(self) -> None:
        """Look at the gradients."""
        gradients = [parameter.grad for parameter in self.learn.model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        if norm != norm or norm in (float("inf"), float("-inf")):
            self.stop("the norm of the gradients", norm)

    def after_step(self) -> None:
        """Look at the scale of the loss, once float16 has set it anew."""
        scaler = getattr(self.learn, "scaler", None)
        if scaler is not None and scaler.is_enabled() and scaler.get_scale() < 1.0:
            self.stop("the loss scale of float16", scaler.get_scale())

    def stop(self, what: str, value: float) -> None:
        """Throw the gradients away and raise SettingError."""
        self.learn.opt.zero_grad()
        rates = [hyper["lr"] for hyper in self.learn.opt.hypers]
        place = f"epoch {self.learn.epoch}, step {self.learn.iter}"
        cure = (
            f"The weights are those before this step. Lower the learning rate (now {max(rates):.3g}), clip gradients with "
            "cbs=GradientClip(1.0), or train in float32 or bfloat16."
        )
        raise SettingError(f"{what} is {value}", place=place, cure=cure)
