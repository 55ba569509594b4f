"""Texts that are too long, in every task: what each policy loses is counted, and the trace, the report and the findings say so."""

import json
import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from fault_cases import EMOJI, FAMILY, FLAG, KEYCAP, SIGNS, THUMB
from fault_kits import ALL, PLAIN, QUESTION, READ, TOKENS, WITHOUT_ROWS, Kit, folder_of, kinds_of, kit, kits, task_of, within
from fault_list import TASKS
from pellucid.checks import check_rows
from pellucid.errors import PellucidError, SettingError
from pellucid.given import as_split
from pellucid.pipelines import Pipeline
from pellucid.render import to_text
from pellucid.tasks.causal_lm import TextGeneration
from pellucid.tasks.embeddings import FeatureExtraction
from pellucid.tasks.masked_lm import FillMask
from pellucid.tasks.seq2seq import Summarization
from pellucid.tasks.zero_shot import ZeroShotClassification
from pellucid.text_pieces import cut, pieces_of
from pellucid.tokens import LongTexts, TokenOptions
from pellucid.training.one_call import truncation

LONG = "the film is good and the jokes are old, so that nobody laughs and nobody cries. " * 4
WINDOWED = ("token-classification", "question-answering", "fill-mask", "feature-extraction")
WHOLE = [(tag, policy) for tag in WINDOWED for policy in ("windows", "chunk-and-join")] + [("text2text-generation", "chunk-and-join")]
REFUSED = [("text2text-generation", "windows")]
REFUSED += [(tag, policy) for tag in ("text-generation", "zero-shot-classification") for policy in ("windows", "chunk-and-join")]


def with_policy(tag: str, policy: str, kind: str = "") -> Kit:
    """The kit with this policy for long texts."""
    one = kit(tag, kind)
    return replace(one, pipe=replace(one.pipe, options=replace(one.pipe.options, long=LongTexts(policy))))  # type: ignore[arg-type]


def learned(one: Kit, rows: pl.Rows) -> Any:
    """The tokens that are learned of these rows."""
    return one.pipe.task.to_learn(one.pipe.encode(rows.train))


def findings(one: Kit, rows: pl.Rows) -> str:
    """What `pl.train` would say of the rows before it begins."""
    return " ".join(finding.what for finding in check_rows(rows, truncation(learned(one, rows), rows.train)))


# --- what is cut is said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", TASKS)
def test_a_trace_says_what_truncation_cut(tag: str) -> None:
    for kind in kinds_of(tag):
        one = with_policy(tag, "truncate", kind)
        table = one.pipe.encode(as_split([one.asked(LONG)], one.pipe.task.reads))
        trace = one.pipe.trace(one.asked(LONG))
        assert len(trace.tokens) == len(table)
        lost = int(table.lost.sum())
        assert lost > 20 and max(tokens.lost for tokens in trace.tokens) == lost
        assert f"Truncation cut {lost:,} tokens of this row" in to_text(trace.view())
        short = one.pipe.trace(one.asked("a film"))
        assert not any(tokens.lost for tokens in short.tokens) and "Truncation cut" not in to_text(short.view())


@pytest.mark.parametrize("tag", [tag for tag in TASKS if tag != "text-generation"])
def test_a_report_says_what_truncation_cut(tag: str) -> None:
    one = with_policy(tag, "truncate")
    rows = one.read([LONG, PLAIN[0], PLAIN[1]])
    if tag == "feature-extraction":
        pairs = [{"text": text, "text_pair": "a", "label": number} for number, text in enumerate([LONG, *PLAIN])]
        number = replace(ALL, label_kind="number")
        rows = pl.read(pairs, text_pair="text_pair", label="label", options=number)
        one = replace(one, pipe=Pipeline.new(FeatureExtraction(compare=True), folder_of(tag, "wordpiece"), tokens=TOKENS))
    report = pl.evaluate(one.pipe, rows.train, baselines=False)
    assert report.truncation is not None and report.truncation.rows_cut == 1
    assert report.truncation.tokens_lost > 20 and report.truncation.words_lost > 10
    assert f"1 of {len(rows.train)} texts" in str(report) and "were longer than the model reads" in str(report)


@pytest.mark.parametrize("tag", [tag for tag in TASKS if tag not in (*WITHOUT_ROWS, "text-generation")])
def test_training_says_what_truncation_cut(tag: str) -> None:
    one = with_policy(tag, "truncate")
    rows = one.read([LONG, *PLAIN])
    assert int(learned(one, rows).lost.sum()) > 20
    assert "25.0% of the texts are cut" in findings(one, rows)
    little = one.read([LONG, *(f"{PLAIN[0]} {number}" for number in range(200))])
    assert "0.5% of the texts are cut" in findings(one, little), "however little it is"
    assert "are cut" not in findings(one, one.read(list(PLAIN)))


