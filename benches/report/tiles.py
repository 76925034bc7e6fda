"""The register tiles of the distances beside what the CPU's adders can do, and their machine code.

The peak is measured, not looked up: loops of independent vector operations, as wide as the compiler's widest
register, that do nothing else. One loop only adds, one only multiplies and adds, one does both in turns as
squared differences need them. The clock comes from a chain of operations that take one cycle each.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from fastml.kernels.distances.arguments import METRIC_CODES, METRICS
from fastml.kernels.distances.panels import (
    X_ROWS,
    aligned_like,
    distances_of_block,
    ordinary_totals,
    pack,
    whole_steps,
)
from fastml.kernels.distances.panels import plan as the_plan
from fastml.kernels.distances.tile_shapes import columns_per_lane, tile_shape
from fastml.kernels.distances.tiles import accumulate as the_accumulate
from fastml.kernels.runtime import target
from fastml.kernels.runtime.jit import compiled_for, inner

__all__ = ["Peak", "Tile", "arithmetic", "measure", "peak_of"]

#: Independent sums: more than latency times units, and with what they need beside them fewer than 16 registers.
_CHAINS = 12
#: Vectors in first-level cache that differences are made of: made of a register, they would be made once for all.
_OPERANDS = 8
_STEPS = 3_000_000
_DTYPES = ("float32", "float64", "uint8")
#: Vector operations that a float tile does for a vector of differences, by the unit they need.
_ADDS = {"l1": 2, "l2": 1}


@dataclass(frozen=True)
class Peak:
    """What one core can do at best with vectors of one float dtype, in operations on single elements a second."""

    adds: float
    fused: float
    differences_l2: float  # an add and a fused multiply-add each


@dataclass(frozen=True)
class Tile:
    """One register tile, run on data in cache, and its innermost loop."""

    metric: str
    dtype: str
    rows: int
    vectors: int
    lanes: int
    rate: float  # elements a second, a block of 84 x 960 distances over 784 columns
    per_cycle: float
    share_of_peak: float | None
    instructions: int  # of the innermost loop
    vector_instructions: int
    elements: int  # that one turn of the loop handles
    assembly: str


def measure() -> dict[str, Any]:
    """Measure peaks, clock and all tiles on one core; takes some seconds, most of them for compiling."""
    clock = _clock()
    peaks = {dtype: peak_of(dtype) for dtype in ("float32", "float64")}
    tiles = [_tile(metric, dtype, clock, peaks) for dtype in _DTYPES for metric in METRICS]
    return {
        "cpu": target.target().cpu,
        "vector_bytes": target.target().vector_bytes,
        "clock": clock,
        "peaks": {dtype: asdict(peak) for dtype, peak in peaks.items()},
        "tiles": [asdict(tile) for tile in tiles],
    }


def _seconds(call: Callable[[], object], readings: int = 5) -> float:
    call()
    found = []
    for _ in range(readings):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def _compiled(source: str) -> tuple[Any, Callable[[int, int], None]]:
    """Compile LLVM code of ``void @run(i64, ptr)`` for Numba's target; the engine must outlive the function."""
    triple, cpu, features = compiled_for()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(source), machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(engine.get_function_address("run"))
    return engine, function


def _clock() -> float:
    """Return cycles a second, from a chain of additions and exclusive ors, which take one cycle each."""
    turns = 64
    body = "\n".join(
        f"  %x{i + 1} = {'add' if i % 2 else 'xor'} i64 %x{i}, {2 * i + 12345}" for i in range(turns)
    ).replace("%x0,", "%x,")
    engine, run = _compiled(
        f"""define void @run(i64 %n, ptr %p) {{
entry:
  %start = load i64, ptr %p
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %x = phi i64 [%start, %entry], [%x{turns}, %loop]
{body}
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %n
  br i1 %done, label %out, label %loop
out:
  store i64 %x{turns}, ptr %p
  ret void
}}"""
    )
    room = (ctypes.c_int64 * 1)(1)
    steps = 300_000
    # Short readings, and many: some of them fall into quiet moments.
    clock = turns * steps / _seconds(lambda: run(steps, ctypes.addressof(room)), 40)
    del engine
    return clock


