"""Callbacks of a training step: what they do to the weights, and their state for an exact resume."""

import copy
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelEpochException, CancelFitException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastcore.foundation import L
from torch.nn import functional

import pellucid as pl
from conftest import SENTENCES
from matrix import rows_for
from pellucid.errors import PellucidError, SettingError
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_callbacks import (
    Accumulate,
    EmbeddingMixup,
    FiniteSteps,
    GradientCheckpointing,
    Mixing,
    WeightAverage,
    mass_of,
)
from pellucid.training.fastai_checkpoints import Checkpoints
from pellucid.training.fastai_learner import LearnerOptions, learner
from pellucid.training.task_loss import LossOptions, task_loss


def table(count=24):
    return [
        {
            "text": f"{'good' if place % 3 else 'bad'} {SENTENCES[place % 12]} {'again ' * (place % 5)}",
            "label": "good" if place % 3 else "bad",
            "split": "valid" if place >= count - 6 else "train",
        }
        for place in range(count)
    ]


@pytest.fixture(scope="module")
def rows():
    return pl.read(table(), text="text", label="label", split="split")


def without_dropout(pipe):
    for module in pipe.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return pipe


@pytest.fixture
def pipe(rows, tiny_checkpoints):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return without_dropout(pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows))


@pytest.fixture
def entities(tiny_checkpoints):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = rows_for("token-classification", None)
        return without_dropout(pl.Pipeline.new("token-classification", tiny_checkpoints["bert"], found)), found


def learn_of(pipe, rows, tmp_path, bs=6, cbs=None, plan=None, **loaders):
    rows = rows if "valid" in rows.splits else replace(rows, splits={**rows.splits, "valid": rows.train})
    options = LearnerOptions(lr=1e-3, path=tmp_path, loaders=LoaderOptions(bs=bs, **loaders))
    learn = learner(pipe, rows, options=options, cbs=cbs)
    if plan is not None:
        learn.dls.train.plan = lambda epoch: [np.asarray(part) for part in plan]
    return learn


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def close(one, other, atol=1e-5):
    return one.keys() == other.keys() and all(torch.allclose(one[name], other[name], atol=atol) for name in one)


class Gradients(Callback):
    """The gradients of each step, as the optimizer gets them."""

    order = 50

    def __init__(self):
        super().__init__()
        self.found = {}

    def before_step(self):
        step = len({name[0] for name in self.found})
        named = self.learn.model.named_parameters()
        self.found |= {(step, name): parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def after(pipe, rows, tmp_path, *, plan, cbs=None, loss=None, epochs=1):
    """The gradients of a training from the same start: Adam makes large steps of tiny differences."""
    start, gradients = weights(pipe.model), Gradients()
    learn = learn_of(pipe, rows, tmp_path, cbs=[gradients, *L(cbs)], plan=plan)
    learn.loss_func = loss or learn.loss_func
    with learn.no_bar():
        learn.fit(epochs, 1e-5)
    pipe.model.load_state_dict(start)
    return gradients.found


# --- accumulated gradients ---------------------------------------------------------------------------------------------

UNEVEN = [[0, 1], [2], [3, 4, 5]]


@pytest.mark.parametrize("weighed", [False, True])
def test_accumulated_tokens_make_the_step_of_one_large_batch(entities, tmp_path, weighed):
    pipe, found = entities
    loss = task_loss(pipe.task, LossOptions(class_weights={"place": 5.0} if weighed else None), None)[0]
    whole = after(pipe, found, tmp_path, plan=[range(6)], loss=loss)
    parts = after(pipe, found, tmp_path, plan=UNEVEN, cbs=Accumulate(3), loss=loss)
    means = after(pipe, found, tmp_path, plan=UNEVEN, cbs=GradientAccumulation(6), loss=loss)
    assert close(whole, parts)
    assert not close(whole, means, atol=1e-4), "the mean of means is another step: that is why this callback is here"


@pytest.mark.parametrize("weighed", [False, True])
def test_accumulated_rows_make_the_step_of_one_large_batch(pipe, rows, tmp_path, weighed):
    loss = task_loss(pipe.task, LossOptions(class_weights={"bad": 4.0} if weighed else None), None)[0]
    plan = [[0, 1, 2, 3], [4, 5], range(6, 18)]
    whole = after(pipe, rows, tmp_path, plan=[range(18)], loss=loss)
    assert close(whole, after(pipe, rows, tmp_path, plan=plan, cbs=Accumulate(3), loss=loss))


def test_what_is_left_at_the_end_of_an_epoch_makes_a_step(pipe, rows, tmp_path):
    plan = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11], range(12, 18)]
    whole = after(pipe, rows, tmp_path, plan=[range(12), range(12, 18)], epochs=2)
    assert close(whole, after(pipe, rows, tmp_path, plan=plan, cbs=Accumulate(3), epochs=2))


