"""The command line answers the same with torchvision absent, broken, or as it is here: pellucid needs none of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pellucid as pl

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')"
HIDE_THE_INSTALLED_ONE = """
import sys
from importlib.machinery import PathFinder

class WithoutTheInstalledOne(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = super().find_spec(name, path, target)
        installed = name == "torchvision" and found is not None and "site-packages" in (found.origin or "")
        return None if installed else found

sys.meta_path = [WithoutTheInstalledOne if finder is PathFinder else finder for finder in sys.meta_path]
"""
PREDICT = """
import sys
sys.argv = ["pellucid", *sys.argv[1:]]
from pellucid.apps.cli import main
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_checkpoints):
    rows = pl.read([{"text": "good film", "label": "good"}, {"text": "bad film", "label": "bad"}] * 4)
    return pl.save(pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], rows), tmp_path_factory.mktemp("models") / "model")


@pytest.mark.parametrize("state", ["absent", "broken", "as it is"])
def test_predict_with_torchvision_absent_broken_or_as_it_is(state, tmp_path, model):
    if state == "broken":
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    source = Path(pl.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{source}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    code = PREDICT if state == "as it is" else HIDE_THE_INSTALLED_ONE + PREDICT
    command = [sys.executable, "-c", code, "predict", str(model), "a good film"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[1] == pl.load(model)("a good film").answer
