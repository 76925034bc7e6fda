"""The three tiers against a float64 or exact reference, for everything in the catalogue.

The catalogue holds the inputs, the reference and the error bound; this file runs every entry x tier x dtype x
regime, and sweeps each axis over lengths around the widths of vectors and register tiles.
"""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from fastml import kernels
from fastml.kernels import catalogue
from fastml.kernels.catalogue import ENTRIES
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.runtime.jit import jit_enabled

CASES = [pytest.param(entry, dtype, id=f"{key}-{dtype}") for key, entry in ENTRIES.items() for dtype in entry.dtypes]


def check(entry: catalogue.Entry, tier: str, size: tuple[int, ...], dtype: str, regime: str, seed: int) -> None:
    """Assert that a tier's result for inputs of this size and regime lies within the entry's bound."""
    inputs = entry.make(size, dtype, regime, seed)
    truth = entry.reference(inputs)
    result = entry.tier(tier)(*inputs.args, **inputs.kwargs)
    shapes = [part.shape for part in catalogue.outputs(result)]
    assert shapes == [part.shape for part in truth], f"size {size}, {regime}"
    error = catalogue.check(entry, result, truth, dtype)
    assert error <= 1, f"size {size}, {regime}: {error:.3g} times the tolerance ({entry.tolerance[dtype].reason})"


def skip_reference_tiers_without_the_jit(tier: str) -> None:
    if not jit_enabled() and tier != "compiled":
        pytest.skip("the same with the JIT")


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_tiers_agree_with_the_reference_in_every_regime(entry, dtype, tier, seed):
    skip_reference_tiers_without_the_jit(tier)
    for regime in entry.regimes:
        for repeat in range(3):
            check(entry, tier, entry.sizes["tiny"], dtype, regime, seed + repeat)


def skip_what_says_nothing_without_the_jit(entry: catalogue.Entry, tier: str) -> None:
    """Sweeps of the reference tiers, which are the same with and without the JIT, and plain loops over pixels."""
    skip_reference_tiers_without_the_jit(tier)
    if not jit_enabled() and entry.family == "convolution":
        pytest.skip("far too slow with NUMBA_DISABLE_JIT=1")


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_tiers_agree_around_the_vector_width(entry, dtype, tier, seed):
    """One axis after the other takes the lengths 1, 2, 3, 7, 8, 15 ... 65; the regimes take turns."""
    skip_what_says_nothing_without_the_jit(entry, tier)
    sizes = list(entry.tail_sizes())
    for axis, name in enumerate(entry.axes):
        assert name == "k" or {1, 7, 8, 15, 16, 17, 31, 33, 63, 65} <= {size[axis] for size in sizes}
    if tier == "loops":  # which know no vectors
        sizes = [size for size in sizes if max(size) < 16]
    elif not jit_enabled():  # nor does Python, but many classes go another way than few
        sizes = [size for size in sizes if max(size) < 16 or max(size) == 65]
    for number, size in enumerate(sizes):
        check(entry, tier, size, dtype, "tails", seed + number)
        check(entry, tier, size, dtype, entry.regimes[number % len(entry.regimes)], seed - number)


@pytest.mark.parametrize(("entry", "dtype"), [case for case in CASES if case.values[0].function == "k_nearest"])
def test_tiers_agree_for_every_k(entry, dtype, tier, seed):
    for k in range(1, 34):
        check(entry, tier, (4, 33, 6, k), dtype, "extreme" if k % 3 == 0 else "typical", seed + k)


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_tiers_agree_on_many_rows(entry, dtype, tier, seed):
    """More rows than one block holds; the loops tier, which has no blocks, takes fewer, and so does Python."""
    skip_what_says_nothing_without_the_jit(entry, tier)
    small = {"n": 257, "m": 9, "d": 9, "c": 4, "k": 3, "o": 2, "h": 3}
    pairs = "m" in entry.axes and entry.family != "training"  # where m counts models
    large = {"n": 523, "m": 300, "d": 21, "c": 7, "k": 3} if pairs else {"n": 4099, "m": 5, "d": 21, "c": 7}
    large |= {"o": 5, "h": 3}
    if not jit_enabled():
        large["n"] //= 4
    lengths = small if tier == "loops" else large
    check(entry, tier, tuple(lengths[axis] for axis in entry.axes), dtype, "typical", seed)