def test_gradients_are_clipped_after_they_are_put_together(pipe, rows, tmp_path):
    whole = after(pipe, rows, tmp_path, plan=[range(18)], cbs=GradientClip(0.01))
    parts = after(pipe, rows, tmp_path, plan=[range(5), range(5, 18)], cbs=[GradientClip(0.01), Accumulate(2)])
    assert close(whole, parts)


def test_accumulation_that_was_stopped_leaves_nothing_for_the_next_training(pipe, rows, tmp_path):
    class Stop(Callback):
        def after_batch(self):
            if self.training:
                raise CancelFitException

    accumulate, gradients = Accumulate(3), Gradients()
    wanted = after(pipe, rows, tmp_path, plan=[range(18)])
    learn = learn_of(pipe, rows, tmp_path, cbs=[accumulate, gradients])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=Stop())
        assert accumulate.seen == 1
        learn.dls.train.plan = lambda epoch: [np.arange(9), np.arange(9, 18)]
        learn.fit(1, reset_opt=True)
    assert close(gradients.found, wanted)


def test_batches_are_a_number():
    with pytest.raises(SettingError, match="batches is 0"):
        Accumulate(0)


def test_mass_is_rows_where_a_loss_does_not_say():
    class Fake:
        loss_func, yb = functional.cross_entropy, (torch.zeros(5),)

    assert mass_of(Fake()) == 5


# --- averaged weights --------------------------------------------------------------------------------------------------


class Weights(Callback):
    """Keeps the weights after each step, and those that are validated."""

    def before_fit(self):
        self.steps, self.validated = [], []

    def after_step(self):
        self.steps.append(weights(self.learn.model))

    def after_validate(self):
        self.validated.append(weights(self.learn.model))


