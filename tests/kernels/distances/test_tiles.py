"""Vector code against its NumPy twins, for the target at hand and for targets that are made up."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from checkout import python_path
from fastml.kernels.distances import _tile_metrics, panels, tiles
from fastml.kernels.linear import _products as linear_products
from fastml.kernels.runtime.jit import inner
from fastml.kernels.runtime.target import Target
from fastml.kernels.runtime.target import target as the_target
from fastml.kernels.simd import comparisons
from fastml.kernels.simd.rows import prefetch

pytestmark = pytest.mark.needs_jit

METRICS = ("l1", "l2", "linf")
DTYPES = ("float32", "float64", "uint8")
FLOATS = ("float32", "float64")

# What LLVM can lower anywhere: without "x86" no instruction is asked for by name.
MADE_UP = {
    "Arm, 128 bits": Target("made up", 16, frozenset({"fma"})),
    "portable, 256 bits": Target("made up", 32, frozenset()),
    "portable, 512 bits": Target("made up", 64, frozenset()),
}
X86 = {
    "SSE2": Target("made up", 16, frozenset({"x86"})),
    "AVX": Target("made up", 32, frozenset({"x86"})),
    "AVX2": Target("made up", 32, frozenset({"x86", "avx2", "fma"})),
    "AVX-512F": Target("made up", 64, frozenset({"x86", "avx2", "fma"})),
    "AVX2 and VNNI": Target("made up", 32, frozenset({"x86", "avx2", "fma", "vnni"})),
    "AVX-512BW": Target("made up", 64, frozenset({"x86", "avx2", "avx512bw", "fma"})),
    "AVX-512BW and VNNI": Target("made up", 64, frozenset({"x86", "avx2", "avx512bw", "fma", "vnni"})),
}


def can_run(target: Target) -> bool:
    """Whether Numba's target has all instructions of another."""
    own = the_target()
    features = own.features | {"avx2"} if "avx512bw" in own.features else own.features
    return target.features <= features and target.vector_bytes <= own.vector_bytes


def forget() -> None:
    for remembered in (tiles.tile_shape, tiles.copies, panels._tile_plan):
        remembered.cache_clear()


@pytest.fixture
def as_target(monkeypatch) -> Iterator:
    """``as_target(target)``: emit code for another target, until the end of the test."""

    def pretend(target: Target) -> None:
        for module in (tiles, linear_products):
            monkeypatch.setattr(module, "target", lambda: target)
        forget()

    yield pretend
    monkeypatch.undo()
    forget()


# ------------------------------------------------------------------------------------ the target


def test_target_is_that_of_the_compiler():
    target = the_target()
    assert target.cpu
    assert target.vector_bytes in (16, 32, 64)
    assert target.features <= {"x86", "fma", "avx2", "avx512bw", "vnni"}


