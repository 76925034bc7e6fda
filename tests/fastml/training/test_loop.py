"""The training loop by itself, on a model of one number per column whose every step can be followed by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from fastml.kernels.runtime import permutation
from fastml.training.batches import SAMPLING, Batches, Rows
from fastml.training.history import COLUMNS, Evaluations, History
from fastml.training.loop import train
from fastml.training.run import EarlyStopping, Run


class Columns:
    """w moves by its step towards the mean of each batch; the loss is half the squared distance.

    ``loss_at[column]`` maps numbers of steps to what is reported there instead.
    """

    def __init__(self, values, starts, loss_at=None, interrupt_at=None):
        self.values = np.asarray(values, float)
        self.w = np.array(starts, float)
        self.names = list(range(len(starts)))
        self.loss_at = loss_at or {}
        self.interrupt_at = interrupt_at
        self.n_steps = 0
        self.seen = []
        self.calls = []

    def run(self, order, batch_size, steps):
        self.calls.append(len(steps))
        self.seen += order.tolist()
        losses = np.empty((len(steps), len(self.w)))
        for i, sizes in enumerate(steps):
            if self.n_steps + 1 == self.interrupt_at:
                raise KeyboardInterrupt
            mean = self.values[order[i * batch_size : (i + 1) * batch_size]].mean()
            losses[i] = 0.5 * (self.w - mean) ** 2
            self.w = self.w - sizes * (self.w - mean)
            self.n_steps += 1
            for column, name in enumerate(self.names):
                losses[i, column] = self.loss_at.get(name, {}).get(self.n_steps, losses[i, column])
        return losses

    def evaluate(self, rows):
        distance = np.abs(self.w - rows.y.mean())
        return distance, -distance

    def finite(self):
        return np.isfinite(self.w)

    def weights(self, column):
        return self.w[column].item()

    def state(self, column):
        return ("state", self.w[column].item())

    def keep(self, columns):
        self.w = self.w[columns]
        self.names = [self.names[column] for column in columns]


def rate(size):
    return lambda done, count: np.full(count, size)


def rows(values):
    values = np.asarray(values, float)
    return Rows(values[:, np.newaxis], values)


def fit(model, runs, sizes, evaluations, *, batch_size=2, sampling="sequential", drop_last=False, hooks=None, seed=0):
    batches = Batches(len(model.values), batch_size, sampling, drop_last, np.random.default_rng(seed))
    train(model, runs, batches, [rate(size) for size in sizes], evaluations, hooks=hooks)
    return runs


def never(column="train_loss", keep=None):
    return EarlyStopping(column, tol=None, patience=1, keep=keep)


# ------------------------------------------------------------------------------------------- permutation


@pytest.mark.parametrize("n", [0, 1, 2, 17, 1000])
def test_a_permutation_has_each_number_once(n, rng):
    order = permutation.permutation(n, rng)
    assert order.dtype == np.intp
    assert np.array_equal(np.sort(order), np.arange(n))


def test_all_permutations_are_equally_likely(rng):
    counts = Counter(tuple(permutation.permutation(4, rng)) for _ in range(4800))
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 60  # chi square: 1 in 30,000 is above


def test_a_permutation_depends_on_the_generator_alone(monkeypatch):
    def make():
        return permutation.permutation(50, np.random.default_rng(3))

    expected = make()
    assert np.array_equal(make(), expected)
    monkeypatch.setattr(permutation, "_AT_ONCE", 7)
    assert np.array_equal(make(), expected)
    assert not np.array_equal(permutation.permutation(50, np.random.default_rng(4)), expected)


# ----------------------------------------------------------------------------------------------- batches


def test_a_new_permutation_each_epoch_or_one_for_all(rng):
    for sampling, same in (("permutation", False), ("fixed_permutation", True)):
        batches = Batches(30, 7, sampling, False, rng)
        first, second = batches.epoch(), batches.epoch()
        assert batches.steps == 5
        assert sorted(first) == sorted(second) == list(range(30))
        assert np.array_equal(first, second) == same
        assert not np.array_equal(first, np.arange(30))


def test_rows_in_order_or_drawn(rng):
    assert Batches(5, 2, "sequential", False, rng).epoch().tolist() == [0, 1, 2, 3, 4]
    drawn = np.concatenate([Batches(20, 4, "replacement", False, rng).epoch() for _ in range(500)])
    assert drawn.shape == (10000,)
    assert drawn.dtype == np.intp
    counts = np.bincount(drawn, minlength=20)
    assert ((counts - 500) ** 2 / 500).sum() < 60
    missing = np.mean([0 not in Batches(20, 4, "replacement", False, rng).epoch() for _ in range(2000)])
    assert abs(missing - (1 - 1 / 20) ** 20) < 0.05  # 0.358, four standard deviations


def test_the_last_batch_is_dropped_or_not(rng):
    batches = Batches(11, 4, "sequential", True, rng)
    assert batches.steps == 2
    assert batches.epoch().tolist() == list(range(8))
    kept = Batches(11, 4, "permutation", False, rng)
    assert kept.steps == 3
    assert len(kept.epoch()) == 11
    small = Batches(3, 10, "sequential", True, rng)
    assert (small.steps, small.size) == (1, 3)
    assert small.epoch().tolist() == [0, 1, 2]


@pytest.mark.parametrize("sampling", SAMPLING)
def test_some_rows_only(sampling, rng):
    some = np.array([3, 5, 8, 9])
    batches = Batches(some, 3, sampling, False, rng)
    assert batches.n == 4
    assert set(batches.epoch()) <= set(some)
    assert len(batches.epoch()) == 4


# ------------------------------------------------------------------- evaluations, history, stopping


def test_when_to_evaluate():
    assert Evaluations().within_epoch(0, 7) == {7}
    assert Evaluations(per_epoch=2).within_epoch(14, 7) == {4, 7}
    assert Evaluations(per_epoch=5).within_epoch(0, 100) == {20, 40, 60, 80, 100}
    assert Evaluations(per_epoch=5).within_epoch(0, 3) == {1, 2, 3}
    assert Evaluations(steps=3).within_epoch(0, 7) == {3, 6}
    assert Evaluations(steps=3).within_epoch(7, 7) == {2, 5}  # steps 9 and 12
    assert Evaluations(steps=100).within_epoch(0, 7) == set()


def test_a_history_goes_on():
    history = History()
    history.add(**dict.fromkeys(COLUMNS, 1))
    arrays = history.arrays()
    assert arrays["step"].dtype == np.intp
    assert {values.dtype for name, values in arrays.items() if name != "step"} == {np.dtype(float)}
    longer = History(arrays)
    assert longer.origin == [1, 1, 1]
    longer.add(**dict.fromkeys(COLUMNS, 2))
    assert longer.arrays()["train_loss"].tolist() == [1, 2]
    assert History().origin == [0, 0, 0]


def watched(values, **settings):
    """What `EarlyStopping` says of each value: (best, stop)."""
    stopping = EarlyStopping(**settings)
    return [stopping.update({settings["column"]: value}) for value in values]


def test_training_stops_when_the_last_evaluations_bring_nothing():
    losses = [1.0, 0.5, 0.45, 0.44, 0.43]
    stops = [stop for _, stop in watched(losses, column="train_loss", tol=0.1, patience=2)]
    assert stops == [False, False, False, True, True]  # 0.44 is not 0.1 below 0.5
    slow = [1 - 0.06 * i for i in range(10)]  # less than tol in a step, more in two
    assert not any(stop for _, stop in watched(slow, column="train_loss", tol=0.1, patience=2))
    assert [stop for _, stop in watched([1, 1, 1, 1], column="train_loss", tol=0, patience=3)] == [0, 0, 0, 1]
    assert not any(stop for _, stop in watched([1] * 9, column="train_loss", tol=None, patience=1))
    scores = [0.5, 0.6, 0.6, 0.7, 0.69, 0.68]
    assert [stop for _, stop in watched(scores, column="train_score", tol=0, patience=2)] == [0, 0, 0, 0, 0, 1]


def test_which_weights_are_the_best():
    losses = [3.0, 2.0, 2.0, math.nan, 2.5, 1.0]
    expected = {"first": [1, 1, 0, 0, 0, 1], "last": [1, 1, 1, 0, 0, 1], None: [0] * 6}
    for keep, best in expected.items():
        assert [b for b, _ in watched(losses, column="x_loss", tol=None, patience=1, keep=keep)] == best
    scores = [0.1, 0.3, 0.3, 0.2]
    assert [b for b, _ in watched(scores, column="x_score", tol=None, patience=1, keep="last")] == [1, 1, 1, 0]


def test_nan_is_no_improvement():
    values = [1.0, math.nan, math.nan, math.nan]
    assert [stop for _, stop in watched(values, column="train_loss", tol=0, patience=2)] == [0, 0, 1, 1]


# --------------------------------------------------------------------------------------------- the loop


def test_a_run_by_hand():
    model = Columns([0, 2, 4, 6], [10.0])
    (run,) = fit(model, [Run(0, 4, never())], [0.5], Evaluations(validation=rows([1.0, 3.0])))
    # Batches (0, 2), (4, 6): means 1 and 5.
    w, losses = 10.0, []
    for mean in (1, 5, 1, 5):
        losses.append(0.5 * (w - mean) ** 2)
        w -= 0.5 * (w - mean)
    assert run.weights == w
    assert run.state == ("state", w)
    assert run.status == "max_iter"
    assert run.steps == 4
    history = run.history.arrays()
    assert history["step"].tolist() == [2, 4]
    assert history["epoch"].tolist() == [1, 2]
    assert history["train_loss"].tolist() == [np.mean(losses[:2]), np.mean(losses[2:])]
    assert np.isnan(history["train_score"]).all()
    assert history["validation_loss"][-1] == abs(w - 2)
    assert history["validation_score"][-1] == -abs(w - 2)
    assert (np.diff([0, *history["seconds"]]) > 0).all()
    assert model.seen == [0, 1, 2, 3] * 2
    assert model.calls == [2, 2]  # all batches up to an evaluation in one call


def test_evaluations_between_epochs():
    values = np.arange(10.0)
    model = Columns(values, [0.0])
    (run,) = fit(model, [Run(0, 11, never())], [0.1], Evaluations(steps=4))
    assert run.history.arrays()["step"].tolist() == [4, 8, 11]  # the last one when it ends
    assert run.history.arrays()["epoch"].tolist() == [0.8, 1.6, 2.2]
    follow = Columns(values, [0.0])
    order = np.tile(np.arange(10), 3)
    losses = follow.run(order[:22], 2, np.full((11, 1), 0.1))[:, 0]
    assert run.history.arrays()["train_loss"].tolist() == [losses[:4].mean(), losses[4:8].mean(), losses[8:].mean()]


def test_training_figures_from_the_last_batch_or_from_rows():
    values = [0.0, 2.0, 4.0, 6.0]
    plans = {
        "batch": Evaluations(train=rows(values), last_batch=True),
        "rows": Evaluations(train=rows([100.0])),
    }
    for name, mean in (("batch", 5.0), ("rows", 100.0)):
        model = Columns(values, [10.0])
        (run,) = fit(model, [Run(0, 2, never())], [0.5], plans[name])
        assert run.history.arrays()["train_loss"].tolist() == [abs(run.weights - mean)]
        assert run.history.arrays()["train_score"].tolist() == [-abs(run.weights - mean)]


def histories_equal(one, other):
    one, other = one.history.arrays(), other.history.arrays()
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one if name != "seconds")


def test_a_run_is_the_same_alone_and_among_others(rng):
    values = rng.normal(size=23)
    settings = [(0.1, 17, 0.0), (0.5, 8, None), (1.9, 40, 1e-3), (0.01, 33, 1e-9), (2.5, 40, None), (0.5, 40, 0.0)]
    plan = Evaluations(steps=5, validation=rows(values[:4]))
    loss_at = {4: {12: math.inf}}

    def run(column, max_steps, tol):
        return Run(column, max_steps, EarlyStopping("validation_loss", tol=tol, patience=2, keep="first"))

    def model(columns):
        found = Columns(values, [5.0] * len(columns), {columns.index(4): loss_at[4]} if 4 in columns else None)
        return found

    everyone = range(len(settings))
    together = [run(i, steps, tol) for i, (_, steps, tol) in enumerate(settings)]
    stack = model(list(everyone))
    fit(stack, together, [size for size, _, _ in settings], plan, batch_size=4, sampling="permutation", seed=5)
    assert len(stack.w) == 1  # the others were dropped when they ended
    for i, (size, steps, tol) in enumerate(settings):
        (alone,) = fit(
            model([i]), [run(0, steps, tol)], [size], plan, batch_size=4, sampling="permutation", seed=5
        )  # fmt: skip
        assert histories_equal(alone, together[i])
        for name in ("status", "steps", "weights", "best_step", "diverged_at", "first_loss"):
            assert getattr(alone, name) == getattr(together[i], name)
    assert {run.status for run in together} == {"max_iter", "converged", "diverged"}


def test_runs_of_different_length_share_a_column():
    values = np.arange(6.0)
    short, long = fit(Columns(values, [9.0]), [Run(0, 4, never()), Run(0, 7, never())], [0.3], Evaluations())
    for run in (short, long):
        (alone,) = fit(Columns(values, [9.0]), [Run(0, run.max_steps, never())], [0.3], Evaluations())
        assert histories_equal(alone, run)
        assert alone.weights == run.weights
    assert short.history.arrays()["step"].tolist() == [3, 4]
    assert long.history.arrays()["step"].tolist() == [3, 6, 7]


def test_the_best_weights_come_back():
    # The distance to 1 after each step of 2 (the far side of the mean, 1 to 3 and back): 1, 1, 1 ...
    for keep, step in (("first", 1), ("last", 6), (None, None)):
        model = Columns([2.0], [3.0])
        plan = Evaluations(steps=1, validation=rows([2.0]))
        (run,) = fit(model, [Run(0, 6, never("validation_loss", keep))], [2.0], plan, batch_size=1)
        assert run.best_step == step
        assert run.weights == (1.0 if step == 1 else 3.0)
        assert (run.state is None) == (step is not None)
        assert run.steps == 6


# --------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_diverging_column_stops_and_keeps_its_last_sound_weights(loss):
    values = np.zeros(8)
    model = Columns(values, [1.0, 1.0], {0: {6: loss}})
    runs = [Run(0, 12, never()), Run(1, 12, never())]
    fit(model, runs, [0.5, 0.5], Evaluations())
    diverged, sound = runs
    assert diverged.status == "diverged"
    assert diverged.diverged_at[0] == 6
    assert np.array_equal(diverged.diverged_at[1], loss, equal_nan=True)
    assert diverged.weights == 0.5**4
    assert diverged.steps == 6
    assert diverged.history.arrays()["step"].tolist() == [4, 6]
    assert np.array_equal(diverged.history.arrays()["train_loss"][1], loss, equal_nan=True)
    assert sound.status == "max_iter"
    assert sound.weights == 0.5**12
    assert np.isfinite(sound.history.arrays()["train_loss"]).all()


def test_weights_that_overflow_are_noticed():
    model = Columns(np.zeros(4), [1.0])
    with np.errstate(over="ignore", invalid="ignore"):
        (run,) = fit(model, [Run(0, 200, never())], [1e154], Evaluations())
    assert run.status == "diverged"
    assert math.isfinite(run.weights)
    first = Columns(np.zeros(4), [3.0], {0: {1: math.nan}})
    (run,) = fit(first, [Run(0, 200, never())], [0.1], Evaluations())
    assert run.weights == 3.0  # nothing was evaluated: the weights it began with


def test_ctrl_c_keeps_what_there_is():
    model = Columns(np.zeros(8), [1.0, 1.0], interrupt_at=7)
    runs = [Run(0, 100, never()), Run(1, 100, never("validation_loss", "first"))]
    fit(model, runs, [0.5, 3.0], Evaluations(validation=rows([0.0])))
    assert [run.status for run in runs] == ["interrupted"] * 2
    assert [run.steps for run in runs] == [6, 6]
    assert runs[0].weights == 0.5**6
    assert runs[1].weights == (-2.0) ** 4  # the best so far
    assert runs[0].history.arrays()["step"].tolist() == [4]


def test_ctrl_c_in_a_callback():
    def stop(row, weights):
        raise KeyboardInterrupt

    run = Run(0, 100, never(), callbacks=[stop])
    fit(Columns(np.zeros(4), [1.0]), [run], [0.5], Evaluations())
    assert (run.status, run.steps, run.weights) == ("interrupted", 2, 0.25)


def test_callbacks_see_each_row_and_may_stop():
    seen = []
    silent = Run(0, 10, never(), callbacks=[lambda row, weights: seen.append((row["step"], weights()))])
    halting = Run(1, 10, never(), callbacks=[lambda row, weights: row["step"] == 4, lambda row, _: seen.append("all")])
    fit(Columns(np.zeros(4), [1.0, 1.0]), [silent, halting], [0.5, 0.5], Evaluations())
    assert (silent.status, silent.steps) == ("max_iter", 10)
    assert (halting.status, halting.steps) == ("stopped", 4)
    assert [item for item in seen if item != "all"] == [(step, 0.5**step) for step in (2, 4, 6, 8, 10)]
    assert seen.count("all") == 2


def test_hooks_stand_around_epochs():
    class Hooks:
        calls = ""

        def begin_epoch(self):
            self.calls += "("

        def end_epoch(self):
            self.calls += ")"
            return self.calls.count(")") == 3

    hooks = Hooks()
    (run,) = fit(Columns(np.zeros(4), [1.0]), [Run(0, 100, never())], [0.5], Evaluations(), hooks=hooks)
    assert hooks.calls == "()()()"
    assert (run.status, run.steps) == ("stopped", 6)


def test_a_training_goes_on_where_another_one_ended():
    """Steps of the step sizes go on; those of the history follow the history."""
    asked = []

    def sizes(done, count):
        asked.append((done, count))
        return np.full(count, 0.5)

    model = Columns(np.zeros(4), [1.0])
    model.n_steps = 10
    before = History()
    before.add(**dict.fromkeys(COLUMNS, 5.0))
    run = Run(0, 2, never(), History(before.arrays()))
    train(model, [run], Batches(4, 2, "sequential", False, np.random.default_rng(0)), [sizes], Evaluations())
    assert asked == [(10, 2)]
    assert run.history.arrays()["step"].tolist() == [5, 7]
    assert run.history.arrays()["epoch"].tolist() == [5, 6]


def test_a_loss_far_above_the_first_one_is_told():
    steps = Evaluations(steps=1)
    (rising,) = fit(Columns(np.zeros(30), [1.0]), [Run(0, 3, never())], [2.5], steps, batch_size=30)
    assert rising.is_worse_than_at_first()
    assert rising.first_loss == 0.5
    assert rising.is_worse_than_at_first(0.7)
    assert not rising.is_worse_than_at_first(0.8)  # 2 (0.5 + 0.8) is more than 0.5 * 1.5 ** 4
    (falling,) = fit(Columns(np.zeros(30), [1.0]), [Run(0, 3, never())], [0.5], steps, batch_size=30)
    assert not falling.is_worse_than_at_first()
    (few,) = fit(Columns(np.zeros(29), [1.0]), [Run(0, 1, never())], [2.5], steps, batch_size=30)
    assert few.first_loss is None
    assert not few.is_worse_than_at_first()


@pytest.mark.parametrize("every", [1, 2, 100])
def test_first_batches_of_few_rows_tell_together(every):
    steps = Evaluations(steps=every)
    for size, worse in ((2.5, True), (0.5, False)):  # the error grows by half with each step, or falls to half
        columns = Columns(np.zeros(40), [1.0, 1.0])
        runs = fit(columns, [Run(0, 9, never()), Run(1, 2, never())], [size, size], steps, batch_size=10)
        assert runs[0].first_loss == (0.5 * 1.5**4 if worse else 0.5)  # the largest of three batches
        assert runs[0].is_worse_than_at_first() == worse
        assert runs[1].first_loss is None  # two batches of ten rows


@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 2.0, 0.5, 0.0, 0.0, 4.0]])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_batches_weigh_what_their_rows_do(weight, steps):
    """Three batches of 3, 3 and 1 rows; weights that sum to 3, 0.5 and 4."""
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])
    weight = None if weight is None else np.array(weight)
    batches = Batches(7, 3, "sequential", False, np.random.default_rng(0), weight)
    run = Run(0, 6, never())
    train(Columns(values, [7.0]), [run], batches, [rate(0.0)], Evaluations(steps=steps))
    losses = [0.5 * (7 - values[first : first + 3].mean()) ** 2 for first in (0, 3, 6)] * 2
    counts = ([3, 3, 1] if weight is None else [3, 0.5, 4]) * 2
    expected = [
        np.dot(losses[i : i + steps], ([3, 3, 1] * 2)[i : i + steps]) / sum(counts[i : i + steps])
        for i in range(0, 6, steps)
    ]
    np.testing.assert_allclose(run.history.arrays()["train_loss"], expected, rtol=1e-14)


def test_full_batches_have_the_bits_of_a_plain_mean(rng):
    values = rng.normal(size=21)
    (run,) = fit(Columns(values, [0.3]), [Run(0, 7, never())], [0.1], Evaluations(), batch_size=3)
    losses = Columns(values, [0.3]).run(np.arange(21), 3, np.full((7, 1), 0.1))[:, 0]
    assert run.history.arrays()["train_loss"].tolist() == [losses.mean()]


def test_batches_of_rows_without_weight_have_no_loss():
    weight = np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    batches = Batches(5, 2, "sequential", False, np.random.default_rng(0), weight)
    run = Run(0, 6, never())
    train(Columns(np.zeros(5), [1.0]), [run], batches, [rate(0.0)], Evaluations(steps=1))
    assert np.isnan(run.history.arrays()["train_loss"]).tolist() == [False, True, False] * 2
    assert run.recent_loss() == 0.5


def test_a_loss_of_few_rows_is_judged_together_with_those_before():
    run = Run(0, 10, EarlyStopping("train_loss", tol=0.0, patience=2))
    seen = []
    for loss, count in [(3.0, 1.0), (0.1, 0.2), (2.0, 1.0), (0.2, 0.3), (math.nan, 0.0), (1.0, 0.5)]:
        run.record({"train_loss": loss, "step": len(seen)} | dict.fromkeys(COLUMNS[1:3], 0.0)
                   | dict.fromkeys(COLUMNS[4:], 0.0), lambda column: None, count)  # fmt: skip
        seen.append(run.recent_loss())
    mixed = (2.0 + 0.3 * 0.2) / 1.3
    assert seen == pytest.approx([3.0, (3.0 + 0.2 * 0.1) / 1.2, 2.0, mixed, mixed, 1.0])
    assert run.history.arrays()["train_loss"][1] == 0.1  # the history has what was measured


@pytest.mark.parametrize("plan", [Evaluations(), Evaluations(per_epoch=2), Evaluations(steps=1)])
def test_a_last_batch_of_one_row_does_not_end_a_run(plan):
    """Whose loss grows from a small one, while the mean loss falls."""
    values = np.r_[np.full(20, 10.0), -12.0]
    run = Run(0, 200, EarlyStopping("train_loss", tol=1e-3, patience=5))
    rates = [lambda done, count: np.where(np.arange(done, done + count) % 2, 0, 0.02)]  # no steps to that row
    train(Columns(values, [0.0]), [run], Batches(21, 20, "sequential", False, np.random.default_rng(0)), rates, plan)
    assert run.weights > 7


def test_rows_without_weight_say_nothing_about_the_first_loss():
    values, weight = np.r_[np.full(40, 9.0), np.zeros(40)], np.r_[np.zeros(40), np.ones(40)]
    batches = Batches(80, 20, "sequential", False, np.random.default_rng(0), weight)
    run, model = Run(0, 8, never()), Columns(values, [1.0], {0: {1: 0.0, 2: 0.0, 5: 0.0, 6: 0.0}})
    train(model, [run], batches, [rate(0.0)], Evaluations())
    assert run.first_loss == 0.5  # of the third and fourth batch
    assert not run.is_worse_than_at_first()


def test_the_rows_of_a_last_batch_are_as_many_as_of_any_other():
    plan = Evaluations(train=rows([0.0, 2.0, 4.0, 6.0, 11.0]), last_batch=True)
    (run,) = fit(Columns(np.zeros(5), [0.0]), [Run(0, 3, never())], [0.0], plan, batch_size=2)
    assert run.history.arrays()["train_loss"].tolist() == [8.5]  # the distance to the mean of 6 and 11


def test_a_run_without_steps_has_its_initial_weights():
    model = Columns(np.zeros(4), [3.0])
    (run,) = fit(model, [Run(0, 0, never())], [0.5], Evaluations())
    assert (run.status, run.steps, run.weights, run.state) == ("max_iter", 0, 3.0, ("state", 3.0))
    assert model.calls == []
    assert run.history.arrays()["step"].tolist() == []


def test_rows_know_whether_their_targets_vary():
    y = np.array([2.0, 2.0, 3.0])
    assert Rows(y[:, np.newaxis], y).varies
    assert not Rows(y[:1, np.newaxis], y[:1]).varies
    assert not Rows(y[:, np.newaxis], y, np.array([1.0, 2.0, 0.0])).varies
    assert Rows(y[:, np.newaxis], np.column_stack([np.ones(3), y])).varies
    assert not Rows(y[:, np.newaxis], np.full((3, 2), 0.1)).varies


def test_rows_know_their_variance(rng):
    y, weight = rng.normal(size=20), rng.uniform(size=20)
    assert Rows(y[:, np.newaxis], y).variance == pytest.approx(y.var())
    mean = np.average(y, weights=weight)
    assert Rows(y[:, np.newaxis], y, weight).variance == pytest.approx(np.average((y - mean) ** 2, weights=weight))
