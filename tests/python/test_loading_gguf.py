"""GGUF files against the gguf package and against transformers."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as reference_gguf
import numpy as np
import pytest

from gguf_writer import write_gguf
from pagedcore import _core
from pagedcore.default_model import default_model
from pagedcore.errors import Corrupt, Io, Unsupported
from pagedcore.loading import load_checkpoint, load_description
from pagedcore.loading.checkpoint import Tensor
from pagedcore.loading.gguf import GgufFile
from pagedcore.loading.gguf_header import Texts

BLOCK_FORMATS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


def values(tensor: Tensor) -> np.ndarray:
    return _core.to_f32(tensor.dtype, tensor.shape, tensor.buffer)


def bits(array: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(array), np.float32(np.nan), array).view(np.uint32)


# rule: tensor.bits-of-the-reference
@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_block_formats_decode_bit_for_bit(name: str) -> None:
    kind = reference_gguf.GGMLQuantizationType[name]
    elements, size = reference_gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(int(kind)).integers(
        0, 256, (64, 4 * size), dtype=np.uint8
    )  # NaN and infinite scales too
    with np.errstate(all="ignore"):
        expected = reference_gguf.dequantize(raw, kind)
    found = _core.to_f32(name.lower(), (64, 4 * elements), raw)
    assert np.isfinite(expected).mean() > 0.5
    assert np.array_equal(bits(found), bits(expected))


# rule: tensor.floats-are-exact
@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_half_precision_decodes_bit_for_bit(name: str) -> None:
    raw = np.arange(65536, dtype=np.uint16).view(np.uint8)
    expected = reference_gguf.dequantize(raw, reference_gguf.GGMLQuantizationType[name])
    assert np.array_equal(bits(_core.to_f32(name.lower(), (65536,), raw)), bits(expected))


def plain(value: Any) -> Any:
    """Arrays as lists, bit for bit."""
    if isinstance(value, memoryview):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, (list, Texts)) else value


def test_the_real_model_is_read_as_the_gguf_package_reads_it() -> None:
    reader = reference_gguf.GGUFReader(default_model())
    file = GgufFile(default_model())
    assert list(file.metadata) == [key for key in reader.fields if not key.startswith("GGUF.")]
    for key, value in file.metadata.items():
        assert plain(value) == reader.fields[key].contents(), key
    assert file.tensors.keys() == {tensor.name for tensor in reader.tensors}
    for tensor in reader.tensors:
        ours = file.tensors[tensor.name]
        assert ours.dtype == tensor.tensor_type.name.lower()
        assert ours.shape == tuple(reversed(tensor.shape.tolist()))
        expected = reference_gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(values(ours), expected.reshape(ours.shape)), tensor.name


HF_NAMES = {
    "embed.": "model.embed_tokens.",
    "final_norm.": "model.norm.",
    "layers.": "model.layers.",
    "attn_norm.": "input_layernorm.",
    "mlp_norm.": "post_attention_layernorm.",
    "attn.q.": "self_attn.q_proj.",
    "attn.k.": "self_attn.k_proj.",
    "attn.v.": "self_attn.v_proj.",
    "attn.o.": "self_attn.o_proj.",
    "attn.q_norm.": "self_attn.q_norm.",
    "attn.k_norm.": "self_attn.k_norm.",
    "mlp.gate.": "mlp.gate_proj.",
    "mlp.up.": "mlp.up_proj.",
    "mlp.down.": "mlp.down_proj.",
}


def hf_name(name: str) -> str:
    for ours, theirs in HF_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def test_the_real_model_has_the_weights_that_transformers_finds_in_it(reference: Any) -> None:
    """Names, the q and k rows put back in order, and every value."""
    state = reference.state_dict()
    with load_checkpoint(default_model()) as checkpoint:
        assert {hf_name(name) for name in checkpoint.tensors} | {"lm_head.weight"} == state.keys()
        for name, tensor in checkpoint.tensors.items():
            assert np.array_equal(values(tensor), state[hf_name(name)].numpy()), name


def test_the_real_model_is_described(reference: Any) -> None:
    checkpoint = load_description(default_model())
    config, d = reference.config, checkpoint.description
    assert d["architecture"] == "LlamaForCausalLM"
    assert (d["vocab_size"], d["hidden_size"]) == (config.vocab_size, config.hidden_size)
    assert (d["num_heads"], d["num_kv_heads"]) == (config.num_attention_heads, config.num_key_value_heads)
    assert (d["num_layers"], d["intermediate_size"]) == (config.num_hidden_layers, config.intermediate_size)
    assert (d["head_dim"], d["max_context"]) == (config.head_dim, config.max_position_embeddings)
    assert d["norm_eps"] == pytest.approx(config.rms_norm_eps, rel=1e-6)
    assert d["tied_embeddings"] is True
    np.testing.assert_allclose(d["rope_inv_freq"], reference.model.rotary_emb.inv_freq.numpy(), rtol=1e-6)
    assert checkpoint.source_dtype == "q4_1"
    assert checkpoint.eos_token_ids == [2]
    assert checkpoint.bos_token_id == 1
    assert checkpoint.chat_template is not None and "<|im_start|>" in checkpoint.chat_template
    assert checkpoint.tokenizer is not None and checkpoint.tokenizer.kind == "gguf"
    assert len(checkpoint.tokenizer.metadata["tokenizer.ggml.tokens"]) == 49152
    assert checkpoint.tensors == {}
    _core.ModelDescription(**d).validate()


def test_parsing_is_quick() -> None:
    """A vocabulary of 49152 tokens and as many merges. CPU time, as other processes may run; 0.04 s where this was
    written, and machines that share their cores with others vary by half."""
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        GgufFile(default_model())
        best = min(best, time.process_time() - start)
    assert best < 0.15


# Files made here. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "settings"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "num_key_value_heads": 4}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
    ],
)
def test_architectures(
    tiny: Callable[..., tuple[Path, Any]], tmp_path: Path, arch: str, settings: dict[str, Any]
) -> None:
    folder, model = tiny(arch, **settings)
    path = write_gguf(tmp_path / "model.gguf", model, arch)
    with load_checkpoint(path) as found, load_checkpoint(folder) as expected:
        assert found.tensors.keys() == expected.tensors.keys()
        for name, tensor in found.tensors.items():
            wanted = values(expected.tensors[name])
            assert tensor.shape == expected.tensors[name].shape
            assert np.array_equal(values(tensor), wanted.astype(np.float16) if len(tensor.shape) == 2 else wanted), name
        assert found.source_dtype == "f16"
        # Files hold these in f32, config.json in double.
        assert found.description.pop("norm_eps") == pytest.approx(expected.description.pop("norm_eps"), rel=1e-6)
        assert found.description == expected.description


def test_tied_embeddings_are_those_without_an_output(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    _, model = tiny("llama")
    path = write_gguf(tmp_path / "untied.gguf", model, "llama")
    assert load_description(path).description["tied_embeddings"] is False

    class Tied:
        config = model.config

        @staticmethod
        def state_dict() -> dict[str, Any]:
            return {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}

    checkpoint = load_checkpoint(write_gguf(tmp_path / "tied.gguf", Tied, "llama"))
    assert checkpoint.description["tied_embeddings"] is True
    assert "lm_head.weight" not in checkpoint.tensors


def test_rope_scaling(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    _, model = tiny("llama")

    def described(edit: Callable[[Any], None]) -> dict[str, Any]:
        return load_description(write_gguf(tmp_path / "model.gguf", model, "llama", edit)).description

    def expected(**parameters: Any) -> tuple[np.ndarray, float]:
        config = transformers.LlamaConfig(
            hidden_size=64,
            num_attention_heads=4,
            max_position_embeddings=512,
            rope_parameters={"rope_theta": 10000.0} | parameters,
        )
        inv_freq, magnitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, device="cpu")
        return inv_freq.numpy(), magnitude

    plain = described(lambda writer: None)

    def linear(writer: Any) -> None:
        writer.add_rope_scaling_type(reference_gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    np.testing.assert_allclose(
        described(linear)["rope_inv_freq"], expected(rope_type="linear", factor=4.0)[0], rtol=1e-6
    )

    def yarn(writer: Any) -> None:
        writer.add_rope_scaling_type(reference_gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(128)

    inv_freq, magnitude = expected(rope_type="yarn", factor=4.0, original_max_position_embeddings=128)
    np.testing.assert_allclose(described(yarn)["rope_inv_freq"], inv_freq, rtol=1e-6)
    assert described(yarn)["rope_magnitude"] == pytest.approx(magnitude)

    factors = np.linspace(1, 8, 8, dtype=np.float32)
    found = described(lambda writer: writer.add_tensor("rope_freqs.weight", factors))
    np.testing.assert_allclose(found["rope_inv_freq"], np.array(plain["rope_inv_freq"]) / factors, rtol=1e-6)

    def beyond_floats(writer: Any) -> None:  # 1 / 2e-38 / 1e-5 is 5e42
        writer.add_rope_scaling_factor(2e-38)
        writer.add_tensor("rope_freqs.weight", np.full(8, 1e-5, np.float32))

    with pytest.raises(Corrupt, match=r"\.gguf: the factors of 'rope_freqs.weight' give no frequencies"):
        described(beyond_floats)

    def longrope(writer: Any) -> None:
        writer.add_rope_scaling_type(reference_gguf.RopeScalingType.LONGROPE)

    with pytest.raises(Unsupported, match="'longrope'; supported are none, linear, yarn"):
        described(longrope)


def test_every_kind_of_metadata(tmp_path: Path) -> None:
    path = tmp_path / "kinds.gguf"
    writer = reference_gguf.GGUFWriter(path, "test")
    expected: dict[str, Any] = {"general.architecture": "test"}
    kind = reference_gguf.GGUFValueType
    for value, type_ in [
        (200, kind.UINT8), (-100, kind.INT8), (60000, kind.UINT16), (-30000, kind.INT16), (2**32 - 1, kind.UINT32),
        (-(2**31), kind.INT32), (2**64 - 1, kind.UINT64), (-(2**63), kind.INT64), (0.5, kind.FLOAT32),
        (0.1, kind.FLOAT64), (True, kind.BOOL), ("héllo \U0001f600", kind.STRING),
    ]:  # fmt: skip
        key = f"x.{type_.name}"
        writer.add_key_value(key, value, type_)
        expected[key] = value
    arrays: list[list[Any]] = [[1, 2, 3], ["a", "", "é"], [0.5, -2.0], [True, False], [[1, 2], [3]]]
    for index, array in enumerate(arrays):
        writer.add_array(f"a.{index}", array)
        expected[f"a.{index}"] = array
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GgufFile(path).metadata
    assert {key: plain(value) for key, value in read.items()} == expected
    texts = read["a.1"]
    assert (texts[-1], texts[0:2], len(texts), "é" in texts, repr(texts)) == ("é", ["a", ""], 3, True, "['a', '', 'é']")
    with pytest.raises(IndexError):
        texts[3]


# Broken files. ------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf_bytes(
    metadata: list[bytes] = (), tensors: list[bytes] = (), data: bytes = b"", counts: tuple[int, int] | None = None
) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, *(counts or (len(tensors), len(metadata))))
    head += b"".join(metadata) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


U32 = struct.pack("<I", 4)
F32_4 = entry("t", (4,), 0, 0)

BROKEN: list[tuple[bytes, str]] = [
    (b"GGUF", "in the middle of its header"),
    (b"nope" + bytes(30), "not a GGUF file"),
    (gguf_bytes(counts=(2**40, 0)), "claims 1099511627776 tensors"),
    (gguf_bytes(counts=(0, 2**63)), "metadata entries"),
    (gguf_bytes([text("k")[:-1] + b"\xff" + U32 + bytes(4)]), "is not UTF-8"),
    (gguf_bytes([text("k") + U32 + bytes(4)] * 2), "'k' occurs twice"),
    (gguf_bytes([text("k") + struct.pack("<I", 13)]), "unknown type 13"),
    (gguf_bytes([text("k") + struct.pack("<IB", 7, 2)]), "neither 0 nor 1"),
    (gguf_bytes([text("k") + struct.pack("<IQ", 8, 2**62)]), "beyond the end"),
    (gguf_bytes([text("k") + struct.pack("<IIQ", 9, 4, 2**62)]), "elements of metadata 'k'"),
    (gguf_bytes([text("k") + struct.pack("<IIQQ", 9, 8, 1, 2**62)]), "beyond the end"),
    (gguf_bytes([text("k") + struct.pack("<IIQ", 9, 13, 1) + bytes(30)]), "unknown type 13"),
    (gguf_bytes([text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 20 + bytes(30)]), "nests arrays"),
    (gguf_bytes(tensors=[F32_4, F32_4], data=bytes(64)), "'t' occurs twice"),
    (gguf_bytes(tensors=[F32_4], data=bytes(15)), "beyond the end of the file"),
    (gguf_bytes(tensors=[entry("t", (4,), 0, 4)], data=bytes(64)), "not a multiple of 32"),
    (gguf_bytes(tensors=[entry("t", (4,), 0, 2**64 - 32)], data=bytes(64)), "beyond the end of the file"),
    (gguf_bytes(tensors=[entry("t", (2**32, 2**32), 0, 0)], data=bytes(64)), "impossible shape"),
    (gguf_bytes(tensors=[entry("t", (0,), 0, 0)], data=bytes(64)), "impossible shape"),
    (gguf_bytes(tensors=[entry("t", (), 0, 0)], data=bytes(64)), "has 0 dimensions"),
    (gguf_bytes(tensors=[entry("t", (1,) * 5, 0, 0)], data=bytes(64)), "has 5 dimensions"),
    (gguf_bytes(tensors=[entry("t", (33,), 2, 0)], data=bytes(64)), "no multiple of q4_0's block of 32"),
    (gguf_bytes(tensors=[entry("t", (4,), 99, 0)], data=bytes(64)), "unknown type 99"),
    (gguf_bytes(tensors=[F32_4, entry("u", (4,), 0, 0)], data=bytes(64)), "overlaps"),
    (gguf_bytes([text("general.alignment") + U32 + struct.pack("<I", 24)]), "general.alignment = 24"),
    (gguf_bytes([text("general.alignment") + U32 + struct.pack("<I", 0)]), "general.alignment = 0"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_broken_files_are_corrupt(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=message) as caught:
        GgufFile(path)
    assert str(path) in str(caught.value)


def test_what_is_not_served_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(gguf_bytes(tensors=[entry("t", (256,), 16, 0)], data=bytes(512)))
    with pytest.raises(Unsupported, match="'t' has the type iq2_xxs; supported are f32"):
        GgufFile(path)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 1, 0, 0))
    with pytest.raises(Unsupported, match="version 1"):
        GgufFile(path)
    path.write_bytes(struct.pack(">4sIQQ", b"GGUF", 3, 0, 0))
    with pytest.raises(Unsupported, match="big-endian"):
        GgufFile(path)
    path.write_bytes(gguf_bytes([text("general.architecture") + struct.pack("<I", 8) + text("mamba")]))
    with pytest.raises(Unsupported, match=r"'mamba' is not supported; supported are llama, .*qwen2, qwen3"):
        load_checkpoint(path)


def test_refusals_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(Io, match="no such file"):
        load_checkpoint(tmp_path / "missing.gguf")
    (tmp_path / "empty").touch()
    with pytest.raises(Corrupt, match="is empty"):
        load_checkpoint(tmp_path / "empty")
    (tmp_path / "other").write_text("something else")
    with pytest.raises(Unsupported, match="neither a GGUF file nor a pagedcore container"):
        load_checkpoint(tmp_path / "other")
    with pytest.raises(Io, match="is empty"):
        GgufFile(tmp_path / "empty")
    with pytest.raises(Io, match="cannot be read: Is a directory"):
        GgufFile(tmp_path)


def test_missing_and_unknown_tensors(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    _, model = tiny("llama")

    class Changed:
        config = model.config

        def __init__(self, change: Callable[[dict[str, Any]], Any]) -> None:
            self.state = dict(model.state_dict())
            change(self.state)

        def state_dict(self) -> dict[str, Any]:
            return self.state

    def load(change: Callable[[dict[str, Any]], Any]) -> None:
        load_checkpoint(write_gguf(tmp_path / "model.gguf", Changed(change), "llama"))

    weight = model.state_dict()["model.norm.weight"]
    with pytest.raises(Corrupt, match=r"missing, the first is 'layers.1.mlp.down.weight'"):
        load(lambda state: state.pop("model.layers.1.mlp.down_proj.weight"))
    with pytest.raises(
        Corrupt, match=r"'layers.0.attn.q_norm.bias' is not part of a LlamaForCausalLM, and would change"
    ):
        load(lambda state: state.update({"blk.0.attn_q_norm.bias": weight[:16]}))
    with pytest.raises(Corrupt, match=r"has 16 rows, not 4 heads of 16"):
        load(lambda state: state.update({"model.layers.0.self_attn.q_proj.weight": weight.reshape(16, 4)}))


def test_a_closed_checkpoint_lets_go_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf_bytes(tensors=[F32_4], data=bytes(16)))
    file = GgufFile(path)
    buffer = file.tensors["t"].buffer
    del file
    assert values(Tensor("f32", (4,), buffer)).tolist() == [0.0] * 4  # it keeps the file open
    assert buffer.read().readonly
