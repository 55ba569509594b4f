"""Reports on spans, tagged words, answers, texts and language models: intervals, baselines, the worst rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES
from fake_rows import HTML, FakeSplit, OwnTask, tokens_of
from pellucid.answer_metrics import answer_tally
from pellucid.errors import CheckpointError, DataError, LabelError
from pellucid.evaluation import EvaluateOptions, evaluate
from pellucid.reports import spans_text
from pellucid.span_metrics import entity_tally, word_tally
from pellucid.tallies import scores_of
from pellucid.text_metrics import SUMMARIES, TRANSLATIONS, text_tally
from pellucid.types import Prediction, Span
from pellucid.view import Table

LABELS = ("person", "place", HTML)
QUICK = EvaluateOptions(bootstrap=100)


@dataclass(frozen=True)
class FakePipe(OwnTask):
    """Says what it is told to say; it is its own task."""

    said: Sequence[object]
    kind: str
    labels: tuple[str, ...] = ()
    reads: tuple[str, ...] = ("text",)
    names: tuple[str, ...] = ()
    checkpoint: str = "fake"
    seen: list = field(default_factory=list)

    @property
    def tag(self):
        return f"task of {self.kind}"

    def tally(self, predictions, targets):
        answers = [prediction.answer for prediction in predictions]
        match self.kind:
            case "spans":
                return entity_tally(answers, targets, self.labels)
            case "words":
                return word_tally(answers, targets, self.labels)
            case "answers":
                return answer_tally(answers, [tuple(span.text for span in target) for target in targets])
            case "text":
                return text_tally(answers, targets, self.names)
        return None

    def metrics(self, predictions, targets):
        return scores_of(self.tally(predictions, targets))

    def to_learn(self, table):
        return table

    def losses(self, split, progress=None):
        losses, counts, rows = self.said
        return np.array(losses), np.array(counts), np.array(rows)

    def predict(self, split, progress=None):
        self.seen.append(split)
        if progress is not None:
            progress(len(split), len(split))
        return [each if isinstance(each, Prediction) else Prediction(row, each) for row, each in enumerate(self.said)]

    def encode(self, split):
        assert self.kind == "language" or split.given == [None] * len(split)
        return tokens_of(split)


def table(report, start):
    return next(part for part in report.view().parts if isinstance(part, Table) and part.title.startswith(start))


def entity_rows(size, seed=0, name="valid"):
    """Sentences with a name, a town, both or neither."""
    generator = np.random.default_rng(seed)
    people, towns = ["Ann", "Bob Brown", "Zoe"], ["Rome", "New York", "Oslo"]
    texts, targets = [], []
    for _ in range(size):
        who, where = generator.choice([*people, ""]), generator.choice([*towns, ""])
        text = f"then {who or 'nobody'} went to {where or 'sleep'}"
        spans = [(who, "person"), (where, "place")]
        targets.append(tuple(Span(text.index(word), text.index(word) + len(word), label, text=word) for word, label in spans if word))
        texts.append(text)
    return FakeSplit(texts, targets, name)


def dropped(targets, share, seed=1):
    """Some spans are missing."""
    generator = np.random.default_rng(seed)
    return [tuple(span for span in row if generator.random() > share) for row in targets]


# --- entities ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entities():
    rows = entity_rows(200)
    calls = []
    pipe = FakePipe(dropped(rows.given, 0.2), "spans", LABELS)
    report = evaluate(pipe, rows, train=entity_rows(300, 5, "train"), progress=lambda *each: calls.append(each))
    assert calls == [(200, 200)]
    return report


def test_entities_have_scores_with_intervals(entities):
    assert [score.name for score in entities.scores] == ["F1", "precision", "recall", "F1 macro"]
    f1, precision, recall, _ = entities.scores
    assert precision.value == 1 and recall.low < recall.value < recall.high and f1.low < f1.value < f1.high
    assert [score.label for score in entities.labels] == list(LABELS)
    assert entities.labels[0].low < entities.labels[0].f1 < entities.labels[0].high
    assert entities.rows == 200 and entities.truncation.rows_cut == 0 and entities.confusion is None


def test_entities_stand_beside_nothing_and_a_dictionary(entities):
    nothing, dictionary = entities.baselines
    assert (nothing.name, dictionary.name) == ("no entity at all", "dictionary")
    assert nothing.scores[0].value == 0 and dictionary.scores[0].value == 1
    assert entities.verdict.startswith("The transformer is not worth it: F1 0.") and "of the baseline dictionary" in entities.verdict
    assert dictionary.differences[0].high < 0


def test_the_worst_entities_come_first_and_can_be_read(entities):
    worst = table(entities, "rows with the lowest F1")
    assert worst.columns == ("place", "text", "target", "answer", "F1")
    assert [each.score for each in entities.worst] == [0] * 10
    first = entities.worst[0]
    assert first.place == f"reviews.csv, line {first.row - 98} (row {first.row - 100})" and first.loss is None
    assert "=person" in worst.rows[0][2] or "=place" in worst.rows[0][2]
    assert worst.rows[0][3] == "(none)"


def test_a_report_on_entities_is_strict_json_and_a_picture(entities):
    found = json.loads(entities.to_json())
    assert found["worst"][0]["target"][0]["label"] in LABELS
    assert found["worst"][0]["score"] == 0
    assert HTML in str(entities) and "<script" not in entities._repr_html_()
    assert len(entities.plot().axes) == 1


def test_without_training_rows_the_bar_for_entities_is_low():
    rows = entity_rows(40)
    report = evaluate(FakePipe(rows.given, "spans", LABELS), rows, options=QUICK)
    assert [each.name for each in report.baselines] == ["no entity at all"]
    assert [note.what for note in report.notes] == ["an interval without width", "a low bar"]
    bare = evaluate(FakePipe(rows.given, "spans", LABELS), rows, baselines=False, options=QUICK)
    assert bare.baselines == () and "cannot be said" in bare.verdict


def test_targets_that_cannot_be_scored_name_their_place_before_the_work_starts():
    pipe = FakePipe([(), ()], "spans", LABELS)
    with pytest.raises(LabelError, match=r"reviews.csv, line 3 \(row 1\): .*came 'persn'.*Did you mean 'person'"):
        evaluate(pipe, FakeSplit(["a", "b"], [(), (Span(0, 1, "persn"),)]))
    with pytest.raises(DataError, match=r"line 2 \(row 0\): expected spans, came 'person'"):
        evaluate(pipe, FakeSplit(["a", "b"], ["person", ()]))
    with pytest.raises(LabelError, match=r"line 3 \(row 1\): the row has no label"):
        evaluate(pipe, FakeSplit(["a", "b"], [(), None]))
    assert pipe.seen == []
    with pytest.raises(LabelError, match=r"line 2 \(row 0\): .*came 'town'"):
        evaluate(pipe, FakeSplit(["a", "b"], [(), ()]), train=FakeSplit(["a"], [(Span(0, 1, "town"),)]))


def test_scores_of_spans_that_are_not_finite_name_the_row():
    rows = FakeSplit(["Ann", "Bob"], [(), ()])
    with pytest.raises(CheckpointError, match=r"line 3 \(row 1\): expected finite scores, came nan for 'Bob=person'"):
        evaluate(FakePipe([(), (Span(0, 3, "person", float("nan"), "Bob"),)], "spans", LABELS), rows)


def test_one_row_has_no_interval_and_rows_without_entities_no_f1():
    report = evaluate(FakePipe([()], "spans", LABELS), FakeSplit(["a"], [()]))
    assert report.scores[0].value == 0 and report.scores[0].low is None
    assert report.worst[0].score == 1
    str(report), report.plot()


# --- tagged words ------------------------------------------------------------------------------------------------------


def word_rows(size, seed=0, name="valid"):
    generator = np.random.default_rng(seed)
    kinds = {"NOUN": ["cat", "dog", "duck"], "VERB": ["runs", "sees", "duck"], "DET": ["the", "a"]}
    texts, targets = [], []
    for _ in range(size):
        tags = generator.choice(list(kinds), generator.integers(3, 14))
        words = [str(generator.choice(kinds[tag])) for tag in tags]
        starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
        texts.append(" ".join(words))
        spans = zip(words, tags.tolist(), starts, strict=False)
        targets.append(tuple(Span(start, start + len(word), tag, text=word) for word, tag, start in spans))
    return FakeSplit(texts, targets, name)


def test_words_are_tagged_beside_their_usual_tag():
    rows, labels = word_rows(150), ("DET", "NOUN", "VERB")
    generator = np.random.default_rng(2)

    def noisy(span):
        return replace(span, label=str(generator.choice(labels))) if generator.random() < 0.5 else span

    said = [tuple(map(noisy, row)) for row in rows.given]
    report = evaluate(FakePipe(said, "words", labels), rows, train=word_rows(150, 3, "train"), options=QUICK)
    assert [score.name for score in report.scores] == ["accuracy", "F1 macro"]
    assert [each.name for each in report.baselines] == ["majority tag", "usual tag"]
    assert report.verdict.startswith("The transformer is not worth it: accuracy 0.6")
    grid = np.array(report.confusion.grid().values)
    assert grid.sum() == sum(map(len, rows.given)) == sum(score.rows for score in report.labels)
    assert np.trace(grid) / grid.sum() == pytest.approx(report.scores[0].value)
    assert " that agree" in str(report)
    alone = evaluate(FakePipe(said, "words", labels), rows, options=QUICK)
    assert [each.name for each in alone.baselines] == ["majority tag"]
    assert any(note.what == "a low bar" for note in alone.notes)


def test_words_without_an_answer_are_confused_with_nothing():
    rows, labels = word_rows(30), ("DET", "NOUN", "VERB")
    report = evaluate(FakePipe([row[1:] for row in rows.given], "words", labels), rows, options=QUICK)
    assert report.confusion.labels == (*labels, "(no answer)")
    assert sum(count for _, answer, count in report.confusion.pairs() if answer == "(no answer)") == 30
    assert report.labels[0].precision == 1


# --- answers -----------------------------------------------------------------------------------------------------------


def question_rows(size, unanswerable=0):
    contexts = [f"The river is {row} miles long. Its name is Tay. Nobody knows why." for row in range(size)]
    targets = [(Span(13, 13 + len(f"{row} miles"), text=f"{row} miles"),) * 2 for row in range(size)]
    targets[:unanswerable] = [()] * unanswerable
    return FakeSplit(["How long is the river?"] * size, targets, pairs=contexts)


def test_answers_stand_beside_the_nearest_sentence():
    rows = question_rows(60)
    said = [f"the {target[0].text}!" if row % 3 else "Tay" for row, target in enumerate(rows.given)]
    report = evaluate(FakePipe(said, "answers", reads=("text", "text_pair")), rows, options=QUICK)
    assert [score.name for score in report.scores] == ["F1", "exact match"]
    assert report.scores[0].value == pytest.approx(2 / 3)
    assert [each.name for each in report.baselines] == ["nearest sentence"]
    assert 0.4 < report.baselines[0].scores[0].value < 0.6
    worst = table(report, "rows with the lowest F1")
    assert worst.rows[0][1:4] == (
        "How long is the river? | The river is 0 miles long. Its name is Tay. Nobody knows why.",
        "0 miles",
        "Tay",
    )
    assert not report.notes and report.labels == ()


def test_questions_without_an_answer_have_a_baseline_of_their_own():
    rows = question_rows(60, 40)
    report = evaluate(FakePipe([""] * 60, "answers", reads=("text", "text_pair")), rows, options=QUICK)
    assert len(report.scores) == 5 and report.scores[4].value == 1
    assert [each.name for each in report.baselines] == ["no answer at all", "nearest sentence"]
    assert report.baselines[0].scores[0].value == pytest.approx(2 / 3)
    assert report.baselines[0].differences[0].value == 0
    assert "not clearly worth it" in report.verdict
    assert table(report, "rows with the lowest F1").rows[0][3] == "(none)"


# --- texts -------------------------------------------------------------------------------------------------------------


def test_translations_stand_beside_the_source():
    sources = [f"Number {row} is here." for row in range(40)]
    targets = [f"El número {row} está aquí." for row in range(40)]
    said = [target.replace("está", "esta") for target in targets]
    report = evaluate(FakePipe(said, "text", names=TRANSLATIONS), FakeSplit(sources, targets), options=QUICK)
    assert [score.name for score in report.scores] == ["chrF", "BLEU", "exact match"]
    assert [each.name for each in report.baselines] == ["copy of the source"]
    assert "The transformer is worth it: chrF" in report.verdict
    assert report.worst[0].answer in said
    json.loads(report.to_json())


def test_summaries_stand_beside_the_first_sentences():
    sources = [f"The sun rose {row} times.\nBirds sang.\nIt rained. Then it stopped.\nAll slept." for row in range(40)]
    targets = [f"Sun rose {row} times" for row in range(40)]
    report = evaluate(FakePipe(["Birds sang " * 60] * 40, "text", names=SUMMARIES), FakeSplit(sources, targets), options=QUICK)
    assert [each.name for each in report.baselines] == ["lead-1", "lead-3"]
    assert report.verdict.startswith("The transformer is not worth it: ROUGE-L 0.000")
    cell = table(report, "rows with the lowest ROUGE-L").rows[0][3]
    assert len(cell) == 301 and cell.endswith("…")


# --- language models, and tasks without a tally ------------------------------------------------------------------------


def test_language_models_need_no_targets():
    rows = FakeSplit(["a b c", "d e", "f"], [None] * 3)
    report = evaluate(FakePipe(([2.0, 0.0, 1.0, 0.5], [2, 2, 2, 2], [2, 1, 0, 0]), "language"), rows, options=QUICK)
    assert [score.name for score in report.scores] == ["perplexity", "cross-entropy per token"]
    assert report.scores[1].value == pytest.approx(3.5 / 4)
    assert [each.row for each in report.worst] == [102, 100, 101]
    worst = table(report, "rows with the highest perplexity")
    assert worst.columns == ("place", "text", "perplexity")
    assert worst.rows[0][2] == pytest.approx(np.exp(2), abs=1e-4)
    page = " ".join(str(report).split())
    assert "Lower is better for perplexity, cross-entropy per token." in page
    assert "over 8 tokens that were to be foreseen" in page
    assert report.baselines == () and report.plot() is not None


def test_rows_that_are_read_together_count_for_the_row_that_they_begin_in():
    rows = FakeSplit(["a", "b", "c"], [None] * 3)
    report = evaluate(FakePipe(([1.0, 2.0], [3, 1], [0, 2]), "language"), rows, options=QUICK)
    assert report.scores[1].value == pytest.approx(5 / 4)
    assert [each.row for each in report.worst] == [102, 100]
    assert any("2 of 3" in note.why for note in report.notes)


def test_losses_that_are_not_finite_and_rows_without_a_token_are_refused():
    rows = FakeSplit(["a", "b"], [None] * 2)
    with pytest.raises(CheckpointError, match=r"line 3 \(row 1\): expected a finite loss, came nan"):
        evaluate(FakePipe(([1.0, float("nan")], [3, 1], [0, 1]), "language"), rows)
    with pytest.raises(DataError, match="valid: there is no token to foresee"):
        evaluate(FakePipe(([0.0, 0.0], [0, 0], [0, 1]), "language"), rows)


def test_a_task_without_a_tally_keeps_its_scores():
    @dataclass(frozen=True)
    class Other(FakePipe):
        def metrics(self, predictions, targets):
            return scores_of(text_tally([each.answer for each in predictions], targets, ("exact match",)))

    report = evaluate(Other(["a"], "vector"), FakeSplit(["x"], ["a"]))
    assert report.scores[0].value == 1 and report.notes[0].what == "no intervals, no baselines"


# --- spans as words ----------------------------------------------------------------------------------------------------


def test_spans_read_like_a_line():
    town, other = Span(0, 21, "location", 0.9, "Empire State Building"), Span(24, 27, "location")
    assert spans_text((town, other)) == "Empire State Building=location, 24:27=location"
    assert spans_text(()) == "(none)"
    assert spans_text((Span(0, 3, text="Tay"), Span(9, 12, text="Tay"), Span(0, 1, text="x"))) == "Tay, x"
    many = tuple(Span(place, place + 1, "DET", text="a") for place in range(30))
    changed = (replace(many[0], label="NOUN"), *many[1:])
    assert spans_text(changed, many) == "a=NOUN, 29 that agree"
    assert spans_text(many, ()) == ", ".join(["a=DET"] * 16) + ", 14 more"
    assert spans_text(many, many) == "30 that agree"


# --- real pipelines ----------------------------------------------------------------------------------------------------

ALL = pl.ReadOptions(valid_fraction=0.0)


def real_rows(tag):
    """Small rows of the kind that a task reads."""
    texts = list(SENTENCES)
    match tag:
        case "token-classification":
            return pl.read([{"text": text.split(), "tags": ["B-FIRST", *["O"] * (len(text.split()) - 1)]} for text in texts], text="text",
                           label="tags", options=ALL)  # fmt: skip
        case "question-answering":
            cells = [[{"text": text.split()[0], "answer_start": 0}] for text in texts]
            rows = [{"question": "which word is first?", "context": text, "answers": cell} for text, cell in zip(texts, cells, strict=True)]
            options = replace(ALL, label_kind="answers")
            return pl.read(rows, text="question", text_pair="context", label="answers", options=options)
    return pl.read([{"text": text} for text in texts], text="text", options=ALL)


def with_head(body, folder):
    """The checkpoint with a random head that foresees words."""
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(body)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(body).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("tag", "checkpoint", "main", "baselines"),
    [
        ("token-classification", "bert", "F1", ["no entity at all", "dictionary"]),
        ("question-answering", "bert", "F1", ["nearest sentence"]),
        ("text-generation", "gpt2", "perplexity", []),
        ("fill-mask", "bert", "perplexity", []),
    ],
)
def test_a_real_pipeline(tag, checkpoint, main, baselines, tiny_checkpoints, tmp_path):
    rows = real_rows(tag)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        folder = with_head(tiny_checkpoints[checkpoint], tmp_path) if tag == "fill-mask" else tiny_checkpoints[checkpoint]
        pipe = pl.Pipeline.new(tag, folder, rows)
    calls = []
    report = pl.evaluate(pipe, rows.train, train=rows.train, options=QUICK, progress=lambda *each: calls.append(each))
    assert calls and calls[-1][0] == calls[-1][1]
    assert report.scores[0].name == main and report.scores[0].low <= report.scores[0].value <= report.scores[0].high
    assert [each.name for each in report.baselines] == baselines
    assert report.worst and report.truncation.rows == len(rows.train)
    assert main in str(report) and json.loads(report.to_json())["scores"][0]["name"] == main
    assert report.plot() is not None
    if main == "perplexity":
        losses, counts, _ = pipe.losses(rows.train)
        assert report.scores[0].value == pytest.approx(np.exp((losses * counts).sum() / counts.sum()), rel=1e-5)
