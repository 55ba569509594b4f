"""Scores of texts against the text that was wanted: ROUGE, BLEU, chrF, exact match.

Takes the texts that were answered and those that were wanted. Gives a tally whose scores are those of rouge_score and sacrebleu.
Knows nothing of tokens, models or how the texts came about.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.errors import DataError, SettingError
from pellucid.tallies import Combine, Tally, check_pairs
from pellucid.types import FloatArray

ROUGE = {"ROUGE-1": "rouge1", "ROUGE-2": "rouge2", "ROUGE-L": "rougeL", "ROUGE-Lsum": "rougeLsum"}
SUMMARIES = ("ROUGE-L", "ROUGE-1", "ROUGE-2", "ROUGE-Lsum")
TRANSLATIONS = ("chrF", "BLEU", "exact match")
TEXTS = (*TRANSLATIONS, *SUMMARIES)
TOKENIZERS = ("13a", "intl", "char", "zh", "none")  # those of sacrebleu that need nothing else
ROUGE_READS = re.compile("[a-z0-9]")
Part = tuple[FloatArray, Combine]  # what each row adds (rows, k), and how sums (…, k) become one score (…,)


def text_tally(answers: Sequence[str], targets: Sequence[str], names: Sequence[str] = TEXTS, *, tokenizer: str = "13a") -> Tally:
    """The scores called `names`, the first of them the main one: SUMMARIES, TRANSLATIONS, TEXTS (all), or a choice of your own.

    ROUGE (from 0 to 1): F with stemmed words, the mean over the rows; ROUGE-Lsum takes the lines of a text as its sentences. BLEU and chrF
    (from 0 to 100): over all rows together; `tokenizer` is the one that BLEU splits words with ("13a", "intl", "char", "zh", "none").
    Exact match (from 0 to 1): white space at the ends aside. An empty text shares nothing with any other: ROUGE gives it 0, even where
    both are empty, and to BLEU and chrF it adds nothing but the length of the other; only exact match calls two empty texts equal.
    Raises DataError for what is no text, naming the row, SettingError for another name or tokenizer.
    """
    check_pairs(answers, targets)
    for row, (answer, target) in enumerate(zip(answers, targets, strict=True)):
        if not isinstance(answer, str) or not isinstance(target, str):
            raise DataError(f"expected texts, came {answer!r} for {target!r}", row=row, cure="Give one text a row; it may be empty.")
    odd = [name for name in names if name not in TEXTS]
    if odd or not names:
        problem = f"there is no score {odd[0]!r} of texts" if odd else "no score was named"
        raise SettingError(problem, place="names", cure=f"Name some of: {', '.join(TEXTS)}.")
    rouge = rouge_shares(answers, targets, [name for name in names if name in ROUGE])
    parts = {name: part_of(name, answers, targets, tokenizer) if name not in rouge else mean_part(rouge[name]) for name in names}
    counts = np.concatenate([columns for columns, _ in parts.values()], axis=1)
    ends = np.cumsum([columns.shape[1] for columns, _ in parts.values()]).tolist()

    def combine(sums: FloatArray) -> FloatArray:
        slices = zip(parts.values(), [0, *ends[:-1]], ends, strict=True)
        return np.stack([score(sums[..., start:stop]) for (_, score), start, stop in slices], axis=-1)

    own = sentence_bleu(counts[:, : ends[0]]) if names[0] == "BLEU" else None
    return Tally(tuple(parts), counts, combine, own=own, details=unread(targets, list(rouge)))


def part_of(name: str, answers: Sequence[str], targets: Sequence[str], tokenizer: str) -> Part:
    """What each row adds to BLEU, chrF or exact match."""
    if name == "exact match":
        return mean_part(np.array([answer.strip() == target.strip() for answer, target in zip(answers, targets, strict=True)]))
    return corpus_part(name, answers, targets, tokenizer)


def mean_part(values: FloatArray) -> Part:
    """A score that is the mean of a number a row, (rows,)."""
    return np.stack([np.ones(len(values)), values], axis=1), lambda sums: sums[..., 1] / sums[..., 0]


def rouge_shares(answers: Sequence[str], targets: Sequence[str], names: Sequence[str]) -> dict[str, FloatArray]:
    """The ROUGE scores of each row, name → (rows,)."""
    if not names:
        return {}
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([ROUGE[name] for name in names], use_stemmer=True)
    found = [scorer.score(target, answer) for answer, target in zip(answers, targets, strict=True)]
    return {name: np.array([each[ROUGE[name]].fmeasure for each in found], dtype=np.float64) for name in names}


def unread(targets: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """What to know of ROUGE where targets are in a script that it does not read: name → words."""
    count = sum(bool(target.strip()) and not ROUGE_READS.search(target.lower()) for target in targets) if names else 0
    if not count:
        return {}
    words = f"ROUGE reads a to z and 0 to 9 only: {count:,} of {len(targets):,} targets hold nothing of that and count 0"
    return dict.fromkeys(names, words)


def corpus_part(name: str, answers: Sequence[str], targets: Sequence[str], tokenizer: str) -> Part:
    """What each row adds to sacrebleu's BLEU or chrF, (rows, 10 or 18), and that score of sums.

    sacrebleu has both, but not in public: the statistics of a segment, and the score of statistics that were added up.
    """
    metric = metric_of(name, tokenizer)
    found = metric._extract_corpus_statistics(list(answers), [list(targets)])
    added = np.array(found, dtype=np.float64) if found else np.zeros((0, 1))

    def combine(sums: FloatArray) -> FloatArray:
        flat = sums.reshape(-1, sums.shape[-1]).tolist()
        return np.array([metric._compute_score_from_stats(each).score for each in flat]).reshape(sums.shape[:-1])

    return added, combine


def metric_of(name: str, tokenizer: str) -> Any:
    """sacrebleu's BLEU with one of its tokenizers, or its chrF (runs of up to six characters). Raises SettingError for another one."""
    if tokenizer not in TOKENIZERS:
        raise SettingError(f"BLEU has no tokenizer {tokenizer!r} here", place="tokenizer", cure=f"Use one of: {', '.join(TOKENIZERS)}.")
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(tokenize=tokenizer, force=True) if name == "BLEU" else CHRF()  # `force` only keeps it from warning of tokenized texts


def sentence_bleu(counts: FloatArray) -> FloatArray:
    """The BLEU of each row by itself, (rows,), from its statistics: of runs of as many words as it has, or every short one would be 0."""
    from sacrebleu.metrics import BLEU

    lines = counts.tolist()
    scores = [BLEU.compute_bleu(each[2:6], each[6:], int(each[0]), int(each[1]), "exp", effective_order=True).score for each in lines]
    return np.array(scores)
