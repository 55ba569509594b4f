"""Bad files, frames and labels: what is put in, and what is said. The numbers are those of `faults.toml`, groups A and B."""

import csv
import gc
import gzip
import io
import json
import tarfile
import zipfile
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

from pellucid.checks import check_rows
from pellucid.data import ReadOptions, Rows, read
from pellucid.errors import DataError, LabelError, PellucidError
from pellucid.labels import LabelSet
from pellucid.readers import opening
from pellucid.readers.delimited import open_delimited
from pellucid.types import Example

WHOLE = ReadOptions(valid_fraction=0)
DROP = ReadOptions(valid_fraction=0, on_missing="drop")
ROWS = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(20)]


def refused(source: Any, *words: str, **how: Any) -> PellucidError:
    """Reading fails with these words, a place and a cure."""
    with pytest.raises(PellucidError) as caught:
        read(source, **how)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert caught.value.place and caught.value.cure
    assert isinstance(caught.value, DataError | LabelError)
    return caught.value


def file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def targets(rows: Rows, name: str = "train") -> list:
    return rows[name].targets(0, len(rows[name]))


def texts(rows: Rows, name: str = "train") -> list[str]:
    return list(rows[name].columns(0, len(rows[name]))["text"])


# --- A: frames and files ---


@pytest.mark.parametrize(
    "empty",
    [
        pd.DataFrame(),
        pd.DataFrame({"text": [], "label": []}),
        polars.DataFrame({"text": [], "label": []}),
        pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}),
        [],
        iter(()),
        {"text": [], "label": []},
        datasets.Dataset.from_dict({"text": [], "label": []}),
        {"train": ROWS, "valid": pd.DataFrame({"text": [], "label": []})},
    ],
)
def test_a01_an_empty_frame(empty):
    error = refused(empty, "there are no ")
    assert "rows" in error.problem or "columns" in error.problem


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "text,label\n"), ("a.tsv", "text\tlabel"), ("a.csv.gz", gzip.compress(b"text,label\r\n"))]
)
def test_a02_a_header_and_nothing_below_it(tmp_path, name, content):
    refused(file(tmp_path / name, content), f"{name}: there are no rows, only a header")


def test_a02_a_file_of_nothing(tmp_path):
    refused(file(tmp_path / "a.csv", ""), "a.csv: the file is empty")
    refused(file(tmp_path / "b.csv", "\n\n \n"), "b.csv: the file is empty")
    refused(file(tmp_path / "c.jsonl", ""), "c.jsonl: no objects came")


def test_a03_one_row_is_all_for_training():
    rows = read([{"text": "a", "label": "x"}])
    assert len(rows.train) == 1 and set(rows.splits) == {"train"}
    assert rows.notes[-1].what == "no rows are kept aside for validation"
    with pytest.raises(DataError, match="there is no split 'valid', only train"):
        _ = rows.valid


def test_a04_a_column_that_is_not_there_names_the_nearest(tmp_path):
    refused(pd.DataFrame(ROWS), "the DataFrame: no column 'txt'", "Did you mean 'text'?", text="txt")
    refused(file(tmp_path / "a.csv", "review;stars\na;b\n"), "no column 'label'", "The columns are review, stars", label="label")
    error = refused(file(tmp_path / "b.csv", "It was good,1\nIt was bad,0\n"), "no column has a name that means a text")
    assert "If the first line is data and no header, name the columns: ReadOptions(columns=(…))" in error.cure


def test_a05_two_columns_of_one_name(tmp_path):
    frame = pd.DataFrame([["a", "b", "c"]], columns=["text", "label", "text"])
    refused(frame, "the DataFrame: two columns are called 'text'")
    refused(file(tmp_path / "a.csv", "text,label,text\na,b,c\n"), "a.csv: two columns are called 'text'")
    refused(pa.table([["a"], ["b"]], names=["text", "text"]), "two columns are called 'text'")


