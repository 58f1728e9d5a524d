"""Options of ``train``: of all its methods, each saying whose it is where not all have it."""

from __future__ import annotations

import click

from isosr_pipeline.cli.options import Decorator
from isosr_pipeline.training.settings import METHODS


def setting(name: str, metavar: str, text: str) -> Decorator:
    """Make an option of a parameter of training.

    Parameters
    ----------
    name : str
        Of the parameter.
    metavar : str
        How its value is written, such as ``"Z,Y,X"``.
    text : str
        Help.
    """
    return click.option(_flag(name), name, metavar=metavar, help=f"{text}{_defaults(name)}")


def switch(name: str, text: str) -> Decorator:
    """Make a flag of a parameter of training that is off by default; see `setting`."""
    return click.option(
        _flag(name), name, is_flag=True, default=None, help=f"{text}{_owners(name)}"
    )


def either(name: str, text: str) -> Decorator:
    """Make a pair of flags, ``--name`` and ``--no-name``; see `setting`."""
    flags = f"{_flag(name)}/--no-{_flag(name)[2:]}"
    return click.option(flags, name, default=None, help=f"{text}{_defaults(name)}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _defaults(name: str) -> str:
    """Return the defaults of a parameter: one, or one for each method that has it."""
    found: dict[str, list[str]] = {}
    for method, model in METHODS.items():
        if name in model.model_fields:
            found.setdefault(_shown(model.model_fields[name].default), []).append(method)
    if sum(map(len, found.values())) == len(METHODS) and len(found) == 1:
        default = next(iter(found))
        return f"  [default: {default}]" if default else ""
    if list(found) == [""]:
        return _owners(name)
    listed = (f"{' and '.join(who)}: {default or 'none'}" for default, who in found.items())
    return f"  [{'; '.join(listed)}]"


def _owners(name: str) -> str:
    who = [method for method, model in METHODS.items() if name in model.model_fields]
    return "" if len(who) == len(METHODS) else f"  [{', '.join(who)}]"


def _shown(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
