"""W9: classify images by a vote of their nearest neighbours; the smallest label wins a tie.

With --full: 500 test against 5,000 training images of CIFAR-10, where the error rates are known, and all of
MNIST, where the single nearest neighbour by L2 makes 309 errors in 10,000.
"""

from __future__ import annotations

from collections.abc import Sequence

from _common import arguments, digits_or_cifar10, timed, verdict

from fastml import KNeighborsClassifier
from fastml.datasets import Dataset, load_mnist

KNOWN = {
    ("l2", 1): "0.726",
    ("l2", 7): "0.726",
    ("l2", 10): "0.718",
    ("l1", 1): "0.710",
    ("l1", 7): "0.698",
    ("linf", 1): "0.848",
}
MNIST_ERRORS = 309


def error_rates(dataset: Dataset, n: int, m: int, n_jobs: int | None = None) -> dict[tuple[str, int], str]:
    """Return the printed error rate of every setting in KNOWN on the first `n` test and `m` training images."""
    found = {}
    for metric, k in KNOWN:
        model = KNeighborsClassifier(k, metric=metric, n_jobs=n_jobs).fit(dataset.X_train[:m], dataset.y_train[:m])
        found[metric, k] = f"{1 - model.score(dataset.X_test[:n], dataset.y_test[:n]):.3f}"
    return found


def errors_on_mnist(dataset: Dataset, n_jobs: int | None = None) -> int:
    """Count the errors of the nearest neighbour by L2 on all test images."""
    model = KNeighborsClassifier(1, n_jobs=n_jobs).fit(dataset.X_train, dataset.y_train)
    return int((model.predict(dataset.X_test) != dataset.y_test).sum())


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, int], str]:
    options = arguments(__doc__, argv)
    dataset = digits_or_cifar10(options)
    n, m = (500, 5000) if options.full else (len(dataset.X_test), len(dataset.X_train))
    seconds, found = timed(error_rates, dataset, n, m, options.threads)
    print(f"error rates on {n} test images, {m} to choose from ({seconds:.2f} s):")
    for (metric, k), rate in found.items():
        print(f"  {metric:<4}  k = {k:<2}  {verdict(rate, KNOWN[metric, k] if options.full else None)}")
    if options.full:
        mnist = load_mnist(options.data)
        seconds, errors = timed(errors_on_mnist, mnist, options.threads)
        print(f"{mnist.name}: {mnist.note}")
        print(f"  l2    k = 1   {verdict(str(errors), str(MNIST_ERRORS))} errors ({seconds:.2f} s)")
    return found


if __name__ == "__main__":
    main()