@pytest.mark.parametrize(("entry", "dtype"), [case for case in CASES if case.values[0].family == "distances"])
def test_tiers_agree_on_many_columns(entry, dtype, tier, seed):
    """More columns than one chunk of a sum: 256 in float32, 128 in float64, 1,024 in uint8."""
    for columns in (127, 128, 129, 255, 256, 257, 784, 1023, 1024, 1025, 3072):
        check(entry, tier, (3, 5, columns), dtype, "typical", seed)


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_output_dtypes_are_those_of_the_catalogue(entry, dtype, tier, seed):
    inputs = entry.make(entry.sizes["tiny"], dtype, "typical", seed)
    result = entry.tier(tier)(*inputs.args, **inputs.kwargs)
    arrays = [part for part in (result if isinstance(result, tuple) else (result,)) if isinstance(part, np.ndarray)]
    places = {"k_nearest": [1], "radius_neighbors": [1, 0]}
    for place in places.get(entry.function, [0] * (entry.family == "neighbors")):  # indices and counts
        assert arrays.pop(place).dtype == np.intp
    if entry.function in ("radius_counts", "pairwise_argmin"):
        return
    if entry.function in ("train_linear", "train_network"):
        assert arrays.pop().dtype == np.float64
    if not arrays:
        assert type(result) is float
        assert entry.dtypes[dtype].output == "float64"
    for array in arrays:
        assert array.dtype == entry.dtypes[dtype].output


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_inputs_are_reproducible_and_the_tiers_leave_them_alone(entry, dtype, tier, seed, same_bits):
    for regime in entry.regimes:
        inputs, again = (entry.make(entry.sizes["tiny"], dtype, regime, seed) for _ in range(2))
        entry.tier(tier)(*inputs.args, **inputs.kwargs)
        for given, fresh in zip(
            (*inputs.args, *inputs.kwargs.values()), (*again.args, *again.kwargs.values()), strict=True
        ):
            if isinstance(given, np.ndarray):
                same_bits(given, fresh)
            else:
                assert given == fresh


# ---------------------------------------------------------------------------------------------------------------
# The comparison itself: planted cases that must fail
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_the_comparison_notices_a_wrong_result(entry, dtype, seed):
    """Each output in turn is damaged in one place: by one percent, by NaN, by infinity."""
    inputs = entry.make(entry.sizes["tiny"], dtype, "typical", seed)
    truth = entry.reference(inputs)
    result = entry.tier("vectorized")(*inputs.args, **inputs.kwargs)
    assert catalogue.check(entry, result, truth, dtype) <= 1
    parts = result if isinstance(result, tuple) else (result,)
    for number, part in enumerate(parts):
        if number == truth.neighbors:
            continue  # wrong neighbours have a test of their own
        exact = np.asarray(part)
        floating = exact.dtype.kind == "f"
        percent = (float(np.max(np.abs(exact))) or 1.0) * 0.01
        for error in (percent, -percent, math.nan, math.inf) if floating else (1, -1):
            damaged = exact.copy()
            damaged.reshape(-1)[-1] += error
            wrong = (*parts[:number], damaged if isinstance(part, np.ndarray) else float(damaged), *parts[number + 1 :])
            units = catalogue.check(entry, wrong if len(wrong) > 1 else wrong[0], truth, dtype)
            assert units > 1, f"{error} in output {number} went unnoticed"


@pytest.mark.parametrize("key", ["pairwise_l1", "k_nearest[l1]", "softmax", "hinge", "hinge_gradient"])
def test_the_comparison_notices_a_wrong_shape_dtype_or_type(key, seed):
    entry = ENTRIES[key]
    inputs = entry.make(entry.sizes["tiny"], "float32", "typical", seed)
    truth = entry.reference(inputs)
    result = entry.tier("vectorized")(*inputs.args, **inputs.kwargs)
    parts = result if isinstance(result, tuple) else (result,)
    assert catalogue.check(entry, result, truth, "float32") <= 1
    assert catalogue.check(entry, (*parts, parts[0]), truth, "float32") == math.inf
    last = parts[-1]
    for wrong in (np.asarray(last)[None], np.asarray(last).astype(np.float16), None):
        damaged = (*parts[:-1], wrong) if len(parts) > 1 else wrong
        assert catalogue.check(entry, damaged, truth, "float32") == math.inf