@pytest.mark.parametrize("nothing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_a06_a_text_that_is_missing_names_its_row(nothing):
    frame = pd.DataFrame({"text": pd.Series(["a", nothing, "c", nothing], dtype=object), "label": ["x", "y", "x", "y"]})
    refused(frame, "the DataFrame, row 1, column 'text': the text is missing", 'on_missing="drop"')
    rows = read(frame, options=DROP)
    assert texts(rows) == ["a", "c"] and rows.train.row_numbers.tolist() == [0, 2]
    assert str(rows.notes[-1]).startswith(
        "2 rows left out: a cell is missing; the first is the DataFrame, row 1, column 'text': the text is missing"
    )


@pytest.mark.parametrize("wrong", [7, 7.5, b"bytes", ["a"], {"a": 1}, True, np.int64(3)])
def test_a07_a_text_that_is_no_text_names_its_row(wrong):
    refused(
        [{"text": "a", "label": "x"}, {"text": wrong, "label": "y"}],
        f"the list, row 1, column 'text': expected a text, came {type(wrong).__name__}",
    )
    refused(pd.DataFrame({"text": [1, 2], "label": ["x", "y"]}), "row 0, column 'text': expected a text, came int (1)")
    refused(pa.table({"text": pa.array([b"x"]), "label": ["x"]}), "expected a text, came bytes")


@pytest.mark.parametrize(
    "kind", ["str", object, "string", "string[pyarrow]", "string[python]", "category", pd.ArrowDtype(pa.large_string())]
)
def test_a08_every_kind_of_text_column(kind):
    frame = pd.DataFrame({"text": pd.Series(["a", "NA", ""], dtype=kind), "label": pd.Series(["x", "y", "x"], dtype=kind)})
    rows = read(frame, options=WHOLE)
    assert texts(rows) == ["a", "NA", ""] and targets(rows) == ["x", "y", "x"]
    frame = pd.DataFrame({"text": pd.Series(["a", None], dtype=kind), "label": ["x", "y"]})
    refused(frame, "row 1, column 'text': the text is missing")


@pytest.mark.parametrize(
    "index", [[5, 5, 5], [3, 1, 2], ["b", "a", "a"], pd.MultiIndex.from_tuples([(1, "a"), (1, "a"), (0, "b")]), pd.to_datetime([1, 1, 0])]
)
def test_a09_the_index_of_a_frame_plays_no_part(index):
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["x", "y", "x"]}, index=index)
    rows = read(frame, options=WHOLE)
    assert texts(rows) == ["a", "b", "c"] and rows.train.row_numbers.tolist() == [0, 1, 2]
    assert rows.train.place(2) == "the DataFrame, row 2"


def test_a10_na_null_and_none_are_texts(tmp_path):
    words = ["NA", "null", "None", "nan", "N/A", "", "True", "1.0", "00123", "1e5", " spaces "]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *((word, "x") for word in words)])
    assert texts(read(path, options=WHOLE)) == words
    assert targets(read(file(tmp_path / "b.csv", "text,label\na,NA\nb,null\nc,None\n"), options=WHOLE)) == ["NA", "null", "None"]


def test_a11_quotes_that_never_close_name_their_line(tmp_path):
    head = 'text,label\nfine,a\n"two\nlines",b\n'
    refused(file(tmp_path / "a.csv", head + '"never closed,a\n' + "x,b\n" * 50), "a.csv, line 5: a quoted cell never ends")
    refused(file(tmp_path / "b.csv", head + '"closed" too early,a\n'), "b.csv, line 5: quotes in the wrong place")
    refused(file(tmp_path / "c.csv", head + "one,two,three\n"), "c.csv, line 5: expected 2 cells, came 3")
    refused(file(tmp_path / "d.csv", head + "one\n"), "d.csv, line 5: expected 2 cells, came 1")
    assert texts(read(file(tmp_path / "e.csv", head + '"say ""hi""\r\n, or not",a\n'), options=WHOLE)) == [
        "fine",
        "two\nlines",
        'say "hi"\r\n, or not',
    ]


def test_a11_a_nul_byte_and_an_endless_line_name_their_line(tmp_path, monkeypatch):
    refused(file(tmp_path / "a.csv", "text,label\nfine,a\nb\0ad,b\n"), "a.csv, line 3: a NUL byte, which no text file has")
    refused(file(tmp_path / "b.csv", "text,label\r" * 1 + "fine,a\rb\0ad,b\r"), "b.csv, line 3: a NUL byte")
    monkeypatch.setattr(opening, "LONGEST_LINE", 1 << 20)
    refused(file(tmp_path / "c.csv", "text,label\nfine,a\n" + "x" * (1 << 22)), "c.csv, line 3: a line of more than 1,048,576 characters")


