"""The readers alone: lines, cells and rows come out as they went in, and everything says where it is."""

import csv
import gzip
import io
import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.errors import DataError, SettingError
from pellucid.readers import chunks as chunks_module
from pellucid.readers import opening
from pellucid.readers.chunks import Reading, ReadOptions, in_chunks, place_of
from pellucid.readers.delimited import open_delimited
from pellucid.readers.folders import open_folder, split_files
from pellucid.readers.frames import open_frame
from pellucid.readers.jsonl import open_jsonl
from pellucid.readers.opening import checked_path, lines_of
from pellucid.readers.parquet import open_parquet

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
SAME_FILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(reading: Reading, *wanted: str) -> list[tuple]:
    found = []
    for chunk in reading.chunks(wanted or reading.columns):
        columns = [column.to_pylist() if hasattr(column, "to_pylist") else list(column) for column in chunk.columns.values()]
        assert {len(column) for column in columns} == {chunk.rows}
        found += zip(*columns, strict=True)
    return found


def write(path: Path, data: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode(encoding))
    return path


# --- lines ---


@SAME_FILE
@given(text=st.text(st.sampled_from("ab\r\n\u2028\x85é🎉"), max_size=60), block=st.integers(1, 9))
def test_lines_end_at_cr_lf_and_crlf_only(tmp_path, monkeypatch, text, block):
    monkeypatch.setattr(opening, "BLOCK", block)
    path = write(tmp_path / "a.txt", text)
    assert list(lines_of(path, ReadOptions())) == list(io.StringIO(text, newline=""))


@SAME_FILE
@given(before=st.text(st.sampled_from("aé\r\n"), max_size=30), block=st.integers(1, 9))
def test_a_wrong_byte_names_its_line(tmp_path, monkeypatch, before, block):
    monkeypatch.setattr(opening, "BLOCK", block)
    path = write(tmp_path / "a.txt", before.encode() + b"\xe9rest\nmore")
    expected = len(list(io.StringIO(before + "x", newline="")))
    with pytest.raises(DataError, match=rf"a.txt, line {expected}: byte 0xe9 is not utf-8\. Save"):
        list(lines_of(path, ReadOptions()))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-16-le", "shift_jis"])
def test_encodings(tmp_path, encoding):
    text = "text,label\nça va,ja\n" if encoding not in ("shift_jis",) else "text,label\n日本,ja\n"
    path = write(tmp_path / "a.csv", text, encoding)
    options = ReadOptions(encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    reading = open_delimited(path, options)
    assert reading.columns == ("text", "label") and rows_of(reading)[0][1] == "ja"


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert open_delimited(write(tmp_path / "a.csv", "text,label\na,b\n", "utf-8-sig"), ReadOptions()).columns == ("text", "label")
    assert open_jsonl(write(tmp_path / "a.jsonl", '{"text": "a"}\n', "utf-8-sig"), ReadOptions()).columns == ("text",)


def test_an_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LONGEST_LINE", 1000)
    monkeypatch.setattr(opening, "BLOCK", 100)
    path = write(tmp_path / "a.csv", "text,label\n" + "x" * 5000 + ",a\n")
    with pytest.raises(DataError, match="line 2: a line of more than 1,000 characters"):
        list(lines_of(path, ReadOptions()))


def test_gzip_is_known_by_its_content(tmp_path):
    packed = gzip.compress(b"text,label\na,b\n")
    for name in ("a.csv.gz", "a.csv"):
        assert rows_of(open_delimited(write(tmp_path / name, packed), ReadOptions())) == [("a", "b")]
    assert rows_of(open_delimited(write(tmp_path / "plain.csv.gz", "text,label\na,b\n"), ReadOptions())) == [("a", "b")]


@pytest.mark.parametrize("cut", [5, 12, 40, -1])
def test_a_damaged_gzip_file(tmp_path, cut):
    packed = gzip.compress("".join(f"text {row},{row}\n" for row in range(100)).encode())
    with pytest.raises(DataError, match="damaged or cut short"):
        list(lines_of(write(tmp_path / "a.csv.gz", packed[:cut]), ReadOptions()))
    broken = bytearray(packed)
    broken[len(broken) // 2] ^= 255
    with pytest.raises(DataError, match="damaged or cut short"):
        list(lines_of(write(tmp_path / "b.csv.gz", bytes(broken)), ReadOptions()))


def test_a_file_that_grows_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "BLOCK", 4)
    path = write(tmp_path / "a.csv", "text,label\na,b\n")
    blocks = opening.blocks_of(path, ReadOptions())
    next(blocks)
    with path.open("a") as file:
        file.write("c,d\n")
    with pytest.raises(DataError, match=r"a.csv: the file changed while it was read\. Read it again"):
        list(blocks)


# --- cells ---


@SAME_FILE
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_every_text_comes_back_from_csv(tmp_path, rows, delimiter, ends):
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=ends, quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "other", "label"), *rows])
    reading = open_delimited(path, ReadOptions(delimiter=delimiter, quotes=True))
    assert rows_of(reading) == rows
    lines = [line for chunk in reading.chunks(("text",)) for line in chunk.lines]
    cells = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""), delimiter=delimiter))
    assert len(cells) == len(lines) + 1 and lines[0] == 2 and lines == sorted(set(lines))


