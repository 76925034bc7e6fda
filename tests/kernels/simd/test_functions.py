"""exp, log, log1p, softplus, sigmoid and tanh: errors in units in the last place, limits, and their twins."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from llvmlite import binding

from fastml import kernels
from fastml.kernels.runtime.jit import inner, scalar
from fastml.kernels.simd import functions as simd_functions

FLOATS = ("float32", "float64")


def stated_bounds(text: str) -> dict[str, float]:
    """Read the bounds in ulp from the docstring of `functions`, so that it cannot say something else than is tested."""
    return {
        name: float(re.search(rf"^{name}[ .].*?At most ([\d.]+) ulp", text, re.MULTILINE | re.DOTALL)[1])
        for name in ("exp", "log1p", "log")
    } | {
        name: float(re.search(rf"{name}:\sAt\smost\s([\d.]+)\sulp", text)[1])
        for name in ("softplus", "sigmoid", "tanh")
    }


BOUNDS = stated_bounds(simd_functions.__doc__)

NEEDS_LONG_DOUBLE = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant, reason="nothing wider than float64 to compare with"
)
DTYPES = ["float32", pytest.param("float64", marks=NEEDS_LONG_DOUBLE)]


@scalar
def _sigmoid(z):
    return simd_functions.sigmoids(z)[0]


@scalar
def _sigmoid_of_minus(z):
    return simd_functions.sigmoids(z)[1]


def over_arrays(function):
    @inner
    def entries(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    def apply(x):
        out = np.empty_like(x)
        entries(x, out)
        return out

    return apply


OURS = {
    "exp": over_arrays(simd_functions.exp),
    "log": over_arrays(simd_functions.log),
    "log1p": over_arrays(simd_functions.log1p),
    "softplus": over_arrays(simd_functions.softplus),
    "sigmoid": over_arrays(_sigmoid),
    "sigmoid of minus": over_arrays(_sigmoid_of_minus),
    "tanh": over_arrays(simd_functions.tanh),
}


def _true_sigmoid(z):
    e = np.exp(-np.abs(z))
    return np.where(z < 0, e, 1) / (1 + e)


TRUTH = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
    "sigmoid": _true_sigmoid,
    "sigmoid of minus": lambda z: _true_sigmoid(-z),
    "tanh": np.tanh,
}


def error_in_ulp(got: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distance from the truth in units in the last place of the truth, which may be subnormal.

    Beyond the largest number an infinity counts as the next number after it.
    """
    dtype = got.dtype
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(np.abs(true))
        exponent = np.clip(exponent, info.minexp + 1, info.maxexp)
        ulp = np.ldexp(np.ones_like(true), exponent - info.nmant - 1)
        limit = np.ldexp(np.ones_like(true), np.full(true.shape, info.maxexp, exponent.dtype))
        finite = np.where(np.isinf(got), np.copysign(limit, got), got.astype(true.dtype))
        error = np.abs(finite - np.clip(true, -limit, limit)) / ulp
    return np.where(np.isnan(got) | np.isnan(true), np.where(np.isnan(got) & np.isnan(true), 0, np.inf), error)


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)


