"""Rules that tell a kernel's family by the phrases in its name, as ordered data: first rule, first served.

A rule is a family and comma-separated phrases; a phrase is words in a row, `^` and `$` the ends of the name.
Words are split as in `words.words`: `Conv2d` is `conv 2 d`.
"""

from __future__ import annotations

EXPLICIT: tuple[tuple[str, str], ...] = (
    # Names that contain another family's word, and are known as a whole.
    ("elementwise", "rotary, rope embedding, rope norm, rope neox, rope multi, rope vision, apply rope"),
    ("elementwise", "batched rotary, transform bias rescale qkv, lstm cell, gru cell, lstm elementwise"),
    ("elementwise", "lstm element wise, gru element wise, sub tensor op, op tensor, spin kernel"),
    ("reduction", "reduce config, wrapped reduce config, device reduce, device segmented reduce"),
    ("quantization", "mean scale"),
    ("copy", "tensor transform"),
    ("attention", "compute dot do o, dot do o, convert dq, flash bwd dot, attn bwd preprocess"),
    ("attention", "dq convert, convertd q, flash bwd convert, mla combine, mla reduce, paged mqa logits"),
    ("attention", "mqa logits, lightning indexer, splitkv mla, mla"),
    ("softmax", "attn softmax, attention softmax, masked softmax, softmax warp, scaled masked"),
    ("gemm", "prenorm gemm, embedding gemm"),
    ("conv", "implicit gemm, implicit convolve, explicit convolve, im 2 col 4 d, im 2 d 2 col"),
    # Memory commands of the ROCm runtime are kernels.
    ("memcpy", "rocclr copy, copy device to device, copy host to device, copy device to host"),
    ("memset", "rocclr fill, fill buffer aligned, memset"),
    ("memcpy", "memcpy"),
    # Triton kernels written by TorchInductor.
    ("triton_pointwise", "^ triton poi, ^ triton fused"),
    ("triton_reduction", "^ triton red, ^ triton per, ^ triton spl, ^ triton mix, ^ triton split scan"),
    ("triton_template", "^ triton tem, ^ triton mm, ^ triton bmm, ^ triton convolution, ^ triton flex"),
    ("triton_template", "^ triton addmm, ^ triton baddbmm, ^ triton scaled mm, ^ triton scaled grouped mm"),
    ("triton_template", "^ triton grouped mm, ^ triton mm plus mm, ^ triton conv"),
    ("triton_foreach", "^ triton for"),
    ("triton_unnamed", "^ triton $, ^ triton 0 d 1, ^ triton 0 d, ^ triton unk"),
    # Communication: NCCL and kin, NVSHMEM, one-shot all-reduces, DeepEP's dispatch and combine.
    ("comm", "nccl, rccl, msccl, msccl pp, nvshmem, rocshmem, all reduce, all gather, reduce scatter"),
    ("comm", "all to all, all 2 all, cross device reduce, quick reduce, one shot, oneshot, two shot"),
    ("comm", "twoshot, lamport, multimem, userbuffers, push send, push recv, pushsend, pushrecv"),
    ("comm", "pushsendrecv, send recv, sendrecv, symm mem, symmetric memory, deep ep, intranode"),
    ("comm", "internode, notify dispatch, cached notify, low latency dispatch, low latency combine"),
    ("comm", "moe a 2 a, a 2 a, horovod, gossip, ring exchange, halo exchange, nixl, p 2 p, pplx"),
    # Key/value caches of inference servers.
    ("kv_cache", "reshape and cache, concat and cache, store kv cache, store kv, append paged kv"),
    ("kv_cache", "append paged, copy blocks, swap blocks, gather cached kv, gather and dequant cache"),
    ("kv_cache", "gather cache, set kv buffer, set mla kv, kv buffer, kv indices, token to kv pool"),
    ("kv_cache", "req to token, update kv cache, write kv, kv cache copy, copy kv, kv copy, copy kv cache"),
    ("kv_cache", "convert fp 8 kernel, update kv, fill kv cache, append kv, kv append, kv scatter"),
    ("kv_cache", "kv transfer, transfer kv, transfer kernel impl, cp gather, indexer k quant and cache"),
    ("kv_cache", "destindex copy kv, copy page indices, save kv, load kv, kv store, rope store"),
    ("kv_cache", "paged kv copy, kv cache update, kv cache store, cache kv, block table, slot mapping"),
    ("kv_cache", "rope and cache, rope cache, get last loc, alloc extend, alloc decode, and cache"),
    # State-space models, linear attention and other recurrences over the sequence.
    ("ssm", "mamba, selective scan, selective state, causal conv 1 d, causal conv, ssd, ssm"),
    ("ssm", "chunk scan, chunk state, chunk cumsum, state passing, bmm chunk, gated delta, delta rule"),
    ("ssm", "chunk gla, fused recurrent, wkv, rwkv, chunk fwd kernel, chunk bwd kernel, chunk gated"),
    ("ssm", "chunk delta, recompute w u, solve tril, chunk local cumsum, merge 16 x 16 to, chunk kda"),
    ("ssm", "kda, gdn, chunk retention, parallel retention, chunk rwkv, hgrn, chunk fwd o, chunk h"),
    ("ssm", "chunk scaled dot kkt, chunk fwd, chunk bwd, chunk dplr, prepare wy, linear recurrence"),
    ("ssm", "rglru, s 4 d, scan fwd ssm, lru scan, short conv"),
    # Attention.
    ("attention", "flash attn, flash attention, flash fwd, flash bwd, flash fprop, flash bprop, flash decode"),
    ("attention", "flash decoding, fmha, fna, mha, mmha, mqa, gqa, xqa, sdpa, attn, attention, mem eff"),
    ("attention", "paged kv, batch prefill, batch decode, single prefill, single decode, mla decode"),
    ("attention", "mla prefill, mla fwd, mla, flash mla, sparse mla, sage, sage attn, qk int 8 sv"),
    ("attention", "merge states, merge state, merge attn, variable length merge, attention kernel"),
    ("attention", "bwd dq dk dv, bwd dkdv, bwd dk dv, bwd kernel dk dv, bwd kernel dq, fwd grouped kernel"),
    ("attention", "bwd kernel fuse, fwd kernel stage 1, fwd kernel stage 2, ^ fwd kernel $, ^ bwd kernel $"),
    ("attention", "bwd preprocess do, ^ bwd preprocess $, ^ bwd kernel one col block, pa fwd, qkv mfma"),
    ("attention", "fwd kernel decode, fwd splitkv, split kv, splitkv, batch prefill with, pa bf, pa fp"),
    ("attention", "block sparse attn, neighborhood, natten, fmha fwd, fmha bwd, flex attention, flash"),
    ("attention", "reduce segments, ^ pa kernel, pa decode, pa prefill, pa ps, ^ pa reduce, flashinfer mla"),
    ("attention", "paged mqa, relative position bias, alibi attention, evoformer, masked multihead"),
    # Losses, before the softmax and reductions that they contain.
    ("loss", "nll loss, nll, cross entropy, x entropy, xentropy, ctc loss, ctc, margin loss, multi margin"),
    ("loss", "multilabel margin, jsd, kldiv, kl div, tv distance, grpo, dpo, cce, loss, focal, logits loss"),
    ("loss", "criterion, triplet, hinge"),
    # Embedding tables: PyTorch's backward, FBGEMM's table-batched embeddings.
    ("normalization", "embedding layer norm, embed layer norm, emb layer norm"),
    ("embedding", "embedding, embedding bag, krn partial, krn partials, sum and scatter"),
    ("embedding", "compute grad weight, compute grad weight bags, compute num of partial segments"),
    ("embedding", "bucketize sparse, tbe, split embedding, pooled embs, pooled embeddings, embs"),
    ("embedding", "linearize index, linearize cache, lxu cache, lru cache, lfu cache, permute 2 d sparse"),
    ("embedding", "permute sparse, embeddings, bounds check indices, embed, embed tokens, wte, wpe"),
    ("embedding", "expand into jagged, generate vbe, partial segment offset, partials per segment"),
    ("embedding", "to dense representation, lookup kernel, table lookup, segment offset, keyed jagged, sparse features"),
    # Optimizers; PyTorch's foreach kernels are nearly always theirs.
    ("optimizer", "multi tensor apply, adam, adamw, sgd, lamb, adagrad, adadelta, rmsprop, adamax"),
    ("optimizer", "optimizer, lion, muon, novograd, adafactor, shampoo, zeropower, newton schulz, unscale"),
    ("optimizer", "amp update scale, multi tensor, fused optimizer, grad clip, clip grad, ademamix"),
    ("optimizer", "sophia, lars, momentum update, weight update, update weights, param update"),
    # Quantisation that fuses something cheaper, before norms and activations.
    ("normalization", "norm quant, rms norm quant, norm fp 8, norm dynamic, norm static, norm per"),
    ("gemm", "quant gemm, quantized gemm, quant matmul, quantized matmul, dequant gemm, quant mm"),
    ("gemm", "dequantize mul mat, dequant mul mat, gemm dequant, fp 8 gemm, int 8 gemm, int 4 gemm"),
    ("gemm", "dequantize gemm, gemv quantized, gemm quant, quantized linear, quant linear"),
    ("quantization", "fp 8 quant, int 8 quant, fp 4 quant, nvfp 4 quant, mxfp 4 quant, mxfp 8 quant"),
    ("quantization", "group quant, token quant, channel quant, block quant, act quant, scaled quant"),
    ("quantization", "token cast, channel cast, block cast, cast to fp 8, cast fp 8, cast mxfp 8"),
    ("quantization", "cast transpose, cast and transpose, cast back, quant deep gemm, and mul quant"),
    ("quantization", "smooth quant, silu mul quant, silu mul fp 8, swiglu quant, dynamic quant"),
    ("quantization", "static quant, quantize, fake quant, fake quantize, fp 8 qparam, qparam, qparams"),
    ("quantization", "dequantize, dequant, requantize, requant, quantize per, unquantize, quantise"),
    # Mixture of experts: routing, permutation, finalising. Its matrix products are gemm.
    ("gemm", "grouped gemm, group gemm, moe gemm, moe grouped gemm, deep gemm, moe wna 16, marlin"),
    ("gemm", "moe mxgemm, gemm moe, batched gemm, fused moe kernel, fused moe kernel gptq, fused moe"),
    ("gemm", "grouped matmul, matmul ogs, fmoe, moe 2 stage, moe ck 2 stages, moe fc gemm, moe flatmm"),
    ("moe", "moe, topk gating, topk softmax, topk sigmoid, grouped topk, group topk, expert, experts"),
    ("moe", "topk forward, topk backward, routing, router, permute tokens, unpermute, gating, gate topk"),
    ("moe", "expand input rows, finalize routing, get fused mapping, dispatch layout, fused mapping"),
    ("moe", "token permute, permute token, permutation mask, sort chunks, expt data, sum bitmatrix"),
    ("moe", "bitmatrix, ep gather, ep scatter, ep sort, pre reorder, post reorder, reorder topk"),
    ("moe", "silu and mul masked post, permute with mask, moe sorting, moe align, moe sum, shuffle rows"),
    ("moe", "compute problem sizes, compute expert offsets, topk gate, biased grouped, expert map"),
    ("moe", "mul mat id helper, mm ids helper, ids helper, combine tokens, dispatch tokens, memset expt"),
    ("comm", "ep dispatch, ep combine, ^ dispatch, ^ combine, ^ cached notify combine"),
    # Normalisation.
    ("normalization", "layer norm, rms norm, batch norm, group norm, instance norm, spatial norm, lrn"),
    ("normalization", "ln fwd, ln bwd, ln forward, ln backward, ln parallel, gamma beta, rowwise moments"),
    ("normalization", "welford, bn fw, bn bw, bn fwd, bn bwd, bn infer, weight norm, l 2 norm, qk norm"),
    ("normalization", "compute internal gradients, fused params, compute 1 d backward fused params"),
    ("normalization", "add norm, norm fwd, norm bwd, norm forward, norm backward, norm kernel, ada norm"),
    ("normalization", "residual norm, residual ln, cu compute grad input, cu compute part grad gamma"),
    ("normalization", "cu compute grad gamma beta, cu apply layer norm, cu apply rms norm, ada ln, dyt"),
    ("normalization", "gn nhwc, group norm nhwc, rmsn, bn, ln, layernorm 2 d, normalization, normalize"),
    ("normalization", "norm 2 d, norm rope, qknorm, qk rms, mean rstd, mean rsqrt, batch norm backward"),
    ("normalization", "poly norm, norm f 32, fused norm, norm gated, gated norm, renorm, pixel norm"),
    ("normalization", "hc norm, norm fn, triton norm, rmsnorm 2 d fwd"),
    # Softmax.
    ("softmax", "soft max, log soft max, cunn soft max, host softmax, sparsemax, masked softmax"),
    ("softmax", "softmax fw, softmax bw, online softmax, gumbel softmax, logsumexp, log sum exp"),
    # Convolution: cuDNN, CUTLASS, MIOpen, ATen.
    ("copy", "nchw to nhwc, nhwc to nchw, nchw 2 cnhw, cnhw 2 nchw, nchw 2 nhwc, nhwc 2 nchw"),
    ("copy", "nchw to nchwv, nhwc to, nchw to, to nchw, to nhwc, transpose nchw, transpose nhwc"),
    ("conv", "fprop, dgrad, wgrad, scudnn, hcudnn, cudnn winograd, winograd, conv, convolve, convolution"),
    ("conv", "conv 1 d, conv 2 d, conv 3 d, conv depthwise, depthwise, deconv, convolutional, igemm fwd"),
    ("conv", "igemm bwd, igemm wrw, sp 3 asm, sp 3 conv, asm conv, naive conv, gtcx, wrw, convnd, convn"),
    ("conv", "deformable, deform, compute offsets, compute b offsets, precompute indices, cudnn infer"),
    ("conv", "gtcx 3, gtcx 2, gtc, im 2 col winograd, f 2 x 3, f 3 x 2, xdlops conv, h 884 cudnn, i 8816 cudnn"),
    ("conv", "h 1688 cudnn, s 884 cudnn, h 16816 cudnn, s 1688 cudnn, i 16832 cudnn, fft 2 d, conv bias"),
    ("conv", "kern precompute, offsets kernel 3 d, col 2 im conv, direct conv, ndhwc, cudnn engines"),
    # Linear algebra of solvers and sparse matrices, and Fourier transforms.
    ("linalg", "getrf, getrs, getri, potrf, potrs, potri, geqrf, orgqr, ormqr, ungqr, syevd, syevj"),
    ("linalg", "heevd, gesvd, gesvdj, sytrd, gebrd, trsm, trsv, trmm, trtri, trmv, larf, larft, larfb"),
    ("linalg", "larfg, ipiv, cusolver, magma, rocsolver, cholesky, lu factor, lu solve, laswp, qr"),
    ("linalg", "svd, eigen, eigh, householder, pivots, lu, steqr, stedc, stebz, lacpy, lapack, jacobi"),
    ("linalg", "fft, ifft, rfft, irfft, c 2 c, r 2 c, c 2 r, regular fft, vector fft, bluestein"),
    ("linalg", "spmm, spmv, csrmm, csrmv, csr, coo, csc, cusparse, rocsparse, sddmm, spgemm, spsv, spsm"),
    ("linalg", "hadamard, triangular solve, tri solve, matrix inverse, getf 2, inverse batched, geam"),
    ("linalg", "lu batched, solve batched, potf 2, sytrf, hetrf, gels, matrix exp, eig"),
    # Matrix products: cuBLAS, CUTLASS, Tensile, Marlin and the quantised ones.
    ("gemm", "gemm, gemv, gemvx, gemvnsp, gemmsn, gemmk 1, nvjet, cijk, split kreduce, split k reduce"),
    ("gemm", "matmul, mat mul, mul mat, mat vec, matvec, mmq, mmvq, mmvf, mmf, mma fused, bmm, addmm"),
    ("gemm", "baddbmm, mm kernel, ^ mm $, xmma gemm, tensorop, wmma, cublas, cublas lt, hipblaslt, rocblas"),
    ("gemm", "marlin, machete, exllama, exl 2, qgemm, tinygemm, wvsplit k, wv split, ll gemm, llmm, llmm 1"),
    ("gemm", "spgemm, syrk, herk, syr 2 k, symm, scaled mm, grouped mm, int mm, weight int 8 pack mm"),
    ("gemm", "weight int 4 pack mm, sq mm, fp 8 mm, mm fp 8, mm int 8, gett, contraction, flatmm, mfma"),
    ("gemm", "dot kernel, reduce 1 block, stream k, streamk, splitk reduce, gemm reduce, universal gemm"),
    ("gemm", "a 8 w 8, a 16 w 16, w 8 a 8, w 4 a 16, a 8 w 4, a 4 w 4, w 4 a 8, wna 16, bitlinear, matmul nt"),
    ("gemm", "persist fp lstm, persist fp gru, block persist, persist rnn, linear fwd, linear kernel"),
    ("gemm", "lora shrink, lora expand, bgmv, sgmv, qmv, qmm, linear layer, dense layer, mma, compute batched ptrs"),
    # Random numbers; dropout uses them, but what it does is elementwise.
    ("elementwise", "dropout"),
    ("rng", "distribution, philox, curand, hiprand, rocrand, bernoulli, multinomial, randperm, randn"),
    ("rng", "random, rand, randint, uniform, sampling, gumbel, rng, threefry, generate seed, sample kernel"),
    ("rng", "mtgp, xorwow, mrg 32, sobol, poisson, exponential kernel, cauchy, geometric, dirichlet, gamma sample"),
    # Pooling, resizing and other resampling of images.
    ("pooling_resize", "pool, pooling, maxpool, avgpool, max pool, avg pool, unpool, unpooling, upsample"),
    ("pooling_resize", "up sample, interpolate, resize, bilinear, bicubic, nearest, grid sampler, grid sample"),
    ("pooling_resize", "roi align, roi pool, im 2 col, col 2 im, max unpooling, average pool, adaptive average"),
    ("pooling_resize", "affine grid, resample, downsample, nms, warp perspective, warp affine"),
    # Sorting, scanning, selecting.
    ("sort_scan", "sort, radix, radix sort, merge sort, bitonic, onesweep, argsort, block sort, segmented sort"),
    ("sort_scan", "topk, top k, gather top k, sbtopk, mbtopk, kth value, gather kth, median, mode kernel, kthvalue"),
    ("sort_scan", "scan, cumsum, cumprod, cummax, cummin, prefix sum, prefix scan, lookback, inclusive, exclusive"),
    ("sort_scan", "unique, nonzero, non zero, device select, select sweep, compact init, compact, run length"),
    ("sort_scan", "partition, merge kernel, device merge, adjacent difference, searchsorted, bucketize"),
    ("sort_scan", "sort postprocess, find bin, radix find, write indices, fill index and segment, select if"),
    ("sort_scan", "fill reverse indices, copy if, set intersection, set difference, beam"),
    ("sort_scan", "radix select, beam search, top p, logcumsumexp"),
    # Gathering and scattering.
    ("gather_scatter", "gather, scatter, index put, index select, index add, index copy, index fill, index kernel"),
    ("gather_scatter", "index elementwise, index func, indexing backward, indexing, index reduce, take, put kernel"),
    ("gather_scatter", "masked scatter, masked select, get rows, set rows, repeat interleave, segment reduce"),
    ("gather_scatter", "compute cuda kernel, take put, jagged, index forward, index backward, indices, advanced index, segment sum"),
    ("gather_scatter", "index cuda, ragged"),
)
"""Phrases that tell the family wherever they stand in a function's name or its namespaces."""

