"""Where every weight of a model comes from.

Takes a model and what its loader reported: missing, mismatched and resized names. Gives a frozen table, parameter by parameter,
whose counts sum to all parameters of the model, and which survives save and load as JSON.
Knows nothing of files, tokens or labels.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pellucid.errors import CheckpointError
from pellucid.view import Table

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
_BLOCK = re.compile(r"^(.*?)\.(\d+)(?:\.|$)")


class Origin(StrEnum):
    """Where the numbers of a parameter come from."""

    PRETRAINED = "pretrained"
    NEW = "new"
    RESIZED = "resized"
    TIED = "tied"
    ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class ParameterOrigin:
    """One named parameter. `count` is what the name adds to the total: 0 for a second name of a tied parameter."""

    name: str
    shape: Shape
    count: int
    origin: Origin
    was: Shape | None = None  # the shape in the checkpoint, where it did not fit
    tied_to: str | None = None  # the name under which a tied parameter is counted


@dataclass(frozen=True, slots=True)
class Provenance:
    """Every parameter of a model with its origin."""

    checkpoint: str
    parameters: tuple[ParameterOrigin, ...]

    @property
    def total(self) -> int:
        """The number of parameters of the model; tied ones count once."""
        return sum(parameter.count for parameter in self.parameters)

    def counts(self) -> Mapping[Origin, int]:
        """How many parameters are of each origin that occurs; the counts sum to `total`."""
        counts: dict[Origin, int] = {}
        for parameter in self.parameters:
            counts[parameter.origin] = counts.get(parameter.origin, 0) + parameter.count
        return counts

    def new_names(self) -> frozenset[str]:
        """The names of the parameters that nobody has trained yet."""
        return frozenset(parameter.name for parameter in self.parameters if parameter.origin is Origin.NEW)

    def view(self) -> Table:
        """One line a module and origin; equal blocks that follow each other share a line."""
        rows = tuple(_line(module, run) for module, run in _merged(_by_module(self.parameters)))
        shares = ", ".join(f"{count:,} {origin.value}" for origin, count in self.counts().items())
        columns = ("module", "parameters", "origin", "shapes")
        return Table(f"Where the weights of {self.checkpoint!r} come from", columns, rows, f"{self.total:,} parameters: {shares}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [
            [p.name, list(p.shape), p.count, p.origin.value, None if p.was is None else list(p.was), p.tied_to] for p in self.parameters
        ]
        return {"checkpoint": self.checkpoint, "parameters": rows}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Provenance":
        """The provenance again, from what `to_json` gave. Raises CheckpointError where it is not that."""
        try:
            return cls(str(value["checkpoint"]), tuple(_parameter(row) for row in value["parameters"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the record of where the weights come from cannot be read ({error})",
                place="provenance",
                cure="Save the model again with pellucid.save, or take a whole copy of the folder.",
            ) from error


def of_model(
    model: "torch.nn.Module",
    *,
    checkpoint: str,
    missing: frozenset[str] = frozenset(),
    mismatched: Mapping[str, Shape] | None = None,
    resized: Mapping[str, Shape] | None = None,
    adapter: frozenset[str] = frozenset(),
) -> Provenance:
    """The provenance of a model that was just loaded.

    `missing` are names that the checkpoint did not have; `mismatched` and `resized` map a name to its shape in the checkpoint:
    the first were made new, the second kept what fitted. The counts sum to the number of the model's parameters.
    """
    misfits, grown = mismatched or {}, resized or {}
    first_names: dict[int, str] = {}
    found: list[ParameterOrigin] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shape = tuple(parameter.shape)
        known = first_names.setdefault(id(parameter), name)
        if known != name:
            found.append(ParameterOrigin(name, shape, 0, Origin.TIED, tied_to=known))
        elif name in adapter:
            found.append(ParameterOrigin(name, shape, parameter.numel(), Origin.ADAPTER))
        elif name in grown:
            found.append(ParameterOrigin(name, shape, parameter.numel(), Origin.RESIZED, was=tuple(grown[name])))
        elif name in misfits:
            found.append(ParameterOrigin(name, shape, parameter.numel(), Origin.NEW, was=tuple(misfits[name])))
        else:
            origin = Origin.NEW if name in missing else Origin.PRETRAINED
            found.append(ParameterOrigin(name, shape, parameter.numel(), origin))
    return Provenance(checkpoint, tuple(found))


def renamed(known: Provenance, model: "torch.nn.Module", *, adapters: frozenset[str], plain: Callable[[str], str]) -> Provenance:
    """The provenance of a model whose weights have other names now, because adapters were put around them or taken away.

    `plain` gives the name that stood in `known` from the name of today; names in `adapters` are new numbers of adapters. Raises
    CheckpointError for a weight of which `known` says nothing.
    """
    before = {parameter.name: parameter for parameter in known.parameters}
    today = {plain(name): name for name, _ in model.named_parameters(remove_duplicate=False) if name not in adapters}
    found: list[ParameterOrigin] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in adapters:
            found.append(ParameterOrigin(name, tuple(parameter.shape), parameter.numel(), Origin.ADAPTER))
            continue
        was = before.get(plain(name))
        if was is None:
            cure = "Make the pipeline again with pellucid.Pipeline.new."
            raise CheckpointError(f"nobody knows where the weight {name!r} comes from", place="provenance", cure=cure)
        found.append(replace(was, name=name, tied_to=None if was.tied_to is None else today[was.tied_to]))
    return Provenance(known.checkpoint, tuple(found))


def _parameter(row: Sequence[Any]) -> ParameterOrigin:
    name, shape, count, origin, was, tied_to = row
    size = tuple(int(side) for side in shape)
    if count not in (0, math.prod(size)):
        raise ValueError(f"{name}: {count} parameters do not fit the shape {size}")
    return ParameterOrigin(str(name), size, int(count), Origin(origin), None if was is None else tuple(int(side) for side in was), tied_to)


_Run = tuple[ParameterOrigin, ...]


def _by_module(parameters: Sequence[ParameterOrigin]) -> list[tuple[str, _Run]]:
    """Parameters under the block or the head that they belong to, one entry a module and origin, in the model's order."""
    groups: dict[tuple[str, Origin], list[ParameterOrigin]] = {}
    for parameter in parameters:
        block = _BLOCK.match(parameter.name)
        parents = parameter.name.split(".")[:-1]
        module = f"{block[1]}.{block[2]}" if block else ".".join(parents[:2]) or parameter.name
        groups.setdefault((module, parameter.origin), []).append(parameter)
    return [(module, tuple(members)) for (module, _), members in groups.items()]