def worst(name: str, x: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        true = TRUTH[name](wide(x))
    error = error_in_ulp(OURS[name](x), true)
    place = int(error.argmax())
    print(f"{name}({x[place]!r}) is off by {error[place]:.3f} ulp")
    return float(error[place])


def bit_patterns(dtype: str, count: int) -> np.ndarray:
    """Numbers of every size and sign: all exponents, subnormals, infinities and NaN, evenly by their bits."""
    if dtype == "float32":
        bits = np.linspace(0, 2**32 - 1, count).astype(np.uint32)
    else:
        bits = np.arange(count, dtype=np.uint64) * np.uint64(2**64 // count)
        bits += np.random.default_rng(0).integers(0, 2**40, count, dtype=np.uint64)
    return bits.view(dtype)


def special(dtype: str) -> np.ndarray:
    info = np.finfo(dtype)
    values = [0.0, info.smallest_subnormal, info.tiny, info.eps / 2, info.eps, 0.5, 1.0, 2.0, np.e, 36.9, 37.0, 1e4]
    values += [16.6355, 88.72283, 88.72284, 87.33654, 103.27893, 103.97208, 104.0, 89.0]
    values += [
        709.782712893384,
        709.78271289338409,
        708.3964185322641,
        744.44007192138122,
        745.13321910194122,
        745.2,
        710.0,
    ]
    values += [5.891057, 5.8908005, 0.34213343, 0.4416635, 81.442505]  # the worst that were ever found
    values += [info.max, np.inf, np.nan]
    with np.errstate(over="ignore"):
        near = np.array(values).astype(dtype)
        near = np.concatenate(
            [near, np.nextafter(near, dtype_of(dtype)(np.inf)), np.nextafter(near, dtype_of(dtype)(0))]
        )
    return np.concatenate([near, -near])


def dtype_of(name: str):
    return np.dtype(name).type


def sweep(name: str, dtype: str, count: int) -> np.ndarray:
    """Arguments in the domain of a function: its whole range densely, its ends, and every size of number."""
    rng = np.random.default_rng(1)
    if name == "log1p":
        bits = bit_patterns(dtype, count)
        inside = bits[(bits >= 0) & (bits <= 1)]
        return np.concatenate([np.linspace(0, 1, count).astype(dtype), rng.random(count).astype(dtype), inside])
    if name == "log":
        bits = bit_patterns(dtype, count)
        inside = bits[bits >= 1]
        near = (1 + rng.random(count) * 3).astype(dtype)
        counts = np.arange(1, 100_001).astype(dtype)
        return np.concatenate([near, np.linspace(1, 4096, count).astype(dtype), counts, inside])
    if name == "tanh":
        x = [rng.uniform(-end, end, count).astype(dtype) for end in (25, 1, 0.25)]
        x += [(10.0 ** rng.uniform(-20, 1.4, count)).astype(dtype), np.array([0.5, 20, -20, 0.17182532], dtype)]
        return np.concatenate([*x, special(dtype), bit_patterns(dtype, count)])
    low, high = (-110.0, 95.0) if dtype == "float32" else (-760.0, 720.0)
    x = [np.linspace(low, high, count).astype(dtype), rng.normal(size=count).astype(dtype)]
    x += [(rng.random(count) * 30 - 25).astype(dtype) if dtype == "float32" else (rng.random(count) * 90 - 45)]
    return np.concatenate([*x, special(dtype), bit_patterns(dtype, count)])


@pytest.mark.slow
@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OURS)
def test_error_stays_within_the_stated_bound(name, dtype):
    bound = BOUNDS[name.split()[0]]
    assert worst(name, sweep(name, dtype, 1_000_000 if dtype == "float32" else 300_000)) <= bound


def test_no_bound_is_above_two():
    assert BOUNDS.keys() == {"exp", "log1p", "log", "softplus", "sigmoid", "tanh"}
    assert max(BOUNDS.values()) <= 2


@inner
def largest_error(got, true, bits, unit_bits, unit):
    """Largest error of float32 results in ulp, and its place; `bits` and `unit_bits` are views of `true` and `unit`."""
    for i in range(true.size):
        unit_bits[i] = (max((bits[i] >> 52) & 2047, 1023 - 126) - 23) << 52
    worst, place = -1.0, 0
    end = 2.0**128  # infinity counts as the number after the largest
    for i in range(true.size):
        error = abs(max(-end, min(end, np.float64(got[i]))) - max(-end, min(end, true[i]))) / min(unit[i], 2.0**104)
        if np.isnan(got[i]) or np.isnan(true[i]):
            error = 0.0 if np.isnan(got[i]) and np.isnan(true[i]) else np.inf
        if error > worst:
            worst, place = error, i
    return worst, place


#: Of how many numbers one is tried where every float32 is meant: a run as another target says so.
STEP = int(os.environ.get("FASTML_STEP", "1"))


def every_float32(low: float, high: float) -> Iterator[np.ndarray]:
    """Yield the float32 numbers low <= x <= high, of one sign, in pieces whose results stay in the CPU's cache."""
    first, last = sorted(np.array([low, high], np.float32).view(np.uint32).tolist())
    piece = STEP << 16
    for begin in range(first, last + 1, piece):
        yield np.arange(begin, min(last + 1, begin + piece), STEP, np.uint32).view(np.float32)


def worst_of_all(name: str, low: float, high: float) -> float:
    """Largest error over the float32 arguments low <= x <= high, against our own float64 function.

    That one is good to 4e-9 of these ulp. The arguments have one sign: their bits are consecutive integers.
    """
    worst, where = -1.0, None
    for x in every_float32(low, high):
        true = OURS[name](x.astype(np.float64))
        unit = np.empty_like(true)
        error, place = largest_error(OURS[name](x), true, true.view(np.int64), unit.view(np.int64), unit)
        if error > worst:
            worst, where = error, x[place]
    print(f"{name}({where!r}) is off by {worst:.4f} ulp")
    return worst


#: Nearer to 0 all results are those at 0 (or the argument: log1p, tanh), further away the limits.
NOT_CONSTANT = [(2.0**-30, 128.0), (-128.0, -(2.0**-30))]
RANGES = {"log1p": [(2.0**-30, 1.0)], "log": [(1.0, float(np.finfo(np.float32).max))], "tanh": NOT_CONSTANT[:1]}

#: Functions whose results at -x follow from those of another at x.
MIRRORED = {"tanh": lambda x: -OURS["tanh"](x), "sigmoid of minus": OURS["sigmoid"]}


@pytest.mark.needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OURS if name != "sigmoid of minus"])
def test_error_of_every_float32(name):
    for low, high in RANGES.get(name, NOT_CONSTANT):
        assert worst_of_all(name, low, high) <= BOUNDS[name]


