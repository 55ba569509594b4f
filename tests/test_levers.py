"""What makes training faster: each lever gives the same numbers up to rounding, or the change that it says."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

import pellucid as pl
from conftest import SENTENCES
from matrix import ARCHITECTURES, COLUMNS, rows_for, tokenizers_of
from matrix import checkpoint as write_checkpoint
from pellucid import linear_products, process
from pellucid.apps.cli import app
from pellucid.errors import SettingError
from pellucid.linear_products import Trial, linear_layers, through_onednn, trial
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_callbacks import GradientCheckpointing
from pellucid.training.fastai_checkpoints import Checkpoints
from pellucid.training.fastai_learner import BFloat16, LearnerOptions, learner
from pellucid.training.fastai_speed import OneDNNProducts, as_in_a_fit, begun_with, faster, make_faster
from resumed import Crash, Crashed

FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"
WITHOUT_DROPOUT_OF_ITS_OWN = ("CTRL", "T5", "XLNet", "mT5")
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def _freed_memory_goes_back() -> Iterator[None]:
    """Nothing that a test sets for the process stays."""
    yield
    process.release_freed_memory()


@pytest.fixture
def small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers of tiny models count as well."""
    monkeypatch.setattr(linear_products, "SMALLEST", 1)
    monkeypatch.setattr(linear_products, "FEWEST", 1)


def rows() -> pl.Rows:
    """Forty rows of two labels."""
    found = [{"text": f"{SENTENCES[place % 12]} {place}", "label": "ab"[place % 2]} for place in range(40)]
    return pl.read(found, text="text", label="label")


def a_learner(folder: Path, path: Path, cbs: object = ()) -> "pl.training.fastai_learner.PellucidLearner":
    """A learner of a tiny checkpoint; the same one each time."""
    torch.manual_seed(0)
    pipe = pl.Pipeline.new("text-classification", folder, rows())
    return learner(pipe, rows(), options=LearnerOptions(lr=1e-3, path=path, loaders=LoaderOptions(bs=8)), metrics=(), cbs=cbs)


def losses(learn: "pl.training.fastai_learner.PellucidLearner") -> list[float]:
    """The loss of each step of an epoch, dropout and all."""
    torch.manual_seed(1)
    with learn.no_bar(), learn.no_logging():
        learn.fit_linear(1)
    return [float(loss) for loss in learn.recorder.losses]


def events(work: object) -> set[str]:
    """The names of the operators that run."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return {event.key for event in seen.key_averages()}


# --- products through oneDNN: the same numbers up to rounding ------------------------------------------------------------


@given(
    st.sampled_from([(1, 1), (5, 3), (2, 7), (3, 40)]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.booleans(),
    st.sampled_from(["whole", "first", "turned"]),
)
@settings(max_examples=60, deadline=None)
def test_a_linear_layer_gives_the_same_with_its_gradients(shape, wide, out, bias, lies):
    """Rows may lie anyhow in memory: the first token of each text, or with sides exchanged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_products, "SMALLEST", 1)
        patch.setattr(linear_products, "FEWEST", 1)
        torch.manual_seed(wide * 71 + out)
        layer = torch.nn.Linear(wide, out, bias=bias)
        whole = torch.randn(*shape, wide)
        seen = {}
        for way in ("torch", "onednn"):
            handles = through_onednn(layer) if way == "onednn" else []
            given_rows = whole.clone().requires_grad_()
            taken = {"whole": given_rows, "first": given_rows[:, 0], "turned": given_rows.transpose(0, 1)}[lies]
            found = layer(taken)
            (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
            slopes = [given_rows.grad, *(parameter.grad for parameter in layer.parameters())]
            seen[way] = [found.detach(), *(slope.clone() for slope in slopes)]
            layer.zero_grad()
            for handle in handles:
                handle.remove()
        for usual, other in zip(seen["torch"], seen["onednn"], strict=True):
            assert usual.shape == other.shape
            torch.testing.assert_close(other, usual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "xlm-roberta"])
