"""Submissions that were interrupted: they are completed as they were begun."""

from __future__ import annotations

from dataclasses import replace

from isosr_pipeline.batch.chains import Chain, workers_of
from isosr_pipeline.batch.freezing import brain_copy, changed_since, site_copy
from isosr_pipeline.batch.records import read_record
from isosr_pipeline.brain import read_brain
from isosr_pipeline.site_files import read_site


def as_begun(chain: Chain) -> Chain:
    """Return a chain on the terms on which its jobs in flight were submitted.

    What they read stays as it is while one of them may read it, and what is submitted now is to
    go on with them. Without jobs in flight, or a record of them, it is returned as it is.

    Parameters
    ----------
    chain : Chain

    Raises
    ------
    InputError
        When the copies that its jobs read can't be read.
    """
    output = chain.entry.brain.output
    brain, site = brain_copy(output), site_copy(output)
    record = read_record(output) if chain.live else None
    if record is None or not (brain.is_file() and site.is_file()):
        return chain
    terms = replace(
        chain.terms,
        site=read_site(site),
        path=site,
        workers=record.workers,
        index=record.index,
    )
    return replace(chain, entry=replace(chain.entry, brain=read_brain(brain)), terms=terms)


def differences(given: Chain, begun: Chain) -> list[str]:
    """Return what is given otherwise now than when the jobs in flight were submitted.

    Parameters
    ----------
    given : Chain
        As asked for now.
    begun : Chain
        The same chain, `as_begun`.
    """
    if begun is given:
        return []
    changed = changed_since(
        given.entry.brain, given.terms.site, begun.entry.brain, begun.terms.site
    )
    if given.terms.index != begun.terms.index:
        now, then = given.terms.index or "none", begun.terms.index or "none"
        changed.append(f"index (now {now}, and {then} then)")
    workers = workers_of(given.entry.brain, given.terms)
    if workers is not None and workers != begun.terms.workers:
        before = begun.terms.workers or "those of the site file"
        changed.append(f"workers (now {workers}, and {before} then)")
    return changed
