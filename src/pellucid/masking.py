"""Which tokens of a text are hidden, so that a model learns to say them: single tokens (BERT), whole words, spans (SpanBERT).

Takes a token table, or a batch whose labels are the ids that can be learned, and a Masking. Gives labels for a table, batches with masks.
Knows nothing of texts, tokenizers, models or torch.

The labels of a table are the ids of its tokens; -100 stands where nothing can be learned (special tokens). Masks over words need to know
where words begin, and no tokenizer is at hand when a batch is drawn: so the bit CONTINUES of a label says that the token continues the word
of the token before. `masked` takes it off.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pellucid.batch import IGNORED
from pellucid.errors import SettingError
from pellucid.token_table import TokenTable
from pellucid.types import Batch, BoolArray, IntArray

HowMasked = Literal["tokens", "whole-words", "spans"]
CONTINUES = 1 << 30  # no vocabulary reaches so far
HELD_OUT_SEED = 20_181_011  # draw 0 follows from this: the same masks for validation, whatever the seed of the training
LONGEST_SPAN, SPAN_SHARE = 10, 0.2  # words; SpanBERT (Joshi et al. 2020, arXiv:1907.10529)
_LENGTHS = np.arange(1, LONGEST_SPAN + 1)
_CHANCES = SPAN_SHARE * (1 - SPAN_SHARE) ** (_LENGTHS - 1)
_CHANCES /= _CHANCES.sum()


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are hidden: the `share` of them, and what the model sees in their place.

    The model sees the mask for `as_mask` of them, a random token for `as_random`, and the token itself for the rest (BERT: 0.8, 0.1, 0.1).
    `vocabulary` ids may be drawn at random, but for `special_ids`. Raises SettingError for a value outside what is possible.
    """

    mask_id: int
    vocabulary: int
    special_ids: tuple[int, ...] = ()
    how: HowMasked = "tokens"
    share: float = 0.15
    as_mask: float = 0.8
    as_random: float = 0.1
    seed: int = 42

    def __post_init__(self) -> None:
        check_masking(self.how, self.share, self.as_mask, self.as_random)


def check_masking(how: str, share: float, as_mask: float, as_random: float) -> None:
    """Raises SettingError for a way to mask that is not there, or shares that cannot be."""
    if how not in get_args(HowMasked):
        raise SettingError(f"there is no masking {how!r}", place="masking", cure=f"Use one of: {', '.join(get_args(HowMasked))}.")
    if not 0 < share <= 1:
        raise SettingError(f"the share of hidden tokens is {share}", place="mask_share", cure="Use a number above 0, up to 1; BERT: 0.15.")
    if min(as_mask, as_random) < 0 or as_mask + as_random > 1 + 1e-9:
        cure = "Use two shares that add up to 1 at most; the rest of the tokens stay as they are. BERT has 0.8 and 0.1."
        raise SettingError(f"of the hidden tokens {as_mask} are masks and {as_random} random", place="as_mask, as_random", cure=cure)


def learnable(table: TokenTable, special_ids: tuple[int, ...]) -> TokenTable:
    """The table with its own ids as labels, one a token; -100 for special tokens."""
    ids = np.asarray(table.ids)
    return table.with_token_labels(np.where(np.isin(ids, special_ids), IGNORED, ids).astype(np.int32))


def learnable_words(table: TokenTable, words: IntArray, special_ids: tuple[int, ...]) -> TokenTable:
    """What `learnable` gives, and in the labels the bit CONTINUES where a token continues a word.

    `words` (all tokens,) are the numbers of the words in their text, -1 for tokens of none.
    """
    labelled = learnable(table, special_ids)
    labels = np.asarray(labelled.labels)
    continues = np.zeros(len(labels), dtype=np.bool_)
    continues[1:] = (words[1:] == words[:-1]) & (words[1:] >= 0) & (labels[1:] >= 0) & (labels[:-1] >= 0)
    continues[np.asarray(table.starts)[:-1]] = False  # of a word that the edge of a window cuts, each part is a word
    return labelled.with_token_labels(np.where(continues, labels | CONTINUES, labels).astype(np.int32))


