"""An import replaced: the constructors take what those of scikit-learn's twins take, in the same places."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import linear_model, neural_network, svm
from sklearn.base import clone, is_classifier

import fastml
from versions import SKLEARN

TWINS = {
    "LinearRegression": linear_model.LinearRegression,
    "LinearSVC": svm.LinearSVC,
    "LogisticRegression": linear_model.LogisticRegression,
    "MLPClassifier": neural_network.MLPClassifier,
    "MLPRegressor": neural_network.MLPRegressor,
    "Ridge": linear_model.Ridge,
    "SGDClassifier": linear_model.SGDClassifier,
    "SGDRegressor": linear_model.SGDRegressor,
}

#: Where the parameters stand is as in this version of scikit-learn and later ones.
NEWEST = (1, 9)

#: What older versions have and the newest one has no more.
GONE = {("LogisticRegression", "multi_class")}

METHODS = ("fit", "partial_fit", "predict", "predict_proba", "predict_log_proba", "decision_function", "score")

Parameters = list[inspect.Parameter]


def parameters(function: Callable[..., object]) -> Parameters:
    return list(inspect.signature(function).parameters.values())


def differences(name: str, ours: Parameters, theirs: Parameters) -> list[str]:
    """Return what a caller of the twin would notice."""
    places = {parameter.name: place for place, parameter in enumerate(ours)}
    found = []
    for place, their in enumerate(theirs):
        if their.name not in places:
            found.append(f"{name} has no {their.name}")
            continue
        our = ours[places[their.name]]
        if (places[their.name], our.kind) != (place, their.kind):
            found.append(f"{name}: {their.name} stands in another place")
        if our.default != their.default:
            found.append(f"{name}: {their.name} is {our.default!r} by default, and there {their.default!r}")
    own = ours[len(theirs) :]
    found += [f"{name}: {our.name} may stand without its name" for our in own if our.kind is not our.KEYWORD_ONLY]
    return found


@pytest.mark.parametrize("name", TWINS)
def test_the_twins_keywords_are_there(name):
    theirs = {parameter.name for parameter in parameters(TWINS[name]) if (name, parameter.name) not in GONE}
    assert theirs <= {parameter.name for parameter in parameters(getattr(fastml, name))}


@pytest.mark.skipif(SKLEARN < NEWEST, reason="places and defaults are those of a later scikit-learn")
@pytest.mark.parametrize("name", TWINS)
def test_they_stand_in_the_twins_places_with_its_defaults(name):
    assert differences(name, parameters(getattr(fastml, name)), parameters(TWINS[name])) == []


@pytest.mark.skipif(SKLEARN < NEWEST, reason="places and defaults are those of a later scikit-learn")
@pytest.mark.parametrize("name", TWINS)
def test_methods_take_what_the_twins_methods_take(name):
    for method in METHODS:
        if hasattr(TWINS[name], method):
            ours, theirs = (getattr(estimator, method) for estimator in (getattr(fastml, name), TWINS[name]))
            assert differences(f"{name}.{method}", parameters(ours), parameters(theirs)) == []


def test_differences_are_found():
    def theirs(a, b=1, *, c=2): ...

    def ours(b=1, a=0, *, d=3): ...

    def more(a, b=1, c=2, e=4): ...

    their, our, own = (parameters(function) for function in (theirs, ours, more))
    assert differences("M", our, their) == [
        "M: a stands in another place", f"M: a is 0 by default, and there {inspect.Parameter.empty!r}",
        "M: b stands in another place", "M has no c",
    ]  # fmt: skip
    assert differences("M", own, their) == ["M: c stands in another place", "M: e may stand without its name"]
    assert differences("M", their, their) == []


# ------------------------------------------------------------------------------------------- values

LONG = {"max_iter": 3, "tol": None, "random_state": 0}
MODELS = {
    "LinearRegression": fastml.LinearRegression(),
    "LinearSVC": fastml.LinearSVC(random_state=0),
    "LogisticRegression": fastml.LogisticRegression(),
    "MLPClassifier": fastml.MLPClassifier((3,), **LONG),
    "MLPRegressor": fastml.MLPRegressor(hidden_layer_sizes=(3,), **LONG),
    "Ridge": fastml.Ridge(),
    "SGDClassifier": fastml.SGDClassifier(**LONG),
    "SGDRegressor": fastml.SGDRegressor(**LONG),
}

#: Values that choose a way to the same result, or that have no meaning for the other parameters.
WAYS = [
    ("LinearRegression", {"copy_X": False}),
    ("LinearRegression", {"tol": 1e-3}),
    ("LinearRegression", {"positive": False}),
    *[("LogisticRegression", {"solver": each}) for each in ("newton-cg", "newton-cholesky", "sag", "saga")],
    ("LogisticRegression", {"dual": True}),
    ("LogisticRegression", {"intercept_scaling": 7}),
    ("MLPClassifier", {"max_fun": 3}),
    ("MLPRegressor", {"max_fun": 3}),
    *[("Ridge", {"solver": each}) for each in ("svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga", "lbfgs")],
    ("Ridge", {"copy_X": False, "max_iter": 7, "tol": 0.1, "random_state": 3}),
    ("SGDClassifier", {"epsilon": 0.0}),
    ("SGDRegressor", {"epsilon": 0.0}),
]  # fmt: skip

#: Values of the twins that fastml has no meaning for.
REFUSED = [
    ("MLPClassifier", {"solver": "lbfgs"}, "solver is 'lbfgs', which fastml does not have; 'adam'"),
    ("MLPClassifier", {"learning_rate": "adaptive"}, "learning_rate is 'adaptive', which"),
    ("MLPRegressor", {"solver": "lbfgs"}, "solver is 'lbfgs', which"),
    ("MLPRegressor", {"loss": "poisson"}, "loss is 'poisson'; it must be one of 'squared_error'"),
    ("SGDClassifier", {"loss": "perceptron"}, "loss is 'perceptron'; it must be one of 'hinge'"),
    ("SGDClassifier", {"learning_rate": "adaptive"}, "learning_rate is 'adaptive'; it must be one of 'constant'"),
    ("SGDRegressor", {"loss": "epsilon_insensitive"}, "loss is 'epsilon_insensitive'; it must be one of"),
]

#: Values that the twins do not know either.
WRONG = [
    ("LinearRegression", {"copy_X": "no"}),
    ("LogisticRegression", {"l1_ratio": 1.5}),
    ("LogisticRegression", {"penalty": "l3"}),
    ("LogisticRegression", {"solver": "bfgs"}),
    ("LogisticRegression", {"intercept_scaling": 0}),
    ("LogisticRegression", {"dual": "auto"}),
    ("LinearSVC", {"penalty": None}),
    ("MLPRegressor", {"loss": "squared"}),
    ("MLPRegressor", {"max_fun": 0}),
    ("Ridge", {"solver": "qr"}),
    ("Ridge", {"max_iter": 0}),
    ("SGDClassifier", {"shuffle": "no"}),
    ("SGDClassifier", {"epsilon": -1.0}),
    ("SGDRegressor", {"loss": "huber", "epsilon": 0.0}),
]


def named(cases):
    return [f"{name}-{params}" for name, params, *_ in cases]


def data(model, seed: int, n: int = 40):
    """Return rows of three columns and targets: two classes, or numbers."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    y = X @ [1.0, -2.0, 0.5] + rng.normal(size=n)
    return X, (y > 0).astype(int) if is_classifier(model) else y


