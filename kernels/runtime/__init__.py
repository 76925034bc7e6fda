"""How kernels are compiled, kept on disk and shared among threads.

- Compilation: `jit` has the policies, and names all options; `_live_code` the digest of all code that a kernel stands
  on, by which its machine code is found again; `_cache_files` where that is kept, and whom it is taken from; `target`
  what the compiler compiles for; `compile_notice` what a user is told who waits for it.
- Threads: `parallel` says how many and hands out blocks; `team` is how threads share the parts of one compiled call.
- `memory` has arrays that begin at a cache line, `permutation` the order of rows, `switch` a choice among any number
  of compiled functions.
"""
