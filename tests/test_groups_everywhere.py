"""What trains after freezing, and its table: every architecture of the course with every head that transformers has for it."""

from functools import cache

import pytest

import pellucid as pl
from conftest import TOKENIZERS
from matrix import ARCHITECTURES, BOTH, tokenizers_of
from pellucid.errors import SettingError
from pellucid.freezing import group_table, tied_head
from pellucid.groups import freeze_to, layer_groups
from pellucid.inspection import view_of
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_learner import LearnerOptions, learner

HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM", "CausalLM", "Seq2SeqLM", "")
WORDS = ("MaskedLM", "CausalLM", "Seq2SeqLM")
FAMILY = {architecture.name: architecture for architecture in ARCHITECTURES if not architecture.gone}


@cache
def sizes():
    return {name: len(tokenizer) for name, tokenizer in tokenizers_of({name: make() for name, make in TOKENIZERS.items()}).items()}


def drawn(name, head, **settings):
    """A random model of that architecture with that head, or None where transformers has none."""
    import torch
    import transformers

    architecture = FAMILY[name]
    config = getattr(transformers, architecture.config)(
        **{**architecture.settings, "vocab_size": sizes()[architecture.tokenizer], **settings}
    )
    auto = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    if type(config) not in auto._model_mapping:
        return None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config).eval()
    if head in WORDS and settings.get("tie_word_embeddings") is False and name == "T5":  # transformers unties it when it loads two matrices
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def names_of_the_body(model):
    """By transformers' own bare body of the same config; its names may lack what the head's model puts before them."""
    import transformers

    body = transformers.AutoModel.from_config(model.config)
    return {name for name, _ in body.named_parameters(remove_duplicate=False)}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("head", HEADS)
def test_freezing_leaves_exactly_the_head(name, head):
    model = drawn(name, head)
    if model is None:
        pytest.skip("transformers has no such head for it")
    groups = layer_groups(model)
    names = [name for group in groups for name in group.parameters]
    parameters = dict(model.named_parameters())
    assert sorted(names) == sorted(parameters), "every parameter in exactly one group, a tied one once"
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    body = names_of_the_body(model)
    everything = model.named_parameters(remove_duplicate=False)
    inside = {id(p) for each, p in everything if each.startswith(prefix) and each.removeprefix(prefix) in body}
    outside = {each for each, parameter in parameters.items() if id(parameter) not in inside}
    if outside:
        assert groups[-1].name == "head" and set(groups[-1].parameters) == outside
    else:
        assert "block" in groups[-1].name, [group.name for group in groups]
    trained = freeze_to(model, groups, -1)
    assert {each for each, parameter in model.named_parameters() if parameter.requires_grad} == set(trained) == set(groups[-1].parameters)
    table = group_table(model, groups)
    assert table.total == sum(parameter.numel() for parameter in model.parameters())
    assert [line.trainable for line in table.lines] == ["no"] * (len(groups) - 1) + ["yes"]
    assert table.training == sum(parameters[each].numel() for each in trained)


@pytest.mark.parametrize("name", [name for name, architecture in FAMILY.items() if architecture.family == BOTH])
def test_an_encoder_decoder_is_embeddings_encoder_decoder_head(name):
    model = drawn(name, "Seq2SeqLM")
    groups = [group.name for group in layer_groups(model) if group.name != "head"]
    assert groups == ["embeddings", *(f"{side} block {number}" for side in ("encoder", "decoder") for number in (0, 1))]


@pytest.mark.parametrize(("name", "head"), [("GPT-2", "CausalLM"), ("Llama", "CausalLM"), ("T5", "Seq2SeqLM"), ("BERT", "MaskedLM")])
@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_counted_once_and_frozen_with_the_embeddings(name, head, tied):
    model = drawn(name, head, tie_word_embeddings=tied)
    groups = layer_groups(model)
    table = group_table(model, groups)
    words = model.get_output_embeddings().weight
    shared = words is model.get_input_embeddings().weight
    assert shared == tied
    assert (tied_head(model) is not None) == tied
    assert ("shares its matrix with" in table.view().note) == tied
    assert table.total == sum(parameter.numel() for parameter in model.parameters())
    freeze_to(model, groups, -1)
    assert words.requires_grad == (not tied), "a tied matrix sleeps with the embeddings: otherwise nothing would be frozen"
    if tied and name != "BERT":  # the head is the matrix and nothing else
        assert "block 1" in groups[-1].name
    if name == "BERT":
        assert any("transform" in each for each in groups[-1].parameters)


