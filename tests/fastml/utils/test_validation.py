"""Data that would become wrong numbers is refused by name, in every model, and the model stays as it was."""

from __future__ import annotations

import ast
import datetime
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier

import fastml
from fastml import kernels
from fastml.kernels.arguments import scalars
from fastml.utils import validation

N = 24
rng = np.random.default_rng(3)
X = rng.normal(size=(N, 3))
LABELS, NUMBERS = np.arange(N) % 3, X @ [1.0, -2.0, 0.5]
DAYS = np.datetime64("2024-02-27") + np.arange(N)
HOURS = DAYS - DAYS[0]
ONE_MISSING = np.where(np.arange(N) == 5, np.datetime64("NaT"), DAYS)
MASK = np.arange(N) % 7 == 1

MODELS = {
    "ConvNetClassifier": fastml.ConvNetClassifier(max_iter=2, tol=None, random_state=0),
    "KNeighborsClassifier": fastml.KNeighborsClassifier(2),
    "KNeighborsRegressor": fastml.KNeighborsRegressor(2),
    "LinearRegression": fastml.LinearRegression(),
    "LinearSVC": fastml.LinearSVC(),
    "LogisticRegression": fastml.LogisticRegression(),
    "MLPClassifier": fastml.MLPClassifier((3,), max_iter=2, tol=None, random_state=0),
    "MLPRegressor": fastml.MLPRegressor(hidden_layer_sizes=(3,), max_iter=2, tol=None, random_state=0),
    "NearestCentroid": fastml.NearestCentroid(),
    "RadiusNeighborsClassifier": fastml.RadiusNeighborsClassifier(9.0),
    "RadiusNeighborsRegressor": fastml.RadiusNeighborsRegressor(9.0),
    "Ridge": fastml.Ridge(),
    "SGDClassifier": fastml.SGDClassifier(max_iter=2, tol=None, random_state=0),
    "SGDRegressor": fastml.SGDRegressor(max_iter=2, tol=None, random_state=0, learning_rate="constant"),
}
#: Models that fit no targets, each with the method that takes new rows.
WITHOUT_TARGETS = {
    "KNNImputer": (fastml.KNNImputer(n_neighbors=2), "transform"),
    "KNeighborsTransformer": (fastml.KNeighborsTransformer(n_neighbors=2), "transform"),
    "LocalOutlierFactor": (fastml.LocalOutlierFactor(2, novelty=True), "predict"),
    "NearestNeighbors": (fastml.NearestNeighbors(n_neighbors=2), "kneighbors"),
}
WEIGHTED = [name for name in MODELS if "Neighbors" not in name and name != "NearestCentroid"]
VALIDATED = [name for name in MODELS if name.startswith(("SGD", "MLP", "Conv"))]


def frame(column) -> pd.DataFrame:
    return pd.DataFrame({"a": X[:, 0], "when": column, "c": X[:, 1]})


ROWS = {
    "masked": (np.ma.array(X, mask=X > 1), "X is a masked array"),
    "masked rows": ([np.ma.array(row, mask=row > 1) for row in X], "X has masked arrays in it"),
    "dates": (np.stack([DAYS] * 3, axis=1), r"X has dtype datetime64\[D\]"),
    "durations": (np.stack([HOURS] * 3, axis=1), r"X has dtype timedelta64\[D\]"),
    "durations as objects": (np.array([[np.timedelta64(1, "h")] * 3] * N, object), "X holds timedelta64"),
    "dates as objects": (np.array([[datetime.date(2024, 2, 29)] * 3] * N, object), "X holds date"),
    "a column of dates": (frame(DAYS), r"X has dtype datetime64\[\w+\] in column 'when'"),
    "a column of durations": (frame(HOURS), r"X has dtype timedelta64\[\w+\] in column 'when'"),
    "times of a zone": (frame(pd.Series(DAYS).dt.tz_localize("UTC")), "X has dtype datetime64.*UTC. in column 'when'"),
    "nothing but durations": (pd.DataFrame({name: pd.Series(HOURS) for name in "abc"}), "X has dtype timedelta64"),
    "periods": (frame(pd.period_range("2024-01", periods=N, freq="M")), "X has dtype period.* in column 'when'"),
    "times of day": (frame(pd.Series([datetime.time(7)] * N)), "column 'when', holds time"),
}

