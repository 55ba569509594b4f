"""Token classification: labels of tokens, spans of scores, windows, and the same answers as transformers' own pipeline."""

import json
import logging
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from conftest import SENTENCES, TOKENIZERS, tiny_config
from pellucid.batch import IGNORED, pad, row_slices
from pellucid.errors import CheckpointError, DataError, LabelError, PellucidError, SettingError
from pellucid.pipelines import Pipeline
from pellucid.tagged_tokens import RowPieces, TagReading, apart, first_tokens, grouped, word_numbers
from pellucid.tagging import spans_of_tags, word_spans
from pellucid.tasks.token_classification import TokenClassification
from pellucid.testing import check_task
from pellucid.token_labels import SpanCensus, labels_of_tags, scheme_of_tags, tags_of_labels
from pellucid.tokens import LongTexts, TokenOptions
from pellucid.training.fastai_blocks import LoaderOptions
from pellucid.training.fastai_learner import LearnerOptions, learner
from pellucid.types import Batch, Note, Output, Span, Want

CHECKPOINTS = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints"))
ALL = pl.ReadOptions(valid_fraction=0.0)
SHORT = TokenOptions(long=LongTexts("windows", stride=8))
MODELS = {"wordpiece": "bert", "bpe": "gpt2", "unigram": "xlm-roberta"}
TAGGED = [
    (["Peter", "lives", "in", "New", "York", "."], ["B-PER", "O", "O", "B-LOC", "I-LOC", "O"]),
    (["Berlin", ",", "Paris", "and", "Madrid"], ["B-LOC", "O", "B-LOC", "O", "B-LOC"]),
    (["Nothing", "here", "."], ["O", "O", "O"]),
    (["Ada", "Lovelace", "met", "Charles", "Babbage", "in", "London", "."], ["B-PER", "I-PER", "O", "B-PER", "I-PER", "O", "B-LOC", "O"]),
    (["Two", "cities", ":", "Rome", "Oslo"], ["O", "O", "O", "B-LOC", "B-LOC"]),
    (["We", "saw", "Marie", "Curie"], ["O", "O", "B-PER", "I-PER"]),
]
SPEECH = [
    (["the", "cat", "doesn't", "sit"], ["DET", "NOUN", "AUX", "VERB"]),
    (["dogs", "bark", "."], ["NOUN", "VERB", "PUNCT"]),
    (["a", "blue-green", "bird"], ["DET", "ADJ", "NOUN"]),
    (["stop", "!"], ["VERB", "PUNCT"]),
]
ENTITY_TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def rows_of(tagged, **options):
    return pl.read([{"words": words, "tags": tags} for words, tags in tagged], text="words", label="tags", options=ALL, **options)


def rows_with_spans(texts, spans):
    rows = [
        {"text": text, "spans": [{"start": a, "end": b, "label": c} for a, b, c in each]} for text, each in zip(texts, spans, strict=True)
    ]
    return pl.read(rows, text="text", label="spans", options=replace(ALL, label_kind="spans"))


@pytest.fixture(scope="module")
def entities():
    return rows_of(TAGGED)


@pytest.fixture(scope="module")
def speech():
    return rows_of(SPEECH)


def made(task, checkpoint, rows=None, tokens=SHORT):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pipeline.new(task, checkpoint, rows, tokens=tokens)


@pytest.fixture(scope="module", params=sorted(MODELS))
def body(request, tiny_checkpoints):
    return tiny_checkpoints[MODELS[request.param]]


@pytest.fixture(scope="module")
def heads(tmp_path_factory, tiny_tokenizers):
    """Folders of random models with a head, loud enough that their tags differ: (tokenizer, tags) → folder."""
    from transformers import AutoModelForTokenClassification

    made_already = {}

    def head(name, tags=ENTITY_TAGS):
        if (name, tags) not in made_already:
            folder = tmp_path_factory.mktemp("heads") / name
            config = tiny_config(MODELS[name], len(tiny_tokenizers[name]))
            config.id2label, config.label2id = dict(enumerate(tags)), {tag: number for number, tag in enumerate(tags)}
            model = next(
                model for seed in range(500) if varied(model := loud(AutoModelForTokenClassification, config, seed), tiny_tokenizers[name])
            )
            model.save_pretrained(folder)
            tiny_tokenizers[name].save_pretrained(folder)
            made_already[name, tags] = folder
        return made_already[name, tags]

    return head


