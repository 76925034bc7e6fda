"""What layers of a convolutional network do beside products: fetching, ReLU, dropout, pooling, batch normalisation.

All work on images `first` to `last` of a batch that lie in a `Grid`, line by line; `place` is that of the grid. A
gradient (`grad`, `d`) is that of the loss in values. ReLU and dropout change both where they are; batch normalisation
changes the gradient so.

Sums over the pixels of one image are in the dtype of the images, line upon line; sums over images are in float64, in
the order of the images. A variance comes from deviations from the mean. So which images are worked on together, and by
whom, makes no difference.
"""

from __future__ import annotations

import numpy as np

from ..losses.class_formulas import scratch
from ..networks.activations import drop, mixed
from ..networks.row_losses import losses_of_rows
from ..networks.steps import move
from ..runtime.jit import inner, kernel, scalar
from ..simd.functions import like, maximum

__all__ = [
    "STEP_ENTRIES",
    "avg_pool",
    "avg_pool_backward",
    "center",
    "channel_deviations",
    "channel_sums",
    "copy_lines",
    "drop_out",
    "fetch",
    "grad_sums",
    "loss_gradient",
    "max_pool",
    "max_pool_backward",
    "normalize",
    "normalize_backward",
    "relu",
    "relu_backward",
    "take_step",
]

# Numbers of a grid's place: begin of the first image, steps to the next image and line; lines; entries and pixels of a
# line; entries of a pixel.
_BEGIN, _IMAGE, _LINE, _LINES, _LENGTH, _WIDTH, _PITCH = range(7)

#: Parameters of which a step is taken together: they and all that belongs to them stay in the first-level cache.
STEP_ENTRIES = 1024


@inner
def _line(flat, place, i, y):  # type: ignore[no-untyped-def]
    """Return a line of an image."""
    at = place[_BEGIN] + i * place[_IMAGE] + y * place[_LINE]
    return flat[at : at + place[_LENGTH]]


@inner
def _copy(source, target):  # type: ignore[no-untyped-def]
    for j in range(target.size):
        target[j] = source[j]


@scalar
def center(x, mean, factor, shift):  # type: ignore[no-untyped-def]
    """(x - mean) factor + shift: the difference first, which is small where both are large."""
    return (x - mean) * factor + shift


# ------------------------------------------------------------------------------------- fetch, pointwise


@kernel
def fetch(X, order, first, last, mean, factor, grid, place):  # type: ignore[no-untyped-def]
    """Copy images ``X[order]``, (channels, lines, pixels), to a grid: each channel less its mean, times a factor."""
    channels, pitch = X.shape[1], place[_PITCH]
    for i in range(first, last):
        image = X[order[i]]
        for y in range(place[_LINES]):
            line = _line(grid, place, i, y)
            for c in range(channels):
                source, shift, size = image[c, y], mean[c], factor[c]
                for x in range(place[_WIDTH]):
                    line[x * pitch + c] = center(like(shift, source[x]), shift, size, like(shift, 0))


@kernel
def copy_lines(source, source_place, target, target_place, first, last):  # type: ignore[no-untyped-def]
    """Copy images from one grid to another, whose pixels and lines may lie further apart: zeros are in between."""
    pitch, apart = source_place[_PITCH], target_place[_PITCH]
    for i in range(first, last):
        for y in range(source_place[_LINES]):
            line, to = _line(source, source_place, i, y), _line(target, target_place, i, y)
            for x in range(source_place[_WIDTH]):
                _copy(line[x * pitch : (x + 1) * pitch], to[x * apart : x * apart + pitch])


@kernel
def relu(values, place, first, last):  # type: ignore[no-untyped-def]
    """max(z, 0)."""
    for i in range(first, last):
        for y in range(place[_LINES]):
            z = _line(values, place, i, y)
            for j in range(z.size):
                z[j] = maximum(z[j], like(z[j], 0))


@kernel
def relu_backward(values, place, grad, grad_place, first, last):  # type: ignore[no-untyped-def]
    """Gradient in what `relu` was given, from its values; 0 at 0."""
    for i in range(first, last):
        for y in range(place[_LINES]):
            a, d = _line(values, place, i, y), _line(grad, grad_place, i, y)
            for j in range(d.size):
                d[j] = d[j] if a[j] > like(a[j], 0) else like(a[j], 0)


@kernel
def drop_out(values, place, threshold, scale, seed, batch, layer, first, last):  # type: ignore[no-untyped-def]
    """Set values, or their gradient, to 0 where a hash says so, and multiply the others."""
    for i in range(first, last):
        key = mixed(mixed(mixed(seed, batch), layer), i)
        for y in range(place[_LINES]):
            drop(key, y * place[_LENGTH], threshold, scale, _line(values, place, i, y))


# --------------------------------------------------------------------------------------------- pooling


