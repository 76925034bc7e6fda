"""Networks of images: their layers, one at a time and in a row.

The way of data, forwards. `functions` settles the arguments of one convolution, copies the images to a `Grid`
(`buffers`), and has the layer `Conv2D` say what is to be done: a list of `Task`, which `tasks` shares among threads.
A `Network` (`network`) is such layers in a row; its `Plan` has `Buffers` for each of them, fetches a batch of images,
and asks all layers in turn: `prepare` and `forward`, then, last layer first, `backward` for the gradient in the input,
and `gradient` for that in the parameters. `training` puts the loss in between and takes the step.

Where the formulas are:

- convolutions and fully connected layers, forwards and backwards: `product_layers` says which factors meet, `_products`
  multiplies them;
- ReLU, dropout, pools and batch normalisation of networks: `layers`, with the loops over pixels in `_grid_loops`;
- pools and batch normalisation of the public functions, which go channel by channel: `_pooling`, `_batch_norm`;
- loss and step: `networks.row_losses`, `networks.steps`.

`docs/adding_a_layer.md` shows how to add a layer.
"""