def masked(batch: Batch, masking: Masking, draw: int) -> Batch:
    """The batch with tokens hidden, and as labels what they were; -100 everywhere else.

    Which ones follows from the seed, `draw` and the place of each window in its table, not from the rest of the batch. Draw 0 is for
    rows that are kept aside, and does not depend on the seed. Of each window at least one token is hidden, where it has any to learn.
    """
    given = np.asarray(batch.labels)  # (batch, tokens)
    ids, labels = np.array(batch.inputs["input_ids"]), np.full_like(given, IGNORED)
    seed = masking.seed if draw else HELD_OUT_SEED
    for entry, (row, window) in enumerate(zip(batch.rows.tolist(), batch.windows.tolist(), strict=True)):
        places = np.flatnonzero(given[entry] != IGNORED)
        if len(places) == 0:
            continue
        random = np.random.default_rng([seed, draw, row, window])
        learned = given[entry, places]
        units = hidden(learned < CONTINUES, masking, random)  # (places,)
        chosen = units >= 0
        labels[entry, places[chosen]] = learned[chosen] & (CONTINUES - 1)
        ids[entry, places[chosen]] = replaced(labels[entry, places[chosen]], units[chosen], masking, random)
    return replace(batch, inputs={**batch.inputs, "input_ids": ids}, labels=labels)


def hidden(begins: BoolArray, masking: Masking, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which tokens of a text are hidden: (tokens,) -1, or the number of what is replaced in the same way: a token, or a span.

    `begins` (tokens,) says where a word begins. As many tokens as the share says, at least one; words and spans are never cut, and only
    a word that alone has more tokens than that may exceed it.
    """
    tokens = len(begins)
    budget = max(1, round(masking.share * tokens))
    units = np.full(tokens, -1, dtype=np.int64)
    if masking.how == "tokens":
        units[random.permutation(tokens)[:budget]] = np.arange(budget)
        return units
    first = np.flatnonzero(begins | (np.arange(tokens) == 0))  # (words,) first token of each
    sizes = np.diff(first, append=tokens)
    pick = whole_words if masking.how == "whole-words" else spans
    of_words = pick(sizes, budget, random)  # (words,)
    spread = np.repeat(of_words, sizes)
    return np.where(spread < 0, -1, np.arange(tokens)) if masking.how == "whole-words" else spread


def whole_words(sizes: IntArray, budget: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Words in random order, each that still fits: (words,) its number where it is hidden, -1 elsewhere. `sizes` (words,) in tokens."""
    chosen = np.full(len(sizes), -1, dtype=np.int64)
    order = random.permutation(len(sizes)).tolist()
    left = budget
    for word in order:
        if sizes[word] <= left:
            chosen[word] = word
            left -= int(sizes[word])
        if not left:
            break
    if left == budget:  # each is longer than the budget
        chosen[order[0]] = order[0]
    return chosen


def spans(sizes: IntArray, budget: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Stretches of 1 to 10 words, short ones more often: (words,) the number of the span, -1 where a word is not hidden.

    A span is shortened where it meets another one, the end of the text or the budget in tokens. Between spans nothing is left free on
    purpose, so two of them may touch.
    """
    words = len(sizes)
    chosen = np.full(words, -1, dtype=np.int64)
    left, span = budget, 0
    for _ in range(2 * words + 20):  # enough tries to fill the budget but for words that do not fit
        start, length = int(random.integers(words)), int(random.choice(_LENGTHS, p=_CHANCES))
        for word in range(start, min(start + length, words)):
            if chosen[word] >= 0 or sizes[word] > left:
                break
            chosen[word] = span
            left -= int(sizes[word])
        span += 1
        if not left:
            break
    if left == budget:
        chosen[int(random.integers(words))] = 0
    return chosen


def replaced(ids: IntArray, units: IntArray, masking: Masking, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """What the model sees in place of these ids, (tokens,): the mask, a random token or the token itself, one lot for each unit."""
    _, unit = np.unique(units, return_inverse=True)
    lots = random.random(int(unit.max()) + 1)[unit]  # (tokens,)
    strange = ordinary(len(ids), masking, random)
    return np.where(lots < masking.as_mask, masking.mask_id, np.where(lots < masking.as_mask + masking.as_random, strange, ids))


def ordinary(count: int, masking: Masking, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Random ids that are not special: (count,)."""
    special = sorted(number for number in set(masking.special_ids) if 0 <= number < masking.vocabulary)
    drawn = random.integers(max(1, masking.vocabulary - len(special)), size=count)
    for number in special:  # in rising order: each special id moves those from it on up by one
        drawn += drawn >= number
    return drawn
