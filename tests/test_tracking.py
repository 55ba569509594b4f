"""A training that is followed: what trackers are told of every kind of task, what they have written, and that nothing else changes."""

import copy
import json
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback

import pellucid as pl
from conftest import SENTENCES
from matrix import ARCHITECTURES, COLUMNS, Subject, subject, tokenizers_of
from pellucid.errors import MissingPackageError, SettingError
from pellucid.training.fastai_callbacks import WeightAverage
from pellucid.training.fastai_checkpoints import Checkpoints
from pellucid.training.fastai_tracking import Tracked, same_random_numbers
from pellucid.training.trackers import TrackedRun, in_markdown, wandb_mode
from pellucid.training.wandb_files import history, records
from pellucid.view import Table
from resumed import BATCHES, Crash, Training, rows_of, seeded

LEARNS = (
    ("text-classification", "BERT"),
    ("token-classification", "BERT"),
    ("question-answering", "BERT"),
    ("fill-mask", "BERT"),
    ("text-generation", "GPT-2"),
    ("text2text-generation", "T5"),
)


@dataclass
class Fake:
    """A tracker that writes down what it is told; fails at the call number `fails`."""

    run: TrackedRun
    fails: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    where: str = "in memory"
    lines: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    shown: list[tuple[int, str, Any]] = field(default_factory=list)
    calls: int = 0
    flushed: int = 0
    closed: int = 0

    def count(self) -> None:
        self.calls += 1
        if self.fails and self.calls >= self.fails:
            raise OSError("no space left\nand more of that")

    def numbers(self, values: Any, step: int) -> None:
        self.count()
        torch.rand(3)  # whatever a tracker draws
        np.random.rand(3)  # noqa: NPY002  # fastai draws from the global one
        self.lines.append((step, dict(values)))

    def table(self, name: str, table: Table, step: int) -> None:
        self.count()
        self.shown.append((step, name, table))

    def page(self, name: str, html: str, step: int) -> None:
        self.count()
        self.shown.append((step, name, html))

    def picture(self, name: str, pixels: Any, step: int) -> None:
        self.count()
        self.shown.append((step, name, pixels))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1

    def of(self, name: str) -> list[tuple[int, float]]:
        return [(step, line[name]) for step, line in self.lines if name in line]


class Box:
    """Opens fakes, and keeps them."""

    def __init__(self, fails: int = 0) -> None:
        self.fails, self.made = fails, []

    def __call__(self, run: TrackedRun) -> Fake:
        self.made.append(Fake(run, self.fails))
        return self.made[-1]

    @property
    def last(self) -> Fake:
        return self.made[-1]