@inner
def _larger(x, best, index, k):  # type: ignore[no-untyped-def]
    """Take over what is larger; the first of equals stays, and the first NaN."""
    k = like(index[0], k)  # as narrow as the places: lanes of 64 bits would be four times as many vectors
    for c in range(best.size):
        # All is read first: what is read on a condition has no vectors without masks.
        value, before, place = x[c], best[c], index[c]
        takes = (not (value <= before)) & (before == before)
        best[c] = value if takes else before
        index[c] = k if takes else place


@kernel
def max_pool(values, place, result, result_place, index, size, stride, first, last):  # type: ignore[no-untyped-def]
    """Largest value of each window and channel, and its place in the window."""
    pitch, lines, width = place[_PITCH], result_place[_LINES], result_place[_WIDTH]
    for i in range(first, last):
        for y in range(lines):
            out, at = _line(result, result_place, i, y), (i * lines + y) * width * pitch
            for dy in range(size):
                line = _line(values, place, i, y * stride + dy)
                for x in range(width):
                    best, places = out[x * pitch : (x + 1) * pitch], index[at + x * pitch : at + (x + 1) * pitch]
                    begin = x * stride * pitch
                    if dy == 0:
                        _copy(line[begin : begin + pitch], best)
                        places[:] = 0
                    for dx in range(1 if dy == 0 else 0, size):
                        _larger(line[begin + dx * pitch : begin + (dx + 1) * pitch], best, places, dy * size + dx)


@inner
def _add_where(index, k, d, total):  # type: ignore[no-untyped-def]
    k = like(index[0], k)
    for c in range(d.size):
        total[c] += d[c] if index[c] == k else like(d[c], 0)


@inner
def _clear(flat, place, i):  # type: ignore[no-untyped-def]
    for y in range(place[_LINES]):
        _line(flat, place, i, y)[:] = 0


@kernel
def max_pool_backward(grad, place, index, result, result_place, size, stride, first, last):  # type: ignore[no-untyped-def]
    """Gradient in the values that `max_pool` was given."""
    pitch, lines, width = place[_PITCH], place[_LINES], place[_WIDTH]
    for i in range(first, last):
        _clear(result, result_place, i)
        for y in range(lines):
            d, at = _line(grad, place, i, y), (i * lines + y) * width * pitch
            for dy in range(size):
                out = _line(result, result_place, i, y * stride + dy)
                for x in range(width):
                    places = index[at + x * pitch : at + (x + 1) * pitch]
                    here = d[x * pitch : (x + 1) * pitch]
                    for dx in range(size):
                        begin = (x * stride + dx) * pitch
                        _add_where(places, dy * size + dx, here, out[begin : begin + pitch])


@inner
def _add_scaled(x, factor, total):  # type: ignore[no-untyped-def]
    for c in range(total.size):
        total[c] += factor * x[c]


@kernel
def avg_pool(values, place, result, result_place, size, stride, first, last):  # type: ignore[no-untyped-def]
    """Mean of each window and channel."""
    pitch = place[_PITCH]
    share = like(values[0], 1) / like(values[0], size * size)
    for i in range(first, last):
        _clear(result, result_place, i)
        for y in range(result_place[_LINES]):
            out = _line(result, result_place, i, y)
            for dy in range(size):
                line = _line(values, place, i, y * stride + dy)
                for x in range(result_place[_WIDTH]):
                    for dx in range(size):
                        begin = (x * stride + dx) * pitch
                        _add_scaled(line[begin : begin + pitch], share, out[x * pitch : (x + 1) * pitch])


@kernel
def avg_pool_backward(grad, place, result, result_place, size, stride, first, last):  # type: ignore[no-untyped-def]
    """Gradient in the values that `avg_pool` was given."""
    pitch = place[_PITCH]
    share = like(grad[0], 1) / like(grad[0], size * size)
    for i in range(first, last):
        _clear(result, result_place, i)
        for y in range(place[_LINES]):
            d = _line(grad, place, i, y)
            for dy in range(size):
                out = _line(result, result_place, i, y * stride + dy)
                for x in range(place[_WIDTH]):
                    for dx in range(size):
                        begin = (x * stride + dx) * pitch
                        _add_scaled(d[x * pitch : (x + 1) * pitch], share, out[begin : begin + pitch])


# ----------------------------------------------------------------------------------- batch normalisation
#
# What belongs to a channel comes as a whole line, the channels once for each pixel: so a line is one loop.


@inner
def _fold(line, pitch, total):  # type: ignore[no-untyped-def]
    """Total = sum over the pixels of a line."""
    total[:] = 0
    for at in range(0, line.size, pitch):
        pixel = line[at : at + pitch]
        for c in range(pitch):
            total[c] += pixel[c]


@inner
def _add(total, part):  # type: ignore[no-untyped-def]
    for j in range(part.size):
        total[j] += part[j]


@kernel
def channel_sums(values, place, sums, first, last):  # type: ignore[no-untyped-def]
    """Add up the pixels of each image."""
    pixels = np.empty(place[_LENGTH], values.dtype)
    for i in range(first, last):
        pixels[:] = 0
        for y in range(place[_LINES]):
            _add(pixels, _line(values, place, i, y))
        _fold(pixels, place[_PITCH], sums[i])


