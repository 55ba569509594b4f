"""Tensors and plain values through one safetensors file: exact, strict, never pickled, whole under faults."""

import json
import math
import os
import pickle
import random
import resource
import signal
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from injection import in_child, killed_at
from pellucid.errors import CheckpointError, SettingError, StorageError
from pellucid.weights import header_of, load_state, load_weights, save_state, save_weights

torch = pytest.importorskip("torch")


class Tied(torch.nn.Module):
    """Two names for one weight, a buffer with an infinity, a view of a larger tensor."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(9, size)
        self.out = torch.nn.Linear(size, 9, bias=True)
        self.out.weight = self.embed.weight
        whole = torch.randn(3, 10)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("left", whole[:, :4])
        self.register_buffer("right", whole[:, 4:])
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("also_none", torch.zeros(0, 3))


def state(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_weights_come_back_exactly_and_ties_are_stored_once(tmp_path: Path) -> None:
    one, two = Tied(), Tied()
    save_weights(one, tmp_path / "w.safetensors")
    assert not same(state(one), state(two))
    load_weights(two, tmp_path / "w.safetensors")
    assert same(state(one), state(two)) and two.out.weight is two.embed.weight
    assert "out.weight" not in header_of(tmp_path / "w.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:  # any reader opens it
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("embed.weight"), "missing: 'embed.weight', 'out.weight'"),
        (
            lambda s: s.update({"embed.w": s.pop("embed.weight"), "out.w": s.pop("out.weight")}),
            "renamed: 'embed.weight'.*, 'embed.w'",
        ),
        (lambda s: s.update(extra=torch.zeros(1)), "nothing uses: 'extra'"),
        (lambda s: s.update({"out.bias": torch.zeros(8)}), r"'out.bias' is float32 \[8\], expected float32 \[9\]"),
        (lambda s: s.update({"out.bias": torch.zeros(9).half()}), r"'out.bias' is float16 \[9\], expected float32 \[9\]"),
        (lambda s: s.update({"out.bias": torch.full((9,), math.nan)}), "'out.bias' holds 9 values that are NaN or infinite"),
        (lambda s: s.update({"out.bias": torch.full((9,), math.inf)}), "'out.bias' holds 9 values"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path, change: Any, words: str) -> None:
    class Other(torch.nn.Module):
        def state_dict(self) -> dict[str, Any]:
            found = state(Tied())
            change(found)
            if "embed.weight" not in found:
                found.pop("out.weight", None)
            return found

    save_weights(Other(), tmp_path / "w.safetensors")
    model = Tied()
    before = state(model)
    with pytest.raises(CheckpointError, match=words) as raised:
        load_weights(model, tmp_path / "w.safetensors")
    assert str(tmp_path) in str(raised.value) and same(before, state(model))


def test_optimizer_and_random_states_come_back_exactly(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
    whole = {
        "optimizer": optimizer.state_dict(),
        "python": random.getstate(),
        "numpy": np.random.default_rng(3).bit_generator.state,
        "legacy": np.random.RandomState(3).get_state(),
        "torch": torch.get_rng_state(),
        "step": np.int64(7),
        "moment": np.float32(0.1),
        "done": np.bool_(True),
    }
    save_state(whole, tmp_path / "s.safetensors")
    found = load_state(tmp_path / "s.safetensors")
    random.setstate(found["python"])
    np.random.default_rng().bit_generator.state = found["numpy"]
    np.random.RandomState().set_state(found["legacy"])
    torch.set_rng_state(found["torch"])
    assert found["legacy"][1].dtype == np.uint32 and found["step"] == 7 and found["done"] is True
    again = torch.optim.AdamW(model.parameters(), lr=9.0)
    again.load_state_dict(found["optimizer"])
    assert_equal(again.state_dict(), optimizer.state_dict())


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert isinstance(second, dict) and list(first) == list(second)
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert type(first) is type(second) and len(first) == len(second)
        for left, right in zip(first, second, strict=True):
            assert_equal(left, right)
    elif isinstance(first, torch.Tensor | np.ndarray):
        left, right = np.asarray(first), np.asarray(second)
        assert type(first) is type(second) and left.dtype == right.dtype and left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    else:
        assert type(first) is type(second) and (first == second or (first != first and second != second))


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
ARRAYS = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 2**16, shape).astype(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 9),
)
KEYS = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text()) | st.just("$")
VALUES = st.recursive(
    NUMBERS | ARRAYS | ARRAYS.map(torch.from_numpy),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_nested_state_comes_back(tmp_path: Path, value: dict[Any, Any]) -> None:
    save_state(value, tmp_path / "s.safetensors")
    assert_equal(load_state(tmp_path / "s.safetensors"), value)


def test_what_would_need_pickle_is_refused_by_its_place(tmp_path: Path) -> None:
    for value, kind in ((len, "builtin_function_or_method"), (object(), "object"), ({1, 2}, "set"), (1j, "complex")):
        with pytest.raises(SettingError, match=rf"state\['opt'\]\[1\]: a {kind} cannot be saved without pickle"):
            save_state({"opt": [0, value]}, tmp_path / "s.safetensors")
    with pytest.raises(SettingError, match="cannot be saved without pickle"):
        save_state({"a": np.array([object()])}, tmp_path / "s.safetensors")
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with pytest.raises(SettingError, match="nested more than"):
        save_state(circle, tmp_path / "s.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_tensor_that_occurs_twice_is_stored_once(tmp_path: Path) -> None:
    shared = torch.randn(1000)
    save_state({"a": shared, "b": [shared]}, tmp_path / "s.safetensors")
    found = load_state(tmp_path / "s.safetensors")
    assert found["a"] is found["b"][0] and (tmp_path / "s.safetensors").stat().st_size < 5000


def test_truncation_anywhere_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state({"a": torch.randn(600), "b": [1, 2.5, "x" * 700]}, path)
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 512), 1, 7, 8, 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"safetensors|damaged|pellucid's state"):
            load_state(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(path)


def crafted(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 99_000_000, 100_000_001, 0, 3])
def test_header_length_that_lies(tmp_path: Path, length: int) -> None:
    path = crafted(tmp_path / "s", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234", length)
    for read in (lambda: load_state(path), lambda: load_weights(Tied(), path), lambda: header_of(path)):
        with pytest.raises(CheckpointError):
            read()


def test_header_that_lies(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    meta = {"__metadata__": {"pellucid": json.dumps({"kind": "state", "format": 1, "state": {}})}}
    overlap = {**meta, "a": entry, "b": entry}
    hole = {**meta, "a": entry, "b": {**entry, "data_offsets": [8, 12]}}
    for header in (
        overlap,
        hole,
        {**meta, "a": {**entry, "dtype": "F99"}},
        {**meta, "a": {"dtype": "F32"}},
        [],
        b"{" * 90_000,
        b"\xff\xfe",
    ):
        with pytest.raises(CheckpointError):
            load_state(crafted(tmp_path / "s", header, b"12345678"))


def test_metadata_that_is_no_text_and_a_zip_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(crafted(tmp_path / "s", {"__metadata__": {"pellucid": 7}}))
    save_state({"a": 1}, tmp_path / "t")
    with zipfile.ZipFile(tmp_path / "t", "a") as archive:  # a file that is a zip archive too
        archive.writestr("data.pkl", b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load_state(tmp_path / "t")


def test_json_that_lies(tmp_path: Path) -> None:
    def file(value: Any, kind: str = "state", version: Any = 1) -> Path:
        text = value if isinstance(value, str) else json.dumps({"kind": kind, "format": version, "state": value})
        return crafted(tmp_path / "s", {"__metadata__": {"pellucid": text}})

    assert load_state(file({"x": 1})) == {"x": 1}
    for value in (
        [1],
        {"x": {"$": "tensor", "name": "absent"}},
        {"x": {"$": "what"}},
        {"x": {"$": []}},
        {"x": {"$": "bytes", "value": "%"}},
    ):
        with pytest.raises(CheckpointError, match=r"saved state|mapping"):
            load_state(file(value))
    with pytest.raises(CheckpointError, match=r"damaged|nested|saved state"):
        load_state(file('{"kind":"state","format":1,"state":' + "[" * 100_000 + "]" * 100_000 + "}"))
    with pytest.raises(CheckpointError, match="it has format 2, and this pellucid reads up to 1"):
        load_state(file({}, version=2))
    with pytest.raises(CheckpointError, match="expected a file of pellucid's state, and it holds weights"):
        load_state(file({}, kind="weights"))
    with pytest.raises(CheckpointError, match="was not written by pellucid"):
        load_state(crafted(tmp_path / "s", {}))


def test_pickles_pipes_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "p").write_bytes(pickle.dumps(Bomb()))
    torch.save({"a": Bomb()}, tmp_path / "t")
    os.mkfifo(tmp_path / "fifo")
    for name in ("p", "t"):
        with pytest.raises(CheckpointError, match="no safetensors file"):
            load_state(tmp_path / name)
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), tmp_path / "absent"):
        with pytest.raises(StorageError):
            load_weights(Tied(), path)
    assert not (tmp_path / "exploded").exists()


def test_saving_over_the_file_it_came_from_keeps_what_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state({"a": torch.arange(100_000)}, path)
    found = load_state(path)
    save_state({"a": torch.zeros(3)}, path)
    with path.open("r+b") as stream:
        stream.truncate(0)
    assert torch.equal(found["a"], torch.arange(100_000))


def test_weights_file_killed_at_every_step_is_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    old, new = Tied(), Tied()
    save_weights(old, path)
    contents = set()
    for step in range(200):

        def attempt(step: int = step) -> None:
            with killed_at(step):
                save_weights(new, path)

        ended = in_child(attempt)
        found = Tied()
        load_weights(found, path)
        contents.add(found.out.weight.detach().numpy().tobytes())
        if ended.signal == 0:
            break
    assert ended.signal == 0 and ended.error == "" and len(contents) == 2
    save_weights(new, path)
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("deadly", [True, False])
def test_weights_on_a_full_disk_keep_the_old_file(tmp_path: Path, deadly: bool) -> None:
    """`deadly`: the process dies in the middle of the write itself, inside the library that writes the weights."""
    path = tmp_path / "w.safetensors"
    model = torch.nn.Linear(100, 100)
    save_weights(model, path)
    before = path.read_bytes()
    for limit in (0, 1, 100, 5000, len(before) - 1):

        def attempt(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save_weights(torch.nn.Linear(100, 100), path)

        ended = in_child(attempt)
        assert ended.signal == signal.SIGXFSZ if deadly else ended.error.startswith("StorageError") and "File too large" in ended.error, (
            ended
        )
        assert path.read_bytes() == before
        assert deadly or os.listdir(tmp_path) == ["w.safetensors"]
    save_weights(model, path)
    assert os.listdir(tmp_path) == ["w.safetensors"]
