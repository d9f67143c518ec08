"""Record twelve training steps of two Transformer blocks, with attention written out or fused.

usage: python -m benchmarks.record_attention naive|fused NAME

Writes NAME.json.gz, torch.profiler's trace of twelve steps, and prints the median of sixty steps
before, without a profiler.
"""

import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (its usual name)
from torch.profiler import ProfilerActivity, profile, record_function

WIDTH, HEADS, BATCH, CONTEXT = 1024, 16, 8, 2048
FUSED = sys.argv[1] == "fused"


class Block(nn.Module):
    """A Transformer block with causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the values that each query attends to."""
        if FUSED:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        later = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool, device=q.device).triu(1)
        return scores.masked_fill(later, float("-inf")).softmax(-1).to(v.dtype) @ v

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations after this block."""
        parts = self.qkv(self.before(x)).chunk(3, -1)
        q, k, v = (y.view(BATCH, CONTEXT, HEADS, -1).transpose(1, 2) for y in parts)
        x = x + self.out(self.attend(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.between(x))))


torch.manual_seed(0)
model = nn.Sequential(Block(), Block()).cuda()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
batch = torch.randn(BATCH, CONTEXT, WIDTH, device="cuda")


def step() -> None:
    """Train one step."""
    with record_function("forward"), torch.autocast("cuda", torch.bfloat16):
        loss = model(batch).float().square().mean()
    with record_function("backward"):
        loss.backward()
    with record_function("optimizer"):
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()


for _ in range(10):
    step()
times = []
for _ in range(60):
    began = time.perf_counter()
    step()
    times.append(time.perf_counter() - began)
activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
with profile(activities=activities, record_shapes=True) as recording:
    for number in range(12):
        with record_function(f"step {number}"):
            step()
recording.export_chrome_trace(f"{sys.argv[2]}.json.gz")
print(sys.argv[2], torch.__version__, f"{statistics.median(times) * 1e3:.3f} ms")
