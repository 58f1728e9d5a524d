"""Who has started the processes of a training: torchrun, SLURM's srun, or nobody yet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from isosr_pipeline.errors import InputError


@dataclass(frozen=True)
class Launcher:
    """A program that has started this process, and others that train with it.

    Parameters
    ----------
    name : {"torchrun", "srun"}
    processes : int
        All of them.
    nodes : int
        Machines that they are on.
    most : int
        Processes on the node that has most.
    """

    name: str
    processes: int
    nodes: int
    most: int

    def check(self, devices: int) -> None:
        """Refuse to train in other processes than were asked for.

        Parameters
        ----------
        devices : int
            Processes wanted on each node.

        Raises
        ------
        InputError
            Saying how many there are.
        """
        if self.most == devices and self.processes == devices * self.nodes:
            return
        if self.processes == self.most * self.nodes:
            remedy = f"give --devices {self.most}, or have it start {devices} on each node"
        else:
            remedy = f"have it start {devices} on each node"
        nodes = "a node" if self.nodes == 1 else f"{self.nodes} nodes, up to {self.most} on each"
        raise InputError(
            f"{self.name} has started {self.processes} processes on {nodes}, and devices is "
            f"{devices}, which must be their number on each node; {remedy}"
        )


def find_launcher(variables: Mapping[str, str] = os.environ) -> Launcher | None:
    """Return what has started this process; None: it may start others itself.

    SLURM's variables are also there in a batch script, and in a shell that srun has started as its
    one task. There srun has started no training.

    Parameters
    ----------
    variables : mapping
        Of the environment.
    """
    if "TORCHELASTIC_RUN_ID" in variables:
        most, nodes = int(variables["LOCAL_WORLD_SIZE"]), int(variables["GROUP_WORLD_SIZE"])
        return Launcher("torchrun", int(variables["WORLD_SIZE"]), nodes, most)
    processes = int(variables.get("SLURM_STEP_NUM_TASKS", 1))
    if "SLURM_STEP_ID" not in variables or processes == 1:
        return None
    # Such as "2(x3),1": two on each of three nodes, and one on another.
    found = re.findall(r"(\d+)(?:\(x\d+\))?", variables["SLURM_STEP_TASKS_PER_NODE"])
    nodes = int(variables["SLURM_STEP_NUM_NODES"])
    return Launcher("srun", processes, nodes, max(map(int, found)))


def environment_of(launcher: Launcher | None) -> ClusterEnvironment:
    """Return how Fabric learns who is who; its own search takes a batch script for a step."""
    if launcher is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if launcher.name == "torchrun" else _JobStep()


class _JobStep(SLURMEnvironment):
    """Processes that srun has started, by what is set for the step and not for the whole job."""

    @property
    def main_address(self) -> str:
        given = os.environ.get("MASTER_ADDR")
        return given or self.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])

    def world_size(self) -> int:
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accept them: `Launcher.check` has, by the step and with a message of its own."""

    @staticmethod
    def _validate_srun_used() -> None:
        """Accept that the job has no number of tasks: the step has one."""

    @staticmethod
    def _validate_srun_variables() -> None:
        """Accept --ntasks, which need not be given for each node."""