PLAIN: tuple[tuple[str, str], ...] = (
    # Cheaper work, told by words that also stand in the names of dearer kernels.
    ("quantization", "quant, int 8 cast, fp 8 cast, to fp 8, amax, mxfp 4, mxfp 8, nvfp 4, repack, awq, gptq, downcast to"),
    ("normalization", "norm, norms"),
    ("copy", "cat, concat, cat array batched copy, chunk cat, flip, roll, tril, triu, transpose, permute"),
    ("copy", "copy, cpy, copies, pad, padding, slice, split, unpack, pack, repeat, tile kernel, reorder, layout"),
    ("copy", "stack, unfold, fold, clone, contiguous, convert, cast, to copy, dtype, swap axes, shuffle"),
    ("copy", "concatenate, dynamic update slice, memory copy, reshape, transposed, expand, permutation, transpose read write"),
    ("copy", "converter, bfloat 16 to, float to, half to, fp 32 to, fp 16 to, deinterleave, interleave, diagonal"),
    ("reduction", "reduce, reduction, argmax, argmin, sum, mean, variance, var, std, max kernel, min kernel"),
    ("reduction", "histogram, bincount, count nonzero, norm reduce, cdist, pdist, sum rows, count equal, num bins"),
    ("reduction", "input reduce, col sum, row sum, column sum, column reduce, row reduce, dot, all kernel, any kernel, prod"),
    ("reduction", "average, accumulate, bias grad, bgrad, bwd bias, total"),
    ("elementwise", "elementwise, element wise, pointwise, point wise, vectorized, unrolled, unary, binary"),
    ("elementwise", "gelu, silu, swiglu, geglu, reglu, glu, re lu, relu, leaky relu, sigmoid, tanh, softplus, mish"),
    ("elementwise", "swish, elu, selu, celu, prelu, act and mul, activation, activate, hardswish, hardtanh, softcap"),
    ("elementwise", "add, sub, mul, div, exp, log, pow, sqrt, rsqrt, abs, neg, clamp, where, fill, scale, scal"),
    ("elementwise", "bias, residual, rope, mask, masked fill, erf, sin, cos, arange, linspace, eye, zero, ones"),
    ("elementwise", "square, multiply, divide, subtract, compare, select, lerp, addcmul, addcdiv, axpy, axpby"),
    ("elementwise", "bin bcast, broadcast, op tensor, scale packed tensor, penalty, penalties, loop, transform"),
    ("elementwise", "map kernel, set value, constant, zeros, assert async, iota, bitwise, logical, maximum, minimum"),
    ("elementwise", "diag mask, logits processor, temperature, tensor scalar, sub tensor op, for each, parallel for"),
    ("elementwise", "embedding positions, cross kernel, saxpy, vecadd, vec add, vector add, reciprocal, sign, floor, ceil"),
    ("elementwise", "apply, modulate, resolve future, swi glu, ge glu, fused act, add kernel, ternary, nan to num, dequantized"),
)
"""Words that tell the family of a function's name where no explicit phrase does."""

