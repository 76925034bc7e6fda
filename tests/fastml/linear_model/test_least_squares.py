"""LinearRegression and Ridge: scikit-learn's rules and answers, hard data, and known answers."""

from __future__ import annotations

import operator
import pickle
import tracemalloc
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model as theirs
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

from fastml import LinearRegression, Ridge
from fastml.kernels.runtime import parallel
from fastml.linear_model import _orthogonal

MODELS = {LinearRegression: theirs.LinearRegression, Ridge: theirs.Ridge}

# Array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}


@pytest.fixture
def data(rng):
    """Rows, two targets, weights."""
    X = rng.normal(size=(200, 7)) * [1, 2, 3, 0.1, 10, 1, 1] + 5
    return X, X @ rng.normal(size=(7, 2)) + rng.normal(size=(200, 2)) + 3, rng.integers(0, 4, 200).astype(float)


def bits(model):
    return model.coef_.tobytes() + np.asarray(model.intercept_).tobytes()


# ------------------------------------------------------------------------------- scikit-learn's rules


@pytest.mark.parametrize("model", [LinearRegression(), LinearRegression(n_jobs=2), Ridge(), Ridge(0.1)], ids=repr)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


def test_frames_searches_and_pickles(data):
    X, y, _ = data
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(7)])
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0], "fit_intercept": [True, False]}, cv=3).fit(frame, y)
    peer = GridSearchCV(theirs.Ridge(), search.param_grid, cv=3).fit(frame, y)
    assert search.cv_results_["mean_test_score"] == pytest.approx(peer.cv_results_["mean_test_score"], rel=1e-9)
    assert search.best_estimator_.feature_names_in_.tolist() == frame.columns.tolist()
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict(frame), search.predict(frame))


# ------------------------------------------------------------------------------ scikit-learn's answers


@pytest.mark.parametrize("ours", MODELS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("targets", [None, 1, 2])
@pytest.mark.parametrize("rows", [200, 5])
def test_scikit_learns_coefficients(ours, fit_intercept, weighted, targets, rows, data):
    X, y, weight = (part[:rows] for part in data)
    weight = weight + 0.5 if weighted else None
    y = y[:, 0] if targets is None else y[:, :targets]
    model = ours(fit_intercept=fit_intercept).fit(X, y, weight)
    expected = MODELS[ours](fit_intercept=fit_intercept).fit(X, y, weight)
    # scikit-learn's shapes for two-dimensional targets vary with model, version and intercept; ours do not.
    assert model.coef_.shape == ((7,) if targets is None else (targets, 7))
    assert np.shape(model.intercept_) == (() if targets is None else (targets,))
    assert model.coef_ == pytest.approx(expected.coef_.reshape(model.coef_.shape), rel=1e-8, abs=1e-9)
    intercept = np.broadcast_to(expected.intercept_, np.shape(model.intercept_))
    assert model.intercept_ == pytest.approx(intercept, rel=1e-8, abs=1e-8)
    assert model.predict(X) == pytest.approx(expected.predict(X).reshape(y.shape), rel=1e-9)
    if ours is LinearRegression:
        assert model.rank_ == np.linalg.matrix_rank(X - X.mean(axis=0) if fit_intercept else X)
    if ours is LinearRegression and not weighted:
        assert model.singular_ == pytest.approx(expected.singular_, rel=1e-9, abs=1e-9)
    residuals = y - model.predict(X)
    mean = np.average(residuals**2, axis=0, weights=weight)
    assert np.shape(model.noise_variance_) == mean.shape
    assert model.noise_variance_ == pytest.approx(mean, rel=1e-9, abs=1e-20 * (y**2).max() + 1e-24)


def test_weights_are_repetitions(data):
    X, y, weight = data
    repeated = np.repeat(np.arange(200), weight.astype(int))
    for model in (LinearRegression(), Ridge(2.0)):
        model.fit(X, y, weight)
        expected = type(model)(**model.get_params()).fit(X[repeated], y[repeated])
        assert model.coef_ == pytest.approx(expected.coef_, rel=1e-9)
        assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=1e-9)


