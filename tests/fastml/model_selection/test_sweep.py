"""fastml.sweep: together or one by one, the same results; tables, the best, runs that diverge, Ctrl-C."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import DivergenceWarning, MLPRegressor, SGDClassifier, SGDRegressor, sweep
from fastml.linear_model import sgd_fitting

BASE = SGDClassifier("log_loss", learning_rate="constant", max_iter=6, tol=None, batch_size=16, random_state=0)


@pytest.fixture
def data(rng):
    """Training rows, labels, validation rows, labels."""
    X = rng.normal(size=(90, 6))
    y = (X[:, 0] + rng.normal(size=90) > 0).astype(int)
    return X[:60], y[:60], X[60:], y[60:]


@pytest.fixture
def trainings(monkeypatch):
    """How many models every training has had."""
    found = []

    class Counting(sgd_fitting.LinearColumns):
        def __init__(self, task, models, **more):
            found.append(len(models))
            super().__init__(task, models, **more)

    monkeypatch.setattr(sgd_fitting, "LinearColumns", Counting)
    return found


def one_by_one(found, estimator, data):
    """Fit every setting of a sweep by itself."""
    X, y, X_val, y_val = data
    return [clone(estimator).set_params(**params).fit(X, y, X_val=X_val, y_val=y_val) for params in found.params]


def check_same(found, models, same_bits):
    for model, alone, history in zip(found.estimators, models, found.histories, strict=True):
        assert model.get_params() == alone.get_params()
        same_bits(model.coef_, alone.coef_)
        same_bits(model.intercept_, alone.intercept_)
        for name in set(alone.history_) - {"seconds"}:
            same_bits(history[name], alone.history_[name])
            same_bits(model.history_[name], alone.history_[name])
        for name in ("n_iter_", "t_", "best_step_", "n_features_in_"):
            assert getattr(model, name) == getattr(alone, name)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("estimator", "grid", "sizes"),
    [
        (BASE, {"eta0": [1e-4, 0.1, 1.0], "alpha": [0, 0.1]}, [6]),
        (BASE, {"eta0": [0.1, 1.0], "batch_size": [8, 16], "sampling": ["permutation", "replacement"]}, [2, 2, 2, 2]),
        (BASE, {"init": ["zeros", "normal"], "penalty": ["l2", "l1", None], "momentum": [0, 0.9]}, [12]),
        (BASE, {"max_iter": [1, 3, 6], "eta0": [0.1, 1.0]}, [2]),
        (BASE, {"average": [False, 3, True], "nesterovs_momentum": [False, True], "momentum": [0.5]}, [6]),
        (BASE, {"tol": [None, 0.1, 1e-4], "n_iter_no_change": [2], "early_stopping": [False, True]}, [1, 1]),
        (BASE, {"loss": ["hinge", "squared_hinge"], "random_state": [0, 1], "eta0": [0.1, 0.2]}, [2, 2, 2, 2]),
        (BASE, {"learning_rate": ["invscaling", "optimal", lambda t: 1 / t], "evaluate_every": [3]}, [3]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_together_is_the_same_as_one_by_one(estimator, grid, sizes, data, trainings, same_bits):
    found = sweep(estimator, grid, *data)
    assert sorted(trainings) == sorted(sizes)
    assert found.params == list(ParameterGrid(grid))
    check_same(found, one_by_one(found, estimator, data), same_bits)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_three_classes_and_numbers(dtype, rng, same_bits):
    X, y = rng.normal(size=(80, 5)).astype(dtype), rng.integers(0, 3, 80)
    data = (X[:60], y[:60], X[60:], y[60:])
    grid = {"eta0": [0.01, 0.1, 0.5], "alpha": [0.0, 0.01]}
    models = [
        BASE,
        clone(BASE).set_params(loss="hinge"),
        clone(BASE).set_params(loss="hinge", multi_class="crammer_singer"),
    ]
    models += [
        SGDRegressor(loss, learning_rate="constant", max_iter=4, tol=None, random_state=0)
        for loss in SGDRegressor._losses
    ]
    for model in models:
        found = sweep(model, grid, *data)
        check_same(found, one_by_one(found, model, data), same_bits)


def test_weights_and_a_part_set_aside(data, rng, same_bits):
    X, y, X_val, y_val = data
    w, w_val = rng.uniform(size=60), rng.uniform(size=30)
    found = sweep(BASE, {"eta0": [0.1, 1]}, X, y, X_val, y_val, sample_weight=w, sample_weight_val=w_val)
    alone = clone(BASE).set_params(eta0=1)
    alone.fit(X, y, X_val=X_val, y_val=y_val, sample_weight=w, sample_weight_val=w_val)
    same_bits(found.estimators[1].coef_, alone.coef_)
    same_bits(found.histories[1]["validation_loss"], alone.history_["validation_loss"])
    aside = clone(BASE).set_params(early_stopping=True)
    found = sweep(aside, {"eta0": [0.1, 1]}, X, y)
    same_bits(found.best_estimator.coef_, clone(aside).set_params(**found.best_params).fit(X, y).coef_)


def test_runs_of_different_length_are_one_training(data, trainings):
    calls = []
    grid = {"max_iter": [2, 4, 8], "alpha": [0, 0.1], "tol": [None]}
    found = sweep(clone(BASE).set_params(callbacks=lambda state: calls.append(state.step)), grid, *data)
    assert trainings == [2]
    assert [len(history["step"]) for history in found.histories] == [2, 4, 8] * 2
    assert len(calls) == 28  # each run has its own rows


def test_the_table(data):
    X, y, X_val, y_val = data
    grid = {"eta0": [1e-4, 0.3], "init": ["zeros", "normal"]}
    found = sweep(BASE, grid, X, y, X_val, y_val)
    table = pd.DataFrame(found.table)
    assert list(table)[:3] == ["eta0", "init", "status"]
    assert table["init"].tolist() == ["zeros", "normal"] * 2
    assert table["status"].tolist() == ["max_iter"] * 4
    assert table["step"].tolist() == [24] * 4
    assert table["epoch"].tolist() == [6] * 4
    assert table["validation_score"].tolist() == [model.score(X_val, y_val) for model in found.estimators]
    assert table["train_score"].isna().all()
    assert (table["seconds"] > 0).all()
    scores = table["validation_score"].tolist()
    assert found.select == "validation_score"
    assert found.best_index == scores.index(max(scores))
    assert found.best_params == found.params[found.best_index]
    assert found.best_estimator is found.estimators[found.best_index]
    assert found.best_value == max(scores)
    assert found.score_name == "accuracy"
    lines = str(found).splitlines()
    assert len(lines) == 5
    assert "train_score" not in lines[0]  # of which there is nothing
    assert [line.endswith("best") for line in lines[1:]] == [i == found.best_index for i in range(4)]
    assert "SweepResult(params=[{'eta0'" in repr(found)


def test_the_table_is_about_the_weights_that_the_model_has(data):
    X, y, X_val, y_val = data
    model = clone(BASE).set_params(early_stopping=True, eta0=3.0)
    found = sweep(model, {"batch_size": [4, 8], "keep_best": [True, False]}, X, y, X_val, y_val)
    for i, fitted in enumerate(found.estimators):
        step = fitted.best_step_ or fitted.t_ - 1
        assert found.table["step"][i] == step
        assert found.table["validation_score"][i] == fitted.score(X_val, y_val)


def test_which_figure_decides(data):
    X, y, X_val, y_val = data
    grid = {"eta0": [1e-3, 0.05, 5.0]}
    assert sweep(BASE, grid, X, y).select == "train_loss"
    full = clone(BASE).set_params(train_metrics="full")
    assert sweep(full, grid, X, y).select == "train_score"
    assert sweep(full, grid, X, y, X_val, y_val).select == "validation_score"
    assert sweep(clone(BASE).set_params(scoring="loss"), grid, X, y, X_val, y_val).select == "validation_loss"
    named = sweep(clone(BASE).set_params(scoring="balanced_accuracy"), grid, X, y, X_val, y_val)
    assert named.score_name == "balanced accuracy"
    for select in ("train_loss", "validation_loss", "train_score"):
        found = sweep(full, grid, X, y, X_val, y_val, select=select)
        values = found.table[select]
        assert found.best_value == (min(values) if select.endswith("loss") else max(values))
    with pytest.raises(ValueError, match="select is 'loss'; it must be one of"):
        sweep(BASE, grid, X, y, select="loss")
    assert sweep(SGDRegressor(max_iter=2, tol=None), {"alpha": [1]}, X, y).score_name == "R²"


def test_a_diverging_run_does_not_disturb_the_others(data, same_bits):
    X, _, X_val, _ = data
    y, y_val = X @ np.arange(6.0), X_val @ np.arange(6.0)
    model = SGDRegressor(
        learning_rate="constant", max_iter=100, tol=None, evaluate_every=7, batch_size=20, random_state=0
    )
    grid = {"eta0": [0.01, 1e3, 0.1, 1e300]}
    with pytest.warns(
        DivergenceWarning, match=r"2 of 4 runs diverged. The first of them, {'eta0': 1000.0}: .* at step"
    ):
        found = sweep(model, grid, X, y, X_val, y_val)
    assert found.statuses == ["max_iter", "diverged", "max_iter", "diverged"]
    assert found.best_params == {"eta0": 0.1}
    for i in (0, 2):
        alone = clone(model).set_params(**found.params[i]).fit(X, y)
        same_bits(found.estimators[i].coef_, alone.coef_)
    for i in (1, 3):
        assert np.isfinite(found.estimators[i].coef_).all()
    assert not math.isfinite(found.histories[1]["train_loss"][-1])
    assert math.isfinite(found.table["train_loss"][1])  # of the weights that it keeps
    assert found.table["step"][1] == found.histories[1]["step"][-2]
    assert math.isnan(found.table["train_loss"][3])
    with pytest.warns(DivergenceWarning, match="2 of 2 runs"):
        hopeless = sweep(model, {"eta0": [1e300, 1e301]}, X, y, X_val, y_val)
    assert hopeless.best_index is hopeless.best_params is hopeless.best_estimator is None
    assert math.isnan(hopeless.best_value)
    assert "best" not in str(hopeless)


@pytest.fixture
def steep(rng):
    """Rows of which steps of 0.1 are too large, targets, and a validation set."""
    X = rng.normal(size=(300, 3)) * 10
    y = X @ [1.0, 2.0, 3.0]
    return X[:200], y[:200], X[200:], y[200:]


@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True}, {"train_metrics": "full"}, {"tol": None, "max_iter": 6}]
)
def test_a_run_that_explodes_is_not_converged(steep, settings):
    """Though its loss is finite; `fit` warns of it."""
    X, y, X_val, y_val = steep
    model = SGDRegressor(learning_rate="constant", batch_size=40, random_state=0, **settings)
    with pytest.warns(DivergenceWarning, match=r"2 of 3 runs diverged. The first of them, {'eta0': 0.05}: train"):
        found = sweep(model, {"eta0": [0.05, 1e-3, 0.1]}, *steep)
    assert found.statuses[::2] == ["diverged"] * 2
    assert found.statuses[1] in ("converged", "max_iter")
    assert found.best_params == {"eta0": 1e-3}
    for place in (0, 2):  # the table is about the weights that the model has
        assert math.isfinite(found.table["train_loss"][place])
        assert found.table["validation_score"][place] == pytest.approx(found.estimators[place].score(X_val, y_val))
        with pytest.warns(DivergenceWarning, match="training diverges"):
            clone(model).set_params(**found.params[place]).fit(X, y, X_val=X_val, y_val=y_val)
    with pytest.warns(DivergenceWarning, match="2 of 2 runs diverged; there is no best one. The first of them"):
        hopeless = sweep(model, {"eta0": [0.05, 0.1]}, *steep)
    assert hopeless.best_index is hopeless.best_params is hopeless.best_estimator is None
    with pytest.warns(DivergenceWarning, match="2 of 2 runs"):
        assert sweep(model, {"eta0": [0.05, 0.1]}, *steep, select="train_loss").best_index is None


def test_models_that_are_fitted_alone_explode_too(steep):
    X, y, X_val, y_val = steep
    network = MLPRegressor(
        hidden_layer_sizes=(4,), activation="identity", solver="sgd", max_iter=6, tol=None, random_state=0
    )
    models = {"learning_rate_init": network, "sgdregressor__eta0": make_pipeline(StandardScaler(), SGDRegressor(
        learning_rate="constant", random_state=0, max_iter=9, tol=None
    ))}  # fmt: skip
    for name, model in models.items():
        with pytest.warns(DivergenceWarning) as caught:
            found = sweep(model, {name: [1e-3, 3.0]}, 1e-2 * X, y, 1e-2 * X_val, y_val)
        assert found.statuses == ["fitted", "diverged"]
        assert found.best_index == 0
        assert "1 of 2 runs diverged" in str(caught[-1].message)


def test_figures_that_are_nan_are_never_the_best(data):
    def odd(estimator, rows, labels):
        size = abs(estimator.coef_).max()
        return size if size < 0.5 else math.nan

    model = clone(BASE).set_params(scoring=odd)
    found = sweep(model, {"eta0": [0.3, 0.02, 0.01, 0.5]}, *data)
    assert np.isnan(found.table["validation_score"]).tolist() == [True, False, False, True]
    assert found.best_params == {"eta0": 0.02}
    for select in ("auto", "validation_score"):
        with pytest.warns(UserWarning, match="there is no best run: none has a finite validation score"):
            found = sweep(clone(model).set_params(scoring=lambda *_: math.nan), {"eta0": [0.1]}, *data, select=select)
        assert found.best_params is None
    with pytest.warns(UserWarning, match="the validation score was NaN in . of 6 evaluations"):
        sweep(clone(model).set_params(early_stopping=True), {"eta0": [0.3, 0.02]}, *data)


@pytest.mark.parametrize(
    "model", [SGDRegressor(max_iter=5, tol=None), MLPRegressor(hidden_layer_sizes=(3,), max_iter=5, tol=None)], ids=repr
)
def test_the_loss_decides_where_r2_is_undefined(model, data):
    X, y, X_val, _ = data
    for size in (1, 5):
        found = sweep(model, {"alpha": [0.0, 10.0]}, X, y, X_val[:size], np.full(size, 0.7))
        assert found.select == "validation_loss"
        assert found.best_value == min(found.table["validation_loss"])
    with pytest.warns(UserWarning, match="R² is undefined, as the validation set has one row") as caught:
        sweep(clone(model).set_params(early_stopping=True), {"alpha": [0.0, 1.0]}, X, y, X_val[:1], [0.7])
    if isinstance(model, SGDRegressor):
        assert len(caught) == 1


def test_a_figure_that_is_not_there_is_refused(data, trainings):
    X, y = data[:2]
    for select, arguments in (("validation_loss", data), ("train_loss", data), ("validation_score", data[:2])):
        with pytest.raises(ValueError, match=f"select is '{select}', a figure that Ridge does not give here; it gives"):
            sweep(Ridge(), {"alpha": [1, 2]}, *arguments, select=select)
    with pytest.raises(ValueError, match=r"'train_score'.* it gives train_loss, validation_loss, validation_score"):
        sweep(BASE, {"eta0": [0.1]}, *data, select="train_score")
    with pytest.raises(ValueError, match=r"'validation_score'.* it gives train_loss$"):
        sweep(BASE, {"eta0": [0.1]}, X, y, select="validation_score")
    assert trainings == []  # before anything is trained
    network = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, tol=None)
    with pytest.raises(ValueError, match=r"MLPRegressor does not give here; it gives train_loss$"):
        sweep(network, {"alpha": [0, 1]}, X, y, select="validation_loss")
    aside = clone(BASE).set_params(early_stopping=True)
    assert sweep(aside, {"eta0": [0.1]}, X, y, select="validation_loss").best_index == 0
    assert sweep(Ridge(), {"alpha": [1, 2]}, *data, select="train_score").best_index is not None
    either = {"train_metrics": ["running", "full"]}
    assert sweep(BASE, either, *data, select="train_score").best_params == {"train_metrics": "full"}


def test_one_number_is_the_weight_of_every_row(data, same_bits):
    found = sweep(BASE, {"eta0": [0.1]}, *data, sample_weight=2.0, sample_weight_val=3)
    same_bits(found.estimators[0].coef_, sweep(BASE, {"eta0": [0.1]}, *data).estimators[0].coef_)


def test_an_uneven_last_batch_is_the_same_together_and_alone(data, same_bits, rng):
    X, y = data[:2]
    weight = rng.uniform(size=60) * (np.arange(60) % 4 > 0)
    model = clone(BASE).set_params(batch_size=59, evaluate_every=3, tol=1e-3, max_iter=40, n_iter_no_change=3)
    found = sweep(model, {"eta0": [0.01, 0.1, 0.3], "max_iter": [5, 40]}, X, y, sample_weight=weight)
    for params, history in zip(found.params, found.histories, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            alone = clone(model).set_params(**params).fit(X, y, sample_weight=weight)
        same_bits(history["train_loss"], alone.history_["train_loss"])


def test_one_seed_for_all(data):
    for state in (None, np.random.RandomState(3)):
        found = sweep(clone(BASE).set_params(random_state=state), {"eta0": [0.1, 0.2, 0.3]}, *data)
        seeds = {model.random_state for model in found.estimators}
        assert len(seeds) == 1
        assert isinstance(seeds.pop(), int)
        again = clone(found.estimators[2]).fit(*data[:2])
        assert np.array_equal(again.coef_, found.estimators[2].coef_)


def test_settings_one_by_one(data, trainings):
    settings = list(ParameterSampler({"eta0": [0.1, 0.2, 0.3], "alpha": [0, 1]}, 4, random_state=0))
    found = sweep(BASE, iter(settings), *data)
    assert found.params == settings
    assert trainings == [4]
    unlike = sweep(BASE, [{"eta0": 0.1}, {"alpha": 1}], *data)
    assert unlike.table["eta0"] == [0.1, None]
    with pytest.raises(ValueError, match="grid is empty"):
        sweep(BASE, [], *data)


def test_wrong_settings_are_found_before_anything_is_trained(data, trainings):
    with pytest.raises(TypeError, match="grid is 3; it must be a dictionary"):
        sweep(BASE, 3, *data)
    with pytest.raises(ValueError, match="X_val and y_val go together"):
        sweep(Ridge(), {"alpha": [1]}, *data[:3])
    with pytest.raises(ValueError, match="eta0 is -1"):
        sweep(BASE, {"eta0": [0.1, -1], "batch_size": [1, 2]}, *data)
    assert trainings == []


def test_what_cannot_be_trained_together_is_fitted_alone(data, trainings, same_bits):
    X, _, X_val, y_val = data
    warm = clone(BASE).set_params(warm_start=True)
    found = sweep(warm, {"eta0": [0.1, 0.2]}, *data)
    assert trainings == [1, 1]
    check_same(found, one_by_one(found, warm, data), same_bits)
    pipeline = make_pipeline(StandardScaler(), clone(BASE))
    found = sweep(pipeline, {"sgdclassifier__eta0": [0.1, 1.0]}, *data)
    assert found.statuses == ["fitted"] * 2
    assert found.table["validation_score"] == [model.score(X_val, y_val) for model in found.estimators]
    ridge = sweep(Ridge(), {"alpha": [0.1, 10.0]}, X, X[:, 0], X_val, X_val[:, 0], sample_weight=np.ones(60))
    assert ridge.best_params == {"alpha": 0.1}
    assert ridge.table["train_score"] == [model.score(X, X[:, 0]) for model in ridge.estimators]
    assert ridge.score_name == "R²"
    assert math.isnan(sweep(Ridge(), {"alpha": [1]}, X, X[:, 0]).table["validation_score"][0])
    weight = np.arange(float(len(X_val)))
    weighted = sweep(Ridge(), {"alpha": [10.0]}, X, X[:, 0], X_val, X_val[:, 0], sample_weight_val=weight)
    assert weighted.best_value == weighted.estimators[0].score(X_val, X_val[:, 0], weight)


class Logged(SGDClassifier):
    """A derived class with something of its own in `fit`."""

    def fit(self, X, y, X_val=None, y_val=None):
        self.calls_ = 1
        return super().fit(X, y, X_val=X_val, y_val=y_val)


def test_a_derived_class_keeps_its_fit(data, same_bits):
    derived = Logged(**BASE.get_params())
    found = sweep(derived, {"eta0": [0.1, 0.2]}, *data)
    assert [model.calls_ for model in found.estimators] == [1, 1]
    assert found.statuses == ["fitted"] * 2
    check_same(found, one_by_one(found, derived, data), same_bits)


def test_scikit_learns_callbacks_follow_single_fits(data, trainings):
    pytest.importorskip("sklearn.callback")
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    found = sweep(clone(BASE).set_callbacks(monitor), {"eta0": [0.1, 0.2]}, *data)
    assert trainings == [1, 1]
    assert len(monitor.get_logs(select="all")) == 2
    assert found.statuses == ["fitted"] * 2


def test_ctrl_c_returns_what_there_is(data):
    def interrupt(state):
        if state.step == 12:
            raise KeyboardInterrupt

    base = clone(BASE).set_params(callbacks=interrupt)
    grid = [{"batch_size": 60}, {"batch_size": 16}, {"batch_size": 16, "eta0": 1}, {"batch_size": 8}]
    with pytest.warns(UserWarning, match="interrupted"):
        found = sweep(base, grid, *data)
    assert found.statuses == ["max_iter", "interrupted", "interrupted", "left out"]
    assert found.estimators[1].t_ == 13
    assert not hasattr(found.estimators[3], "coef_")
    assert math.isnan(found.table["validation_score"][3])
    assert found.best_index in (0, 1, 2)

    class Interrupted(Ridge):
        def fit(self, X, y):
            if self.alpha == 2:
                raise KeyboardInterrupt
            return super().fit(X, y)

    with pytest.warns(UserWarning, match="interrupted"):
        alone = sweep(Interrupted(), {"alpha": [1, 2, 3]}, *data)
    assert alone.statuses == ["fitted", "interrupted", "left out"]
    assert alone.best_index == 0


def test_progress(data, capsys):
    sweep(BASE, {"eta0": [0.1, 1], "batch_size": [8, 16]}, *data, progress=True)
    shown = capsys.readouterr().err
    assert "4.0/4 runs" in shown
    assert "val. score=" in shown
    sweep(BASE, {"eta0": [0.1, 1]}, *data)
    assert capsys.readouterr().err == ""  # no terminal


def test_the_bar_is_full_when_runs_end_early(data, capsys):
    grid = {"tol": [0.5], "n_iter_no_change": [1], "eta0": [0.1, 1], "max_iter": [1000]}
    sweep(BASE, grid, *data, progress=True)
    assert "2.0/2 runs" in capsys.readouterr().err


def test_the_plot(data):
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot

    found = sweep(BASE, {"eta0": [0.1, 1], "batch_size": [8, 16]}, *data)
    axes = np.ravel(found.plot())
    assert len(axes) >= 1
    pyplot.close("all")


def test_what_is_shared_and_what_is_not_is_every_parameter():
    """A new parameter must be put on one side: is it about the batches, or about one run?"""
    ending = {"max_iter", "max_steps", "tol", "n_iter_no_change", "keep_best", "callbacks", "verbose", "warm_start"}
    for model in (SGDClassifier(), SGDRegressor()):
        known = {*sgd_fitting.SHARED, *sgd_fitting.TRAJECTORY, *ending}
        assert set(model.get_params()) <= known
    assert not set(sgd_fitting.SHARED) & set(sgd_fitting.TRAJECTORY)
    for name in sgd_fitting.TRAJECTORY:
        assert f"`{name}`" in sweep.__doc__
