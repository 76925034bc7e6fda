"""Everything whose score is x·w: gradients, training, evaluation and what solvers pass over."""
