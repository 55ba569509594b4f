"""The command line: train, predict, show, evaluate, demo.

Takes arguments. Gives calls of the public functions, their values shown, and exit code 2 with one clear line for a user's mistake.
Knows nothing that a script with `import pellucid as pl` could not do.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import pellucid as pl
from pellucid.apps.flags import with_flags
from pellucid.errors import PellucidError, SettingError
from pellucid.files import write_text
from pellucid.model import ModelOptions
from pellucid.render import plain
from pellucid.tokens import TokenOptions
from pellucid.training.one_call import TrainOptions
from pellucid.types import Prediction

app = typer.Typer(
    name="pellucid",
    help="From a CSV to a fine-tuned, examined and saved text model, with every step in the open.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RowsPath = Annotated[str, typer.Argument(help="CSV, TSV, JSONL or Parquet file (also .gz), or a folder with a folder per class.")]
ModelFolder = Annotated[str, typer.Argument(help="Folder of a saved model, a name on the Hub, or minilm.")]
TextColumn = Annotated[str | None, typer.Option("--text", help="Column of the text; guessed and said if not given.")]
PairColumn = Annotated[str | None, typer.Option("--text-pair", help="Column of a second text.")]
LabelColumn = Annotated[
    str | None, typer.Option("--label", help="Column of the label, or several columns of 0 and 1, with commas between.")
]
SplitColumn = Annotated[str | None, typer.Option("--split", help="Column that says train or valid (is_valid).")]


def read_rows(rows: str, columns: tuple[str | None, str | None, str | None, str | None]) -> pl.Rows:
    """The rows with the columns that were named: text, text_pair, label, split."""
    text, text_pair, label, split = columns
    several = tuple(label.split(",")) if label and "," in label else label
    return pl.read(rows, text=text, text_pair=text_pair, label=several, split=split)


def open_pipeline(folder: str, task: str = "text-classification") -> pl.Pipeline:
    """A saved pipeline, or a new one from a checkpoint that pellucid did not save."""
    saved = (Path(folder) / "pellucid.json").exists()
    return pl.load(folder) if saved else pl.Pipeline.new(task, folder)


@app.command()
@with_flags
def train(
    rows: RowsPath,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to save the model in.")],
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    split: SplitColumn = None,
    task: Annotated[str, typer.Option(help="Pipeline tag of the task.")] = "text-classification",
    checkpoint: Annotated[str, typer.Option(help="minilm, a folder, or a name on the Hub.")] = "minilm",
    training: TrainOptions = TrainOptions(),
    tokens: TokenOptions = TokenOptions(),
    model: ModelOptions = ModelOptions(),
) -> None:
    """Train on rows, score on the rows that were kept aside, save."""
    data = read_rows(rows, (text, text_pair, label, split))
    pl.show(data)
    trained = pl.train(data, task, checkpoint, options=training, tokens=tokens, model=model)
    pl.show(trained)
    pl.show(pl.evaluate(trained.pipeline, data.valid, train=data.train))
    folder = pl.save(trained.pipeline, output)
    typer.echo(f"\nsaved in {folder}\ntry: pellucid predict {folder} 'a text of yours' --trace")


@app.command()
def predict(
    model: ModelFolder,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, a line each from standard input.")] = None,
    rows: Annotated[str | None, typer.Option(help="A file of rows instead of texts.")] = None,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show every step for each text.")] = False,
) -> None:
    """Answer for texts or for the rows of a file."""
    pipe = open_pipeline(model)
    if rows is not None:
        options = pl.ReadOptions(valid_fraction=0.0)
        split = pl.read(rows, text=text, text_pair=text_pair, label=False, options=options).train
        for position, prediction in enumerate(pipe.predict(split, progress=progress_line("predicting"))):
            typer.echo(f"{split[position].row}\t{answer_line(prediction)}")
        return
    given = texts or [line.rstrip("\n") for line in sys.stdin]
    if not given:
        raise SettingError("no texts came", cure='Give them as arguments: pellucid predict my_model "I loved it".', place="texts")
    if trace:
        for one in given:
            pl.show(pipe.trace(one))
        return
    for one, prediction in zip(given, pipe.predict(given), strict=True):
        typer.echo(f"{answer_line(prediction)}\t{plain(one)}")


def answer_line(prediction: Prediction) -> str:
    """The answer and its score on one line."""
    answer = prediction.answer
    if isinstance(answer, float):
        return f"{answer:.4f}"
    names = answer if isinstance(answer, tuple) else (answer,)
    return ", ".join(f"{name} {prediction.scores[name]:.3f}" for name in names) or "(no label)"


def progress_line(what: str) -> Callable[[int, int], None]:
    """Writes `what done/total` to standard error, on one line that it writes again."""

    def write(done: int, total: int) -> None:
        typer.echo(f"\r{what} {done:,}/{total:,}" + ("\n" if done == total else ""), err=True, nl=False)

    return write


@app.command()
def show(
    model: ModelFolder,
    text: Annotated[str | None, typer.Argument(help="A text to trace through every step.")] = None,
) -> None:
    """Show the steps of a model, where its weights come from, and what was chosen."""
    pipe = open_pipeline(model)
    pl.show(pipe if text is None else pipe.trace(text))


@app.command()
def evaluate(
    model: ModelFolder,
    rows: RowsPath,
    text: TextColumn = None,
    text_pair: PairColumn = None,
    label: LabelColumn = None,
    split: SplitColumn = None,
    on: Annotated[str, typer.Option(help="Which split to score: valid, test, train, or all.")] = "valid",
    json: Annotated[str | None, typer.Option(help="Also write the report to this file as JSON.")] = None,
) -> None:
    """Score a saved model on labelled rows, with intervals, against simple baselines."""
    pipe = open_pipeline(model)
    data = read_rows(rows, (text, text_pair, label, split))
    if on == "all":
        data = pl.read(rows, text=text, text_pair=text_pair, label=label, options=pl.ReadOptions(valid_fraction=0.0))
    report = pl.evaluate(pipe, data["train" if on == "all" else on], train=None if on in ("train", "all") else data.train)
    pl.show(report)
    if json is not None:
        write_text(json, report.to_json())


@app.command()
def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder to save the model in.")] = "demo_model",
    rows: Annotated[int, typer.Option(help="Sentences to train on.")] = 2000,
) -> None:
    """Train on real film reviews, and see every step."""
    from pellucid.apps.demo import run_demo

    run_demo(Path(output), rows)


def main() -> None:
    """The entry point: exit code 2 and one line for a mistake, 130 after Ctrl-C."""
    try:
        app()
    except PellucidError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
