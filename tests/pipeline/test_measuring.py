"""Sums over boxes that a cluster measures, whatever order they are done in."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import time
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isosr_cluster.clients import open_client
from isosr_cluster.errors import ClusterLostError
from isosr_pipeline.errors import (
    HopelessError,
    InputError,
    InterruptedRunError,
    WorkFailedError,
)
from isosr_pipeline.geometry import Box, Zyx
from isosr_pipeline.measuring import ReopenedVolume, Total, measure


def boxes(count):
    return (Box(Zyx(i, 0, 0), Zyx(i + 1, 8, 8)) for i in range(count))


def silent(_units, _remark):
    pass


def number(box):
    """Numbers of which a sum differs in its last bits with the order."""
    return 0.1 * 10.0 ** (box.start.z % 7)


@given(count=st.integers(1, 70), seed=st.integers(0, 99))
def test_a_total_is_the_same_to_the_last_bit_in_any_order(count, seed):
    values = [number(box) for box in boxes(count)]
    in_order, shuffled = Total(), Total()
    for index, value in enumerate(values):
        in_order.add(index, value)
        assert len(in_order) <= (index + 1).bit_length()
    for index in np.random.default_rng(seed).permutation(count):
        shuffled.add(int(index), values[index])
    assert shuffled.value == in_order.value
    assert in_order.value == pytest.approx(sum(values), rel=1e-12)


def test_a_total_keeps_the_order_of_what_is_added():
    total = Total()
    for index in (3, 0, 4, 2, 1):
        total.add(index, (index,))
    assert total.value == (0, 1, 2, 3, 4)


def test_one_that_is_slow_holds_back_few_sums():
    total = Total()
    for index in range(1, 1000):
        total.add(index, 1.0)
        assert len(total) <= 20
    total.add(0, 1.0)
    assert total.value == 1000


def test_boxes_that_end_in_another_order_give_the_same_sum(client):
    def slow_at_first(box):
        time.sleep(0.3 if box.start.z in (0, 5) else 0.0)
        return number(box)

    quick = measure(client, number, boxes(40), silent, "numbers")
    assert measure(client, slow_at_first, boxes(40), silent, "numbers") == quick
    assert quick == pytest.approx(reduce(lambda a, b: a + b, map(number, boxes(40))))


def test_boxes_are_taken_as_others_are_done(client):
    taken = done = most = 0

    def drawn():
        nonlocal taken
        for box in boxes(100):
            taken += 1
            yield box

    def advance(units, _remark):
        nonlocal done, most
        most = max(most, taken - done)
        done += units

    measure(client, lambda _box: 1, drawn(), advance, "ones")
    assert done == taken == 100
    # Two a thread, and sixteen once workers are known to be quick: never all that there are.
    assert most <= 16 * sum(client.nthreads().values())


def test_a_box_that_fails_is_named_and_ends_the_work(client, tmp_path):
    def fail(box):
        (tmp_path / str(box.start.z)).touch()
        if box.start.z == 3:
            raise InputError("the chunk is damaged")
        return 1

    with pytest.raises(WorkFailedError) as caught:
        measure(client, fail, boxes(1000), silent, "spectrum, input (brain.zarr)")
    shown = str(caught.value)
    assert "spectrum, input (brain.zarr): the box z 3:4, y 0:8, x 0:8 failed" in shown
    assert "the chunk is damaged" in shown
    assert "same command again" in shown
    assert len(list(tmp_path.iterdir())) < 100


def test_an_error_that_may_pass_is_tried_again(client, tmp_path):
    def stumble(box):
        mark = tmp_path / str(box.start.z)
        if not mark.exists():
            mark.touch()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return 1

    assert measure(client, stumble, boxes(5), silent, "ones", waits=(0.05,)) == 5
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(WorkFailedError, match="Input/output error"):
        measure(client, stumble, boxes(5), silent, "ones", waits=())


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_work_and_says_that_nothing_is_kept(client, sent):
    def advance(_units, _remark):
        nonlocal done
        done += 1
        if done == 3:
            signal.raise_signal(sent)

    done = 0
    with pytest.raises(InterruptedRunError, match="nothing is kept: give the same command again"):
        measure(client, number, boxes(10_000), advance, "numbers")
    assert 3 <= done < 1000


def test_a_lost_cluster_does_not_advise_to_resume():
    def slow_later(box):
        time.sleep(60 * box.start.z)
        return 1

    with open_client(workers=1) as own:

        def lose(_units, _remark):
            own.close()

        with pytest.raises(ClusterLostError, match="nothing is kept: give the same") as caught:
            measure(own, slow_later, boxes(2), lose, "numbers")
    assert "--resume" not in str(caught.value)


def test_a_volume_is_opened_where_it_is_read_and_another_in_its_place_is_refused(make_store, noise):
    volume, other = make_store(noise), make_store(noise)
    box = Box(Zyx(3, 4, 5), Zyx(20, 40, 33))
    sent = pickle.dumps(ReopenedVolume.of(volume))
    assert len(sent) < 1000
    opened = pickle.loads(sent)  # noqa: S301 - our own bytes
    assert (opened.read(0, box) == noise[box.slices]).all()

    shutil.rmtree(volume.path / "0" / "c")
    shutil.move(volume.path, volume.path.with_name("moved.zarr"))
    with pytest.raises(OSError, match=r"store1\.zarr does not exist"):
        opened.read(0, box)
    shutil.move(other.path, volume.path)
    for late in (opened, pickle.loads(sent)):  # noqa: S301 - our own bytes
        with pytest.raises(HopelessError, match=r"store1\.zarr has been replaced"):
            late.read(0, box)
