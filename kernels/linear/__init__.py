"""Everything whose score is x·w: gradients, training, evaluation and what solvers pass over.

- Loss and gradient in one pass over X: `gradient`. Two products, scores and gradient, for a few rows: `_products`.
- Training on mini-batches, and the evaluation of many models: `training`. `_descent` is the compiled loop over batches;
  what is done to a block of rows: `_stacked` (the two products for many models), `_stacked_losses`. The steps are those
  of `kernels.training.steps`.
- What solvers ask for: `objective` (value and gradient of several problems), `gram` (weighted products of rows, for
  Newton steps), `dual` (coordinate descent for support vector machines), `coordinates` (coordinate descent on
  quadratics with an L1 penalty).

- What predictions need: `scores`.

Formulas of losses stand in `losses.formulas` and `losses.class_formulas`; `arguments` checks what comes in.
"""
