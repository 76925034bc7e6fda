"""How kernels are compiled, kept on disk and shared among threads."""