@pytest.mark.needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("name", MIRRORED)
def test_results_of_every_float32_are_mirrored(name):
    """Which leaves half of the range, or all of it, out of the test above."""
    for low, high in NOT_CONSTANT[:1] if name == "tanh" else NOT_CONSTANT:
        for x in every_float32(low, high):
            np.testing.assert_array_equal(OURS[name](-x).view(np.int32), MIRRORED[name](x).view(np.int32))


@pytest.mark.needs_jit
def test_the_fast_measure_of_errors_is_the_plain_one():
    x = np.concatenate([special("float32"), bit_patterns("float32", 20_001)])
    with np.errstate(all="ignore"):
        true = np.exp(wide(x))
    got = OURS["exp"](x)
    got[::7] = np.where(got[::7] < 1e38, np.nextafter(got[::7], np.float32(0)), got[::7])
    plain = error_in_ulp(got, true)
    unit = np.empty_like(true)
    for begin in range(0, x.size, 100):
        part = slice(begin, begin + 100)
        found, place = largest_error(
            got[part], true[part], true[part].view(np.int64), unit[part].view(np.int64), unit[part]
        )
        assert found == plain[part].max() == plain[part][place]


#: Targets of x86, with what a CPU needs to run their code.
TARGETS = {"generic": "sse2", "x86-64-v3": "fma", "x86-64-v4": "avx512vl"}

#: The tests that run again as another target, and how many they are. All numbers are tried again, every third of them
#: and the worst that were found, only without fused multiply-add: with it, results round as those of this CPU's own
#: code, whatever the width of vectors.
ANOTHER_TARGET = "stated_bound or underflow or limits or ends_of_the_range"
N_OF_ANOTHER_TARGET = 22
EVERY_NUMBER = {"generic": (" or every_float32", 8)}


