"""The command line: train, predict, show, evaluate, demo, and the commands about tokenizers.

Takes arguments. Gives calls of the public functions, their values shown, and exit code 2 with one clear line for a user's mistake.
Knows nothing that a script with `import pellucid as pl` could not do.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import pellucid as pl
from pellucid.apps.answers import answer_line, answer_table
from pellucid.apps.flags import with_flags
from pellucid.apps.inputs import (
    AdapterFlags,
    Labelled,
    LongFlagValues,
    SavedFlags,
    TaskFlags,
    Texts,
    check_file,
    check_folder,
    given_texts,
    joined,
    keep,
    open_pipeline,
)
from pellucid.apps.several import go_on_line, one_of_several, run_in_processes
from pellucid.apps.terminal import close_quietly, forgiving_streams, in_shell_words, progress
from pellucid.apps.tokenizer_commands import tokenizers
from pellucid.errors import PellucidError, SettingError
from pellucid.files import write_json, write_text
from pellucid.model import ModelOptions
from pellucid.render import plain, to_csv
from pellucid.tokens import TokenOptions
from pellucid.training.interrupts import stopped_by
from pellucid.training.launching import ProcessOptions, launched
from pellucid.training.one_call import TrainOptions
from pellucid.training.processes import first_process
from pellucid.training.resume import CheckpointFolder
from pellucid.view import Lines

app = typer.Typer(
    name="pellucid",
    help="From a CSV to a fine-tuned, examined and saved text model, with every step in the open.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tokenizers)
TEXT_START = 60  # characters of a text beside its answer in a terminal; all of it in a pipe
STOPPED = 130  # by Ctrl-C, as shells count it

RowsPath = Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet file (also .gz), or a folder with a folder per class.")]
ModelFolder = Annotated[str, typer.Argument(help="Folder of a saved model, a name on the Hub, or minilm.")]
TokenFlags = Annotated[TokenOptions, {"max_length": "tokens of a row, at most; what the model can read if not given"}]
LongFlags = Annotated[
    LongFlagValues,
    {
        "long": "what happens to texts beyond that: truncate, windows or chunk-and-join; what the task does if not given",
        "stride": "tokens that windows share",
    },
]
ModelFlags = Annotated[
    ModelOptions,
    {
        "device": "auto, cpu, cuda",
        "dtype": "float32, float16, bfloat16 or auto (as the checkpoint has it)",
        "new_head": "drop the head of a checkpoint that was trained for other labels",
        "attention_dropout": "dropout of attention weights in training; 0 makes long texts much faster on a CPU",
    },
]

FASTER = "Keep freed memory, and multiply through oneDNN where that is faster: the same numbers up to rounding."


@app.callback(invoke_without_command=True)
def pellucid(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """From a CSV to a fine-tuned, examined and saved text model, with every step in the open."""
    if version:
        typer.echo(f"pellucid {pl.__version__}")
        raise typer.Exit


@app.command()
@with_flags
def train(
    rows: RowsPath,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to save the model in.")],
    source: Labelled = Labelled(),
    task: TaskFlags = TaskFlags(),
    checkpoint: Annotated[str, typer.Option(help="minilm, a folder, or a name on the Hub.")] = "minilm",
    training: TrainOptions = TrainOptions(),
    adapters: AdapterFlags = AdapterFlags(),
    tokens: TokenFlags = TokenOptions(),
    long: LongFlags = LongFlagValues(),
    model: ModelFlags = ModelOptions(),
    processes: ProcessOptions = ProcessOptions(),
    faster: Annotated[bool, typer.Option("--faster/--no-faster", help=FASTER)] = True,
) -> None:
    """Train on rows, save, score on the rows that were kept aside.

    Checkpoints are written beside the output while it trains, and removed once the model is saved.
    """
    small = adapters.chosen()
    check_folder(output)
    kept = CheckpointFolder(f"{os.path.abspath(output)}.checkpoints")
    with kept.held() if first_process() and not processes.several else nullcontext(), stoppable(kept):
        check_resume(kept, training.resume)
        if processes.several:
            run_in_processes(processes, kept, output)
            return
        chosen = task.chosen()
        data = source.read(rows, chosen.kind)
        aside = data.valid
        pl.show(data)
        options = replace(training, checkpoints=kept, adapter=small, faster=faster)
        trained = pl.train(data, chosen, checkpoint, options=options, tokens=long.added_to(tokens), model=model)
        if not first_process():
            return
        pl.show(replace(trained, notes=tuple(note for note in trained.notes if note not in data.notes)))
        pipe = adapters.to_keep(trained.pipeline)
        folder = keep(pipe, output)
        kept.discard()
    typer.echo(f"\nsaved in {folder}\n")
    typer.echo(f"scoring {len(aside):,} rows", err=True)
    pl.show(pl.evaluate(pipe, aside, train=data.train))
    typer.echo(f"\ntry: pellucid predict {output} 'a text of yours' --trace")


def check_resume(kept: CheckpointFolder, resume: bool) -> None:
    """Whether checkpoints of an interrupted run are wanted, before any work is done. Raises SettingError."""
    if not resume and first_process() and kept.folders():
        cure = "Pass --resume to go on with it, or remove that folder to begin anew."
        raise SettingError(f"a run was interrupted, {kept.folders()[0].name} is there", place=str(kept.path), cure=cure)


@contextmanager
def stoppable(kept: CheckpointFolder) -> Iterator[None]:
    """While it trains, SIGTERM does what Ctrl-C does; the last line says how to go on."""
    try:
        with stopped_by(signal.SIGTERM):
            yield
    except KeyboardInterrupt:
        if not launched() and (line := go_on_line(kept)):
            typer.echo(f"\n{line}", err=True)
        raise


@app.command()
@with_flags
def predict(
    model: ModelFolder,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, a line each from standard input.")] = None,
    rows: Annotated[str | None, typer.Option(help="A file of rows instead of texts.")] = None,
    source: Texts = Texts(),
    output: Annotated[str | None, typer.Option("--output", "-o", help="Write a CSV with the scores of all labels to this file.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show every step for each text.")] = False,
    task: SavedFlags = SavedFlags(),
) -> None:
    """Answer for texts or for the rows of a file: row, answer, score and text, with TABs between."""
    if rows is not None and (texts or trace):
        raise SettingError("texts and --trace do not go with --rows", place="--rows", cure="Give either texts or a file of rows.")
    if output is not None:
        check_file(output)
    data = None if rows is None else source.read(rows)  # before the model: its mistakes are found sooner
    if data is None and not texts and sys.stdin.isatty():
        typer.echo("texts, one a line; Ctrl-D ends them", err=True)
    pipe = open_pipeline(model, task)
    given = given_texts(texts or (), sys.stdin.buffer, pipe.task.reads) if data is None else []
    if trace:
        for one in given:
            pl.show(pipe.trace(one))
        return
    found = pipe.predict(given if data is None else data, progress=progress("predicting", sys.stderr))
    if output is not None:
        write_text(output, to_csv(answer_table(zip(found.split, found, strict=True))))
        typer.echo(f"{len(found):,} answers in {output}", err=True)
        return
    shown = TEXT_START if sys.stdout.isatty() else None
    for example, prediction in zip(found.split, found, strict=True):
        typer.echo(answer_line(example, prediction, shown))


@app.command()
@with_flags
def show(
    model: ModelFolder,
    texts: Annotated[list[str] | None, typer.Argument(help="A text (or two, for a pair) to trace through every step.")] = None,
    task: SavedFlags = SavedFlags(),
) -> None:
    """Show the steps of a model, where its weights come from, and what was chosen."""
    pipe = open_pipeline(model, task)
    for one in given_texts(texts, sys.stdin.buffer, pipe.task.reads) if texts else []:
        pl.show(pipe.trace(one))
    if not texts:
        pl.show(pipe)


@app.command()
@with_flags
def evaluate(
    model: ModelFolder,
    rows: RowsPath,
    source: Labelled = Labelled(),
    on: Annotated[str, typer.Option(help="Which split to score: valid, test, train, or all.")] = "valid",
    json: Annotated[str | None, typer.Option(help="Write the report to this file as JSON; - is standard output alone.")] = None,
    task: SavedFlags = SavedFlags(),
) -> None:
    """Score a saved model on labelled rows, with intervals, against simple baselines."""
    if json not in (None, "-"):
        check_file(str(json))
    pipe = open_pipeline(model, task)
    data = source.read(rows, pipe.task.kind)
    split = joined(data) if on == "all" else data[on]
    typer.echo(f"scoring {len(split):,} rows ({on})", err=True)
    report = pl.evaluate(pipe, split, train=None if on in ("train", "all") else data.splits.get("train"))
    if json == "-":
        typer.echo(report.to_json())
        return
    if data.notes:
        pl.show(Lines("chosen for you", tuple(map(str, data.notes))))
    pl.show(report)
    if json is not None:
        write_json(json, report.to_dict())
        typer.echo(f"\nthe report is in {json}")


@app.command()
def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to save the model in.")] = "demo_model",
    rows: Annotated[int, typer.Option(help="Sentences to train on.")] = 2000,
) -> None:
    """Train on real film reviews, and see every step."""
    from pellucid.apps.demo import run_demo

    check_folder(output)
    run_demo(Path(output), rows)


def main() -> None:
    """The entry point: exit code 2 and one line for a mistake, 130 after Ctrl-C."""
    forgiving_streams()
    try:
        with stopped_by(signal.SIGINT), one_of_several():
            app(prog_name="pellucid")
    except PellucidError as error:
        typer.echo(f"error: {plain(in_shell_words(str(error)))}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != STOPPED:
            raise
        if not launched():
            typer.echo("\nstopped", err=True)
        exec("")  # Python forgets an interrupt of the `exec` before: `python -m` would end by the signal, not with a code
        sys.exit(STOPPED)
    finally:
        close_quietly()
