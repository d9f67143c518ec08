"""Matrix products on Hopper: one warp loads by TMA, two warpgroups multiply, tiles go on and on.

As many programs as the GPU has multiprocessors each work through a list of tiles. A producer warp
fills a ring of shared memory, ahead of its consumers and across the ends of tiles; each consumer
warpgroup multiplies its rows of a tile and stores them by TMA, while the other goes on. It is the
scheme of CUTLASS's kernels for sm_90, written in Gluon.
"""

# No annotations from __future__: Gluon's aggregates read theirs.
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.core import _aggregate as aggregate

from tracelens_kernels._gemm.portable import INNER, ROWS


@aggregate
class Tiles:
    """A program's way through the tiles of all groups.

    A group has a range: of rows, or (`INNER`) of the axis summed over. What no group has is a
    last group, of which nothing is summed; a dense product is that group alone, and is.
    """

    tile: gl.tensor
    group: gl.tensor
    first: gl.tensor
    last: gl.tensor
    before: gl.tensor  # tiles of earlier groups
    M: gl.tensor
    N: gl.tensor
    K: gl.tensor
    groups: gl.tensor
    offsets_ptr: gl.tensor | gl.constexpr
    KIND: gl.constexpr
    BLOCK_M: gl.constexpr
    BLOCK_N: gl.constexpr
    GROUP_M: gl.constexpr

    @gluon.constexpr_function
    def __init__(  # noqa: PLR0917
        self, tile, group, first, last, before, M, N, K, groups, offsets_ptr, KIND,
        BLOCK_M, BLOCK_N, GROUP_M,
    ) -> None:  # fmt: skip
        self.tile = tile
        self.group = group
        self.first = first
        self.last = last
        self.before = before
        self.M = M
        self.N = N
        self.K = K
        self.groups = groups
        self.offsets_ptr = gl.constexpr(None) if offsets_ptr is None else offsets_ptr
        self.KIND = gl.constexpr(KIND)
        self.BLOCK_M = gl.constexpr(BLOCK_M)
        self.BLOCK_N = gl.constexpr(BLOCK_N)
        self.GROUP_M = gl.constexpr(GROUP_M)

    @gluon.jit
    def at(self, tile, group, first, before):
        """Return the tiles from another place on."""
        last = self.K if self.KIND == INNER else self.M
        if self.offsets_ptr is not None:  # noqa: SIM102 (known when it is compiled)
            if group < self.groups:
                last = gl.minimum(gl.maximum(gl.load(self.offsets_ptr + group), first), last)
        return Tiles(
            tile, group, first, last, before, self.M, self.N, self.K, self.groups,
            self.offsets_ptr, self.KIND, self.BLOCK_M, self.BLOCK_N, self.GROUP_M,
        )  # fmt: skip

    @gluon.jit
    def there(self):
        """Tell whether there is a tile here."""
        return self.group < self.groups + (0 if self.KIND == INNER else 1)

    @gluon.jit
    def height(self):
        """Return the rows of this group."""
        return self.M if self.KIND == INNER else self.last - self.first

    @gluon.jit
    def in_group(self):
        """Return how many tiles this group has."""
        return gl.cdiv(self.height(), self.BLOCK_M) * gl.cdiv(self.N, self.BLOCK_N)

    @gluon.jit
    def find(self):
        """Return these with the group that the tile is in."""
        tiles = self
        while tiles.there() & (tiles.tile >= tiles.before + tiles.in_group()):
            before = tiles.before + tiles.in_group()
            tiles = tiles.at(tiles.tile, tiles.group + 1, tiles.last, before)
        return tiles

    @gluon.jit
    def next(self):
        """Return these at the program's next tile."""
        tile = self.tile + gl.num_programs(0)
        return self.at(tile, self.group, self.first, self.before).find()

    @gluon.jit
    def corner(self):
        """Return a tile's first row and column; bands of `GROUP_M` tiles share L2."""
        tile = self.tile - self.before
        band = self.GROUP_M * gl.cdiv(self.N, self.BLOCK_N)
        above = tile // band * self.GROUP_M
        high = gl.minimum(gl.cdiv(self.height(), self.BLOCK_M) - above, self.GROUP_M)
        inside = tile % band
        row = (above + inside % high) * self.BLOCK_M
        column = inside // high * self.BLOCK_N
        return row + (0 if self.KIND == INNER else self.first), column

    @gluon.jit
    def span(self):
        """Return where what is summed begins and ends."""
        begin = gl.to_tensor(0)
        end = self.K
        if self.KIND == INNER:
            begin = self.first
            end = self.last
        if self.KIND == ROWS:
            end = gl.where(self.group < self.groups, self.K, 0)
        return begin, end


