"""Fill-mask: the same words as transformers' pipeline, masks written in any way, windows, training, bad input, and back from disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import SENTENCES, tiny_config
from matrix import ARCHITECTURES, COLUMNS, Architecture, subject, tokenizers_of
from pellucid.batch import IGNORED
from pellucid.masking import CONTINUES
from pellucid.pipelines import Pipeline
from pellucid.task import settings_of
from pellucid.tasks.masked_lm import FillMask
from pellucid.testing import CHECKS, Subject
from pellucid.tokens import LongTexts, TokenOptions
from pellucid.types import Example, Want

MODELS = {"bert": "wordpiece", "xlm-roberta": "unigram", "byte-level": "bytes"}
ALL = pl.ReadOptions(valid_fraction=0.0)


def byte_level_with_mask() -> Any:
    """RoBERTa's kind: bytes, <s> … </s>, and a mask that takes in the space before it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    mask = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, model_input_names=inputs, mask_token=mask, **names)


@pytest.fixture(scope="module")
def folders(tiny_tokenizers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random masked language models with three kinds of tokenizer."""
    from transformers import AutoModelForMaskedLM

    found = {}
    for name, kind in MODELS.items():
        tokenizer = byte_level_with_mask() if kind == "bytes" else tiny_tokenizers[kind]
        folder = tmp_path_factory.mktemp("masked") / name
        config = tiny_config("bert" if name == "bert" else "xlm-roberta", len(tokenizer))
        config.tie_word_embeddings = False  # random tied embeddings would find each token itself
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = AutoModelForMaskedLM.from_config(config)
            for parameter in model.parameters():  # far from uniform, so that candidates do not tie
                parameter.data = torch.randn_like(parameter) * 0.3 if parameter.dim() > 1 else parameter.data
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = folder
    return found


@pytest.fixture(scope="module")
def pipes(folders: dict[str, Path]) -> dict[str, Pipeline]:
    return {name: Pipeline.new("fill-mask", folder) for name, folder in folders.items()}


def texts_of(mask: str) -> list[str]:
    return [f"The {mask} is dull, the jokes are old.", f"{mask} hours of my life", f"I laughed, I {mask}", f"a talented cast {mask} it"]


# --- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_same_words_as_transformers(name: str, folders: dict[str, Path], pipes: dict[str, Pipeline]) -> None:
    from transformers import pipeline

    pipe = pipes[name]
    theirs = pipeline("fill-mask", model=str(folders[name]), tokenizer=str(folders[name]))
    special = set(pipe.task.special_ids)
    for text in texts_of(pipe.tokenizer.mask_token):
        wanted = [found for found in theirs(text, top_k=5 + len(special)) if found["token"] not in special][:5]
        prediction = pipe(text)
        assert [span.label for span in prediction.spans] == [found["token_str"] for found in wanted]
        assert [span.score for span in prediction.spans] == pytest.approx([found["score"] for found in wanted], abs=1e-5)
        said = [str(prediction.answer), *(other for other, _ in prediction.alternatives)]
        for ours, found in zip(said, wanted, strict=True):
            if "�" not in found["token_str"] and found["token_str"].strip():  # half a character, or a space: spelled by nobody
                assert squeezed(ours) == squeezed(found["sequence"]).removeprefix("##"), found


def squeezed(text: str) -> str:
    """Letters without capitals and spaces: transformers spells the whole text anew, pellucid leaves it alone."""
    return "".join(text.lower().split())


@pytest.mark.parametrize("name", MODELS)
def test_several_masks_have_their_own_words(name: str, folders: dict[str, Path], pipes: dict[str, Pipeline]) -> None:
    from transformers import pipeline

    pipe, mask = pipes[name], pipes[name].tokenizer.mask_token
    text = f"The {mask} is dull, the {mask} are old."
    special = set(pipe.task.special_ids)
    theirs = pipeline("fill-mask", model=str(folders[name]), tokenizer=str(folders[name]))(text, top_k=20)
    wanted = [[found for found in each if found["token"] not in special][:5] for each in theirs]
    prediction = pipe(text)
    assert [span.label for span in prediction.spans] == [found["token_str"] for each in wanted for found in each]
    assert [span.score for span in prediction.spans] == pytest.approx([found["score"] for each in wanted for found in each], abs=1e-5)
    places = [text.index(mask), text.rindex(mask)]
    assert [span.start for span in prediction.spans] == [places[0]] * 5 + [places[1]] * 5
    assert all(text[span.start : span.end] == mask == span.text for span in prediction.spans)
    assert not prediction.scores and not prediction.alternatives
    assert mask not in str(prediction.answer) and str(prediction.answer).endswith(" are old.")


def test_targets_are_the_only_words(folders: dict[str, Path]) -> None:
    from transformers import pipeline

    words = ("film", "plot", "again", "city")
    pipe = Pipeline.new(FillMask(targets=words, top_k=3), folders["bert"])
    wanted = pipeline("fill-mask", model=str(folders["bert"]), tokenizer=str(folders["bert"]))("a [MASK] of", targets=list(words), top_k=3)
    prediction = pipe("a [MASK] of")
    assert [span.label for span in prediction.spans] == [found["token_str"] for found in wanted]
    assert list(prediction.scores.values()) == pytest.approx([found["score"] for found in wanted], abs=1e-6)
    long = next(word for word in ("triumphant", "wonderfully") if len(pipe.tokenizer.tokenize(word)) > 1)
    notes = [str(note) for note in Pipeline.new(FillMask(targets=(long,)), folders["bert"]).notes]
    assert any(f"stands for {long!r}" in note for note in notes), "a word of several pieces is said"
    with pytest.raises(pl.PellucidError, match="no piece for '☃'"):
        Pipeline.new(FillMask(targets=("☃",)), folders["bert"])
    with pytest.raises(pl.PellucidError, match="not fitted"):
        replace(pipe, task=replace(pipe.task, targets=(), target_ids=(5,)))("a [MASK]")


@pytest.mark.parametrize("name", MODELS)
def test_masks_are_read_however_they_are_written(name: str, pipes: dict[str, Pipeline]) -> None:
    pipe = pipes[name]
    one, other = pipe("The [MASK] is dull."), pipe("The <mask> is dull.")
    assert one.scores == other.scores and one.answer == other.answer
    said = next(str(note) for note in pipe.notes if "a mask is written" in str(note))
    assert pipe.tokenizer.mask_token in said and ("<mask>" in said and "[MASK]" in said)


@pytest.mark.parametrize("name", MODELS)
def test_other_special_tokens_stay_text(name: str, pipes: dict[str, Pipeline]) -> None:
    pipe, mask = pipes[name], pipes[name].tokenizer.mask_token
    table = pipe.task.encode(pipe.tokenizer, {"text": [f"a {pipe.tokenizer.sep_token} {mask} b"]}, None, pipe.options)
    ids = table.ids_of(0).tolist()
    assert ids.count(pipe.tokenizer.sep_token_id) == 1 and ids.count(pipe.tokenizer.mask_token_id) == 1
    before = pipe.tokenizer.backend_tokenizer.to_str()
    pipe(f"a {mask}")
    assert pipe.tokenizer.backend_tokenizer.to_str() == before, "the tokenizer is left alone"


def test_ids_with_gaps_between_them(tiny_tokenizers: dict[str, Any]) -> None:
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from pellucid.tokenizer import private_twin

    described = json.loads(tiny_tokenizers["wordpiece"].backend_tokenizer.to_str())
    described["added_tokens"].append({**described["added_tokens"][-1], "id": 5000, "content": "<far>"})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(described)), mask_token="[MASK]")
    ids = private_twin(tokenizer, False, ("[MASK]",)).encode("[MASK] <far> [SEP]", add_special_tokens=False).ids
    assert ids.count(tokenizer.mask_token_id) == 1 and not {5000, tokenizer.convert_tokens_to_ids("[SEP]")} & set(ids)
    assert tokenizer.mask_token_id not in private_twin(tokenizer, False).encode("[MASK]", add_special_tokens=False).ids


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("text", ["A\u00a0b  {} ,\n c🎉 {}!", "{}", "  {}  ", "{}{}", "überraschend {} 素晴らしい"])
def test_all_other_characters_stay(name: str, text: str, pipes: dict[str, Pipeline]) -> None:
    pipe = pipes[name]
    given = text.replace("{}", "[MASK]")
    prediction = pipe(given)
    first, *rest = text.split("{}")
    answer = str(prediction.answer)
    assert answer.startswith(first.rstrip(" ")) and answer.endswith(rest[-1])
    assert len({(span.start, span.end) for span in prediction.spans}) == len(rest)


def test_the_trace_shows_the_mask_and_the_characters_as_they_were_given(pipes: dict[str, Pipeline]) -> None:
    for pipe in pipes.values():
        trace = pipe.trace("The [MASK] is dull, the <mask> are old.")
        tokens = trace.tokens[0]
        masks = [position for position, token in enumerate(tokens.ids) if token == pipe.tokenizer.mask_token_id]
        text = trace.example.fields["text"]
        assert [text[slice(*tokens.offsets[position])].strip() for position in masks] == ["[MASK]", "<mask>"]
        assert tokens.ids == tuple(trace.batch.inputs["input_ids"][0].tolist())
        assert trace.prediction == pipe(text)
        pl.show(trace)
        pl.show(pipe.task.view(trace.prediction, trace.example))


def test_offsets_count_in_the_given_text_where_the_mask_is_longer(folders: dict[str, Path]) -> None:
    pipe = Pipeline.new("fill-mask", folders["bert"])
    task = replace(pipe.task, mask_token="[MASKED]")
    pipe.tokenizer.add_special_tokens({"mask_token": "[MASKED]"})
    task = replace(task, mask_id=pipe.tokenizer.mask_token_id)
    example = Example(0, {"text": "an <mask> film [MASK] it [MASKED]."})
    tokens = task.windows_of(pipe.tokenizer, example, pipe.options)[0]
    read = [example.fields["text"][slice(*offset)] for offset, special in zip(tokens.offsets, tokens.special, strict=True) if not special]
    assert "".join(read) == example.fields["text"].replace(" ", "")


# --- long texts --------------------------------------------------------------------------------------------------------


def test_long_texts_are_read_whole(pipes: dict[str, Pipeline]) -> None:
    pipe = pipes["bert"]
    text = " ".join(["the [MASK] is old"] * 60)
    prediction = pipe(text)
    assert len({(span.start, span.end) for span in prediction.spans}) == 60
    assert "[MASK]" not in str(prediction.answer)
    shared = replace(pipe, options=replace(pipe.options, long=LongTexts("windows", stride=20)))(text)
    assert [span.start for span in shared.spans] == [span.start for span in prediction.spans], "a mask in two windows counts once"
    cut = replace(pipe, options=replace(pipe.options, long=LongTexts("truncate")))(text)
    kept = len({span.start for span in cut.spans})
    assert 0 < kept < 60 and str(cut.answer).count("[MASK]") == 60 - kept, "a mask that was cut off stays"
    with pytest.raises(pl.PellucidError, match="truncation cut every mask"):
        replace(pipe, options=replace(pipe.options, long=LongTexts("truncate")))("old " * 200 + "[MASK]")


def test_rows_of_one_batch_may_have_other_numbers_of_masks(pipes: dict[str, Pipeline]) -> None:
    for pipe in pipes.values():
        texts = ["[MASK]", "the [MASK] is [MASK], the [MASK] are old", "two [MASK]"]
        together = list(pipe.predict(texts))
        for text, one in zip(texts, together, strict=True):
            alone = pipe(text)
            assert [span.place for span in alone.spans] == [span.place for span in one.spans]
            assert [span.score for span in alone.spans] == pytest.approx([span.score for span in one.spans], abs=1e-6)


# --- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_contract(name: str, check: Any, pipes: dict[str, Pipeline], tmp_path: Path) -> None:
    rows = pl.read([{"text": f"{text} [MASK]"} for text in SENTENCES[:6]], text="text", label=False, options=ALL)
    check(Subject(pipes[name], rows.train, tmp_path))


def test_saved_and_loaded_it_answers_the_same(pipes: dict[str, Pipeline], tmp_path: Path) -> None:
    pipe = replace(pipes["bert"], task=replace(pipes["bert"].task, masking="whole-words", mask_share=0.3, top_k=7))
    again = pl.load(pl.save(pipe, tmp_path / "model"))
    assert again.task == pipe.task and settings_of(again.task)["masking"] == "whole-words"
    assert again("the [MASK] is old") == pipe("the [MASK] is old")


# --- training ----------------------------------------------------------------------------------------------------------


def rows_of(count: int = 24) -> pl.Rows:
    texts = [{"text": f"{SENTENCES[row % len(SENTENCES)]} {SENTENCES[(row * 5) % len(SENTENCES)]}"} for row in range(count)]
    return pl.read({"train": texts, "valid": texts[:6]}, text="text", label=False)


@pytest.mark.parametrize("masking", ["tokens", "whole-words", "spans"])
@pytest.mark.parametrize("name", MODELS)
def test_five_steps_lower_the_loss(name: str, masking: str, folders: dict[str, Path]) -> None:
    pipe = Pipeline.new(FillMask(masking=masking), folders[name])  # type: ignore[arg-type]
    before = mean_loss(pipe, rows_of().valid)
    learn = pl.learner(pipe, rows_of(), options=pl.LearnerOptions(lr=5e-3))
    with learn.no_bar(), learn.no_logging():
        learn.fit(3)
    assert mean_loss(pipe, rows_of().valid) < before
    assert "perplexity" in learn.recorder.metric_names


def mean_loss(pipe: Pipeline, split: Any) -> float:
    """The mean loss of a hidden token."""
    losses, counts, _ = pipe.losses(split)
    return float((losses * counts).sum() / counts.sum())


def test_batches_and_results_show_the_hidden_words(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pipe = Pipeline.new(FillMask(masking="whole-words", as_mask=1.0, as_random=0.0), folders["bert"])
    learn = pl.learner(pipe, rows_of())
    learn.dls.show_batch(max_n=3)
    shown = capsys.readouterr().out
    assert "[MASK]" in shown
    with learn.no_bar(), learn.no_logging():
        learn.show_results(max_n=3)
    assert "predicted" in capsys.readouterr().out


def test_what_stands_in_the_label_column() -> None:
    labels, words = np.array([IGNORED, 5, 6, IGNORED, 7, IGNORED]), {5: "film", 6: "festival", 7: "old"}
    assert FillMask().label_text(labels, labels, lambda ids: " ".join(words[number] for number in ids)) == "film festival · old"


def test_whole_words_are_those_of_the_tokenizer(pipes: dict[str, Pipeline]) -> None:
    for pipe in pipes.values():
        task = replace(pipe.task, masking="whole-words", mask_share=0.4)
        pipe = replace(pipe, task=task)
        split = rows_of(6).train
        table = task.to_learn(pipe.encode(split))
        labels = np.asarray(table.labels)
        for window in range(len(table)):
            tokens = task.windows_of(pipe.tokenizer, split[int(table.rows[window])], pipe.options)[int(table.windows[window])]
            inside = labels[table.starts[window] : table.starts[window + 1]] >= CONTINUES
            words = tokens.words
            expected = [i > 0 and words[i] is not None and words[i] == words[i - 1] for i in range(len(words))]
            assert inside.tolist() == expected


def test_a_mask_in_a_training_text_is_nothing_to_learn(pipes: dict[str, Pipeline]) -> None:
    pipe = pipes["bert"]
    table = pipe.task.to_learn(pipe.task.encode(pipe.tokenizer, {"text": ["the [MASK] film"]}, None, pipe.options))
    ids, labels = np.asarray(table.ids), np.asarray(table.labels)
    assert (labels[ids == pipe.task.mask_id] == IGNORED).all() and (labels[~np.isin(ids, pipe.task.special_ids)] >= 0).all()


def test_the_loss_of_a_window_is_the_mean_over_its_hidden_tokens() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 4, 9), torch.tensor([[1, IGNORED, 2, IGNORED], [IGNORED] * 4, [IGNORED, IGNORED, IGNORED, 8]])
    loss = FillMask().loss(logits, labels)
    chances = -logits.log_softmax(-1)
    assert loss.tolist() == pytest.approx([float(chances[0, 0, 1] + chances[0, 2, 2]) / 2, 0.0, float(chances[2, 3, 8])], abs=1e-6)


def test_a_new_head_is_made_and_said(minilm_folder: Path) -> None:
    pipe = Pipeline.new("fill-mask", str(minilm_folder))
    assert any("a new MaskedLM head" in str(note) for note in pipe.notes)
    assert pipe.provenance.new_names()
    assert len(pipe("Paris is the [MASK] of France.").spans) == 5


def test_evaluation_is_the_perplexity_of_the_masks_that_never_change(folders: dict[str, Path]) -> None:
    for seed in (1, 2):
        pipe = Pipeline.new(FillMask(seed=seed), folders["bert"])
        scores = {score.name: score.value for score in pl.evaluate(pipe, rows_of().valid).scores}
        assert scores["perplexity"] == pytest.approx(np.exp(mean_loss(pipe, rows_of().valid)), rel=1e-5)
        assert scores == pytest.approx({score.name: score.value for score in pl.evaluate(pipe, rows_of().valid).scores})


def test_the_trained_model_knows_more(folders: dict[str, Path]) -> None:
    rows = pl.read({"train": [{"text": "the film is old"}] * 64, "valid": [{"text": "the film is old"}] * 4}, text="text", label=False)
    trained = pl.train(rows, "fill-mask", folders["bert"], options=pl.TrainOptions(epochs=24, learning_rate=5e-3))
    assert trained.history[-1][1] < trained.history[0][1]
    assert trained.pipeline("the film is [MASK]").spans[0].label == "old"


# --- the logits of the hidden tokens alone -----------------------------------------------------------------------------


MASKED = [each for each in ARCHITECTURES if each.family == "encoder" and each.name != "XLNet"]


@pytest.mark.parametrize("architecture", MASKED, ids=lambda each: each.name)
def test_the_hidden_tokens_alone_give_the_same_loss_and_gradient(
    architecture: Architecture, tiny_tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    column = next(each for each in COLUMNS if each.tag == "fill-mask")
    found = subject(architecture, column, tokenizers_of(tiny_tokenizers)[architecture.tokenizer], tmp_path)
    assert isinstance(found, Subject)
    pipe = replace(found.pipe, task=replace(found.pipe.task, mask_share=0.3))
    table = pipe.task.to_learn(pipe.encode(found.split))
    batch = pipe.task.drawn(pipe.collate(table, np.arange(len(table))), 1)
    labels = torch.as_tensor(np.asarray(batch.labels))
    read: list[int] = []  # vectors that the matrix of the head was multiplied with
    words = pipe.model.get_output_embeddings()
    hook = words.register_forward_hook(lambda _, given, __: read.append(given[0].numel() // given[0].shape[-1]))
    seen = {}
    for scored in (False, True):
        pipe.model.train()
        pipe.model.zero_grad()
        torch.manual_seed(5)  # dropout
        logits = pipe.task.run(pipe.model, batch, Want(scored=scored)).logits
        loss = pipe.task.loss(logits, labels)
        loss.mean().backward()
        gradients = {name: each.grad.clone() for name, each in pipe.model.named_parameters() if each.grad is not None}
        seen[scored] = (logits, loss, gradients)
    hook.remove()
    assert (seen[True][1] - seen[False][1]).abs().max() <= 1e-6
    assert seen[True][0].shape == (int((labels != IGNORED).sum()), seen[False][0].shape[-1])
    assert seen[True][2].keys() == seen[False][2].keys()
    for name, gradient in seen[False][2].items():
        assert (seen[True][2][name] - gradient).abs().max() <= 1e-6, name
    assert read == [labels.numel(), int((labels != IGNORED).sum())], "the head read the hidden tokens alone"


def test_a_head_that_is_not_known_is_run_on_all_tokens(pipes: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipes["bert"]
    table = pipe.task.to_learn(pipe.encode(rows_of(4).train))
    batch = pipe.task.drawn(pipe.collate(table, np.arange(len(table))), 1)
    short = pipe.task.run(pipe.model, batch, Want(scored=True)).logits
    monkeypatch.setattr("pellucid.forwarding.PER_TOKEN", frozenset())
    whole = pipe.task.run(pipe.model, batch, Want(scored=True)).logits
    assert short.shape == whole.shape and torch.allclose(short, whole, atol=1e-5)
    assert not pipe.model.base_model._forward_hooks, "nothing stays behind"


def test_a_window_in_which_nothing_is_hidden_costs_nothing(pipes: dict[str, Pipeline]) -> None:
    pipe = pipes["bert"]
    table = pipe.task.to_learn(pipe.encode(rows_of(2).train))
    batch = pipe.collate(table, np.arange(len(table)))
    nothing = replace(batch, labels=np.full_like(np.asarray(batch.labels), IGNORED))
    logits = pipe.task.run(pipe.model, nothing, Want(scored=True)).logits
    loss = pipe.task.loss(logits, torch.as_tensor(nothing.labels))
    loss.mean().backward()
    assert logits.shape[0] == 0 and loss.tolist() == [0.0] * len(table)
    pipe.model.zero_grad(set_to_none=True)


def test_training_reads_the_hidden_tokens_alone_and_validation_all(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch at a time, in parts, and with a metric that looks at training batches: the same losses."""
    rows = rows_of()

    def fitted(room: int | None = None, watched: bool = False, whole: bool = False) -> tuple[list[float], set[tuple[bool, int]]]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pipe = Pipeline.new("fill-mask", folders["bert"])
            learn = pl.learner(pipe, rows, options=pl.LearnerOptions(loaders=pl.LoaderOptions(bs=6)))
        for module in pipe.model.modules():  # parts of a batch have other dropout
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        learn.room, learn.recorder.train_metrics = room, watched
        shapes, real = set(), learn._logits

        def looked(inputs: Any, labels: Any = None) -> torch.Tensor:
            logits = real(inputs, None if whole else labels)
            shapes.add((learn.training, logits.ndim))
            return logits

        monkeypatch.setattr(learn, "_logits", looked)
        with learn.no_bar(), learn.no_logging(), torch.random.fork_rng():
            torch.manual_seed(0)
            learn.fit(1, 1e-3)
        return [float(each) for each in (*learn.recorder.losses, learn.recorder.values[-1][-1])], shapes

    wanted, shapes = fitted(whole=True)
    assert shapes == {(True, 3), (False, 3)}
    for room, watched, expected in (
        (None, False, {(True, 2), (False, 3)}),
        (30, False, {(True, 2), (False, 3)}),
        (None, True, {(True, 3), (False, 3)}),
    ):
        found, shapes = fitted(room, watched)
        assert shapes == expected
        assert found == pytest.approx(wanted, rel=1e-4)


# --- bad input ---------------------------------------------------------------------------------------------------------


def test_a_text_without_a_mask_is_named(pipes: dict[str, Pipeline]) -> None:
    with pytest.raises(pl.PellucidError, match=r"row 1: the text has no mask.*Write '\[MASK\]'"):
        list(pipes["bert"].predict(["a [MASK]", "nothing here", "[MASK]"]))


def test_a_tokenizer_without_a_mask_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    with pytest.raises(pl.PellucidError, match="no mask token"):
        Pipeline.new("fill-mask", tiny_checkpoints["gpt2"])


def test_a_task_that_knows_no_tokenizer_says_so(pipes: dict[str, Pipeline]) -> None:
    with pytest.raises(pl.PellucidError, match="for_tokenizer"):
        FillMask().encode(pipes["bert"].tokenizer, {"text": ["a"]}, None, TokenOptions())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"top_k": 0}, "top_k"),
        ({"targets": "film"}, r"Pass \('film',\)"),
        ({"targets": ["film"]}, "tuple of words"),
        ({"masking": "letters"}, "no masking"),
        ({"mask_share": 2.0}, "share"),
        ({"as_mask": 0.9, "as_random": 0.2}, "add up"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], says: str) -> None:
    with pytest.raises(pl.PellucidError, match=says):
        FillMask(**change)


@pytest.mark.parametrize("text", [None, 3, b"a [MASK]"])
def test_what_is_no_text_is_named(text: object, pipes: dict[str, Pipeline]) -> None:
    with pytest.raises(pl.PellucidError, match="row 1"):
        pipes["bert"].task.encode(pipes["bert"].tokenizer, {"text": ["a [MASK]", text]}, None, pipes["bert"].options)  # type: ignore[list-item]


def test_labels_are_left_aside_and_that_is_said(folders: dict[str, Path]) -> None:
    rows = pl.read([{"text": text, "label": "a"} for text in SENTENCES], text="text", label="label", options=ALL)
    pipe = Pipeline.new("fill-mask", folders["bert"], rows)
    assert any("labels of the rows are not read" in str(note) for note in pipe.notes)
