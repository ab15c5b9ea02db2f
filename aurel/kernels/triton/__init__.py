"""Triton kernels behind `aurel.ops`: one module a kernel family, imported on first use.

Triton is imported with the first kernel module, and no kernel module uses a driver before it
launches.
"""
