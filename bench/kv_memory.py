"""How much of the KV cache holds tokens while more requests wait than fit: the rest is waste.

python bench/kv_memory.py [--model PATH] [--memory 256MiB] [--requests 96]

Prompts and outputs have lengths like those of ShareGPT conversations (means of 161 and 338 tokens, log-normal). The
engine is asked for its gauges again and again; it counts as saturated while requests wait and less than a tenth of the
blocks is available. Reported are slots without a token, of the blocks in use (what paging wastes) and of all blocks
(with the blocks that the next request in line does not fit into).
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import threading

from pagedcore import LLM, SamplingParams


def length(source: random.Random, mean: float, sigma: float, most: int) -> int:
    return max(4, min(most, round(source.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--memory", default="256MiB")
    parser.add_argument("--requests", type=int, default=96)
    options = parser.parse_args()
    source = random.Random(4)
    with LLM(options.model, kv_cache_memory=options.memory, enable_prefix_caching=False) as llm:
        prompts, params = [], []
        for _ in range(options.requests):
            size = length(source, 161, 1.0, 1000)
            prompts.append([source.randrange(llm.description.vocab_size) for _ in range(size)])
            params.append(SamplingParams(max_tokens=length(source, 338, 0.8, 800), ignore_eos=True, seed=1))
        plan = llm.memory_plan()
        slots = plan.num_blocks * plan.block_size
        waste: list[float] = []
        inside: list[float] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                stats = llm.stats()
                available = stats["blocks_free"] + stats["blocks_cached"]
                if stats["requests_waiting"] == 0 or available > 0.1 * plan.num_blocks:
                    continue  # not saturated: something else than memory is short
                waste.append(1 - stats["kv_tokens"] / slots)
                inside.append(stats["kv_slots_unused"] / (stats["kv_slots_unused"] + stats["kv_tokens"]))

        watcher = threading.Thread(target=watch)
        watcher.start()
        llm.generate(prompts, params, progress=False)
        done.set()
        watcher.join()
        stats = llm.stats()
    print(f"{plan.num_blocks} blocks of {plan.block_size} tokens, {len(waste)} samples of a saturated cache")
    print(f"unused slots of blocks in use: {100 * statistics.mean(inside):.2f} % (most {100 * max(inside):.2f} %)")
    mean, median = 100 * statistics.mean(waste), 100 * statistics.median(waste)
    print(f"slots of the whole cache:      {mean:.2f} % (median {median:.2f} %)")
    print(f"preemptions: {stats['preemptions_recompute'] + stats['preemptions_swap']:.0f}")


if __name__ == "__main__":
    main()
