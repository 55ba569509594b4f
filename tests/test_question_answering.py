"""Question answering: labels of windows, best spans over windows, no answer and its threshold, long contexts, learner, saving."""

import json
import os
import re
import string
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from conftest import SENTENCES, byte_level_bpe, tiny_config, unigram, wordpiece
from pellucid.answer_spans import RowTokens, best_margin, best_spans
from pellucid.batch import plan_in_order
from pellucid.errors import CheckpointError, LabelError, SettingError, TokenizerError
from pellucid.forwarding import to_numpy
from pellucid.pipelines import Pipeline
from pellucid.predictions import SplitSource
from pellucid.task import settings_of, task_from
from pellucid.tasks.question_answering import QuestionAnswering
from pellucid.tokenizer import load_tokenizer
from pellucid.tokens import LongTexts, TokenOptions
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_learner import LearnerOptions
from pellucid.types import Batch, Output, Prediction, Span, Want
from tiny_models import ARCHITECTURES, VOCABULARY, tiny_architecture

ALL = pl.ReadOptions(valid_fraction=0.0)
SHORT = TokenOptions(max_length=64, long=LongTexts("windows", stride=16))
CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))


def row(question: str, context: str, *answers: str) -> dict:
    """A question whose answers stand in the context, each at its first place."""
    cells = [{"text": answer, "answer_start": context.index(answer)} for answer in answers]
    return {"question": question, "context": context, "answers": cells}


def read(rows: list[dict], options: pl.ReadOptions = ALL) -> pl.Rows:
    options = replace(options, label_kind="answers")
    return pl.read(rows, text="question", text_pair="context", label="answers", options=options)


def small_rows() -> list[dict]:
    """Which word stands first in a sentence; some of the questions have no answer."""
    rows = [row("which word stands first?", sentence, sentence.split()[0]) for sentence in SENTENCES]
    return rows + [row("which colour has it?", sentence) for sentence in SENTENCES[:4]]


def span(context: str, answer: str) -> Span:
    start = context.index(answer)
    return Span(start, start + len(answer), text=answer)


def oracle(table) -> Output:
    """Logits that say what the labels say, window by window, as `predict` gathers them."""
    lengths = table.lengths
    logits = np.zeros((len(table), int(lengths.max()), 2), dtype=np.float32)
    for side in range(2):
        logits[np.arange(len(table)), table.labels[:, side], side] = 10.0
    return Output(logits, lengths=lengths)


def through(tokenizer, split, options: TokenOptions, task: QuestionAnswering = QuestionAnswering()) -> list[Prediction]:
    """Targets → labels → logits that are right → predictions."""
    table = task.encode(tokenizer, split.columns(0, len(split)), split.targets(0, len(split)), options)
    batch = Batch({}, None, table.rows, table.windows, table.lengths)
    return task.decode(oracle(table), batch, SplitSource(split, tokenizer, options, task.windows_of))


@pytest.fixture(scope="module")
def squad(shared_data):
    """The first 300 questions of SQuAD's development set."""
    rows = pl.read(shared_data / "squad" / "dev-v1.1.json.gz", options=replace(ALL, label_kind="answers"))
    return rows.train[:300]


@pytest.fixture(scope="module")
def pipe(tiny_checkpoints):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pipeline.new(QuestionAnswering(), tiny_checkpoints["bert"], read(small_rows()), tokens=SHORT)


# --- labels -------------------------------------------------------------------------------------------------------------