@aggregate
class Ring:
    """Blocks of both operands in shared memory, each ready to be read or free to be written."""

    a: gl.shared_memory_descriptor
    b: gl.shared_memory_descriptor
    ready: gl.shared_memory_descriptor
    free: gl.shared_memory_descriptor
    stage: gl.tensor
    turn: gl.tensor
    STAGES: gl.constexpr
    PARTS: gl.constexpr

    @gluon.constexpr_function
    def __init__(self, a, b, ready, free, stage, turn, STAGES, PARTS) -> None:  # noqa: PLR0917
        self.a = a
        self.b = b
        self.ready = ready
        self.free = free
        self.stage = stage
        self.turn = turn
        self.STAGES = gl.constexpr(STAGES)
        self.PARTS = gl.constexpr(PARTS)

    @gluon.jit
    def next(self):
        """Return the ring at its next stage."""
        round_ = self.stage == self.STAGES - 1
        stage = gl.where(round_, 0, self.stage + 1)
        turn = gl.where(round_, self.turn ^ 1, self.turn)
        return Ring(self.a, self.b, self.ready, self.free, stage, turn, self.STAGES, self.PARTS)

    @gluon.jit
    def release(self, back, pred):
        """Let the stage that lies this far back be written again."""
        stage = gl.where(self.stage < back, self.stage + self.STAGES - back, self.stage - back)
        mbarrier.arrive(self.free.index(stage), pred=pred)


@aggregate
class Output:
    """Where sums go, by way of shared memory, and what is done to them before."""

    memory: gl.shared_memory_descriptor
    desc: tma.tensor_descriptor | gl.constexpr  # None: rows are not on boundaries of 16 bytes
    ptr: gl.tensor | gl.constexpr
    to_group: gl.tensor
    to_row: gl.tensor
    bias_ptr: gl.tensor | gl.constexpr
    scale_a_ptr: gl.tensor | gl.constexpr
    scale_b_ptr: gl.tensor | gl.constexpr
    to_scale_a: gl.tensor
    to_scale_b: gl.tensor

    @gluon.constexpr_function
    def __init__(  # noqa: PLR0917
        self, memory, desc, ptr, to_group, to_row, bias_ptr, scale_a_ptr, scale_b_ptr,
        to_scale_a, to_scale_b,
    ) -> None:  # fmt: skip
        self.memory = memory
        self.desc = gl.constexpr(None) if desc is None else desc
        self.ptr = gl.constexpr(None) if ptr is None else ptr
        self.to_group = to_group
        self.to_row = to_row
        self.bias_ptr = gl.constexpr(None) if bias_ptr is None else bias_ptr
        self.scale_a_ptr = gl.constexpr(None) if scale_a_ptr is None else scale_a_ptr
        self.scale_b_ptr = gl.constexpr(None) if scale_b_ptr is None else scale_b_ptr
        self.to_scale_a = to_scale_a
        self.to_scale_b = to_scale_b

    @gluon.jit
    def adjusted(self, total, row, column, M, N, SUM: gl.constexpr):  # noqa: PLR0917
        """Return the sums times their scales, plus the bias."""
        rows = row + gl.arange(0, total.shape[0], gl.SliceLayout(1, SUM))
        columns = column + gl.arange(0, total.shape[1], gl.SliceLayout(0, SUM))
        if self.scale_a_ptr is not None:
            scale_a = gl.load(self.scale_a_ptr + rows * self.to_scale_a, mask=rows < M)
            scale_b = gl.load(self.scale_b_ptr + columns * self.to_scale_b, mask=columns < N)
            total = total * scale_a[:, None] * scale_b[None, :]
        if self.bias_ptr is not None:
            bias = gl.load(self.bias_ptr + columns, mask=columns < N)
            total += bias.to(gl.float32)[None, :]
        return total

    @gluon.jit
    def store(self, memory, group, row, column, bottom, N, KIND: gl.constexpr):  # noqa: PLR0917
        """Copy a piece from shared memory, by TMA where nothing of another group is in the way."""
        if self.desc is None:
            self.store_rows(memory, group, row, column, bottom, N)
        elif KIND == ROWS:
            if row + memory.shape[0] <= bottom:
                fence_async_shared()
                tma.async_copy_shared_to_global(self.desc, [row, column], memory)
            else:
                self.store_rows(memory, group, row, column, bottom, N)
        elif KIND == INNER:
            fence_async_shared()
            one = memory.reshape([1, memory.shape[0], memory.shape[1]])
            tma.async_copy_shared_to_global(self.desc, [group, row, column], one)
        else:
            fence_async_shared()
            tma.async_copy_shared_to_global(self.desc, [row, column], memory)

    @gluon.jit
    def store_rows(self, memory, group, row, column, bottom, right):  # noqa: PLR0917
        """Copy what lies above the bottom and left of the right end."""
        LINE: gl.constexpr = _line(memory.shape[1], gl.num_warps())
        rows = row + gl.arange(0, memory.shape[0], gl.SliceLayout(1, LINE))
        columns = column + gl.arange(0, memory.shape[1], gl.SliceLayout(0, LINE))
        to = self.ptr + group.to(gl.int64) * self.to_group
        to = to + rows.to(gl.int64)[:, None] * self.to_row + columns[None, :]
        there = (rows < bottom)[:, None] & (columns < right)[None, :]
        gl.store(to, memory.load(LINE), mask=there)


