"""Rows of the comparison of methods: what each is trained on, how, and what it comes to."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from method_scores import Scores, parameters, restoring_rate, score
from pydantic import BaseModel, ConfigDict
from watching import isosr

VOXEL_UM = 0.5
LATERAL_UM = {"neurites": 1.2, "cells": 1.2, "beads": 1.98}
"""Lateral FWHM of the PSF in each scene."""

CASES = {"2x": (2.0, 1), "3.3x": (3.3, 1), "2x-step3": (2.0, 3), "3.3x-step3": (3.3, 3)}
"""How many times as wide the PSF is along z, and of how many planes one is there."""

METHODS = {
    "input": "identity",
    "richardson-lucy": "richardson-lucy",
    "richardson-lucy-axial": "richardson-lucy",
    "richardson-lucy-full": "richardson-lucy",
    "ot-cyclegan": "ot-cyclegan",
    "self-net": "self-net",
    "self-blur": "self-blur",
    "upper-bound": "self-blur",
}
"""Names of rows, and what `train --method` knows them by; the identity is not trained."""

_CROPS = {"ot-cyclegan": 32}
_LARGEST_CROP = 64
# Volumes are a few regions at most: one worker with all cores starts sooner than several.
_ONE = ("--workers", 1)
_USUAL = {
    "ot-cyclegan": "--width 8 --batch 2 --learning-rate 0.001 --beta1 0.5 --cycle-weight 20 "
    "--average 0.98",
    "self-net": "--width 16 --blocks 3 --critic-width 16 --batch 2 --patch 40 --patches 6 "
    "--learning-rate 0.0003 --average 0.99",
}
"""Options of methods whose defaults are those of a publication and need a GPU and a day."""


class FailedError(Exception):
    """A command came to no good end."""


class UnknownError(FailedError):
    """The command line does not know a method, or an option of it."""


@dataclass(frozen=True)
class Plan:
    """What all rows have in common.

    Parameters
    ----------
    folder : Path
    size : int
        Voxels along each side of the volumes.
    minutes : float
        Of each training.
    photons : float
        At the brightest voxel.
    seed : int
        Of the volumes to train on; those to restore have the next one.
    threads : int or None
        Of trainings.
    options : dict of str to str
        More options of `train`, by the name of the row.
    """

    folder: Path
    size: int
    minutes: float
    photons: float
    seed: int
    threads: int | None
    options: dict[str, str]


class Blind(BaseModel):
    """What is told of the residual axial blur without knowing it, and what it is.

    Attributes
    ----------
    true_um : float
    told_um, low_um, high_um : float or None
        FWHM and its interval of 95 %; None: nothing was told.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    true_um: float
    told_um: float | None
    low_um: float | None
    high_um: float | None


class Row(BaseModel):
    """What a method came to in one case.

    Attributes
    ----------
    scene, case, name : str
    command : list of str
        Of the training; empty: none.
    scores : Scores
        Of a volume that was not trained on.
    train_seconds : float or None
        Start-up included.
    voxels_per_second : float or None
        Of the restorer alone, on this machine.
    parameters : int or None
        That are trained, of the network that restores.
    blind : Blind or None
        Of the volume that was trained on; with the input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scene: str
    case: str
    name: str
    command: list[str]
    scores: Scores
    train_seconds: float | None = None
    voxels_per_second: float | None = None
    parameters: int | None = None
    blind: Blind | None = None


def run(arguments: Sequence[object], log: Path) -> str:
    """Run isosr-pipeline and return what it prints; what it says goes to a log.

    Raises
    ------
    FailedError
        With the last line that it says; `UnknownError` where it knows no such method or option.
    """
    code, printed, told = ended([str(part) for part in arguments])
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{shlex.join(map(str, arguments))}\n{printed}{told}")
    if code:
        last = (told.strip().splitlines() or ["no message"])[-1].removeprefix("Error: ")
        if last.startswith(("--method: ", "No such option")):
            raise UnknownError(last)
        raise FailedError(f"{arguments[0]} ended with {code}: {last} ({log})")
    return printed


def ended(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run isosr-pipeline to its end; return its exit code, and what it prints and tells."""
    process = subprocess.run(
        list(map(str, isosr(*arguments))), check=False, capture_output=True, text=True
    )
    return process.returncode, process.stdout, process.stderr


def widths(scene: str, case: str) -> tuple[float, float, float]:
    """Return FWHM in µm of the PSF: lateral, axial, and what the axial one has more."""
    lateral = LATERAL_UM[scene]
    axial = lateral * CASES[case][0]
    return lateral, axial, math.sqrt(axial**2 - lateral**2)


