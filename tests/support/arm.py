"""Arm's tiles on any CPU: what they ask for by name, spelled out for LLVM to lower to other instructions."""

from __future__ import annotations

import functools

from llvmlite import ir

from fastml.kernels.simd.llvm import call, shuffle


def portable(b, name, result, *arguments):
    """Emit what Arm's instructions do, in code for any CPU."""
    if ".neon." not in name:
        return call(b, name, result, *arguments)
    *total, values = arguments[:2]
    if ".udot." in name:
        wide = ir.VectorType(ir.IntType(32), 16)
        values = b.mul(b.zext(values, wide), b.zext(arguments[2], wide))
    else:
        assert ".uaddlp." in name
        values = b.zext(values, ir.VectorType(result.element, values.type.count))
    neighbors = values.type.count // result.count
    parts = [shuffle(b, values, values, list(range(i, values.type.count, neighbors))) for i in range(neighbors)]
    return functools.reduce(b.add, [*total, *parts])