@pytest.mark.targets
@pytest.mark.slow
@pytest.mark.needs_jit
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names of x86 CPUs")
@pytest.mark.parametrize("target", TARGETS)
def test_bounds_hold_as_another_target(target, tmp_path):
    """Other vectors, and no fused multiply-add for "generic"."""
    if not binding.get_host_cpu_features().get(TARGETS[target]):
        pytest.skip(f"this CPU cannot run code for {target}")
    more, n_more = EVERY_NUMBER.get(target, ("", 0))
    environment = os.environ | {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    environment["FASTML_STEP"] = "3"
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-k", ANOTHER_TARGET + more]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert f"{N_OF_ANOTHER_TARGET + n_more} passed" in done.stdout


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradual_underflow_is_as_exact_as_the_rest(dtype):
    low, high = (-103.99, -87.3) if dtype == "float32" else (-745.14, -708.3)
    x = np.linspace(low, high, 200_000).astype(dtype)
    result = OURS["exp"](x)
    assert ((result > 0) & (result < np.finfo(dtype).tiny)).sum() > 100_000, "most results are subnormal"
    assert worst("exp", x) <= BOUNDS["exp"]
    assert worst("sigmoid", x) <= BOUNDS["sigmoid"]
    assert worst("softplus", x) <= BOUNDS["softplus"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_few_arguments_also_where_nothing_is_compiled(dtype):
    rng = np.random.default_rng(2)
    for name in OURS:
        x = np.concatenate([sweep(name, dtype, 20), rng.choice(sweep(name, dtype, 500), 300)])
        with np.errstate(all="ignore"):
            got, true = OURS[name](x), TRUTH[name](wide(x))
        # Nothing wider than float64 on some systems: the truth is rounded too then. A wrong formula is far off.
        assert error_in_ulp(got, true).max() <= BOUNDS[name.split()[0]] + 1


def test_public_docstrings_state_the_same_bounds():
    for name in ("exp", "sigmoid", "softplus"):
        assert f"Within {BOUNDS[name]} ulp" in getattr(kernels, name).__doc__


def test_the_error_of_a_wrong_result_is_seen():
    one = np.float32(1)
    ulp = np.spacing(one)
    got = np.array([one, one + ulp, one + 2 * ulp, np.nan, np.inf, 0], np.float32)
    true = np.array([1, 1, 1 + float(ulp) / 2, 1, 1e38, 2.0**-149])
    error = error_in_ulp(got, true)
    np.testing.assert_allclose(error[:3], [0, 1, 1.5])
    assert np.isinf(error[3])
    assert error[4] > 1e6
    assert error[5] == 1, "the smallest subnormal is one unit away from 0"
    assert error_in_ulp(np.float32([np.nan, np.inf]), np.array([np.nan, 1e300])).max() == 0
    assert error_in_ulp(np.float32([np.inf]), np.array([np.nan]))[0] == np.inf


@pytest.mark.parametrize("shift", [1e-6, -1e-6])
def test_a_formula_that_is_slightly_off_breaks_its_bound(shift, monkeypatch):
    monkeypatch.setitem(TRUTH, "exp", lambda x: np.exp(x) * (1 + shift))
    assert worst("exp", np.linspace(-5, 5, 1000).astype("f4")) > BOUNDS["exp"]


# ------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("dtype", FLOATS)
def test_limits(dtype, same_bits):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30], dtype)

    def expect(name, values, of=x):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(OURS[name](of), np.array(values, dtype), err_msg=name)

    expect("exp", [1, 1, np.inf, 0, np.nan, np.inf, 0])
    expect("sigmoid", [0.5, 0.5, 1, 0, np.nan, 1, 0])
    expect("sigmoid of minus", [0.5, 0.5, 0, 1, np.nan, 0, 1])
    ln2 = OURS["log1p"](np.ones(1, dtype))[0]
    assert error_in_ulp(ln2[None], np.array([np.log(np.longdouble(2))]))[0] <= BOUNDS["log1p"]
    expect("tanh", [0, -0.0, 1, -1, np.nan, 1, -1])
    assert np.signbit(OURS["tanh"](x[:4])).tolist() == [False, True, False, True]
    expect("softplus", [np.inf, 0, np.nan, x[5], 0], x[2:])
    of_zero = OURS["softplus"](x[:2])
    assert of_zero[0] == of_zero[1]
    assert error_in_ulp(of_zero, np.log(np.longdouble([2, 2]))).max() <= BOUNDS["softplus"]
    expect("log", [-np.inf, -np.inf, np.inf, np.nan, 0], np.array([0, -0.0, np.inf, np.nan, 1], dtype))
    expect("log1p", [0, np.nan, ln2], np.array([0, np.nan, 1], dtype))
    # Zero keeps its sign where NumPy's function does: exp(-inf) is +0.
    assert not np.signbit(OURS["exp"](x)).any()
    assert not np.signbit(OURS["softplus"](x[[3, 6]])).any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_ends_of_the_range(dtype):
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        last = np.log(wide(np.array([info.max], dtype)))[0]
        below = dtype_of(dtype)(last)
        while below > last:
            below = np.nextafter(below, dtype_of(dtype)(0))
        above = np.nextafter(np.nextafter(below, dtype_of(dtype)(np.inf)), dtype_of(dtype)(np.inf))
        finite, infinite = OURS["exp"](np.array([below, above], dtype))
    assert info.max / 2 < finite <= info.max
    assert infinite == np.inf
    # exp of -log of twice the smallest number is not 0 yet, of four steps further it is.
    smallest = np.log(wide(np.array([info.smallest_subnormal], dtype)))[0]
    with np.errstate(all="ignore"):
        tiny, nothing = OURS["exp"](np.array([smallest, smallest - 1], dtype))
    assert tiny == info.smallest_subnormal
    assert nothing == 0


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_are_monotonic_where_it_matters(dtype):
    """A larger score never gets a smaller probability, up to the rounding of one unit."""
    x = np.sort(np.random.default_rng(3).normal(size=500_000).astype(dtype) * 20)
    for name in ("exp", "softplus", "sigmoid", "tanh"):
        y = OURS[name](x)
        assert (np.diff(y) >= -3 * np.spacing(np.abs(y[1:]))).all(), name