def test_training_is_the_same_through_onednn(kind, tiny_checkpoints, tmp_path, small_layers):
    """GPT-2's layers are no torch.nn.Linear, but do the same."""
    usual = losses(a_learner(tiny_checkpoints[kind], tmp_path))
    learn = a_learner(tiny_checkpoints[kind], tmp_path, [OneDNNProducts()])
    found: list[float] = []
    names = events(lambda: found.extend(losses(learn)))
    assert "mkldnn::_linear_pointwise" in names
    np.testing.assert_allclose(found, usual, rtol=2e-4)
    assert "mkldnn::_linear_pointwise" not in events(lambda: learn.pipe.predict(["a text"])), "only while a fit runs"


def test_a_fit_that_is_left_leaves_the_layers_as_they_were(tiny_checkpoints, tmp_path, small_layers):
    learn = a_learner(tiny_checkpoints["bert"], tmp_path, [OneDNNProducts()])
    with learn.no_bar(), learn.no_logging(), pytest.raises(Crashed):
        learn.fit(1, cbs=Crash(2))
    assert "mkldnn::_linear_pointwise" not in events(lambda: learn.pipe.predict(["a text"]))


def test_frozen_bodies_adapters_and_gradient_checkpointing_go_on_working(tiny_checkpoints, tmp_path, small_layers):
    def frozen(*cbs):
        learn = a_learner(tiny_checkpoints["bert"], tmp_path, list(cbs))
        learn.freeze()
        return losses(learn)

    np.testing.assert_allclose(frozen(OneDNNProducts()), frozen(), rtol=2e-4)
    np.testing.assert_allclose(frozen(OneDNNProducts(), GradientCheckpointing()), frozen(), rtol=2e-4)
    whole = losses(a_learner(tiny_checkpoints["bert"], tmp_path))
    both = losses(a_learner(tiny_checkpoints["bert"], tmp_path, [OneDNNProducts(), GradientCheckpointing()]))
    np.testing.assert_allclose(both, whole, rtol=2e-4)


def test_what_is_computed_again_goes_the_same_way(small_layers):
    layer = torch.nn.Linear(8, 8)
    handles = through_onednn(layer)
    given_rows = torch.randn(4, 8, requires_grad=True)
    names = events(lambda: checkpoint(layer, given_rows, use_reentrant=False).sum().backward())
    assert "mkldnn::_linear_pointwise" in names and given_rows.grad is not None
    for handle in handles:
        handle.remove()


def test_other_precisions_small_layers_and_errors_are_left_alone(small_layers):
    layer = torch.nn.Linear(8, 8)
    through_onednn(layer)
    short = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(short).dtype == torch.bfloat16
    layer.double()
    assert layer(short.double()).dtype == torch.float64
    with pytest.raises(RuntimeError):
        layer(torch.randn(4, 9).double())
    assert torch.overrides._get_current_function_mode_stack() == [], "an error leaves nothing behind"


def test_only_layers_that_are_large_enough_are_taken():
    model = torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.Linear(8, 8), torch.nn.LayerNorm(128))
    assert linear_layers(model) == [model[0]]
    assert trial(torch.nn.Linear(8, 8)) is None and trial(model.double()) is None


def test_a_trial_draws_no_random_numbers_and_changes_nothing():
    model = torch.nn.Linear(256, 512)
    state, before = torch.get_rng_state(), model.weight.detach().clone()
    found = trial(model)
    assert found is not None and found.usual > 0 and found.onednn > 0
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(model.weight, before)


def test_onednn_has_to_pay():
    assert Trial(0.003, 0.0014).pays and not Trial(0.003, 0.0025).pays
    assert "3.00 ms as torch does it and 1.40 ms so" in str(Trial(0.003, 0.0014).note())


# --- one call for both ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_freed_memory_goes_back")
@pytest.mark.parametrize("pays", [True, False])
def test_make_faster_says_what_it_did(pays, tiny_checkpoints, tmp_path, monkeypatch, small_layers, capsys):
    monkeypatch.setattr("pellucid.training.fastai_speed.trial", lambda model: Trial(0.003, 0.001 if pays else 0.003))
    learn = a_learner(tiny_checkpoints["bert"], tmp_path)
    notes = make_faster(learn)
    said = capsys.readouterr().out
    assert ("oneDNN" in said) is pays and all(note in learn.pipe.notes for note in notes)
    assert any(isinstance(callback, OneDNNProducts) for callback in learn.cbs) is pays
    make_faster(learn)
    assert sum(isinstance(callback, OneDNNProducts) for callback in learn.cbs) == pays, "twice is once"
    if sys.platform.startswith("linux") and process.keep_freed_memory() is not None:
        assert "freed memory is kept in the process" in said and "release_freed_memory() takes it back" in said


