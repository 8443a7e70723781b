"""Every family of the list against transformers, from each format. A new family is tested here by being in the list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gguf_writer import write_gguf
from greedy import GREEDY, PROMPTS, check, log_probs
from pagedcore import LLM, BeamSearchParams, SamplingParams
from pagedcore.errors import Error, Unsupported
from pagedcore.families import FAMILIES, of_config, of_gguf
from pagedcore.families.family import Family
from pagedcore.families.fields import Fields
from pagedcore.families.llama_like import tiny_config
from pagedcore.loading import load_checkpoint, load_description
from pagedcore.loading.container import save_container
from pagedcore.loading.huggingface import describe

Tiny = Callable[..., tuple[Path, Any]]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
WITH_GGUF = [family for family in FAMILIES if family.gguf is not None]
each_with_gguf = pytest.mark.parametrize("family", WITH_GGUF, ids=lambda family: family.name)
each_size = pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])


def checkpoint(tiny: Tiny, family: Family, odd: bool = False) -> tuple[Path, Any]:
    return tiny(family.name, sharp=True, **(family.odd if odd else {}))


def generate(model: Path, prompts: list[list[int]] = PROMPTS, **options: Any) -> list[Any]:
    # Chunks of 48 tokens and blocks of 8: prompts cross both.
    settings = {"kv_cache_memory": "4MiB", "max_batched_tokens": 48, "block_size": 8, "threads": 2} | options
    with LLM(model, **settings) as llm:
        return llm.generate(prompts, GREEDY)


def samples(outputs: list[Any]) -> list[Any]:
    return [(output.prompt_logprobs, output.outputs) for output in outputs]


@each_size
@each_family
def test_every_format_equals_transformers(family: Family, odd: bool, tiny: Tiny, tmp_path: Path) -> None:
    folder, model = checkpoint(tiny, family, odd)
    found = generate(folder)
    for output in found:
        check(output, model)
    source = folder
    if family.gguf is not None:
        source = write_gguf(tmp_path / "model.gguf", model, family.gguf.architectures[0], matrix=np.float32)
        assert samples(generate(source)) == samples(found)
    with load_checkpoint(source) as opened:
        save_container(tmp_path / "model.safetensors", opened)
    assert samples(generate(tmp_path / "model.safetensors")) == samples(found)


@each_with_gguf
def test_quantized_files_are_what_they_were_rounded_to(family: Family, tiny: Tiny, tmp_path: Path) -> None:
    """Q8_0 against the same file in f32, whose matrices are those of Q8_0."""
    import gguf

    assert family.gguf is not None
    _, model = checkpoint(tiny, family)
    kind = gguf.GGMLQuantizationType.Q8_0

    def rounded(array: np.ndarray) -> np.ndarray:
        return gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind)

    arch = family.gguf.architectures[0]
    exact = generate(write_gguf(tmp_path / "f32.gguf", model, arch, matrix=rounded), PROMPTS[1:3], dtype="float32")
    found = generate(write_gguf(tmp_path / "q8_0.gguf", model, arch, matrix=kind), PROMPTS[1:3], dtype="float32")
    assert samples(found) == samples(exact)


@each_family
def test_bfloat16_stays_close(family: Family, tiny: Tiny) -> None:
    """Mean KL divergence per token from float64 over the same weights, over the whole vocabulary."""
    folder, model = tiny(family.name, torch.bfloat16, sharp=True)
    ids = PROMPTS[2]
    with LLM(folder, dtype="bfloat16", kv_cache_memory="2MiB", threads=1) as llm:
        params = SamplingParams(max_tokens=0, prompt_logprobs=llm.description.vocab_size)
        (output,) = llm.generate([ids], params)
    mine = torch.full((len(ids) - 1, llm.description.vocab_size), -torch.inf, dtype=torch.float64)
    for row, position in zip(mine, output.prompt_logprobs[1:], strict=True):
        for token, entry in position.items():
            row[token] = entry.logprob
    expected = log_probs(model, ids)[:-1]
    divergence = (expected.exp() * (expected - mine)).sum(-1)
    assert divergence.mean().item() < 1e-3


def bits(outputs: list[Any]) -> list[Any]:
    return [[(s.token_ids, s.logprobs) for s in output.outputs] for output in outputs]


@each_family
def test_same_bits_however_disturbed(family: Family, tiny: Tiny) -> None:
    """Alone on one thread, against a batch in small chunks on two, with prefixes cached, preempted and swapped."""
    folder, _ = checkpoint(tiny, family, odd=True)
    params = SamplingParams(temperature=0.8, seed=7, max_tokens=20, ignore_eos=True, logprobs=1, n=2)
    beams = BeamSearchParams(beam_width=3, max_tokens=8)
    prompts = [PROMPTS[2], PROMPTS[1], PROMPTS[2][:40] + PROMPTS[1], PROMPTS[3][:70]]
    plain: dict[str, Any] = {"threads": 1, "enable_prefix_caching": False, "kv_cache_memory": "8MiB"}
    with LLM(folder, block_size=8, **plain) as llm:
        expected = [bits(llm.generate([prompt], params))[0] for prompt in prompts]
        best = [[s.token_ids for s in llm.beam_search([prompt], beams)[0].outputs] for prompt in prompts[:2]]
    for preemption, options in (("recompute", {}), ("swap", {"preemption": "swap", "swap_space": "8MiB"})):
        with LLM(folder, block_size=8, threads=2, max_batched_tokens=24, kv_cache_memory="8MiB", **options) as llm:
            assert bits(llm.generate(prompts, params)) == expected
            llm.engine.force_preemption(5, preemption)
            assert bits(llm.generate(prompts, params)) == expected  # their prefixes are cached
            found = llm.beam_search(prompts[:2], beams)
            assert [[s.token_ids for s in output.outputs] for output in found] == best
            assert llm.stats()[f"preemptions_{preemption}"] > 0


# What GGUF files hold otherwise: norms with the 1 added that Gemma's configuration asks for.
DIFFER = {"architecture", "norm_weight_offset"}


@each_with_gguf
def test_formats_give_one_description(family: Family, tiny: Tiny, tmp_path: Path) -> None:
    assert family.gguf is not None
    folder, model = checkpoint(tiny, family)
    path = write_gguf(tmp_path / "model.gguf", model, family.gguf.architectures[0])
    found, expected = load_description(path).description, load_description(folder).description
    for name in (found.keys() | expected.keys()) - DIFFER:  # files hold numbers in f32, config.json in double
        value = expected[name]
        assert found[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name
    with load_checkpoint(path) as left, load_checkpoint(folder) as right:
        assert left.tensors.keys() == right.tensors.keys()


@each_family
def test_names_are_those_of_the_others(family: Family) -> None:
    import gguf
    import transformers

    config = transformers.AutoConfig.for_model(**family.tiny_config())
    assert config.model_type == family.huggingface.model_type
    assert all(hasattr(transformers, name) for name in family.huggingface.architectures)
    if family.gguf is not None:
        assert set(family.gguf.architectures) <= set(gguf.MODEL_ARCH_NAMES.values())


@each_family
def test_an_architecture_leads_to_its_family(family: Family) -> None:
    for name in family.huggingface.architectures:
        assert of_config(Fields({"architectures": [name]}, "config.json"))[1].huggingface is family.huggingface
    by_type = of_config(Fields({"model_type": family.huggingface.model_type}, "config.json"))
    assert by_type[1].huggingface is family.huggingface
    for name in family.gguf.architectures if family.gguf is not None else ():
        assert of_gguf(Fields({"general.architecture": name}, "model.gguf"))[1].gguf is family.gguf


def test_no_two_families_read_one_architecture_or_vocabulary_differently() -> None:
    seen: dict[str, object] = {}
    for family in FAMILIES:
        for kind, form in (("huggingface", family.huggingface), ("gguf", family.gguf)):
            for name in form.architectures if form is not None else ():
                assert seen.setdefault(f"{kind} {name}", form) is form
        for name in family.splits:
            assert seen.setdefault(f"split {name}", family) is family
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": 256},
            r"'DeepseekV3ForCausalLM' is a mixture of experts \(n_routed_experts = 256\) of a kind that is not",
        ),
        (
            {"architectures": ["MixtralForCausalLM"], "num_experts_per_tok": 9},
            r"num_experts_per_tok = 9 is outside \[1, 8\]",
        ),
        ({"architectures": ["OlmoeForCausalLM"], "scoring_func": "sigmoid"}, "scoring_func 'sigmoid' is not supported"),
        ({"architectures": ["OlmoeForCausalLM"], "clip_qkv": 8.0}, r"clip_qkv '8.0' is not supported"),
        (
            {"architectures": ["Qwen2MoeForCausalLM"], "mlp_only_layers": [3]},
            r"mlp_only_layers = \[3\] is not a list of",
        ),
        ({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 0}, r"num_experts = 0 is outside \[1, 65536\]"),
        ({"hidden_act": "swiglu7"}, r"hidden_act 'swiglu7' is not supported; supported are silu,"),
        ({"rope_parameters": {"rope_type": "ntk"}}, "rope_type 'ntk' is not supported; supported are default, linear"),
        ({"architectures": ["BloomForCausalLM"], "apply_residual_connection_post_layernorm": True}, "is not supported"),
        (
            {"architectures": ["OlmoForCausalLM"], "clip_qkv": 8.0},
            r"clip_qkv '8.0' is not supported; supported are null",
        ),
        (
            {"architectures": ["Phi3ForCausalLM"], "rope_scaling": {"type": "longrope"}},
            "long_factor = None is not a list",
        ),
        (
            {"architectures": ["SmolLM3ForCausalLM"], "no_rope_layers": [1, 2]},
            r"no_rope_layers = \[1, 2\] is not a list",
        ),
        ({"architectures": ["Gemma3ForCausalLM"], "layer_types": ["recurrent"] * 3}, "the layer type 'recurrent'"),
        ({"architectures": ["GPT2LMHeadModel"], "n_embd": "x", "n_head": 4}, "n_embd = 'x' is not an integer"),
    ],
)
def test_what_is_not_served_is_named_with_its_file_and_field(settings: dict[str, Any], message: str) -> None:
    values = tiny_config("llama") | {"architectures": ["LlamaForCausalLM"]} | settings
    with pytest.raises(Error, match=f"^/m/config.json.*{message}"):
        describe(Fields(values, "/m/config.json"))


def test_an_unknown_architecture_is_answered_with_all_that_are_served() -> None:
    with pytest.raises(Unsupported) as caught:
        of_config(Fields({"architectures": ["NoSuchForCausalLM"]}, "config.json"))
    message = str(caught.value)
    assert "config.json" in message and "'NoSuchForCausalLM'" in message
    assert all(message.count(name) == 1 for family in FAMILIES for name in family.huggingface.architectures)
    with pytest.raises(Unsupported) as caught:
        of_gguf(Fields({"general.architecture": "no-such"}, "model.gguf"))
    assert all(
        name in str(caught.value)
        for family in WITH_GGUF
        if family.gguf is not None
        for name in family.gguf.architectures
    )