def test_the_comparison_knows_nan_and_the_sign_of_infinity():
    entry = ENTRIES["pairwise_l1"]

    def units(got: float, expected: float) -> float:
        truth = catalogue.Truth((np.array([[expected]]),), ("float64",))
        return catalogue.check(entry, np.array([[got]]), truth, "float64")

    for value in (math.nan, math.inf, -math.inf, 0.0, 1.0):
        assert units(value, value) == 0
    for got, expected in (
        (math.nan, math.inf),
        (math.inf, math.nan),
        (-math.inf, math.inf),
        (1.0, math.nan),
        (1e308, math.inf),
        (math.inf, 1e300),
        (math.nan, 0.0),
    ):
        assert units(got, expected) == math.inf, (got, expected)


def test_the_comparison_notices_a_wrong_nearest_row(seed):
    for key in ("pairwise_argmin[l2]", "pairwise_argmin_min[l1]"):
        entry = ENTRIES[key]
        inputs = entry.make(entry.sizes["tiny"], "float64", "typical", seed)
        truth = entry.reference(inputs)
        result = entry.tier("vectorized")(*inputs.args, **inputs.kwargs)
        parts = result if isinstance(result, tuple) else (result,)
        wrong = parts[0].copy()
        wrong[0] = (wrong[0] + 1) % len(inputs.args[1])
        for indices, fits in ((parts[0], True), (wrong, False)):
            damaged = (indices, *parts[1:]) if len(parts) > 1 else indices
            assert (catalogue.check(entry, damaged, truth, "float64") <= 1) == fits


def test_the_comparison_notices_a_wrong_neighbor(seed):
    entry = ENTRIES["k_nearest[l2]"]
    inputs = entry.make(entry.sizes["tiny"], "float64", "typical", seed)
    truth = entry.reference(inputs)
    distances, indices = entry.tier("vectorized")(*inputs.args, **inputs.kwargs)
    assert catalogue.check(entry, (distances, indices), truth, "float64") <= 1
    m = len(inputs.args[1])
    wrong = indices.copy()
    wrong[0, 0] = (wrong[0, 0] + 1) % m
    assert not catalogue.check(entry, (distances, wrong), truth, "float64") <= 1
    outside = indices.copy()
    outside[0, 0] = m
    assert not catalogue.check(entry, (distances, outside), truth, "float64") <= 1
    duplicated = indices.copy()
    duplicated[0, 1] = duplicated[0, 0]
    assert not catalogue.check(entry, (distances, duplicated), truth, "float64") <= 1


# ---------------------------------------------------------------------------------------------------------------
# The catalogue is complete
# ---------------------------------------------------------------------------------------------------------------


def public_kernels() -> set[str]:
    others = {name for names in kernels._OTHERS.values() for name in names}
    return {name for name in kernels.__all__ if inspect.isfunction(getattr(kernels, name))} - others


def test_every_public_kernel_is_in_the_catalogue():
    assert "pairwise_l1" in public_kernels()
    assert {entry.function for entry in ENTRIES.values()} == public_kernels()


def test_a_kernel_missing_from_the_catalogue_is_noticed():
    kept = {entry.function for key, entry in ENTRIES.items() if key != "softplus"}
    assert public_kernels() - kept == {"softplus"}


def test_every_variant_has_an_entry():
    metrics = {f"k_nearest[{metric}]" for metric in METRICS}
    images = {name for name, entry in ENTRIES.items() if entry.family == "convolution"}
    losses = {name for name in ENTRIES if f"{name}_gradient" in ENTRIES} - images
    assert len(losses) == 9
    assert metrics | {f"linear_loss_gradient[{loss}]" for loss in losses} <= set(ENTRIES)


@pytest.mark.parametrize("key", ENTRIES)
def test_entries_are_consistent(key):
    entry = ENTRIES[key]
    assert entry.key == key
    assert key.split("[")[0] == entry.function
    assert set(entry.tolerance) == set(entry.dtypes)
    assert {"tiny", "default", "full"} <= set(entry.sizes)
    assert {len(size) for size in entry.sizes.values()} | {len(entry.loop_size)} == {len(entry.axes)}
    assert entry.limit in ("memory", "gemm")
    assert {"typical", "extreme", "tails"} <= set(entry.regimes)
    for size in entry.sizes.values():
        assert entry.work(size) > 0
        assert entry.flops(size) > 0
        for dtype in entry.dtypes:
            assert entry.bytes(size, dtype) > 0
    for tolerance in entry.tolerance.values():
        assert tolerance.reason
        assert 0 <= tolerance.rtol < 1e-3
        assert 0 <= tolerance.atol < 1e-2
    assert entry.specializations >= 1
    assert entry.formula
