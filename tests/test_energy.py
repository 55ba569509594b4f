"""What a training took: counters that overflow, GPUs that count, CPU seconds that are counted once, and no number without its method."""

import importlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pellucid as pl
from conftest import SENTENCES
from pellucid import energy as module
from pellucid.energy import (
    CORE_LEAST,
    CORE_MOST,
    CORE_WATTS,
    EnergyMeter,
    Rapl,
    Reading,
    check_intensity,
    cpu_seconds,
    nvidia,
    total,
    zones_of,
)
from pellucid.energy_report import EnergyPart
from pellucid.errors import CheckpointError, MissingPackageError, SettingError

FULL = 262_143_328_850  # microjoules, as the kernel says it of many servers


def zone(root: Path, name: str, kind: str, count: int, watts: int = 200) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{count}\n")
    (folder / "max_energy_range_uj").write_text(f"{FULL}\n")
    (folder / "constraint_0_max_power_uw").write_text(f"{watts * 1_000_000}\n")
    return folder


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages with memory, with the zones beside them that would count twice."""
    root = tmp_path / "powercap"
    for number in range(2):
        zone(root, f"intel-rapl:{number}", f"package-{number}", 1_000_000)
        zone(root, f"intel-rapl:{number}:0", "core", 500_000)
        zone(root, f"intel-rapl:{number}:1", "dram", 2_000_000)
    zone(root, "intel-rapl:2", "psys", 9_000_000)
    zone(root, "intel-rapl-mmio:0", "package-0", 1_000_000)
    (root / "intel-rapl").mkdir()
    return root


@pytest.fixture
def trained_rows() -> pl.Rows:
    found = [{"text": f"{SENTENCES[p % 12]} {p}", "label": "ab"[p % 2]} for p in range(24)]
    return pl.read(found, text="text", label="label")


def test_packages_and_memory_are_counted_once(powercap):
    zones, reason = zones_of(powercap)
    assert [path.name for path in zones] == ["intel-rapl:0", "intel-rapl:1", "intel-rapl:0:1", "intel-rapl:1:1"] and not reason
    meter = EnergyMeter(powercap=powercap, gpus=dict)
    for name, joules in {
        "intel-rapl:0": 3600,
        "intel-rapl:1": 7200,
        "intel-rapl:0:1": 360,
        "intel-rapl:0:0": 3000,
        "intel-rapl:2": 9,
    }.items():
        path = powercap / name / "energy_uj"
        path.write_text(str(int(path.read_text()) + joules * 1_000_000))
    found = meter.energy()
    assert found.watt_hours == pytest.approx(3.1) and found.low == found.high == pytest.approx(3.1)
    assert found.parts[0].name == "CPU and memory" and "RAPL" in found.parts[0].method and "memory is in it" in found.parts[0].method
    assert found.grams is None and "carbon is not said" in found.view().note


def test_a_counter_that_begins_again_loses_nothing(powercap):
    path = powercap / "intel-rapl:0" / "energy_uj"
    path.write_text(str(FULL - 3_600_000_000))
    rapl = Rapl(powercap)
    path.write_text(str(3_600_000_000))
    rapl.look()
    path.write_text(str(7_200_000_000))
    part = rapl.part()
    assert part is not None and part.watt_hours == pytest.approx(2.0), "not looked at again yet"
    rapl.look()
    part = rapl.part()
    assert part is not None and part.watt_hours == pytest.approx(3.0) and part.high == part.low


def test_what_a_counter_may_have_lost_unseen_widens_the_range(powercap, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    rapl = Rapl(powercap)
    now[0] = 3000.0  # at 200 W a package may have gone round twice
    rapl.look()
    part = rapl.part()
    assert part is not None and part.watt_hours == 0 and part.high == pytest.approx(4 * 2 * FULL / 1e6 / 3600)
    assert "gone round unseen" in part.method


def test_counters_for_root_alone_are_not_guessed(powercap):
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    assert zones_of(powercap) == ((), "the RAPL counters are for root alone")
    found = EnergyMeter(powercap=powercap, gpus=dict, busy=iter((10.0, 370.0)).__next__).energy()
    part = found.parts[0]
    assert part.method.startswith("an estimate, the RAPL counters are for root alone: 360.0 CPU seconds")
    assert (part.watt_hours, part.low, part.high) == pytest.approx((CORE_WATTS / 10, CORE_LEAST / 10, CORE_MOST / 10))


def test_no_counters_give_an_estimate_with_source_and_range(tmp_path):
    found = EnergyMeter(powercap=tmp_path / "nothing", gpus=dict, busy=iter((0.0, 3600.0)).__next__).energy(56)
    assert found.watt_hours == pytest.approx(12.0) and found.grams == pytest.approx(12 / 1000 * 56)
    method = found.parts[0].method
    assert "no RAPL counters" in method and "doi:10.1002/advs.202100707" in method and "memory is not in it" in method
    assert "g CO2e (0.106 to 1.33) at 56 g/kWh" in found.view().note
    assert "cooling are not in it" in found.view().note


def test_a_gpu_that_counts_is_read_and_one_that_does_not_is_said(tmp_path):
    counts = iter(({"aa": 100.0, "bb": 5.0}, {"aa": 7300.0, "bb": 9e9}))
    meter = EnergyMeter(powercap=tmp_path, gpus=lambda: next(counts), busy=lambda: 0.0)
    found = meter.energy(gpus=("GPU-aa", "cc"))
    assert [(part.name, part.watt_hours) for part in found.parts] == [("CPU", 0.0), ("GPU", pytest.approx(2.0))]
    assert found.unknown == ("GPU: it has no counter, or nvidia-ml-py is not installed",)
    rows = found.view().rows
    assert rows[-1][1:] == (None, None, None, "not known") and "NVML" in str(rows[1][-1])


def test_a_gpu_that_did_not_work_is_not_counted(tmp_path):
    meter = EnergyMeter(powercap=tmp_path, gpus=lambda: {"aa": time.monotonic()}, busy=lambda: 0.0)
    assert [part.name for part in meter.energy().parts] == ["CPU"]


def test_nvidias_library_without_a_driver_is_no_reader(monkeypatch, tmp_path):
    (tmp_path / "pynvml.py").write_text("def nvmlInit():\n    raise RuntimeError('no driver')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert nvidia() is None
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)


def test_nvidias_library_is_read_by_uuid(monkeypatch, tmp_path):
    lines = [
        "def nvmlInit(): pass",
        "def nvmlDeviceGetCount(): return 2",
        "def nvmlDeviceGetHandleByIndex(number): return number",
        "def nvmlDeviceGetUUID(number): return (b'GPU-aa', 'GPU-bb')[number]",
        "def nvmlDeviceGetTotalEnergyConsumption(number):",
        "    if number: raise RuntimeError('not supported')",
        "    return 7_200_000",
    ]
    (tmp_path / "pynvml.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    read = nvidia()
    assert read is not None and read() == {"aa": 7200.0}
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)


def stat(root: Path, number: int, parent: int, seconds: float) -> None:
    ticks = int(seconds * os.sysconf("SC_CLK_TCK"))
    (root / str(number)).mkdir(exist_ok=True)
    fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", "0", "0"]
    (root / str(number) / "stat").write_text(f"{number} (a name) with) {' '.join(fields)} 0 0")


def test_children_are_counted_once_and_those_of_others_not(tmp_path):
    me = os.getpid()
    for number, parent, seconds in ((me, 1, 99), (50, me, 2), (51, 50, 3), (52, 1, 50), (53, 52, 7)):
        stat(tmp_path, number, parent, seconds)
    (tmp_path / "self").mkdir()
    assert module.running_below(me, tmp_path) == pytest.approx(5.0)
    assert module.running_below(me, tmp_path / "nothing") == 0.0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system shows no processes under /proc")
def test_a_real_child_is_counted_while_it_runs_and_once_it_has_ended():
    work = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\nprint(1, flush=True)\ninput()"
    before = cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "1\n"
        running = cpu_seconds() - before
        child.communicate("\n")
    ended = cpu_seconds() - before
    assert running >= 0.35 and running <= ended + 0.05 and ended < running + 0.3, "counted before it ended, and not again afterwards"


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e9])
def test_an_intensity_that_cannot_be_is_refused(value):
    with pytest.raises(SettingError, match="carbon_intensity"):
        check_intensity(value)
    with pytest.raises(SettingError, match="carbon_intensity"):
        pl.TrainOptions(carbon_intensity=value)


def test_a_reading_costs_nothing(powercap):
    meter = EnergyMeter(powercap=powercap, gpus=dict)
    start = time.perf_counter()
    for _ in range(20):
        meter.look()
    assert (time.perf_counter() - start) / 20 < 0.02, "once a minute"


def test_processes_beside_this_one_are_said_and_no_total_is_claimed(tmp_path):
    meter = EnergyMeter(powercap=tmp_path, gpus=dict)
    assert meter.energy(processes=2).unknown == ("the other process",) and meter.energy(processes=4).unknown == ("the other 3 processes",)
    view = meter.energy(56, processes=2).view()
    assert "all numbers are of 1 of 2 processes only" in view.note and "g CO2e of 1 of 2 processes only at 56 g/kWh" in view.note
    assert view.rows[0][1] is not None and view.rows[0][3] is None, "nobody knows the most that both took"


def test_rapl_counts_the_other_processes_of_its_machine_too(powercap):
    found = EnergyMeter(powercap=powercap, gpus=dict).energy(processes=2)
    assert found.unknown == () and found.of == "one machine only"


def read(machine: str, busy: float, counted: float | None = None, **gpus: float | None) -> Reading:
    part = None if counted is None else EnergyPart("CPU", counted, counted, counted, "RAPL")
    return Reading(machine, 60.0, busy, part, "no counters", gpus)


def test_processes_of_one_machine_add_up_their_cpu_seconds():
    found = total([read("a", 3600), read("a", 1800)], 100, 2)
    assert [part.watt_hours for part in found.parts] == [pytest.approx(18.0)] and found.high == pytest.approx(1.5 * CORE_MOST)
    assert "5,400.0 CPU seconds of 2 processes and their children" in found.parts[0].method
    assert not found.unknown and not found.of and "only" not in found.view().note


def test_what_several_processes_read_of_one_counter_is_in_it_once():
    found = total([read("a", 1, 2.0, one=4.0), read("a", 1, 1.9, two=5.0), read("a", 1, 1.9, one=3.9)], None, 3)
    assert [(part.name, part.watt_hours) for part in found.parts] == [("CPU", 2.0), ("GPU", 4.0), ("GPU", 5.0)] and not found.of


def test_machines_are_counted_each_in_its_own_way():
    found = total([read("a", 1, 2.0), read("b", 3600, one=None), read("a", 1, 2.0)], 100, 3)
    assert [(part.name, part.watt_hours) for part in found.parts] == [("CPU, machine 1", 2.0), ("CPU, machine 2", pytest.approx(12.0))]
    assert [name[:4] for name in found.unknown] == ["GPU:"] and "1.4 g CO2e of what is known at" in found.view().note


def test_codecarbon_of_several_processes_is_that_of_the_first():
    own = replace(read("a", 1), modelled=(EnergyPart("CPU", 1.0, 1.0, 1.0, "codecarbon"),))
    found = total([own, own], 100, 2)
    assert found.watt_hours == 1.0 and found.of == "1 of 2 processes only" and found.unknown == ("the other process",)


FAKE = """
alive = []

