"""The readers of words with tags and of questions with answers: what is a row, what is passed over, and which line is wrong."""

import gzip
import json
from pathlib import Path

import pytest

from pellucid.errors import DataError
from pellucid.readers.chunks import Reading, ReadOptions
from pellucid.readers.conll import UNIVERSAL, open_conll, open_universal
from pellucid.readers.squad import is_squad, open_squad

PLAIN = ReadOptions()


def rows_of(reading: Reading, *wanted: str) -> list[tuple]:
    found = []
    for chunk in reading.chunks(wanted or reading.columns):
        assert {len(column) for column in chunk.columns.values()} == {chunk.rows}
        found += zip(*chunk.columns.values(), strict=True)
    return found


def lines_in(reading: Reading) -> list[int]:
    return [line for chunk in reading.chunks(reading.columns) for line in chunk.lines]


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# --- CoNLL ---


@pytest.mark.parametrize("between", ["\n", "\t\n", " \n", "\n\n\n", "\r\n"])
@pytest.mark.parametrize("mark", ["\t", " ", "   ", " \t"])
def test_words_and_tags(tmp_path, between, mark):
    path = write(tmp_path / "a.conll", f"EU{mark}B-ORG\nrejects{mark}O\n{between}Peter{mark}B-PER\n")
    reading = open_conll(path, PLAIN)
    assert reading.columns == ("words", "tags")
    assert rows_of(reading) == [(["EU", "rejects"], ["B-ORG", "O"]), (["Peter"], ["B-PER"])]
    assert lines_in(reading)[0] == 1


def test_four_columns_and_documents(tmp_path):
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n-DOCSTART- -X- O O\n\nPeter NNP B-NP B-PER\n"
    path = write(tmp_path / "eng.conll.gz", text)
    reading = open_conll(path, PLAIN)
    assert reading.columns == ("words", "column_2", "column_3", "tags") and lines_in(reading) == [3, 8]
    assert rows_of(reading, "words", "tags") == [(["EU", "rejects"], ["B-ORG", "O"]), (["Peter"], ["B-PER"])]
    named = open_conll(path, ReadOptions(columns=("words", "pos", "chunks", "tags")))
    assert rows_of(named, "pos") == [(["NNP", "VBZ"],), (["NNP"],)]
    with pytest.raises(DataError, match=r"eng\.conll\.gz, line 3: 2 column names for 4 cells\. Name every column"):
        open_conll(path, ReadOptions(columns=("words", "tags")))


def test_words_with_spaces_and_words_of_marks(tmp_path):
    reading = open_conll(write(tmp_path / "a.bio", "New York\tB-LOC\n#\tO\n#hashtag\tO\n-DOCK-\tO\n\u2028\tO\n\u00a0\tO\n"), PLAIN)
    assert rows_of(reading, "words") == [(["New York", "#", "#hashtag", "-DOCK-", "\u2028", "\u00a0"],)]
    assert rows_of(open_conll(write(tmp_path / "b.bio", "# O\na O\n"), PLAIN), "words") == [(["#", "a"],)]


