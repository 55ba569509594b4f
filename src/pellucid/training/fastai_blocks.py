"""From rows to fastai's DataLoaders: batches by length, cut from one table of tokens.

Takes a pipeline, and rows or what fastai's DataBlock makes of a frame. Gives loaders of (inputs, labels), and tables to look at.
Knows nothing of learners, losses or how the weights change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from fastai.data.block import TransformBlock
from fastai.data.core import DataLoaders, Datasets, TfmdDL, TfmdLists
from fastai.torch_core import to_device
from fastcore.foundation import L

from pellucid.batch import IGNORED, TokenBudget, plan_sorted, plan_training, widths
from pellucid.data import Rows, Split
from pellucid.errors import DataError, SettingError
from pellucid.forwarding import check_reach
from pellucid.given import as_split
from pellucid.inspection import show as show_view
from pellucid.task import LABELLED_TOKENS
from pellucid.training.batch_text import TokenInputs, shown_label, shown_text
from pellucid.training.fastai_rows import PickedRows, TokenRows, check_vocab, encode_items
from pellucid.types import IntArray
from pellucid.view import Cell, Table

if TYPE_CHECKING:
    from pellucid.pipelines import Pipeline
    from pellucid.tokens import TokenTable

AUTO_ROWS, AUTO_TOKENS = 32, 4096  # of a batch on a CPU; a GPU takes eight times the tokens
PEEK = 2**31  # epochs from here on are looked at, never trained on: looking at a batch does not change the training


def check_positive(name: str, value: Any) -> None:
    """Raise SettingError for what is no number of rows or tokens."""
    if not isinstance(value, int) or value < 1:
        raise SettingError(f"{name} is {value!r}, expected 1 or more", place=name, cure=f"Pass {name}=16 or another positive number.")


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """How rows become batches.

    `bs` rows a batch at most; `max_tokens` bounds its padded tokens as well, so that long texts come in smaller batches. "auto" is 32 rows
    and 4,096 tokens, on a GPU 32,768; where memory does not hold that, a batch is computed in parts. `bucket` puts
    texts of like length together for training, in an order that is new each epoch and follows from `seed`; None does so but where tokens
    have labels: those learn worse from it (docs/log.md). `balanced` draws the rows of an epoch with replacement, so that each label comes
    equally often. `cache` is a folder that keeps the tokens. Raises SettingError for a number below 1.
    """

    bs: int | Literal["auto"] = 16
    seed: int = 42
    bucket: bool | None = None
    max_tokens: int | None = None
    cache: Path | None = None
    balanced: bool = False

    def __post_init__(self) -> None:
        if self.bs != "auto":
            check_positive("bs", self.bs)
        check_positive("max_tokens", 1 if self.max_tokens is None else self.max_tokens)

    def sized(self, device: str) -> "LoaderOptions":
        """The same with numbers in the place of "auto"; `device` is its type: cpu, cuda."""
        if self.bs != "auto":
            return self
        tokens = AUTO_TOKENS if device == "cpu" else 8 * AUTO_TOKENS
        return replace(self, bs=AUTO_ROWS, max_tokens=self.max_tokens or tokens)


class TextBlock(TransformBlock):
    """fastai's block for texts: `DataBlock(blocks=(pl.TextBlock(pipe), CategoryBlock), …)`.

    The texts are tokenized once, by the pipeline, when the loaders are made; item transforms run then too, not again each epoch.
    Batches have `options.bs` rows; `.dataloaders(frame, bs=8)` sets another number.
    """

    def __init__(self, pipe: "Pipeline", options: LoaderOptions = LoaderOptions()) -> None:
        options = options.sized(device_of(pipe).type)
        super().__init__(dl_type=TokenLoader, dls_kwargs={"pipe": pipe, "options": options, "bs": options.bs})  # else fastai's 64


class TokenLoader(TfmdDL):
    """A fastai loader over a table of tokens: a batch is one gather in numpy and a tensor around it.

    Training batches are of like length and come in a new order each epoch; others are sorted by length, and `get_idxs` tells where each
    row went, so that `get_preds` gives them back in order. `one_batch` and `show_batch` draw another batch each time, and do not change
    what training sees.
    """

    _n_inp, _types = 1, (dict,)  # fastai would find these by making a batch

    def __init__(
        self,
        dataset: Any,
        bs: int = 16,
        shuffle: bool = False,
        *,
        pipe: "Pipeline",
        options: LoaderOptions = LoaderOptions(),
        table: "TokenTable | None" = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("num_workers", None):
            raise SettingError(
                "a batch is one gather from a table of tokens, worker processes would only copy it",
                place="num_workers",
                cure="Leave it out.",
            )
        check_positive("bs", bs)
        self.pipe, self.options, self.pad = pipe, options, pipe.pad
        self.epoch, self.peeks = 0, 0
        self._planned: tuple[Any, list[IntArray]] | None = None
        self._running: list[IntArray] | None = None
        self.sent: list[IntArray] = []  # the windows of each batch of the epoch that runs
        super().__init__(dataset, bs=bs, shuffle=shuffle, num_workers=0, **kwargs)
        self.table = self.table_of(dataset) if table is None else table
        if shuffle and options.balanced:
            check_balance(pipe.task.kind)
        check_reach(pipe.model, self.table.ids, int(self.table.lengths.max(initial=0)))  # on a GPU a wrong id would kill the process

    def table_of(self, dataset: Any) -> "TokenTable":
        """The tokens of a dataset, with its targets where it has them: one row a window."""
        if isinstance(dataset, TokenRows):
            return dataset.table
        check_vocab(getattr(dataset, "vocab", None), getattr(self.pipe.task, "labels", ()))
        return encode_items(self.pipe, [self.after_item(item) for item in dataset], getattr(dataset, "n_inp", 1), self.options.cache)

    def new(self, dataset: Any = None, cls: type | None = None, **kwargs: Any) -> "TokenLoader":
        """Another loader with the same settings; what is no dataset of fastai's is read as rows: a list of texts, a frame, a split."""
        if dataset is not None and not isinstance(dataset, TokenRows | Datasets | TfmdLists):
            picked = isinstance(dataset, PickedRows)
            split = dataset.split if picked else dataset if isinstance(dataset, Split) else as_split(dataset, self.pipe.task.reads)
            dataset = TokenRows(self.pipe, split, table=dataset.table if picked else None)
        kept = {"table": self.table} if dataset is None or dataset is self.dataset else {}
        return super().new(dataset, cls, **({"pipe": self.pipe, "options": self.options} | kept | kwargs))

    def plan(self, epoch: int) -> list[IntArray]:
        """The windows of each batch of an epoch."""
        lengths = widths(self.table, self.pad)
        if not self.shuffle:
            return plan_sorted(lengths, TokenBudget(self.options.max_tokens or self.bs * max(1, int(lengths.max(initial=1))), self.bs))
        drawn = balanced_draw(self.table.labels, self.options.seed, epoch) if self.options.balanced else np.arange(len(lengths))
        if self.options.bucket or (self.options.bucket is None and self.pipe.task.kind not in LABELLED_TOKENS):
            budget = None if self.options.max_tokens is None else TokenBudget(self.options.max_tokens, self.bs)
            plan = plan_training(lengths[drawn], batch_size=self.bs, budget=budget, seed=self.options.seed, epoch=epoch)
            plan = [drawn[windows] for windows in plan]
        else:
            plan = self.cut(drawn[np.random.default_rng([self.options.seed, epoch]).permutation(len(lengths))])
        return [windows for windows in plan if len(windows) == self.bs] if self.drop_last and self.options.max_tokens is None else plan

    def _current_plan(self) -> list[IntArray]:
        """The plan of the epoch that comes next."""
        key = (self.epoch, self.shuffle, self.bs, self.drop_last)
        if self._planned is None or self._planned[0] != key:
            self._planned = (key, self.plan(self.epoch))
        return self._planned[1]

    def cut(self, order: IntArray) -> list[IntArray]:
        """Batches of windows in the order given: at most `bs` each, and no more padded tokens than `max_tokens`."""
        most = self.options.max_tokens
        if most is None:
            return [order[start : start + self.bs] for start in range(0, len(order), self.bs)]
        lengths = widths(self.table, self.pad)[order]
        starts, longest = [0], 0
        for place, length in enumerate(lengths.tolist()):
            longest = max(longest, length)
            count = place - starts[-1] + 1
            if count > 1 and (count > self.bs or count * longest > most):
                starts.append(place)
                longest = length
        return [part for part in np.split(order, starts[1:]) if len(part)]

    def __len__(self) -> int:
        return len(self.cut(np.asarray(self.get_idxs())) if "get_idxs" in self.__dict__ else self._current_plan())

    def get_idxs(self) -> IntArray:
        """The order in which the rows come, (rows,); a shuffled loader moves on to its next epoch."""
        plan = self._current_plan()
        self._running = plan
        if self.shuffle:
            self.epoch += 1
        return np.concatenate(plan) if plan else np.zeros(0, dtype=np.int64)

    def create_batches(self, samps: Iterable[int]) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch. `samps` are the row numbers in order."""
        order = np.fromiter(samps, dtype=np.int64)
        plan, self._running = self._running, None
        if plan is None or sum(map(len, plan)) != len(order):
            plan = self.cut(order)
        self.sent = plan
        return (self._batch(self.table, windows) for windows in plan)

    def rest(self, first: int) -> Iterator[tuple[Any, ...]]:
        """The batches of the next epoch but the `first` ones, on the device, for a training that goes on; draws no random numbers."""
        self.before_iter()
        self.get_idxs()
        self.sent, self._running = self._running or [], None
        for windows in self.sent[first:]:
            batch = self._batch(self.table, windows)
            yield self.after_batch(batch if self.device is None else to_device(batch, self.device))
        self.after_iter()

    def _batch(self, table: "TokenTable", windows: IntArray) -> tuple[Any, ...]:
        """(inputs, labels), or (inputs,) where there are no labels; each input (batch, tokens)."""
        task = self.pipe.task
        batch = task.drawn(task.collate(table, windows, self.pad), self.epoch if self.shuffle else 0)
        inputs = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
        return (inputs,) if batch.labels is None else (inputs, torch.from_numpy(np.asarray(batch.labels)))

    def create_batch(self, b: Sequence[Any]) -> tuple[Any, ...]:
        """The batch of items that fastai holds in hand, as (text, target)."""
        table = encode_items(self.pipe, b, getattr(self.dataset, "n_inp", 1), None)
        return self._batch(table, np.arange(len(table)))

    def one_batch(self) -> tuple[Any, ...]:
        """A batch, on the device; a shuffled loader gives another one each time."""
        if len(self) == 0:
            raise DataError(
                f"there is no batch: {len(self.table)} rows, bs={self.bs}, drop_last={self.drop_last}", cure="Pass a smaller bs."
            )
        if "get_idxs" in self.__dict__:
            first = self.cut(np.asarray(self.get_idxs()))[0]
        else:
            first = (self.plan(PEEK + self.peeks) if self.shuffle else self._current_plan())[-1]  # the longest stand first
        self.peeks += 1
        self.before_iter()
        batch = self._batch(self.table, first)
        return self.after_batch(batch if self.device is None else to_device(batch, self.device))

    def decode_batch(self, b: Any, max_n: int = 9, full: bool = True) -> L:
        """(text, label name) of the rows of a batch, as the model reads them: with special tokens, without padding."""
        return self._pre_show_batch(b, max_n)[2]

    def _pre_show_batch(self, b: Any, max_n: int = 9) -> tuple[TokenInputs, Any, L]:
        inputs = TokenInputs({name: tensor[:max_n].cpu() for name, tensor in b[0].items()})
        texts = shown_text(self.pipe.tokenizer, inputs)
        labels = [b[1][row].cpu() for row in range(min(max_n, len(b[1])))] if len(b) > 1 else []
        names: list[tuple[Any, ...]] = [self._named(label, ids) for label, ids in zip(labels, inputs["input_ids"], strict=False)]
        names = names or [()] * len(texts)
        return inputs, b[1] if len(b) > 1 else None, L((text, *name) for text, name in zip(texts, names, strict=True))

    def _named(self, label: Any, ids: Any) -> tuple[Any]:
        """A label of the batch as a person reads it."""
        return (shown_label(self.pipe.task, label, ids, self.pipe.tokenizer.decode),)

    def show_batch(
        self, b: Any = None, max_n: int = 9, ctxs: Any = None, show: bool = True, unique: bool = False, trunc_at: int = 150
    ) -> Any:
        """Show rows of a batch as the model reads them, cut at `trunc_at` characters. `ctxs` and `unique` have no meaning for texts."""
        found = self._pre_show_batch(self.one_batch() if b is None else b, max_n)
        return show_rows("a batch", ("text", "label"), found[2], trunc_at) if show else found

    def show_results(self, b: Any, out: Any, max_n: int = 9, ctxs: Any = None, show: bool = True, trunc_at: int = 150) -> Any:
        """Show rows of a batch with their label and what was predicted (`out`, decoded). `ctxs` has no meaning for texts."""
        inputs, targets, samples = self._pre_show_batch(b, max_n)
        answers = (out[0] if isinstance(out, tuple | list) else out)[:max_n]
        if targets is not None and answers.ndim == 2 and answers.shape[1:] == targets.shape[1:] and not targets.is_floating_point():
            answers = answers.masked_fill(targets[:max_n].to(answers.device) == IGNORED, IGNORED)  # what is not scored is not shown
        outs = L(self._named(answer, ids) for answer, ids in zip(answers, inputs["input_ids"], strict=False))
        if not show:
            return inputs, targets, samples, outs
        columns = ("text", "label", "predicted") if targets is not None else ("text", "predicted")
        return show_rows("results", columns, [(*sample, *out) for sample, out in zip(samples, outs, strict=True)], trunc_at)


def check_balance(kind: str) -> None:
    """Raise SettingError for a kind of task whose rows have no single label to be balanced by."""
    if kind != "single_label":
        cure = 'Weigh the labels in the loss: LossOptions(class_weights="balanced").'
        raise SettingError(f"rows of the kind {kind!r} have no single label to draw them by", place="balanced", cure=cure)


def balanced_draw(labels: Any, seed: int, epoch: int) -> IntArray:
    """As many rows as there are labels (rows,), drawn with replacement so that every label is equally likely; follows from the seed."""
    numbers = np.asarray(labels)
    counts = np.bincount(numbers)
    chances = 1.0 / (np.count_nonzero(counts) * counts[numbers])
    return np.random.default_rng([seed, epoch, 1]).choice(len(numbers), len(numbers), p=chances / chances.sum())


def device_of(pipe: "Pipeline") -> torch.device:
    """Where the model is."""
    return next(pipe.model.parameters()).device


def dataloaders(pipe: "Pipeline", rows: Rows, *, options: LoaderOptions = LoaderOptions()) -> DataLoaders:
    """Loaders over the training and the validation split, tokenized once. Raises DataError, LabelError, TokenizerError."""
    device = device_of(pipe)
    options = options.sized(device.type)
    loaders = [
        TokenLoader(TokenRows(pipe, split, options.cache), int(options.bs), shuffle, pipe=pipe, options=options, device=device)
        for split, shuffle in ((rows.train, True), (rows.valid, False))
    ]
    return DataLoaders(*loaders, device=device)


def show_rows(title: str, columns: tuple[str, ...], rows: Iterable[Sequence[Cell]], trunc_at: int) -> None:
    """Show a table; the first column is a text and is cut at `trunc_at` characters."""
    cells = [(text if len(str(text)) <= trunc_at else f"{str(text)[:trunc_at]}…", *others) for text, *others in rows]
    show_view(Table(title, columns[: len(cells[0])] if cells else columns, tuple(cells)))
