"""A task, a tokenizer and a model as one frozen value, and the steps from texts to predictions.

Takes rows or texts. Gives tokens, batches, outputs, predictions, and the trace of one row with every value in between.
Knows nothing of files, training or screens; every other path (learner, evaluation, export) calls the steps written here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from pellucid.batch import TokenBudget, plan_sorted, widths
from pellucid.data import Rows, Split
from pellucid.errors import SettingError
from pellucid.gathered import Gathering, pooled
from pellucid.given import as_split
from pellucid.portraits import weight_lines
from pellucid.predictions import Predictions, SplitSource
from pellucid.task import Source, Task, settings_of
from pellucid.tasks import task_class
from pellucid.tokens import PadSpec, TokenOptions, TokenTable, encode_split, load_tokenizer, pad_spec
from pellucid.traced_tokens import given_tokens
from pellucid.types import Batch, Example, FloatArray, IntArray, Note, Output, Prediction, Trace, Want
from pellucid.view import Lines, Stack, Table, View

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.model import ModelOptions, Pooling
    from pellucid.provenance import Provenance

READABLE = (("text",), ("text", "text_pair"))  # the fields that rows have
ANSWERS = Want(answers=True)
CPU_BUDGET = TokenBudget(max_tokens=1024, max_rows=256)  # what stays in a core's cache is fastest: see docs/log.md
GPU_BUDGET = TokenBudget(max_tokens=65_536, max_rows=1024)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a pipeline: its name, what it takes and gives, and what does it here."""

    name: str
    takes: str
    gives: str
    what: str