def make_volumes(plan: Plan, scene: str, case: str) -> Path:
    """Simulate and convert a volume to train on and one to restore; return their folder."""
    folder = plan.folder / "volumes" / f"{scene}-{case}"
    done = folder / "blind.json"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lateral, axial, _ = widths(scene, case)
    optics = ["--lateral-fwhm-um", lateral, "--axial-fwhm-um", axial, "--voxel-size-um", VOXEL_UM]
    light = ["--photons", plan.photons, "--z-step", CASES[case][1]]
    for number, name in enumerate(("seen", "held")):
        tiff = folder / f"{name}.tif"
        what = [tiff, "--truth", folder / f"{name}-truth.tif", "--scene", scene]
        what += ["--shape", plan.size, "--seed", plan.seed + number]
        run(["simulate", *what, *optics, *light], folder / f"simulate-{name}.log")
        run(["convert", tiff, folder / f"{name}.zarr", *_ONE], folder / f"convert-{name}.log")
    done.write_text(_told(plan, folder, scene, case).model_dump_json(indent=2))
    return folder


def _told(plan: Plan, folder: Path, scene: str, case: str) -> Blind:
    true = widths(scene, case)[2]
    nothing = Blind(true_um=true, told_um=None, low_um=None, high_um=None)
    edge = ["--edge", min(64, plan.size)]
    try:
        printed = run(["psf", folder / "seen.zarr", "--json", *edge], folder / "psf.log")
    except FailedError as error:
        print(f"{scene}, {case}: the blur is not told: {error}", flush=True)
        return nothing
    estimate = json.loads(printed)["estimate"]
    if estimate is None:
        return nothing
    width = estimate["width"]
    low, high = width["fwhm_um_interval"]
    return Blind(true_um=true, told_um=width["fwhm_um"], low_um=low, high_um=high)


def training(plan: Plan, scene: str, case: str, name: str) -> list[str]:
    """Return what is given to `train` besides the volume and the model; empty: no training."""
    method = METHODS[name]
    if method == "identity":
        return []
    lateral, axial, residual = widths(scene, case)
    options: list[object] = ["--method", method]
    if name in ("richardson-lucy", "richardson-lucy-full"):
        options += ["--lateral-fwhm", lateral, "--axial-fwhm", axial]
        options += ["--resolution", "full"] if name == "richardson-lucy-full" else []
    elif name in ("richardson-lucy-axial", "upper-bound"):
        options += ["--axial-fwhm", f"{residual:.4f}"]
    if method != "richardson-lucy":
        options += _learning(plan, case, method)
    return [*map(str, options), *shlex.split(plan.options.get(name, ""))]


def _learning(plan: Plan, case: str, method: str) -> list[object]:
    step = CASES[case][1]
    planes = (math.ceil(plan.size / step) - 1) * step + 1
    crop = min(_CROPS.get(method, _LARGEST_CROP), planes // 4 * 4)
    options: list[object] = ["--minutes", plan.minutes, "--crop", crop, "--seed", plan.seed]
    options += ["--preview-every", 0, *shlex.split(_USUAL.get(method, ""))]
    return options + (["--threads", plan.threads] if plan.threads else [])


def make_row(plan: Plan, scene: str, case: str, name: str) -> Row:
    """Train a method, restore a volume that it has not seen, and compare it with the truth.

    A row that is kept is not made again, unless it was trained otherwise.

    Raises
    ------
    FailedError
        When a command fails; `UnknownError` if `train` does not know the method.
    """
    kept = plan.folder / "rows" / f"{scene}-{case}-{name}.json"
    command = training(plan, scene, case, name)
    if kept.exists():
        row = Row.model_validate_json(kept.read_text())
        if row.command == command:
            return row
    row = _made(plan, scene, case, name, command)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial")
    partial.write_text(row.model_dump_json(indent=2))
    partial.replace(kept)
    return row


def _made(plan: Plan, scene: str, case: str, name: str, command: list[str]) -> Row:
    volumes = make_volumes(plan, scene, case)
    work = plan.folder / "work" / f"{scene}-{case}-{name}"
    model, restored = work / "model", work / "restored.zarr"
    figures: dict[str, Any] = {}
    if command:
        begin = time.perf_counter()
        run(["train", volumes / "seen.zarr", model, "--overwrite", *command], work / "train.log")
        figures["train_seconds"] = time.perf_counter() - begin
        figures["voxels_per_second"] = restoring_rate(model)
        figures["parameters"] = parameters(model)
    else:
        figures["blind"] = Blind.model_validate_json((volumes / "blind.json").read_text())
    used = model if command else "identity"
    where = [restored, "--overwrite", *_ONE]
    run(["restore", volumes / "held.zarr", used, *where], work / "restore.log")
    lateral, axial, _ = (width / VOXEL_UM for width in widths(scene, case))
    truth = volumes / "held-truth.tif"
    scores = score(restored, truth, (axial, lateral) if scene == "beads" else None, VOXEL_UM)
    return Row(scene=scene, case=case, name=name, command=command, scores=scores, **figures)
