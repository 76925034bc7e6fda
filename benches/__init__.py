"""Measurements: how fast the kernels and models are, beside others, beside their past, and where their time goes.

Each room has a ``command`` that parses and prints; `__main__` finds the room. What stands on what::

    gate           is a commit slower than another, are its results right?
    history        what was measured, kept in the repository; README's table
    peers          beside other libraries
    report         every kernel in every tier          profile     layer by layer          startup     first fits
    measuring      clocks, limits of the machine, numbers in print, files

    suite          for asv, which imports it under each commit's fastml      quick     for pytest-benchmark
"""
