"""All methods side by side, on simulated volumes: python benchmarks/methods.py FOLDER.

For each scene and case two volumes are simulated under one PSF: a method is trained on the one and
restores the other, and what it makes of it is compared with the truth. Every step is the command
that a user gives. All trainings have the same time. Rows that are done are kept in FOLDER, so that
the same command goes on where it was stopped. Prints a table in Markdown and whether the targets
are met.

richardson-lucy knows the whole PSF, and gives its result the resolution of the planes;
richardson-lucy-axial undoes what the PSF is wider along z, and leaves planes as they are;
richardson-lucy-full is left as the iterations leave it, the way papers use it; the upper bound is
self-blur that is told the true blur.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path

from method_rows import (
    CASES,
    LATERAL_UM,
    METHODS,
    FailedError,
    Plan,
    Row,
    UnknownError,
    make_row,
)
from method_targets import targets

_SMALLEST = 40
_FAILED = "Failed:"
_HEAD = (
    "| scene | case | method | PSNR, dB | SSIM | NRMSE | axial/lateral | bead z, µm | bead xy, µm "
    "| training, s | voxels/s | parameters |\n| --- | --- | --- |" + " ---: |" * 9
)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training")
    parser.add_argument("--size", type=int, default=128, help="of volumes, in voxels")
    parser.add_argument("--photons", type=float, default=1000.0, help="at the brightest voxel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of trainings; default: one a core")
    parser.add_argument("--scenes", nargs="+", choices=LATERAL_UM, default=list(LATERAL_UM))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--options",
        action="append",
        default=[],
        metavar="METHOD=OPTIONS",
        help='more options of train, such as "ot-cyclegan=--width 16"',
    )
    options = parser.parse_args()
    if options.size < _SMALLEST:
        parser.error(f"--size: {options.size} voxels are too few for a crop; give {_SMALLEST}")
    options.more = dict(text.partition("=")[::2] for text in options.options)
    if unknown := set(options.more) - set(METHODS):
        parser.error(f"--options: no method {', '.join(unknown)}; known are {', '.join(METHODS)}")
    return options


def _bind(plan: Plan) -> None:
    """Refuse a folder whose rows were made otherwise, which would not compare."""
    same = {name: getattr(plan, name) for name in ("size", "minutes", "photons", "seed", "threads")}
    record = plan.folder / "settings.json"
    if record.exists() and (found := json.loads(record.read_text())) != same:
        sys.exit(f"{plan.folder} holds rows made with {found}, not {same}; give another folder")
    plan.folder.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(same))


def _line(row: Row) -> str:
    scores = row.scores

    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    cells = [
        row.scene,
        row.case,
        row.name,
        f"{scores.psnr_db:.2f}",
        f"{scores.ssim:.3f}",
        f"{scores.nrmse:.4f}",
        shown(scores.ratio, ".2f"),
        shown(scores.axial_um, ".2f"),
        shown(scores.lateral_um, ".2f"),
        shown(row.train_seconds, ".0f"),
        shown(row.voxels_per_second, ".3g"),
        shown(row.parameters, ","),
    ]
    return f"| {' | '.join(cells)} |"


def _make_rows(
    plan: Plan, options: argparse.Namespace
) -> tuple[dict[tuple[str, str, str], Row], list[str]]:
    """Make all rows; return them, and why others are not there."""
    rows: dict[tuple[str, str, str], Row] = {}
    notes: list[str] = []
    skipped: set[str] = set()
    for scene, case, name in product(options.scenes, options.cases, options.methods):
        if name in skipped:
            continue
        try:
            row = rows[scene, case, name] = make_row(plan, scene, case, name)
        except UnknownError as error:
            skipped.add(name)
            notes.append(f"{name} is skipped, as train refuses it: {error}")
        except FailedError as error:
            notes.append(f"{_FAILED} {scene}, {case}, {name}: {error}")
        else:
            print(_line(row), file=sys.stderr, flush=True)
    return rows, notes


def main() -> None:
    """Make all rows, and print the table and the targets."""
    options = _options()
    plan = Plan(
        options.folder,
        options.size,
        options.minutes,
        options.photons,
        options.seed,
        options.threads,
        options.more,
    )
    _bind(plan)
    rows, notes = _make_rows(plan, options)
    print(_HEAD)
    for key in product(options.scenes, options.cases, options.methods):
        print(_line(rows[key]) if key in rows else f"| {' | '.join(key)} |{' – |' * 9}")
    if notes:
        print("\n" + "\n".join(notes))
    print(f"\nTargets, {plan.minutes:g} min of training each:\n")
    print("\n".join(targets(rows)))
    if any(note.startswith(_FAILED) for note in notes):
        sys.exit(1)


if __name__ == "__main__":
    main()
