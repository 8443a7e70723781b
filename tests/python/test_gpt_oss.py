"""gpt-oss beyond what every family is tested for: experts in mxfp4 from both formats, its defaults, its vocabulary."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch

from gguf_writer import write_gguf
from greedy import GREEDY, PROMPTS, check
from pagedcore import LLM
from pagedcore.errors import Corrupt, Error
from pagedcore.families.fields import Fields
from pagedcore.loading import load_checkpoint, load_description
from pagedcore.loading.container import save_container
from pagedcore.loading.huggingface import describe

Tiny = Callable[..., tuple[Path, Any]]
MXFP4 = gguf.GGMLQuantizationType.MXFP4


def quantized(tiny: Tiny, folder: Path) -> Any:
    """A directory whose experts are blocks and scales, as gpt-oss was published. Returns transformers' model of the
    same numbers."""
    source, model = tiny("gpt_oss", sharp=True)
    model = copy.deepcopy(model)
    state = safetensors.torch.load_file(source / "model.safetensors")
    for name in [name for name in state if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        turned = state.pop(name).transpose(1, 2).contiguous()
        blocks = gguf.quants.quantize(turned.numpy(), MXFP4).reshape(*turned.shape[:-1], -1, 17)
        codes = np.concatenate((blocks[..., 1:] & 15, blocks[..., 1:] >> 4), axis=-1)  # in the order of columns
        state[f"{name}_blocks"] = torch.from_numpy(codes[..., ::2] | codes[..., 1::2] << 4).contiguous()
        state[f"{name}_scales"] = torch.from_numpy(np.ascontiguousarray(blocks[..., 0]))
        numbers = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
        each = numbers[torch.from_numpy(codes.astype(np.int64))]
        exact = torch.ldexp(each, state[f"{name}_scales"].int().unsqueeze(-1) - 127).reshape(turned.shape)
        model.get_parameter(name).data = exact.transpose(1, 2).contiguous()
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    (folder / "config.json").write_text(json.dumps(config))
    return model


def generate(model: Path, **options: Any) -> Any:
    with LLM(model, kv_cache_memory="4MiB", max_batched_tokens=48, block_size=8, **options) as llm:
        outputs = llm.generate(PROMPTS[:3], GREEDY)
        return outputs, llm.memory_plan()


def samples(outputs: list[Any]) -> list[Any]:
    return [(output.prompt_logprobs, output.outputs) for output in outputs]


def test_experts_in_mxfp4_are_kept_as_they_are_from_every_format(tiny: Tiny, tmp_path: Path) -> None:
    model = quantized(tiny, tmp_path)
    dense, plan = generate(tmp_path, dtype="float32", weights="dense", threads=2)
    for output in dense:
        check(output, model)
    native, kept = generate(tmp_path, dtype="float32", weights="native")
    assert samples(native) == samples(dense)
    of_experts = 3 * 6 * (64 * 192 + 96 * 64) // 32 * 17
    assert kept.native_weights == of_experts and kept.weights < plan.weights / 2
    assert LLM.plan(tmp_path, dtype="float32", weights="native", num_blocks=8).native_weights == of_experts
    path = write_gguf(tmp_path / "m.gguf", model, "gpt-oss", matrix=np.float32, experts=MXFP4)
    assert samples(generate(path, dtype="float32", weights="native")[0]) == samples(dense)
    with load_checkpoint(tmp_path) as opened:
        save_container(tmp_path / "c.safetensors", opened)
    assert samples(generate(tmp_path / "c.safetensors", dtype="float32", weights="native")[0]) == samples(dense)
    both = [samples(generate(tmp_path, dtype="bfloat16", weights=weights)[0]) for weights in ("native", "dense")]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gate_up_proj_scales", lambda t: t.fill_(255), "gate_up_proj_scales': the scale of block .* is 255"),
        ("down_proj_scales", lambda t: t[:, :, :1].contiguous(), "down_proj_scales' is of shape .* ask for"),
        ("down_proj_blocks", None, "weights are missing"),
        ("gate_up_proj_bias", lambda t: t[:, :-1].contiguous(), "gate_up_proj_bias' is of shape .* not a stack"),
        ("sinks", lambda t: t[:-1].contiguous(), r"attn.sinks.weight has shape \[3\]"),
    ],
)
def test_what_does_not_fit_is_named(
    name: str, change: Callable[[torch.Tensor], torch.Tensor] | None, message: str, tiny: Tiny, tmp_path: Path
) -> None:
    quantized(tiny, tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    for full in [
        full for full in state if full.endswith(f"layers.1.mlp.experts.{name}") or full.endswith(f"1.self_attn.{name}")
    ]:
        tensor = state.pop(full)
        if change is not None:
            state[full] = change(tensor)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(Error, match=message):
        LLM(tmp_path, num_blocks=8, dtype="float32")


def test_what_a_configuration_leaves_out_is_what_transformers_takes() -> None:
    import transformers

    theirs = transformers.AutoConfig.for_model("gpt_oss")
    _, described = describe(Fields({"architectures": ["GptOssForCausalLM"], **SIZES}, "config.json"))
    d = described.description
    assert d["windows"] == [128 if kind == "sliding_attention" else 0 for kind in theirs.layer_types]
    assert (d["swiglu_limit"], d["num_experts"], d["experts_per_token"]) == (7.0, 128, 4)
    assert (d["num_kv_heads"], d["head_dim"], d["expert_size"]) == (8, 64, 2880)
    inverse, magnitude = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["yarn"](theirs)
    assert d["rope_inv_freq"] == pytest.approx(inverse.tolist(), rel=1e-6)
    assert d["rope_magnitude"] == pytest.approx(magnitude, rel=1e-6)


SIZES = {
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
}
# What o200k cuts, with ids of its own tokenizer.json: a vocabulary of only what these texts take.
TEXTS = [
    "Hello world, it's 12345 o'clock!",
    "CamelCase HTTPServer's\r\n\n  end ",
    "naïve Ünïcode 漢字 😀 <|channel|>final",
]


def test_the_vocabulary_cuts_text_as_its_tokenizer_does(tmp_path: Path) -> None:
    """A reduced one: bytes, and the merges of a few words. In a GGUF file its cut is called gpt-4o."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from pagedcore.families import find_split
    from pagedcore.tokenizer import Tokenizer

    split = find_split("gpt-4o")
    theirs = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in split.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    theirs.decoder = decoders.ByteLevel()
    special = ["<|return|>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|call|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    theirs.train_from_iterator(TEXTS * 4, trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    mine = Tokenizer.from_path(tmp_path)
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert mine.encode(text, add_special_tokens=False) == ids
        assert mine.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


def test_description_without_tensors_knows_the_types(tiny: Tiny, tmp_path: Path) -> None:
    quantized(tiny, tmp_path)
    types = load_description(tmp_path).weight_types
    assert types["layers.2.mlp.experts.5.up.weight"] == "mxfp4" and types["layers.0.mlp.experts.0.down.bias"] == "f32"
    (tmp_path / "model.safetensors").unlink()
    assert load_description(tmp_path).weight_types == {}  # of a hub's configuration alone
    with pytest.raises((Corrupt, Error)):
        load_checkpoint(tmp_path)
