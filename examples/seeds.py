"""How much the figures of the examples depend on the seed: mean and range over some seeds.

W3, W4, W11 and W14 start from random weights or take random batches. Their other figures, and those of the other
examples, do not depend on a seed. --full as in the examples: real sizes, on data from the data folder.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from _common import arguments

#: Script -> figure -> how to take it from what the script's `main` returns.
FIGURES: Mapping[str, Mapping[str, Callable[[Any], float]]] = {
    "w03_mini_batches": {
        "validation accuracy": lambda found: found.accuracies["mini-batches"][1],
        "test accuracy": lambda found: found.accuracies["mini-batches"][2],
    },
    "w04_sweep": {"best validation accuracy": lambda found: found.result.best_value},
    "w11_softmax": {
        "loss of the first batch": lambda found: found.first_loss,
        "loss at the end": lambda found: found.last_loss,
        "best validation accuracy": lambda found: found.result.best_value,
    },
    "w14_regression": {
        "least validation loss": lambda found: found.result.best_value,
        "its test loss": lambda found: found.test_loss,
    },
}


def run(script: str, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Return the figures of one run, whose output is dropped."""
    argv = ["--seed", str(seed)] + ["--full"] * options.full
    if options.data:
        argv += ["--data", options.data]
    if options.threads:
        argv += ["--threads", str(options.threads)]
    with contextlib.redirect_stdout(io.StringIO()):
        found = importlib.import_module(script).main(argv)
    return {figure: take(found) for figure, take in FIGURES[script].items()}


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, str], np.ndarray]:
    options = arguments(__doc__, argv, _more)
    found = {}
    print(f"{'script':<17} {'figure':<25} {'mean':>9} {'least':>9} {'largest':>9}   over {options.seeds} seeds")
    for script, figures in FIGURES.items():
        rows = [run(script, options, seed) for seed in range(options.seeds)]
        for figure in figures:
            values = found[script, figure] = np.array([row[figure] for row in rows])
            print(
                f"{script:<17} {figure:<25} {values.mean():>9.4f} {values.min():>9.4f} {values.max():>9.4f}", flush=True
            )
    return found


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="number of seeds (default: 5)")


if __name__ == "__main__":
    main()
