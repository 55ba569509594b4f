"""Every verb of fastai on every task that is trained: it works, and what it says makes sense."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.interpret import Interpretation

import pellucid as pl
from conftest import SENTENCES
from matrix import ARCHITECTURES, COLUMNS, rows_for, subject, tokenizers_of
from pellucid.errors import SettingError
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_callbacks import Accumulate, FiniteSteps, WeightAverage
from pellucid.training.fastai_learner import LearnerOptions, learner
from pellucid.training.fastai_precision import set_precision
from pellucid.training.fastai_tokens import top_tokens

HOMES = {
    "text-classification": "BERT",
    "token-classification": "BERT",
    "question-answering": "BERT",
    "fill-mask": "BERT",
    "text-generation": "GPT-2",
    "text2text-generation": "T5",
}
KINDS = ("several-labels", "numbers")
CASES = (*HOMES, *KINDS)
LABELLED = ("token-classification", "fill-mask", "text-generation", "text2text-generation")


def of_kind(case, checkpoint):
    """A classification with sets of labels, or with numbers."""
    texts = SENTENCES[:8]
    label = [["a"], ["a", "b"], [], ["b"]] * 2 if case == "several-labels" else [len(text) / 7 for text in texts]
    found = [{"text": t, "label": n} for t, n in zip(texts, label, strict=True)]
    rows = pl.read({"train": found, "valid": found[:4]}, text="text", label="label")
    kind = "multi_label" if case == "several-labels" else "regression"
    return pl.Pipeline.new(pl.SequenceClassification(kind=kind), checkpoint, rows), rows


@pytest.fixture(params=CASES)
def made(request, tiny_tokenizers, tiny_checkpoints, tmp_path):
    """A learner of one task over rows of different lengths, in batches of two."""
    case = request.param
    torch.manual_seed(0)
    if case in KINDS:
        pipe, rows = of_kind(case, tiny_checkpoints["bert"])
    else:
        architecture = next(one for one in ARCHITECTURES if one.name == HOMES[case])
        column = next(one for one in COLUMNS if one.tag == case)
        tokenizer = tokenizers_of(tiny_tokenizers)[architecture.tokenizer]
        pipe = subject(architecture, column, tokenizer, tmp_path).pipe
        rows = rows_for(case, tokenizer.mask_token)
        rows = replace(rows, splits={"train": rows.train, "valid": rows.train})
        if case == "text-generation":
            pipe = replace(pipe, task=replace(pipe.task, pack=False))
    options = LearnerOptions(lr=1e-3, path=tmp_path, loaders=LoaderOptions(bs=2))
    learn = learner(pipe, rows, options=options)
    return SimpleNamespace(case=case, learn=learn, pipe=pipe, rows=rows, windows=len(learn.dls.valid.table))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_show_batch_and_show_results(made, capsys):
    made.learn.dls.show_batch(max_n=2)
    shown = capsys.readouterr().out
    assert "text" in shown and "label" in shown
    made.learn.show_results(max_n=2)
    assert "predicted" in capsys.readouterr().out


def test_predict(made):
    text = ("Where is it?", "Peter lives in Berlin.") if made.case == "question-answering" else "Peter lives in Berlin."
    text = f"{made.pipe.tokenizer.mask_token} lives" if made.case == "fill-mask" else text
    given = dict(zip(made.pipe.task.reads, text, strict=True)) if isinstance(text, tuple) else text
    answer, number, scores = made.learn.predict(given)
    assert answer == made.pipe.predict([given]).answers()[0] and number is not None and scores is not None
    assert len(made.learn.predict([given, given])) == 2


def test_get_preds_and_the_loss_of_every_row(made):
    preds, targets, losses = made.learn.get_preds(with_loss=True)
    assert isinstance(preds, torch.Tensor) and isinstance(targets, torch.Tensor)
    assert len(preds) == len(targets) == len(losses) == made.windows
    wanted, _, _ = made.pipe.losses(made.rows.valid)
    assert np.allclose(losses.numpy(), wanted, atol=1e-4)
    _, _, decoded = made.learn.get_preds(with_decoded=True)
    assert len(decoded) == made.windows
    inputs, again, _ = made.learn.get_preds(with_input=True)
    assert inputs["input_ids"].shape[0] == made.windows and len(again) == made.windows


def test_interpretation_shows_the_worst_rows(made, capsys):
    found = Interpretation.from_learner(made.learn)
    losses, positions = found.top_losses(2)
    everything = made.learn.get_preds(with_loss=True)[-1]
    assert float(losses[0]) == pytest.approx(float(everything.max()), rel=1e-4) and losses[0] >= losses[1]
    assert int(positions[0]) == int(everything.argmax())
    capsys.readouterr()
    found.plot_top_losses(2)
    shown = capsys.readouterr().out
    assert "top losses" in shown and f"{float(losses[0]):.4f}"[:5] in shown
    found.show_results([0, 1])
    assert "predicted" in capsys.readouterr().out
    _, _, picked = found.top_losses(2, items=True)
    rows = made.learn.dls.valid.table.rows
    fields = [made.rows.valid[int(rows[int(place)])].fields for place in positions]
    assert [example.fields for example in picked] == fields


def test_the_dearest_tokens_are_shown_in_their_text(made, capsys):
    if made.case not in LABELLED:
        with pytest.raises(SettingError, match="no label a token"):
            top_tokens(made.learn)
        return
    found = top_tokens(made.learn, 5)
    recorder = made.learn.recorder
    assert recorder in made.learn.cbs and len(found.costs) == 5
    assert [one.loss for one in found.costs] == sorted((one.loss for one in found.costs), reverse=True)
    _, counts, _ = made.pipe.losses(made.rows.valid)
    assert found.scored == counts.sum()
    pl.show(found)
    shown = capsys.readouterr().out
    assert "▸" in shown and "tokens that cost the most" in shown
    first = found.costs[0]
    assert first.label and first.predicted and 0 <= first.row < len(made.rows.valid)
    if made.case == "token-classification":
        assert first.label in made.pipe.task.tags
        text = made.rows.valid[first.row].fields["text"].lower()
        assert first.text.replace("##", "") in text
    if made.case == "text-generation":
        assert first.text == first.label


def test_all_dearest_tokens_make_the_loss(made):
    if made.case not in LABELLED:
        return
    found = top_tokens(made.learn, 10_000)
    losses, counts, _ = made.pipe.losses(made.rows.valid)
    assert len(found.costs) == counts.sum()
    assert sum(one.loss for one in found.costs) == pytest.approx(float((losses * counts).sum()), rel=1e-3)


def test_lr_find_leaves_everything_as_it_was(made):
    before = weights(made.pipe.model)
    with made.learn.no_bar():
        found = made.learn.lr_find(num_it=6, show_plot=False)
    assert 0 < found.valley < 10
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(made.pipe.model).items())


def test_fit_one_cycle_and_fine_tune_learn(made):
    for module in made.pipe.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with made.learn.no_bar():
        made.learn.fit_one_cycle(3, 3e-3)
        first = made.learn.recorder.values[0][0]
        made.learn.fine_tune(2, 1e-3)
    assert made.learn.recorder.values[-1][0] < first
    names = list(made.learn.recorder.metric_names)
    assert names[:3] == ["epoch", "train_loss", "valid_loss"] and names[-1] == "time"
    assert (len(names) > 4) == (made.case != "text2text-generation"), "a column for each score that costs nothing"
    assert all(np.isfinite(made.learn.recorder.values[-1][:2]))


def test_freezing_step_by_step_with_rates_by_layer(made):
    model = made.pipe.model
    total = len(made.learn.split_layers(model))
    counts = []
    for n in (-1, -2, 0):
        made.learn.freeze_to(n)
        counts.append(sum(parameter.requires_grad for parameter in model.parameters()))
        before = weights(model)
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        with made.learn.no_bar():
            made.learn.fit_one_cycle(1, slice(1e-4, 1e-3))
        changed = {name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}
        assert changed and not changed & frozen
    assert counts[0] < counts[1] < counts[2] == len(list(model.parameters()))
    rates = [hyper["lr"] for hyper in made.learn.opt.hypers]
    assert len(rates) == total and rates == sorted(rates) and rates[0] < rates[-1]


def test_summary(made):
    said = str(made.learn.summary())
    assert "Total params" in said and "fused AdamW" in said and made.pipe.task.tag in said


def test_the_callbacks_of_a_step_go_together(made):
    set_precision(made.learn, "bfloat16")
    with made.learn.no_bar():
        made.learn.fit_one_cycle(2, 1e-3, cbs=[Accumulate(2), WeightAverage(0.9), FiniteSteps()])
    assert all(np.isfinite(made.learn.recorder.values[-1][:2]))