@gluon.jit
def load_rows(ring, tiles, desc, row, k, ready, TURNED: gl.constexpr):  # noqa: PLR0917
    """Begin to copy every consumer's rows of the left operand to the ring."""
    PART_M: gl.constexpr = tiles.BLOCK_M // ring.PARTS
    for part in gl.static_range(ring.PARTS):
        to = ring.a.index(ring.stage * ring.PARTS + part)
        if TURNED:
            tma.async_copy_global_to_shared(desc, [k, row + part * PART_M], ready, to)
        else:
            tma.async_copy_global_to_shared(desc, [row + part * PART_M, k], ready, to)


@gluon.jit
def load_columns(tiles, desc, column, k, ready, to, TURNED: gl.constexpr):  # noqa: PLR0917
    """Begin to copy a block of the right operand, that of the group if each has one."""
    if tiles.KIND == ROWS:
        if TURNED:
            tma.async_copy_global_to_shared(desc, [tiles.group, column, k], ready, to)
        else:
            tma.async_copy_global_to_shared(desc, [tiles.group, k, column], ready, to)
    elif TURNED:
        tma.async_copy_global_to_shared(desc, [column, k], ready, to)
    else:
        tma.async_copy_global_to_shared(desc, [k, column], ready, to)


@gluon.jit
def _load(ring, tiles, a_desc, b_desc, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, BLOCK_K: gl.constexpr):  # fmt: skip  # noqa: E501, PLR0917
    """Fill the ring with the blocks of all tiles: the producer's part."""
    SIZE: gl.constexpr = ring.PARTS * a_desc.block_type.nbytes + b_desc.block_type.nbytes
    while tiles.there():
        row, column = tiles.corner()
        begin, end = tiles.span()
        for k in range(begin, end, BLOCK_K):
            mbarrier.wait(ring.free.index(ring.stage), ring.turn ^ 1)
            ready = ring.ready.index(ring.stage)
            mbarrier.expect(ready, SIZE)
            load_rows(ring, tiles, a_desc, row, k, ready, A_TURNED)
            load_columns(tiles, b_desc, column, k, ready, ring.b.index(ring.stage), B_TURNED)
            ring = ring.next()
        tiles = tiles.next()


@gluon.jit
def _clear_rows(memory, left, WARPS: gl.constexpr):
    """Set what stands in shared memory from row `left` on to 0."""
    LINE: gl.constexpr = _line(memory.shape[1], WARPS)
    there = gl.arange(0, memory.shape[0], gl.SliceLayout(1, LINE)) < left
    values = memory.load(LINE)
    memory.store(gl.where(there[:, None], values, gl.zeros_like(values)))
    fence_async_shared()


