"""Fill-mask: the words that a text hides, and training a model to find them.

Takes texts with masks, or texts to hide words of, and log-probabilities of the best words for each mask.
Gives token tables, batches with masks drawn anew, and predictions with the text filled in.
Knows nothing of loops, files, padding or how a model is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Self

import numpy as np

from pellucid.batch import IGNORED, row_slices
from pellucid.batch import pad as pad_windows
from pellucid.errors import DataError, SettingError, TokenizerError
from pellucid.filling import MASKS, characters, filled_in, places_of, seen_once, with_masks, word_of
from pellucid.masking import HowMasked, Masking, check_masking, learnable, learnable_words, masked
from pellucid.metrics import Score
from pellucid.task import Task
from pellucid.tokenizer import private_twin
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable, encode_aligned, windows_of
from pellucid.tokens import encode as encode_columns
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Tokens, Want
from pellucid.view import Bars, Lines, Stack, View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell


@dataclass(frozen=True, slots=True)
class FillMask(Task):
    """The `top_k` best words for each mask of a text; only words among `targets` where those are given.

    For training: `mask_share` of the tokens are hidden, as single "tokens", "whole-words" or "spans" of words; of those, `as_mask` become
    the mask, `as_random` a random token, and the rest stay. New masks in each epoch follow from `seed`; those for rows that are kept aside
    never change. The other fields say what the tokenizer is like: `for_tokenizer` sets them. Raises SettingError for a value outside.
    """

    top_k: int = 5
    targets: tuple[str, ...] = ()
    masking: HowMasked = "tokens"
    mask_share: float = 0.15
    as_mask: float = 0.8
    as_random: float = 0.1
    seed: int = 42
    mask_token: str = ""
    mask_id: int = -1
    special_ids: tuple[int, ...] = ()
    target_ids: tuple[int, ...] = ()
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 1:
            raise SettingError(f"top_k is a whole number from 1 up, not {self.top_k!r}", place="top_k", cure="5 is usual.")
        if not isinstance(self.targets, tuple):
            words = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
            raise SettingError(f"targets are a tuple of words, not {self.targets!r}", place="targets", cure=f"Pass {words!r}.")
        check_masking(self.masking, self.mask_share, self.as_mask, self.as_random)

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "fill-mask"

    @property
    def kind(self) -> str:
        """A language model: perplexity over hidden tokens."""
        return "language"

    @property
    def long_texts(self) -> LongTexts:
        """Read whole, in windows that share nothing."""
        return LongTexts("windows")

    @property
    def reads(self) -> tuple[str, ...]:
        """One text."""
        return ("text",)

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The task as it is; labels of the rows are not read."""
        note = Note("the labels of the rows are not read", "a masked language model learns from the texts", "pl.read(…, label=False).")
        return self, (note,) if split.has_targets else ()

    def for_tokenizer(self, tokenizer: "PreTrainedTokenizerBase") -> tuple[Self, tuple[Note, ...]]:
        """The mask, the special tokens and the ids of `targets`. Raises TokenizerError without a mask token, SettingError for no word."""
        if tokenizer.mask_token is None:
            cure = "Take a checkpoint that was trained with masks: BERT and its kin."
            raise TokenizerError("the tokenizer has no mask token", place="tokenizer", cure=cure)
        target_ids, notes = ids_of(self.targets, tokenizer)
        token, special = str(tokenizer.mask_token), tuple(sorted(set(map(int, tokenizer.all_special_ids))))
        also = " and ".join(repr(mask) for mask in MASKS if mask != token)
        said = Note(f"a mask is written {token!r}", f"it is the tokenizer's own; {also} in a text is read as it")
        fitted = replace(self, mask_token=token, mask_id=int(tokenizer.mask_token_id), vocabulary=len(tokenizer))
        return replace(fitted, special_ids=special, target_ids=target_ids), (said, *notes)

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The body with the head of its pretraining; a new one where the checkpoint has none."""
        from pellucid.model import build_model

        built = build_model(checkpoint, options, auto_class="AutoModelForMaskedLM")
        return replace(self, vocabulary=min(self.vocabulary, int(built.model.get_input_embeddings().weight.shape[0]))), built

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize texts; masks in them are read as such, other special tokens as `options` say. Targets are left aside."""
        if tokenizer.mask_token_id != self.mask_id or bool(self.targets) != bool(self.target_ids):
            cure = "Make the pipeline with Pipeline.new, or pass on task.for_tokenizer(tokenizer)[0]."
            raise SettingError("the task was not fitted to this tokenizer: it lacks the ids of mask or targets", place="task", cure=cure)
        read = {role: [with_masks(text, self.mask_token) for text in texts] for role, texts in columns.items()}
        if self.masking == "tokens":
            return encode_columns(tokenizer, read, self.reads, options, spelled=(self.mask_token,))
        table, alignment = encode_aligned(tokenizer, read, self.reads, options, spelled=(self.mask_token,))
        return learnable_words(table, alignment.words, self.special_ids)

    def windows_of(self, tokenizer: "PreTrainedTokenizerBase", example: Example, options: TokenOptions) -> tuple[Tokens, ...]:
        """The tokens of every window of one row, as `encode` makes them; characters count in the text as it was given."""
        text = example.fields["text"]
        read = Example(example.row, {"text": with_masks(text, self.mask_token)}, example.target)
        found = windows_of(tokenizer, read, self.reads, options, spelled=(self.mask_token,))
        given = characters(text, places_of(text, self.mask_token), len(self.mask_token))
        return tuple(replace(each, offsets=tuple((given[start], given[end]) for start, end in each.offsets)) for each in found)

    def label_array(self, targets: Sequence[Target]) -> IntArray:
        """Raises SettingError: what is learned are the tokens of the texts."""
        raise SettingError("a masked language model has no labels but the texts", place="targets", cure="Leave the labels out.")

    def to_learn(self, table: TokenTable) -> TokenTable:
        """The ids themselves as labels, but for special tokens."""
        return learnable(table, self.special_ids) if table.labels is None else table

    def drawn(self, batch: Batch, draw: int) -> Batch:
        """The batch with tokens hidden, others in each epoch."""
        shares = (self.mask_share, self.as_mask, self.as_random)
        return masked(batch, Masking(self.mask_id, self.vocabulary, self.special_ids, self.masking, *shares, self.seed), draw)

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad to one length."""
        return pad_windows(tokens, windows, pad)

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One forward pass: logits (batch, tokens, vocabulary); with `want.scored` those of the hidden tokens alone, (hidden, vocabulary).

        For answers only the `top_k` words of each mask: `ids` and `logits` (log-probabilities), (batch, masks, top_k), and `lengths`.
        Special tokens are no words and never among them.
        """
        import torch

        from pellucid.forwarding import forward, forward_at

        if want.scored and batch.labels is not None:
            return forward_at(model, batch, torch.as_tensor(batch.labels).to(model.device) != IGNORED)
        output = forward(model, batch, want)
        if not want.answers:
            return output
        where = torch.as_tensor(batch.inputs["input_ids"]).to(output.logits.device) == self.mask_id  # (batch, tokens)
        numbers = torch.as_tensor(self.target_ids) if self.target_ids else torch.arange(min(self.vocabulary, output.logits.shape[-1]))
        numbers = numbers[~torch.isin(numbers, torch.as_tensor(self.special_ids, dtype=torch.long))].to(where.device)  # (words,)
        return replace(output, **best_words(output.logits, where, numbers, self.top_k))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The mean cross-entropy over the hidden tokens of each window: (batch,); 0 where none is hidden."""
        from torch.nn import functional

        scored = labels != IGNORED  # (batch, tokens)
        hidden = logits if logits.ndim == 2 else logits[scored]  # `run` may have left out the others
        each = functional.cross_entropy(hidden.float(), labels[scored], reduction="none")  # (hidden,)
        sums = each.new_zeros(len(labels)).index_add(0, scored.nonzero()[:, 0], each)
        return sums / scored.sum(dim=1).clamp(min=1)

    def best_labels(self, logits: FloatArray) -> IntArray:
        """The id that is most likely at each token: (batch, tokens)."""
        best: IntArray = np.asarray(logits).argmax(axis=-1)
        return best

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """The hidden tokens, those that stand together as one."""
        found = np.asarray(labels).astype(np.int64)
        hidden = np.flatnonzero(found != IGNORED)
        runs = np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1)
        return " · ".join(spell(found[run].tolist()).strip() for run in runs if len(run))

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """The text of each row with its best words; `spans` are the words that were weighed, mask after mask, the best first.

        Raises DataError for a row without a mask, SettingError without `source`, which knows the texts.
        """
        if source is None or output.lengths is None or output.ids is None:
            problem = "the words are put into the text, and nobody said where the texts are"
            raise SettingError(problem, place="source", cure="Pass source=pipe.source(split), or call pipe.predict.")
        predictions = []
        for windows in row_slices(batch.rows):
            row = int(batch.rows[windows.start])
            entries = range(windows.start, windows.stop)
            seen = [(entry, mask) for entry in entries for mask in range(int(output.lengths[entry]))]
            example = source.example(row)
            places = places_of(example.fields["text"], self.mask_token)
            if not seen:
                raise no_mask(row, self.mask_token, cut=bool(places))
            if len(seen) != len(places):  # windows share tokens, or truncation cut a mask
                kept = seen_once(source.windows(row), places, self.mask_id)
                places, seen = [places[place] for place in kept], [seen[number] for number in kept.values()]
            weighed = [(output.ids[each].tolist(), np.exp(output.logits[each].astype(np.float64)).tolist()) for each in seen]
            words = [[word_of(source.text, *pair) for pair in zip(*each, strict=True)] for each in weighed]
            predictions.append(filled_in(row, example.fields["text"], places, words))
        return predictions

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """Nothing: a language model is scored by its loss."""
        return ()

    def view(self, prediction: Prediction, example: Example) -> View:
        """The text, the text filled in, and a bar for each word that was weighed."""
        parts: list[View] = [Lines("text", (example.fields["text"],)), Lines("answer", (str(prediction.answer),))]
        for number, (_, group) in enumerate(groupby(prediction.spans, key=lambda span: span.start), 1):
            spans = tuple(group)
            parts.append(Bars(f"scores of mask {number}", tuple(span.label for span in spans), tuple(span.score or 0.0 for span in spans)))
        return Stack(f"row {prediction.row}: {prediction.answer}", tuple(parts))


def best_words(logits: "torch.Tensor", where: "torch.Tensor", numbers: "torch.Tensor", top_k: int) -> dict[str, "torch.Tensor"]:
    """The best of the ids `numbers` (words,) at each place of `where` (batch, tokens): the ids and log-probabilities of an Output."""
    import torch

    chances = logits[where].float().log_softmax(-1)  # (masks, vocabulary)
    best = chances[:, numbers].topk(min(top_k, len(numbers)))
    lengths = where.sum(dim=1)  # (batch,)
    slots = torch.arange(int(lengths.max()), device=where.device) < lengths[:, None]  # (batch, masks of the fullest entry)
    found = chances.new_zeros((*slots.shape, best.values.shape[1]))
    found[slots] = best.values
    ids = numbers.new_full(found.shape, -1)
    ids[slots] = numbers[best.indices]
    return {"logits": found, "ids": ids, "lengths": lengths}


def ids_of(words: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> tuple[tuple[int, ...], tuple[Note, ...]]:
    """The ids that stand for these words; of a word with several pieces the first, and that is said. Raises SettingError for no piece."""
    vocabulary, twin = (tokenizer.get_vocab(), private_twin(tokenizer, special_tokens_in_text=False)) if words else ({}, None)
    found: set[int] = set()
    notes = []
    for word in words:
        pieces = [vocabulary[word]] if word in vocabulary or twin is None else twin.encode(word, add_special_tokens=False).ids
        if not pieces or pieces[0] in tokenizer.all_special_ids:
            raise SettingError(f"the vocabulary has no piece for {word!r}", place="targets", cure="Leave the word out.")
        if len(pieces) > 1:
            first, why = tokenizer.convert_ids_to_tokens(pieces[0]), f"a mask holds one piece of the vocabulary, the word has {len(pieces)}"
            notes.append(Note(f"{first!r} stands for {word!r}", why, "Take words that are one piece."))
        found.add(int(pieces[0]))
    return tuple(sorted(found)), tuple(notes)


def no_mask(row: int, mask: str, *, cut: bool) -> DataError:
    """What to say of a row in which no mask was read."""
    if cut:
        return DataError("truncation cut every mask of the text", row=row, cure="Read it whole: TokenOptions(long=LongTexts('windows')).")
    return DataError(f"the text has no mask to fill, expected {mask!r} in it", row=row, cure=f"Write {mask!r} in place of a word.")
