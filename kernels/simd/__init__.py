"""Vector code that any family can use, each piece with a NumPy twin.

`llvm` is LLVM code, for short: what intrinsics are written with. `functions` has exp, log, sigmoid and their like as
arithmetic without branches; `rows` what loops do with rows in memory; `comparisons` compares a row of keys with
thresholds.
"""