def averaged(steps, decay):
    found = {name: tensor.clone() for name, tensor in steps[0].items()}
    for count, step in enumerate(steps[1:], 1):
        kept = count / (count + 1) if decay is None else min(decay, (1 + count) / (10 + count))
        found = {name: kept * tensor + (1 - kept) * step[name] if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    return found


@pytest.mark.parametrize("decay", [0.999, 0.3, None])
def test_the_average_is_validated_and_kept_and_does_not_touch_the_training(pipe, rows, tmp_path, decay):
    start = weights(pipe.model)
    plain, watch = Weights(), Weights()
    with (learn := learn_of(pipe, rows, tmp_path, cbs=plain)).no_bar():
        learn.fit(2, 1e-2)
    pipe.model.load_state_dict(start)
    saving = SaveModelCallback(every_epoch=True, fname="kept", with_opt=False)
    learn = learn_of(pipe, rows, tmp_path, cbs=[watch, WeightAverage(decay), saving])
    with learn.no_bar():
        learn.fit(2, 1e-2)
    assert len(watch.steps) == 6 and all(close(one, other, 1e-6) for one, other in zip(plain.steps, watch.steps, strict=True))
    assert close(watch.validated[0], averaged(watch.steps[:3], decay), 1e-6)
    wanted = averaged(watch.steps, decay)
    assert close(watch.validated[1], wanted, 1e-6) and close(weights(pipe.model), wanted, 1e-6)
    assert not close(wanted, watch.steps[-1], 1e-6)
    learn.load("kept_1", with_opt=False)
    assert close(weights(pipe.model), wanted, 1e-6), "what is saved is the average"
    with learn.no_bar():
        assert np.isfinite(learn.validate()[0])
        learn.lr_find(num_it=5, show_plot=False)
    assert close(weights(pipe.model), wanted, 1e-6)


def test_the_average_may_start_late(pipe, rows, tmp_path):
    watch = Weights()
    learn = learn_of(pipe, rows, tmp_path, cbs=[watch, WeightAverage(None, start=0.5)])
    with learn.no_bar():
        learn.fit(2, 1e-2)
    assert close(watch.validated[0], watch.steps[2], 1e-6), "not begun yet"
    assert close(weights(pipe.model), averaged(watch.steps[3:], None), 1e-6)


def test_the_state_of_an_average_comes_back(pipe, rows, tmp_path):
    average = WeightAverage(0.9)
    learn = learn_of(pipe, rows, tmp_path, cbs=average)
    states = []

    class Look(Callback):
        order = 70

        def after_epoch(self):
            states.append(copy.deepcopy(average.state_dict()))

    with learn.no_bar():
        learn.fit(1, 1e-2, cbs=Look())
    state = states[0]
    assert state["steps"] == 3 and state["exchanged"]
    other = WeightAverage(0.9)
    other.learn = learn
    other.load_state_dict(state)
    again = other.state_dict()
    assert again["steps"] == 3 and again["exchanged"] and close(again["beside"], state["beside"], 0)
    other.before_train()
    assert all(torch.equal(parameter, state["beside"][name]) for name, parameter in pipe.model.named_parameters()), "the training's own"
    other.load_state_dict(WeightAverage().state_dict())
    assert other.averaged is None


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"start": 1.0}])
def test_bad_averages_are_refused(settings):
    with pytest.raises(SettingError):
        WeightAverage(**settings)


# --- mixed embeddings --------------------------------------------------------------------------------------------------


def test_mixed_embeddings_and_targets_are_those_of_the_formula(pipe, rows, tmp_path):
    learn = learn_of(pipe, rows, tmp_path, bs=6, plan=[range(6)], cbs=EmbeddingMixup(0.4))
    seen = {}

    class Look(Callback):
        order = 90

        def before_batch(self):
            if self.training:
                mix = self.learn.embedding_mixup
                seen.update(inputs=self.xb[0], labels=self.yb[0], other=mix.hook is not None and mix.yb1[0], share=mix.lam)

        def after_loss(self):
            if self.training:
                seen.update(pred=self.pred.detach(), loss=self.loss.item())

    start = weights(pipe.model)
    with learn.no_bar():
        learn.fit(1, 0.0, wd=0.0, cbs=Look())
    assert close(weights(pipe.model), start, 0)
    batch = next(iter(learn.dls.train))
    labels, share = seen["labels"], seen["share"]
    assert share.shape == (6,) and (share >= 0.5).all() and (share <= 1).all()
    each = torch.lerp(
        functional.cross_entropy(seen["pred"], seen["other"], reduction="none"),
        functional.cross_entropy(seen["pred"], labels, reduction="none"),
        share,
    )
    assert seen["loss"] == pytest.approx(float(each.mean()), rel=1e-5)
    assert not pipe.model.get_input_embeddings()._forward_hooks and repr(learn.loss_func).startswith("loss of")
    ids, mask = batch[0]["input_ids"], batch[0]["attention_mask"]
    torch.manual_seed(3)
    mix = learn.embedding_mixup
    learn.xb, learn.yb, learn.training = batch[:1], batch[1:], True
    mix.before_batch()
    torch.manual_seed(3)
    other = torch.randperm(6)
    table = pipe.model.get_input_embeddings().weight
    found = pipe.model.get_input_embeddings()(ids)
    wanted = mix.lam[:, None, None] * table[ids] + (1 - mix.lam[:, None, None]) * table[ids[other]]
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.equal(learn.xb[0]["attention_mask"], torch.maximum(mask, mask[other])) and torch.equal(learn.xb[0]["input_ids"], ids)
    pipe.model.eval()
    direct = {**learn.xb[0], "inputs_embeds": wanted}
    del direct["input_ids"]
    with torch.no_grad():
        hooked = pipe.model(**learn.xb[0]).logits
        mix.unhook()
        assert torch.allclose(hooked, pipe.model(**direct).logits, atol=1e-5)


