"""Everything on the prediction side that needs no model works where torch cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pellucid
from conftest import SENTENCES

BLOCK_TORCH = """
import sys
from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        blocked = name.partition(".")[0] in ("torch", "torchvision", "accelerate", "fastai")
        return None if blocked else super().find_spec(name, path, target)

sys.meta_path = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
"""

PREDICT = """
from importlib import import_module
for name in ("data", "tokens", "batch", "labels", "metrics", "view", "render", "evaluation", "inspection", "checks", "task", "pipelines"):
    import_module(f"pellucid.{name}")

import numpy as np
import pellucid as pl
from pellucid.batch import TokenBudget, plan_sorted
from pellucid.data import ReadOptions
from pellucid.labels import LabelSet
from pellucid.metrics import classification_scores
from pellucid.tasks.sequence_classification import SequenceClassification
from pellucid.tokens import load_tokenizer, pad_spec, tokens_of
from pellucid.types import Output

folder, file = sys.argv[1:]
rows = pl.read(file)
pl.show(rows)
pl.check_rows(rows)
labels = LabelSet.from_targets(rows.train.targets(0, len(rows.train)))
assert labels.names == ("bad", "good")
tokenizer, _ = load_tokenizer(folder)
options = pl.TokenOptions(max_length=24)
task = SequenceClassification(labels.names, "single_label")

class Answers:
    "A pipeline whose model is a sum: it answers `good` where the text begins with it."
    def __init__(self):
        self.task, self.checkpoint = task, "a sum"
    def encode(self, split):
        return task.encode(tokenizer, split.columns(0, len(split)), None, options)
    def predict(self, split):
        table, found = self.encode(split), {}
        good = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("good"))[0]
        for windows in plan_sorted(table.lengths, TokenBudget(max_tokens=256, max_rows=8)):
            batch = task.collate(table, windows, pad_spec(tokenizer, options))
            hit = (batch.inputs["input_ids"][:, 1] == good).astype(np.float32)
            for prediction in task.decode(Output(np.stack([-hit, hit], axis=1) * 4), batch):
                found[prediction.row] = prediction
        return [found[row] for row in range(len(split))]

pipe = Answers()
report = pl.evaluate(pipe, rows.valid, train=rows.train)
pl.show(report)
assert "accuracy" in str(report) and report.to_json() and pl.to_html(report.view())
said = pipe.predict(rows.valid)
assert classification_scores([one.answer for one in said], rows.valid.targets(0, len(rows.valid)), labels.names)[0].name == "accuracy"
pl.show(said)
pl.show(tokens_of(tokenizer, rows.valid[0], task.reads, options))
assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "fastai")]
print("done without torch")
"""


def run(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(pellucid.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", BLOCK_TORCH + code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_prediction_side_works_with_torch_blocked(tmp_path, tiny_checkpoints):
    file = tmp_path / "rows.csv"
    lines = [f'"{"good" if place % 2 else "bad"} {text}",{"good" if place % 2 else "bad"}' for place, text in enumerate(SENTENCES * 3)]
    file.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    done = run(PREDICT, tiny_checkpoints["bert"], file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done without torch\n")


def test_a_model_without_torch_says_what_is_missing(tiny_checkpoints):
    done = run("import pellucid as pl; pl.Pipeline.new('text-classification', sys.argv[1])", tiny_checkpoints["bert"])
    assert done.returncode == 1 and "torch" in done.stderr.splitlines()[-1], done.stderr
