"""A folder for each class, with one text a file; folders called train, valid and test around them are splits.

Takes the path of a folder. Gives a Reading with the columns text, label and, where there are splits, split.
Knows nothing of what becomes of them.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pellucid.errors import DataError
from pellucid.readers.chunks import CHUNK_ROWS, Chunk, Reading, ReadOptions
from pellucid.readers.opening import lines_of

SPLIT_FOLDERS = frozenset(("train", "training", "valid", "validation", "val", "dev", "test"))
Found = tuple[Path, str, str]  # file, class, split


def open_folder(path: Path, options: ReadOptions) -> Reading:
    """A tree of folders. Raises DataError where there are no classes or no files in them."""
    tops = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    with_splits = bool(tops) and all(entry.name.lower() in SPLIT_FOLDERS for entry in tops)
    columns = ("text", "label", "split") if with_splits else ("text", "label")
    files = [found for top in tops for found in (files_of(top, top.name) if with_splits else in_class(top, ""))]
    if not files:
        cure = "Put the texts into folders by class: reviews/positive/1.txt, reviews/negative/1.txt."
        raise DataError("no folders with .txt files", place=str(path), cure=cure)

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        following, start = iter(files), 0
        while part := list(islice(following, CHUNK_ROWS)):
            cells = {"label": [label for _, label, _ in part], "split": [split for _, _, split in part]}
            if "text" in wanted:
                cells["text"] = ["".join(lines_of(file, options)) for file, _, _ in part]
            names = [str(file.relative_to(path)) for file, _, _ in part]
            yield Chunk({name: cells[name] for name in wanted}, start, len(part), files=names)
            start += len(part)

    return Reading(path.name, columns, chunks)


def files_of(split_folder: Path, split: str) -> list[Found]:
    """The files of every class of one split."""
    return [found for folder in sorted(split_folder.iterdir()) if folder.is_dir() for found in in_class(folder, split.lower())]


def in_class(folder: Path, split: str) -> list[Found]:
    """The text files of one class, by name."""
    return [(file, folder.name, split) for file in sorted(folder.iterdir()) if file.is_file() and ".txt" in file.suffixes]