def test_mixing_leaves_validation_alone_and_survives_a_failed_training(pipe, rows, tmp_path):
    class Fail(Callback):
        def after_pred(self):
            raise RuntimeError("no")

    learn = learn_of(pipe, rows, tmp_path, cbs=EmbeddingMixup())
    with learn.no_bar(), learn.no_logging():
        before = learn.validate()
        with pytest.raises(RuntimeError):
            learn.fit(1, cbs=Fail())
        learn.fit(1, 0.0, wd=0.0)
        assert np.allclose(learn.validate(), before)


def test_mixing_is_refused_where_targets_cannot_be_mixed(entities, tmp_path):
    learn = learn_of(*entities, tmp_path, cbs=EmbeddingMixup())
    with pytest.raises(SettingError, match="cannot be mixed"), learn.no_bar(), learn.no_logging():
        learn.fit(1)
    with pytest.raises(SettingError, match="alpha is 0"):
        EmbeddingMixup(0)


# --- less memory -------------------------------------------------------------------------------------------------------


def test_gradient_checkpointing_changes_no_number(pipe, rows, tmp_path):
    plan = [range(9), range(9, 18)]
    plain = after(pipe, rows, tmp_path, plan=plan)
    seen = []

    class Look(Callback):
        def before_batch(self):
            seen.append(any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules()))

    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        found = after(pipe, rows, tmp_path, plan=plan, cbs=[GradientCheckpointing(), Look()])
    assert close(plain, found, 1e-6) and all(seen)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in pipe.model.modules())


def test_a_model_without_checkpointing_says_so(pipe, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(type(pipe.model), "supports_gradient_checkpointing", False)
    learn = learn_of(pipe, rows, tmp_path, cbs=GradientCheckpointing())
    with pytest.raises(SettingError, match="no gradient checkpointing"), learn.no_bar(), learn.no_logging():
        learn.fit(1)


# --- bad numbers and failures: 110, 111, 116 ---------------------------------------------------------------------------


class Spoil(Callback):
    """Makes the loss or a gradient of step 2 a bad number."""

    order = -5

    def __init__(self, where, value):
        super().__init__()
        self.where, self.value, self.at_step = where, value, None

    def after_pred(self):
        if self.training and self.iter == 2 and self.where == "loss":
            self.learn.pred = self.pred * self.value

    def after_backward(self):
        if self.iter == 2:
            self.at_step = weights(self.learn.model)
            if self.where == "gradient":
                next(self.learn.model.parameters()).grad[0, 0] = self.value

    def before_batch(self):
        if self.training and self.iter == 2:
            self.at_step = weights(self.learn.model)


@pytest.mark.parametrize("cbs", [None, lambda: GradientClip(1.0), lambda: Accumulate(1)])
@pytest.mark.parametrize(("where", "value"), [("loss", float("nan")), ("gradient", float("inf")), ("gradient", float("nan"))])
def test_a_bad_number_stops_before_the_step(pipe, rows, tmp_path, where, value, cbs):
    spoil = Spoil(where, value)
    learn = learn_of(pipe, rows, tmp_path, bs=4, cbs=[FiniteSteps(), spoil, *([cbs()] if cbs else [])])
    with pytest.raises(PellucidError, match="learning rate") as caught, learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
    assert caught.value.place == "epoch 0, step 2"
    assert str(caught.value).startswith("epoch 0, step 2: the ") and "\n" not in str(caught.value)  # and not fastai's words around it
    assert "loss" in str(caught.value) if where == "loss" else "gradients" in str(caught.value)
    assert close(weights(pipe.model), spoil.at_step, 0)
    assert all(torch.isfinite(tensor).all() for tensor in pipe.model.parameters())
    assert all(parameter.grad is None for parameter in pipe.model.parameters())
    learn.remove_cb(spoil)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)  # and it goes on from there