def test_of_prompts_with_targets_training_and_the_report_say_what_was_cut() -> None:
    rows = pl.read(
        [{"text": LONG, "target": " Good."}, {"text": "It is", "target": " bad."}],
        label="target",
        options=replace(ALL, label_kind="text"),
    )
    task = TextGeneration(max_new_tokens=4, block_tokens=16)
    pipe = Pipeline.new(task, folder_of("text-generation", "bpe"), rows, tokens=TOKENS)
    one = replace(kit("text-generation"), pipe=pipe)
    table = learned(one, rows)
    assert table.lost.tolist()[0] > 50 and table.lost[1] == 0
    assert "50.0% of the texts are cut" in findings(one, rows) and " 0.0% of the words" not in findings(one, rows)
    said = str(pl.evaluate(pipe, rows.train))
    assert "1 of 2 texts (50.0%) were longer than the model reads" in said and "0 words" not in said


def test_of_plain_texts_a_language_model_loses_nothing() -> None:
    for one in kits("text-generation"):
        rows = one.read([LONG, EMOJI, *PLAIN])
        assert not learned(one, rows).lost.any() and "are cut" not in findings(one, rows)
        assert "No text was cut." in str(pl.evaluate(one.pipe, rows.train))


def test_the_trace_of_a_long_prompt_shows_the_characters_of_its_end() -> None:
    for one in kits("text-generation"):
        (tokens,) = one.pipe.trace(LONG).tokens
        own = [offset for offset, special in zip(tokens.offsets, tokens.special, strict=True) if not special]
        assert len(own) > 20 and max(end for _, end in own) >= len(LONG) - 1 and min(start for start, _ in own) > 100


def test_the_trace_of_a_long_document_with_a_prefix_shows_its_characters_and_says_what_was_cut() -> None:
    text = "The plot is dull, and the jokes are old. " * 5000
    for policy in ("truncate", "chunk-and-join"):
        options = replace(TOKENS, long=LongTexts(policy))  # type: ignore[arg-type]
        pipe = Pipeline.new(
            Summarization(prefix="in short: ", max_new_tokens=2), folder_of("text2text-generation", "unigram"), tokens=options
        )
        with within(100):
            trace = pipe.trace(text if policy == "truncate" else text[:60_000])
        places = [
            (window, start)
            for window, tokens in enumerate(trace.tokens)
            for (start, _), field in zip(tokens.offsets, tokens.segments, strict=True)
            if field == "text"
        ]
        assert [start for _, start in places] == sorted(start for _, start in places), "a text that repeats is shown in its order"
        assert len({window for window, _ in places}) >= len(trace.tokens) - 1, "a last piece may be shorter than the prefix"
        said = to_text(trace.view())
        assert ("Truncation cut" in said) is (policy == "truncate")


def test_of_a_text_beside_labels_the_most_that_is_cut_counts() -> None:
    short, long = "city", "a film about people who laugh and cry"
    for labels in ((short, long), (long, short)):
        task = ZeroShotClassification(candidate_labels=labels)
        pipe = Pipeline.new(task, folder_of("zero-shot-classification", "wordpiece"), tokens=TokenOptions(max_length=60))
        alone = replace(pipe, task=replace(task, candidate_labels=(long,)))
        split = as_split([LONG], ("text",))
        assert int(pipe.encode(split).lost.sum()) == int(alone.encode(split).lost.sum()) > 0


# --- what is read whole -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tag", "policy"), WHOLE)
def test_in_windows_nothing_is_lost(tag: str, policy: str) -> None:
    for kind in kinds_of(tag):
        one = with_policy(tag, policy, kind)
        for text in (LONG, EMOJI * 3, FAMILY * 12, "x" * 500):
            table = one.pipe.encode(as_split([one.asked(text)], one.pipe.task.reads))
            assert not table.lost.any() and int(table.lengths.max()) <= 32
            trace = one.pipe.trace(one.asked(text))
            assert len(trace.tokens) == len(table) and "Truncation cut" not in to_text(trace.view())
            read = np.zeros(len(text) + 40, dtype=np.bool_)
            for tokens in one.pipe.source(as_split([one.asked(text)], one.pipe.task.reads)).windows(0):
                for (start, end), field in zip(tokens.offsets, tokens.segments, strict=True):
                    read[start:end] |= field == one.column
            given = one.asked(text)
            given = given["text_pair"] if isinstance(given, dict) else given
            unread = [letter for place, letter in enumerate(given) if not read[place] and not letter.isspace()]
            drops = kind != "bpe"  # BERT's and XLM-R's tokenizers drop joiners, or have no piece for them
            assert tag == "text2text-generation" or not unread or (drops and set(unread) <= set("".join(SIGNS) + "\u200d\ufe0f")), unread


