"""Turns option dataclasses into flags of the command line.

Takes a function whose parameters may be dataclasses. Gives a function with one flag for each field that carries a help text:
`batch_size: Annotated[int, "rows in a batch"] = 16` becomes `--batch-size`. Knows nothing of what the options mean.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

Helps = Mapping[str, str]  # field → help text, for fields whose dataclass says none


def flag_fields(options: type, helps: Helps) -> Mapping[str, tuple[Any, str, Any]]:
    """The fields with a help text, their own or one of `helps`: name → (type, help, default)."""
    hints = get_type_hints(options, include_extras=True)
    found = {}
    for field in fields(options):
        hint, said = hints[field.name], helps.get(field.name, "")
        if get_origin(hint) is Annotated:
            hint, said = get_args(hint)[:2]
        if said:
            found[field.name] = (plain_type(hint), said, default_of(field))
    return found


def plain_type(hint: Any) -> Any:
    """The type that a flag takes: names to choose from are text, and the dataclass says which there are."""
    return str if get_origin(hint) is Literal else hint


def words_beside(hint: Any) -> tuple[str, ...]:
    """The words that a flag takes in the place of a whole number: auto, of `int | Literal["auto"]`; none where it is no such flag."""
    names = [one for one in get_args(hint) if get_origin(one) is Literal]
    return get_args(names[0]) if names and int in get_args(hint) else ()


def number_or(words: tuple[str, ...]) -> Callable[[Any], Any]:
    """What reads the value of such a flag."""

    def number_or_word(given: Any) -> Any:
        try:
            return given if given in words else int(given)
        except ValueError:
            raise typer.BadParameter(f"{given!r} is no whole number, and not {' or '.join(words)}.") from None

    return number_or_word


def default_of(field: Field[Any]) -> Any:
    """The default of a field that has one."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def options_of(hint: Any) -> tuple[type, Helps] | None:
    """The dataclass behind a parameter, also one in `Annotated[Options, {field: help}]`; None for any other parameter."""
    kind, *extra = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return None
    return kind, next((one for one in extra if isinstance(one, Mapping)), {})


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each dataclass parameter replaced by its flags."""
    hints = get_type_hints(command, include_extras=True)
    parameters, owners = [], {}
    for name, parameter in inspect.signature(command).parameters.items():
        options = options_of(hints[name])
        if options is None:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        found = flag_fields(*options)
        owners[name] = options[0], tuple(found)
        for field, (kind, help_text, default) in found.items():
            option = typer.Option("--" + field.replace("_", "-"), help=help_text, show_default=default is not None)
            if words := words_beside(kind):
                option.parser, option.metavar, kind = number_or(words), f"<int or {' or '.join(words)}>", Any
            flag = inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
            parameters.append(flag)

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:  # typer calls a command by keyword
        for name, (kind, names) in owners.items():
            values[name] = kind(**{field: values.pop(field) for field in names})
        command(**values)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # the documented way to say it
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del wrapper.__wrapped__  # typer would look through it
    return wrapper
