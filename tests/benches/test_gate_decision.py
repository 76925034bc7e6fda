"""How the gate decides: its statistics by simulation, the recorded pairs, and what is accepted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benches.gate import (
    decision,
    rates,
)
from benches.gate.environments import GateError
from benches.gate.outcome import Accepted, read_accepted
from benches.measuring.repository import ROOT

RULE = decision.RULE


# Statistics --------------------------------------------------------------------------------------


def noise(random, pairs: int, benchmarks: int, spread: float = 0.04) -> np.ndarray:
    """Log ratios of identical sides: most pairs differ a little, now and then one differs much, in all benchmarks."""
    each = spread * random.standard_t(3, (pairs, benchmarks))
    disturbed = (random.random((pairs, 1)) < 0.05) * random.normal(0, 0.3, (pairs, 1))
    return each + disturbed


def test_identical_sides_give_no_false_alarm():
    values = noise(np.random.default_rng(1), 40, 200)
    rate = rates.false_alarms(values, gates=300)
    assert rate.times / rate.gates < 0.01


def test_a_planted_slowdown_is_found():
    values = noise(np.random.default_rng(2), 40, 60)
    each = [[column] for column in range(60)]
    rate = rates.power(values, each, 1.3, gates=300)
    assert rate.times / rate.gates > 0.95
    assert rates.power(values, each, 1.0, gates=300).times <= 3


def test_what_is_hard_to_find_is_named():
    values = noise(np.random.default_rng(6), 30, 6, 0.01)
    values[:, 4] *= 40
    values[:, 2] = 0
    assert [*rates.hard_to_find(values)] == [4]


def test_the_simulation_finds_a_rule_that_is_too_eager():
    eager = decision.Rule(screen=1.0, slower=1.0, floor=1.0, level=1.0, confirming_pairs=5)
    assert rates.false_alarms(noise(np.random.default_rng(3), 40, 200), eager, gates=50).times > 25


def test_much_that_is_slower_does_not_hide_itself():
    values = noise(np.random.default_rng(4), RULE.confirming_pairs, 500, 0.01) + math.log(1.5)
    assert decision.confirmed(values).mean() > 0.99


def test_small_differences_are_no_slowdowns():
    values = np.full((RULE.confirming_pairs, 1), math.log(1.07))
    assert not decision.suspected(values).any()
    assert not decision.confirmed(values).any()
    assert decision.confirmed(values + math.log(1.1)).all()


def test_one_pair_more_or_less_decides_by_the_sign_test():
    for above, is_slower in ((RULE.confirming_pairs, True), (RULE.confirming_pairs // 2 + 2, False)):
        values = np.full((RULE.confirming_pairs, 1), math.log(1.3))
        values[above:] = 0
        assert decision.confirmed(values).tolist() == [is_slower]


def test_a_benchmark_that_ran_in_no_pair_is_neither_suspected_nor_confirmed():
    values = np.full((5, 2), np.nan)
    values[:, 0] = 1
    assert decision.suspected(values).tolist() == [True, False]
    assert decision.confirmed(values[:, 1:]).tolist() == [False]


def test_log_ratio_is_positive_where_the_head_is_slower():
    assert decision.log_ratio(np.array([1.0, 1.0, 9.0]), np.array([2.0, 2.0, 2.0])) == pytest.approx(math.log(2))


def test_bounds_of_a_share():
    # Clopper and Pearson, by scipy.stats.binomtest(10, 100).proportion_ci().
    assert rates.bounds(10, 100) == pytest.approx((0.0490047, 0.1762226), abs=1e-6)
    assert rates.bounds(100, 100) == pytest.approx((0.9637833, 1), abs=1e-6)
    assert str(rates.Rate(0, 1000)) == "0.0 % (0.0 to 0.4)"


def test_intervals_hold_the_median():
    random = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        low, high = decision.interval(random.normal(0.1, 0.05, 15))
        held += math.log(low) <= 0.1 <= math.log(high)
    assert held >= 375
    assert all(math.isnan(bound) for bound in decision.interval(np.array([np.nan])))


def test_the_recorded_pairs_of_the_repository_keep_what_the_guide_promises():
    folder = ROOT / "benches" / "gate" / "recorded"
    if not any(folder.glob("*.json")):
        pytest.skip("no pairs are recorded yet")
    names, kernels, values, _ = rates.read(folder)
    assert len(values) >= rates.LEAST_PAIRS
    of_kernels = [[i for i, kernel in enumerate(kernels) if kernel == one] for one in dict.fromkeys(kernels)]
    assert rates.false_alarms(values, gates=200).times <= 2
    assert rates.power(values, of_kernels, 1.3, gates=200).times >= 190
    assert len(names) > 100


# Intended slowdowns ------------------------------------------------------------------------------


def test_the_file_of_intended_slowdowns_is_read(tmp_path):
    assert read_accepted(tmp_path / "none.toml") == []
    assert isinstance(read_accepted(ROOT / "benches" / "accepted.toml"), list)
    file = tmp_path / "accepted.toml"
    file.write_text('[[accepted]]\nbenchmark = "softmax float64*"\nfactor = 1.3\nreason = "right first"\n')
    [entry] = read_accepted(file)
    assert entry.covers("softmax float64 tiny")
    assert not entry.covers("log_softmax float64")
    # Brackets are a part of names.
    assert Accepted("k_nearest[l1] float32", "x", 2).covers("k_nearest[l1] float32")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[accepted]]\nbenchmark = "a"\nfactor = 1.3\nreason = " "\n', "a reason, both texts"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = 0.9\nreason = "b"\n', "above 1"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = "2"\nreason = "b"\n', "above 1"),
        ('[[accepted]]\nbenchmark = "*"\nfactor = inf\nreason = "b"\n', "up to 10"),
        ('[[accepted]]\nbenchmark = 1\nreason = "b"\n', "both texts"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = 1.9\n', "reason"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = 1.9\nreason = "b"\nuntil = 1\n', "until"),
        ("[[acepted]]\n", "acepted"),
        ("[[\n", "accepted.toml"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path, text, problem):
    file = tmp_path / "accepted.toml"
    file.write_text(text)
    with pytest.raises(GateError, match=problem):
        read_accepted(file)