def test_one_strength_per_target(data):
    X, y, _ = data
    together = Ridge([0.5, 50.0]).fit(X, y)
    for k, alpha in enumerate([0.5, 50.0]):
        assert together.coef_[k] == pytest.approx(Ridge(alpha).fit(X, y[:, k]).coef_, rel=1e-12)
    with pytest.raises(ValueError, match="alpha has 3 values for 2 targets"):
        Ridge([1, 2, 3]).fit(X, y)


def test_no_penalty_is_least_squares(data):
    X, y, _ = data
    doubled = np.column_stack([X, X])
    assert bits(Ridge(0.0).fit(doubled, y)) == bits(LinearRegression().fit(doubled, y))


# ------------------------------------------------------------------------------------------- hard data


@pytest.mark.parametrize("ours", MODELS)
@pytest.mark.parametrize("rows", [5000, 20])
def test_rank_deficient_data(ours, rows, rng):
    """Columns that depend on others, and a constant one: the smallest coefficients, and no digits lost."""
    base = rng.normal(size=(rows, 10))
    X = np.column_stack([base, base @ rng.normal(size=(10, 6)), np.full(rows, 7.0)])
    y = base @ rng.normal(size=10) + 0.1 * rng.normal(size=rows)
    model = ours().fit(X, y)
    expected = MODELS[ours]().fit(X, y)
    assert model.coef_ == pytest.approx(expected.coef_, rel=1e-8, abs=1e-10)
    assert model.coef_[-1] == pytest.approx(0, abs=1e-12)
    if ours is LinearRegression:
        assert model.rank_ == 10
        base_only = LinearRegression().fit(base, y)
        assert model.predict(X) == pytest.approx(base_only.predict(base), rel=1e-9, abs=1e-9)


def test_condition_enters_once_not_squared(rng):
    """The 12 x 12 Hilbert-like columns have a condition of 1e8: normal equations would lose all digits."""
    Q, _ = np.linalg.qr(rng.normal(size=(6000, 12)))
    V, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    X = (Q * np.geomspace(1, 1e-8, 12)) @ V.T
    truth = rng.normal(size=12)
    y = X @ truth
    found = LinearRegression(fit_intercept=False).fit(X, y)
    assert found.rank_ == 12
    assert found.coef_ == pytest.approx(truth, rel=1e-6, abs=1e-6)
    normal_equations = np.linalg.solve(X.T @ X, X.T @ y)
    assert np.abs(normal_equations - truth).max() > 1e3 * np.abs(found.coef_ - truth).max()


def test_means_far_from_zero(rng):
    X = rng.normal(size=(5000, 3)) + 1e7
    truth = np.array([1.0, -2.0, 0.5])
    model = LinearRegression().fit(X, (X - 1e7) @ truth - 1e7)
    assert model.coef_ == pytest.approx(truth, rel=1e-8)
    # Rows in the order of a trend: the mean of the first ones is not that of all.
    trend = np.arange(9000.0)[:, np.newaxis] * [1.0, 1e3] + rng.normal(size=(9000, 2))
    model = LinearRegression().fit(trend, trend @ [2.0, 3.0] + 4)
    assert model.coef_ == pytest.approx([2, 3], rel=1e-8)
    assert model.intercept_ == pytest.approx(4, abs=1e-4)


