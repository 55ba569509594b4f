"""A vocabulary of your own texts.

Takes rows or texts, and VocabularyOptions. Gives a tokenizer of transformers that the package tokenizers trained, with the special tokens
of a family of models. Knows nothing of models, weights or tasks.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import DataError, SettingError
from pellucid.given import as_split
from pellucid.rows import Rows, Split
from pellucid.tokenizer import rust_panics_as_errors
from pellucid.vocab_kinds import (
    EXACT,
    USUAL_FREQUENCY,
    ModelFamily,
    VocabularyKind,
    VocabularyOptions,
    finished,
    special_tokens,
    untrained,
    words_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

__all__ = ["ModelFamily", "VocabularyKind", "VocabularyOptions", "split_to_read", "texts_in", "train_tokenizer"]


def train_tokenizer(rows_or_texts: Any, options: VocabularyOptions = VocabularyOptions()) -> "PreTrainedTokenizerFast":
    """A tokenizer whose vocabulary is learned from these texts: rows (their training split), a split, a list of texts, a frame.

    The same texts in the same order and the same options give the same vocabulary. `tokenizer.save_pretrained(folder)` writes
    tokenizer.json. Raises DataError where there is no text or too little for the size, SettingError for a size below what the kind needs.
    """
    from transformers import PreTrainedTokenizerFast

    split = split_to_read(rows_or_texts)
    if options.most_texts is not None and options.most_texts < len(split):
        drawn = np.random.default_rng(options.seed).choice(len(split), options.most_texts, replace=False)
        split = split.select(np.sort(drawn))
    if next(texts_in(split), None) is None:
        what = "every text is empty" if len(split) else "there is no text"
        raise DataError(
            f"{what}, so there is nothing to learn a vocabulary from", place=split.source, cure="Pass texts with words in them."
        )
    with rust_panics_as_errors(f"the vocabulary of {split.source}"):
        backend, trainer = untrained(options, _continuing(split, options) if options.kind == "wordpiece" else ())
        try:
            backend.train_from_iterator(texts_in(split), trainer, length=len(split))
        except Exception as error:  # tokenizers raises bare Exceptions
            raise _not_trained(error, options, split) from error
        backend = finished(backend, options)
    _check_size(backend, options, split)
    known = {str(token): token for token in special_tokens(options)}
    names = {name: known[token] for name, token in options.special.names.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=options.max_length,
        model_input_names=list(options.special.inputs),
        clean_up_tokenization_spaces=False,
        **names,
    )


def split_to_read(rows_or_texts: Any) -> Split:
    """Whatever holds texts, as one split: of rows the training split, all of its text fields."""
    if isinstance(rows_or_texts, Rows):
        return rows_or_texts.train
    return rows_or_texts if isinstance(rows_or_texts, Split) else as_split(rows_or_texts, ("text",))


def texts_in(split: Split) -> Iterator[str]:
    """The texts of a split that are not empty, all fields of a row one after the other."""
    for start, stop in split.chunks():
        columns = split.columns(start, stop)
        for texts in zip(*columns.values(), strict=True):
            yield from (text for text in texts if text and not text.isspace())


def _continuing(split: Split, options: VocabularyOptions) -> list[str]:
    """The characters that go on within a word, as WordPiece writes them: "##a", in order.

    The trainer meets them in an order that is another one each time, numbers them so, and decides by those numbers between pairs that
    occur equally often. Named beforehand they have numbers, and the vocabulary follows from the texts alone.
    """
    tokenizer, trainer = words_of(options)
    tokenizer.train_from_iterator(texts_in(split), trainer, length=len(split))
    return sorted({f"##{character}" for word in tokenizer.get_vocab() for character in word[1:]})


def _not_trained(error: Exception, options: VocabularyOptions, split: Split) -> SettingError | DataError:
    """What the trainer complained of, in our words: the size that every character needs, or whatever else it was."""
    alphabet = len({character for text in texts_in(split) for character in text})
    if "too small" in str(error).lower() or options.size <= alphabet:
        return _too_small(options, alphabet + len(options.special.tokens) + 1)
    reason = str(error).partition("\n")[0][:200]
    return DataError(f"no vocabulary could be learned: {reason}", place=split.source, cure="Pass more texts, or take another kind.")


def _check_size(backend: "Tokenizer", options: VocabularyOptions, split: Split) -> None:
    """Whether there are as many tokens as were asked for: no more, and where pieces are learned no less."""
    found = backend.get_vocab_size()
    if found > options.size:
        raise _too_small(options, found)
    if options.kind in EXACT and found < options.size:
        problem = f"the texts give {found:,} tokens, and {options.size:,} were asked for: {len(split):,} texts are too few"
        frequency = options.min_frequency or USUAL_FREQUENCY
        lower = f", lower min_frequency ({frequency})" if frequency > 1 and options.kind != "unigram" else ""
        raise DataError(problem, place=split.source, cure=f"Pass more texts{lower}, or set size={found}.")
    if found == len(options.special.tokens):
        cure = "Pass more texts, or min_frequency=1."
        raise DataError(f"no {options.kind} occurs {options.min_frequency or USUAL_FREQUENCY} times", place=split.source, cure=cure)


def _too_small(options: VocabularyOptions, least: int) -> SettingError:
    problem = f"size is {options.size:,}, and the characters and special tokens alone are {least:,}"
    cure = f'Set size={least + 1} or more, or take kind="byte-bpe", whose alphabet is 256 bytes.'
    if options.kind == "byte-bpe":
        cure = f"Set size={least + 1} or more."
    return SettingError(problem, place="size", cure=cure)
