"""The processes of a training: Fabric starts them, and they decide together."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from isosr_models.errors import DivergedError, ModelError
from isosr_pipeline.devices import choose_device
from isosr_pipeline.errors import InputError, InterruptedRunError, IsosrError
from isosr_pipeline.interrupts import handling, stop_requests
from isosr_pipeline.progress import Reporter, SilentReporter, reporter_for
from isosr_pipeline.training.settings import TrainSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from isosr_pipeline.training.launchers import Launcher

Result = TypeVar("Result")


@dataclass
class Team:
    """One of the processes that train together; usually the only one.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
        Launched.
    reporter : Reporter
        Silent in all processes but the first.
    listening : callable
        Returns a context in which a callable tells whether training is asked to stop.
    """

    fabric: Fabric
    reporter: Reporter
    listening: Callable[[], AbstractContextManager[Callable[[], bool]]]

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return bool(self.fabric.is_global_zero)

    def first(self, function: Callable[[], Result]) -> Result:
        """Call a function in the first process; all get its result, or raise its error."""
        outcome: tuple[Any, Exception | None] = (None, None)
        if self.is_first:
            try:
                outcome = (function(), None)
            except (IsosrError, ModelError) as error:
                outcome = (None, error)
        result, failure = self.fabric.broadcast(outcome)
        if failure is not None:
            raise failure
        return result  # type: ignore[no-any-return]

    def of_first(self, value: float) -> float:
        """Return what the first process has: clocks differ."""
        return value if self.fabric.world_size == 1 else float(self.fabric.broadcast(value))

    def agree(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process: clocks differ, and signals."""
        if self.fabric.world_size == 1:
            return flags
        given = torch.tensor(flags, dtype=torch.float32, device=self.fabric.device)
        found = self.fabric.all_reduce(given, reduce_op="sum")
        assert isinstance(found, torch.Tensor)  # noqa: S101 - a tensor in, a tensor out
        return tuple(bool(flag) for flag in found.tolist())


def launch(task: Callable[[Team], None], settings: TrainSettings, reporter: Reporter) -> None:
    """Do a task in as many processes as asked for; in this one if it is one.

    Under SLURM's ``srun`` and under ``torchrun`` the processes are there already, and each comes
    here; as many on each node as there should be devices.

    Parameters
    ----------
    task : callable
        Can be pickled.
    settings : TrainSettings
    reporter : Reporter

    Raises
    ------
    InputError
        When there are fewer GPUs than devices, or a launcher has started other processes.
    IsosrError, ModelError
        What the task raises.
    """
    fabric, launcher = _create(settings)
    if launcher is not None or settings.devices == 1:
        fabric.launch()
        shown = reporter if fabric.is_global_zero else SilentReporter()
        task(Team(fabric, shown, _patiently if launcher else stop_requests))
        return
    _launch_members(fabric, task, reporter)


def _launch_members(fabric: Fabric, task: Callable[[Team], None], reporter: Reporter) -> None:
    """Start processes, and wait for them."""
    context = multiprocessing.get_context("spawn")
    # Without a lock, which a signal may find taken by the very thread that it interrupts.
    stop = context.RawValue(ctypes.c_bool, False)
    errors = context.SimpleQueue()
    before = set(multiprocessing.active_children())
    try:
        with stop_requests(partial(_set, stop)):
            member: Callable[..., None] = _member
            fabric.launch(member, task, stop, errors, not isinstance(reporter, SilentReporter))
    except KeyboardInterrupt:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise
    except Exception as error:
        if not errors.empty():
            raise errors.get() from error
        if stop.value:
            # A process that a signal met before it listened.
            raise InterruptedRunError(
                "interrupted before training began; give the same command again, with --resume if "
                "it was there (run does so by itself)"
            ) from error
        raise
    if not errors.empty():
        raise errors.get()


def _member(
    fabric: Fabric,
    task: Callable[[Team], None],
    stop: ctypes.c_bool,
    errors: SimpleQueue[Exception],
    is_loud: bool,
) -> None:
    """Do a task in a process that `launch` started."""
    import sys

    # What a terminal sends reaches all processes, and the one that started them tells the others.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _set(stop))

    @contextmanager
    def listening() -> Iterator[Callable[[], bool]]:
        yield lambda: bool(stop.value)

    shown = fabric.is_global_zero and is_loud
    reporter = reporter_for(sys.stderr) if shown else SilentReporter()
    try:
        task(Team(fabric, reporter, listening))
    except (DivergedError, InterruptedRunError) as error:
        # All processes agree on these and end by themselves.
        if fabric.is_global_zero:
            errors.put(error)
    except (IsosrError, ModelError) as error:
        errors.put(error)
        raise


@contextmanager
def _patiently() -> Iterator[Callable[[], bool]]:
    """Listen for signals, however often they come.

    A launcher passes on what all processes of its job were sent too; and ends what does not stop.
    """
    stop = ctypes.c_bool(False)
    with handling(lambda *_: _set(stop)):
        yield lambda: bool(stop.value)


def _set(flag: ctypes.c_bool) -> None:
    flag.value = True


def _create(settings: TrainSettings) -> tuple[Fabric, Launcher | None]:
    """Return Fabric for a training, and what has started its processes, if they are there."""
    # It takes more than a second to import, which other commands should not wait for.
    from lightning_fabric import Fabric

    from isosr_pipeline.training.launchers import environment_of, find_launcher

    device = choose_device(settings.device).type
    check_devices(settings)
    launcher = find_launcher()
    if launcher is not None:
        launcher.check(settings.devices)
    processes = launcher.processes if launcher else settings.devices
    # Spawned, since what is read and compressed by threads does not survive a fork.
    several = "ddp" if launcher else "ddp_spawn"
    fabric = Fabric(
        accelerator=device,
        devices=settings.devices,
        num_nodes=launcher.nodes if launcher else 1,
        strategy=several if processes > 1 else "auto",
        precision="bf16-mixed" if choose_precision(settings) == "bf16" else "32-true",
        plugins=[environment_of(launcher)],
    )
    return fabric, launcher


def check_devices(settings: TrainSettings) -> None:
    """Refuse more GPUs than there are, and a precision that they don't have.

    Raises
    ------
    InputError
        Naming what there is.
    """
    if choose_device(settings.device).type != "cuda":
        return
    if settings.devices > (found := torch.cuda.device_count()):
        raise InputError(
            f"devices is {settings.devices}, and there are {found} GPUs here; give fewer, or let "
            "each process of a launcher see all GPUs of its node"
        )
    if settings.precision == "bf16" and not torch.cuda.is_bf16_supported(False):
        raise InputError("precision is bf16, which this GPU does not have; give --precision 32")


def choose_precision(settings: TrainSettings) -> Literal["32", "bf16"]:
    """Return the precision of forward passes, chosen for the device if it was not given."""
    if settings.precision != "auto":
        return settings.precision
    on_gpu = choose_device(settings.device).type == "cuda"
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported(False) else "32"