TARGETS = {
    "masked": (np.ma.array(NUMBERS, mask=MASK), "y is a masked array"),
    "dates": (DAYS, "y has dtype datetime64"),
    "a missing date": (ONE_MISSING, "y has dtype datetime64"),
    "durations": (HOURS, "y has dtype timedelta64"),
    "a Series of durations": (pd.Series(HOURS), "y has dtype timedelta64"),
    "a Series with a missing one": (pd.Series([None, *HOURS[1:]]), "y has dtype timedelta64"),
    "times of a zone": (pd.Series(DAYS).dt.tz_localize("Asia/Tokyo"), "y has dtype datetime64.*Tokyo"),
    "periods": (pd.Series(pd.period_range("2024-01", periods=N, freq="M")), "y has dtype period"),
    "durations as objects": (HOURS.astype(object), "y holds timedelta"),
    "a list of dates": ([datetime.datetime(2024, 2, 29, hour) for hour in range(N)], "y holds datetime"),
    "numbers as text": ((10 * NUMBERS).astype(str), r"y holds text \(str\); real numbers are needed"),
    "text as objects": ((10 * NUMBERS).astype(str).astype(object), r"y holds text \(str\)"),
    "something missing": (np.where(MASK, None, NUMBERS), r"y\[1\] is None; numbers must not be missing"),
}

CLASSES = {
    "masked": (np.ma.array(LABELS, mask=MASK), "y is a masked array"),
    "a missing date": (ONE_MISSING, r"y\[5\] is NaT; labels must not be missing"),
    "a missing duration": (ONE_MISSING - DAYS[0], r"y\[5\] is NaT; labels must not be missing"),
    "a Series with a missing one": (pd.Series(ONE_MISSING), r"y\[5\] is NaT"),
    "None among names": (np.where(MASK, None, "b").tolist(), r"y\[1\] is None; labels must not be missing"),
    "NaN among names": (np.where(MASK, np.nan, np.full(N, "b", object)), r"y\[1\] is nan"),
    "NA among names": (pd.Series(["a", "b", None] * 8, dtype="string"), r"y\[2\] is (<NA>|nan)"),
    "names and numbers": (np.array(["b", 2] * (N // 2), object), r"y holds objects \(int and str\)"),
    "times of a zone": (pd.Series(DAYS).dt.tz_localize("UTC"), r"y holds objects \(Timestamp\)"),
}

WEIGHTS = {
    "masked": (np.ma.array(np.ones(N), mask=MASK), "sample_weight is a masked array"),
    "one masked number": (np.ma.masked, "sample_weight is a masked array"),
    "durations": (HOURS, "sample_weight has dtype timedelta64"),
    "a Series of durations": (pd.Series(HOURS), "sample_weight has dtype timedelta64"),
}


def targets_of(model):
    return LABELS if is_classifier(model) else NUMBERS


def test_all_models_are_here():
    estimators = {name for name in fastml.__all__ if hasattr(getattr(fastml, name), "fit")}
    assert MODELS.keys() | WITHOUT_TARGETS.keys() == estimators


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", MODELS)
def test_rows_and_queries(name, kind):
    rows, message = ROWS[kind]
    model = clone(MODELS[name])
    with pytest.raises(TypeError, match=message):
        model.fit(rows, targets_of(model))
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")]
    model.fit(X, targets_of(model))
    with pytest.raises(TypeError, match=message):
        model.predict(rows)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", WITHOUT_TARGETS)
def test_rows_without_targets(name, kind):
    rows, message = ROWS[kind]
    model, method = WITHOUT_TARGETS[name]
    model = clone(model)
    with pytest.raises(TypeError, match=message):
        model.fit(rows)
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")]
    model.fit(X)
    with pytest.raises(TypeError, match=message):
        getattr(model, method)(rows)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if not is_classifier(model)])
def test_targets(name, kind):
    y, message = TARGETS[kind]
    with pytest.raises((TypeError, ValueError), match=message):
        clone(MODELS[name]).fit(X, y)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if is_classifier(model)])