def loud(auto_class, config, seed):
    """A random model whose answers are far from even."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto_class.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def varied(model, tokenizer):
    """Whether each kind of answer is that of every seventh token at least, and none that of more than half."""
    with torch.no_grad():
        best = [model(**tokenizer(text, return_tensors="pt", truncation=True)).logits[0].argmax(-1) for text in SENTENCES]
    tags = [model.config.id2label[number].split("-")[-1] for number in torch.cat(best).tolist()]
    shares = [tags.count(tag) / len(tags) for tag in {name.split("-")[-1] for name in model.config.id2label.values()} - {"O"}]
    return min(shares) > 1 / 7 and max(shares) < 0.55


def places(answer):
    return [(span.start, span.end, span.label) for span in answer]


def encoded(pipe, rows):
    """The text tokens of each row with the tag that each is trained on; None where it is not scored."""
    table = pipe.encode(rows.train)
    found = []
    for windows in row_slices(table.rows):
        row = []
        for window in range(windows.start, windows.stop):
            span = slice(int(table.starts[window]), int(table.starts[window + 1]))
            tags = [None if label == IGNORED else pipe.task.tags[label] for label in table.labels[span]]
            row.append(list(zip(table.ids[span].tolist(), tags, strict=True)))
        found.append(row)
    return found


def oracle(pipe, split):
    """The predictions for logits that are sure of every label, with the rest told nothing."""
    table = pipe.encode(split)
    batch = pipe.collate(table, np.arange(len(table)))
    logits = 40.0 * np.eye(len(pipe.task.tags), dtype=np.float32)[np.maximum(batch.labels, 0)]
    mask = batch.inputs["attention_mask"].astype(bool)
    logits = np.stack([np.concatenate([row[seen], row[~seen]]) for row, seen in zip(logits, mask, strict=True)])
    return pipe.decode(Output(logits, lengths=batch.lengths), batch, pipe.source(split))


# --- the contract ---


@pytest.mark.parametrize("kind", ["spans", "words"])
def test_the_contract_holds(kind, body, entities, speech, tmp_path):
    rows = entities if kind == "spans" else speech
    try:
        passed = check_task("token-classification", body, rows, folder=tmp_path)
    except PellucidError as error:
        pytest.skip(f"the pipeline does not fit the stride to a model of 64 tokens: {error}") if "cannot share" in str(error) else None
        raise
    assert len(passed) == 12


def test_settings_that_rows_show(entities, speech, tiny_checkpoints):
    task, notes = TokenClassification().for_rows(entities.train)
    assert notes == () and task.labels == ("LOC", "PER")
    shown = (task.kind, task.scheme, task.label_pieces, task.aggregation, task.words, task.ignore_labels)
    assert shown == ("spans", "IOB2", "first", "first", "tokenizer", ("O",))
    pipe = made(task, tiny_checkpoints["bert"], entities)
    assert pipe.task.tags == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") == tuple(pipe.model.config.id2label.values())
    words, _ = TokenClassification().for_rows(speech.train)
    shown = (words.kind, words.scheme, words.label_pieces, words.aggregation, words.words, words.ignore_labels)
    assert shown == ("words", "plain", "first", "first", "spaces", ())
    assert made(words, tiny_checkpoints["bert"], speech).task.tags == words.labels == ("ADJ", "AUX", "DET", "NOUN", "PUNCT", "VERB")


def test_character_spans_show_how_they_lie(tiny_checkpoints):
    whole = rows_with_spans(["Peter lives in Berlin.", "Nobody."], [[(0, 5, "PER"), (15, 21, "LOC")], []])
    task, notes = TokenClassification().for_rows(whole.train)
    assert (task.kind, task.label_pieces, task.aggregation, task.words) == ("spans", "first", "first", "tokenizer") and not notes
    within = rows_with_spans(["Berliners sing.", "Nobody."], [[(0, 6, "LOC")], []])
    task, notes = TokenClassification().for_rows(within.train)
    assert (task.label_pieces, task.aggregation) == ("all", "simple")
    assert len(notes) == 1 and isinstance(notes[0], Note) and "within a word" in str(notes[0])
    every = rows_with_spans(["Dogs bark.", "Stop!"], [[(0, 4, "N"), (5, 9, "V"), (9, 10, "P")], [(0, 4, "V"), (4, 5, "P")]])
    task, notes = TokenClassification().for_rows(every.train)
    assert (task.kind, task.words) == ("words", "tokenizer") and "each word" in str(notes[0])
    chosen, notes = TokenClassification(kind="spans").for_rows(every.train)
    assert chosen.kind == "spans" and not notes


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES", "plain"])
def test_schemes_make_tags_and_read_them(scheme, entities, tiny_checkpoints):
    pipe = made(TokenClassification(scheme=scheme), tiny_checkpoints["bert"], entities)
    assert len(pipe.task.tags) == {"plain": 3, "IOBES": 9}.get(scheme, 5)
    assert labels_of_tags(pipe.task.tags, scheme) == pipe.task.labels
    wanted = [places(target) for target in entities.train.targets(0, len(entities.train))]
    found = [places(prediction.answer) for prediction in oracle(pipe, entities.train)]
    if scheme == "plain":  # two neighbours of one kind cannot be told apart
        found, wanted = found[:4], wanted[:4]
    assert found == wanted


def test_schemes_of_heads():
    assert scheme_of_tags(("O", "B-PER", "I-PER")) == "IOB2"
    assert scheme_of_tags(("I-PER", "O", "I-LOC")) == "IOB1"
    assert scheme_of_tags(tags_of_labels(["PER"], "IOBES")) == "IOBES"
    assert scheme_of_tags(("O", "PER")) == scheme_of_tags(("NOUN", "VERB")) == scheme_of_tags(("$KEEP", "$APPEND_-")) == "plain"


# --- labels of tokens ---


def test_labels_are_those_of_transformers_words(entities, tiny_checkpoints):
    pipe = made("token-classification", tiny_checkpoints["bert"], entities)
    for row, (words, tags) in enumerate(TAGGED):
        theirs = pipe.tokenizer(words, is_split_into_words=True)
        expected, before = [], None
        for token, word in zip(theirs["input_ids"], theirs.word_ids(), strict=True):
            expected.append((token, None if word is None or word == before else tags[word]))
            before = word
        assert encoded(pipe, entities)[row] == [expected]


def test_labels_on_all_pieces(speech, entities, tiny_checkpoints):
    pipe = made(TokenClassification(label_pieces="all"), tiny_checkpoints["bert"], speech)
    words, tags = SPEECH[0]
    theirs = pipe.tokenizer(words, is_split_into_words=True)
    expected = [(token, None if word is None else tags[word]) for token, word in zip(theirs["input_ids"], theirs.word_ids(), strict=True)]
    assert encoded(pipe, speech)[0] == [expected]
    pieces = made(TokenClassification(label_pieces="all"), tiny_checkpoints["bert"], entities)
    tags = [tag for _, tag in encoded(pieces, entities)[0][0] if tag is not None]
    assert tags.count("B-PER") == 1 and tags.count("B-LOC") == 1 and "I-PER" in tags, "only the first piece of an entity begins it"


def test_a_word_of_data_is_one_word_with_a_tag(speech, body):
    pipe = made("token-classification", body, speech)
    scored = [[tag for _, tag in row[0] if tag is not None] for row in encoded(pipe, speech)]
    assert scored == [tags for _, tags in SPEECH], "doesn't has one tag, on its first piece"


WORDS = st.lists(st.text("abcdeë素🎉'-.", min_size=1, max_size=7), min_size=1, max_size=14)


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
@settings(deadline=None, max_examples=40)
@given(words=WORDS, data=st.data())
def test_tags_come_back_from_labels_whatever_the_windows(name, words, data, tiny_tokenizers):
    tags = data.draw(st.lists(st.sampled_from(["X", "Y"]), min_size=len(words), max_size=len(words)))
    text, where = word_spans(words)
    spans = spans_of_tags(tags, where, plain=True)
    task = TokenClassification(labels=("X", "Y"), kind="words", words="spaces", label_pieces="first", scheme="plain", tags=("X", "Y"))
    tokenizer = tiny_tokenizers[name]
    whole = task.encode(tokenizer, {"text": [text]}, [spans], TokenOptions(max_length=None, truncation=False))
    scored = [task.tags[label] for label in whole.labels if label != IGNORED]
    missing = [word for word in words if not tokenizer(word, add_special_tokens=False)["input_ids"]]
    assert len(scored) == len(tags) - len(missing)
    if not missing:
        assert scored == tags
    windows = TokenOptions(max_length=12, long=LongTexts("windows", stride=data.draw(st.integers(0, 5))))
    table = task.encode(tokenizer, {"text": [text]}, [spans], windows)
    again = task.encode(tokenizer, {"text": [text]}, None, windows)
    assert np.array_equal(table.ids, again.ids) and again.labels is None
    seen = {}
    firsts = first_tokens([pieces_in(tokenizer, text, windows, number) for number in range(len(table))])
    for number, first in enumerate(firsts):
        labels = table.labels[int(table.starts[number]) : int(table.starts[number + 1])].tolist()
        special = tokenizer.num_special_tokens_to_add()
        labels = labels[special // 2 : len(labels) - (special - special // 2)]
        for step, label in enumerate(labels):
            assert seen.setdefault(first + step, label) == label, "a token has the same label in every window"
    assert [task.tags[label] for _, label in sorted(seen.items()) if label != IGNORED] == scored


def pieces_in(tokenizer, text, options, window):
    from pellucid.tokens import windows_of
    from pellucid.types import Example

    tokens = windows_of(tokenizer, Example(0, {"text": text}), ("text",), options)[window]
    kept = [place for place, special in enumerate(tokens.special) if not special]
    return [(tokens.ids[place], *tokens.offsets[place]) for place in kept]


def test_what_nothing_stands_for_is_said(tiny_checkpoints, caplog):
    text = "Peter \u200b Paul"
    rows = rows_with_spans([text, "none"], [[(0, 5, "PER"), (6, 7, "PER")], []])
    pipe = made("token-classification", tiny_checkpoints["bert"], rows)
    with caplog.at_level(logging.WARNING, "pellucid"):
        pipe.encode(rows.train)
    assert "1 span," in caplog.text and "in 'Peter" in caplog.text
    caplog.clear()
    long = rows_with_spans(["Peter " * 200 + "Paul", "none"], [[(0, 5, "PER"), (1200, 1204, "PER")], []])
    cut = made("token-classification", tiny_checkpoints["bert"], long, TokenOptions(long=LongTexts("truncate")))
    with caplog.at_level(logging.WARNING, "pellucid"):
        cut.encode(long.train)
    assert not caplog.text, "what truncation cut is reported by truncation"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (None, "row 1"),
        ("PER", "expected spans"),
        ((Span(3, 99, "PER"),), "does not lie in the text of 12 characters"),
        ((Span(-1, 2, "PER"),), "does not lie"),
        ((Span(4, 4, "PER"),), "does not lie"),
        ((Span(0, 5, "PER"), Span(3, 8, "PER")), "overlap"),
        ((Span(0, 5, "ORG"),), "has none of the 2 labels"),
        ((Span(0, 5, "PER", text="Wrong"),), "says 'Wrong', the text 'Peter'"),
    ],
)
def test_bad_spans_are_named_by_their_row(target, says, entities, tiny_checkpoints):
    pipe = made("token-classification", tiny_checkpoints["bert"], entities)
    with pytest.raises(PellucidError, match="row 1") as caught:
        pipe.task.encode(pipe.tokenizer, {"text": ["Fine.", "Peter sings."]}, [(), target], pipe.options)
    assert says in str(caught.value) and caught.value.cure


def test_rows_that_cannot_be_learned(tiny_checkpoints):
    with pytest.raises(LabelError, match="no tags or spans"):
        TokenClassification().for_rows(pl.read([{"text": "a"}], text="text", label=False, options=ALL).train)
    with pytest.raises(LabelError, match="there is no span"):
        TokenClassification().for_rows(rows_of([(["a", "b"], ["O", "O"])]).train)
    classes = pl.read([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], text="text", label="label", options=ALL)
    with pytest.raises(LabelError, match="expected spans of the text, came 'x'") as caught:
        TokenClassification().for_rows(classes.train)
    assert "row 0" in str(caught.value)
    with pytest.raises((LabelError, DataError), match="5 words but 4 tags"):
        rows_of([(["a", "b", "c", "d", "e"], ["O", "O", "B-X", "O"])])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "entities"}, "kind is 'entities'"),
        ({"scheme": "BIO"}, "scheme is 'BIO'"),
        ({"aggregation": "mean"}, "aggregation is 'mean'"),
        ({"label_pieces": "last"}, "label_pieces is 'last'"),
        ({"words": "letters"}, "words is 'letters'"),
        ({"kind": "words", "aggregation": "simple"}, "joins words"),
        ({"kind": "words", "scheme": "IOB2"}, "plain tags"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(SettingError, match=says):
        TokenClassification(**settings)


# --- spans of scores ---


def test_groups_are_the_hubs():
    assert grouped(["O", "B-A", "I-A", "B-A", "I-B", "O"], "IOB2") == [("O", 0, 1), ("A", 1, 3), ("A", 3, 4), ("B", 4, 5), ("O", 5, 6)]
    assert grouped(["I-A", "I-A", "B-A"], "IOB1") == [("A", 0, 2), ("A", 2, 3)]
    assert grouped(["B-A", "E-A", "I-A", "S-A", "S-A"], "IOBES") == [("A", 0, 2), ("A", 2, 3), ("A", 3, 4), ("A", 4, 5)]
    assert grouped(["N", "N", "V-x"], "plain") == [("N", 0, 2), ("V-x", 2, 3)]


def test_words_are_cut_by_rule():
    text = "Berlin. (Paris)"
    where = np.array([[0, 3], [3, 6], [6, 7], [8, 9], [9, 14], [14, 15]])
    metaspace = np.array([0, 0, 0, 1, 1, 1])
    assert word_numbers(text, where, metaspace, "spaces").tolist() == [0, 0, 0, 1, 1, 1]
    assert word_numbers(text, where, metaspace, "hub").tolist() == [0, 0, 0, 1, 1, 1]
    assert word_numbers(text, where, metaspace, "tokenizer").tolist() == [0, 0, 1, 2, 3, 4]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(5, 7), st.integers(0, 1)), min_size=1, max_size=60),
    st.integers(2, 12),
    st.integers(0, 11),
)
def test_windows_are_put_together_again(pieces, room, stride):
    at, whole = 0, []
    for number, length in pieces:
        whole.append((number, at, at + length))
        at += length
    step = max(room - min(stride, room - 1), 1)
    windows = [whole[first : first + room] for first in range(0, max(len(whole) - room, 0) + step, step)]
    windows = [window for number, window in enumerate(windows) if number == 0 or number * step + room - step < len(whole)]
    lengths = [length for _, length in pieces]
    if all(lengths):  # tokens without characters of their own may look like others
        assert first_tokens(windows) == [number * step for number in range(len(windows))]


def test_a_token_is_read_where_most_text_stands_around_it(tiny_checkpoints, entities):
    options = TokenOptions(max_length=22, long=LongTexts("windows", stride=8))  # 20 tokens of text
    pipe = made("token-classification", tiny_checkpoints["bert"], entities, options)
    split = pl.read([{"text": "Peter lives in Berlin and in Paris. " * 8}], text="text", label=False, options=ALL).train
    windows = pipe.source(split).windows(0)
    counts = [len(window) - 2 for window in windows]
    assert len(windows) > 3 and set(counts[:-1]) == {20}
    pieces = RowPieces.of(windows)
    total = 12 * (len(windows) - 1) + counts[-1]
    assert len(pieces.windows) == total
    for token, (window, position) in enumerate(zip(pieces.windows.tolist(), pieces.positions.tolist(), strict=True)):
        assert window * 12 + position - 1 == token, "each token once, in order"

        def nearer(number, token=token):
            left = float("inf") if number == 0 else token - 12 * number
            right = float("inf") if number == len(windows) - 1 else 12 * number + 19 - token
            return min(left, right) if left >= 0 and right >= 0 and token < 12 * number + counts[number] else -1

        assert nearer(window) == max(map(nearer, range(len(windows))))


def test_pieces_of_one_character_are_one_span():
    spans = [Span(0, 1, "A", 0.5), Span(0, 1, "B", 0.9), Span(1, 3, "A", 0.4), Span(2, 3, "C", 0.3)]
    assert places(apart(spans)) == [(0, 1, "B"), (1, 3, "A")]


def hub_answers(pipeline, text, strategy):
    """What transformers' pipeline answers: (start, end, label, score), without white space at the ends."""
    found = []
    for one in pipeline(text, aggregation_strategy=strategy):
        start, end = one["start"], one["end"]
        start, end = end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())
        found.append((start, end, one.get("entity_group", one.get("entity")), float(one["score"])))
    return [one for one in found if one[1] > one[0]]


