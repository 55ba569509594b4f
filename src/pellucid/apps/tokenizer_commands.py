"""The commands about tokenizers: train one on files of texts, compare some on a file.

Takes paths and options as they are typed. Gives folders that transformers opens, and tables of what each tokenizer makes of a text.
Knows nothing of models, tasks or labels.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import pellucid as pl
from pellucid.apps.flags import with_flags
from pellucid.apps.inputs import Texts, attempt
from pellucid.data import Split
from pellucid.errors import SettingError, StorageError
from pellucid.files import atomic_folder
from pellucid.view import Lines
from pellucid.vocab import texts_in
from pellucid.vocab_kinds import VocabularyOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WRITTEN = frozenset(("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"))
MEASURED = 2000  # texts that a new tokenizer is shown on
FILES = "CSV, TSV, JSONL or Parquet files of rows, or .txt with a text a line (also .gz)."
VocabularyFlags = Annotated[
    VocabularyOptions,
    {
        "kind": "wordpiece, bpe, byte-bpe, unigram, word or character",
        "size": "tokens in all, special ones too",
        "family": "whose special tokens, and where they stand: bert, roberta, gpt2, llama or t5",
        "lowercase": "texts are turned into lower case first",
        "strip_accents": "letters lose their accents first",
        "min_frequency": "how often a word or a pair must occur; 2 if not given",
        "max_length": "tokens that its model will read, as the tokenizer says",
        "most_texts": "learn from so many texts at most, drawn at random",
        "seed": "which texts are drawn follows from it",
    },
]

tokenizers = typer.Typer(
    name="tokenizer", help="Train a tokenizer on texts of yours, or compare some.", no_args_is_help=True, rich_markup_mode=None
)


@dataclass(frozen=True, slots=True)
class TextFiles:
    """Where the texts of a file are, and how it is written."""

    column: Annotated[str | None, "column of the texts; guessed if not given"] = None
    delimiter: Annotated[str | None, "what stands between columns; found out if not given"] = None
    columns: Annotated[str | None, "names of the columns where the file has no header, with commas between"] = None
    encoding: Annotated[str, "encoding of the files"] = "utf-8"

    def read(self, path: str) -> Split:
        """The rows of a file; of a .txt file its lines. Raises DataError."""
        source = Texts(self.column, None, self.delimiter, self.columns, self.encoding)
        if self.columns is None and self.column is None and ".txt" in (part.lower() for part in Path(path).suffixes):
            source = replace(source, columns="text")
        return source.read(path)


@tokenizers.command("train")
@with_flags
def train_tokenizer(
    files: Annotated[list[str], typer.Argument(help=FILES)],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to save the tokenizer in.")],
    vocabulary: VocabularyFlags = VocabularyOptions(),
    source: TextFiles = TextFiles(),
) -> None:
    """Learn a vocabulary from files of texts, save the tokenizer, and show what it makes of them."""
    check_tokenizer_folder(output)
    splits = [source.read(file) for file in files]
    texts = [text for split in splits for text in texts_in(split)]
    tokenizer = pl.train_tokenizer(splits[0] if len(splits) == 1 else texts, vocabulary)
    folder = keep_tokenizer(tokenizer, output)
    pl.show(pl.compare_tokenizers({folder.name: tokenizer}, texts[:MEASURED]))
    later = f"try: pellucid tokenizer compare {output} minilm --text {files[0]}"
    pl.show(Lines("saved", (f"{len(tokenizer):,} tokens of {len(texts):,} texts, in {folder}", later)))


@tokenizers.command("compare")
@with_flags
def compare_tokenizers(
    tokenizers: Annotated[list[str], typer.Argument(help="Folders with a tokenizer, names on the Hub, or minilm; two or more.")],
    text: Annotated[str, typer.Option(help="The file of texts that they are compared on: rows, or .txt with a text a line.")],
    source: TextFiles = TextFiles(),
    hidden: Annotated[int, typer.Option(help="Width of the model whose embeddings are counted.")] = 256,
) -> None:
    """Put tokenizers beside each other: tokens a word, unknown tokens, what does not come back, time and memory."""
    if len(tokenizers) < 2:
        cure = "Name another one: pellucid tokenizer compare my_tokenizer minilm --text reviews.csv."
        raise SettingError(f"one tokenizer alone ({tokenizers[0]})", place="tokenizers", cure=cure)
    pl.show(pl.compare_tokenizers(named_tokenizers(tokenizers), source.read(text), hidden=hidden))


def named_tokenizers(given: Sequence[str]) -> dict[str, str]:
    """What each is called in the table: the last part of its path, or all of it where that is not enough. Raises SettingError."""
    twice = [name for name, count in Counter(map(os.path.abspath, given)).items() if count > 1]
    if twice:
        raise SettingError(f"{os.path.basename(twice[0])!r} is named twice", place="tokenizers", cure="Name each one once.")
    short = {each: os.path.basename(os.path.normpath(each)) for each in given}
    counts = Counter(short.values())
    return {short[each] if counts[short[each]] == 1 else each: each for each in given}


def check_tokenizer_folder(output: str) -> None:
    """Whether a tokenizer can be saved there, before one is trained: a new or empty folder, or one of an earlier tokenizer.

    Raises StorageError.
    """
    attempt(atomic_folder(output))
    folder = Path(output)
    others = sorted(set(os.listdir(folder)) - WRITTEN) if os.path.isdir(folder) else []
    if others:
        problem = f"the folder holds something else than a tokenizer ({others[0]})"
        raise StorageError(problem, place=output, cure="Choose another folder, or remove this one yourself.")


def keep_tokenizer(tokenizer: "PreTrainedTokenizerFast", output: str) -> Path:
    """Save, whole or not at all; gives the folder. Raises StorageError."""
    folder = Path(os.path.abspath(output))
    with atomic_folder(folder) as fresh:
        tokenizer.save_pretrained(fresh)
    return folder