class HalfOnCpu(MixedPrecision):
    """float16's loss scaling where there is no GPU: from 4.0, halved after every step whose gradients overflow."""

    def before_fit(self):
        self.autocast, self.scales = torch.autocast("cpu", dtype=torch.bfloat16), L()
        self.learn.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)


class Overflow(Callback):
    """Gradients that overflow in the first `steps` steps."""

    order = -5

    def __init__(self, steps):
        super().__init__()
        self.steps, self.seen = steps, 0

    def after_backward(self):
        self.seen += 1
        if self.seen <= self.steps:
            next(self.learn.model.parameters()).grad[0, 0] = float("inf")


def test_a_loss_scale_that_falls_to_nothing_is_no_training(pipe, rows, tmp_path):
    before, overflow = weights(pipe.model), Overflow(100)
    learn = learn_of(pipe, rows, tmp_path, bs=2, cbs=[FiniteSteps(), HalfOnCpu(), overflow])
    with pytest.raises(PellucidError, match=r"the loss scale of float16 is 0\.5") as caught, learn.no_bar(), learn.no_logging():
        learn.fit(3, 1e-3)
    assert caught.value.place == "epoch 0, step 2" and overflow.seen == 3
    assert "bfloat16" in str(caught.value) and close(weights(pipe.model), before, 0)


def test_a_few_overflows_are_skipped_as_always(pipe, rows, tmp_path):
    before = weights(pipe.model)
    learn = learn_of(pipe, rows, tmp_path, bs=2, cbs=[FiniteSteps(), HalfOnCpu(), Overflow(2)])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    assert not close(weights(pipe.model), before, 0) and all(torch.isfinite(each).all() for each in pipe.model.parameters())


def test_good_numbers_are_left_alone(pipe, rows, tmp_path):
    plan = [range(9), range(9, 18)]
    plain = after(pipe, rows, tmp_path, plan=plan)
    assert close(plain, after(pipe, rows, tmp_path, plan=plan, cbs=FiniteSteps()), 0)


@pytest.mark.parametrize("event", ["before_batch", "after_step", "after_validate"])
def test_a_callback_that_fails_leaves_the_model_whole(pipe, rows, tmp_path, event):
    class Fail(Callback):
        pass

    def fail(self):
        raise ZeroDivisionError("my callback")

    setattr(Fail, event, fail)
    learn = learn_of(pipe, rows, tmp_path, cbs=[FiniteSteps(), WeightAverage()])
    with pytest.raises(ZeroDivisionError, match="my callback"), learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=Fail())
    assert not any(isinstance(callback, Fail) for callback in learn.cbs), "callbacks of a fit go with it"
    assert all(torch.isfinite(tensor).all() for tensor in pipe.model.parameters())
    pipe("still there")
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1][1])


def test_a_metric_that_fails_leaves_the_model_whole(pipe, rows, tmp_path):
    def wrong(pred, target):
        raise ZeroDivisionError("my metric")

    learn = learn_of(pipe, rows, tmp_path)
    learn.metrics = [wrong]
    with pytest.raises(ZeroDivisionError, match="my metric"), learn.no_bar(), learn.no_logging():
        learn.fit(1)
    learn.metrics = []
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1][1])