def test_a12_another_encoding_is_named_with_the_line(tmp_path):
    text = "text,label\nfine,a\ncafé,b\n"
    error = refused(file(tmp_path / "a.csv", text.encode("latin-1")), "a.csv, line 3: byte 0xe9 is not utf-8")
    assert 'ReadOptions(encoding="cp1252")' in error.cure
    assert texts(read(tmp_path / "a.csv", options=ReadOptions(encoding="latin-1", valid_fraction=0))) == ["fine", "café"]
    refused(file(tmp_path / "b.csv", text.encode("utf-16")), "b.csv: it is UTF-16", 'ReadOptions(encoding="utf-16")')
    refused(file(tmp_path / "c.csv", text.encode("utf-32")), "c.csv: it is UTF-32")
    refused(
        file(tmp_path / "d.csv", text.encode("utf-16-le")), "d.csv, line 3: byte 0xe9 is not utf-8", 'ReadOptions(encoding="utf-16-le")'
    )
    refused(file(tmp_path / "g.csv", "text,label\nplain,b\n".encode("utf-16-le")), "g.csv, line 1: a NUL byte", "in UTF-16")
    refused(file(tmp_path / "e.csv", text.encode() + "naïve,a\n".encode("cp1252")), "e.csv, line 4: byte 0xef is not utf-8")
    for name, encoding in (("b.csv", "utf-16"), ("c.csv", "utf-32"), ("d.csv", "utf-16-le")):
        assert texts(read(tmp_path / name, options=ReadOptions(encoding=encoding, valid_fraction=0))) == ["fine", "café"]
    assert texts(read(file(tmp_path / "f.csv", text.encode("utf-8-sig")), options=WHOLE)) == ["fine", "café"]


@pytest.mark.parametrize(("delimiter", "name"), [(",", ""), (";", "semicolon"), ("\t", "TAB"), ("|", "bar")])
def test_a13_the_delimiter_is_found_and_said(tmp_path, delimiter, name):
    lines = [("text", "label"), *((f"words; with, all | of them {number}".replace(delimiter, ""), "ab"[number % 2]) for number in range(9))]
    rows = read(file(tmp_path / "a.csv", "".join(delimiter.join(line) + "\n" for line in lines)), options=WHOLE)
    assert len(rows.train) == 9 and set(targets(rows)) == {"a", "b"}
    assert [note.what for note in rows.notes if "delimiter" in note.what] == ([f"delimiter {name}"] if name else [])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a14_every_line_end(tmp_path, end):
    rows = read(file(tmp_path / "a.csv", end.join(["text,label", "a,x", "b\u2028\x85c,y", '"d', 'e",x', ""])), options=WHOLE)
    assert texts(rows) == ["a", "b\u2028\x85c", f"d{end}e"] and rows.train.place(2) == "a.csv, line 4 (row 2)"


def test_a15_a_gzip_bomb_stops_early(tmp_path, monkeypatch):
    bomb = gzip.compress(b"text,label\n" + b"0" * (1 << 26), 9)
    assert len(bomb) < 100_000
    refused(file(tmp_path / "a.csv.gz", bomb), "more than 1,000,000 bytes of text", "max_bytes", options=ReadOptions(max_bytes=1_000_000))
    monkeypatch.setattr(opening, "BOMB_BYTES", 1 << 22)
    refused(tmp_path / "a.csv.gz", "it looks like a gzip bomb")
    table = pa.table({"text": ["0" * 1000] * 20_000, "label": ["x"] * 20_000})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 200_000
    refused(tmp_path / "a.parquet", "bytes", options=ReadOptions(max_bytes=15_000_000))
    refused(
        ({"text": "x" * 1000, "label": "y"} for _ in iter(int, 1)),
        "the rows have more than 20,000,000 bytes",
        options=ReadOptions(max_bytes=20_000_000),
    )


