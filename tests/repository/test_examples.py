"""The examples: each runs as it is, says what it promises, and reaches the known figures."""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes

from checkout import ROOT
from fastml import datasets, kernels

FOLDER = ROOT / "examples"
SCRIPTS = sorted(FOLDER.glob("w*.py"))
# These make their data themselves, with --full too.
WITHOUT_FILES = {"w14_regression", "w17_xor", "w18_sampling"}

needs_data = pytest.mark.skipif("FASTML_DATA" not in os.environ, reason="FASTML_DATA is not set")
pytestmark = pytest.mark.needs_jit


@pytest.fixture
def example(monkeypatch):
    """``example(name)``: the module of a script, found by the beginning of its file name."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(FOLDER))
        (path,) = FOLDER.glob(f"{name}*.py")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.slow  # what a script computes, the tests below compute too
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_from_any_folder_without_data(path, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FASTML_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed
    assert "DIFFER" not in printed
    assert list(tmp_path.iterdir()) == []


def test_a_script_is_a_program(tmp_path):
    # fastml as these tests see it, installed or not.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / "w08_distances.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_list_of_examples_is_complete():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in SCRIPTS if f"]({path.name})" not in text] == []
    assert len(SCRIPTS) >= 3


def test_those_that_make_their_own_data_are_known():
    stems = {path.stem for path in SCRIPTS}
    assert WITHOUT_FILES < stems


@pytest.mark.parametrize("path", [p for p in SCRIPTS if p.stem not in WITHOUT_FILES], ids=lambda path: path.stem)
def test_full_without_data_says_what_is_missing(path, example, monkeypatch):
    monkeypatch.delenv("FASTML_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="FASTML_DATA"):
        example(path.stem).main(["--full"])


def test_verdict(example):
    example("w08")
    import _common

    assert _common.verdict("0.5", None) == "0.5"
    assert _common.verdict("0.5", "0.5") == "0.5 (as known)"
    assert "DIFFERS: 0.6" in _common.verdict("0.5", "0.6")


def test_w01_known_probabilities_and_costs_that_stay_finite(example, capsys):
    w01 = example("w01")
    found = w01.main([])
    assert "0.73105858 0.73105858 (as known)" in capsys.readouterr().out
    p, predicted = w01.predict(np.ones((2, 90), np.float32), np.zeros(90, np.float32), 1.0)
    np.testing.assert_allclose(p, 0.73105858, rtol=1e-7)
    assert predicted.tolist() == [True, True]
    assert w01.predict(np.ones((1, 2)), np.zeros(2), 0.0)[1].tolist() == [True], "0.5 counts as class 1"
    for name, costs in found.items():
        assert costs.ours_finite == w01.SEEDS
        assert costs.largest_error < (1e-6 if "float32" in name else 1e-14)
    assert min(costs.naive_finite for costs in found.values()) < w01.SEEDS


def test_w02_gradient_agrees_with_formula_and_differences(example):
    w02 = example("w02")
    rng = np.random.default_rng(0)
    # 90 columns are the size of the published check, whose norm was 8.3e-7.
    for found in (*w02.main([]), w02.check(rng.normal(size=(w02.ROWS, 90)), rng.integers(0, 2, w02.ROWS))):
        assert found.formula < 1e-14
        assert found.bound / 4 < found.forward <= found.bound < 8.3e-7
        assert found.central <= 1e-8


def test_w02_finds_a_wrong_gradient(example, monkeypatch, capsys):
    w02 = example("w02")
    right = kernels.linear_loss_gradient

    def wrong(*args, **kwargs):
        value, dW, db = right(*args, **kwargs)
        return value, dW * (1 + 1e-5), db

    monkeypatch.setattr(kernels, "linear_loss_gradient", wrong)
    w02.main([])
    assert capsys.readouterr().out.count("DIFFERS, more than") == 2


def test_w03_keeps_the_last_of_the_best_weights(example, tmp_path, capsys):
    w03 = example("w03")
    model, accuracies = w03.main(["--plot", str(tmp_path / "curves.png")])
    history = model.history_
    assert history["step"].tolist() == list(range(10, 5001, 10))
    # Seven batches of 50 to an epoch of 364 rows: the eighth would not be full.
    np.testing.assert_allclose(history["epoch"], history["step"] / 7)
    scores = history["validation_score"]
    assert model.best_step_ == history["step"][np.flatnonzero(scores == scores.max())[-1]]
    assert accuracies["mini-batches"][1] == scores.max() > 0.95
    assert accuracies["mini-batches"][2] > 0.93
    assert history["train_loss"][-50:].mean() < history["train_loss"][:5].mean() / 3
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert "published" not in capsys.readouterr().out, "those figures are of other data"


@needs_data
def test_w03_is_as_good_as_the_library_on_songs(example):
    _, accuracies = example("w03").main(["--full"])
    np.testing.assert_allclose(accuracies["mini-batches"], accuracies["scikit-learn"], rtol=0, atol=0.01)


def test_w04_says_which_steps_are_too_small_and_too_large(example, tmp_path):
    w04 = example("w04")
    result, losses, kinds = w04.main(["--plot", str(tmp_path / "curves.png")])
    assert len(result.params) == 24
    by_step = {step: [kinds[i] for i in range(24) if result.params[i]["eta0"] == step] for step in w04.STEPS}
    assert by_step == {1e-5: ["too small"] * 6, 0.01: ["too small"] * 6, 0.1: ["good"] * 6, 1.0: ["too large"] * 6}
    assert np.isfinite(losses).all()
    assert result.best_value > 0.97
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_w04_a_run_by_itself_is_the_same(example):
    w04 = example("w04")
    result = w04.main(["--steps", "300"]).result
    task = w04.songs_or_synthetic(argparse.Namespace(full=False, synthetic=False))
    alone = clone(result.estimators[13]).fit(task.X_train, task.t_train, X_val=task.X_val, y_val=task.t_val)
    np.testing.assert_array_equal(alone.coef_, result.estimators[13].coef_)


def test_w04_judges_a_run_that_diverged(example):
    histories = [{"validation_loss": np.full(30, loss)} for loss in (0.7, 0.5, 0.505, 0.1)]
    params = [{"batch_size": 10, "eta0": step} for step in (0.01, 0.1, 1.0, 10.0)]
    result = SimpleNamespace(params=params, histories=histories, statuses=["max_iter"] * 3 + ["diverged"])
    losses, kinds = example("w04").judge(result)
    np.testing.assert_allclose(losses, [0.7, 0.5, 0.505, np.inf])
    assert kinds == ["too small", "good", "good", "too large"]


@pytest.mark.parametrize("intercept", [[], ["--intercept"]], ids=["constant", "intercept"])
def test_w05_stops_early_with_the_best_weights(example, tmp_path, intercept):
    w05 = example("w05")
    found = w05.main(["--plot", str(tmp_path / "curves.png"), *intercept])
    history = found.model.history_
    assert found.formula < 1e-15
    assert found.model.coef_.shape == (1, 64 + (not intercept))
    assert (found.model.intercept_ != 0) == bool(intercept)
    assert np.sum(history["epoch"] <= 2) == 10, "five validations an epoch"
    assert found.model.n_iter_ < found.model.max_iter
    assert found.model.best_step_ == history["step"][history["validation_loss"].argmin()]
    since = history["validation_loss"][-w05.PATIENCE - 1 :]
    assert since.min() > since[0] - found.model.tol * w05.PATIENCE
    assert found.accuracy > 0.93
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@needs_data
def test_w05_twos_and_threes_of_mnist(example):
    found = example("w05").main(["--full"])
    assert found.accuracy > 0.97
    assert found.model.best_step_ <= found.model.history_["step"][-1]


def check_w06(rows):
    large, small = rows[:4], rows[4:]
    assert [row.penalty for row in rows] == [1.0, 0.1, 0.01, 0.001] * 2
    assert large[0].step == large[3].step > small[0].step
    for runs in (large, small):
        norms = [row.norm for row in runs]
        assert norms == sorted(norms), "‖w‖ falls as λ grows"
    assert large[0].validation == pytest.approx(0.5, abs=0.02), "no better than guessing"
    assert large[3].validation > 0.94
    assert 0.88 < small[0].validation == min(row.validation for row in small)


def test_w06_what_the_penalty_does(example, tmp_path):
    check_w06(example("w06").main(["--plot", str(tmp_path / "plots.png")]))
    assert (tmp_path / "plots.png").stat().st_size > 10_000


@needs_data
def test_w06_on_mnist(example):
    check_w06(example("w06").main(["--full"]))


def test_w07_gradient_in_all_weights_training_and_images(example, tmp_path):
    w07 = example("w07")
    checks, trained = w07.main(["--plot", str(tmp_path / "weights.png")])
    for check in checks:
        assert check.n_coordinates == 650
        assert 0 < check.max_error <= w07.EPSILON**2
        assert check.kinks == []
    free, penalized = trained[0.0], trained[0.1]
    assert free.accuracies[0] > 0.95
    assert free.accuracies[2] > 0.86
    assert free.costs[0] < free.costs[1] < penalized.costs[1]
    assert np.linalg.norm(penalized.coef) < np.linalg.norm(free.coef) / 10
    assert (tmp_path / "weights.png").stat().st_size > 10_000


def test_w07_finds_a_penalty_without_its_factor_of_two(example, rng):
    w07 = example("w07")
    X, y = np.ones((4, 3)), np.array([0, 1, 2, 3])
    entropy = kernels.linear_loss_gradient

    def cost(W):
        value, dW, _ = entropy("softmax_cross_entropy", X, y, W, np.zeros(10))
        return value / 10 + 0.1 * float(np.sum(W**2)), dW / 10 + 0.1 * W

    wrong = w07.check_gradient(cost, rng.normal(size=(10, 3)), step=w07.EPSILON)
    assert w07.check_cost(X, y, 0.1).max_error <= w07.EPSILON**2 < wrong.max_error


@needs_data
@pytest.mark.slow
def test_w07_known_accuracy_on_mnist(example, monkeypatch):
    """All of MNIST: about 0.92 on the test set."""
    w07 = example("w07")
    monkeypatch.setattr(w07, "CHECKED_ROWS", 10)
    monkeypatch.setattr(w07, "STEPS", {0.0: 5.0})
    checks, trained = w07.main(["--full"])
    assert checks[0].n_coordinates == 7850
    assert checks[0].max_error <= w07.EPSILON**2
    assert trained[0.0].accuracies[2] == pytest.approx(0.92, abs=0.006)


def test_w08_three_ways_agree(example, capsys):
    rows = example("w08").main([])
    assert [row.norm for row in rows] == ["l1", "l2", "linf"]
    for row in rows:
        assert len(set(row.frobenius)) == 1
    assert "WAYS DIFFER" not in capsys.readouterr().out


def test_w08_finds_ways_that_differ(example, monkeypatch, capsys):
    w08 = example("w08")
    monkeypatch.setitem(w08.NORMS, "l1", lambda v: np.abs(v).sum() + 1)
    w08.main([])
    assert capsys.readouterr().out.count("THE WAYS DIFFER") == 1


@needs_data
def test_w08_known_norms(example):
    w08 = example("w08")
    cifar = datasets.load_cifar10(batches=[1])
    for norm, known in w08.KNOWN.items():
        D = getattr(kernels, f"pairwise_{norm}")(cifar.X_test[:500], cifar.X_train[:5000])
        assert f"{np.linalg.norm(D.astype(np.float64)):.3f}" == known


@needs_data
def test_w09_known_error_rates(example):
    w09 = example("w09")
    assert w09.error_rates(datasets.load_cifar10(batches=[1]), 500, 5000) == w09.KNOWN


@pytest.mark.slow
def test_w10_scores_are_those_of_each_fold_and_the_plot_is_written(example, tmp_path, capsys):
    w10 = example("w10")
    by_k, by_norm = w10.main(["--plot", str(tmp_path / "errors.png"), "--compare", "1"])
    assert (tmp_path / "errors.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "the same scores" in printed
    assert "times faster" in printed
    assert by_k.n_neighbors == tuple(w10.K)
    assert by_norm.n_neighbors == (by_k.best_params["n_neighbors"],)


def test_w10_finds_scores_that_differ(example, monkeypatch, capsys):
    w10 = example("w10")
    monkeypatch.setattr(w10, "fold_by_fold", lambda X, y, result: np.nextafter(result.scores, 2))
    monkeypatch.setattr(w10, "K", [1, 30])
    w10.main([])
    assert "NOT THE SAME scores" in capsys.readouterr().out


def test_w11_gradient_first_loss_and_steps(example, tmp_path, capsys):
    w11 = example("w11")
    found = w11.main(["--plot", str(tmp_path / "plots.png")])
    assert len(found.check.coordinates) == 50
    assert found.check.max_relative_error <= 1e-6
    assert found.first_loss == pytest.approx(np.log(10), abs=0.05)
    assert found.last_loss < 0.35
    steps = [params["eta0"] for params in found.result.params]
    scores = dict(zip(steps, found.result.table["validation_score"], strict=True))
    assert max(scores, key=scores.get) in w11.STEPS["digits"].better
    assert scores[2.0] < max(scores.values()) - 0.015
    assert (tmp_path / "plots.png").stat().st_size > 10_000
    assert "published" not in capsys.readouterr().out, "those figures are of CIFAR-10"


@needs_data
@pytest.mark.slow
def test_w11_loss_ends_where_it_is_known_to(example):
    """On a fifth of the images, which are fitted a little better than all."""
    w11 = example("w11")
    found = w11.main(["--full"])
    assert found.check.max_relative_error <= 1e-6
    assert found.first_loss == pytest.approx(np.log(10), abs=0.15)
    assert w11.KNOWN_LOSS[0] - 0.05 < found.last_loss < w11.KNOWN_LOSS[1]
    by_step = dict(zip((p["eta0"] for p in found.result.params), found.result.table["validation_score"], strict=True))
    assert max(by_step[step] for step in w11.STEPS["CIFAR-10"].large) < 0.36 < by_step[3e-7]


def test_w12_hinge_its_kinks_and_its_descent(example, capsys):
    w12 = example("w12")
    found = w12.main([])
    assert "loss at w = 0, b = 0: 1.000000000000 (as known)" in capsys.readouterr().out
    assert found.formula < 1e-14
    found.smooth.assert_within(1e-6)
    assert found.smooth.kinks == []
    found.at_kink.assert_within(1e-6)
    assert len(found.at_kink.kinks) == found.at_kink.n_coordinates == 31
    assert found.losses[-1] < 0.06
    assert found.accuracy > 0.97


def test_w12_margins_of_exactly_1_do_not_take_part(example):
    w12 = example("w12")
    X, y = np.array([[2.0], [3.0]]), np.array([1.0, -1.0])
    for loss, dw, db in (
        w12.formula(X, y, np.zeros(1), 1.0),
        kernels.linear_loss_gradient("hinge", X, y, np.zeros(1), 1.0),
    ):
        assert (loss, dw.tolist(), db) == (1.0, [1.5], 0.5)


def test_w13_noise_is_a_penalty(example):
    rows, small, large = example("w13").main([])
    assert [row.sigma for row in rows] == [0.1, 0.3, 1.0, 3.0]
    for row in rows:
        assert abs(row.standard_errors) < 4
        assert row.difference < 0.04
    assert small < 1e-8
    assert large < 1e-9


def test_w13_a_penalty_without_the_number_of_rows_is_found(example, monkeypatch, rng):
    w13 = example("w13")
    monkeypatch.setattr(w13, "ridge", lambda X, y, sigma: w13.Ridge(sigma**2, fit_intercept=False).fit(X, y).coef_)
    assert w13.simulate(rng.normal(size=(50, 3)), rng.normal(size=50), 1.0, 200, rng).difference > 0.1


@pytest.mark.slow
def test_w14_results_and_checkpoints(example, tmp_path, capsys):
    w14 = example("w14")
    result, test_loss, penalized = w14.main(["--plot", str(tmp_path / "plots.png")])
    table = result.table
    assert len(table["eta0"]) == 256
    assert result.best_params == {"batch_size": 40, "eta0": 3e-3, "max_iter": 64, "alpha": 1e-7}, (
        "as published, for n/5"
    )
    assert result.best_value == min(table["validation_loss"]) < 90
    train, val, test = w14.faces((800, 200, 500), 0)
    assert w14.half_mse(result.best_estimator, val) == pytest.approx(result.best_value, rel=1e-12)
    assert w14.half_mse(result.best_estimator, test) == test_loss < np.var(test.y) / 2 * 0.7
    assert test_loss < penalized < test_loss + 0.01

    def place(**setting):
        return result.params.index({"batch_size": 160, "eta0": 3e-3, "max_iter": 16, "alpha": 1e-7} | setting)

    short = result.estimators[place()]
    assert short.n_iter_ == 16
    alone = clone(short).fit(train.X, train.y - w14.INTERCEPT)
    np.testing.assert_array_equal(alone.coef_, short.coef_)
    assert np.linalg.norm(result.estimators[place(alpha=1e-1)].coef_) < np.linalg.norm(short.coef_)
    assert "published     160   0.003      64   1e-07      114.33   112.39" in capsys.readouterr().out
    assert (tmp_path / "plots.png").stat().st_size > 10_000


@pytest.mark.slow
def test_w14_the_best_setting_is_the_published_one(example):
    w14 = example("w14")
    result, test_loss, _ = w14.main(["--full"])
    assert tuple(result.best_params.values()) == w14.KNOWN[:4]
    assert test_loss == pytest.approx(result.best_value, rel=0.1)


def test_w15_counts_are_the_gradient_and_descent_reaches_the_minimum(example):
    found = example("w15").main([])
    assert found.counted < 1e-14
    found.check.assert_within(1e-6)
    y = np.sort(load_diabetes(return_X_y=True)[1])
    assert y[220] - 1 <= found.median <= y[221] + 1
    assert found.exact <= found.reached < found.exact * 1.0005


def test_w16_the_likelihood_is_largest_and_takes_the_noise_for_too_small(example):
    found, gain, simulated = example("w16").main([])
    assert found.weights < 1e-12
    assert found.variance < 1e-14
    assert found.slope < 1e-13
    assert gain < 0
    assert simulated.expected_variance == pytest.approx(4 * 40 / 50)
    assert simulated.variance < 4
    assert simulated.weights < 4.5, "the largest of ten"


def test_w17_ends_at_half_whatever_the_start(example, capsys):
    exact, reached = example("w17").main([])
    np.testing.assert_allclose(exact, [0, 0, 0.5], rtol=0, atol=1e-15)
    np.testing.assert_allclose(reached, np.tile([0, 0, 0.5], (10, 1)), rtol=0, atol=1e-9)
    assert capsys.readouterr().out.count("(as known)") == 3


def test_w18_shares_variances_and_steps_are_as_predicted(example, capsys):
    shares, variances, losses = example("w18").main([])
    assert "0.358 (as known)" in capsys.readouterr().out
    for n, share in shares.items():
        assert share == pytest.approx((1 - 1 / n) ** n, abs=0.01)
    for one in variances:
        assert one.with_replacement == pytest.approx(1, abs=0.15)
        assert one.without == pytest.approx(1, abs=0.15)
    for sampling in ("permutation", "replacement"):
        fixed, scaled = losses[sampling, "0.02 for all"], losses[sampling, "0.02 × batch / 10"]
        assert fixed == sorted(fixed)
        assert fixed[-1] > 2 * fixed[0]
        assert max(scaled) < 1.15 * min(scaled)


def test_w19_no_loss_and_no_errors_where_classes_can_be_separated(example, capsys):
    w19 = example("w19")
    found = w19.main([])
    assert "loss at w = 0: 1.000000000000 (as known)" in capsys.readouterr().out
    assert found.formula < 1e-13
    for name in ("three directions", "1,437 images"):
        assert found.rows[name].loss == 0
        assert found.rows[name].errors == 0
        assert found.rows[name].epochs < 1000
    overlapping = found.rows["three that overlap"]
    assert 0 < overlapping.errors / 2000 <= overlapping.loss
    assert overlapping.epochs == 1000


def test_w19_the_formula_by_hand(example):
    """The scores 3, 1, -2 are right for class 0 by more than 1, and wrong for class 2 by 5."""
    W, X, y = np.array([[3.0], [1.0], [-2.0]]), np.array([[1.0], [1.0]]), np.array([0, 2])
    assert example("w19").formula(W, X, y) == 3
    assert kernels.multiclass_hinge(X @ W.T, y) == 3


@needs_data
def test_w19_images_of_mnist(example):
    assert example("w19").main(["--full"]).rows["5,000 images"][:2] == (0, 0)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["w01", "w02", "w12", "w15"])
def test_full_on_songs(name, example, capsys):
    example(name).main(["--full"])
    assert "DIFFERS" not in capsys.readouterr().out


def check_w20(primal, dual, difference):
    for side in (primal, dual):
        assert 0 <= side.gap + 1e-15 < 1e-6
        assert side.constraint < 1e-10
    assert primal.primal == pytest.approx(dual.primal, rel=1e-6)
    assert difference < 1e-3


def test_w20_primal_and_dual_meet(example):
    check_w20(*example("w20").main([]))


@needs_data
def test_w20_on_songs(example):
    check_w20(*example("w20").main(["--full"]))


@pytest.mark.slow
def test_seeds_repeats_what_depends_on_them(example, capsys):
    seeds = example("seeds")
    found = seeds.main(["--seeds", "2"])
    assert len(found) == sum(map(len, seeds.FIGURES.values()))
    assert all(len(set(values)) == 2 for (script, _), values in found.items() if script != "w03_mini_batches")
    first = found["w11_softmax", "loss at the end"]
    np.testing.assert_allclose(first[0], example("w11").main([]).last_loss, rtol=0)
    np.testing.assert_allclose(first, first[0], rtol=0.05)
    assert len(capsys.readouterr().out.splitlines()) > len(found)


def test_w21_a_convolutional_network_four_times(example, tmp_path, capsys):
    found = example("w21_convolutional").main(["--epochs", "3", "--seeds", "2", "--plot", str(tmp_path / "curves.png")])
    assert [len(models) for models in found.values()] == [2] * 4
    large_steps = found["Adam, 5e-3"]  # not too large for images of 64 pixels
    assert min(model.history_["validation_score"][-1] for model in large_steps) > 0.6
    assert len(large_steps[0].history_["epoch"]) == 3
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert text.count("±") == 4
    assert "published" not in text, "those figures are of other data"


def check_w21(found):
    assert found.error <= 4 * np.finfo(np.float64).eps
    scores = {step: model.history_["validation_score"] for step, model in found.models.items()}
    assert max(scores, key=lambda step: scores[step][-1]) in (0.1, 1.0)
    assert scores[0.001][-1] < scores[0.1][-1]
    return scores


def test_w21_the_maximum_and_six_steps(example, tmp_path):
    found = example("w21_networks").main(["--plot", str(tmp_path / "plots.png")])
    assert check_w21(found)[0.1][-1] > 0.85
    assert found.wide_accuracy > 0.85
    for name in ("plots", "plots-weights", "plots-errors"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@needs_data
@pytest.mark.slow
def test_w21_on_mnist(example):
    """A sixth of the epochs; seeds differ by 0.002 in either accuracy."""
    found = example("w21_networks").main(["--full", "--epochs", "5"])
    assert check_w21(found)[0.1][-1] >= 0.93
    assert found.wide_accuracy >= 0.974