def weights(learn: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in learn.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def classified(folder: Path, cbs: Any = (), **options: Any) -> Any:
    """A learner of two classes on a tiny BERT with dropout."""
    seeded(3)
    rows = rows_of()
    pipe = pl.Pipeline.new("text-classification", folder, rows)
    loaders = pl.LoaderOptions(bs=8)
    return pl.learner(pipe, rows, options=pl.LearnerOptions(lr=1e-3, loaders=loaders), cbs=list(cbs), **options)


# --- what is told, and that nothing changes ------------------------------------------------------------------------------


@pytest.fixture(params=LEARNS, ids=lambda pair: pair[0])
def learning(request: pytest.FixtureRequest, tiny_tokenizers: dict[str, Any], tmp_path: Path) -> Subject:
    """Every kind of task that learns, with rows that are learned from and rows aside."""
    tag, name = request.param
    architecture = next(each for each in ARCHITECTURES if each.name == name)
    column = next(each for each in COLUMNS if each.tag == tag)
    found = subject(architecture, column, tokenizers_of(tiny_tokenizers)[architecture.tokenizer], tmp_path)
    assert isinstance(found, Subject), found
    return found


def run_of(found: Subject, cbs: list[Any]) -> Any:
    rows = pl.Rows({"train": found.split, "valid": replace(found.split, name="valid")}, found.split.roles, "the matrix")
    seeded(5)
    pipe = replace(found.pipe, model=copy.deepcopy(found.pipe.model))
    learn = pl.learner(pipe, rows, options=pl.LearnerOptions(lr=1e-3, loaders=pl.LoaderOptions(bs=4)), cbs=cbs)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(1)
    return learn


def test_every_kind_of_task_tells_all_and_learns_the_same(learning, caplog):
    box = Box()
    learn = run_of(learning, [Tracked(box, rows=3)])
    assert same(weights(learn), weights(run_of(learning, []))), "bit for bit, dropout and all"
    fake = box.last
    assert "left out" not in caplog.text and fake.closed == 0 and fake.flushed == 2
    steps = [step for step, _ in fake.of("loss")]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) % 2 == 0
    assert len(fake.of("lr")) == len(steps) and all(value > 0 for _, value in fake.of("lr"))
    assert any(name.startswith("lr_") for _, line in fake.lines for name in line), "groups have rates of their own in the second fit"
    assert fake.of("epoch") == [(len(steps) // 2, 1), (len(steps), 2)]
    names = [name for name in learn.recorder.metric_names[1:] if name != "time"]
    last = fake.lines[-1][1]
    for name, value in zip(names, learn.recorder.values[-1], strict=True):
        assert np.isnan(float(value)) or last[name] == pytest.approx(float(value)), name
    shown = {name: value for step, name, value in fake.shown if step == len(steps)}
    assert list(shown) == ["predictions", "worst", "tokens", "learning_curve"]
    assert shown["predictions"].columns == ("row", "text", "label", "predicted", "score", "loss")
    assert len(shown["predictions"].rows) >= 1 and all(isinstance(row[1], str) and row[1] for row in shown["predictions"].rows)
    losses = [row[-1] for row in shown["worst"].rows]
    assert losses == sorted(losses, reverse=True) and losses[0] >= max(row[-1] for row in shown["predictions"].rows)
    assert "<table" in shown["tokens"] and "<script" not in shown["tokens"]
    assert shown["learning_curve"].dtype == np.uint8 and shown["learning_curve"].shape[2] == 3
    learn.tracked.close()
    assert fake.closed == 1


def test_the_settings_of_the_run_are_told(tiny_checkpoints):
    box = Box()
    learn = classified(tiny_checkpoints["bert"], [Tracked(box, run_name="my run/1", project="films", settings={"epochs": 1})])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    run = box.last.run
    assert run.project == "films" and run.name == "my-run-1" and not run.goes_on
    assert run.settings["task"]["tag"] == "text-classification" and run.settings["task"]["labels"] == ["bad", "good"]
    assert len(run.settings["checkpoint"]["sha256"]) == 64 and run.settings["checkpoint"]["name"] == str(tiny_checkpoints["bert"])
    assert run.settings["rows"] == {"train": 36, "valid": 12} and run.settings["seed"] == 42 and run.settings["asked"] == {"epochs": 1}
    assert run.settings == json.loads(json.dumps(run.settings))


def test_the_score_is_the_probability_of_the_answer(tiny_checkpoints):
    box = Box()
    learn = classified(tiny_checkpoints["bert"], [Tracked(box, rows=12)])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    table = next(value for _, name, value in box.last.shown if name == "predictions")
    assert len(table.rows) == 12
    split = learn.dls.valid.dataset.split
    found = learn.pipe.predict(split)
    for line in table.rows:
        place = int(line[0])
        assert line[2] == split[place].target and line[3] == found[place].answer
        assert line[4] == pytest.approx(max(found[place].scores.values()), abs=1e-3)
        assert line[5] == pytest.approx(-np.log(found[place].scores[str(line[2])]), abs=1e-3)


def test_no_texts_where_none_are_wanted(tiny_checkpoints):
    box = Box()
    learn = classified(tiny_checkpoints["bert"], [Tracked(box, rows=0)])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert [name for _, name, _ in box.last.shown] == ["learning_curve"]
    told = json.dumps([box.last.run.settings, box.last.lines])
    assert not any(sentence[:20] in told for sentence in SENTENCES)


def test_looks_and_predictions_are_not_followed(tiny_checkpoints):
    box = Box()
    learn = classified(tiny_checkpoints["bert"], [Tracked(box)])
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=20, show_plot=False)
        learn.get_preds()
        learn.validate()
        assert not box.made
        learn.fit(1)
        count = box.last.calls
        learn.get_preds()
        learn.validate()
        learn.lr_find(num_it=20, show_plot=False)
    assert box.last.calls == count and len(box.made) == 1


def test_averaged_weights_are_as_without(tiny_checkpoints):
    found = []
    for cbs in ([WeightAverage(0.9)], [WeightAverage(0.9), Tracked(Box())]):
        learn = classified(tiny_checkpoints["bert"], cbs)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(2)
        found.append(weights(learn))
    assert same(*found)


def test_random_numbers_are_those_that_would_have_come():
    seeded(1)
    expected = torch.rand(2)
    seeded(1)
    with same_random_numbers():
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


# --- a tracker that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, BATCHES + 1, BATCHES + 2, BATCHES + 4])
def test_a_tracker_that_fails_is_left_out_with_one_warning(tiny_checkpoints, caplog, at):
    bad, good = Box(fails=at), Box()
    learn = classified(tiny_checkpoints["bert"], [Tracked([bad, good_as(good)])])
    with caplog.at_level(logging.WARNING), learn.no_bar(), learn.no_logging():
        learn.fit(2)
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert said == ["Box is left out from here on, the training goes on: OSError: no space left"]
    assert bad.last.closed == 1 and bad.last.calls == at
    assert len(good.last.of("loss")) == 2 * BATCHES and len(learn.recorder.values) == 2
    plain = classified(tiny_checkpoints["bert"])
    with plain.no_bar(), plain.no_logging():
        plain.fit(2)
    assert same(weights(learn), weights(plain))


def good_as(box: Box) -> Any:
    def good(run: TrackedRun) -> Fake:
        return box(run)

    return good


def test_a_tracker_that_cannot_begin_costs_no_training(tiny_checkpoints, caplog):
    def offline(run: TrackedRun) -> Fake:
        raise ConnectionError("no network")

    learn = classified(tiny_checkpoints["bert"], [Tracked(offline)])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert "offline is left out from here on, the training goes on: ConnectionError: no network" in caplog.text


def test_what_cannot_be_shown_leaves_the_numbers(tiny_checkpoints, caplog, monkeypatch):
    box = Box()
    learn = classified(tiny_checkpoints["bert"], [Tracked(box)])
    monkeypatch.setattr(learn.dls.valid, "show_results", lambda *_, **__: 1 / 0)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
    assert caplog.text.count("tables and pictures are left out") == 1
    assert len(box.last.of("loss")) == 2 * BATCHES and len(box.last.of("valid_loss")) == 2 and not box.last.shown


def test_an_error_of_the_training_comes_out_and_the_run_ends(tiny_checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.training.fastai_learner.PellucidLearner.fit_one_cycle", lambda *_, **__: 1 / 0)
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroDivisionError):
        pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(epochs=1, track="tensorboard"))


