"""How much energy a piece of work took, and how that is known.

Takes readings of what this machine counts: RAPL, NVIDIA's own counter, or else the CPU seconds of this process and its children.
Gives what it took, of one process or of several together.
Knows nothing of models, of training or of torch.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from platform import node
from time import perf_counter
from typing import Any

from pellucid.energy_report import Energy, EnergyPart
from pellucid.errors import SettingError, need

POWERCAP = Path("/sys/class/powercap")
PROCESSES = Path("/proc")
BOOT = Path("/proc/sys/kernel/random/boot_id")
JOULES = 3600.0  # in a watt-hour
# Watts of one busy core: the default of Green Algorithms, and the least and the most of the processors in its table (TDP / cores).
# A virtual CPU of a rented machine is often half a core: hence half of the least.
CORE_WATTS, CORE_LEAST, CORE_MOST = 12.0, 1.9, 23.8
CORE_SOURCE = "Lannelongue et al. 2021, doi:10.1002/advs.202100707"
PACKAGE_WATTS = 500.0  # the most that one package may draw, where the counter does not say
_PACKAGE, _PART = re.compile(r"(?:intel|amd)-rapl:\d+"), re.compile(r"(?:intel|amd)-rapl:\d+:\d+")
GpuReader = Callable[[], Mapping[str, float]]  # the joules that each GPU has counted so far, by its UUID


class Rapl:
    """The energy counters of the CPU packages, and of the memory where it has its own; `reason` says why there are none.

    They count the whole machine, and begin again at 0 when they are full: `look` often enough, and nothing is lost.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self.zones, self.reason = zones_of(root)
        self.last = {zone: number_in(zone / "energy_uj") for zone in self.zones}
        self.microjoules, self.perhaps = 0.0, 0.0
        self.at = perf_counter()

    def look(self) -> None:
        """Add what was counted since the last look, and what a counter may have gone round unseen."""
        now = perf_counter()
        for zone in self.zones:
            count, full = number_in(zone / "energy_uj"), number_in(zone / "max_energy_range_uj")
            if count is None:
                continue  # unreadable for once: the next look has it
            moved = count - (self.last[zone] or 0)
            most = (now - self.at) * watts_of(zone) * 1e6
            moved += full if moved < 0 and full else 0
            self.microjoules += max(moved, 0)
            self.perhaps += full * max(0, int((most - moved) // full)) if full else 0
            self.last[zone] = count
        self.at = now

    def part(self) -> EnergyPart | None:
        """What was counted so far."""
        if not self.zones:
            return None
        memory = any(name_of(zone) == "dram" for zone in self.zones)
        hours, perhaps = self.microjoules / 1e6 / JOULES, self.perhaps / 1e6 / JOULES
        sure = " It may have gone round unseen." if perhaps else ""
        method = f"RAPL, counted by the processor, of all that ran on this machine; memory is {'' if memory else 'not '}in it.{sure}"
        return EnergyPart("CPU and memory" if memory else "CPU", hours, hours, hours + perhaps, method)


def zones_of(root: Path) -> tuple[tuple[Path, ...], str]:
    """The counters that add up to the CPU and its memory, each once; none of them where one may not be read."""
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return (), "this machine shows no RAPL counters"
    found = [root / name for name in names if _PACKAGE.fullmatch(name) and name_of(root / name).startswith("package")]
    found += [root / name for name in names if _PART.fullmatch(name) and name_of(root / name) == "dram"]
    if not found:
        return (), "this machine shows no RAPL counters"
    if any(number_in(zone / "energy_uj") is None for zone in found):
        return (), "the RAPL counters are for root alone"
    return tuple(found), ""


def name_of(zone: Path) -> str:
    """What a counter says that it counts."""
    try:
        return (zone / "name").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def number_in(path: Path) -> int | None:
    """The number in a small file of the kernel's; None where it cannot be read."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def watts_of(zone: Path) -> float:
    """The most that a zone may draw, as it says itself."""
    said = [number_in(zone / f"constraint_{number}_max_power_uw") or 0 for number in range(2)]
    return max(said) / 1e6 or PACKAGE_WATTS


def nvidia() -> GpuReader | None:
    """NVIDIA's own counters through the package nvidia-ml-py; None where it or a driver is missing."""
    if find_spec("pynvml") is None:
        return None
    library: Any = import_module("pynvml")
    try:
        library.nvmlInit()
    except Exception:  # its errors are its own: no driver, no right, no library
        return None

    def read() -> dict[str, float]:
        found = {}
        for number in range(library.nvmlDeviceGetCount()):
            try:
                device = library.nvmlDeviceGetHandleByIndex(number)
                uuid = library.nvmlDeviceGetUUID(device)
                name = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
                found[name.removeprefix("GPU-")] = library.nvmlDeviceGetTotalEnergyConsumption(device) / 1000
            except Exception:  # a GPU without the counter
                continue
        return found

    return read


def cpu_seconds(root: Path = PROCESSES) -> float:
    """The CPU seconds of this process and all its children so far, each once: those that ended, and those that run."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system + running_below(os.getpid(), root)


def running_below(parent: int, root: Path) -> float:
    """The CPU seconds of the processes below `parent` that run, with those of their own children that have ended; 0 without /proc."""
    try:
        numbers = [int(name) for name in os.listdir(root) if name.isdigit()]
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return 0.0
    parents, used = {}, {}
    for number in numbers:
        try:
            fields = (root / str(number) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents[number], used[number] = int(fields[1]), sum(map(int, fields[11:15])) / ticks
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    below, found = {parent}, 0.0
    while fresh := {number for number, above in parents.items() if above in below and number not in below}:
        found += sum(used[number] for number in fresh)
        below |= fresh
    return found


class CodeCarbon:
    """codecarbon's own model of this process, without its carbon: that would need a country. It samples in a thread of its own."""

    def __init__(self) -> None:
        library: Any = need("codecarbon", install="pip install codecarbon", why='energy="codecarbon"')
        self.tracker: Any = None
        self.reason = "codecarbon gave nothing"  # why there are no parts, where there are none
        with self._watched():
            self.tracker = library.OfflineEmissionsTracker(
                country_iso_code="USA", save_to_file=False, log_level="critical", allow_multiple_runs=True, tracking_mode="process"
            )
            self.tracker.start()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What fails here is kept as the reason: no training ends for what only watches it."""
        try:
            yield
        except Exception as error:  # whatever its sensors and the system raise
            self.reason = f"codecarbon gave nothing: {type(error).__name__}: {error}".partition("\n")[0]

    def close(self) -> None:
        """End its thread; once is enough."""
        tracker, self.tracker = self.tracker, None
        with self._watched():
            if tracker is not None:
                tracker.stop()

    def parts(self) -> list[EnergyPart]:
        """What it says, and stop it; nothing where it has nothing to say, and `reason` then says why."""
        tracker, found = self.tracker, []
        self.close()
        with self._watched():
            if (said := getattr(tracker, "final_emissions_data", None)) is not None:  # there only after a stop in which nothing failed
                method = f"codecarbon {said.codecarbon_version}, its own model of this process on {said.cpu_model}; it gives no range"
                named = {"CPU": said.cpu_energy, "GPU": said.gpu_energy, "memory": said.ram_energy}  # kilowatt-hours
                found = [(name, 1000 * float(hours)) for name, hours in named.items() if hours]
        return [EnergyPart(name, hours, hours, hours, method) for name, hours in found]


class EnergyMeter:
    """Counts from the moment it is made, or told to `begin`. `look` between two readings costs some microseconds; no thread runs.

    `powercap`, `gpus` and `busy` say where it reads: RAPL, NVIDIA's counters, the CPU seconds of the process. With `codecarbon` that
    package says it instead, in a thread that `energy` or `close` ends. Raises MissingPackageError where it is not installed.
    """

    def __init__(
        self,
        *,
        powercap: Path = POWERCAP,
        gpus: GpuReader | None = None,
        busy: Callable[[], float] = cpu_seconds,
        codecarbon: bool = False,
    ) -> None:
        self.powercap, self.busy, self.modelled = powercap, busy, codecarbon
        self.gpus = nvidia() if gpus is None else gpus
        self.codecarbon: CodeCarbon | None = None
        self.begin()

    def begin(self) -> None:
        """Count from now on: what was before is forgotten."""
        self.close()
        self.codecarbon = CodeCarbon() if self.modelled else None
        self.rapl = Rapl(self.powercap)
        self.gpu_start = dict(self.gpus()) if self.gpus is not None else {}
        self.busy_start, self.start = self.busy(), perf_counter()

    def look(self) -> None:
        """Read counters that begin again at 0 when they are full."""
        self.rapl.look()

    def close(self) -> None:
        """End what goes on beside the work, where nobody will read it; once is enough."""
        if self.codecarbon is not None:
            self.codecarbon.close()

    def reading(self, gpus: Sequence[str] = ()) -> "Reading":
        """What this process can say of the time since the meter was made, to be read once. `gpus` are the UUIDs of its GPUs."""
        self.look()
        seconds, busy = perf_counter() - self.start, max(0.0, self.busy() - self.busy_start)
        modelled = () if self.codecarbon is None else tuple(self.codecarbon.parts())
        notes = () if self.codecarbon is None or modelled else (self.codecarbon.reason,)
        now = dict(self.gpus()) if self.gpus is not None and gpus else {}
        moved = {uuid: max(0.0, count - self.gpu_start[uuid]) / JOULES for uuid, count in now.items() if uuid in self.gpu_start}
        own = {uuid: moved.get(uuid) for uuid in (name.removeprefix("GPU-") for name in gpus)}
        return Reading(this_machine(), seconds, busy, self.rapl.part(), self.rapl.reason, own, modelled, notes)

    def energy(self, carbon_intensity: float | None = None, gpus: Sequence[str] = (), processes: int = 1) -> Energy:
        """What was taken since the meter was made, to be read once. Raises SettingError.

        `gpus` are the UUIDs of the GPUs that did the work, `processes` says how many did it: this one knows of itself. `total` adds up
        what each of them reads.
        """
        check_intensity(carbon_intensity)
        return total([self.reading(gpus)], carbon_intensity, processes)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process read: counters of its whole machine and of its GPUs, its own CPU seconds, and what codecarbon says of it."""

    machine: str
    seconds: float
    busy: float  # CPU seconds of the process and its children
    counted: EnergyPart | None  # by the processor, of the whole machine
    reason: str  # why it was not counted
    gpus: Mapping[str, float | None]  # watt-hours by UUID; None without a counter
    modelled: tuple[EnergyPart, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Reading":
        """The reading that was sent as JSON, from what `asdict` gives."""
        counted = None if said["counted"] is None else EnergyPart(**said["counted"])
        return cls(**{**said, "counted": counted, "modelled": tuple(EnergyPart(**one) for one in said["modelled"])})


def this_machine() -> str:
    """What tells this machine from others: containers on it share its counters, and its name for the time that it runs."""
    try:
        return BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return node()


def total(readings: Sequence[Reading], carbon_intensity: float | None = None, processes: int = 1) -> Energy:
    """What processes took together: CPU seconds are added up, a counter that several have read is in it once.

    Of more `processes` than there are readings, it says that the numbers are not those of all.
    """
    first = readings[0]
    if first.modelled:  # codecarbon says it of one process, and of counters that others share with it: that cannot be added up
        unknown, of = missing(max(processes, len(readings)), 1)
        return Energy(first.seconds, first.modelled, unknown, carbon_intensity, first.notes, of)
    machines = {name: [one for one in readings if one.machine == name] for name in dict.fromkeys(one.machine for one in readings)}
    parts = [cpu_of(own, f", machine {number}" if len(machines) > 1 else "") for number, own in enumerate(machines.values(), 1)]
    gpus: dict[str, float | None] = {}
    for uuid, hours in (item for one in readings for item in one.gpus.items()):
        gpus[uuid] = max((found for found in (gpus.get(uuid), hours) if found is not None), default=None)
    method = "NVIDIA's own counter (NVML), of all that ran on this GPU"
    parts += [EnergyPart("GPU", hours, hours, hours, method) for hours in gpus.values() if hours is not None]
    unknown, of = missing(processes, len(readings))
    if of and not gpus and len(machines) == 1 and first.counted is not None:  # the processor counted all that ran beside it
        unknown, of = (), "one machine only"
    unknown += ("GPU: it has no counter, or nvidia-ml-py is not installed",) * list(gpus.values()).count(None)
    return Energy(first.seconds, tuple(parts), unknown, carbon_intensity, first.notes, of)


def missing(processes: int, known: int) -> tuple[tuple[str, ...], str]:
    """What is not known where only some of the processes are, and whose the numbers then are."""
    left = processes - known
    if left <= 0:
        return (), ""
    return (f"the other {left} processes" if left > 1 else "the other process",), f"{known} of {processes} processes only"


def cpu_of(readings: Sequence[Reading], where: str) -> EnergyPart:
    """What the processes of one machine took of its processor: its own counter once, or an estimate from all their CPU seconds."""
    counted = [one.counted for one in readings if one.counted is not None]
    if counted:
        part = max(counted, key=lambda one: one.watt_hours)  # of the one that has looked longest
    else:
        part = estimated(sum(one.busy for one in readings), readings[0].reason, len(readings))
    return replace(part, name=f"{part.name}{where}")


def estimated(busy: float, reason: str, processes: int = 1) -> EnergyPart:
    """What CPU seconds may have taken, with the assumption."""
    whose = "this process and its children" if processes == 1 else f"{processes} processes and their children"
    method = (
        f"an estimate, {reason}: {busy:,.1f} CPU seconds of {whose} × {CORE_WATTS:g} W a core "
        f"({CORE_LEAST:g} to {CORE_MOST:g}; {CORE_SOURCE}); memory is not in it"
    )
    hours = busy / JOULES
    return EnergyPart("CPU", hours * CORE_WATTS, hours * CORE_LEAST, hours * CORE_MOST, method)


def check_intensity(value: float | None) -> None:
    """Raise SettingError for what is no number of grams of CO2e for a kilowatt-hour."""
    if value is not None and not (isfinite(value) and 0 <= value <= 5000):
        cure = "Pass grams of CO2e for a kilowatt-hour, as your supplier or the operator of the grid gives them: 20 to 1,000 is usual."
        raise SettingError(f"carbon_intensity is {value!r}", place="carbon_intensity", cure=cure)
