"""Text that goes on: what is learned of a row, packing, conversations, and the answers of transformers' own pipeline."""

import gzip
import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid as pl
from pellucid.batch import IGNORED
from pellucid.chats import chat_of, chat_tokens
from pellucid.errors import DataError
from pellucid.given import as_split
from pellucid.language_rows import packed, split_up, table_of
from pellucid.pipelines import Pipeline
from pellucid.task import settings_of, task_from
from pellucid.tasks.causal_lm import TextGeneration, stream, token_losses
from pellucid.tokens import TokenOptions
from pellucid.traced_tokens import given_tokens
from tiny_writers import CHAT_TEMPLATE, real, writer

TEXTS = ["A wonderful little film.", "Dull", "I laughed, I cried, and I would watch it again tomorrow.", "Two hours of my life."]
ALL = pl.ReadOptions(valid_fraction=0.0)
READS = ("text",)
CHAT = [
    {"role": "user", "content": "Was the film funny?"},
    {"role": "assistant", "content": "It was a mess."},
    {"role": "user", "content": "And the music?"},
    {"role": "assistant", "content": "Superb."},
]


@pytest.fixture(scope="module")
def folders(tiny_tokenizers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import copy

    made = {kind: writer(kind, tiny_tokenizers["bpe"], tmp_path_factory.mktemp("causal") / kind) for kind in ("gpt2", "llama")}
    chatty = copy.deepcopy(tiny_tokenizers["bpe"])
    chatty.add_special_tokens({"extra_special_tokens": ["<|user|>", "<|assistant|>"]})
    chatty.chat_template = CHAT_TEMPLATE
    made["chat"] = writer("llama", chatty, tmp_path_factory.mktemp("causal") / "chat")
    made["unigram"] = writer("llama", tiny_tokenizers["unigram"], tmp_path_factory.mktemp("causal") / "unigram")
    return made


def plain_rows(texts: list[str] = TEXTS) -> pl.Rows:
    return pl.read([{"text": text} for text in texts], text="text", label=False, options=ALL)


def new(folder: Path, **settings: Any) -> Pipeline:
    return Pipeline.new(TextGeneration(**{"max_new_tokens": 12, **settings}), folder, tokens=TokenOptions(max_length=60))


# --- what is learned ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "unigram"])
def test_of_a_plain_text_all_but_the_first_token_is_learned(folders: dict[str, Path], kind: str) -> None:
    pipe = new(folders[kind])
    table = pipe.encode(plain_rows().train)
    for row, text in enumerate(TEXTS):
        ids = pipe.tokenizer(text)["input_ids"]
        assert table.ids_of(row).tolist() == ids
        labels = table.labels[table.starts[row] : table.starts[row + 1]].tolist()
        assert labels == [IGNORED, *ids[1:]]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "unigram"])
def test_the_loss_is_that_of_the_model(folders: dict[str, Path], kind: str) -> None:
    pipe = new(folders[kind], pack=False)
    table = pipe.task.to_learn(pipe.encode(plain_rows().train))
    batch = pipe.collate(table, np.arange(len(table)))
    with torch.no_grad():
        together = pipe.task.loss(pipe.task.run(pipe.model, batch).logits, torch.from_numpy(batch.labels))
        for entry, text in enumerate(TEXTS):
            ids = torch.tensor([pipe.tokenizer(text)["input_ids"]])
            if ids.shape[1] > 1:
                torch.testing.assert_close(together[entry], pipe.model(ids, labels=ids).loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "unigram"])
