"""Layer groups, freezing and what weight decay spares, over thirteen architectures."""

import pytest

from pellucid.errors import SettingError
from pellucid.groups import Group, freeze_to, layer_groups, no_decay
from tiny_models import ARCHITECTURES, tiny_classifier

BLOCKS = {"albert": 1, "t5": 4, "bart": 3}  # ALBERT shares one block; T5 and BART have an encoder and a decoder


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return request.param, tiny_classifier(request.param)


def test_every_parameter_is_in_exactly_one_group(model):
    kind, net = model
    groups = layer_groups(net)
    names = [name for group in groups for name in group.parameters]
    parameters = dict(net.named_parameters())
    assert sorted(names) == sorted(parameters)
    assert len(set(names)) == len(names)
    assert sum(parameters[name].numel() for name in names) == sum(p.numel() for p in net.parameters())
    assert [groups[0].name, groups[-1].name] == ["embeddings", "head"]
    assert len(groups) == 2 + BLOCKS.get(kind, 2), [group.name for group in groups]


def test_the_embeddings_and_the_head_are_what_they_say(model):
    from torch import nn

    _, net = model
    groups = {group.name: group.parameters for group in layer_groups(net)}
    inside = {id(parameter) for parameter in net.base_model.parameters()}
    parameters = dict(net.named_parameters())
    assert all(id(parameters[name]) not in inside for name in groups["head"])
    words = net.get_input_embeddings()
    assert isinstance(words, nn.Embedding)
    assert any(parameters[name] is words.weight for name in groups["embeddings"])
    blocks = [name for group, names in groups.items() if "block" in group for name in names]
    assert not any(parameters[name] is words.weight for name in blocks)


def test_after_freezing_only_the_head_trains(model):
    """fastai's own freeze leaves every LayerNorm of BERT training, down to the embeddings."""
    import torch

    _, net = model
    groups = layer_groups(net)
    named = freeze_to(net, groups, -1)
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == set(groups[-1].parameters) == set(named)
    end = net.config.eos_token_id  # BART and T5 read their answer there
    ids = torch.tensor([[3, 4, 5, 6 if end is None or end >= 40 else end]])
    net(input_ids=ids).logits.sum().backward()
    assert all((parameter.grad is None) == (name not in named) for name, parameter in net.named_parameters())
    net.zero_grad(set_to_none=True)
    freeze_to(net, groups, 0)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_gradual_unfreezing_adds_one_block_at_a_time(model):
    _, net = model
    groups = layer_groups(net)
    counts = [len(freeze_to(net, groups, n)) for n in range(-1, -len(groups) - 1, -1)]
    assert counts == sorted(set(counts))
    assert counts[-1] == len(list(net.parameters()))


def test_norms_and_biases_of_any_class_are_spared_and_matrices_are_not(model):
    _, net = model
    spared = no_decay(net)
    for name, parameter in net.named_parameters():
        norm = "norm" in name.lower() or ".ln_" in name
        if name.endswith("bias") or norm:
            assert name in spared, name
        elif parameter.ndim >= 2:
            assert name not in spared, name
    assert net.get_input_embeddings().weight.ndim == 2
    optimizer_groups = [[p for n, p in net.named_parameters() if (n in spared) is side] for side in (True, False)]
    assert sum(map(len, optimizer_groups)) == len(list(net.parameters()))


def test_rms_norms_of_llama_are_spared():
    net = tiny_classifier("llama")
    assert sum("norm" in name for name in no_decay(net)) == 5  # two a block, and the last


def test_new_weights_inside_the_body_go_to_the_head():
    net = tiny_classifier("bert")
    new = frozenset({"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    with_new, without = layer_groups(net, new), layer_groups(net)
    assert new <= set(with_new[-1].parameters)
    assert new <= set(without[-2].parameters)  # a trained pooler belongs to the last block


def test_final_norm_belongs_to_the_last_block():
    for kind, name in (("gpt2", "transformer.ln_f.weight"), ("llama", "model.norm.weight"), ("modernbert", "model.final_norm.weight")):
        groups = {group.name: group.parameters for group in layer_groups(tiny_classifier(kind))}
        assert name in groups["block 1"], kind


def test_encoder_and_decoder_blocks_are_named_apart():
    names = [group.name for group in layer_groups(tiny_classifier("bart"))]
    assert names == ["embeddings", "encoder block 0", "encoder block 1", "decoder block 0", "head"]


def test_a_model_with_tied_weights_gives_an_optimizer_without_duplicates():
    import torch
    from transformers import AutoModelForMaskedLM

    from tiny_models import tiny_architecture

    net = AutoModelForMaskedLM.from_config(tiny_architecture("bert"))
    groups = layer_groups(net)
    parameters = dict(net.named_parameters())
    torch.optim.AdamW([{"params": [parameters[name] for name in group.parameters]} for group in groups])
    assert "bert.embeddings.word_embeddings.weight" in groups[0].parameters
    assert not any("decoder.weight" in name for group in groups for name in group.parameters)


def test_parallel_lists_of_layers_share_their_groups():
    """XLM keeps attentions, norms and feed-forward layers in lists of their own."""
    from transformers import XLMConfig, XLMForSequenceClassification

    config = XLMConfig(vocab_size=40, emb_dim=16, n_layers=3, n_heads=2, max_position_embeddings=40, pad_index=0)
    groups = layer_groups(XLMForSequenceClassification(config))
    assert [group.name for group in groups] == ["embeddings", "block 0", "block 1", "block 2", "head"]


def test_a_group_that_is_not_there_is_an_error():
    net = tiny_classifier("bert")
    with pytest.raises(SettingError, match=r"freeze_to\(4\), but there are 4 groups: embeddings, block 0, block 1, head"):
        freeze_to(net, layer_groups(net), 4)
    with pytest.raises(SettingError, match="there are 1 groups"):
        freeze_to(net, (Group("all", ()),), -2)


def test_a_shared_block_is_one_group():
    assert [group.name for group in layer_groups(tiny_classifier("albert"))] == ["embeddings", "block 0", "head"]


def test_what_every_block_uses_belongs_to_the_embeddings():
    deberta = layer_groups(tiny_classifier("deberta-v2"))[0].parameters
    assert "deberta.encoder.rel_embeddings.weight" in deberta
    assert "mpnet.encoder.relative_attention_bias.weight" in layer_groups(tiny_classifier("mpnet"))[0].parameters
    bart = layer_groups(tiny_classifier("bart"))[0].parameters  # its norm is registered after the layers
    assert {"model.encoder.layernorm_embedding.weight", "model.decoder.layernorm_embedding.bias"} < set(bart)
    assert "transformer.wpe.weight" in layer_groups(tiny_classifier("gpt2"))[0].parameters  # an embedding that is not called one
