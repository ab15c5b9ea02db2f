"""Triton kernels behind `aurel.ops`: one module a kernel family, imported on first use.

Nothing here imports triton until a kernel module is imported, and no kernel module touches a
driver until it launches.
"""
