"""The course's one line: the answers and shapes of transformers' own pipelines, and of those that transformers has no more."""

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid as pl
from conftest import SENTENCES, tiny_config
from pellucid.course_tasks import ALIASES, COURSE
from pellucid.one_liner import OneLiner
from pellucid.tasks.sequence_classification import SequenceClassification

CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
TEXTS = list(SENTENCES[:4])
ENTITIES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NLI = ("contradiction", "neutral", "entailment")


def real(name: str) -> str:
    folder = CHECKPOINTS / name
    if not (folder / "model.safetensors").exists():
        pytest.skip(f"the checkpoint {name} is not in {CHECKPOINTS} (set CHECKPOINTS)")
    return str(folder)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizers: dict[str, Any]) -> dict[str, str]:
    """Tiny random models with the head of each task."""
    import transformers

    made = {
        "classes": ("wordpiece", "bert", "AutoModelForSequenceClassification", ("bad", "so-so", "good")),
        "nli": ("wordpiece", "bert", "AutoModelForSequenceClassification", NLI),
        "entities": ("wordpiece", "bert", "AutoModelForTokenClassification", ENTITIES),
        "entities-unigram": ("unigram", "xlm-roberta", "AutoModelForTokenClassification", ENTITIES),
        "answers": ("wordpiece", "bert", "AutoModelForQuestionAnswering", ()),
        "masks": ("wordpiece", "bert", "AutoModelForMaskedLM", ()),
        "prompts": ("bpe", "gpt2", "AutoModelForCausalLM", ()),
        "body": ("wordpiece", "bert", "AutoModel", ()),
    }
    found = {}
    for name, (tokenizer, kind, auto_class, labels) in made.items():
        folder = tmp_path_factory.mktemp("heads") / name
        config = tiny_config(kind, len(tiny_tokenizers[tokenizer]))
        config.initializer_range = 0.6  # so that answers differ
        if labels:
            config.id2label, config.label2id = dict(enumerate(labels)), {label: number for number, label in enumerate(labels)}
        with torch.random.fork_rng():
            torch.manual_seed(3)
            getattr(transformers, auto_class).from_config(config).save_pretrained(folder)
        tiny_tokenizers[tokenizer].save_pretrained(folder)
        found[name] = str(folder)
    found["texts"] = written(tmp_path_factory.mktemp("heads") / "texts", tiny_tokenizers["unigram"])
    return found


def written(folder: Path, tokenizer: Any) -> str:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def theirs(task: str, folder: str, **words: Any) -> Any:
    from transformers import pipeline

    return pipeline(task, model=folder, device="cpu", dtype="float32", **words)


