"""Three stages with tiny models: random weights, a domain, a classifier; each from the folder that the one before saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES, tiny_config
from pellucid.adapter_layers import has_adapters
from pellucid.energy_report import rounded
from pellucid.errors import DataError, SettingError
from pellucid.groups import layer_groups
from pellucid.pipelines import Pipeline
from pellucid.provenance import Origin
from pellucid.render import to_text
from pellucid.scratch import ModelSizes, from_config
from pellucid.stages import Stage, main_score, run_stage, stages_report
from pellucid.training.one_call import TrainOptions
from pellucid.view import Table
from pellucid.vocab import VocabularyOptions, train_tokenizer

QUICK = TrainOptions(epochs=2, learning_rate=3e-3, batch_size=8)
LANGUAGE = dict.fromkeys(("bert", "modernbert", "roberta", "distilbert"), "fill-mask") | dict.fromkeys(("gpt2", "llama"), "text-generation")
KINDS = {"bert": ("wordpiece", "bert"), "roberta": ("byte-bpe", "roberta"), "distilbert": ("wordpiece", "bert")}
KINDS |= {"modernbert": ("wordpiece", "bert")}
KINDS |= {"gpt2": ("byte-bpe", "gpt2"), "llama": ("unigram", "llama")}
SIZES = {"wordpiece": 200, "byte-bpe": 300, "unigram": 150}


def tokenizer_for(family: str) -> Any:
    kind, names = KINDS[family]
    return train_tokenizer(
        list(SENTENCES), VocabularyOptions(kind=kind, size=SIZES[kind], family=names, min_frequency=None if kind == "unigram" else 1)
    )  # type: ignore[arg-type]


def sizes(family: str) -> ModelSizes:
    return ModelSizes(family, layers=2, hidden=32, heads=2, positions=48)  # type: ignore[arg-type]


def texts(seed: int, count: int = 24) -> pl.Rows:
    order = np.random.default_rng(seed).permutation(count) % len(SENTENCES)
    found = [{"text": SENTENCES[place]} for place in order]
    return pl.read({"train": found, "valid": found[:8]}, text="text", label=False)


def labelled() -> pl.Rows:
    found = [{"text": text, "label": "good" if number % 2 else "bad"} for number, text in enumerate(SENTENCES)] * 3
    return pl.read({"train": found, "valid": found[:12]}, text="text", label="label")


@pytest.mark.parametrize("family", LANGUAGE)
def test_every_weight_is_new_and_follows_from_the_seed(family: str) -> None:
    tokenizer = tokenizer_for(family)
    state = torch.random.get_rng_state()
    pipe = from_config(LANGUAGE[family], sizes(family), tokenizer, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert set(pipe.provenance.counts()) <= {Origin.NEW, Origin.TIED}
    assert pipe.provenance.total == sum(parameter.numel() for parameter in pipe.model.parameters())
    assert pipe.model.config.vocab_size == len(tokenizer)
    same, other = (from_config(LANGUAGE[family], sizes(family), tokenizer, seed=seed) for seed in (7, 8))
    for name, parameter in pipe.model.named_parameters():
        assert torch.equal(parameter, same.model.get_parameter(name))
    assert any(not torch.equal(parameter, other.model.get_parameter(name)) for name, parameter in pipe.model.named_parameters())
    assert "every weight began as a random number" in str(pipe.notes[0])
    assert "from its config" in to_text(pipe.view())


def test_a_config_of_transformers_is_taken_and_not_changed() -> None:
    config, tokenizer = tiny_config("bert", 999), tokenizer_for("bert")
    pipe = from_config("fill-mask", config, tokenizer)
    assert config.vocab_size == 999
    assert pipe.model.config.vocab_size == len(tokenizer)
    assert pipe.model.config.pad_token_id == tokenizer.pad_token_id


def test_a_classifier_may_begin_with_nothing() -> None:
    pipe = from_config("text-classification", sizes("bert"), tokenizer_for("bert"), rows=labelled())
    assert set(pipe.provenance.counts()) == {Origin.NEW}
    assert pipe("A film.").answer in ("good", "bad")


@pytest.mark.parametrize("family", ["bert", "modernbert", "roberta", "gpt2", "llama"])
def test_a_model_from_nothing_has_the_groups_of_any_other(family: str) -> None:
    pipe = from_config("text-classification", sizes(family), tokenizer_for(family), rows=labelled())
    learn = pl.learner(pipe, labelled())
    groups = layer_groups(pipe.model, pipe.provenance.new_names())
    names = [group.name for group in groups]
    assert names[0] == "embeddings" and names[-1] == "head" and any(name.startswith("block") for name in names)
    learn.freeze()
    training = {name for name, one in pipe.model.named_parameters() if one.requires_grad}
    assert training == set(groups[-1].parameters)
    body = {id(one) for one in pipe.model.base_model.parameters()}
    assert not any(id(one) in body for name, one in pipe.model.named_parameters() if name in training)


def test_no_head_is_trained_alone_over_a_body_that_knows_nothing(tmp_path: Path) -> None:
    table = [
        {"words": ["Ann", "sings", str(place)], "tags": ["B-PER", "O", "O"], "split": "train" if place % 4 else "valid"}
        for place in range(16)
    ]
    rows = pl.read(table, text="words", label="tags", split="split")
    pipe = from_config("token-classification", sizes("bert"), tokenizer_for("bert"), rows=rows)
    stage = run_stage("tags", pipe, rows, tmp_path / "1", options=QUICK)
    assert not any("trained alone" in str(note) for note in pl.load(stage.folder).notes)


@pytest.mark.parametrize("family", ["bert", "modernbert", "roberta", "gpt2", "llama"])
def test_three_stages_each_from_the_folder_before(family: str, tmp_path: Path) -> None:
    task = LANGUAGE[family]
    first = run_stage("pretrain", from_config(task, sizes(family), tokenizer_for(family)), texts(1), tmp_path / "1", options=QUICK)
    assert first.new == first.parameters
    second = run_stage("adapt", Pipeline.new(task, first.folder), texts(2), tmp_path / "2", options=QUICK)
    assert second.new == 0
    rows = labelled()
    pipe = Pipeline.new("text-classification", second.folder, rows)
    body = {one.name for one in pipe.provenance.parameters if one.origin is Origin.PRETRAINED}
    assert body and pipe.provenance.counts()[Origin.NEW] < pipe.provenance.total / 5  # the head, and a pooler where there is one
    adapted = pl.load(second.folder)
    inner = dict(adapted.model.base_model.named_parameters())
    for name, parameter in pipe.model.base_model.named_parameters():
        if "pooler" not in name:
            assert torch.equal(parameter, inner[name])  # the classifier begins with what the stage before learned
    third = run_stage("classify", pipe, rows, tmp_path / "3", options=QUICK)
    assert first.after.name == second.after.name == "perplexity"
    assert first.gain > 0 and second.gain > 0
    assert third.after.name == "accuracy" and third.after.low is not None
    assert pl.load(third.folder)("A dull film.").answer in ("good", "bad")
    report = to_text(stages_report([first, second, third]).view(), width=140)
    for words in ("pretrain", "adapt", "classify", "perplexity", "accuracy", "of them new", "tokens read"):
        assert words in report


def test_the_folder_of_a_stage_opens_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    stage = run_stage("pretrain", from_config("fill-mask", sizes("bert"), tokenizer_for("bert")), texts(1), tmp_path / "1", options=QUICK)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(stage.folder), AutoTokenizer.from_pretrained(stage.folder)
    ours = pl.load(stage.folder)
    with torch.no_grad():
        theirs = model.eval()(**tokenizer("A dull film.", return_tensors="pt")).logits
    batch = ours.collate(
        ours.encode(pl.read([{"text": "A dull film."}], label=False, options=pl.ReadOptions(valid_fraction=0)).train), np.array([0])
    )
    np.testing.assert_allclose(ours.run(batch).logits, theirs.numpy(), atol=1e-6)


def test_the_same_seed_gives_the_same_stage(tmp_path: Path) -> None:
    def once(name: str) -> Stage:
        pipe = from_config("fill-mask", sizes("bert"), tokenizer_for("bert"), seed=3)
        return run_stage("pretrain", pipe, texts(1), tmp_path / name, options=QUICK)

    one, two = once("one"), once("two")
    assert (one.after, one.tokens) == (two.after, two.tokens)
    assert (one.folder / "model.safetensors").read_bytes() == (two.folder / "model.safetensors").read_bytes()


def test_a_stage_does_all_that_its_options_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = replace(QUICK, adapter="lora", precision="bfloat16", checkpoints=tmp_path / "kept", checkpoint_every=1)
    first = run_stage("pretrain", from_config("fill-mask", sizes("bert"), tokenizer_for("bert")), texts(1), tmp_path / "1", options=QUICK)
    second = run_stage("adapt", Pipeline.new("fill-mask", first.folder), texts(2), tmp_path / "2", options=options)
    assert "bfloat16" in caplog.text
    assert list((tmp_path / "kept").glob("step-*"))
    found = pl.load(second.folder)
    assert not has_adapters(found.model), "the next stage begins with a plain model"
    assert main_score(found, texts(2)) == second.after


def test_random_weights_are_not_put_to_sleep(tmp_path: Path) -> None:
    nothing = from_config("fill-mask", sizes("bert"), tokenizer_for("bert"))
    with pytest.raises(SettingError, match=r"every weight of this model is random.*Train the whole model first"):
        run_stage("pretrain", nothing, texts(1), tmp_path / "1", options=replace(QUICK, adapter="lora"))


def test_tokens_are_those_that_were_read(tmp_path: Path) -> None:
    pipe, rows = from_config("fill-mask", sizes("bert"), tokenizer_for("bert")), texts(1)
    stage = run_stage("pretrain", pipe, rows, tmp_path / "1", options=QUICK)
    assert stage.tokens == 2 * int(pipe.encode(rows.train).lengths.sum())
    assert stage.rows == len(rows.train)


def test_ways_to_the_same_task_stand_beside_each_other(tmp_path: Path) -> None:
    rows, tokenizer = labelled(), tokenizer_for("bert")
    first = run_stage(
        "nothing", from_config("text-classification", sizes("bert"), tokenizer, rows=rows), rows, tmp_path / "1", options=QUICK
    )
    second = replace(first, name="something", after=replace(first.after, low=None, high=None))
    view = stages_report([first, second]).view()
    bars = [part for part in view.parts if type(part).__name__ == "Bars"]
    assert len(bars) == 1 and bars[0].labels == ("nothing", "something")
    assert first.view() and "<table" in first._repr_html_()


def test_the_energy_of_each_stage_is_reported(tmp_path: Path) -> None:
    tokenizer, options = tokenizer_for("bert"), replace(QUICK, carbon_intensity=56)
    first = run_stage("pretrain", from_config("fill-mask", sizes("bert"), tokenizer), texts(1), tmp_path / "1", options=options)
    assert first.energy is not None and first.energy.watt_hours is not None and first.energy.grams is not None
    assert 0 < first.energy.seconds <= first.seconds + 0.1, "of the training, without the scores before and after"
    second = replace(first, name="adapt", energy=replace(first.energy, carbon_intensity=None))
    view = stages_report([first, second]).view()
    (table,) = (part for part in view.parts if isinstance(part, Table) and part.title == "what each stage took")
    assert table.columns == ("stage", "Wh", "g CO2e") and [line[0] for line in table.rows] == ["pretrain", "adapt"]
    assert all(f"{rounded(first.energy.watt_hours):g} (" in str(line[1]) for line in table.rows), "with its range"
    assert str(table.rows[0][2]).startswith(f"{rounded(first.energy.grams):g} (") and table.rows[1][2] is None
    assert first.energy.parts[0].method in str(first.view()), "a page of its own says how it is known"
    (alone,) = (part for part in stages_report([second]).view().parts if isinstance(part, Table) and part.title == "what each stage took")
    assert alone.columns == ("stage", "Wh"), "nobody said how clean the electricity is"
    part_of_it = replace(first, energy=replace(first.energy, of="1 of 2 processes only"))
    assert to_text(stages_report([part_of_it]).view(), width=140).count("of 1 of 2 processes only") == 2
    assert "Wh" not in to_text(stages_report([replace(first, energy=None)]).view())


# --- bad input ---------------------------------------------------------------------------------------------------------


def test_rows_without_a_part_kept_aside(tmp_path: Path) -> None:
    rows = pl.read([{"text": text} for text in SENTENCES], text="text", label=False, options=pl.ReadOptions(valid_fraction=0.0))
    with pytest.raises(DataError, match="no rows are kept aside, so nothing could be said of the stage"):
        run_stage("pretrain", from_config("fill-mask", sizes("bert"), tokenizer_for("bert")), rows, tmp_path / "1")
    with pytest.raises(DataError, match="there is no stage to report"):
        stages_report([])


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(SettingError, match=r"there is no family 'brt'\. Did you mean 'bert'"):
        ModelSizes("brt")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="3 heads cannot share a width of 32"):
        ModelSizes(hidden=32, heads=3)
    with pytest.raises(SettingError, match=r"2 heads cannot share a width of 6\. Take heads=1"):
        ModelSizes("llama", hidden=6, heads=2)  # three numbers a head make no pairs
    with pytest.raises(SettingError, match=r"1 heads cannot share a width of 7\. Take a width that is even"):
        ModelSizes("modernbert", hidden=7, heads=1)
    with pytest.raises(SettingError, match="layers is 0"):
        ModelSizes(layers=0)


def test_a_task_that_the_family_has_no_head_for() -> None:
    from pellucid.errors import CheckpointError

    with pytest.raises(CheckpointError, match="no MaskedLM head"):
        from_config("fill-mask", sizes("gpt2"), train_tokenizer(list(SENTENCES), VocabularyOptions(size=200, min_frequency=1)))
