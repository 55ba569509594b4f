"""One list of batches, three trainers: the Learner, transformers' Trainer and a plain loop, with their losses side by side.

python examples/three_trainers.py reviews.csv
"""

import sys

import torch
from fastai.callback.core import Callback

import pellucid as pl
from pellucid.groups import no_decay

RATE, DECAY, BATCHES = 5e-5, 0.01, pl.LoaderOptions(bs=16)
SAME = {"per_device_train_batch_size": 16, "num_train_epochs": 1, "learning_rate": RATE, "weight_decay": DECAY, "max_grad_norm": 0}
SAME |= {"lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}
losses = {"Learner": [], "Trainer": [], "loop": []}


def new(rows):
    torch.manual_seed(0)  # the same new head each time
    pipe = pl.Pipeline.new("text-classification", "minilm", rows)
    for module in pipe.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # chance would part the curves
    return pipe


class Losses(Callback):  # noqa: D101
    def after_backward(self):  # noqa: D102
        losses["Learner"].append(self.loss.item())


rows = pl.read(sys.argv[1], text="text", label="label")
pl.learner(new(rows), rows, options=pl.LearnerOptions(wd=DECAY, loaders=BATCHES)).fit(1, RATE, cbs=Losses())

from transformers import TrainingArguments  # noqa: E402  # after a pipeline, which hides a torchvision that does not fit torch

trainer = pl.hf_trainer(new(rows), rows, TrainingArguments("three_trainers", **SAME), loaders=BATCHES)
trainer.train()
losses["Trainer"] = [line["loss"] for line in trainer.state.log_history if "loss" in line]

pipe = new(rows)
spared, named = no_decay(pipe.model), dict(pipe.model.named_parameters())
parts = [(named.keys() - spared, DECAY), (spared, 0.0)]
optimizer = torch.optim.AdamW([{"params": [named[name] for name in names], "weight_decay": wd} for names, wd in parts], lr=RATE)
pipe.model.train()
for inputs, labels in pl.dataloaders(pipe, rows, options=BATCHES).train:
    loss = torch.nn.functional.cross_entropy(pipe.model(**inputs).logits, labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses["loop"].append(loss.item())

print("step", *losses)
for step, found in enumerate(zip(*losses.values(), strict=True)):
    print(f"{step:4}", *(f"{one:.6f}" for one in found), f"{max(found) - min(found):.0e} apart")
