"""Translate: a prefix, beams, several texts for a row, a few steps of training, scores, save, load.

python examples/translation.py my_model

The checkpoint is a folder (or a name on the Hub) with an encoder-decoder: CHECKPOINT=flan-t5-small.
"""

import os
import sys
from pathlib import Path

import pellucid as pl
from pellucid.tasks.seq2seq import Translation

CHECKPOINT = Path(os.environ.get("CHECKPOINT", Path.home() / ".cache" / "checkpoints" / "flan-t5-small"))
PAIRS = [
    ("Where is the station?", "¿Dónde está la estación?"),
    ("I don't know.", "No lo sé."),
    ("The house is very large.", "La casa es muy grande."),
    ("She has two cats.", "Ella tiene dos gatos."),
    ("It is cold today.", "Hoy hace frío."),
    ("We are going to the beach.", "Vamos a la playa."),
    ("What time is it?", "¿Qué hora es?"),
    ("He reads a book every week.", "Él lee un libro cada semana."),
]


def main(folder: str) -> None:
    """Every step on its own line."""
    if not CHECKPOINT.is_dir():
        print(f"no checkpoint in {CHECKPOINT}: set CHECKPOINT to a folder with an encoder-decoder")
        return
    options = pl.ReadOptions(label_kind="text", valid_fraction=0.25)  # the targets are texts, not names of classes
    rows = pl.read([{"text": english, "target": spanish} for english, spanish in PAIRS], text="text", label="target", options=options)

    task = Translation(prefix="translate English to Spanish: ", max_new_tokens=24, num_beams=3, num_return_sequences=2)
    pipe = pl.Pipeline.new(task, CHECKPOINT, rows)
    pl.show(pipe)  # what stands before the texts, how texts are made, what was chosen
    pl.show(pipe.trace(rows.train[0]))

    learn = pl.learner(pipe, rows, metrics=["chrf"])
    learn.fit_one_cycle(1, 1e-3)
    pl.show(pl.evaluate(pipe, rows.valid))

    pl.save(pipe, folder)
    for prediction in pl.load(folder)(["Where is the beach?", "My house is cold."]):
        print(prediction.answer, prediction.alternatives)


if __name__ == "__main__":
    main(*sys.argv[1:2])
