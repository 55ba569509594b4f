"""The Learner: fastai's verbs over a bare transformers model, and the numbers that they give."""

import copy
import json
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import CSVLogger, ShowGraphCallback
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from fastai.metrics import F1Score, accuracy

import pellucid as pl
from conftest import SENTENCES
from pellucid.errors import CheckpointError, SettingError, StorageError
from pellucid.groups import layer_groups, no_decay
from pellucid.training.fastai_blocks import LoaderOptions, dataloaders
from pellucid.training.fastai_learner import BFloat16, LearnerOptions, learner
from pellucid.training.fastai_scores import MaskedAccuracy, TaskLoss


def table() -> list[dict[str, str]]:
    texts = [f"{text} {'again ' * (place % 5)}{copy}" for copy in range(4) for place, text in enumerate(SENTENCES)]
    return [
        {
            "text": ("good " if place % 3 else "bad ") + text,
            "label": "good" if place % 3 else "bad",
            "split": "train" if place < 36 else "valid",
        }
        for place, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def rows():
    return pl.read(table(), text="text", label="label", split="split")


@pytest.fixture
def pipe(rows, tiny_checkpoints):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)


@pytest.fixture
def learn(pipe, rows, tmp_path):
    return learner(pipe, rows, options=LearnerOptions(lr=1e-3, loaders=LoaderOptions(bs=8), path=tmp_path))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_a_learner_around_the_bare_model(learn, pipe):
    assert isinstance(learn, Learner) and learn.model is pipe.model
    assert learn.config is pipe.model.config
    with learn.no_bar():
        learn.fit_one_cycle(6)
    losses = [line[0] for line in learn.recorder.values]
    assert losses[-1] < losses[0]
    assert list(learn.recorder.metric_names) == ["epoch", "train_loss", "valid_loss", "accuracy", "f1_weighted", "time"]
    assert set(learn.recorder.hps["mom"]) == {0.9}, "no momentum cycling"
    rates = learn.recorder.hps["lr"]
    assert abs(rates.index(max(rates)) / len(rates) - 0.1) < 0.1


def test_progress_is_seen_in_a_plain_terminal(learn, capsys):
    learn.fit(1)
    shown = capsys.readouterr().out
    assert "train_loss" in shown and "accuracy" in shown


class Tee:
    """What many a script puts in the place of the standard output: no `isatty`, no `buffer`."""

    def __init__(self, terminal=None):
        self.said = ""
        if terminal is not None:
            self.isatty = lambda: terminal

    def write(self, text):
        self.said += text

    def flush(self):
        pass


@pytest.mark.parametrize("terminal", [False, None])
def test_a_log_gets_lines_and_no_bars(learn, tmp_path, terminal):
    with redirect_stdout(Tee(terminal)) as log:
        learn.fit(2, cbs=ShowGraphCallback())
        with learn.no_bar(), learn.no_bar(), learn.no_logging():
            learn.fit(1)
        learn.validate()
        learn.get_preds()
        learn.fit(1, cbs=CSVLogger(tmp_path / "log.csv"))
    assert [line.split()[0] for line in log.said.splitlines()] == ["epoch", "0", "1", "epoch", "0"] and "\r" not in log.said
    assert log.said.splitlines()[0].split() == learn.recorder.metric_names
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_a_terminal_gets_bars(learn):
    with redirect_stdout(Tee(terminal=True)) as screen:
        learn.fit(1)
    assert "|█" in screen.said and "\r" in screen.said and "epoch" in screen.said


def test_columns_are_the_scores_that_evaluate_gives(learn, pipe, rows):
    with learn.no_bar():
        learn.fit(1)
    answers = pipe.predict(rows.valid)
    wanted = {score.name: score.value for score in pipe.task.metrics(list(answers), rows.valid.targets(0, len(rows.valid)))}
    found = learn.recorder.values[-1]
    assert found[2] == pytest.approx(wanted["accuracy"]) and found[3] == pytest.approx(wanted["F1 weighted"])


