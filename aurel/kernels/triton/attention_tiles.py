"""Device functions of graph attention: scores and weights of a tile, and products with them.

`head` is a tuple of all that the scores and edges of one head are computed from: pointers to the
scores of its targets, to those of its sources and to the adjacency of its graph, N, the stride
from one node's score to the next, and the negative slope.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def head_of(i_graph, H, pointers, strides, N, negative_slope):
    """Return `head` for one head of one graph.

    Args:
        i_graph: number of the head among those of all graphs.
        H: heads of a graph.
        pointers: to the scores of targets and of sources, and to the adjacency.
        strides: of the scores from image to image, head to head, node to node; of the adjacency
            from image to image.
        N: nodes of a graph.
        negative_slope: of the leaky ReLU.
    """
    target_ptr, source_ptr, adjacency_ptr = pointers
    stride_b, stride_h, stride_n, adjacency_stride_b = strides
    i_batch, i_head = i_graph // H, i_graph % H
    p_score = i_batch * stride_b + i_head * stride_h
    adjacency_ptr += i_batch * adjacency_stride_b
    return target_ptr + p_score, source_ptr + p_score, adjacency_ptr, N, stride_n, negative_slope


@triton.jit
def edge_tile(head, o_i, o_j):
    """Return scores, their slopes and where edges are; o_i and o_j broadcast to the tile."""
    target_ptr, source_ptr, adjacency_ptr, N, score_stride, negative_slope = head
    m_edge = (o_i < N) & (o_j < N)
    m_edge = m_edge & (tl.load(adjacency_ptr + o_i * N + o_j, mask=m_edge, other=0) != 0)
    b_target = tl.load(target_ptr + o_i * score_stride, mask=o_i < N, other=0.0).to(tl.float32)
    b_source = tl.load(source_ptr + o_j * score_stride, mask=o_j < N, other=0.0).to(tl.float32)
    b_sum = b_target + b_source
    b_slope = tl.where(b_sum > 0, 1.0, negative_slope)
    return b_sum * b_slope, b_slope, m_edge


@triton.jit
def node_tile(ptr, o_n, o_c, N, C, stride):
    """Return channels o_c of nodes o_n in their own dtype, zero outside."""
    m_tile = (o_n < N)[:, None] & (o_c < C)[None, :]
    return tl.load(ptr + o_n[:, None] * stride + o_c[None, :], mask=m_tile, other=0.0)


@triton.jit
def all_finite(b_tile):
    """Return whether a tile holds neither NaN nor infinity."""
    return tl.max(tl.where(tl.abs(b_tile) < float("inf"), 0, 1)) == 0


@triton.jit
def weight_tile(head, o_i, o_j, b_max, b_sum):
    """Return weights, slopes and edges; the statistics of the rows broadcast to the tile."""
    b_score, b_slope, m_edge = edge_tile(head, o_i, o_j)
    return tl.where(m_edge, tl.exp(b_score - b_max) / b_sum, 0.0), b_slope, m_edge


@triton.jit
def sum_over_sources(head, value_ptr, b_max, b_sum, o_row, o_c, value_stride, C):
    """Return the weighted sum of rows, edge by edge, so that it keeps infinities and NaN."""
    b_out = tl.zeros((o_row.shape[0], o_c.shape[0]), tl.float32)
    for j in range(head[3]):
        b_weight, _, m_edge = weight_tile(head, o_row, j, b_max, b_sum)
        b_value = tl.load(value_ptr + j * value_stride + o_c, mask=o_c < C, other=0.0)
        b_message = b_weight[:, None] * b_value.to(tl.float32)[None, :]
        b_out += tl.where(m_edge[:, None], b_message, 0.0)
    return b_out


@triton.jit
def inner_products(b_left, b_right, b_out, UPCAST: tl.constexpr, PRECISION: tl.constexpr):
    """Add left @ right^T.

    Products of halves are exact in float32, so they need no upcast but in the interpreter, which
    multiplies bfloat16 wrongly.
    """
    if UPCAST:
        b_left = b_left.to(tl.float32)
        b_right = b_right.to(tl.float32)
    return tl.dot(b_left, tl.trans(b_right), b_out, input_precision=PRECISION)


@triton.jit
def graph_weights(head, o_n):
    """Return weights, slopes and edges of a whole graph, and the statistics of its rows."""
    b_score, b_slope, m_edge = edge_tile(head, o_n[:, None], o_n[None, :])
    b_score = tl.where(m_edge, b_score, -float("inf"))
    b_max = tl.max(b_score, axis=1)
    b_max = tl.where(b_max == -float("inf"), 0.0, b_max)
    b_weight = tl.exp(b_score - b_max[:, None])
    b_sum = tl.sum(b_weight, axis=1)
    b_weight = tl.where(m_edge, b_weight / b_sum[:, None], 0.0)
    return b_weight, b_slope, m_edge, b_max, b_sum


@triton.jit
def row_statistics(head, o_row):
    """Return the largest score of each row (0 where it has none) and the sum of exponentials."""
    b_max = tl.full(o_row.shape, -float("inf"), tl.float32)
    b_sum = tl.zeros(o_row.shape, tl.float32)
    b_shift = tl.zeros(o_row.shape, tl.float32)
    for n0 in range(0, head[3], o_row.shape[0]):
        o_col = n0 + tl.arange(0, o_row.shape[0])
        b_score, _, m_edge = edge_tile(head, o_row[:, None], o_col[None, :])
        b_score = tl.where(m_edge, b_score, -float("inf"))
        b_before = b_max
        b_max = tl.maximum(b_before, tl.max(b_score, axis=1))
        b_shift = tl.where(b_max == -float("inf"), 0.0, b_max)
        b_sum = b_sum * tl.exp(b_before - b_shift)
        b_sum += tl.sum(tl.exp(b_score - b_shift[:, None]), axis=1)
    return b_shift, b_sum
