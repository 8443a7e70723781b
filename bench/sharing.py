"""What sharing KV blocks buys: n samples of one prompt, beam search, a common prefix.

python bench/sharing.py [--model PATH] [samples] [beams] [prefix]

samples  one request with n = 8 against 8 separate requests, prefix cache off, prompt of 512 tokens
beams    beam search of width 16 against transformers' generate(num_beams=16), both in float32, alternating in one run
prefix   32 requests that arrive together with a common prefix of 512 tokens: how many tokens are computed
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

from pagedcore import LLM, BeamSearchParams, SamplingParams
from pagedcore.default_model import default_model


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def token_ids(llm: LLM, count: int, seed: int) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(llm.description.vocab_size) for _ in range(count)]


def samples(model: str, repeats: int) -> None:
    with LLM(model, enable_prefix_caching=False) as llm:
        prompt = token_ids(llm, 512, 1)
        together = SamplingParams(n=8, max_tokens=64, ignore_eos=True, seed=1)
        alone = SamplingParams(max_tokens=64, ignore_eos=True, seed=1)
        llm.generate([prompt[:32]], alone, progress=False)
        ratios = []
        for _ in range(repeats):
            separate = seconds(lambda: llm.generate([prompt] * 8, alone, progress=False))
            shared = seconds(lambda: llm.generate([prompt], together, progress=False))
            ratios.append(separate / shared)
            print(f"samples: n=8 {shared:.2f} s, 8 requests {separate:.2f} s, ratio {ratios[-1]:.2f}")
        print(f"samples: ratio {statistics.median(ratios):.2f} (median of {repeats})")


def beams(model: str, repeats: int, width: int = 16, tokens: int = 48) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    directory, _, file = str(model).rpartition("/")
    reference = AutoModelForCausalLM.from_pretrained(directory, gguf_file=file, dtype=torch.float32).eval()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with LLM(model, dtype="float32") as llm:
        prompt = llm.tokenizer.encode("The history of paged memory begins with") if llm.tokenizer else [1, 2, 3]
        params = BeamSearchParams(beam_width=width, max_tokens=tokens, ignore_eos=True)

        def theirs() -> None:
            with torch.no_grad():
                reference.generate(
                    torch.tensor([prompt]),
                    num_beams=width,
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=0,
                )

        ratios = []
        for _ in range(repeats):
            ours = seconds(lambda: llm.beam_search([prompt], params, progress=False))
            other = seconds(theirs)
            ratios.append(other / ours)
            rate = width * tokens
            print(f"beams: {rate / ours:.0f} tokens/s, transformers {rate / other:.0f}, ratio {ratios[-1]:.2f}")
        print(f"beams: ratio {statistics.median(ratios):.2f} (median of {repeats})")


def prefix(model: str, repeats: int) -> None:
    del repeats  # a count, the same in every run
    with LLM(model, max_batched_tokens=4096) as llm:
        common = token_ids(llm, 512, 2)
        prompts = [common + token_ids(llm, 16, 100 + i) for i in range(32)]
        params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
        llm.generate(prompts, params, progress=False)
        stats = llm.stats()
        computed = int(stats["tokens_computed"])
        once = 512 + 32 * (16 + 7)  # the last token generated is never computed
        print(
            f"prefix: {computed} tokens computed; {once} if the common prefix is computed once, "
            f"{32 * (512 + 16 + 7)} without sharing"
        )


def main() -> None:
    parts = {"samples": samples, "beams": beams, "prefix": prefix}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--model", default=None)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"unknown part {min(unknown)}; known: {', '.join(parts)}")
    for part in arguments.parts:
        parts[part](str(arguments.model or default_model()), arguments.repeats)


if __name__ == "__main__":
    main()
