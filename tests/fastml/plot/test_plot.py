"""The plots: what is drawn where, with which marks, limits and labels. Cross-validation is tested with its result."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fastml import plot
from fastml.plot import _drawing

N = 40


def history(loss=1.0, score=0.5, rate=0.1, validation=True, noise=0.0, seed=0):
    """A training: loss falls from `loss` to 0.1, score rises from `score` to 0.9."""
    rng = np.random.default_rng(seed)
    steps = np.arange(0, 10 * N, 10)
    fall = np.exp(-rate * np.arange(N))
    found = {
        "step": steps,
        "epoch": steps / 100,
        "seconds": steps * 1e-3,
        "train_loss": 0.1 + (loss - 0.1) * fall + noise * rng.normal(size=N),
        "train_score": 0.9 - (0.9 - score) * fall,
    }
    if validation:
        found["validation_loss"] = 0.2 + (loss - 0.1) * fall
        found["validation_score"] = 0.85 - (0.85 - score) * fall
        found["validation_score"][25] = 0.88
    return found


def curves(ax):
    """The lines of some length: no rings, crosses or dots."""
    return [line for line in ax.get_lines() if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]


def rings(ax):
    return [line for line in ax.get_lines() if line.get_markeredgecolor() == _drawing.BEST]


def crosses(ax):
    return [line for line in ax.get_lines() if line.get_marker() == "x"]


@pytest.fixture
def own_figures(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def two_axes():
    return Figure().subplots(1, 2)


# --------------------------------------------------------------------------------- learning curves


def test_learning_curves_of_one_training():
    run, axes = history(), two_axes()
    drawn = plot.learning_curves(run, axes)
    assert drawn.tolist() == axes.tolist()
    for ax, quantity in zip(drawn, ("loss", "score"), strict=True):
        train, validation = curves(ax)
        np.testing.assert_array_equal(train.get_xdata(), run["epoch"])
        np.testing.assert_array_equal(train.get_ydata(), run[f"train_{quantity}"])
        np.testing.assert_array_equal(validation.get_ydata(), run[f"validation_{quantity}"])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", quantity)
    (ring,) = rings(drawn[1])
    assert (ring.get_xdata().item(), ring.get_ydata().item()) == (2.5, 0.88)
    assert drawn[1].get_title("left") == "best: 0.88 at epoch 2.5"
    (ring,) = rings(drawn[0])
    assert ring.get_ydata().item() == run["validation_loss"].min()
    assert [text.get_text() for text in drawn[0].get_legend().get_texts()] == ["training", "validation"]
    assert drawn[1].get_legend() is None


@pytest.mark.usefixtures("own_figures")
def test_learning_curves_draw_what_was_recorded():
    run = history() | {"train_score": np.full(N, np.nan), "validation_score": np.full(N, np.nan)}
    assert [ax.get_ylabel() for ax in plot.learning_curves(run)] == ["loss"]
    assert [ax.get_ylabel() for ax in plot.learning_curves({"a": run, "b": history()})] == ["loss", "score"]
    with pytest.raises(ValueError, match="neither train_loss nor validation_loss"):
        plot.learning_curves({name: np.full(N, np.nan) for name in run})


@pytest.mark.parametrize(("against", "label"), [("step", "step"), ("epoch", "epoch"), ("seconds", "time in s")])
def test_learning_curves_against(against, label):
    run, ax = history(), Figure().subplots()
    (drawn,) = plot.learning_curves(run, ax, quantities="loss", against=against)
    assert drawn is ax
    np.testing.assert_array_equal(curves(ax)[0].get_xdata(), run[against])
    assert ax.get_xlabel() == label


def test_running_mean_is_that_of_the_last_values_and_of_training_only():
    run, ax = history(noise=0.1), Figure().subplots()
    plot.learning_curves(run, ax, quantities=["loss"], running_mean=20)
    raw, smooth, validation = curves(ax)
    y = run["train_loss"]
    np.testing.assert_array_equal(raw.get_ydata(), y)
    assert raw.get_alpha() < 0.5
    np.testing.assert_allclose(smooth.get_ydata(), [y[max(0, i - 19) : i + 1].mean() for i in range(N)], rtol=1e-12)
    np.testing.assert_array_equal(validation.get_ydata(), run["validation_loss"])


def test_a_training_without_validation_has_no_ring():
    axes = plot.learning_curves(history(validation=False), two_axes())
    assert [len(curves(ax)) for ax in axes] == [1, 1]
    assert [len(rings(ax)) for ax in axes] == [0, 0]
    unrecorded = history() | {"validation_loss": np.full(N, np.nan), "validation_score": np.full(N, np.nan)}
    assert [len(curves(ax)) for ax in plot.learning_curves(unrecorded, two_axes())] == [1, 1]


def test_several_trainings_and_models():
    runs = {"slow": history(rate=0.05), "fast": SimpleNamespace(history_=history(rate=0.4))}
    axes = plot.learning_curves(runs, two_axes(), running_mean=3)
    lines = curves(axes[0])
    assert len(lines) == 4, "no pale ones"
    colors = [to_rgb(line.get_color()) for line in lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert [line.get_linestyle() for line in lines] == ["--", "-", "--", "-"]
    legend = axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["slow", "fast"]
    assert legend.get_title().get_text() == "dashed: training"
    assert len(rings(axes[0])) == 1
    alone = plot.learning_curves(runs["fast"], two_axes())
    np.testing.assert_array_equal(curves(alone[0])[1].get_ydata(), runs["fast"].history_["validation_loss"])


def test_a_training_that_diverged_ends_in_a_cross():
    run = history()
    for name in ("train_loss", "validation_loss"):
        run[name] = np.where(np.arange(N) > 20, np.nan, run[name])
    run["train_loss"][21] = np.inf
    (ax,) = plot.learning_curves(run, Figure().subplots(), quantities="loss", against="step")
    assert [cross.get_xdata().item() for cross in crosses(ax)] == [200, 200]
    assert all(len(line.get_xdata()) == 21 for line in curves(ax))
    assert crosses(plot.learning_curves(history(), Figure().subplots(), quantities="loss")[0]) == []


def test_limits_show_what_is_good():
    """A loss that explodes leaves the picture; one that falls by orders of magnitude gets a logarithmic axis."""
    exploding = history()
    exploding["train_loss"] = exploding["train_loss"] + np.where(np.arange(N) > 35, 1e6, 0)
    (ax,) = plot.learning_curves(exploding, Figure().subplots(), quantities="loss")
    assert ax.get_ylim()[1] < 1.5
    (ax,) = plot.learning_curves(history(loss=100.0, rate=0.3), Figure().subplots(), quantities="loss")
    assert ax.get_yscale() == "log"
    flat = {"step": np.arange(3), "train_loss": np.zeros(3)}
    (ax,) = plot.learning_curves(flat, Figure().subplots(), quantities="loss", against="step")
    assert ax.get_ylim()[0] < 0 < ax.get_ylim()[1]
    negative = {"step": np.arange(100), "train_score": np.append(-1e12, np.linspace(0, 0.9, 99))}
    (ax,) = plot.learning_curves(negative, Figure().subplots(), quantities="score", against="step")
    assert ax.get_ylim()[0] > -1


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((3,), {}, TypeError, "history is a int"),
        (({},), {}, ValueError, "history has none of"),
        (({"a": history(), "b": 1},), {}, ValueError, "history has none of"),
        ((history(),), {"against": "hours"}, ValueError, "against is 'hours'"),
        ((history(),), {"running_mean": 0}, ValueError, "running_mean is 0"),
        ((history(),), {"running_mean": 2.5}, ValueError, "running_mean is 2.5; it must be a positive integer"),
        ((history(),), {"quantities": ["loss"]}, ValueError, "2 axes came; 1 are needed"),
        ((history(),), {"quantities": ["loss", "tears"]}, ValueError, "neither train_tears nor validation_tears"),
        (
            ({"step": np.arange(2), "train_loss": np.ones(2), "train_score": np.ones(2)},),
            {},
            ValueError,
            "has no epoch",
        ),
    ],
)
def test_learning_curves_say_what_does_not_fit(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        plot.learning_curves(*args, two_axes(), **kwargs)


# -------------------------------------------------------------------------------------------- sweep


def sweep_of(**grid):
    names = list(grid)
    params = [dict(zip(names, values, strict=True)) for values in itertools.product(*grid.values())]
    histories = [history(rate=0.02 + 0.01 * i, seed=i) for i in range(len(params))]
    table = {name: [run[name] for run in params] for name in names}
    table["validation_score"] = [0.5 + 0.01 * i for i in range(len(params))]
    return SimpleNamespace(params=params, histories=histories, table=table)


GRID = {"start": ["zeros", "normal"], "batch": [100, 10, 1000], "step": [1.0, 0.1, 0.01, 1e-5]}


def test_sweep_puts_many_values_in_lines_and_few_in_rows():
    result, axes = sweep_of(**GRID), Figure().subplots(2, 3)
    grid = plot.sweep(result, axes, quantity="train_loss")
    assert grid.shape == (2, 3)
    assert (grid == axes).all()
    assert [ax.get_title("left") for ax in grid[0]] == ["batch = 10", "batch = 100", "batch = 1000"]
    assert [ax.get_title("left") for ax in grid[1]] == [""] * 3
    assert [ax.get_ylabel() for ax in grid[:, 0]] == [f"start = {s}\ntraining loss" for s in ("zeros", "normal")]
    assert [ax.get_xlabel() for ax in grid[:, 0]] == ["", "step"]
    assert len({ax.get_ylim() for ax in grid.flat}) == 1
    for (i, j), ax in np.ndenumerate(grid):
        lines = curves(ax)
        assert len(lines) == 4
        for line in lines:
            wanted = {"start": GRID["start"][i], "batch": [10, 100, 1000][j], "step": float(line.get_label())}
            run = result.histories[result.params.index(wanted)]
            np.testing.assert_array_equal(line.get_ydata(), run["train_loss"])
            np.testing.assert_array_equal(line.get_xdata(), run["step"])
        assert rings(ax) == [], "the lowest loss of a batch says nothing"
    legend = grid[0, 0].get_legend()
    assert legend.get_title().get_text() == "step"
    # Numbers go from dark to light, with a marker each at the end.
    shades = [sum(to_rgb(line.get_color())) for line in sorted(curves(grid[0, 0]), key=lambda x: float(x.get_label()))]
    assert shades == sorted(shades)
    assert len({line.get_marker() for line in curves(grid[0, 0])}) == 4


def test_sweep_rings_the_best_score_of_all():
    result = sweep_of(**GRID)
    assert result.params[7] == {"start": "zeros", "batch": 10, "step": 1e-5}
    result.histories[7]["validation_score"][30] = 0.99
    grid = plot.sweep(result, Figure().subplots(2, 3), against="epoch")
    (place,) = [place for place, ax in np.ndenumerate(grid) if rings(ax)]
    assert place == (0, 0)
    (ring,) = rings(grid[place])
    assert (ring.get_xdata().item(), ring.get_ydata().item()) == (3.0, 0.99)
    assert grid[0, 0].get_ylabel().endswith("validation score")


def test_sweep_with_places_and_conditions():
    result = sweep_of(**GRID)
    grid = plot.sweep(result, Figure().subplots(4, 1), rows="step", lines="batch", where={"start": "normal"})
    assert grid.shape == (4, 1)
    assert all(len(curves(ax)) == 3 for ax in grid.flat)
    grid = plot.sweep(result, Figure().subplots(), where={"start": "zeros", "batch": 10}, running_mean=5)
    assert len(curves(grid[0, 0])) == 4
    grid = plot.sweep(result, Figure().subplots(), where=result.params[5])
    assert len(curves(grid[0, 0])) == 1
    assert grid[0, 0].get_legend() is None
    words = sweep_of(start=["zeros", "normal"], shuffle=[True, False, None])
    grid = plot.sweep(words, Figure().subplots(1, 2))
    assert [line.get_label() for line in curves(grid[0, 0])] == ["True", "False", "None"]


def test_sweep_shows_where_a_run_diverged_and_skips_what_was_not_recorded():
    result = sweep_of(step=[1.0, 0.1, 0.01])
    result.histories[0]["train_loss"][12:] = np.inf
    del result.histories[1]["train_loss"]
    grid = plot.sweep(result, Figure().subplots(), quantity="train_loss")
    (cross,) = crosses(grid[0, 0])
    assert cross.get_xdata().item() == 110
    assert sorted(line.get_label() for line in curves(grid[0, 0])) == ["0.01", "1"]


def test_sweep_chooses_what_to_show():
    result = sweep_of(step=[1.0, 0.1])
    for run in result.histories:
        del run["validation_score"]
    assert plot.sweep(result, Figure().subplots())[0, 0].get_ylabel() == "training loss"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rows": "speed"}, "speed does not vary; start, batch, step do"),
        ({"rows": "step", "lines": "step"}, "must differ"),
        ({"where": {"start": "ones"}}, "no run has {'start': 'ones'}"),
        ({"where": {"speed": 1}}, "no run has {'speed': 1}"),
        ({"quantity": "tears"}, "no run has recorded tears"),
        ({"against": "hours"}, "against is 'hours'"),
    ],
)
def test_sweep_says_what_does_not_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot.sweep(sweep_of(**GRID), Figure().subplots(2, 3), **kwargs)


def test_sweep_of_four_parameters_needs_a_condition():
    result = sweep_of(a=[1, 2], b=[1, 2], c=[1, 2], d=[1, 2, 3])
    with pytest.raises(ValueError, match="a, b, c, d vary; fix some with where="):
        plot.sweep(result)
    assert plot.sweep(result, Figure().subplots(2, 2), where={"b": 2}).shape == (2, 2)
    with pytest.raises(ValueError, match="1 axes came; 4 are needed"):
        plot.sweep(result, Figure().subplots(), where={"b": 2})


# ------------------------------------------------------------------------------------- score_against


def test_score_against_draws_a_line_through_the_best():
    result, ax = sweep_of(**GRID), Figure().subplots()
    assert plot.score_against(result, "step", ax) is ax
    assert ax.get_xscale() == "log"
    dots, line, ring, *_ = ax.get_lines()
    assert len(dots.get_xdata()) == 24
    x, y = np.array(result.table["step"]), np.array(result.table["validation_score"])
    np.testing.assert_array_equal(line.get_xdata(), np.unique(x))
    np.testing.assert_array_equal(line.get_ydata(), [y[x == value].max() for value in np.unique(x)])
    assert ring.get_ydata().item() == y.max()
    assert ax.get_title("left") == "best: step = 1e-05, 0.73"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "validation score")


def test_score_against_by_another_and_words():
    result, ax = sweep_of(**GRID), Figure().subplots()
    plot.score_against(result.table, "start", ax, by="batch")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["zeros", "normal"]
    legend = ax.get_legend()
    assert legend.get_title().get_text() == "batch"
    assert [text.get_text() for text in legend.get_texts()] == ["10", "100", "1000"]
    best = [line for line in ax.get_lines() if line.get_label() in ("10", "100", "1000")]
    assert {line.get_linestyle() for line in best} == {"None"}, "nothing lies between two words"


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 2, 50], "linear"), ([-1e3, 1, 1e3], "category"), ([0.0, 1e-4, 1.0], "category"), ([1e-3, 1.0, 2], "log")],
)
def test_scale_of_an_axis(values, scale):
    assert _drawing.scale_of(values)[0] == scale


def test_lower_losses_are_better_and_what_is_not_finite_is_left_out():
    table = {"alpha": [1.0, 1.0, 0.1, 0.1], "test_loss": [3.0, 2.0, np.nan, 5.0]}
    ax = plot.score_against(table, "alpha", Figure().subplots(), score="test_loss")
    dots, line, ring, *_ = ax.get_lines()
    assert len(dots.get_xdata()) == 3
    assert line.get_ydata().tolist() == [5.0, 2.0]
    assert ring.get_ydata().item() == 2.0


def test_values_far_off_become_marks_at_the_edge():
    scores = np.append(np.linspace(0.8, 0.9, 20), [0.1, 0.05])
    table = {"k": np.arange(22) % 4, "mean_test_score": scores}
    ax = plot.score_against(table, "k", Figure().subplots(), score="mean_test_score")
    assert 0.6 < ax.get_ylim()[0] < 0.8
    (edge,) = [line for line in ax.get_lines() if line.get_marker() == "v"]
    assert sorted(edge.get_xdata()) == [0, 1]
    assert [line for line in ax.get_lines() if line.get_marker() == "^" and len(line.get_xdata())] == []


def test_results_of_a_search_and_of_cross_validation_will_do():
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier

    from fastml import knn_cross_validation

    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5], "p": [1, 2]}).fit(X, y)
    ax = plot.score_against(search.cv_results_, "n_neighbors", Figure().subplots(), score="mean_test_score", by="p")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1", "2"]
    result = knn_cross_validation(X, y, n_neighbors=[1, 3], metrics=["l1", "l2"])
    plot.score_against(result, "n_neighbors", Figure().subplots(), score="mean_error", by="metric")


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (({"a": [1], "validation_score": [1.0]}, "b"), ValueError, "no column b, only a, validation_score"),
        (({"a": [1]}, "a"), ValueError, "no column validation_score"),
        (({"a": [1], "validation_score": [np.nan]}, "a"), ValueError, "no entry of validation_score is finite"),
        ((7, "a"), TypeError, "result is a int"),
    ],
)
def test_score_against_says_what_does_not_fit(args, error, message):
    with pytest.raises(error, match=message):
        plot.score_against(*args)


# ------------------------------------------------------------------------------- weights as images


def test_weights_share_a_symmetric_scale(rng):
    coef = rng.normal(size=(3, 12))
    coef[1, 5] = -7.0
    axes = plot.weights_as_images(coef, (3, 4), Figure().subplots(1, 3), labels=["a", "b", "c"])
    for ax, row, label in zip(axes, coef, "abc", strict=True):
        (image,) = ax.get_images()
        np.testing.assert_array_equal(image.get_array(), row.reshape(3, 4))
        assert image.get_clim() == (-7.0, 7.0)
        assert ax.get_title() == label
    (bar,) = [ax for ax in axes[0].figure.axes if ax not in axes.tolist()]
    assert bar.get_ylabel() == "weight"


def test_weights_of_one_class_and_a_given_limit(rng):
    (ax,) = plot.weights_as_images(rng.normal(size=6), [2, 3], Figure().subplots(), limit=0.5)
    assert ax.get_images()[0].get_clim() == (-0.5, 0.5)
    assert ax.get_title() == ""
    (ax,) = plot.weights_as_images(np.zeros(6), (2, 3), Figure().subplots())
    assert ax.get_images()[0].get_clim() == (-1.0, 1.0)


def test_colors_of_weights_are_told_apart_in_grey():
    values = _drawing.diverging()(np.linspace(0, 1, 51))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(values) > 0).all()
    r, g, b = _drawing.diverging()(0.5)[:3]
    assert max(r, g, b) - min(r, g, b) < 0.02, "0 is grey"


def test_weights_of_color_images():
    coef = np.zeros((1, 12))
    coef[0, :4] = [2.0, -2.0, 1.0, 0.0]  # red
    (ax,) = plot.weights_as_images(coef, (3, 2, 2), Figure().subplots())
    np.testing.assert_allclose(
        ax.get_images()[0].get_array(), [[[1, 0.5, 0.5], [0, 0.5, 0.5]], [[0.75, 0.5, 0.5], [0.5, 0.5, 0.5]]]
    )
    assert len(ax.figure.axes) == 1, "no bar: colours are the weights"


@pytest.mark.parametrize(
    ("coef", "shape", "kwargs", "message"),
    [
        (np.ones((2, 5)), (2, 3), {}, "coef has 5 columns, an image of shape"),
        (np.ones((2, 6)), (6,), {}, r"\(n, d\) and \(h, w\)"),
        (np.ones((2, 8)), (2, 2, 2), {}, r"\(3, h, w\)"),
        (np.ones((2, 2, 2)), (2, 2), {}, r"coef has shape \(2, 2, 2\)"),
        (np.ones((2, 6)), (2, 3), {"labels": ["a"]}, "1 labels came for 2 images"),
    ],
)
def test_weights_say_what_does_not_fit(coef, shape, kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot.weights_as_images(coef, shape, **kwargs)
    with pytest.raises(TypeError, match="coef is a object; an array of weights is needed"):
        plot.weights_as_images(object(), (2, 2))


def test_weights_of_models(rng):
    """Of a network each unit of the first layer has an image; of many those with the largest weights are shown."""
    network = SimpleNamespace(coefs_=[rng.normal(size=(6, 30)), np.ones((30, 2))])
    axes = plot.weights_as_images(network, (2, 3), Figure().subplots(3, 10))
    np.testing.assert_array_equal(axes[7].get_images()[0].get_array(), network.coefs_[0][:, 7].reshape(2, 3))
    network.coefs_[0][:, [3, 20]] *= 100
    axes = plot.weights_as_images(network, (2, 3), Figure().subplots(1, 2), most=2)
    assert [ax.get_title() for ax in axes] == ["3", "20"]
    linear = SimpleNamespace(coef_=np.arange(12.0).reshape(2, 6))
    axes = plot.weights_as_images(linear, (2, 3), Figure().subplots(1, 2))
    np.testing.assert_array_equal(axes[1].get_images()[0].get_array(), [[6, 7, 8], [9, 10, 11]])


# ----------------------------------------------------------------------------------- misclassified


def test_misclassified_images_and_the_surest_first(rng):
    X = rng.integers(0, 256, size=(5, 6), dtype=np.uint8)
    X[1, 0], X[4, 0] = 0, 255
    y, p = np.array(["a", "b", "b", "a", "a"]), np.array(["a", "a", "b", "a", "b"])
    axes = plot.misclassified(X, y, p, (2, 3), Figure().subplots(1, 2))
    assert [ax.get_title() for ax in axes] == ["b → a", "a → b"]
    wrong = X[[1, 4]].astype(float)
    expected = (wrong[0] - wrong.min()) / (wrong.max() - wrong.min())
    np.testing.assert_allclose(axes[0].get_images()[0].get_array(), expected.reshape(2, 3))
    sure = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.3, 0.7]])
    for confidence in (sure, sure.max(axis=1)):
        (ax,) = plot.misclassified(X, y, p, (2, 3), Figure().subplots(), confidence=confidence, most=1)
        assert ax.get_title() == "a → b"
    (ax,) = plot.misclassified(np.ones((1, 12)), [3], [5], (3, 2, 2), Figure().subplots())
    assert ax.get_images()[0].get_array().shape == (2, 2, 3)
    assert ax.get_title() == "3 → 5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 6)), [0, 1], [0, 1], (2, 3)), "nothing was misclassified"),
        ((np.ones((2, 6)), [0], [1, 0], (2, 3)), r"X has shape \(2, 6\), y_true \(1,\)"),
        ((np.ones((2, 6)), [0, 1], [1, 0], (2, 2)), r"X has 6 columns, shape is \(2, 2\)"),
        ((np.ones((2, 8)), [0, 1], [1, 0], (2, 2, 2)), r"\(3, h, w\)"),
    ],
)
def test_misclassified_says_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot.misclassified(*arguments)
    with pytest.raises(ValueError, match="confidence has 3 entries; X has 2 rows"):
        plot.misclassified(np.ones((2, 6)), [0, 1], [1, 0], (2, 3), confidence=[1, 1, 1])


# -------------------------------------------------------------------------------- confusion matrix


def test_confusion_matrix():
    y, p = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    ax = Figure().subplots()
    assert plot.confusion_matrix(y, p, ax, labels=["x", "y", "z"]) is ax
    np.testing.assert_array_equal(ax.get_images()[0].get_array(), [[2, 1, 0], [0, 2, 0], [1, 0, 0]])
    assert ax.get_title("left") == "2 of 6 wrong (33.33%)"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y", "z"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    texts = {text.get_position(): text for text in ax.texts}
    assert texts[0, 0].get_color() == "white"
    assert texts[0, 2].get_color() == "white"
    assert texts[2, 1].get_color() == "#b0b0b0"
    plot.confusion_matrix(y, p, ax := Figure().subplots(), normalize="true")
    assert ax.texts[0].get_text() == "0.67"


def test_long_names_are_turned():
    y = np.arange(10)
    ax = plot.confusion_matrix(y, y, Figure().subplots(), labels=[f"class {i}" for i in y])
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {45.0}
    ax = plot.confusion_matrix(y, y, Figure().subplots())
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {0.0}


# ------------------------------------------------------------------------------------- new figures


@pytest.mark.usefixtures("own_figures")
def test_every_plot_makes_its_own_figure(rng):
    assert plot.learning_curves(history()).shape == (2,)
    grid = plot.sweep(sweep_of(**GRID))
    assert grid.shape == (2, 3)
    figure = grid[0, 0].figure
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "step"
    assert all(ax.get_legend() is None for ax in grid.flat)
    assert grid[0, 0].get_shared_y_axes().joined(grid[0, 0], grid[1, 2])
    assert plot.score_against(sweep_of(**GRID), "step").get_lines()
    images = plot.weights_as_images(rng.normal(size=(7, 6)), (2, 3))
    assert images.shape == (7,)
    assert len(images[0].figure.axes) == 8, "seven images and the bar, no empty axes"
    assert plot.confusion_matrix([0, 1], [0, 1]).get_images()
    for ax in (images[0], grid[0, 0]):
        ax.figure.canvas.draw()


@pytest.mark.parametrize(
    "call",
    [
        lambda: plot.learning_curves(history()),
        lambda: plot.sweep(sweep_of(**GRID)),
        lambda: plot.score_against(sweep_of(**GRID), "step"),
        lambda: plot.weights_as_images(np.ones(6), (2, 3)),
        lambda: plot.misclassified(np.ones((1, 6)), [0], [1], (2, 3)),
        lambda: plot.confusion_matrix([0], [0]),
    ],
)
def test_without_matplotlib_the_message_says_what_to_install(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib.*pip install matplotlib"):
        call()
