"""Which groups of a model train, as a table.

Takes a model, its layer groups and their learning rates. Gives one line a group: modules, parameters, rate, trainable.
Knows nothing of how the groups were found, of optimizers or of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pellucid.adapter_layers import modules_of
from pellucid.errors import SettingError
from pellucid.groups import Group
from pellucid.view import Table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MODULES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A group as it is now: the modules that it is made of, how many numbers, its learning rate, and how many of the numbers train.

    `rate` is None where no optimizer has the group.
    """

    name: str
    modules: tuple[str, ...]
    parameters: int
    rate: float | None
    training: int

    @property
    def trainable(self) -> str:
        """Says "yes", "no", or the share of the numbers that train."""
        if self.training in (0, self.parameters):
            return "yes" if self.training else "no"
        return f"{self.training / self.parameters:.1%}"


@dataclass(frozen=True, slots=True)
class GroupTable:
    """The groups of a model from the embeddings to the head; together they hold every parameter once."""

    lines: tuple[GroupLine, ...]
    tied: str = ""  # the name of the embeddings that the head says words with, where it has no matrix of its own

    @property
    def total(self) -> int:
        """The parameters of the model; a tied one counts once."""
        return sum(line.parameters for line in self.lines)

    @property
    def training(self) -> int:
        """How many of them train."""
        return sum(line.training for line in self.lines)

    def view(self) -> Table:
        """One line a group: its modules, parameters, learning rate, and whether it trains."""
        rows = tuple(
            (
                line.name,
                _shown(line.modules),
                f"{line.parameters:,}",
                "–" if line.rate is None else f"{line.rate:.2g}",
                line.trainable,
            )
            for line in self.lines
        )
        note = f"{self.training:,} of {self.total:,} parameters train ({self.training / max(self.total, 1):.2%})"
        if self.tied:
            note += f"; the head shares its matrix with {self.tied}: it is counted, and frozen, with the embeddings"
        return Table("layer groups", ("group", "modules", "parameters", "learning rate", "trainable"), rows, note)


def group_table(model: "PreTrainedModel", groups: Sequence[Group], rates: Sequence[float] | None = None) -> GroupTable:
    """The groups as they are now; `rates` are their learning rates, in the same order, where there is an optimizer.

    What is in no group (the body under adapters) is a line of its own, so that the parameters sum to all of the model's. Raises
    SettingError where there are not as many rates as groups.
    """
    if rates is not None and len(rates) != len(groups):
        raise SettingError(f"{len(rates)} learning rates for {len(groups)} groups", place="rates", cure="Give one for each group.")
    named = dict(model.named_parameters())
    grouped = {name for group in groups for name in group.parameters}
    rest = tuple(name for name in named if name not in grouped)
    entries: list[tuple[Group, float | None]] = [(Group("body, asleep", rest), None)] if rest else []
    entries += [(group, None if rates is None else float(rates[number])) for number, group in enumerate(groups)]
    lines = []
    for group, rate in entries:
        parameters = [named[name] for name in group.parameters]
        training = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        modules = modules_of(model, frozenset(group.parameters))
        lines.append(GroupLine(group.name, modules, sum(parameter.numel() for parameter in parameters), rate, training))
    return GroupTable(tuple(lines), tied_head(model) or "")


def tied_head(model: "PreTrainedModel") -> str | None:
    """The name of the embeddings whose matrix the head says words with; None where the head has a matrix of its own, or is none."""
    outputs = model.get_output_embeddings()
    if outputs is None:
        return None
    named = model.named_modules()
    return next((f"{name}.weight" for name, each in named if each is not outputs and getattr(each, "weight", None) is outputs.weight), None)


def _shown(modules: Sequence[str]) -> str:
    """A few names; of many, how many there are in what they share."""
    if len(modules) <= _MODULES_SHOWN:
        return ", ".join(modules)
    parts = [name.split(".") for name in modules]
    shared = 0
    while all(len(each) > shared + 1 for each in parts) and len({each[shared] for each in parts}) == 1:
        shared += 1
    return f"{len(modules)} in {'.'.join(parts[0][:shared])}" if shared else f"{modules[0]} and {len(modules) - 1} more"