def test_labels(name, kind):
    y, message = CLASSES[kind]
    with pytest.raises((TypeError, ValueError), match=message):
        clone(MODELS[name]).fit(X, y)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights(name, kind):
    weight, message = WEIGHTS[kind]
    model = clone(MODELS[name])
    with pytest.raises(TypeError, match=message):
        model.fit(X, targets_of(model), sample_weight=weight)


@pytest.mark.parametrize("name", VALIDATED)
def test_validation_data(name):
    model = clone(MODELS[name])
    y = targets_of(model)
    with pytest.raises(TypeError, match="X_val, y_val: X is a masked array"):
        model.fit(X, y, X_val=np.ma.array(X, mask=X > 1), y_val=y)
    with pytest.raises(TypeError, match="X_val, y_val: y is a masked array"):
        model.fit(X, y, X_val=X, y_val=np.ma.array(y, mask=MASK))
    if hasattr(model, "partial_fit"):
        with pytest.raises(TypeError, match="y is a masked array"):
            model.partial_fit(X, np.ma.array(y, mask=MASK), **({"classes": [0, 1, 2]} if is_classifier(model) else {}))


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if is_classifier(model)])
def test_labels_that_come_as_objects(name):
    """Numbers are numbers and names are names, however they lie; labels may be dates."""
    wanted = clone(MODELS[name]).fit(X, LABELS).predict(X)
    assert np.array_equal(clone(MODELS[name]).fit(X, LABELS.astype(object)).predict(X), wanted)
    names = np.array(["a", "b", "c"])
    for form in (names[LABELS], names[LABELS].astype(object), names[LABELS].astype(np.dtypes.StringDType())):
        assert clone(MODELS[name]).fit(X, form).predict(X).tolist() == names[wanted].tolist()
    assert np.array_equal(clone(MODELS[name]).fit(X, DAYS[LABELS]).predict(X), DAYS[wanted])


@pytest.mark.parametrize("name", MODELS)
def test_scores(name):
    """What is refused as a target or a weight of a fit is none of a score either."""
    model = MODELS[name]
    y, targets = (LABELS, CLASSES) if is_classifier(model) else (NUMBERS, TARGETS)
    model = clone(model).fit(X, y)
    for wrong, message in targets.values():
        with pytest.raises((TypeError, ValueError), match=message):
            model.score(X, wrong)
    for wrong, message in WEIGHTS.values():
        if "masked" in message or "dtype" in message:
            with pytest.raises(TypeError, match=message):
                model.score(X, y, wrong)
    assert model.score(X, y, np.ones(N)) == pytest.approx(model.score(X, y), rel=1e-12)


@pytest.mark.parametrize("y", [ROWS["masked"][0][:, 0], HOURS, ONE_MISSING, (10 * NUMBERS).astype(str)])
def test_cross_validation_of_neighbors(y):
    with pytest.raises(TypeError, match=r"^y (is a masked array|has dtype|holds text)"):
        fastml.knn_cross_validation(X, y, n_neighbors=1, cv=2, task="regression")
    with pytest.raises(TypeError, match=r"^X is a masked array"):
        fastml.knn_cross_validation(ROWS["masked"][0], NUMBERS, n_neighbors=1, cv=2)


# ----------------------------------------------------------------------------------- kernels


