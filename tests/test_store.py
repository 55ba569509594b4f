"""A pipeline through a folder and back: exact, a plain transformers folder, and nothing but what was saved."""

import json
import math
import os
import pickle
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TINY_CHECKPOINTS
from injection import in_child, killed_at, no_exchange, start_child, wait_for
from pellucid.errors import CheckpointError, PellucidError, SettingError, StorageError
from pellucid.files import recover, write_json
from pellucid.manifest import MANIFEST, read_manifest, verify, write_manifest
from pellucid.model import ModelOptions
from pellucid.pipelines import Pipeline
from pellucid.store import GOLDEN_TEXTS, golden, load, save
from pellucid.tasks.sequence_classification import SequenceClassification
from pellucid.tokens import TokenOptions

SWAPS = {"exchange": nullcontext, "aside": no_exchange}
LABELS = ("negative", "neutral", "positive")


def make(folder: Path, task: SequenceClassification | None = None, seed: int = 0, **options: Any) -> Pipeline:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Pipeline.new(task or SequenceClassification(labels=LABELS, kind="single_label"), folder, **options)


def logits(pipe: Pipeline) -> np.ndarray:
    return np.array(golden(pipe)["logits"])


@pytest.fixture(scope="session")
def tiny(tiny_checkpoints: dict[str, Path]) -> Pipeline:
    """A small pipeline that no test changes."""
    return make(tiny_checkpoints["bert"])


