"""How long a user waits for a first result: imports, and first fits with and without machine code that is ready.

Each is a process of its own. The figures are CPU seconds of the whole process less those of one that only imports
scikit-learn's estimator and Numba. What is said to come from a pack or from a cache must not have been compiled: it is
an error if Numba's compiler runs in such a process.
"""
