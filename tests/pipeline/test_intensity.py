from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isosr_pipeline.errors import InputError
from isosr_pipeline.store.intensity import CONFOCAL, Histogram, find_window

integers = st.sampled_from(["uint8", "int8", "uint16", "int16"])


@given(st.data(), integers, st.floats(0, 100))
def test_percentiles_of_integers_are_exact(data, dtype, percent):
    values = data.draw(hnp.arrays(dtype, st.integers(1, 200)))
    histogram = Histogram(dtype)
    histogram.add(values)
    # Of small integers NumPy's own differences overflow, and it rounds ranks in another order.
    expected = np.percentile(values.astype(np.float64), percent)
    assert histogram.percentile(percent) == pytest.approx(expected, abs=1e-6)


@given(hnp.arrays("float32", st.integers(2, 200), elements=st.floats(-1e6, 1e6, width=32)))
def test_percentiles_of_floats_are_near(values):
    histogram = Histogram("float32")
    histogram.add(values)
    low, high = np.sort(values)[[0, -1]]
    assert histogram.percentile(0) == pytest.approx(low, rel=1e-3, abs=1e-37)
    assert histogram.percentile(100) == pytest.approx(high, rel=1e-3, abs=1e-37)


def test_parts_add_up_to_the_whole_also_when_encoded():
    values = np.random.default_rng(0).integers(-3000, 20000, 10_000).astype(np.int16)
    whole, parts = Histogram("int16"), Histogram("int16")
    whole.add(values)
    for part in np.array_split(values, 7):
        histogram = Histogram("int16")
        histogram.add(part)
        parts.add_encoded(histogram.encode())
    assert (whole.counts == parts.counts).all()


def test_nan_and_infinity_do_not_count():
    histogram = Histogram("float32")
    histogram.add(np.array([np.nan, np.inf, -np.inf, 2.0], np.float32))
    assert histogram.counts.sum() == 1


def test_the_window_of_a_flat_volume_has_a_width():
    histogram = Histogram("uint16")
    histogram.add(np.full(10, 300, np.uint16))
    window = histogram.window(CONFOCAL)
    assert (window.low, window.high) == (300, 301)
    assert find_window([window], CONFOCAL) == window
    assert find_window([window], (1.0, 99.0)) is None


def test_an_empty_histogram_has_a_window():
    assert Histogram("uint8").window(CONFOCAL).low == 0


@pytest.mark.parametrize("dtype", ["float64", "uint32", "complex64", "bool"])
def test_other_dtypes_are_refused_with_a_remedy(dtype):
    with pytest.raises(InputError, match=r"uint16 or float32"):
        Histogram(dtype)
