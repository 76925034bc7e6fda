"""Vector code for stacks of linear models: a block of rows is copied once and serves all models.

A *stack* is a matrix with one row per score: the weights, then the intercept, then zeros up to whole vectors. A
*block* holds a few rows of X in the same form, with 1 where the intercept stands. So products need no ends.

`copy_row` and `prefetch_row` fill a block from rows that lie anywhere. `stack_scores` and `add_gradient` are the two
products, made of tiles, so that whatever is loaded is used several times.

Sums. A score is summed in one vector, and its lanes are then added up in a fixed tree. An entry of the gradient is
summed over the rows of a block in their order. Both depend on the block and one row of the stack alone: a model's bits
are the same whichever others are in the stack.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from ..runtime.jit import inner, intrinsic
from ..simd.llvm import Emitter

__all__ = ["GROUP", "add_gradient", "stack_scores"]

#: Rows of a block come in whole groups: a tile of one score has as many.
GROUP = 16


#: Below, the work on a block is too short to hide what it takes to ask for the next one.
_SCORES_THAT_TAKE_TIME = 8


# -------------------------------------------------------------------------------------- products


@inner
def stack_scores(block, n, stack, transposed, Z, X, ahead):  # type: ignore[no-untyped-def]
    """Z[s, i] = block[i] . stack[s] for i < n if `transposed`, else Z[i, s]; up to a whole `GROUP` of rows is written.

    `transposed` is a literal. Meanwhile rows `ahead` of `X` are asked for, as many as the work takes time for; returns
    how many.
    """
    scores, asked = stack.shape[0], 0
    fours = scores // 4 * 4
    share = -(-ahead.size // max(1, fours // 4))
    for s in range(0, fours, 4):
        rows = ahead[asked : asked + share] if scores >= _SCORES_THAT_TAKE_TIME else ahead[:0]
        asked += score_strip(4, transposed, block, n, stack, s, Z, X, rows)
    if scores - fours >= 2:
        score_strip(2, transposed, block, n, stack, fours, Z, X, ahead[:0])
    if scores % 2 == 1:
        score_strip(1, transposed, block, n, stack, scores - 1, Z, X, ahead[:0])
    return asked


def _score_strip_twin(scores, transposed, block, n, stack, s, Z, X, ahead):  # type: ignore[no-untyped-def]
    for k in range(s, s + scores):  # one by one: the bits of a product of matrices depend on its shape
        if transposed:
            Z[k, :n] = block[:n] @ stack[k]
        else:
            Z[:n, k] = block[:n] @ stack[k]
    return 0


@intrinsic(twin=_score_strip_twin)
def score_strip(typingctx, scores, transposed, block, n, stack, s, Z, X, ahead):  # type: ignore[no-untyped-def]
    """``Z[i, s + k] = block[i] . stack[s + k]`` for i < n, k < `scores` (a literal); Z.T if `transposed` (a literal).

    Asks for two rows ``X[ahead[...]]`` with each tile, while there are any, and returns for how many.
    """
    if not all(isinstance(each, (types.IntegerLiteral, types.BooleanLiteral)) for each in (scores, transposed)):
        return None  # asked again with the literals
    n_scores, turn = scores.literal_value, transposed.literal_value
    asking = n_scores == 4

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, x, count, w, w_top, z, source, rows_ahead = arguments
        e = Emitter(context, builder, block.dtype)
        n_rows = e.tile_sums // n_scores
        w_rows = [e.row(stack, w, builder.add(w_top, e.number(k)))[0] for k in range(n_scores)]
        ahead_array = context.make_array(ahead)(context, builder, rows_ahead)
        n_ahead = cgutils.unpack_tuple(builder, ahead_array.shape, 1)[0]
        asked = cgutils.alloca_once_value(builder, e.number(0))
        step = e.number(n_rows)
        with cgutils.for_range_slice(builder, e.number(0), count, step, intp=cgutils.intp_t) as (x_top, _):
            x_rows = [e.row(block, x, builder.add(x_top, e.number(r))) for r in range(n_rows)]
            columns = x_rows[0][1]
            later = []
            for _ in range(2 if asking else 0):
                number = builder.load(asked)
                there = builder.icmp_signed("<", number, n_ahead)
                place = cgutils.alloca_once_value(builder, x_rows[0][0])  # in the cache already: costs nothing
                with builder.if_then(there):
                    row = builder.load(builder.gep(ahead_array.data, [number]))
                    builder.store(e.row(X, source, row)[0], place)
                builder.store(builder.select(there, builder.add(number, e.number(1)), number), asked)
                later.append(builder.load(place))
            sums = [[e.zeroed() for _ in range(n_scores)] for _ in range(n_rows)]
            with cgutils.for_range_slice(builder, e.number(0), columns, e.number(e.lanes), intp=cgutils.intp_t) as (
                at,
                _,
            ):
                for row in later:
                    e.prefetch(builder.gep(row, [at]))
                weights = [e.load(w_row, at) for w_row in w_rows]
                for (x_row, _), of_row in zip(x_rows, sums, strict=True):
                    here = e.load(x_row, at)
                    for weight, place in zip(weights, of_row, strict=True):
                        builder.store(e.multiply_add(here, weight, builder.load(place)), place)
            # What lies side by side in Z comes side by side out of the tree.
            lines = list(zip(*sums, strict=True)) if turn else sums
            totals = e.sums_of_lanes([builder.load(place) for line in lines for place in line])
            length = len(lines[0])
            for number in range(len(lines)):
                top, left = (w_top, x_top) if turn else (x_top, w_top)
                line, _ = e.row(Z, z, builder.add(top, e.number(number)))
                e.store_part(totals, number * length, length, builder.gep(line, [left]))
        return builder.load(asked)

    return types.intp(scores, transposed, block, types.intp, stack, types.intp, Z, X, ahead), emit


@inner
def add_gradient(block, n, G, transposed, total):  # type: ignore[no-untyped-def]
    """total[s] += sum_i G[s, i] block[i] over i < n if `transposed` (a literal), else of G[i, s]."""
    scores = total.shape[0]
    fours = scores // 4 * 4
    for s in range(0, fours, 4):
        gradient_strip(4, transposed, block, n, G, s, total)
    if scores - fours >= 2:
        gradient_strip(2, transposed, block, n, G, fours, total)
    if scores % 2 == 1:
        gradient_strip(1, transposed, block, n, G, scores - 1, total)


def _gradient_strip_twin(scores, transposed, block, n, G, s, total):  # type: ignore[no-untyped-def]
    for k in range(s, s + scores):
        total[k] += (G[k, :n] if transposed else G[:n, k]) @ block[:n]


@intrinsic(twin=_gradient_strip_twin)
def gradient_strip(typingctx, scores, transposed, block, n, G, s, total):  # type: ignore[no-untyped-def]
    """``total[s + k] += sum_i G[i, s + k] block[i]`` over i < n, for k < `scores` (a literal); G.T if `transposed`."""
    if not all(isinstance(each, (types.IntegerLiteral, types.BooleanLiteral)) for each in (scores, transposed)):
        return None  # asked again with the literals
    n_scores, turn = scores.literal_value, transposed.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, x, count, g, top, t = arguments
        e = Emitter(context, builder, block.dtype)
        first, columns = e.row(block, x, e.number(0))
        totals = [e.row(total, t, builder.add(top, e.number(k)))[0] for k in range(n_scores)]
        g_first, g_columns = e.row(G, g, e.number(0))

        def tile(at: ir.Value, vectors: int) -> None:
            places = [builder.add(at, e.number(j * e.lanes)) for j in range(vectors)]
            sums = [[e.zeroed() for _ in places] for _ in range(n_scores)]
            with cgutils.for_range(builder, count) as loop:
                row = builder.gep(first, [builder.mul(loop.index, columns)])
                here = [e.load(row, place) for place in places]
                for k, of_score in enumerate(sums):
                    score = builder.add(top, e.number(k))
                    line, column = (score, loop.index) if turn else (loop.index, score)
                    slope = builder.load(builder.gep(g_first, [builder.add(builder.mul(line, g_columns), column)]))
                    for x_here, place in zip(here, of_score, strict=True):
                        builder.store(e.multiply_add(e.everywhere(slope), x_here, builder.load(place)), place)
            for row, of_score in zip(totals, sums, strict=True):
                for at_j, place in zip(places, of_score, strict=True):
                    e.store(builder.fadd(e.load(row, at_j), builder.load(place)), row, at_j)

        done: ir.Value = e.number(0)
        vectors = min(8, e.tile_sums // n_scores)
        while vectors > 0:
            width = e.number(vectors * e.lanes)
            rest = builder.sub(columns, done)
            end = builder.add(done, builder.sub(rest, builder.urem(rest, width)))
            with cgutils.for_range_slice(builder, done, end, width, intp=cgutils.intp_t) as (at, _):
                tile(at, vectors)
            done, vectors = end, vectors // 2
        return context.get_dummy_value()

    return types.void(scores, transposed, block, types.intp, G, types.intp, total), emit