LIBRARIES: tuple[tuple[str, str], ...] = (
    ("conv", "cudnn, cask cudnn, miopen"),
    ("gemm", "cublas, cublas lt, rocblas, hipblas, hipblaslt, cutlass, tensile, xmma"),
    ("linalg", "cusparse, cusolver, cufft, rocfft, rocsolver, rocsparse, magma"),
    ("sort_scan", "cub, rocprim, thrust"),
)
"""What a library mostly does, for helpers of which neither the name nor the arguments say more."""

HOMES: tuple[tuple[str, str], ...] = (("elementwise", "at native, at cuda"),)
"""Namespaces whose remaining kernels mostly are of one family."""

FUNCTORS: tuple[tuple[str, str], ...] = (
    ("copy", "copy kernel, copy kernel cuda, copy functor, direct copy, conj copy, neg copy, copy device"),
    ("copy", "load with cast copy, identity functor, flip, roll"),
    ("elementwise", "dropout, bernoulli mask, masked scale"),
    ("rng", "uniform, normal, bernoulli, exponential kernel, random, random from to, cauchy, geometric"),
    ("rng", "log normal, philox, distribution, multinomial, standard gamma, poisson, binomial, dirichlet"),
    ("loss", "cross entropy, nll loss, ctc, kl div"),
    ("normalization", "batch norm, layer norm, group norm, instance norm, rms norm, renorm"),
    ("quantization", "fake quantize, quantize, dequantize, fake quant, qadd, qrelu"),
    ("gather_scatter", "index kernel, index put, gather, scatter, take put, index copy, index fill, index select"),
    ("pooling_resize", "pool, upsample, interpolate, unpool"),
    ("embedding", "embedding"),
    ("softmax", "softmax"),
    ("optimizer", "adam, sgd, unscale, adagrad"),
    ("copy", "triu tril, tril, triu"),
)
"""What the functor of an elementwise kernel says, where that is not arithmetic."""