def by_the_course(tokenizer, questions: list[str], contexts: list[str], answers: list[Span], length: int, stride: int) -> list[list]:
    """Ids, start and end positions as the course on Hugging Face makes them."""
    inputs = tokenizer(
        questions,
        contexts,
        max_length=length,
        truncation="only_second",
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found = []
    for position, offset in enumerate(inputs["offset_mapping"]):
        answer = answers[inputs["overflow_to_sample_mapping"][position]]
        owners = inputs.sequence_ids(position)
        first = owners.index(1)
        last = len(owners) - 1 - owners[::-1].index(1)
        start = end = 0
        if offset[first][0] <= answer.start and offset[last][1] >= answer.end:
            place = first
            while place <= last and offset[place][0] <= answer.start:
                place += 1
            start = place - 1
            place = last
            while place >= first and offset[place][1] >= answer.end:
                place -= 1
            end = place + 1
        found.append([inputs["input_ids"][position], start, end])
    return found


def test_labels_are_those_of_the_course(squad, minilm_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer, _ = load_tokenizer(minilm_folder)
    options = TokenOptions(max_length=128, long=LongTexts("windows", stride=32))
    columns, targets = squad.columns(0, len(squad)), [target[:1] for target in squad.targets(0, len(squad))]
    table = QuestionAnswering().encode(tokenizer, columns, targets, options)
    plain = AutoTokenizer.from_pretrained(minilm_folder)
    expected = by_the_course(plain, columns["text"], columns["text_pair"], [target[0] for target in targets], 128, 32)
    assert len(table) == len(expected) > 400
    assert all(table.ids_of(window).tolist() == ids for window, (ids, _, _) in enumerate(expected))
    np.testing.assert_array_equal(table.labels, [[start, end] for _, start, end in expected])


REAL = {"wordpiece": "e5-small", "bpe": "smollm2-135m-instruct", "unigram": "flan-t5-small"}


@pytest.mark.parametrize("kind", REAL)
def test_answers_of_real_questions_survive(kind: str, squad) -> None:
    folder = CHECKPOINTS / REAL[kind]
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine (set CHECKPOINTS)")
    tokenizer, _ = load_tokenizer(folder)
    options = TokenOptions(max_length=128, long=LongTexts("windows", stride=32))
    predictions = through(tokenizer, squad, options, QuestionAnswering(max_answer_tokens=60))
    columns, targets = squad.columns(0, len(squad)), squad.targets(0, len(squad))
    exact = 0
    for prediction, context, target in zip(predictions, columns["text_pair"], targets, strict=True):
        best = prediction.spans[0]
        assert best.text == prediction.answer == context[best.start : best.end]
        assert any(best.start <= each.start and each.end <= best.end for each in target), "whole tokens around an answer"
        exact += prediction.answer in [each.text for each in target]
    assert exact >= 0.9 * len(squad), f"{len(squad) - exact} answers begin or end inside a token: '8' in '18', '2010' in '2010.'"
    assert QuestionAnswering().metrics(predictions, targets)[0].value > 0.95


def test_the_first_acceptable_answer_in_a_window_counts_and_others_point_at_cls() -> None:
    tokenizer = wordpiece()
    context = " ".join(SENTENCES)
    early, late = span(context, "wonderful"), span(context, "trains")
    options = TokenOptions(max_length=48, long=LongTexts("windows", stride=4))
    table = QuestionAnswering().encode(tokenizer, {"text": ["what?"], "text_pair": [context]}, [(late, early)], options)
    spelled = [tokenizer.decode(table.ids_of(window)[start : end + 1]) for window, (start, end) in enumerate(table.labels)]
    assert spelled[0] == "wonderful", "the second of the acceptable answers, where the first is not in the window"
    assert "trains" in spelled and spelled.count("[CLS]") == len(spelled) - 2 - (spelled.count("trains") - 1)
    assert (table.labels[np.array(spelled) == "[CLS]"] == 0).all()


def test_no_answer_is_the_special_token_at_an_end_or_the_first_token(tiny_tokenizers) -> None:
    from tokenizers import processors

    columns, targets = {"text": ["which?"], "text_pair": [SENTENCES[0]]}, [()]
    for kind, expected in (("wordpiece", 0), ("unigram", 0), ("bpe", 0)):
        table = QuestionAnswering().encode(tiny_tokenizers[kind], columns, targets, SHORT)
        assert table.labels.tolist() == [[expected, expected]], kind
    like_xlnet = unigram()
    ends = [("<s>", 0), ("</s>", 2)]
    like_xlnet.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s> <s>", pair="$A </s> $B </s> <s>", special_tokens=ends
    )
    table = QuestionAnswering().encode(like_xlnet, columns, targets, SHORT)
    assert table.labels.tolist() == [[int(table.lengths[0]) - 1] * 2], "<cls> stands last"


@pytest.mark.parametrize("make", [wordpiece, byte_level_bpe, unigram])
@pytest.mark.parametrize("answer", ["🎉", "素晴らしい", "gefeiert", "👩‍👩‍👧", "naïve"])
def test_characters_of_several_bytes_around_the_answer(make, answer: str) -> None:
    context = "Wir haben 🎉 gefeiert 👩‍👩‍👧 und 素晴らしい gesagt, 🎉🎉 naïve Leute."
    split = read([row("was 🎉?", context, answer)]).train
    prediction = through(make(), split, SHORT)[0]
    best = prediction.spans[0]
    assert context[best.start : best.end] == best.text
    assert answer in best.text, "a token that reads more than the answer stays whole"
    assert len(best.text) <= len(answer) + 6


def test_windows_may_cut_an_emoji_and_answers_stay_whole() -> None:
    context = "🎉" * 60 + " end " + "👩‍👩‍👧" * 20
    tokenizer = byte_level_bpe()
    for length in range(30, 36):
        options = TokenOptions(max_length=length, long=LongTexts("windows", stride=7))
        for answer in ("🎉 end 👩", "end", "🎉"):
            best = through(tokenizer, read([row("?", context, answer)]).train, options)[0]
            assert best.answer == answer


def test_truncation_may_take_the_answer_away() -> None:
    context = " ".join(SENTENCES)
    options = TokenOptions(max_length=32, long=LongTexts("truncate"))
    targets = [(span(context, "trains"),), (span(context, "wonderful"),)]
    columns = {"text": ["what?"] * 2, "text_pair": [context] * 2}
    table = QuestionAnswering().encode(wordpiece(), columns, targets, options)
    assert len(table) == 2 and table.labels[0].tolist() == [0, 0] and table.labels[1][0] > 0


# --- the best spans -----------------------------------------------------------------------------------------------------


def gone_pipeline(start: np.ndarray, end: np.ndarray, inside: np.ndarray, longest: int, top: int) -> list[tuple[int, int, float]]:
    """First and last token and score, as transformers' pipeline for question answering computed them for one window (CLS at 0)."""
    wanted = inside.copy()
    wanted[0] = True
    starts, ends = (np.where(wanted, side, -10000.0) for side in (start.astype(np.float64), end.astype(np.float64)))
    starts = np.exp(starts - starts.max())
    starts /= starts.sum()
    ends = np.exp(ends - ends.max())
    ends /= ends.sum()
    starts[0] = ends[0] = 0.0
    outer = np.tril(np.triu(np.matmul(starts[:, None], ends[None])), longest - 1)
    outer[~inside] = 0.0
    outer[:, ~inside] = 0.0
    order = np.argsort(-outer.flatten())[:top]
    return [(int(place) // len(start), int(place) % len(start), float(outer.flatten()[place])) for place in order]


def test_one_window_answers_as_the_pipeline_that_transformers_removed() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        size, question = int(draw.integers(8, 60)), 4
        logits = draw.normal(0, 3, (size, 2))
        inside = np.zeros(size, dtype=bool)
        inside[question + 2 : size - 1] = True
        special = np.zeros(size, dtype=bool)
        special[[0, question + 1, size - 1]] = True
        starts = np.arange(size) * 3
        tokens = RowTokens(starts, starts + 2, inside, special, np.array([0, size]))
        ranked = best_spans(tokens, logits, count=5, longest=7)
        expected = gone_pipeline(logits[:, 0], logits[:, 1], inside, 7, 5)
        expected = [each for each in expected if each[2] > 0][:5]
        assert [(start * 3, end * 3 + 2) for start, end, _ in expected] == list(ranked.places)
        np.testing.assert_allclose(ranked.probabilities, [score for _, _, score in expected], rtol=1e-9)


def test_the_same_numbers_as_the_bare_model_and_the_gone_pipeline(squad, minilm_folder: Path) -> None:
    from transformers import AutoTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = Pipeline.new("question-answering", minilm_folder)
        torch.nn.init.normal_(pipe.model.qa_outputs.weight, std=1.0)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    some = squad.select(range(0, 60, 10))
    for prediction, example in zip(pipe.predict(some), some, strict=True):
        question, context = example.fields["text"], example.fields["text_pair"]
        inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        inside = np.array([owner == 1 for owner in inputs.sequence_ids(0)])
        with torch.no_grad():
            given = pipe.model(**inputs)
        start, end = given.start_logits[0].numpy(), given.end_logits[0].numpy()
        for best, (first, last, score) in zip(prediction.spans, gone_pipeline(start, end, inside, 30, 3), strict=True):
            assert best.text == context[offsets[first][0] : offsets[last][1]]
            assert best.score == pytest.approx(score, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 6), st.integers(1, 8))
def test_the_best_spans_are_those_of_a_full_search(seed: int, windows: int, count: int, longest: int) -> None:
    draw = np.random.default_rng(seed)
    size, step = 12, 5
    owner = np.repeat(np.arange(windows), size)
    local = np.tile(np.arange(size), windows)
    inside = (local >= 3) & (local < size - 1)
    first = (owner * step + local - 3) // int(draw.integers(1, 3))  # two tokens may share a character
    logits = draw.normal(0, 2, (size * windows, 2))
    tokens = RowTokens(first, first + 1, inside, (local == 0) | (local == size - 1), np.arange(windows + 1) * size)
    best: dict[tuple[int, int], float] = {}
    for start in np.flatnonzero(inside):
        for end in np.flatnonzero(inside & (owner == owner[start])):
            if start <= end < start + longest:
                place = (int(first[start]), int(first[end]) + 1)
                best[place] = max(best.get(place, -np.inf), float(logits[start, 0] + logits[end, 1]))
    expected = sorted(best, key=lambda place: -best[place])[:count]
    ranked = best_spans(tokens, logits, count=count, longest=longest)
    assert list(ranked.places) == expected
    null = logits[np.arange(windows) * size].sum(axis=1).min()
    assert ranked.margin == pytest.approx(null - best[expected[0]])
    assert np.log(ranked.null) - np.log(ranked.probabilities[0]) == pytest.approx(ranked.margin)
    assert sum(ranked.probabilities) <= 1 + 1e-9


def test_spans_of_overlapping_windows_are_not_doubled(squad, minilm_folder: Path) -> None:
    tokenizer, _ = load_tokenizer(minilm_folder)
    options = TokenOptions(max_length=96, long=LongTexts("windows", stride=40))
    for prediction in through(tokenizer, squad[:40], options, QuestionAnswering(n_best=10)):
        places = [each.place for each in prediction.spans]
        assert len(places) == len(set(places)) == 10
        scores = [each.score for each in prediction.spans]
        assert scores == sorted(scores, reverse=True)


def test_three_thousand_tokens_with_the_answer_in_the_last_window(minilm_folder: Path) -> None:
    tokenizer, _ = load_tokenizer(minilm_folder)
    filler = " ".join(f"Paragraph {number} says nothing of interest." for number in range(400))
    context = f"{filler} The treasure lies under the old lighthouse."
    split = read([row("Where does the treasure lie?", context, "under the old lighthouse")]).train
    options = TokenOptions(max_length=384, long=LongTexts("windows", stride=128))
    task = QuestionAnswering()
    table = task.encode(tokenizer, split.columns(0, 1), split.targets(0, 1), options)
    assert table.lengths.sum() > 3000 and len(table) > 8
    assert [bool(start) for start, _ in table.labels] == [False] * (len(table) - 1) + [True]
    batch = Batch({}, None, table.rows, table.windows, table.lengths)
    source, output = SplitSource(split, tokenizer, options, task.windows_of), oracle(table)
    start = time.perf_counter()
    prediction = task.decode(output, batch, source)[0]
    assert time.perf_counter() - start < 1.0
    assert prediction.answer == "under the old lighthouse" and prediction.spans[0].start == context.index("under the old")


# --- no answer ----------------------------------------------------------------------------------------------------------


def test_no_answer_only_where_the_rows_have_such_questions() -> None:
    assert QuestionAnswering().for_rows(read(small_rows()[:12]).train) == (QuestionAnswering(), ())
    task, notes = QuestionAnswering().for_rows(read(small_rows()).train)
    assert task.no_answer and "4 of 16" in str(notes[0])


def test_above_the_threshold_there_is_no_answer() -> None:
    tokenizer, context = wordpiece(), SENTENCES[0]
    split = read([row("which?", context, "wonderful")]).train
    task = QuestionAnswering(no_answer=True)
    table = task.encode(tokenizer, split.columns(0, 1), split.targets(0, 1), SHORT)
    batch = Batch({}, None, table.rows, table.windows, table.lengths)
    output = oracle(table)
    output.logits[0, 0] = 9.0  # no answer scores 18, the answer 20
    source = SplitSource(split, tokenizer, SHORT, task.windows_of)
    said = task.decode(output, batch, source)[0]
    assert said.answer == "wonderful" and any(each.start == each.end == 0 and not each.text for each in said.spans)
    strict = replace(task, threshold=-2.5).decode(output, batch, source)[0]
    assert strict.answer == "" and strict.spans[0] == replace(strict.spans[0], start=0, end=0, text="")
    assert {each.place for each in strict.spans} == {each.place for each in said.spans}
    assert replace(task, no_answer=False).decode(output, batch, source)[0].spans[0].text == "wonderful"
    assert said.scores == {}


def test_the_threshold_is_settled_on_held_out_rows() -> None:
    draw = np.random.default_rng(0)
    answerable = draw.random(200) < 0.7
    margins = np.where(answerable, draw.normal(1, 0.4, 200), draw.normal(4, 0.4, 200))  # 0 would never let it answer
    best = 0.5 / (1 + np.exp(margins))
    predictions = [
        Prediction(number, "", spans=(Span(0, 0, score=float(chance * np.exp(margin))), Span(0, 3, score=float(chance), text="yes")))
        for number, (chance, margin) in enumerate(zip(best, margins, strict=True))
    ]
    targets = [(Span(0, 3, text="yes"),) if has else () for has in answerable]
    task = QuestionAnswering(no_answer=True)
    assert task.settles and not QuestionAnswering().settles
    settled, notes = task.settled(predictions, targets)
    assert 1.5 < settled.threshold < 3.5
    assert "held-out" in str(notes[0])
    assert np.mean((margins > settled.threshold) == ~answerable) > 0.98
    assert QuestionAnswering().settled(predictions, targets) == (QuestionAnswering(), ())
    same, notes = task.settled(predictions[:3], [(Span(0, 3, text="yes"),)] * 3)
    assert same == task and "no held-out question is without an answer" in str(notes[0])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 2), st.booleans()), min_size=1, max_size=12))
