"""The languages of a tokenizer that knows several: their codes, and where they stand among the tokens.

Takes a tokenizer of transformers and the codes of two languages. Gives a tokenizer that reads or writes them, and the ids that say which.
Knows nothing of rows, tables or models; the tokenizer that it is given stays as it is.

Three ways are known. mBART and NLLB have templates of special tokens that name the language. M2M100 puts the code of the source before the
source and that of the target before the target. Marian puts the code of the target, >>es<<, before the source.
"""

import copy
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pellucid.errors import SettingError
from pellucid.tokenizer import private_twin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Way = Literal["none", "template", "both first", "target first"]
CODES: Mapping[Way, re.Pattern[str]] = {
    "both first": re.compile(r"__([a-z]{2,3})__"),
    "target first": re.compile(r">>(\w+)<<"),
    "template": re.compile(r"([a-z]{2}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3})"),
}
NEAR = 6  # codes that are named beside a wrong one


@dataclass(frozen=True, slots=True)
class Languages:
    """How a tokenizer says which language is read and which is to be written, and the id of each code."""

    way: Way
    ids: Mapping[str, int]

    def id_of(self, code: str, place: str) -> int:
        """The id of a code. Raises SettingError that lists codes near it."""
        if code in self.ids:
            return self.ids[code]
        near = [known for known in self.ids if known[:2].lower() == code[:2].lower()]
        near = list(dict.fromkeys((*near, *difflib.get_close_matches(code, self.ids, NEAR, 0.3))))[:NEAR] or sorted(self.ids)[:NEAR]
        cure = f"Use one of its {len(self.ids)} codes, such as {', '.join(near)}."
        raise SettingError(f"the tokenizer has no language {code!r}", place=place, cure=cure)

    def before_source(self, source: str, target: str) -> tuple[int, ...]:
        """The ids that stand before the source, and that no template puts there."""
        code = {"both first": source, "target first": target}.get(self.way, "")
        return (self.ids[code],) if code else ()

    def before_target(self, target: str) -> tuple[int, ...]:
        """The ids that stand before the target, and that no template puts there."""
        return (self.ids[target],) if target and self.way == "both first" else ()


def languages_of(tokenizer: "PreTrainedTokenizerBase") -> Languages:
    """The languages that a tokenizer knows by code; none for one that knows one language, or is told in words."""
    if hasattr(tokenizer, "src_lang"):
        known: Mapping[str, int] | None = getattr(tokenizer, "lang_code_to_id", None)
        return Languages("template", dict(known) if known else coded(tokenizer, "template"))
    for way in ("both first", "target first"):
        found = coded(tokenizer, way)
        if found:
            return Languages(way, found)
    return Languages("none", {})


def coded(tokenizer: "PreTrainedTokenizerBase", way: Literal["template", "both first", "target first"]) -> dict[str, int]:
    """The tokens that are written as language codes are: code → id."""
    vocabulary = tokenizer.get_vocab()
    pieces = vocabulary if way == "target first" else [piece for piece in added(tokenizer) if piece in vocabulary]
    matches = {piece: CODES[way].fullmatch(piece) for piece in pieces}
    return {match[1]: int(vocabulary[piece]) for piece, match in matches.items() if match}


def added(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The tokens that stand beside the vocabulary: special ones and others."""
    return sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})


def speaking(tokenizer: "PreTrainedTokenizerBase", source: str, target: str, *, writes: bool) -> "PreTrainedTokenizerBase":
    """A tokenizer that puts the special tokens of these languages around a text: around a source, or where it `writes`, a target.

    It shares the vocabulary with the one that is given, which stays as it is; where that has no such templates, it is given back.
    """
    if not hasattr(tokenizer, "src_lang"):
        return tokenizer
    twin: Any = copy.copy(tokenizer)
    twin._tokenizer = private_twin(tokenizer, special_tokens_in_text=True)  # templates are set on this one alone
    if target:
        twin.tgt_lang = target
    twin.src_lang = source or tokenizer.src_lang
    if writes:
        twin._switch_to_target_mode()
    speaker: PreTrainedTokenizerBase = twin
    return speaker