def test_kernels_take_no_masks():
    masked = np.ma.array([1.0, 2.0], mask=[0, 1])
    with pytest.raises(TypeError, match="X has masked arrays in it"):
        kernels.pairwise_l1([masked, masked])
    with pytest.raises(TypeError, match="y is a masked array"):
        kernels.squared_error([0.0, 0.0], masked)
    with pytest.raises(TypeError, match="sample_weight is a masked array"):
        kernels.squared_error([0.0, 0.0], [0.0, 1.0], sample_weight=masked)
    with pytest.raises(TypeError, match="b is a masked array"):
        kernels.linear_loss_gradient("squared_error", [[1.0]], [1.0], [1.0], np.ma.masked)


@pytest.mark.parametrize("values", [DAYS, HOURS, pd.Series(HOURS), pd.Series(DAYS).dt.tz_localize("UTC")])
def test_kernels_take_no_dates(values):
    with pytest.raises(TypeError, match=r"y has dtype .*real numbers are needed"):
        kernels.squared_error(np.zeros(N), values)
    with pytest.raises(TypeError, match="sample_weight has dtype"):
        kernels.squared_error(np.zeros(N), np.zeros(N), sample_weight=values)


def test_a_table_with_flags_is_a_table_of_numbers():
    table = pd.DataFrame({"a": [0.0, 1.5], "b": [True, False]})
    assert kernels.pairwise_l1(table).tolist() == [[0.0, 2.5], [2.5, 0.0]]
    with pytest.raises(TypeError, match="X has dtype object"):
        kernels.pairwise_l1(pd.DataFrame({"a": [0.0, 1.5], "b": ["1", "2"]}))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_that_are_rounded_are_told(dtype):
    stamps = (1_700_000_000_000_000_000 + np.array([[0], [100], [200]])).astype(dtype)
    with pytest.warns(UserWarning, match="X has integers up to 1700000000000000200, which float64 rounds from 2"):
        kernels.pairwise_l1(stamps)
    with pytest.warns(UserWarning, match="Y has integers up to"):
        kernels.k_nearest(np.zeros((1, 1)), stamps, 1)
    assert kernels.pairwise_l1(stamps - stamps[0])[0].tolist() == [0.0, 100.0, 200.0]
    kernels.pairwise_l1(np.array([[2**53], [0]], dtype))  # no warning: errors in this run


# ----------------------------------------------------------------------- the checks themselves


def test_every_model_takes_its_data_here():
    """A module that calls scikit-learn's own check of data lets through what is refused here."""
    for file in sorted(Path(fastml.__file__).parent.rglob("*.py")):
        if file.name != "validation.py":
            imported = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
            names = {
                alias.name for node in imported if (node.module or "").startswith("sklearn") for alias in node.names
            }
            assert not names & {"validate_data", "check_array"}, file.name


def test_what_passes_is_the_same_object():
    for values in (X, X.astype(np.float32), frame(X[:, 2]), X.tolist(), NUMBERS, pd.Series(NUMBERS)):
        assert validation.check_values(values, "X") is None
    for y in (NUMBERS, NUMBERS.tolist(), pd.Series(NUMBERS), pd.Series([1, 2], dtype="Int64"), NUMBERS.astype(object)):
        assert validation.check_numbers(y) is y
    for y in (LABELS, LABELS.tolist(), ["a", "b"], pd.Series(["a", "b"]), pd.Series(["a"], dtype="category"), DAYS):
        assert validation.check_labels(y) is y


class Asked(Exception):
    """scikit-learn's check was asked."""


@pytest.fixture
def asked_of(monkeypatch):
    """Assert that a model asks scikit-learn's check about queries."""

    def check(*args, **settings):
        raise Asked

    def assert_asked(model, queries):
        monkeypatch.setattr(validation.validation, "validate_data", check)
        with pytest.raises(Asked):
            model.predict(queries)

    return assert_asked


