"""Texts from texts: what the decoder begins with, prefixes, languages, targets, long documents, and the answers of plain transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid as pl
from pellucid.batch import IGNORED
from pellucid.given import as_split
from pellucid.languages import languages_of, speaking
from pellucid.pipelines import Pipeline
from pellucid.task import settings_of, task_from
from pellucid.tasks.seq2seq import Summarization, Text2Text, Translation
from pellucid.text_pieces import cut, pieces_of
from pellucid.tokens import LongTexts, TokenOptions
from pellucid.traced_tokens import given_tokens
from tiny_writers import multilingual, real, writer

TEXTS = ["A wonderful little film.", "Dull", "I laughed, I cried, and I would watch it again tomorrow.", "Two hours of my life."]
TARGETS = ["Good.", "Bad", "It is good, and I would watch it again.", "A mess of a film"]
ALL = pl.ReadOptions(valid_fraction=0.0, label_kind="text")
PLAIN = ("t5", "bart")
READS = ("text",)
SPEAKING = ("mbart", "mbart50", "m2m100", "marian")
LANGUAGES = {
    "mbart": ("en_XX", "es_XX"),
    "mbart50": ("en_XX", "es_XX"),
    "m2m100": ("en", "es"),
    "marian": ("", "es"),
}


@pytest.fixture(scope="module")
def folders(tiny_tokenizers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    unigram = tiny_tokenizers["unigram"]
    made = {}
    for kind in (*PLAIN, *SPEAKING):
        tokenizer = unigram if kind in PLAIN else multilingual(kind, unigram)
        made[kind] = writer(kind, tokenizer, tmp_path_factory.mktemp("seq2seq") / kind)
    return made


def rows_of(texts: list[str] = TEXTS, targets: list[str] = TARGETS) -> pl.Rows:
    return pl.read(
        [{"text": text, "target": target} for text, target in zip(texts, targets, strict=True)], text="text", label="target", options=ALL
    )


def new(kind: str, folders: dict[str, Path], **settings: Any) -> Pipeline:
    source, target = LANGUAGES.get(kind, ("", ""))
    task = Translation(**{"prefix": "", "source_language": source, "target_language": target, "max_new_tokens": 12, **settings})
    return Pipeline.new(task, folders[kind], tokens=TokenOptions(max_length=60))


# --- what the decoder begins with --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in (*PLAIN, *SPEAKING) if kind != "m2m100"])  # M2M100 does not say; its loss does
def test_the_decoder_reads_what_the_model_itself_would_make_of_the_labels(folders: dict[str, Path], kind: str) -> None:
    pipe = new(kind, folders)
    table = pipe.encode(rows_of().train)
    batch = pipe.collate(table, np.arange(len(table)))
    labels = torch.from_numpy(batch.labels)
    wanted = pipe.model.prepare_decoder_input_ids_from_labels(labels=labels.clone()).numpy()
    there = batch.labels != IGNORED  # what stands below padding is never scored
    np.testing.assert_array_equal(batch.inputs["decoder_input_ids"][there], wanted[there])


@pytest.mark.parametrize("kind", [*PLAIN, *SPEAKING])
def test_the_loss_is_that_of_the_model(folders: dict[str, Path], kind: str) -> None:
    pipe = new(kind, folders)
    table = pipe.encode(rows_of().train)
    for window in range(len(table)):
        batch = pipe.collate(table, np.array([window]))
        with torch.no_grad():
            ours = pipe.task.loss(pipe.task.run(pipe.model, batch).logits, torch.from_numpy(batch.labels))
            inputs = {name: torch.from_numpy(array) for name, array in batch.inputs.items() if name != "decoder_input_ids"}
            theirs = pipe.model(**inputs, labels=torch.from_numpy(batch.labels)).loss
        torch.testing.assert_close(ours[0], theirs)


@pytest.mark.parametrize("kind", [*PLAIN, *SPEAKING])
def test_without_labels_the_decoder_reads_its_start(folders: dict[str, Path], kind: str) -> None:
    pipe = new(kind, folders)
    batch = pipe.collate(pipe.encode(rows_of().train.without_targets()), np.arange(2))
    assert batch.inputs["decoder_input_ids"].shape == (2, 1)
    assert pipe.run(batch).logits.shape[:2] == (2, 1)


@pytest.mark.parametrize("kind", [*PLAIN, *SPEAKING])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_answers_are_those_of_plain_generate(folders: dict[str, Path], kind: str, settings: dict[str, Any]) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    pipe = new(kind, folders, **settings)
    source, target = LANGUAGES.get(kind, ("", ""))
    tokenizer, model = AutoTokenizer.from_pretrained(folders[kind]), AutoModelForSeq2SeqLM.from_pretrained(folders[kind]).eval()
    extra: dict[str, Any] = {}
    if kind.startswith("mbart"):
        tokenizer.src_lang = source
        code = tokenizer.convert_tokens_to_ids(target)
        extra = {"decoder_start_token_id": code} if kind == "mbart" else {"forced_bos_token_id": code}
    for text, answer in zip(TEXTS, pipe(TEXTS), strict=True):
        ids = tokenizer(text)["input_ids"]
        if kind == "m2m100":
            ids = [tokenizer.convert_tokens_to_ids("__en__"), *ids]
            extra = {"forced_bos_token_id": tokenizer.convert_tokens_to_ids("__es__")}
        if kind == "marian":
            ids = [tokenizer.convert_tokens_to_ids(">>es<<"), *ids]
        made = model.generate(torch.tensor([ids]), max_new_tokens=12, pad_token_id=1, do_sample=False, **settings, **extra)
        assert [text for text, _ in answer.alternatives] == tokenizer.batch_decode(made, skip_special_tokens=True)
        assert answer.answer == answer.alternatives[0][0]


# --- languages and prefixes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPEAKING)
def test_sources_and_targets_are_tokenized_as_transformers_does(folders: dict[str, Path], kind: str) -> None:
    from transformers import AutoTokenizer

    pipe = new(kind, folders)
    source, target = LANGUAGES[kind]
    table = pipe.encode(rows_of().train)
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    if kind.startswith("mbart"):
        tokenizer.src_lang, tokenizer.tgt_lang = source, target
    for row, (text, wanted) in enumerate(zip(TEXTS, TARGETS, strict=True)):
        ids, labels = tokenizer(text)["input_ids"], tokenizer(text_target=wanted)["input_ids"]
        if kind == "m2m100":
            ids = [tokenizer.convert_tokens_to_ids("__en__"), *ids]
            labels = [tokenizer.convert_tokens_to_ids("__es__"), *labels]
        if kind == "marian":
            ids = [tokenizer.convert_tokens_to_ids(">>es<<"), *ids]
        assert table.ids_of(row).tolist() == ids
        assert table.labels[table.label_starts[row] : table.label_starts[row + 1]].tolist() == labels


@pytest.mark.parametrize("kind", SPEAKING)
def test_the_callers_tokenizer_stays_as_it_is(folders: dict[str, Path], kind: str) -> None:
    pipe = new(kind, folders)
    state = pipe.tokenizer.backend_tokenizer.to_str(), getattr(pipe.tokenizer, "src_lang", None), getattr(pipe.tokenizer, "tgt_lang", None)
    pipe.encode(rows_of().train)
    speaking(pipe.tokenizer, *LANGUAGES[kind], writes=True)
    after = pipe.tokenizer.backend_tokenizer.to_str(), getattr(pipe.tokenizer, "src_lang", None), getattr(pipe.tokenizer, "tgt_lang", None)
    assert state == after


@pytest.mark.parametrize(
    ("kind", "settings", "near"),
    [
        ("mbart", {"target_language": "es"}, "es_XX"),
        ("mbart50", {"source_language": "english", "target_language": "es_XX"}, "en_XX"),
        ("m2m100", {"target_language": "fr"}, "es"),
        ("marian", {"target_language": "fr"}, "es"),
    ],
)
def test_a_language_that_is_not_known_is_named_with_those_near_it(
    folders: dict[str, Path], kind: str, settings: dict[str, str], near: str
) -> None:
    with pytest.raises(pl.PellucidError, match="no language") as error:
        Pipeline.new(Translation(**{"source_language": "", **settings}), folders[kind])
    assert near in error.value.cure
    assert error.value.place in ("source_language", "target_language")


def test_a_tokenizer_without_languages_says_so(folders: dict[str, Path]) -> None:
    with pytest.raises(pl.PellucidError, match="knows no languages by code") as error:
        Pipeline.new(Translation(source_language="xx", target_language="yy"), folders["t5"])
    assert "prefix=" in error.value.cure


def test_t5_is_told_in_words_which_languages_are_meant(folders: dict[str, Path]) -> None:
    pipe = Pipeline.new(Translation(source_language="en", target_language="es"), folders["t5"])
    assert pipe.task.prefix == "translate English to Spanish: "
    assert any("translate English to Spanish" in note.what for note in pipe.notes)


def test_the_codes_of_each_way() -> None:
    class Fake:
        all_special_tokens = ("</s>", "__en__")

        def get_added_vocab(self) -> dict[str, int]:
            return {"__fr__": 7, "__en__": 5}

        def get_vocab(self) -> dict[str, int]:
            return {"__fr__": 7, "__en__": 5, "</s>": 2, "a": 9}

    found = languages_of(Fake())  # type: ignore[arg-type]
    assert found.way == "both first" and dict(found.ids) == {"en": 5, "fr": 7}
    assert found.before_source("en", "fr") == (5,) and found.before_target("fr") == (7,)


def test_the_prefix_is_that_of_the_checkpoint_or_none_and_said(
    folders: dict[str, Path], tiny_tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    plain = Pipeline.new("summarization", folders["t5"])
    assert plain.task.prefix == "" and any("no prefix" in str(note) for note in plain.notes)
    params = {
        "summarization": {"prefix": "summarize: ", "num_beams": 2, "max_length": 11},
        "translation_en_to_de": {"prefix": "translate English to German: "},
    }
    told = writer("t5", tiny_tokenizers["unigram"], tmp_path / "told", {"task_specific_params": params})
    pipe = Pipeline.new("summarization", told)
    assert (pipe.task.prefix, pipe.task.num_beams, pipe.task.max_new_tokens) == ("summarize: ", 2, 10)
    assert any("'summarize: '" in str(note) for note in pipe.notes)
    german = Pipeline.new(Translation(source_language="en", target_language="de"), told)
    assert german.task.prefix == "translate English to German: "
    assert pl.load(pl.save(german, tmp_path / "saved")).task == german.task
    assert Pipeline.new(Summarization(prefix=""), told).task.prefix == ""


def test_the_prefix_is_tokenized_with_the_text(folders: dict[str, Path]) -> None:
    pipe = Pipeline.new(Text2Text(prefix="the film: "), folders["bart"])
    table = pipe.encode(rows_of().train.without_targets())
    for row, text in enumerate(TEXTS):
        assert table.ids_of(row).tolist() == pipe.tokenizer("the film: " + text)["input_ids"]


def test_the_prefix_is_among_the_tokens_that_the_model_was_given(folders: dict[str, Path]) -> None:
    pipe = Pipeline.new(Text2Text(prefix="the film: "), folders["bart"])
    split = as_split([TEXTS[2]], READS)
    (shown,) = given_tokens(pipe.tokenizer, pipe.collate(pipe.encode(split), np.arange(1)), pipe.source(split).windows(0))
    assert list(shown.ids) == pipe.tokenizer("the film: " + TEXTS[2])["input_ids"]
    reads = [cell for cell in shown.columns({"text": TEXTS[2]})["reads"] if cell]
    assert "".join(map(str, reads)).replace(" ", "") == TEXTS[2].replace(" ", "")
    assert shown.segments[1] is None and not shown.special[1], "the prefix is not of the row"


# --- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "   \n", None])
def test_an_empty_target_is_named_with_its_row(folders: dict[str, Path], bad: str | None) -> None:
    pipe = new("t5", folders)
    with pytest.raises(pl.PellucidError, match="row 1: expected a text") as error:
        pipe.task.encode(pipe.tokenizer, {"text": ["a", "b"]}, ["good", bad], pipe.options)
    assert error.value.cure


def test_a_target_that_is_too_long_is_cut_and_counted(folders: dict[str, Path]) -> None:
    pipe = new("bart", folders, max_target_tokens=6)
    table = pipe.encode(rows_of().train)
    counts = np.diff(table.label_starts)
    whole = [len(pipe.tokenizer(target)["input_ids"]) for target in TARGETS]
    np.testing.assert_array_equal(counts, np.minimum(whole, 6))
    np.testing.assert_array_equal(table.lost, np.maximum(np.array(whole) - 6, 0))
    assert table.labels[table.label_starts[1:] - 1].tolist() == [2] * 4, "the end token stays"


def test_targets_that_are_no_texts_are_refused() -> None:
    rows = pl.read([{"text": "a", "label": ["x", "y"]}] * 3, text="text", label="label", options=pl.ReadOptions(valid_fraction=0.0))
    with pytest.raises(pl.PellucidError, match="expected a text to be written"):
        Text2Text().for_rows(rows.train)


@pytest.mark.parametrize(("name", "bad"), [("max_target_tokens", 1), ("max_target_tokens", True), ("num_beams", 0), ("stop", ("",))])
def test_settings_that_are_not_possible(name: str, bad: Any) -> None:
    with pytest.raises(pl.PellucidError, match=name):
        Summarization(**{name: bad})


def test_more_tokens_than_the_decoder_has_positions(folders: dict[str, Path]) -> None:
    with pytest.raises(pl.PellucidError, match="80 positions"):
        Pipeline.new(Text2Text(max_new_tokens=200), folders["bart"])
    pipe = Pipeline.new(Text2Text(max_target_tokens=200), folders["bart"])
    assert pipe.task.max_target_tokens == 80 and pipe.task.max_new_tokens == 79
    assert any("cut at 80" in str(note) for note in pipe.notes)


# --- long documents ----------------------------------------------------------------------------------------------------

LONG = " ".join(TEXTS * 12)


def test_a_long_document_is_cut_and_counted_or_read_in_pieces(folders: dict[str, Path]) -> None:
    whole = len(new("bart", folders).tokenizer(LONG)["input_ids"])
    cut_short = Pipeline.new(Summarization(max_new_tokens=5), folders["bart"], tokens=TokenOptions(max_length=40))
    table = cut_short.encode(as_split([LONG], READS))
    assert len(table) == 1 and int(table.lost[0]) == whole - 40
    joined = Pipeline.new(
        Summarization(max_new_tokens=5, prefix="the film: "),
        folders["bart"],
        tokens=TokenOptions(max_length=40, long=LongTexts("chunk-and-join")),
    )
    pieces = joined.encode(as_split([LONG, "Dull"], READS))
    assert len(pieces) > 3 and not pieces.lost.any() and int(pieces.lengths.max()) <= 40
    assert pieces.rows.tolist() == [0] * (len(pieces) - 1) + [1]
    assert pieces.windows.tolist() == [*range(len(pieces) - 1), 0]
    prefix = joined.tokenizer("the film:")["input_ids"][1:-1]
    assert all(pieces.ids_of(window)[1 : 1 + len(prefix)].tolist() == prefix for window in range(len(pieces)))
    long, short = joined([LONG, "Dull"])
    alone = joined(["Dull"])[0]
    assert long.answer.count("\n") >= len(pieces) - 2 and short.answer == alone.answer
    assert short.alternatives[0][1] == pytest.approx(alone.alternatives[0][1], rel=1e-5)  # in another batch sums are rounded otherwise
    assert joined.trace(LONG).prediction.answer == long.answer


def test_with_targets_the_beginning_of_a_long_document_is_learned(folders: dict[str, Path]) -> None:
    pipe = Pipeline.new(Summarization(), folders["bart"], tokens=TokenOptions(max_length=40, long=LongTexts("chunk-and-join")))
    table = pipe.encode(rows_of([LONG], ["Good."]).train)
    assert len(table) == 1 and table.lost[0] > 0


def test_windows_that_share_tokens_are_refused(folders: dict[str, Path]) -> None:
    pipe = Pipeline.new(Summarization(), folders["bart"], tokens=TokenOptions(max_length=40, long=LongTexts("windows", stride=4)))
    with pytest.raises(pl.PellucidError, match="joined to one text"):
        pipe([LONG])


def test_no_room_beside_the_prefix(folders: dict[str, Path]) -> None:
    options = TokenOptions(max_length=12, long=LongTexts("chunk-and-join"))
    pipe = Pipeline.new(Summarization(prefix="a wonderful film, warm and funny: "), folders["bart"], tokens=options)
    with pytest.raises(pl.PellucidError, match="beside the prefix"):
        pipe([LONG])


def test_pieces_end_with_sentences_and_hold_everything(tiny_tokenizers: dict[str, Any]) -> None:
    text = "One is here. Two is there! Three " + "and more " * 30 + "ends. " + "x" * 200 + " 👩‍👩‍👧‍👦" * 12
    for tokenizer in tiny_tokenizers.values():
        for room in (8, 20, 50):
            pieces = pieces_of(tokenizer, [text], room, TokenOptions())[0]
            assert "".join(text[start:end] for start, end in pieces) == text
            for start, end in pieces:
                ids = tokenizer(text[start:end].strip(), add_special_tokens=False)["input_ids"]
                assert len(ids) <= room + 4 or tokenizer.decode(ids).count("[UNK]")
            torn = any(text[end - 1] == "\u200d" or text[end : end + 1] == "\u200d" for _, end in pieces[:-1])
            assert not torn or room < 50, "a sign is cut only where it is longer than a piece may be"
    ends = np.arange(1, len(text) + 1)
    first = cut("One is here. Two is there! Three is", ends[:35] - 1, ends[:35], 30)[0]
    assert first == (0, 26), "after a sentence"


# --- the whole way -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*PLAIN, *SPEAKING])
def test_saving_is_exact(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    pipe = new(kind, folders, num_beams=2)
    again = pl.load(pl.save(pipe, tmp_path / "saved"))
    assert again.task == pipe.task == task_from(type(pipe.task), settings_of(pipe.task))
    assert again(TEXTS) == pipe(TEXTS)


@pytest.mark.parametrize("kind", ["t5", "mbart"])
def test_five_steps_lower_the_loss_and_batches_can_be_looked_at(
    folders: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = new(kind, folders)
    rows = pl.read(
        [{"text": text, "target": target} for text, target in zip(TEXTS, TARGETS, strict=True)] * 2,
        text="text",
        label="target",
        options=replace(ALL, valid_fraction=0.25),
    )
    learn = pl.learner(pipe, rows)
    before = float(learn.validate()[0])
    learn.fit_one_cycle(5, 5e-3)
    assert float(learn.validate()[0]) < before
    learn.dls.show_batch(max_n=2)
    learn.show_results(max_n=2)
    shown = capsys.readouterr().out
    assert "film" in shown.lower()
    assert learn.predict("A wonderful little film.")[0] == pipe("A wonderful little film.").answer


def test_a_row_alone_answers_as_in_a_batch_and_in_any_order(folders: dict[str, Path]) -> None:
    for kind in PLAIN:
        pipe = new(kind, folders, num_beams=2, num_return_sequences=2)
        together, backwards = pipe(TEXTS), pipe(TEXTS[::-1])[::-1]
        for text, one, other in zip(TEXTS, together, backwards, strict=True):
            alone = pipe(text)
            assert alone.answer == one.answer == other.answer
            np.testing.assert_allclose(alone.alternatives[0][1], one.alternatives[0][1], atol=1e-5)


def test_an_evaluation_has_scores_and_a_trace_shows_the_ids(folders: dict[str, Path]) -> None:
    for task, name in ((Summarization, "ROUGE-L"), (Translation, "chrF"), (Text2Text, "exact match")):
        pipe = Pipeline.new(task(prefix="", max_new_tokens=6), folders["t5"], rows_of())
        report = pl.evaluate(pipe, rows_of().train)
        assert report.scores[0].name == name
        trace = pipe.trace(rows_of().train[2])
        assert trace.output.ids is not None and trace.view()
        assert pipe.task.view(trace.prediction, trace.example)


def test_bad_texts_and_long_ones(folders: dict[str, Path]) -> None:
    pipe = new("t5", folders)
    odd = ["", "   ", "a\x00b", "</s> is no end", "{{7*7}} %s", "🎉" * 40, "y" * 5000, "Two\r\nlines\u2028here"]
    assert len(pipe(odd)) == len(odd)
    inside = pipe.encode(as_split(["</s> is no end"], READS)).ids_of(0)
    assert inside.tolist().count(2) == 1, "what somebody wrote is text"
    with pytest.raises(pl.PellucidError, match="row 0"):
        pipe.task.encode(pipe.tokenizer, {"text": ["half \ud83d"]}, None, pipe.options)
    with pytest.raises(pl.PellucidError, match="half a character"):
        pipe.task.encode(pipe.tokenizer, {"text": ["fine"]}, ["half \ud83d"], pipe.options)
    with pytest.raises(pl.PellucidError, match="expected a text"):
        pipe.task.encode(pipe.tokenizer, {"text": [None]}, None, pipe.options)  # type: ignore[list-item]


# --- a real checkpoint -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 4])
def test_flan_t5_answers_as_plain_transformers(beams: int) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = real("flan-t5-small")
    texts = ["How old are you?", "The house is wonderful and very large.", "I have never seen such a thing in my life."]
    prefix = "translate English to German: "
    pipe = Pipeline.new(Translation(prefix=prefix, num_beams=beams, num_return_sequences=beams, max_new_tokens=24), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    wanted = [
        tokenizer.batch_decode(
            model.generate(**tokenizer(prefix + text, return_tensors="pt"), max_new_tokens=24, num_beams=beams, num_return_sequences=beams),
            skip_special_tokens=True,
        )
        for text in texts
    ]
    assert [[text for text, _ in answer.alternatives] for answer in pipe(texts)] == wanted
    rows = rows_of(texts, ["Wie alt sind Sie?", "Das Haus ist wunderbar.", "So etwas habe ich noch nie gesehen."])
    table = pipe.encode(rows.train)
    batch = pipe.collate(table, np.arange(len(table)))
    with torch.no_grad():
        each = pipe.task.loss(pipe.task.run(pipe.model, batch).logits, torch.from_numpy(batch.labels))
        plain = tokenizer([prefix + text for text in texts], text_target=rows.train.targets(0, 3), padding=True, return_tensors="pt")
        labels = plain.pop("labels")
        theirs = model(**plain, labels=labels.masked_fill(labels == tokenizer.pad_token_id, IGNORED)).loss
    counts = torch.from_numpy((batch.labels != IGNORED).sum(1))
    torch.testing.assert_close((each * counts).sum() / counts.sum(), theirs)