def agree(ours, theirs):
    """The same spans and scores; of theirs, those that overlap a surer one of ours are left out."""
    mine = [(span.start, span.end, span.label) for span in ours]
    scores = {place: span.score for place, span in zip(mine, ours, strict=True)}
    for start, end, label, score in theirs:
        if (start, end, label) in scores and scores[start, end, label] == pytest.approx(score, abs=1e-5):
            continue
        covered = [span for span in ours if span.start < end and start < span.end and (span.score or 0) >= score - 1e-6]
        assert covered, f"{(start, end, label, score)} is missing among {mine}"
    known = {(start, end, label) for start, end, label, _ in theirs}
    assert set(mine) <= known, f"{set(mine) - known} are not theirs"
    assert all(before.end <= after.start for before, after in pairwise(ours))


STRATEGIES = ("none", "simple", "first", "average", "max")


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("tags", [ENTITY_TAGS, ("NOUN", "VERB", "ADJ"), ("O", "PER", "LOC")], ids=["IOB2", "plain", "plain with O"])
def test_answers_are_those_of_transformers(strategy, name, tags, heads):
    from transformers import pipeline as hub_pipeline

    folder = heads(name, tags)
    theirs = hub_pipeline("token-classification", str(folder), device="cpu")
    ours = Pipeline.new(TokenClassification(kind="spans", aggregation=strategy), folder, tokens=SHORT)
    labels = set()
    texts = [text for text in SENTENCES if len(ours.tokenizer(text)["input_ids"]) <= 64]  # theirs cuts longer ones
    for text in texts:
        answer = ours(text).answer
        labels.update(span.label for span in answer)
        agree(answer, hub_answers(theirs, text, strategy))
    assert len(texts) > 2 and len(labels) > 1, "a test with one label only says nothing"