def test_units_that_differ_by_far(rng):
    """Independent columns stay so in any units."""
    X = rng.normal(size=(3000, 4))
    truth = np.array([1.0, -1.0, 2.0, 0.5])
    units = np.array([1e-12, 1.0, 1e6, 1e12])
    model = LinearRegression().fit(X * units, X @ truth + 1)
    assert model.rank_ == 4
    assert model.coef_ * units == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(0.0)], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_constant_columns_count_for_nothing(model, dtype, weighted, rng):
    """Amounts to the cent are no sums of powers of two, so their mean differs from them by rounding."""
    for _ in range(60):
        n = rng.integers(5, 300)
        x = rng.normal(size=n).astype(dtype)
        constants = np.round(rng.uniform(-1000, 1000, 2), 2) * 10.0 ** rng.integers(-6, 7, 2)
        y = x.astype(np.float64)[:, np.newaxis] * [2.0, -1.0] + 3 + rng.normal(size=(n, 2))
        weight = rng.uniform(0.1, 3, n) if weighted else None
        X = np.column_stack([np.full(n, constants[0]), x, np.full(n, constants[1])]).astype(dtype)
        model.fit(X, y, weight)
        alone = LinearRegression().fit(x[:, np.newaxis], y, weight)
        assert not model.coef_[:, [0, 2]].any()
        assert model.coef_[:, 1] == pytest.approx(alone.coef_[:, 0], rel=1e-5 if dtype == np.float32 else 1e-11)
        elsewhere = X + np.array([1, 0, -5])
        assert model.predict(elsewhere) == pytest.approx(alone.predict(x[:, np.newaxis]), rel=1e-4, abs=1e-4)
        if isinstance(model, LinearRegression):
            assert model.rank_ == 1
            assert model.singular_.shape == (3,)
            assert (model.singular_[1:] == 0).all()


@pytest.mark.parametrize("ours", MODELS)
@pytest.mark.parametrize("constant", [21.3, -1e-300 / 3, 1e300, 1.7e308])
@pytest.mark.parametrize("n", [3, 4, 5000])
def test_constants_of_any_size(ours, constant, n, rng):
    """Wide rows, and rows enough for several blocks, of which the first has weights of 0 and other constants."""
    X = rng.normal(size=(n, 3)) + 5
    X[:, 1] = constant
    y = X[:, 0] - X[:, 2]
    weight = np.ones(n)
    for first in (0, 1, 1500 if n > 3000 else 1):
        weight[:first], X[:first, 1] = 0.0, 0.1
        model = ours().fit(X, y, weight)
        expected = ours().fit(X[:, [0, 2]], y, weight)
        assert model.coef_[1] == 0
        assert model.coef_[[0, 2]] == pytest.approx(expected.coef_, rel=1e-9, abs=1e-12)
        assert model.intercept_ == pytest.approx(expected.intercept_, rel=1e-9, abs=1e-9)
        if ours is LinearRegression:
            assert model.rank_ == expected.rank_


def test_a_constant_but_for_rounding(rng):
    """Shares that add up to 100 but for the last place."""
    X = np.column_stack([rng.normal(size=300), 100 + 1.4e-14 * rng.integers(-1, 1, 300)])
    assert len(np.unique(X[:, 1])) == 2
    model = LinearRegression().fit(X, rng.normal(size=300))
    assert model.rank_ == 1
    assert model.coef_[1] == 0


@pytest.mark.parametrize(
    ("offset", "step", "dtype"),
    [(1e8, 1e-7, "f8"), (-1e8, 1.0, "f8"), (1e14, 0.125, "f8"), (1e8, 8.0, "f4"), (1.7e18, 2048.0, "f8")],
)
def test_columns_that_hardly_vary_are_not_constant(offset, step, dtype, rng):
    """Some units in the last place are enough, beside other columns too, and in rows of several blocks."""
    for n in (60, 5000):
        X = np.column_stack([offset + step * rng.integers(-50, 50, n), rng.normal(size=n)]).astype(dtype)
        away = X.astype(np.float64) - [offset, 0]
        model = LinearRegression().fit(X, away @ [1 / step, 2.0] + 1)
        assert model.rank_ == 2
        assert model.coef_ * [step, 1] == pytest.approx([1, 2], rel=1e-5 if dtype == "f4" else 1e-9)
        assert Ridge(1e-9 * step**2).fit(X, away @ [1 / step, 2.0]).coef_ * [step, 1] == pytest.approx([1, 2], rel=1e-4)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(1.0)], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beside", ["nothing", "a constant", "a duplicate", "dummies", "many dummies"])
