"""SGDClassifier and SGDRegressor: parameters, callbacks and progress bars."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from fastml import SGDClassifier, SGDRegressor
from fastml.utils.validation import check_finite, encode_labels

try:
    import sklearn.callback as sklearn_callback
except ImportError:
    sklearn_callback = None


# ------------------------------------------------------------------------------- callbacks, progress


def test_callbacks(classes):
    X, y = classes
    states, copies = [], []

    def look(state):
        states.append(state)
        copies.append(state.fitted_estimator)
        return state.step >= 4

    model = SGDClassifier("log_loss", batch_size=30, callbacks=look, random_state=0).fit(X, y, X_val=X, y_val=y)
    assert [state.step for state in states] == [2, 4]
    assert model.n_iter_ == 2
    for name in ("epoch", "seconds", "train_loss", "validation_loss", "validation_score"):
        assert [getattr(state, name) for state in states] == model.history_[name].tolist()
    assert [copy.score(X, y) for copy in copies] == model.history_["validation_score"].tolist()
    assert np.array_equal(copies[1].predict(X), model.predict(X))
    assert not np.array_equal(copies[0].coef_, model.coef_)
    several = SGDClassifier(callbacks=[lambda s: True, lambda s: states.append("second")]).fit(X, y)
    assert several.n_iter_ == 1
    assert states[-1] == "second"


@pytest.mark.skipif(sklearn_callback is None, reason="scikit-learn has no callbacks")
@pytest.mark.parametrize("model", [SGDClassifier("log_loss"), SGDRegressor()], ids=repr)
def test_scikit_learns_callbacks(model, numbers):
    X, y = numbers
    y = (y > y.mean()).astype(int)

    class Recorder:
        def __init__(self):
            self.calls = []

        def setup(self, estimator, context):
            self.calls.append("setup")

        def teardown(self, estimator, context):
            self.calls.append("teardown")

        def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
            self.calls.append(f"begin {context.task_name}")

        def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
            self.calls.append(f"end {context.task_name}")
            assert fitted_estimator.score(X, y) <= 1
            assert metadata["sample_weight"].tolist() == [2.0] * 60
            return context.task_name == "epoch" and context.task_id == 2

    recorder = Recorder()
    model = clone(model).set_params(random_state=0, batch_size=10).set_callbacks(recorder)
    model.fit(X, y, sample_weight=np.full(60, 2))
    epochs = ["begin epoch", "end epoch"] * 3
    assert recorder.calls == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert model.n_iter_ == 3

    scoring = "accuracy" if isinstance(model, SGDClassifier) else "r2"
    monitor = sklearn_callback.ScoringMonitor(scoring=scoring)
    pickle.loads(pickle.dumps(model.set_params(max_iter=4, tol=None).set_callbacks(monitor).fit(X, y)))
    scores = [row[scoring] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 4
    assert scores[-1] == model.score(X, y)


@pytest.mark.skipif(sklearn_callback is None, reason="scikit-learn has no callbacks")
def test_callbacks_of_a_search(numbers):
    X, y = numbers
    monitor = sklearn_callback.ScoringMonitor(scoring="r2")
    search = GridSearchCV(SGDRegressor(max_iter=3, tol=None), {"alpha": [0.1, 0.2]}, cv=2)
    model = SGDRegressor(max_iter=3, tol=None).set_callbacks(monitor)
    search.set_params(estimator=model).fit(X, y)
    assert len(monitor.get_logs(select="all")) >= 1


def test_a_progress_bar_with_losses(numbers, capsys):
    X, y = numbers
    SGDRegressor(max_iter=3, tol=None, verbose=1).fit(X, y, X_val=X, y_val=y)
    shown = capsys.readouterr().err
    assert "SGDRegressor: 100%" in shown
    assert "3/3" in shown
    for text in ("epoch=3", "loss=", "val. loss=", "val. score="):
        assert text in shown
    SGDRegressor(max_iter=3, tol=None).fit(X, y)
    assert capsys.readouterr().err == ""


def test_the_bar_changes_nothing(rng, same_bits, capsys):
    X, y = rng.normal(size=(50000, 2)), rng.normal(size=50000)
    settings = {"max_iter": 1, "tol": None, "batch_size": 5000, "random_state": 0, "evaluate_every": 7}
    quiet, shown = (SGDRegressor(verbose=verbose, **settings).fit(X, y) for verbose in (0, 1))
    same_bits(quiet.coef_, shown.coef_)
    same_bits(quiet.history_["train_loss"], shown.history_["train_loss"])


# -------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"loss": "log"}, ValueError, "loss is 'log'; it must be one of 'hinge', 'log_loss', 'squared_hinge'"),
        ({"multi_class": "ovo"}, ValueError, "multi_class is 'ovo'"),
        ({"multi_class": "multinomial"}, ValueError, "multi_class='multinomial' goes with loss='log_loss'"),
        ({"loss": "log_loss", "multi_class": "crammer_singer"}, ValueError, "goes with loss='hinge'"),
        ({"penalty": "l3"}, ValueError, "penalty is 'l3'; it must be one of 'l2', 'l1', 'elasticnet', None"),
        ({"alpha": -1}, ValueError, "alpha is -1; it must be at least 0"),
        ({"alpha": "auto"}, TypeError, r"alpha is 'auto' \(str\)"),
        ({"alpha": 0}, ValueError, "learning_rate is 'optimal'.*alpha is 0"),
        (
            {"penalty": "elasticnet", "l1_ratio": 1.5},
            ValueError,
            "l1_ratio is 1.5; it must be at least 0 and at most 1",
        ),
        ({"fit_intercept": "no"}, TypeError, "fit_intercept is 'no'"),
        ({"max_iter": 0}, ValueError, "max_iter is 0"),
        ({"max_steps": 2.5}, TypeError, "max_steps is 2.5"),
        ({"tol": -1e-3}, ValueError, "tol is -0.001"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": "full"}, TypeError, "batch_size is 'full'"),
        ({"batch_size": np.array([10, 20])}, TypeError, r"batch_size is array\(\[10, 20\]\)"),
        ({"sampling": "random"}, ValueError, "sampling is 'random'"),
        ({"drop_last": 1}, TypeError, "drop_last is 1"),
        ({"learning_rate": "adaptive"}, ValueError, "learning_rate is 'adaptive'"),
        ({"eta0": 0}, ValueError, "eta0 is 0; it must be above 0"),
        ({"eta0": np.inf}, ValueError, "eta0 is inf"),
        ({"power_t": np.nan}, ValueError, "power_t is nan"),
        ({"momentum": 1.1}, ValueError, "momentum is 1.1"),
        ({"nesterovs_momentum": None}, TypeError, "nesterovs_momentum is None"),
        ({"average": -3}, ValueError, "average is -3"),
        ({"init": "ones"}, ValueError, "init is 'ones'"),
        ({"init_scale": -1}, ValueError, "init_scale is -1"),
        ({"early_stopping": 1}, TypeError, "early_stopping is 1"),
        ({"validation_fraction": 0}, ValueError, "validation_fraction is 0"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change is 0"),
        ({"keep_best": "best"}, ValueError, "keep_best is 'best'"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every is 0"),
        ({"evaluations_per_epoch": 0}, ValueError, "evaluations_per_epoch is 0"),
        ({"train_metrics": "all"}, ValueError, "train_metrics is 'all'"),
        ({"train_metrics": 0}, ValueError, "train_metrics is 0"),
        ({"class_weight": "even"}, ValueError, "class_weight is 'even'"),
        ({"class_weight": {"a": -1}}, ValueError, r"class_weight is \{'a': -1\}"),
        ({"class_weight": {"a": np.nan}}, ValueError, r"class_weight is \{'a': nan\}"),
        ({"callbacks": 5}, TypeError, r"callbacks is 5 \(int\)"),
        ({"callbacks": [print, "print"]}, TypeError, "callbacks is .* a sequence of callables, or None"),
        ({"learning_rate": {1: 0.1}}, ValueError, r"learning_rate must give step sizes.*\{1: 0.1\}"),
        ({"warm_start": 1}, TypeError, "warm_start is 1"),
        ({"n_jobs": 0}, ValueError, "n_jobs is 0"),
    ],
)
def test_wrong_parameters_are_named(classes, params, error, message):
    X, y = classes
    with pytest.raises(error, match=message):
        SGDClassifier(**params).fit(X, y)


def test_other_wrong_arguments_are_named(numbers):
    X, y = numbers
    with pytest.raises(ValueError, match="epsilon is 0; it must be above 0"):
        SGDRegressor("huber", epsilon=0).fit(X, y)
    with pytest.raises(ValueError, match="X_val and y_val go together"):
        SGDRegressor().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="X_val, y_val: X has 4 features"):
        SGDRegressor().fit(X, y, X_val=X[:, :4], y_val=y)
    with pytest.raises(ValueError, match="X_val, y_val: Input X contains NaN"):
        SGDRegressor().fit(X, y, X_val=np.where(X > 1, np.nan, X), y_val=y)
    with pytest.raises(ValueError, match="X_val, y_val: y has the class 3"):
        SGDClassifier().fit(X, y > 0, X_val=X, y_val=np.full(60, 3))


# --------------------------------------------------------------------------- what the estimators share


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("kind", ["int8", "int16", "int64", "uint8", "uint64", "bool", "float", "str", "object"])
def test_labels_are_encoded_as_by_unique(kind, rng):
    for y in (rng.integers(0, 5, 100), rng.integers(0, 2, 3), np.array([1, 0, 1]), rng.integers(0, 100, 30)):
        labels = y.astype(kind) if kind != "object" else np.array([f"{v}" for v in y], object)
        if kind == "int8":
            labels = (y - 60).astype(kind)
            labels[:2] = -128, 127
        found, codes = encode_labels(labels)
        expected, expected_codes = np.unique(labels, return_inverse=True)
        assert found.dtype == labels.dtype
        assert codes.dtype == np.intp
        assert np.array_equal(found, expected)
        assert np.array_equal(codes, expected_codes)
    far = np.array([-(2**62), 2**62, 0], np.int64)
    assert encode_labels(far)[1].tolist() == [0, 2, 1]


def test_finite_is_looked_for_everywhere(rng):
    X = rng.normal(size=(20000, 3)).astype(np.float32)
    check_finite(X, None)
    check_finite(np.full((9000, 3), 3e38, np.float32), 2)  # of which the sum overflows
    for row in (0, 4095, 4096, 19999):
        for value, message in ((np.nan, "NaN"), (-np.inf, "infinity")):
            broken = X.copy()
            broken[row, 2] = value
            for n_threads in (1, 2):
                with pytest.raises(ValueError, match=message):
                    check_finite(broken, n_threads, estimator=SGDRegressor())