@pytest.mark.usefixtures("_freed_memory_goes_back")
def test_a_run_that_goes_on_multiplies_as_it_began(tiny_checkpoints, tmp_path, monkeypatch, small_layers):
    """Another trial might end otherwise, and the run would not be the same bit for bit."""
    monkeypatch.setattr("pellucid.training.fastai_speed.trial", lambda model: Trial(0.003, 0.001))
    learn = a_learner(tiny_checkpoints["bert"], tmp_path, [Checkpoints(tmp_path / "kept", steps=2)])
    faster(learn)
    losses(learn)
    monkeypatch.setattr("pellucid.training.fastai_speed.trial", lambda model: Trial(0.003, 0.003))
    again = Checkpoints(tmp_path / "kept", steps=2, resume=True)
    assert "OneDNNProducts" in str(begun_with(again))
    other = a_learner(tiny_checkpoints["bert"], tmp_path, [again])
    assert "the run that goes on has begun so" in " ".join(map(str, faster(other)))
    losses(other)
    for name, tensor in learn.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


def test_the_trial_of_precisions_multiplies_as_the_training_will(tiny_checkpoints, tmp_path, small_layers):
    learn = a_learner(tiny_checkpoints["bert"], tmp_path, [OneDNNProducts()])
    text = torch.ones(4, 8, dtype=torch.int64)
    with as_in_a_fit(learn):
        assert "mkldnn::_linear_pointwise" in events(lambda: learn.model(input_ids=text))
    assert "mkldnn::_linear_pointwise" not in events(lambda: learn.model(input_ids=text))


@pytest.mark.usefixtures("_freed_memory_goes_back")
def test_train_is_faster_only_where_it_is_asked_for(tiny_checkpoints, monkeypatch, small_layers):
    monkeypatch.setattr("pellucid.training.fastai_speed.trial", lambda model: Trial(0.003, 0.001))
    plain = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1))
    quick = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1, faster=True))
    assert "oneDNN" not in " ".join(map(str, plain.notes)) and "oneDNN" in " ".join(map(str, quick.notes))
    np.testing.assert_allclose(quick.history, plain.history, rtol=1e-3)


@pytest.mark.usefixtures("_freed_memory_goes_back")
@pytest.mark.parametrize("flag", ["--faster", "--no-faster"])
def test_the_command_line_is_faster_unless_told_otherwise(flag, tiny_checkpoints, tmp_path, monkeypatch, small_layers, capsys):
    """Its process is its own; --attention-dropout reaches the model."""
    monkeypatch.setattr("pellucid.training.fastai_speed.trial", lambda model: Trial(0.003, 0.001))
    lines = ["text,label", *(f'"{SENTENCES[place % 12]} {place}",{"ab"[place % 2]}' for place in range(40))]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    words = ["train", str(tmp_path / "rows.csv"), "-o", str(tmp_path / "model"), "--checkpoint", str(tiny_checkpoints["bert"])]
    words += ["--text", "text", "--label", "label", "--epochs", "1", "--attention-dropout", "0", *([flag] if flag == "--no-faster" else [])]
    app(words, standalone_mode=False)
    said = capsys.readouterr().out
    assert ("linear layers multiply through oneDNN" in said) is (flag == "--faster") and "attention dropout 0" in said
    assert json.loads((tmp_path / "model" / "config.json").read_text())["attention_probs_dropout_prob"] == 0.0


# --- no dropout in attention: another training, and the flash kernel -----------------------------------------------------


CLASSIFIERS = [architecture for architecture in ARCHITECTURES if not architecture.gone]


