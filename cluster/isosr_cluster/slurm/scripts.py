"""Batch scripts of drivers: jobs that run a command, and queue again before their walltime ends."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isosr_cluster.environment import threads_of
from isosr_cluster.errors import ClusterConfigError
from isosr_cluster.slurm.logs import output_option
from isosr_cluster.slurm.site import Resources, Site

JOBS = "ISOSR_JOBS"
"""Variable of the environment of a driver: what the comments of its workers' jobs begin with."""

BEGINS = "isosr-job: begins"
"""How the line begins that each run of a script writes to the log first."""

RESUMABLE = 75
"""Exit code of a command that has kept what is done, and can be given again."""

_SECONDS_TO_REPORT = 60
"""Of a command that reports the end of another, at most: the job lasts as much longer."""

_LEAST_TO_REPORT = 10
"""Seconds: with less left of the walltime, no report is begun."""

_SECONDS_TO_LEAVE = 5
"""Of the notice, that no further attempt at queueing again begins in."""

_SECONDS_TO_END = 5
"""Of a report that is asked to end, before it is killed."""

_ODD = re.compile(r"[^\w.+-]")


class InShell(str):
    """A word of a command that the shell of the job expands, as in ``$HOME/bin/python``."""

    __slots__ = ()


def python_of(site: Site) -> str:
    """Return the Python of a site's drivers as a word of their commands.

    As in its workers' jobs, the shell expands what the site file gives, after the lines of `setup`.

    Parameters
    ----------
    site : Site
    """
    return sys.executable if site.python is None else InShell(site.python)


@dataclass(frozen=True)
class Driver:
    """A job that runs one command.

    Parameters
    ----------
    name : str
        Of the job; what SLURM might misread in it is replaced.
    comment : str
        What the job is found by.
    resources : Resources
        What it asks for.
    command : sequence of str
        Taken as they are, but for those that are `InShell`.
    folder : Path
        Where the command runs; every node sees it.
    log : Path
        What is written to; ``%j`` in its name stands for the job's number. Its folder must be
        there when the job begins.
    after : sequence of str
        What it waits for, such as ``"afterok:123"``: all of them.
    exports : mapping of str to str
        Variables of the command's environment.
    report : sequence of str
        A command that is run when the first has ended, and the job neither queues again nor was
        cancelled; what comes of it does not count. Near the end of the walltime it has the time
        that is left, and is left out where that is too short. What it says is kept beside the log,
        under the name of the log and ``.report``, if it fails. Empty: there is none.
    reports_success : bool
        Whether that is run also where the first has succeeded.
    """

    name: str
    comment: str
    resources: Resources
    command: Sequence[str]
    folder: Path
    log: Path
    after: Sequence[str] = ()
    exports: Mapping[str, str] = field(default_factory=dict)
    report: Sequence[str] = ()
    reports_success: bool = False


def plain_name(name: str) -> str:
    """Return a name for a job, with what SLURM might misread in it replaced.

    Parameters
    ----------
    name : str
    """
    return _ODD.sub("_", name)


def log_of(job: int, log: Path) -> Path:
    """Return the log of a job.

    Parameters
    ----------
    job : int
        Its number.
    log : Path
        With ``%j``, as its driver has it.
    """
    return log.with_name(log.name.replace("%j", str(job)))


def exit_file(log: Path) -> Path:
    """Return the file that keeps how a job has ended, also when SLURM has forgotten it.

    It holds the exit code, and the signal that the job was asked to stop by, if there was one:
    ``75 TERM``. It is not there while the job waits or runs.

    Parameters
    ----------
    log : Path
        Of the job.
    """
    return log.with_name(f"{log.name}.exit")


def driver_script(site: Site, driver: Driver) -> str:
    """Write the batch script of a driver.

    The command runs as a child of the script. When the walltime is near (USR1), it is asked to stop
    by SIGTERM, and if it has left with 75 the job is queued again, `Site.restarts` times at most;
    what SLURM queues again by itself does not count. While SLURM refuses, it is asked again until
    the notice is nearly over. A SIGTERM, as scancel and preemption send it, is passed on, and the
    job not queued again. How the command has ended is kept before `Driver.report` is run.

    Parameters
    ----------
    site : Site
    driver : Driver

    Raises
    ------
    ClusterConfigError
        When a path has characters that SLURM can't take in the name of a log.
    """
    for path in (driver.log, driver.folder):
        if not str(path).isprintable() or "\\" in str(path):
            raise ClusterConfigError(
                f"{str(path)!r} has a line break or a backslash, which SLURM does not take in the "
                "path of a log; give another output folder"
            )
    header = "".join(f"#SBATCH {option}\n" for option in _options(site, driver))
    variables = {**threads_of(driver.resources.cores), **driver.exports}
    exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in variables.items())
    setup = "".join(f"{line}\n" for line in site.setup)
    values = {
        "@LOG@": _in_shell(driver.log),
        "@BEGINS@": BEGINS,
        "@CODE@": str(RESUMABLE),
        "@RESTARTS@": str(site.restarts),
        "@NOTICE@": str(site.notice - _SECONDS_TO_LEAVE),
        "@SETUP@": f"{exports}{setup}",
        "@COMMAND@": " ".join(map(_word, driver.command)),
        "@REPORT@": _report(driver),
    }
    return f"#!/bin/bash\n{header}{_filled(_BODY, values)}"


