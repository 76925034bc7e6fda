"""The table of losses, and all that must agree with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastml import kernels
from fastml.kernels.catalogue.losses import LOSSES as CATALOGUED
from fastml.kernels.losses.class_formulas import CLASSWISE
from fastml.kernels.losses.formulas import POINTWISE
from fastml.kernels.losses.table import LOSSES, NETWORK_LOSSES, OF_ONE_SCORE, OVER_CLASSES, target_of
from fastml.kernels.networks.arguments import NETWORK_LOSSES as CHECKED_BY_NETWORKS
from fastml.kernels.runtime.jit import inner
from fastml.kernels.runtime.switch import switch


def test_every_loss_has_one_formula():
    assert tuple(POINTWISE) == OF_ONE_SCORE
    assert tuple(CLASSWISE) == OVER_CLASSES
    assert {*POINTWISE, *CLASSWISE} == set(LOSSES)


def test_every_loss_and_its_gradient_are_public_functions_of_the_family():
    for name, loss in LOSSES.items():
        for function in (name, f"{name}_gradient"):
            assert getattr(kernels, function).__module__ == f"fastml.kernels.losses.{loss.family}"


def test_the_catalogue_has_all_losses_in_the_order_of_the_table():
    assert list(CATALOGUED) == list(LOSSES)


def test_a_loss_with_a_kink_says_what_steps_go_by():
    for name, loss in LOSSES.items():
        assert (loss.kink_curvature is not None) == (loss.jump > 0), name
        assert loss.step_curvature > 0


def test_networks_take_what_the_table_gives_them():
    assert CHECKED_BY_NETWORKS is NETWORK_LOSSES
    assert all(LOSSES[name].in_networks for name in NETWORK_LOSSES)


def test_the_table_loads_neither_numba_nor_numpy():
    code = "import sys, fastml.kernels.losses.table; sys.exit(bool({'numpy', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_that_are_none_are_refused():
    assert target_of("huber") == "real"
    with pytest.raises(ValueError, match=r"loss is 'cosh'; it must be one of 'binary_cross_entropy', .*'huber'"):
        target_of("cosh")
    with pytest.raises(TypeError, match="loss is a int; it must be a str, one of 'binary_cross_entropy'"):
        target_of(3)


def _times(factor):
    @inner
    def product(x):  # type: ignore[no-untyped-def]
        return factor * x

    return product


@pytest.mark.parametrize("functions", [1, 2, 5, 6, 7, 11, 12])
def test_a_switch_takes_any_number_of_functions(functions):
    choose = switch(*map(_times, range(functions)))

    @inner
    def call(number, x):  # type: ignore[no-untyped-def]
        return choose(number, x)

    assert [call(number, 10) for number in range(functions)] == [10 * number for number in range(functions)]
