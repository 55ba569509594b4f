"""Conversations as tokens: what a chat template makes of them, and which tokens are answers.

Takes messages, each with a role and a content, and a tokenizer with a chat template. Gives ids, and for each whether a model that answers
is to learn it. Knows nothing of rows, tables, tasks or models; what a template may do is bounded by transformers' sandbox.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pellucid.errors import DataError, TokenizerError
from pellucid.tokenizer import private_twin, rust_panics_as_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
ANSWERS = "assistant"  # the role whose words a model learns
MARK = "\ue000\ue001\ue000"  # characters that no text has: they are for private use


@dataclass(frozen=True, slots=True)
class ChatTokens:
    """A conversation as a model reads it: one entry a token."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]  # whether it is part of an answer, the token that ends it included


def chat_text(value: Any) -> str | None:
    """The JSON of a list of messages, each a dict with a role; None for any other value. Of a message its texts are kept."""
    if not is_chat(value):
        return None
    return json.dumps([{name: part for name, part in message.items() if isinstance(part, str)} for message in value], ensure_ascii=False)


def is_chat(value: Any) -> bool:
    """Whether it is a list of messages: dicts that say whose they are."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) and isinstance(each.get("role"), str) for each in value)
    )


def chat_of(text: str, row: int = 0) -> list[Message] | None:
    """The messages of a text that is a JSON list of them, [{"role": …, "content": …}, …]; None for any other text.

    Raises DataError for such a list with a message that has no content.
    """
    if not (text.lstrip()[:1] == "[" and text.rstrip()[-1:] == "]"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not is_chat(found):
        return None
    for number, message in enumerate(found, 1):
        if not isinstance(message.get("content"), str):
            cure = 'Write each message as {"role": "user", "content": "…"}.'
            raise DataError(f"message {number} of the conversation has no text as its content", row=row, cure=cure)
    return [{name: value for name, value in message.items() if isinstance(value, str)} for message in found]


def chat_tokens(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], row: int = 0) -> ChatTokens:
    """The tokens of a conversation; one that does not end with an answer gets the beginning of an answer.

    The ids are those of `apply_chat_template`. A special token that somebody wrote into a message is read as text all the same.
    Raises TokenizerError without a template, DataError where the template refuses the conversation.
    """
    text = rendered(tokenizer, messages, row, begin=messages[-1]["role"] != ANSWERS)
    answers = answers_in(tokenizer, messages, text, row)
    ids: list[int] = []
    learned: list[bool] = []
    for start, end, as_text in stretches(tokenizer, messages, text, row):
        twin = private_twin(tokenizer, special_tokens_in_text=not as_text)
        with rust_panics_as_errors(f"row {row}"):
            encoding = twin.encode(text[start:end], add_special_tokens=False)
        ids += encoding.ids
        learned += [any(first <= start + place < last for first, last in answers) for place, _ in encoding.offsets]
    return ChatTokens(tuple(ids), tuple(learned))


def rendered(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], row: int, *, begin: bool) -> str:
    """The conversation as the template writes it; `begin`: with the beginning of an answer."""
    if getattr(tokenizer, "chat_template", None) is None:
        cure = "Use a checkpoint that was trained to answer, set tokenizer.chat_template, or write the conversation as plain text."
        raise TokenizerError("the tokenizer has no chat template", place=f"row {row}", cure=cure)
    from jinja2 import TemplateError

    plain: Any = [dict(message) for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=begin)
    except (TemplateError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        cure = "Look at what the template asks for: roles that take turns, mostly."
        raise DataError(f"the chat template refuses the conversation: {reason[:200]}", row=row, cure=cure) from error
    return text


def answers_in(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], text: str, row: int) -> list[tuple[int, int]]:
    """The characters of each answer, from its first word to the mark that ends it.

    An answer lies between the text of what went before with the beginning of an answer, and the text up to and with it. Where a template
    writes the earlier part otherwise once more follows, that answer is not found, and not learned.
    """
    found = []
    for number, message in enumerate(messages):
        if message["role"] != ANSWERS:
            continue
        upto = rendered(tokenizer, messages[: number + 1], row, begin=False)
        before = (
            rendered(tokenizer, messages[:number], row, begin=True) if number else upto[: max(0, upto.find(message["content"].strip()))]
        )
        if text.startswith(upto) and upto.startswith(before):
            found.append((len(before), len(upto)))
    return found


def stretches(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], text: str, row: int) -> list[tuple[int, int, bool]]:
    """The text in parts that are tokenized one by one: characters start to end, and whether special tokens in it are only text.

    One part, but for messages that hold the name of a special token: each of those is a part of its own.
    """
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    special = [token.content for token in added if token.special]
    parts: list[tuple[int, int, bool]] = []
    done = 0
    for number, message in enumerate(messages):
        if any(name in message["content"] for name in special):
            start, end = place_of(tokenizer, messages, number, text, row)
            parts += [(done, start, False), (start, end, True)]
            done = end
    return [part for part in (*parts, (done, len(text), False)) if part[1] > part[0]]


def place_of(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], number: int, text: str, row: int) -> tuple[int, int]:
    """The characters of a message's content: where the template puts a mark that stands in its place.

    Not where the content is found: "<|user|>" as a message would be found in what the template itself writes before it.
    """
    marked = [{**message, "content": MARK} if place == number else message for place, message in enumerate(messages)]
    start = rendered(tokenizer, marked, row, begin=messages[-1]["role"] != ANSWERS).find(MARK)
    for content in (messages[number]["content"], messages[number]["content"].strip()):
        if start >= 0 and text.startswith(content, start):
            return start, start + len(content)
    cure = "Take the special token out of the message."
    raise DataError("a message holds a special token, and the template changes its text", row=row, cure=cure)
