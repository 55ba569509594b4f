"""The evidence runner holds numbers against bounds, keeps what it has, and says what is not met."""

import json
from pathlib import Path

import pytest

import evidence
from evidence import Check

ROOT = Path(__file__).resolve().parents[1]

TOPIC = """
title = "A small topic"

[[line]]
id = "good"
shows = "a ratio and a count"
command = "echo 'ratio_a_over_b = 1.72  # median of 5'; echo '12 passed in 3 s'"
check = [{ key = "ratio_a_over_b", min = 1.6 }, { find = '(\\d+) passed', min = 1 }, { find = '(\\d+) skipped', max = 0, absent = 0 }]

[[line]]
id = "bad"
shows = "a number below its bound"
command = "echo 'accuracy = 0.5'"
check = [{ key = "accuracy", min = 0.8 }]

[[line]]
id = "elsewhere"
shows = "something that is not here"
command = "false"
needs = ["no/such/folder"]
"""


@pytest.fixture
def topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evidence, "OUT", tmp_path / "out")
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(TOPIC)
    return path


@pytest.mark.parametrize(
    ("check", "output", "value", "met"),
    [
        (Check(key="a", min=1), "a = 1.5", 1.5, True),
        (Check(key="a", min=1), "aa = 1.5\nb a = 3", None, False),
        (Check(key="a", max=2), "a = 1\na = -3e-5 # the last counts", -3e-5, True),
        (Check(key="a", min=1), "a = nan", None, False),
        (Check(key="a", equal=12), "a = 12.0", 12, True),
        (Check(key="a", equal=0.8, within=0.01), "a = 0.795", 0.795, True),
        (Check(find=r"(\d+) failed", max=0, absent=0), "3 passed", 0, True),
        (Check(find=r"^1 .* (\d+:\d\d)$", max=90), "0 0.5 01:40\n1 0.4 01:23\n", 83, True),
        (Check(find=r"total (\w+)", min=0), "total many", None, False),
        (Check(find=r"total ([\d,]+)", min=1000), "total 1,234", 1234, True),
    ],
)
def test_check_reads_and_bounds(check: Check, output: str, value: float | None, met: bool) -> None:
    assert check.read(output) == value
    assert check.met(check.read(output)) is met


def test_run_exits_one_for_an_unmet_number_and_keeps_all(topic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evidence.main([str(topic)]) == 1
    assert "not met: bad, elsewhere" in capsys.readouterr().out
    report = (topic.parent / "out" / "small.md").read_text()
    for part in (
        "| good | ratio_a_over_b | 1.72 | ≥ 1.6 | yes |",
        "| bad | accuracy | 0.5 | ≥ 0.8 | NO |",
        "not on this machine: no/such/folder",
        "cores",
    ):
        assert part in report


def test_only_keeps_the_other_lines(topic: Path) -> None:
    assert evidence.main([str(topic)]) == 1
    assert evidence.main([str(topic), "--only", "good"]) == 0
    stored = json.loads((topic.parent / "out" / "small.json").read_text())
    assert {name: entry["status"] for name, entry in stored.items()} == {"good": "met", "bad": "unmet", "elsewhere": "missing"}


def test_unknown_line_is_named(topic: Path) -> None:
    with pytest.raises(SystemExit, match=r"no line god in .*; there are good, bad, elsewhere"):
        evidence.main([str(topic), "--only", "god"])


def test_command_is_stopped_at_its_limit() -> None:
    code, output = evidence.execute("echo started; sleep 30", timeout=1)
    assert code is None
    assert "started" in output


def test_progress_bars_leave_their_last_state() -> None:
    assert evidence.clean("10%\r50%\r100%\n\x1b[31mred\x1b[0m\r\nend") == "100%\nred\nend"


@pytest.mark.parametrize("path", sorted((ROOT / "evidence").glob("*.toml")), ids=lambda path: path.stem)
def test_topic_is_well_formed_and_its_files_exist(path: Path) -> None:
    _, lines = evidence.read_lines(path)
    assert lines
    for line in lines:
        for word in line.command.replace("::", " ").split():
            if word.startswith(("benchmarks/", "tests/", "tools/")):
                assert (ROOT / word).exists(), f"{line.id}: {word} is not there"