OPS: tuple[tuple[str, str], ...] = (
    ("optimizer", "optimizer, foreach"),
    ("gather_scatter", "repeat interleave, index, index put, gather, scatter"),
    ("gemm", "mm, bmm, addmm, baddbmm, addbmm, matmul, linear, mv, addmv, dot, vdot, einsum, scaled mm, outer"),
    ("rng", "normal, uniform, exponential, bernoulli, random, rand, randn, randint, randperm, log normal"),
    ("copy", "copy, to, to copy, contiguous, clone, cat, stack, roll, flip"),
    ("reduction", "sum, mean, any, all, max, min, amax, amin, argmax, argmin, prod, var, std, var mean, norm"),
    ("softmax", "softmax, log softmax"),
    ("elementwise", "fill, zero, masked fill, where, gt, lt, eq, ne, ge, le, item, local scalar dense"),
)
"""PyTorch's operators, where their names differ from kernels'."""

STEMS = """
    layernorm rmsnorm batchnorm groupnorm softmax attention allreduce allgather reducescatter fmha
    matmul gemm gemv swiglu geglu gelu silu elementwise pointwise
    dropout embedding transpose argmax argmin gather scatter cumsum topk
    dgrad wgrad fprop winograd upsample maxpool avgpool crossentropy adamw cholesky quantize quantise quant(?!ile|um|ity)
    relu sigmoid memcpy memset convolution
"""
"""What may be glued to other letters and still mean itself: `hgemm`, `mysoftmax`."""

WRAPPERS: tuple[tuple[str, str], ...] = (
    ("elementwise", "elementwise kernel, elementwise kernel with index, kernel pointwise apply"),
    ("elementwise", "unrolled elementwise, vectorized elementwise, vectorized templated, elementwise ker"),
    ("any", "^ kernel $, ^ kernel 2 $, kernel entry, device kernel, kentry, enable, static kernel"),
    ("any", "kernel agent, trampoline kernel, par, launch kernel, generic kernel, transform kernel"),
    ("any", "kernel launcher, run kernel, agent launcher, enable 2 x kernel, enable 3 x kernel"),
)
"""Functions that do what their template argument says: a functor that is applied to each element, or anything."""
