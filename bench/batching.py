"""Throughput by the number of requests that run at once, and what prefix caching saves.

python bench/batching.py [--model PATH] [--input-len 128] [--output-len 64] [--batches 1 4 16 64]
"""

from __future__ import annotations

import argparse
import time

from pagedcore import LLM, SamplingParams, bench


def batches(llm: LLM, sizes: list[int], input_len: int, output_len: int) -> None:
    print(f"{'requests':>9}{'generated/s':>13}{'all tokens/s':>14}{'seconds':>9}")
    for size in sizes:
        result = bench.throughput(llm, bench.fixed_lengths(size, input_len, output_len), seed=size, progress=False)
        print(
            f"{size:>9}{result.output_tokens_per_second:>13.1f}{result.total_tokens_per_second:>14.1f}"
            f"{result.seconds:>9.2f}"
        )


def prefixes(llm: LLM, input_len: int) -> None:
    """Time to the first token of a prompt that is new, and of one whose beginning was computed before."""
    params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    prompt = [(7 * i * i) % llm.description.vocab_size for i in range(min(input_len * 8, llm.max_context - 2))]
    seconds = []
    for last in (1, 2):
        start = time.perf_counter()
        (output,) = llm.generate([[*prompt, last]], params, progress=False)
        seconds.append(time.perf_counter() - start)
    print(f"first token of {len(prompt) + 1} tokens: new {1000 * seconds[0]:.1f} ms,", end=" ")
    print(f"{output.num_cached_tokens} cached {1000 * seconds[1]:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    arguments = parser.parse_args()
    with LLM(arguments.model) as llm:
        print(llm.engine.describe())
        batches(llm, arguments.batches, arguments.input_len, arguments.output_len)
        prefixes(llm, arguments.input_len)


if __name__ == "__main__":
    main()
