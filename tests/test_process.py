"""What is changed for the whole process can be taken back; a broken torchvision does not break text models."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid.errors import SettingError
from pellucid.process import csv_field_limit, keep_freed_memory, quiet_transformers, release_freed_memory

SOURCE = Path(__file__).resolve().parents[1] / "src"
STATES = {"absent": None, "broken": "raise RuntimeError('operator torchvision::nms does not exist')", "good": "__version__ = '0.1'"}
HIDE_THE_REAL_ONE = """
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


def run(code: str, folder: Path) -> str:
    """Run code in a fresh Python that finds `folder` before site-packages, and no other torchvision."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SOURCE}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", HIDE_THE_REAL_ONE + code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=STATES)
def torchvision(request, tmp_path):
    """A folder with a torchvision in one of the three states."""
    body = STATES[request.param]
    if body is not None:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text(body)
    return request.param, tmp_path


def test_torchvision_absent_broken_or_good(torchvision):
    state, folder = torchvision
    out = run(
        """
from importlib.util import find_spec
from pellucid.process import hide_broken_torchvision, show_torchvision
there = find_spec("torchvision") is not None
said = hide_broken_torchvision()
print(there, said, find_spec("torchvision") is not None, hide_broken_torchvision(), sep="|")
show_torchvision(); show_torchvision()
print(find_spec("torchvision") is not None)
print("torch" in sys.modules, "transformers" in sys.modules)
""",
        folder,
    ).split("\n")
    reason = "torchvision is installed, but importing it fails (RuntimeError: operator torchvision::nms does not exist)"
    expected = {"absent": "False|None|False|None", "broken": f"True|{reason}|False|None", "good": "True|None|True|None"}
    assert out[0] == expected[state]
    assert out[1] == str(state != "absent")
    assert out[2] == "False False"  # the probe itself loads neither


@pytest.mark.parametrize("looked_first", [False, True])
def test_a_broken_torchvision_does_not_break_text_models(tmp_path, looked_first):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(STATES["broken"])
    look = "from transformers.utils import is_torchvision_available; print(is_torchvision_available())" if looked_first else "print(True)"
    out = run(
        f"""
{look}
from pellucid.process import hide_broken_torchvision
print(hide_broken_torchvision() is not None)
from transformers import BertConfig, AutoModelForSequenceClassification
config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
print(type(AutoModelForSequenceClassification.from_config(config)).__name__)
""",
        tmp_path,
    )
    assert out.split() == ["True", "True", "BertForSequenceClassification"]


def test_a_stubborn_transformers_is_told_in_plain_words(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(STATES["broken"])
    out = run(
        """
import types
utils = types.ModuleType("transformers.utils.import_utils")
utils.is_torchvision_available = lambda: True
sys.modules["transformers.utils.import_utils"] = utils
from pellucid.process import hide_broken_torchvision
try: hide_broken_torchvision()
except ImportError as error: print(type(error).__name__, error)
""",
        tmp_path,
    )
    assert "MissingPackageError" in out and "pip uninstall torchvision" in out


def test_the_csv_limit_comes_back():
    before = csv.field_size_limit()
    with csv_field_limit(1_000_000):
        assert csv.field_size_limit() == 1_000_000
    assert csv.field_size_limit() == before
    with pytest.raises(RuntimeError), csv_field_limit(77):
        raise RuntimeError
    assert csv.field_size_limit() == before
    for wrong in (0, -1, 2**31):
        with pytest.raises(SettingError, match="expected 1 to"), csv_field_limit(wrong):
            pass


def test_transformers_is_quiet_only_meanwhile(capfd):
    from transformers.utils import logging

    logger = logging.get_logger("transformers.modeling_utils")
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet_transformers():
        logger.warning("not to be seen")
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert "not to be seen" not in "".join(capfd.readouterr())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt belongs to glibc")
def test_freed_memory_is_kept_and_given_back():
    code = """
import numpy as np, resource, sys
from pellucid.process import keep_freed_memory, release_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20): np.ones(4_000_000, dtype=np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults(); said = keep_freed_memory(); faults(); second = faults(); release_freed_memory(); third = faults()
print(first, second, third, said is not None)
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    if out[3] == "False":
        assert keep_freed_memory() is None and release_freed_memory() is False
        pytest.skip("this C library is not glibc")
    first, second, third = map(int, out[:3])
    assert second * 10 < first or first < 100, out  # huge pages leave nothing to save
    assert third * 2 > first, out
