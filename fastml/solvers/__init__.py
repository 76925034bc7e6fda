"""Minimizers of smooth functions, and the Hessians and objectives that linear models give them."""
