"""A trained checkpoint of corrections, distilbert-gec, answers through `pl.pipeline`, beside transformers' own pipeline.

    python benchmarks/corrections.py

The checkpoint is taken from the folder CHECKPOINTS (~/.cache/checkpoints). Prints what is said of each word, and 1 where both say the same
of every word, with scores within 1e-5.
"""

import os
from pathlib import Path

import contest
import pellucid as pl
from pellucid.process import hide_broken_torchvision

FOLDER = Path(os.environ.get("CHECKPOINTS", Path.home() / ".cache" / "checkpoints")) / "distilbert-gec"
SENTENCE = "I has two cat."


def main() -> None:
    """One sentence, two libraries."""
    if not FOLDER.is_dir():
        raise SystemExit(f"{FOLDER} is not there; set CHECKPOINTS to the folder of checkpoints")
    hide_broken_torchvision()  # a torchvision that does not fit torch would keep transformers from loading
    from transformers import pipeline

    ours = pl.pipeline("ner", str(FOLDER))(SENTENCE)
    theirs = pipeline("ner", str(FOLDER))(SENTENCE)
    for word in ours:
        print(f"{word['word']:<8}{word['entity']:<28}{word['score']:.4f}", flush=True)
    names = ("entity", "index", "word", "start", "end")
    same = [[word[name] for name in names] for word in ours] == [[word[name] for name in names] for word in theirs]
    near = all(abs(one["score"] - other["score"]) < 1e-5 for one, other in zip(ours, theirs, strict=True))
    contest.say("corrections_words", len(ours))
    contest.say("corrections_same_as_transformers", int(same and near))


if __name__ == "__main__":
    main()
