"""Classify texts: read, train, score, save, load, predict.

python examples/text_classification.py reviews.csv my_model
"""

import sys

import pellucid as pl


def main(file: str, folder: str) -> None:
    """Every step on its own line."""
    rows = pl.read(file, text="text", label="label")
    pl.show(rows)

    pipe = pl.Pipeline.new("text-classification", "minilm", rows)
    pl.show(pipe.provenance)  # the head is new, the body is pretrained
    pl.show(pipe.trace(rows.train[0]))  # text, tokens, batch, logits, scores, answer

    learn = pl.learner(pipe, rows)
    learn.fine_tune(1, 5e-5)
    learn.show_results(max_n=4)

    pl.show(pl.evaluate(pipe, rows.valid, train=rows.train))
    pl.save(pipe, folder)
    for prediction in pl.load(folder)(["I would watch it again tomorrow.", "Two hours that I will never get back."]):
        pl.show(prediction)


if __name__ == "__main__":
    main(*sys.argv[1:3])
