"""Adapters as a kind of freezing: what learns, what sleeps, what is saved, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastai.callback.core import Callback

import pellucid as pl
from conftest import SENTENCES
from matrix import ARCHITECTURES, COLUMNS, UNTRAINED, losses, subject, tokenizers_of
from pellucid.adapter_files import body_digest
from pellucid.adapter_layers import WRAPPED, adapter_parameters, has_adapters, head_modules
from pellucid.adapters import KINDS, AdapterOptions, adapted, merged
from pellucid.errors import CheckpointError, MissingPackageError, PellucidError, SettingError
from pellucid.freezing import group_table
from pellucid.given import as_split
from pellucid.groups import freeze_to, layer_groups, no_decay
from pellucid.provenance import Origin
from pellucid.store import golden, load, save
from pellucid.testing import CHECKS, Subject
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_learner import LearnerOptions, learner

peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'pellucid[peft]'")

TEXTS = list(SENTENCES[:4])
CELLS = (
    ("BERT", "text-classification"),
    ("DistilBERT", "token-classification"),
    ("ModernBERT", "question-answering"),
    ("BERT", "fill-mask"),
    ("GPT-2", "text-generation"),
    ("Llama", "text-classification"),
    ("T5", "text2text-generation"),
    ("BERT", "zero-shot-classification"),
    ("BERT", "feature-extraction"),
)
ENCODERS_AND_DECODERS = ("bert", "gpt2", "llama", "xlm-roberta")


def table():
    return [
        {
            "text": ("good " if place % 3 else "bad ") + text,
            "label": "good" if place % 3 else "bad",
            "split": "train" if place < 9 else "valid",
        }
        for place, text in enumerate(SENTENCES)
    ]


@pytest.fixture(scope="module")
def rows():
    return pl.read(table(), text="text", label="label", split="split")


def made(rows, folder, seed=0):
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return pl.Pipeline.new("text-classification", folder, rows)


@pytest.fixture
def base(tiny_checkpoints, tmp_path):
    """A checkpoint of its own, that a test may move or change."""
    return Path(shutil.copytree(tiny_checkpoints["bert"], tmp_path / "base"))


@pytest.fixture
def pipe(rows, base):
    return made(rows, base)


def stirred(pipe, seed=0, size=0.2):
    """The same pipeline with numbers in its adapters that say something; fresh ones add nothing."""
    import torch

    adapters = adapter_parameters(pipe.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in pipe.model.named_parameters():
            if name in adapters:
                parameter += size * torch.randn(parameter.shape, generator=generator)
    return pipe


def logits(pipe):
    return np.asarray(pipe.predict(TEXTS).row_logits())


def golden_logits(pipe):
    return np.array(golden(pipe)["logits"])


def in_double(pipe):
    """Logits as they are; pipelines give float32."""
    import torch

    table = pipe.encode(as_split(TEXTS, pipe.task.reads))
    with torch.no_grad():
        return pipe.task.run(pipe.model.eval(), pipe.collate(table, np.arange(len(table)))).logits.numpy()


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before, model):
    import torch

    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def training(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# --- what an adapted pipeline is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_at_first_it_answers_as_before_and_the_old_one_stays_as_it_was(pipe, kind):
    names, trained, answers = [name for name, _ in pipe.model.named_parameters()], training(pipe.model), logits(pipe)
    other = adapted(pipe, AdapterOptions(kind, rank=4))
    assert np.allclose(logits(other), answers, atol=1e-6)
    assert [name for name, _ in pipe.model.named_parameters()] == names and training(pipe.model) == trained
    assert has_adapters(other.model) and not has_adapters(pipe.model)
    assert np.abs(logits(stirred(other)) - answers).max() > 1e-5
    assert (logits(pipe) == answers).all()


@pytest.mark.parametrize("kind", ENCODERS_AND_DECODERS)
def test_targets_are_found_by_architecture_and_a_note_says_which(rows, tiny_checkpoints, kind):
    import torch

    pipe = adapted(made(rows, tiny_checkpoints[kind]))
    layers = pipe.model.peft_config["default"].target_modules
    assert layers and all(any(part.isdigit() for part in name.split(".")) for name in layers), "in the blocks"
    wrapped = {name.replace(WRAPPED, "") for name, module in pipe.model.named_modules() if name.endswith("base_layer")}
    assert wrapped == set(layers)
    matrices = [name for name, p in pipe.model.named_parameters() if name.endswith("base_layer.weight") and p.ndim == 2]
    assert len(matrices) == len(layers)
    text = " ".join(map(str, pipe.notes))
    assert f"around {len(layers)} layers" in text and layers[0].rpartition(".")[2] in text
    assert isinstance(pipe.model.base_model, torch.nn.Module) and type(pipe.model).__name__.endswith("ForSequenceClassification")


def test_named_targets_are_the_only_ones(pipe):
    other = adapted(pipe, AdapterOptions(targets=("query", "attention.output.dense")))
    layers = other.model.peft_config["default"].target_modules
    assert {name.rpartition("attention.")[2] for name in layers} == {"self.query", "output.dense"} and len(layers) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_provenance_counts_adapters_and_sums_up(pipe, kind):
    other = adapted(pipe, AdapterOptions(kind, rank=2))
    counts, before = other.provenance.counts(), pipe.provenance.counts()
    named = dict(other.model.named_parameters())
    assert sum(counts.values()) == sum(parameter.numel() for parameter in other.model.parameters()) == other.provenance.total
    assert counts[Origin.ADAPTER] == sum(named[name].numel() for name in adapter_parameters(other.model)) > 0
    assert counts[Origin.PRETRAINED] == before[Origin.PRETRAINED] and counts[Origin.NEW] == before[Origin.NEW]
    assert other.provenance.new_names() == pipe.provenance.new_names()
    assert f"{counts[Origin.ADAPTER]:,} adapter" in other.provenance.view().note
    assert any("adapter" in line for line in other.trace(TEXTS[0]).weights)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "tag"), CELLS)
def test_the_contract_of_every_task_holds(architecture, tag, tiny_tokenizers, tmp_path):
    known = next(each for each in ARCHITECTURES if each.name == architecture)
    column = next(each for each in COLUMNS if each.tag == tag)
    found = subject(known, column, tokenizers_of(tiny_tokenizers)[known.tokenizer], tmp_path)
    assert isinstance(found, Subject), found
    pipe = stirred(adapted(found.pipe, AdapterOptions(rank=4)))
    for check in CHECKS:
        check(replace(found, pipe=pipe))
    if tag not in UNTRAINED:
        seen = losses(replace(found, pipe=pipe))
        assert seen[-1] < seen[0], "five steps of adapters and head lower the loss"
    plain = merged(pipe)
    assert not has_adapters(plain.model)
    check_merged = Subject(plain, found.split, tmp_path / "merged")
    for check in CHECKS:
        check(check_merged)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [each.name for each in ARCHITECTURES if not each.gone])
def test_every_architecture_is_adapted_saved_and_merged(architecture, tiny_tokenizers, tmp_path):
    known = next(each for each in ARCHITECTURES if each.name == architecture)
    for tag in ("text-classification", "text2text-generation"):
        column = next(each for each in COLUMNS if each.tag == tag)
        found = subject(known, column, tokenizers_of(tiny_tokenizers)[known.tokenizer], tmp_path / tag)
        if isinstance(found, str):
            continue
        pipe = stirred(adapted(found.pipe, AdapterOptions(rank=2)), size=0.05)
        before = golden_logits(pipe)
        assert np.abs(golden_logits(merged(pipe)) - before).max() <= 1e-5 * max(1.0, np.abs(before).max())
        assert (golden_logits(load(save(pipe, tmp_path / tag / "adapters"))) == before).all()
        assert sum(pipe.provenance.counts().values()) == sum(parameter.numel() for parameter in pipe.model.parameters())
        pipe.model.double()  # so that what is left is no rounding
        both = in_double(merged(pipe)), in_double(pipe)
        if architecture != "ProphetNet":  # whose masks are no numbers in float64
            assert np.abs(both[0] - both[1]).max() <= 1e-12


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "ia3"])
def test_the_contract_holds_for_every_kind(rows, pipe, kind, tmp_path):
    found = Subject(stirred(adapted(pipe, AdapterOptions(kind, rank=2))), rows.train, tmp_path)
    for check in CHECKS:
        check(found)


def test_evaluate_gives_the_scores_of_predict(rows, pipe):
    other = stirred(adapted(pipe))
    answers = [prediction.answer for prediction in other.predict(rows.valid)]
    right = np.mean([answer == target for answer, target in zip(answers, rows.valid.targets(0, len(rows.valid)), strict=True)])
    assert pl.evaluate(other, rows.valid).scores[0].value == pytest.approx(right)


# --- what learns -------------------------------------------------------------------------------------------------------


@pytest.fixture
def learn(rows, pipe, tmp_path):
    return learner(adapted(pipe, AdapterOptions(rank=2)), rows, options=LearnerOptions(lr=1e-2, loaders=LoaderOptions(bs=4), path=tmp_path))


HEAD = {"classifier.weight", "classifier.bias"}


def test_freezing_leaves_exactly_the_head(learn):
    learn.freeze()
    assert training(learn.model) == HEAD


def test_nothing_wakes_the_body(learn):
    adapters = adapter_parameters(learn.model)
    groups = layer_groups(learn.model, learn.pipe.provenance.new_names())
    assert [group.name for group in groups] == ["adapters of block 0", "adapters of block 1", "head"]
    learn.unfreeze()
    assert training(learn.model) == adapters | HEAD
    for n in (*range(len(groups)), *range(-len(groups), 0)):
        learn.freeze_to(n)
        assert training(learn.model) == {name for group in groups[n:] for name in group.parameters}
        assert training(learn.model) == set(freeze_to(learn.model, groups, n)), "plain freezing does the same"
    learn.unfreeze()
    table = group_table(learn.model, groups, [hyper["lr"] for hyper in learn.opt.hypers])
    assert [(line.name, line.trainable) for line in table.lines] == [
        ("body, asleep", "no"),
        ("adapters of block 0", "yes"),
        ("adapters of block 1", "yes"),
        ("head", "yes"),
    ]
    assert table.lines[0].rate is None
    assert table.total == learn.pipe.provenance.total


def test_training_changes_adapters_and_head_alone(learn):
    before, digest = weights(learn.model), body_digest(learn.model, head_modules(learn.model))
    with learn.no_bar():
        learn.freeze()
        learn.fit(1)
        assert changed(before, learn.model) == HEAD
        learn.fine_tune(2)
    assert changed(before, learn.model) == adapter_parameters(learn.model) | HEAD
    assert body_digest(learn.model, head_modules(learn.model)) == digest


class Peaks(Callback):
    """The highest rate of the last group in each fit."""

    def __init__(self):
        self.found = []

    def before_fit(self):
        self.found.append(0.0)

    def after_step(self):
        self.found[-1] = max(self.found[-1], self.learn.opt.hypers[-1]["lr"])


def test_fine_tune_gives_a_head_twice_the_rate_of_the_adapters(learn):
    with learn.no_bar():
        learn.fine_tune(1, 1e-3, cbs=(peaks := Peaks()))
    assert peaks.found == pytest.approx([2e-3, 1e-3], rel=0.2)


def test_fine_tune_gives_what_is_no_head_the_rate_of_the_whole(tiny_tokenizers, tmp_path):
    known = next(each for each in ARCHITECTURES if each.name == "GPT-2")
    column = next(each for each in COLUMNS if each.tag == "text-generation")
    pipe = adapted(subject(known, column, tiny_tokenizers["bpe"], tmp_path).pipe)
    rows = pl.read([{"text": text} for text in SENTENCES * 4], text="text", label=False)
    learn = learner(pipe, rows, options=LearnerOptions(loaders=LoaderOptions(bs=2)))
    with learn.no_bar():
        learn.fine_tune(1, 1e-3, cbs=(peaks := Peaks()))
    assert peaks.found == pytest.approx([1e-3, 1e-3], rel=0.2)


def test_the_learner_saves_and_loads_its_state(learn):
    with learn.no_bar():
        learn.fit(1)
    learn.save("here")
    kept = weights(learn.model)
    with learn.no_bar():
        learn.fit(1)
    assert changed(kept, learn.model)
    learn.load("here")
    assert not changed(kept, learn.model)


def test_a_trained_head_of_words_stays_asleep(tiny_tokenizers, tmp_path):
    known = next(each for each in ARCHITECTURES if each.name == "GPT-2")
    column = next(each for each in COLUMNS if each.tag == "text-generation")
    found = subject(known, column, tiny_tokenizers["bpe"], tmp_path)
    pipe = adapted(found.pipe)
    assert head_modules(pipe.model) == ()
    assert training(pipe.model) == adapter_parameters(pipe.model)
    assert [group.name for group in layer_groups(pipe.model)] == ["adapters of block 0", "adapters of block 1"]
    assert "nothing learns beside them" in " ".join(map(str, pipe.notes))


def test_weight_decay_spares_what_multiplies(pipe):
    for kind, mark in (("ia3", "ia3_l"), ("dora", "magnitude")):
        model = adapted(pipe, AdapterOptions(kind)).model
        factors = {name for name in adapter_parameters(model) if mark in name}
        assert factors and factors <= no_decay(model)
    model = adapted(pipe, AdapterOptions(rank=1)).model
    assert not no_decay(model) & adapter_parameters(model)


# --- saved alone, merged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_saved_alone_and_come_back_to_the_bit(pipe, tmp_path, kind):
    other = stirred(adapted(pipe, AdapterOptions(kind, rank=2, alpha=3.0, dropout=0.0 if kind == "ia3" else 0.25)))
    folder = save(other, tmp_path / "adapters")
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "pellucid.json", "tokenizer.json"} <= names
    assert not names & {"model.safetensors", "config.json"}
    again = load(folder)
    assert (logits(again) == logits(other)).all()
    assert again.provenance == replace(other.provenance, checkpoint=again.provenance.checkpoint)
    assert training(again.model) == training(other.model)
    assert (again.task, again.options, again.notes) == (other.task, other.options, other.notes)
    twice = load(save(again, tmp_path / "twice"))
    assert (logits(twice) == logits(other)).all()
    first, second = ((tmp_path / name / "adapter_config.json").read_text() for name in ("adapters", "twice"))
    assert first == second
    config = json.loads(first)
    assert config["base_model_name_or_path"] == "base" and len(config["auto_mapping"]["base_sha256"]) == 64
    assert str(tmp_path) not in first + (folder / "pellucid.json").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_peft_itself_opens_the_folder(pipe, rows, base, tmp_path, kind):
    import torch

    other = stirred(adapted(pipe, AdapterOptions(kind, rank=2)))
    with torch.no_grad():
        other.model.classifier.weight += 1.0
    folder = save(other, tmp_path / "adapters")
    theirs = made(rows, base, seed=5)
    opened = peft.PeftModel.from_pretrained(theirs.model, str(folder)).eval()
    tokens = other.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(opened(**tokens).logits, other.model.eval()(**tokens).logits, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_gives_a_plain_pipeline_with_the_same_answers(pipe, tmp_path, kind):
    import torch
    from transformers import AutoModelForSequenceClassification

    other = stirred(adapted(pipe, AdapterOptions(kind, rank=2)))
    before = logits(other)
    plain = merged(other)
    assert np.abs(logits(plain) - before).max() <= 1e-5
    assert (logits(other) == before).all() and has_adapters(other.model)
    assert [name for name, _ in plain.model.named_parameters()] == [name for name, _ in pipe.model.named_parameters()]
    assert plain.provenance == pipe.provenance and "adapters merged into" in str(plain.notes[-1])
    assert training(plain.model) == {name for name, _ in plain.model.named_parameters()}
    folder = save(plain, tmp_path / "plain")
    assert (logits(load(folder)) == logits(plain)).all()
    tokens = plain.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = AutoModelForSequenceClassification.from_pretrained(folder)(**tokens).logits.numpy()
    assert np.allclose(found, before, atol=1e-5)
    assert not hasattr(plain.model, "peft_config")
    adapted(plain, AdapterOptions(base=folder))  # and may be adapted again


def test_a_folder_and_its_checkpoint_move_together(pipe, base, tmp_path):
    other = stirred(adapted(pipe))
    answers = logits(other)
    save(other, tmp_path / "adapters")
    away = tmp_path / "away"
    away.mkdir()
    for name in ("base", "adapters"):
        shutil.move(tmp_path / name, away / name)
    assert (logits(load(away / "adapters")) == answers).all()


def test_a_checkpoint_that_is_gone_is_said_and_can_be_named(pipe, base, tmp_path):
    other = stirred(adapted(pipe))
    folder = save(other, tmp_path / "adapters")
    shutil.move(base, tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"belong on the checkpoint 'base', and there is no folder .*load\('adapters', base=…\)"):
        load(folder)
    again = load(folder, base=tmp_path / "elsewhere")
    assert (logits(again) == logits(other)).all()
    with pytest.raises(CheckpointError, match="cannot be opened: there is no folder"):
        load(folder, base="./nowhere")


def test_a_checkpoint_that_changed_is_refused(rows, pipe, base, tmp_path):
    import torch
    from transformers import AutoModel

    folder = save(adapted(pipe), tmp_path / "adapters")
    body = AutoModel.from_pretrained(base)
    with torch.no_grad():
        body.embeddings.word_embeddings.weight[7, 3] += 1e-3
    body.save_pretrained(tmp_path / "other")
    (base / "model.safetensors").unlink()  # weights may be mapped from it
    shutil.copy(tmp_path / "other" / "model.safetensors", base)
    with pytest.raises(CheckpointError, match="has changed: its weights are not those that the adapters were trained on"):
        load(folder)


def test_a_damaged_file_of_adapters_is_named(pipe, tmp_path):
    folder = save(adapted(pipe), tmp_path / "adapters")
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match="adapter_model"):
        load(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load(folder)


def test_saving_over_an_earlier_save_replaces_it(pipe, tmp_path):
    folder = save(merged(adapted(pipe)), tmp_path / "one")
    other = stirred(adapted(pipe))
    save(other, folder)
    assert (logits(load(folder)) == logits(other)).all() and not (folder / "model.safetensors").exists()
    save(merged(other), folder)
    assert not has_adapters(load(folder).model) and not (folder / "adapter_model.safetensors").exists()


def test_a_trained_head_of_the_checkpoint_is_kept_and_saved(rows, base, tmp_path):
    trained = save(made(rows, base, seed=3), tmp_path / "trained")
    pipe = pl.Pipeline.new("text-classification", trained, rows)
    assert not pipe.provenance.new_names()
    other = stirred(adapted(pipe))
    assert head_modules(other.model) == ("classifier",)
    assert (logits(load(save(other, tmp_path / "adapters"))) == logits(other)).all()


def test_a_dropped_head_of_the_checkpoint_stays_dropped(rows, base, tmp_path):
    trained = save(made(rows, base, seed=3), tmp_path / "trained")
    new = [{**row, "label": {"good": "x", "bad": "y"}[row["label"]]} for row in table()]
    others = pl.read(new, text="text", label="label", split="split")
    pipe = pl.Pipeline.new("text-classification", trained, others, model=pl.ModelOptions(new_head=True))
    other = stirred(adapted(pipe))
    again = load(save(other, tmp_path / "adapters"))
    assert (logits(again) == logits(other)).all() and again.task.labels == ("x", "y")


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_a_body_that_was_trained_needs_its_own_checkpoint(rows, pipe, tmp_path):
    learn = learner(pipe, rows, options=LearnerOptions(lr=1e-2, loaders=LoaderOptions(bs=4), path=tmp_path))
    with learn.no_bar():
        learn.fit(1)
    with pytest.raises(CheckpointError, match=r"the body of the pipeline is not that of .*base=that folder"):
        adapted(pipe)
    folder = save(pipe, tmp_path / "trained")
    other = stirred(adapted(pipe, AdapterOptions(base=folder)))
    again = load(save(other, tmp_path / "adapters"))
    assert (logits(again) == logits(other)).all()


def test_a_body_that_changed_under_its_adapters_is_not_saved_without_it(pipe, tmp_path):
    import torch

    other = adapted(pipe)
    with torch.no_grad():
        other.model.bert.embeddings.word_embeddings.weight += 1.0
    with pytest.raises(CheckpointError, match=r"the body was changed .*pellucid\.merged"):
        save(other, tmp_path / "adapters")
    assert not (tmp_path / "adapters").exists()
    save(merged(other), tmp_path / "all")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "lorra"}, r"no kind of adapter is called 'lorra'.*Did you mean 'lora'"),
        ({"kind": "prefix"}, "There are lora, dora, loha, lokr, ia3"),
        ({"rank": 0}, "expected a rank of 1 or more, came 0"),
        ({"rank": 2.5}, "came 2.5"),
        ({"rank": True}, "came True"),
        ({"alpha": 0}, "expected an alpha above 0"),
        ({"alpha": float("nan")}, "expected an alpha above 0"),
        ({"dropout": 1.0}, "1.0 is no share"),
        ({"targets": "query"}, r"expected names of layers, came 'query'.*targets=\(\"query\", \"value\"\)"),
        ({"targets": ()}, "expected names of layers"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(SettingError, match=words):
        AdapterOptions(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ("qeury",)}, r"called 'qeury'.*Did you mean 'query'\? Its blocks have query, key, value, dense"),
        ({"targets": ("query", "LayerNorm")}, r"'LayerNorm' \(there is a LayerNorm of that name\)"),
        ({"targets": ("classifier",)}, r"outside its head is called 'classifier'"),
        ({"targets": ("word_embeddings",)}, "there is a Embedding of that name"),
        ({"rank": 33}, "the rank 33 is more than the width 32 of the widest layer"),
        ({"base": "./nowhere"}, "cannot be opened: there is no folder"),
    ],
)
def test_options_that_do_not_fit_the_model(pipe, options, words):
    with pytest.raises(PellucidError, match=words):
        adapted(pipe, AdapterOptions(**options))


def test_kinds_that_cannot_go_around_a_layer_say_so(rows, tiny_checkpoints):
    with pytest.raises(SettingError, match=r"loha cannot go around the Conv1D .*Use lora, dora or ia3"):
        adapted(made(rows, tiny_checkpoints["gpt2"]), AdapterOptions("loha"))


def test_an_adapted_model_is_not_adapted_again_and_a_plain_one_not_merged(pipe):
    with pytest.raises(SettingError, match=r"carries adapters already.*merged"):
        adapted(adapted(pipe))
    with pytest.raises(SettingError, match=r"carries no adapters.*adapted"):
        merged(pipe)


def test_a_quantized_model_is_refused(pipe):
    import torch

    small = torch.ao.quantization.quantize_dynamic(pipe.model, {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(SettingError, match="the model is quantized"):
        adapted(replace(pipe, model=small))
    pipe.model.config.quantization_config = {"bits": 4}
    with pytest.raises(SettingError, match=r"the model is quantized.*float32"):
        adapted(pipe)


def test_adapters_that_diverged_are_not_merged(pipe):
    import torch

    other = stirred(adapted(pipe))
    with torch.no_grad():
        next(p for name, p in other.model.named_parameters() if "lora_B" in name).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN"):
        merged(other)


def test_without_peft_the_error_says_how_to_install_it(pipe, monkeypatch):
    import pellucid.errors

    monkeypatch.setattr(pellucid.errors, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"'lora' needs the package 'peft'.*pip install 'pellucid\[peft\]'"):
        adapted(pipe)


# --- in one call -------------------------------------------------------------------------------------------------------


def fitted(rows, folder, **options):
    small = {"epochs": 1, "batch_size": 4, "adapter": "lora", **options}
    return pl.train(rows, checkpoint=folder, options=pl.TrainOptions(**small), tokens=pl.TokenOptions(max_length=32))


def test_one_call_trains_adapters_and_says_at_which_rate(rows, tiny_checkpoints, tmp_path):
    folder = tiny_checkpoints["bert"]
    trained = fitted(rows, folder, adapter=AdapterOptions("lora", rank=4))
    pipe = trained.pipeline
    assert has_adapters(pipe.model) and pipe.provenance.counts()[Origin.ADAPTER] > 0
    assert "the highest learning rate is 0.0005" in " ".join(map(str, trained.notes))
    assert trained.learner.lr == 5e-4
    again = load(save(pipe, tmp_path / "small"))
    assert [each.answer for each in again.predict(TEXTS)] == [each.answer for each in pipe.predict(TEXTS)]
    assert body_digest(pipe.model, head_modules(pipe.model)) == body_digest(adapted_new(rows, folder).model, head_modules(pipe.model))


def adapted_new(rows, folder):
    return adapted(pl.Pipeline.new("text-classification", folder, rows), AdapterOptions("lora", rank=4))


def test_a_rate_that_was_given_is_taken(rows, tiny_checkpoints):
    trained = fitted(rows, tiny_checkpoints["bert"], learning_rate=1e-3)
    assert "highest learning rate" not in " ".join(map(str, trained.notes))
    assert trained.learner.lr == 1e-3


def test_a_head_alone_has_the_same_rate_beside_adapters(rows, tiny_checkpoints):
    with_adapters = fitted(rows, tiny_checkpoints["bert"], freeze_epochs=1, epochs=1)
    assert len(with_adapters.history) == 2
    whole = pl.TrainOptions()
    assert (whole.rate, pl.TrainOptions(adapter="lora").rate) == pytest.approx((5e-5, 5e-4))


def test_an_adapted_training_goes_on_to_the_bit(rows, tiny_checkpoints, tmp_path, monkeypatch):
    from pellucid.training.fastai_checkpoints import Checkpoints

    folder, kept = tiny_checkpoints["bert"], {"checkpoint_every": 1}
    straight = fitted(rows, folder, epochs=2, checkpoints=tmp_path / "one", **kept)
    write, written = Checkpoints._write, []

    def stopping(self, *what):
        write(self, *what)
        written.append(1)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        fitted(rows, folder, epochs=2, checkpoints=tmp_path / "two", **kept)
    monkeypatch.undo()
    resumed = fitted(rows, folder, epochs=2, checkpoints=tmp_path / "two", resume=True, **kept)
    for (name, one), other in zip(straight.pipeline.model.named_parameters(), resumed.pipeline.model.parameters(), strict=True):
        assert (one == other).all(), name
    with pytest.raises(SettingError, match="this is not the run that was interrupted"):
        fitted(rows, folder, epochs=2, checkpoints=tmp_path / "one", resume=True, adapter=None, learning_rate=5e-4, **kept)


@pytest.mark.parametrize(("value", "words"), [("lorra", "Did you mean 'lora'"), (8, "adapter is 8")])
def test_what_is_no_adapter(value, words):
    with pytest.raises(SettingError, match=words):
        pl.TrainOptions(adapter=value)