def test_comments_before_a_sentence_are_passed_over(tmp_path):
    reading = open_conll(write(tmp_path / "a.iob2", "# id = 1\n# more words here\na\tO\n\n# id = 2\nb\tO\n"), PLAIN)
    assert rows_of(reading, "words") == [(["a"],), (["b"],)] and lines_in(reading) == [3, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tO\nb\n", "a.conll, line 2: expected 2 cells, came 1: 'b'. Write one word a line"),
        ("a\tO\n\nb\tO\tO\n", "a.conll, line 3: expected 2 cells, came 3"),
        ("a\tO\nb O\n", "a.conll, line 2: expected 2 cells, came 1: 'b O'"),
        ("a\tO\nb\t\n", "a.conll, line 2: the tag is empty: 'b'"),
        ("a\tO\n\tO\n", "a.conll, line 2: the word is empty"),
        ("a\tO\n# in the middle\n", "a.conll, line 2: expected 2 cells, came 1"),
        ("word\nother\n", "a.conll, line 1: expected a word and its tag, came 'word'"),
        ("", "a.conll: there are no words"),
        ("\n\n \n", "a.conll: there are no words"),
        ("a\tO\nb\0\tO\n", "a.conll, line 2: a NUL byte"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = write(tmp_path / "a.conll", text)
    with pytest.raises(DataError) as caught:
        rows_of(open_conll(path, PLAIN))
    assert message in str(caught.value) and caught.value.place and caught.value.cure


def test_another_delimiter(tmp_path):
    path = write(tmp_path / "a.conll", "a b|O\nc|O\n")
    assert rows_of(open_conll(path, ReadOptions(delimiter="|")), "words") == [(["a b", "c"],)]


@pytest.mark.parametrize(
    ("name", "sentences", "words", "entities"),
    [
        ("wnut17train.conll.gz", 3394, 62730, 1975),
        ("emerging.dev.conll.gz", 1009, 15733, 836),
        ("emerging.test.annotated.gz", 1287, 23394, 1079),
    ],
)
def test_real_words_and_tags(shared_data, name, sentences, words, entities):
    rows = rows_of(open_conll(shared_data / "wnut17" / name, PLAIN))
    assert len(rows) == sentences and sum(len(row[0]) for row in rows) == words
    assert all(len(row[0]) == len(row[1]) for row in rows)
    assert sum(tag.startswith("B-") for row in rows for tag in row[1]) == entities


def test_no_more_than_max_rows(tmp_path):
    path = write(tmp_path / "a.conll", "a\tO\n\n" * 5 + "bad\n")
    assert len(rows_of(open_conll(path, ReadOptions(max_rows=3)))) == 3


# --- CoNLL-U ---


def universal(*words: str) -> str:
    return "".join(f"{number}\t{word}\t{word.lower()}\tNOUN\tNN\t_\t0\troot\t_\t_\n" for number, word in enumerate(words, 1))


def test_conllu(tmp_path):
    text = "# sent_id = 1\n# text = Don't\n" + universal("Do", "n't").replace("1\t", "1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_\n1\t", 1)
    text += "2.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t0:root\tCopyOf=1\n\n# sent_id = 2\n" + universal("10 000")
    reading = open_universal(write(tmp_path / "a.conllu", text), PLAIN)
    assert reading.columns == UNIVERSAL and lines_in(reading) == [4, 9]
    assert rows_of(reading, "words", "upos", "xpos", "lemma") == [
        (["Do", "n't"], ["NOUN"] * 2, ["NN"] * 2, ["do", "n't"]),
        (["10 000"], ["NOUN"], ["NN"], ["10 000"]),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (universal("a") + "2\tb\tb\tNOUN\n", "a.conllu, line 2: expected 10 cells, came 4"),
        (universal("a", "b").replace("2\tb", "3\tb"), "a.conllu, line 2: expected word 2 of the sentence, came '3'"),
        (universal("a") + universal("b"), "a.conllu, line 2: expected word 2 of the sentence, came '1'"),
        ("x" + universal("a"), "a.conllu, line 1: expected word 1 of the sentence, came 'x1'"),
        (universal("a", "").replace("2\t\t", "2\t\t"), "a.conllu, line 2: word 2 is empty"),
    ],
)
def test_a_bad_line_of_conllu_is_named(tmp_path, text, message):
    with pytest.raises(DataError) as caught:
        rows_of(open_universal(write(tmp_path / "a.conllu", text), PLAIN))
    assert message in str(caught.value) and "CoNLL-U has ten cells" in caught.value.cure


def test_real_conllu(shared_data):
    rows = rows_of(open_universal(shared_data / "ud_english_ewt" / "dev.conllu.gz", PLAIN), "words", "upos")
    assert len(rows) == 2001 and sum(len(row[0]) for row in rows) == 25510 - 359 - 4
    assert rows[0] == (["From", "the", "AP", "comes", "this", "story", ":"], ["ADP", "DET", "PROPN", "VERB", "DET", "NOUN", "PUNCT"])
    assert {tag for _, tags in rows for tag in tags} <= set(
        "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
    )


# --- SQuAD ---


def squad(*paragraphs: dict, **more: object) -> str:
    return json.dumps({**more, "data": [{"title": "t", "paragraphs": list(paragraphs)}]})


ONE = {"context": "Bob is in Rome.", "qas": [{"question": "Who?", "id": "q1", "answers": [{"text": "Bob", "answer_start": 0}]}]}


def test_squad(tmp_path):
    never = {"question": "Why?", "id": 2, "answers": [], "is_impossible": True, "plausible_answers": [{"text": "Rome", "answer_start": 10}]}
    blind = {"question": "When?"}
    path = write(tmp_path / "a.json.gz", squad(ONE, {"context": "Rome.", "qas": [never, blind]}, version="v2.0"))
    assert is_squad(path)
    reading = open_squad(path, PLAIN)
    assert reading.columns == ("question", "context", "answers", "id")
    assert rows_of(reading) == [
        ("Who?", "Bob is in Rome.", [{"text": "Bob", "answer_start": 0}], "q1"),
        ("Why?", "Rome.", [], "2"),
        ("When?", "Rome.", None, None),
    ]
    (chunk,) = reading.chunks(("question",))
    assert chunk.place(0, "a.json.gz", "answers") == "a.json.gz, question 'q1' (row 0), column 'answers'"
    assert chunk.place(2, "a.json.gz", "answers") == "a.json.gz (row 2), column 'answers'"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (squad(ONE), True),
        ("\ufeff" + squad(ONE), True),
        (json.dumps(json.loads(squad(ONE, version="1.1")), indent=4), True),
        (squad(ONE, version=1.1), True),
        ('{"text": "a", "label": "b"}\n{"text": "\\"data\\": [ \\"paragraphs\\"", "label": "b"}\n', False),
        ('{"data": [1, 2]}\n', False),
        ('[{"text": "a"}]', False),
        ("", False),
    ],
)
def test_squad_is_known_by_its_beginning(tmp_path, text, known):
    assert is_squad(write(tmp_path / "a.json", text)) is known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (squad(ONE)[:-10], "a.json: this is no JSON"),
        (json.dumps({"data": [{"title": "t"}]}), "a.json, data[0]: 'paragraphs' is missing"),
        (json.dumps({"data": [[]]}), "a.json, data[0]: expected an object with 'paragraphs', came list"),
        (squad(ONE, {"context": "x"}), "a.json, data[0].paragraphs[1]: 'qas' is missing"),
        (squad({"context": "x", "qas": {}}), "a.json, data[0].paragraphs[0]: 'qas' is no list but dict"),
        (squad({"context": None, "qas": []}), "a.json, data[0].paragraphs[0]: expected a context, came NoneType"),
        (squad({"context": "x", "qas": ["?"]}), "a.json, data[0].paragraphs[0].qas[0]: expected a question, came str"),
        (squad({"context": "x", "qas": [{**ONE["qas"][0], "is_impossible": True}]}), "is_impossible is true, and there is an answer"),
        ('{"data": ' + "[" * 100_000, "a.json: this is no JSON: it is nested too deep"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(tmp_path, text, message):
    with pytest.raises(DataError) as caught:
        rows_of(open_squad(write(tmp_path / "a.json", text), PLAIN))
    assert message in str(caught.value) and caught.value.place and caught.value.cure


def test_wrong_bytes_in_squad_name_their_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"data": [\n{"paragraphs": "\xff"}]}')
    with pytest.raises(DataError, match=r"a\.json, line 2: byte 0xff is not utf-8"):
        rows_of(open_squad(path, PLAIN))


def test_real_questions(shared_data):
    rows = rows_of(open_squad(shared_data / "squad" / "dev-v1.1.json.gz", PLAIN))
    assert len(rows) == 10570 and rows[0][0] == "Which NFL team represented the AFC at Super Bowl 50?"
    assert all(context[a["answer_start"] :].startswith(a["text"]) for _, context, answers, _ in rows for a in answers)
