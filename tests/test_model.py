"""Heads, labels by name, and batches through the model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pellucid.errors import CheckpointError, LabelError, SettingError, TokenizerError
from pellucid.labels import LabelSet
from pellucid.model import (
    Built,
    ModelOptions,
    accepted_inputs,
    build_classifier,
    features,
    forward,
    inference,
    max_positions,
    set_pad_token,
    to_numpy,
)
from pellucid.provenance import Origin
from pellucid.types import Batch, Want
from tiny_models import ARCHITECTURES, tiny_architecture, tiny_classifier

SINGLE = "single_label_classification"


def build(folder, *names: str, options: ModelOptions = ModelOptions(device="cpu"), problem_type: str = SINGLE, **more: int) -> Built:
    return build_classifier(str(folder), LabelSet(names) if names else None, options, problem_type=problem_type, **more)


def save(model, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def trained(folder: Path, *names: str, kind: str = "bert") -> Path:
    """A checkpoint with a head for these labels."""
    net = tiny_classifier(kind, len(names))
    net.config.id2label, net.config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    return save(net, folder)


def batch_of(*rows: list[int], pad: int = 0, left: bool = False) -> Batch:
    width = max(map(len, rows))
    ids, mask = np.full((len(rows), width), pad), np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = row, 1
    count = np.arange(len(rows))
    return Batch({"input_ids": ids, "attention_mask": mask}, None, count, count * 0, np.array([len(row) for row in rows]))


def whats(built: Built) -> str:
    return " / ".join(map(str, built.notes))


# --- the embedded checkpoint ---------------------------------------------------------------------------------------------


def test_the_embedded_checkpoint_gets_a_new_head(minilm_folder, capfd):
    built = build("minilm", "neg", "pos")
    assert built.model.dtype.itemsize == 4 and not built.model.training
    assert built.provenance.new_names() == {"classifier.weight", "classifier.bias"}
    assert built.provenance.counts() == {Origin.PRETRAINED: 22_713_216, Origin.NEW: 770}
    assert built.provenance.checkpoint == "minilm" and built.labels == LabelSet(("neg", "pos"))
    assert "a new head with 2 outputs" in whats(built)
    assert built.model.config.id2label == {0: "neg", 1: "pos"}
    assert "".join(capfd.readouterr()) == ""  # no progress bar and no report on the way


def test_features_of_the_embedded_checkpoint_equal_plain_transformers(minilm_folder):
    import torch
    from transformers import AutoModel

    built = build("minilm", "neg", "pos")
    batch = batch_of([101, 2023, 102], [101, 2023, 2003, 1037, 102])
    reference = AutoModel.from_pretrained(minilm_folder, dtype="float32", use_safetensors=True)
    with torch.no_grad():
        hidden = reference(**{name: torch.tensor(array) for name, array in batch.inputs.items()}).last_hidden_state.numpy()
    mask = batch.inputs["attention_mask"][..., None]
    np.testing.assert_allclose(features(built.model, batch), (hidden * mask).sum(1) / mask.sum(1), atol=1e-6)
    np.testing.assert_allclose(features(built.model, batch, "cls"), hidden[:, 0], atol=1e-6)
    np.testing.assert_allclose(features(built.model, batch, "last"), hidden[[0, 1], [2, 4]], atol=1e-6)
    np.testing.assert_allclose(features(built.model, batch, "max")[0], hidden[0, :3].max(0), atol=1e-6)


# --- heads and labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_body_gets_a_head_and_a_trained_head_comes_back(kind, tmp_path):
    from transformers import AutoModel

    net = tiny_classifier(kind)
    body = save(AutoModel.from_config(tiny_architecture(kind)), tmp_path / "body")
    new = build(body, "a", "b", "c")
    assert new.provenance.total == sum(parameter.numel() for parameter in new.model.parameters())
    inside = {id(parameter) for parameter in new.model.base_model.parameters()}
    assert new.provenance.new_names() == {name for name, parameter in new.model.named_parameters() if id(parameter) not in inside}
    again = build(save(net, tmp_path / "whole"), "a", "b")
    assert not again.provenance.new_names()
    for (name, ours), theirs in zip(again.model.named_parameters(), net.parameters(), strict=True):
        assert (ours == theirs).all(), name


def test_permuted_labels_take_the_order_of_the_checkpoint(tmp_path):
    folder = trained(tmp_path / "c", "joy", "anger", "fear")
    built = build(folder, "anger", "fear", "joy")
    assert built.labels == LabelSet(("joy", "anger", "fear"))
    assert built.model.config.id2label == {0: "joy", 1: "anger", 2: "fear"}
    assert not built.provenance.new_names() and "another order" in whats(built)


def test_a_permuted_checkpoint_gives_each_row_the_same_answer(tmp_path):
    """The same head with its rows permuted, and names with them: the answers by name do not change."""
    import torch

    names, order = ("anger", "fear", "joy"), [2, 0, 1]
    net = tiny_classifier("bert", 3)
    batch = batch_of([2, 7, 9, 3], [2, 11, 3])
    answers = []
    for folder, places in (("straight", [0, 1, 2]), ("permuted", order)):
        with torch.no_grad():
            copy = tiny_classifier("bert", 3)
            copy.load_state_dict(net.state_dict())
            copy.classifier.weight[:] = net.classifier.weight[places]
            copy.classifier.bias[:] = net.classifier.bias[places]
        copy.config.id2label = {index: names[place] for index, place in enumerate(places)}
        copy.config.label2id = {name: index for index, name in copy.config.id2label.items()}
        built = build(save(copy, tmp_path / folder), *names)
        with inference(built.model):
            logits = to_numpy(forward(built.model, batch)).logits
        answers.append([dict(zip(built.labels.names, row.tolist(), strict=True)) for row in logits])
    assert answers[0] == [pytest.approx(answer, abs=1e-6) for answer in answers[1]]


def test_a_head_of_another_size_is_made_new_and_shows_both_shapes(tmp_path):
    built = build(trained(tmp_path / "c", "a", "b"), *(f"class {number:02}" for number in range(30)))
    assert built.model.config.num_labels == 30 and len(built.labels) == 30
    weight = next(p for p in built.provenance.parameters if p.name == "classifier.weight")
    assert (weight.origin, weight.shape, weight.was) == (Origin.NEW, (30, 16), (2, 16))
    assert "the checkpoint's head has 2 outputs" in whats(built)
    assert built.provenance.total == sum(parameter.numel() for parameter in built.model.parameters())


def test_a_pretrained_part_of_a_head_stays_pretrained(tmp_path):
    built = build(trained(tmp_path / "c", "a", "b", kind="roberta"), "a", "b", "c")
    assert built.provenance.new_names() == {"classifier.out_proj.weight", "classifier.out_proj.bias"}


def test_labels_equal_but_for_case_are_matched_and_said(tmp_path):
    built = build(trained(tmp_path / "c", "POSITIVE", "NEGATIVE"), "negative", "positive")
    assert built.labels == LabelSet(("positive", "negative")) and not built.provenance.new_names()
    assert "capitals" in whats(built)


def test_generic_labels_are_matched_by_position_and_said(tmp_path):
    built = build(save(tiny_classifier("bert"), tmp_path / "c"), "neg", "pos")
    assert built.labels == LabelSet(("neg", "pos")) and not built.provenance.new_names()
    assert "by position" in whats(built)


def test_as_many_labels_with_other_names_are_an_error_that_lists_both(tmp_path):
    folder = trained(tmp_path / "c", "cat", "dog")
    with pytest.raises(LabelError, match=r"'cat', 'dog'; the rows have 'neg', 'pos'.*new_head=True"):
        build(folder, "neg", "pos")
    built = build(folder, "neg", "pos", options=ModelOptions(new_head=True, device="cpu"))
    assert built.provenance.new_names() == {"classifier.weight", "classifier.bias"}
    assert built.provenance.counts()[Origin.PRETRAINED] + 2 * 16 + 2 == built.provenance.total


def test_new_head_is_really_new_and_leaves_the_body(tmp_path):
    import torch

    folder = trained(tmp_path / "c", "a", "b")
    torch.manual_seed(3)
    new = build(folder, "a", "b", options=ModelOptions(new_head=True, device="cpu")).model
    old = build(folder, "a", "b").model
    assert not torch.equal(new.classifier.weight, old.classifier.weight) and new.classifier.weight.std() > 0
    for (name, ours), theirs in zip(new.bert.named_parameters(), old.bert.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_without_labels_the_trained_head_names_them(tmp_path):
    assert build(trained(tmp_path / "c", "x", "y")).labels == LabelSet(("x", "y"))


def test_without_labels_and_without_a_head_is_an_error(minilm_folder):
    with pytest.raises(LabelError, match=r"'minilm' has no trained head.*Pass rows with labels"):
        build("minilm")


def test_regression_has_one_output_and_comes_back(tmp_path):
    new = build("minilm", problem_type="regression", num_outputs=1)
    assert new.labels is None and new.model.config.num_labels == 1 and new.model.config.problem_type == "regression"
    folder = save(new.model, tmp_path / "c")
    again = build(folder, problem_type="regression", num_outputs=1)
    assert not again.provenance.new_names() and again.labels is None
    assert build(folder).model.config.problem_type == "regression"


def test_a_head_that_was_trained_for_another_kind_is_said(tmp_path):
    net = tiny_classifier("bert")
    net.config.problem_type = "multi_label_classification"
    assert "trained for multi_label_classification" in whats(build(save(net, tmp_path / "c"), "a", "b"))


def test_labels_and_outputs_must_agree():
    with pytest.raises(SettingError, match="2 labels, but 3 outputs"):
        build("minilm", "a", "b", num_outputs=3)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "albert", "electra", "deberta-v2", "modernbert"])
def test_a_masked_language_model_gets_a_new_head_and_drops_its_own(kind, tmp_path):
    from transformers import AutoModelForMaskedLM

    built = build(save(AutoModelForMaskedLM.from_config(tiny_architecture(kind)), tmp_path / "c"), "a", "b")
    assert "a head of another kind" in whats(built)
    assert any(name.startswith("classifier") for name in built.provenance.new_names())
    if kind == "modernbert":  # its prediction head serves the classifier too: pretrained, not new
        assert "head.dense.weight" not in built.provenance.new_names()
    if kind == "bert":
        assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} < built.provenance.new_names()


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_is_taken_where_transformers_has_a_head(kind, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    built = build(save(AutoModelForSeq2SeqLM.from_config(tiny_architecture(kind)), tmp_path / "c"), "a", "b")
    assert all(name.startswith("classification_head") for name in built.provenance.new_names())
    end = built.model.config.eos_token_id
    with inference(built.model):
        out = to_numpy(forward(built.model, batch_of([4, 5, end], [6, 7, end], pad=1 if kind == "bart" else 0), Want(True, True)))
    assert out.logits.shape == (2, 2) and out.hidden_states[0].shape == (2, 3, 16) and out.attentions[0].shape == (2, 2, 3, 3)


# --- options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_weights_become_float32_and_that_is_said(half, tmp_path):
    import torch

    folder = save(tiny_classifier("bert").to(getattr(torch, half)), tmp_path / "c")
    built = build(folder, "a", "b")
    assert {parameter.dtype for parameter in built.model.parameters()} == {torch.float32}
    assert f"the checkpoint holds {half}" in whats(built)
    kept = build(folder, "a", "b", options=ModelOptions(dtype="auto", device="cpu"))
    assert kept.model.dtype == getattr(torch, half)
    with inference(kept.model):
        assert to_numpy(forward(kept.model, batch_of([2, 5, 3]))).logits.dtype == np.float32


def test_attention_dropout_reaches_every_architecture_that_has_it(tmp_path):
    for kind in ("bert", "distilbert", "gpt2", "llama", "modernbert"):
        folder = save(tiny_classifier(kind), tmp_path / kind)
        config = build(folder, "a", "b", options=ModelOptions(attention_dropout=0.25, device="cpu")).model.config
        assert 0.25 in [getattr(config, key, None) for key in ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")]
    with pytest.raises(SettingError, match="t5 has no attention dropout of its own"):
        build(save(tiny_classifier("t5"), tmp_path / "t5"), "a", "b", options=ModelOptions(attention_dropout=0.1, device="cpu"))


@pytest.mark.parametrize("kind", ["deberta-v2", "mpnet", "xlnet"])
def test_an_architecture_without_sdpa_falls_back_and_says_so(kind, tmp_path):
    built = build(save(tiny_classifier(kind), tmp_path / "c"), "a", "b")
    assert built.model.config._attn_implementation == "eager" and "has no sdpa attention" in whats(built)


@pytest.mark.parametrize("wrong", [{"dtype": "int8"}, {"attention": "someone/kernel"}, {"attention_dropout": 1.5}])
def test_impossible_options_are_errors(wrong):
    with pytest.raises(SettingError):
        ModelOptions(**wrong)


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(SettingError, match=r"device: the device 'mps:7' cannot be used|device: the device 'mps:7'"):
        build("minilm", "a", "b", options=ModelOptions(device="mps:7"))


@pytest.mark.gpu
def test_on_a_gpu_tensors_stay_there_and_logits_agree():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    batch = batch_of([101, 2023, 102], [101, 2023, 2003, 1037, 102])
    here, there = (build("minilm", problem_type="regression", num_outputs=1, options=ModelOptions(device=d)) for d in ("cpu", "auto"))
    there.model.load_state_dict(here.model.state_dict())
    with inference(here.model), inference(there.model):
        out = forward(there.model, batch)
        assert out.logits.is_cuda
        np.testing.assert_allclose(to_numpy(out).logits, to_numpy(forward(here.model, batch)).logits, atol=1e-4)
    np.testing.assert_allclose(features(there.model, batch), features(here.model, batch), atol=1e-4)


# --- batches through the model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_forward_gives_what_was_wanted_and_a_row_alone_answers_the_same(kind):
    net = tiny_classifier(kind)
    end, pad = net.config.eos_token_id, net.config.pad_token_id
    pad = 5 if pad is None else pad
    set_pad_token(net, pad)
    end = 6 if end is None or end >= 40 or end == pad else end
    rows = ([7, 8, 9, 10, end], [11, 12, end])
    batch = batch_of(*rows, pad=pad, left=kind == "xlnet")
    before = net.config._attn_implementation
    with inference(net):
        both = forward(net, batch, Want(hidden_states=True, attentions=True))
        alone = to_numpy(forward(net, batch_of(rows[1], pad=pad)))
        plain = forward(net, batch)
    both = to_numpy(both)
    assert net.config._attn_implementation == before
    assert both.logits.shape == (2, 2) and both.logits.dtype == np.float32
    assert plain.hidden_states == () and plain.attentions == ()
    assert len(both.hidden_states) >= 3 and len(both.attentions) >= 2
    if kind != "xlnet":  # its hidden states are (tokens, batch, hidden) inside
        assert both.hidden_states[-1].shape == (2, 5, 16) and both.attentions[0].shape == (2, 2, 5, 5)
    np.testing.assert_allclose(both.logits, to_numpy(plain).logits, atol=1e-5)
    np.testing.assert_allclose(both.logits[1], alone.logits[0], atol=1e-5)


def test_forward_keeps_the_graph_and_takes_tensors():
    import torch

    net = tiny_classifier("bert")
    batch = batch_of([2, 7, 3])
    tensors = Batch({name: torch.tensor(array) for name, array in batch.inputs.items()}, None, batch.rows, batch.windows, batch.lengths)
    out = forward(net, tensors)
    assert out.logits.requires_grad
    out.logits.sum().backward()
    assert net.bert.embeddings.word_embeddings.weight.grad is not None


def test_a_decoder_keeps_no_cache_of_keys_and_values():
    net = tiny_classifier("gpt2")
    seen = []
    net.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["use_cache"]), with_kwargs=True)
    forward(net, batch_of([2, 7, 3]))
    assert seen == [False]


def test_inference_brings_every_mode_back():
    import torch

    net = tiny_classifier("bert").train()
    net.bert.embeddings.eval()
    before = [module.training for module in net.modules()]
    with inference(net):
        assert not net.training and not net.bert.encoder.training and not torch.is_grad_enabled()
    assert [module.training for module in net.modules()] == before and torch.is_grad_enabled()


def test_an_input_that_forward_does_not_take_is_named():
    net = tiny_classifier("distilbert")
    batch = batch_of([2, 7, 3])
    extra = Batch({**batch.inputs, "token_type_ids": batch.inputs["input_ids"] * 0}, None, batch.rows, batch.windows, batch.lengths)
    assert "token_type_ids" not in accepted_inputs(net) and {"input_ids", "attention_mask"} <= accepted_inputs(net)
    with pytest.raises(SettingError, match="DistilBertForSequenceClassification does not take the input 'token_type_ids'"):
        forward(net, extra)


def test_ids_beyond_the_embeddings_name_the_row():
    """On a GPU such an id kills the process."""
    net = tiny_classifier("bert")
    with pytest.raises(TokenizerError, match="row 1: token id 40 is outside the model's 40 embeddings"):
        forward(net, batch_of([2, 3], [2, 40]))
    with pytest.raises(TokenizerError, match="row 0"):
        features(net, batch_of([2, -100], [2, 4]))


def test_rows_longer_than_the_positions_name_the_row_and_the_limit():
    with pytest.raises(TokenizerError, match=r"row 1: 41 tokens, but the model reaches 40.*max_length=40"):
        forward(tiny_classifier("bert"), batch_of([2, 3], [4] * 41))


def test_max_positions_counts_what_can_really_be_used():
    expected = {"bert": 40, "roberta": 38, "mpnet": 38, "gpt2": 40, "t5": None, "xlnet": None, "bart": 40, "llama": 40, "modernbert": 40}
    assert {kind: max_positions(tiny_architecture(kind)) for kind in expected} == expected
    for kind in ("bert", "roberta", "mpnet", "gpt2"):  # the longest row that is allowed goes through
        net = tiny_classifier(kind)
        with inference(net):
            forward(net, batch_of([7] * expected[kind], pad=1))


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "xlnet"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_features_do_not_see_padding(kind, pooling):
    net = tiny_classifier(kind).train()
    pad = 1 if net.config.pad_token_id is None else net.config.pad_token_id
    both = features(net, batch_of([7, 8, 9, 10, 11], [12, 13], pad=pad), pooling)
    alone = features(net, batch_of([12, 13], pad=pad), pooling)
    assert both.shape == (2, 16) and both.dtype == np.float32 and net.training
    np.testing.assert_allclose(both[1], alone[0], atol=1e-5)


def test_features_of_a_layer_and_of_rows_padded_on_the_left():
    net = tiny_classifier("bert")
    batch = batch_of([7, 8, 9], [12, 13], left=True)
    with inference(net):
        states = to_numpy(forward(net, batch, Want(hidden_states=True))).hidden_states
    np.testing.assert_allclose(features(net, batch, "cls", 1), states[1][[0, 1], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(features(net, batch, "last", 0), states[0][:, 2], atol=1e-6)
    np.testing.assert_allclose(features(net, batch, "mean", -1), features(net, batch, "mean", 2), atol=1e-6)
    with pytest.raises(SettingError, match="layer is 3, but the body gives 3"):
        features(net, batch, "mean", 3)
    with pytest.raises(SettingError, match="not one of mean, cls, last, max"):
        features(net, batch, "median")


def test_importing_the_module_loads_no_torch():
    code = "import sys, pellucid.model; print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert out.stdout.strip() == "[]", out.stderr


def test_a_broken_weight_is_named(tmp_path):
    import torch

    net = tiny_classifier("bert")
    with torch.no_grad():
        net.bert.encoder.layer[1].output.dense.weight[3, 4] = float("nan")
    with pytest.raises(CheckpointError, match=r"'bert.encoder.layer.1.output.dense.weight' has 1 of 384 numbers that are NaN"):
        build(save(net, tmp_path / "c"), "a", "b")