class Found:
    codecarbon_version, cpu_model = "9.9", "a processor"
    cpu_energy, gpu_energy, ram_energy = 0.002, 0, 0.0005

class OfflineEmissionsTracker:  # as the real one: no final_emissions_data before a stop in which nothing failed
    def __init__(self, **settings):
        assert settings["save_to_file"] is False
        {making}
    def start(self):
        alive.append(self)
    def stop(self):
        alive.remove(self)
        {ending}
        self.final_emissions_data = Found
"""


@pytest.fixture
def codecarbon(monkeypatch, tmp_path):
    """Puts a package with that name there, which fails where it is told to."""

    def put(ending: str = "", making: str = "") -> Any:
        text = FAKE.replace("{ending}", ending or "pass").replace("{making}", making or "pass")
        (tmp_path / "codecarbon.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module("codecarbon")

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "codecarbon", raising=False)
    yield put
    sys.modules.pop("codecarbon", None)


def test_codecarbon_where_it_is_asked_for(codecarbon, tmp_path):
    package = codecarbon()
    energy = EnergyMeter(powercap=tmp_path, gpus=dict, codecarbon=True).energy(100)
    assert [(part.name, part.watt_hours) for part in energy.parts] == [("CPU", 2.0), ("memory", 0.5)]
    assert "codecarbon 9.9" in energy.parts[0].method and "no range" in energy.parts[0].method and energy.grams == pytest.approx(0.25)
    assert not package.alive and not energy.notes


FAILS = {
    "it raises": ({"ending": "raise OSError('no sensor')"}, "codecarbon gave nothing: OSError: no sensor"),
    "it keeps what it raised to itself": ({"ending": "return"}, "codecarbon gave nothing"),
    "it says what is no number": ({"ending": "self.final_emissions_data = 3; return"}, "codecarbon gave nothing: AttributeError"),
    "it does not begin": ({"making": "raise OSError('no power')"}, "codecarbon gave nothing: OSError: no power"),
}


@pytest.mark.parametrize("case", FAILS)
def test_codecarbon_that_gives_nothing_costs_a_note_and_not_the_training(codecarbon, case, tiny_checkpoints, trained_rows):
    settings, words = FAILS[case]
    package = codecarbon(**settings)
    options = pl.TrainOptions(epochs=1, energy="codecarbon")
    energy = pl.train(trained_rows, checkpoint=tiny_checkpoints["bert"], options=options).energy
    assert energy is not None and energy.watt_hours is not None and "codecarbon" not in energy.parts[0].method
    assert words in str(energy.view().note) and not package.alive


def test_codecarbon_ends_however_the_training_ends(codecarbon, tiny_checkpoints, trained_rows, tmp_path):
    package, options = codecarbon(), pl.TrainOptions(epochs=1, energy="codecarbon")
    with pytest.raises(CheckpointError):
        pl.train(trained_rows, checkpoint=tmp_path / "nothing", options=options)
    assert not package.alive
    with pytest.raises(SettingError, match="nobody said where the checkpoints are"):
        pl.train(trained_rows, checkpoint=tiny_checkpoints["bert"], options=replace(options, resume=True))
    assert not package.alive
    pipe = pl.Pipeline.new("text-classification", tiny_checkpoints["bert"], trained_rows)
    pipe.model.forward = None  # nothing can be computed with it
    with pytest.raises(TypeError):
        pl.run_stage("classify", pipe, trained_rows, tmp_path / "stage", options=options)
    assert not package.alive


def test_codecarbon_really_says_something(tmp_path):
    pytest.importorskip("codecarbon", reason="the package codecarbon is not installed")
    energy = EnergyMeter(powercap=tmp_path, gpus=dict, codecarbon=True).energy()
    assert energy.watt_hours is not None and all("codecarbon" in part.method for part in energy.parts)


def test_codecarbon_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr("pellucid.errors.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match="pip install codecarbon"):
        EnergyMeter(codecarbon=True)
    with pytest.raises(SettingError, match="no energy 'guess'"):
        pl.TrainOptions(energy="guess")


def test_every_training_reports_what_it_took(tiny_checkpoints, trained_rows, capsys):
    options = pl.TrainOptions(epochs=1, carbon_intensity=56)
    trained = pl.train(trained_rows, checkpoint=tiny_checkpoints["bert"], options=options)
    assert trained.energy is not None and trained.energy.watt_hours is not None
    assert trained.energy.low <= trained.energy.watt_hours <= trained.energy.high
    assert 0 < trained.energy.seconds <= trained.seconds + 0.1 and trained.energy.grams is not None
    pl.show(trained)
    said = capsys.readouterr().out
    assert "energy" in said and "g CO2e" in said and said.index("training") < said.index("energy")
