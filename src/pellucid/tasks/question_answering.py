"""Question answering: the stretch of a context that answers a question, or that there is none.

Takes questions with contexts, answers as characters of the context, and a score for each token to be the first and the last of an answer.
Gives token tables with two labels a window, and the best spans over all windows of a row, with exact characters.
Knows nothing of loops, files, how windows are cut, or how a model is loaded.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from pellucid import answer_spans
from pellucid.answer_metrics import answer_scores, answer_tally
from pellucid.batch import pad as pad_windows
from pellucid.batch import row_slices
from pellucid.errors import CheckpointError, LabelError, SettingError
from pellucid.metrics import Score
from pellucid.tallies import Tally, scores_of
from pellucid.task import Task
from pellucid.tokens import Alignment, LongTexts, PadSpec, TokenOptions, TokenTable, encode, encode_aligned
from pellucid.types import Batch, Columns, Example, FloatArray, IntArray, Note, Output, Prediction, Span, Target, Want
from pellucid.view import Bars, Lines, Spans, Stack, View
from pellucid.view import Span as Mark

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pellucid.data import Split
    from pellucid.model import Built, ModelOptions
    from pellucid.task import Source, Spell

LOG = logging.getLogger(__name__)
STRIDE = 128  # tokens that a window shares with the one before
NEGLIGIBLE = 30.0  # so far below the lowest logit a token weighs e^-30 at most: nothing in float32, and still finite
SHOWN = 1200  # characters of a context around its answer
NO_ANSWER = "(no answer)"
CHANGE = "dataclasses.replace(pipe.task, threshold=…) sets another."


@dataclass(frozen=True, slots=True)
class QuestionAnswering(Task):
    """The answer to `text` (a question) as a stretch of `text_pair` (its context), the `n_best` best ones with their probabilities.

    `no_answer` says that a question may have none: then there is none where its score is more than `threshold` above the best span's.
    An answer has at most `max_answer_tokens` tokens. Raises SettingError for a number below 1.
    """

    no_answer: bool = False
    threshold: float = 0.0
    n_best: int = 3
    max_answer_tokens: int = 30

    def __post_init__(self) -> None:
        for name in ("n_best", "max_answer_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingError(f"{name} is a whole number from 1 up, not {value!r}", place=name, cure=f"Set {name} to such a number.")

    @property
    def tag(self) -> str:
        """The pipeline tag of the Hub."""
        return "question-answering"

    @property
    def kind(self) -> str:
        """Answers are stretches of the context."""
        return "answers"

    @property
    def long_texts(self) -> LongTexts:
        """Windows over the context; the question stands whole in each."""
        return LongTexts("windows", stride=STRIDE)

    @property
    def reads(self) -> tuple[str, ...]:
        """The question, then the context."""
        return ("text", "text_pair")

    def for_rows(self, split: "Split") -> tuple[Self, tuple[Note, ...]]:
        """Whether some questions have no answer."""
        if not split.has_targets or split.roles.text_pair is None:
            lacking = "answers to learn from" if split.roles.text_pair is not None else "contexts beside their questions"
            cure = 'Name the columns: pl.read(…, text="question", text_pair="context", label="answers").'
            raise LabelError(f"the rows have no {lacking}", place=split.source, cure=cure)
        targets = [target for start, stop in split.chunks() for target in split.targets(start, stop)]
        without = sum(target == () for target in targets)
        if not without or self.no_answer:
            return self, ()
        why = f"{without:,} of {len(targets):,} questions have no answer"
        return replace(self, no_answer=True), (
            Note("no answer is an answer", why, "dataclasses.replace(pipe.task, no_answer=False) always answers."),
        )

    def build(self, checkpoint: str, options: "ModelOptions") -> tuple[Self, "Built"]:
        """The body with a head that scores each token twice: to be the first of the answer, and the last."""
        from pellucid.model import build_classifier

        auto_class = "AutoModelForQuestionAnswering"
        return self, build_classifier(checkpoint, None, options, problem_type=None, num_outputs=2, auto_class=auto_class)

    def encode(
        self, tokenizer: "PreTrainedTokenizerBase", columns: Columns, targets: Sequence[Target] | None, options: TokenOptions
    ) -> TokenTable:
        """Tokenize questions and contexts; answers become the first and the last token (inclusive) in each window: (windows, 2).

        A question whose answers lie in no window whole is learned as one without an answer, which is logged as a warning.
        """
        if targets is None:
            return encode(tokenizer, columns, self.reads, options)
        table, alignment = encode_aligned(tokenizer, columns, self.reads, options)
        labels = np.zeros((len(table), 2), dtype=np.int64)
        parted: list[str] = []
        for windows in row_slices(table.rows):
            row = int(table.rows[windows.start])
            answers = answer_spans.checked_answers(targets[row], columns["text_pair"][row], row)
            tokens, cut = row_tokens(table, alignment, windows), bool(table.lost[windows].any())
            labels[windows] = answer_spans.answer_labels(tokens, answers, row=row, cut=cut)
            if answers and (labels[windows] == (tokens.nulls - tokens.edges[:-1])[:, None]).all():
                parted.append(answers[0].text)
        if parted:
            said = "1 answer lies" if len(parted) == 1 else f"{len(parted):,} answers lie"
            LOG.warning("%s in no window whole: learned as questions without an answer; the first is %r", said, parted[0][:60])
        return table.with_labels(labels)

    def label_array(self, targets: Sequence[Target]) -> IntArray:
        """The first acceptable answer of each row as characters of its context, (rows, 2), end exclusive; -1 where there is none."""
        answers = [answer_spans.answers_of(target, row) for row, target in enumerate(targets)]
        return np.array([(each[0].start, each[0].end) if each else (-1, -1) for each in answers]).reshape(-1, 2)

    def collate(self, tokens: TokenTable, windows: IntArray, pad: PadSpec) -> Batch:
        """Pad to one length; labels count from the first column of the batch."""
        batch = pad_windows(tokens, windows, pad)
        if batch.labels is None or pad.side == "right":
            return batch
        shift = batch.inputs["input_ids"].shape[1] - batch.lengths  # (batch,)
        return replace(batch, labels=batch.labels + shift[:, None])

    def run(self, model: "PreTrainedModel", batch: Batch, want: Want = Want()) -> Output:
        """One forward pass: logits (batch, tokens, 2), those of padding too low to count; for answers without padding, with lengths."""
        import torch

        from pellucid.forwarding import aligned, forward

        output = forward(model, batch, want)
        mask = torch.as_tensor(batch.inputs["attention_mask"]).to(output.logits.device).bool()  # (batch, tokens)
        if want.answers:
            return replace(output, logits=aligned(output.logits, mask), lengths=mask.sum(dim=1))
        lowest = output.logits.detach().masked_fill(~mask.unsqueeze(-1), float("inf")).amin(dim=1, keepdim=True)  # (batch, 1, 2)
        return replace(output, logits=torch.where(mask.unsqueeze(-1), output.logits, lowest - NEGLIGIBLE))

    def loss(self, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """The mean of two cross-entropies over the tokens of a window, of the first token and of the last: (batch,)."""
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), labels, reduction="none").mean(dim=-1)

    def best_labels(self, logits: FloatArray) -> IntArray:
        """The tokens with the highest logits to be the first, and the last from there on: (batch, 2)."""
        first = logits[..., 0].argmax(axis=1)  # (batch,)
        before = np.arange(logits.shape[1]) < first[:, None]  # (batch, tokens)
        return np.stack([first, np.where(before, -np.inf, logits[..., 1]).argmax(axis=1)], axis=1)

    def label_text(self, labels: IntArray | FloatArray, ids: IntArray, spell: "Spell") -> str:
        """The tokens from the first to the last; where there is no answer, the token that stands for it."""
        first, last = np.asarray(labels).astype(np.int64).tolist()
        return spell(np.asarray(ids)[first : last + 1].tolist()).strip() or NO_ANSWER

    def decode(self, output: Output, batch: Batch, source: "Source | None" = None) -> list[Prediction]:
        """The best spans of each row over all its windows, or no answer. Raises SettingError without `source`, which knows the texts."""
        if source is None or output.lengths is None:
            problem = "an answer is a stretch of the text, and nobody said where the texts are"
            raise SettingError(problem, place="source", cure="Pass source=pipe.source(split), or call pipe.predict.")
        answers = []
        for windows in row_slices(batch.rows):
            row = int(batch.rows[windows.start])
            scores = np.concatenate([each[:size] for each, size in zip(output.logits[windows], output.lengths[windows], strict=True)])
            if not np.isfinite(scores).all():
                cure = "Look for nan in the weights; train again with a lower learning rate."
                raise CheckpointError("the scores of the tokens are not finite", row=row, cure=cure)
            tokens = answer_spans.RowTokens.of(source.windows(row), self.reads[1])
            ranked = answer_spans.best_spans(tokens, scores, count=self.n_best, longest=self.max_answer_tokens)
            answers.append(self._prediction(row, ranked, source.example(row).fields[self.reads[1]]))
        return answers

    def _prediction(self, row: int, ranked: answer_spans.Ranked, context: str) -> Prediction:
        """The answer, and what else was weighed: of questions that may have none, one span is empty and stands for that."""
        found = zip(ranked.places, ranked.probabilities, strict=True)
        spans = [Span(start, end, score=probability, text=context[start:end]) for (start, end), probability in found]
        if self.no_answer:
            null = Span(0, 0, score=ranked.null)
            first = null if ranked.margin > self.threshold else spans[0]
            spans = [first, *sorted((span for span in (*spans, null) if span is not first), key=lambda span: -(span.score or 0.0))]
        return Prediction(row, spans[0].text if spans else "", spans=tuple(spans))

    def metrics(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Sequence[Score]:
        """F1 and exact match, as the scripts of SQuAD compute them; where some questions have no answer, each part by itself too."""
        return scores_of(self.tally(answers, targets))

    def tally(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> Tally:
        """What each question adds: the best of all its acceptable answers counts."""
        return answer_tally([str(prediction.answer) for prediction in answers], answer_spans.texts_of_answers(targets))

    def view(self, prediction: Prediction, example: Example) -> View:
        """The question, the context with the answer marked, and a bar for each span that was weighed."""
        question, context = (example.fields[role] for role in self.reads)
        said = str(prediction.answer) or NO_ANSWER
        spans = prediction.spans
        bars = Bars("weighed", tuple(span.text or NO_ANSWER for span in spans), tuple(span.score or 0.0 for span in spans))
        passage = passage_of(context, spans[0] if prediction.answer else None)
        parts = (Lines("question", (question,)), passage, Lines("answer", (said,)), bars)
        return Stack(f"row {prediction.row}: {said}", parts)

    @property
    def settles(self) -> bool:
        """The threshold, where a question may have no answer."""
        return self.no_answer

    def settled(self, answers: Sequence[Prediction], targets: Sequence[Target]) -> tuple[Self, tuple[Note, ...]]:
        """The threshold with the highest F1 on these rows."""
        if not self.no_answer or not len(answers):
            return self, ()
        answers = list(answers)  # predictions are made each time that they are looked at
        wanted = answer_spans.texts_of_answers(targets)
        best = [next((span.text for span in prediction.spans if span.text), "") for prediction in answers]
        spoken = np.array([answer_scores(text, texts)[0] for text, texts in zip(best, wanted, strict=True)])  # (rows,)
        silent = np.array([answer_scores("", texts)[0] for texts in wanted])  # (rows,)
        if not silent.any():
            why = "no held-out question is without an answer"
            return self, (Note(f"no answer above a margin of {self.threshold:.2f}", why, CHANGE),)
        threshold = answer_spans.best_margin(answer_spans.margins_of(answers), spoken, silent)
        why = f"the highest F1 on {len(wanted):,} held-out questions, {int(silent.sum()):,} without an answer; it flatters a little there"
        note = Note(f"no answer above a margin of {threshold:.2f}", why, CHANGE)
        return replace(self, threshold=threshold), (note,)


def row_tokens(table: TokenTable, alignment: Alignment, windows: slice) -> answer_spans.RowTokens:
    """The tokens of these windows of a table."""
    edges = np.asarray(table.starts[windows.start : windows.stop + 1])
    tokens = slice(int(edges[0]), int(edges[-1]))
    fields = alignment.fields[tokens]
    return answer_spans.RowTokens(alignment.starts[tokens], alignment.ends[tokens], fields == 1, fields < 0, edges - edges[0])


def passage_of(context: str, answer: Span | None) -> Spans:
    """The context with its answer marked; of a long one, what stands around the answer."""
    start, end = (0, 0) if answer is None else (answer.start, answer.end)
    first, last = max(0, start - SHOWN // 2), min(len(context), end + SHOWN // 2)
    before, after = "… " if first else "", " …" if last < len(context) else ""
    shift = len(before) - first
    marks = () if answer is None else (Mark(start + shift, end + shift, "answer", answer.score),)
    return Spans("context", before + context[first:last] + after, marks)
