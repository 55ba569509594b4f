"""A folder for each class, with one text a file; or a folder with one file or folder for each split.

Takes the path of a folder. Gives a Reading with the columns text, label and, where there are splits, split; or the file of every split.
Knows nothing of what becomes of them.
"""

from collections.abc import Iterator
from pathlib import Path

from pellucid.errors import DataError
from pellucid.readers.chunks import SPLIT_NAMES, Chunk, Reading, ReadOptions, in_chunks
from pellucid.readers.opening import damage, lines_of
from pellucid.types import Note

TABLES = frozenset((".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".conll", ".conllu", ".bio", ".iob", ".iob2"))
Found = tuple[Path, str, str]  # file, class, split


def split_files(path: Path) -> dict[str, Path]:
    """The files called train.csv, valid.jsonl, test.tsv.gz and the like in a folder: split → file. Raises DataError where one has two."""
    found: dict[str, Path] = {}
    for file in entries(path):
        name = file.name.partition(".")[0].lower()
        if name not in SPLIT_NAMES or not file.is_file() or not TABLES & {suffix.lower() for suffix in file.suffixes}:
            continue
        if name in found:
            raise DataError(f"{found[name].name} and {file.name} are the same split", place=str(path), cure="Remove one of them.")
        found[name] = file
    return found


def open_folder(path: Path, options: ReadOptions) -> Reading:
    """A tree of folders. Raises DataError where there are no classes or no files in them."""
    tops = folders_in(path)
    parts = [top for top in tops if top.name.lower() in SPLIT_NAMES and folders_in(top)]
    columns = ("text", "label", "split") if parts else ("text", "label")
    files = [found for top in parts for folder in folders_in(top) for found in in_class(folder, top.name.lower())]
    if not parts:
        files = [found for top in tops for found in in_class(top, "")]
    if not files:
        cure = "Put the texts into folders by class (reviews/positive/1.txt), or one file for each split (train.csv, valid.csv, test.csv)."
        raise DataError("no folders with .txt files", place=str(path), cure=cure)

    aside = [top.name for top in tops if parts and top not in parts]
    why = f"beside {', '.join(top.name for top in parts)} they are neither a split nor a class"
    notes = (Note(f"folders left out: {', '.join(aside)}", why, "Move them into a split to read them."),) if aside else ()

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        start = 0
        for part in in_chunks(files, lambda found: found[0].stat().st_size if found[0].exists() else 0, options.max_rows):
            cells = {"label": [label for _, label, _ in part], "split": [split for _, _, split in part]}
            if "text" in wanted:
                cells["text"] = [text_of(file, path, options) for file, _, _ in part]
            names = [str(file.relative_to(path)) for file, _, _ in part]
            yield Chunk({name: cells[name] for name in wanted}, start, len(part), files=names)
            start += len(part)

    return Reading(path.name or str(path), columns, chunks, notes)


def text_of(file: Path, folder: Path, options: ReadOptions) -> str:
    """All of a file. Raises DataError that names it within its folder."""
    try:
        return "".join(lines_of(file, options))
    except DataError as error:
        line = error.place.partition(", ")[2]
        raise error.at(str(file.relative_to(folder)) + (f", {line}" if line else "")) from error


def in_class(folder: Path, split: str) -> list[Found]:
    """The text files of one class, by name."""
    return [(file, folder.name, split) for file in entries(folder) if file.name.lower().endswith((".txt", ".txt.gz")) and file.is_file()]


def folders_in(path: Path) -> list[Path]:
    """The folders of a folder, by name."""
    return [entry for entry in entries(path) if entry.is_dir()]


def entries(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, by name."""
    with damage(folder):
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
