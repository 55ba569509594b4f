"""Where a training stands, and what it was told: as plain values that can be written down and compared.

Takes random generators, tables of tokens, weights and settings. Gives their state or their digest, and the differences in a person's words.
Knows nothing of fastai, callbacks or folders.
"""

import hashlib
import platform
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from pellucid.token_table import TokenTable

PACKAGES = ("pellucid", "torch", "transformers", "tokenizers", "fastai", "numpy")
SHOWN = 5  # differences in one sentence


@dataclass(frozen=True, slots=True)
class Position:
    """So far: `batch` batches of epoch `epoch` of fit `fit`, all counted from 0; `step` batches in all fits together."""

    fit: int
    epoch: int
    batch: int
    step: int

    def __str__(self) -> str:
        fit = f"fit {self.fit + 1}, " if self.fit else ""
        return f"step {self.step:,} ({fit}epoch {self.epoch}, batch {self.batch:,})"


def random_state() -> dict[str, Any]:
    """The state of every generator that training may draw from: torch's on the CPU and on each GPU, numpy's and Python's global ones."""
    import torch

    kind, keys, place, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  # fastai draws from the global one
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "numpy": {"kind": kind, "keys": np.asarray(keys, dtype=np.int64), "place": place, "has_gauss": has_gauss, "gauss": gauss},
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Let every generator go on where `random_state` found it. GPUs that are not there now are left out."""
    import torch

    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    numpy = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        (numpy["kind"], np.asarray(numpy["keys"], dtype=np.uint32), numpy["place"], numpy["has_gauss"], numpy["gauss"])
    )
    random.setstate(state["python"])


def described_table(table: "TokenTable | None") -> dict[str, Any] | None:
    """How many windows and tokens a table has, and the digest of its tokens and labels."""
    if table is None:
        return None
    digest = hashlib.sha256()
    for array in (table.ids, table.starts, table.rows, table.type_ids, table.labels, table.label_starts):
        if array is not None:
            found = np.ascontiguousarray(array)
            digest.update(f"{found.dtype}{found.shape}".encode())
            digest.update(found.data if found.size else b"")
    return {"windows": len(table), "tokens": len(table.ids), "content": digest.hexdigest()}


def digest_of(named: "Iterable[tuple[str, torch.Tensor]]") -> str:
    """The SHA-256 of tensors with their names, to the bit."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in named:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def surroundings(device: str) -> dict[str, str]:
    """What may change the last bits of a result: versions, kind of device, number of threads. `device` is its kind: cpu or cuda."""
    import torch

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    found = {package: installed(package) for package in PACKAGES}
    return {
        **found,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two plain JSON values, each in a person's words: "epochs was 3, is 2"."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        found = []
        for key in dict.fromkeys((*then, *now)):
            inner = f"{name}.{key}" if name else str(key)
            if key not in now or key not in then:
                found.append(f"{inner} {'is new' if key in now else 'is gone'}")
            else:
                found += differences(then[key], now[key], inner)
        return found
    if then == now:
        return []
    if name.endswith(".content") or name == "model.start":  # digests say nothing to a reader
        return [f"{name} is another one"]
    return [f"{name} was {_brief(then)}, is {_brief(now)}"]


def sentence_of(found: list[str]) -> str:
    """The first differences as one sentence."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _brief(value: Any) -> str:
    """A value in few characters; of many numbers, the largest and the last."""
    numbers = np.ravel(np.asarray(value, dtype=object)) if isinstance(value, list | tuple) else np.zeros(0)
    if len(numbers) > 3 and all(isinstance(number, int | float) for number in numbers):
        return f"up to {max(numbers):.6g} and at last {numbers[-1]:.6g}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
