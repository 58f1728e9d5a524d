"""A real SLURM on this machine, for tests: two nodes on paper, in a folder of its own.

No systemd and no root are needed. All that it starts ends with it, also when the tests are killed:
`guard.py` sees to that.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("n1", "n2")
CPUS = 8
MEMORY_MB = 16384
GPUS = 2
ENDED = frozenset(
    {"CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_PORTS = range(20000, 32000)
_DEVICES = ("null", "zero", "full", "random", "urandom", "ptmx", "tty")
_POLL = 0.1
_LOG_LINES = 30

# A requeued job waits as long as credentials are valid, and two minutes by default. What SLURM
# keeps of ended jobs must outlive a test, and the nodes are larger than the machine may be.
_CONF = """\
ClusterName=tests
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=1
SlurmdTimeout=10
KillWait=2
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
_NODE = (
    "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 "
    "SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} "
    "Gres=gpu:{gpus} State=UNKNOWN"
)


class SlurmTestError(RuntimeError):
    """The SLURM of the tests does not do what it should; the message holds its logs."""


def missing() -> list[str]:
    """Return the programs of SLURM that are not on this machine."""
    return [name for name in PROGRAMS if _which(name) is None]


class Slurm:
    """A SLURM with the nodes ``n1`` and ``n2``, of 8 CPUs, 16 GB and two fake GPUs each.

    The partition ``debug`` is the default; jobs in ``high`` preempt its jobs, which are queued
    again. A context manager; clients need ``SLURM_CONF`` as in `environment`.

    Attributes
    ----------
    folder : Path
        With everything that belongs to it; removed by `stop`.
    conf : Path
        Its ``slurm.conf``.
    environment : dict of str to str
        That of this process, and ``SLURM_CONF``.
    """

    def __init__(self) -> None:
        # Not below a folder of pytest's: sockets have short names, and others must see them.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o755)
        self.conf = self.folder / "slurm.conf"
        self.environment = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}",
            "SLURM_CONF": str(self.conf),
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("guard.py"), self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._configure()
            self._start("munged")
            self._until(lambda: (self.folder / "munge" / "socket").exists(), 10, "munged answers")
            for name in ("slurmctld", *NODES):
                self._start(name)
            self._until(self._all_idle, 30, "both nodes are idle")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Slurm:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all jobs and daemons, and remove the folder; may be called twice."""
        if self._guard.returncode is None:
            # Daemons are children of this process: they are gone only once it has waited for them.
            _, told = self._guard.communicate()
            for daemon in self._daemons.values():
                daemon.wait()
            if self._guard.returncode:
                raise SlurmTestError(f"SLURM can't be stopped: {told.decode()}")

    # Jobs

    def submit(self, script: str, *options: str) -> int:
        """Submit lines of shell as a batch script; return the job's number.

        A memory of 100 MB and one CPU are asked for unless `options` say otherwise; output goes to
        ``/dev/null``.
        """
        text = f"#!/bin/bash\n{script}\n"
        usual = ("--parsable", "--mem=100M", "--cpus-per-task=1", "--output=/dev/null")
        return int(self.run("sbatch", *usual, *options, text=text))

    def state(self, job: int) -> str:
        """Return the state of a job, such as ``RUNNING``."""
        return self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")

    def field(self, job: int, name: str) -> str:
        """Return what ``scontrol show job`` says of a job, such as its ``Restarts``."""
        for word in self.run("scontrol", "--oneliner", "show", "job", str(job)).split():
            key, _, value = word.partition("=")
            if key == name:
                return value
        raise KeyError(f"scontrol show job {job} has no {name}")

    def jobs(self) -> dict[int, str]:
        """Return the states of all jobs that are not over, by number."""
        lines = self.run("squeue", "--noheader", "--format=%A %T").splitlines()
        return {int(number): state for number, state in map(str.split, lines)}

    def wait_for(self, job: int, states: str | Collection[str], seconds: float = 30) -> str:
        """Wait until a job is in one of some states; return it.

        Raises
        ------
        SlurmTestError
            When it ends in another state, or it takes too long.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        named = " or ".join(sorted(wanted))
        state = ""

        def reached() -> bool:
            nonlocal state
            state = self.state(job)
            # Only a job that is not waited for until it ends can end too early.
            if state in ENDED - wanted:
                raise SlurmTestError(f"job {job} is {state}, not {named}\n{self._explained(job)}")
            return state in wanted

        self._until(reached, seconds, f"job {job} is {named}", job)
        return state

    def reset(self) -> None:
        """Let all daemons go on, resume both nodes, cancel all jobs, and wait for the quiet."""
        for name in self._daemons:
            self.resume_daemon(name)
        self._until(self._quiet, 30, "all jobs are gone and both nodes idle")

    # Nodes and daemons

    def node(self, name: str) -> str:
        """Return the state of a node, such as ``IDLE``."""
        # All are asked for: a single one is said to be MIXED for long after a controller's restart.
        options = ("--noheader", "--Node", "--partition=debug", "--format=%N %T")
        states = dict(line.split() for line in self.run("sinfo", *options).splitlines())
        return states[name].upper().rstrip("*")

    def down(self, name: str) -> None:
        """Take a node down: its jobs fail, and those that may are queued again."""
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def resume(self, name: str) -> None:
        """Bring a node back that is down."""
        self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")

    @contextmanager
    def paused(self, name: str = "slurmctld") -> Iterator[None]:
        """Stop a daemon by SIGSTOP for a while: it does not answer."""
        self._daemons[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.resume_daemon(name)

    @contextmanager
    def killed(self, name: str = "slurmctld") -> Iterator[None]:
        """End a daemon by SIGTERM, and start it again at the end; jobs are remembered."""
        self._end(name)
        try:
            yield
        finally:
            self._start(name)
            self._until(self._all_known, 30, f"{name} knows the nodes again")

    def forget_jobs(self) -> None:
        """Have the controller forget all jobs, as it does once they are old."""
        self._end("slurmctld")
        self._start("slurmctld", "-c")
        self._until(self._all_idle, 30, "both nodes are idle")

    def resume_daemon(self, name: str) -> None:
        """Let a daemon go on, and start it again where it has ended."""
        if self._daemons[name].poll() is None:
            self._daemons[name].send_signal(signal.SIGCONT)
        else:
            self._start(name)

    # Commands

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command of SLURM's; return what it prints, less its last line feed.

        Raises
        ------
        SlurmTestError
            When it fails, with its words.
        """
        done = subprocess.run(
            command, input=text or "", capture_output=True, text=True, env=self.environment
        )
        if done.returncode:
            raise SlurmTestError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip("\n")

    def log(self, name: str) -> str:
        """Return the end of a daemon's log."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join([f"--- {name}", *lines[-_LOG_LINES:]])

    def _configure(self) -> None:
        for name in ("munge", "state", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        user = pwd.getpwuid(os.geteuid()).pw_name
        ports = _free_ports(1 + len(NODES))
        sizes = {"cpus": CPUS, "memory": MEMORY_MB, "gpus": GPUS}
        nodes = [
            _NODE.format(name=name, port=port, **sizes)
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        self.conf.write_text(
            _CONF.format(folder=self.folder, user=user, ports=ports, nodes="\n".join(nodes))
        )
        (self.folder / "gres.conf").write_text(
            "".join(f"NodeName={','.join(NODES)} Name=gpu File={path}\n" for path in _devices(GPUS))
        )

    def _start(self, name: str, *options: str) -> None:
        """Start a daemon in the foreground of a session of its own, and see it live."""
        munge = self.folder / "munge"
        commands = {
            "munged": [
                *("munged", "--foreground", "--force", f"--socket={munge}/socket"),
                *(f"--{what}-file={munge}/{what}" for what in ("key", "pid", "log", "seed")),
            ],
            "slurmctld": ["slurmctld", "-D"],
            **{node: ["slurmd", "-D", "-N", node] for node in NODES},
        }
        program, *rest = commands[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [str(_which(program)), *rest, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def _end(self, name: str) -> None:
        # Not SIGKILL: the controller would forget the jobs of the last five seconds.
        self._daemons[name].terminate()
        self._daemons[name].wait()

    def _quiet(self) -> bool:
        # Asked for again and again: a controller that has just been started may not answer yet.
        with suppress(SlurmTestError):
            self.run("scancel", f"--user={os.geteuid()}")
            for name in NODES:
                if self.node(name).startswith(("DOWN", "DRAIN")):
                    self.resume(name)
            return not self.jobs() and self._all_idle()
        return False

    def _all_known(self) -> bool:
        # A job that is cancelled before leaves its node allocated for half a minute.
        with suppress(SlurmTestError):
            return all(self.node(name) in ("IDLE", "MIXED", "ALLOCATED") for name in NODES)
        return False

    def _all_idle(self) -> bool:
        try:
            return all(self.node(name) == "IDLE" for name in NODES)
        except SlurmTestError:
            return False

    def _until(
        self, reached: Callable[[], bool], seconds: float, what: str, job: int | None = None
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            for name, daemon in self._daemons.items():
                if daemon.poll() is not None:
                    raise SlurmTestError(
                        f"{name} has ended with exit code {daemon.returncode}\n{self.log(name)}"
                    )
            if reached():
                return
            if time.monotonic() > deadline:
                raise SlurmTestError(f"after {seconds:g} s not yet: {what}\n{self._explained(job)}")
            time.sleep(_POLL)

    def _explained(self, job: int | None) -> str:
        told = [self.log(name) for name in self._daemons]
        if job is not None:
            told.insert(0, self.run("scontrol", "show", "job", str(job)))
        with suppress(SlurmTestError):
            told.insert(0, self.run("sinfo", "--Node", "--partition=debug", "--format=%N %T %E"))
        return "\n".join(told)


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, below those that the system itself gives to connections."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SlurmTestError(f"there are not {count} free ports in {_PORTS}")


def _devices(count: int) -> list[Path]:
    """Return character devices to stand for GPUs: SLURM wants files that are there."""
    found = [path for name in _DEVICES if (path := Path("/dev") / name).is_char_device()]
    if len(found) < count:
        raise SlurmTestError(f"{count} of the devices {_DEVICES} are needed in /dev; found {found}")
    return found[:count]
