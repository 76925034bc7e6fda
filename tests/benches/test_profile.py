"""Where the time of a batch goes: every layer is there, and what is a product is held against one."""

from __future__ import annotations

import pytest

from benches import __main__ as command
from benches.profile import convolution
from fastml.layers import Conv2D, Dropout, Linear, MaxPool2D, ReLU

pytestmark = pytest.mark.needs_jit


def test_every_layer_has_its_times():
    hidden = [Conv2D(4), ReLU(), MaxPool2D(), Dropout(), Conv2D(5), Linear(6)]
    times, whole = convolution.measure(hidden, (2, 8, 8), 4, batches=2)
    assert [each.name for each in times] == [
        "Conv2D 4×8×8", "ReLU 4×8×8", "MaxPool2D 4×4×4", "Dropout 4×4×4", "Conv2D 5×4×4", "Linear 6×1×1",
        "Linear 10×1×1",
    ]  # fmt: skip
    assert all(each.seconds["forward"] > 0 for each in times)
    assert 0 < sum(sum(each.seconds.values()) for each in times) <= whole
    first, _, _, _, second, linear, _ = times
    assert set(first.gemm) == {"forward", "gradient"}
    assert set(second.gemm) == set(linear.gemm) == set(convolution.DIRECTIONS)
    assert first.operations == 2 * 4 * 64 * 9 * 2 * 4
    assert linear.operations == 2 * 4 * 80 * 6
    assert times[1].gemm == {}


def test_the_command_prints_a_table(capsys):
    assert command.main(["layers", "--batches", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(convolution.hidden_layers()) + 1 + 2
    assert lines[1].startswith("Conv2D 64×32×32")
    assert max(map(len, lines)) <= 100
