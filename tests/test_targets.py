"""Rows whose targets are more than labels: tags, spans, answers and texts, from the file to the Example. B43 to B45 of `faults.toml`."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.checks import Finding, check_rows
from pellucid.data import ReadOptions, Rows, read
from pellucid.errors import DataError, LabelError, PellucidError
from pellucid.render import to_html, to_text
from pellucid.rows import label_counts
from pellucid.tagging import is_chunked, tags_of_spans, word_spans
from pellucid.types import Span

WHOLE = ReadOptions(valid_fraction=0)
TAGGED = [
    {"tokens": ["Bob", "Ray", "is", "in", "New York", "."], "ner_tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]},
    {"tokens": ["No", "one", "."], "ner_tags": ["O", "O", "O"]},
]
SPANS = ((Span(0, 7, "PER", text="Bob Ray"), Span(14, 22, "LOC", text="New\u00a0York")), ())
CONTEXT = "Zoë lives in Köln. She moved there from Łódź in 2009."
ASKED = [
    {"question": "Where?", "context": CONTEXT, "answers": {"text": ["Köln", "in Köln", "Köln"], "answer_start": [13, 10, 13]}},
    {"question": "Why?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
]


def targets(rows: Rows, name: str = "train") -> list:
    return rows[name].targets(0, len(rows[name]))


def texts(rows: Rows, role: str = "text", name: str = "train") -> list[str]:
    return list(rows[name].columns(0, len(rows[name]))[role])


def refused(source: Any, *words: str, **how: Any) -> PellucidError:
    with pytest.raises(PellucidError) as caught:
        read(source, **how)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert caught.value.place and caught.value.cure and isinstance(caught.value, DataError | LabelError)
    return caught.value


def said(rows: Rows, word: str) -> list[Finding]:
    return [finding for finding in check_rows(rows) if word in finding.what]


def file(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


# --- words and tags ---


def class_labels(rows: list[dict]) -> datasets.Dataset:
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    feature = {"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names))}
    numbered = [{**row, "ner_tags": [names.index(tag) for tag in row["ner_tags"]]} for row in rows]
    return datasets.Dataset.from_list(numbered, features=datasets.Features(feature))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: TAGGED,
        lambda path: iter(TAGGED),
        lambda path: pd.DataFrame(TAGGED),
        lambda path: polars.DataFrame(TAGGED),
        lambda path: pa.Table.from_pylist(TAGGED),
        lambda path: datasets.Dataset.from_list(TAGGED),
        lambda path: class_labels(TAGGED),
        lambda path: class_labels(TAGGED).to_iterable_dataset(),
        lambda path: {name: [row[name] for row in TAGGED] for name in TAGGED[0]},
        lambda path: [{name: np.array(cells, dtype=object) for name, cells in row.items()} for row in TAGGED],
        lambda path: file(path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in TAGGED)),
        lambda path: pq.write_table(pa.Table.from_pylist(TAGGED), path / "a.parquet") or path / "a.parquet",
        lambda path: file(
            path / "a.conll", "\n".join("".join(f"{a}\t{b}\n" for a, b in zip(*row.values(), strict=True)) for row in TAGGED)
        ),
    ],
)
def test_words_with_tags_become_one_text_with_spans(tmp_path, make):
    rows = read(make(tmp_path), options=WHOLE)
    assert texts(rows) == ["Bob Ray is in New\u00a0York .", "No one ."] and targets(rows) == list(SPANS)
    assert (rows.roles.target, rows.roles.scheme) == ("spans", "IOB2") == (rows.train.roles.target, rows.train.roles.scheme)
    assert rows.train[0].target == SPANS[0] and [example.target for example in rows.train] == list(SPANS)
    notes = " ".join(map(str, rows.notes))
    assert "the words with single spaces between" in notes and "read as IOB2, each entity is a span" in notes


def test_numbers_of_tags_get_their_names():
    rows = [{"tokens": ["a", "b"], "ner_tags": [1, 0]}, {"tokens": ["c"], "ner_tags": [2]}]
    named = read(rows, options=ReadOptions(valid_fraction=0, label_names=("O", "B-X", "I-X")))
    assert [span.place for spans in targets(named) for span in spans] == [(0, 1, "X"), (0, 1, "X")]
    assert [span.label for span in targets(read(rows, options=WHOLE))[0]] == ["1", "0"]  # without names each is a label of its own
    (finding,) = said(read(rows * 9, options=WHOLE), "the labels are numbers")
    assert "label_names" in finding.cure
    refused(rows, "the list, row 1, column 'ner_tags': label '2' has no name", options=ReadOptions(label_names=("O", "B-X")))


@pytest.mark.parametrize(
    ("name", "asked", "words", "tags"),
    [
        (("tokens", "tags"), {}, "tokens", "tags"),
        (("words", "pos_tags", "text"), {}, "words", "pos_tags"),
        (("tokens", "ner_tags", "id"), {"label": "ner_tags"}, "tokens", "ner_tags"),
        (("utterance", "gold"), {"text": "utterance", "label": "gold"}, "utterance", "gold"),
    ],
)
def test_columns_are_guessed_by_their_names(name, asked, words, tags):
    row = dict.fromkeys(name, "whole") | {words: ["a", "b"], tags: ["X", "Y"]}
    rows = read([row], options=WHOLE, **asked)
    assert (rows.roles.text, rows.roles.label, rows.roles.target, rows.roles.scheme) == (words, tags, "spans", "plain")
    assert targets(rows) == [(Span(0, 1, "X", text="a"), Span(2, 3, "Y", text="b"))]


def test_a_text_beside_words_is_the_text_of_a_label():
    rows = read([{"text": "a b", "tokens": ["a", "b"], "label": "x"}], options=WHOLE)
    assert rows.roles.text == "text" and rows.roles.target == "class"


def test_a_split_like_train_is_read_like_train():
    bare = [{"tokens": ["a"], "ner_tags": []} for _ in range(1)]
    refused({"train": TAGGED, "valid": bare}, "split 'valid', the list, row 0, column 'ner_tags': 1 word but 0 tags")
    empty = [{"text": "a", "spans": []}]
    rows = read({"train": [{"text": "a", "spans": [[0, 1, "x"]]}], "valid": empty})
    assert targets(rows, "valid") == [()] and rows.valid.roles.target == "spans"


def test_real_entities(shared_data):
    rows = read(
        {
            "train": shared_data / "wnut17" / "wnut17train.conll.gz",
            "valid": shared_data / "wnut17" / "emerging.dev.conll.gz",
            "test": shared_data / "wnut17" / "emerging.test.annotated.gz",
        }
    )
    assert {name: len(split) for name, split in rows.splits.items()} == {"train": 3394, "valid": 1009, "test": 1287}
    assert (rows.roles.text, rows.roles.label, rows.roles.scheme) == ("words", "tags", "IOB2")
    counts = label_counts(rows.train)
    assert counts["location"] == 548 and counts["person"] == 660 and sum(counts.values()) == 1975
    spans = rows.train[0].target
    assert [(span.text, span.label) for span in spans] == [("Empire State Building", "location"), ("ESB", "location")]
    assert not [finding for finding in check_rows(rows) if finding.level == "error"]
    assert "Under a label stand its spans." in to_text(rows.view()) and to_html(rows.view())
    assert "Empire State Building=location, ESB=location" in str(rows.view())


def test_real_parts_of_speech(shared_data):
    path = shared_data / "ud_english_ewt" / "dev.conllu.gz"
    rows = read(path)
    assert (rows.roles.text, rows.roles.label, rows.roles.scheme) == ("words", "upos", "plain")
    assert rows.train[0].target[0].label in ("ADP", "PROPN", "NOUN", "PRON", "DET", "VERB", "ADV", "AUX", "INTJ", "SCONJ", "NUM", "X")
    assert sum(sum(label_counts(split).values()) for split in rows.splits.values()) == 25147
    assert all(len(spans) == len(text.split(" ")) for text, spans in zip(texts(rows), targets(rows), strict=True))
    assert set(texts(rows)).isdisjoint(texts(rows, name="valid")) and 390 <= len(rows.valid) <= 400
    other = read(path, label="xpos", options=WHOLE)
    assert [span.label for span in other.train[0].target] == ["IN", "DT", "NNP", "VBZ", "DT", "NN", ":"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.text("abé👩 ", min_size=1, max_size=4), st.sampled_from(["O", "B-X", "I-X", "B-Y"])), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    )
)
def test_tags_come_back_from_rows(sentences):
    rows = [{"tokens": [word for word, _ in pairs], "tags": [tag for _, tag in pairs]} for pairs in sentences]
    found = read(rows, options=WHOLE).train
    for row, example in zip(rows, found, strict=True):
        text, places = word_spans(row["tokens"])
        assert example.fields["text"] == text and is_chunked(row["tags"])
        again = tags_of_spans(example.target, places)
        assert [tag[1:] for tag in again] == [tag[1:] for tag in row["tags"]]


# --- B43: words, tags and spans that do not fit ---


def test_b43_words_and_tags_of_different_length(tmp_path):
    bad = {"tokens": ["a", "b", "c", "d", "e"], "tags": ["O"] * 4}
    refused([*({"tokens": ["a"], "tags": ["O"]},) * 3, bad], "the list, row 3, column 'tags': 5 words but 4 tags. Give each word one tag.")
    path = file(tmp_path / "a.jsonl", json.dumps(TAGGED[0]) + "\n\n" + json.dumps({"tokens": ["a"], "ner_tags": []}) + "\n")
    refused(path, "a.jsonl, line 3 (row 1), column 'ner_tags': 1 word but 0 tags")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, ("column 'tokens': word 2 of 2 is empty",)),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, ("column 'tokens': word 2 of 2 is missing",)),
        ({"tokens": ["a", 7], "tags": ["O", "O"]}, ("column 'tokens': word 2 of 2 is no text but int (7)",)),
        ({"tokens": "a b", "tags": ["O", "O"]}, ("column 'tokens': expected a list of words, came str ('a b')",)),
        ({"tokens": ["a"], "tags": "O"}, ("column 'tags': expected a list of tags, came str ('O')",)),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, ("column 'tags': word 2 has no tag",)),
        ({"tokens": ["a", "b"], "tags": ["O", " "]}, ("column 'tags': word 2 has no tag",)),
        ({"tokens": ["a", "b"], "tags": ["O", ["X"]]}, ("column 'tags': a label must be a text or a number, not list",)),
        ({"tokens": ["a", "b"], "tags": ["O", "PER"]}, ("column 'tags': word 2 has the tag 'PER', expected O or one such as B-PER",)),
        ({"tokens": None, "tags": ["O"]}, ("column 'tokens': the text is missing",)),
        ({"tokens": ["half \ud800"], "tags": ["O"]}, ("column 'tokens': character 5 is a lone surrogate",)),
        ({"tokens": ["a"], "tags": ["B-\ud800"]}, ("column 'tags': character 0 is a lone surrogate",)),
    ],
)
def test_b43_words_and_tags_that_are_none(row, words):
    refused([{"tokens": ["a"], "tags": ["B-X"]}, row], "the list, row 1, ", *words)


def test_b43_missing_tags_are_a_missing_label():
    refused([*TAGGED, {"tokens": ["a"], "ner_tags": None}], "row 2, column 'ner_tags': the label is missing")
    rows = read([*TAGGED, {"tokens": ["a"], "ner_tags": None}], options=ReadOptions(valid_fraction=0, on_missing="drop"))
    assert len(rows.train) == 2 and "1 row left out" in str(rows.notes[-1])


def test_b43_i_without_b_is_counted_and_said():
    good = {"tokens": ["a", "b", "c"], "tags": ["B-X", "O", "B-Y"]}
    loose = {"tokens": ["a", "b", "c"], "tags": ["O", "I-X", "I-X"]}
    rows = read([good, good, loose, good, loose], options=WHOLE)
    (note,) = [note for note in rows.notes if "I-" in note.what]
    assert note.what.startswith("2 entities begin with I- or E- where B- was expected") and "the list, row 2, column 'tags'" in note.why
    assert [span.place for span in targets(rows)[2]] == [(2, 5, "X")]
    old = read([loose] * 3, options=WHOLE)  # IOB1 begins entities so
    assert old.roles.scheme == "IOB1" and not [note for note in old.notes if "was expected" in note.what]


def test_b43_tags_need_words_and_spans_over_words_must_be_clear():
    refused([{"text": "a b", "tags": ["O", "O"]}], "one tag a word needs a list of words", options=ReadOptions(label_kind="tags"))
    words = [{"tokens": ["a", "b"], "entities": [{"start": 0, "end": 1, "label": "X"}]}]
    refused(words, "row 0, column 'entities'", "it is not clear whether they count words or characters")
    assert targets(read(words, options=ReadOptions(valid_fraction=0, label_kind="spans"))) == [(Span(0, 1, "X", text="a"),)]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ([[0, 99, "X"]], "span 1 is 0 to 99, the text has 53 characters"),
        ([[5, 2, "X"]], "span 1 begins at character 5 and ends at 2"),
        ([[0, 9, "X"], [4, 12, "Y"]], "overlap. Keep one of the two, or pass ReadOptions(on_overlap='longest')"),
        ([[48, 57, "X"]], "the text has 53 characters, 58 bytes: the offsets seem to count bytes"),
        ([{"start": 14, "end": 19, "label": "LOC", "text": "Köln"}], "its offsets 14 and 19 count bytes: there stands 'Köln'"),
        ("PER", "expected a list, came str ('PER')"),
    ],
)
def test_b43_spans_that_do_not_fit_their_text(cell, words):
    good = {"text": "a", "spans": [[0, 1, "X"]]}
    error = refused([good, {"text": CONTEXT, "spans": cell}], "the list, row 1, column 'spans': ", words)
    if "bytes" in words:
        assert "len(text.encode()[:b].decode())" in error.cure


def test_spans_are_read_and_counted():
    rows = read(
        [
            {"text": CONTEXT, "entities": [{"start": 13, "end": 17, "label": "LOC"}, {"start": 0, "end": 3, "label": "PER"}]},
            {"text": "Nothing.", "entities": []},
        ],
        options=WHOLE,
    )
    assert targets(rows) == [(Span(0, 3, "PER", text="Zoë"), Span(13, 17, "LOC", text="Köln")), ()]
    assert (rows.roles.target, rows.roles.scheme) == ("spans", "") and label_counts(rows.train) == {"LOC": 1, "PER": 1}
    assert "(no spans)" in to_text(rows.view()) and "the targets are spans" in str(rows.notes)
    longest = ReadOptions(valid_fraction=0, on_overlap="longest")
    assert targets(read([{"text": "a b c", "spans": [[0, 3, "X"], [2, 5, "Y"], [0, 5, "Z"]]}], options=longest)) == [
        (Span(0, 5, "Z", text="a b c"),)
    ]


def test_spans_with_offsets_inside_a_joined_emoji_are_characters():
    rows = read([{"text": "👩‍👧 e\u0301", "spans": [[0, 1, "x"], [5, 6, "y"]]}], options=WHOLE)
    assert [span.text for span in targets(rows)[0]] == ["👩", "\u0301"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abé👩‍ \u0301", min_size=1, max_size=12), min_size=1, max_size=6), st.data())
def test_spans_come_back_from_arrow_files_and_lists(texts_, data):
    cells = []
    for text in texts_:
        start = data.draw(st.integers(0, len(text) - 1))
        end = data.draw(st.integers(start + 1, len(text)))
        cells.append(Span(start, end, "x", text=text[start:end]))
    rows = [{"text": one, "spans": [{"start": cell.start, "end": cell.end, "label": "x"}]} for one, cell in zip(texts_, cells, strict=True)]
    for source in (rows, pa.Table.from_pylist(rows), datasets.Dataset.from_list(rows)):
        assert targets(read(source, options=WHOLE)) == [(cell,) for cell in cells]


# --- questions and answers ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: ASKED,
        lambda: pd.DataFrame(ASKED),
        lambda: pa.Table.from_pylist(ASKED),
        lambda: datasets.Dataset.from_list(ASKED),
        lambda: {name: [row[name] for row in ASKED] for name in ASKED[0]},
        lambda: [
            {**row, "answers": [{"text": a, "answer_start": b} for a, b in zip(*row["answers"].values(), strict=True)]} for row in ASKED
        ],
    ],
)
def test_answers_are_spans_over_the_context(make):
    rows = read(make(), options=WHOLE)
    assert (rows.roles.text, rows.roles.text_pair, rows.roles.label, rows.roles.target) == ("question", "context", "answers", "answers")
    assert targets(rows) == [(Span(13, 17, text="Köln"), Span(10, 17, text="in Köln")), ()]
    assert label_counts(rows.train) == {} and "(no answer)" in to_text(rows.view())
    assert "the targets are answers" in " ".join(map(str, rows.notes))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"text": "Köln", "answer_start": 12}, "does not stand at character 12 of the context of 53. Its answer_start is 13."),
        ({"text": "Köln", "answer_start": 14}, "answer_start 14 counts bytes; in characters it is 13"),
        ({"text": "Rome", "answer_start": 13}, "answer 1, 'Rome', is not in the context"),
        ({"text": "", "answer_start": 13}, "answer 1 is empty"),
        ({"text": "ódź", "answer_start": 43}, "Its answer_start is 41."),  # the byte within Ł
        ({"answer_start": 13}, "answer 1 has no 'text'"),
    ],
)
def test_b44_answers_that_are_not_in_their_context(tmp_path, answer, words):
    bad = {"question": "?", "context": CONTEXT, "answers": [answer]}
    refused([*ASKED, bad], "the list, row 2, column 'answers': ", words)
    qas = [{"question": "?", "id": "q7", "answers": [answer]}]
    path = file(tmp_path / "a.json", json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": qas}]}]}))
    refused(path, "a.json, question 'q7' (row 0), column 'answers': ", words)


def test_b44_answers_need_a_context():
    refused([{"question": "?", "answers": {"text": ["a"], "answer_start": [0]}}], "answers stand in a context, and no column is one")
    refused([{"question": "?", "context": None, "answers": []}], "row 0, column 'context': the text is missing")


def test_an_empty_question_and_an_empty_context_are_texts():
    """C62 for questions: one side of the pair is empty."""
    rows = read([{"question": "", "context": CONTEXT, "answers": []}, {"question": "Why?", "context": "", "answers": []}], options=WHOLE)
    assert texts(rows) == ["", "Why?"] and targets(rows) == [(), ()]
    refused([{"question": "Why?", "context": "", "answers": [{"text": "a", "answer_start": 0}]}], "is not in the context")


def test_the_questions_of_a_context_stay_together():
    rows = [{"question": f"Q{n}?", "context": f"No {n % 12:02} is x", "answers": {"text": ["x"], "answer_start": [9]}} for n in range(60)]
    found = read(rows)
    assert len(found.valid) > 0 and set(texts(found, "text_pair")).isdisjoint(texts(found, "text_pair", "valid"))
    assert "all questions on one context together" in found.notes[-1].why
    same = read([{**row, "context": "No 00 is x"} for row in rows])
    assert set(same.splits) == {"train"} and "too few different contexts" in same.notes[-1].why


def test_real_questions(shared_data):
    rows = read({"train": shared_data / "squad" / "train-v1.1.json.gz", "valid": shared_data / "squad" / "dev-v1.1.json.gz"})
    assert (len(rows.train), len(rows.valid)) == (87599, 10570)
    assert {len(answers) for answers in targets(rows)} == {1}
    several = targets(rows, "valid")
    assert max(map(len, several)) > 1 and all(len(set(answers)) == len(answers) > 0 for answers in several)
    example = rows.valid[0]
    assert [span.text for span in example.target] == ["Denver Broncos"] and example.fields["text"].startswith("Which NFL team")
    for span in example.target:
        assert example.fields["text_pair"][span.start : span.end] == span.text
    assert rows.valid.place(0) == "dev-v1.1.json.gz, question '56be4db0acb8001400a502ec' (row 0)"


# --- texts to be written ---


def test_a_target_text_is_kept_as_it_is():
    rows = [{"text": "a", "target": " Two  words\n"}, {"text": "b", "target": "1.0"}, {"text": "c", "target": "NA"}]
    options = ReadOptions(valid_fraction=0, label_kind="text")
    assert targets(read(rows, options=options)) == [" Two  words\n", "1.0", "NA"]
    assert read(rows, options=options).roles.target == "text" and label_counts(read(rows, options=options).train) == {}
    assert targets(read(rows, options=WHOLE)) == ["Two  words", "1.0", "NA"]  # classes lose their spaces


@pytest.mark.parametrize("name", ["summary", "highlights", "translation", "target_text", "completion", "response"])
def test_a_name_that_means_a_text_is_said(name):
    rows = read([{"document": f"Text {number}.", name: f" Short {number} "} for number in range(4)], options=WHOLE)
    assert rows.roles.target == "text" and targets(rows)[0] == " Short 0 "
    assert any(f"the name of column {name!r} says so" in note.why for note in rows.notes)
    classes = read([{"text": f"t{number}", name: "yes" if number % 2 else "no"} for number in range(20)], options=WHOLE)
    assert classes.roles.target == "class"  # names that come again and again


@pytest.mark.parametrize("nothing", ["", None, float("nan"), pd.NA])
def test_b45_an_empty_target_text_is_a_missing_one(tmp_path, nothing):
    rows = [{"text": "a", "summary": "A."}, {"text": "b", "summary": nothing}]
    options = ReadOptions(valid_fraction=0, label_kind="text")
    refused(rows, "the list, row 1, column 'summary': the label is missing", options=options)
    refused(rows, "the list, row 1, column 'summary': the label is missing")
    dropped = read(rows, options=ReadOptions(valid_fraction=0, label_kind="text", on_missing="drop"))
    assert len(dropped.train) == 1 and "1 row left out" in str(dropped.notes[-1])
    path = file(tmp_path / "a.tsv", "text\tsummary\na\tA.\nb\t\n")
    refused(path, "a.tsv, line 3 (row 1), column 'summary': the label is missing", options=options)


def test_b45_a_target_that_is_no_text_is_named():
    refused(
        [{"text": "a", "summary": "A."}, {"text": "b", "summary": 7}],
        "row 1, column 'summary': expected a text, came int (7)",
        options=ReadOptions(label_kind="text"),
    )


def test_real_translations(shared_data):
    options = ReadOptions(columns=("en", "es", "by"), label_kind="text")
    rows = read(shared_data / "tatoeba_en_es" / "spa_sample.tsv.gz", text="en", label="es", options=options)
    assert len(rows.train) + len(rows.valid) == 20124 and rows.roles.target == "text"
    assert (texts(rows)[0], targets(rows)[0]) in {("Go.", "Ve."), ("Run!", "¡Huye!"), ("Duck!", "¡Inclínate!")}
    assert set(texts(rows)).isdisjoint(texts(rows, name="valid"))  # a sentence with two translations is on one side
    assert "equal texts together" in rows.notes[-1].why and "in proportion" not in rows.notes[-1].why


def test_real_summaries(shared_data):
    rows = read(shared_data / "xsum_test" / "test.jsonl.gz")
    assert (rows.roles.text, rows.roles.label, rows.roles.target) == ("document", "summary", "text")
    assert all(isinstance(target, str) and target for target in targets(rows))


# --- what is said before training ---


def test_findings_about_spans():
    plain = {"tokens": ["a", "b"], "tags": ["O", "O"]}
    rows = [{"tokens": [f"w{number}", "b"], "tags": ["B-X", "O"]} for number in range(30)] + [{"tokens": ["z"], "tags": ["B-Y"]}]
    (few,) = said(read(rows, options=WHOLE), "fewer than 10 spans")
    assert few.what == "1 label has fewer than 10 spans: 'Y' (1)" and few.place == "column 'tags'"
    empty = [{"tokens": [f"v{number}"], "tags": ["O"]} for number in range(40)]
    (bare,) = said(read([*rows, *empty], options=WHOLE), "have no span")
    assert bare.what == "56.3% of the rows of train have no span"
    (none,) = [finding for finding in check_rows(read([plain, *empty], options=WHOLE)) if finding.level == "error"]
    assert none.what == "no row has a span"
    assert not said(read([plain, {**plain, "tags": ["B-X", "O"]}], options=WHOLE), "two labels")  # not a class of the row


def test_findings_about_answers():
    rows = [{"question": f"Q{n}?", "context": "The x", "answers": [{"text": "x", "answer_start": 4}] if n >= 5 else []} for n in range(20)]
    (finding,) = check_rows(read(rows, options=WHOLE))
    assert finding.what == "25.0% of the questions of train have no answer" and finding.level == "warning"
    (error,) = check_rows(read(rows[:5], options=WHOLE))
    assert error.level == "error" and error.what.startswith("100.0%")


def test_findings_about_texts():
    rows = [{"text": f"Sentence {n}.", "target": f"Satz {n}."} for n in range(10)]
    options = ReadOptions(valid_fraction=0, label_kind="text")
    assert check_rows(read(rows, options=options)) == ()
    (copied,) = check_rows(read([*rows, {"text": "Berlin", "target": "Berlin"}], options=options))
    assert copied.what == "1 of 11 texts of train has itself as its target" and copied.place == "the list, row 10"
    (blank,) = check_rows(read([*rows, {"text": "Berlin", "target": " \n"}], options=options))
    assert blank.what == "1 of 11 texts of train has a target of white space"
    twice = read({"train": rows, "valid": [{"text": "Sentence 3.", "target": "Anders."}]}, options=options)
    assert len(said(twice, "also in train")) == 1 and not said(twice, "a label that train has not")


def test_labels_of_spans_that_only_one_split_has():
    train = [{"tokens": [f"w{number}"], "tags": ["B-X"]} for number in range(20)]
    found = check_rows(read({"train": train, "valid": [{"tokens": ["a"], "tags": ["B-Y"]}]}))
    assert [finding.what for finding in found if finding.level == "error"] == ["valid has a label that train has not: 'Y'"]
    assert any(finding.what.startswith("valid has no span of 'X'") for finding in found)


# --- options ---


def test_kinds_that_contradict_the_columns():
    rows = [{"text": "t", "a": 1, "b": 0}]
    for kind in ("tags", "spans", "answers", "text"):
        with pytest.raises(PellucidError, match=f"several label columns make sets of labels, but label_kind is '{kind}'"):
            read(rows, text="text", label=["a", "b"], options=ReadOptions(label_kind=kind))


def test_lists_of_labels_are_still_sets():
    rows = read([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}], options=WHOLE)
    assert rows.roles.target == "set" and targets(rows) == [("x", "y"), ()]
    assert read([{"text": "a", "label": "x"}], options=WHOLE).roles.target == "class"
    assert read([{"text": "a", "label": 1}], options=ReadOptions(label_kind="number")).roles.target == "number"
    assert read([{"text": "a"}], options=WHOLE).roles.target == ""


def test_mapped_rows_hold_the_same_spans(tmp_path):
    rows = [
        {**row, "tokens": [*row["tokens"], str(number)], "ner_tags": [*row["ner_tags"], "O"]} for number in range(300) for row in TAGGED
    ]
    small, mapped = read(rows), read(rows, options=ReadOptions(memory_bytes=1000, cache=tmp_path / "cache"))
    for name in ("train", "valid"):
        assert list(small[name]) == list(mapped[name])
    chosen = mapped.train.select([5, 0, 5])
    assert chosen.targets(0, 3) == [mapped.train[5].target, mapped.train[0].target, mapped.train[5].target]
    assert mapped.train[3:5].targets(0, 2) == mapped.train.targets(3, 5) and mapped.train.without_targets()[0].target is None


def test_a_file_is_known_by_its_name_or_by_its_first_line(tmp_path):
    for name in ("a.conll", "a.BIO", "a.iob2", "b.annotated", "train.txt"):
        text = "-DOCSTART- O\n\na O\nb B-X\n" if name == "train.txt" else "a\tO\nb\tB-X\n"
        assert [span.text for span in targets(read(file(tmp_path / name, text), options=WHOLE))[0]] == ["b"]
    for split in ("train", "dev"):
        file(tmp_path / f"{split}.conll", "a\tO\nb\tB-X\n")
    (tmp_path / "train.txt").unlink()
    assert set(read(tmp_path).splits) == {"train", "valid"}


def test_the_command_line_names_columns_and_kinds(tmp_path):
    from pellucid.apps.inputs import Labelled, Texts

    path = file(tmp_path / "a.tsv", "".join(f"Word {n}.\t Wort {n}. \n" for n in range(5)))
    rows = Labelled(columns="en, de", text="en", label="de", label_kind="text", valid_fraction=0.0).read(str(path))
    assert targets(rows)[0] == " Wort 0. " and rows.roles.target == "text"
    assert Texts(columns="en,de", text="de").read(str(path))[1].fields == {"text": " Wort 1. "}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.conll", "a.bio.gz", "a.conllu", "a.json", "a.jsonl"]),
    head=st.sampled_from(
        [
            b"",
            b"a\tO\n",
            b"a\tB-X\n\n",
            b"-DOCSTART- O\n\n",
            b"1\ta\ta\tX\tX\t_\t0\t_\t_\t_\n",
            b'{"data": [{"paragraphs": [{"context": "a b", "qas": [{"question": "?", "answers": [',
            b'{"tokens": ["a"], "tags": ["O"]}\n',
            b'{"text": "a b", "spans": [[0, 1, "x"]]}\n',
            b'{"question": "?", "context": "a b", "answers": {"text": ["b"], "answer_start": [2]}}\n',
        ]
    ),
    body=st.one_of(
        st.binary(max_size=40),
        st.text("ab\tOBI-# \n\r12.é🎉_", max_size=40).map(str.encode),
        st.sampled_from(
            [
                b'{"text": "b", "answer_start": 2}]}]}]}]}',
                b'{"text": "b", "answer_start": "2"}], "is_impossible": true}]}]}]}',
                b'{"tokens": [], "tags": []}',
                b'{"tokens": [["a"]], "tags": [{}]}',
                b'{"text": "\xc3\xa9", "spans": [{"start": 1e3, "end": null, "label": []}]}',
                b'{"text": "a", "spans": {"start": [0], "end": [[1]], "label": ["x"]}}',
                b'{"text": "a", "spans": [[], [0, 1], "x", 7]}',
                b'{"question": "?", "context": "a", "answers": {"text": "a", "answer_start": {}}}',
                b'{"question": "?", "context": "a", "answers": [[]]}',
            ]
        ),
    ),
)
def test_any_bytes_are_rows_or_an_error_with_a_place_and_a_cure(tmp_path, name, head, body):
    path = tmp_path / name
    path.write_bytes(head + body)
    try:
        rows = read(path)
    except PellucidError as found:
        error, rows = found, None
    if rows is None:
        assert error.place and error.cure
        return
    for part, split in rows.splits.items():
        for text, target in zip(texts(rows, rows.roles.spanned, part), targets(rows, part), strict=True):
            if rows.roles.target in ("spans", "answers"):
                assert all(text[span.start : span.end] == span.text != "" for span in target), split.source
