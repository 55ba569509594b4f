"""Scores of language models: how well they foresee a text.

Takes the negative log-likelihood of each row and over how many tokens it was taken. Gives a tally: perplexity and its kin.
Knows nothing of models, masks or texts.
"""

from collections.abc import Sequence

import numpy as np

from pellucid.errors import DataError
from pellucid.intervals import divided
from pellucid.tallies import Tally, check_pairs
from pellucid.types import FloatArray, IntArray

LANGUAGE = ("perplexity", "cross-entropy per token")
BITS = "bits per character"
Numbers = Sequence[float] | FloatArray | IntArray


def perplexity_tally(negative_log_likelihood: Numbers, tokens: Numbers, characters: Numbers | None = None) -> Tally:
    """Perplexity, cross-entropy per token (in nats) and, with `characters`, bits per character: lower is better for each.

    `negative_log_likelihood` (rows,) is the sum over the predicted tokens of a row in nats, `tokens` (rows,) how many those are,
    `characters` (rows,) how many characters they spell: only bits per character can be compared between tokenizers. All rows count
    together, so a long one counts more. nan where there is not one token. Raises DataError for numbers that cannot be, naming the row.
    """
    given = [negative_log_likelihood, tokens] + ([] if characters is None else [characters])
    for other in given[1:]:
        check_pairs(other, given[0])
    counts = np.stack([np.asarray(each, dtype=np.float64) for each in given], axis=1)  # (rows, 2 or 3)
    odd = ~np.isfinite(counts).all(axis=1) | (counts[:, 1:] < 0).any(axis=1)
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        cure = "Look for nan in the weights, and count tokens and characters from 0 up."
        raise DataError(f"expected finite sums and counts, came {counts[row].tolist()}", row=row, cure=cure)

    def combine(sums: FloatArray) -> FloatArray:
        nats = divided(sums[..., 0], sums[..., 1], np.nan)
        with np.errstate(over="ignore"):  # a hopeless model has an infinite perplexity
            scores = [np.exp(nats), nats]
        if characters is not None:
            scores.append(divided(sums[..., 0] / np.log(2), sums[..., 2], np.nan))
        return np.stack(scores, axis=-1)

    details = {LANGUAGE[0]: f"over {counts[:, 1].sum():,.0f} tokens that were to be foreseen"}
    return Tally(LANGUAGE if characters is None else (*LANGUAGE, BITS), counts, combine, details=details)
