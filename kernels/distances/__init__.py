"""Distances of rows, and the nearest rows."""