def test_a15_archives_are_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.writestr("../../evil.csv", "text,label\na,b\n")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("../../evil.csv")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    (tmp_path / "b.csv").write_bytes((tmp_path / "a.csv.zip").read_bytes())
    for name, what in (
        ("a.csv.zip", "a zip archive"),
        ("a.tar", "a tar archive"),
        ("a.tar.gz", "a tar archive"),
        ("b.csv", "a zip archive"),
    ):
        refused(tmp_path / name, f"it is {what}", "Unpack it yourself")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv.zip", "a.tar", "a.tar.gz", "b.csv"]
    assert not (tmp_path.parent.parent / "evil.csv").exists()
    refused(file(tmp_path / "c.csv.gz", gzip.compress(b"text,label\n" * 999)[:-9]), "the gzip file is damaged or cut short")


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -8])
def test_a16_a_damaged_parquet_file(tmp_path, cut):
    pq.write_table(pa.table({"text": ["a", "b"] * 500, "label": ["x", "y"] * 500}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    refused(file(tmp_path / "b.parquet", whole[:cut]), "b.parquet: it cannot be read as Parquet")
    refused(file(tmp_path / "c.parquet", b"text,label\na,b\n" + whole), "c.parquet")
    broken = bytearray(whole)
    broken[8:200] = bytes(192)
    refused(file(tmp_path / "d.parquet", bytes(broken)), "d.parquet")


def test_a17_a_bad_line_of_jsonl_is_named(tmp_path):
    good = json.dumps({"text": "a", "label": "x"}) + "\n"
    refused(file(tmp_path / "a.jsonl", good * 10 + '{"text": "b"\n' + good), "a.jsonl, line 11: this is no JSON")
    refused(file(tmp_path / "b.jsonl", good * 300 + "[1, 2]\n"), "b.jsonl, line 301: expected an object, came list")
    refused(file(tmp_path / "c.jsonl", good * 3 + "\n" + '{"label": "x"}\n'), "c.jsonl, line 5 (row 3), column 'text': the text is missing")
    refused(
        file(tmp_path / "d.jsonl", good + '{"text": "half \\ud800", "label": "x"}\n'),
        "d.jsonl, line 2 (row 1), column 'text': character 5 is a lone surrogate",
    )
    refused(file(tmp_path / "e.json", json.dumps([{"text": "a", "label": "x"}])), "pl.read(json.load(open(…)))")


def test_a19_rows_of_train_in_another_split_are_found():
    train, valid = [*ROWS], [{"text": "text 3", "label": "b"}, {"text": "new", "label": "a"}]
    (leak,) = [finding for finding in check_rows(read({"train": train, "valid": valid})) if "also in train" in finding.what]
    assert leak.place == "the list of valid, row 0 is the list of train, row 3" and "its scores will be too good" in leak.what


def test_a19_a_drawn_split_keeps_equal_texts_together():
    rows = read([{"text": f"text {number % 30}", "label": "ab"[number % 2]} for number in range(300)])
    assert not set(texts(rows)) & set(texts(rows, "valid")) and len(rows.valid) == 60
    assert "equal texts together" in rows.notes[-1].why


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["train", "valid", "holdout"], "row 2, column 'split': expected train, valid or test, came 'holdout'"),
        (["train", None, "valid"], "row 1, column 'split': the split is missing"),
        ([True, False, float("nan")], "row 2, column 'split': the split is missing"),
        ([0, 1, 2], "row 2, column 'split': expected train, valid or test, came '2'"),
    ],
)
def test_a20_a_split_that_is_none_names_its_row(values, message):
    source = {"text": ["a", "b", "c"], "label": ["x", "y", "x"], "split": values}
    refused(source, message)
    assert len(read(source, split=False, options=WHOLE).train) == 3


def test_a20_a_split_column_without_validation_rows():
    source = {"text": [f"t{n}" for n in range(10)], "label": ["x", "y"] * 5, "is_valid": [False] * 10}
    rows = read(source)
    assert len(rows.valid) == 2 and "2 of 10 rows are kept aside for validation: no row was marked for it" in str(rows.notes[-1])
    rows = read(source, options=WHOLE)
    with pytest.raises(DataError, match=r"the dict: there is no split 'valid', only train\. ReadOptions\(valid_fraction=0\.2\) keeps some"):
        _ = rows.valid
    three = read({**source, "is_valid": ["train"] * 6 + ["dev"] * 2 + ["test"] * 2})
    assert {name: len(split) for name, split in three.splits.items()} == {"train": 6, "valid": 2, "test": 2}


