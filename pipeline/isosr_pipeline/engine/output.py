"""Outputs: begun, resumed or refused, and finished, in one way for all steps that fill a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from distributed import Client

from isosr_pipeline.engine.checking import find_altered, overlapping
from isosr_pipeline.engine.filling import TIMEOUT, Job, fill
from isosr_pipeline.engine.ledger import Ledger, differences, not_being_filled
from isosr_pipeline.engine.regions import DownsampleRegion, RegionPlan
from isosr_pipeline.errors import (
    BusyError,
    HopelessError,
    InputError,
    OutputExistsError,
    ResumeError,
    WorkFailedError,
)
from isosr_pipeline.geometry import RegionGrid
from isosr_pipeline.paths import check_creatable
from isosr_pipeline.progress import Reporter
from isosr_pipeline.settings import IfExists
from isosr_pipeline.store.creation import (
    create_volume,
    remove_leftovers,
    remove_store,
    require_store,
    sync_metadata,
)
from isosr_pipeline.store.intensity import CONFOCAL, LIGHT_SHEET, Histogram, Window
from isosr_pipeline.store.metadata import Provenance, StoreAttributes
from isosr_pipeline.store.spec import VolumeSpec
from isosr_pipeline.store.volume import Volume

_MOST_ROUNDS = 3


def versions() -> dict[str, str]:
    """Return the versions of the program and of the libraries that decide a result."""
    return {
        name: version(name) for name in ("isosr-pipeline", "numpy", "tensorstore", "torch", "zarr")
    }


@dataclass
class Output:
    """A store that is being filled.

    Parameters
    ----------
    volume : Volume
    spec : VolumeSpec
        What the volume was created as.
    plan : RegionPlan
        How it is cut into regions.
    ledger : Ledger
    history : list of Provenance
        Steps that lead to it, this one last.
    """

    volume: Volume
    spec: VolumeSpec
    plan: RegionPlan
    ledger: Ledger
    history: list[Provenance]

    def fill(
        self,
        client: Client,
        job: Job,
        reporter: Reporter,
        label: str,
        *,
        timeout: float | None = TIMEOUT,
    ) -> None:
        """Fill the regions of level 0 and of what its regions write with it, then all other levels.

        Parameters
        ----------
        client : distributed.Client
        job : callable
            Writes a region of level 0; see `engine.filling.fill`.
        reporter : Reporter
        label : str
            Name of the pass over level 0.
        timeout : float or None
            Seconds that a region may take.
        """
        grids = self.plan.grids(self.spec)
        names = {level: _pass_name(level, label) for level in grids}
        if any(self.ledger.done[name] for name in names.values()):
            self._forget_altered(grids, names, reporter)
        for _ in range(_MOST_ROUNDS):
            try:
                self._fill(client, job, reporter, grids, names, timeout)
            except HopelessError:
                raise
            except WorkFailedError:
                # Coarser levels fail where the one that they are made from was altered.
                self.ledger.require_there()
                if not self._forget_altered(grids, names, reporter):
                    raise
            else:
                if not self._forget_altered(grids, names, reporter):
                    return
        raise WorkFailedError(
            f"{self.volume.path}: its files are altered by another program again and again while "
            "it is being filled; end that, then go on with --resume (run does so by itself)"
        )

    def _fill(
        self,
        client: Client,
        job: Job,
        reporter: Reporter,
        grids: dict[int, RegionGrid],
        names: dict[int, str],
        timeout: float | None,
    ) -> None:
        for level, grid in grids.items():
            average = DownsampleRegion(self.volume.path, level, self.spec.levels[level])
            work = average if level else job
            fill(client, grid, work, self.ledger, reporter, names[level], timeout=timeout)

    def _forget_altered(
        self, grids: dict[int, RegionGrid], names: dict[int, str], reporter: Reporter
    ) -> int:
        """Take back that regions are done whose files are not as they were written.

        So are those of coarser levels that are made from them.
        """
        total = 0
        steps = {level: self.spec.levels[level].step for level in grids}
        made_anew: dict[int, set[int]] = {level: set() for level in grids}
        found = find_altered(self.ledger)
        for level, grid in grids.items():
            altered = found.get(names[level], set())
            made_anew[level].update(altered)
            for coarser in (other for other in grids if other > level):
                for index in made_anew[level]:
                    made_anew[coarser].update(
                        overlapping(grid[index], steps[level], grids[coarser], steps[coarser])
                    )
            again = made_anew[level].intersection(self.ledger.done[names[level]])
            for index in sorted(again):
                why = "missing or altered" if index in altered else "made from altered ones"
                # What can't be recorded is found again at the next attempt.
                with suppress(OSError):
                    self.ledger.record_failure(names[level], index, f"its files are {why}")
            if again:
                reporter.say(
                    f"{names[level]}: {len(again)} regions are done again, as files of "
                    f"{len(altered)} are missing or were altered since"
                )
            total += len(again)
        return total

    def windows(self, label: str) -> list[list[Window]]:
        """Find each channel's intensity windows from what a pass recorded of its regions.

        Parameters
        ----------
        label : str
            A pass whose results have ``"channel"`` and ``"histogram"``.
        """
        histograms = [Histogram(self.volume.dtype) for _ in range(self.volume.shape[0])]
        for result in self.ledger.results(label):
            histograms[result["channel"]].add_encoded(result["histogram"])
        return [[h.window(CONFOCAL), h.window(LIGHT_SHEET)] for h in histograms]

    def finish(self, windows: list[list[Window]], figures: dict[str, Any]) -> None:
        """Mark the store as complete, with what was measured on the way.

        Raises
        ------
        WorkFailedError
            When the file system refuses; all regions are kept.
        """
        self.history[-1].figures = figures
        self.ledger.require_there()
        try:
            # Workers that were killed on the way may have left some.
            remove_leftovers(self.volume.path)
            self.volume.update(
                StoreAttributes(
                    id=self.volume.require_own().id,
                    complete=True,
                    windows=windows,
                    history=self.history,
                    files=self.volume.count_files(),
                )
            )
            sync_metadata(self.volume.path)
            self.ledger.remove()
        except OSError as error:
            raise WorkFailedError(
                f"{self.volume.path}: all regions are done and kept, but the store can't be marked "
                f"as complete ({error.strerror or error}); mend that, then go on with --resume "
                "(run does so by itself)"
            ) from error


def check_output(
    path: Path, history: list[Provenance], if_exists: IfExists
) -> Literal["absent", "begun", "finished"]:
    """Tell what there is at the path of an output, before any work starts.

    Parameters
    ----------
    path : Path
    history : list of Provenance
        Steps that lead to the store, the one that begins now last.
    if_exists : {"refuse", "resume", "overwrite"}
        What to do with a store at `path`.

    Returns
    -------
    {"absent", "begun", "finished"}
        "absent" also where a store is there and will be overwritten.

    Raises
    ------
    OutputExistsError
        When something is there that may not be resumed or overwritten.
    ResumeError
        When the store was made from something else.
    """
    check_creatable(path, replace=if_exists == "overwrite")
    if not path.exists():
        return "absent"
    if if_exists == "refuse":
        raise OutputExistsError(
            f"{path} exists; give another path, --resume to go on with it, or --overwrite"
        )
    if if_exists == "overwrite":
        require_store(path)
        return "absent"
    own = Volume(path).require_own()
    made = _making(own.history[-1], own.complete) if own.history else {}
    if differing := differences(made, _making(history[-1], own.complete)):
        raise ResumeError(
            f"{path} was made from something else ({differing}); resume with the same input and "
            "parameters, or start again with --overwrite or another output"
        )
    return "finished" if own.complete else "begun"


def refuse_overlap(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that is, holds, or lies in one of the inputs.

    Parameters
    ----------
    output : Path
    inputs : sequence of Path
        What the step reads.

    Raises
    ------
    InputError
        Naming both: overwriting or filling the output would destroy the input.
    """
    out = output.resolve()
    for path in inputs:
        found = path.resolve()
        if out == found or out in found.parents or found in out.parents:
            raise InputError(
                f"the output {output} and the input {path} are one, or one lies in the other, so "
                "that writing one would destroy the other; give an output of its own"
            )


