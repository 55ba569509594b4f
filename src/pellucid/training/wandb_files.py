"""What an offline run of Weights & Biases has written on this machine.

Takes the folder of offline runs, or one of their files. Gives the records of their history, as far as they are whole.
Knows nothing of trainings, and needs the package wandb only for the names of the fields.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, HEADER = 32_768, 7, 7  # bytes: the layout of a LevelDB log, whose first block begins with the name of the format
FULL, FIRST, LAST = 1, 2, 4


def last_steps(folder: Path, name: str) -> Mapping[str, int]:
    """The last step of each name of the history of a run, over all processes that wrote it; nothing where nothing can be read."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob(f"offline-run-*-{name}/run-{name}.wandb")):
        with suppress(Exception):  # another version of the package: then steps may come twice, and no training is lost for it
            for line in history(path):
                for key in line.keys() - {"step"}:
                    found[key] = max(found.get(key, -1), int(line["step"]))
    return found


def history(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of the history in a file."""
    from wandb.proto import wandb_internal_pb2

    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        line: dict[str, Any] = {}
        for item in record.history.item:
            name, *inner = [item.key] if item.key else item.nested_key
            if inner:  # of a table, a page, a picture: several values under its name
                line.setdefault(name, {})[".".join(inner)] = json.loads(item.value_json)
            else:
                line[name] = json.loads(item.value_json)
        yield line


def records(data: bytes) -> Iterator[bytes]:
    """The whole records of a LevelDB log; what was cut off at the end is left out."""
    place, parts = FILE_HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # the rest of a block is empty
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        chunk = data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if not kind or len(chunk) < length:
            return
        parts = chunk if kind in (FULL, FIRST) else parts + chunk
        if kind in (FULL, LAST):
            yield parts