def coefficients(model):
    """Return all of them, and the intercepts, in a row."""
    parts = [*model.coefs_, *model.intercepts_] if hasattr(model, "coefs_") else [model.coef_, model.intercept_]
    return np.concatenate([np.ravel(part) for part in parts])


@pytest.mark.parametrize(("name", "params"), WAYS, ids=named(WAYS))
def test_ways_to_the_same_result(name, params, seed, same_bits):
    model = MODELS[name]
    X, y = data(model, seed)
    X.flags.writeable = False
    same_bits(coefficients(clone(model).fit(X, y)), coefficients(clone(model).set_params(**params).fit(X, y)))


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
@pytest.mark.parametrize(("name", "params", "message"), REFUSED, ids=named(REFUSED))
def test_what_is_refused_names_parameter_and_value_and_what_there_is(name, params, message, seed):
    model = clone(MODELS[name]).set_params(**params)
    with pytest.raises(ValueError, match=f"^{message}"):
        model.fit(*data(model, seed))


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
@pytest.mark.parametrize(("name", "params"), WRONG, ids=named(WRONG))
def test_what_the_twin_does_not_know_is_refused_by_name(name, params, seed):
    model = clone(MODELS[name]).set_params(**params)
    with pytest.raises((TypeError, ValueError), match=f"^{'|'.join(params)} is"):
        model.fit(*data(model, seed))


def test_layers_in_the_place_of_the_loss():
    with pytest.raises(TypeError, match=r"hidden_layer_sizes="):
        fastml.MLPRegressor((50,))
    model = fastml.MLPRegressor().set_params(loss=50)
    with pytest.raises(TypeError, match=r"loss is 50 \(int\).*hidden_layer_sizes="):
        model.fit([[0.0], [1.0]], [0.0, 1.0])
    assert fastml.MLPRegressor("squared_error", (5,), "tanh").get_params()["hidden_layer_sizes"] == (5,)


