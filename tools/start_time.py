"""How long `import pellucid` and `pellucid --help` take, the best of five processes each.

Takes nothing. Gives `import_seconds`, `help_seconds` (the whole process) and `heavy_modules`, the number of modules of torch,
transformers, datasets or pandas that importing pellucid loads.
"""

import re
import subprocess
import sys
import time

RUNS = 5
HEAVY = re.compile(r"\| +(?:torch|transformers|datasets|pandas)(?:\.\S+)?$", re.MULTILINE)


def run(*arguments: str) -> tuple[float, str]:
    """Seconds of the whole process, and what it wrote to stderr."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True, timeout=60
    )
    return time.perf_counter() - start, done.stderr


def main() -> None:
    """Measure and print."""
    reports = [run("-X", "importtime", "-c", "import pellucid")[1] for _ in range(RUNS)]
    cumulative = [int(found[1]) for report in reports if (found := re.search(r"\| +(\d+) \| pellucid$", report, re.MULTILINE))]
    print("\n".join(line for line in reports[0].splitlines() if "pellucid" in line))
    print(f"import_seconds = {min(cumulative) / 1e6:.4f}")
    print(f"heavy_modules = {len(HEAVY.findall(reports[0]))}")
    print(f"help_seconds = {min(run('-m', 'pellucid', '--help')[0] for _ in range(RUNS)):.3f}")


if __name__ == "__main__":
    main()