@SAME_FILE
@given(rows=st.lists(st.fixed_dictionaries({"text": TEXTS, "label": st.one_of(TEXTS, st.integers(), st.none())}), min_size=1, max_size=8))
def test_every_text_comes_back_from_jsonl(tmp_path, rows):
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert rows_of(open_jsonl(path, ReadOptions()), "text", "label") == [(row["text"], row["label"]) for row in rows]


def test_as_pandas_reads_it(shared_data):
    for name in ("imdb_sample/texts.csv.gz", "nli/rte_train.csv.gz", "nli/snli_dev.csv.gz"):
        frame = pd.read_csv(shared_data / name, keep_default_na=False, dtype=str)
        reading = open_delimited(shared_data / name, ReadOptions())
        assert reading.columns == tuple(frame.columns) and rows_of(reading) == list(frame.itertuples(index=False, name=None))


def test_files_without_a_header(shared_data):
    names = ("source", "label", "mark", "sentence")
    rows = rows_of(open_delimited(shared_data / "cola" / "in_domain_train.tsv.gz", ReadOptions(columns=names)))
    assert len(rows) == 8551 and rows[0] == ("gj04", "1", "", "Our friends won't buy this analysis, let alone the next one we propose.")
    rows = rows_of(open_delimited(shared_data / "stsb" / "stsb-en-dev.csv.gz", ReadOptions(columns=("a", "b", "score"))))
    assert len(rows) == 1500 and rows[0] == ("A man with a hard hat is dancing.", "A man wearing a hard hat is dancing.", "5.0")
    with pytest.raises(DataError, match="2 column names for 3 cells"):
        open_delimited(shared_data / "stsb" / "stsb-en-dev.csv.gz", ReadOptions(columns=("a", "b")))


def test_quotes_in_tab_files(shared_data, tmp_path):
    """GoEmotions quotes as CSV does, Tatoeba has quotes as characters; both have them first far below the top."""
    reading = open_delimited(shared_data / "goemotions" / "train.tsv.gz", ReadOptions(columns=("text", "label", "id")))
    rows = rows_of(reading)
    assert len(rows) == 43410 and not reading.notes
    assert ('Three words, no subtlety. "Dude. Stop. Seriously." ', "3", "eetq9g0") in rows
    reading = open_delimited(shared_data / "tatoeba_en_es" / "spa_sample.tsv.gz", ReadOptions(columns=("en", "es", "by")))
    assert len(rows_of(reading)) == 20124 and reading.notes[0].what == '`"` is a character like any other'
    plain = write(tmp_path / "a.tsv", 'text\tlabel\n"No" he said\t1\n"\t0\n')
    assert rows_of(open_delimited(plain, ReadOptions())) == [('"No" he said', "1"), ('"', "0")]
    quoted = write(tmp_path / "b.tsv", 'text\tlabel\n"a\tb ""c"""\t1\nd\t0\n')
    assert rows_of(open_delimited(quoted, ReadOptions())) == [('a\tb "c"', "1"), ("d", "0")]
    assert rows_of(open_delimited(write(tmp_path / "c.tsv", 'text\tlabel\n"a"\t1\n'), ReadOptions(quotes=False))) == [('"a"', "1")]


