"""The command ``layers`` of ``python -m benches``."""

from __future__ import annotations

import argparse
from typing import Any

from ..measuring import targets
from ..measuring.command_line import count, let_idle_threads_sleep

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Add the command's parser."""
    layers = commands.add_parser(
        "layers",
        help="where the time of a convolutional network's batch goes",
        description="Train a convolutional network of 3 x 32 x 32 images, 64 a batch, with one thread, and time each "
        "layer. Shares are of the rate of NumPy's product of matrices of the same size: above 1 we are faster.",
    )
    layers.add_argument("--batches", type=count, default=20, metavar="N", help="to train for (default: 20)")
    targets.add_option(layers)
    layers.set_defaults(run=_layers, needs={"threadpoolctl": "bench"})


def _layers(options: argparse.Namespace) -> int:
    let_idle_threads_sleep()
    from ..measuring import formats
    from .convolution import measure, table

    print(table(*measure(batches=options.batches)))
    if target := formats.target({"target": targets.state(("fastml", "numpy"))}):
        print(target)
    return 0