@pytest.mark.parametrize(("tag", "policy"), [pair for pair in WHOLE if pair[0] != "feature-extraction"])
def test_a_report_says_that_nothing_was_cut(tag: str, policy: str) -> None:
    one = with_policy(tag, policy)
    rows = one.read([LONG, *PLAIN])
    assert "No text was cut." in str(pl.evaluate(one.pipe, rows.train, baselines=False))


@pytest.mark.parametrize(("tag", "policy"), REFUSED)
def test_a_policy_that_a_task_cannot_follow_is_refused(tag: str, policy: str) -> None:
    one = with_policy(tag, policy)
    with pytest.raises(SettingError) as caught:
        one.predict([LONG])
    assert "long" in caught.value.place and "LongTexts" in caught.value.cure


def test_pairs_are_not_compared_in_windows() -> None:
    options = replace(TOKENS, long=LongTexts("windows"))
    pipe = Pipeline.new(FeatureExtraction(compare=True), folder_of("feature-extraction", "wordpiece"), tokens=options)
    with pytest.raises(SettingError, match="compared by their beginnings"):
        pipe([("a", "b")])


# --- answers and spans that a cut takes away ------------------------------------------------------------------------------


def test_an_answer_that_no_window_holds_is_said(caplog: pytest.LogCaptureFixture) -> None:
    context = LONG + "Berlin"
    answers = {"text": ["Berlin"], "answer_start": [len(LONG)]}
    whole = {"text": [LONG.strip()], "answer_start": [0]}
    rows = pl.read([{"question": QUESTION, "context": context, "answers": cell} for cell in (answers, whole)], **READ["question-answering"])
    one = with_policy("question-answering", "truncate")
    with caplog.at_level(logging.WARNING, logger="pellucid"):
        one.pipe.encode(rows.train)
    assert "2 answers lie in no window whole" in caplog.text and "'Berlin'" in caplog.text
    caplog.clear()
    one = with_policy("question-answering", "windows")
    with caplog.at_level(logging.WARNING, logger="pellucid"):
        one.pipe.encode(rows.train)
    assert "1 answer lies in no window whole" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="pellucid"):
        one.pipe.encode(one.read(list(PLAIN)).train)
    assert not caplog.text