@pytest.mark.parametrize(
    ("name", "content", "columns", "said"),
    [
        ("a.csv", "text,label\na;b;c,1\n", ("text", "label"), ""),
        ("a.csv", "text;label\na, b, c;1\nd;0\n", ("text", "label"), "semicolon"),
        ("a.csv", "text\tlabel\na, b\t1\n", ("text", "label"), "TAB"),
        ("a.csv", "text|label\na, b|1\n", ("text", "label"), "bar"),
        ("a.tsv", "text\tlabel\na, b\t1\n", ("text", "label"), ""),
        ("A.TSV", "text\tlabel\na, b\t1\n", ("text", "label"), ""),
        ("a.txt", "text;label\na, b, c;1\n", ("text", "label"), "semicolon"),
        ("a.csv", "text\nonly one column\n", ("text",), ""),
        ("a.csv", 'text,label\n"a;b\n;c;;",1\n', ("text", "label"), ""),
        ("a.csv", " text , label \na,b\n", ("text", "label"), ""),
    ],
)
def test_the_delimiter_is_found_and_said(tmp_path, name, content, columns, said):
    reading = open_delimited(write(tmp_path / name, content), ReadOptions())
    assert reading.columns == columns
    assert [note.what for note in reading.notes] == ([f"delimiter {said}"] if said else [])


def test_long_cells_leave_the_limit_of_python_alone(tmp_path):
    before = csv.field_size_limit()
    path = write(tmp_path / "a.csv", "text;label\n" + "x" * 300_000 + ";a\n" + "y;b\n" * 3000)
    reading = open_delimited(path, ReadOptions())
    steps = reading.chunks(("text",))
    chunk = next(steps)
    assert len(chunk.columns["text"][0]) == 300_000 and csv.field_size_limit() == before
    steps.close()
    assert csv.field_size_limit() == before


def test_blank_lines_are_no_rows(tmp_path):
    reading = open_delimited(write(tmp_path / "a.csv", "\ntext,label\n\na,1\n\r\n\nb,2\n\n"), ReadOptions())
    assert rows_of(reading) == [("a", "1"), ("b", "2")]
    assert [chunk.lines for chunk in reading.chunks(("text",))] == [[4, 7]]


def test_a_text_a_line(tmp_path):
    path = write(tmp_path / "a.txt", 'one, two\n\n"three\nfour;\tfive\n')
    reading = open_delimited(path, ReadOptions(columns=("text",)))
    assert rows_of(reading) == [("one, two",), ('"three',), ("four;\tfive",)]
    assert "each line is a text" in str(reading.notes[0])
    assert [chunk.lines for chunk in reading.chunks(("text",))] == [[1, 3, 4]]


# --- chunks ---


@given(sizes=st.lists(st.integers(0, 50), max_size=60), rows=st.integers(1, 7), characters=st.integers(1, 60))
def test_chunks_are_bounded_by_rows_and_by_text(sizes, rows, characters):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks_module, "CHUNK_ROWS", rows)
        patch.setattr(chunks_module, "CHUNK_CHARACTERS", characters)
        parts = list(in_chunks(sizes, lambda size: size))
    assert [size for part in parts for size in part] == sizes
    assert all(0 < len(part) <= rows and sum(part[:-1]) < characters for part in parts)


def test_places():
    assert place_of("reviews.csv", 16, 18) == "reviews.csv, line 18 (row 16)"
    assert place_of("the DataFrame", 3) == "the DataFrame, row 3"
    assert place_of("reviews", 3, None, "pos/3.txt") == "pos/3.txt (row 3)"


def test_two_columns_of_one_name():
    with pytest.raises(DataError, match="the frame: two columns are called 'a'"):
        Reading("the frame", ("a", "b", "a"), lambda wanted: iter(()))
    assert Reading("the frame", ("", "a", ""), lambda wanted: iter(())).columns == ("", "a", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"valid_fraction": 1.0},
        {"valid_fraction": -0.1},
        {"delimiter": ";;"},
        {"delimiter": ""},
        {"on_missing": "ignore"},
        {"label_kind": "classes"},
        {"label_separator": ""},
        {"max_bytes": 0},
        {"max_rows": 0},
        {"encoding": "utf-9"},
        {"encoding": "utf\0"},
        {"columns": "text"},
        {"seed": -1},
        {"label_names": ("a", "a")},
    ],
)
def test_options_that_are_not_possible(wrong):
    with pytest.raises(SettingError) as caught:
        ReadOptions(**wrong)
    assert caught.value.cure