def test_freeze_trains_the_head_only(learn, pipe):
    learn.freeze()
    head = {name for name, parameter in pipe.model.named_parameters() if parameter.requires_grad}
    outside = {name for name, _ in pipe.model.named_parameters() if not name.startswith("bert.")}
    assert outside and head == outside | pipe.provenance.new_names()
    before = weights(pipe.model)
    with learn.no_bar():
        learn.fit(1)
    changed = {name for name, tensor in weights(pipe.model).items() if not torch.equal(tensor, before[name])}
    assert changed and changed <= head
    learn.freeze_to(-2)
    some = {name for name, parameter in pipe.model.named_parameters() if parameter.requires_grad}
    last = layer_groups(pipe.model, pipe.provenance.new_names())[-2]
    assert some == head | set(last.parameters)
    learn.unfreeze()
    assert all(parameter.requires_grad for parameter in pipe.model.parameters())


def test_slices_spread_over_the_layers_and_norms_do_not_decay(learn, pipe):
    learn.create_opt()
    groups = layer_groups(pipe.model, pipe.provenance.new_names())
    learn.opt.set_hypers(lr=slice(1e-5, 1e-3), wd=0.3)
    rates = [hyper["lr"] for hyper in learn.opt.hypers]
    assert len(rates) == len(groups) and rates[0] == pytest.approx(1e-5) and rates[-1] == pytest.approx(1e-3)
    assert np.allclose(np.diff(np.log(rates)), np.diff(np.log(rates))[0])
    spared = no_decay(pipe.model)
    names = {id(parameter): name for name, parameter in pipe.model.named_parameters()}
    seen = []
    for group in learn.opt.opt.param_groups:
        for parameter in group["params"]:
            seen.append(names[id(parameter)])
            assert group["weight_decay"] == (0.0 if names[id(parameter)] in spared else 0.3)
    assert sorted(seen) == sorted(names.values())
    assert learn.opt.opt.defaults["fused"]
    assert [len(group) for group in learn.opt.param_lists] == [len(group.parameters) for group in groups]