def test_a21_class_numbers_get_the_names_that_the_dataset_knows():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    named = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    raw = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]})
    assert targets(read(named, options=WHOLE)) == ["pos", "neg"] and targets(read(raw, options=WHOLE)) == ["1", "0"]
    assert targets(read(raw, options=ReadOptions(valid_fraction=0, label_names=("neg", "pos")))) == ["pos", "neg"]
    unknown = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
    refused(unknown, "the Dataset, row 1, column 'label': the label is missing")
    splits = datasets.DatasetDict({"train": named, "validation": named, "test": unknown.select([1])})
    rows = read(splits)
    assert {name: split.has_targets for name, split in rows.splits.items()} == {"train": True, "valid": True, "test": False}
    assert any(note.what == "split 'test' has no labels" for note in rows.notes) and rows.test[0] == Example(0, {"text": "b"}, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: polars.DataFrame(ROWS),
        lambda: polars.LazyFrame(ROWS),
        lambda: pa.Table.from_pylist(ROWS),
        lambda: ROWS,
        lambda: tuple(ROWS),
        lambda: iter(ROWS),
        lambda: (dict(row) for row in ROWS),
        lambda: {"text": [row["text"] for row in ROWS], "label": np.array([row["label"] for row in ROWS])},
        lambda: datasets.Dataset.from_list(ROWS),
    ],
)
def test_a22_every_source_gives_the_same_rows(make):
    rows, reference = read(make()), read(pd.DataFrame(ROWS))
    for name in ("train", "valid"):
        assert list(rows[name]) == list(reference[name]) and rows[name].fingerprint() == reference[name].fingerprint()


def test_a22_what_is_no_source():
    for wrong in (7, None, object(), b"a.csv"):
        refused(wrong, "source: cannot read rows from")
    refused(["a text"], "the list, row 0: expected a dict, came str")
    refused(Path(__file__), "cannot tell what kind of file")


def test_a23_a_stream_without_a_length():
    stream = datasets.IterableDataset.from_generator(lambda: iter(ROWS))
    assert len(read(stream).train) == 16
    asked = []

    def endless():
        number = 0
        while True:
            asked.append(number)
            yield {"text": f"text {number}", "label": "ab"[number % 2]}
            number += 1

    assert len(read(endless(), options=ReadOptions(max_rows=30, valid_fraction=0)).train) == 30 and len(asked) <= 31

    def failing():
        yield from ROWS
        raise RuntimeError("the line went dead")

    with pytest.raises(RuntimeError, match="the line went dead"):
        read(failing())


def test_a24_a_frame_that_is_changed_afterwards_changes_nothing():
    frame, rows = pd.DataFrame(ROWS), [dict(row) for row in ROWS]
    array = np.array([row["text"] for row in ROWS], dtype=object)
    read_rows = [read(source, options=WHOLE) for source in (frame, rows, {"text": array, "label": [row["label"] for row in ROWS]})]
    before = [one.train.fingerprint() for one in read_rows]
    frame.loc[:, "text"] = "changed"
    del frame["label"]
    rows[0]["text"] = "changed"
    rows.clear()
    array[:] = "changed"
    assert [one.train.fingerprint() for one in read_rows] == before
    assert all(texts(one) == [row["text"] for row in ROWS] for one in read_rows)


def test_a25_a_file_that_is_deleted_afterwards_is_not_missed(tmp_path):
    path = tmp_path / "a.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    small = read(path)
    mapped = read(path, options=ReadOptions(memory_bytes=1, cache=tmp_path / "cache"))
    parquet = tmp_path / "a.parquet"
    pd.DataFrame(ROWS).to_parquet(parquet)
    columns = read(parquet)
    path.write_text("something else")
    path.unlink()
    parquet.write_bytes(b"PAR1" * 1000)
    parquet.unlink()
    for rows in (small, mapped, columns):
        assert sorted(texts(rows) + texts(rows, "valid")) == sorted(row["text"] for row in ROWS)


