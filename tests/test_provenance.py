"""Where weights come from: counts that sum, tied weights once, a table, and JSON there and back."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import CheckpointError
from pellucid.provenance import Origin, ParameterOrigin, Provenance, of_model
from tiny_models import ARCHITECTURES, tiny_architecture, tiny_classifier


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_counts_sum_to_all_parameters(kind):
    net = tiny_classifier(kind)
    inside = {id(parameter) for parameter in net.base_model.parameters()}
    missing = frozenset(name for name, parameter in net.named_parameters() if id(parameter) not in inside)
    provenance = of_model(net, checkpoint=kind, missing=missing)
    total = sum(parameter.numel() for parameter in net.parameters())
    assert sum(provenance.counts().values()) == provenance.total == total
    assert provenance.new_names() == missing
    assert provenance.counts()[Origin.NEW] == sum(dict(net.named_parameters())[name].numel() for name in missing)
    assert {p.name for p in provenance.parameters} == {name for name, _ in net.named_parameters(remove_duplicate=False)}
    assert sum(row[1] for row in provenance.view().rows) == total
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json()))) == provenance


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5", "bart"])
def test_tied_weights_count_once(kind):
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    auto = {"bert": AutoModelForMaskedLM, "gpt2": AutoModelForCausalLM}.get(kind, AutoModelForSeq2SeqLM)
    net = auto.from_config(tiny_architecture(kind))
    provenance = of_model(net, checkpoint=kind)
    tied = [parameter for parameter in provenance.parameters if parameter.origin is Origin.TIED]
    assert tied and all(parameter.count == 0 and parameter.tied_to for parameter in tied)
    assert provenance.total == sum(parameter.numel() for parameter in net.parameters())
    assert any(f"is {tied[0].tied_to}" in str(row[3]) for row in provenance.view().rows)


def test_every_origin_has_its_mark():
    net = tiny_classifier("bert")
    words, query = "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"
    provenance = of_model(
        net,
        checkpoint="x",
        missing=frozenset({"classifier.bias"}),
        mismatched={"classifier.weight": (5, 16)},
        resized={words: (38, 16)},
        adapter=frozenset({query}),
    )
    by_name = {parameter.name: parameter for parameter in provenance.parameters}
    assert by_name["classifier.bias"].origin is Origin.NEW and by_name["classifier.bias"].was is None
    assert by_name["classifier.weight"].origin is Origin.NEW and by_name["classifier.weight"].was == (5, 16)
    assert by_name[words].origin is Origin.RESIZED and by_name[words].was == (38, 16)
    assert by_name[query].origin is Origin.ADAPTER
    assert by_name["bert.pooler.dense.bias"].origin is Origin.PRETRAINED
    shapes = [row[3] for row in provenance.view().rows if row[0] == "classifier"]
    assert shapes == ["(2, 16) was (5, 16), (2,)"]
    assert provenance.new_names() == {"classifier.bias", "classifier.weight"}


def test_equal_blocks_share_a_line_and_a_different_one_stands_alone():
    net = tiny_classifier("bert")
    modules = [row[0] for row in of_model(net, checkpoint="x").view().rows]
    assert modules == ["bert.embeddings", "bert.encoder.layer.0-1", "bert.pooler", "classifier"]
    missing = frozenset({"bert.encoder.layer.1.output.dense.bias"})
    rows = of_model(net, checkpoint="x", missing=missing).view().rows
    assert [row[0] for row in rows if row[2] == "new"] == ["bert.encoder.layer.1"]
    assert sum(row[1] for row in rows) == sum(parameter.numel() for parameter in net.parameters())


shapes = st.lists(st.integers(1, 9), max_size=3).map(tuple)
names = st.lists(st.sampled_from(["layer", "0", "1", "2", "weight", "bias", "head"]), min_size=1, max_size=5).map(".".join)


@st.composite
def provenances(draw):
    chosen = draw(st.lists(names, unique=True, max_size=12))
    parameters = []
    for name in chosen:
        shape, origin = draw(shapes), draw(st.sampled_from(Origin))
        tied = origin is Origin.TIED
        was = draw(st.none() | shapes) if origin in (Origin.NEW, Origin.RESIZED) else None
        parameters.append(ParameterOrigin(name, shape, 0 if tied else math.prod(shape), origin, was, "other" if tied else None))
    return Provenance(draw(st.text(max_size=5)), tuple(parameters))


@given(provenances())
def test_json_goes_there_and_back_and_the_table_sums(provenance):
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json()))) == provenance
    assert sum(row[1] for row in provenance.view().rows) == provenance.total == sum(provenance.counts().values())


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        {"checkpoint": "x"},
        {"checkpoint": "x", "parameters": [["name"]]},
        {"checkpoint": "x", "parameters": [["name", [2, 3], 7, "new", None, None]]},
        {"checkpoint": "x", "parameters": [["name", [2], 2, "stolen", None, None]]},
        {"checkpoint": "x", "parameters": 5},
        {"checkpoint": "x", "parameters": [["name", "no shape", 0, "new", None, None]]},
    ],
)
def test_a_spoilt_record_is_an_error(spoilt):
    with pytest.raises(CheckpointError, match="where the weights come from"):
        Provenance.from_json(spoilt)