@pytest.mark.parametrize("name", [name for name in MODELS if name != "ConvNetClassifier"])
def test_plain_queries_need_no_check(name, monkeypatch):
    model = clone(MODELS[name]).fit(X, LABELS)
    expected = model.predict(X)
    monkeypatch.setattr(validation.validation, "validate_data", lambda *args, **settings: pytest.fail("asked"))
    np.testing.assert_array_equal(model.predict(X), expected)


@pytest.mark.parametrize(
    "queries",
    [
        X[:, :2],
        X[:0],
        X[0],
        X.tolist(),
        X.astype(">f8"),
        X.astype(np.float16),
        np.where(X == X[3, 1], np.nan, X),
        np.where(X == X[3, 1], -np.inf, X),
        np.where(X == X[3, 1], [[np.inf], [-np.inf]] * (N // 2), X),
        np.full((N, 3), np.finfo(np.float32).max, np.float32),  # finite, but not their sum
        pd.DataFrame(X),
        np.asmatrix(X),
    ],
    ids=["narrow", "empty", "row", "list", "swapped", "half", "nan", "inf", "infs", "large", "frame", "matrix"],
)
def test_other_queries_are_checked(queries, asked_of):
    asked_of(clone(MODELS["Ridge"]).fit(X, NUMBERS), queries)


def test_queries_without_the_names_of_the_columns_are_checked(asked_of):
    asked_of(clone(MODELS["Ridge"]).fit(pd.DataFrame(X, columns=["a", "b", "c"]), NUMBERS), X)


def test_queries_in_another_order_are_checked(asked_of):
    asked_of(clone(MODELS["MLPRegressor"]).fit(X, NUMBERS), np.asfortranarray(X))


def test_other_libraries_arrays_are_not_copied():
    class Remote:
        dtype, shape = "torch.bfloat16", (2, 2)

        def __array__(self, *args, **kwargs):
            raise AssertionError("fetched")

    validation.check_values(Remote(), "X")
    validation.check_numbers(Remote())


def test_masked_scalars():
    with pytest.raises(TypeError, match="l2 is a masked array"):
        scalars.checked_l2(np.ma.masked, np.dtype(float))


def test_a_model_gets_everything_back():
    class Broken(fastml.Ridge):
        @validation.unchanged_if_refused
        def fit(self, X, y):
            self.coef_, self.new_ = None, 1
            raise KeyboardInterrupt

    model = Broken()
    fastml.Ridge.fit(model, X, NUMBERS)
    before = pickle.dumps(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, NUMBERS)
    assert pickle.dumps(vars(model)) == before


# ------------------------------------------------------------------------------ refused refits

BAD_DATA = {
    "NaN in X": lambda y: (np.where(MASK[:, None], np.nan, X), y),
    "infinity in X": lambda y: (np.where(MASK[:, None], np.inf, X), y),
    "X of one dimension": lambda y: (X[:, 0], y),
    "complex X": lambda y: (X + 1j, y),
    "no rows": lambda y: (X[:0], y[:0]),
    "no columns": lambda y: (X[:, :0], y),
    "objects in X": lambda y: (np.full(X.shape, {}, object), y),
    "masked X": lambda y: (ROWS["masked"][0], y),
    "too few targets": lambda y: (X, y[:-1]),
    "no targets": lambda y: (X, None),
    "NaN in y": lambda y: (X, np.where(MASK, np.nan, y)),
    "y of three dimensions": lambda y: (X, y.reshape(2, 3, 4)),
    "masked y": lambda y: (X, np.ma.array(y, mask=MASK)),
    "a column more, and too few targets": lambda y: (np.column_stack([X, X]), y[1:]),
    "names for columns, and too few targets": lambda y: (frame(X[:, 2]), y[1:]),
}

BAD_WEIGHTS = {
    "negative": -np.ones(N),
    "all zero": np.zeros(N),
    "NaN": np.where(MASK, np.nan, 1.0),
    "infinite": np.where(MASK, np.inf, 1.0),
    "too few": np.ones(N - 1),
    "of two dimensions": np.ones((N, 2)),
    "masked": WEIGHTS["masked"][0],
}

#: Values that no model takes, for parameters that several have and those of one.
BAD_PARAMETERS = {
    "n_neighbors": (0, 2.5, "3"),
    "weights": ("far", [1.0]),
    "p": (3, "2"),
    "metric": ("canberra", None),
    "metric_params": ([1.0], {"w": [1.0]}),
    "n_jobs": (0, 1.5),
    "mode": ("distances",),
    "radius": (-1.0, "1"),
    "contamination": (0.0, 0.6, "some"),
    "novelty": ("yes",),
    "missing_values": ("?", None),
    "copy": ("yes",),
    "add_indicator": (1,),
    "keep_empty_features": (None,),
    "shrink_threshold": (0.0, "1"),
    "priors": ("equal", [0.5, 0.5], [-1.0, 1.0, 1.0]),
    "C": (0.0, -1.0, "1"),
    "alpha": (-1.0, np.nan, "1"),
    "tol": (-1.0, "0"),
    "max_iter": (0, 1.5),
    "fit_intercept": ("yes",),
    "class_weight": ("heavy", {0: -1.0}),
    "loss": ("log", 1),
    "multi_class": ("ovo",),
    "dual": ("maybe",),
    "learning_rate": ("fast",),
    "eta0": (0.0,),
    "learning_rate_init": (0.0, -1.0),
    "batch_size": (0, "all"),
    "validation_fraction": (0.0, 1.0),
    "early_stopping": ("yes",),
    "scoring": ("beauty",),
    "train_metrics": ("some", 0),
    "hidden_layer_sizes": ((0,), (2.5,)),
    "activation": ("sine",),
    "solver": ("newton",),
    "dropout": (1.0,),
    "callbacks": ("print",),
    "sampling": ("bootstrap",),
    "layers": ("deep", [1]),
}


def refused(model, fit) -> None:
    """Check that a fit is refused and changes nothing of a fitted model."""
    before = dict(vars(model))
    content = pickle.dumps(before)
    with pytest.raises((TypeError, ValueError)):
        fit()
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    assert pickle.dumps(before) == content


def fitted(name: str):
    model = clone(MODELS[name])
    return model.fit(X, targets_of(model)), targets_of(model)


@pytest.mark.parametrize("name", MODELS)
def test_refused_data_change_nothing(name):
    model, y = fitted(name)
    predicted = model.predict(X)
    for make in BAD_DATA.values():
        rows, targets = make(y)
        refused(model, lambda rows=rows, targets=targets: model.fit(rows, targets))
    if is_classifier(model):
        # Labels that nobody had before, and something that is found wrong after they have been read.
        refused(model, lambda: model.fit(X, NUMBERS))
        refused(model, lambda: model.fit(np.where(MASK[:, None], np.nan, X), y + 5))
        if name in WEIGHTED:
            refused(model, lambda: model.fit(X, np.full(N, 7)))
            refused(model, lambda: model.fit(X, y + 5, sample_weight=-np.ones(N)))
            refused(model, lambda: model.fit(X, y + 5, sample_weight=np.zeros(N)))
    assert np.array_equal(model.predict(X), predicted)


@pytest.mark.parametrize("name", WITHOUT_TARGETS)
def test_what_is_refused_without_targets_changes_nothing(name):
    model, method = WITHOUT_TARGETS[name]
    model = clone(model).fit(X)
    for kind, make in BAD_DATA.items():
        rows, _ = make(NUMBERS)
        if rows is not X and not (kind == "NaN in X" and name == "KNNImputer") and "column" not in kind:
            refused(model, lambda rows=rows: model.fit(rows))
    asked = 0
    for parameter, values in BAD_PARAMETERS.items():
        for value in values if parameter in model.get_params() else ():
            changed = clone(model).set_params(**{parameter: value})
            with pytest.raises((TypeError, ValueError), match=parameter):
                changed.fit(X)
            asked += 1
    assert asked >= 6
    getattr(model, method)(X)


@pytest.mark.parametrize("name", WEIGHTED)
def test_refused_weights_change_nothing(name):
    model, y = fitted(name)
    for weight in BAD_WEIGHTS.values():
        refused(model, lambda weight=weight: model.fit(X[::-1], y, sample_weight=weight))


@pytest.mark.parametrize("name", VALIDATED)
def test_refused_validation_data_change_nothing(name):
    model, y = fitted(name)
    other = y + 5 if is_classifier(model) else y
    refused(model, lambda: model.fit(X, other, X_val=X[:, :2], y_val=other))
    refused(model, lambda: model.fit(X, other, X_val=X, y_val=other[1:]))
    refused(model, lambda: model.fit(X, other, X_val=X))
    refused(model, lambda: model.fit(X, other, sample_weight_val=np.ones(N)))
    refused(model, lambda: model.fit(X, other, X_val=X, y_val=other, sample_weight_val=-np.ones(N)))
    if is_classifier(model):
        refused(model, lambda: model.fit(X, other, X_val=X, y_val=y))
    warm = clone(model).set_params(warm_start=True).fit(X, y)
    refused(warm, lambda: warm.fit(X[:, :2], y))
    if is_classifier(model):
        refused(warm, lambda: warm.fit(X, other))
    if name.startswith("SGD"):
        refused(model, lambda: model.fit(X, other, coef_init=np.zeros(99)))
        refused(model, lambda: model.fit(X, other, intercept_init=np.zeros(99)))
    else:
        refused(model, lambda: model.fit(X, other, resume="yes"))
        refused(model, lambda: model.fit(X[1:], y[1:], resume=True))


@pytest.mark.parametrize("name", VALIDATED)
def test_refused_parts_change_nothing(name):
    model, y = fitted(name)
    refused(model, lambda: model.partial_fit(X[:, :2], y))
    refused(model, lambda: model.partial_fit(X, y[1:]))
    refused(model, lambda: model.partial_fit(np.where(MASK[:, None], np.inf, X), y))
    refused(model, lambda: model.partial_fit(X, y, sample_weight=-np.ones(N)))
    if is_classifier(model):
        refused(model, lambda: model.partial_fit(X, y + 1))
        refused(model, lambda: model.partial_fit(X, y, classes=[0, 1]))
        fresh = clone(model)
        refused(fresh, lambda: fresh.partial_fit(X, y))
        refused(fresh, lambda: fresh.partial_fit(X, y, classes=[0, 1]))
        refused(fresh, lambda: fresh.partial_fit(X, y, classes=[0, 1, None]))


@pytest.mark.parametrize("name", MODELS)
def test_refused_parameters_change_nothing(name):
    model, y = fitted(name)
    asked = 0
    for parameter, values in BAD_PARAMETERS.items():
        for value in values if parameter in model.get_params() else ():
            good = getattr(model, parameter)
            model.set_params(**{parameter: value})
            if parameter == "scoring" or parameter == "validation_fraction":
                model.set_params(early_stopping=True)
            refused(model, lambda: model.fit(X[::-1], y + 5 if is_classifier(model) else y))
            model.set_params(**{parameter: good})
            if hasattr(model, "early_stopping"):
                model.set_params(early_stopping=False)
            asked += 1
    assert asked >= (1 if name == "LinearRegression" else 4)


def test_what_fails_in_the_middle_changes_nothing():
    """A callback or a scorer of the user may raise when training has begun."""

    def fails(state):
        raise ZeroDivisionError

    for name in VALIDATED:
        model, y = fitted(name)
        before = dict(vars(model.set_params(callbacks=fails)))
        with pytest.raises(ZeroDivisionError):
            model.fit(X[::-1], y)
        assert all(vars(model)[attribute] is value for attribute, value in before.items())
        assert vars(model).keys() == before.keys()
