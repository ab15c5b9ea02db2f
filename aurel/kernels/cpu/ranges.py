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
_LINE = 8  # integers in a cache line


def ranged(function: Callable[..., None]) -> Any:
    """Compile ``function(start, stop, *args)`` into a kernel, which computes range after range.

    The kernel takes ``(parallel, number, threads, ranges, start, stop, *args)`` and calls the
    function for `ranges` ranges that make up ``start..stop``. `parallel` and `number` are the
    addresses of ``GOMP_parallel``, of whose threads it uses `threads`, and ``omp_get_thread_num``;
    0 for the calling thread alone.

    A thread takes the ranges of its own share, then what is left of the other shares. The shares
    are those of torch's operators: a thread finds in its cache what it wrote or read there before.
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


def _launch(parallel, number, threads, ranges, start, stop, *args):
    if _share(parallel, number, threads, ranges, start, stop, _function, args) > 0:
        raise MemoryError("not enough memory for a CPU kernel")


@intrinsic
def _share(typing_context, parallel, number, threads, ranges, start, stop, function, args):
    """Compute all ranges, and return how many failed."""
    called = function.get_call_type(typing_context, (types.intp, types.intp, *args.types), {})
    whole = (types.intp,) * 6
    signature = types.intp(*whole, function, args)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        parallel, number, threads, ranges, start, stop, _, arguments = values
        compiled = function.dispatcher.get_compile_result(called)
        context.add_linking_libs([compiled.library])
        borrowed = _borrow(context, builder, args, arguments)
        unpacked = cgutils.unpack_tuple(builder, borrowed, len(args.types))
        integer = start.type
        zero = ir.Constant(integer, 0)
        taken = _counters(builder, threads)
        fields = [zero, taken, number, threads, ranges, start, stop, *unpacked]  # failures, ...
        job = cgutils.alloca_once(
            builder, ir.LiteralStructType([value.type for value in fields]), name="job"
        )
        for place, value in enumerate(fields):
            builder.store(value, cgutils.gep_inbounds(builder, job, 0, place))
        member = _member(context, builder.module, job.type, compiled.fndesc, called)
        data = builder.bitcast(job, _BYTES)
        with builder.if_else(builder.icmp_signed("==", parallel, zero)) as (alone, together):
            with alone:
                builder.call(member, [data])
            with together:
                short = ir.IntType(32)
                kind = ir.FunctionType(ir.VoidType(), [member.type, _BYTES, short, short])
                start_team = builder.inttoptr(parallel, kind.as_pointer())
                count = builder.trunc(threads, short)
                builder.call(start_team, [member, data, count, ir.Constant(short, 0)])
        return builder.load(cgutils.gep_inbounds(builder, job, 0, 0))

    return signature, generate


def _borrow(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return a value whose arrays are not counted: the caller holds them.

    Otherwise each slice of a row counts its array twice, and threads wait for that cache line.
    """
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        return array._getvalue()
    if isinstance(kind, (types.Tuple, types.UniTuple)):
        items = cgutils.unpack_tuple(builder, value, len(kind))
        kinds = zip(kind.types, items, strict=True)
        return context.make_tuple(
            builder, kind, [_borrow(context, builder, each, item) for each, item in kinds]
        )
    return value


def _counters(builder: ir.IRBuilder, threads: Any) -> Any:
    """Return how many ranges of each thread's share are taken: zeros, each in its cache line."""
    size = builder.mul(threads, ir.Constant(threads.type, _LINE))
    counters = builder.alloca(threads.type, size)
    width = ir.Constant(threads.type, threads.type.width // 8)
    cgutils.memset(builder, counters, builder.mul(size, width), 0)
    return counters


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
    failures, *others = places
    taken, number, threads, ranges, start, stop, *arguments = (
        builder.load(each) for each in others
    )
    one = ir.Constant(ranges.type, 1)

    def part(first: Any, length: Any, index: Any, parts: Any) -> Any:
        return builder.add(first, builder.sdiv(builder.mul(length, index), parts))

    def compute(index: Any) -> None:
        length = builder.sub(stop, start)
        bounds = [part(start, length, i, ranges) for i in (index, builder.add(index, one))]
        status, _ = context.call_conv.call_function(
            builder,
            context.declare_function(module, described),
            called.return_type,
            called.args,
            [*bounds, *arguments],
        )
        with builder.if_then(status.is_error):
            builder.atomic_rmw("add", failures, one, "monotonic")

    zero = ir.Constant(ranges.type, 0)
    own = _thread_number(builder, number)
    with cgutils.for_range(builder, threads) as shares:
        owner = builder.srem(builder.add(own, shares.index), threads)
        counter = builder.gep(taken, [builder.mul(owner, ir.Constant(owner.type, _LINE))])
        first, end = (part(zero, ranges, i, threads) for i in (owner, builder.add(owner, one)))
        take, work, done = (member.append_basic_block(name) for name in ("take", "work", "done"))
        builder.branch(take)
        builder.position_at_end(take)
        index = builder.add(first, builder.atomic_rmw("add", counter, one, "monotonic"))
        builder.cbranch(builder.icmp_signed("<", index, end), work, done)
        builder.position_at_end(work)
        compute(index)
        builder.branch(take)
        builder.position_at_end(done)
    builder.ret_void()
    return member


def _thread_number(builder: ir.IRBuilder, function: Any) -> Any:
    """Return the number of this thread in its team, by a function at an address; 0 without one."""
    zero = ir.Constant(function.type, 0)
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", function, zero)):
        kind = ir.FunctionType(ir.IntType(32), [])
        called = builder.call(builder.inttoptr(function, kind.as_pointer()), [])
        found, inside = builder.sext(called, function.type), builder.block
    number = builder.phi(function.type)
    number.add_incoming(zero, before)
    number.add_incoming(found, inside)
    return number
