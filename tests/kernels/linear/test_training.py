"""Training of linear models: the steps, the same bits however it is cut and with whomever, and how it ends."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastml import kernels
from fastml.kernels.linear import _descent
from fastml.kernels.linear import training as linear_training
from fastml.kernels.linear.training import LinearTraining
from fastml.kernels.losses.table import LOSSES
from fastml.kernels.losses.table import OVER_CLASSES as MULTICLASS
from fastml.kernels.reference import vectorized
from fastml.kernels.runtime import parallel, team
from fastml.kernels.training import batches
from linear_problems import FLOATS, close, data, many

# Rows, columns and rows of a batch on both sides of vectors, groups, blocks and parts.
TRAINED = tuple(name for name, loss in LOSSES.items() if loss.in_training)
SHAPES = [
    (5, 1, 2),
    (7, 2, 1),
    (40, 15, 16),
    (41, 16, 17),
    (67, 17, 31),
    (70, 31, 33),
    (150, 33, 47),
    (200, 63, 64),
    (300, 65, 129),
    (130, 130, 130),
]


def plain(loss, X, y, W, b, order, batch_size, steps, *, l2, l1, momentum, nesterov, weight, average_from):
    """One model in float64, step by step as the documentation has it: W (C, D), b (C,), losses, and the means."""
    one = loss not in MULTICLASS
    W, b, X = (np.array(a, np.float64) for a in (W, b, X))
    v, vb, mean, mean_b = np.zeros_like(W), np.zeros_like(b), np.zeros_like(W), np.zeros_like(b)
    losses = []
    for number, step in enumerate(steps, start=1):
        rows = order[(number - 1) * batch_size : number * batch_size]
        w = np.ones(len(rows)) if weight is None else weight[rows].astype(np.float64)
        value, g, gb = vectorized.linear_loss_gradient(
            loss, X[rows], y[rows], W[0] if one else W, b[0] if one else b, sample_weight=w
        )
        scale = w.sum() / len(rows)
        losses.append(value * scale)
        g, gb = np.reshape(g, W.shape) * scale + l2 * W, np.reshape(gb, b.shape) * scale
        v, vb = momentum * v - step * g, momentum * vb - step * gb
        W, b = (W + momentum * v - step * g, b + momentum * vb - step * gb) if nesterov else (W + v, b + vb)
        W = np.sign(W) * np.maximum(np.abs(W) - step * l1, 0)
        if number >= average_from:
            mean += (W - mean) / (number - average_from + 1)
            mean_b += (b - mean_b) / (number - average_from + 1)
    return W, b, losses, mean, mean_b


#: Settings of three models.
SETTINGS = {
    "l2": [0.0, 0.01, 0.1],
    "l1": [0.0, 0.02, 0.0],
    "momentum": [0.0, 0.9, 0.8],
    "nesterov": [False, False, True],
    "average_from": [1, 2, 3],
}


# ------------------------------------------------------------------------------------------ steps


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", TRAINED)
def test_training_is_the_documented_loop(rng, loss, dtype, weighted):
    for n, D, batch_size in SHAPES:
        X, y, C = data(rng, loss, n, D, dtype)
        W, b = (rng.normal(size=(3, C, D)) / np.sqrt(D)).astype(dtype), rng.normal(size=(3, C)).astype(dtype)
        weight = rng.uniform(0, 2, n).astype(dtype) if weighted else None
        order = np.concatenate([rng.permutation(n), rng.integers(0, n, n // 2)])
        steps = rng.uniform(0.001, 0.02, (-(-len(order) // batch_size), 3)).astype(dtype)
        models = LinearTraining(loss, X, y, W=W, b=b, sample_weight=weight, **SETTINGS)
        losses = models.run(order, batch_size, steps)
        assert losses.shape == steps.shape
        assert losses.dtype == np.float64
        assert models.n_steps == len(steps)
        for m in range(3):
            own = {name: values[m] for name, values in SETTINGS.items()}
            expected = plain(loss, X, y, W[m], b[m], order, batch_size, steps[:, m], weight=weight, **own)
            result = models.W[m], models.b[m], losses[:, m], models.average_W[m], models.average_b[m]
            for got, want in zip(result, expected, strict=True):
                close(got, want, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_target_probabilities(rng, dtype):
    X = rng.normal(size=(50, 7)).astype(dtype)
    hard = rng.integers(0, 4, 50)
    soft = np.eye(4, dtype=dtype)[hard]
    W, b = rng.normal(size=(2, 4, 7)), rng.normal(size=(2, 4))
    by_class, by_row = (LinearTraining("softmax_cross_entropy", X, y, W=W, b=b) for y in (hard, soft))
    order, steps = rng.permutation(50), np.full(4, 0.1)
    close(by_row.run(order, 15, steps), by_class.run(order, 15, steps), dtype)
    close(by_row.W, by_class.W, dtype)


@pytest.mark.parametrize("n", [2048, 2049, 8 * 2048, 8 * 2048 + 1, 40_000])
def test_batches_of_many_rows(rng, n):
    """Parts, rounds of parts, and the float64 sum over rounds: the error of float32 stays small."""
    X = rng.uniform(size=(n, 5)).astype(np.float32)
    y = np.zeros(n, np.float32)
    W = np.ones((1, 1, 5), np.float32)
    model = LinearTraining("squared_error", X, y, W=W, b=[[0.5]])
    losses = model.run(rng.permutation(n), n, [1.0])
    r = X.astype(np.float64).sum(axis=1) + 0.5
    assert_allclose(losses, [[np.mean(r * r) / 2]], rtol=1e-6)
    assert_allclose(1 - model.W[0, 0], X.astype(np.float64).T @ r / n, rtol=1e-6)
    assert_allclose(0.5 - model.b, np.mean(r), rtol=1e-6)


def test_the_cut_of_every_batch_holds_it():
    for least, most in ((32, 2048), (128, 2048), (32, 32), (45, 96)):
        for length in (*range(1, 2000), 16_383, 16_384, 16_385, 10**6):
            parts, rows = _descent.cut(length, least, most)
            assert parts in (1, 2, 4, 8)
            assert 0 < rows <= max(most, 4)
            rounds = -(-length // (parts * rows))
            assert rounds == 1 or (parts == 8 and rows == most)
            # Threads share the parts of a round by halves: in a single round none is empty.
            assert rounds > 1 or rows == most or -(-length // rows) == parts
            assert parts == 1 or rows == most or rows >= least


def test_weights_that_reach_zero_stay_zero(rng):
    X = rng.normal(size=(200, 10))
    y = X[:, 0] * 3
    model = LinearTraining("squared_error", X, y, W=rng.normal(size=(1, 1, 10)), b=[[0.0]], l1=0.5)
    model.run(np.tile(np.arange(200), 50), 20, np.full(500, 0.05))
    assert np.flatnonzero(model.W).tolist() == [0]
    assert 2 < model.W[0, 0, 0] < 3


def test_the_intercept_has_no_penalties_and_can_be_fixed(rng):
    X, y = np.zeros((10, 3)), np.full(10, 4.0)
    order, steps = np.tile(np.arange(10), 200), np.full(200, 0.1)
    free, fixed = (
        LinearTraining("squared_error", X, y, W=np.zeros((1, 1, 3)), b=[[1.0]], l2=10, l1=10, fit_intercept=fit)
        for fit in (True, False)
    )
    free.run(order, 10, steps)
    assert_allclose(free.b, 4.0)
    losses = fixed.run(order, 10, steps)
    assert fixed.b == 1.0
    assert_allclose(losses, 4.5)


def test_huber_with_its_own_threshold(rng):
    X, y, _ = data(rng, "huber", 30, 4, "float64")
    y = 10 * y
    model = LinearTraining("huber", X, y, W=np.zeros((1, 1, 4)), b=[[0.0]], delta=0.5)
    losses = model.run(np.arange(30), 30, [0.1])
    assert_allclose(losses, kernels.huber(np.zeros(30), y, delta=0.5))
    assert_allclose(model.W[0, 0], -0.1 * (X.T @ kernels.huber_gradient(np.zeros(30), y, delta=0.5)[1]))


@pytest.mark.parametrize("step", [1e-5, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "hinge", "softmax_cross_entropy", "multiclass_hinge"])
def test_what_was_finite_stays_finite(rng, loss, step):
    """Losses with bounded slopes cannot run away, whatever the step and the size of the features."""
    X, y, C = data(rng, loss, 500, 9, "float32")
    X[:, 0] *= 1e6
    model = LinearTraining(loss, X, y, W=rng.normal(size=(1, C, 9)), b=rng.normal(size=(1, C)))
    losses = model.run(np.tile(np.arange(500), 20), 50, np.full(200, step))
    assert np.isfinite(losses).all()
    assert np.isfinite(model.W).all()


# ------------------------------------------------------------------------------------------- bits


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", TRAINED)
def test_a_model_has_the_same_bits_alone_and_among_others(rng, same_bits, loss, dtype):
    for D, batch_size, C in ((3, 10, 2), (18, 37, 3), (33, 64, 5), (65, 100, 10)):
        M = 9
        X, y, W, b = many(rng, loss, D, dtype, M, C=C)
        order = rng.permutation(150)
        steps = rng.uniform(0.01, 0.1, (-(-150 // batch_size), M))
        settings = {
            "l2": rng.uniform(0, 0.1, M),
            "l1": rng.choice([0, 0.01], M),
            "momentum": rng.choice([0, 0.9], M),
            "nesterov": rng.choice([False, True], M),
        }
        alone = []
        for m in range(M):
            own = {name: value[m] for name, value in settings.items()}
            model = LinearTraining(loss, X, y, W=W[m : m + 1], b=b[m : m + 1], **own, average_from=2)
            losses = model.run(order, batch_size, steps[:, m])
            alone.append((losses[:, 0], model.W[0].copy(), model.b[0].copy(), model.average_W[0].copy()))
        for members in (range(M), range(2), range(3), range(4), range(5), (8, 0, 3, 3, 1, 7)):
            members = list(members)
            own = {name: value[members] for name, value in settings.items()}
            models = LinearTraining(loss, X, y, W=W[members], b=b[members], **own, average_from=2)
            losses = models.run(order, batch_size, steps[:, members])
            for place, m in enumerate(members):
                got = losses[:, place], models.W[place], models.b[place], models.average_W[place]
                for a, e in zip(got, alone[m], strict=True):
                    same_bits(np.ascontiguousarray(a), np.ascontiguousarray(e), f"D {D}, model {m} of {members}:")


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", TRAINED)
def test_any_number_of_threads_gives_the_same_bits(rng, same_bits, loss, dtype):
    # In a batch of 40,000 rows helpers come while the first sums are there already.
    for n, D, batch_size in (
        (3000, 40, 1000),
        (2500, 12, 2100),
        (40_000, 3, 18_000),
        (40_000, 3, 40_000),
        (900, 130, 64),
    ):
        X, y, W, b = many(rng, loss, D, dtype, 2, n=n)
        order = np.concatenate((rng.permutation(n), rng.permutation(n)))
        steps = np.full(-(-2 * n // batch_size), 0.05)
        expected = None
        for n_threads in (1, 2, 3, 8, None):
            models = LinearTraining(loss, X, y, W=W, b=b, momentum=0.5, l1=0.001, n_threads=n_threads)
            losses = models.run(order, batch_size, steps)
            result = losses, models.W.copy(), models.b.copy()
            expected = expected or result
            for got, want in zip(result, expected, strict=True):
                same_bits(got, want, f"{n_threads} threads, batches of {batch_size}:")


@pytest.fixture
def long_run(rng):
    """A training that takes some tenths of a second, and a function that makes it anew."""
    X, y, _ = data(rng, "binary_cross_entropy", 20_000, 60, "float32")
    order = np.concatenate([rng.permutation(20_000) for _ in range(40)])
    steps = np.full(-(-len(order) // 500), 0.05)

    def make(n_threads: int) -> LinearTraining:
        W = np.zeros((3, 1, 60), np.float32)
        return LinearTraining("binary_cross_entropy", X, y, W=W, b=np.zeros((3, 1)), n_threads=n_threads)

    return make, order, 500, steps


def members_at_the_end(model: LinearTraining) -> int:
    return max(team.members_of(model._board, number) for number in (0, 1))


@pytest.mark.needs_jit
def test_helpers_take_part_and_change_nothing(long_run, same_bits, monkeypatch):
    make, *arguments = long_run
    alone = make(1)
    alone.run(*arguments)
    monkeypatch.setattr(batches, "_LOST_AT_ONCE", 1e9)  # on a busy machine they would be sent home
    most = 0
    for _ in range(500):  # and may come late
        together = make(2)
        together.run(*arguments)
        same_bits(together.W.copy(), alone.W.copy())
        most = members_at_the_end(together)
        if most > 1:
            break
    assert most > 1


@pytest.mark.needs_jit
def test_helpers_that_never_come_are_not_missed(long_run, same_bits, monkeypatch):
    make, *arguments = long_run
    alone, together = make(1), make(8)
    alone.run(*arguments)
    monkeypatch.setattr(parallel, "submit", lambda work, n_helpers: None)
    together.run(*arguments)
    same_bits(together.W.copy(), alone.W.copy())
    assert members_at_the_end(together) == 1


@pytest.mark.needs_jit
def test_a_helper_that_does_not_get_on_is_sent_home(long_run, same_bits, monkeypatch):
    make, *arguments = long_run
    alone, together = make(1), make(2)
    alone.run(*arguments)
    train = _descent.TRAINING[False]
    calls = [0, 0]

    def slow(thread, *rest):
        calls[thread] += 1
        if thread:
            time.sleep(0.02)  # as if it had no CPU; and one part a call is all it does, see below
        return train(thread, *rest)

    monkeypatch.setitem(_descent.TRAINING, False, slow)
    monkeypatch.setattr(linear_training, "_CALL_SECONDS", 0)
    together.run(*arguments)
    same_bits(together.W.copy(), alone.W.copy())
    assert members_at_the_end(together) == 1
    assert calls[1] < 100 < calls[0]


@pytest.mark.needs_jit
def test_training_in_pieces_gives_the_same_bits(rng, same_bits):
    X, y, W, b = many(rng, "softmax_cross_entropy", 20, "float32", 2)
    order, steps = rng.permutation(150), np.full(15, 0.1)
    whole, pieces = (
        LinearTraining("softmax_cross_entropy", X, y, W=W, b=b, momentum=0.9, average_from=4) for _ in range(2)
    )
    expected = whole.run(order, 10, steps)
    losses = [pieces.run(order[at : at + 30], 10, steps[:3]) for at in range(0, 150, 30)]
    same_bits(np.concatenate(losses), expected)
    same_bits(pieces.W.copy(), whole.W.copy())
    same_bits(pieces.average_W.copy(), whole.average_W.copy())
    assert pieces.n_steps == whole.n_steps == 15


@pytest.mark.needs_jit
def test_a_diverging_model_does_not_disturb_the_others(rng, same_bits):
    for loss in ("squared_error", "squared_hinge", "softmax_cross_entropy"):
        X, y, W, b = many(rng, loss, 20, "float32", 5)
        X *= 10
        order = np.tile(np.arange(150), 20)
        steps = np.full((300, 5), 1e-4)
        steps[:, [1, 3]] = 1e38
        models = LinearTraining(loss, X, y, W=W, b=b)
        losses = models.run(order, 10, steps)
        assert not np.isfinite(models.W[[1, 3]]).all(axis=(1, 2)).any()
        assert np.isfinite(models.W[[0, 2, 4]]).all()
        good = LinearTraining(loss, X, y, W=W[[0, 2, 4]], b=b[[0, 2, 4]])
        same_bits(good.run(order, 10, steps[:, [0, 2, 4]]), np.ascontiguousarray(losses[:, [0, 2, 4]]))
        same_bits(good.W.copy(), models.W[[0, 2, 4]])


@pytest.mark.needs_jit
def test_a_row_that_is_not_finite_is_seen_in_its_batch_only(rng):
    """What lies in a block from before, or is fetched ahead, adds nothing."""
    X, y, W, b = many(rng, "squared_error", 20, "float32", 1)
    X[7] = np.inf
    order = np.concatenate([np.arange(40), np.arange(50, 60), np.arange(60, 63)])
    models = LinearTraining("squared_error", X, y, W=W, b=b, fit_intercept=False)
    losses = models.run(order, 40, [0.0, 0.0])
    assert np.isnan(losses[0, 0]) or np.isinf(losses[0, 0])
    models.W[...] = W
    assert np.isfinite(models.run(order[40:], 13, [0.0])).all()
    assert np.isfinite(models.W).all()


# ------------------------------------------------------------------------------------------ state


def test_state_can_be_taken_and_restored(rng, same_bits):
    X, y, W, b = many(rng, "hinge", 6, "float64", 2)
    models = LinearTraining("hinge", X, y, W=W, b=b, momentum=0.9, average_from=1)
    order, steps = rng.permutation(150), np.full(5, 0.1)
    models.run(order, 30, steps)
    state = models.get_state()
    first = models.run(order, 30, steps), models.W.copy(), models.average_b.copy()
    models.set_state(state)
    assert models.n_steps == 5
    for got, want in zip((models.run(order, 30, steps), models.W.copy(), models.average_b.copy()), first, strict=True):
        same_bits(got, want)
    assert models.n_steps == 10


def test_weights_are_views_that_can_be_written(rng):
    X, y, W, b = many(rng, "squared_error", 6, "float64", 2)
    models = LinearTraining("squared_error", X, y, W=W, b=b)
    view = models.W
    models.run(np.arange(150), 150, [0.1])
    assert models.W is view
    assert not np.array_equal(view, W)
    models.W[...], models.b[...] = 0, 0
    assert_allclose(models.run(np.arange(150), 150, [0.1]), np.mean(y * y) / 2)
    assert models.average_W is None
    assert models.average_b is None


def test_an_empty_order_does_nothing(rng):
    X, y, W, b = many(rng, "huber", 6, "float32", 2)
    models = LinearTraining("huber", X, y, W=W, b=b)
    assert models.run([], 10, []).shape == (0, 2)
    assert models.n_steps == 0
    np.testing.assert_array_equal(models.W, W)


def test_row_numbers_are_checked(rng):
    X, y, W, b = many(rng, "huber", 6, "float32", 1)
    models = LinearTraining("huber", X, y, W=W, b=b)
    for wrong in ([0, 150], [-1, 3]):
        with pytest.raises(ValueError, match=r"order has a number outside 0\.\.149; X has 150 rows"):
            models.run(wrong, 2, [0.1])


# -------------------------------------------------------------------------------------- interrupts


@pytest.mark.needs_jit
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_keeps_the_last_complete_batch(long_run, same_bits, n_threads):
    make, order, batch_size, steps = long_run
    order, steps = np.tile(order, 20), np.tile(steps, 20)
    model = make(n_threads)
    model.run(order[:1000], batch_size, steps[:2])  # compiled, and the pool's threads are there
    timer = threading.Timer(0.15, signal.raise_signal, [signal.SIGINT])
    begin = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.run(order, batch_size, steps)
    timer.join()
    assert time.perf_counter() - begin < 5
    assert 2 < model.n_steps < len(steps)
    again = make(1)
    again.run(order[:1000], batch_size, steps[:2])
    done = model.n_steps - 2
    again.run(order[: done * batch_size], batch_size, steps[:done])
    same_bits(model.W.copy(), again.W.copy())
    model.run(order[:1000], batch_size, steps[:2])  # and it goes on


@pytest.mark.needs_jit
@pytest.mark.parametrize("shape", [(200_000, 20, 200_000), (60_000, 300, 1000), (100_000, 5, 1)])
def test_no_compiled_call_takes_long(rng, monkeypatch, shape):
    """Also where a single batch is long: CPU time, so that a busy machine does not count."""
    n, D, batch_size = shape
    train, seconds = _descent.TRAINING[False], []

    def timed(*arguments):
        begin = time.thread_time()
        done = train(*arguments)
        seconds.append(time.thread_time() - begin)
        return done

    X = rng.normal(size=(n, D)).astype(np.float32)
    model = LinearTraining("squared_error", X, X[:, 0].copy(), W=np.zeros((8, 1, D)), b=np.zeros((8, 1)), n_threads=1)
    order = np.tile(rng.permutation(n), 5)
    steps = np.full(-(-len(order) // batch_size), 1e-4)
    model.run(order[:batch_size], batch_size, steps[:1])
    monkeypatch.setitem(_descent.TRAINING, False, timed)
    model.run(order, batch_size, steps)
    assert len(seconds) > 1
    assert max(seconds) < 0.3  # 0.04 is aimed at, on a machine as fast as the one that the estimate was made on
