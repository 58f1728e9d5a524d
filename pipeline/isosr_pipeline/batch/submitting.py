"""Submitting: the jobs of every brain that is not complete and not in flight, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from isosr_cluster.slurm import commands
from isosr_cluster.slurm.commands import Job
from isosr_cluster.slurm.scripts import log_of
from isosr_models.model_folder import write_durably
from isosr_pipeline.batch.begun import as_begun, differences
from isosr_pipeline.batch.chains import (
    Chain,
    Terms,
    chains_of,
    job_name,
    log_path,
    look,
    script_of,
    script_path,
    workers_of,
)
from isosr_pipeline.batch.checking import check_at_slurm, check_chains
from isosr_pipeline.batch.entries import Entry
from isosr_pipeline.batch.freezing import freeze
from isosr_pipeline.batch.lanes import Lanes
from isosr_pipeline.batch.lines import is_current, write_line
from isosr_pipeline.batch.listing import rewrite, telling
from isosr_pipeline.batch.records import (
    ChainRecord,
    JobRecord,
    locked,
    read_record,
    write_record,
)
from isosr_pipeline.batch.turns import own_turn
from isosr_pipeline.steps.run import STEPS, Step

Say = Callable[[str], None]


def submit_batch(
    entries: Sequence[Entry], terms: Terms, say: Say, *, max_brains: int | None = None
) -> int:
    """Submit a chain of jobs for each brain; return the number of jobs that were submitted.

    Steps that are complete are left out, and a chain that is in flight is left alone; one whose
    submission was interrupted is completed.

    Parameters
    ----------
    entries : sequence of Entry
    terms : Terms
    say : callable
        Shows a line.
    max_brains : int, optional
        Chains in flight at any time, at most; all of this user's count.

    Raises
    ------
    InputError
        When a brain can't be done; nothing is submitted then.
    SlurmError
        When SLURM would not take a job, in which case nothing is submitted, or does not answer.
    BusyError
        When another process submits one of the brains now, or any with `max_brains` as well.
    """
    with own_turn() if max_brains else nullcontext():
        jobs = list(commands.find_jobs().values())
        chains = [as_begun(look(entry, terms, jobs)) for entry in entries]
        check_chains(chains)
        check_at_slurm(chains)
        lanes = Lanes(max_brains, chains_of(jobs))
        count = 0
        with _on_page(chains, terms.index, say):
            for entry in entries:
                with locked(entry.brain.output):
                    count += _submit(entry, terms, lanes, say)
        return count


def planned_scripts(
    entries: Sequence[Entry], terms: Terms, *, max_brains: int | None = None
) -> Iterator[tuple[Entry, Step, str]]:
    """Yield the scripts that would be submitted, in their order; changes nothing.

    Numbers of jobs that are not known yet are written as ``<train of brain7>``. Where there is no
    SLURM, no jobs are thought to be in flight.

    Parameters
    ----------
    entries : sequence of Entry
    terms : Terms
    max_brains : int, optional

    Raises
    ------
    InputError
        When a brain can't be done.
    """
    jobs = list(commands.find_jobs().values()) if commands.is_available() else []
    chains = [as_begun(look(entry, terms, jobs)) for entry in entries]
    check_chains(chains)
    lanes = Lanes(max_brains, chains_of(jobs))
    for chain in chains:
        previous = str(chain.live[chain.last_live].id) if chain.live else None
        first = previous
        for step in chain.missing:
            after = _after(previous, lanes)
            yield chain.entry, step, script_of(chain.entry, step, chain.terms, after)
            previous = f"<{step} of {chain.entry.name}>"
        if chain.missing and previous is not None:
            _take(lanes, first, previous)


@contextmanager
def _on_page(chains: Sequence[Chain], index: Path | None, say: Say) -> Iterator[None]:
    """List the brains on their page before their jobs do so, and write it when all are submitted.

    Lines of brains in flight are left to their jobs, and those that are younger than their results
    as they are.
    """
    if index is None:
        yield
        return
    entries = [chain.entry for chain in chains]
    with telling(index, say):
        for chain in chains:
            if not (is_current(chain.entry) and (chain.live or not chain.left)):
                write_line(chain.entry)
        rewrite(index, entries, forget_gone=True)
    try:
        yield
    finally:
        with telling(index, say):
            rewrite(index, entries)
            say(f"index: {index}")


def _submit(entry: Entry, terms: Terms, lanes: Lanes, say: Say) -> int:
    """Submit what is missing of a chain, whose lock is held."""
    known = commands.find_jobs()
    given = look(entry, terms, known.values())
    chain = as_begun(given)
    if changed := differences(given, chain):
        say(
            f"{entry.name}: stays as its jobs in flight were submitted; what differs now does not "
            f"count: {', '.join(changed)}; cancel the brain first to have that"
        )
    if not chain.missing:
        say(f"{entry.name}: {_why_none(chain)}")
        return 0
    if done := [step for step in STEPS if step not in chain.left]:
        say(f"{entry.name}: {', '.join(done)} {'is' if len(done) == 1 else 'are'} complete")
    record = _begin(chain)
    first = previous = str(chain.live[chain.last_live].id) if chain.live else None
    for step in chain.missing:
        after = _after(previous, lanes, known.values())
        script = script_of(chain.entry, step, chain.terms, after)
        write_durably(script_path(entry.brain.output, step), script.encode())
        job = commands.submit(script)
        # After each: whoever is interrupted here leaves at most one job that is not recorded, and
        # that one is found by its comment.
        record = record.with_job(_recorded(entry, step, job))
        write_record(entry.brain.output, record)
        previous = str(job)
        waits = f", after {' and '.join(after)}" if after else ""
        say(f"{entry.name}: {step} is job {job}{waits}")
    if previous is not None:
        _take(lanes, first, previous)
    return len(chain.missing)


def _begin(chain: Chain) -> ChainRecord:
    """Write what the jobs read, and a record with those that are live."""
    output, terms = chain.entry.brain.output, chain.terms
    now = datetime.now(UTC)
    found = read_record(output)
    record = ChainRecord(
        brain=chain.entry.name,
        site=str(terms.path.absolute()),
        submitted=now,
        workers=workers_of(chain.entry.brain, terms),
        index=terms.index,
        jobs=found.jobs if found else (),
    )
    if chain.live and found is not None:
        record = record.model_copy(update={"site": found.site, "workers": found.workers})
    for step, job in chain.live.items():
        if (one := record.job(step)) is None or one.id != job.id:
            record = record.with_job(_recorded(chain.entry, step, job.id))
    if not chain.live:
        freeze(chain.entry.brain, terms.site)
    write_record(output, record)
    return record


def _recorded(entry: Entry, step: Step, job: int) -> JobRecord:
    output = entry.brain.output
    return JobRecord(
        step=step,
        id=job,
        name=job_name(entry, step),
        log=log_of(job, log_path(output, step)),
        script=script_path(output, step),
        submitted=datetime.now(UTC),
    )


def _after(previous: str | None, lanes: Lanes, known: Iterable[Job] | None = None) -> list[str]:
    """Return what the next job waits for: the step before it, or the chain before it."""
    if previous is not None:
        return [f"afterok:{previous}"]
    if known is None:
        return [f"afterany:{job}" for job in lanes.before]
    # Nobody can wait for a job that SLURM has forgotten.
    live = {str(job.id) for job in known if not job.ended}
    return [f"afterany:{job}" for job in lanes.before if job in live]


def _take(lanes: Lanes, first: str | None, last: str) -> None:
    if first is None:
        lanes.add(last)
    else:
        lanes.extend(first, last)


def _why_none(chain: Chain) -> str:
    if not chain.left and not chain.live:
        return "all steps are complete"
    jobs = ", ".join(f"{step} is job {chain.live[step].id}" for step in STEPS if step in chain.live)
    if all(step in chain.live for step in chain.left):
        return f"in flight already ({jobs})"
    return (
        f"in flight already, and ending: a step has failed that others wait for ({jobs}); submit "
        "again when none is left, or cancel them first"
    )