@pytest.mark.parametrize("architecture", CLASSIFIERS, ids=lambda architecture: architecture.name)
def test_attention_dropout_on_every_architecture(architecture, tiny_tokenizers, tmp_path):
    """Asked for, it is in the model, said, saved with it and loaded again; with 0, sdpa runs in the flash kernel both ways."""
    column = next(column for column in COLUMNS if column.tag == "feature-extraction")
    tokenizer = tokenizers_of(tiny_tokenizers)[architecture.tokenizer]
    why_not = write_checkpoint(architecture, column, tokenizer, tmp_path / "checkpoint")
    assert not why_not
    options = pl.ModelOptions(attention_dropout=0.0, device="cpu")
    if architecture.name in WITHOUT_DROPOUT_OF_ITS_OWN:
        with pytest.raises(SettingError, match="has no attention dropout of its own"):
            pl.Pipeline.new("feature-extraction", tmp_path / "checkpoint", model=options)
        return
    pipe = pl.Pipeline.new("feature-extraction", tmp_path / "checkpoint", model=options)
    said = next(str(note) for note in pipe.notes if note.what == "attention dropout 0")
    names = events(lambda: forward_and_back(pipe))
    if pipe.model.config._attn_implementation == "sdpa":
        assert "flash kernel" in said and FLASH in names and f"{FLASH}_backward" in names, sorted(name for name in names if "dot" in name)
    else:
        assert "has no sdpa attention" in said and FLASH not in names


def forward_and_back(pipe: "pl.Pipeline") -> None:
    """One step of the body in training mode on two texts of different lengths."""
    table = pipe.encode(rows_for("feature-extraction", None).train)
    batch = pipe.collate(table, np.arange(2))
    model = pipe.model.train()
    inputs = {name: torch.from_numpy(np.asarray(array)) for name, array in batch.inputs.items()}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    found = model(**inputs, **({"use_cache": False} if "use_cache" in model.config.to_dict() else {}))
    found[0].float().sum().backward()


def test_without_it_the_kernel_is_another_one(tiny_checkpoints):
    pipe = pl.Pipeline.new("feature-extraction", tiny_checkpoints["bert"])
    assert pipe.model.config.attention_probs_dropout_prob == 0.1 and FLASH not in events(lambda: forward_and_back(pipe))


def test_attention_dropout_is_saved_with_the_model(tiny_checkpoints, tmp_path):
    options = pl.ModelOptions(attention_dropout=0.0)
    trained = pl.train(rows(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1), model=options)
    assert any("attention dropout 0" in note.what for note in trained.notes)
    folder = pl.save(trained.pipeline, tmp_path / "model")
    assert json.loads((Path(folder) / "config.json").read_text())["attention_probs_dropout_prob"] == 0.0
    found = pl.load(folder)
    assert found.model.config.attention_probs_dropout_prob == 0.0
    assert any("attention dropout 0" in note.what for note in found.notes)
    np.testing.assert_array_equal(found.predict(["a text"]).row_logits(), trained.pipeline.predict(["a text"]).row_logits())


def test_attention_dropout_zero_is_what_the_plain_kernel_computes(tiny_checkpoints):
    """The flash kernel gives what attention written out gives: dropout is all that changes."""
    found = {}
    for attention in ("sdpa", "eager"):
        options = pl.ModelOptions(attention_dropout=0.0, attention=attention)
        pipe = pl.Pipeline.new("feature-extraction", tiny_checkpoints["bert"], model=options)
        pipe.model.config.hidden_dropout_prob = 0.0
        for module in pipe.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        forward_and_back(pipe)
        found[attention] = {name: parameter.grad for name, parameter in pipe.model.named_parameters() if parameter.grad is not None}
    assert found["sdpa"].keys() == found["eager"].keys()
    for name, slope in found["sdpa"].items():
        torch.testing.assert_close(slope, found["eager"][name], rtol=1e-3, atol=1e-4)


# --- a token budget ------------------------------------------------------------------------------------------------------


def test_a_token_budget_and_buckets_leave_no_row_out(tiny_checkpoints, tmp_path):
    """Every row is learned from once an epoch; what changes is which rows meet in a step."""
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows())
    loaders = pl.dataloaders(pipe, rows(), options=LoaderOptions(bs=8, max_tokens=120))
    plan = loaders.train.plan(0)
    lengths = loaders.train.table.lengths
    assert sorted(np.concatenate(plan)) == list(range(len(lengths)))
    assert all(len(part) <= 8 and (len(part) == 1 or len(part) * lengths[part].max() <= 120) for part in plan)


def test_bfloat16_is_near(tiny_checkpoints, tmp_path):
    usual = losses(a_learner(tiny_checkpoints["bert"], tmp_path))
    short = losses(a_learner(tiny_checkpoints["bert"], tmp_path, [BFloat16()]))
    np.testing.assert_allclose(short, usual, rtol=0.05)
    assert usual != short
