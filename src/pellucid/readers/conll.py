"""Files with one word and its tags a line: CoNLL, BIO, IOB and the like, and CoNLL-U.

Takes a path and the options of a read. Gives a Reading whose cells are lists: the words of a sentence, or one tag for each.
Knows nothing of what a tag means.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pellucid.errors import DataError
from pellucid.readers.chunks import Chunk, Reading, ReadOptions, in_chunks
from pellucid.readers.opening import lines_of

SUFFIXES = frozenset((".conll", ".bio", ".iob", ".iob1", ".iob2", ".annotated"))
UNIVERSAL_SUFFIXES = frozenset((".conllu",))
UNIVERSAL = ("words", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")  # behind the number of the word
DOCUMENT = "-DOCSTART-"  # begins a line of CoNLL-2003 between documents
CURE = "Write one word a line, a TAB or a space, and its tag; a blank line between sentences."
UNIVERSAL_CURE = "CoNLL-U has ten cells a line with a TAB between; the first counts the words of the sentence from 1."
_SPACES = re.compile(r"[ \t]+")
_PASSED_OVER = re.compile(r"[0-9]+[-.][0-9]+")  # 1-2 stands for words that follow, 8.1 for one that nobody wrote
Line = tuple[int, list[str]]  # its number in the file, and its cells; no cells between sentences
Sentence = tuple[int, list[list[str]]]  # the line where it begins, and the cells of each word


def open_conll(path: Path, options: ReadOptions) -> Reading:
    """A file of words and tags, cut at TABs where its first word has one, else at spaces. The first column is `words`, the last `tags`.

    Lines of -DOCSTART- and comments before a sentence are passed over. Raises DataError that names the line.
    """
    number, first = first_word(path, options)
    cut = cutter("\t" if options.delimiter is None and "\t" in first else options.delimiter)
    width, place = len(cut(first)), f"{path.name}, line {number}"
    if width < 2:
        raise DataError(f"expected a word and its tag, came {first.strip()!r:.60}", place=place, cure=CURE)
    columns = options.columns or ("words", *(f"column_{count}" for count in range(2, width)), "tags")
    if len(columns) != width:
        cure = f"Name every column: the line is {first.strip()!r:.60}."
        raise DataError(f"{len(columns)} column names for {width} cells", place=place, cure=cure)
    return reading_of(path, options, columns, lambda: word_lines(path, options, cut, width))


def open_universal(path: Path, options: ReadOptions) -> Reading:
    """A CoNLL-U file: words, lemma, upos, xpos … Comments, lines for several words (1-2) and empty nodes (8.1) are passed over.

    `_` is a tag like any other. Raises DataError that names the line.
    """
    return reading_of(path, options, UNIVERSAL, lambda: universal_lines(path, options))


def reading_of(path: Path, options: ReadOptions, columns: tuple[str, ...], lines: Callable[[], Iterator[Line]]) -> Reading:
    """The sentences as rows. Each is at the line of its first word."""

    def chunks(wanted: tuple[str, ...]) -> Iterator[Chunk]:
        places = {name: columns.index(name) for name in wanted}
        row = 0
        for part in in_chunks(sentences(lines()), characters, options.max_rows):
            cells_of = {name: [[cells[place] for cells in words] for _, words in part] for name, place in places.items()}
            yield Chunk(cells_of, row, len(part), [line for line, _ in part])
            row += len(part)

    return Reading(path.name, columns, chunks)


def sentences(lines: Iterator[Line]) -> Iterator[Sentence]:
    """The lines of each sentence together."""
    start, words = 0, list[list[str]]()
    for number, cells in lines:
        if cells:
            start = start if words else number
            words.append(cells)
        elif words:
            yield start, words
            words = []
    if words:
        yield start, words


def characters(sentence: Sentence) -> int:
    """How long the cells of a sentence are together."""
    return sum(map(len, (cell for cells in sentence[1] for cell in cells)))


def cutter(delimiter: str | None) -> Callable[[str], list[str]]:
    """Cuts a line into cells: at a delimiter, or at runs of spaces and TABs."""
    if delimiter is None or delimiter == " ":
        return lambda line: _SPACES.split(line.strip(" \t\r\n"))
    return lambda line: [cell.strip(" ") for cell in line.rstrip("\r\n").split(delimiter)]


def first_word(path: Path, options: ReadOptions) -> tuple[int, str]:
    """The first line with a word, and its number; one that may be a comment only where there is no other. Raises DataError for none."""
    hashed: tuple[int, str] | None = None
    for number, line in enumerate(lines_of(path, options), 1):
        if line.strip() and not line.startswith(DOCUMENT):
            if not line.startswith("#"):
                return number, line
            hashed = hashed or (number, line)
    if hashed is None:
        raise DataError("there are no words", place=path.name, cure=CURE)
    return hashed


def word_lines(path: Path, options: ReadOptions, cut: Callable[[str], list[str]], width: int) -> Iterator[Line]:
    """The cells of each word, and nothing between sentences."""
    before = True  # no word of the sentence has come yet
    for number, line in enumerate(lines_of(path, options), 1):
        if not line.strip() or line.startswith(DOCUMENT):
            before = True
            yield number, []
            continue
        cells = cut(line)
        if len(cells) != width and before and line.startswith("#"):  # a comment; the word # has a tag
            continue
        place = f"{path.name}, line {number}"
        if len(cells) != width:
            raise DataError(f"expected {width} cells, came {len(cells)}: {line.strip()!r:.60}", place=place, cure=CURE)
        if "" in cells:
            what = "the word is" if not cells[0] else "the tag is" if not cells[-1] else "a cell is"
            raise DataError(f"{what} empty: {line.strip()!r:.60}", place=place, cure=CURE)
        before = False
        yield number, cells


def universal_lines(path: Path, options: ReadOptions) -> Iterator[Line]:
    """The cells of each word behind its number, and nothing between sentences."""
    expected = 1
    for number, line in enumerate(lines_of(path, options), 1):
        if not line.strip():
            expected = 1
            yield number, []
            continue
        if line.startswith("#"):
            continue
        cells = line.rstrip("\r\n").split("\t")
        place = f"{path.name}, line {number}"
        if len(cells) != len(UNIVERSAL) + 1:
            problem = f"expected {len(UNIVERSAL) + 1} cells, came {len(cells)}: {line.strip()!r:.60}"
            raise DataError(problem, place=place, cure=UNIVERSAL_CURE)
        if _PASSED_OVER.fullmatch(cells[0]):
            continue
        if cells[0] != str(expected):
            raise DataError(f"expected word {expected} of the sentence, came {cells[0]!r:.20}", place=place, cure=UNIVERSAL_CURE)
        if not cells[1]:
            raise DataError(f"word {expected} is empty", place=place, cure=UNIVERSAL_CURE)
        expected += 1
        yield number, cells[1:]