def test_of_a_row_with_a_target_only_the_target_is_learned(folders: dict[str, Path], kind: str) -> None:
    pipe = new(folders[kind])
    rows = pl.read(
        [{"text": "The film was", "target": " a mess."}, {"text": "It is", "target": " good"}],
        text="text",
        label="target",
        options=replace(ALL, label_kind="text"),
    )
    table = pipe.encode(rows.train)
    end = pipe.task.end_id
    for row, (text, wanted) in enumerate(zip(rows.train.columns(0, 2)["text"], rows.train.targets(0, 2), strict=True)):
        stretch = slice(table.starts[row], table.starts[row + 1])
        labels = table.labels[stretch]
        learned = labels[labels != IGNORED].tolist()
        assert learned[-1] == end, "where it ends is learned too"
        assert pipe.tokenizer.decode(learned, skip_special_tokens=True).strip() == wanted.strip()
        assert pipe.tokenizer.decode(table.ids[stretch].tolist(), skip_special_tokens=True) == text + wanted
    again = pipe.task.to_learn(table)
    assert np.array_equal(again.ids, table.ids), "such rows are not packed"


@pytest.mark.parametrize("bad", ["", None])
def test_a_target_that_is_empty_is_named_with_its_row(folders: dict[str, Path], bad: str | None) -> None:
    pipe = new(folders["gpt2"])
    with pytest.raises(pl.PellucidError, match="row 1: expected the text that follows"):
        pipe.task.encode(pipe.tokenizer, {"text": ["a", "b"]}, ["good", bad], pipe.options)


# --- packing -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=8), st.integers(2, 7), st.booleans())
def test_blocks_hold_every_token_once(lengths: list[int], block: int, ended: bool) -> None:
    ids = [np.arange(length, dtype=np.int32) + 10 * row + 5 for row, length in enumerate(lengths)]
    if ended and ids:
        ids[0][-1] = 3
    table = table_of(ids, ids)
    found = packed(table, block, 3)
    flat = [number for one in ids for number in [*one.tolist(), *([] if one[-1] == 3 else [3])]]
    left = len(flat) % block == 1 and len(flat) > 1
    assert found.ids.tolist() == (flat[:-1] if left else flat)
    assert all(length == block for length in found.lengths[:-1]) and found.lengths.max(initial=0) <= block
    assert (np.asarray(found.labels)[found.starts[:-1]] == IGNORED).all()
    assert np.asarray(found.labels).tolist().count(IGNORED) == len(found)
    assert (np.diff(found.rows) >= 0).all()
    apart = split_up(table, block)
    for row, one in enumerate(ids):
        own = [apart.ids_of(window).tolist() for window in np.flatnonzero(apart.rows == row)]
        whole = [number for part in own for number in part]
        assert whole == one.tolist()[: len(whole)] and len(one) - len(whole) <= 1
        assert apart.windows[apart.rows == row].tolist() == list(range(len(own)))


def test_packing_loses_nothing_of_long_texts(folders: dict[str, Path]) -> None:
    pipe = new(folders["gpt2"], block_tokens=16)
    long = " ".join(TEXTS * 20)
    table = pipe.encode(plain_rows([long, "Dull"]).train)
    assert len(table) == 2 and table.lost[0] == table.lengths[0] - 48, "as a prompt it would be cut"
    blocks = pipe.task.to_learn(table)
    assert not blocks.lost.any() and int(blocks.lengths.max()) == 16
    assert pipe.tokenizer.decode(blocks.ids.tolist(), skip_special_tokens=True) == long + "Dull"


def test_of_a_conversation_that_is_too_long_the_end_is_learned(folders: dict[str, Path]) -> None:
    pipe = new(folders["chat"], block_tokens=5)
    table = pipe.task.to_learn(pipe.encode(plain_rows([json.dumps(CHAT), json.dumps(CHAT[:2])]).train))
    batch = pipe.collate(table, np.arange(2))
    assert batch.inputs["input_ids"].shape == (2, 5) and table.lost.all()
    assert batch.inputs["input_ids"][0].tolist() == list(chat_tokens(pipe.tokenizer, CHAT).ids[-5:])
    assert (batch.labels[:, 0] == IGNORED).all() and (batch.labels[:, 1:] != IGNORED).any()