def test_no_other_threshold_is_better(rows: list[tuple[int, int, bool]]) -> None:
    margins = np.array([float(margin) for margin, _, _ in rows])
    spoken, silent = np.array([score / 2 for _, score, _ in rows]), np.array([float(flag) for _, _, flag in rows])

    def worth(threshold: float) -> float:
        return float(np.where(margins > threshold, silent, spoken).mean())

    found = best_margin(margins, spoken, silent)
    assert worth(found) == pytest.approx(max(worth(threshold) for threshold in np.arange(-5.5, 6, 0.5)))


def test_saved_and_loaded_with_threshold_and_the_same_answers(pipe, tmp_path: Path) -> None:
    kept = replace(pipe, task=replace(pipe.task, threshold=0.25, n_best=4))
    again = pl.load(pl.save(kept, tmp_path / "model"))
    assert again.task == kept.task == task_from(QuestionAnswering, json.loads(json.dumps(settings_of(kept.task))))
    rows = read(small_rows()).train
    assert list(again.predict(rows)) == list(kept.predict(rows))


def test_the_contract_is_kept(tiny_checkpoints, tmp_path: Path) -> None:
    ran = pl.check_task(QuestionAnswering(), tiny_checkpoints["xlm-roberta"], read(small_rows()), folder=tmp_path)
    assert "labels_survive" in ran and "saving_is_exact" in ran


