"""Vector code that any family can use, each piece with a NumPy twin."""