def test_a_long_prompt_is_read_from_its_end(folders: dict[str, Path]) -> None:
    pipe = new(folders["gpt2"])
    long = " ".join(TEXTS * 8)
    table = pipe.encode(as_split([long], READS))
    batch = pipe.collate(table, np.arange(1))
    ids = pipe.tokenizer(long)["input_ids"]
    assert batch.inputs["input_ids"][0].tolist() == ids[-48:] and int(table.lost[0]) == len(ids) - 48
    assert pipe(long).answer == replace(pipe(pipe.tokenizer.decode(ids[-48:])), row=0).answer
    with pytest.raises(pl.PellucidError, match="no room for a prompt"):
        Pipeline.new(TextGeneration(max_new_tokens=30), folders["gpt2"], tokens=TokenOptions(max_length=20))("a")


# --- conversations -----------------------------------------------------------------------------------------------------


def test_what_is_a_conversation() -> None:
    assert chat_of(json.dumps(CHAT)) == CHAT
    for text in ("", "[", "[1, 2]", "[SEP]", "a [b]", '[{"text": "a"}]', "[]", "[" * 5000 + "]" * 5000):
        assert chat_of(text) is None
    with pytest.raises(pl.PellucidError, match="row 3: message 1"):
        chat_of('[{"role": "user"}]', 3)


def test_a_conversation_has_the_ids_of_its_template_and_only_answers_are_learned(folders: dict[str, Path]) -> None:
    pipe = new(folders["chat"])
    found = chat_tokens(pipe.tokenizer, CHAT)
    assert list(found.ids) == pipe.tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    learned = [one for one, yes in zip(found.ids, found.learned, strict=True) if yes]
    assert pipe.tokenizer.decode(learned) == "It was a mess.<|endoftext|>Superb.<|endoftext|>"
    asked = chat_tokens(pipe.tokenizer, CHAT[:3])
    assert list(asked.ids) == pipe.tokenizer.apply_chat_template(CHAT[:3], tokenize=True, add_generation_prompt=True, return_dict=False)
    table = pipe.encode(plain_rows([json.dumps(CHAT), json.dumps(CHAT[:2])]).train)
    batch = pipe.collate(pipe.task.to_learn(table), np.arange(2))
    assert int((batch.labels != IGNORED).sum()) == len(learned) + sum(chat_tokens(pipe.tokenizer, CHAT[:2]).learned)
    _, notes = pipe.task.for_rows(plain_rows([json.dumps(CHAT)]).train)
    assert "only the answers" in str(notes[0])


def test_a_target_is_one_more_answer(folders: dict[str, Path]) -> None:
    pipe = new(folders["chat"])
    table = pipe.task.encode(pipe.tokenizer, {"text": [json.dumps(CHAT[:3])]}, ["Superb."], pipe.options)
    assert table.ids_of(0).tolist() == list(chat_tokens(pipe.tokenizer, CHAT).ids)


def test_a_special_token_in_a_message_is_text(folders: dict[str, Path]) -> None:
    pipe = new(folders["chat"])
    odd = [{"role": "user", "content": "Say <|endoftext|><|assistant|> twice"}, {"role": "assistant", "content": "No <|user|>!"}]
    found = chat_tokens(pipe.tokenizer, odd)
    special = [pipe.tokenizer.convert_tokens_to_ids(name) for name in ("<|user|>", "<|assistant|>", "<|endoftext|>")]
    assert [one for one in found.ids if one in special] == [special[0], special[2], special[1], special[2]]
    assert pipe.tokenizer.decode(list(found.ids)) == pipe.tokenizer.apply_chat_template(odd, tokenize=False)
    for content in ("<|user|>", "<|endoftext|>", " <|assistant|>\n"):
        ids = list(chat_tokens(pipe.tokenizer, [{"role": "user", "content": content}]).ids)
        assert ids[0] == special[0] and ids[-2:] == [special[2], special[1]]
        assert not set(ids[1:-2]) & set(special)


