"""What a command does in several processes: start them, be quiet in all but the first, and leave errors to the one that started them.

Takes the options of the processes, and the folder of the checkpoints. Gives one line for what went wrong, and how to go on.
Knows nothing of training, and nothing of how the processes talk to each other.
"""

import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout

import typer

from pellucid.apps.terminal import in_shell_words
from pellucid.errors import PellucidError
from pellucid.render import plain
from pellucid.training.launching import BROKEN, SAID, EndedError, ProcessOptions, launch, launched, report
from pellucid.training.processes import Nowhere, first_process
from pellucid.training.resume import CheckpointFolder


def go_on_line(kept: CheckpointFolder) -> str:
    """How to go on with a run that was interrupted; "" where it has left no checkpoint."""
    found = kept.folders()
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return f"{found[0].name} is kept; go on with: pellucid {shlex.join([*words, '--resume'])}" if found else ""


def run_in_processes(options: ProcessOptions, kept: CheckpointFolder, output: str) -> None:
    """Run this very command in each process. Raises EndedError with one line that says what happened, and how to go on.

    `output` is where the first of them saves the model.
    """
    before = saved_in(output)
    for warning in options.warnings():
        typer.echo(f"warning: {warning}", err=True)
    try:
        launch(options, [sys.executable, "-m", "pellucid", *sys.argv[1:]])
    except EndedError as error:
        if error.kind == SAID or options.node_rank:  # the checkpoints are on machine 0
            raise
        between = "\n" if error.kind == BROKEN else ". "
        whole = f"The model is saved in {output}; only what comes after that is missing." if saved_in(output) != before else ""
        ahead = whole or go_on_line(kept) or "No checkpoint was written yet."
        raise EndedError(f"{error.text.rstrip('.')}{between}{ahead}", error.kind) from None
    if options.node_rank:
        typer.echo("done; the model is on machine 0", err=True)


def saved_in(output: str) -> tuple[int, int] | None:
    """Which folder is there, and since when: another one after a save, which puts a whole new one into its place."""
    try:
        found = os.stat(output)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def one_of_several() -> Iterator[None]:
    """Around a command: a process that is not the first is quiet; one that was started here leaves its error where it is looked for.

    Ends the process with exit code 2 for a user's mistake and 1 for any other error that was left so.
    """
    with ExitStack() as stack:
        if not first_process():
            stack.enter_context(redirect_stdout(Nowhere()))
        try:
            yield
        except EndedError as error:
            if error.kind != BROKEN:
                raise
            typer.echo(error.text, err=True)  # a trace of calls is more than a line
            sys.exit(1)
        except Exception as error:
            if not launched():
                raise
            ours = isinstance(error, PellucidError)
            report(error, plain(in_shell_words(str(error))) if ours else traceback.format_exc())
            sys.exit(2 if ours else 1)
