"""Texts from texts: summaries, translations, and whatever else an encoder-decoder writes.

Takes columns of texts, targets that are texts, and what the model wrote. Gives token tables with a sequence of labels each, and answers.
Knows nothing of loops, files or how a token is chosen: `generation` does that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pellucid.batch import IGNORED, row_slices
from pellucid.batch import pad as pad_windows
from pellucid.decoders import begins_with, spoken
from pellucid.errors import LabelError, SettingError
from pellucid.generation import Candidate, candidates_of, generate, generation_of, resolved
from pellucid.languages import languages_of, speaking
from pellucid.metrics import Score
from pellucid.tallies import Tally, scores_of
from pellucid.task import Task
from pellucid.text_metrics import SUMMARIES, TRANSLATIONS, text_tally
from pellucid.text_pieces import read
from pellucid.token_reading import check_unicode
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable, load_tokenizer
from pellucid.tokens import encode as encode_columns
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Target, Want
from pellucid.view import Lines, Stack, Table, View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell

TOLD_IN_WORDS = ("t5", "mt5", "umt5", "longt5")  # a prefix says what to do
IN_WORDS = {
    **{"en": "English", "de": "German", "fr": "French", "ro": "Romanian", "es": "Spanish", "it": "Italian", "pt": "Portuguese"},
    **{"nl": "Dutch", "pl": "Polish", "ru": "Russian", "tr": "Turkish", "zh": "Chinese", "ja": "Japanese", "ar": "Arabic", "hi": "Hindi"},
}


@dataclass(frozen=True, slots=True)
class Seq2Seq(Task):
    """What summaries, translations and other texts from texts have in common.

    `prefix` stands before every text (None: what the checkpoint says for this task). `source_language` and `target_language` are codes of
    the tokenizer, for those that know several languages. Targets are cut at `max_target_tokens`. Then the fields of GenerationOptions; the
    last three are found out when the model is built: what its decoder begins with, whether that is the last token of the target, and which
    token it must write first.
    """

    prefix: str | None = None
    source_language: str = ""
    target_language: str = ""
    max_target_tokens: int = 256
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    num_beams: int | None = None
    num_return_sequences: int = 1
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0
    decoder_start_id: int | None = None
    last_label_first: bool = False
    forced_start_id: int | None = None

    def __post_init__(self) -> None:
        generation_of(self)  # which checks them
        check_unicode(self.prefix or "", "prefix")
        if isinstance(self.max_target_tokens, bool) or not isinstance(self.max_target_tokens, int) or self.max_target_tokens < 2:
            problem = f"expected 2 tokens or more, came {self.max_target_tokens!r}"
            raise SettingError(problem, place="max_target_tokens", cure="One for the text, one for its end.")

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "text2text-generation"

    @property
    def kind(self) -> str:
        """A text is made."""
        return "text"

    @property
    def scored_by(self) -> tuple[str, ...]:
        """The names of its scores, the main one first."""
        return ("exact match", "ROUGE-L")

    @property
    def long_texts(self) -> LongTexts:
        """Cut, and said; LongTexts("chunk-and-join") reads all of it, in pieces."""
        return LongTexts("truncate")

    @property
    def joins(self) -> str:
        """What stands between the texts that were written for the pieces of a long one."""
        return " "

    @property
    def reads(self) -> tuple[str, ...]:
        """One text."""
        return ("text",)

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The same task, where the targets of the rows are texts."""
        if split.has_targets:
            for start, stop in split.chunks():
                for position, target in enumerate(split.targets(start, stop), start):
                    if target is not None and not isinstance(target, str):
                        cure = "Read them so: ReadOptions(label_kind='text')."
                        problem = f"expected a text to be written, came {type(target).__name__}"
                        raise LabelError(problem, place=split.place(position), cure=cure)
        return self, ()

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The whole encoder-decoder; the task comes back with everything decided that the checkpoint decides."""
        from pellucid.model import build_model, resolve

        built = build_model(checkpoint, options, auto_class="AutoModelForSeq2SeqLM")
        said = said_by(built.model.config, self.tag, self.source_language, self.target_language)
        prefix, notes = prefix_of(self, said, built.model.config.model_type)
        start, last_first = begins_with(built.model, checkpoint)
        task = replace(self, prefix=prefix, decoder_start_id=start, last_label_first=last_first)
        if self.source_language or self.target_language:
            tokenizer, _ = load_tokenizer(resolve(checkpoint, options.revision).folder)
            (last, forced), more = spoken(tokenizer, self.source_language, self.target_language, in_words=bool(prefix))
            task = replace(task, decoder_start_id=last if last_first and last is not None else start, forced_start_id=forced)
            notes += more
        task, more = fitted(task, built.model, said)
        return task, replace(built, notes=(*built.notes, *notes, *more))

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize the prefix with each text, as one; and its target as a target.

        With targets, a text that is too long is cut even where others are read in pieces: its target is that of the whole. Of a target that
        is too long, what is cut counts in `lost` as well.
        """
        languages = languages_of(tokenizer) if self.source_language or self.target_language else None
        codes = languages.before_source(self.source_language, self.target_language) if languages else ()
        reader = speaking(tokenizer, self.source_language, self.target_language, writes=False)
        if targets is not None:
            options = replace(options, long=None)
        table = read(reader, columns, self.prefix or "", codes, options)
        if targets is None:
            return table
        first = languages.before_target(self.target_language) if languages else ()
        writer = speaking(tokenizer, self.source_language, self.target_language, writes=True)
        asked = TokenOptions(max_length=self.max_target_tokens - len(first), special_tokens_in_text=options.special_tokens_in_text)
        texts = [written(target, row) for row, target in enumerate(targets)]
        made = encode_columns(writer, {"target": texts}, ("target",), asked)
        sequences = [np.concatenate([np.array(first, np.int32), made.ids_of(row)]) for row in range(len(made))]
        counted = replace(table, lost=table.lost + made.lost, lost_words=table.lost_words + made.lost_words)
        return counted.with_label_sequences(sequences)

    def label_array(self, targets: Sequence[Target]) -> IntArray:
        """Not possible: a text becomes ids by a tokenizer, in `encode`."""
        raise SettingError("texts have no numbers of their own", place="targets", cure="Encode rows with their targets.")

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad to one length; the decoder reads the labels one place later, or its start alone where there are none."""
        batch = pad_windows(tokens, windows, pad)
        start = pad.pad_id if self.decoder_start_id is None else self.decoder_start_id
        first = np.full((len(batch), 1), start, dtype=np.int64)
        if batch.labels is None:
            return replace(batch, inputs={**batch.inputs, "decoder_input_ids": first})
        if self.last_label_first and len(batch):
            first = np.take_along_axis(batch.labels, (batch.labels != IGNORED).sum(1, keepdims=True) - 1, axis=1)
        moved = np.concatenate([first, batch.labels[:, :-1]], axis=1)  # (batch, labels)
        return replace(batch, inputs={**batch.inputs, "decoder_input_ids": np.where(moved == IGNORED, pad.pad_id, moved)})

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """To learn: logits (batch, labels, vocabulary). To answer: what was written, see `generation.generate`."""
        from pellucid.model import forward

        if not want.answers:
            return forward(model, batch, want)
        inputs = {name: array for name, array in batch.inputs.items() if name != "decoder_input_ids"}
        return generate(model, inputs, generation_of(self), start=self.decoder_start_id, forced=self.forced_start_id)

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Cross-entropy, the mean over the tokens of each target: (batch,)."""
        from torch.nn import functional

        flat = logits.float().flatten(0, 1)  # (batch × labels, vocabulary): on a CPU torch is more exact in this shape
        each = functional.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="none").view(labels.shape)
        return each.sum(1) / (labels != IGNORED).sum(1).clamp(min=1)

    def best_labels(self, logits: FloatArray) -> IntArray:
        """The most likely token at each place of the target: (batch, labels)."""
        best: IntArray = np.asarray(logits).argmax(-1)
        return best

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """The target as it is spelled."""
        return spell(np.asarray(labels)[np.asarray(labels) != IGNORED].astype(np.int64).tolist())

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """The best text of each row, and every one with its score; of a text in pieces, what was written for each, joined."""
        if source is None:
            raise SettingError("ids are no text without a tokenizer", place="source", cure="Call Pipeline.predict.")
        options, found = generation_of(self), []
        for windows in row_slices(batch.rows):
            parts = [candidates_of(output, window, source.text, options.stop) for window in range(windows.start, windows.stop)]
            texts = [joined(each, self.joins) for each in zip(*parts, strict=True)]
            scored = tuple((each.text, each.score(options.length_penalty)) for each in texts)
            found.append(Prediction(int(batch.rows[windows.start]), texts[0].text, alternatives=scored))
        return found

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """The scores against the texts that were wanted."""
        return scores_of(self.tally(answers, targets))

    def tally(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Tally:
        """What each row adds to the scores."""
        return text_tally([str(each.answer) for each in answers], [str(target) for target in targets], self.scored_by)

    def view(self, prediction: Prediction, example: Example) -> View:
        """The text, the answer, and all texts that were weighed where there are several."""
        parts: list[View] = [Lines("text", tuple(example.fields.values())), Lines("answer", (str(prediction.answer),))]
        if len(prediction.alternatives) > 1:
            parts.append(Table("texts that were weighed", ("text", "log-probability a token"), prediction.alternatives))
        return Stack(f"row {prediction.row}", tuple(parts))


@dataclass(frozen=True, slots=True)
class Summarization(Seq2Seq):
    """Short texts that say what long ones say. For the settings see Seq2Seq."""

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "summarization"

    @property
    def scored_by(self) -> tuple[str, ...]:
        """ROUGE."""
        return SUMMARIES

    @property
    def joins(self) -> str:
        """The summary of each piece is a paragraph."""
        return "\n"


@dataclass(frozen=True, slots=True)
class Translation(Seq2Seq):
    """Texts in another language. For the settings see Seq2Seq."""

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "translation"

    @property
    def scored_by(self) -> tuple[str, ...]:
        """chrF, and BLEU."""
        return TRANSLATIONS


@dataclass(frozen=True, slots=True)
class Text2Text(Seq2Seq):
    """Any text from any text: an answer to an instruction, a label in words. For the settings see Seq2Seq."""


def said_by(config: Any, tag: str, source: str, target: str) -> dict[str, Any]:
    """What a checkpoint's config says of this very task: its prefix, and how texts are made."""
    known = getattr(config, "task_specific_params", None) or {}
    return dict(known.get(f"translation_{source}_to_{target}" if tag == "translation" else tag) or {})


def prefix_of(task: Seq2Seq, said: Mapping[str, Any], model_type: str) -> tuple[str, tuple[Note, ...]]:
    """The prefix that was given, or that the checkpoint names."""
    if task.prefix is not None:
        return task.prefix, ()
    change = f"{type(task).__name__}(prefix='…') sets another."
    if said.get("prefix"):
        return str(said["prefix"]), (Note(f"the prefix {said['prefix']!r}", "the checkpoint names it", change),)
    source, target = (IN_WORDS.get(code.lower()) for code in (task.source_language, task.target_language))
    if model_type in TOLD_IN_WORDS and source and target:
        prefix = f"translate {source} to {target}: "
        return prefix, (Note(f"the prefix {prefix!r}", "so T5 was told to translate when it was trained", change),)
    if model_type not in TOLD_IN_WORDS:
        return "", ()
    why = "the checkpoint names none for this task, and a model of this kind is told in words what to do"
    return "", (Note("no prefix stands before the texts", why, change),)


def fitted(task: Any, model: "PreTrainedModel", said: Mapping[str, Any]) -> tuple[Any, tuple[Note, ...]]:
    """The task with what the checkpoint says of how texts are made, none longer than the decoder reaches."""
    from pellucid.model import max_positions

    reach = max_positions(model.config)
    notes: tuple[Note, ...] = ()
    if reach is not None and (task.max_new_tokens or 0) >= reach:
        problem = f"{task.max_new_tokens} tokens, but the decoder has {reach} positions, one of them for its start"
        raise SettingError(problem, place="max_new_tokens", cure=f"Set it to {reach - 1} or less.")
    if reach is not None and task.max_target_tokens > reach:
        notes = (Note(f"targets are cut at {reach} tokens", "the decoder has no more positions"),)
        task = replace(task, max_target_tokens=reach)
    usual = {"max_new_tokens": 128 if reach is None else min(128, reach - 1)}
    made, more = resolved(generation_of(task), model, said, usual)
    return replace(task, **asdict(made)), (*notes, *more)


def written(target: Target, row: int) -> str:
    """A target that is a text. Raises LabelError for none, an empty one, or one of another kind."""
    if isinstance(target, str) and target.strip():
        return target
    came = "no target" if target is None else "an empty text" if isinstance(target, str) else type(target).__name__
    raise LabelError(f"expected a text to be written, came {came}", row=row, cure="Write one, or drop the row.")


def joined(parts: Sequence[Candidate], between: str) -> Candidate:
    """One text from those of the pieces; its log-probability is that of all of their tokens."""
    texts = [part.text.strip() if len(parts) > 1 else part.text for part in parts]
    return Candidate(between.join(texts), sum(part.total for part in parts), sum(part.tokens for part in parts))