@pytest.fixture(scope="session")
def pristine(tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved folder that no test changes."""
    return save(tiny, tmp_path_factory.mktemp("store") / "pristine")


@pytest.fixture
def saved(pristine: Path, tmp_path: Path) -> Path:
    """A copy of a saved folder."""
    return Path(shutil.copytree(pristine, tmp_path / "saved"))


def sign_again(folder: Path, change: Callable[[dict[str, Any]], None] = lambda content: None) -> None:
    """The manifest as someone would write it who changed the folder on purpose."""
    content = json.loads((folder / MANIFEST).read_text())
    for key in ("format", "files", "checksum"):
        del content[key]
    change(content)
    write_manifest(folder, content)


# --- there and back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(TINY_CHECKPOINTS))
def test_everything_comes_back(tiny_checkpoints: dict[str, Path], tmp_path: Path, kind: str) -> None:
    pipe = make(tiny_checkpoints[kind])
    folder = save(pipe, tmp_path / "model")
    again = load(folder)
    assert again.task == pipe.task and again.options == pipe.options and again.notes == pipe.notes
    assert again.provenance.parameters == pipe.provenance.parameters and again.checkpoint == tiny_checkpoints[kind].name
    assert np.array_equal(logits(again), logits(pipe))
    assert {name: tensor.tolist() for name, tensor in again.model.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in pipe.model.state_dict().items()
    }


@pytest.mark.parametrize("kind", list(TINY_CHECKPOINTS))
def test_transformers_opens_it_with_the_same_answers(tiny_checkpoints: dict[str, Path], tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    pipe = make(tiny_checkpoints[kind])
    folder = save(pipe, tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.id2label == dict(enumerate(LABELS)) and model.config.label2id["positive"] == 2
    texts = list(GOLDEN_TEXTS[:2])
    rows = tokenizer(texts)["input_ids"]
    assert rows == golden(pipe)["ids"][:2]
    with torch.no_grad():
        theirs = [model(input_ids=torch.tensor([row])).logits[0].tolist() for row in rows]
    assert np.allclose(theirs, logits(pipe)[:2], atol=1e-5)


@pytest.mark.parametrize(
    "task",
    [
        SequenceClassification(labels=LABELS, kind="multi_label", thresholds=(0.1, 0.5, 0.9)),
        SequenceClassification(kind="regression"),
        SequenceClassification(labels=("<script>", "ünïcodé 🙂 " + "long" * 200), kind="single_label", pair=True),
        SequenceClassification(labels=tuple(f"class {i}" for i in range(500)), kind="single_label"),
    ],
    ids=["multi-label", "regression", "pair", "500 classes"],
)
def test_every_kind_of_task_comes_back(tiny_checkpoints: dict[str, Path], tmp_path: Path, task: SequenceClassification) -> None:
    pipe = make(tiny_checkpoints["bert"], task, tokens=TokenOptions(max_length=24, pad_to_multiple_of=8))
    again = load(save(pipe, tmp_path / "model"))
    assert again.task == pipe.task and again.options.max_length == 24
    assert np.array_equal(logits(again), logits(pipe))


def test_half_precision_stays_half(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    import torch

    pipe = make(tiny_checkpoints["bert"], model=ModelOptions(dtype="bfloat16"))
    again = load(save(pipe, tmp_path / "model"))
    assert again.model.dtype == torch.bfloat16 and np.array_equal(logits(again), logits(pipe))


def test_embedded_checkpoint_comes_back(minilm_folder: Path, tmp_path: Path) -> None:
    pipe = make(minilm_folder)
    again = load(save(pipe, tmp_path / "model"))
    assert np.array_equal(logits(again), logits(pipe))
    assert again.provenance.total == sum(p.numel() for p in again.model.parameters())


def test_folder_holds_no_pickle_and_no_path_of_this_machine(pristine: Path) -> None:
    assert sorted(os.listdir(pristine)) == ["config.json", "model.safetensors", MANIFEST, "tokenizer.json", "tokenizer_config.json"]
    for path in pristine.iterdir():
        content = path.read_bytes()
        assert str(pristine.parent.parent).encode() not in content, path
        assert not content.startswith((b"\x80", b"PK"))


def test_nothing_is_pickled_on_the_way(tiny: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickle was used")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "dump"), (pickle, "dumps"), (torch, "load"), (torch, "save")):
        monkeypatch.setattr(module, name, refuse)
    load(save(tiny, tmp_path / "model"))


def test_saving_over_the_folder_it_came_from(tiny: Pipeline, tmp_path: Path) -> None:
    folder = save(tiny, tmp_path / "model")
    first = load(folder)
    for _ in range(2):
        save(first, folder)
        assert np.array_equal(logits(first), logits(tiny))
    save(make_other(tiny), folder)
    for path in folder.iterdir():
        os.truncate(path, 0)  # what the model holds is no longer in any file
    assert np.array_equal(logits(first), logits(tiny)) and os.listdir(tmp_path) == ["model"]


def make_other(pipe: Pipeline) -> Pipeline:
    """The same pipeline with other weights."""
    import copy

    import torch

    model = copy.deepcopy(pipe.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    return replace(pipe, model=model)


def test_saving_leaves_the_pipeline_as_it_was(tiny_checkpoints: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe = make(tiny_checkpoints["bert"])
    pipe.model.train()
    config, weights = pipe.model.config.to_dict(), pipe.model.state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    save(pipe, tmp_path / "model")
    assert pipe.model.training and pipe.model.config.to_dict() == config
    assert all(bool((before[name] == tensor).all()) for name, tensor in pipe.model.state_dict().items())
    assert capfd.readouterr() == ("", "")  # no progress bar, no log


def test_copies_and_the_hubs_links_load(saved: Path, tmp_path: Path) -> None:
    """A folder in the Hub's cache holds links to files that lie elsewhere."""
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(saved, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert np.array_equal(logits(load(snapshot)), logits(load(saved)))
    (tmp_path / "link").symlink_to(saved)
    load(tmp_path / "link")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match=r"config\.json: the file has"):
        load(snapshot)


def test_documents_beside_a_save_are_kept(tiny: Pipeline, saved: Path) -> None:
    for name in ("README.md", ".gitattributes", "LICENSE", "curve.png"):
        (saved / name).write_text(f"my {name}")
    load(saved)
    for content in ("my README.md", "changed"):
        (saved / "README.md").write_text(content)
        save(tiny, saved)
        assert (saved / "README.md").read_text() == content and (saved / "curve.png").read_text() == "my curve.png"
        load(saved)


# --- what is not as it was saved ---------------------------------------------------------------------------------------------


def test_truncation_at_every_512_bytes_is_found(saved: Path) -> None:
    for path in sorted(saved.iterdir()):
        whole = path.read_bytes()
        for length in (*range(0, len(whole), 512), len(whole) - 2):  # the last byte may be an empty line's
            os.truncate(path, length)
            with pytest.raises(CheckpointError) as raised:
                load(saved)
            assert path.name in str(raised.value)
            path.write_bytes(whole)
    load(saved)


def means_the_same(left: bytes, right: bytes) -> bool:
    """Whether two files hold the same JSON."""
    try:
        return json.loads(left) == json.loads(right)
    except ValueError:
        return False


def test_any_flipped_bit_is_found(saved: Path) -> None:
    dice = random.Random(0)
    for path in sorted(saved.iterdir()):
        whole = path.read_bytes()
        for _ in range(40):
            place, bit = dice.randrange(len(whole)), dice.randrange(8)
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            if path.suffix == ".json" and means_the_same(whole, bytes(flipped)):
                continue  # 1e-05 became 1E-05: the same number
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError):
                load(saved)
        path.write_bytes(whole)
    load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: the file is missing.*whole copy"):
        load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", MANIFEST])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling link"])
