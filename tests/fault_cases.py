"""Strange texts in every task: what is put in, and what must come out. The numbers are those of `task_faults.toml`, group C.

A case is a function named after its number, with the tag of a task where it serves all of them. It asserts what happens, and yields what
must be refused: words of the message, and what raises it.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import pellucid as pl
from fault_kits import PLAIN, QUESTION, READ, TOKENS, Kit, alike, conversation, folder_of, kinds_of, kit, kits, task_of, within
from pellucid.given import as_split
from pellucid.pipelines import Pipeline
from pellucid.render import to_html, to_text
from pellucid.tasks.embeddings import FeatureExtraction
from pellucid.tasks.seq2seq import Summarization
from pellucid.tasks.zero_shot import ZeroShotClassification
from pellucid.tokens import LongTexts, TokenTable

Refusal = tuple[str, Callable[[], Any]]
Case = Iterator[Refusal]
FAMILY, RAINBOW, THUMB, FLAG, KEYCAP = "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "1️⃣"
SIGNS = (FAMILY, RAINBOW, THUMB, FLAG, KEYCAP, "e\u0301\u0323")
EMOJI = f"a {FAMILY} b {RAINBOW} c {THUMB} d {FLAG} e {KEYCAP} f e\u0301\u0323 g"
NOTHING_ELSE = ("token-classification", "text2text-generation", "text-generation", "feature-extraction")  # the model reads the text alone
READ_WHOLE = ("token-classification", "question-answering", "fill-mask", "feature-extraction")  # in windows


def table_of(one: Kit, text: str) -> TokenTable:
    """The tokens of this text as `predict` makes them."""
    return one.pipe.encode(as_split([one.asked(text)], one.pipe.task.reads))


def lengths_of(tag: str) -> Iterator[Kit]:
    """Each kit with windows of many lengths, so that their edges fall everywhere."""
    for one in kits(tag):
        for length in range(20, 33) if tag != "zero-shot-classification" else range(36, 48):  # a label of bytes takes 16
            yield replace(one, pipe=replace(one.pipe, options=replace(one.pipe.options, max_length=length)))


def answered(tag: str, texts: Sequence[str]) -> None:
    """These texts are answered by each kit, between plain neighbours."""
    for one in kits(tag):
        one.answered(texts)


def c46(tag: str) -> Case:
    blank = " \t\n\u3000 "
    for one in kits(tag):
        if one.kind == "bpe" and tag in NOTHING_ELSE:
            yield "the list, row 1, column 'text': the text gives no token", partial(one.predict, [PLAIN[0], "", PLAIN[1]])
            one.answered([blank])
        else:
            one.answered(["", blank])


def c46_token_classification() -> Case:
    yield from c46("token-classification")
    assert kit("token-classification").answered([""])[0].answer == ()


def c46_question_answering() -> Case:
    yield from c46("question-answering")
    assert [one.answer for one in kit("question-answering").answered(["", " \n "])] == ["", ""]


def c46_fill_mask() -> Case:
    yield from c46("fill-mask")
    one = kit("fill-mask")
    yield "row 1: the text has no mask to fill", lambda: list(one.pipe.predict([one.asked("a"), "", one.asked("b")]))


def c47(tag: str) -> None:
    one, words = kit(tag), "the film is good and the jokes are old "
    text = words * (5_000 if tag in READ_WHOLE else 25_000)
    with within(100):
        one.answered([text])
    table = table_of(one, text)
    assert int(table.lengths.max()) <= 32 or tag == "text-generation"
    assert (len(table) > 1000 and not table.lost.any()) if tag in READ_WHOLE else int(table.lost.sum()) > 100_000


def c48(tag: str) -> None:
    first, *rest = kits(tag)
    with within(100):
        first.answered(["x" * 100_000])
        for one in rest:
            one.answered(["x" * 10_000])


def c49(tag: str) -> None:
    answered(tag, ["a\0b", "\0", "\0" * 40 + "film"])


def c50(tag: str) -> Case:
    one = kit(tag)
    for half in ("half \ud83d a smile", "x " * 9000 + "\ud800"):
        yield f"the list, row 1, column '{one.column}': character", partial(one.predict, [PLAIN[0], half, "\udc80"])
    column = "context" if tag == "question-answering" else "text"
    yield f"the list, row 1, column '{column}': character 5 is a lone surrogate", partial(one.read, [PLAIN[0], "half \ud800"])


def c50_text2text_generation() -> Case:
    yield from c50("text2text-generation")
    rows = [{"text": "a", "target": "b"}, {"text": "c", "target": "half \ud800"}]
    yield "row 1, column 'target': character 5 is a lone surrogate", lambda: pl.read(rows, **READ["text2text-generation"])
    yield "prefix: character 5 is half a character", lambda: Summarization(prefix="half \ud800: ")


def c50_zero_shot_classification() -> Case:
    yield from c50("zero-shot-classification")
    one = kit("zero-shot-classification")
    for wrong in ({"candidate_labels": ("city", "half \ud800")}, {"template": "half \ud800 {}"}):
        name = next(iter(wrong))
        yield f"{name}: ", lambda wrong=wrong: replace(one.pipe.task, **wrong)  # type: ignore[misc]


def c50_feature_extraction() -> Case:
    yield from c50("feature-extraction")
    yield "prompt: character 5 is half a character", lambda: FeatureExtraction(prompt="half \ud800: ")


def c51(tag: str) -> Case:
    one = kit(tag)
    column = "context" if tag == "question-answering" else "text"
    for wrong, came in (
        (b"caf\xe9", "came bytes"),
        (None, "is missing"),
        (float("nan"), "is missing"),
        (7, "came int"),
        (2.5, "came float"),
    ):
        yield f"the list, row 1, column '{one.column}': ", partial(one.predict, [PLAIN[0], wrong])
        yield came, partial(one.predict, [PLAIN[0], wrong])
        yield f"the list, row 1, column '{column}': ", partial(one.read, [PLAIN[0], wrong])
    yield "row 1", partial(one.predict, [PLAIN[0], ["a", 5]])


def c51_text_generation() -> Case:
    yield from c51("text-generation")
    broken = conversation("Hello", "There").replace('"There"', "null")
    yield (
        "the list, row 1: message 2 of the conversation has no text as its content",
        partial(kit("text-generation").predict, ["a", broken]),
    )


def c52(tag: str) -> None:
    answered(tag, ["\ufeffa film", "a\ufeff\ufeff film"])


def c53(tag: str) -> None:
    answered(tag, ["\u202eevil\u202c \u2066x\u2069 שלום مرحبا", "\u200f\u200e Berlin \u202e"])


def c54(tag: str) -> None:
    with within(60):
        answered(tag, ["z" + "\u0301" * 5000, "Berlin " + "e" + "\u0323\u0301" * 1000 + " Paris"])


def c55(tag: str) -> None:
    for one in lengths_of(tag):
        texts = [EMOJI, FAMILY * 4, f"{RAINBOW}{THUMB}"]
        for text, prediction in zip(texts, one.predict(texts), strict=True):
            one.sound(text, prediction)


def c55_token_classification() -> None:
    c55("token-classification")
    spans = [[EMOJI.index(sign), EMOJI.index(sign) + len(sign), f"sign {place}"] for place, sign in enumerate(SIGNS)]
    rows = pl.read([{"text": EMOJI, "entities": spans}], **READ["token-classification"])
    for kind in kinds_of("token-classification"):
        pipe = Pipeline.new("token-classification", folder_of("token-classification", kind), rows, tokens=TOKENS)
        for length in range(20, 33):
            table = replace(pipe, options=replace(pipe.options, max_length=length)).encode(rows.train)
            begun = {pipe.task.tags[number] for number in np.unique(table.labels) if number >= 0}  # type: ignore[attr-defined]
            lost = {f"B-sign {place}" for place in range(len(SIGNS))} - begun
            assert not lost or kind == "wordpiece", lost  # BERT's tokenizer has no piece for the sign, or drops it


def c55_question_answering() -> None:
    c55("question-answering")
    rows = [
        {"question": "Which?", "context": EMOJI, "answers": {"text": [sign], "answer_start": [EMOJI.index(sign)]}}
        for sign in (THUMB, FLAG, SIGNS[-1])
    ]
    found = pl.read(rows, **READ["question-answering"])
    for kind in kinds_of("question-answering"):
        pipe = Pipeline.new("question-answering", folder_of("question-answering", kind), found, tokens=TOKENS)
        table = pipe.encode(found.train)
        for row in range(len(rows)):
            labels = np.asarray(table.labels)[table.rows == row]
            assert labels.any() or kind == "wordpiece", "some window has the answer whole"  # BERT's has no piece for the sign


def c55_text2text_generation() -> None:
    c55("text2text-generation")
    for one in kits("text2text-generation"):
        joined = replace(one.pipe, options=replace(one.pipe.options, long=LongTexts("chunk-and-join")))
        for text in (EMOJI * 3, FAMILY * 9, FLAG * 30, THUMB * 20):
            one.sound(text, joined(text))


def c56(tag: str) -> None:
    for one in kits(tag):
        tokenizer = one.pipe.tokenizer
        plain = [name for name in tokenizer.all_special_tokens if name not in (tokenizer.unk_token, tokenizer.mask_token)]
        ids = tokenizer.convert_tokens_to_ids(plain)
        usual = int(np.isin(table_of(one, "a b").ids, ids).sum())
        for name in plain:
            assert int(np.isin(table_of(one, f"a {name} b").ids, ids).sum()) == usual, name
        one.answered([f"a {name} b{name}" for name in plain])


def c56_fill_mask() -> None:
    c56("fill-mask")
    for one in kits("fill-mask"):
        (found,) = one.answered([f"is {one.pipe.tokenizer.mask_token} a film"])
        assert len({span.start for span in found.spans}) == 2, "a mask that somebody wrote is a mask"
        table = one.pipe.task.to_learn(one.pipe.encode(one.read([f"a {one.pipe.tokenizer.mask_token} film"]).train))
        hidden = np.asarray(table.ids) == one.pipe.tokenizer.mask_token_id
        assert hidden.any() and (np.asarray(table.labels)[hidden] == -100).all(), "and nothing to learn"


def c56_text_generation() -> None:
    c56("text-generation")
    one = kit("text-generation")
    plain = [conversation("a"), "[1, 2]", '[{"role": 1}]', "[]", "[" * 3000 + "]" * 3000]
    assert len(one.predict(plain[1:])) == 4, "what is no list of messages is plain text"


def c57(tag: str) -> None:
    answered(tag, ["𐎀𐎁𐎂 ꙮ", "𐎀" * 50])


def c58(tag: str) -> None:
    answered(tag, ["Berlin\r\nParis\tLondon\u2028Rome\u2029x\x85y\x0bz", "\r\n", "Berlin\r"])


def c59(tag: str) -> None:
    text = "<script>alert(1)</script> & \x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07"
    for one in kits(tag):
        one.answered([text])
        trace = one.pipe.trace(one.asked(text))
        prediction = trace.prediction
        views = (trace.view(), prediction.view(), one.pipe.task.view(prediction, trace.example), one.read([text]).view())
        for view in views:
            assert "<script>" not in to_html(view).lower()
            assert not {"\x1b", "\x07"} & set(to_text(view))


def c60(tag: str) -> None:
    answered(tag, ["{{7*7}} ${7*7} %s %(a)s {0} {text!r} %", "{", "%"])


def c60_zero_shot_classification() -> None:
    c60("zero-shot-classification")
    labels = ("{}", "{{7*7}}", "%s", "{0}")
    task = ZeroShotClassification(candidate_labels=labels, template="This is {}, %s.")
    pipe = Pipeline.new(task, folder_of("zero-shot-classification", "wordpiece"))
    assert tuple(pipe("a film").scores) == labels
    assert task.sentences(TOKENS) == tuple(f"This is {label}, %s." for label in labels)


def c60_text2text_generation() -> None:
    c60("text2text-generation")
    task = replace(task_of("text2text-generation"), prefix="{text} %s {{7*7}}: ")  # type: ignore[type-var]
    pipe = Pipeline.new(task, folder_of("text2text-generation", "unigram"))
    assert "%s" in to_text(pipe.view()) and isinstance(pipe("a").answer, str)


def c61(tag: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "café très"), unicodedata.normalize("NFD", "café très")
    for one in kits(tag):
        same = np.array_equal(table_of(one, composed).ids, table_of(one, decomposed).ids)
        assert same is (one.kind != "bpe")
        first, second = one.answered([composed, decomposed])
        if same and not first.spans and isinstance(first.answer, str):
            assert first.answer == second.answer or tag == "fill-mask"  # which keeps the text as it was given


def c61_question_answering() -> Case:
    c61("question-answering")
    context = unicodedata.normalize("NFD", "a café")
    row = {"question": QUESTION, "context": context, "answers": {"text": ["café"], "answer_start": [2]}}
    yield "row 0, column 'answers': answer 1, 'café', is not in the context", lambda: pl.read([row], **READ["question-answering"])


def c62_question_answering() -> None:
    for one in kits("question-answering"):
        found = list(one.pipe.predict([("", "Berlin is here."), (QUESTION, ""), (QUESTION, "Berlin is here.")]))
        assert found[0].answer and found[1].answer == "" and found[2].answer
    rows = [{"question": "", "context": "Berlin", "answers": []}, {"question": QUESTION, "context": "", "answers": []}]
    assert len(kit("question-answering").pipe.encode(pl.read(rows, **READ["question-answering"]).train)) == 2


def c62_zero_shot_classification() -> Case:
    yield "candidate_labels: a label must be a non-empty string", lambda: ZeroShotClassification(candidate_labels=("city", ""))
    kit("zero-shot-classification").answered([""])


def c62_feature_extraction() -> Case:
    for kind in kinds_of("feature-extraction"):
        pipe = Pipeline.new(FeatureExtraction(compare=True), folder_of("feature-extraction", kind))
        pairs = [("a film", "a film"), ("", "a film"), ("a film", "")]
        if kind == "bpe":
            yield "the list, row 1, column 'text': the text gives no token", partial(pipe, pairs[:2])
            yield "the list, row 0, column 'text_pair': the text gives no token", partial(pipe, pairs[2:])
            continue
        same, *others = pipe(pairs)
        assert abs(same.answer - 1) < 1e-5 and all(-1.001 <= one.answer <= 1.001 for one in others)  # type: ignore[operator]


def c63(tag: str) -> None:
    for one in kits(tag):
        sizes = {}
        for words in range(1, 40):
            table = table_of(one, "a" + " a" * words)
            sizes[words] = (int(table.lengths.sum()), len(table), int(table.lost.sum()))
        fits = max(words for words, (_, windows, lost) in sizes.items() if windows == sizes[1][1] and not lost)
        steps = {later[0] - earlier[0] for earlier, later in pairwise(sizes[words] for words in range(1, fits + 1))}
        assert len(steps) == 1, "each word is as many tokens as the others"
        _, windows, lost = sizes[fits + 1]
        if tag in READ_WHOLE:
            assert windows == 2 and lost == 0, "one token more is read in a second window"
        else:
            assert (windows, lost) == (sizes[1][1], 1), "one token more is one token lost"
        texts = ["a" + " a" * words for words in (fits - 1, fits, fits + 1)]
        for text, prediction in zip(texts, one.predict(texts), strict=True):
            one.sound(text, prediction)


def c64(tag: str) -> None:
    for one in kits(tag):
        equal, different = ["a film"] * 5, ["a " * length + "film" for length in (1, 9, 3, 40, 2, 17)]
        alone = {text: one.predict([text])[0] for text in {*equal, *different}}
        for texts in (equal, different, different[::-1]):
            assert all(alike(prediction, alone[text]) for text, prediction in zip(texts, one.predict(texts), strict=True))


def c65(tag: str) -> None:
    bait = ["a" * 50 + "!", "a" * 5000 + "!", "(" * 5000, " " * 20_000 + "x", "ab" * 3000, "\t\n" * 5000 + ".", ". " * 3000, "." * 5000]
    bait += ["[MASK" * 3000, "</" * 3000, "[" * 5000 + "]" * 5000, "[" + "9" * 6000 + "]", '"' * 5000]
    for one in kits(tag):
        with within(60):
            one.answered(bait)


def c65_text2text_generation() -> None:
    c65("text2text-generation")
    for one in kits("text2text-generation"):
        joined = replace(one.pipe, options=replace(one.pipe.options, long=LongTexts("chunk-and-join")))
        with within(60):
            for text in ("a " * 40 + "!" * 20_000 + " b" * 40, "a " * 40 + '."' * 10_000 + " b" * 40, "a. " * 200, "\n" * 2000 + "a"):
                one.sound(text, joined(text))


def c65_fill_mask() -> None:
    c65("fill-mask")
    for one in kits("fill-mask"):
        windows = replace(one.pipe, options=replace(one.pipe.options, long=LongTexts("windows", stride=4)))
        text = f"{one.pipe.tokenizer.mask_token} " * 8000
        with within(60):
            found = windows(text)
        assert len({span.start for span in found.spans}) == 8000
