"""Formulas of losses, each once, and their means over arrays.

The way from a public name to its formula: `fastml.kernels.huber` is `regression.huber`, and its formula is
`formulas.POINTWISE["huber"]`. Likewise for all losses:

- of one score a row: `logistic`, `margin`, `regression` have the public functions, `formulas` value and derivative of
  one row, `means` the sums over blocks of rows;
- over classes: `multinomial` (with softmax and its logarithm) and `margin`, formulas in `class_formulas`;
- exp, sigmoid and softplus of every entry: `elementwise`, formulas in `simd.functions`.

`table` says which losses there are and what is true of each; all else goes by it. `linear` and `networks` call the
same formulas. `docs/adding_a_loss.md` shows how to add a loss.
"""