def test_a_span_that_is_not_learned_is_said_by_its_text(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": f"a film {number}", "entities": [[2, 6, "thing"]]} for number in range(1100)]
    rows.append({"text": "a \x01 sign", "entities": [[2, 3, "thing"]]})
    found = pl.read(rows, **READ["token-classification"])
    pipe = Pipeline.new("token-classification", folder_of("token-classification", "wordpiece"), found, tokens=TOKENS)
    with caplog.at_level(logging.WARNING, logger="pellucid"):
        pipe.encode(found.train)
    assert "no scored token stands for 1 span" in caplog.text and r"'\x01' in 'a \x01 sign'" in caplog.text


def test_masks_that_truncation_cut_are_refused_or_stay() -> None:
    one = with_policy("fill-mask", "truncate")
    mask = one.pipe.tokenizer.mask_token
    with pytest.raises(PellucidError, match=r"the list, row 1: truncation cut every mask of the text") as caught:
        list(one.pipe.predict([f"a {mask}", f"{LONG} {mask}"]))
    assert "windows" in caught.value.cure
    (found,) = one.pipe.predict([f"{mask} {LONG} {mask}"])
    assert str(found.answer).endswith(mask) and {span.start for span in found.spans} == {0}


# --- errors name the right place ------------------------------------------------------------------------------------------


def test_an_answer_that_cannot_be_given_names_file_and_line(tmp_path: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\na [MASK]\nb [MASK]\nc\n", encoding="utf-8")
    split = pl.read(path, label=False, options=ALL).train.select([2, 0])
    pipe = kit("fill-mask").pipe
    with pytest.raises(PellucidError, match=r"a\.csv, line 4 \(row 2\): the text has no mask to fill"):
        list(pipe.predict(split))
    with pytest.raises(PellucidError, match=r"a\.csv, line 4 \(row 2\)"):
        _ = pipe.predict(split)[0]


@pytest.mark.parametrize("tag", ["question-answering", "text2text-generation", "token-classification"])
def test_targets_of_another_kind_are_refused_before_the_work(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {"text_pair": "text_pair"} if tag == "question-answering" else {}
    rows = pl.read([{"text": "a", "text_pair": "b", "label": [1, 2]}], label="label", options=ALL, **pair)
    pipe = kit(tag).pipe

    def run(*_: Any) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(Pipeline, "run", run)
    with pytest.raises(PellucidError, match="the list, row 0"):
        pl.evaluate(pipe, rows.train)


def test_a_setting_that_cannot_be_is_not_blamed_on_a_row() -> None:
    for tag, options in (("token-classification", {"max_length": 2}), ("text-generation", {"max_length": 3})):
        one = kit(tag)
        with pytest.raises(SettingError) as caught:
            list(replace(one.pipe, options=replace(one.pipe.options, **options)).predict(["a"]))
        assert caught.value.place == "max_length"


def test_a_label_that_is_too_long_is_not_blamed_on_a_row() -> None:
    task = ZeroShotClassification(candidate_labels=("city", "film " * 40))
    pipe = Pipeline.new(task, folder_of("zero-shot-classification", "wordpiece"), tokens=TOKENS)
    with pytest.raises(SettingError, match="candidate_labels") as caught:
        pipe(["a"])
    assert "max_length" in caught.value.cure


# --- signs of several characters --------------------------------------------------------------------------------------------


MADE_OF = st.sampled_from([*SIGNS, "a", " ", ". ", "\n", "x", "é", "日", "한", "\r\n", "\u0301", "\u200d", FLAG[0], "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "नी", "1️⃣"])


@settings(max_examples=300, deadline=None)
@given(st.lists(MADE_OF, max_size=60).map("".join), st.integers(8, 30))
def test_pieces_hold_everything_and_part_no_sign(text: str, room: int) -> None:
    """Against the grapheme clusters of Unicode (UAX 29), as the package regex finds them; one character is one token here."""
    ends = np.arange(1, len(text) + 1)
    pieces = cut(text, ends - 1, ends, room)
    assert "".join(text[start:end] for start, end in pieces) == text
    assert all(start < end for start, end in pieces) or len(pieces) == 1
    assert all(end - start <= room for start, end in pieces)
    edges = {match.end() for match in regex.finditer(r"\X", text)}
    longest = max((match.end() - match.start() for match in regex.finditer(r"\X", text)), default=0)
    if longest <= room // 2:
        assert {end for _, end in pieces[:-1]} <= edges


@pytest.mark.parametrize("sign", [FAMILY, FLAG, THUMB, KEYCAP, "e\u0301\u0323"])
def test_pieces_of_real_tokens_part_no_sign(sign: str, tiny_tokenizers: dict[str, Any]) -> None:
    text = "The film. " + f"{sign}" * 30 + " is old."
    for tokenizer in tiny_tokenizers.values():
        for room in (60, 64, 71, 80):
            (pieces,) = pieces_of(tokenizer, [text], room, TokenOptions())
            assert "".join(text[start:end] for start, end in pieces) == text
            edges = {match.end() for match in regex.finditer(r"\X", text)}
            assert {end for _, end in pieces[:-1]} <= edges


def test_a_piece_of_white_space_is_not_written_about() -> None:
    for one in kits("text2text-generation"):
        joined = with_policy("text2text-generation", "chunk-and-join", one.kind)
        text = "A film. " + "\n\t" * 200 + "It is old. " + "\n\t" * 200
        table = joined.pipe.encode(as_split([text, "\n\t" * 200], ("text",)))
        bare = [joined.pipe.tokenizer.decode(table.ids_of(window).tolist(), skip_special_tokens=True) for window in range(len(table))]
        assert all(words.strip() for words, row in zip(bare, table.rows, strict=True) if row == 0)
        assert set(table.rows.tolist()) == {0, 1}, "a row of white space keeps its place"


def test_windows_keep_every_byte_of_an_emoji() -> None:
    """A window may begin within a sign, for bytes also within a character: all tokens are in some window, spans are whole characters."""
    for tag in ("token-classification", "question-answering", "feature-extraction"):
        one = kit(tag, "bpe")
        text = FAMILY * 6
        table = one.pipe.encode(as_split([one.asked(text)], one.pipe.task.reads))
        assert len(table) > 2 and not table.lost.any()
        (found,) = one.predict([text])
        one.sound(text, found)


def test_a_conversation_that_is_too_long_is_cut_at_its_beginning_and_said(tiny_tokenizers: dict[str, Any], tmp_path: Any) -> None:
    from copy import deepcopy

    from tiny_writers import CHAT_TEMPLATE, writer

    chatty = deepcopy(tiny_tokenizers["bpe"])
    chatty.chat_template = CHAT_TEMPLATE
    pipe = Pipeline.new(TextGeneration(max_new_tokens=4), writer("llama", chatty, tmp_path / "chat"), tokens=TOKENS)
    chat = json.dumps([{"role": "user", "content": LONG}])
    trace = pipe.trace(chat)
    lost = int(pipe.encode(as_split([chat], ("text",))).lost[0])
    assert trace.tokens[0].lost == lost > 0 and f"Truncation cut {lost:,} tokens" in to_text(trace.view())


def test_every_task_is_here() -> None:
    covered = {tag for tag, _ in (*WHOLE, *REFUSED)}
    assert covered == set(TASKS)
    assert isinstance(task_of("fill-mask"), FillMask) and callable(partial(kit, "fill-mask"))