@pytest.mark.parametrize("dtype", FLOATS)
def test_tanh_is_odd_and_itself_near_zero(dtype, same_bits):
    x = sweep("tanh", dtype, 300)
    x = x[~np.isnan(x)]
    same_bits(OURS["tanh"](-x), -OURS["tanh"](x))
    info = np.finfo(dtype)
    tiny = np.array([info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny, np.sqrt(info.eps) / 8], dtype)
    same_bits(OURS["tanh"](tiny), tiny)


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoids_of_a_number_sum_to_one(dtype):
    z = sweep("sigmoid", dtype, 500)
    z = z[~np.isnan(z)]
    with np.errstate(all="ignore"):
        total = OURS["sigmoid"](z) + OURS["sigmoid of minus"](z)
    np.testing.assert_allclose(total, 1, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_public_functions_are_these(dtype, same_bits):
    x = np.concatenate([special(dtype), np.random.default_rng(4).normal(size=1000).astype(dtype)])
    for name in ("exp", "sigmoid", "softplus"):
        same_bits(getattr(kernels, name)(x), OURS[name](x), name)


@pytest.mark.parametrize("dtype", FLOATS)
def test_scaled_exponentials_underflow_gradually_as_shares(dtype):
    """As shares of a sum that holds e^0: from 1 through the subnormal numbers to 0, NaN for NaN."""
    scaled, scale = over_arrays(simd_functions.scaled_exp), over_arrays(simd_functions.scale_of_exp)
    x = np.concatenate([-np.geomspace(1e-9, 760, 20_001), [0.0, -0.0, -np.inf, -1e30, np.nan]]).astype(dtype)
    powers = scaled(x)
    top = scale(x[:1])[0]
    assert np.nanmin(powers) >= np.finfo(dtype).tiny
    with np.errstate(all="ignore"):
        shares, true = powers / top, np.exp(wide(x))
    assert shares[-5:].tolist()[:4] == [1, 1, 0, 0]
    assert np.isnan(shares[-1])
    assert error_in_ulp(shares, true).max() <= BOUNDS["exp"]


# ------------------------------------------------------------------------------------------- twins


def compiled_and_twin(intrinsic):
    """The machine code and the NumPy function (the same function where nothing is compiled)."""
    return getattr(intrinsic, "twin", intrinsic)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_intrinsics_agree_with_their_twins(dtype):
    kind = dtype_of(dtype)
    numbers = [kind(value) for value in (0.0, -0.0, 1.0, -1.5, 3.25, 1e-30, 1e30, np.inf, -np.inf, np.nan)]

    @inner
    def maximum(x, y):
        return simd_functions.maximum(x, y)

    @inner
    def minimum(x, y):
        return simd_functions.minimum(x, y)

    @inner
    def like(x):
        return simd_functions.like(x, 0.1)

    @inner
    def split(x):
        return simd_functions._split(x)

    @inner
    def power(shifted):
        return simd_functions._power(shifted)

    @inner
    def factors(shifted):
        return simd_functions._factors(shifted)

    with np.errstate(all="ignore"):
        for x in numbers:
            # Python sees a float64 either way; it holds a number of the type of x.
            assert kind(like(x)) == like(x) == compiled_and_twin(simd_functions.like)(x, 0.1)
            assert type(compiled_and_twin(simd_functions.like)(x, 0.1)) is kind
            for y in numbers:
                np.testing.assert_equal(maximum(x, y), float(compiled_and_twin(simd_functions.maximum)(x, y)))
                np.testing.assert_equal(minimum(x, y), float(compiled_and_twin(simd_functions.minimum)(x, y)))
        magic = simd_functions._CONSTANTS["round"][dtype == "float64"]
        info = np.finfo(dtype)
        lowest = info.minexp - info.nmant
        for n in (*range(lowest - 1, lowest + 3), *range(info.minexp - 3, info.minexp + 4), -1, 0, 1, 2, info.maxexp):
            shifted = kind(magic) + kind(n)
            got, want = factors(shifted), compiled_and_twin(simd_functions._factors)(shifted)
            assert got == tuple(map(float, want)), n
            for x in (0.7071, 1, 1.4142):
                assert np.isfinite(kind(x) * kind(got[0]))
                assert kind(x) * kind(got[0]) >= info.tiny, "the first product is exact"
                assert kind(x) * kind(got[0]) * kind(got[1]) == np.ldexp(kind(x), n)
        magic = simd_functions._CONSTANTS["round scaled"][dtype == "float64"]
        scale = simd_functions._CONSTANTS["scale of exp"][dtype == "float64"]
        for n in (lowest - 1, lowest, info.minexp, -1, 0):
            shifted = kind(magic) + kind(n)
            want = compiled_and_twin(simd_functions._power)(shifted)
            assert power(shifted) == float(want) == np.ldexp(scale, n) >= info.tiny
        root = kind(np.sqrt(0.5))
        for x in (
            1.0,
            1.5,
            2.0,
            3.0,
            1e10,
            float(info.max),
            float(info.tiny),
            float(root),
            float(np.nextafter(root, kind(0))),
        ):
            k, m = split(kind(x))
            assert np.ldexp(m, int(k)) == kind(x)
            if abs(m * m - 0.5) > 1e-6:  # at the very border either side is right
                assert (k, m) == tuple(map(float, compiled_and_twin(simd_functions._split)(kind(x))))


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_tables_agree_with_their_twins(dtype):
    kind = dtype_of(dtype)

    @inner
    def exp_part(x):
        return simd_functions._polynomial("exp", x)

    @inner
    def exp_in_pairs(x):
        return simd_functions._in_pairs("exp", x, x * x)

    @inner
    def expm1_in_pairs(x):
        return simd_functions._in_pairs("expm1", x, x * x)

    @inner
    def artanh_part(x):
        return simd_functions._polynomial("artanh", x)

    @inner
    def log2_e(x):
        return simd_functions._constant("log2(e)", x)

    for x in np.linspace(-0.35, 0.35, 101).astype(dtype):
        for function, name in ((exp_part, "exp"), (artanh_part, "artanh")):
            want = compiled_and_twin(simd_functions._polynomial)(name, x)
            assert type(want) is kind
            np.testing.assert_allclose(function(x), want, rtol=4 * np.finfo(dtype).eps)
        for function, name in ((exp_in_pairs, "exp"), (expm1_in_pairs, "expm1")):  # an odd and an even number of them
            want = compiled_and_twin(simd_functions._in_pairs)(name, x, x * x)
            assert type(want) is kind
            np.testing.assert_allclose(function(x), want, rtol=4 * np.finfo(dtype).eps)
            np.testing.assert_allclose(function(x), compiled_and_twin(simd_functions._polynomial)(name, x), rtol=1e-6)
    assert (
        kind(log2_e(kind(1))) == compiled_and_twin(simd_functions._constant)("log2(e)", kind(1)) == kind(np.log2(np.e))
    )


def test_constants_are_what_their_names_say():
    """ln 2 is split so that a whole number times the high part is exact, and both parts make ln 2."""
    for column, dtype in enumerate(FLOATS):
        high, low = (np.longdouble(simd_functions._CONSTANTS[f"ln2 {part}"][column]) for part in ("high", "low"))
        assert abs(high + low - np.log(np.longdouble(2))) < np.finfo(dtype).eps ** 1.5
        mantissa, _ = np.frexp(float(high))
        trailing_zeros = 0
        scaled = int(np.ldexp(mantissa, np.finfo(dtype).nmant + 1))
        while scaled % 2 == 0:
            scaled //= 2
            trailing_zeros += 1
        assert trailing_zeros >= 8 if dtype == "float32" else trailing_zeros >= 11
