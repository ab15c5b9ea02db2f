"""Kernels whose ranges the OpenMP team of torch computes, without the interpreter.

A callback of Python in a team costs some 20 microseconds, since its threads wait for the
interpreter lock one after the other. Here the threads run compiled code alone.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import FunctionType
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from aurel.kernels.cpu.compiler import inner, kernel

_BYTES = ir.IntType(8).as_pointer()


def ranged(function: Callable[..., None]) -> Any:
    """Compile ``function(start, stop, *args)`` into a kernel, which computes range after range.

    The kernel takes ``(team, threads, ranges, start, stop, *args)`` and calls the function for
    `ranges` ranges that make up ``start..stop``. `team` is the address of ``GOMP_parallel``, of
    whose threads it uses `threads`; 0 for the calling thread alone.
    """
    names = {
        "__name__": function.__module__,
        "__builtins__": builtins,
        "_share": _share,
        "_function": inner(function),
    }
    launch = FunctionType(_launch.__code__, names, function.__name__)
    launch.__qualname__ = f"{function.__module__}.{function.__qualname__}"  # the file of its cache
    return kernel(launch)


_function: Any = None  # each kernel has its own


def _launch(team, threads, ranges, start, stop, *args):
    if _share(team, threads, ranges, start, stop, _function, args) > 0:
        raise MemoryError("not enough memory for a CPU kernel")


@intrinsic
def _share(typing_context, team, threads, ranges, start, stop, function, args):
    """Compute all ranges, and return how many failed."""
    called = function.get_call_type(typing_context, (types.intp, types.intp, *args.types), {})
    whole = (types.intp,) * 5
    signature = types.intp(*whole, function, args)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        team, threads, ranges, start, stop, _, arguments = values
        compiled = function.dispatcher.get_compile_result(called)
        context.add_linking_libs([compiled.library])
        unpacked = cgutils.unpack_tuple(builder, arguments, len(args.types))
        integer = start.type
        zero = ir.Constant(integer, 0)
        fields = [zero, zero, ranges, start, stop, *unpacked]  # next range, failures, ...
        job = cgutils.alloca_once(
            builder, ir.LiteralStructType([value.type for value in fields]), name="job"
        )
        for place, value in enumerate(fields):
            builder.store(value, cgutils.gep_inbounds(builder, job, 0, place))
        member = _member(context, builder.module, job.type, compiled.fndesc, called)
        data = builder.bitcast(job, _BYTES)
        with builder.if_else(builder.icmp_signed("==", team, zero)) as (alone, together):
            with alone:
                builder.call(member, [data])
            with together:
                short = ir.IntType(32)
                kind = ir.FunctionType(ir.VoidType(), [member.type, _BYTES, short, short])
                parallel = builder.inttoptr(team, kind.as_pointer())
                count = builder.trunc(threads, short)
                builder.call(parallel, [member, data, count, ir.Constant(short, 0)])
        return builder.load(cgutils.gep_inbounds(builder, job, 0, 1))

    return signature, generate


def _member(context: Any, module: ir.Module, job_type: Any, described: Any, called: Any) -> Any:
    """Return the function that each thread runs: take ranges until none is left."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES])
    member = ir.Function(module, kind, module.get_unique_name("member"))
    member.linkage = "internal"
    builder = ir.IRBuilder(member.append_basic_block("entry"))
    job = builder.bitcast(member.args[0], job_type)
    places = [
        cgutils.gep_inbounds(builder, job, 0, i) for i in range(len(job_type.pointee.elements))
    ]
    ranges, start, stop, *arguments = (builder.load(place) for place in places[2:])
    one = ir.Constant(ranges.type, 1)
    length = builder.sub(stop, start)

    def bound(index: Any) -> Any:
        return builder.add(start, builder.sdiv(builder.mul(length, index), ranges))

    head, body, failed, end = (
        member.append_basic_block(name) for name in ("head", "body", "failed", "end")
    )
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.atomic_rmw("add", places[0], one, "monotonic")
    builder.cbranch(builder.icmp_signed("<", index, ranges), body, end)
    builder.position_at_end(body)
    callee = context.declare_function(module, described)
    status, _ = context.call_conv.call_function(
        builder,
        callee,
        called.return_type,
        called.args,
        [bound(index), bound(builder.add(index, one)), *arguments],
    )
    builder.cbranch(status.is_error, failed, head)
    builder.position_at_end(failed)
    builder.atomic_rmw("add", places[1], one, "monotonic")
    builder.branch(head)
    builder.position_at_end(end)
    builder.ret_void()
    return member
