"""Token classification: entities in a text, or a tag for each of its words.

Takes columns of texts, spans over them, and logits for each token. Gives token tables with a label a token, and spans of characters.
Knows nothing of loops, files, how windows are cut, or how a model is loaded.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from re import compile as pattern
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args

import numpy as np

from pellucid.batch import IGNORED, row_slices
from pellucid.batch import pad as pad_windows
from pellucid.errors import CheckpointError, LabelError, SettingError
from pellucid.labels import LabelSet, sort_labels
from pellucid.metrics import Score
from pellucid.span_metrics import entity_tally, word_tally
from pellucid.tagged_tokens import RowPieces, TagReading, spelled
from pellucid.tagging import OUTSIDE
from pellucid.tallies import Tally, scores_of
from pellucid.task import Task
from pellucid.token_labels import TokenTags, census_of, checked_spans, labels_of_tags, scheme_of_tags, tags_of_labels
from pellucid.tokens import LongTexts, PadSpec, TokenOptions, TokenTable, encode, encode_aligned
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Span, Target, Want
from pellucid.view import Span as Mark
from pellucid.view import Spans, Stack, View

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell

LOG = logging.getLogger(__name__)
STRIDE = 64  # tokens that a window shares with the one before
SPECIAL = pattern(r"\[[A-Z]+\]|</?[\w|]+>")  # [SEP], </s>, <|endoftext|>: how special tokens are spelled
TagKind = Literal["auto", "spans", "words"]
TagScheme = Literal["auto", "IOB1", "IOB2", "IOBES", "plain"]
LabelPieces = Literal["auto", "first", "all"]
TagAggregation = Literal["auto", "none", "simple", "first", "average", "max"]
TagWords = Literal["auto", "hub", "spaces", "tokenizer"]
CHOICES = {"kind": TagKind, "scheme": TagScheme, "label_pieces": LabelPieces, "aggregation": TagAggregation, "words": TagWords}


@dataclass(frozen=True, slots=True)
class TokenClassification(Task):
    """Entities in a text (`kind` "spans"), or a tag for each word ("words"); "auto" means what rows, or a trained head, show.

    `labels` are the types of entities or the tags of words; `tags` those of the head in its order, which `scheme` makes of them.
    `label_pieces`: whether the first token of a word alone is scored in training, or all. `aggregation` makes spans of tokens with the
    Hub's meanings: "none" (a span a token, its label the bare tag), "simple", or one tag a word: "first", "average", "max". `words`: what
    is one: all between "spaces", the "tokenizer"'s with signs apart, or as on the "hub" (by its vocabulary one of the two).
    Labels in `ignore_labels` are not answered. Raises SettingError for a value outside of these.
    """

    labels: tuple[str, ...] = ()
    kind: TagKind = "auto"
    scheme: TagScheme = "auto"
    label_pieces: LabelPieces = "auto"
    aggregation: TagAggregation = "auto"
    words: TagWords = "auto"
    ignore_labels: tuple[str, ...] = (OUTSIDE,)
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                cure = f"Use one of: {', '.join(get_args(choices))}."
                raise SettingError(f"{name} is {getattr(self, name)!r}", place=name, cure=cure)
        if self.kind == "words" and self.scheme not in ("auto", "plain"):
            cure = "Leave scheme out, or use kind='spans'."
            raise SettingError(f"words have plain tags, not {self.scheme}", place="scheme", cure=cure)
        if self.kind == "words" and self.aggregation == "simple":
            cure = "Use 'first', 'average' or 'max', or kind='spans'."
            raise SettingError("'simple' joins words that have the same tag", place="aggregation", cure=cure)

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "token-classification"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the head says of a token: a tag, which is more than the label of an entity."""
        return self.tags or self.labels

    @property
    def long_texts(self) -> LongTexts:
        """Windows: an entity may stand anywhere."""
        return LongTexts("windows", stride=STRIDE)

    @property
    def reads(self) -> tuple[str, ...]:
        """One text."""
        return ("text",)

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """The labels, whether each word has one, and how spans lie in their words."""
        if not split.has_targets:
            cure = "Name the column of tags or spans: pl.read(…, label=…)."
            raise LabelError("the rows have no tags or spans to learn from", place=split.source, cure=cure)
        census = census_of(split, frozenset(self.labels))
        labels = self.labels or sort_labels(census.labels)
        if not labels:
            cure = "Add rows with entities; tags that are O throughout mark none."
            raise LabelError(f"there is no span in {len(split):,} rows, nothing to learn", place=split.source, cure=cure)
        tagged = split.roles.scheme
        every = tagged == "plain" or (not tagged and census.one_a_word)
        kind: TagKind = self.kind if self.kind != "auto" else "words" if every else "spans"
        notes = []
        if every and not tagged and self.kind == "auto":
            notes.append(
                Note("a tag for each word", "each word of the rows has a span", 'TokenClassification(kind="spans") finds entities.')
            )
        whole = kind == "words" or census.whole_words
        if not whole and self.label_pieces == "auto":
            why = "some spans begin or end within a word"
            notes.append(
                Note("all pieces of a word are labelled", why, 'TokenClassification(label_pieces="first") labels the first alone.')
            )
        task = replace(self, labels=labels, kind=kind)
        spaces = kind == "words" and (tagged == "plain" or census.between_spaces)
        return filled(task, "spaces" if spaces else "tokenizer", "first" if whole else "all"), tuple(notes)

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The body with a head that gives each token a score for each tag; without rows the head of the checkpoint says which."""
        from pellucid.model import build_classifier

        task, wanted = self, None
        if self.labels:
            task = filled(self if self.kind != "auto" else replace(self, kind="spans"), "tokenizer", "first")
            made = task.labels if task.kind == "words" else tags_of_labels(task.labels, task.reading.scheme)
            wanted = LabelSet(task.tags or made)
        built = build_classifier(checkpoint, wanted, options, problem_type=None, auto_class="AutoModelForTokenClassification")
        tags = built.labels.names if built.labels is not None else ()
        return replace(task, tags=tags) if wanted is not None else for_head(self, tags), built

    @property
    def reading(self) -> TagReading:
        """How the tags of tokens become spans."""
        return TagReading(
            tags=self.tags,
            scheme="IOB2" if self.scheme == "auto" else self.scheme,
            aggregation="simple" if self.aggregation == "auto" else self.aggregation,
            words="hub" if self.words == "auto" else self.words,
            joins=self.kind != "words",
            ignored=self.ignore_labels,
        )

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize texts; spans become the number of a tag for each token, -100 where it is not scored; in every window that a token is in.

        A span that no scored token stands for (of control characters, say) is not learned, which is logged as a warning.
        """
        if targets is None:
            return encode(tokenizer, columns, self.reads, options)
        names = frozenset(self.labels)
        spans = [checked_spans(target, text, names, row) for row, (target, text) in enumerate(zip(targets, columns["text"], strict=True))]
        table, alignment = encode_aligned(tokenizer, columns, self.reads, options)
        known = {tag: number for number, tag in enumerate(self.tags)}
        read, first_only = self.reading, self.label_pieces != "all"
        tagging = TokenTags(known, read.scheme, read.words, first_only, every_word=self.kind == "words")
        labels, missed = tagging.table(table, alignment, columns["text"], spans)
        if missed:
            spans_said = "1 span" if len(missed) == 1 else f"{len(missed):,} spans"
            LOG.warning("no scored token stands for %s, so that nothing is learned there; the first: %s", spans_said, missed[0])
        return table.with_token_labels(labels)

    def label_array(self, targets: Sequence[Target]) -> IntArray:
        """How many spans of each label each row has, (rows, labels): a label for each token takes tokens, see `encode`."""
        counts = np.zeros((len(targets), len(self.labels)), dtype=np.int64)
        for row, target in enumerate(targets):
            for span in target if isinstance(target, tuple) else ():
                counts[row, self.labels.index(span.label if isinstance(span, Span) else span)] += 1
        return counts

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad to one length; labels stand where their tokens stand."""
        return pad_windows(tokens, windows, pad)

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One forward pass: logits (batch, tokens, tags); for answers those of padding come last, and lengths say how many count."""
        import torch

        from pellucid.forwarding import aligned, forward

        output = forward(model, batch, want)
        if not want.answers:
            return output
        seen = torch.as_tensor(batch.inputs["attention_mask"]).to(output.logits.device).bool()
        return replace(output, logits=aligned(output.logits, seen), lengths=seen.sum(dim=1))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The mean cross-entropy over the tokens that are scored: (batch,); 0 where there are none."""
        from torch.nn import functional

        each = functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")  # (batch, tokens)
        return each.sum(dim=1) / (labels != IGNORED).sum(dim=1).clamp(min=1)

    def best_labels(self, logits: FloatArray) -> IntArray:
        """The number of the best tag for each token: (batch, tokens)."""
        best: IntArray = np.asarray(logits).argmax(axis=-1)
        return best

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """`Peter=PER, Berlin=LOC` for entities, `word/TAG word/TAG` for words."""
        numbers = np.asarray(labels).astype(np.int64).tolist()
        pieces = [spell([int(one)]).strip() for one in ids]
        words, tags = [], []
        for place, number in enumerate(numbers):
            if number == IGNORED or SPECIAL.fullmatch(pieces[place]):
                continue
            end = place + 1
            while end < len(pieces) and numbers[end] == IGNORED and not SPECIAL.fullmatch(pieces[end]):
                end += 1
            words.append(spell([int(one) for one in ids[place:end]]).strip())
            tags.append(self.tags[number])
        return spelled(words, tags, self.reading.scheme, joins=self.kind != "words")

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """The spans of each text; a token is read in the window where most text stands around it. Raises SettingError without `source`."""
        from scipy.special import softmax

        if source is None or output.lengths is None:
            problem = "spans stand in a text, and nobody said where the texts are"
            raise SettingError(problem, place="source", cure="Pass source=pipe.source(split), or call pipe.predict.")
        answers, reading = [], self.reading
        for windows in row_slices(batch.rows):
            row = int(batch.rows[windows.start])
            pieces = RowPieces.of(source.windows(row))
            logits = np.asarray(output.logits[windows][pieces.windows, pieces.positions], dtype=np.float64)  # (tokens, tags)
            if not np.isfinite(logits).all():
                cure = "Train again with a lower learning rate, or look for nan in the weights."
                raise CheckpointError("a token has a score that is not finite", row=row, cure=cure)
            answers.append(Prediction(row, reading.spans(source.example(row).fields["text"], pieces, softmax(logits, axis=-1))))
        return answers

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """Of entities F1, precision and recall, as seqeval gives them; of words the accuracy."""
        return scores_of(self.tally(answers, targets))

    def tally(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Tally:
        """What each row adds; of no rows at all, what one without spans adds."""
        if self.aggregation == "none":
            cure = "Use 'simple', 'first', 'average' or 'max': dataclasses.replace(task, aggregation=…)."
            raise SettingError("the answers are single tokens, which are no entities and no words", place="aggregation", cure=cure)
        score = word_tally if self.kind == "words" else entity_tally
        return score([prediction.answer for prediction in answers] or [()], list(targets) or [()], self.labels)

    def view(self, prediction: Prediction, example: Example) -> View:
        """The text with its spans marked."""
        spans = [span for span in prediction.answer if isinstance(span, Span)] if isinstance(prediction.answer, tuple) else []
        marks = tuple(Mark(span.start, span.end, span.label, span.score) for span in spans)
        return Stack(f"row {prediction.row}: {prediction.says()}", (Spans("text", example.fields["text"], marks),))


Tagger = TypeVar("Tagger", bound=TokenClassification)


def filled(task: Tagger, words: TagWords, pieces: LabelPieces, joined: TagAggregation = "auto") -> Tagger:
    """The same task with these in the place of "auto", and with what follows from them."""
    pieces = pieces if task.label_pieces == "auto" else task.label_pieces
    if joined == "auto" or task.kind == "words":
        joined = "first" if pieces == "first" or task.kind == "words" else "simple"
    scheme: TagScheme = "plain" if task.kind == "words" else "IOB2"
    return replace(
        task,
        scheme=scheme if task.scheme == "auto" else task.scheme,
        label_pieces=pieces,
        aggregation=joined if task.aggregation == "auto" else task.aggregation,
        words=words if task.words == "auto" else task.words,
        ignore_labels=() if task.kind == "words" and task.ignore_labels == (OUTSIDE,) else task.ignore_labels,
    )


def for_head(task: Tagger, tags: tuple[str, ...]) -> Tagger:
    """The same task with the labels that a trained head says; it answers as transformers' pipeline does."""
    scheme = task.scheme if task.scheme != "auto" else "plain" if task.kind == "words" else scheme_of_tags(tags)
    kind: TagKind = task.kind if task.kind != "auto" else "words" if scheme == "plain" and OUTSIDE not in tags else "spans"
    labels = tags if kind == "words" else labels_of_tags(tags, scheme)
    found = replace(task, kind=kind, scheme=scheme, labels=labels, tags=tags)
    return filled(found, "tokenizer" if kind == "words" else "hub", "first", "simple")
