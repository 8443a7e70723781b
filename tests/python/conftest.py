"""What the Python tests share: the default model, the same model in transformers, and tiny random checkpoints."""

from __future__ import annotations

import gc
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # transformers must not look for newer files of local checkpoints
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch must not spin on the cores that the engine needs

import pytest

from pagedcore import LLM
from pagedcore.default_model import default_model
from pagedcore.families import FAMILIES

LAST = r"(project_out|final_layer_?norm|\.norm|ln_f)\.(weight|bias)$"  # what precedes the head, in every family
KV = "96MiB"  # plenty for the tests, and quickly zeroed


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The default model's file. Fails, rather than skips, when it is missing: most promises are about real models."""
    return default_model()


@pytest.fixture(scope="session")
def llm(gguf: Path) -> Iterator[LLM]:
    with LLM(gguf, dtype="float32", kv_cache_memory=KV) as llm:
        yield llm


@pytest.fixture(scope="session")
def llm_bf16(gguf: Path) -> Iterator[LLM]:
    with LLM(gguf, kv_cache_memory=KV) as llm:
        yield llm


@pytest.fixture(scope="session")
def reference_tokenizer(gguf: Path) -> Any:
    """transformers' vocabulary, special tokens and template of the default model's file. It cuts text as SmolLM2's own
    tokenizer.json says, digits apart first, which the conversion of the file forgets."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def reference(gguf: Path) -> Iterator[Any]:
    """The default model in transformers, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    yield model
    del model
    gc.collect()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Any]]:
    """``tiny("llama", **settings)``: a folder with a family's small random checkpoint, and its transformers model.
    ``sharp``: what the head reads is enlarged until tokens are far from uniform, so that no fault hides in flat logits.
    All weights would do, but let rounding grow from layer to layer."""
    import torch
    import transformers

    made: dict[str, tuple[Path, Any]] = {}

    def sharpen(model: Any) -> None:
        vocab = model.get_output_embeddings().weight.shape[0]
        tokens = torch.randint(0, vocab, (4, 32), generator=torch.Generator().manual_seed(1))
        named = [(name, p) for name, p in model.named_parameters() if not re.search(r"\.\d+\.", name)]
        last = [p for name, p in named if re.search(LAST, name)] or [model.get_output_embeddings().weight]
        for _ in range(20):
            with torch.inference_mode():
                logits = model(tokens).logits.float()
            if torch.distributions.Categorical(logits=logits).entropy().mean() < 0.5 * math.log(vocab):
                return
            for parameter in last:
                parameter.data *= 1.25
        raise AssertionError(f"{model.config.model_type}: its tokens stay close to uniform")

    def make(kind: str, dtype: Any = torch.float32, sharp: bool = False, **settings: Any) -> tuple[Path, Any]:
        key = f"{kind} {dtype} {sharp} {sorted(settings.items())}"
        if key not in made:
            (values,) = [family.tiny_config() for family in FAMILIES if family.name == kind]
            config = transformers.AutoConfig.for_model(**(values | settings))
            config._experts_implementation = "eager"  # torch's grouped product has no float64
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name:  # initialised to 0 and 1, which would hide their absence
                    parameter.data += 0.2 * torch.randn_like(parameter)
                if name.endswith(
                    "experts.down_proj"
                ):  # where two experts are nearly equal, rounding to bfloat16 chooses
                    parameter.data *= 0.1  # another one, in any engine: that shall move tokens by little
            if sharp:
                sharpen(model)
            folder = tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            made[key] = (folder, model)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_llm(tiny: Callable[..., tuple[Path, Any]]) -> Iterator[LLM]:
    """A small random Llama: for what does not depend on the model."""
    with LLM(tiny("llama")[0], kv_cache_memory="4MiB", max_batched_tokens=64) as llm:
        yield llm