@pytest.mark.parametrize("callback", [Accumulate(2), WeightAverage(), EmbeddingMixup(), GradientCheckpointing(), FiniteSteps()])
def test_every_callback_has_a_state_or_says_that_it_has_none(callback):
    assert getattr(type(callback), "stateless", False) is True or {"state_dict", "load_state_dict"} <= set(dir(type(callback)))


# --- a fit that is left by an error or Ctrl-C -----------------------------------------------------------------------------


class Leave(Callback):
    """Ends a fit in its second epoch, when the batch is mixed (or, in the validation, when the average is in the model)."""

    order, stateless = 90, True

    def __init__(self, error, training=True):
        super().__init__()
        self.error, self.in_training = error, training

    def before_batch(self):
        if self.epoch == 1 and self.training == self.in_training and self.iter == 1 - (not self.training):
            raise self.error("mine")


class First(Callback):
    """Keeps the weights that the first batch of a fit finds."""

    order = 90

    def before_batch(self):
        if self.training and self.epoch == 0 and self.iter == 0:
            self.found = weights(self.learn.model)


def all_mine():
    return [Accumulate(2), WeightAverage(0.9), EmbeddingMixup(0.3), GradientCheckpointing(), FiniteSteps()]


def saves_memory(model):
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def save_memory(model, on):
    names = (f"{kind}_checkpointing_{'enable' if on else 'disable'}" for kind in ("activation", "gradient"))  # the newer name first
    getattr(model, next(name for name in names if hasattr(model, name)))()


def left(learn, *cbs, epochs=3):
    """The weights after each step of a fit that `Leave` among `cbs` ends."""
    watch = Weights()
    error = next(callback.error for callback in cbs if isinstance(callback, Leave))
    with pytest.raises(error, match="mine"), learn.no_bar(), learn.no_logging():
        learn.fit(epochs, 1e-2, cbs=[watch, *cbs])
    return watch.steps