# --- models -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tiny_checkpoints, tmp_path_factory):
    """The tiny bodies, and one of GPT-2's kind that pads on the left."""
    folder = tmp_path_factory.mktemp("left") / "gpt2-left"
    tokenizer = byte_level_bpe()
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    from transformers import AutoModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(tiny_config("gpt2", len(tokenizer))).save_pretrained(folder)
    return {**tiny_checkpoints, "gpt2-left": folder}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "gpt2-left", "xlm-roberta"])
def test_a_row_answers_alone_as_in_a_padded_batch(kind: str, folders) -> None:
    rows = read(small_rows()).train
    pipe = Pipeline.new("question-answering", folders[kind], tokens=SHORT)
    assert pipe.pad.side == ("left" if kind == "gpt2-left" else "right")
    together = pipe.predict(rows)
    for position in range(len(rows)):
        alone = pipe.predict(rows.select([position]))[0]
        assert alone.answer == together[position].answer
        np.testing.assert_allclose([each.score for each in alone.spans], [each.score for each in together[position].spans], rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2-left"])
def test_padding_counts_neither_in_the_loss_nor_in_the_labels(kind: str, folders) -> None:
    rows = read(small_rows()).train
    pipe = Pipeline.new("question-answering", folders[kind], tokens=SHORT)
    table = pipe.encode(rows)
    batch = pipe.collate(table, np.arange(len(table)))
    output = pipe.task.run(pipe.model, batch)
    losses = pipe.task.loss(output.logits, torch.from_numpy(batch.labels))
    assert losses.shape == (len(table),) and torch.isfinite(output.logits).all()
    for window in range(len(table)):
        one = pipe.collate(table, np.array([window]))
        alone = pipe.task.loss(pipe.task.run(pipe.model, one).logits, torch.from_numpy(one.labels))
        torch.testing.assert_close(losses[window : window + 1], alone, atol=1e-5, rtol=1e-5)
        text = pipe.task.label_text(batch.labels[window], batch.inputs["input_ids"][window], pipe.tokenizer.decode)
        assert text.lower() == pipe.task.label_text(one.labels[0], one.inputs["input_ids"][0], pipe.tokenizer.decode).lower()
        answers = rows.targets(int(table.rows[window]), int(table.rows[window]) + 1)[0]
        if answers and kind == "gpt2-left":
            assert text == answers[0].text


def test_the_loss_is_that_of_transformers_without_padding(pipe) -> None:
    table = pipe.encode(read(small_rows()[:1]).train)
    batch = pipe.collate(table, np.array([0]))
    inputs = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
    given = pipe.model(**inputs, start_positions=torch.tensor(batch.labels[:, 0]), end_positions=torch.tensor(batch.labels[:, 1]))
    ours = pipe.task.loss(pipe.task.run(pipe.model, batch).logits, torch.from_numpy(batch.labels))
    torch.testing.assert_close(ours.mean(), given.loss)


def test_the_learner_trains_and_shows(folders, tmp_path: Path, capsys) -> None:
    rows = pl.read(
        [{**each, "split": "valid" if number % 4 == 3 else "train"} for number, each in enumerate(small_rows() * 3)],
        text="question",
        text_pair="context",
        label="answers",
        split="split",
        options=replace(ALL, label_kind="answers"),
    )
    for kind in ("bert", "gpt2-left"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pipe = Pipeline.new("question-answering", folders[kind], rows, tokens=SHORT)
        learn = pl.learner(pipe, rows, options=LearnerOptions(lr=3e-3, loaders=LoaderOptions(bs=8), path=tmp_path))
        with learn.no_bar():
            learn.fit_one_cycle(5)
        assert learn.recorder.values[-1][0] < learn.recorder.values[0][0]
        assert list(learn.recorder.metric_names)[3:5] == ["f1", "exact_match"]
        assert 0 <= learn.recorder.values[-1][2] <= 1
        learn.dls.show_batch(max_n=3)
        learn.show_results(max_n=3)
        shown = capsys.readouterr().out
        assert "which word stands first" in shown and "predicted" in shown


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_scores_both_ends(kind: str) -> None:
    from transformers import AutoModelForQuestionAnswering

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForQuestionAnswering.from_config(tiny_architecture(kind)).eval()
    ids = np.random.default_rng(0).integers(3, VOCABULARY, (2, 9))
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    rows, lengths = np.arange(2), np.array([9, 6])
    batch = Batch({"input_ids": np.where(mask, ids, 0), "attention_mask": mask}, None, rows, np.zeros_like(rows), lengths)
    task = QuestionAnswering()
    with torch.no_grad():
        output = to_numpy(task.run(model, batch, Want(answers=True)))
        short = {"input_ids": ids[1:, :6], "attention_mask": mask[1:, :6]}
        alone = to_numpy(task.run(model, replace(batch.take(np.array([1])), inputs=short)))
    assert output.logits.shape == (2, 9, 2) and output.lengths.tolist() == [9, 6]
    np.testing.assert_allclose(output.logits[1, :6], alone.logits[0], atol=1e-5)


def test_five_steps_on_one_batch_lower_the_loss(folders) -> None:
    for kind in ("bert", "gpt2", "xlm-roberta"):
        pipe = Pipeline.new("question-answering", folders[kind], tokens=SHORT)
        table = pipe.encode(read(small_rows()).train)
        batch = pipe.collate(table, plan_in_order(table.lengths, 8)[0])
        optimizer = torch.optim.Adam(pipe.model.parameters(), lr=1e-2)
        losses = []
        for _ in range(6):
            loss = pipe.task.loss(pipe.task.run(pipe.model, batch).logits, torch.from_numpy(batch.labels)).mean()
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[-1] < losses[0], kind


def test_train_settles_the_threshold(folders) -> None:
    rows = read(small_rows() * 3, replace(ALL, valid_fraction=0.3))
    trained = pl.train(rows, "question-answering", folders["bert"], tokens=SHORT, options=pl.TrainOptions(epochs=1, batch_size=8))
    assert trained.pipeline.task.no_answer
    assert any("margin" in note.what for note in trained.notes)


# --- scores -------------------------------------------------------------------------------------------------------------


def official(answer: str, acceptable: list[str]) -> tuple[float, float]:
    """Exact match and F1 as in the script of SQuAD 1.1."""

    def normalise(text: str) -> str:
        text = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    def f1(one: str, other: str) -> float:
        left, right = normalise(one).split(), normalise(other).split()
        same = sum((Counter(left) & Counter(right)).values())
        if same == 0:
            return 0.0
        precision, recall = same / len(left), same / len(right)
        return 2 * precision * recall / (precision + recall)

    return max(float(normalise(answer) == normalise(text)) for text in acceptable), max(f1(answer, text) for text in acceptable)


def test_scores_are_those_of_the_official_script(squad) -> None:
    short = squad.select([number for number, texts in enumerate(squad.columns(0, len(squad))["text"]) if len(texts) < 60][:60])
    targets = short.targets(0, len(short))
    options = TokenOptions(max_length=300, long=LongTexts("windows", stride=8))
    wanted = [[each.text for each in target] for target in targets]
    mixed = [
        replace(prediction, answer=texts[-1] + "!" if number % 3 == 0 else prediction.answer)
        for number, (prediction, texts) in enumerate(zip(through(wordpiece(), short, options), wanted, strict=True))
    ]
    exact, f1 = np.mean([official(str(each.answer), texts) for each, texts in zip(mixed, wanted, strict=True)], axis=0)
    scores = {score.name: score.value for score in QuestionAnswering().metrics(mixed, targets)}
    assert scores["exact match"] == pytest.approx(exact) and scores["F1"] == pytest.approx(f1)


def test_evaluate_gives_both_scores_with_intervals(pipe) -> None:
    rows = read(small_rows()).train
    report = pl.evaluate(pipe, rows)
    names = [score.name for score in report.scores]
    assert names[:2] == ["F1", "exact match"] and "right where there is none" in names
    assert report.scores[0].low <= report.scores[0].value <= report.scores[0].high


# --- what is seen, and bad input ----------------------------------------------------------------------------------------


def test_a_trace_shows_the_windows_and_the_answer(pipe) -> None:
    context = " ".join(SENTENCES[:4])
    trace = pipe.trace({"text": "which word stands first?", "text_pair": context})
    text = pl.to_text(trace.view())
    assert len(trace.tokens) > 1 and "window 1" in text
    assert trace.prediction == pipe.predict([{"text": "which word stands first?", "text_pair": context}])[0]


def test_the_view_marks_the_answer_in_a_long_context() -> None:
    context = "x" * 5000 + " here " + "y" * 5000
    best = Span(5001, 5005, score=0.9, text="here")
    view = QuestionAnswering().view(
        Prediction(0, "here", spans=(best,)),
        pl.read([{"text": "where?", "text_pair": context}], text="text", text_pair="text_pair", label=False, options=ALL).train[0],
    )
    text = pl.to_text(view)
    assert "⟦here" in text and len(text) < 4000 and "where?" in text
    empty = QuestionAnswering(no_answer=True).view(
        Prediction(0, "", spans=(Span(0, 0, score=0.8),)),
        pl.read([{"text": "where?", "text_pair": "there"}], text="text", text_pair="text_pair", label=False, options=ALL).train[0],
    )
    assert "(no answer)" in pl.to_text(empty)


def test_an_empty_side_of_the_pair(pipe) -> None:
    nothing, anything = pipe.predict([("who?", ""), ("", SENTENCES[0])])
    assert nothing.answer == ""
    assert anything.answer in ("", *[each.text for each in anything.spans])
    bold = replace(pipe, task=replace(pipe.task, no_answer=False))
    assert bold.predict([("who?", "")])[0] == Prediction(0, "")
    assert bold.predict([("", SENTENCES[0])])[0].answer in SENTENCES[0]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (None, "expected the answers to a question, came no target"),
        ("wonderful", "came 'wonderful'"),
        ((Span(2, 900, text="wonderful"),), "the context has 61"),
        ((Span(-1, 3, text="A wo"),), "the context has 61"),
        ((Span(4, 4, text="x"),), "characters 4 to 4"),
        ((Span(3, 12, text="wonderful"),), "the context says 'onderful '"),
        ((Span(2, 11),), "expected the answers"),
        ((Span(1, 2, text=" "),), "no token reads the answer"),
    ],
)
def test_a_target_that_does_not_fit_is_named_with_its_row(target, says: str, pipe) -> None:
    columns = {"text": ["which?"] * 2, "text_pair": [SENTENCES[0]] * 2}
    with pytest.raises(LabelError, match="row 1") as error:
        pipe.task.encode(pipe.tokenizer, columns, [(span(SENTENCES[0], "wonderful"),), target], pipe.options)
    assert says in str(error.value) and error.value.cure


