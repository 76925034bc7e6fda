"""Formulas of losses, each once, and their means over arrays."""