@gluon.constexpr_function
def _line(width, warps):
    """Return the layout in which threads read rows of `width` elements, 8 at a time."""
    return gl.BlockedLayout([1, 8], [256 // width, width // 8], [warps, 1], [1, 0])


@gluon.jit
def _multiply(part, ring, tiles, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, PROMOTE: gl.constexpr, BLOCK_K: gl.constexpr, SUM: gl.constexpr):  # fmt: skip  # noqa: E501, PLR0917
    """Return one tile's sums, and the ring behind its blocks."""
    total = gl.zeros([tiles.BLOCK_M // ring.PARTS, tiles.BLOCK_N], gl.float32, SUM)
    begin, end = tiles.span()
    for k in range(begin, end, BLOCK_K):
        mbarrier.wait(ring.ready.index(ring.stage), ring.turn)
        a = ring.a.index(ring.stage * ring.PARTS + part)
        b = ring.b.index(ring.stage)
        if tiles.KIND == ROWS:
            b = b.reshape([b.shape[1], b.shape[2]])
        if tiles.KIND == INNER:  # noqa: SIM102 (known when it is compiled)
            if end - k < BLOCK_K:  # rows of the next group follow
                _clear_rows(a, end - k, gl.num_warps())
        if A_TURNED:
            a = a.permute((1, 0))
        if B_TURNED:
            b = b.permute((1, 0))
        ring = ring.next()
        if PROMOTE:
            HALF: gl.constexpr = BLOCK_K // 2
            zeros = gl.zeros_like(total)
            one = warpgroup_mma(
                a.slice(0, HALF, 1), b.slice(0, HALF, 0), zeros, use_acc=False, is_async=True
            )
            other = warpgroup_mma(
                a.slice(HALF, HALF, 1), b.slice(HALF, HALF, 0), zeros, use_acc=False, is_async=True
            )
            total += warpgroup_mma_wait(1, deps=[one])  # while the other is multiplied
            total += warpgroup_mma_wait(0, deps=[other])
            ring.release(1, pred=True)
        else:
            total = warpgroup_mma(a, b, total, is_async=True)
            total = warpgroup_mma_wait(1, deps=[total])
            ring.release(2, pred=k > begin)
    if not PROMOTE:
        total = warpgroup_mma_wait(0, deps=[total])
        ring.release(1, pred=end > begin)
    return total, ring


@gluon.jit
def _halves(total):
    """Return the left and the right half of the columns; threads keep what they have."""
    HEIGHT: gl.constexpr = total.shape[0]
    WIDTH: gl.constexpr = total.shape[1] // 2
    return total.reshape([HEIGHT, 2, WIDTH]).permute(0, 2, 1).split()


@gluon.jit
def _pieces(total, SPLIT: gl.constexpr):
    """Return the columns in as many pieces."""
    if SPLIT == 1:
        return (total,)
    elif SPLIT == 2:  # noqa: RET505
        return _halves(total)
    else:
        left, right = _halves(total)
        return _halves(left) + _halves(right)


@gluon.jit
def _consume(part, ring, tiles, output, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, PROMOTE: gl.constexpr, SPLIT: gl.constexpr, BLOCK_K: gl.constexpr):  # fmt: skip  # noqa: E501, PLR0917
    """Multiply and store one part of the rows of all tiles."""
    DEEP: gl.constexpr = 256 // ring.a.dtype.primitive_bitwidth
    WARPS: gl.constexpr = [gl.num_warps(), 1]
    WIDTH: gl.constexpr = tiles.BLOCK_N // SPLIT
    SUM: gl.constexpr = gl.NVMMADistributedLayout([3, 0], WARPS, [16, tiles.BLOCK_N, DEEP])
    PIECE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], WARPS, [16, WIDTH, DEEP])
    memory = output.memory.index(part)
    while tiles.there():
        total, ring = _multiply(part, ring, tiles, A_TURNED, B_TURNED, PROMOTE, BLOCK_K, SUM)
        row, column = tiles.corner()
        row += part * (tiles.BLOCK_M // ring.PARTS)
        bottom = tiles.M if tiles.KIND == INNER else tiles.last
        pieces = _pieces(output.adjusted(total, row, column, tiles.M, tiles.N, SUM), SPLIT)
        for index in gl.static_range(SPLIT):
            tma.store_wait(0)
            memory.store(gl.convert_layout(pieces[index].to(memory.dtype), PIECE))
            output.store(memory, tiles.group, row, column + index * WIDTH, bottom, tiles.N, tiles.KIND)  # fmt: skip  # noqa: E501
        tiles = tiles.next()
    tma.store_wait(0)


@gluon.jit
def make_ring(a_desc, b_desc, STAGES: gl.constexpr, PARTS: gl.constexpr, RIGHT: gl.constexpr):
    """Return an empty ring: in each stage `PARTS` blocks of a, and `RIGHT` of b."""
    A_BLOCKS: gl.constexpr = [STAGES * PARTS] + a_desc.block_type.shape  # noqa: RUF005
    B_BLOCKS: gl.constexpr = [STAGES * RIGHT] + b_desc.block_type.shape  # noqa: RUF005
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(ready.index(stage), count=1)
        mbarrier.init(free.index(stage), count=PARTS)
    fence_async_shared()
    return Ring(
        gl.allocate_shared_memory(a_desc.dtype, A_BLOCKS, a_desc.layout),
        gl.allocate_shared_memory(b_desc.dtype, B_BLOCKS, b_desc.layout),
        ready, free, gl.to_tensor(0), gl.to_tensor(0), STAGES, PARTS,
    )  # fmt: skip


@gluon.jit
def product(  # noqa: PLR0917
    a_desc, b_desc, out_desc, out_ptr, bias_ptr, scale_a_ptr, scale_b_ptr, offsets_ptr,
    M, N, K, groups, out_g, out_m, scale_a_m, scale_b_n,
    KIND: gl.constexpr, A_TURNED: gl.constexpr, B_TURNED: gl.constexpr, CONSUMERS: gl.constexpr,
    PROMOTE: gl.constexpr, SPLIT: gl.constexpr,
    STAGES: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    GROUP_M: gl.constexpr,
):  # fmt: skip
    FORM: gl.constexpr = out_ptr.dtype.element_ty
    PIECE: gl.constexpr = [BLOCK_M // CONSUMERS, BLOCK_N // SPLIT]
    out_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for(PIECE, FORM)
    memory = gl.allocate_shared_memory(FORM, [CONSUMERS] + PIECE, out_layout)  # noqa: RUF005
    ring = make_ring(a_desc, b_desc, STAGES, CONSUMERS, 1)
    zero = gl.to_tensor(0)
    tiles = Tiles(
        zero, zero, zero, zero, zero, gl.to_tensor(M), gl.to_tensor(N), gl.to_tensor(K),
        gl.to_tensor(groups), offsets_ptr, KIND, BLOCK_M, BLOCK_N, GROUP_M,
    ).at(gl.program_id(0), zero, zero, zero).find()  # fmt: skip
    output = Output(
        memory, out_desc, out_ptr, gl.to_tensor(out_g), gl.to_tensor(out_m), bias_ptr,
        scale_a_ptr, scale_b_ptr, gl.to_tensor(scale_a_m), gl.to_tensor(scale_b_n),
    )  # fmt: skip
    if CONSUMERS == 1:
        gl.warp_specialize(
            [
                (_consume, (0, ring, tiles, output, A_TURNED, B_TURNED, PROMOTE, SPLIT, BLOCK_K)),
                (_load, (ring, tiles, a_desc, b_desc, A_TURNED, B_TURNED, BLOCK_K)),
            ],
            [1],
            [40],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (0, ring, tiles, output, A_TURNED, B_TURNED, PROMOTE, SPLIT, BLOCK_K)),
                (_consume, (1, ring, tiles, output, A_TURNED, B_TURNED, PROMOTE, SPLIT, BLOCK_K)),
                (_load, (ring, tiles, a_desc, b_desc, A_TURNED, B_TURNED, BLOCK_K)),
            ],
            [4, 1],
            [232, 40],
        )
