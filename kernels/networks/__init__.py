"""Dense networks: their scores, their loss with its gradient, and their training by mini-batches.

The way of data, from a public function to the formula:

- `functions`: what users call. `arguments` checks what they give, and has the table of activations.
- `training` and `scores`: a network that is kept between calls; what the estimators stand on.
- `_plan`: how it lies in memory, and the *program* of a batch: fetch the rows, forward to each level, the loss, back to
  each level, the step of each level's weights.
- `_loop`: the compiled loop over batches; threads share each operation of the program.
- `_forward`: values of a level from those below; `products` has the products, `activations` the activation functions
  and dropout, `_batch_norm` batch normalization forward and backward.
- `row_losses`: the losses of rows of scores, from the formulas of `losses`.
- `_backward`: gradients in the values of a level and in its weights; `steps` has SGD, momentum, Nesterov and Adam.

Images have an engine of their own (`convolution`), which takes products, row losses, dropout and steps from here. Dense
layers can be rows of it too: with 784-40-10 units and batches of 10, on one thread, a batch then takes 313 us and not
35, for there each layer's works are called from Python, once a batch, and sums are made in another order, so that bits
differ. With 784-256-128-10 units and batches of 128 it is still 1.3 times as long. The other way round, the compiled
loop would need an operation for each kind of image layer: it takes half a minute to compile as it is, and every program
of a dense network would pay for that. So there are two.
"""
