"""What sizes of chunks and shards cost: python benchmarks/shards.py SOURCE FOLDER.

Of each size: the size on disk, the files a terabyte comes to, and the time to read random blocks
with a halo, as restoration does, and random tiles of XY and XZ planes, as viewers do. Each size is
read by turns with the others, in a process that has the files in memory: what is measured is what
has to be decoded, and how many files have to be looked into.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore
from watching import isosr, measure

from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.store.volume import Volume

LAYOUTS = {
    "32³ in the default": ("32", None),
    "64³ in the default": ("64", None),
    "64³ in 256³": ("64", "256"),
    "64³ in 512³": ("64", "512"),
    "96³ in the default": ("96", None),
    "128³ in the default": ("128", None),
}
"""Chunks and shards."""

READS = {
    "block of 128³ and halo of 30": Zyx(188, 188, 188),
    "block of 256³ and halo of 30": Zyx(316, 316, 316),
    "XY tile of 512²": Zyx(1, 512, 512),
    "XZ tile of 256 × 512": Zyx(256, 1, 512),
}
TURNS = 5


def boxes(shape: tuple[int, int, int], lengths: Zyx) -> list[Box]:
    """Return the same random places for every layout."""
    rng = np.random.default_rng(1)
    kept = Zyx(*(min(n, m) for n, m in zip(lengths, shape, strict=True)))
    starts = [
        Zyx(*(int(rng.integers(n - k + 1)) for n, k in zip(shape, kept, strict=True)))
        for _ in range(4)
    ]
    return [Box(start, Zyx(*(a + k for a, k in zip(start, kept, strict=True)))) for start in starts]


def reader(store: Path) -> Callable[[Box], float]:
    """Return what times reading a box with one thread, in seconds."""
    limits = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
    spec = {"driver": "zarr3", "kvstore": f"file://{store / '0'}/"}
    array = tensorstore.open(spec, context=tensorstore.Context(limits), read=True).result()

    def read(box: Box) -> float:
        begin = time.perf_counter()
        array[(0, *box.slices)].read().result()
        return time.perf_counter() - begin

    return read


def main() -> None:
    """Convert the source in every layout, read by turns, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path, help="for the stores; must not exist")
    options = parser.parse_args()
    options.folder.mkdir()
    stores = {name: options.folder / f"{i}.zarr" for i, name in enumerate(LAYOUTS)}
    converting = {}
    for name, (chunk, shard) in LAYOUTS.items():
        given = ["--chunk", chunk, *(["--shard", shard] if shard else [])]
        found = measure(isosr("convert", options.source, stores[name], *given))
        converting[name] = f"{found.seconds:.1f} s, {found.together / 1e9:.1f} GB"
    z, y, x = Volume(next(iter(stores.values()))).shape[1:]
    readers = {name: reader(store) for name, store in stores.items()}
    seconds: dict[tuple[str, str], list[float]] = {}
    for what, lengths in READS.items():
        for _ in range(TURNS):
            for name, read in readers.items():
                times = [read(box) for box in boxes((z, y, x), lengths)]
                seconds.setdefault((name, what), []).append(statistics.mean(times))
    titles = ["chunks and shards", "convert, memory", "on disk", *READS]
    print("| " + " | ".join(titles) + " |\n|" + " --- |" * len(titles), file=sys.stdout)
    for name, store in stores.items():
        size = sum(p.stat().st_size for p in (store / "0").rglob("*") if p.is_file())
        cells = [name, converting[name], f"{size / 1e9:.2f} GB"]
        cells += [f"{1000 * min(seconds[name, what]):.1f} ms" for what in READS]
        print("| " + " | ".join(cells) + " |")
    shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
