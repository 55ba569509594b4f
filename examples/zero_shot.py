"""Sort texts under labels that no model was trained on.

python examples/zero_shot.py reviews.csv
"""

import sys
from dataclasses import replace

import pellucid as pl
from pellucid.tasks.zero_shot import ZeroShotClassification


def main(file: str, nli: str | None = None) -> None:
    """`nli` is a checkpoint that was trained on pairs with entailment; without one, embeddings are compared."""
    method = "nli" if nli else "embeddings"
    task = ZeroShotClassification(("film", "sport", "cooking"), template="This text is about {}.", method=method)
    pipe = pl.Pipeline.new(task, nli or "minilm")
    for prediction in pipe(["The actress won an Oscar.", "Simmer the onions slowly."]):
        pl.show(prediction)
    pl.show(pipe.trace("The striker scored a late goal."))  # one window for each label

    other = replace(pipe, task=replace(pipe.task, candidate_labels=("positive", "negative"), template="This review is {}."))
    rows = pl.read(file, text="text", label="label")
    pl.show(pl.evaluate(other, rows.valid, train=rows.train))


if __name__ == "__main__":
    main(*sys.argv[1:3])
