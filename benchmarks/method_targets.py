"""What the methods should reach, and whether they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from method_rows import Row

_BLIND, _WITHIN_DB, _GAIN_DB = 0.10, 1.0, 6.0
_ROUND, _UNCHANGED = 0.05, 0.02
_CLEARLY_DB = 1.0

Rows = dict[tuple[str, str, str], Row]
Finding = tuple[bool, str]


def targets(rows: Rows) -> Iterator[str]:
    """Say for each target whether it is met by all rows that tell, and where it is not."""
    for title, look in _TARGETS.items():
        findings = [
            (f"{scene}, {case}", found)
            for scene, case in dict.fromkeys(key[:2] for key in rows)
            if (found := look(rows, scene, case)) is not None
        ]
        missed = [f"{place}: {text}" for place, (met, text) in findings if not met]
        if not findings:
            yield f"- not told (rows are missing): {title}"
        elif missed:
            yield f"- MISSED in {len(missed)} of {len(findings)}: {title}; {'; '.join(missed)}"
        else:
            yield f"- met in all {len(findings)}: {title}"


def _against(
    better: str, worse: Callable[[Rows, str, str], Row | None], least: float
) -> Callable[[Rows, str, str], Finding | None]:
    def look(rows: Rows, scene: str, case: str) -> Finding | None:
        first, second = rows.get((scene, case, better)), worse(rows, scene, case)
        if first is None or second is None:
            return None
        gained = first.scores.psnr_db - second.scores.psnr_db
        return gained >= least, f"{gained:+.2f} dB"

    return look


def _row(name: str) -> Callable[[Rows, str, str], Row | None]:
    return lambda rows, scene, case: rows.get((scene, case, name))


def _best_lucy(rows: Rows, scene: str, case: str) -> Row | None:
    names = ("richardson-lucy", "richardson-lucy-axial", "richardson-lucy-full")
    found = [row for name in names if (row := rows.get((scene, case, name)))]
    return max(found, key=lambda row: row.scores.psnr_db, default=None)


def _blind(rows: Rows, scene: str, case: str) -> Finding | None:
    row = rows.get((scene, case, "input"))
    if row is None or row.blind is None:
        return None
    if row.blind.told_um is None:
        return False, "nothing is told"
    off = row.blind.told_um / row.blind.true_um - 1
    text = f"{row.blind.told_um:.2f} µm, true {row.blind.true_um:.2f} ({off:+.0%})"
    return abs(off) <= _BLIND, text


def _round(rows: Rows, scene: str, case: str) -> Finding | None:
    row = rows.get((scene, case, "self-blur"))
    if row is None or row.scores.axial_um is None or row.scores.lateral_um is None:
        return None
    off = row.scores.axial_um / row.scores.lateral_um - 1
    return abs(off) <= _ROUND, f"{off:+.1%}"


def _unchanged(rows: Rows, scene: str, case: str) -> Finding | None:
    row, before = rows.get((scene, case, "self-blur")), rows.get((scene, case, "input"))
    if row is None or before is None or not row.scores.lateral_um or not before.scores.lateral_um:
        return None
    off = row.scores.lateral_um / before.scores.lateral_um - 1
    return abs(off) <= _UNCHANGED, f"{off:+.1%}"


_TARGETS: dict[str, Callable[[Rows, str, str], Finding | None]] = {
    f"self-blur is within {_WITHIN_DB:g} dB of the upper bound": _against(
        "self-blur", _row("upper-bound"), -_WITHIN_DB
    ),
    f"the axial blur told blindly is within {_BLIND:.0%} of the truth": _blind,
    f"beads restored by self-blur are as wide along z as across, within {_ROUND:.0%}": _round,
    f"beads restored by self-blur are as wide across as in the input, within {_UNCHANGED:.0%}": (
        _unchanged
    ),
    f"self-blur gains at least {_GAIN_DB:g} dB over richardson-lucy as papers use it (full)": (
        _against("self-blur", _row("richardson-lucy-full"), _GAIN_DB)
    ),
    f"self-blur gains at least {_GAIN_DB:g} dB over the best richardson-lucy": _against(
        "self-blur", _best_lucy, _GAIN_DB
    ),
    f"self-net gains at least {_CLEARLY_DB:g} dB over the input": _against(
        "self-net", _row("input"), _CLEARLY_DB
    ),
}
