"""`pagedcore score --against`: how far one model's distributions are from another's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from pagedcore import LLM, SamplingParams
from pagedcore.divergence import TOP, Distributions, divergence
from test_cli import MEMORY, cli
from texts import PROMPTS

WINDOW = 24


def test_of_distributions_that_are_known() -> None:
    """Against the sum over the whole vocabulary, in float64."""
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, (2, 50, 80))
    logits[1] = logits[0] + random.normal(0, 0.2, (50, 80))
    p, q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = (np.exp(p) * (p - q)).sum(-1)

    def of(rows: np.ndarray[Any, Any], count: int) -> Distributions:
        top = [np.sort(np.argsort(-row)[:count]) for row in rows]
        return Distributions([(t, row[t]) for t, row in zip(top, rows, strict=True)], rows[:, 7].tolist())

    whole = divergence(of(p, 80), of(q, 80))
    assert whole.tokens == 50
    # What is left for no token at all is 1e-9 in both.
    assert whole.mean == pytest.approx(expected.mean(), rel=1e-6)
    assert whole.largest == pytest.approx(expected.max(), rel=1e-6)
    assert whole.same_first == (p.argmax(-1) == q.argmax(-1)).mean() < 1
    assert whole.reference_perplexity == pytest.approx(math.exp(-p[:, 7].mean()))
    assert whole.perplexity == pytest.approx(math.exp(-q[:, 7].mean()))
    part = divergence(of(p, 30), of(q, 30))
    assert 0.8 * whole.mean < part.mean <= whole.mean
    assert divergence(of(p, 30), of(p, 30)).mean == 0


def whole_distributions(gguf: Path, dtype: str, texts: list[str]) -> np.ndarray[Any, Any]:
    """``[tokens, vocabulary]`` log-probabilities."""
    options: dict[str, Any] = {"dtype": dtype, "kv_cache_memory": "48MiB"}
    with LLM(gguf, **options) as llm:
        pieces = [ids[at : at + WINDOW] for ids in map(llm.tokenize, texts) for at in range(0, len(ids), WINDOW)]
        pieces = [piece for piece in pieces if len(piece) > 1]
        outputs = llm.generate(pieces, SamplingParams(max_tokens=0, prompt_logprobs=-1), progress=False)
        rows = np.concatenate([o.prompt_logprobs.others() for o in outputs if o.prompt_logprobs is not None])
        found = np.empty(rows.shape)
        np.put_along_axis(found, rows["token"], rows["logprob"].astype(np.float64), -1)
        return found


def test_the_command_finds_what_whole_distributions_say(gguf: Path) -> None:
    texts = PROMPTS[:3]
    exact, near = (whole_distributions(gguf, dtype, texts) for dtype in ("float32", "bfloat16"))
    expected = (np.exp(exact) * (exact - near)).sum(-1)
    flags = ["--dtype", "bfloat16", "--against", "dtype=float32", "--window", WINDOW, *MEMORY]
    done = cli("score", *texts, *flags, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["against"] == ["dtype=float32"]
    assert found["tokens"] == len(expected)
    assert found["same_first"] == (exact.argmax(-1) == near.argmax(-1)).mean()
    # The tokens that are not among the likeliest hundred of both count as one; sums of float32 have errors of 1e-7.
    assert 0.5 * expected.mean() < found["mean"] < expected.mean() + 1e-6
    assert exact.shape[1] > TOP
    assert "the same likeliest token for " in cli("score", *texts, *flags).stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window", "5"], "--window has no effect: give --against too"),
        (["--against", "dtype=float32", "--window", "1"], "--window is 1: at least 2"),
        (["--against", "float32"], "--against 'float32' is no NAME=VALUE"),
        (["--against", "dtyp=float32"], "there is no flag --dtyp; did you mean --dtype?"),
        (["--against", "dtype=float31"], "float31"),
        (["--against", "dtype=float32", "--choice", "x"], "--choice has no effect"),
    ],
)
def test_what_is_refused(flags: list[str], message: str) -> None:
    done = cli("score", "A text.", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_vocabularies_must_be_one(tiny: Any, tmp_path: Path) -> None:
    for name, ids in (("one", (5, 6)), ("two", (6, 5))):
        words = Tokenizer(WordLevel(dict(zip(("yes", "no"), ids, strict=True)), unk_token="no"))
        words.pre_tokenizer = Whitespace()
        words.save(str(tmp_path / f"{name}.json"))
    flags = ["--tokenizer", tmp_path / "one.json", "--against", f"tokenizer={tmp_path / 'two.json'}"]
    done = cli("score", "yes no", "--model", tiny("llama")[0], *flags, "--num-blocks", "16")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cut the texts into other tokens" in done.stderr
