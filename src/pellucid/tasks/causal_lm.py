"""Text that goes on from text: language models, prompts and conversations.

Takes columns of texts, with or without what should follow, and what the model wrote. Gives token tables whose labels are tokens, and
answers. Knows nothing of loops, files or how a token is chosen: `generation` does that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from pellucid.batch import IGNORED, row_slices
from pellucid.batch import pad as pad_windows
from pellucid.chats import Message, chat_of, chat_text
from pellucid.errors import CheckpointError, DataError, SettingError
from pellucid.generation import GenerationOptions, candidates_of, continued, generate, generation_of, positions_of, resolved, stream_text
from pellucid.language_rows import language_table, packed, split_up
from pellucid.metrics import Score
from pellucid.task import Task
from pellucid.token_table import ragged_positions
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable, windows_of
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Tokens, Want
from pellucid.view import Lines, Stack, Table, View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell

BLOCK = 256  # tokens that are learned at once where nobody says: logits take block × vocabulary numbers a row
NEW_TOKENS = 64
CAUSAL_WITHIN = 1e-4  # share of the highest logit by which logits may move when a later token changes: rounding


@dataclass(frozen=True, slots=True)
class TextGeneration(GenerationOptions, Task):
    """A text that goes on: from a prompt, or from a conversation, which is a list of messages with "role" and "content".

    To learn: plain texts are learned whole, one after the other with the end token between, in blocks of `block_tokens` (`pack=False`: a
    row stays a row). Of rows with a target only the target is learned, of conversations only the answers. `full_text` puts the prompt
    before the answer. `end_id` is found when the model is built.
    """

    pack: bool = True
    block_tokens: int | None = None
    full_text: bool = False
    end_id: int | None = None

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "text-generation"

    @property
    def kind(self) -> str:
        """A language model."""
        return "language"

    @property
    def long_texts(self) -> LongTexts:
        """Of a prompt that is too long the end is read; to learn, nothing of a plain text is lost."""
        return LongTexts("truncate")

    @property
    def reads(self) -> tuple[str, ...]:
        """One text."""
        return ("text",)

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The same task; how the rows will be learned is said."""
        if not len(split):
            return self, ()
        if split.has_targets:
            return self, (Note("the targets are learned, the texts are only read", "the rows have targets", "label=False reads none."),)
        if chat_of(split[0].fields["text"]) is not None:
            return self, (Note("only the answers are learned", "the rows are conversations"),)
        how = "in blocks, one after the other with the end token between" if self.pack else "row by row"
        return self, (Note(f"every token is learned, {how}", "the rows are plain texts", f"TextGeneration(pack={not self.pack})."),)

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The model with the head of its pretraining. Raises CheckpointError for one that reads to both sides."""
        from pellucid.model import build_model, max_positions

        built = build_model(checkpoint, options, auto_class="AutoModelForCausalLM")
        check_direction(built.model, checkpoint)
        reach = max_positions(built.model.config)
        if reach is not None and max(self.max_new_tokens or 0, self.block_tokens or 0) > reach:
            cure = f"Set them to {reach} or less."
            raise SettingError(f"the model reaches {reach} tokens", place="max_new_tokens, block_tokens", cure=cure)
        usual = {"max_new_tokens": NEW_TOKENS if reach is None else min(NEW_TOKENS, reach // 2)}
        made, notes = resolved(generation_of(self), built.model, {}, usual)
        block = self.block_tokens or (BLOCK if reach is None else min(BLOCK, reach))
        task = replace(self, **asdict(made), block_tokens=block, end_id=end_of(built.model) if self.end_id is None else self.end_id)
        if task.end_id is None and task.pack:
            notes += (Note("nothing stands between packed texts", "the checkpoint names no end token", "TextGeneration(end_id=…)."),)
        return task, replace(built, notes=(*built.notes, *notes))

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize each row whole, with a label a token: the token itself where it is learned, else -100.

        `lost` are the first tokens of a row that are left out when it is a prompt, so that it fits together with what will be written.
        """
        room = self.room(options)
        table = language_table(tokenizer, columns, targets, options, self.end_id)
        return table if room is None else with_lost(table, room)

    def room(self, options: TokenOptions) -> int | None:
        """How many tokens of a prompt are read, its last ones; None for all. Raises SettingError for none, or for windows."""
        if options.long is not None and options.long.in_windows:
            cure = 'Use TokenOptions(long=LongTexts("truncate")); plain texts to learn from are read whole all the same.'
            raise SettingError("a prompt is read from its end, not in windows", place="long", cure=cure)
        room = None if options.max_length is None else options.max_length - (self.max_new_tokens or NEW_TOKENS)
        if room is not None and room < 1:
            problem = f"max_length {options.max_length} leaves no room for a prompt beside {self.max_new_tokens} new tokens"
            raise SettingError(problem, place="max_length", cure="Set a larger max_length, or fewer max_new_tokens.")
        return room

    def windows_of(self, tokenizer: "PreTrainedTokenizerBase", example: Example, options: TokenOptions) -> tuple[Tokens, ...]:
        """The tokens of a prompt that are read: the last ones of a long text."""
        (whole,) = windows_of(tokenizer, example, self.reads, replace(options, long=None, truncation=False))
        return (last_tokens(whole, self.room(options)),)

    def label_array(self, targets: Sequence[Target]) -> IntArray:
        """Not possible: a text becomes ids by a tokenizer, in `encode`."""
        raise SettingError("texts have no numbers of their own", place="targets", cure="Encode rows with their targets.")

    def to_learn(self, table: TokenTable) -> TokenTable:
        """Blocks of plain texts; rows of which only a part is learned stay rows, of which the last `block_tokens` are read."""
        block = self.block_tokens or BLOCK
        ignored = np.asarray(table.labels) == IGNORED
        if len(table) and ignored.all() and len(ignored) > len(table):
            cure = 'Conversations are learned from the messages of the role "assistant".'
            raise DataError("there is no token to learn", place="the rows", cure=cure)
        if int(ignored.sum()) > len(table):  # a part of some row is not learned
            return with_lost(table, block)
        return packed(table, block, self.end_id) if self.pack else split_up(table, block)

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad on the left, so that all rows go on from the same place; what is counted as lost is left out."""
        chosen = np.asarray(windows, dtype=np.int64)
        return pad_windows(without_lost(tokens, chosen), np.arange(len(chosen)), replace(pad, side="left"))

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """To learn: logits (batch, tokens, vocabulary). To answer: what was written, see `generation.generate`."""
        from pellucid.model import accepted_inputs, forward, max_positions

        if want.answers:
            reach = max_positions(model.config)
            room = None if reach is None else max(1, reach - (self.max_new_tokens or NEW_TOKENS))
            inputs = {name: array if room is None else array[:, -room:] for name, array in batch.inputs.items()}
            return generate(model, inputs, generation_of(self))
        if "position_ids" not in accepted_inputs(model):
            return forward(model, batch, want)
        placed = {**batch.inputs, "position_ids": positions_of(batch.inputs["attention_mask"])}
        return forward(model, replace(batch, inputs=placed), want)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropy of each token from those before it, the mean over the learned tokens of each entry: (batch,)."""
        from torch.nn import functional

        wanted = labels[:, 1:]  # (batch, tokens - 1)
        flat = logits[:, :-1].float().flatten(0, 1)  # (batch × tokens, vocabulary)
        each = functional.cross_entropy(flat, wanted.flatten(), ignore_index=IGNORED, reduction="none").view(wanted.shape)
        return each.sum(1) / (wanted != IGNORED).sum(1).clamp(min=1)

    def best_labels(self, logits: FloatArray) -> IntArray:
        """The most likely token at each place, from what stands before it: (batch, tokens); nothing for the first."""
        best = np.full(np.asarray(logits).shape[:2], IGNORED, dtype=np.int64)
        best[:, 1:] = np.asarray(logits)[:, :-1].argmax(-1)
        return best

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """What is learned, as it is spelled."""
        return spell(np.asarray(labels)[np.asarray(labels) != IGNORED].astype(np.int64).tolist())

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """What follows the prompt of each row, and every text with its log-probability a token."""
        if source is None:
            raise SettingError("ids are no text without a tokenizer", place="source", cure="Call Pipeline.predict.")
        found = []
        for windows in row_slices(batch.rows):
            row = int(batch.rows[windows.start])
            texts = candidates_of(output, windows.stop - 1, partial(continued, source.text), self.stop)
            prompt = source.example(row).fields["text"] if self.full_text else ""
            prompt = "" if chat_of(prompt) else prompt
            scored = tuple((prompt + each.text, each.score(self.length_penalty)) for each in texts)
            found.append(Prediction(row, scored[0][0], alternatives=scored))
        return found

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """None of what was written: a language model is scored by how well it foresees a text."""
        return ()

    def view(self, prediction: Prediction, example: Example) -> View:
        """The prompt, what follows it, and all texts that were weighed where there are several."""
        parts: list[View] = [Lines("prompt", tuple(example.fields.values())), Lines("answer", (str(prediction.answer),))]
        if len(prediction.alternatives) > 1:
            parts.append(Table("texts that were weighed", ("text", "log-probability a token"), prediction.alternatives))
        return Stack(f"row {prediction.row}", tuple(parts))