def peak_of(dtype: str) -> Peak:
    vector_bytes = target.target().vector_bytes
    lanes, rates = vector_bytes // np.dtype(dtype).itemsize, []
    for step in _STEPS_OF_PEAKS:
        engine, run = _compiled(_independent(lanes, "float" if dtype == "float32" else "double", step))
        room = ctypes.create_string_buffer((_OPERANDS + _CHAINS) * vector_bytes + 64)
        at = -(-ctypes.addressof(room) // 64) * 64  # a vector across two cache lines is read twice
        rates.append(lanes * _CHAINS * _STEPS / _seconds(lambda run=run, at=at: run(_STEPS, at)))
        del engine
    return Peak(*rates)


#: What one step of a chain {c} does, for each figure of `Peak`; %x stays the same, %y comes from memory.
_STEPS_OF_PEAKS = (
    "  %{c}n = fsub {vector} %{c}, %x",
    "  %{c}n = call {vector} @{name}({vector} %x, {vector} %x, {vector} %{c})",
    "  %{c}p = getelementptr {vector}, ptr %y, i64 {place}\n"
    "  %{c}y = load {vector}, ptr %{c}p, align {align}\n"
    "  %{c}d = fsub {vector} %{c}y, %x\n"
    "  %{c}n = call {vector} @{name}({vector} %{c}d, {vector} %{c}d, {vector} %{c})",
)


#: What a tile does for a vector of differences, by metric, of float32.
_DIFFERENCE = (
    "  %{c}p = getelementptr {vector}, ptr %y, i64 {place}\n"
    "  %{c}y = load {vector}, ptr %{c}p, align {align}\n"
    "  %{c}d = fsub {vector} %{c}y, %x\n"
    "  %{c}b = bitcast {vector} %{c}d to {bits}\n"
    "  %{c}a = and {bits} %{c}b, splat (i32 2147483647)\n"
)
_ARITHMETIC = {
    "l1": _DIFFERENCE
    + """  %{c}m = bitcast {bits} %{c}a to {vector}
  %{c}n = fadd {vector} %{c}, %{c}m""",
    # Floats that are not negative are in the order of their bits.
    "linf": _DIFFERENCE
    + """  %{c}i = bitcast {vector} %{c} to {bits}
  %{c}g = icmp sgt {bits} %{c}a, %{c}i
  %{c}m = select <{lanes} x i1> %{c}g, {bits} %{c}a, {bits} %{c}i
  %{c}n = bitcast {bits} %{c}m to {vector}""",
}


def arithmetic(metric: str, differences: int, n_threads: int) -> Callable[[], object]:
    """Return a call that makes differences of float32 and what the metric "l1" or "linf" makes of them, no more."""
    vector_bytes = target.target().vector_bytes
    lanes = vector_bytes // 4
    engine, run = _compiled(_independent(lanes, "float", _ARITHMETIC[metric]))
    turns = max(1, differences // (n_threads * lanes * _CHAINS))
    rooms = [ctypes.create_string_buffer((_OPERANDS + _CHAINS) * vector_bytes + 64) for _ in range(n_threads)]
    starts = [-(-ctypes.addressof(room) // 64) * 64 for room in rooms]
    pool = ThreadPoolExecutor(n_threads)
    # Engine and rooms must outlive the call.
    return lambda alive=(engine, rooms): list(pool.map(lambda at: run(turns, at), starts))


def _independent(lanes: int, element: str, step: str) -> str:
    """Write a loop in which so many chains, independent of each other, take a step each."""
    vector, size = f"<{lanes} x {element}>", 4 if element == "float" else 8
    name = f"llvm.fmuladd.v{lanes}f{8 * size}"
    chains = [f"c{i}" for i in range(_CHAINS)]
    phis = "\n".join(f"  %{c} = phi {vector} [%x, %entry], [%{c}n, %loop]" for c in chains)
    words = {"vector": vector, "bits": f"<{lanes} x i{8 * size}>", "lanes": lanes, "name": name, "align": size}
    steps = "\n".join(step.format(c=c, place=i, **words) for i, c in enumerate(chains))
    sums = "\n".join(
        f"  %s{i} = fadd {vector} {f'%s{i - 1}' if i else f'%{chains[0]}n'}, %{chain}n"
        for i, chain in enumerate(chains[1:])
    )
    return f"""define void @run(i64 %n, ptr %p) {{
entry:
  %x = load {vector}, ptr %p, align {size}
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
  %at = urem i64 %i, {_OPERANDS}
  %y = getelementptr {vector}, ptr %p, i64 %at
{steps}
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %n
  br i1 %done, label %out, label %loop
out:
{sums}
  store {vector} %s{len(chains) - 2}, ptr %p, align {size}
  ret void
}}
declare {vector} @{name}({vector}, {vector}, {vector})"""


def _tile(metric: str, name: str, clock: float, peaks: dict[str, Peak]) -> Tile:
    dtype = np.dtype(name)
    shape = tile_shape(metric, dtype)
    n, m, d = X_ROWS, 480, 784
    rng = np.random.default_rng(0)
    X, Y = ((200 * rng.random((rows, d))).astype(dtype) for rows in (n, m))
    X, plan = whole_steps(X), the_plan(metric, dtype, n, d)
    totals = ordinary_totals(metric, dtype, d)
    repeats = 8
    blocks = inner(_blocks_again_and_again)
    blocks(plan, X, Y, totals, 1)
    # What packing costs is taken off: here the tile is looked at.
    seconds = [_seconds(lambda times=times: blocks(plan, X, Y, totals, times), 3) for times in (1, 1 + repeats)]
    rate = repeats * n * m * d / (seconds[1] - seconds[0])
    peak = None
    if metric in _ADDS and name in peaks:
        peak = peaks[name].adds / _ADDS[metric] if metric == "l1" else peaks[name].differences_l2
    lines = _innermost_loop(metric, dtype)
    vector = [line for line in lines if re.search(r"[xyz]mm\d|\bv\d+\.|\bq\d+\b", line)]
    # The compiler may have taken several steps into one turn: each makes rows x vectors accumulations.
    steps = max(1, round(_accumulations(metric, lines) / (shape.rows * shape.vectors)))
    columns = columns_per_lane(dtype)
    return Tile(
        metric,
        name,
        *shape,
        rate,
        rate / clock,
        None if peak is None else rate / peak,
        len(lines),
        len(vector),
        steps * shape.rows * shape.points * columns,
        "\n".join(lines),
    )


def _blocks_again_and_again(plan, X, Y, like, times):  # type: ignore[no-untyped-def]
    panels, broadcast_x = aligned_like(Y.shape[0] * X.shape[1], Y), aligned_like(plan.workspace, Y)
    totals = aligned_like(X.shape[0] * Y.shape[0], like).reshape((X.shape[0], Y.shape[0]))
    pack(plan, Y, 0, Y.shape[0], panels)
    for _ in range(times):
        distances_of_block(plan, X, 0, X.shape[0], panels, 0, Y.shape[0], broadcast_x, totals)


#: What accumulates, in each metric's loop, on x86 and on Arm.
_ACCUMULATES = {
    ("l1", "f"): r"v?addp[sd]|fadd",
    ("l2", "f"): r"vfn?m\w+p[sd]|v?addp[sd]|fmla",
    ("linf", "f"): r"v?pmaxs[dq]|v?maxp[sd]|smax|v?blendv|vpternlog",
    ("l1", "u"): r"v?paddq|\badd\b.*v\d",
    ("l2", "u"): r"v?paddd|vpdpbusd|vpdpwssd|\badd\b.*v\d",
    ("linf", "u"): r"v?pmaxub|umax",
}


def _accumulations(metric: str, lines: list[str]) -> int:
    kind = "u" if any(re.search(r"psadbw|pmaddwd|vpdp|pmaxub|pminub", line) for line in lines) else "f"
    pattern = _ACCUMULATES.get((metric, kind))
    if pattern is None:  # nobody has said how this metric adds up
        return 0
    found = sum(bool(re.match(pattern, line)) for line in lines)
    return found // 2 if (metric, kind) == ("linf", "u") else found  # one of two is the difference's own


def _innermost_loop(metric: str, dtype: np.dtype[Any]) -> list[str]:
    """Return the instructions of the loop with most vector arithmetic in a tile compiled afresh, without labels."""
    accumulate, code = the_accumulate, METRIC_CODES[metric]  # a constant, so that only this metric's code is left
    tile = inner(lambda X, Y, steps, totals: accumulate(code, X, 0, 1, 0, Y, 0, 1, steps, Y, totals, 0, True))
    room = np.zeros(1 << 16, dtype)
    tile(room.reshape(1, -1), room, 2, np.zeros((16, 128), ordinary_totals(metric, dtype, 784).dtype))
    [text] = tile.inspect_asm().values()
    return hottest_loop(text)


def hottest_loop(assembly: str) -> list[str]:
    """Return the instructions of the innermost loop with most vector instructions."""
    lines = [line.split("#")[0].rstrip() for line in assembly.splitlines()]
    at = {line[:-1]: number for number, line in enumerate(lines) if line.endswith(":")}
    best: list[str] = []
    for number, line in enumerate(lines):
        jump = re.match(r"\s+(?:j\w+|b\.?\w*|cbn?z\s+\w+,|tbn?z\s+.*,)\s+(\.?L\w+)$", line)
        if jump and at.get(jump[1], number) < number:
            body = [text.strip().replace("\t", " ") for text in lines[at[jump[1]] + 1 : number + 1]]
            body = [text for text in body if text and not text.endswith(":") and not text.startswith(".")]
            inner = sum(bool(re.match(r"(j\w+|b\.)", text)) for text in body) == 1
            if inner and _vectors(body) > _vectors(best):
                best = body
    return best


def _vectors(lines: list[str]) -> int:
    return sum(bool(re.search(r"[xyz]mm\d|\bv\d+\.", line)) for line in lines)
