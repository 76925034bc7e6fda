"""What any kernel asks of arrays, numbers and targets, checked once."""