def test_a25_a_file_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "BLOCK", 1 << 12)
    path = file(tmp_path / "a.csv", "text,label\n" + "some words,a\n" * 50_000)
    chunks = open_delimited(path, WHOLE).chunks(("text",))
    assert next(chunks).rows == 10_000
    with path.open("a") as stream:
        stream.write("one more,a\n")
    with pytest.raises(DataError, match=r"a\.csv: the file changed while it was read\. Read it again"):
        list(chunks)


def test_a26_a_read_only_folder_is_read_and_a_cache_that_cannot_be_written_is_said(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pd.DataFrame(ROWS).to_csv(folder / "a.csv", index=False)
    (tmp_path / "link").symlink_to(folder)
    folder.chmod(0o500)
    try:
        assert len(read(folder / "a.csv").train) == len(read(tmp_path / "link" / "a.csv").train) == 16
    finally:
        folder.chmod(0o700)
    (tmp_path / "broken.csv").symlink_to(tmp_path / "nothing.csv")
    refused(tmp_path / "broken.csv", "No such file or directory")
    file(tmp_path / "taken", "x")
    with pytest.raises(PellucidError) as caught:
        read(folder / "a.csv", options=ReadOptions(memory_bytes=1, cache=tmp_path / "taken"))
    assert caught.value.place and caught.value.cure


@pytest.mark.parametrize("name", ["two words.csv", "naïve 映画.csv", "line\nend.csv", "[a]*?.csv", "-x.csv", "%s {}.csv", "A.CSV"])
def test_a27_odd_paths(tmp_path, name):
    path = file(tmp_path / name, "text,label\na,x\nb\n")
    refused(path, f"{name}, line 3: expected 2 cells, came 1")
    file(path, "text,label\na,x\nb,y\n")
    assert len(read(str(path), options=WHOLE).train) == len(read(path, options=WHOLE).train) == 2
    refused("a\0b.csv", "it cannot be read")
    refused("~nobody-of-this-name/a.csv", "it cannot be read")
    refused("x" * 5000 + ".csv", "it cannot be read: File name too long")
    refused(tmp_path / "nothing.csv", "it cannot be read: No such file or directory", str(tmp_path))


def test_a28_many_rows_need_little_memory(tmp_path):
    count = 120_000
    options = ReadOptions(memory_bytes=1 << 20, cache=tmp_path / "cache")
    gc.collect()
    before, objects = pa.total_allocated_bytes(), len(gc.get_objects())
    rows = read(
        ({"text": f"a text of some words with the number {number}", "label": "ab"[number % 2]} for number in range(count)), options=options
    )
    gc.collect()
    assert len(rows.train) + len(rows.valid) == count and len(rows.valid) == count // 5
    assert pa.total_allocated_bytes() - before < 2 << 20  # the rows lie in a mapped file
    assert len(gc.get_objects()) - objects < 5_000  # no object a row is kept
    assert sum(split.table.nbytes for split in rows.splits.values()) > 5 << 20
    assert rows.train[50_000].fields["text"].startswith("a text of some words") and not list((tmp_path / "cache").iterdir())
    assert len(check_rows(rows)) == 0


# --- B: labels ---


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, "", "  "])
def test_b29_a_label_that_is_missing_names_its_row(tmp_path, nothing):
    source = [*ROWS, {"text": "x", "label": nothing}, *ROWS[:2]]
    refused(source, "the list, row 20, column 'label': the label is missing", "label=False reads no labels")
    rows = read(source, options=DROP)
    assert len(rows.train) == 22 and set(targets(rows)) == {"a", "b"} and rows.train.row_numbers.tolist()[19:21] == [19, 21]
    assert "1 row left out" in str(rows.notes[-1])
    refused({"train": source, "valid": ROWS}, "the list of train, row 20")
    refused(file(tmp_path / "a.csv", "text,label\na,x\nb,\n"), "a.csv, line 3 (row 1), column 'label': the label is missing")


