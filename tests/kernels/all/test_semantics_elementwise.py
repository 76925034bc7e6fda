"""What exp, sigmoid, softplus and the softmax family mean, one sentence of docs/semantics.md per test, in all tiers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose

FLOATS = ("float32", "float64")

RTOL = {"float32": 2e-6, "float64": 1e-13}

# Where naive formulas overflow, cancel or change branch; 36.9 and 37 straddle -log(eps) of float64.
EXTREME_LOGITS = (0.0, 36.9, 37.0, 37.5, 88.0, 89.0, 103.0, 104.0, 232.8, 745.0, 1e3, 1e4, 1e30)


# ---------------------------------------------------------------------------------------------------------------
# exp, sigmoid, softplus and the softmax family
# ---------------------------------------------------------------------------------------------------------------

ELEMENTWISE = {
    "exp": np.exp,
    "sigmoid": scipy.special.expit,
    "softplus": lambda z: np.logaddexp(0, z),
}

SOFTMAX_FAMILY = {
    "softmax": lambda Z: scipy.special.softmax(Z, axis=-1),
    "log_softmax": lambda Z: scipy.special.log_softmax(Z, axis=-1),
    "logsumexp": lambda Z: scipy.special.logsumexp(Z, axis=-1),
}


def quietly(function, *args):
    """SciPy and NumPy warn about overflow and inf - inf where the result is what we want."""
    with np.errstate(all="ignore"):
        return function(*args)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_return_arrays_of_the_input_shape(ops, rng, name, dtype):
    for shape in ((), (7,), (3, 5), (2, 3, 4)):
        z = np.asarray(rng.normal(size=shape) * 10).astype(dtype)
        result = getattr(ops, name)(z)
        assert result.shape == shape
        assert result.dtype == dtype
        assert_allclose(result, ELEMENTWISE[name](z.astype(np.float64)), rtol=RTOL[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_works_over_the_last_axis(ops, rng, name, dtype):
    Z = (rng.normal(size=(6, 9)) * 5).astype(dtype)
    result = getattr(ops, name)(Z)
    assert result.dtype == dtype
    assert result.shape == ((6,) if name == "logsumexp" else (6, 9))
    assert_allclose(result, SOFTMAX_FAMILY[name](Z.astype(np.float64)), rtol=RTOL[dtype], atol=RTOL[dtype] / 2)


@pytest.mark.parametrize(
    ("given", "result"),
    [("float16", "float32"), ("int8", "float64"), ("int64", "float64"), ("bool", "float64"), (">f4", "float32")],
)
@pytest.mark.parametrize("name", [*ELEMENTWISE, *SOFTMAX_FAMILY])
def test_other_dtypes_become_float32_or_float64(ops, name, given, result):
    Z = np.array([[0, 1, 1], [1, 0, 1]]).astype(given)
    truth = {**ELEMENTWISE, **SOFTMAX_FAMILY}[name](Z.astype(np.float64))
    computed = getattr(ops, name)(Z)
    assert computed.dtype == np.dtype(result)
    assert computed.dtype.isnative
    assert_allclose(computed, truth, rtol=RTOL[result], atol=RTOL[result])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_at_extreme_values(ops, name, dtype):
    """The right value to the last digits on both sides of every overflow and underflow, and no warning."""
    z = np.array([s * v for v in EXTREME_LOGITS for s in (1, -1)] + [np.inf, -np.inf, np.nan], dtype)
    truth = quietly(ELEMENTWISE[name], z.astype(np.float64))
    truth = quietly(truth.astype, dtype)
    # Below the smallest normal number there are fewer digits: an absolute error of one such number is allowed.
    assert_allclose(getattr(ops, name)(z), truth, rtol=RTOL[dtype], atol=float(np.finfo(dtype).tiny))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus"])
def test_elementwise_functions_are_accurate_over_their_whole_range(ops, rng, name, dtype):
    limit = 87 if dtype == "float32" else 708
    z = np.concatenate([rng.uniform(-limit, limit, 400), rng.normal(size=100) * 1e-3]).astype(dtype)
    assert_allclose(getattr(ops, name)(z), ELEMENTWISE[name](z.astype(np.float64)), rtol=RTOL[dtype])


INFINITE_ROWS = [
    [np.inf, 0.0, 1.0],
    [-np.inf, 0.0, 1.0],
    [np.inf, -np.inf, 0.0],
    [np.inf, np.inf, 0.0],
    [-np.inf, -np.inf, -np.inf],
    [-np.inf, -np.inf, 2.0],
    [np.inf, np.inf, np.inf],
    [np.nan, 0.0, 1.0],
    [np.nan, np.inf, -np.inf],
    [0.0, 0.0, np.nan],
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_treats_infinity_as_scipy_does(ops, name, dtype):
    for row in INFINITE_ROWS:
        Z = np.array([row, [0.0, 1.0, 2.0]], dtype)
        truth = np.stack([quietly(SOFTMAX_FAMILY[name], z) for z in Z.astype(np.float64)])
        assert_allclose(getattr(ops, name)(Z), truth, rtol=RTOL[dtype], atol=RTOL[dtype], err_msg=str(row))


@pytest.mark.parametrize("C", [1, 3, 17])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_at_extreme_logits(ops, name, dtype, C):
    for value in EXTREME_LOGITS:
        Z = np.zeros((4, C), dtype)
        Z[0, 0], Z[1, 0], Z[1, -1], Z[2, :], Z[3, :] = value, -value, value, value, -value
        truth = SOFTMAX_FAMILY[name](Z.astype(np.float64))
        assert_allclose(
            getattr(ops, name)(Z), truth, rtol=RTOL[dtype], atol=RTOL[dtype] / 2, err_msg=f"logits of {value}"
        )


# ---------------------------------------------------------------------------------------------------------------
# n = 0
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_work_on_no_elements(ops, name):
    for shape in ((0,), (0, 4), (3, 0)):
        result = getattr(ops, name)(np.empty(shape, np.float32))
        assert result.shape == shape
        assert result.dtype == np.float32


@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_works_on_no_rows(ops, name):
    result = getattr(ops, name)(np.empty((0, 4), np.float32))
    assert result.shape == ((0,) if name == "logsumexp" else (0, 4))
    assert result.dtype == np.float32