class Written(Protocol):
    """What of a pipeline is needed to write and to foresee a text."""

    @property
    def task(self) -> Any:
        """A TextGeneration."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        ...

    @property
    def model(self) -> Any:
        """The language model."""
        ...

    @property
    def options(self) -> TokenOptions:
        """How texts become tokens."""
        ...

    def collate(self, tokens: TokenTable, windows: IntArray) -> Batch:
        """Pad windows into one batch."""
        ...


def stream(pipe: Written, prompt: str | list[Message], *, seconds: float = 60.0) -> Iterator[str]:
    """What follows a prompt or a conversation, piece by piece as it is written; see `generation.stream_text`."""
    text = prompt if isinstance(prompt, str) else chat_text(prompt)
    if text is None:
        raise DataError("expected a text or messages", place="prompt", cure='Write messages as [{"role": "user", "content": "…"}].')
    table = pipe.task.encode(pipe.tokenizer, {"text": [text]}, None, pipe.options)
    batch = pipe.collate(table, np.arange(len(table)))
    return stream_text(pipe.model, pipe.tokenizer, batch.inputs, generation_of(pipe.task), seconds=seconds)


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """How well each token of a text was foreseen: its piece, and the log-probability it had (None where nothing stands before it)."""

    pieces: tuple[str, ...]
    log_probabilities: tuple[float | None, ...]

    @property
    def perplexity(self) -> float:
        """Of the whole text: e to the mean loss of a token; nan where none was foreseen."""
        known = [value for value in self.log_probabilities if value is not None]
        return float(np.exp(-np.mean(known))) if known else float("nan")

    def view(self) -> Table:
        """One column a token: piece, probability, loss."""
        rows = tuple(
            (piece, None, None) if value is None else (piece, float(np.exp(value)), -value)
            for piece, value in zip(self.pieces, self.log_probabilities, strict=True)
        )
        columns = ("piece", "probability", "loss")
        return Table(f"perplexity {self.perplexity:.4g} over {len(rows):,} tokens", columns, rows, across=True)


def token_losses(pipe: Written, text: str) -> TokenLosses:
    """How well the model foresees each token of a text that is learned; a long text in blocks, each with a beginning of its own."""
    import torch

    table = pipe.task.encode(pipe.tokenizer, {"text": [text]}, None, pipe.options)
    table = replace(pipe.task, pack=False).to_learn(table)
    pieces: list[str] = []
    values: list[float | None] = []
    for window in range(len(table)):
        batch = pipe.collate(table, np.array([window]))
        with torch.no_grad():
            logits = pipe.task.run(pipe.model, batch).logits[0].float().log_softmax(-1).cpu().numpy()  # (tokens, vocabulary)
        ids, labels = batch.inputs["input_ids"][0], np.asarray(batch.labels)[0]
        pieces += pipe.tokenizer.convert_ids_to_tokens(ids.tolist())
        known = [None, *(float(logits[place, number]) for place, number in enumerate(ids[1:].tolist()))]
        values += [value if label != IGNORED else None for value, label in zip(known, labels.tolist(), strict=True)]
    return TokenLosses(tuple(pieces), tuple(values))


def check_direction(model: "PreTrainedModel", checkpoint: str) -> None:
    """Raise CheckpointError where what stands later changes what is foreseen earlier: such a model cannot write."""
    import torch

    ids = torch.tensor([[1, 2, 3], [1, 2, 0]], device=model.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True).logits[:, :2]
    model.train(training)
    within = max(CAUSAL_WITHIN, 4 * torch.finfo(logits.dtype).eps)  # bfloat16 rounds at 0.8 %
    logits = logits.float()
    if float((logits[0] - logits[1]).abs().max()) > within * float(logits.abs().max()):
        cure = "Use a model that was trained to go on from left to right: GPT-2, Llama and their kin."
        raise CheckpointError("it reads a text to both sides, so it cannot write one", place=checkpoint, cure=cure)


def end_of(model: "PreTrainedModel") -> int | None:
    """The id that ends a text; None where the checkpoint names none."""
    for config in (model.config, model.generation_config):
        end = getattr(config, "eos_token_id", None)
        if end is not None:
            return int(end[0] if isinstance(end, list) else end)
    return None


def last_tokens(tokens: Tokens, room: int | None) -> Tokens:
    """The last `room` tokens; those before count as lost."""
    lost = 0 if room is None else max(len(tokens) - room, 0)
    kept = {name: getattr(tokens, name)[lost:] for name in ("ids", "pieces", "offsets", "words", "special", "segments")}
    return replace(tokens, **kept, lost=lost)


def with_lost(table: TokenTable, room: int) -> TokenTable:
    """The table with the first tokens of each window counted as lost that are more than there is room for."""
    return replace(table, lost=np.maximum(table.lengths - room, 0).astype(np.int32))


def without_lost(table: TokenTable, windows: IntArray) -> TokenTable:
    """These windows alone, without the first tokens that are counted as lost; what is then the first is foreseen by nothing."""
    starts = table.starts[windows] + table.lost[windows]
    counts = table.starts[windows + 1] - starts
    source = ragged_positions(starts, counts)
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    part = replace(
        table,
        ids=table.ids[source],
        starts=ends,
        rows=table.rows[windows],
        windows=table.windows[windows],
        type_ids=None if table.type_ids is None else table.type_ids[source],
        labels=None,
        label_starts=None,
        lost=np.zeros(len(windows), np.int32),
        lost_words=table.lost_words[windows],
    )
    if table.labels is None:
        return part
    labels = np.array(np.asarray(table.labels)[source])
    labels[ends[:-1]] = IGNORED
    return part.with_token_labels(labels)