# --- names and packages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlflow", "wandb,mlflow", "", ","])
def test_an_unknown_tracker_is_refused_before_any_work(name):
    with pytest.raises(SettingError, match="track"):
        pl.TrainOptions(track=name)
    with pytest.raises(SettingError, match="track"):
        Tracked(name)


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_a_missing_package_is_said_with_the_line_that_brings_it(name, monkeypatch, tiny_checkpoints):
    monkeypatch.setattr("pellucid.errors.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=rf"track=\"{name}\" needs the package '{name}'.*pip install 'pellucid\[track\]'"):
        pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=pl.TrainOptions(track=name))


def test_rows_are_a_number_from_0():
    with pytest.raises(SettingError, match="rows is -1"):
        Tracked(Box(), rows=-1)


def test_weights_and_biases_is_offline_where_nobody_has_a_key(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_texts_do_not_break_a_table_in_markdown():
    assert in_markdown("a|b\n<script>") == "a&#124;b &lt;script>" and in_markdown(None) == "" and in_markdown(0.123456) == "0.1235"


# --- resume --------------------------------------------------------------------------------------------------------------


def followed(tiny_checkpoints: dict[str, Path], folder: Path, box: Box, verb: str = "fine_tune") -> Training:
    from resumed import VERBS

    return Training(tiny_checkpoints["bert"], folder, VERBS[verb], lambda: [Tracked(box, folder=folder / "tracking")])


@pytest.mark.parametrize("verb", ["fit_one_cycle", "fine_tune"])
@pytest.mark.parametrize("at", [4, BATCHES + 3, 2 * BATCHES + 4])
def test_a_run_that_goes_on_keeps_its_name_and_its_steps(tiny_checkpoints, tmp_path, verb, at):
    box, training = Box(), None
    training = followed(tiny_checkpoints, tmp_path, box, verb)
    training.broken(at)
    training.run(seed=7, resume=True)
    whole = Box()
    followed(tiny_checkpoints, tmp_path / "whole", whole, verb).run()
    first, second = box.made
    assert second.run.name == first.run.name and second.run.goes_on and not first.run.goes_on
    expected = whole.last.lines
    begin = second.lines[0][0]
    assert first.lines == [line for line in expected if line[0] < at], "until the crash"
    assert second.lines == [line for line in expected if line[0] >= begin] and begin <= at, "the same numbers at the same steps"


def test_with_or_without_a_tracker_the_run_is_the_same_one(tiny_checkpoints, tmp_path):
    """Somebody may follow the rest of a training, or let a tracker go that has failed."""
    followed(tiny_checkpoints, tmp_path, Box()).broken(4)
    plain = replace(followed(tiny_checkpoints, tmp_path, Box()), callbacks=list)
    assert plain.run(seed=7, resume=True).same(plain.without(tmp_path / "whole"))


def test_what_a_tracker_has_is_not_sent_again(tiny_checkpoints):
    made = []

    def knows(run: TrackedRun) -> Fake:
        made.append(Fake(run, sent={"loss": 3, "lr": 3, "epoch": BATCHES, "predictions": BATCHES}))
        return made[-1]

    learn = classified(tiny_checkpoints["bert"], [Tracked(knows)])
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
    assert [step for step, _ in made[0].of("loss")] == list(range(4, 2 * BATCHES + 1))
    assert made[0].of("epoch") == [(2 * BATCHES, 2)] and len(made[0].of("valid_loss")) == 2
    assert [step for step, name, _ in made[0].shown if name == "predictions"] == [2 * BATCHES]


# --- the trackers themselves ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants to speak to another machine fails."""
    connect = socket.socket.connect

    def refused(one: socket.socket, address: Any) -> None:
        if one.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a connection to {address}")
        connect(one, address)

    monkeypatch.setattr(socket.socket, "connect", refused)


def test_tensorboard_writes_what_can_be_read_back(tiny_checkpoints, tmp_path, monkeypatch, caplog):
    events = events_module()
    monkeypatch.chdir(tmp_path)
    options = pl.TrainOptions(epochs=2, batch_size=8, track="tensorboard", seed=1)
    trained = pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=options)
    plain = pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=replace(options, track=None))
    assert same(weights(trained.learner), weights(plain.learner)) and trained.history == plain.history
    assert "tensorboard --logdir tracking" in caplog.text
    assert not [one for one in trained.learner.cbs if isinstance(one, Tracked)], "a later fit of the learner is followed if asked for"
    (folder,) = (tmp_path / "tracking").iterdir()
    found = events.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0}).Reload()
    tags = found.Tags()
    assert set(trained.columns) | {"loss", "lr", "epoch"} == set(tags["scalars"])
    assert [event.step for event in found.Scalars("loss")] == list(range(1, 2 * BATCHES + 1))
    for place, name in enumerate(trained.columns):
        assert [event.value for event in found.Scalars(name)] == pytest.approx([line[place] for line in trained.history], rel=1e-6)
    texts = {tag.removesuffix("/text_summary"): found.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
    assert set(texts) == {"settings", "predictions", "worst", "tokens"}
    assert "| row | text | label | predicted | score | loss |" in texts["predictions"] and "[CLS]" in texts["tokens"]
    settings = json.loads(texts["settings"].strip("`\n"))
    assert settings["asked"]["batch_size"] == 8 and settings["asked"]["seed"] == 1 and settings["rows"]["train"] == 36
    assert [event.step for event in found.Images("learning_curve")] == [BATCHES, 2 * BATCHES]


def events_module() -> Any:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing import event_accumulator

    return event_accumulator


def killed(training: Training, at: int, **more: Any) -> None:
    """Train in a process of its own, which is killed in the middle."""
    child = os.fork()
    if not child:
        try:
            training.run(Crash(at, lambda: (time.sleep(0.5), os.kill(os.getpid(), signal.SIGKILL))), **more)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_tensorboard_has_each_step_once_after_two_kills(tiny_checkpoints, tmp_path):
    events = events_module()
    training = Training(
        tiny_checkpoints["bert"], tmp_path, callbacks=lambda: [Tracked("tensorboard", folder=tmp_path / "tracking")], steps=3
    )
    killed(training, BATCHES + 3)
    killed(training, BATCHES + 1, seed=8, resume=True)
    training.run(seed=7, resume=True)
    (folder,) = (path for path in (tmp_path / "tracking").iterdir() if path.is_dir())
    assert len(list(folder.iterdir())) == 3, "three processes, one run"
    found = events.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    assert sorted(event.step for event in found.Scalars("loss")) == list(range(1, 3 * BATCHES + 1))
    assert sorted(event.step for event in found.Scalars("valid_loss")) == [BATCHES, 2 * BATCHES, 3 * BATCHES]
    assert sorted(event.value for event in found.Scalars("epoch")) == [1, 2, 3]


@pytest.fixture
def offline_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    wandb = pytest.importorskip("wandb", reason="the package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    yield wandb
    wandb.teardown()


@pytest.mark.usefixtures("no_network")
def test_weights_and_biases_offline_writes_what_can_be_read_back(tiny_checkpoints, tmp_path, offline_wandb, monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.chdir(tmp_path)
    options = pl.TrainOptions(epochs=2, batch_size=8, track="wandb")
    trained = pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=options)
    plain = pl.train(rows_of(), checkpoint=tiny_checkpoints["bert"], options=replace(options, track=None))
    assert same(weights(trained.learner), weights(plain.learner))
    (path,) = (tmp_path / "tracking" / "wandb").glob("offline-run-*/run-*.wandb")
    lines = list(history(path))
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 2 * BATCHES + 1))
    at_the_end = [line for line in lines if "valid_loss" in line]
    assert [line["step"] for line in at_the_end] == [BATCHES, 2 * BATCHES]
    for place, name in enumerate(trained.columns):
        assert [line[name] for line in at_the_end] == pytest.approx([line[place] for line in trained.history])
    assert {"predictions", "worst", "tokens", "learning_curve"} <= set(at_the_end[-1])
    files = path.parent / "files"
    table = json.loads((files / at_the_end[-1]["predictions"]["path"]).read_text())
    assert table["columns"][:4] == ["row", "text", "label", "predicted"] and len(table["data"]) == 8
    assert (
        "<table" in (files / at_the_end[-1]["tokens"]["path"]).read_text() and (files / at_the_end[-1]["learning_curve"]["path"]).exists()
    )
    config = {}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in (*record.run.config.update, *record.config.update):
            config[item.key or item.nested_key[0]] = item.value_json
    assert json.loads(config["asked"])["batch_size"] == 8 and "sha256" in config["checkpoint"]
    written = {one.name for one in files.rglob("*") if one.is_file()}
    assert not written & {"requirements.txt", "wandb-metadata.json", "output.log", "diff.patch"}, "nothing of the machine"


