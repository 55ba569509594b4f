"""The door to Trainer: the batches, the losses and the scores of the Learner and of a plain loop, and folders that open on both sides."""

import copy
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

import pellucid as pl
from matrix import ARCHITECTURES, COLUMNS, NAMED, TEXTS, checkpoint
from pellucid.errors import CheckpointError, DataError, SettingError, StorageError
from pellucid.groups import no_decay
from pellucid.pipelines import Pipeline
from pellucid.training.fastai_blocks import LoaderOptions, dataloaders
from pellucid.training.fastai_learner import LearnerOptions, learner
from pellucid.training.planned_trainer import PellucidTrainer
from pellucid.training.task_loss import LossOptions
from pellucid.training.trainer_batches import Share, epoch_steps
from pellucid.training.trainer_door import hf_trainer
from pellucid.types import Batch

RATE, DECAY, EPOCHS, BS = 1e-3, 0.1, 2, 4
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
ROOT = Path(__file__).resolve().parents[1]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


# --- a tiny model and rows for every task that learns ------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A task on an architecture, what reads its rows, and the loss of plain torch: (logits, labels) → a number."""

    architecture: str
    tag: str
    task: Callable[[], Any]
    row: Callable[[str, str, int], dict[str, Any]]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    label: Any = "label"
    kind: str = "auto"
    text: str = "text"
    text_pair: str | None = None


def place(text: str, name: str) -> list[dict[str, Any]]:
    return [{"start": text.index(name), "end": text.index(name) + len(name), "label": "place"}] if name else []


def answers(text: str, name: str) -> dict[str, Any]:
    return {"text": [name or text[:1]], "answer_start": [text.index(name or text[:1])]}


def chat(text: str, name: str) -> str:
    return json.dumps([{"role": "user", "content": text}, {"role": "assistant", "content": name or "Nowhere."}])