@pytest.mark.parametrize("weighted", [False, True])
def test_small_units_beside_large_ones(model, dtype, beside, weighted, rng):
    """An income and a rate: what the rate explains must not be lost, whatever depends on what besides."""
    n = 600
    income, rate = rng.normal(5e6, 2e6, n), rng.integers(0, 64, n) / 1024
    dummies = np.eye(400 if beside == "many dummies" else 3)[np.arange(n) % 3]
    more = {
        "nothing": np.empty((n, 0)), "a constant": np.full((n, 1), 21.3), "a duplicate": income[:, np.newaxis],
        "dummies": dummies, "many dummies": np.column_stack([dummies, rng.random((n, 700)) < 0.5]),
    }[beside]  # fmt: skip
    X = np.column_stack([income, rate, more]).astype(dtype)
    weight = rng.uniform(0.5, 2, n) if weighted else None
    y = X[:, :2].astype(np.float64) @ [1e-6, 300.0] + 7
    model.fit(X, y, weight)
    if beside == "a duplicate":
        assert model.coef_[2] == pytest.approx(model.coef_[0], rel=1e-6)
    if isinstance(model, LinearRegression):
        assert model.score(X, y) > 1 - 1e-9
        assert model.predict(X) == pytest.approx(y, rel=1e-5)
    elif beside != "many dummies":
        # All but what the penalty takes: the sum of squares of the rates is 0.2.
        single = X[:, :2] if beside == "a duplicate" else X
        expected = theirs.Ridge(1.0).fit(single.astype(np.float64), y, weight)
        assert model.coef_[1] == pytest.approx(expected.coef_[1], rel=1e-4)
    else:
        assert model.score(X, y) > 0.99


@pytest.mark.parametrize("rows", [200, 40])
@pytest.mark.parametrize("twice", [False, True])
def test_nanoseconds_and_dummies(rows, twice, rng):
    """Lengths that differ by 1e16, and dummies that add up to the intercept; wide too."""
    n = np.arange(rows)
    time = 1.7e18 + n * 8.64e13
    dummies = np.eye(3)[n % 3]
    more = rng.random((rows, 60 if rows < 60 else 0)) < 0.3
    X = np.column_stack([time, *([time] if twice else []), more, dummies])
    y = dummies @ [1.0, 2.0, 3.0]
    model, ridge = LinearRegression().fit(X, y), Ridge(1.0).fit(X, y)
    assert model.score(X, y) > 1 - 1e-12
    if rows < 60:
        assert ridge.score(X, y) > 0.9
        return
    assert model.rank_ == 3
    assert np.abs(model.coef_[: 1 + twice]).max() < 1e-27
    assert model.coef_[-3:] == pytest.approx([-1, 0, 1], abs=1e-12)
    # The time's coefficient costs nothing to speak of: it takes out of the rest what goes with it.
    line, both = np.column_stack([np.ones(rows), n]), np.column_stack([y, dummies])
    left = both - line @ np.linalg.lstsq(line, both)[0]
    expected = np.linalg.solve(left[:, 1:].T @ left[:, 1:] + np.eye(3), left[:, 1:].T @ left[:, 0])
    assert ridge.coef_[-3:] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    if twice:
        assert ridge.coef_[0] == pytest.approx(ridge.coef_[1], rel=1e-9)