def test_a_missing_or_a_strict_template(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(pl.PellucidError, match="row 0: the tokenizer has no chat template") as error:
        new(folders["gpt2"])([json.dumps(CHAT[:1])])
    assert "chat_template" in error.value.cure
    pipe = new(folders["chat"])
    pipe.tokenizer.chat_template = "{{ raise_exception('Roles must take turns') }}"
    with pytest.raises(pl.PellucidError, match="refuses the conversation: Roles must take turns"):
        pipe.task.encode(pipe.tokenizer, {"text": [json.dumps(CHAT[:1])]}, None, pipe.options)
    pipe.tokenizer.chat_template = "{{ ''.__class__.__mro__ }}"
    with pytest.raises(pl.PellucidError, match="refuses the conversation"):
        pipe.task.encode(pipe.tokenizer, {"text": [json.dumps(CHAT[:1])]}, None, pipe.options)


def test_there_must_be_something_to_learn(folders: dict[str, Path]) -> None:
    pipe = new(folders["chat"])
    table = pipe.encode(plain_rows([json.dumps(CHAT[:1])]).train)
    with pytest.raises(pl.PellucidError, match="no token to learn"):
        pipe.task.to_learn(table)


# --- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "unigram"])
def test_answers_are_those_of_transformers_pipeline(folders: dict[str, Path], kind: str) -> None:
    import transformers

    pipe = new(folders[kind])
    theirs = transformers.pipeline("text-generation", model=str(folders[kind]), device="cpu")
    wanted = theirs(TEXTS, max_new_tokens=12, do_sample=False, return_full_text=False)
    assert [answer.answer for answer in pipe(TEXTS)] == [one[0]["generated_text"] for one in wanted]
    full = new(folders[kind], full_text=True)
    assert [answer.answer for answer in full(TEXTS)] == [text + answer.answer for text, answer in zip(TEXTS, pipe(TEXTS), strict=True)]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "unigram"])
def test_a_row_alone_answers_as_in_a_batch(folders: dict[str, Path], kind: str) -> None:
    pipe = new(folders[kind], num_beams=2, num_return_sequences=2)
    for text, one in zip(TEXTS, pipe(TEXTS), strict=True):
        alone = pipe(text)
        assert [text for text, _ in alone.alternatives] == [text for text, _ in one.alternatives]
        np.testing.assert_allclose([score for _, score in alone.alternatives], [score for _, score in one.alternatives], atol=1e-5)


def test_answers_stop_where_asked_and_can_be_streamed(folders: dict[str, Path]) -> None:
    pipe = new(folders["gpt2"])
    whole = pipe(TEXTS[0]).answer
    assert "".join(stream(pipe, TEXTS[0])) == whole
    stop = whole[2:4]
    stopped = new(folders["gpt2"], stop=(stop,))
    assert stopped(TEXTS[0]).answer == whole[: whole.find(stop)] == "".join(stream(stopped, TEXTS[0]))
    chat = new(folders["chat"])
    asked = json.dumps(CHAT[:3])
    assert "".join(stream(chat, asked)) == "".join(stream(chat, json.loads(asked))) == chat(asked).answer
    with pytest.raises(DataError, match="expected a text or messages"):
        next(stream(chat, [1, 2]))  # type: ignore[list-item]
    assert new(folders["chat"], full_text=True)(asked).answer == chat(asked).answer