def test_a_head_alone_answers_as_the_hub_does(heads):
    task = Pipeline.new("token-classification", heads("wordpiece"), tokens=SHORT).task
    assert (task.kind, task.scheme, task.aggregation, task.words) == ("spans", "IOB2", "simple", "hub")
    assert task.labels == ("LOC", "PER") and task.tags == ENTITY_TAGS
    plain = Pipeline.new("token-classification", heads("bpe", ("NOUN", "VERB", "ADJ")), tokens=SHORT).task
    assert (plain.kind, plain.scheme, plain.aggregation, plain.words) == ("words", "plain", "first", "tokenizer")
    assert plain.labels == plain.tags == ("NOUN", "VERB", "ADJ")
    outside = Pipeline.new("token-classification", heads("bpe", ("O", "PER", "LOC")), tokens=SHORT).task
    assert (outside.kind, outside.labels) == ("spans", ("PER", "LOC"))


def test_ignored_labels_are_not_answered(heads):
    folder = heads("bpe", ("O", "PER", "LOC"))
    every = Pipeline.new(TokenClassification(ignore_labels=()), folder, tokens=SHORT)
    some = Pipeline.new(TokenClassification(ignore_labels=("O", "PER")), folder, tokens=SHORT)
    assert {span.label for prediction in every(list(SENTENCES)) for span in prediction.answer} == {"O", "PER", "LOC"}
    assert {span.label for prediction in some(list(SENTENCES)) for span in prediction.answer} == {"LOC"}


