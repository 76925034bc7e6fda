"""The loop over mini-batches that all stochastic models share, and what it needs to know of a model."""