def test_something_else_in_place_of_a_file_does_not_hang(saved: Path, name: str, kind: str) -> None:
    (saved / name).unlink()
    match kind:
        case "pipe":
            os.mkfifo(saved / name)
        case "device":
            (saved / name).symlink_to("/dev/zero")
        case "folder":
            (saved / name).mkdir()
        case _:
            (saved / name).symlink_to("nowhere")
    with pytest.raises(PellucidError, match=name):
        load(saved)


def test_unlisted_files_that_a_loader_might_use_are_refused(saved: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(saved.parent / "exploded"),)

    names = ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "a.pkl", "export.pkl", "modeling_x.py", "adapter_config.json"]
    names += ["chat_template.jinja", "model-00001-of-00002.safetensors.bin", "x.PKL", "a.pkl.gz", "vocab.txt", "sub/a.pkl", ".pkl"]
    for name in names:
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(CheckpointError, match=f"{name!r} is not in the list"):
            load(saved)
        (saved / name).unlink()
    load(saved)
    assert not (saved.parent / "exploded").exists()


def test_a_second_weights_file_is_refused(saved: Path) -> None:
    shutil.copy(saved / "model.safetensors", saved / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="is in two files"):
        load(saved)


def rewrite_weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def nan(tensors: dict[str, Any]) -> None:
    tensors["classifier.weight"][1, 3] = math.nan


def rename(tensors: dict[str, Any]) -> None:
    for name in list(tensors):
        tensors["x." + name] = tensors.pop(name)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "NaN": (nan, "classifier.weight"),
    "renamed": (rename, "bert.embeddings"),
    "one renamed": (lambda t: t.update({"classifier.w": t.pop("classifier.weight")}), "classifier.weight"),
    "missing": (lambda t: t.pop("bert.encoder.layer.1.output.dense.bias"), "bert.encoder.layer.1.output.dense.bias"),
    "extra": (lambda t: t.update({"bert.extra": t["classifier.bias"].clone()}), "bert.extra"),
    "reshaped": (lambda t: t.update({"classifier.weight": t["classifier.weight"].T.contiguous()}), "classifier.weight"),
    "half": (lambda t: t.update({"classifier.weight": t["classifier.weight"].half()}), "classifier.weight"),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_changed_weights_are_named(saved: Path, name: str) -> None:
    change, weight = CHANGES[name]
    rewrite_weights(saved, change)
    with pytest.raises(CheckpointError) as raised:
        load(saved)
    assert weight in str(raised.value) or (name == "NaN" and "SHA-256" in str(raised.value))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "extra"])  # one more weight that nothing uses changes no answer
def test_changed_weights_are_named_even_with_a_new_manifest(saved: Path, name: str) -> None:
    """Someone who rewrites the manifest too meets the checks of the model itself."""
    from pellucid.weights import header_of

    change, weight = CHANGES[name]
    rewrite_weights(saved, change)
    entries = {key: [dtype, list(shape)] for key, (dtype, shape) in header_of(saved / "model.safetensors").items()}
    sign_again(saved, lambda content: content.update(weights=entries))
    if name == "half":  # one weight in half precision is a valid model: the golden logits decide
        load(saved)
        return
    with pytest.raises(CheckpointError, match=weight):
        load(saved)


def test_other_weights_give_other_logits(saved: Path) -> None:
    rewrite_weights(saved, lambda tensors: tensors["classifier.bias"].add_(1e-3))
    sign_again(saved)
    with pytest.raises(CheckpointError, match=r"no longer gives the same logits.*0\.001 apart, 0\.0001 is allowed"):
        load(saved)


