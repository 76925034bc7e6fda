"""What trainings on mini-batches share: their steps, the order of rows, and calls until all batches are done."""