def test_a_head_of_the_same_tags_is_kept_by_name(heads, entities):
    pipe = made("token-classification", heads("wordpiece"), entities)
    assert pipe.task.tags == ENTITY_TAGS and pipe.task.labels == ("LOC", "PER")
    assert any("checkpoint's order" in str(note) for note in pipe.notes)
    wanted = [places(target) for target in entities.train.targets(0, len(entities.train))]
    assert [places(prediction.answer) for prediction in oracle(pipe, entities.train)] == wanted
    other = rows_of([(["a", "b", "c"], ["B-X", "O", "B-Y"]), (["d"], ["B-Z"])])
    assert any("new head with 7 outputs" in str(note) for note in made("token-classification", heads("wordpiece"), other).notes)


# --- long texts, emoji, words ---


def test_windows_change_nothing_where_one_is_enough(heads):
    wide = Pipeline.new("token-classification", heads("bpe"), tokens=TokenOptions(long=LongTexts("windows", stride=8)))
    cut = replace(wide, options=replace(wide.options, long=LongTexts("truncate")))
    assert wide(list(SENTENCES)) == cut(list(SENTENCES))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_long_text_has_spans_everywhere(name, tiny_checkpoints):
    rows = rows_with_spans(["Berlin lies here.", "no"], [[(0, 6, "LOC")], []])
    pipe = made("token-classification", tiny_checkpoints[MODELS[name]], rows, TokenOptions(long=LongTexts("windows", stride=16)))
    text = "Paris, Berlin 🎉 and e\u0301tat 👩‍👧 Madrid: cities. " * 170
    word = "Madrid"
    found = [(at, at + len(word)) for at in range(len(text)) if text.startswith(word, at)]
    long = rows_with_spans([text, "no"], [[(start, end, "LOC") for start, end in found], []])
    assert len(pipe.encode(long.train.without_targets()).ids) > 3000
    answers = oracle(pipe, long.train)[0].answer
    assert places(answers) == [(start, end, "LOC") for start, end in found]
    assert {span.text for span in answers} == {word}
    real = pipe(text).answer
    assert all(text[span.start : span.end] == span.text and span.text.strip() == span.text for span in real)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("words", ["tokenizer", "spaces", "hub"])