@dataclass(frozen=True)
class Pipeline:
    """Everything between a text and an answer. Frozen: `dataclasses.replace` makes another one."""

    task: Task
    tokenizer: "PreTrainedTokenizerBase"
    model: "PreTrainedModel"
    options: TokenOptions
    provenance: "Provenance"
    checkpoint: str
    notes: tuple[Note, ...] = ()

    @classmethod
    def new(
        cls,
        task: str | Task,
        checkpoint: str | Path = "minilm",
        rows: Rows | None = None,
        *,
        tokens: TokenOptions | None = None,
        model: "ModelOptions | None" = None,
    ) -> Self:
        """A pipeline from a checkpoint ("minilm", a folder or a name on the Hub), with the labels of `rows` where they are given.

        `task` is a pipeline tag or a task with settings of your own. Raises SettingError, LabelError, CheckpointError, TokenizerError.
        """
        from pellucid.model import ModelOptions, resolve, set_pad_token

        chosen: Task = task_class(task)() if isinstance(task, str) else task
        notes: tuple[Note, ...] = ()
        if rows is not None:
            chosen, notes = chosen.for_rows(rows.train)
        if chosen.reads not in READABLE:
            cure = f"Tasks read {' or '.join(map(str, READABLE))}; call the fields of yours so."
            raise SettingError(f"the task {chosen.tag!r} reads {chosen.reads}", cure=cure, place="reads")
        load = model or ModelOptions()
        named = checkpoint if isinstance(checkpoint, str) else str(checkpoint.absolute())  # Path("minilm") is a folder, "minilm" is not
        tokenizer, tokenizer_notes = load_tokenizer(resolve(named, load.revision).folder)
        chosen, fitting_notes = chosen.for_tokenizer(tokenizer)
        chosen, built = chosen.build(named, load)
        set_pad_token(built.model, tokenizer.pad_token_id)
        options, length_notes = with_length(tokens or TokenOptions(), chosen, tokenizer, built.model)
        everything = (*notes, *tokenizer_notes, *fitting_notes, *built.notes, *length_notes)
        return cls(chosen, tokenizer, built.model, options, built.provenance, str(checkpoint), everything)

    @property
    def pad(self) -> PadSpec:
        """How token rows become one array for this model."""
        from pellucid.model import accepted_inputs

        return pad_spec(self.tokenizer, self.options, accepted_inputs(self.model))

    def steps(self) -> tuple[Step, ...]:
        """The steps in order, with what does each of them here."""
        return (
            Step(
                "encode", "Example", "Tokens", f"{type(self.tokenizer).__name__}, {len(self.tokenizer):,} pieces, {self.options.describe()}"
            ),
            Step("collate", "Tokens", "Batch", f"pad {self.pad.side} with {self.tokenizer.pad_token!r}: {', '.join(self.pad.input_names)}"),
            Step("run", "Batch", "Output", f"{type(self.model).__name__}, {self.provenance.total:,} parameters, {self.model.dtype}"),
            Step(
                "decode",
                "Output",
                "Prediction",
                f"{type(self.task).__name__}: {', '.join(f'{k}={v}' for k, v in settings_of(self.task).items())}",
            ),
        )

    @property
    def budget(self) -> TokenBudget:
        """How large a batch is in prediction where nobody says: small on a CPU, large on a GPU."""
        return CPU_BUDGET if self.model.device.type == "cpu" else GPU_BUDGET

    def view(self) -> View:
        """The steps, where the weights come from, and what was chosen."""
        rows = tuple((step.name, f"{step.takes} → {step.gives}", step.what) for step in self.steps())
        steps = Table(f"{self.task.tag} with {self.checkpoint}", ("step", "from → to", "what does it"), rows)
        notes = (Lines("chosen for you", tuple(map(str, self.notes))),) if self.notes else ()
        return Stack("pipeline", (steps, self.provenance.view(), *notes))

    def encode(self, split: Split, *, cache: Path | None = None) -> TokenTable:
        """Tokenize all rows of a split, with their targets where it has them; kept in the folder `cache` if one is given."""
        encode = partial(self.task.encode, self.tokenizer)
        key = json.dumps([self.task.tag, settings_of(self.task)], sort_keys=True)
        return encode_split(encode, split, options=self.options, tokenizer=self.tokenizer, cache=cache, key=key)

    def source(self, split: Split) -> SplitSource:
        """Where `decode` looks up the texts and tokens of a row."""
        return SplitSource(split, self.tokenizer, self.options, self.task.windows_of)

    def collate(self, tokens: TokenTable, windows: IntArray) -> Batch:
        """Pad the named windows into one batch."""
        return self.task.collate(tokens, windows, self.pad)

    def run(self, batch: Batch, want: Want = Want()) -> Output:
        """One forward pass without gradients, the model in evaluation mode; numpy arrays come out."""
        from pellucid.model import inference, to_numpy

        with inference(self.model):
            return to_numpy(self.task.run(self.model, batch, want))

    def decode(self, output: Output, batch: Batch, source: Source | None = None) -> list[Prediction]:
        """What the numbers mean: one prediction a row. Several windows of a row become one where a row is one vector of numbers."""
        if output.lengths is None and self.options.long is not None and self.options.long.in_windows:
            output, firsts = pooled(output, batch.rows, batch.lengths, self.options.long.pooling)
            batch = batch.take(firsts)
        return self.task.decode(output, batch, source)

    def predict(
        self, data: object, *, budget: TokenBudget | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Predictions:
        """Predictions for a text, a list, a frame, a Dataset or a split, in the order of the rows.

        Batches are planned by length, `budget` bounds their padded tokens (None: `self.budget`). `progress(done, total)` is called after
        each batch.
        """
        split = as_split(data, self.task.reads)
        table = self.encode(split.without_targets())
        gathering = Gathering(len(table))
        done = 0
        for windows in plan_sorted(widths(table, self.pad), budget or self.budget):
            gathering.add(windows, self.run(self.collate(table, windows), ANSWERS))
            done += len(windows)
            if progress is not None:
                progress(done, len(table))
        everything = Batch({}, None, table.rows, table.windows, table.lengths)
        return Predictions(self.decode, self.source(split), everything, gathering.done())

    def losses(
        self, split: Split, *, budget: TokenBudget | None = None, progress: Callable[[int, int], None] | None = None
    ) -> tuple[FloatArray, IntArray, IntArray]:
        """The loss of every window as training sees it, without dropout: (windows,), how many labels each is the mean of, and its row."""
        from pellucid.model import losses_of

        table = self.task.to_learn(self.encode(split))
        found, counts = np.zeros(len(table), dtype=np.float32), np.zeros(len(table), dtype=np.int64)
        done = 0
        for windows in plan_sorted(widths(table, self.pad), budget or self.budget):
            batch = self.task.drawn(self.collate(table, windows), 0)
            found[windows], counts[windows] = losses_of(self.model, batch, self.task.run, self.task.loss)
            done += len(windows)
            if progress is not None:
                progress(done, len(table))
        return found, counts, table.rows

    def features(self, data: object, *, pooling: "Pooling" = "mean", layer: int = -1, budget: TokenBudget | None = None) -> FloatArray:
        """One vector a row from the body alone: (rows, hidden) float32. `pooling`: mean, cls, last or max over the real tokens."""
        from pellucid.model import features

        table = self.encode(as_split(data, self.task.reads).without_targets())
        gathering = Gathering(len(table))
        for windows in plan_sorted(widths(table, self.pad), budget or self.budget):
            gathering.add(windows, Output(features(self.model, self.collate(table, windows), pooling, layer)))  # (batch, hidden)
        how = "mean" if self.options.long is None else self.options.long.pooling
        vectors: FloatArray = pooled(gathering.done().take(np.arange(len(table))), table.rows, table.lengths, how)[0].logits
        return vectors

    @overload
    def __call__(self, texts: str) -> Prediction: ...
    @overload
    def __call__(self, texts: Sequence[Any]) -> list[Prediction]: ...
    def __call__(self, texts: str | Sequence[Any]) -> Prediction | list[Prediction]:
        """A prediction for one text, a list of them for a list."""
        return self.predict([texts])[0] if isinstance(texts, str) else list(self.predict(texts))

    def trace(self, row: object) -> Trace:
        """One row through every step: an Example, a text, or a dict of the fields that the task reads."""
        start = perf_counter()
        split = as_split(row if isinstance(row, Example) else [row], self.task.reads)
        example = row if isinstance(row, Example) else split[0]  # an Example keeps its number and its target
        read = perf_counter()
        table = self.encode(split.without_targets())
        encoded = perf_counter()
        batch = self.collate(table, np.arange(len(table)))
        collated = perf_counter()
        output = self.run(batch, ANSWERS)
        ran = perf_counter()
        source = self.source(split)
        gathering = Gathering(len(table))
        gathering.add(np.arange(len(table)), output)
        kept = gathering.done().take(np.arange(len(table)))  # what `predict` hands over, no more
        prediction = self.decode(kept, batch.without_inputs(), source)[0]
        seconds = {"encode": encoded - read, "collate": collated - encoded, "run": ran - collated, "decode": perf_counter() - ran}
        given = given_tokens(self.tokenizer, batch, source.windows(0))
        tokens = tuple(replace(each, lost=max(each.lost, int(lost))) for each, lost in zip(given, table.lost, strict=True))
        counts = {str(origin): count for origin, count in self.provenance.counts().items()}
        weights = weight_lines(counts, sorted(self.provenance.new_names()))
        return Trace(example, tokens, batch, output, prediction, {"read": read - start, **seconds}, self.notes, weights)


def with_length(
    asked: TokenOptions, task: Task, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel"
) -> tuple[TokenOptions, tuple[Note, ...]]:
    """The options with the length that tokenizer and model allow, and with what the task does to long texts, where nobody said."""
    from pellucid.model import max_positions
    from pellucid.tokens import effective_max_length

    options = asked
    if asked.long is None and asked.truncation_strategy != "do_not_truncate":
        options = replace(asked, long=task.long_texts)
    length, note = effective_max_length(tokenizer, options, max_positions(model.config))
    notes: tuple[Note, ...] = () if note is None else (note,)
    long = options.long
    if length is not None and long is not None and 2 * long.stride > length and asked.long is None:
        stride = length // 4
        why = f"windows of {length} tokens cannot share the usual {long.stride}"
        change = f'TokenOptions(long=LongTexts("windows", stride={stride})) sets another.'
        notes += (Note(f"windows share {stride} tokens", why, change),)
        long = replace(long, stride=stride)
    if long is not None and long.policy == "chunk-and-join":
        notes += (Note("long texts are chunked and joined", "that was asked for", "No part is seen beside another one."),)
    return replace(options, max_length=length, long=long), notes