# ---------------------------------------------------------------------------- values with a meaning


def test_no_shuffle_takes_the_order_of_the_rows(seed, same_bits):
    for name in ("SGDClassifier", "SGDRegressor"):
        model = clone(MODELS[name]).set_params(batch_size=7)
        X, y = data(model, seed)
        fits = [
            coefficients(clone(model).set_params(**params).fit(X, y))
            for params in (
                {"shuffle": False},
                {"sampling": "sequential"},
                {"shuffle": False, "sampling": "sequential"},
                {},
            )
        ]
        same_bits(fits[0], fits[1])
        same_bits(fits[0], fits[2])
        assert (fits[0] != fits[3]).any()
        for sampling in ("replacement", "fixed_permutation"):
            with pytest.raises(ValueError, match="shuffle=False is sampling='sequential'; sampling is"):
                model.set_params(shuffle=False, sampling=sampling).fit(X, y)


def test_the_order_of_the_rows_is_the_twins(seed):
    """One row at a time in the order of X is what the twin does, too."""
    settings = {"shuffle": False, "learning_rate": "constant", "eta0": 0.01, "tol": None, "max_iter": 2}
    ours, theirs = fastml.SGDRegressor(batch_size=1, **settings), linear_model.SGDRegressor(**settings)
    X, y = data(ours, seed)
    np.testing.assert_allclose(coefficients(ours.fit(X, y)), coefficients(theirs.fit(X, y)), rtol=1e-9)


@pytest.mark.parametrize("scaling", [1, 5.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_intercept_of_liblinear_is_penalized(scaling, fit_intercept, seed):
    settings = {
        "solver": "liblinear",
        "intercept_scaling": scaling,
        "fit_intercept": fit_intercept,
        "C": 0.3,
        "tol": 1e-9,
    }
    ours, theirs = fastml.LogisticRegression(**settings), linear_model.LogisticRegression(max_iter=1000, **settings)
    X, y = data(ours, seed)
    X = X + 3
    np.testing.assert_allclose(coefficients(ours.fit(X, y)), coefficients(theirs.fit(X, y)), rtol=1e-5, atol=1e-7)
    free = clone(ours).set_params(solver="lbfgs").fit(X, y)
    assert np.allclose(coefficients(free), coefficients(ours)) != fit_intercept


def test_liblinear_is_for_two_classes(seed):
    X, _ = data(fastml.LogisticRegression(), seed)
    with pytest.raises(ValueError, match="solver is 'liblinear', which is for two classes, and y has 3"):
        fastml.LogisticRegression(solver="liblinear").fit(X, np.arange(40) % 3)


def test_deprecated_penalties_of_logistic_regression(seed, same_bits):
    plain = fastml.LogisticRegression()
    X, y = data(plain, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain.fit(X, y)
        without = fastml.LogisticRegression(C=np.inf).fit(X, y)
    with pytest.warns(FutureWarning, match="^'penalty' was deprecated.*C=numpy.inf for None") as found:
        none = fastml.LogisticRegression(None).fit(X, y)
    assert found[0].filename == __file__
    with pytest.warns(FutureWarning, match="^'penalty' was deprecated"):
        l2 = fastml.LogisticRegression("l2").fit(X, y)
    with pytest.warns(FutureWarning, match="^'l1_ratio=None' was deprecated"):
        no_ratio = fastml.LogisticRegression(l1_ratio=None).fit(X, y)
    with pytest.warns(UserWarning, match=r"C is 3\.0, which penalty=None leaves unused"), pytest.warns(FutureWarning):
        fastml.LogisticRegression(None, C=3.0).fit(X, y)
    same_bits(without.coef_, none.coef_)
    same_bits(plain.coef_, l2.coef_)
    same_bits(plain.coef_, no_ratio.coef_)
    assert (without.coef_ != plain.coef_).any()


@pytest.mark.skipif(SKLEARN < NEWEST, reason="what is deprecated is of a later scikit-learn")
@pytest.mark.parametrize("params", [{"penalty": "l2"}, {"penalty": None}, {"l1_ratio": None}], ids=str)
def test_the_twin_warns_of_the_same(params, seed):
    """When it takes them no more, neither does fastml."""
    for model in (fastml.LogisticRegression(**params), linear_model.LogisticRegression(**params)):
        with pytest.warns(FutureWarning, match=f"^'{next(iter(params))}.*' was deprecated"):
            model.fit(*data(model, seed))
