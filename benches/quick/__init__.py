"""The pytest-benchmark suite: all tiers of every kernel on arrays small enough for the plain loop."""