def test_b29_rows_to_be_predicted_may_have_no_labels():
    blind = [{"text": "a", "label": None}, {"text": "b", "label": None}]
    rows = read({"train": ROWS, "test": blind})
    assert not rows.test.has_targets and targets(rows, "test") == [None, None]
    rows = read({"train": pd.DataFrame(ROWS), "test": pd.DataFrame({"text": ["a"]})}, label="label")
    assert not rows.test.has_targets and rows.train.has_targets
    refused({"train": blind}, "row 0, column 'label': the label is missing")


def test_b30_one_class_only_is_found():
    rows = read([{"text": f"t{number}", "label": "a"} for number in range(20)])
    (finding,) = [finding for finding in check_rows(rows) if finding.level == "error"]
    assert finding.what == "every row has the label 'a'" and finding.place == "column 'label'"


def test_b31_labels_of_one_split_only_are_found():
    rows = read({"train": ROWS, "valid": [{"text": "x", "label": "c"}]})
    what = {finding.level: finding.what for finding in check_rows(rows) if "a label" in finding.what or "no row of" in finding.what}
    assert what == {
        "error": "valid has a label that train has not: 'c'",
        "warning": "valid has no row of 'a', 'b': nothing will be known of these classes",
    }


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0, 1],
        [1.0, 0.0, 1.0],
        ["1", "0", "1"],
        ["1 ", " 0", "1"],
        np.array([1, 0, 1], dtype=np.uint8),
        pd.array([1, 0, 1], dtype="Int64"),
        [1, "0", 1.0],
    ],
)
def test_b32_one_and_1_0_are_one_label(labels):
    for source in (
        pd.DataFrame({"text": ["a", "b", "c"], "label": pd.Series(list(labels))}),
        {"text": ["a", "b", "c"], "label": list(labels)},
    ):
        rows = read(source, options=WHOLE)
        assert targets(rows) == ["1", "0", "1"] and LabelSet.from_targets(targets(rows)).names == ("0", "1")


@pytest.mark.parametrize("labels", [[True, False], [np.True_, np.False_], pd.array([True, False], dtype="boolean"), ["True", "False"]])
def test_b33_true_and_false_are_labels(labels):
    rows = read({"text": ["a", "b"], "label": list(labels)}, options=WHOLE)
    assert targets(rows) == ["True", "False"]


def test_b34_spaces_go_and_capitals_are_said():
    rows = read({"text": [f"t{n}" for n in range(40)], "label": ["good", " good", "good\n", "Good"] * 10}, options=WHOLE)
    assert set(targets(rows)) == {"good", "Good"}
    (finding,) = [finding for finding in check_rows(rows) if "differ only" in finding.what]
    assert "'good'" in finding.what and "'Good'" in finding.what


def test_b35_numbers_of_classes_need_no_order():
    labels = [-100, 3, 10, -1, 3]
    rows = read({"text": list("abcde"), "label": labels}, options=WHOLE)
    assert targets(rows) == ["-100", "3", "10", "-1", "3"]
    assert LabelSet.from_targets(targets(rows)).names == ("-100", "-1", "3", "10")
    assert {finding.what.split("'")[1] for finding in check_rows(rows) if "not known" in finding.what} == {"-100", "-1"}


def test_b36_ten_thousand_classes():
    rows = read({"text": f"text {number}", "label": f"class {number % 10_000}"} for number in range(40_000))
    assert len(rows.valid) == 8_000 and len(set(targets(rows))) == 10_000  # every class can be learned
    assert len(LabelSet.from_targets(targets(rows))) == 10_000
    assert all(len(finding.what) < 300 for finding in check_rows(rows))


@pytest.mark.parametrize(
    ("labels", "how"),
    [
        ([["x", "y"], [], ("y",)], {}),
        ([{"x", "y"}, set(), {"y"}], {}),
        ([np.array(["y", "x"]), np.array([]), np.array(["y"])], {}),
        (["x;y", "", " y ;"], {"options": ReadOptions(valid_fraction=0, label_separator=";")}),
        ([["y", "x", "y"], [], ["y "]], {"options": ReadOptions(valid_fraction=0, label_kind="set")}),
        (["0,1", "", "1"], {"options": ReadOptions(valid_fraction=0, label_separator=",", label_names=("x", "y"))}),
    ],
)
def test_b37_sets_of_labels(labels, how):
    rows = read({"text": ["a", "b", "c"], "label": labels}, **({"options": WHOLE} | how))
    assert targets(rows) == [("x", "y"), (), ("y",)]