def _merged(groups: Sequence[tuple[str, _Run]]) -> list[tuple[str, list[_Run]]]:
    """Numbered blocks that follow each other and look the same, as one line `layer.0-5`."""
    lines: list[tuple[str, list[_Run]]] = []
    for module, members in groups:
        stem, _, number = module.rpartition(".")
        if lines and number.isdigit() and _same_block(lines[-1], stem, number, members):
            start = lines[-1][0].rpartition(".")[2].partition("-")[0]
            lines[-1] = (f"{stem}.{start}-{number}", [*lines[-1][1], members])
        else:
            lines.append((module, [members]))
    return lines


def _same_block(line: tuple[str, list[_Run]], stem: str, number: str, members: _Run) -> bool:
    last_stem, _, last = line[0].rpartition(".")
    follows = last_stem == stem and last.rpartition("-")[2] == str(int(number) - 1)
    return follows and [(p.shape, p.origin, p.was) for p in line[1][-1]] == [(p.shape, p.origin, p.was) for p in members]


def _line(module: str, runs: Sequence[_Run]) -> tuple[str, int, str, str]:
    members = runs[0]
    if len(members) > 3:
        shapes = f"{len(members)} tensors"
    else:
        shapes = ", ".join(_shape(parameter) for parameter in members)
    times = f"{len(runs)} × " if len(runs) > 1 else ""
    return module, sum(p.count for run in runs for p in run), members[0].origin.value, times + shapes


def _shape(parameter: ParameterOrigin) -> str:
    if parameter.tied_to is not None:
        return f"is {parameter.tied_to}"
    return f"{parameter.shape} was {parameter.was}" if parameter.was is not None else f"{parameter.shape}"
