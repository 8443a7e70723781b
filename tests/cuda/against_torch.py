"""What torch takes for the products and the attention of one layer of LLaMA 3 8B on this GPU, beside the floor of
docs/cuda_kernels.md. Run by on_device.sh where torch sees a GPU; prints one line for each."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention


def seconds(call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(20):
            call()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / 20)
    return min(times)


def main() -> None:
    half = {"device": "cuda", "dtype": torch.bfloat16}
    for n, k in ((28672, 4096), (4096, 14336)):
        weight = torch.randn(n, k, **half)
        for rows in (1, 4, 32, 256, 2048):
            x = torch.randn(rows, k, **half)
            print(f"torch matmul {rows} x {k} by {n} x {k}: {1e6 * seconds(lambda x=x, w=weight: x @ w.T):.1f} us")
    for sequences, rows, context in ((64, 1, 2048), (1, 1, 8192), (1, 2048, 2048)):
        q = torch.randn(sequences, 32, rows, 128, **half)
        kv = torch.randn(sequences, 32, context, 128, **half)
        taken = seconds(lambda q=q, kv=kv: scaled_dot_product_attention(q, kv, kv, is_causal=q.shape[2] > 1))
        print(f"torch attention {sequences} x {rows} rows over {context}, KV heads repeated: {1e6 * taken:.1f} us")


if __name__ == "__main__":
    main()