def test_weights_and_biases_has_each_step_once_after_a_kill(tiny_checkpoints, tmp_path, offline_wandb):
    tracked: list[Tracked] = []

    def callbacks() -> list[Callback]:
        tracked.append(Tracked("wandb", folder=tmp_path / "tracking"))
        return [tracked[-1]]

    training = Training(tiny_checkpoints["bert"], tmp_path, callbacks=callbacks, steps=3)
    killed(training, BATCHES + 3)
    training.run(seed=7, resume=True)
    tracked[-1].close()
    paths = sorted((tmp_path / "tracking" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(paths) == 2 and len({path.name for path in paths}) == 1, "two processes, one run"
    lines = [line for path in paths for line in history(path)]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 3 * BATCHES + 1))
    assert [line["step"] for line in lines if "valid_loss" in line] == [BATCHES, 2 * BATCHES, 3 * BATCHES]


@pytest.mark.usefixtures("no_network")
def test_trackio_writes_what_can_be_read_back(tiny_checkpoints, tmp_path, monkeypatch, capsys):
    pytest.importorskip("trackio", reason="the package trackio is not installed")
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    from trackio import sqlite_storage

    box: list[Tracked] = []

    def callbacks() -> list[Callback]:
        for one in box:
            one.close()
        box.append(Tracked("trackio", project="films", folder=tmp_path / "tracking"))
        return [box[-1]]

    training = Training(tiny_checkpoints["bert"], tmp_path, callbacks=callbacks, steps=3)
    training.broken(BATCHES + 3)
    training.run(seed=7, resume=True)
    box[-1].close()
    assert "rackio" not in capsys.readouterr().out
    (name,) = sqlite_storage.SQLiteStorage.get_runs("films")
    lines = sqlite_storage.SQLiteStorage.get_logs("films", name)
    assert sorted(line["step"] for line in lines if "loss" in line) == list(range(1, 3 * BATCHES + 1))
    assert sorted(line["step"] for line in lines if "valid_loss" in line) == [BATCHES, 2 * BATCHES, 3 * BATCHES]
    shown = [line for line in lines if "predictions" in line]
    assert len(shown) == 3 and shown[-1]["predictions"]["_value"][0]["text"]
    assert all(len([line for line in lines if name in line]) == 3 for name in ("worst", "tokens", "learning_curve"))
    assert {path.suffix for path in (tmp_path / "trackio" / "media").rglob("*") if path.is_file()} >= {".html", ".png"}
    assert sqlite_storage.SQLiteStorage.get_run_config("films", name)["task"]["tag"] == "text-classification"