@inner
def _add_squares(total, z, mean):  # type: ignore[no-untyped-def]
    for j in range(z.size):
        off = center(z[j], mean[j], like(z[j], 1), like(z[j], 0))
        total[j] += off * off


@kernel
def channel_deviations(values, place, means, deviations, first, last):  # type: ignore[no-untyped-def]
    """Mean of each image's pixels, and sum of squared deviations from it."""
    pitch, pixels, mean = place[_PITCH], np.empty(place[_LENGTH], values.dtype), np.empty(place[_LENGTH], values.dtype)
    share = like(values[0], 1) / like(values[0], place[_LINES] * place[_WIDTH])
    for i in range(first, last):
        pixels[:] = 0
        for y in range(place[_LINES]):
            _add(pixels, _line(values, place, i, y))
        of_image = means[i]
        _fold(pixels, pitch, of_image)
        for c in range(pitch):
            of_image[c] *= share
        for at in range(0, mean.size, pitch):
            _copy(of_image, mean[at : at + pitch])
        pixels[:] = 0
        for y in range(place[_LINES]):
            _add_squares(pixels, _line(values, place, i, y), mean)
        _fold(pixels, pitch, deviations[i])


@inner
def _normalize_line(z, of_channels, out):  # type: ignore[no-untyped-def]
    mean, factor, shift = of_channels[0], of_channels[1], of_channels[2]
    for j in range(z.size):
        out[j] = center(z[j], mean[j], factor[j], shift[j])


@kernel
def normalize(values, place, of_channels, result, result_place, first, last):  # type: ignore[no-untyped-def]
    """(z - mean) factor + shift, of which `of_channels` has a line each."""
    for i in range(first, last):
        for y in range(place[_LINES]):
            _normalize_line(_line(values, place, i, y), of_channels, _line(result, result_place, i, y))


@inner
def _add_products(total, d, z, mean):  # type: ignore[no-untyped-def]
    for j in range(z.size):
        total[j] += center(z[j], mean[j], d[j], like(z[j], 0))


@kernel
def grad_sums(grad, grad_place, values, place, mean, sums, products, first, last):  # type: ignore[no-untyped-def]
    """Add up the gradient in the pixels of each image, and gradient times deviation from the mean."""
    pitch, pixels = place[_PITCH], np.empty(place[_LENGTH], values.dtype)
    for i in range(first, last):
        pixels[:] = 0
        for y in range(place[_LINES]):
            _add(pixels, _line(grad, grad_place, i, y))
        _fold(pixels, pitch, sums[i])
        pixels[:] = 0
        for y in range(place[_LINES]):
            _add_products(pixels, _line(grad, grad_place, i, y), _line(values, place, i, y), mean)
        _fold(pixels, pitch, products[i])


@inner
def _normalize_line_backward(d, z, of_channels):  # type: ignore[no-untyped-def]
    mean, of_grad, of_value, shift = of_channels[0], of_channels[1], of_channels[2], of_channels[3]
    for j in range(d.size):
        d[j] = of_grad[j] * d[j] + center(z[j], mean[j], of_value[j], shift[j])


@kernel
def normalize_backward(grad, grad_place, values, place, of_channels, first, last):  # type: ignore[no-untyped-def]
    """Make the gradient in the values that `normalize` was given: a d + (z - mean) b + c, with lines mean, a, b, c."""
    for i in range(first, last):
        for y in range(place[_LINES]):
            _normalize_line_backward(_line(grad, grad_place, i, y), _line(values, place, i, y), of_channels)


# ---------------------------------------------------------------------------------------- loss and step


@kernel
def loss_gradient(loss, scores, grad, n, outputs, order, indices, T, weight, scale, groups, sums):  # type: ignore[no-untyped-def]
    """Losses of groups of rows, and the gradient in their scores; both scores and gradient have a line for each row."""
    Z, G = np.empty((n, outputs), scores.dtype), np.empty((n, outputs), scores.dtype)
    for i in range(n):
        _copy(scores[i, :outputs], Z[i])
    work = scratch(32, outputs, Z)
    losses_of_rows(loss, Z, G, np.intp(0), groups, order, indices, T, weight, scale, work, sums)
    for i in range(n):
        _copy(G[i], grad[i, :outputs])


@kernel
def take_step(rule, parameters, gradient, moments, decay, shrink, step, numbers, first, last, done, task):  # type: ignore[no-untyped-def]
    """Take the step of parameters `first` to `last`, and say that it is done."""
    kept = moments.shape[1] > 0
    for begin in range(first, last, STEP_ENTRIES):
        end = min(last, begin + STEP_ENTRIES)
        size, here = end - begin, slice(begin, end)
        there = here if kept else slice(0, 0)
        move(
            rule, parameters[here], gradient[here], decay[:size], shrink[:size], moments[0, there], moments[1, there],
            step, numbers,
        )  # fmt: skip
    done[task] = 1