def test_other_mistakes_are_named(pipe) -> None:
    with pytest.raises(TokenizerError, match="row 1") as error:
        pipe.predict([("who?", SENTENCES[0]), ("who? " * 70, SENTENCES[0] * 3)])
    assert "room" in str(error.value)
    with pytest.raises(LabelError, match="contexts beside their questions"):
        QuestionAnswering().for_rows(pl.read([{"text": "a", "label": "b"}] * 4, text="text", label="label", options=ALL).train)
    with pytest.raises(SettingError, match="n_best"):
        QuestionAnswering(n_best=0)
    with pytest.raises(SettingError, match="max_answer_tokens"):
        QuestionAnswering(max_answer_tokens=True)
    with pytest.raises(SettingError, match="source"):
        pipe.task.decode(Output(np.zeros((1, 4, 2))), Batch({}, None, np.zeros(1, int), np.zeros(1, int), np.full(1, 4)))
    with pytest.raises(LabelError, match="row 1"):
        pipe.task.metrics([Prediction(0, "a"), Prediction(1, "b")], [(), "b"])


def test_scores_that_are_not_finite_are_an_error(pipe) -> None:
    rows = read(small_rows()[:2]).train
    table = pipe.encode(rows)
    output = oracle(table)
    output.logits[1, 3] = np.nan
    with pytest.raises(CheckpointError, match="row 1"):
        pipe.task.decode(output, Batch({}, None, table.rows, table.windows, table.lengths), pipe.source(rows))