def test_b37_columns_of_zero_and_one():
    source = {"text": ["a", "b", "c"], "toxic": [1, 0, 0], "rude": ["1.0", "0", "1"], "sad": [True, False, False]}
    names = ["toxic", "rude", "sad"]
    assert targets(read(source, label=names, options=WHOLE)) == [("rude", "sad", "toxic"), (), ("rude",)]
    refused({**source, "rude": [1, 2, 0]}, "row 1, column 'toxic, rude, sad': expected 0 or 1, came 2", label=names)
    refused({**source, "rude": [1, None, 0]}, "row 1, column 'toxic, rude, sad': the label is missing", label=names)
    refused({"text": ["a", "b"], "label": [["x"], [None]]}, "row 1, column 'label': a set of labels holds a missing one")
    refused({"text": ["a", "b"], "label": ["x", ["y"]]}, "row 1, column 'label'", options=ReadOptions(label_kind="class"))


@pytest.mark.parametrize("wrong", ["inf", "-inf", "nan", "four", float("inf"), "1,5"])
def test_b38_a_number_that_is_none_names_its_row(wrong):
    number = ReadOptions(label_kind="number", valid_fraction=0)
    refused({"text": ["a", "b"], "label": [2.5, wrong]}, "row 1, column 'label': expected a finite number, came", options=number)
    assert targets(read({"text": ["a", "b", "c"], "label": [2.5, "3", -1]}, options=number)) == [2.5, 3.0, -1.0]


@pytest.mark.parametrize("names", [{0: "a", 2: "b"}, {0: "a", 1: "a"}, {"x": "a"}, {-1: "a", 0: "b"}])
def test_b40_names_and_numbers_are_one_to_one(names):
    with pytest.raises(LabelError):
        LabelSet.from_id2label(names)
    refused({"text": ["a"], "label": [7]}, "row 0, column 'label': label '7' has no name", options=ReadOptions(label_names=("x", "y")))


def test_b41_strange_names_are_labels_like_others():
    names = ["__proto__", "<script>alert(1)</script>", "x" * 10_000, "映画", "a\u202eb", "{{7*7}}", "=1+1", "%s", "None"]
    rows = read([{"text": f"t{number}", "label": name} for number, name in enumerate(names * 3)], options=WHOLE)
    assert set(targets(rows)) == set(names) and len(LabelSet.from_targets(targets(rows))) == len(names)
    refused([{"text": "a", "label": "half \ud800"}], "row 0, column 'label': character 5 is a lone surrogate")


def test_b42_a_class_that_is_too_small_to_split_stays_in_training():
    rows = read([{"text": f"t{number}", "label": "rare" if number == 7 else "ab"[number % 2]} for number in range(100)])
    assert "rare" in targets(rows) and "rare" not in targets(rows, "valid") and len(rows.valid) == 20
    found = [finding.what for finding in check_rows(rows)]
    assert "1 class has fewer than 10 rows: 'rare' (1)" in found
    assert any(what.startswith("valid has no row of 'rare'") for what in found)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.parquet", "a.csv.gz"]),
    head=st.sampled_from([b"", b"text,label\n", b"text\tlabel\n", b'{"text": "a", "label": "b"}\n', b"\xff\xfe", b"\x1f\x8b\x08", b"PAR1"]),
    body=st.one_of(st.binary(max_size=60), st.text('ab,;"\t|\n\r\\é\ufeff{}[]:', max_size=60).map(str.encode)),
    on_missing=st.sampled_from(["error", "drop"]),
)
def test_any_bytes_are_rows_or_an_error_with_a_place_and_a_cure(tmp_path, name, head, body, on_missing):
    path = file(tmp_path / name, head + body)
    try:
        rows = read(path, options=ReadOptions(on_missing=on_missing))
    except PellucidError as found:
        error, rows = found, None
    if rows is None:
        assert error.place and error.cure
    else:
        assert sum(len(split) for split in rows.splits.values()) > 0
        assert all(isinstance(text, str) for name in rows.splits for text in texts(rows, name))
