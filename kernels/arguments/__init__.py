"""What any kernel asks of arrays, numbers and targets, checked once.

`arrays` has the rules of dtypes and layouts, `scalars` those of numbers and switches, `targets` those of targets and
weights. What a family asks besides stands in its own `arguments`.
"""
