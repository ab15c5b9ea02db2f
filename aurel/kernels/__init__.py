"""Kernels of the operations: for a GPU in Triton, for a CPU compiled by numba."""