# --- fastai's own ---------------------------------------------------------------------------------------------------------


def test_fastais_own_callback_for_tensorboard_works_beside_ours(tiny_checkpoints, tmp_path):
    events = events_module()
    from fastai.callback.tensorboard import TensorBoardCallback

    learn = classified(tiny_checkpoints["bert"], [TensorBoardCallback(tmp_path / "fastai", trace_model=False, log_preds=False)])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    found = events.EventAccumulator(str(tmp_path / "fastai")).Reload()
    assert {"train_loss", "valid_loss", "accuracy", "lr_0"} <= set(found.Tags()["scalars"])


def test_fastais_own_callbacks_are_refused_by_name_with_checkpoints(tiny_checkpoints, tmp_path):
    events_module()
    from fastai.callback.tensorboard import TensorBoardCallback

    learn = classified(tiny_checkpoints["bert"], [TensorBoardCallback(tmp_path / "fastai", trace_model=False, log_preds=False)])
    with pytest.raises(SettingError, match="TensorBoardCallback"):
        learn.fit(1, cbs=Checkpoints(tmp_path / "run"))


def test_a_file_that_was_cut_off_gives_what_is_whole(tmp_path):
    whole = b":W&B\x1f\xbe\x00" + b"".join(bytes(4) + len(part).to_bytes(2, "little") + b"\x01" + part for part in (b"one", b"two"))
    assert list(records(whole)) == [b"one", b"two"]
    for end in range(len(whole) - 1, 6, -1):
        assert list(records(whole[:end])) in ([b"one"], []), end