def test_one_step_is_that_of_a_bare_loop(pipe, rows):
    dls = dataloaders(pipe, rows, options=LoaderOptions(bs=8))
    start = weights(pipe.model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        learn = learner(pipe, dls)
        with learn.no_bar():
            learn.fit(1, 1e-3)
    found = weights(pipe.model)
    pipe.model.load_state_dict(start)
    spared = no_decay(pipe.model)
    named = list(pipe.model.named_parameters())
    parts = [{"params": [p for n, p in named if n not in spared], "weight_decay": 0.01}]
    parts += [{"params": [p for n, p in named if n in spared], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(parts, lr=1e-3, fused=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pipe.model.train()
        for inputs, labels in dataloaders(pipe, rows, options=LoaderOptions(bs=8)).train:
            torch.nn.functional.cross_entropy(pipe.model(**inputs).logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.allclose(tensor, found[name], atol=1e-6) for name, tensor in weights(pipe.model).items())


def test_get_preds_keeps_the_order_of_the_rows(learn, pipe, rows):
    scores, targets, losses = learn.get_preds(with_loss=True)
    wanted = pipe.predict(rows.valid)
    assert np.allclose(scores.numpy(), torch.tensor(wanted.logits).softmax(-1).numpy(), atol=1e-5)
    names = [pipe.task.labels[number] for number in targets]
    assert names == list(rows.valid.targets(0, len(rows.valid)))
    each = torch.nn.functional.cross_entropy(torch.tensor(wanted.logits), targets, reduction="none")
    assert losses.shape == (len(rows.valid),) and torch.allclose(losses, each, atol=1e-5)
    assert learn.loss_func.reduction == "mean"
    _, _, decoded = learn.get_preds(with_decoded=True)
    assert [pipe.task.labels[number] for number in decoded] == wanted.answers()
    _, train_targets = learn.get_preds(ds_idx=0)
    assert [pipe.task.labels[number] for number in train_targets] == list(rows.train.targets(0, len(rows.train)))


def test_get_preds_with_input_gives_one_rectangle_in_order(learn, rows, pipe):
    inputs, scores, targets = learn.get_preds(with_input=True)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape and len(inputs["input_ids"]) == len(rows.valid)
    for position in range(len(rows.valid)):
        ids = inputs["input_ids"][position][inputs["attention_mask"][position].bool()].tolist()
        assert ids == pipe.tokenizer(rows.valid[position].fields["text"], truncation=True)["input_ids"]
    plain, plain_targets = learn.get_preds()
    assert torch.allclose(scores, plain, atol=1e-5) and torch.equal(targets, plain_targets)


def test_predict_gives_label_number_and_probabilities(learn, pipe):
    label, number, scores = learn.predict("a good film")
    assert label == pipe.task.labels[int(number)] and scores.shape == (2,) and float(scores.sum()) == pytest.approx(1.0)
    several = learn.predict(["a good film", "a bad film"])
    assert [one[0] for one in several] == [pipe(text).answer for text in ("a good film", "a bad film")]
    assert torch.allclose(several[0][2], scores, atol=1e-5)
    assert learn.predict("a good film", with_input=True)[0] == "a good film"
    dl = learn.dls.test_dl(["a good film", "a much longer and a very bad film"])
    found, targets = learn.get_preds(dl=dl)
    assert targets is None and torch.allclose(found[0], scores, atol=1e-5)


def test_lr_find_leaves_the_model_as_it_was(learn, pipe, tmp_path):
    before = weights(pipe.model)
    with learn.no_bar():
        found = learn.lr_find(num_it=12, show_plot=False)
    assert 1e-7 < found.valley < 10
    assert same(weights(pipe.model), before)
    assert not any(tmp_path.rglob("_tmp*")), "the temporary files are gone"


def test_interpretation_finds_the_worst_rows(learn, rows, pipe, capsys):
    import matplotlib

    matplotlib.use("agg")
    found = ClassificationInterpretation.from_learner(learn)
    matrix = found.confusion_matrix()
    assert matrix.sum() == len(rows.valid) and list(found.vocab) == list(pipe.task.labels)
    answers, targets = pipe.predict(rows.valid).answers(), rows.valid.targets(0, len(rows.valid))
    assert matrix[0, 1] == sum(target == pipe.task.labels[0] != answer for target, answer in zip(targets, answers, strict=True))
    losses, positions = found.top_losses(3)
    assert losses[0] >= losses[1] >= losses[2]
    capsys.readouterr()
    found.plot_top_losses(3)
    shown = capsys.readouterr().out
    assert "top losses" in shown and f"{float(losses[0]):.3f}"[:4] in shown
    start = rows.valid[int(positions[0])].fields["text"][:8].lower()
    assert start in shown
    found.plot_confusion_matrix()
    found.print_classification_report()
    assert "precision" in capsys.readouterr().out
    _, _, picked = found.top_losses(2, items=True)
    assert [example.fields["text"] for example in picked] == [rows.valid[int(position)].fields["text"] for position in positions[:2]]
    found.show_results([0, 1])
    assert "predicted" in capsys.readouterr().out


def test_show_results_and_summary(learn, capsys):
    learn.show_results(max_n=3)
    shown = capsys.readouterr().out
    assert "predicted" in shown and shown.count("[CLS]") == 3
    text = str(learn.summary())
    assert "Linear" in text and "fused AdamW" in text and "Total params" in text


def test_save_and_load_without_pickle(learn, pipe, tmp_path):
    with learn.no_bar():
        learn.fit(1)
    before, state = weights(pipe.model), copy.deepcopy(learn.opt.state_dict())
    folder = learn.save("first")
    assert folder == tmp_path / "models" / "first.pth"
    for file in folder.iterdir():
        assert file.suffix == ".safetensors"
        size = int.from_bytes(file.read_bytes()[:8], "little")
        json.loads(file.read_bytes()[8 : 8 + size])
    with learn.no_bar():
        learn.fit(1)
    assert not same(weights(pipe.model), before)
    learn.load("first")
    assert same(weights(pipe.model), before)
    again = learn.opt.state_dict()
    assert all(torch.equal(again["state"][key]["exp_avg"], state["state"][key]["exp_avg"]) for key in state["state"])
    with learn.no_bar():
        learn.fit(1)  # the loaded optimizer goes on
    with pytest.raises(StorageError, match=r"no saved 'second'.*Saved there: first"):
        learn.load("second")
    learn.save("bare", with_opt=False)
    with pytest.warns(UserWarning, match="starts afresh"):
        learn.load("bare")


def test_load_refuses_weights_that_do_not_fit(learn, tmp_path):
    from pellucid.weights import save_weights

    (tmp_path / "models" / "other.pth").mkdir(parents=True)
    save_weights(torch.nn.Linear(2, 2), tmp_path / "models" / "other.pth" / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"missing|renamed"):
        learn.load("other")


def test_export_names_save(learn):
    with pytest.raises(SettingError, match=r"pl\.save"):
        learn.export()


def test_saving_the_best_epoch_and_stopping_early(learn, pipe, tmp_path):
    learn.metrics = [*learn.metrics, accuracy]
    keep = SaveModelCallback(monitor="valid_loss", fname="best")
    with learn.no_bar(), learn.no_logging():
        learn.fit(3, 1e-3, cbs=[keep, EarlyStoppingCallback(monitor="accuracy", patience=2), CSVLogger()])
    assert (tmp_path / "models" / "best.pth").is_dir() and not list(tmp_path.rglob("*.pkl"))
    log = pd.read_csv(tmp_path / "history.csv")
    assert list(log.columns[:3]) == ["epoch", "train_loss", "valid_loss"]
    best = min(line[1] for line in learn.recorder.values)
    with learn.no_bar():
        assert learn.validate()[0] == pytest.approx(best, abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("make", [lambda: GradientAccumulation(16), lambda: GradientClip(0.1), lambda: MixedPrecision("bf16"), BFloat16])
def test_standard_callbacks_work_as_they_are(learn, make):
    with learn.no_bar():
        learn.fit_one_cycle(2, 1e-3, cbs=make())
    assert all(np.isfinite(line[1]) for line in learn.recorder.values)


def test_accumulated_steps_are_those_of_the_larger_batch(pipe, rows, tmp_path):
    """Without dropout, two batches of 6 accumulated to 12 move the weights as one batch of 12 does."""
    for module in pipe.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    start, found = weights(pipe.model), []
    for size, cbs in ((12, []), (6, [GradientAccumulation(12)])):
        pipe.model.load_state_dict(start)
        options = LearnerOptions(path=tmp_path, loaders=LoaderOptions(bs=size))
        learn = learner(pipe, rows, options=options, cbs=cbs)
        plan = np.split(np.arange(36), 36 // size)
        learn.dls.train.plan = lambda epoch, plan=plan: plan
        with learn.no_bar():
            learn.fit(1, 1e-3)
        found.append(weights(pipe.model))
    assert all(torch.allclose(tensor, found[1][name], atol=1e-5) for name, tensor in found[0].items())


def test_bfloat16_computes_in_bfloat16_and_leaves_it(learn, pipe):
    seen = []
    handle = pipe.model.classifier.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    with learn.no_bar():
        learn.fit(1, 1e-3, cbs=BFloat16())
    handle.remove()
    assert set(seen) == {torch.bfloat16} and not torch.is_autocast_enabled("cpu")
    assert {parameter.dtype for parameter in pipe.model.parameters()} == {torch.float32}


def test_fine_tune_trains_the_head_first(learn, pipe):
    with learn.no_bar():
        learn.fine_tune(2)
    assert all(parameter.requires_grad for parameter in pipe.model.parameters())
    assert learn.recorder.hps["lr"] and max(learn.recorder.hps["lr"]) <= 1e-3


def test_fastai_metrics_and_names_of_ours(pipe, rows):
    learn = learner(pipe, rows, metrics=["matthews_correlation", accuracy, F1Score(), MaskedAccuracy()])
    with learn.no_bar():
        learn.fit(1)
    names = list(learn.recorder.metric_names)
    assert names[3:-1] == ["matthews_correlation", "accuracy", "f1_score", "masked_accuracy"]
    assert learn.recorder.values[0][3] == pytest.approx(learn.recorder.values[0][5])
    with pytest.raises(SettingError, match=r"there is no score 'accuracies'.*accuracy"):
        learner(pipe, rows, metrics=["accuracies"])


def test_masked_accuracy_ignores_padding():
    class Fake:
        pred = torch.eye(3)[torch.tensor([[0, 1, 2], [2, 2, 2]])]
        yb = (torch.tensor([[0, 1, -100], [-100, 0, 2]]),)

    metric = MaskedAccuracy()
    metric.accumulate(Fake())
    assert metric.value == pytest.approx(3 / 4)


def test_several_labels(tiny_checkpoints, tmp_path):
    data = [{**row, "label": (["good"] if "good" in row["text"] else []) + (["long"] if "again" in row["text"] else [])} for row in table()]
    rows = pl.read(data, text="text", label="label", split="split")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    learn = learner(pipe, rows, options=LearnerOptions(path=tmp_path))
    with learn.no_bar():
        learn.fit(1)
    assert list(learn.recorder.metric_names)[3:-1] == ["f1_micro", "f1_weighted"]
    scores, targets, decoded, losses = learn.get_preds(with_decoded=True, with_loss=True)
    assert scores.shape == targets.shape == decoded.shape == (12, 2) and losses.shape == (12,)
    label, number, row = learn.predict("a good film")
    assert isinstance(label, tuple) and number.shape == row.shape == (2,)
    learn.show_results(max_n=2)


def test_numbers(tiny_checkpoints, tmp_path):
    data = [{**row, "label": len(row["text"]) / 7} for row in table()]
    rows = pl.read(data, text="text", label="label", split="split")
    pipe = pl.Pipeline.new(pl.SequenceClassification(kind="regression"), tiny_checkpoints["bert"], rows)
    learn = learner(pipe, rows, options=LearnerOptions(path=tmp_path))
    with learn.no_bar():
        learn.fit(1)
    assert list(learn.recorder.metric_names)[3:-1] == ["pearson", "spearman"]
    _, targets, decoded, losses = learn.get_preds(with_decoded=True, with_loss=True)
    assert decoded.shape == targets.shape == losses.shape == (12,)
    assert torch.allclose((decoded - targets) ** 2, losses, rtol=1e-3)
    label, number, _ = learn.predict("a good film")
    assert isinstance(label, float) and float(number) == pytest.approx(label)


def test_decoding_goes_through_the_task(pipe, rows):
    from dataclasses import replace

    class Contrary(type(pipe.task)):
        def decode(self, output, batch, source=None):
            found = super().decode(output, batch, source)
            return [replace(one, answer=min(one.scores, key=one.scores.get)) for one in found]

    contrary = Contrary(**{name: getattr(pipe.task, name) for name in ("labels", "kind", "pair", "thresholds")})
    logits = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    plain, other = TaskLoss(pipe.task), TaskLoss(contrary)
    assert plain.decodes(plain.activation(logits)).tolist() == [0, 1]
    assert other.decodes(other.activation(logits)).tolist() == [1, 0]


def test_loaders_of_another_pipeline_are_refused(pipe, rows, tiny_checkpoints):
    other = pl.Pipeline.new("text-classification", tiny_checkpoints["gpt2"], rows)
    with pytest.raises(SettingError, match="another pipeline"):
        learner(pipe, dataloaders(other, rows))
    with pytest.raises(SettingError, match="not loaders that pellucid made"):
        learner(pipe, [1, 2, 3])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "xlm-roberta"])
def test_other_architectures_train(kind, rows, tiny_checkpoints, tmp_path):
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints[kind], rows)
    learn = learner(pipe, rows, options=LearnerOptions(path=tmp_path, lr=1e-3))
    with learn.no_bar(), warnings.catch_warnings():
        learn.freeze()
        learn.fit(1)
        learn.unfreeze()
        learn.fit_one_cycle(1, slice(1e-4, 1e-3))
    scores, _ = learn.get_preds()
    assert np.allclose(scores.numpy(), torch.tensor(pipe.predict(rows.valid).logits).softmax(-1).numpy(), atol=1e-5)


def test_half_precision_weights_are_not_trained_in_silence(tiny_checkpoints: dict[str, Path]) -> None:
    rows = pl.read([{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(12)], text="text", label="label")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows, model=pl.ModelOptions(dtype="bfloat16"))
    with pytest.raises(pl.PellucidError, match="must be float32 to be trained"):
        learner(pipe, rows)


def test_what_a_callback_writes_into_the_settings_reaches_the_optimizer(tiny_checkpoints: dict[str, Path]) -> None:
    rows = pl.read([{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(12)], text="text", label="label")
    learn = learner(pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows), rows)
    learn.create_opt()
    for hypers in learn.opt.hypers:  # as ReduceLROnPlateau does
        hypers["lr"] = 1e-7
    assert {group["lr"] for group in learn.opt.opt.param_groups} == {1e-7}


def test_ids_beyond_the_embeddings_are_found_before_the_training(tiny_checkpoints: dict[str, Path]) -> None:
    rows = pl.read([{"text": f"strange {number}", "label": "ab"[number % 2]} for number in range(12)], text="text", label="label")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    pipe.tokenizer.add_tokens(["strange"])
    with pytest.raises(pl.PellucidError, match="outside the model's"):
        learner(pipe, rows)
