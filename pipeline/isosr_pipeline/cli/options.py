"""Options that commands share, and how they become the parameters of a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click
from pydantic import ValidationError

from isosr_pipeline.errors import InterruptedRunError
from isosr_pipeline.explaining import problems
from isosr_pipeline.settings import Settings
from isosr_pipeline.yaml_files import read_yaml

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Model = TypeVar("Model", bound=Settings)


class StepCommand(click.Command):
    """A command with an example in its help, and ``--debug``.

    Parameters
    ----------
    example : str
        Shown at the end of the help.
    goes_on : bool
        Whether the same command goes on where it was interrupted, without ``--resume``.
    """

    debugging: ClassVar[bool] = False

    def __init__(self, *args: Any, example: str, goes_on: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.goes_on = goes_on
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                help="Add the traceback to an error.",
                callback=self._debug,
            )
        )

    @staticmethod
    def _debug(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        StepCommand.debugging = StepCommand.debugging or value

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interruption says how to go on."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Exception) as error:
            # Imported here, as all that an error needs: --help is quick.
            from isosr_pipeline.interrupts import is_interruption

            if not is_interruption(error):
                raise
            raise InterruptedRunError(f"interrupted; {self._way_on()}") from error

    def _way_on(self) -> str:
        if any(param.name == "if_exists" for param in self.params):
            return "what is done is kept: go on with --resume"
        if self.goes_on:
            return "what is done is kept: give the same command again to go on"
        return "nothing is kept: give the same command again"

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        with formatter.section("Example"):
            formatter.write_text(self.example)


def setting(model: type[Settings], name: str, metavar: str, text: str) -> Decorator:
    """Make an option of a step's parameter; its default is the parameter's own.

    Parameters
    ----------
    model : type of Settings
    name : str
        Of the parameter.
    metavar : str
        How its value is written, such as ``"Z,Y,X"``.
    text : str
        Help.
    """
    default = model.model_fields[name].default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    suffix = "" if default is None else f"  [default: {shown}]"
    return click.option(
        f"--{name.replace('_', '-')}", name, metavar=metavar, help=f"{text}{suffix}"
    )


def switch(model: type[Settings], name: str, text: str) -> Decorator:
    """Make a flag of a step's parameter that is off by default.

    Parameters
    ----------
    model : type of Settings
    name : str
        Of the parameter.
    text : str
        Help.
    """
    assert model.model_fields[name].default is False  # noqa: S101 - others are made by `either`
    return click.option(f"--{name.replace('_', '-')}", name, is_flag=True, default=None, help=text)


def either(model: type[Settings], name: str, text: str) -> Decorator:
    """Make a pair of flags, ``--name`` and ``--no-name``, of a step's parameter.

    Other than of a `switch`, it is known whether one was given.

    Parameters
    ----------
    model : type of Settings
    name : str
        Of the parameter.
    text : str
        Help.
    """
    flag = name.replace("_", "-")
    state = "on" if model.model_fields[name].default else "off"
    return click.option(
        f"--{flag}/--no-{flag}", name, default=None, help=f"{text}  [default: {state}]"
    )


def settings_from(
    model: type[Model], given: dict[str, Any], parameters: Path | None = None
) -> Model:
    """Make the parameters of a step from the options that were given.

    Parameters
    ----------
    model : type of Settings
    given : dict
        Options by their names; None: not given.
    parameters : Path or None
        A YAML file with parameters that were not given.

    Raises
    ------
    click.UsageError
        Naming the option, the value and the rule.
    InputError
        Naming what is wrong with the file.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if parameters is not None:
        kept = read_yaml(parameters, model, "a file of parameters")
        chosen = {**kept.model_dump(exclude_unset=True), **chosen}
    try:
        return model.model_validate(chosen)
    except ValidationError as error:
        wrong = problems(error, model).items()
        raise click.UsageError(
            "; ".join(f"--{name.replace('_', '-')}: {text}" for name, text in wrong)
        ) from error


def cluster_options(function: Function) -> Function:
    """Add ``--cluster`` and ``--workers``."""
    function = click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Processes on this machine (default: one a core or GPU) or of the site.",
    )(function)
    return click.option(
        "--cluster",
        default="local",
        show_default=True,
        metavar="local|SITE.yaml|tcp://HOST:PORT",
        help="Where the work runs: this machine, jobs of a SLURM site, or a Dask scheduler.",
    )(function)


def existing_options(function: Function) -> Function:
    """Add ``--resume`` and ``--overwrite``; the command gets `if_exists`."""
    function = click.option(
        "--overwrite",
        "if_exists",
        flag_value="overwrite",
        default="refuse",
        help="Replace an output that exists.",
    )(function)
    return click.option(
        "--resume", "if_exists", flag_value="resume", help="Go on with an unfinished output."
    )(function)
