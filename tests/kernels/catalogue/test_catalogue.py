"""The catalogue and its checker, with planted faults which the checker must find."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fastml.kernels import catalogue
from fastml.kernels.catalogue import ENTRIES, Inputs, Tolerance, Truth, check, outputs
from fastml.kernels.reference import loops, vectorized

EVERY = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))


def run(entry: catalogue.Entry, inputs: Inputs):
    return getattr(vectorized, entry.function)(*inputs.args, **inputs.kwargs)


def case(key: str, dtype: str = "float32", regime: str = "typical"):
    entry = ENTRIES[key]
    inputs = entry.make(entry.sizes["tiny"], dtype, regime)
    return entry, run(entry, inputs), entry.reference(inputs), inputs


# -- what every entry promises ---------------------------------------------------------------------


@EVERY
def test_entry_is_complete(entry):
    assert entry.key.split("[")[0] == entry.function
    assert {"tiny", "default", "full"} <= set(entry.sizes)
    assert set(entry.tolerance) == set(entry.dtypes)
    assert {"typical", "extreme", "tails"} <= set(entry.regimes)
    assert entry.limit in ("memory", "gemm")
    assert entry.unit in ("elem", "exp", "flop")
    assert entry.specializations >= len(entry.dtypes)
    assert entry.formula
    assert all(len(t.reason) > 10 for t in entry.tolerance.values())
    for size in (*entry.sizes.values(), entry.loop_size, *entry.tail_sizes()):
        assert len(size) == len(entry.axes)
        assert entry.work(size) > 0
        assert entry.flops(size) > 0
        assert all(entry.bytes(size, dtype) > 0 for dtype in entry.dtypes)


@EVERY
def test_sizes_grow_and_the_loop_gets_a_part(entry):
    tiny, default, full = (entry.work(entry.sizes[name]) for name in ("tiny", "default", "full"))
    assert tiny < default
    assert default < full or entry.sizes["full"] == (100_000, 10)
    assert entry.work(entry.loop_size) < default


@EVERY
def test_bytes_count_inputs_and_results_once(entry):
    for dtype, size in ((d, s) for d in entry.dtypes for s in (entry.sizes["tiny"], entry.loop_size)):
        inputs = entry.make(size, dtype)
        read = sum(a.nbytes for a in inputs.args if isinstance(a, np.ndarray))
        written = sum(a.nbytes for a in outputs(run(entry, inputs)) if a.ndim > 0)
        # Scalars, an intercept and a loss, are not counted, or counted in passing.
        assert entry.bytes(size, dtype) == pytest.approx(read + written, abs=2 * 8)


@EVERY
def test_inputs_are_seeded(entry, same_bits):
    for dtype in entry.dtypes:
        for regime in entry.regimes:
            first, again, other = (entry.make(entry.sizes["tiny"], dtype, regime, seed) for seed in (3, 3, 4))
            assert first.kwargs.keys() == again.kwargs.keys()
            different = False
            for a, b, c in zip(first.args, again.args, other.args, strict=True):
                if isinstance(a, np.ndarray):
                    same_bits(a, b)
                    different |= not np.array_equal(a, c)
            assert different
            assert first.args[0 if isinstance(first.args[0], np.ndarray) else 1].dtype == dtype


@EVERY
def test_regimes_differ(entry):
    for dtype in entry.dtypes:
        first = {}
        for regime in set(entry.regimes) - {"tails"}:
            inputs = entry.make(entry.sizes["tiny"], dtype, regime)
            first[regime] = [a.tobytes() for a in (*inputs.args, *inputs.kwargs.values()) if isinstance(a, np.ndarray)]
        assert len({tuple(arrays) for arrays in first.values()}) == len(first)


@EVERY
def test_truth_is_wider_than_the_result_and_finite(entry):
    for dtype in entry.dtypes:
        inputs = entry.make(entry.sizes["tiny"], dtype)
        truth = entry.reference(inputs)
        assert isinstance(truth, tuple)
        for value, scale in zip(truth, truth.scale, strict=True):
            assert value.dtype.kind == "i" or value.dtype in (np.float64, np.longdouble)
            assert np.isfinite(value.astype(float)).all()
            # Rounding is relative to what was added up, which is no less than what came out.
            assert value.dtype.kind == "i" or (scale.astype(float) >= 0).all()


@EVERY
def test_tails_surround_the_width_of_vectors(entry):
    sizes = list(entry.tail_sizes())
    for place, axis in enumerate(entry.axes):
        if axis != "k":
            assert set(catalogue.TAILS) <= {size[place] for size in sizes}
    if "k" in entry.axes:
        assert all(1 <= size[3] <= size[1] for size in sizes)


def test_tier_finds_the_functions():
    entry = ENTRIES["pairwise_l2[squared]"]
    assert entry.tier("vectorized") is vectorized.pairwise_l2
    assert entry.tier("loops") is loops.pairwise_l2
    with pytest.raises(ValueError, match="it must be 'loops', 'vectorized' or 'compiled'"):
        entry.tier("gpu")


def test_catalogue_imports_nothing_but_numpy():
    code = (
        "import sys, fastml.kernels.catalogue;"
        "print([m for m in ('numba', 'scipy', 'sklearn', 'fastml.kernels.reference.loops') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- the checker finds planted faults --------------------------------------------------------------


@EVERY
def test_check_accepts_the_truth_itself_and_refuses_an_error_of_the_tolerance(entry):
    for dtype, tolerance in entry.tolerance.items():
        inputs = entry.make(entry.sizes["tiny"], dtype)
        truth = entry.reference(inputs)
        parts = []
        for value, expected in zip(truth, truth.dtypes, strict=True):
            parts.append(float(value) if expected is None else value.astype(expected))
        exact = parts[0] if len(parts) == 1 else tuple(parts)
        assert check(entry, exact, truth, dtype) <= 1
        if isinstance(parts[0], np.ndarray) and parts[0].dtype.kind == "f":
            # Twice the bound, and what rounding to the dtype may have taken from it.
            wrong = parts[0].copy()
            bound = tolerance.rtol * truth.scale[0] + tolerance.atol
            place = np.unravel_index(np.argmax(truth.scale[0]), wrong.shape)
            wrong[place] += 3 * bound[place]
            assert check(entry, wrong if len(parts) == 1 else (wrong, *parts[1:]), truth, dtype) > 1
        elif isinstance(parts[0], np.ndarray):
            wrong = parts[0].copy()
            wrong.flat[-1] += 1
            units = check(entry, wrong if len(parts) == 1 else (wrong, *parts[1:]), truth, dtype)
            assert units > 1 if entry.family == "neighbors" else units == math.inf
        else:
            wrong = parts[0] + 3 * float(tolerance.rtol * truth.scale[0] + tolerance.atol)
            assert check(entry, wrong if len(parts) == 1 else (wrong, *parts[1:]), truth, dtype) > 1


@EVERY
def test_check_finds_a_row_left_out(entry):
    """The commonest fault of a blocked kernel: the rest after the last whole block is not done."""
    for dtype in entry.dtypes:
        inputs = entry.make(entry.sizes["tiny"], dtype)
        first = 1 if isinstance(inputs.args[0], str) else 0
        args = list(inputs.args)
        args[first] = args[first].copy()
        args[first][-1] = 0
        assert check(entry, run(entry, Inputs(tuple(args), inputs.kwargs)), entry.reference(inputs), dtype) > 1


def test_check_finds_float32_arithmetic_in_a_float64_result():
    for key, entry in ENTRIES.items():
        if "float64" not in entry.dtypes or entry.function in ("radius_counts", "pairwise_argmin"):
            continue  # or the same in any arithmetic
        inputs = entry.make(entry.sizes["tiny"], "float64")
        args = tuple(
            a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in inputs.args
        )
        result = run(entry, Inputs(args, inputs.kwargs))
        truth = entry.reference(inputs)
        parts = result if isinstance(result, tuple) else (result,)
        widened = tuple(
            p.astype(np.float64) if isinstance(p, np.ndarray) and p.dtype == np.float32 else p for p in parts
        )
        assert check(entry, widened if len(widened) > 1 else widened[0], truth, "float64") > 1, key


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_check_finds_a_value_that_is_not_finite(bad):
    entry, result, truth, _ = case("softmax")
    result[3, 4] = bad
    assert check(entry, result, truth, "float32") == math.inf


def test_check_wants_the_same_nan_and_the_same_infinity():
    entry = ENTRIES["exp"]
    truth = Truth((np.array([math.nan, math.inf, -math.inf, 1.0]),), ("float32",))
    right = np.float32([math.nan, math.inf, -math.inf, 1.0])
    assert check(entry, right, truth, "float32") == 0
    for place, wrong in ((0, 0.0), (0, math.inf), (1, math.nan), (1, -math.inf), (1, 3e38), (2, math.inf)):
        broken = right.copy()
        broken[place] = wrong
        assert check(entry, broken, truth, "float32") == math.inf, (place, wrong)


def test_check_takes_infinity_for_what_the_dtype_cannot_hold():
    entry = ENTRIES["exp"]
    truth = Truth((np.array([1e39, 3.4e38]),), ("float32",))
    assert check(entry, np.float32([math.inf, 3.4e38]), truth, "float32") <= 1
    assert check(entry, np.float32([math.inf, math.inf]), truth, "float32") == math.inf
    assert check(entry, np.float32([3.4e38, 3.4e38]), truth, "float32") > 1


def test_check_finds_wrong_shapes_dtypes_and_types():
    entry, result, truth, _ = case("pairwise_l1")
    assert check(entry, result.T, truth, "float32") == math.inf
    assert check(entry, result.astype(np.float64), truth, "float32") == math.inf
    assert check(entry, result.tolist(), truth, "float32") == math.inf
    assert check(entry, (result, result), truth, "float32") == math.inf
    entry, (loss, gradient), truth, _ = case("huber_gradient")
    assert check(entry, (loss, gradient), truth, "float32") <= 1
    assert check(entry, (np.float64(loss), gradient), truth, "float32") == math.inf
    assert check(entry, (np.array(loss), gradient), truth, "float32") == math.inf
    assert check(entry, (loss, gradient.astype(np.float64)), truth, "float32") == math.inf
    assert check(entry, loss, truth, "float32") == math.inf


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_check_finds_wrong_neighbors(dtype):
    entry, (distances, indices), truth, _ = case("k_nearest[l1]", dtype)
    assert check(entry, (distances, indices), truth, dtype) <= 1
    swapped = indices.copy()
    swapped[0, :2] = swapped[0, 1::-1]
    farthest = indices.copy()
    farthest[1, 0] = np.argmax(truth.distances[1])
    twice = indices.copy()
    twice[2, 1] = twice[2, 0]
    outside = indices.copy()
    outside[3, 0] = truth.distances.shape[1]
    for wrong in (swapped, farthest, twice, outside, indices - 1000, indices.astype(np.int32)):
        assert check(entry, (distances, wrong), truth, dtype) > 1


def test_check_allows_either_order_within_rounding_for_floats_only():
    distances = np.array([[1.0, 1.0 + 1e-9, 2.0]])
    truth = Truth((distances[:, :2], np.array([[0, 1]])), ("float32", np.intp), distances=distances)
    swapped = np.array([[1, 0]])
    assert check(ENTRIES["k_nearest[l1]"], (np.float32([[1, 1]]), swapped), truth, "float32") <= 1
    exact = Truth((np.array([[1, 1]]), np.array([[0, 1]])), ("int32", np.intp), distances=np.array([[1.0, 1.0, 2.0]]))
    assert check(ENTRIES["k_nearest[l1]"], (np.int32([[1, 1]]), swapped), exact, "uint8") == math.inf


def test_check_finds_a_neighbor_listed_twice_even_at_the_right_distance():
    distances = np.array([[1.0, 1.0, 2.0]])
    truth = Truth((distances[:, :2], np.array([[0, 1]])), ("float32", np.intp), distances=distances)
    entry = ENTRIES["k_nearest[l1]"]
    assert check(entry, (np.float32([[1, 1]]), np.array([[1, 0]])), truth, "float32") <= 1
    assert check(entry, (np.float32([[1, 1]]), np.array([[1, 1]])), truth, "float32") == math.inf


def test_check_allows_rows_at_a_kink_their_jump_and_others_nothing():
    entry = ENTRIES["multiclass_hinge_gradient"]
    z = np.float32([[1.0, 0.0, -9.0], [1.5, 0.0, -9.0]])  # the first row sits on its kink
    inputs = Inputs((z, np.array([0, 0])), {})
    truth = entry.reference(inputs)
    loss, gradient = run(entry, inputs)
    other_side = np.float32([[-0.5, 0.5, 0], [0, 0, 0]])
    assert check(entry, (loss, gradient), truth, "float32") <= 1
    assert check(entry, (loss, other_side), truth, "float32") <= 1
    assert check(entry, (loss, other_side[::-1].copy()), truth, "float32") > 1


def test_check_reads_the_tolerance_of_the_entry():
    entry, result, truth, _ = case("exp")
    strict = replace(entry, tolerance={"float32": Tolerance(1e-12, 0.0, "tighter than float32 can be")})
    assert check(entry, result, truth, "float32") <= 1 < check(strict, result, truth, "float32")


def test_an_empty_result_is_right():
    entry = ENTRIES["pairwise_l1"]
    inputs = Inputs((np.zeros((0, 3), np.float32), np.zeros((2, 3), np.float32)), {})
    assert check(entry, run(entry, inputs), entry.reference(inputs), "float32") == 0


def test_outputs_makes_a_tuple_of_arrays():
    loss, gradient = outputs((1.5, np.ones(3)))
    assert loss.shape == ()
    assert loss == 1.5
    assert gradient.shape == (3,)
    assert [a.shape for a in outputs(np.ones((2, 3)))] == [(2, 3)]
    assert [a.shape for a in outputs(2.0)] == [()]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, ["hinge", "squared_hinge", "k_nearest[l1]", "k_nearest[l2]"]),
        ("hinge", ["hinge", "squared_hinge"]),
        ("[l1]", ["k_nearest[l1]"]),
        ("k*[l?]", ["k_nearest[l1]", "k_nearest[l2]"]),
        ("H*", ["hinge"]),
        ("h.nge", []),
    ],
)
def test_select(pattern, expected):
    assert catalogue.select(["hinge", "squared_hinge", "k_nearest[l1]", "k_nearest[l2]"], pattern) == expected
