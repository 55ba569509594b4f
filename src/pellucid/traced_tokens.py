"""The tokens that a model was really given, with the characters that they come from where those are known.

Takes a batch of one row's windows and the tokens of the row's bare text. Gives Tokens for each window: with a prefix, the code of a
language or the words of a chat template among them, and with their labels. Knows nothing of tasks, models or how the batch was made.
"""

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np

from pellucid.types import Batch, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEAR = 4  # times as many tokens of the text as were given are looked at first, from where the window before ended


def given_tokens(tokenizer: "PreTrainedTokenizerBase", batch: Batch, bare: Sequence[Tokens]) -> tuple[Tokens, ...]:
    """The tokens of each entry of a batch, without padding, in its order; `bare` are those of the row's text alone.

    Where they are the same, those are given back, with labels where there is one a token. Else the longest stretch that both have in
    common keeps its characters and words, if it is most of the text; all other tokens are of no field: they are not the row's own.
    """
    ids = np.asarray(batch.inputs["input_ids"])
    masks = np.asarray(batch.inputs.get("attention_mask", np.ones_like(ids))).astype(bool)
    labels = None if batch.labels is None or np.shape(batch.labels) != ids.shape else np.asarray(batch.labels)
    known = {window.ids: window for window in bare}
    own = [place for window in bare for place in zip(window.ids, window.offsets, window.words, window.segments, strict=True)]
    own = [place for place in own if place[3] is not None]  # without special tokens
    found, begin = [], 0
    for entry, (row, mask) in enumerate(zip(ids, masks, strict=True)):
        given = tuple(row[mask].tolist())
        tokens = known.get(given)
        if tokens is None:
            tokens, begin = placed(tokenizer, given, own, begin)
        numbers = () if labels is None else tuple(labels[entry][mask].tolist())
        window, number = int(batch.windows[entry]), int(batch.rows[entry]) if not bare else bare[0].row
        found.append(replace(tokens, row=number, window=window, label_ids=numbers))
    return tuple(found)


def placed(
    tokenizer: "PreTrainedTokenizerBase",
    ids: tuple[int, ...],
    own: Sequence[tuple[int, tuple[int, int], int | None, str | None]],
    begin: int,
) -> tuple[Tokens, int]:
    """Tokens for these ids, and which of `own` comes after them. `own` are the tokens of the text: id, characters, word and field of each.

    A text may say the same twice: what stands from `begin` on is looked at first, and all of it only where that is not found there.
    """
    inside, shift = range(0), 0
    for first, last in ((begin, begin + NEAR * len(ids)), (0, len(own))):
        match = SequenceMatcher(None, ids, [place[0] for place in own[first:last]], autojunk=False).find_longest_match()
        if 2 * match.size >= min(len(own), len(ids)):
            inside, shift = range(match.a, match.a + match.size), first + match.b - match.a
            begin = shift + inside.stop
            break
    places = [own[shift + position] if position in inside else (0, (0, 0), None, None) for position in range(len(ids))]
    _, offsets, words, segments = zip(*places, strict=True) if places else ((), (), (), ())
    pieces = tuple(str(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids)))
    added = tokenizer.added_tokens_decoder.items()
    names = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}
    special = tuple(segment is None and number in names for segment, number in zip(segments, ids, strict=True))
    return Tokens(0, 0, ids, pieces, tuple(offsets), tuple(words), special, tuple(segments)), begin