def test_the_table_says_group_modules_parameters_rate_and_trainable():
    model = drawn("T5", "Seq2SeqLM", tie_word_embeddings=False)
    groups = layer_groups(model)
    freeze_to(model, groups, -2)
    table = group_table(model, groups, [1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 1e-3])
    view = view_of(table)
    assert view.columns == ("group", "modules", "parameters", "learning rate", "trainable")
    assert [row[0] for row in view.rows] == [group.name for group in groups]
    assert view.rows[0][1] == "shared" and view.rows[1][1] == "encoder.block.0"
    assert view.rows[-1] == ("head", "lm_head", f"{model.lm_head.weight.numel():,}", "0.001", "yes")
    assert [row[4] for row in view.rows] == ["no"] * 4 + ["yes"] * 2
    assert f"of {table.total:,} parameters train" in view.note


def test_a_group_may_train_in_part_and_is_then_a_share():
    model = drawn("BERT", "SequenceClassification")
    groups = layer_groups(model)
    model.requires_grad_(False)
    model.classifier.bias.requires_grad_(True)
    assert group_table(model, groups).lines[-1].trainable.endswith("%")


def test_too_few_rates_are_an_error():
    model = drawn("BERT", "SequenceClassification")
    with pytest.raises(SettingError, match="1 learning rates for 4 groups"):
        group_table(model, layer_groups(model), [1e-3])


SEVEN = {
    "BERT": {"classifier"},
    "DistilBERT": {"pre_classifier", "classifier"},
    "ModernBERT": {"head", "classifier"},
    "GPT-2": {"score"},
    "T5": {"classification_head"},
    "Llama": {"score"},
}


@pytest.mark.parametrize("name", SEVEN)
def test_the_learner_freezes_by_the_table(name, tmp_path):
    """freeze, freeze_to(n) for every n, unfreeze: what trains, and which rates the optimizer has, is what the table says."""
    architecture = FAMILY[name]
    import torch

    model = drawn(name, "")
    tokenizer = tokenizers_of({kind: make() for kind, make in TOKENIZERS.items()})[architecture.tokenizer]
    model.save_pretrained(tmp_path / "body")
    tokenizer.save_pretrained(tmp_path / "body")
    rows = [{"text": f"good {n}", "label": "ab"[n % 2], "split": "train" if n < 8 else "valid"} for n in range(12)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        read = pl.read(rows, text="text", label="label", split="split")
        pipe = pl.Pipeline.new("text-classification", tmp_path / "body", read)
        learn = learner(pipe, read, options=LearnerOptions(lr=1e-3, loaders=LoaderOptions(bs=4), path=tmp_path))
    groups = layer_groups(learn.model, pipe.provenance.new_names())
    learn.freeze()
    trained = {each for each, parameter in learn.model.named_parameters() if parameter.requires_grad}
    assert {each.partition(".")[0] for each in trained} == SEVEN[name]
    assert trained == set(groups[-1].parameters)
    assert all(each.partition(".")[0] in SEVEN[name] for each in modules_that_train(learn, groups))
    for n in (*range(len(groups)), *range(-len(groups), 0)):
        learn.freeze_to(n)
        table = group_table(learn.model, groups, [hyper["lr"] for hyper in learn.opt.hypers])
        first = n if n >= 0 else len(groups) + n
        assert [line.trainable for line in table.lines] == ["no"] * first + ["yes"] * (len(groups) - first)
        assert [line.rate for line in table.lines] == [1e-3] * len(groups)
    learn.unfreeze()
    assert group_table(learn.model, groups).training == sum(parameter.numel() for parameter in learn.model.parameters())


def modules_that_train(learn, groups):
    return [module for line in group_table(learn.model, groups).lines if line.training for module in line.modules]