@pytest.mark.parametrize("on_learner", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_fit_that_was_left_leaves_a_learner_that_can_be_used_on(pipe, rows, tmp_path, error, training, on_learner):
    mine, first = all_mine(), First()
    learn = learn_of(pipe, rows, tmp_path, cbs=mine if on_learner else None)
    learn.save("start", with_opt=False)
    of_fit = [] if on_learner else mine
    steps = left(learn, Leave(error, training), *of_fit)
    assert close(weights(pipe.model), steps[-1], 0), "the training's own weights, not the average"
    assert not any(isinstance(hook, Mixing) for hook in pipe.model.get_input_embeddings()._forward_hooks.values())
    assert repr(learn.loss_func).startswith("loss of")
    assert not saves_memory(pipe.model) and all(callback.learn is (learn if on_learner else None) for callback in mine)
    with learn.no_bar(), learn.no_logging():
        assert learn.predict("good film")[0] in {"good", "bad"}
        assert learn.get_preds(with_loss=True)[2].shape == (6,)
        learn.load("start", with_opt=False)
        start = weights(pipe.model)
        learn.fit(2, 0.0, wd=0.0, cbs=[first, *of_fit])
    assert close(first.found, start, 0), "nothing of the old average is put over what was loaded"
    assert close(weights(pipe.model), start, 0)


def test_gradients_of_a_fit_that_was_left_are_no_part_of_the_next_one(pipe, rows, tmp_path):
    learn = learn_of(pipe, rows, tmp_path)
    left(learn, Leave(RuntimeError), Accumulate(2))
    assert all(parameter.grad is None for parameter in pipe.model.parameters())


def test_checkpointing_that_was_on_before_stays_on_after_an_error(pipe, rows, tmp_path):
    save_memory(pipe.model, True)
    learn = learn_of(pipe, rows, tmp_path, cbs=GradientCheckpointing())
    left(learn, Leave(RuntimeError))
    assert saves_memory(pipe.model)
    save_memory(pipe.model, False)
    left(learn, Leave(KeyboardInterrupt))
    assert not saves_memory(pipe.model)
    save_memory(pipe.model, True)
    with pytest.raises(SettingError, match="two Checkpoints"):
        learn.fit(1, cbs=[Checkpoints(tmp_path / "one"), Checkpoints(tmp_path / "two")])
    with pytest.raises(SettingError, match="remembers would be lost"):
        learn.fit(1, cbs=[Checkpoints(tmp_path / "one"), First()])
    assert saves_memory(pipe.model), "a fit that never began has nothing to put back"


def test_an_error_while_things_are_put_back_does_not_hide_the_first_one(pipe, rows, tmp_path):
    class Worse(Callback):
        def left_fit(self):
            raise ZeroDivisionError("worse")

    learn = learn_of(pipe, rows, tmp_path, cbs=[Worse(), EmbeddingMixup()])
    with pytest.raises(RuntimeError, match="mine") as caught, learn.no_bar(), learn.no_logging():
        learn.fit(2, cbs=Leave(RuntimeError))
    assert caught.value.__notes__ == ["Worse could not put back what it had changed: ZeroDivisionError: worse"]
    assert repr(learn.loss_func).startswith("loss of"), "the other callbacks have their turn"


def test_ctrl_c_waits_until_things_are_put_back(pipe, rows, tmp_path, ctrl_c):
    class Slow(Callback):
        order = -90

        def left_fit(self):
            signal.raise_signal(signal.SIGINT)

    learn = learn_of(pipe, rows, tmp_path, cbs=[Slow(), EmbeddingMixup()])
    left(learn, Leave(RuntimeError))
    assert repr(learn.loss_func).startswith("loss of") and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_look_for_a_learning_rate_that_was_left_does_not_turn_the_average_off(pipe, rows, tmp_path):
    class Stop(Callback):
        def after_step(self):
            raise KeyboardInterrupt

    learn, stop = learn_of(pipe, rows, tmp_path, cbs=WeightAverage(0.9)), Stop()
    watch = Weights()
    with learn.no_bar(), learn.no_logging():
        with learn.added_cbs([stop]), pytest.raises(KeyboardInterrupt):
            learn.lr_find(num_it=5, show_plot=False)
        learn.fit(1, 1e-2, cbs=watch)
    assert close(weights(pipe.model), averaged(watch.steps, 0.9), 1e-6) and not close(weights(pipe.model), watch.steps[-1], 1e-6)


def test_mixing_ends_with_an_epoch_that_was_cancelled(pipe, rows, tmp_path):
    class Stop(Callback):
        def after_loss(self):
            if self.training:
                raise CancelEpochException

    learn = learn_of(pipe, rows, tmp_path, cbs=EmbeddingMixup())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=Stop())
        assert repr(learn.loss_func).startswith("loss of")
        learn.fit(1)


# --- an exact resume carries them --------------------------------------------------------------------------------------


class Crash(Callback):
    """Ends the training as a crash would, before a batch."""

    stateless = True

    def __init__(self, at):
        super().__init__()
        self.at = at

    def before_batch(self):
        if self.training and self.learn.train_iter == self.at:
            raise ZeroDivisionError("crash")


@pytest.mark.parametrize("at", [3, 5])
def test_a_resumed_training_is_that_of_nobody_stopped(rows, tiny_checkpoints, tmp_path, at):
    def train(folder, crash=-1, resume=False):
        torch.manual_seed(0)
        pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
        mine = [Accumulate(2), WeightAverage(0.9), EmbeddingMixup(0.3), GradientCheckpointing(), FiniteSteps()]
        learn = learn_of(pipe, rows, tmp_path, bs=4, cbs=mine, balanced=True)
        others = [Checkpoints(tmp_path / folder, steps=1, resume=resume), Crash(crash)]
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(2, 1e-2, cbs=others)
        return weights(pipe.model)

    wanted = train("whole")
    with pytest.raises(ZeroDivisionError):
        train("cut", crash=at)
    found = train("cut", resume=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
