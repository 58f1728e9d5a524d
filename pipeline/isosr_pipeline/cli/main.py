"""The console script: its commands, and what each error exits with."""

from __future__ import annotations

import importlib
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import click

from isosr_pipeline.cli.options import StepCommand

DONE, FAILED, BAD_INPUT, RESUMABLE = 0, 1, 2, 75

_COMMANDS = {
    "convert": "Convert TIFF, slices, HDF5, Imaris, Zarr or N5 to OME-Zarr.",
    "info": "Say what a store is: shape, voxel size, levels, windows, history.",
    "train": "Train a model on a volume's own sharp planes.",
    "restore": "Restore a volume to isotropic resolution with a model.",
    "psf": "Say how wide the blur is that a model has learned, or that a volume shows.",
    "evaluate": "Measure a volume before and after restoration.",
    "trust": "Map where a restored volume does not explain the measured one.",
    "view": "Look at a volume before and after restoration, in the browser.",
    "report": "List brains on a page, with thumbnails, key figures and their reports.",
    "run": "Convert, train, restore and evaluate; goes on where it stopped.",
    "submit": "Submit chains of SLURM jobs, one for each brain.",
    "status": "Say how far a store, or each step of brains and its job, has come.",
    "cancel": "End the SLURM jobs of brains.",
    "site": "Check the description of a SLURM site.",
    "plan": "Say what running a brain would do and need; writes nothing.",
    "simulate": "Simulate a blurred volume with a known truth.",
}


class _LazyGroup(click.Group):
    """Imports a command when it is called: help must not wait for PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"isosr_pipeline.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="isosr-pipeline")
def group() -> None:
    """Reference-free isotropic super-resolution of fluorescence volumes.

    Learns from a volume's own sharp XY planes how its blurred axial planes should look, and
    restores the whole volume, block by block.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    # Imported here for the same reason as the commands: --help is quick.
    from isosr_pipeline.interrupts import interrupt_on_terminate
    from isosr_pipeline.outlets import drop_lost_outlets

    interrupt_on_terminate()
    StepCommand.debugging = False
    code = _exit_code()
    drop_lost_outlets()
    sys.exit(code)


def _exit_code() -> int:
    """Run the command that was given; return what it exits with."""
    try:
        status = group.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
        return _report(error)
    return status if isinstance(status, int) else DONE


def _interrupted() -> int:
    """Say so before or after a command; those say themselves how to go on."""
    _complain("interrupted; give the same command again")
    return RESUMABLE


def _report(error: Exception) -> int:
    """Show an error as one message and return the exit code that it stands for."""
    from isosr_cluster.errors import ClusterConfigError, ClusterError
    from isosr_models.errors import ModelConfigError, ModelError, ModelFormatError
    from isosr_pipeline.errors import InterruptedRunError, IsosrError, WorkFailedError
    from isosr_pipeline.interrupts import is_interruption

    if StepCommand.debugging:
        traceback.print_exception(error)
    if is_interruption(error):
        return _interrupted()
    known = isinstance(error, IsosrError | ModelError | ClusterError)
    _complain(
        str(error)
        if known
        else f"{type(error).__name__}: {error}\nthis is unexpected: run again with --debug and "
        "report the traceback"
    )
    if isinstance(error, InterruptedRunError):
        return RESUMABLE
    if isinstance(error, ModelConfigError | ModelFormatError | ClusterConfigError):
        return BAD_INPUT
    if isinstance(error, IsosrError) and not isinstance(error, WorkFailedError):
        return BAD_INPUT
    return FAILED


def _complain(message: str) -> None:
    # Where nobody reads it any more, the exit code still tells.
    with suppress(OSError):
        click.echo(f"isosr-pipeline: {message}", err=True)