def test_other_tokenizer_gives_other_ids(saved: Path) -> None:
    tokenizer = json.loads((saved / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    write_json(saved / "tokenizer.json", tokenizer)
    sign_again(saved)
    with pytest.raises(CheckpointError, match="the tokenizer no longer gives the same ids for 'A warm"):
        load(saved)


def test_other_label_order_in_the_config_is_found(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["id2label"] = {"0": "positive", "1": "neutral", "2": "negative"}
    config["label2id"] = {name: int(index) for index, name in config["id2label"].items()}
    write_json(saved / "config.json", config)
    sign_again(saved)
    with pytest.raises(CheckpointError, match=r"config\.json does not fit"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format=2), "saved in format 2 by a newer pellucid, this one reads up to 1. Install a newer"),
        (lambda m: m.update(format="1"), "its format is '1'"),
        (lambda m: m.update(format=True), "its format is True"),
        (lambda m: m.pop("format"), "its format is None"),
        (lambda m: m.update(labels=["a"]), "checksum"),
        (lambda m: m["files"].pop("config.json"), "checksum"),
        (lambda m: m.pop("checksum"), "checksum"),
    ],
)
def test_manifest_that_was_changed(saved: Path, change: Any, words: str) -> None:
    manifest = json.loads((saved / MANIFEST).read_text())
    change(manifest)
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=words):
        load(saved)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no valid JSON"),
        (b"[1]", "expected a JSON object, found list"),
        (b'{"format": 1, "format": 1}', "a key occurs twice"),
        (b'{"format": NaN}', "NaN is no JSON number"),
        (b'{"format": 1\xff}', "no valid JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
        (b"\xff\xfe{\x00}\x00", "no valid JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "no valid JSON"),
    ],
)
def test_manifest_that_is_no_manifest(saved: Path, raw: bytes, words: str) -> None:
    (saved / MANIFEST).write_bytes(raw)
    with pytest.raises(CheckpointError, match=words):
        load(saved)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../b", "..", "", "a\\..\\b", "a\0b"])
def test_listed_names_stay_inside(saved: Path, name: str) -> None:
    from pellucid.manifest import _checksum

    manifest = json.loads((saved / MANIFEST).read_text())
    manifest["files"][name] = {"size": 1, "sha256": "0" * 64}
    del manifest["checksum"]
    (saved / MANIFEST).write_text(json.dumps({**manifest, "checksum": _checksum(manifest)}))
    with pytest.raises(CheckpointError, match="outside the folder"):
        load(saved)


@pytest.mark.parametrize("key", ["task", "tokens", "weights", "provenance", "notes", "golden", "attention", "checkpoint"])
@pytest.mark.parametrize("value", [None, 7, [], {"x": 1}])
def test_manifest_with_a_part_of_another_kind(saved: Path, key: str, value: Any) -> None:
    if (key, value) in (("notes", []), ("checkpoint", None), ("checkpoint", 7), ("checkpoint", []), ("checkpoint", {"x": 1})):
        return  # an empty list of notes is one, and any name is a name
    sign_again(saved, lambda content: content.update({key: value}))
    with pytest.raises(PellucidError):
        load(saved)


def test_folders_that_are_no_save(tmp_path: Path, tiny_checkpoints: dict[str, Path]) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, words in (("absent", "no such folder"), ("file", "it is a file"), ("empty", "no pellucid.json")):
        with pytest.raises(CheckpointError, match=words):
            load(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"Pipeline\.new\(task, folder\)"):
        load(tiny_checkpoints["bert"])


# --- what must not be saved, and where -----------------------------------------------------------------------------------------


def test_weights_that_are_no_numbers_are_not_saved(tiny: Pipeline, saved: Path) -> None:
    import torch

    broken = make_other(tiny)
    with torch.no_grad():
        broken.model.classifier.bias[1] = math.inf
    with pytest.raises(CheckpointError, match=r"pipe\.model: weight 'classifier\.bias' holds 1 values.*diverged"):
        save(broken, saved)
    assert np.array_equal(logits(load(saved)), logits(tiny))


@dataclass(frozen=True, slots=True)
class Stranger(SequenceClassification):
    """A task that is not registered."""


