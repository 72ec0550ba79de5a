"""How an option is declared: once, as the field of a dataclass, with its default, help, limits and the paper's value.

From the fields come the constructor's checks, the command line, and the documentation's table.
"""

import math
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Concatenate, ParamSpec, get_args

Params = ParamSpec('Params')


@dataclass(frozen=True)
class Limit:
    """The range of a number: a test, and the range in words."""

    holds: Callable[[float], bool]
    wanted: str


ABOVE_ZERO = Limit(lambda value: 0 < value < math.inf, 'above 0')
ZERO_OR_MORE = Limit(lambda value: 0 <= value < math.inf, '0 or more')
ONE_OR_MORE = Limit(lambda value: isinstance(value, int) and value >= 1, 'a whole number, 1 or more')


@dataclass(frozen=True)
class Option:
    """What a field is beside its type and default.

    Attributes:
        help: What it means, in words.
        paper: The paper's value, in words; '': the paper has no such thing.
        group: Title of its group in the help of the command line; '': it has no option there.
        metavar: Stands for its value there; None: N for a whole number, X for another.
        limit: The range of a number.
        choices: The values of a text.
        cli_default: Its default there, where that is another.
        roles: What it is for, beside what a network learns: see `options/roles.py`.
    """

    help: str
    paper: str = ''
    group: str = ''
    metavar: str | None = None
    limit: Limit | None = None
    choices: tuple[str, ...] = ()
    cli_default: Any = None
    roles: str = ''


def option(default: Any, help: str, group: str = '', **settings: Any) -> Any:
    """A field of a dataclass, for `Option`'s settings."""
    return field(default=default, metadata={'option': Option(help, group=group, **settings)})


def _declared(config_class: Any) -> Iterator[tuple[Field[Any], Option]]:
    """The fields of a dataclass that are options."""
    return ((one, one.metadata['option']) for one in fields(config_class) if 'option' in one.metadata)


def options_of(config_class: Any) -> dict[str, Option]:
    """The options of a dataclass by the names of their fields."""
    return {one.name: declared for one, declared in _declared(config_class)}


def describe(config_class: Any) -> Any:
    """Class decorator: the fields' help becomes the `Attributes` of the docstring."""
    lines = [f'        {name}: {one.help[0].upper()}{one.help[1:]}.' for name, one in options_of(config_class).items()]
    config_class.__doc__ = '\n'.join([config_class.__doc__.rstrip(), '', '    Attributes:', *lines, '    '])
    return config_class


def takes(
    config_class: Callable[Params, Any],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, Params], None]]:
    """Decorator of a constructor that takes a dataclass's fields and hands them on: type checkers know them."""
    return lambda constructor: constructor


def add_options(
    parser: ArgumentParser, config_class: Any, prefix: str = '', groups: tuple[str, ...] | None = None
) -> None:
    """Add a dataclass's fields to a command line: `prob` is `--repaint-prob` with the prefix 'repaint_'.

    `groups` has the titles of those that are added; None: all.
    """
    present = {group.title: group for group in parser._action_groups}
    for one, declared in _declared(config_class):
        title = declared.group
        if title in groups if groups is not None else title:
            group = present.get(title) or present.setdefault(title, parser.add_argument_group(title))
            group.add_argument('--' + f'{prefix}{one.name}'.replace('_', '-'), **_settings(one, declared))


def _settings(one: Field[Any], declared: Option) -> dict[str, Any]:
    """A field's keyword arguments for argparse."""
    settings: dict[str, Any] = {'help': declared.help}
    if declared.paper:
        settings['help'] += f'. Paper: {declared.paper}'
    if one.type is bool:
        return {**settings, 'action': 'store_true'}
    default = one.default if declared.cli_default is None else declared.cli_default
    kind = type(default) if default is not None else get_args(one.type)[0]  # of `int | None`
    settings |= {'type': kind, 'default': default}
    if declared.choices:
        return {**settings, 'choices': declared.choices}
    return {**settings, 'metavar': declared.metavar or {int: 'N', float: 'X'}.get(kind)}


def problems(config_class: Any, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and problem of each of a dataclass's options whose value is none of its choices or out of its limits.

    `values` are by the names of fields; those that it lacks are not looked at.
    """
    for one, declared in ((one, declared) for one, declared in _declared(config_class) if one.name in values):
        value = values[one.name]
        if declared.choices and value not in declared.choices:
            yield one.name, f'is {value!r}; choose one of {", ".join(declared.choices)}'
        elif one.type is bool and not isinstance(value, bool):
            yield one.name, f'is {value!r}; it must be True or False'
        elif declared.limit is not None and not (value is None and one.default is None):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not declared.limit.holds(value):
                yield one.name, f'is {value!r}; it must be {declared.limit.wanted}'