def of_tokens(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def of_next_tokens(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return of_tokens(logits[:, :-1], labels[:, 1:])


def of_both_ends(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (functional.cross_entropy(logits[..., 0], labels[:, 0]) + functional.cross_entropy(logits[..., 1], labels[:, 1])) / 2


def of_number(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(logits[:, 0], labels)


CLASSIFY, WRITE = "text-classification", "text-generation"
CASES = {
    "one label": Case(
        "BERT", CLASSIFY, pl.SequenceClassification, lambda t, n, i: {"text": t, "label": "abc"[i % 3]}, functional.cross_entropy
    ),
    "several labels": Case(
        "BERT",
        CLASSIFY,
        pl.SequenceClassification,
        lambda t, n, i: {"text": t, "x": i % 2, "y": i % 3 // 2, "z": 1},
        functional.binary_cross_entropy_with_logits,
        label=["x", "y", "z"],
    ),
    "a number": Case(
        "BERT",
        CLASSIFY,
        lambda: pl.SequenceClassification(kind="regression"),
        lambda t, n, i: {"text": t, "label": i / 7},
        of_number,
        kind="number",
    ),
    "pairs": Case(
        "BERT",
        CLASSIFY,
        pl.SequenceClassification,
        lambda t, n, i: {"text": t, "other": f"{n} again", "label": "yes" if n else "no"},
        functional.cross_entropy,
        text_pair="other",
    ),
    "entities": Case(
        "BERT",
        "token-classification",
        pl.TokenClassification,
        lambda t, n, i: {"text": t, "label": place(t, n)},
        of_tokens,
        kind="spans",
    ),
    "answers": Case(
        "BERT",
        "question-answering",
        pl.QuestionAnswering,
        lambda t, n, i: {"question": "Where?", "context": t, "label": answers(t, n)},
        of_both_ends,
        kind="answers",
        text="question",
        text_pair="context",
    ),
    "texts": Case(
        "BART",
        "text2text-generation",
        lambda: pl.Text2Text(max_new_tokens=8),
        lambda t, n, i: {"text": t, "label": t[: 6 + i]},
        of_tokens,
        kind="text",
    ),
    "packed": Case(
        "GPT-2",
        WRITE,
        lambda: pl.TextGeneration(max_new_tokens=8, block_tokens=24),
        lambda t, n, i: {"text": t},
        of_next_tokens,
        label=False,
    ),
    "rows": Case(
        "Llama",
        WRITE,
        lambda: pl.TextGeneration(max_new_tokens=8, pack=False),
        lambda t, n, i: {"text": t},
        of_next_tokens,
        label=False,
    ),
    "chats": Case(
        "Llama",
        WRITE,
        lambda: pl.TextGeneration(max_new_tokens=8),
        lambda t, n, i: {"text": chat(t, n)},
        of_next_tokens,
        label=False,
    ),
    "masks": Case(
        "BERT",
        "fill-mask",
        lambda: pl.FillMask(mask_share=0.4),
        lambda t, n, i: {"text": t},
        of_tokens,
        label=False,
    ),
}


@dataclass(frozen=True)
class Made:
    """A case with its checkpoint (without dropout) and its rows; `pipe()` makes the same pipeline each time."""

    case: Case
    folder: Path
    rows: pl.Rows
    given: list[dict[str, Any]]  # the rows as they were read

    def pipe(self) -> Pipeline:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return Pipeline.new(self.case.task(), self.folder, self.rows, tokens=pl.TokenOptions(max_length=64))


@pytest.fixture(scope="module")
def made(tiny_tokenizers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    kept: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name in kept:
            return kept[name]
        case = CASES[name]
        architecture = next(one for one in ARCHITECTURES if one.name == case.architecture)
        tokenizer = copy.deepcopy(tiny_tokenizers[architecture.tokenizer])
        if name == "chats":
            tokenizer.add_special_tokens({"extra_special_tokens": ["<|user|>", "<|assistant|>"]})
            tokenizer.chat_template = CHAT_TEMPLATE
        folder = tmp_path_factory.mktemp("door") / "checkpoint"
        assert not checkpoint(architecture, next(one for one in COLUMNS if one.tag == case.tag), tokenizer, folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {key: 0.0 for key, value in config.items() if ("drop" in key or key.endswith("pdrop")) and isinstance(value, float)}
        (folder / "config.json").write_text(json.dumps(config))
        texts = [(f"{text}{' again' * times}", named, times) for times in range(4) for text, named in zip(TEXTS, NAMED, strict=True)]
        rows = [
            {**case.row(text, named, number), "split": "valid" if times == 3 else "train"}
            for number, (text, named, times) in enumerate(texts)
        ]
        options = pl.ReadOptions(label_kind=case.kind) if case.kind != "number" else pl.ReadOptions()
        read = pl.read(rows, text=case.text, text_pair=case.text_pair, label=case.label, split="split", options=options)
        kept[name] = Made(case, folder, read, rows)
        return kept[name]

    return make


GIVEN = {
    "per_device_train_batch_size": BS,
    "num_train_epochs": EPOCHS,
    "learning_rate": RATE,
    "lr_scheduler_type": "constant",
    "weight_decay": DECAY,
    "max_grad_norm": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    return TrainingArguments(str(folder), **{**GIVEN, **changes})


def losses_of(trainer: PellucidTrainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


class Losses(Callback):
    """The loss of each training batch."""

    def before_fit(self):
        self.seen = []

    def after_batch(self):
        if self.training:
            self.seen.append(self.loss.item())


def by_learner(made: Made, loaders: LoaderOptions) -> tuple[list[float], Any]:
    losses = Losses()
    learn = learner(made.pipe(), made.rows, options=LearnerOptions(wd=DECAY, loaders=loaders), cbs=losses)
    with learn.no_bar(), learn.no_logging():
        learn.fit(EPOCHS, RATE)
    return losses.seen, learn


def by_trainer(made: Made, loaders: LoaderOptions, folder: Path) -> tuple[list[float], PellucidTrainer]:
    trainer = hf_trainer(made.pipe(), made.rows, arguments(folder), loaders=loaders)
    trainer.train()
    return losses_of(trainer), trainer


def by_loop(made: Made, loaders: LoaderOptions) -> list[float]:
    pipe, seen = made.pipe(), []
    spared = no_decay(pipe.model)
    parts: dict[float, list[Any]] = {DECAY: [], 0.0: []}
    for name, parameter in pipe.model.named_parameters():
        parts[0.0 if name in spared else DECAY].append(parameter)
    optimizer = torch.optim.AdamW([{"params": part, "weight_decay": decay} for decay, part in parts.items()], lr=RATE)
    batches = dataloaders(pipe, made.rows, options=loaders).train
    pipe.model.train()
    for _ in range(EPOCHS):
        for inputs, labels in batches:
            rows = np.arange(len(labels))
            logits = pipe.task.run(pipe.model, Batch(inputs, None, rows, rows * 0, rows * 0)).logits
            loss = made.case.loss(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    return seen


# --- three trainers, one list of batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_three_trainers_have_one_curve(name: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    case, loaders = made(name), LoaderOptions(bs=BS)
    ours, learn = by_learner(case, loaders)
    theirs, trainer = by_trainer(case, loaders, tmp_path)
    plain = by_loop(case, loaders)
    assert len(ours) == len(theirs) == len(plain) >= 2 * EPOCHS
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert theirs == pytest.approx(plain, rel=1e-4)
    before = case.pipe().model.state_dict()
    assert not all(torch.equal(tensor, before[key]) for key, tensor in trainer.model.state_dict().items())
    assert trainer.model is trainer.pipe.model and isinstance(trainer, Trainer)

    found, wanted = trainer.evaluate(), scores(trainer.pipe, case.rows.valid)
    assert {key: found[f"eval_{key}"] for key in wanted} == pytest.approx(wanted, rel=1e-5)
    learn.model.load_state_dict(trainer.model.state_dict())
    with learn.no_bar(), learn.no_logging():
        columns = dict(zip([metric.name for metric in learn.metrics], learn.validate()[1:], strict=True))
    assert {name: found[f"eval_{name}"] for name in columns} == pytest.approx(columns, abs=1e-3)


def scores(pipe: Pipeline, split: Any) -> dict[str, float]:
    """What `evaluate` finds: the loss over all labels, and the task's scores."""
    losses, counts, _ = pipe.losses(split)
    loss = float(np.average(losses.astype(np.float64), weights=counts))
    if pipe.task.kind == "language":
        return {"loss": loss, "perplexity": float(np.exp(loss))}
    if pipe.task.kind == "text":
        return {"loss": loss}
    known = pipe.task.metrics(list(pipe.predict(split)), split.targets(0, len(split)))
    return {"loss": loss} | {score.name.lower().replace(" ", "_"): float(score.value) for score in known}


@pytest.mark.parametrize("name", ["one label", "entities", "masks"])
@pytest.mark.parametrize(
    "options",
    [
        LoaderOptions(bs=BS),
        LoaderOptions(bs=BS, seed=7, bucket=True),
        LoaderOptions(bs=BS, bucket=False),
        LoaderOptions(bs=BS, max_tokens=40),
    ],
    ids=["plain", "buckets", "shuffled", "tokens"],
)
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_those_of_the_learner(name: str, options: LoaderOptions, drop_last: bool, made: Callable[[str], Made], tmp_path: Path):
    case = made(name)
    pipe = case.pipe()
    trainer = hf_trainer(pipe, case.rows, arguments(tmp_path, dataloader_drop_last=drop_last), loaders=options)
    theirs, ours = trainer.get_train_dataloader(), dataloaders(pipe, case.rows, options=options).train
    ours = ours.new(drop_last=drop_last)
    for epoch in range(3):
        theirs.set_epoch(epoch)
        assert len(theirs) == len(ours)
        for found, (inputs, labels) in itertools.zip_longest(theirs, list(ours)):
            assert torch.equal(found["labels"], labels)
            assert set(found) == {*inputs, "labels", "windows"}
            assert all(torch.equal(found[name], inputs[name]) for name in inputs)


def test_no_batch_is_left_out_where_epochs_differ(made: Callable[[str], Made], tmp_path: Path) -> None:
    case, loaders = made("entities"), LoaderOptions(bs=8, max_tokens=70)
    pipe = case.pipe()
    counts = [len(dataloaders(pipe, case.rows, options=loaders).train.plan(epoch)) for epoch in range(12)]
    assert len(set(counts)) > 1, "the epochs have different numbers of batches, or this test shows nothing"
    changes = {"num_train_epochs": 12, "per_device_train_batch_size": 8}
    trainer = hf_trainer(pipe, case.rows, arguments(tmp_path, **changes), loaders=loaders)
    trainer.train()
    assert trainer.state.global_step == len(losses_of(trainer)) == sum(counts)
    with pytest.raises(SettingError, match="mix gradients"):
        hf_trainer(case.pipe(), case.rows, arguments(tmp_path, gradient_accumulation_steps=2, **changes), loaders=loaders).train()


@pytest.mark.parametrize(("epochs", "most", "wanted"), [(3, -1, (3, 5, 12)), (2.5, -1, (3, 5, 10)), (9, 4, (2, 5, 4)), (1, 12, (3, 5, 12))])
def test_steps_of_epochs_that_differ(epochs: float, most: int, wanted: tuple[int, int, int]) -> None:
    assert epoch_steps(lambda epoch: [3, 5, 4][epoch], epochs, most) == wanted


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_shares_cover_an_epoch_evenly(batches: int, processes: int, epoch: int) -> None:
    plan = [np.array([number, 100 + number]) for number in range(batches)]
    loader = SimpleNamespace(plan=lambda epoch: plan if epoch % 2 else plan[::-1])
    shares = [list(Share(loader, rank, processes, epoch)) for rank in range(processes)]
    assert {len(share) for share in shares} == {len(Share(loader, 0, processes, epoch))}
    rounds = [one for together in zip(*shares, strict=True) for one in together]
    assert rounds[:batches] == [batch.tolist() for batch in loader.plan(epoch)]
    assert rounds[batches:] == (rounds * processes)[: len(rounds) - batches]


@pytest.mark.parametrize("name", ["one label", "entities", "packed"])
def test_tokens_count_the_same_over_accumulated_batches(name: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made(name)
    args = arguments(tmp_path, gradient_accumulation_steps=3, max_steps=1, optim="sgd", learning_rate=1.0, weight_decay=0.0)
    trainer = hf_trainer(case.pipe(), case.rows, args)
    trainer.train()
    pipe = case.pipe()
    first = list(itertools.islice(dataloaders(pipe, case.rows, options=LoaderOptions(bs=BS)).train, 3))
    run = lambda inputs, n: pipe.task.run(pipe.model, Batch(inputs, None, np.arange(n), np.arange(n), np.arange(n))).logits  # noqa: E731
    counts = [int((labels[:, 1:] if name == "packed" else labels).ne(-100).sum()) for _, labels in first]
    assert name == "one label" or len(set(counts)) > 1
    loss = sum(case.case.loss(run(inputs, len(labels)), labels) * count for (inputs, labels), count in zip(first, counts, strict=True))
    (loss / sum(counts)).backward()
    assert losses_of(trainer) == pytest.approx([float(loss / sum(counts))], rel=1e-5)
    trained = dict(trainer.model.named_parameters())
    for key, parameter in pipe.model.named_parameters():
        moved = 0 if parameter.grad is None else parameter.grad
        assert torch.allclose(trained[key], parameter - moved, atol=1e-6), key


# --- what it is made of ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one label", "rows", "texts"])
def test_weights_decay_as_with_the_learner(name: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made(name)
    trainer = hf_trainer(case.pipe(), case.rows, arguments(tmp_path))
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    spared = {names[id(one)] for group in groups for one in group["params"] if group["weight_decay"] == 0}
    assert spared == no_decay(trainer.model) and spared
    assert {group["weight_decay"] for group in groups} == {0.0, DECAY}
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_frozen_weights_stay(made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made("one label")
    pipe = case.pipe()
    for parameter in pipe.model.base_model.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(pipe.model.state_dict())
    hf_trainer(pipe, case.rows, arguments(tmp_path, max_steps=2)).train()
    changed = {name for name, tensor in pipe.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    "changes",
    [{"activation_checkpointing": True}, {"bf16": True}, {"neftune_noise_alpha": 5.0}, {"optim": "adafactor"}, {"warmup_steps": 0.5}],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("name", ["one label", "rows", "texts"])
def test_what_trainer_can_do_besides(name: str, changes: dict[str, Any], made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made(name)
    trainer, plain = (
        hf_trainer(case.pipe(), case.rows, arguments(tmp_path, max_steps=4, lr_scheduler_type="linear", **more)) for more in (changes, {})
    )
    trainer.train()
    plain.train()
    near = {"activation_checkpointing": 1e-5, "bf16": 3e-2}.get(next(iter(changes)), 0.5)
    assert losses_of(trainer) == pytest.approx(losses_of(plain), rel=near)
    assert np.isfinite(trainer.evaluate()["eval_loss"])


def test_scores_are_chosen_by_name(made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made("texts")
    found = hf_trainer(case.pipe(), case.rows, arguments(tmp_path), metrics=["rouge-l"]).evaluate()
    assert 0 <= found["eval_rouge-l"] <= 1 and "eval_exact_match" not in found
    case = made("one label")
    trainer = hf_trainer(case.pipe(), case.rows, arguments(tmp_path), metrics=())
    assert {"eval_loss"} == {name for name in trainer.evaluate() if name in ("eval_loss", "eval_accuracy")}
    assert trainer.evaluate(case.rows.train)["eval_loss"] == pytest.approx(scores(trainer.pipe, case.rows.train)["loss"])
    with pytest.raises(SettingError, match="no score 'bleu'"):
        hf_trainer(case.pipe(), case.rows, arguments(tmp_path), metrics=["bleu"])


def test_losses_are_weighed_as_in_the_learner(made: Callable[[str], Made], tmp_path: Path) -> None:
    case, options = made("one label"), LossOptions(label_smoothing=0.1)
    trainer = hf_trainer(case.pipe(), case.rows, arguments(tmp_path, num_train_epochs=1), loss=options)
    trainer.train()
    pipe = case.pipe()
    inputs, labels = next(iter(dataloaders(pipe, case.rows, options=LoaderOptions(bs=BS)).train))
    wanted = functional.cross_entropy(pipe.model(**inputs).logits, labels, label_smoothing=0.1)
    assert losses_of(trainer)[0] == pytest.approx(float(wanted), rel=1e-5)


def test_the_best_epoch_comes_back(made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made("one label")
    changes = {"eval_strategy": "epoch", "save_strategy": "epoch", "save_only_model": True, "load_best_model_at_end": True}
    trainer = hf_trainer(case.pipe(), case.rows, arguments(tmp_path, metric_for_best_model="accuracy", num_train_epochs=3, **changes))
    trainer.train()
    best = trainer.state.best_metric
    assert best == max(line["eval_accuracy"] for line in trainer.state.log_history if "eval_accuracy" in line)
    assert trainer.evaluate()["eval_accuracy"] == best
    assert not [path for path in tmp_path.rglob("*") if path.suffix in PICKLES]
    assert [path.name for path in tmp_path.rglob("training_args.json")]


# --- folders that open on both sides -----------------------------------------------------------------------------------


def test_what_it_saves_opens_on_both_sides(made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made("one label")
    pipe = case.pipe()
    before = pipe.model.config.to_dict()
    trainer = hf_trainer(pipe, case.rows, arguments(tmp_path / "run"))
    assert pipe.model.config.to_dict() == before, "Trainer leaves the config as it was"
    trainer.train()
    trainer.save_model(str(tmp_path / "theirs"))
    assert not [path for path in (tmp_path / "theirs").iterdir() if path.suffix in PICKLES]
    texts = list(TEXTS)
    wanted = pipe.predict(texts)
    opened = Pipeline.new(pipe.task, tmp_path / "theirs")
    assert np.array_equal(opened.predict(texts).logits, wanted.logits) and not opened.provenance.new_names()
    named = Pipeline.new("text-classification", tmp_path / "theirs")
    assert named.task.labels == pipe.task.labels and named.predict(texts).answers() == wanted.answers()
    model, tokenizer = (kind.from_pretrained(tmp_path / "theirs") for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
    assert np.allclose(logits.numpy(), wanted.logits, atol=1e-5)
    assert [model.config.id2label[number] for number in logits.argmax(-1).tolist()] == wanted.answers()

    loaded = pl.load(pl.save(trainer.pipe, tmp_path / "ours"))
    assert np.array_equal(loaded.predict(texts).logits, wanted.logits)
    again = hf_trainer(loaded, case.rows, arguments(tmp_path / "again", max_steps=1))
    first = again.evaluate()
    assert first["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"])
    again.train()
    plain = Trainer(AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours"), arguments(tmp_path / "plain"))
    assert set(plain.model.state_dict()) == set(pipe.model.state_dict())


def test_no_pickle_is_made_and_one_that_was_there_stays(made: Callable[[str], Made], tmp_path: Path, monkeypatch: Any) -> None:
    case, calls = made("one label"), []
    monkeypatch.setattr(torch, "save", lambda *given, **named: calls.append(given))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "training_args.bin").write_bytes(b"of somebody else")
    trainer = hf_trainer(case.pipe(), case.rows, arguments(tmp_path, save_strategy="epoch", save_only_model=True, num_train_epochs=1))
    trainer.train()
    trainer.save_model(str(tmp_path / "mine"))
    assert not calls
    assert (tmp_path / "mine" / "training_args.bin").read_bytes() == b"of somebody else"
    assert json.loads((tmp_path / "mine" / "training_args.json").read_text())["num_train_epochs"] == 1
    assert list(tmp_path.glob("checkpoint-*/training_args.json"))


def with_adapters(made: Made) -> Pipeline:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'pellucid[peft]'")
    return pl.adapted(made.pipe(), pl.AdapterOptions(rank=4))


def test_adapters_are_saved_as_adapters(made: Callable[[str], Made], tmp_path: Path) -> None:
    case, texts = made("one label"), list(TEXTS)
    pipe = with_adapters(case)
    before = pipe.predict(texts).logits
    trainer = hf_trainer(pipe, case.rows, arguments(tmp_path / "run", num_train_epochs=1, learning_rate=1e-1))
    trainer.train()
    for _ in range(2):  # the second replaces the first
        trainer.save_model(str(tmp_path / "adapters"))
    names = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "pellucid.json", "training_args.json", "tokenizer.json"} <= names
    assert not names & {"model.safetensors", "config.json"}
    wanted = pipe.predict(texts).logits
    assert np.abs(wanted - before).max() > 1e-3
    assert np.array_equal(pl.load(tmp_path / "adapters").predict(texts).logits, wanted)
    with pytest.raises(CheckpointError, match=r"holds an adapter.*pellucid\.load"):
        Pipeline.new("text-classification", tmp_path / "adapters")

    from peft import PeftModel

    opened = PeftModel.from_pretrained(case.pipe().model, str(tmp_path / "adapters")).eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "adapters")(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        assert np.allclose(opened(**tokens).logits.numpy(), wanted, atol=1e-5)


def test_checkpoints_of_adapters_open_and_the_best_comes_back(made: Callable[[str], Made], tmp_path: Path) -> None:
    case, texts, seen = made("one label"), list(TEXTS), {}
    pipe = with_adapters(case)

    class Answers(TrainerCallback):
        """The answers at every checkpoint."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen[state.global_step] = pipe.predict(texts).logits

    changes = {"eval_strategy": "epoch", "save_strategy": "epoch", "save_only_model": True, "load_best_model_at_end": True}
    given = arguments(tmp_path, num_train_epochs=3, learning_rate=1e-1, metric_for_best_model="loss", greater_is_better=True, **changes)
    trainer = hf_trainer(pipe, case.rows, given)
    trainer.add_callback(Answers())
    trainer.train()
    assert len(seen) == 3 and trainer.state.best_global_step in list(seen)[:2], "or this test shows nothing"
    for step, wanted in seen.items():
        folder = tmp_path / f"checkpoint-{step}"
        assert (folder / "trainer_state.json").exists() and not (folder / "model.safetensors").exists()
        assert np.array_equal(pl.load(folder).predict(texts).logits, wanted)
    assert np.array_equal(pipe.predict(texts).logits, seen[trainer.state.best_global_step])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric)
    again = hf_trainer(pl.load(tmp_path / f"checkpoint-{step}"), case.rows, arguments(tmp_path / "again", max_steps=1))
    again.train()
    hf_trainer(with_adapters(case), case.rows, replace(given, save_total_limit=1)).train()  # into the same folders
    with pytest.raises(SettingError, match=r"none were kept.*pl\.load"):
        trainer.train(resume_from_checkpoint=str(folder))


def test_adapters_do_not_replace_what_is_no_save(made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made("one label")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "training_args.bin").write_bytes(b"of somebody else")
    trainer = hf_trainer(with_adapters(case), case.rows, arguments(tmp_path / "run"))
    with pytest.raises(StorageError, match="cannot recognise"):
        trainer.save_model(str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["training_args.bin"]


@pytest.mark.parametrize("sharing", ["fsdp", "deepspeed"])
def test_adapters_of_weights_that_are_shared_out_are_refused(sharing: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made("one label")
    trainer = hf_trainer(with_adapters(case), case.rows, arguments(tmp_path))
    setattr(trainer, f"is_{sharing}_enabled", True)  # as Trainer finds it on GPUs
    with pytest.raises(SettingError, match="share the weights out, and adapters") as error:
        trainer.train()
    assert error.value.place == "args" and "merged" in str(error.value.cure)


# --- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"save_strategy": "steps"}, "pickles"),
        ({"enable_jit_checkpoint": True}, "pickles"),
        ({"push_to_hub": True}, "push_to_hub"),
        ({"label_smoothing_factor": 0.1}, "LossOptions"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers"),
        ({"train_sampling_strategy": "group_by_length"}, "bucket=True"),
        ({"auto_find_batch_size": True}, "max_tokens"),
        ({"prediction_loss_only": True}, "metrics"),
        ({"batch_eval_metrics": True}, "batch_eval_metrics"),
        ({"eval_do_concat_batches": False}, "eval_do_concat_batches"),
    ],
)
def test_arguments_that_would_do_nothing_or_harm_are_refused(
    changes: dict[str, Any], word: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    case = made("one label")
    with pytest.raises(SettingError) as error:
        hf_trainer(case.pipe(), case.rows, arguments(tmp_path, **changes))
    assert word in f"{error.value} {error.value.cure}"
    assert error.value.place in changes or word == "pickles"


def test_what_does_not_fit_is_said(made: Callable[[str], Made], tmp_path: Path) -> None:
    case = made("one label")
    pipe, rows = case.pipe(), case.rows
    with pytest.raises(SettingError, match="bs is 16 in loaders and 4"):
        hf_trainer(pipe, rows, arguments(tmp_path), loaders=LoaderOptions(bs=16))
    with pytest.raises(SettingError, match="seed is 42 in loaders and 3"):
        hf_trainer(pipe, rows, arguments(tmp_path, data_seed=3), loaders=LoaderOptions(bs=BS))
    trainer = hf_trainer(pipe, rows, arguments(tmp_path, data_seed=3))
    assert trainer.options.seed == 3
    with pytest.raises(SettingError, match="none were kept"):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(SettingError, match=r"pipe\.predict|logits without"):
        trainer.predict(rows.valid)
    with pytest.raises(SettingError, match="expected a split of rows, came list"):
        trainer.evaluate(["a text"])
    with pytest.raises(DataError, match="no labels to evaluate"):
        trainer.evaluate(rows.valid.without_targets())
    with pytest.raises(SettingError, match="float32"):
        hf_trainer(replace(pipe, model=copy.deepcopy(pipe.model).bfloat16()), rows, arguments(tmp_path))
    with pytest.raises(DataError, match="no labels"):
        hf_trainer(pipe, pl.read([{"text": text} for text in TEXTS], text="text", label=False), arguments(tmp_path))


# --- several processes -------------------------------------------------------------------------------------------------

START = """
import json, sys
from pathlib import Path
import torch
import pellucid as pl

tag, folder, given, kind, out, changes = *sys.argv[1:3], json.loads(sys.argv[3]), *sys.argv[4:6], json.loads(sys.argv[6])
rows = pl.read(given, text="text", label="label", split="split", options=pl.ReadOptions(label_kind=kind))
torch.manual_seed(1)
pipe = pl.Pipeline.new(tag, folder, rows, tokens=pl.TokenOptions(max_length=64))
"""
TRAIN = """
from transformers import TrainingArguments  # after the pipeline: it hides a torchvision that does not fit torch
args = TrainingArguments(out, **changes)
trainer = pl.hf_trainer(pipe, rows, args)
trainer.train()
found = [trainer.evaluate(split) for split in (rows.valid, rows.train)]
trainer.save_model(out + "/saved")
losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
seen = {"how": trainer.accelerator.distributed_type.value, "losses": losses, "found": found}
Path(out + f"/{args.process_index}.json").write_text(json.dumps(seen))
trainer.end()
"""
SHARD = """
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from transformers import TrainingArguments
trainer = pl.hf_trainer(pipe, rows, TrainingArguments(out, **changes))
batch = next(iter(trainer.get_train_dataloader()))
mesh = init_device_mesh("cpu", (2,))
for layer in [*pipe.model.base_model.encoder.layer, pipe.model]:
    fully_shard(layer, mesh=mesh)
loss = trainer.compute_loss(pipe.model, batch)
loss.backward()
answers = pipe.predict(rows.valid).logits.tolist()
kinds = sorted({type(one.grad).__name__ for one in pipe.model.parameters() if one.grad is not None})
Path(out + f"/{dist.get_rank()}.json").write_text(json.dumps({"loss": loss.item(), "answers": answers, "kinds": kinds}))
trainer.end()
"""


def two_processes(made: Made, script: str, folder: Path, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of two processes wrote down."""
    (folder / "door.py").write_text(START + script)
    case = made.case
    given = [case.tag, str(made.folder), json.dumps(made.given), case.kind, str(folder), json.dumps({**GIVEN, **changes})]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "door.py", *given],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["entities", "one label"])
def test_two_processes_make_the_steps_of_one(name: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    case, sizes = made(name), {"per_device_train_batch_size": 3, "per_device_eval_batch_size": 4}
    one = hf_trainer(case.pipe(), case.rows, arguments(tmp_path / "one", gradient_accumulation_steps=2, **sizes))
    one.train()
    wanted = [one.evaluate(split) for split in (case.rows.valid, case.rows.train)]
    two = two_processes(case, TRAIN, tmp_path, {**sizes, "ddp_backend": "gloo"})
    assert two[0]["losses"] == pytest.approx(losses_of(one), rel=1e-4)
    for each in two:
        assert each["how"] == "MULTI_CPU"
        for found, expected in zip(each["found"], wanted, strict=True):
            names = [name for name in expected if not name.endswith(("second", "time", "epoch"))]
            assert "eval_loss" in names and len(names) > 2
            assert {name: found[name] for name in names} == pytest.approx({name: expected[name] for name in names}, rel=1e-4)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in PICKLES]
    texts = list(TEXTS)
    saved = Pipeline.new(one.pipe.task, tmp_path / "saved")
    assert np.allclose(saved.predict(texts).logits, one.pipe.predict(texts).logits, atol=1e-3)


@pytest.mark.slow
def test_a_sharded_model_has_the_same_loss_and_answers(made: Callable[[str], Made], tmp_path: Path) -> None:
    """FSDP2's own sharding, which Trainer switches on for GPUs alone: here on a CPU."""
    case = made("one label")
    found = two_processes(case, SHARD, tmp_path, {"ddp_backend": "gloo"})
    pipe = case.pipe()
    plan = dataloaders(pipe, case.rows, options=LoaderOptions(bs=BS)).train.plan(0)
    trainer = hf_trainer(pipe, case.rows, arguments(tmp_path))
    for rank, each in enumerate(found):
        batch = trainer.get_train_dataloader().share.collate(plan[rank].tolist())
        assert each["kinds"] == ["DTensor"]
        assert each["loss"] == pytest.approx(float(trainer.compute_loss(pipe.model, batch).detach()), rel=1e-5)
        assert np.allclose(each["answers"], pipe.predict(case.rows.valid).logits, atol=1e-5)
