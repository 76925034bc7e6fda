"""What trainings on mini-batches share: their steps, the order of rows, and calls until all batches are done.

`steps` has the formulas of plain steps, of momentum and of Nesterov's; `batches` what any training offers, and how its
compiled loop is called. `linear` and `networks` use them; how threads meet within a batch is in `runtime.team`.
"""
