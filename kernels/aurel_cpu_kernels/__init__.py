"""Kernels for a CPU, compiled by numba at their first call; see `aurel.ops` for what they compute."""
