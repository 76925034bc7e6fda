"""Parameters, data, weights and files of any estimator."""