@settings(deadline=None, max_examples=30)
@given(text=st.text("abBe\u0301🎉👩\u200d👧素 .\u00a0\n", max_size=120), seed=st.integers(0, 5))
def test_spans_slice_the_text_whatever_the_scores(name, words, text, seed, tiny_tokenizers):
    from pellucid.tokens import windows_of
    from pellucid.types import Example

    options = TokenOptions(max_length=14, long=LongTexts("windows", stride=4))
    if name == "bpe" and not text:
        return  # no token at all
    try:
        windows = windows_of(tiny_tokenizers[name], Example(0, {"text": text}), ("text",), options)
    except PellucidError:
        return  # a text that gives no token
    pieces = RowPieces.of(windows)
    scores = np.random.default_rng(seed).dirichlet(np.full(5, 0.3), len(pieces.windows))
    for aggregation in STRATEGIES:
        reading = TagReading(ENTITY_TAGS, "IOB2", aggregation, words, ignored=())
        spans = reading.spans(text, pieces, scores)
        assert all(0 <= span.start < span.end <= len(text) and text[span.start : span.end] == span.text for span in spans)
        assert all(before.end <= after.start for before, after in pairwise(spans))


def test_words_are_answered_one_by_one(speech, body):
    pipe = made("token-classification", body, speech)
    text = "the cats don't sit on New\u00a0York 's blue-green mats ."
    answer = pipe(text).answer
    assert [span.text for span in answer] == text.split(" ")
    assert {span.label for span in answer} <= set(pipe.task.labels) and all(0 < span.score <= 1 for span in answer)
    assert pipe([["the", "cat", "sleeps"]])[0].answer == pipe("the cat sleeps").answer


def test_empty_texts_have_no_spans(entities, tiny_checkpoints):
    pipe = made("token-classification", tiny_checkpoints["bert"], entities)
    assert [prediction.answer for prediction in pipe(["", "   "])] == [(), ()]
    assert pipe([]) == []


def test_answers_stand_on_the_left_wherever_padding_is(heads):
    pipe = Pipeline.new("token-classification", heads("wordpiece"), tokens=SHORT)
    table = pipe.encode(pl.read([{"text": text} for text in SENTENCES], text="text", label=False, options=ALL).train)
    for side in ("left", "right"):
        batch = pad(table, np.arange(len(table)), replace(pipe.pad, side=side))
        seen = batch.inputs["attention_mask"].astype(bool)
        plain, output = pipe.run(batch), pipe.run(batch, Want(answers=True))
        assert plain.lengths is None and output.lengths.tolist() == table.lengths.tolist()
        for one, other, mask, length in zip(plain.logits, output.logits, seen, output.lengths, strict=True):
            assert np.array_equal(one[mask], other[:length])


