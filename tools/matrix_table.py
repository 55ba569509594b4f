"""Runs every task on every architecture of the course and writes what came of it into docs/matrix.md.

Takes nothing. Gives the table between its two marks in the document, and numbers as `name = value`; exits 1 where a cell fails.
Knows nothing of what a cell does: tests/matrix.py says that.

    python tools/matrix_table.py            run all cells and rewrite the table
    python tools/matrix_table.py --check    run all cells and say whether the document is true
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]
DOCUMENT = ROOT / "docs" / "matrix.md"
BEGIN, END = "<!-- matrix: written by tools/matrix_table.py -->", "<!-- end of matrix -->"
WORKS, NO_HEAD = "works", "–"


def main() -> int:
    """Run the cells, write or check the table."""
    from conftest import TOKENIZERS
    from matrix import ARCHITECTURES, COLUMNS, examined, subject, tokenizers_of
    from pellucid.process import hide_broken_torchvision

    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    hide_broken_torchvision()
    tokenizers = tokenizers_of({name: make() for name, make in TOKENIZERS.items()})
    start = perf_counter()
    cells: dict[tuple[str, str], str] = {}
    for architecture in ARCHITECTURES:
        for column in COLUMNS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found = subject(architecture, column, tokenizers.get(architecture.tokenizer), Path(folder))
                    if not isinstance(found, str):
                        losses = examined(found)
                        found = WORKS if not losses or losses[-1] < losses[0] else f"fails: five steps do not lower the loss, {losses}"
                except Exception as error:  # the table says what failed; the exit code says that something did
                    found = f"fails: {type(error).__name__}: {error}"
            cells[architecture.name, column.tag] = found
            print(f"# {architecture.name} {column.tag}: {found}", flush=True)
    print(f"matrix_cells = {len(cells)}")
    for name, count in (("works", WORKS), ("fails", "fails")):
        print(f"matrix_{name} = {sum(text.startswith(count) for text in cells.values())}")
    print(f"matrix_seconds = {perf_counter() - start:.1f}")
    table = drawn(cells, [architecture.name for architecture in ARCHITECTURES], [column.tag for column in COLUMNS])
    before = DOCUMENT.read_text(encoding="utf-8")
    after = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{table}\n\n{END}", before, flags=re.DOTALL)
    same = before == after
    if not check:
        DOCUMENT.write_text(after, encoding="utf-8")
    print(f"matrix_document_is_true = {int(same or not check)}")
    return 1 if any(text.startswith("fails") for text in cells.values()) or (check and not same) else 0


def drawn(cells: Mapping[tuple[str, str], str], rows: list[str], columns: list[str]) -> str:
    """The table, and below it why cells are empty."""
    reasons: dict[str, str] = {}
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for row in rows:
        shown = []
        for column in columns:
            text = cells[row, column]
            if text != WORKS:
                mark = reasons.setdefault(text, str(len(reasons) + 1))
                text = f"{NO_HEAD} ({mark})"
            shown.append(text)
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", *(f"{mark}. {text}" for text, mark in reasons.items())])


if __name__ == "__main__":
    sys.exit(main())