def test_task_that_load_would_not_find_is_not_saved(tiny: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"Stranger is not the task behind.*entry point"):
        save(replace(tiny, task=Stranger(labels=LABELS, kind="single_label")), tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_folders_with_other_content_are_not_replaced(
    tiny: Pipeline, saved: Path, tmp_path: Path, tiny_checkpoints: dict[str, Path]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for folder in (tmp_path / "mine", tmp_path, tiny_checkpoints["bert"]):
        before = sorted(os.listdir(folder))
        with pytest.raises(StorageError, match=r"cannot recognise.*remove this one yourself"):
            save(tiny, folder)
        assert sorted(os.listdir(folder)) == before
    for name in (".git/config", "runs/a.txt", "pytorch_model.bin", "empty/"):
        path = saved / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("x")
        with pytest.raises(StorageError, match=f"saving would delete '{name.split('/')[0]}"):
            save(tiny, saved)
        shutil.rmtree(saved / name.split("/")[0]) if "/" in name else path.unlink()
    with pytest.raises(StorageError, match="overwrite=True"):
        save(tiny, saved, overwrite=False)
    save(tiny, saved)


def test_file_link_and_read_only_folder_are_refused(tiny: Pipeline, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(saved)
    saved.chmod(0o555)
    for name, words in (("file", "it is a file"), ("link", "symbolic link"), ("saved", "read-only"), ("file/below", "is a file")):
        with pytest.raises(StorageError, match=words):
            save(tiny, tmp_path / name)
    saved.chmod(0o755)
    load(saved)
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "saved"]


# --- faults while it is written --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tiny: Pipeline) -> tuple[Pipeline, Pipeline]:
    """Two pipelines with other weights."""
    return tiny, make_other(tiny)


@pytest.mark.parametrize("swap", list(SWAPS))
def test_save_killed_at_every_step_is_old_or_new(two: tuple[Pipeline, Pipeline], tmp_path: Path, swap: str) -> None:
    folder = save(two[0], tmp_path / "model")
    wholes = [read_manifest(save(pipe, tmp_path / "whole"))["files"]["model.safetensors"] for pipe in two]
    shutil.rmtree(tmp_path / "whole")
    seen: list[int] = []
    for step in range(500):

        def attempt(step: int = step) -> None:
            with killed_at(step), SWAPS[swap]():
                save(two[1], folder)

        ended = in_child(attempt)
        recover(folder)
        manifest = read_manifest(folder)
        verify(folder, manifest)  # every file belongs to the manifest, and the manifest to one of the two
        seen.append(wholes.index(manifest["files"]["model.safetensors"]))
        if ended.signal == 0:
            break
        if len(seen) > 1 and seen[-1] != seen[-2]:
            assert np.array_equal(logits(load(folder)), logits(two[1]))
    assert ended.error == "" and set(seen) == {0, 1} and seen == sorted(seen) and len(seen) > 20
    save(two[0], folder)
    assert os.listdir(tmp_path) == ["model"] and np.array_equal(logits(load(folder)), logits(two[0]))


@pytest.mark.parametrize("deadly", [True, False])
def test_save_on_a_full_disk_keeps_the_old_folder(two: tuple[Pipeline, Pipeline], tmp_path: Path, deadly: bool) -> None:
    """`deadly`: the process dies in the middle of the write itself, inside the library that writes the weights."""
    folder = save(two[0], tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for limit in (0, 1, 600, 1500, 20_000, len(before["model.safetensors"]) - 1):

        def attempt(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(two[1], folder)

        ended = in_child(attempt)
        assert ended.signal == (signal.SIGXFSZ if deadly else 0)
        assert deadly or (ended.error.startswith("StorageError") and "nothing is half-written" in ended.error), ended
        assert deadly or os.listdir(tmp_path) == ["model"]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    save(two[0], folder)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("swap", list(SWAPS))
def test_loading_while_two_processes_save(two: tuple[Pipeline, Pipeline], tmp_path: Path, swap: str) -> None:
    folder = save(two[0], tmp_path / "model")
    answers = [logits(pipe) for pipe in two]

    def keep_saving(pipe: Pipeline) -> None:
        with SWAPS[swap]():
            for _ in range(6):
                save(pipe, folder)
                time.sleep(0.1)

    children = [start_child(lambda pipe=pipe: keep_saving(pipe)) for pipe in two]
    loaded = 0
    while any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for child, _ in children):
        with suppress(StorageError):  # it was replaced five times while it was read
            now = logits(load(folder))
            loaded += 1
            assert any(np.array_equal(now, answer) for answer in answers)
    assert [wait_for(child).error for child in children] == ["", ""]
    assert loaded and os.listdir(tmp_path) == ["model"]
    load(folder)


def test_folder_that_a_dead_writer_moved_aside_is_found_by_load(saved: Path) -> None:
    os.rename(saved, saved.parent / ".saved.old-0123456789ab")
    load(saved)
    assert os.listdir(saved.parent) == ["saved"]