def same(ours: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """The same shape, keys, words and numbers."""
    if isinstance(expected, dict):
        assert isinstance(ours, dict) and list(ours) == list(expected), (ours, expected)
        for key in expected:
            same(ours[key], expected[key], tolerance)
    elif isinstance(expected, list | tuple):
        assert isinstance(ours, list) and len(ours) == len(expected), (ours, expected)
        for left, right in zip(ours, expected, strict=True):
            same(left, right, tolerance)
    elif isinstance(expected, str) or expected is None:
        assert ours == expected
    else:
        assert float(ours) == pytest.approx(float(expected), abs=tolerance)
        json.dumps(ours)  # plain numbers


# --- the same as transformers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{}, {"top_k": 2}, {"top_k": None}, {"top_k": 1}])
def test_labels(words: dict[str, Any], heads: dict[str, str]) -> None:
    ours, expected = pl.pipeline("sentiment-analysis", heads["classes"]), theirs("text-classification", heads["classes"])
    same(ours(TEXTS[0], **words), expected(TEXTS[0], **words))
    same(ours(TEXTS, **words), expected(TEXTS, **words))
    same(pl.pipeline("text-classification", heads["classes"], **words)(TEXTS), expected(TEXTS, **words))


def test_labels_of_pairs(heads: dict[str, str]) -> None:
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    same(pl.pipeline("text-classification", heads["nli"])([pair]), theirs("text-classification", heads["nli"])([pair]))


@pytest.mark.parametrize("folder", ["entities", "entities-unigram"])
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_entities(folder: str, strategy: str, heads: dict[str, str]) -> None:
    if folder != "entities" and strategy in ("first", "average", "max"):
        pytest.skip("transformers takes every piece of a unigram tokenizer for a word here, and says that it guesses")
    ours = pl.pipeline("ner", heads[folder], aggregation_strategy=strategy)
    expected = theirs("ner", heads[folder], aggregation_strategy=strategy)
    same(ours(TEXTS[0]), without_space(TEXTS[0], expected(TEXTS[0])))
    same(ours(TEXTS), [without_space(text, found) for text, found in zip(TEXTS, expected(TEXTS), strict=True)])


def without_space(text: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same entities without spaces at their ends, which transformers counts to pieces that carry them, and without spaces alone."""
    kept = []
    for one in found:
        read = text[one["start"] : one["end"]]
        if read.strip():
            start = one["start"] + len(read) - len(read.lstrip())
            kept.append({**one, "word": one["word"].rstrip(), "start": start, "end": start + len(read.strip())})
    return kept


def test_grouped_entities_is_the_courses_word(heads: dict[str, str]) -> None:
    grouped = pl.pipeline("ner", heads["entities"], grouped_entities=True)(TEXTS[0])
    assert grouped == pl.pipeline("ner", heads["entities"], aggregation_strategy="simple")(TEXTS[0])
    assert all(list(one) == ["entity_group", "score", "word", "start", "end"] for one in grouped)


@pytest.mark.parametrize("words", [{}, {"top_k": 2}, {"targets": ["the", "film"]}])
def test_masks(words: dict[str, Any], heads: dict[str, str]) -> None:
    ours, expected = pl.pipeline("fill-mask", heads["masks"]), theirs("fill-mask", heads["masks"])
    one, two = "The plot is [MASK], the jokes are old.", "The [MASK] is dull, the [MASK] are old."
    if not words:  # transformers offers special tokens as words, which nothing can mean
        words, special = {"top_k": 2}, set(expected.tokenizer.all_special_ids)
        assert not {each["token"] for each in ours(one, top_k=50)} & special
    for given in (one, [one], two, [one, one]):
        found, wanted = ours(given, **words), expected(given, **words)
        same(found, wanted)


@pytest.mark.parametrize("several", [False, True])
def test_candidates(several: bool, heads: dict[str, str]) -> None:
    ours, expected = pl.pipeline("zero-shot-classification", heads["nli"]), theirs("zero-shot-classification", heads["nli"])
    words = {"candidate_labels": ["education", "politics", "business"], "multi_label": several}
    same(ours(TEXTS[0], **words), expected(TEXTS[0], **words))
    same(ours(TEXTS[:2], **words), expected(TEXTS[:2], **words))
    template = {"candidate_labels": "education, politics", "hypothesis_template": "This text is about {}."}
    same(ours(TEXTS[0], **template), expected(TEXTS[0], **template))
    same(ours(TEXTS[0], ["education", "politics"]), expected(TEXTS[0], ["education", "politics"]))


def test_prompts(heads: dict[str, str]) -> None:
    ours, expected = pl.pipeline("text-generation", heads["prompts"]), theirs("text-generation", heads["prompts"])
    words = {"max_new_tokens": 6, "do_sample": False}
    same(ours(TEXTS[0], **words), expected(TEXTS[0], **words))
    same(ours(TEXTS[:2], **words), expected(TEXTS[:2], **words))
    same(ours(TEXTS[0], return_full_text=False, **words), expected(TEXTS[0], return_full_text=False, **words))


def test_the_length_of_a_text_may_count_its_prompt(heads: dict[str, str]) -> None:
    ours = pl.pipeline("text-generation", heads["prompts"])
    for text in TEXTS[:2]:
        (whole,) = ours(text, max_length=50, do_sample=False)
        length = len(ours.pipe.tokenizer(text)["input_ids"])
        assert ours(text, max_new_tokens=50 - length, do_sample=False) == [whole]
    assert [one[0] for one in ours(TEXTS[:2], max_length=50, do_sample=False)] == [
        ours(text, max_length=50, do_sample=False)[0] for text in TEXTS[:2]
    ]


def test_several_texts_are_drawn(heads: dict[str, str]) -> None:
    found = pl.pipeline("text-generation", heads["prompts"])(TEXTS[0], num_return_sequences=3, max_new_tokens=8)
    assert len(found) == 3 and len({one["generated_text"] for one in found}) > 1
    assert all(one["generated_text"].startswith(TEXTS[0]) for one in found)


def test_vectors_of_tokens(heads: dict[str, str]) -> None:
    ours, expected = pl.pipeline("feature-extraction", heads["body"]), theirs("feature-extraction", heads["body"])
    found = ours(TEXTS[0])
    assert len(found) == 1 and len(found[0]) == len(ours.pipe.tokenizer(TEXTS[0])["input_ids"]) and len(found[0][0]) == 32
    same(found, expected(TEXTS[0]), 1e-4)
    same(ours(TEXTS), expected(TEXTS), 1e-4)


# --- what transformers 5 has no more -----------------------------------------------------------------------------------


def test_answers_of_questions(heads: dict[str, str]) -> None:
    ours = pl.pipeline("question-answering", heads["answers"])
    context = " ".join(SENTENCES[:3])
    found = ours(question="Who laughed?", context=context)
    assert list(found) == ["score", "start", "end", "answer"]
    assert found["answer"] == context[found["start"] : found["end"]]
    assert ours({"question": "Who laughed?", "context": context}) == found
    assert ours(question=["Who laughed?", "Who?"], context=context)[0] == found
    best = ours(question="Who laughed?", context=context, top_k=3)
    assert len(best) == 3 and best[0]["answer"] == found["answer"]


@pytest.mark.parametrize(
    ("task", "name"), [("summarization", "summary_text"), ("translation", "translation_text"), ("text2text-generation", "generated_text")]
)
def test_texts_from_texts(task: str, name: str, heads: dict[str, str]) -> None:
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    ours = pl.pipeline(task, heads["texts"], prefix="")
    words = {"min_length": 3, "max_length": 9}
    found = ours(TEXTS[0], **words)
    assert list(found[0]) == [name] and len(found) == 1
    model, tokenizer = T5ForConditionalGeneration.from_pretrained(heads["texts"]), AutoTokenizer.from_pretrained(heads["texts"])
    made = model.generate(**tokenizer(TEXTS[0], return_tensors="pt"), **words, do_sample=False)
    assert found[0][name] == tokenizer.decode(made[0], skip_special_tokens=True)
    assert ours(TEXTS[:2], **words) == [ours(text, **words)[0] for text in TEXTS[:2]]
    assert len(ours(TEXTS[0], num_return_sequences=2, **words)) == 2


def test_languages_stand_in_the_name(heads: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(pl.PellucidError, match="Name the languages in words"):
        pl.pipeline("translation_xx_to_yy", heads["texts"])
    assert pl.pipeline("translation_en_to_fr", heads["texts"]).pipe.task.prefix == "translate English to French: "
    ours = pl.pipeline("translation", heads["texts"], prefix="translate English to French: ")
    with pytest.raises(pl.PellucidError, match="when the pipeline is made"):
        ours(TEXTS[0], tgt_lang="fr")
    assert ours.pipe.task.prefix == "translate English to French: "
    with caplog.at_level(logging.WARNING):
        assert pl.pipeline("translation_en_to_fr", ours.pipe)(TEXTS[0]) == ours(TEXTS[0])
    assert "tgt_lang 'fr' changes nothing" in caplog.text
    made = replace(ours.pipe, task=replace(ours.pipe.task, target_language="de"))
    with pytest.raises(pl.PellucidError, match="was made with 'de'"):
        pl.pipeline("translation_en_to_fr", made)


# --- names, words, checkpoints -----------------------------------------------------------------------------------------


def test_the_value_holds_the_pipeline(heads: dict[str, str]) -> None:
    ours = pl.pipeline("sentiment-analysis", model=heads["classes"], device=-1)
    assert isinstance(ours, OneLiner) and ours.pipe.model.device.type == "cpu"
    assert ours.pipe.trace(TEXTS[0]).prediction.answer == ours(TEXTS[0])[0]["label"]
    assert pl.pipeline("sentiment-analysis", ours.pipe).pipe is ours.pipe
    with pytest.raises(pl.PellucidError, match="is for 'text-classification'"):
        pl.pipeline("ner", ours.pipe)


def test_an_unknown_task_lists_all_names() -> None:
    with pytest.raises(pl.PellucidError, match="there is no task 'sentiment'") as caught:
        pl.pipeline("sentiment")
    for name in (*COURSE, *ALIASES, "translation_xx_to_yy"):
        assert name in str(caught.value)


def test_an_unknown_word_lists_those_that_are_known(heads: dict[str, str]) -> None:
    ours = pl.pipeline("ner", heads["entities"])
    with pytest.raises(pl.PellucidError, match=r"knows no word 'top_p'.*aggregation_strategy"):
        ours(TEXTS[0], top_p=0.5)
    with pytest.raises(pl.PellucidError, match="knows no word"):
        pl.pipeline("ner", heads["entities"], trust_remote_code=True)


@pytest.mark.parametrize(
    ("task", "folder", "inputs", "words", "match"),
    [
        ("ner", "entities", (), {}, "expected one argument"),
        ("ner", "entities", ("a", "b"), {}, "expected one argument"),
        ("question-answering", "answers", (), {"question": "a"}, "a question and a context"),
        ("question-answering", "answers", ("text alone",), {}, "expected a question with its context"),
        ("question-answering", "answers", (), {"question": ["a", "b"], "context": ["c"]}, "2 questions, 1 contexts"),
        ("zero-shot-classification", "nli", ("a text",), {}, "candidate"),
        ("fill-mask", "masks", ("no mask here",), {}, "no mask"),
    ],
)
def test_calls_that_cannot_work(
    task: str, folder: str, inputs: tuple[Any, ...], words: dict[str, Any], match: str, heads: dict[str, str]
) -> None:
    with pytest.raises(pl.PellucidError, match=match):
        pl.pipeline(task, heads[folder])(*inputs, **words)


def test_nothing_in_nothing_out(heads: dict[str, str]) -> None:
    assert pl.pipeline("ner", heads["entities"])([]) == []


def test_a_model_object_is_refused(heads: dict[str, str]) -> None:
    with pytest.raises(pl.PellucidError, match="name of a checkpoint"):
        pl.pipeline("ner", model=torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(pl.PellucidError, match="they mean the same"):
        pl.pipeline("ner", heads["entities"], model=heads["entities"])
    with pytest.raises(pl.PellucidError, match="name of a tokenizer"):
        pl.pipeline("ner", heads["entities"], tokenizer=object())  # type: ignore[arg-type]


def test_the_tokenizer_of_another_checkpoint(heads: dict[str, str]) -> None:
    plain, other = pl.pipeline("ner", heads["entities"]), pl.pipeline("ner", heads["entities"], tokenizer=heads["classes"])
    assert other(TEXTS[0]) == plain(TEXTS[0]) and other.pipe.tokenizer is not plain.pipe.tokenizer


def test_a_saved_folder_keeps_its_thresholds(heads: dict[str, str], tmp_path: Path) -> None:
    task = SequenceClassification(("a", "b", "c"), "multi_label", thresholds=(0.0, 1.0, 0.0))
    pipe = pl.Pipeline.new(task, heads["body"])
    folder = pl.save(pipe, tmp_path / "saved")
    ours = pl.pipeline("text-classification", folder)
    assert ours.pipe.task == pipe.task
    assert {one["label"] for one in ours(TEXTS[0])} == {"a", "c"}
    assert len(ours(TEXTS[:2])) == 2 and len(ours(TEXTS[0], top_k=None)) == 3
    assert pl.pipeline("feature-extraction", folder).pipe.task.tag == "feature-extraction", "another task starts from the same weights"


def test_a_number_is_told_as_transformers_does(heads: dict[str, str], tmp_path: Path) -> None:
    pipe = pl.Pipeline.new(SequenceClassification((), "regression"), heads["body"])
    ours = pl.pipeline("text-classification", pl.save(pipe, tmp_path / "saved"))(TEXTS[0])
    assert list(ours[0]) == ["label", "score"]
    # The score is near nought, where float32 sums of another order differ by more than a millionth of it.
    assert ours[0]["score"] == pytest.approx(pipe(TEXTS[0]).answer, rel=1e-4, abs=1e-6)


# --- without a checkpoint, and without the network ---------------------------------------------------------------------


@pytest.mark.parametrize("task", [*COURSE, *ALIASES, "translation_en_to_fr"])
def test_offline_the_local_choices_are_listed_at_once(
    task: str, heads: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, folder in heads.items():
        Path(name).symlink_to(folder)
    snapshot = tmp_path / "hub" / "models--someone--tagger" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(heads["entities"])
    start = time.perf_counter()
    with caplog.at_level(logging.WARNING), pytest.raises(pl.PellucidError, match="HF_HUB_OFFLINE is set") as caught:
        pl.pipeline(task)
    assert time.perf_counter() - start < 5
    course = COURSE["translation" if task.startswith("translation") else ALIASES.get(task, task)]
    assert course.checkpoint in caplog.text and course.commit in caplog.text, "the usual choice is named aloud"
    said = str(caught.value)
    fitting = {
        "text-classification": {"./classes", "./nli"},
        "zero-shot-classification": {"./nli"},
        "token-classification": {"./entities", "./entities-unigram", "someone/tagger"},
        "question-answering": {"./answers"},
        "fill-mask": {"./masks"},
        "text-generation": {"./prompts"},
        "feature-extraction": {"minilm", "someone/tagger", *(f"./{name}" for name in heads)},
    }.get(course.tag, {"./texts"})
    listed = said.partition("these fit")[2]
    assert {name for name in ("minilm", "someone/tagger", *(f"./{name}" for name in heads)) if f"'{name}'" in listed} == fitting


def test_a_name_that_is_not_there_lists_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(pl.PellucidError, match=r"Did you mean 'minilm'.*these fit 'feature-extraction': 'minilm'"):
        pl.pipeline("feature-extraction", "minilmm")


def test_the_usual_choice_opens_from_the_cache(
    heads: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    course, commit = COURSE["token-classification"], "b" * 40
    repository = tmp_path / ("models--" + course.checkpoint.replace("/", "--"))
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / course.commit).write_text(commit)
    (repository / "snapshots" / commit).symlink_to(heads["entities"])
    with caplog.at_level(logging.WARNING):
        ours = pl.pipeline("ner")
    assert ours(TEXTS[0]) == pl.pipeline("ner", heads["entities"])(TEXTS[0])
    assert "the Hub's usual choice for 'ner'" in str(ours.pipe.notes[0]) and str(ours.pipe.notes[0]) in caplog.text


def test_a_usual_choice_is_pinned_to_a_commit() -> None:
    for course in COURSE.values():
        assert course.checkpoint.count("/") == 1 and len(course.commit) >= 7 and set(course.commit) <= set("0123456789abcdef")


def test_the_usual_choices_are_those_of_transformers() -> None:
    from transformers.pipelines import SUPPORTED_TASKS

    for tag, course in COURSE.items():
        if tag in SUPPORTED_TASKS and tag != "text-generation":  # there it now is a model of three billion parameters
            assert SUPPORTED_TASKS[tag]["default"]["model"] == (course.checkpoint, course.commit)


# --- the course, on real checkpoints -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_a_real_tagger_answers_as_in_transformers(strategy: str) -> None:
    folder = real("distilbert-gec")
    texts = ["I has two cat.", "She go to school yesterday and buyed a books."]
    ours = pl.pipeline("ner", folder, aggregation_strategy=strategy)
    same(ours(texts), theirs("ner", folder, aggregation_strategy=strategy)(texts), 1e-4)


@pytest.mark.slow
def test_a_real_model_translates() -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder, prefix, text = real("flan-t5-small"), "translate English to German: ", "The house is wonderful."
    (found,) = pl.pipeline("translation", folder, prefix=prefix)(text, max_length=30)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    made = model.generate(**tokenizer(prefix + text, return_tensors="pt"), max_length=30, do_sample=False)
    assert found["translation_text"] == tokenizer.decode(made[0], skip_special_tokens=True)
    assert "Haus" in found["translation_text"]


@pytest.mark.slow
def test_a_real_model_chats() -> None:
    ours = pl.pipeline("text-generation", real("smollm2-135m-instruct"))
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    (found,) = ours(messages, max_new_tokens=12, do_sample=False)
    assert found["generated_text"][:1] == messages
    assert "Paris" in found["generated_text"][1]["content"]