@pytest.mark.parametrize("model", [LinearRegression(), Ridge(1e-3), Ridge(10.0)], ids=repr)
@pytest.mark.parametrize("rows", [50, 8])
def test_duplicates_share_evenly_in_any_units(model, rows, rng):
    base = rng.normal(size=(rows, 3)) * [1e9, 1.0, 1e-3] + [1e10, 5, 0]
    y = base @ [1e-9, 2.0, 300.0] + rng.normal(size=rows)
    X = np.column_stack([base, base, base, base])
    model.fit(X, y)
    shares = model.coef_.reshape(4, 3)
    assert shares == pytest.approx(np.tile(shares[0], (4, 1)), rel=1e-7, abs=1e-7 * np.abs(shares[0]).min())
    # Four columns with a share each cost a quarter of one with all.
    alone = model if isinstance(model, LinearRegression) else Ridge(model.alpha / 4)
    alone = type(model)(**alone.get_params()).fit(base, y)
    assert shares.sum(axis=0) == pytest.approx(alone.coef_, rel=1e-6)
    if isinstance(model, LinearRegression):
        assert model.rank_ == 3


def test_the_smallest_coefficients_as_they_are():
    """Seconds and hours of the same time: the norm counts in the units of the columns, and is not scaled."""
    hours = np.arange(30.0)
    X = np.column_stack([hours * 3600, hours])
    model = LinearRegression().fit(X, 5 * hours)
    assert model.rank_ == 1
    assert model.coef_ == pytest.approx(5 / (3600**2 + 1) * np.array([3600, 1]), rel=1e-12)
    assert model.coef_ == pytest.approx(theirs.LinearRegression().fit(X, 5 * hours).coef_, rel=1e-9)


@pytest.mark.parametrize("factor", [100.0, 7.0, 1 / 3])
def test_what_float32_rounds_differently_is_still_dependent(factor, rng):
    """Dollars and cents: their rounding errors are long beside a rate, but no reason to trade it for them."""
    n = 2000
    income, rent, rate = rng.normal(5e6, 2e6, n), rng.uniform(0, 1e6, n), rng.uniform(0, 0.1, n)
    X = np.column_stack([rate, income, factor * income, rent, income + rent]).astype(np.float32)
    y = X[:, :2].astype(np.float64) @ [30.0, 1e-6]
    model = LinearRegression().fit(X, y)
    assert model.rank_ == 3
    assert model.score(X, y) > 1 - 1e-9
    assert model.coef_[0] == pytest.approx(30, rel=1e-5)
    # What one unit more of the income and what depends on it adds.
    assert model.coef_[[1, 2, 4]] @ [1, factor, 1] == pytest.approx(1e-6, rel=1e-4)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 10.0])
def test_a_penalty_on_wide_data_of_many_units(alpha, rng):
    """Against the dual in twice the digits: no small unit gets a coefficient that costs more than all else."""
    for units in (np.array([1e-2, 1e-6, 1e-1, 1e5, 1e2, 1e6]), np.array([1e6, 1.0, 1e-5, 1e-5, 1e3, 1e-2])):
        X = rng.normal([0, 0, 0, 0, 1e3, 1e3], size=(4, 6)) * units
        y = X @ (rng.normal(size=6) / units)
        columns = [[Fraction(v) for v in column] for column in (*X.T.tolist(), y.tolist())]
        *A, b = ([v - sum(column) / 4 for v in column] for column in columns)
        gram = [[sum(a[i] * a[j] for a in A) + (i == j) * Fraction(alpha) for j in range(4)] for i in range(4)]
        dual = _solved([[*row, v] for row, v in zip(gram, b, strict=True)])
        expected = [float(sum(map(operator.mul, a, dual))) for a in A]
        assert Ridge(alpha).fit(X, y).coef_ * units == pytest.approx(expected * units, rel=1e-6, abs=1e-9)
        cost = float(np.sum(np.square(expected)))
        assert np.sum(Ridge(alpha).fit(X, y).coef_ ** 2) == pytest.approx(cost, rel=1e-6)


def _solved(A: list[list[Fraction]]) -> list[Fraction]:
    """Solve equations, given with their right-hand sides as last entries."""
    for j in range(len(A)):
        A[j] = [v / A[j][j] for v in A[j]]
        for i in set(range(len(A))) - {j}:
            A[i] = [v - A[i][j] * w for v, w in zip(A[i], A[j], strict=True)]
    return [row[-1] for row in A]


