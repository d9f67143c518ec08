"""Both first products of SwiGLU experts on Hopper, gated before they are stored.

hidden[rows of g] = silu(x[rows of g] @ gate[g]) · (x[rows of g] @ up[g])

It is `hopper.product` with two right operands and two sums in registers: x is read once, and what
goes through memory is the hidden rows alone, unless gradients need both products, too.
"""

# No annotations from __future__: Gluon's aggregates read theirs.
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from tracelens_kernels._gemm.hopper import Output, Tiles, load_columns, load_rows, make_ring
from tracelens_kernels._gemm.portable import ROWS


@gluon.jit
def _load(ring, tiles, x_desc, gate_desc, up_desc, TURNED: gl.constexpr, BLOCK_K: gl.constexpr):  # noqa: PLR0917
    """Fill the ring with the blocks of all tiles: the producer's part."""
    SIZE: gl.constexpr = ring.PARTS * x_desc.block_type.nbytes + 2 * gate_desc.block_type.nbytes
    while tiles.there():
        row, column = tiles.corner()
        begin, end = tiles.span()
        for k in range(begin, end, BLOCK_K):
            mbarrier.wait(ring.free.index(ring.stage), ring.turn ^ 1)
            ready = ring.ready.index(ring.stage)
            mbarrier.expect(ready, SIZE)
            load_rows(ring, tiles, x_desc, row, k, ready, False)
            gate, up = ring.b.index(2 * ring.stage), ring.b.index(2 * ring.stage + 1)
            load_columns(tiles, gate_desc, column, k, ready, gate, TURNED)
            load_columns(tiles, up_desc, column, k, ready, up, TURNED)
            ring = ring.next()
        tiles = tiles.next()


@gluon.jit
def _right(ring, number, TURNED: gl.constexpr):
    block = ring.b.index(2 * ring.stage + number)
    block = block.reshape([block.shape[1], block.shape[2]])
    if TURNED:
        return block.permute((1, 0))
    else:  # noqa: RET505 (known when it is compiled)
        return block


@gluon.jit
def _multiply(part, ring, tiles, TURNED: gl.constexpr, BLOCK_K: gl.constexpr, SUM: gl.constexpr):  # noqa: PLR0917
    """Return one tile's sums of both products, and the ring behind its blocks."""
    gate = gl.zeros([tiles.BLOCK_M // ring.PARTS, tiles.BLOCK_N], gl.float32, SUM)
    up = gl.zeros_like(gate)
    begin, end = tiles.span()
    for k in range(begin, end, BLOCK_K):
        mbarrier.wait(ring.ready.index(ring.stage), ring.turn)
        x = ring.a.index(ring.stage * ring.PARTS + part)
        gate = warpgroup_mma(x, _right(ring, 0, TURNED), gate, is_async=True)
        up = warpgroup_mma(x, _right(ring, 1, TURNED), up, is_async=True)
        gate, up = warpgroup_mma_wait(2, deps=[gate, up])
        ring = ring.next()
        ring.release(2, pred=k > begin)
    gate, up = warpgroup_mma_wait(0, deps=[gate, up])
    ring.release(1, pred=end > begin)
    return gate, up, ring


@gluon.jit
def _consume(part, ring, tiles, hidden, gates, ups, SAVE: gl.constexpr, TURNED: gl.constexpr, BLOCK_K: gl.constexpr):  # fmt: skip  # noqa: E501, PLR0917
    """Multiply, gate and store one part of the rows of all tiles."""
    SUM: gl.constexpr = gl.NVMMADistributedLayout(
        [3, 0], [gl.num_warps(), 1], [16, tiles.BLOCK_N, 16]
    )
    memory = hidden.memory.index(part)
    FORM: gl.constexpr = memory.dtype
    while tiles.there():
        gate, up, ring = _multiply(part, ring, tiles, TURNED, BLOCK_K, SUM)
        row, column = tiles.corner()
        row += part * (tiles.BLOCK_M // ring.PARTS)
        if SAVE:
            tma.store_wait(0)
            memory.store(gate.to(FORM))
            gates.store(memory, tiles.group, row, column, tiles.last, tiles.N, ROWS)
            tma.store_wait(0)
            memory.store(up.to(FORM))
            ups.store(memory, tiles.group, row, column, tiles.last, tiles.N, ROWS)
        gated = gate / (1 + gl.exp(-gate)) * up
        tma.store_wait(0)
        memory.store(gated.to(FORM))
        hidden.store(memory, tiles.group, row, column, tiles.last, tiles.N, ROWS)
        tiles = tiles.next()
    tma.store_wait(0)


@gluon.jit
def product(  # noqa: PLR0917
    x_desc, gate_desc, up_desc, hidden_desc, gates_desc, ups_desc,
    hidden_ptr, gates_ptr, ups_ptr, offsets_ptr, M, N, K, groups, out_m,
    SAVE: gl.constexpr, TURNED: gl.constexpr, CONSUMERS: gl.constexpr, STAGES: gl.constexpr,
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    FORM: gl.constexpr = hidden_ptr.dtype.element_ty
    PIECE: gl.constexpr = [BLOCK_M // CONSUMERS, BLOCK_N]
    layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for(PIECE, FORM)
    memory = gl.allocate_shared_memory(FORM, [CONSUMERS] + PIECE, layout)  # noqa: RUF005
    ring = make_ring(x_desc, gate_desc, STAGES, CONSUMERS, 2)
    zero = gl.to_tensor(0)
    to = gl.to_tensor(out_m)
    tiles = Tiles(
        zero, zero, zero, zero, zero, gl.to_tensor(M), gl.to_tensor(N), gl.to_tensor(K),
        gl.to_tensor(groups), offsets_ptr, ROWS, BLOCK_M, BLOCK_N, GROUP_M,
    ).at(gl.program_id(0), zero, zero, zero).find()  # fmt: skip
    hidden = Output(memory, hidden_desc, hidden_ptr, zero, to, None, None, None, zero, zero)
    gates = Output(memory, gates_desc, gates_ptr, zero, to, None, None, None, zero, zero)
    ups = Output(memory, ups_desc, ups_ptr, zero, to, None, None, None, zero, zero)
    if CONSUMERS == 1:
        gl.warp_specialize(
            [
                (_consume, (0, ring, tiles, hidden, gates, ups, SAVE, TURNED, BLOCK_K)),
                (_load, (ring, tiles, x_desc, gate_desc, up_desc, TURNED, BLOCK_K)),
            ],
            [1],
            [40],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (0, ring, tiles, hidden, gates, ups, SAVE, TURNED, BLOCK_K)),
                (_consume, (1, ring, tiles, hidden, gates, ups, SAVE, TURNED, BLOCK_K)),
                (_load, (ring, tiles, x_desc, gate_desc, up_desc, TURNED, BLOCK_K)),
            ],
            [4, 1],
            [232, 40],
        )