# --- frames ---


def sources() -> dict[str, object]:
    texts, labels = ["a", "b", "NA"], [1, 0, 1]
    frame = pd.DataFrame({"text": texts, "label": labels}, index=[7, 7, 3])
    return {
        "pandas": frame,
        "pandas string": frame.astype({"text": "string"}),
        "pandas object": frame.astype({"text": object}),
        "pandas category": frame.astype({"text": "category"}),
        "pandas arrow": frame.astype({"text": pd.ArrowDtype(pa.string())}),
        "pandas multi-index": frame.set_index(pd.MultiIndex.from_arrays([[1, 1, 2], [3, 3, 4]])),
        "polars": pl.DataFrame({"text": texts, "label": labels}),
        "polars lazy": pl.LazyFrame({"text": texts, "label": labels}),
        "arrow": pa.table({"text": texts, "label": labels}),
        "arrow batch": pa.RecordBatch.from_pydict({"text": texts, "label": labels}),
        "arrow dictionary": pa.table({"text": pa.array(texts).dictionary_encode(), "label": labels}),
        "list": [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)],
        "generator": ({"text": text, "label": label} for text, label in zip(texts, labels, strict=True)),
        "columns": {"text": texts, "label": np.array(labels)},
        "Dataset": datasets.Dataset.from_dict({"text": texts, "label": labels}),
        "Dataset selected": datasets.Dataset.from_dict({"text": ["x", *texts], "label": [0, *labels]}).select([1, 2, 3]),
        "IterableDataset": datasets.Dataset.from_dict({"text": texts, "label": labels}).to_iterable_dataset(),
    }


@pytest.mark.parametrize("kind", list(sources()))
def test_every_frame_gives_the_same_rows(kind):
    reading = open_frame(sources()[kind])
    assert reading is not None and reading.columns == ("text", "label")
    assert rows_of(reading) == [("a", 1), ("b", 0), ("NA", 1)]


def test_frames_come_in_chunks(monkeypatch):
    from pellucid.readers import frames

    monkeypatch.setattr(chunks_module, "CHUNK_ROWS", 2)
    monkeypatch.setattr(frames, "CHUNK_ROWS", 2)
    for kind, source in sources().items():
        chunks = list(open_frame(source).chunks(("text",)))
        assert [(chunk.first_row, chunk.rows) for chunk in chunks] == [(0, 2), (2, 1)], kind


def test_class_numbers_of_datasets_get_their_names():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    dataset = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    for source in (dataset, dataset.to_iterable_dataset()):
        assert rows_of(open_frame(source), "label") == [("pos",), ("neg",), (None,)]
    many = datasets.Features({"text": datasets.Value("string"), "label": datasets.Sequence(datasets.ClassLabel(names=["x", "y"]))})
    dataset = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [[0, 1], []]}, features=many)
    assert rows_of(open_frame(dataset), "label") == [(["x", "y"],), ([],)]


def test_what_is_no_frame():
    assert open_frame(7) is None and open_frame("a text") is None and open_frame({"train": [{"text": "a"}]}) is None
    with pytest.raises(DataError, match="the list, row 1: expected a dict, came str"):
        rows_of(open_frame([{"text": "a"}, "b"]))
    with pytest.raises(DataError, match="the columns differ in length: 'text' has 2, 'label' has 1"):
        open_frame({"text": ["a", "b"], "label": [1]})


# --- JSON, Parquet, folders ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', "a.jsonl, line 2: this is no JSON"),
        ('{"text": "a"}\n\n[1]\n', "a.jsonl, line 3: expected an object, came list"),
        ('{"text": "a"}\n"b"\n', "a.jsonl, line 2: expected an object, came str"),
        ('[\n{"text": "a"}\n]', "the file is one JSON array: pass its rows"),
        ('{"text": ' + "[" * 100_000 + "\n", "a.jsonl, line 1: this is no JSON: it is nested too deep"),
        ("\n\n", "a.jsonl: no objects came"),
        ('{"text": ' + "9" * 5000 + "}\n", "a.jsonl, line 1: this is no JSON: Exceeds the limit"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=f"(?i){message}".replace("[", "\\[")):
        rows_of(open_jsonl(write(tmp_path / "a.jsonl", content), ReadOptions()))