def test_strong_and_weak_penalties_keep_digits(rng):
    """Against normal equations in exact fractions."""
    X = np.round(rng.normal(size=(12, 3)) * 64) * [1.0, 2.0**-20, 2.0**30]
    y = np.round(rng.normal(size=12) * 64)
    columns = [[Fraction(v) for v in column] for column in (*X.T.tolist(), y.tolist())]
    centered = [[12 * v - sum(column) for v in column] for column in columns]
    for alpha in (1e-30, 1e-12, 1.0, 1e12, 1e30):
        A = [[sum(map(operator.mul, a, b)) / 144 for b in centered] for a in centered[:3]]
        for j in range(3):
            A[j][j] += Fraction(alpha)
        assert Ridge(alpha).fit(X, y).coef_ == pytest.approx(list(map(float, _solved(A))), rel=1e-11)


def test_weights_whose_sum_is_no_number_are_refused(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="sample_weight has values too large"):
        LinearRegression().fit(X, y, np.full(200, 1e307))
    large = LinearRegression().fit(X, y, np.full(200, 1e305))
    assert large.coef_ == pytest.approx(LinearRegression().fit(X, y).coef_, rel=1e-10)


@pytest.mark.parametrize("ours", MODELS)
def test_values_too_large_are_refused(ours, data):
    X, y, _ = data
    with pytest.raises(ValueError, match="too large"):
        ours().fit(X / X.max() * 1.7e308, y)
    for scale in (1e-200, 1e200):
        expected = LinearRegression().fit(X, y).coef_ if ours is LinearRegression or scale > 1 else np.zeros((2, 7))
        assert ours().fit(X * scale, y).coef_ * scale == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("ours", MODELS)
def test_float32(ours, rng):
    X = rng.normal(size=(9000, 20)).astype(np.float32) + 3
    y = (X @ rng.normal(size=20) + rng.normal(size=9000)).astype(np.float32)
    model = ours().fit(X, y)
    wide = ours().fit(X.astype(np.float64), y.astype(np.float64))
    assert model.coef_.dtype == model.intercept_.dtype == np.float32
    assert np.array_equal(model.coef_, wide.coef_.astype(np.float32))
    doubled = LinearRegression().fit(np.column_stack([X, X + X]), y)
    assert doubled.rank_ == 20


@pytest.mark.parametrize("ours", MODELS)
def test_same_bits_for_any_number_of_threads(ours, rng):
    X, y = rng.normal(size=(20_000, 30)), rng.normal(size=20_000)
    expected = bits(ours(n_jobs=1).fit(X, y))
    for n_jobs in (2, 5, None):
        assert bits(ours(n_jobs=n_jobs).fit(X, y)) == expected


@pytest.mark.parametrize("n", [30, 490, 500, 8000, 8010, 41_000])
def test_blocks_are_put_together_by_number_alone(n, monkeypatch, rng):
    """One, 16, 17, 256, 257 and more blocks: the same bits in any order in which they come, and the right triangle."""
    monkeypatch.setattr(_orthogonal, "_BLOCK_ROWS", 32)
    X, y = rng.normal(size=(n, 3)) + 5, rng.normal(size=(n, 2))
    model = LinearRegression(n_jobs=1).fit(X, y)
    Z = X - X.mean(axis=0)
    assert model.coef_.T == pytest.approx(np.linalg.lstsq(Z, y - y.mean(axis=0))[0], rel=1e-9, abs=1e-12)
    assert model.singular_ == pytest.approx(np.linalg.svd(Z, compute_uv=False), rel=1e-12)
    run = parallel.run
    for order in (lambda blocks: blocks[::-1], rng.permutation):

        def run_in_order(task, blocks, threads, order=order):
            numbers = order(np.arange(blocks)).tolist()
            run(lambda place: task(numbers[place]), blocks, 1)

        monkeypatch.setattr(parallel, "run", run_in_order)
        assert bits(LinearRegression().fit(X, y)) == bits(model)


