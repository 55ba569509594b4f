"""What a piece of work took: watt-hours, each with its method and the range it may lie in, and grams of CO2e.

Takes numbers. Gives them as values with a view: what is not known, or not of the whole, is said.
Knows nothing of how they were read.
"""

from dataclasses import dataclass

from pellucid.view import Cell, Table


@dataclass(frozen=True, slots=True)
class EnergyPart:
    """What one part of the machine took: watt-hours, the range that they may lie in, and how that is known."""

    name: str
    watt_hours: float
    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True)
class Energy:
    """What a piece of work took: seconds, the parts that could be counted or estimated, and what could not.

    `carbon_intensity` is in grams of CO2e for a kilowatt-hour; None where nobody said. `of` says whose the numbers are where they are
    not those of all that did the work: then nobody knows the most that it took.
    """

    seconds: float
    parts: tuple[EnergyPart, ...]
    unknown: tuple[str, ...] = ()
    carbon_intensity: float | None = None
    notes: tuple[str, ...] = ()
    of: str = ""

    @property
    def watt_hours(self) -> float | None:
        """The sum of the parts; None where there are none."""
        return sum(part.watt_hours for part in self.parts) if self.parts else None

    @property
    def low(self) -> float:
        """The least that the parts may have taken together, in watt-hours."""
        return sum(part.low for part in self.parts)

    @property
    def high(self) -> float:
        """The most that the parts may have taken together, in watt-hours."""
        return sum(part.high for part in self.parts)

    @property
    def grams(self) -> float | None:
        """Grams of CO2e; None where there is no energy, or no carbon intensity."""
        if self.watt_hours is None or self.carbon_intensity is None:
            return None
        return self.watt_hours / 1000 * self.carbon_intensity

    def view(self) -> Table:
        """A line for each part with its method, and the carbon where it can be said."""
        rows: list[tuple[Cell, ...]] = [
            (part.name, *map(rounded, (part.watt_hours, part.low)), None if self.of else rounded(part.high), part.method)
            for part in self.parts
        ]
        rows += [(name, None, None, None, "not known") for name in self.unknown]
        notes = [f"{self.seconds:.1f} s", *([f"all numbers are of {self.of}"] if self.of else []), *self.notes, self._carbon()]
        notes.append("fans, disks, power supply and cooling are not in it")
        return Table("energy", ("part", "Wh", "at least", "at most", "how that is known"), tuple(rows), "; ".join(filter(None, notes)))

    def said(self) -> tuple[str | None, str | None]:
        """Watt-hours and grams in few words, each with its range or with whose it is; None where it is not known."""
        if self.watt_hours is None:
            return None, None
        per = None if self.carbon_intensity is None else self.carbon_intensity / 1000
        return self._extent(self.watt_hours, 1), None if self.grams is None or per is None else self._extent(self.grams, per)

    def _extent(self, number: float, factor: float) -> str:
        """A number with the range of the whole; where it is not of the whole, whose it is."""
        whose = self.of or ("what is known" if self.unknown else "")
        return f"{rounded(number):g} " + (
            f"of {whose}" if whose else f"({rounded(factor * self.low):g} to {rounded(factor * self.high):g})"
        )

    def _carbon(self) -> str:
        """The carbon in words, with a range where that is one of the whole."""
        if self.grams is None or self.carbon_intensity is None:
            return "carbon is not said: nobody gave the carbon intensity of the electricity" if self.parts else ""
        number, extent = self._extent(self.grams, self.carbon_intensity / 1000).split(" ", 1)
        return f"{number} g CO2e {extent} at {self.carbon_intensity:g} g/kWh"


def rounded(number: float) -> float:
    """A number in three digits."""
    return float(f"{number:.3g}")
