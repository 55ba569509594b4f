"""A learner whose batches several processes share: the same steps and scores as in one, each process runs some rows of each batch.

Takes a learner, and the group of processes. Gives each process its rows of a batch, the logits of the whole one, and the summed gradients.
Knows nothing of how processes are started, of memory or of checkpoints.

The model is never wrapped: `learn.model is pipe.model`, and the task runs it as always. All processes hold the whole batch and make the
same draws; only within the forward pass does each have random numbers of its own, which follow from the common ones.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixHandler
from fastai.callback.progress import CSVLogger
from fastai.learner import AvgSmoothLoss
from fastai.torch_core import to_detach

from pellucid.errors import SettingError
from pellucid.training.fastai_memory import random_state, set_random_state
from pellucid.training.fastai_states import plain
from pellucid.training.processes import Group, Nowhere, group_on, speaking_once
from pellucid.training.resume_state import described_table, differences, sentence_of
from pellucid.training.resume_state import random_state as all_random_state
from pellucid.training.resume_state import set_random_state as set_all_random_state
from pellucid.training.task_loss import label_counts


@dataclass(frozen=True)
class Share:
    """What one process does of a batch of `count` rows: its `rows`, with random numbers of its own."""

    learn: Any
    group: Group
    inputs: dict[str, torch.Tensor]
    rows: slice
    count: int
    random: tuple[torch.Tensor, torch.Tensor | None]
    spare: bool  # there are fewer rows than processes, and none for this one: it runs the first, and nobody looks at what comes out
    apart: bool  # nobody looks at the logits of the other processes: their losses are enough

    @contextmanager
    def own_numbers(self) -> Iterator[None]:
        """During the block, the random numbers are those of this process for this batch; then the common ones go on."""
        device = self.learn.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            set_random_state(device, self.random)
            yield

    def whole(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of all rows, (count, …), of those of each process."""
        return self.group.whole(logits[:0] if self.spare else logits, self.count)

    @property
    def labels(self) -> torch.Tensor:
        """The labels of the rows that this process runs."""
        found: torch.Tensor = self.learn.yb[0][slice(0, 1) if self.spare else self.rows]
        return found

    def part(self, logits: torch.Tensor) -> torch.Tensor:
        """What the rows of this process add to the mean loss of the batch."""
        loss = self.learn.loss_func
        found: torch.Tensor = loss(logits, self.labels) * (loss.mass(self.labels) / loss.mass(*self.learn.yb))
        return torch.zeros_like(found) if self.spare else found

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """The loss of the whole batch, with the slope of what this process adds to it."""
        part = self.part(logits)
        return self.group.added(part.detach()) + (part - part.detach())

    @contextmanager
    def adding_up(self) -> Iterator[None]:
        """The gradients that the block finds are then those of the whole batch, added to what was there before."""
        parameters = [parameter for parameter in self.learn.model.parameters() if parameter.requires_grad]
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        yield
        self.group.add_up(parameters)
        for parameter, gradient in zip(parameters, before, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)


