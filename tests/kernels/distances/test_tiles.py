"""Tiles of distances against their NumPy twins, for the target at hand and for targets that are made up."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np
import pytest

from arm import portable
from fastml.kernels.distances import _conclusions, _tile_metrics, panels, tile_shapes, tiles
from fastml.kernels.distances.arguments import L2, METRIC_CODES, METRICS
from fastml.kernels.runtime import target as runtime_target
from fastml.kernels.runtime.jit import inner
from fastml.kernels.runtime.target import Target
from fastml.kernels.runtime.target import target as the_target
from fastml.kernels.simd import comparisons

pytestmark = pytest.mark.needs_jit

DTYPES = ("float32", "float64", "uint8")

# What LLVM can lower anywhere: without "x86" no instruction is asked for by name but Arm's, and those
# `portable` spells out.
MADE_UP = {
    "portable, 128 bits": Target("made up", 16, frozenset({"fma"})),
    "NEON": Target("made up", 16, frozenset({"fma", "neon"})),
    "NEON and dot products": Target("made up", 16, frozenset({"fma", "neon", "dotprod"})),
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
    for remembered in (tile_shapes.tile_shape, tile_shapes.copies, panels.plan):
        remembered.cache_clear()


@pytest.fixture
def as_target(monkeypatch) -> Iterator:
    """``as_target(target)``: emit code for another target, until the end of the test."""

    def pretend(target: Target) -> None:
        if not can_run(target):
            monkeypatch.setattr(_tile_metrics, "call", portable)
        monkeypatch.setattr(runtime_target, "_ask_compiler", lambda: target)
        forget()

    yield pretend
    monkeypatch.undo()
    forget()


# ------------------------------------------------------------------------------------ tile shapes


@pytest.mark.parametrize("target", [*MADE_UP, *X86])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_tiles_fit_registers_and_blocks(as_target, metric, dtype, target):
    target = (MADE_UP | X86)[target]
    as_target(target)
    dtype = np.dtype(dtype)
    rows, vectors, lanes = shape = tile_shapes.tile_shape(metric, dtype)
    assert shape.points == vectors * lanes
    registers = 32 if target.vector_bytes == 64 or "x86" not in target.features else 16
    width = target.vector_bytes if dtype.kind == "f" else tile_shapes._integer_vector_bytes()
    assert width <= target.vector_bytes
    wide = metric == "l2" and not {"vnni", "dotprod"} & target.features
    point_bytes = dtype.itemsize if dtype.kind == "f" else 16 if wide else 8
    assert lanes * point_bytes == width, "a vector of points is one register"
    # Accumulators, the vectors of Y, one value of X and one temporary.
    assert rows * vectors + min(rows, vectors) + 2 <= registers
    # Panels fill blocks without a rest, and squares fill panels.
    assert panels.X_ROWS % rows == 0
    assert panels.Y_POINTS % shape.points == 0
    side = tile_shapes.transpose_width(dtype)
    assert side * tile_shapes.columns_per_lane(dtype) * dtype.itemsize == target.vector_bytes
    assert side & (side - 1) == 0


@pytest.mark.parametrize("target", [*MADE_UP, *X86])
@pytest.mark.parametrize("dtype", [np.dtype(name) for name in DTYPES], ids=str)
def test_a_plan_fits_its_work_space_and_the_cache(as_target, dtype, target):
    as_target((MADE_UP | X86)[target])
    for metric, n, d in itertools.product(METRICS, (1, 8, 9, 5000), (0, 1, 30, 784, 3072, 10**6)):
        plan = panels.plan(metric, dtype, n, d)
        block, chunk = plan.block_points, plan.chunk_steps
        assert block % panels.POINTS_STEP == 0
        assert panels.POINTS_STEP % plan.tile_points == 0
        assert panels.POINTS_STEP % comparisons.KEYS_AT_ONCE == 0
        step_bytes = plan.columns_per_step * dtype.itemsize
        assert block * chunk * step_bytes <= 512 * 1024
        # Of few columns all make one chunk, of more each chunk has half to one and a half times the usual length.
        shape = tile_shapes.tile_shape(metric, dtype)
        longest = chunk * 3 // 2
        assert plan.workspace >= shape.rows * longest * tile_shapes.copies(metric, dtype) * plan.columns_per_step


# ------------------------------------------------------------------------------------ accumulate


def accumulator(metric: str):
    """Compile one tile afresh, for whatever the target is now."""
    lanes = max(
        tile_shapes.copies(metric, np.dtype(dtype)) * tile_shapes.columns_per_lane(np.dtype(dtype)) for dtype in DTYPES
    )
    most = max(tile_shapes.tile_shape(metric, np.dtype(dtype)).rows for dtype in DTYPES) * lanes

    code = METRIC_CODES[metric]

    def run(X, x_row, begin, Y, y_at, steps, totals, row, column, first):
        work = np.empty(most * steps + 6 * tile_shapes.X_PITCH_BYTES, X.dtype)
        tiles.accumulate(code, X, x_row, x_row + 1, begin, Y, y_at, 1, steps, work, totals[row:], column, first)

    return inner(run)


def accumulate_twins(metric, X, x_row, begin, Y, y_at, steps, totals, row, column, first) -> None:
    place = X, x_row, x_row + 1, begin, Y, y_at, 1, steps, X[0], totals[row:], column, first
    tiles.accumulate.twin(METRIC_CODES[metric], *place)


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
    rows, _, _ = shape = tile_shapes.tile_shape(metric, dtype)
    columns, points = tile_shapes.columns_per_lane(dtype), shape.points
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
@pytest.mark.parametrize("x_width", [300, None])
def test_tiles_of_many_rows_and_panels_agree_with_their_twin(rng, as_target, x_width, dtype, target):
    """Bit for bit, with values of X read where they are and with as many copies of each as a vector has lanes."""
    if target in X86 and not can_run(X86[target]):
        pytest.skip("this CPU, or Numba's target, lacks the instructions")
    as_target((MADE_UP | X86)[target])
    dtype = np.dtype(dtype)

    @inner
    def run(X, top, bottom, begin, Y, y_at, count, steps, work, totals, column, first):
        tiles.accumulate(L2, X, top, bottom, begin, Y, y_at, count, steps, work, totals, column, first)

    rows, points = tile_shapes.tile_shape("l2", dtype).rows, tile_shapes.tile_shape("l2", dtype).points
    copies, columns = tile_shapes.copies("l2", dtype), tile_shapes.columns_per_lane(dtype)
    # Rows that are read where they lie, and rows that would share the sets of a cache, which are copied.
    width = 4096 // dtype.itemsize if x_width is None else x_width * columns
    X = panels_of(rng, "random", dtype, (2 * rows + 1, width))
    Y = panels_of(rng, "random", dtype, (3 * 33 + 1) * points * columns)
    work = np.empty(rows * 33 * copies * columns + rows * tile_shapes.X_PITCH_BYTES, dtype)
    totals_dtype = totals_dtypes("l2", dtype.name)[0]
    # The rows of the second tile that there are not, the last row of X stands in for.
    for (top, bottom), steps, count in itertools.product(((0, 2 * rows + 1), (rows, rows + 1)), (0, 1, 33), (0, 1, 3)):
        before = rng.integers(0, 50, (3 * rows, 5 * points)).astype(totals_dtype)
        got, want = before.copy(), before.copy()
        place = X, top, bottom, 5, Y, points * columns, count, steps, work
        run(*place, got, points, False)
        tiles.accumulate.twin(L2, *place, want, points, False)
        np.testing.assert_array_equal(got, want)
        height = -(-(bottom - top) // rows) * rows
        outside = np.ones(before.shape, bool)
        outside[:height, points : (1 + count) * points] = False
        assert np.array_equal(got[outside], before[outside])


#: Metrics that are compiled by themselves, with the dtypes of rows and of totals that tell them apart.
ALONE = [
    ("inner_product", "float32", "int32"),
    ("inner_product", "float64", "int64"),
    ("hamming", "int64", "int32"),
    ("jaccard", "int64", "float64"),
]


@np.errstate(all="ignore")
def check_alone(rng, metric: str, dtype_name: str, totals_dtype: str) -> None:
    """Two chunks of a tile, and how their totals end."""
    dtype = np.dtype(dtype_name)
    rows, points = (shape := tile_shapes.tile_shape(metric, dtype)).rows, shape.points

    def run(accumulate, conclude, X, Y, steps, work, totals):
        for chunk in range(2):
            at = chunk * steps
            accumulate(L2, X, 0, rows, at, Y, at * points, 1, steps, work, totals, 0, chunk == 0)
        for row in range(rows):
            conclude(Y, totals, row, 0, points)

    @inner
    def compiled(X, Y, steps, work, totals):
        for chunk in range(2):
            at = chunk * steps
            tiles.accumulate(L2, X, 0, rows, at, Y, at * points, 1, steps, work, totals, 0, chunk == 0)
        for row in range(rows):
            _conclusions.conclude(Y, totals, row, 0, points)

    for kind, steps in itertools.product(("random", "not finite"), (1, 2, 29)):
        if dtype.kind == "f":
            X, Y = (panels_of(rng, kind, dtype, size) for size in ((rows, 2 * steps), 2 * steps * points))
        else:
            X, Y = (rng.integers(-(2**63), 2**63, size) for size in ((rows, 2 * steps), 2 * steps * points))
            X[0], Y[::points] = (-1, -1) if kind == "random" else (0, 0)
        got, want = np.zeros((2, rows, points), totals_dtype)
        work = np.empty(rows * (steps * shape.lanes + tile_shapes.X_PITCH_BYTES), dtype)
        compiled(X, Y, steps, work, got)
        run(tiles.accumulate.twin, _conclusions.conclude.twin, X, Y, steps, work, want)
        np.testing.assert_array_equal(got, want, err_msg=f"{metric} {dtype} {kind} {steps=}")


@pytest.mark.parametrize(("metric", "dtype", "totals"), ALONE)
def test_what_is_compiled_alone_agrees_with_its_twins(rng, metric, dtype, totals):
    check_alone(rng, metric, dtype, totals)


@pytest.mark.slow
@pytest.mark.parametrize("target", [*MADE_UP, *X86])
@pytest.mark.parametrize(("metric", "dtype", "totals"), ALONE)
def test_what_is_compiled_alone_for_other_targets(rng, as_target, metric, dtype, totals, target):
    if target in X86 and not can_run(X86[target]):
        pytest.skip("this CPU, or Numba's target, lacks the instructions")
    as_target((MADE_UP | X86)[target])
    check_alone(rng, metric, dtype, totals)


def test_a_made_up_target_changes_the_code(as_target):
    """The tests above are worth something only if the named instruction is gone."""

    def text() -> str:
        run = accumulator("l1")
        run(np.zeros((8, 64), np.uint8), 0, 0, np.zeros(4096, np.uint8), 0, 1, np.zeros((64, 64), np.int32), 0, 0, True)
        return "".join(run.inspect_llvm().values())

    native = the_target()
    assert ("psad" in text()) == ("x86" in native.features)
    as_target(MADE_UP["portable, 128 bits"])
    assert "psad" not in text()


def test_tiles_ask_ahead_for_what_they_read_and_write():
    """The lines of a step to come, and of the totals, into the first level of cache."""
    run = accumulator("l2")
    run(
        np.zeros((8, 64), np.float32),
        0,
        0,
        np.zeros(4096, np.float32),
        0,
        1,
        np.zeros((64, 96), np.float32),
        0,
        0,
        True,
    )
    [text] = run.inspect_llvm().values()
    assert len(re.findall(r"call void @llvm\.prefetch\.p0\(.*i32 0, i32 3, i32 1\)", text)) > 1


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
        rows, _, _ = shape = tile_shapes.tile_shape(metric, dtype)
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


@pytest.mark.parametrize("target", ["own", *(pytest.param(name, marks=pytest.mark.slow) for name in (*MADE_UP, *X86))])
def test_bytes_reach_their_largest_sums(as_target, target):
    """255 everywhere against 0, more steps than a chunk has: no 16-bit or 32-bit part overflows."""
    if target != "own":
        if target in X86 and not can_run(X86[target]):
            pytest.skip("this CPU, or Numba's target, lacks the instructions")
        as_target((MADE_UP | X86)[target])
    dtype = np.dtype(np.uint8)
    by_products = tile_shapes.norm_steps(dtype)
    for metric, value in (("l1", 255), ("l2", 0 if by_products else 255**2), ("linf", 255)):
        rows, _, _ = shape = tile_shapes.tile_shape(metric, dtype)
        steps = 2 * panels.CHUNK_BYTES // 8
        X = np.full((rows, steps * 8), 255, dtype)
        Y = np.zeros(steps * shape.points * 8, dtype)
        totals = np.empty((rows, shape.points), np.int32)
        accumulator(metric)(X, 0, 0, Y, 0, steps, totals, 0, 0, True)
        assert (totals == (value if metric == "linf" else value * steps * 8)).all()


@pytest.mark.parametrize("totals_dtype", ["int32", "int64"])
@pytest.mark.parametrize("target", ["own", *(pytest.param(name, marks=pytest.mark.slow) for name in (*MADE_UP, *X86))])
def test_squared_distances_of_scattered_bytes(rng, as_target, target, totals_dtype):
    """Any number of columns, in parts; 255 against 0 too."""
    if target != "own":
        if target in X86 and not can_run(X86[target]):
            pytest.skip("this CPU, or Numba's target, lacks the instructions")
        as_target((MADE_UP | X86)[target])
    dtype = np.dtype(np.uint8)

    @inner
    def run(X, i, Y, places, begin, end, totals):
        tiles.accumulate_few(L2, X, i, Y, places, begin, end, totals)

    for columns in (1, 7, 64, 130, 1000):
        X, Y = (rng.integers(0, 256, (rows, columns)).astype(dtype) for rows in (3, 9))
        X[0], Y[0] = 255, 0
        for i, part in itertools.product((0, 2), (columns, 50)):
            places = rng.integers(0, 9, tile_shapes.few_rows(dtype))
            places[-1] = 0
            got, of_twin = np.full((2, places.size), -1, totals_dtype)
            for begin in range(0, columns, part):
                run(X, i, Y, places, begin, min(columns, begin + part), got)
                tiles.accumulate_few.twin(L2, X, i, Y, places, begin, min(columns, begin + part), of_twin)
            want = np.square(X[i].astype(np.int64) - Y[places]).sum(axis=1)
            np.testing.assert_array_equal(got, want)
            np.testing.assert_array_equal(of_twin, want)


@pytest.mark.parametrize("totals_dtype", ["int32", "int64"])
@pytest.mark.parametrize(
    ("target", "dtype"),
    [
        (name, np.dtype(np.uint8))
        for name in ("NEON and dot products", "SSE2", "AVX2", "AVX2 and VNNI", "AVX-512BW", "AVX-512BW and VNNI")
    ]
    + [(name, tile_shapes.HALVED) for name in ("AVX2", "AVX-512BW")],
    ids=str,
)
def test_squared_distances_of_bytes_from_products(rng, as_target, target, dtype, totals_dtype):
    """Packed panels, own terms, products and what completes them, against differences; 255 against 0 too."""
    if target in X86 and not can_run(X86[target]):
        pytest.skip("this CPU, or Numba's target, lacks the instructions")
    as_target((MADE_UP | X86)[target])
    rows, points, lanes = (
        tile_shapes.tile_shape("l2", dtype).rows,
        tile_shapes.tile_shape("l2", dtype).points,
        tile_shapes.transpose_width(dtype),
    )

    @inner
    def run(X, Y, stride, steps, broadcast_x, totals):
        for at in range(0, stride, 8 * lanes):
            half = steps // 2
            tiles.norm_terms(Y, at, stride, half, stride * steps + at, True)
            tiles.norm_terms(Y, at + half * stride, stride, steps - half, stride * steps + at, False)
        tiles.accumulate(L2, X, 0, rows, 0, Y, 0, 1, steps, broadcast_x, totals, 0, True)
        for row in range(rows):
            tiles.complete(X, (row + 1) * X.shape[1] - 8, Y, stride * steps, points, totals, row, 0)

    def run_twins(X, Y, stride, steps, broadcast_x, totals):
        for at in range(0, stride, 8 * lanes):
            half = steps // 2
            tiles.norm_terms.twin(Y, at, stride, half, stride * steps + at, True)
            tiles.norm_terms.twin(Y, at + half * stride, stride, steps - half, stride * steps + at, False)
        tiles.accumulate.twin(L2, X, 0, rows, 0, Y, 0, 1, steps, broadcast_x, totals, 0, True)
        for row in range(rows):
            tiles.complete.twin(X, (row + 1) * X.shape[1] - 8, Y, stride * steps, points, totals, row, 0)

    for steps, kind in itertools.product((0, 1, 7, 200), ("random", "extreme", "not finite")):
        X, Y = (panels_of(rng, kind, np.dtype(np.uint8), (count, 8 * steps)) for count in (rows, points))
        if kind == "not finite" and steps:
            X[0], Y[0], X[1], Y[1] = 255, 0, 0, 255
        unit = tile_shapes.y_unit(dtype)
        Y //= unit
        want = ((X[:, None].astype(int) - unit * Y.astype(int)) ** 2).sum(axis=2)
        if dtype == tile_shapes.HALVED:
            X ^= 128
        X, Y = X.view(dtype), Y.view(dtype)
        whole = panels.whole_steps(X)
        packed = np.zeros((steps + 1, points, 8), dtype)
        packed[:steps] = Y.reshape(points, steps, 8).swapaxes(0, 1)
        for function in (run, run_twins):
            totals = np.full((rows, points), 77, totals_dtype)
            broadcast_x = np.empty(
                rows * (steps * tile_shapes.copies("l2", dtype) * 8 + tile_shapes.X_PITCH_BYTES), dtype
            )
            function(whole, packed.ravel(), points * 8, steps, broadcast_x, totals)
            np.testing.assert_array_equal(totals, want, err_msg=f"{steps=} {kind=} {function.__name__}")


# ------------------------------------------------------------------------------------------ panels


@pytest.mark.parametrize("dtype", DTYPES)
def test_panels_hold_chunk_after_chunk_of_all_panels(rng, dtype):
    """Packed at once and a panel at a time; columns that fill no square of a transposition, rows that fill no panel."""
    dtype = np.dtype(dtype)
    step = tile_shapes.columns_per_lane(dtype)

    @inner
    def run(plan, Y, at_once, panels_in_parts):
        panels.pack(plan, Y, 0, Y.shape[0], at_once)
        for top in range(0, Y.shape[0], plan.tile_points):
            bottom = min(Y.shape[0], top + plan.tile_points)
            panels.pack_part(plan, Y, top, bottom, panels_in_parts, top, Y.shape[0])

    for d, m in itertools.product((0, 1, 3, 30, 391, 784, 2000), (1, 97, 200)):
        Y = rng.integers(1, 256, (m, d)).astype(dtype)
        plan = panels.plan("l2", dtype, 100, d)
        steps, height = -(-d // step), -(-m // plan.tile_points) * plan.tile_points
        norms = tile_shapes.norm_steps(dtype)
        packed = np.full((2, height * (steps + norms) * step), 99, dtype)
        run(plan, Y, *packed)
        padded = np.zeros((height, steps * step), dtype)
        padded[:m, :d] = Y
        padded = padded.reshape(height // plan.tile_points, plan.tile_points, steps, step).swapaxes(1, 2)
        chunk = max(1, panels.chunk_length(steps, plan.chunk_steps))
        parts = [padded[:, at : at + chunk].ravel() for at in range(0, steps, chunk)]
        if norms:
            y = np.pad(Y, ((0, height - m), (0, 0))).astype(int)
            parts.append((y * (y - 2 * tile_shapes.taken_from_x(dtype))).sum(1).view(dtype))
        want = np.concatenate([np.empty(0, dtype), *parts])
        for got in packed:
            np.testing.assert_array_equal(got, want, err_msg=f"{d=} {m=}")


# ------------------------------------------------------------------------------------- transpose


def check_transpose(rng, dtype: np.dtype) -> None:
    @inner
    def run(source, source_at, stride, panel, panel_at, panel_stride):
        tiles.transpose(source, source_at, stride, panel, panel_at, panel_stride)

    side, columns = tile_shapes.transpose_width(dtype), tile_shapes.columns_per_lane(dtype)
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