def test_decode_wants_to_know_the_text(heads):
    pipe = Pipeline.new("token-classification", heads("wordpiece"), tokens=SHORT)
    rows = np.zeros(1, dtype=np.int64)
    with pytest.raises(SettingError, match="nobody said where the texts are"):
        pipe.task.decode(Output(np.zeros((1, 4, 5)), lengths=np.array([4])), Batch({}, None, rows, rows, rows))


def test_scores_that_are_no_numbers_are_refused(entities, tiny_checkpoints):
    pipe = made("token-classification", tiny_checkpoints["bert"], entities)
    with torch.no_grad():
        pipe.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"row 0: .*not finite"):
        pipe("Peter")


# --- scores, looks, training ---


def test_scores_are_those_of_seqeval(entities, heads):
    from seqeval.metrics import f1_score, precision_score, recall_score

    pipe = made("token-classification", heads("wordpiece"), entities)
    answers = pipe.predict(entities.train)
    targets = entities.train.targets(0, len(entities.train))
    given_tags = []
    for (words, _), prediction in zip(TAGGED, answers, strict=True):
        _, where = word_spans(words)
        tags = ["O"] * len(words)
        for span in prediction.answer:
            members = [place for place, (start, end) in enumerate(where) if span.start <= start and end <= span.end]
            for place in members:
                tags[place] = ("B-" if place == members[0] else "I-") + span.label
        given_tags.append(tags)
    wanted = [tags for _, tags in TAGGED]
    found = {score.name: score.value for score in pipe.task.metrics(list(answers), targets)}
    expected = (f1_score(wanted, given_tags), precision_score(wanted, given_tags), recall_score(wanted, given_tags))
    assert [found["F1"], found["precision"], found["recall"]] == pytest.approx(expected)


def test_single_tokens_are_not_scored(entities, tiny_checkpoints):
    pipe = made(TokenClassification(aggregation="none"), tiny_checkpoints["bert"], entities)
    assert {span.label for span in pipe(SENTENCES[0]).answer} <= set(pipe.task.tags)
    with pytest.raises(SettingError, match="single tokens"):
        pipe.task.metrics([], [])


def test_labels_read_well(entities, speech, tiny_checkpoints):
    for rows, tagged in ((entities, TAGGED), (speech, SPEECH)):
        pipe = made("token-classification", tiny_checkpoints["bert"], rows)
        batch = pipe.collate(pipe.encode(rows.train), np.arange(len(tagged)))
        texts = [
            pipe.task.label_text(label, ids, pipe.tokenizer.decode)
            for label, ids in zip(batch.labels, batch.inputs["input_ids"], strict=True)
        ]
        if rows is entities:
            assert texts[0] == "peter=PER, new york=LOC" and texts[2] == "(none)" and texts[4] == "rome=LOC, oslo=LOC"
        else:
            assert texts[1] == "dogs/NOUN bark/VERB ./PUNCT"
        every = pipe.task.best_labels(np.zeros((*batch.labels.shape, len(pipe.task.tags))))
        assert isinstance(pipe.task.label_text(every[0], batch.inputs["input_ids"][0], pipe.tokenizer.decode), str)


def test_a_prediction_marks_the_text(heads):
    pipe = Pipeline.new("token-classification", heads("wordpiece"), tokens=SHORT)
    split = pl.read([{"text": SENTENCES[0]}], text="text", label=False, options=ALL).train
    prediction = pipe.predict(split)[0]
    view = pipe.task.view(prediction, split[0])
    spans = view.parts[0]
    assert spans.text == SENTENCES[0] and [(mark.start, mark.end, mark.label) for mark in spans.spans] == places(prediction.answer)
    trace = pipe.trace(SENTENCES[0])
    assert places(trace.prediction.answer) == places(prediction.answer)
    assert "answer" in str(trace.view())


def test_saved_and_loaded_it_answers_the_same(heads, entities, tmp_path):
    for task, rows in ((TokenClassification(), None), (TokenClassification(), entities)):
        pipe = made(task, heads("unigram") if rows is None else heads("wordpiece"), rows)
        again = pl.load(pl.save(pipe, tmp_path / f"model-{rows is None}"))
        assert again.task == pipe.task
        assert list(again.predict(list(SENTENCES))) == list(pipe.predict(list(SENTENCES)))
    config = json.loads((tmp_path / "model-False" / "config.json").read_text())
    assert [config["id2label"][str(number)] for number in range(5)] == list(ENTITY_TAGS)


