"""Kernels for a CPU, compiled by numba at their first call; `aurel.ops` defines their results."""
