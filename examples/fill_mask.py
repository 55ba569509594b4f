"""Fill the masks of texts, after training a new head on the texts of a file.

python examples/fill_mask.py reviews.csv filler
"""

import sys

import pellucid as pl
from pellucid.tasks.masked_lm import FillMask


def main(file: str, folder: str) -> None:
    """Every step on its own line."""
    rows = pl.read(file, text="text", label=False)  # the texts themselves are learned

    task = FillMask(masking="whole-words", top_k=5)
    pipe = pl.Pipeline.new(task, "minilm", rows)  # minilm's body with a new head, and that is said
    pl.show(pipe.provenance)
    pl.show(pipe.trace("This film is [MASK]."))

    learn = pl.learner(pipe, rows, options=pl.LearnerOptions(lr=5e-4))
    learn.dls.show_batch(max_n=3)  # what the model sees, and what was hidden
    learn.fit_one_cycle(1)

    pl.save(pipe, folder)
    for prediction in pl.load(folder)(["This film is [MASK].", "A [MASK] plot and a [MASK] ending."]):
        pl.show(prediction)
        print([(span.label, round(span.score, 3)) for span in prediction.spans])


if __name__ == "__main__":
    main(*sys.argv[1:3])