@pytest.fixture(params=["spans", "words"])
def learn(request, entities, speech, tiny_checkpoints, tmp_path):
    rows = entities if request.param == "spans" else speech
    both = pl.Rows({"train": rows.train, "valid": rows.train}, rows.roles, rows.source)
    pipe = made("token-classification", tiny_checkpoints["bert"], both)
    return learner(pipe, both, options=LearnerOptions(lr=3e-3, loaders=LoaderOptions(bs=4), path=tmp_path))


def test_the_learner_learns_and_shows_scores(learn):
    with learn.no_bar():
        learn.fit_one_cycle(50)
    lines = learn.recorder.values
    assert lines[-1][0] < lines[0][0] / 2
    names = list(learn.recorder.metric_names)
    main = "f1" if learn.pipe.task.kind == "spans" else "accuracy"
    assert names[3] == main
    column = names.index(main) - 1
    split = learn.dls.valid.dataset.split
    scores = learn.pipe.task.metrics(list(learn.pipe.predict(split)), split.targets(0, len(split)))
    assert lines[-1][column] == pytest.approx(scores[0].value) and scores[0].value > 0.8


def test_batches_and_results_are_shown(learn, capsys):
    learn.dls.show_batch(max_n=3)
    with learn.no_bar():
        learn.fit(1)
        learn.show_results(max_n=3)
    shown = capsys.readouterr().out
    assert "=" in shown if learn.pipe.task.kind == "spans" else "/" in shown


def test_every_scored_token_counts_the_same(learn):
    _, labels = learn.dls.train.one_batch()
    logits = torch.randn(*labels.shape, len(learn.pipe.task.tags))
    whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    assert learn.loss_func(logits, labels) == pytest.approx(float(whole), rel=1e-5)
    each = learn.pipe.task.loss(logits, labels)
    assert each.shape == (len(labels),)
    nothing = torch.full_like(labels, IGNORED)
    assert learn.pipe.task.loss(logits, nothing).tolist() == [0.0] * len(labels)


def test_census():
    census = SpanCensus()
    census.add("the cat", (Span(0, 3, "D"), Span(4, 7, "N")))
    assert census.one_a_word and census.between_spaces and census.whole_words
    census.add("cats.", (Span(0, 4, "N"), Span(4, 5, "P")))
    assert census.one_a_word and not census.between_spaces and census.whole_words
    census.add("New York", (Span(0, 8, "L"),))
    assert not census.one_a_word and census.labels == {"D", "N", "P", "L"}
    census.add("Berliners", (Span(0, 6, "L"),))
    assert not census.whole_words


# --- real checkpoints and data ---


@pytest.fixture(scope="module")
def grammar():
    folder = CHECKPOINTS / "distilbert-gec"
    if not folder.is_dir():
        pytest.skip("the checkpoint distilbert-gec is not on this machine (environment variable CHECKPOINTS)")
    return folder


def test_grammar_edits_are_plain_tags(grammar):
    pipe = Pipeline.new("token-classification", grammar)
    assert pipe.task.kind == "words" and len(pipe.task.tags) == 213
    answer = pipe("I has two cat.").answer
    assert [span.text for span in answer] == ["I", "has", "two", "cat", "."]
    labels = [span.label for span in answer]
    assert labels[0] == "$KEEP" and set(labels) != {"$KEEP"}, "something is to be mended"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_grammar_edits_are_those_of_transformers(strategy, grammar):
    from transformers import pipeline as hub_pipeline

    theirs = hub_pipeline("token-classification", str(grammar), device="cpu")
    ours = Pipeline.new(TokenClassification(kind="spans", aggregation=strategy), grammar)
    for text in ("I has two cat.", "She go to school yesterday , and he were tired.", "He want a apple and a unbelievably good books"):
        agree(ours(text).answer, hub_answers(theirs, text, strategy))


@pytest.mark.parametrize(
    ("file", "label", "kind"), [("wnut17/emerging.dev.conll.gz", "tags", "spans"), ("ud_english_ewt/dev.conllu.gz", "upos", "words")]
)
def test_real_rows_come_back_from_their_labels(file, label, kind, shared_data, minilm_folder):
    rows = pl.read(shared_data / file, text="words", label=label, options=replace(ALL, max_rows=400))
    pipe = made("token-classification", "minilm", rows, None)
    assert pipe.task.kind == kind
    answers, targets = oracle(pipe, rows.train), rows.train.targets(0, len(rows.train))
    score = pipe.task.metrics(answers, targets)[0]
    assert score.value > 0.995, f"{score.name} {score.value}: labels that are learned perfectly answer the rows"


def test_padded_batches_hold_labels_where_tokens_stand(entities, tiny_checkpoints):
    pipe = made("token-classification", tiny_checkpoints["bert"], entities)
    table = pipe.encode(entities.train)
    left = replace(pipe.pad, side="left")
    right, turned = pad(table, np.arange(len(table)), pipe.pad), pad(table, np.arange(len(table)), left)
    for one, other, length in zip(right.labels, turned.labels, right.lengths, strict=True):
        assert one[:length].tolist() == other[len(other) - length :].tolist()