class Sharing:
    """How a learner works with other processes, if there are any: in `fit`, and for everything under `distrib_ctx`."""

    def __init__(self, learn: Any) -> None:
        self.learn = learn
        self.group: Group | None = None

    def of_batch(self) -> Share | None:
        """What this process does of the batch that the learner holds; None where it works alone."""
        if self.group is None:
            return None
        inputs, device = self.learn.xb[0], self.learn.model.device
        count = len(inputs["input_ids"])
        rows, spare = self.group.rows(count), self.group.rank >= count
        chosen = slice(0, 1) if spare else rows
        seed = int(torch.randint(2**62, (1,)))  # a common number
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed + self.group.rank)
            random = random_state(device)
        own = {name: tensor[chosen].contiguous() for name, tensor in inputs.items()}
        return Share(self.learn, self.group, own, rows, count, random, spare, self._apart())

    def _apart(self) -> bool:
        """Whether only the loss of this batch matters, and not its logits: as many as tokens times words, they are costly to exchange."""
        learn = self.learn
        if not learn.training or not len(learn.yb) or learn.recorder.train_metrics or not hasattr(learn.loss_func, "mass"):
            return False
        return label_counts(learn.yb[0], learn.pipe.task.kind) is not None

    @contextmanager
    def of_fit(self, callbacks: Sequence[Callback]) -> Iterator[None]:
        """Around one fit: where there are several processes, they share its batches."""
        with ExitStack() as stack:
            if self.group is None:
                stack.enter_context(self._together())
            if self.group is not None:
                stack.enter_context(self._alike(self.group, callbacks))
            yield

    @contextmanager
    def distrib_ctx(self, sync_bn: bool = False, in_notebook: bool = False) -> Iterator[Any]:
        """fastai's word for the same: under it, validate and get_preds are shared as well; every process has to call them.

        `sync_bn` and `in_notebook` have no meaning here: transformers have no batch norm, and torchrun starts the processes.
        """
        with self._together() if self.group is None else ExitStack():
            yield self.learn

    def first_says(self, value: Any) -> Any:
        """What the first process has found out, as JSON has it: for what each would find out otherwise. All of them have to ask."""
        with group_on(self.learn.model.device) as group:
            return value if group is None else group.told(value)

    def all_say(self, value: Any) -> list[Any]:
        """What each process has found out, in their order, as JSON has it. All of them have to ask."""
        with group_on(self.learn.model.device) as group:
            return [value] if group is None else group.all_say(value)

    @contextmanager
    def _together(self) -> Iterator[None]:
        with group_on(self.learn.model.device) as group:
            self.group = group
            try:
                yield
            finally:
                self.group = None

    @contextmanager
    def _alike(self, group: Group, callbacks: Sequence[Callback]) -> Iterator[None]:
        """Begin a fit with the weights and random numbers of the first process; only that one speaks."""
        everybody = [*self.learn.cbs, *callbacks]
        if any(isinstance(callback, MixHandler) for callback in everybody):
            cure = "Leave it out, or train in one process."
            raise SettingError("rows that are mixed with each other cannot be shared out", place="EmbeddingMixup", cure=cure)
        self._check_alike(group, everybody)
        with torch.no_grad():
            group.same(self.learn.model.state_dict())
        same_random_numbers(group)
        recorder = self.learn.recorder
        recorder.smooth_loss = OwnSmoothLoss(recorder.smooth_loss.beta)
        with ExitStack() as stack:
            stack.enter_context(self.learn.added_cbs([OneRecord()]))
            if group.rank:
                stack.enter_context(redirect_stdout(Nowhere()))
                stack.enter_context(speaking_once())
                for logger in (callback for callback in everybody if isinstance(callback, CSVLogger)):
                    stack.enter_context(elsewhere(logger))
            yield

    def _check_alike(self, group: Group, callbacks: Sequence[Callback]) -> None:
        """Processes with other rows or settings would wait for each other. Raises SettingError."""
        loaders = self.learn.dls.loaders
        mine = {
            "rows": {str(number): described_table(getattr(loader, "table", None)) for number, loader in enumerate(loaders)},
            "batches": len(loaders[0]),
            "callbacks": [type(callback).__name__ for callback in callbacks],
        }
        found = differences(group.told(mine), mine)
        if group.any(bool(found))[0]:
            problem = f"process {group.rank} differs from the first one: {sentence_of(found)}" if found else "another process differs"
            cure = "Give all processes the same rows and settings: they share each batch by themselves."
            raise SettingError(problem, place="the processes", cure=cure)

    def writes(self) -> bool:
        """Whether this process writes what `learn.save` is told to; each keeps the weights of its own search for a learning rate."""
        return self.group is None or self.group.rank == 0 or hasattr(self.learn, "lr_finder")

    def meet(self) -> None:
        """Wait for the others, where there are any: what one has written is there for all."""
        if self.group is not None:
            self.group.meet()

    def to_detach(self, b: Any, cpu: bool = True, gather: bool = True) -> Any:
        """As fastai's, which would also put together what all processes have: here each has the whole."""
        return to_detach(b, cpu=cpu, gather=False)


class OwnSmoothLoss(AvgSmoothLoss):
    """The smooth loss of a training whose loss is the same in all processes: fastai's would ask each of them for it after every batch."""

    def accumulate(self, learn: Any) -> None:
        """Take in the loss of a batch."""
        self.count += 1
        self.val: torch.Tensor = torch.lerp(learn.to_detach(learn.loss.mean()), self.val, self.beta)


class OneRecord(Callback):
    """The scores of an epoch are those of the first process, to the last bit: what follows from them is then the same for all."""

    order, stateless = 55, True  # between the Recorder and what stops or slows a training

    def after_epoch(self) -> None:
        """Take what the first process has written down."""
        values = self.learn.recorder.values
        if values and self.learn.sharing.group is not None:
            values[-1][:] = self.learn.sharing.group.told([plain(value) for value in values[-1]])


@contextmanager
def elsewhere(logger: CSVLogger) -> Iterator[None]:
    """During the block, this process writes its copy of a table into a folder that is then gone."""
    before = logger.fname
    with TemporaryDirectory(prefix="pellucid-") as folder:
        logger.fname = f"{folder}/history.csv"
        try:
            yield
        finally:
            logger.fname = before


def same_random_numbers(group: Group) -> None:
    """Let all processes go on with the random numbers of the first one."""
    state = all_random_state()
    tensor = state["torch"].to(group.device)
    group.same({"torch": tensor})
    numpy = {**state["numpy"], "keys": state["numpy"]["keys"].tolist()}
    told = group.told({"numpy": numpy, "python": state["python"]})
    version, numbers, gauss = told["python"]
    python = (version, tuple(numbers), gauss)
    set_all_random_state({"torch": tensor.cpu(), "cuda": state["cuda"], "numpy": told["numpy"], "python": python})
