"""New words for a model that has a vocabulary already.

Takes a pipeline and words. Gives a pipeline whose tokenizer reads each word as one token, and whose embeddings begin where the mean of the
word's pieces stood; the provenance says which weights were resized. Knows nothing of training, files or where the words come from.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pellucid.errors import DataError, SettingError
from pellucid.pipelines import Pipeline
from pellucid.provenance import Origin, ParameterOrigin, Provenance
from pellucid.tokenizer import private_twin
from pellucid.types import Note
from pellucid.view import Table
from pellucid.vocab import split_to_read, texts_in

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORDS = re.compile(r"[^\W\d_]+")
SPACES = ("Ġ", "▁")  # a piece that holds the space before a word: that stays a token when the word becomes one
SHOWN = 8


def extend_vocabulary(pipe: Pipeline, words: Sequence[str]) -> Pipeline:
    """The pipeline with these words as tokens of their own, found between characters that belong to no word; `pipe` stays as it is.

    Each new embedding is the mean of those of the pieces that stood for the word; so are the weights that say the word in a head as wide
    as the vocabulary. Words that are one token already are left as they are, and that is said. Raises DataError for what is no word,
    SettingError where no word is new.
    """
    tokenizer: Any = deepcopy(pipe.tokenizer)
    wanted = _words_of(words)
    before = private_twin(tokenizer, special_tokens_in_text=False)
    cut = {word: before.encode(word, add_special_tokens=False).ids for word in wanted}
    unknown = tokenizer.unk_token_id
    new = [word for word, ids in cut.items() if len(ids) > 1 or ids == [unknown] or not ids]
    if not new:
        cure = "Pass words that the tokenizer cuts into pieces; words_worth_adding finds some."
        raise SettingError(f"each of the {len(wanted)} words is one token already", place="words", cure=cure)
    tokenizer.add_tokens(_tokens(new, before))
    model = deepcopy(pipe.model)
    was = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    pieces = {int(tokenizer.convert_tokens_to_ids(word)): [piece for piece in cut[word] if piece != unknown] for word in new}
    _grow(model, len(tokenizer), pieces, len(pipe.tokenizer))
    task, _ = pipe.task.for_tokenizer(tokenizer)
    provenance = _resized(pipe.provenance, model, was)
    notes = (_said(new, model, was), *_kept(wanted, new))
    return replace(pipe, task=task, tokenizer=tokenizer, model=model, provenance=provenance, notes=(*pipe.notes, *notes))


def words_worth_adding(tokenizer: "PreTrainedTokenizerBase", texts: Any, *, most: int = 100, least: int = 5) -> Table:
    """The words of these texts (a list, a split, rows, a frame) whose pieces cost most tokens in all: at most `most` of them, each there
    `least` times or more.

    The columns are word, times, pieces and tokens saved; `[row[0] for row in table.rows]` are the words for `extend_vocabulary`.
    """
    if most < 1 or least < 1:
        raise SettingError(f"most={most}, least={least}: expected 1 or more", place="most, least", cure="100 and 5 are usual.")
    twin = private_twin(tokenizer, special_tokens_in_text=False)
    spell = (lambda text: text) if twin.normalizer is None else twin.normalizer.normalize_str
    counts: Counter[str] = Counter()
    for text in texts_in(split_to_read(texts)):
        counts.update(WORDS.findall(spell(text)))
    frequent = [word for word, times in counts.items() if times >= least]
    found = twin.encode_batch([f" {word}" for word in frequent], add_special_tokens=False)  # as it stands in a text: after a space
    pieces = {word: tuple(one.tokens) for word, one in zip(frequent, found, strict=True)}
    saved = {word: counts[word] * (len(cut) - 1 - cut[0].startswith(SPACES)) for word, cut in pieces.items() if cut}
    worth = sorted((word for word in saved if saved[word] > 0), key=lambda word: (-saved[word], word))
    rows = tuple((word, counts[word], " ".join(pieces[word]), saved[word]) for word in worth[:most])
    note = f"{len(worth):,} words occur {least} times or more and are cut into pieces."
    return Table("words that cost tokens", ("word", "times", "pieces", "tokens saved"), rows, note)


def _words_of(words: Sequence[str]) -> list[str]:
    """The words once each. Raises DataError for an empty one, or one with a space in it."""
    if isinstance(words, str):
        raise DataError("expected a list of words, came one text", place="words", cure=f"Pass {words.split()!r:.80}.")
    for position, word in enumerate(words):
        if not isinstance(word, str) or not word or any(character.isspace() for character in word):
            raise DataError(f"expected one word, came {word!r:.60}", place=f"words[{position}]", cure="Pass words without spaces in them.")
    if not words:
        raise DataError("there is no word to add", place="words", cure="Pass some words; words_worth_adding finds some.")
    return list(dict.fromkeys(words))


def _tokens(words: Sequence[str], twin: "Tokenizer") -> list[Any]:
    """As tokens that are found in the text as the tokenizer normalises it, whole words alone."""
    from tokenizers import AddedToken

    return [AddedToken(word, single_word=True, normalized=twin.normalizer is not None, special=False) for word in words]


def _grow(model: "PreTrainedModel", size: int, pieces: Mapping[int, Sequence[int]], before: int) -> None:
    """Make room for `size` tokens, and put the mean of the pieces where each new one stands; the mean of all where it had no piece."""
    if model.get_input_embeddings().weight.shape[0] < size:
        model.resize_token_embeddings(size, mean_resizing=False)
    head: Any = model.get_output_embeddings()
    tables = {id(part): part for part in (model.get_input_embeddings().weight, *_of_head(head))}
    for table in tables.values():  # each (tokens, …), a tied one once
        old = table.data[:before].clone()
        for number, ids in pieces.items():
            table.data[number] = (old[list(ids)] if ids else old).mean(dim=0)


def _of_head(head: Any) -> tuple[Any, ...]:
    if head is None:
        return ()
    bias = getattr(head, "bias", None)
    return (head.weight,) if bias is None else (head.weight, bias)


def _resized(provenance: Provenance, model: "PreTrainedModel", was: Mapping[str, tuple[int, ...]]) -> Provenance:
    """The same table with the shapes of today: what was pretrained and grew is resized, what was new is still new."""
    known = {parameter.name: parameter for parameter in provenance.parameters}
    found = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shape, origin = tuple(parameter.shape), known[name]
        if shape != origin.shape:
            origin = _grown(origin, shape, was[name])
        found.append(origin)
    return Provenance(provenance.checkpoint, tuple(found))


def _grown(parameter: ParameterOrigin, shape: tuple[int, ...], was: tuple[int, ...]) -> ParameterOrigin:
    if parameter.origin is Origin.TIED:
        return replace(parameter, shape=shape)
    count = 1
    for side in shape:
        count *= side
    if parameter.origin is Origin.NEW:
        return replace(parameter, shape=shape, count=count)
    return replace(parameter, shape=shape, count=count, origin=Origin.RESIZED, was=was)


def _said(new: Sequence[str], model: "PreTrainedModel", was: Mapping[str, tuple[int, ...]]) -> Note:
    names = ", ".join(map(repr, new[:SHOWN])) + (f" and {len(new) - SHOWN} more" if len(new) > SHOWN else "")
    grown = [name for name, parameter in model.named_parameters() if tuple(parameter.shape) != was[name]]
    how = f"{', '.join(grown)} grew" if grown else "the model had rows to spare"
    why = f"each begins as the mean of its pieces; {how}"
    return Note(f"{len(new)} words added to the vocabulary: {names}", why, "Train on texts that use them.")


def _kept(wanted: Sequence[str], new: Sequence[str]) -> tuple[Note, ...]:
    kept = [word for word in wanted if word not in set(new)]
    if not kept:
        return ()
    return (Note(f"{len(kept)} words were not added", f"they are one token already: {', '.join(map(repr, kept[:SHOWN]))}"),)