def test_triangles_do_not_pile_up(monkeypatch, rng):
    """Work space is that of a few blocks, however many there are."""
    monkeypatch.setattr(_orthogonal, "_BLOCK_ROWS", 1)

    def peak(n):
        X, y = rng.normal(size=(n, 60)), rng.normal(size=n)
        tracemalloc.start()
        try:
            LinearRegression(n_jobs=1).fit(X, y)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60_000) < 1.6 * peak(6000)


def test_one_row_and_one_column():
    assert LinearRegression().fit([[2.0]], [3.0]).predict([[2.0], [5.0]]).tolist() == [3.0, 3.0]
    assert LinearRegression(fit_intercept=False).fit([[2.0]], [3.0]).coef_.tolist() == [1.5]
    assert Ridge().fit([[0.0], [0.0]], [1.0, 3.0]).predict([[1.0]]) == pytest.approx(2)


# ---------------------------------------------------------------------------------------- known answers


def test_maximum_likelihood_of_normal_noise(rng):
    """w = (sum x x')^-1 sum x y, and the variance is the mean squared residual."""
    X = rng.normal(size=(50_000, 3))
    truth = np.array([0.5, -1.5, 2.0])
    y = X @ truth + 0.7 * rng.normal(size=50_000)
    model = LinearRegression(fit_intercept=False).fit(X, y)
    assert model.coef_ == pytest.approx(np.linalg.solve(X.T @ X, X.T @ y), rel=1e-10)
    assert model.noise_variance_ == pytest.approx(((y - X @ model.coef_) ** 2).mean(), rel=1e-12)
    assert model.noise_variance_ == pytest.approx(0.49, rel=0.03)


def test_noise_in_the_features_is_a_ridge(rng):
    """Expected squared error under noise of variance s² is the plain one plus s² ‖w‖²: Ridge with alpha = n s²."""
    X, y = load_diabetes(return_X_y=True)
    X = X / X.std(axis=0)
    y = (y - y.mean()) / y.std()
    n, deviation = len(X), 0.8
    copies = np.concatenate([X + deviation * rng.normal(size=X.shape) for _ in range(300)])
    noisy = LinearRegression(fit_intercept=False).fit(copies, np.tile(y, 300))
    ridge = Ridge(n * deviation**2, fit_intercept=False).fit(X, y)
    assert noisy.coef_ == pytest.approx(ridge.coef_, abs=0.01)
    plain = LinearRegression(fit_intercept=False).fit(X, y)
    assert np.abs(plain.coef_ - ridge.coef_).max() > 0.1
    assert Ridge(n * 1e-20, fit_intercept=False).fit(X, y).coef_ == pytest.approx(plain.coef_, rel=1e-9)
    assert np.abs(Ridge(n * 1e20, fit_intercept=False).fit(X, y).coef_).max() < 1e-18


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Ridge(-1.0), ValueError, "alpha is -1.0; it must be at least 0"),
        (Ridge(np.inf), ValueError, "alpha is inf"),
        (Ridge("1"), TypeError, "alpha is '1'"),
        (Ridge(fit_intercept="yes"), TypeError, "fit_intercept is 'yes'"),
        (LinearRegression(n_jobs=0), ValueError, "n_jobs is 0"),
    ],
)
def test_wrong_settings(model, error, message, data):
    with pytest.raises(error, match=message):
        model.fit(data[0], data[1])


def test_wrong_data(data):
    X, y, weight = data
    with pytest.raises(ValueError, match=r"sample_weight\[3\] is -2"):
        LinearRegression().fit(X, y, np.where(np.arange(200) == 3, -2.0, weight))
    with pytest.raises(ValueError, match="NaN"):
        Ridge().fit(np.where(X == X.max(), np.nan, X), y)
    with pytest.raises(ValueError, match="NaN"):
        Ridge().fit(X, np.where(y == y.max(), np.nan, y))