def _report(driver: Driver) -> str:
    if not driver.report:
        return ""
    when = '[ -z "$kept" ] && [ "$asked" != TERM ]'
    when += "" if driver.reports_success else ' && [ "$code" != 0 ]'
    values = {"@WHEN@": when, "@REPORT@": " ".join(map(_word, driver.report))}
    return _filled(_REPORT, values)


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Put values in their places, all at once: what is put in is not looked at again."""
    return re.sub("|".join(values), lambda match: values[match.group()], template)


def _options(site: Site, driver: Driver) -> Iterator[str]:
    yield f"--job-name={plain_name(driver.name)}"
    yield f"--comment={shlex.quote(driver.comment)}"
    yield f"--chdir={shlex.quote(str(driver.folder))}"
    yield output_option(driver.log)
    yield "--open-mode=append"
    yield f"--signal=B:USR1@{site.notice}"
    yield "--requeue"
    yield "--kill-on-invalid-dep=yes"
    yield from site.options(driver.resources)
    if driver.after:
        yield f"--dependency={','.join(driver.after)}"


def _word(word: str) -> str:
    return word if isinstance(word, InShell) else shlex.quote(word)


def _in_shell(log: Path) -> str:
    """Return the path of a log as the shell of the job writes it."""
    before, _, behind = log.name.partition("%j")
    folder = shlex.quote(f"{log.parent}/{before}")
    return f'{folder}"$SLURM_JOB_ID"{shlex.quote(behind)}'


_BODY = """\

log=@LOG@
child= asked= trapped= seen= until= kept= theirs= passed=0 queued=0

say() { echo "isosr-job: $*"; }

# Once only: a second signal would end the command before it has saved what it does. The test and
# the count are one command, between whose parts no trap runs.
pass_on() {
    if [ -n "$child" ] && (( passed++ == 0 )); then kill -TERM "$child" 2>/dev/null; fi
}
keep() { echo "$1${asked:+ $asked}" > "$log.exit.partial" && mv "$log.exit.partial" "$log.exit"; }
leave() {
    [ -n "$kept" ] || keep "$1"
    eval "$theirs"
}
listen() {
    trap 'trapped=1; asked=${asked:-USR1}; until=${until:-$((SECONDS + @NOTICE@))}; pass_on' USR1
    trap 'trapped=1; asked=TERM; pass_on' TERM
    trap 'leave $?' EXIT
}
listen

rm -f "$log.exit"
# SLURM's own count has preemptions and lost nodes, too.
[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || rm -f "$log.queued"
if [ -e "$log.queued" ]; then read -r queued < "$log.queued"; queued=$((queued)); fi
where="job $SLURM_JOB_ID on $(hostname), restart ${SLURM_RESTART_COUNT:-0}"
echo "@BEGINS@ $where, $(date '+%F %T')"
@SETUP@
# What the setup has set for its own lines, such as set -e, must not end what follows.
set +euCm
trap - ERR DEBUG RETURN
unset IFS
eval "theirs=($(trap -p EXIT))"
theirs=${theirs[2]}
if [ "$theirs" = 'leave $?' ]; then theirs=; fi
listen

code=@CODE@
if [ -z "$asked" ]; then
    @COMMAND@ &
    child=$!
    # What came between these two lines found no child.
    [ -z "$asked" ] || pass_on
    while :; do
        trapped=
        wait "$child"
        waited=$?
        # 127: it was waited for already, and the code that is known is its own.
        [ "$waited" = 127 ] && [ -n "$seen" ] || code=$waited
        seen=1
        [ -n "$trapped" ] || break
    done
    # Where it ends as a signal comes, bash may lose its code and tell -1. It was asked to stop, and
    # is taken to have done so: what is done is not done again.
    if [ "$code" = -1 ]; then code=@CODE@; fi
fi

queue_again() {
    # The script ends where it is obeyed: what belongs to that comes before.
    echo $((queued + 1)) > "$log.queued"
    while ! told=$(scontrol requeue "$SLURM_JOB_ID" 2>&1); do
        [ "$asked" = USR1 ] && [ "$SECONDS" -lt "$until" ] || return 1
        sleep 2
    done
}

# 143: the command was asked before it could listen, and has done nothing.
if [ "$asked" = USR1 ] && { [ "$code" = @CODE@ ] || [ "$code" = 143 ]; }; then
    if [ "$queued" -ge @RESTARTS@ ]; then
        say "the walltime is over, and the job was queued again $queued times," \\
            "the most that the site file allows (restarts); submit the brain again to go on"
    elif queue_again; then
        say "the walltime is over: queued again"
        kept=1
    else
        say "the walltime is over, and SLURM refuses to queue the job again ($told);" \\
            "submit the brain again to go on"
    fi
fi
@REPORT@exit "$code"
"""

_REPORT = f"""\
# Lists the brain on the page of its batch; what comes of it does not count.
if @WHEN@; then
    # A signal that comes from here on changes nothing of how the command has ended.
    keep "$code"
    kept=1
    left={_SECONDS_TO_REPORT}
    if [ -n "$until" ] && [ $((until - SECONDS - {_SECONDS_TO_END})) -lt "$left" ]; then
        left=$((until - SECONDS - {_SECONDS_TO_END}))
    fi
    if [ "$left" -ge {_LEAST_TO_REPORT} ]; then
        timeout -k {_SECONDS_TO_END} "$left" @REPORT@ > "$log.report" 2>&1 && rm -f "$log.report"
    fi
fi
"""
