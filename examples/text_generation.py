"""Let a text go on: a prompt, a stream, a conversation, perplexity by token, and a few steps on texts of your own.

python examples/text_generation.py reviews.csv my_model

The checkpoint is a folder (or a name on the Hub) with a language model: CHECKPOINT=smollm2-135m-instruct.
"""

import json
import os
import sys
from pathlib import Path

import pellucid as pl
from pellucid.tasks.causal_lm import TextGeneration, stream, token_losses

CHECKPOINT = Path(os.environ.get("CHECKPOINT", Path.home() / ".cache" / "checkpoints" / "smollm2-135m-instruct"))


def main(file: str, folder: str) -> None:
    """Every step on its own line."""
    if not CHECKPOINT.is_dir():
        print(f"no checkpoint in {CHECKPOINT}: set CHECKPOINT to a folder with a language model")
        return
    pipe = pl.Pipeline.new(TextGeneration(max_new_tokens=20), CHECKPOINT)
    print(pipe("The film was").answer)
    for piece in stream(pipe, "The film was"):
        print(piece, end="", flush=True)
    print()
    if pipe.tokenizer.chat_template:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        print(pipe(json.dumps(question)).answer)
    pl.show(token_losses(pipe, "The film was a warm and funny mess.").view())

    rows = pl.read(file, text="text", label=False, options=pl.ReadOptions(valid_fraction=0.2, max_rows=12))
    pipe = pl.Pipeline.new(TextGeneration(block_tokens=64, max_new_tokens=20), CHECKPOINT, rows)
    learn = pl.learner(pipe, rows)
    learn.fit_one_cycle(1, 1e-4)
    pl.save(pipe, folder)
    print(pl.load(folder)("The film was").answer)


if __name__ == "__main__":
    main(*sys.argv[1:3])