def test_jsonl_keys_may_come_late_and_nan_is_missing(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": NaN}\n\n{"label": Infinity, "other": 1}\n')
    reading = open_jsonl(path, ReadOptions())
    assert reading.columns == ("text", "label", "other")
    assert rows_of(reading) == [("a", None, None), (None, None, 1)]
    assert [chunk.lines for chunk in reading.chunks(("text",))] == [[1, 3]]


def test_parquet(tmp_path):
    table = pa.table(
        {"text": [f"text {row}" for row in range(25_000)], "label": [row % 2 for row in range(25_000)], "more": [None] * 25_000}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7000)
    reading = open_parquet(tmp_path / "a.parquet", ReadOptions())
    chunks = list(reading.chunks(("label", "text")))
    assert [chunk.first_row for chunk in chunks] == [0, 10_000, 20_000] and list(chunks[0].columns) == ["label", "text"]
    assert [text for text, _ in rows_of(reading, "text", "label")] == table.column("text").to_pylist()
    with pytest.raises(DataError, match="bytes unpacked, at most 1,000"):
        open_parquet(tmp_path / "a.parquet", ReadOptions(max_bytes=1000))


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, text)
    return folder


def test_folders_of_classes(tmp_path):
    folder = tree(
        tmp_path / "films", {"pos/2.txt": "good\nfilm", "pos/10.txt": "", "neg/1.txt": "bad", ".git/x.txt": "no", "neg/read.me": "no"}
    )
    reading = open_folder(folder, ReadOptions())
    assert reading.columns == ("text", "label")
    assert rows_of(reading) == [("bad", "neg"), ("", "pos"), ("good\nfilm", "pos")]
    assert [chunk.files for chunk in reading.chunks(("text",))] == [["neg/1.txt", "pos/10.txt", "pos/2.txt"]]


def test_folders_of_splits_of_classes(tmp_path):
    folder = tree(tmp_path / "films", {"train/pos/1.txt": "a", "train/neg/1.txt": "b", "Test/pos/1.txt": "c"})
    assert rows_of(open_folder(folder, ReadOptions())) == [("c", "pos", "test"), ("b", "neg", "train"), ("a", "pos", "train")]


def test_a_folder_with_a_file_for_each_split(tmp_path, shared_data):
    assert {name: path.name for name, path in split_files(shared_data / "emotion").items()} == {
        "train": "train.txt.gz",
        "val": "val.txt.gz",
        "test": "test.txt.gz",
    }
    folder = tree(tmp_path, {"train.csv": "x", "notes.csv": "x", "valid.md": "x", "test/x.csv": "x"})
    assert list(split_files(folder)) == ["train"]
    with pytest.raises(DataError, match=r"train\.csv and train\.jsonl are the same split"):
        split_files(tree(tmp_path, {"train.jsonl": "x"}))


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(DataError, match=r"no folders with \.txt files"):
        open_folder(tmp_path, ReadOptions())
    folder = tree(tmp_path / "films", {"pos/1.txt": "a"})
    (folder / "pos" / "2.txt").write_bytes(b"ab\n\xff")
    with pytest.raises(DataError, match=r"pos/2\.txt, line 2: byte 0xff is not utf-8"):
        rows_of(open_folder(folder, ReadOptions()))


def test_paths_that_are_no_files(tmp_path):
    import os

    with pytest.raises(DataError, match="No such file or directory"):
        checked_path(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="it cannot be read"):
        checked_path(Path("a\0b"))
    with pytest.raises(DataError, match="it cannot be read"):
        checked_path(Path("a text that somebody took for a path " * 200))
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(DataError, match="it is a pipe or a device"):
            checked_path(path)


def test_no_more_than_max_rows_are_looked_at(tmp_path):
    three = ReadOptions(max_rows=3)
    assert len(rows_of(open_delimited(write(tmp_path / "a.csv", "text,label\n" + "a,b\n" * 3 + "ragged\n"), three))) == 3
    assert len(rows_of(open_jsonl(write(tmp_path / "a.jsonl", '{"text": "a"}\n' * 100 + "bad\n"), three))) == 3
    folder = tree(tmp_path / "films", {f"pos/{number}.txt": "a" for number in range(4)})
    (folder / "pos" / "3.txt").write_bytes(b"\xff")
    assert len(rows_of(open_folder(folder, three))) == 3
