"""Bad labels in every task: what is put in, and what must come out. The numbers are those of `task_faults.toml`, group B.

Cases are written as in `fault_cases`.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pellucid as pl
from fault_cases import Case
from fault_kits import ALL, PLAIN, QUESTION, READ, TOKENS, conversation, folder_of, kit
from matrix import NLI
from pellucid.checks import check_rows
from pellucid.data import Rows
from pellucid.evaluation import EvaluateOptions
from pellucid.pipelines import Pipeline
from pellucid.render import to_html
from pellucid.tasks.causal_lm import TextGeneration
from pellucid.tasks.embeddings import FeatureExtraction
from pellucid.tasks.seq2seq import Summarization, Text2Text, Translation
from pellucid.tasks.token_classification import TokenClassification
from pellucid.tasks.zero_shot import ZeroShotClassification
from pellucid.types import Span

TOKEN, ASK, WRITE, GO_ON = "token-classification", "question-answering", "text2text-generation", "text-generation"
ZERO, VECTOR = "zero-shot-classification", "feature-extraction"
CONTEXT = "Zoë lives in Köln, in the south."
SCRIPT = "<script>alert(1)</script>"
DROP = replace(ALL, on_missing="drop")
NUMBERS = {"text": "text", "text_pair": "text_pair", "label": "label", "options": replace(ALL, label_kind="number")}
GO_ON_READ: Mapping[str, Any] = {"text": "text", "label": "target", "options": replace(ALL, label_kind="text")}
WRITES: Mapping[str, Mapping[str, Any]] = {WRITE: READ[WRITE], GO_ON: GO_ON_READ}


def spans(*cells: Any, text: str = CONTEXT) -> Rows:
    """Rows over one text with these cells of spans, after a plain one."""
    rows = [{"text": PLAIN[0], "entities": [[0, 5, "place"]]}, *({"text": text, "entities": cell} for cell in cells)]
    return pl.read(rows, **READ[TOKEN])


def tagged(*rows: tuple[Sequence[Any], Sequence[Any] | None]) -> Rows:
    """Rows of words and tags."""
    return pl.read([{"tokens": list(words), "tags": tags} for words, tags in rows], text="tokens", label="tags", options=ALL)


def answers(*cells: Any, context: str = CONTEXT) -> Rows:
    """Questions on one context with these cells of answers, after a plain one."""
    first = {"question": QUESTION, "context": PLAIN[0], "answers": {"text": ["Berlin"], "answer_start": [15]}}
    return pl.read([first, *({"question": QUESTION, "context": context, "answers": cell} for cell in cells)], **READ[ASK])


def at(text: Any, start: Any) -> dict[str, list[Any]]:
    """A cell of one answer."""
    return {"text": [text], "answer_start": [start]}


def targets(tag: str, *cells: Any, options: pl.ReadOptions | None = None) -> Rows:
    """Rows with these targets to be written, after a plain one."""
    how = dict(WRITES[tag]) | ({} if options is None else {"options": options})
    return pl.read([{"text": PLAIN[0], "target": "Good."}, *({"text": PLAIN[1], "target": cell} for cell in cells)], **how)


def labelled(*labels: Any) -> Rows:
    """Rows with these class labels."""
    return pl.read([{"text": f"{PLAIN[0]} {place}", "label": label} for place, label in enumerate(labels)], **READ[ZERO])


def compared(*numbers: Any, options: pl.ReadOptions | None = None) -> Rows:
    """Pairs with these numbers."""
    rows = [{"text": PLAIN[0], "text_pair": f"{PLAIN[1]} {place}", "label": number} for place, number in enumerate(numbers)]
    return pl.read(rows, **(NUMBERS if options is None else {**NUMBERS, "options": options}))


def tagger(rows: Rows, task: TokenClassification | None = None) -> Pipeline:
    """A small pipeline with the labels of these rows."""
    return Pipeline.new(task or TokenClassification(), folder_of(TOKEN, "wordpiece"), rows, tokens=TOKENS)


def vectors() -> Pipeline:
    """A small pipeline that compares two texts."""
    return Pipeline.new(FeatureExtraction(compare=True), folder_of(VECTOR, "wordpiece"))


def found_in(rows: Rows) -> str:
    """What is found in the rows before training, as one text."""
    return " ".join(f"{finding.level}: {finding.what}" for finding in check_rows(rows))


@contextmanager
def with_config(folder: Path, **changes: Any) -> Iterator[Path]:
    """A copy of a checkpoint with another config.json."""
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / "checkpoint"
        shutil.copytree(folder, copy)
        config = json.loads((copy / "config.json").read_text("utf-8"))
        (copy / "config.json").write_text(json.dumps({**config, **changes}), "utf-8")
        yield copy


@contextmanager
def saved(pipe: Pipeline) -> Iterator[Path]:
    """The folder of a saved pipeline, without the file that makes it one of ours."""
    with tempfile.TemporaryDirectory() as made:
        pl.save(pipe, Path(made) / "saved")
        (Path(made) / "saved" / "pellucid.json").unlink()
        yield Path(made) / "saved"


# --- B29: no label ------------------------------------------------------------------------------------------------------


def b29_token_classification() -> Case:
    for nothing in (None, float("nan")):
        yield "the list, row 1, column 'entities': the label is missing", partial(spans, nothing)
        yield "the list, row 1, column 'tags': the label is missing", partial(tagged, (["a"], ["B-X"]), (["b"], nothing))
    yield "row 1, column 'tags': word 2 has no tag", partial(tagged, (["a"], ["B-X"]), (["a", "b"], ["O", None]))
    yield "row 1, column 'entities': span 1 has no label", partial(spans, [[0, 3, None]])
    rows = pl.read([{"text": "a b", "entities": [[0, 1, "X"]]}, {"text": "c", "entities": None}], label="entities", options=DROP)
    assert len(rows.train) == 1 and "1 row left out" in str(rows.notes[-1])


def b29_question_answering() -> Case:
    yield "the list, row 1, column 'answers': the label is missing", partial(answers, None)
    yield "answer 1 is no text but NoneType", partial(answers, at(None, 0))


def b29_text2text_generation(tag: str = WRITE) -> Case:
    for nothing in (None, float("nan"), ""):
        yield "the list, row 1, column 'target': the label is missing", partial(targets, tag, nothing)
    assert "1 row left out" in str(targets(tag, None, options=replace(DROP, label_kind="text")).notes[-1])


def b29_text_generation() -> Case:
    yield from b29_text2text_generation(GO_ON)


def b29_zero_shot_classification() -> Case:
    yield "the list, row 1, column 'label': the label is missing", partial(labelled, "city", None)
    one = kit(ZERO)
    yield "the row has no label", lambda: pl.evaluate(one.pipe, labelled("city", "film").train.without_targets())


def b29_feature_extraction() -> Case:
    for nothing in (None, float("nan"), ""):
        yield "the list, row 1, column 'label': the label is missing", partial(compared, 1.0, nothing)


# --- B30, B31: classes that are not there ---------------------------------------------------------------------------------


def b30_token_classification() -> Case:
    assert tagger(spans([[0, 3, "place"]])).task.labels == ("place",)  # type: ignore[attr-defined]
    nothing = pl.read([{"text": "a", "entities": []}, {"text": "b", "entities": []}], **READ[TOKEN])
    assert "error: no row has a span" in found_in(nothing)
    yield "the list: there is no span in 2 rows, nothing to learn", partial(tagger, nothing)
    outside = tagged((["a", "b"], ["O", "O"]))
    yield "the list: there is no span in 1 rows, nothing to learn", partial(tagger, outside)


def b30_question_answering() -> None:
    rows = pl.read([{"question": QUESTION, "context": text, "answers": []} for text in PLAIN], **READ[ASK])
    assert "error: 100.0% of the questions of train have no answer" in found_in(rows)
    pipe = Pipeline.new(ASK, folder_of(ASK, "wordpiece"), rows, tokens=TOKENS)
    assert pipe.task.no_answer and any("no answer is an answer" in note.what for note in pipe.notes)  # type: ignore[attr-defined]


def b30_zero_shot_classification() -> None:
    pipe = Pipeline.new(ZeroShotClassification(candidate_labels=("city",)), folder_of(ZERO, "wordpiece"))
    found = pipe("Berlin")
    assert found.answer == "city" and 0 < found.scores["city"] < 1, "entailment against contradiction, not a share of one"


def b30_feature_extraction() -> None:
    report = pl.evaluate(vectors(), compared(1.0, 1.0, 1.0).train)
    assert report.scores[0].name == "Spearman"
    assert not np.isfinite(report.scores[0].value) or report.scores[0].value == 0.0


def b31_token_classification() -> Case:
    pipe = tagger(spans([[0, 3, "place"]]))
    other = spans([[0, 3, "place"], [4, 9, "verb"]]).train
    yield "the list, row 1", partial(pl.evaluate, pipe, other)
    yield "'verb'", partial(pl.evaluate, pipe, other)
    yield "the list, row 1: the span 'verb' from 4 to 9 has none of the 1 labels 'place'", partial(pipe.encode, other)


def b31_question_answering() -> None:
    one = kit(ASK)
    report = pl.evaluate(one.pipe, answers(at("Köln", 13), []).train)
    names = [score.name for score in report.scores]
    assert not one.pipe.task.no_answer and "right where there is none" in names  # type: ignore[attr-defined]


def b31_zero_shot_classification() -> Case:
    one = kit(ZERO)
    yield "the list, row 1", partial(pl.evaluate, one.pipe, labelled("city", "films").train)
    yield "Did you mean 'film'?", partial(pl.evaluate, one.pipe, labelled("city", "films").train)
    yield (
        "the list, row 1: expected one of the candidate labels 'city', 'film', came 'music'",
        partial(one.pipe.encode, labelled("city", "music").train),
    )


# --- B32 to B35: numbers, truths, spaces ----------------------------------------------------------------------------------


def b32_token_classification() -> None:
    rows = spans([[0, 3, 1]], [[0, 3, "1"]], [[0, 3, 1.0]], [[0, 3, np.int64(1)]])
    assert {span.label for target in rows.train.targets(1, 5) for span in target} == {"1"}  # type: ignore[union-attr]
    assert {span.label for span in tagged((["a", "b", "c"], [1, "1", 1.0])).train.targets(0, 1)[0]} == {"1"}  # type: ignore[union-attr]


def b32_question_answering() -> Case:
    for start in (13, 13.0, np.int64(13)):
        assert answers(at("Köln", start)).train[1].target == (Span(13, 17, text="Köln"),)
    yield "answer_start: expected a whole number of characters, came '13'", partial(answers, at("Köln", "13"))
    yield "answer_start: expected a whole number of characters, came 13.5", partial(answers, at("Köln", 13.5))


def b32_text2text_generation(tag: str = WRITE) -> Case:
    yield "row 1, column 'target': expected a text, came int (1)", partial(targets, tag, 1)
    yield "row 1, column 'target': expected a text, came float (1.0)", partial(targets, tag, 1.0)
    assert targets(tag, "1").train[1].target == "1"


def b32_text_generation() -> Case:
    yield from b32_text2text_generation(GO_ON)


def b32_zero_shot_classification() -> Case:
    assert [row.target for row in labelled(1, "1", 1.0).train] == ["1", "1", "1"]
    yield "candidate_labels: a label must be a non-empty string, class 1 is 1", lambda: ZeroShotClassification(("city", 1))  # type: ignore[arg-type]


def b32_feature_extraction() -> None:
    assert [row.target for row in compared(3, "3", 3.0).train] == [3.0, 3.0, 3.0]


def b33_token_classification() -> None:
    assert {span.label for target in spans([[0, 3, True]]).train.targets(1, 2) for span in target} == {"True"}  # type: ignore[union-attr]


def b33_question_answering() -> Case:
    yield "answer_start: expected a whole number of characters, came True", partial(answers, at("Köln", True))


def b33_text2text_generation(tag: str = WRITE) -> Case:
    yield "row 1, column 'target': expected a text, came bool (True)", partial(targets, tag, True)


def b33_text_generation() -> Case:
    yield from b33_text2text_generation(GO_ON)


def b33_zero_shot_classification() -> None:
    rows = labelled(True, False)
    assert [row.target for row in rows.train] == ["True", "False"]
    assert ZeroShotClassification().for_rows(rows.train)[0].candidate_labels == ("False", "True")


def b33_feature_extraction() -> Case:
    yield "row 1, column 'label': expected a finite number, came 'True'", partial(compared, 1.0, True)


def b34_token_classification() -> None:
    rows = spans([[0, 3, " place "]], [[0, 3, "Place"]])
    assert [span.label for row in rows.train for span in row.target] == ["place", "place", "Place"]  # type: ignore[union-attr]
    assert "'place' and 'Place' differ only in how they are written" in found_in(rows)


def b34_question_answering() -> Case:
    yield "row 1, column 'answers': answer 1, 'köln', is not in the context", partial(answers, at("köln", 13))
    yield "answer 1, 'Köln ', is not in the context", partial(answers, at("Köln ", 13))
    yield "Its answer_start is 13.", partial(answers, at("Köln", 12))


def b34_text2text_generation(tag: str = WRITE) -> None:
    assert targets(tag, "  Two  words\n").train[1].target == "  Two  words\n"


def b34_text_generation() -> None:
    b34_text2text_generation(GO_ON)


def b34_zero_shot_classification() -> Case:
    assert [row.target for row in labelled(" city", "city ").train] == ["city", "city"]
    yield "Did you mean 'city'?", partial(pl.evaluate, kit(ZERO).pipe, labelled("City", "film").train)


def b34_feature_extraction() -> None:
    assert [row.target for row in compared(" 3 ", "3.0\n").train] == [3.0, 3.0]


def b35_token_classification() -> Case:
    rows = tagged((["a", "b", "c"], [-100, 3, 10]), (["a"], [-1]))
    assert "the label '-100' (1 span) often means that the label is not known" in found_in(rows)
    assert tagger(rows).task.labels == ("-100", "-1", "3", "10")  # type: ignore[attr-defined]
    named = replace(ALL, label_names=("O", "B-X"))
    cells = [{"tokens": ["a"], "tags": [1]}, {"tokens": ["a", "b"], "tags": [1, -100]}]
    yield "row 1, column 'tags': label '-100' has no name", lambda: pl.read(cells, text="tokens", label="tags", options=named)


def b35_question_answering() -> Case:
    yield "row 1, column 'answers': answer 1, 'Köln', does not stand at character -1", partial(answers, at("Köln", -1))


def b35_zero_shot_classification() -> None:
    assert ZeroShotClassification().for_rows(labelled(-100, 3, 10).train)[0].candidate_labels == ("-100", "3", "10")


def b35_feature_extraction() -> None:
    assert [row.target for row in compared(-3, 5, -100).train] == [-3.0, 5.0, -100.0]


# --- B36, B37: many ---------------------------------------------------------------------------------------------------------


def b36_token_classification() -> None:
    words = [f"w{number}" for number in range(2000)]
    rows = tagged(*((words[start : start + 50], [f"B-{word}" for word in words[start : start + 50]]) for start in range(0, 2000, 50)))
    pipe = tagger(rows)
    assert len(pipe.task.tags) == 4001  # type: ignore[attr-defined]
    report = pl.evaluate(pipe, rows.train, baselines=False, options=EvaluateOptions(bootstrap=20))
    assert len(to_html(report.view())) < 2_000_000


def b36_zero_shot_classification() -> None:
    labels = tuple(f"label {number}" for number in range(300))
    pipe = Pipeline.new(ZeroShotClassification(candidate_labels=labels), folder_of(ZERO, "wordpiece"))
    table = pipe.encode(labelled("label 1", "label 2").train)
    assert len(table) == 600 and len(pipe("Berlin").scores) == 300, "a window for each label of each text"


def b37_token_classification() -> Case:
    yield (
        "row 1, column 'entities': 'Zoë' (0 to 3, 'person') and 'Zoë' (0 to 3, 'place') overlap",
        partial(spans, [[0, 3, "person"], [0, 3, "place"]]),
    )


def b37_question_answering() -> None:
    rows = answers({"text": ["Köln", "in Köln"], "answer_start": [13, 10]})
    assert [span.text for span in rows.train[1].target] == ["Köln", "in Köln"]  # type: ignore[union-attr]
    assert len(kit(ASK).pipe.encode(rows.train)) >= 2


def b37_text2text_generation(tag: str = WRITE) -> Case:
    yield "row 1, column 'target': expected a text, came list", partial(targets, tag, ["Good.", "Fine."])


def b37_text_generation() -> Case:
    yield from b37_text2text_generation(GO_ON)


def b37_zero_shot_classification() -> None:
    rows = labelled(["city", "film"], [], ["film"])
    task = ZeroShotClassification().for_rows(rows.train)[0]
    assert task.multi_label and task.candidate_labels == ("city", "film")
    pipe = Pipeline.new(task, folder_of(ZERO, "wordpiece"))
    assert pl.evaluate(pipe, rows.train).scores and isinstance(pipe("Berlin").answer, tuple)


def b37_feature_extraction() -> Case:
    yield "row 1, column 'label'", partial(compared, 1.0, [1.0, 2.0])


# --- B38 to B42 -------------------------------------------------------------------------------------------------------------


def b38_question_answering() -> Case:
    for wrong in (float("inf"), float("nan"), "four"):
        yield "answer_start: expected a whole number of characters, came", partial(answers, at("Köln", wrong))


def b38_text2text_generation(tag: str = WRITE) -> Case:
    yield "row 1, column 'target': expected a text, came float (inf)", partial(targets, tag, float("inf"))


def b38_text_generation() -> Case:
    yield from b38_text2text_generation(GO_ON)


def b38_feature_extraction() -> Case:
    for wrong in ("inf", float("-inf"), "four", "1,5"):
        yield "row 1, column 'label': expected a finite number, came", partial(compared, 1.0, wrong)
    named = pl.read([{"text": "a", "text_pair": "b", "label": "alike"}] * 2, text_pair="text_pair", label="label", options=ALL)
    yield "the list, row 0: expected a finite number, came 'alike'", partial(pl.evaluate, vectors(), named.train)


def b39_token_classification() -> Case:
    with saved(tagger(spans([[0, 3, "place"]]))) as folder, with_config(folder, num_labels=3, id2label={"0": "O", "1": "B-X"}) as copy:
        yield "num_labels is 3, but id2label names 2", partial(Pipeline.new, TOKEN, copy)
    with saved(tagger(spans([[0, 3, "place"]]))) as folder:
        names = {str(number): f"B-{number}" for number in range(5)}
        with with_config(folder, id2label=names, label2id={name: int(number) for number, name in names.items()}) as copy:
            yield "classifier.weight", partial(Pipeline.new, TOKEN, copy)


def b39_question_answering() -> Case:
    with saved(kit(ASK).pipe) as folder, with_config(folder, num_labels=3, id2label={"0": "a", "1": "b", "2": "c"}) as copy:
        yield "qa_outputs", partial(Pipeline.new, ASK, copy)


def b39_zero_shot_classification() -> Case:
    with with_config(folder_of(ZERO, "wordpiece"), num_labels=4) as copy:
        yield "num_labels is 4, but id2label names 3", partial(Pipeline.new, kit(ZERO).pipe.task, copy)


def b40_token_classification() -> Case:
    with saved(tagger(spans([[0, 3, "place"]]))) as folder, with_config(folder, label2id={"O": 1, "B-place": 0, "I-place": 2}) as copy:
        yield "label2id is not id2label turned round", partial(Pipeline.new, TOKEN, copy)


def b40_zero_shot_classification() -> Case:
    swapped = {name: 2 - number for number, name in NLI.items()}
    with with_config(folder_of(ZERO, "wordpiece"), label2id=swapped) as copy:
        yield "label2id is not id2label turned round", partial(Pipeline.new, kit(ZERO).pipe.task, copy)
    names = {"0": "bad", "1": "good", "2": "fine"}
    with with_config(folder_of(ZERO, "wordpiece"), id2label=names, label2id={name: int(number) for number, name in names.items()}) as copy:
        yield "the head does not say entailment", partial(Pipeline.new, kit(ZERO).pipe.task, copy)


def escaped(pipe: Pipeline, rows: Rows) -> None:
    """Nothing of the labels is markup: in the report, the rows, a trace, a prediction."""
    trace = pipe.trace(rows.train[0])
    for value in (pl.evaluate(pipe, rows.train), rows, trace, trace.prediction, pipe):
        assert "<script>" not in to_html(value.view()).lower()


def b41_token_classification() -> None:
    names = (SCRIPT, "__proto__", "x" * 5000, "映画", "a\u202eb", "{{7*7}}", "%s")
    rows = spans(*([[0, 3, name]] for name in names))
    pipe = tagger(rows)
    assert set(names) < set(pipe.task.labels)  # type: ignore[attr-defined]
    escaped(pipe, rows)


def b41_question_answering() -> None:
    rows = answers(at(SCRIPT, 2), context=f"a {SCRIPT} b")
    escaped(kit(ASK).pipe, rows)


def b41_text2text_generation() -> None:
    escaped(kit(WRITE).pipe, targets(WRITE, SCRIPT))


def b41_text_generation() -> None:
    escaped(kit(GO_ON).pipe, targets(GO_ON, SCRIPT))


def b41_zero_shot_classification() -> None:
    labels = (SCRIPT, "__proto__", "a\u202eb")
    pipe = Pipeline.new(ZeroShotClassification(candidate_labels=labels), folder_of(ZERO, "wordpiece"))
    assert tuple(pipe("a").scores) == labels
    escaped(pipe, labelled(*labels))


def b42_token_classification() -> None:
    rows = [{"text": f"{PLAIN[0]} {place}", "entities": [[0, 5, "rare" if place == 0 else "place"]]} for place in range(40)]
    assert "1 label has fewer than 10 spans: 'rare' (1)" in found_in(pl.read(rows, **READ[TOKEN]))


# --- B43 to B45: spans, answers, texts to be written -------------------------------------------------------------------------


def b43_token_classification() -> Case:
    good: tuple[list[str], list[str]] = (["a"], ["B-X"])
    yield "the list, row 1, column 'tags': 5 words but 4 tags", partial(tagged, good, (list("abcde"), ["O"] * 4))
    yield "row 1, column 'tokens': word 2 of 2 is empty", partial(tagged, good, (["a", ""], ["O", "O"]))
    yield (
        "row 1, column 'tags': word 2 has the tag 'PER', expected O or one such as B-PER",
        partial(tagged, good, (["a", "b"], ["O", "PER"])),
    )
    assert tagged((["a", "b"], ["O", "I-X"]), good, good).train[0].target == (Span(2, 3, "X", text="b"),)
    place = "row 1, column 'entities': span 1"
    size = len(CONTEXT)
    yield f"{place} is 0 to 99, the text has {size} characters", partial(spans, [[0, 99, "X"]])
    yield f"{place} is -3 to 4", partial(spans, [[-3, 4, "X"]])
    yield f"{place} begins at character 5 and ends at 2", partial(spans, [[5, 2, "X"]])
    yield f"{place} begins at character 3 and ends at 3", partial(spans, [[3, 3, "X"]])
    yield f"{place}, start: expected a whole number of characters, came 1.5", partial(spans, [[1.5, 3, "X"]])
    yield "overlap. Keep one of the two", partial(spans, [[0, 9, "X"], [4, 12, "Y"]])
    yield "the offsets seem to count bytes", partial(spans, [[27, size + 1, "X"]])
    bytes_ = [{"start": 14, "end": 19, "label": "X", "text": "Köln"}]
    yield f"{place}: its offsets 14 and 19 count bytes: there stands 'Köln'", partial(spans, bytes_)
    yield "Its start is 13.", partial(spans, [{"start": 12, "end": 16, "label": "X", "text": "Köln"}])
    rows = spans([[14, 19, "place"]])  # in bytes that is Köln, in characters the end of it and what follows
    (note,) = [note for note in rows.notes if "bytes" in str(note)]
    assert "the list, row 1, column 'entities'" in str(note) and "'Köln'" in str(note)
    assert not [note for note in spans([[13, 17, "place"]]).notes if "bytes" in str(note)]
    targets_of = pl.read([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], options=ALL)
    yield "the list, row 0: expected spans of the text, came 'x'", partial(tagger, targets_of)


def b43_text2text_generation(tag: str = WRITE) -> Case:
    one = kit(tag)
    yield "came tuple", partial(one.pipe.encode, tagged((["a", "b"], ["B-X", "O"])).train)
    yield "row 0", partial(pl.evaluate, one.pipe, tagged((["a", "b"], ["B-X", "O"])).train)


def b43_text_generation() -> Case:
    one = kit(GO_ON)
    yield "the list, row 0: expected the text that follows, came tuple", partial(one.pipe.encode, tagged((["a", "b"], ["B-X", "O"])).train)


def b43_question_answering() -> Case:
    one = kit(ASK)
    rows = pl.read([{"text": "a", "text_pair": "b c", "label": "x"}], text_pair="text_pair", options=ALL)
    yield "the list, row 0: expected the answers to a question, came 'x'", partial(one.pipe.encode, rows.train)
    yield "the list, row 0: expected the answers to a question, came 'x'", partial(pl.evaluate, one.pipe, rows.train)


def b43_zero_shot_classification() -> Case:
    rows = spans([[0, 3, "city"]])
    yield "the list, row 0", partial(pl.evaluate, kit(ZERO).pipe, rows.train)


def b44_question_answering() -> Case:
    place = "the list, row 1, column 'answers': answer 1"
    yield f"{place}, 'Bonn', is not in the context", partial(answers, at("Bonn", 13))
    yield "answer_start 14 counts bytes; in characters it is 13", partial(answers, at("Köln", 14))
    yield f"{place}, 'Köln', does not stand at character 15", partial(answers, at("Köln", 15))
    yield f"{place} is empty", partial(answers, at("", 13))
    yield f"{place} has no 'answer_start'", partial(answers, {"text": ["Köln"]})
    yield (
        "the lists of one row differ in length: 'text' has 2, 'answer_start' has 1",
        partial(answers, {"text": ["a", "b"], "answer_start": [0]}),
    )
    yield "expected a list, came str ('Köln')", partial(answers, "Köln")
    wrong = (Span(13, 17, text="Bonn"),)
    one = kit(ASK)
    columns = {"text": ["?"], "text_pair": [CONTEXT]}
    yield (
        "row 0: at characters 13 to 17 the context says 'Köln', the answer 'Bonn'",
        lambda: one.pipe.task.encode(one.pipe.tokenizer, columns, [wrong], one.pipe.options),
    )


def b45_question_answering() -> Case:
    rows = answers([], {"text": [], "answer_start": []})
    assert [row.target for row in rows.train][1:] == [(), ()], "an empty list says that there is no answer"
    yield "answer 1 is empty", partial(answers, [{"text": "", "answer_start": 0}])


def written(kind: type[Summarization | Translation | Text2Text], **settings: Any) -> Pipeline:
    """A small pipeline that writes."""
    return Pipeline.new(kind(max_new_tokens=4, **settings), folder_of(WRITE, "unigram"), tokens=TOKENS)


def b45_text2text_generation() -> Case:
    for kind in (Summarization, Translation, Text2Text):
        pipe = written(kind, max_target_tokens=5)
        rows = targets(WRITE, "  ")
        assert "has a target of white space" in found_in(rows)
        yield "the list, row 1: expected a text to be written, came an empty text", partial(pipe.encode, rows.train)
        yield "the list, row 1: expected a text to be written, came an empty text", partial(pl.evaluate, pipe, rows.train)
        table = pipe.encode(targets(WRITE, "I would watch it again, and again.").train)
        assert table.lost[1] > 0 and int(np.diff(table.label_starts).max()) == 5  # type: ignore[arg-type]
    missing = pl.read([{"text": "a", "summary": "b"}, {"text": "c", "summary": "d"}], options=ALL).train.without_targets()
    yield "the row has no label", partial(pl.evaluate, written(Summarization), missing)


def b45_text_generation() -> Case:
    one = kit(GO_ON)
    yield (
        "row 1: expected the text that follows, came an empty text",
        lambda: one.pipe.task.encode(one.pipe.tokenizer, {"text": ["a", "b"]}, ["good", ""], one.pipe.options),
    )
    task = TextGeneration(max_new_tokens=4, block_tokens=8)
    pipe = Pipeline.new(task, folder_of(GO_ON, "bpe"), targets(GO_ON, " and on" * 20), tokens=TOKENS)
    table = pipe.task.to_learn(pipe.encode(targets(GO_ON, " and on" * 20).train))
    assert table.lost[1] > 0, "of a target that is too long the end is learned, and the rest is counted"
    glued = pl.read([{"text": "the film", "target": "s"}, {"text": "it is goo", "target": "d"}], **GO_ON_READ)
    table = pipe.encode(glued.train)
    for row in range(2):
        labels = np.asarray(table.labels)[table.starts[row] : table.starts[row + 1]]
        assert (labels[:-1] >= 0).any(), "a target is learned even where its first letters share a token with the text"
    nothing = pl.read([{"text": conversation("Hello")}] * 2, text="text", label=False, options=ALL)
    yield "no chat template", partial(one.pipe.encode, nothing.train)