@contextmanager
def begin_output(
    path: Path,
    spec: VolumeSpec,
    plan: RegionPlan,
    history: list[Provenance],
    if_exists: IfExists,
) -> Iterator[Output]:
    """Create a store to be filled, or open the unfinished one.

    From before the store is there under its name until the end, its ledger is locked. That keeps
    drivers out, not tasks of an earlier run that a cluster elsewhere has not ended: see `fill`.

    Parameters
    ----------
    path, history, if_exists
        See `check_output`.
    spec : VolumeSpec
    plan : RegionPlan
        How it is cut into regions, which the ledger counts.

    Raises
    ------
    BusyError
        When another process fills it, or has just finished it.
    """
    making = {
        **_making(history[-1], complete=False),
        "region": list(plan.region),
    }
    step = history[-1].step
    passes = {_pass_name(level, step): len(grid) for level, grid in plan.grids(spec).items()}
    state = check_output(path, history, if_exists)
    if state == "finished":
        raise BusyError(f"{path} has just been finished by another process; nothing is left to do")
    if state == "begun":
        ledger = Ledger(path, making, passes)
        volume = Volume(path, writable=True)
        if volume.require_own().complete:
            ledger.remove()
            ledger.close()
            raise BusyError(f"{path} has just been finished by another process; nothing is left")
    else:
        volume, ledger = _create(path, spec, history, lambda folder: Ledger(folder, making, passes))
    with ledger:
        if state == "begun":
            remove_leftovers(path)
        yield Output(volume, spec, plan, ledger, history)


def _create(
    path: Path,
    spec: VolumeSpec,
    history: list[Provenance],
    begin_ledger: Callable[[Path], Ledger],
) -> tuple[Volume, Ledger]:
    if path.exists():
        with not_being_filled(path):
            remove_store(path)
    ledgers: list[Ledger] = []
    try:
        volume = create_volume(
            path,
            spec,
            StoreAttributes(history=history),
            prepare=lambda folder: ledgers.append(begin_ledger(folder)),
        )
    except BaseException:
        for ledger in ledgers:
            ledger.close()
        raise
    (ledger,) = ledgers
    ledger.moved_to(path)
    return volume, ledger


def _pass_name(level: int, label: str) -> str:
    """Return the name of the pass that fills a level; that over level 0 is named by the step."""
    return f"level {level}" if level else label


def _making(step: Provenance, complete: bool) -> dict[str, Any]:
    """Return all that decides what a step makes.

    The versions of libraries decide only how an unfinished store may be gone on with: a finished
    one stays what it is.
    """
    exclude = {"figures", "command", "versions"} if complete else {"figures", "command"}
    # A store that is known by its id may be moved.
    exclude |= {"source"} if "source_id" in step.parameters else set()
    return step.model_dump(mode="json", exclude=exclude)