@pytest.mark.targets
@pytest.mark.skipif("x86" not in the_target().features, reason="names of x86 CPUs")
@pytest.mark.parametrize(
    ("cpu", "vector_bytes", "features"),
    [
        ("generic", 16, {"x86"}),
        ("x86-64-v2", 16, {"x86"}),
        ("x86-64-v3", 32, {"x86", "fma", "avx2"}),
        ("x86-64-v4", 64, {"x86", "fma", "avx512bw"}),
        ("alderlake", 32, {"x86", "fma", "avx2", "vnni"}),
        ("znver4", 64, {"x86", "fma", "avx512bw", "vnni"}),
    ],
)
def test_target_follows_numbas_settings_and_not_the_cpu(cpu, vector_bytes, features):
    code = (
        "import json\nfrom fastml.kernels.runtime.target import target\nt = target()\n"
        "print(json.dumps([*t[:2], [*t[2]]]))"
    )
    environment = {**os.environ, "PYTHONPATH": python_path(), "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, width, found = json.loads(done.stdout)
    assert (name, width) == (cpu, vector_bytes)
    assert features <= set(found) <= features | {"avx2"}


# ------------------------------------------------------------------------------------ tile shapes


@pytest.mark.parametrize("target", [*MADE_UP, *X86])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_tiles_fit_registers_and_blocks(as_target, metric, dtype, target):
    target = (MADE_UP | X86)[target]
    as_target(target)
    dtype = np.dtype(dtype)
    rows, vectors, lanes = shape = tiles.tile_shape(metric, dtype)
    assert shape.points == vectors * lanes
    registers = 32 if target.vector_bytes == 64 or "x86" not in target.features else 16
    width = target.vector_bytes if dtype.kind == "f" else tiles._integer_vector_bytes()
    assert width <= target.vector_bytes
    wide = metric == "l2" and "vnni" not in target.features
    point_bytes = dtype.itemsize if dtype.kind == "f" else 16 if wide else 8
    assert lanes * point_bytes == width, "a vector of points is one register"
    # Accumulators, the vectors of Y, one value of X and one temporary.
    assert rows * vectors + min(rows, vectors) + 2 <= registers
    # Panels fill blocks without a rest, and squares fill panels.
    assert panels.X_ROWS % rows == 0
    assert panels.Y_POINTS % shape.points == 0
    side = tiles.square(dtype)
    assert side * tiles.group(dtype) * dtype.itemsize == target.vector_bytes
    assert side & (side - 1) == 0


@pytest.mark.parametrize("target", [*MADE_UP, *X86])
@pytest.mark.parametrize("dtype", [np.dtype(name) for name in DTYPES], ids=str)
def test_a_plan_fits_its_work_space_and_the_cache(as_target, dtype, target):
    as_target((MADE_UP | X86)[target])
    for metric, n, d in itertools.product(METRICS, (1, 8, 9, 5000), (0, 1, 30, 784, 3072, 10**6)):
        _, points, _, columns, chunk, space, block = panels.plan(metric, dtype, n, d)
        assert block % panels.POINTS_STEP == 0
        assert panels.POINTS_STEP % points == 0
        assert panels.POINTS_STEP % comparisons.KEYS_AT_ONCE == 0
        step_bytes = columns * dtype.itemsize
        assert block * chunk * step_bytes <= 512 * 1024
        # Of few columns all make one chunk, of more each chunk has half to one and a half times the usual length.
        shape = tiles.tile_shape(metric, dtype)
        longest = chunk * 3 // 2
        assert space >= shape.rows * longest * tiles.copies(metric, dtype) * columns


# ------------------------------------------------------------------------------------ accumulate


def accumulator(metric: str):
    """Compile one tile afresh, with the spreading of X before it, for whatever the target is now."""
    lanes = max(tiles.copies(metric, np.dtype(dtype)) * tiles.group(np.dtype(dtype)) for dtype in DTYPES)
    most = max(tiles.tile_shape(metric, np.dtype(dtype)).rows for dtype in DTYPES) * lanes

    def l1(X, x_row, begin, Y, y_at, steps, totals, row, column, first):
        buffer = np.empty(most * steps, X.dtype)
        tiles.spread("l1", X, x_row, begin, steps, buffer)
        tiles.accumulate("l1", buffer, Y, y_at, steps, totals, row, column, first)

    def l2(X, x_row, begin, Y, y_at, steps, totals, row, column, first):
        buffer = np.empty(most * steps, X.dtype)
        tiles.spread("l2", X, x_row, begin, steps, buffer)
        tiles.accumulate("l2", buffer, Y, y_at, steps, totals, row, column, first)

    def linf(X, x_row, begin, Y, y_at, steps, totals, row, column, first):
        buffer = np.empty(most * steps, X.dtype)
        tiles.spread("linf", X, x_row, begin, steps, buffer)
        tiles.accumulate("linf", buffer, Y, y_at, steps, totals, row, column, first)

    return inner({"l1": l1, "l2": l2, "linf": linf}[metric])


def accumulate_twins(metric, X, x_row, begin, Y, y_at, steps, totals, row, column, first) -> None:
    shape, columns = tiles.tile_shape(metric, X.dtype), tiles.group(X.dtype)
    buffer = np.empty(shape.rows * shape.lanes * steps * columns, X.dtype)
    tiles.spread.twin(metric, X, x_row, begin, steps, buffer)
    tiles.accumulate.twin(metric, buffer, Y, y_at, steps, totals, row, column, first)


def panels_of(rng, kind: str, dtype: np.dtype, size: int | tuple[int, int]) -> np.ndarray:
    if dtype.kind == "u":
        return {
            "random": rng.integers(0, 256, size),
            "extreme": rng.choice([0, 1, 127, 128, 254, 255], size),
            "not finite": rng.choice([0, 255], size),
        }[kind].astype(dtype)
    info = np.finfo(dtype)
    values = {
        # Multiples of 1/8: every sum is exact, so it is the same in any order, fused or not.
        "random": rng.integers(-80, 80, size) / 8,
        "extreme": rng.choice([0, -0.0, info.tiny, -info.smallest_subnormal, 1e-15, 1, -1e15, info.max / 4], size),
        "not finite": np.where(
            rng.random(size) < 0.97, rng.integers(-9, 9, size), rng.choice([np.nan, np.inf, -np.inf])
        ),
    }[kind]
    return values.astype(dtype)


def totals_dtypes(metric: str, dtype: str) -> list[str]:
    if dtype != "uint8":
        return [dtype]
    return ["int32", "int64"] if metric == "l2" else ["int32"]


@np.errstate(all="ignore")
def check_accumulate(rng, metric: str, dtype_name: str) -> None:
    dtype = np.dtype(dtype_name)
    rows, _, _ = shape = tiles.tile_shape(metric, dtype)
    columns, points = tiles.group(dtype), shape.points
    run = accumulator(metric)
    cases = itertools.product(totals_dtypes(metric, dtype_name), ("random", "extreme", "not finite"), (0, 1, 2, 5, 33))
    for totals_dtype, kind, steps in cases:
        begin, y_at = 3, 2 * points * columns
        X = panels_of(rng, kind, dtype, (3 * rows, (begin + steps + 1) * columns))
        Y = panels_of(rng, kind, dtype, y_at + (steps + 1) * points * columns)
        before = rng.integers(0, 50, (3 * rows, 3 * points)).astype(totals_dtype)
        # The last row of X stands in for those beyond it.
        for x_row, first in itertools.product((0, rows, len(X) - 1), (True, False)):
            got, want = before.copy(), before.copy()
            place = X, x_row, begin, Y, y_at, steps
            run(*place, got, rows, points, first)
            accumulate_twins(metric, *place, want, rows, points, first)
            note = f"{metric} {dtype} {totals_dtype} {kind} {steps=} {x_row=} {first=}"
            if kind == "extreme" and metric != "linf" and dtype.kind == "f":
                # Another order, and one rounding per step if fused, two if not.
                np.testing.assert_allclose(got, want, rtol=2 * (steps + 1) * np.finfo(dtype).eps, err_msg=note)
            else:
                np.testing.assert_array_equal(got, want, err_msg=note)
            outside = np.ones(before.shape, bool)
            outside[rows : 2 * rows, points : 2 * points] = False
            assert np.array_equal(got[outside], before[outside]), note


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_accumulate_agrees_with_its_twin(rng, metric, dtype):
    check_accumulate(rng, metric, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("target", MADE_UP)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_accumulate_without_named_instructions(rng, as_target, metric, dtype, target):
    as_target(MADE_UP[target])
    check_accumulate(rng, metric, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("target", X86)
@pytest.mark.parametrize("metric", METRICS)
def test_accumulate_of_bytes_for_narrower_x86(rng, as_target, metric, target):
    if not can_run(X86[target]):
        pytest.skip("this CPU, or Numba's target, lacks the instructions")
    as_target(X86[target])
    check_accumulate(rng, metric, "uint8")


@pytest.mark.parametrize("target", [*MADE_UP, *X86])
@pytest.mark.parametrize("dtype", DTYPES)
def test_spread_agrees_with_its_twin(rng, as_target, dtype, target):
    """Bit for bit, with one copy of a value and with as many as a vector has lanes."""
    if not can_run((MADE_UP | X86)[target]):
        pytest.skip("this CPU, or Numba's target, lacks the instructions")
    as_target((MADE_UP | X86)[target])
    dtype = np.dtype(dtype)

    @inner
    def run(X, x_row, begin, steps, buffer):
        tiles.spread("l2", X, x_row, begin, steps, buffer)

    rows, copies, columns = tiles.tile_shape("l2", dtype).rows, tiles.copies("l2", dtype), tiles.group(dtype)
    X = rng.integers(0, 255, (rows + 1, 40 * columns)).astype(dtype)
    for x_row, steps in itertools.product((0, 1, rows), (0, 1, 7, 33)):
        got, want = (np.zeros(steps * rows * copies * columns + 64, dtype) for _ in range(2))
        run(X, x_row, 5, steps, got)
        tiles.spread.twin("l2", X, x_row, 5, steps, want)
        np.testing.assert_array_equal(got, want)


def test_a_made_up_target_changes_the_code(as_target):
    """The tests above are worth something only if the named instruction is gone."""

    def text() -> str:
        run = accumulator("l1")
        run(np.zeros((8, 64), np.uint8), 0, 0, np.zeros(4096, np.uint8), 0, 1, np.zeros((64, 64), np.int32), 0, 0, True)
        return "".join(run.inspect_llvm().values())

    native = the_target()
    assert ("psad" in text()) == ("x86" in native.features)
    as_target(MADE_UP["Arm, 128 bits"])
    assert "psad" not in text()


@pytest.mark.parametrize("metric", METRICS)
def test_the_comparison_notices_a_wrong_tile(rng, monkeypatch, metric):
    """Planted: a step that adds the difference of the wrong sign, or keeps the smaller."""
    wrong = {"l1": lambda b, total, x, y: b.fadd(total, b.fsub(y, x)), "l2": lambda b, total, x, y: total}
    step = wrong.get(metric, lambda b, largest, x, y: largest)
    monkeypatch.setitem(_tile_metrics._TILES, (metric, "f"), _tile_metrics._TILES[metric, "f"]._replace(step=step))
    with pytest.raises(AssertionError):
        check_accumulate(rng, metric, "float32")


def test_a_nan_or_an_infinity_reaches_its_own_pairs_only(rng):
    """What the twin says of NaN and infinity, said without the twin."""
    dtype = np.dtype(np.float32)
    for metric, of_infinities in (("l1", np.nan), ("l2", np.nan), ("linf", np.nan)):
        rows, _, _ = shape = tiles.tile_shape(metric, dtype)
        points, steps = shape.points, 5
        X = rng.normal(size=(steps, rows)).astype(dtype)
        Y = rng.normal(size=(steps, points)).astype(dtype)
        X[2, 0], Y[3, 1] = np.nan, np.nan
        X[1, 1], Y[1, 2], Y[1, 3] = np.inf, np.inf, -np.inf
        totals = np.empty((rows, points), dtype)
        accumulator(metric)(np.ascontiguousarray(X.T), 0, 0, Y.ravel(), 0, steps, totals, 0, 0, True)
        assert np.isnan(totals[0]).all()
        assert np.isnan(totals[:, 1]).all()
        np.testing.assert_equal(totals[1, 2], of_infinities)
        assert totals[1, 3] == np.inf
        if points > 4:
            assert totals[1, 4] == np.inf
            assert np.isfinite(totals[2:, 4:]).all()


@pytest.mark.parametrize("target", ["own", *MADE_UP, *X86])
def test_bytes_reach_their_largest_sums(as_target, target):
    """255 everywhere against 0, more steps than a chunk has: no 16-bit or 32-bit part overflows."""
    if target != "own":
        if not can_run((MADE_UP | X86)[target]):
            pytest.skip("this CPU, or Numba's target, lacks the instructions")
        as_target((MADE_UP | X86)[target])
    dtype = np.dtype(np.uint8)
    by_products = tiles.own_steps(dtype)
    for metric, value in (("l1", 255), ("l2", 0 if by_products else 255**2), ("linf", 255)):
        rows, _, _ = shape = tiles.tile_shape(metric, dtype)
        steps = 2 * panels.CHUNK_BYTES // 8
        X = np.full((rows, steps * 8), 255, dtype)
        Y = np.zeros(steps * shape.points * 8, dtype)
        totals = np.empty((rows, shape.points), np.int32)
        accumulator(metric)(X, 0, 0, Y, 0, steps, totals, 0, 0, True)
        assert (totals == (value if metric == "linf" else value * steps * 8)).all()


@pytest.mark.parametrize("target", [name for name in X86 if "VNNI" in name])
@pytest.mark.parametrize("totals_dtype", ["int32", "int64"])
def test_squared_distances_of_bytes_from_products(rng, as_target, target, totals_dtype):
    """Packed panels, own terms, products and what completes them, against differences; 255 against 0 too."""
    if not can_run(X86[target]):
        pytest.skip("this CPU, or Numba's target, lacks the instructions")
    as_target(X86[target])
    dtype = np.dtype(np.uint8)
    rows, points, lanes = tiles.tile_shape("l2", dtype).rows, tiles.tile_shape("l2", dtype).points, tiles.square(dtype)

    @inner
    def run(X, Y, stride, steps, spread_x, totals):
        for at in range(0, stride, 8 * lanes):
            tiles.own_terms(Y, at, stride, steps)
        tiles.spread("l2", X, 0, 0, steps, spread_x)
        tiles.accumulate("l2", spread_x, Y, 0, steps, totals, 0, 0, True)
        for row in range(rows):
            tiles.complete(X, (row + 1) * X.shape[1] - 8, Y, stride * steps, points, totals, row, 0)

    def run_twins(X, Y, stride, steps, spread_x, totals):
        for at in range(0, stride, 8 * lanes):
            tiles.own_terms.twin(Y, at, stride, steps)
        tiles.spread.twin("l2", X, 0, 0, steps, spread_x)
        tiles.accumulate.twin("l2", spread_x, Y, 0, steps, totals, 0, 0, True)
        for row in range(rows):
            tiles.complete.twin(X, (row + 1) * X.shape[1] - 8, Y, stride * steps, points, totals, row, 0)

    for steps, kind in itertools.product((0, 1, 7, 200), ("random", "extreme", "not finite")):
        X, Y = (panels_of(rng, kind, dtype, (count, 8 * steps)) for count in (rows, points))
        if kind == "not finite" and steps:
            X[0], Y[0], X[1], Y[1] = 255, 0, 0, 255
        want = ((X[:, None].astype(int) - Y) ** 2).sum(axis=2)
        whole = panels.whole_steps(X)
        packed = np.zeros((steps + 1, points, 8), dtype)
        packed[:steps] = Y.reshape(points, steps, 8).swapaxes(0, 1)
        for function in (run, run_twins):
            totals = np.full((rows, points), 77, totals_dtype)
            spread_x = np.empty(rows * steps * tiles.copies("l2", dtype) * 8, dtype)
            function(whole, packed.ravel(), points * 8, steps, spread_x, totals)
            np.testing.assert_array_equal(totals, want, err_msg=f"{steps=} {kind=} {function.__name__}")


# ------------------------------------------------------------------------------------- transpose


def check_transpose(rng, dtype: np.dtype) -> None:
    @inner
    def run(source, source_at, stride, panel, panel_at, panel_stride):
        tiles.transpose(source, source_at, stride, panel, panel_at, panel_stride)

    side, columns = tiles.square(dtype), tiles.group(dtype)
    width = side * columns
    for extra in (0, 1, 5):
        stride, panel_stride = width + extra, width + 2 * extra * columns
        source = rng.integers(0, 256, (side + 2) * stride * dtype.itemsize).astype(np.uint8).view(dtype)
        source = source.reshape(side + 2, stride)
        before = rng.integers(0, 99, (side + 2) * panel_stride).astype(dtype)
        got, want = before.copy(), before.copy()
        arguments = stride + min(extra, 1), stride
        run(source, *arguments, got, panel_stride, panel_stride)
        tiles.transpose.twin(source, *arguments, want, panel_stride, panel_stride)
        assert got.tobytes() == want.tobytes()
        assert got.tobytes() != before.tobytes()


@pytest.mark.parametrize("dtype", [np.dtype(name) for name in DTYPES], ids=str)
@pytest.mark.parametrize("target", ["own", *MADE_UP])
def test_transpose_moves_every_bit_to_its_place(rng, as_target, dtype, target):
    if target != "own":
        as_target(MADE_UP[target])
    check_transpose(rng, dtype)


# ---------------------------------------------------------------------------- below and lowest_bit


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_below_agrees_with_its_twin(rng, dtype):
    @inner
    def run(keys, at, threshold, mask, ceiling):
        return comparisons.below(keys, at, threshold, mask, ceiling)

    info = np.iinfo(dtype)
    interesting = np.array([info.min, info.min + 1, -1, 0, 1, 2, 5, info.max - 1, info.max])
    for _ in range(200):
        keys = rng.choice(interesting, 3 * comparisons.KEYS_AT_ONCE).astype(dtype)
        some = rng.random(keys.size) < 0.5
        keys[some] = rng.integers(info.min, info.max, int(some.sum()), dtype=dtype)
        at = int(rng.integers(0, 2 * comparisons.KEYS_AT_ONCE))
        threshold, ceiling = (int(value) for value in rng.choice(interesting[interesting >= 0], 2))
        mask = int(rng.choice([info.max, -1]))
        arguments = keys, at, threshold, mask, ceiling
        assert run(*arguments) == comparisons.below.twin(*arguments), arguments


def test_below_orders_the_bits_of_floats_as_neighbours_are_ordered():
    """Zero of either sign, then numbers, then infinity, then every NaN alike."""

    @inner
    def run(keys, at, threshold, mask, ceiling):
        return comparisons.below(keys, at, threshold, mask, ceiling)

    values = np.full(comparisons.KEYS_AT_ONCE, np.inf, np.float32)
    values[:5] = [-0.0, 0.0, 1.0, np.nan, -np.nan]
    keys = values.view(np.int32)
    mask, nan = np.iinfo(np.int32).max, int(np.float32(np.nan).view(np.int32))

    def places(threshold: float) -> list[int]:
        bits = run(keys, 0, int(np.float32(threshold).view(np.int32)), mask, nan)
        return [place for place in range(comparisons.KEYS_AT_ONCE) if bits >> place & 1]

    assert places(0.5) == [0, 1]
    assert places(np.inf) == [0, 1, 2]
    assert places(np.nan) == [place for place in range(comparisons.KEYS_AT_ONCE) if place not in (3, 4)]


def test_lowest_bit_agrees_with_its_twin(rng):
    @inner
    def run(bits):
        return comparisons.lowest_bit(bits)

    single = [1 << place for place in range(63)]
    more = [int(value) for value in rng.integers(1, 2**63 - 1, 500)]
    for bits in [*single, -(2**63), -1, -2, *more]:
        assert run(bits) == comparisons.lowest_bit.twin(bits), bits
    assert [run(bits) for bits in single] == list(range(63))


# -------------------------------------------------------------------------------------- products


def dot_of(rows: int, classes: int):
    if (rows, classes) == (4, 4):
        return inner(lambda X, top, W, c, b, Z, row: linear_products.dot(4, 4, X, top, W, c, b, Z, row))
    if (rows, classes) == (4, 1):
        return inner(lambda X, top, W, c, b, Z, row: linear_products.dot(4, 1, X, top, W, c, b, Z, row))
    return inner(lambda X, top, W, c, b, Z, row: linear_products.dot(1, 1, X, top, W, c, b, Z, row))


def add_outer_of(rows: int, classes: int):
    if (rows, classes) == (4, 4):
        return inner(lambda X, top, G, row, c, dW: linear_products.add_outer(4, 4, X, top, G, row, c, dW))
    if (rows, classes) == (4, 1):
        return inner(lambda X, top, G, row, c, dW: linear_products.add_outer(4, 1, X, top, G, row, c, dW))
    return inner(lambda X, top, G, row, c, dW: linear_products.add_outer(1, 1, X, top, G, row, c, dW))


COLUMNS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70)


@pytest.mark.parametrize("target", ["own", "Arm, 128 bits"])
@pytest.mark.parametrize("tile", [(4, 4), (4, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_products_agree_with_their_twins(rng, as_target, dtype, tile, target):
    """Around the width of a vector, with NaN and infinity that belong to other rows and columns."""
    if target != "own":
        as_target(MADE_UP[target])
    rows, classes = tile
    dot, add_outer = dot_of(*tile), add_outer_of(*tile)
    for columns in COLUMNS:
        # Small whole numbers: sums are exact in any order.
        X, W = (rng.integers(-8, 9, (9, columns)).astype(dtype) for _ in range(2))
        X[[2, 3 + rows]], W[[1, 2 + classes]] = np.nan, np.inf
        b = rng.integers(-8, 9, 9).astype(dtype)
        got = rng.integers(-8, 9, (9, 9)).astype(dtype)
        want = got.copy()
        dot(X, 3, W, 2, b, got, 4)
        linear_products.dot.twin(rows, classes, X, 3, W, 2, b, want, 4)
        np.testing.assert_array_equal(got, want, err_msg=f"dot, {columns} columns")

        G = rng.integers(-8, 9, (9, 9)).astype(dtype)
        got = rng.integers(-8, 9, (9, columns + 1)).astype(dtype)
        want = got.copy()
        add_outer(X, 3, G, 4, 2, got)
        linear_products.add_outer.twin(rows, classes, X, 3, G, 4, 2, want)
        np.testing.assert_array_equal(got, want, err_msg=f"add_outer, {columns} columns")


@pytest.mark.parametrize("dtype", FLOATS)
def test_products_hand_on_nan_and_infinity(dtype):
    columns = 2 * the_target().vector_bytes // np.dtype(dtype).itemsize + 1
    for place in (0, columns // 2, columns - 2, columns - 1):
        for bad in (np.nan, np.inf):
            X, W = np.ones((4, columns), dtype), np.ones((1, columns), dtype)
            X[1, place] = bad
            Z = np.zeros((4, 1), dtype)
            dot_of(4, 1)(X, 0, W, 0, np.zeros(1, dtype), Z, 0)
            np.testing.assert_array_equal(Z[:, 0], [columns, bad, columns, columns])


def test_prefetch_touches_nothing(rng):
    run = inner(lambda X, first, last: prefetch(X, first, last))
    X = rng.normal(size=(5, 33)).astype("f4")
    before = X.copy()
    for first, last in ((0, 5), (4, 4), (5, 5), (9, 5), (0, 0)):
        run(X, first, last)
    run(X[:0], 0, 0)
    assert X.tobytes() == before.tobytes()
