"""Every task on every architecture that the course names: the contract holds, five steps lower the loss, saving is exact."""

from pathlib import Path
from typing import Any

import pytest

from matrix import ARCHITECTURES, COLUMNS, Architecture, Column, examined, subject, tokenizers_of

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "matrix.md"


def documented() -> dict[tuple[str, str], bool]:
    """What the document says of each cell: whether it works."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line[:1] == "|"
    ]
    tags = rows[0][1:]
    return {(tag, row[0]): cell == "works" for row in rows[2:] for tag, cell in zip(tags, row[1:], strict=True)}


CELLS = [pytest.param(column, architecture, id=f"{column.tag}-{architecture.name}") for column in COLUMNS for architecture in ARCHITECTURES]


@pytest.mark.parametrize(("column", "architecture"), CELLS)
def test_cell(column: Column, architecture: Architecture, tiny_tokenizers: dict[str, Any], tmp_path: Path) -> None:
    found = subject(architecture, column, tokenizers_of(tiny_tokenizers).get(architecture.tokenizer), tmp_path)
    assert documented()[column.tag, architecture.name] is not isinstance(found, str), "docs/matrix.md: run tools/matrix_table.py"
    if isinstance(found, str):
        assert found, "a cell that is empty says why"
        return
    seen = examined(found)
    assert not seen or seen[-1] < seen[0], f"five steps: {seen}"
