"""Turns option dataclasses into flags of the command line.

Takes a function whose parameters may be dataclasses. Gives a function with one flag for each field that carries a help text:
`batch_size: Annotated[int, "rows in a batch"] = 16` becomes `--batch-size`. Knows nothing of what the options mean.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer


def flag_fields(options: type) -> Mapping[str, tuple[Any, str, Any]]:
    """The fields with a help text: name → (type, help, default)."""
    hints = get_type_hints(options, include_extras=True)
    found = {}
    for field in fields(options):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            kind, help_text = get_args(hint)[:2]
            found[field.name] = (kind, help_text, default_of(field))
    return found


def default_of(field: Field[Any]) -> Any:
    """The default of a field that has one."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each dataclass parameter replaced by its flags."""
    hints = get_type_hints(command, include_extras=True)
    parameters, owners = [], {}
    for name, parameter in inspect.signature(command).parameters.items():
        if not is_dataclass(hints[name]):
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        owners[name] = hints[name]
        for field, (kind, help_text, default) in flag_fields(hints[name]).items():
            option = typer.Option("--" + field.replace("_", "-"), help=help_text, show_default=default is not None)
            flag = inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
            parameters.append(flag)

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:  # typer calls a command by keyword
        for name, options in owners.items():
            values[name] = options(**{field: values.pop(field) for field in flag_fields(options)})
        command(**values)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # the documented way to say it
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del wrapper.__wrapped__  # typer would look through it
    return wrapper