def test_draws_are_several_and_seeded(folders: dict[str, Path]) -> None:
    pipe = new(folders["gpt2"], do_sample=True, num_return_sequences=3, seed=1, top_k=0)
    first = pipe(TEXTS[0])
    assert len(first.alternatives) == 3 and first == pipe(TEXTS[0])
    assert new(folders["gpt2"], do_sample=True, num_return_sequences=3, seed=2, top_k=0)(TEXTS[0]) != first


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_reads_to_both_sides_is_refused(seed: int, tiny_tokenizers: dict[str, Any], tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    BertForMaskedLM(BertConfig(vocab_size=len(tiny_tokenizers["wordpiece"]), **size)).save_pretrained(tmp_path / "bert")
    tiny_tokenizers["wordpiece"].save_pretrained(tmp_path / "bert")
    with pytest.raises(pl.PellucidError, match="reads a text to both sides"):
        Pipeline.new("text-generation", tmp_path / "bert")


def test_perplexity_by_token(folders: dict[str, Path]) -> None:
    pipe = new(folders["llama"])
    found = token_losses(pipe, TEXTS[2])
    ids = torch.tensor([pipe.tokenizer(TEXTS[2])["input_ids"]])
    with torch.no_grad():
        loss = pipe.model(ids, labels=ids).loss
    assert found.perplexity == pytest.approx(float(loss.exp()), rel=1e-4)
    assert len(found.pieces) == len(found.log_probabilities) == ids.shape[1]
    assert found.log_probabilities[0] is None and found.view().rows
    losses, counts, rows = replace(pipe, task=replace(pipe.task, pack=False)).losses(plain_rows().train)
    assert rows[counts.argmax()] == 2 and losses[counts.argmax()] == pytest.approx(float(loss), rel=1e-4)


# --- the whole way -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "chat"])
def test_saving_is_exact(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    pipe = new(folders[kind], stop=("x",))
    again = pl.load(pl.save(pipe, tmp_path / "saved"))
    assert again.task == pipe.task == task_from(type(pipe.task), settings_of(pipe.task))
    assert again(TEXTS) == pipe(TEXTS)
    if kind == "chat":
        assert again(json.dumps(CHAT[:1])) == pipe(json.dumps(CHAT[:1]))


@pytest.mark.parametrize("kind", ["gpt2", "chat"])
def test_five_steps_lower_the_loss_and_batches_can_be_looked_at(
    folders: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chats = [[{"role": "user", "content": text}, *CHAT[1:]] for text in TEXTS] + [CHAT, CHAT[:2]]
    texts = TEXTS * 3 if kind == "gpt2" else [json.dumps(chat) for chat in chats]
    pipe = new(folders[kind], block_tokens=60)
    rows = pl.read([{"text": text} for text in texts], text="text", label=False, options=replace(ALL, valid_fraction=0.25))
    learn = pl.learner(pipe, rows)
    before = float(learn.validate()[0])
    learn.fit_one_cycle(5, 5e-3)
    assert float(learn.validate()[0]) < before
    learn.dls.show_batch(max_n=2)
    learn.show_results(max_n=2)
    assert "film" in capsys.readouterr().out.lower()
    assert learn.predict(texts[0])[0] == pipe(texts[0]).answer


def test_a_trace_and_bad_texts(folders: dict[str, Path]) -> None:
    pipe = new(folders["unigram"])
    trace = pipe.trace(TEXTS[2])
    assert trace.view() and pipe.task.view(trace.prediction, trace.example)
    odd = ["", "   ", "a\x00b", "</s> is no end", "{{7*7}} %s", "🎉" * 40, "y" * 3000, "Two\r\nlines\u2028here"]
    assert len(pipe(odd)) == len(odd)
    with pytest.raises(pl.PellucidError, match="gives no token"):
        new(folders["gpt2"])([""])
    with pytest.raises(pl.PellucidError, match="half a character"):
        pipe.task.encode(pipe.tokenizer, {"text": ["half \ud83d"]}, None, pipe.options)


def test_the_tokens_that_the_model_was_given_can_be_looked_at(folders: dict[str, Path]) -> None:
    pipe = new(folders["chat"])
    split = as_split([json.dumps(CHAT)], READS)
    batch = pipe.collate(pipe.encode(split), np.arange(1))
    (shown,) = given_tokens(pipe.tokenizer, batch, pipe.source(split).windows(0))
    assert shown.ids == chat_tokens(pipe.tokenizer, CHAT).ids and shown.row == 0
    learned = [one for one, label in zip(shown.ids, shown.label_ids, strict=True) if label != IGNORED]
    assert pipe.tokenizer.decode(learned) == "It was a mess.<|endoftext|>Superb.<|endoftext|>"
    assert "label id" in shown.columns() and shown.view()
    special = [piece for piece, flag in zip(shown.pieces, shown.special, strict=True) if flag]
    assert special == ["<|user|>", "<|endoftext|>", "<|assistant|>", "<|endoftext|>"] * 2
    assert shown.headline() == f"tokens · {len(shown)}, 8 of them special, {len(shown) - 8} not of the text"
    plain = as_split([TEXTS[2]], READS)
    bare = pipe.source(plain).windows(0)
    (same,) = given_tokens(pipe.tokenizer, pipe.collate(pipe.encode(plain), np.arange(1)), bare)
    assert replace(same, label_ids=()) == bare[0] and same.label_ids[1:] == same.ids[1:]


def test_messages_are_read_as_files_and_frames_hold_them(folders: dict[str, Path], tmp_path: Path) -> None:
    import pandas as pd

    chats = [CHAT, CHAT[:2], [{"role": "system", "content": "Be brief."}, *CHAT[:2]]]
    lines = "".join(json.dumps({"number": number, "messages": chat}) + "\n" for number, chat in enumerate(chats))
    (tmp_path / "chats.jsonl").write_text(lines, encoding="utf-8")
    frame = pd.DataFrame({"messages": chats})
    frame.to_parquet(tmp_path / "chats.parquet")
    wanted = [json.dumps(chat) for chat in chats]
    for source in (tmp_path / "chats.jsonl", tmp_path / "chats.parquet", frame, [{"messages": chat} for chat in chats]):
        rows = pl.read(source, options=ALL)
        assert [example.fields["text"] for example in rows.train] == wanted
        assert any("a conversation, written as JSON" in note.what for note in rows.notes)
    pipe = new(folders["chat"])
    assert [one.answer for one in pipe(chats)] == [one.answer for one in pipe(wanted)]
    assert pipe.trace(CHAT).tokens[0].ids == chat_tokens(pipe.tokenizer, CHAT).ids


def test_messages_that_are_no_conversation_are_refused(folders: dict[str, Path]) -> None:
    pipe = new(folders["chat"])
    with pytest.raises(DataError, match=r"one conversation, or a text each\. Pass \[messages\]"):
        pipe(CHAT)
    staff = [{"role": "director", "content": "A text of theirs.", "since": date(2020, 1, 1)}, {"role": "user", "content": "Another."}]
    assert len(pipe(staff)) == 2  # a column of that name is no conversation
    for bad in ([1, 2], [{"role": "user", "content": "Hello"}, 3]):
        with pytest.raises(DataError, match="row 1, column 'messages': expected a text, came list"):
            pl.read([{"messages": CHAT}, {"messages": bad}], options=ALL)
    for call in ({"content": None}, {"tool_calls": [{"name": "search"}]}, {"content": [{"type": "image"}]}):
        rows = pl.read([{"messages": [CHAT[0], {"role": "assistant", "at": date(2020, 1, 1), **call}]}], options=ALL)
        with pytest.raises(DataError, match="message 2 of the conversation has no text as its content"):
            pipe.encode(rows.train)


def test_messages_beside_other_columns() -> None:
    rows = pl.read([{"messages": 5, "body": "A film.", "label": "a"}, {"messages": 7, "body": "Dull", "label": "b"}], options=ALL)
    assert rows.train.roles.text == "body"  # a number of messages
    assert len(as_split([{"messages": 5, "body": "A film."}], READS)) == 1
    rows = pl.read([{"prompt": "Was it funny?", "messages": CHAT}], options=ALL)
    assert rows.train.roles.text == "messages"
    mixed = [{"messages": json.dumps(CHAT)}, {"messages": CHAT}, {"messages": tuple(CHAT)}]
    assert len({example.fields["text"] for example in pl.read(mixed, options=ALL).train}) == 1
    for one in ([{"text": CHAT}], [tuple(CHAT)], [CHAT]):
        assert as_split(one, READS)[0].fields["text"] == json.dumps(CHAT)
    with pytest.raises(DataError, match="row 0, column 'messages': expected a text, came list"):
        pl.read([{"messages": []}, {"messages": CHAT}], options=ALL)


def test_special_tokens_without_a_name_are_special(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["chat"], tmp_path / "chat")
    told = json.loads((tmp_path / "chat" / "tokenizer_config.json").read_text())
    for name in ("additional_special_tokens", "extra_special_tokens"):
        told.pop(name, None)
    (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps(told))
    pipe = new(tmp_path / "chat")
    tokens = pipe.trace(CHAT[:1]).tokens[0]
    assert not set(pipe.tokenizer.all_special_tokens) & {"<|user|>", "<|assistant|>"}
    assert [piece for piece, flag in zip(tokens.pieces, tokens.special, strict=True) if flag] == [
        "<|user|>",
        "<|endoftext|>",
        "<|assistant|>",
    ]


@pytest.mark.parametrize(("name", "value"), [("max_new_tokens", 500), ("block_tokens", 500)])
def test_more_than_the_model_reaches(folders: dict[str, Path], name: str, value: int) -> None:
    with pytest.raises(pl.PellucidError, match="reaches 80 tokens"):
        Pipeline.new(TextGeneration(**{name: value}), folders["gpt2"])


# --- real checkpoints --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stories15M", "smollm2-135m-instruct"])
def test_real_models_answer_as_transformers_pipeline(name: str) -> None:
    import transformers

    folder = real(name)
    prompts = ["Once upon a time, there was a little", "The capital of France is", "Tom and Anna went to the park. They saw a big dog and"]
    pipe = Pipeline.new(TextGeneration(max_new_tokens=20), folder)
    theirs = transformers.pipeline("text-generation", model=str(folder), device="cpu", dtype=torch.float32)
    wanted = theirs(prompts, max_new_tokens=20, do_sample=False, return_full_text=False)
    found = [str(answer.answer) for answer in pipe(prompts)]
    # of stories15M transformers leaves the space out that stands before the first word
    assert [answer.strip() for answer in found] == [one[0]["generated_text"].strip() for one in wanted]
    assert all(answer.startswith(" ") for answer in found)
    if name == "smollm2-135m-instruct":
        chat = [{"role": "user", "content": "What is the capital of France?"}]
        said = theirs(chat, max_new_tokens=20, do_sample=False)[0]["generated_text"][-1]["content"]
        assert pipe(json.dumps(chat)).answer == said


@pytest.mark.slow
def test_shakespeare_is_foreseen_as_by_the_plain_model(shared_data: Path) -> None:
    folder = real("stories15M")
    with gzip.open(shared_data / "tinyshakespeare" / "input.txt.gz", "rt", encoding="utf-8") as lines:
        text = lines.read(4000)
    pipe = Pipeline.new(TextGeneration(block_tokens=128), folder)
    losses, counts, _ = pipe.losses(plain_rows([text]).train)
    ids = pipe.tokenizer(text)["input_ids"] + [pipe.task.end_id]
    total = 0.0
    for start in range(0, len(ids), 128):
        part = torch.tensor([ids[start : start + 128]])
        with torch.no_grad():
            total += float(pipe.model(part, labels=part).loss) * (part.shape[1] - 1)
    assert float((losses * counts).sum()) == pytest.approx(total, rel=1e-4)
