"""Which GGUF files OpenVINO reads right, and the copy that it does."""

import numpy as np
import pytest

from prewrite.errors import ConfigError
from prewrite.lm.gguf import check_gguf, context_length, copy_as_f16

gguf = pytest.importorskip("gguf")


def write(path, *, architecture="llama", tokenizer="gpt2", pre="smollm", kind="Q4_1", context=None):
    """A GGUF file with one matrix and one norm; returns the matrix as its quantised values say."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["a", "b"])
    if context is not None:
        writer.add_context_length(context)
    values = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[kind]
    packed = gguf.quants.quantize(values, kind)
    writer.add_tensor("blk.0.attn_q.weight", packed, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.quants.dequantize(packed, kind)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_files_that_are_read_without_loss_are_taken(tmp_path, kind):
    write(tmp_path / "m.gguf", kind=kind)
    check_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_0", "F32", "BF16"])
def test_files_that_are_read_with_loss_or_not_at_all_are_refused_with_the_remedy(tmp_path, kind):
    write(tmp_path / "m.gguf", kind=kind)
    with pytest.raises(ConfigError, match=rf"weights in {kind}.*lm\.gguf m\.gguf m-F16\.gguf"):
        check_gguf(tmp_path / "m.gguf")


def test_the_remedy_keeps_the_weights_and_the_tokenizer(tmp_path):
    values = write(tmp_path / "m.gguf", kind="Q4_1")
    copy_as_f16(tmp_path / "m.gguf", tmp_path / "f16.gguf")
    check_gguf(tmp_path / "f16.gguf")
    reader = gguf.GGUFReader(tmp_path / "f16.gguf")
    matrix, norm = reader.tensors
    assert np.array_equal(matrix.data, values.astype(np.float16)) and norm.tensor_type.name == "F32"
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    assert reader.fields["tokenizer.ggml.pre"].contents() == "smollm"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "gemma3"}, "reads the architectures llama, qwen2, qwen3, this is 'gemma3'"),
        ({"tokenizer": "llama"}, "knows the tokenizers smollm, qwen2; this one"),
        ({"pre": "llama-bpe"}, "split by a guessed rule"),
    ],
)
def test_other_models_are_refused_before_they_are_loaded(tmp_path, fields, message):
    write(tmp_path / "m.gguf", kind="F16", **fields)
    with pytest.raises(ConfigError, match=message):
        check_gguf(tmp_path / "m.gguf")


def test_the_context_is_read_from_the_file(tmp_path):
    write(tmp_path / "told.gguf", architecture="qwen2", context=4096)
    write(tmp_path / "untold.gguf")
    assert context_length(tmp_path / "told.gguf") == 4096
    assert context_length(tmp_path / "untold.gguf") is None


def test_what_is_not_a_gguf_file_is_told(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="is not a GGUF file"):
        check_gguf(tmp_path / "m.gguf")
    with pytest.raises(ConfigError, match="no such file"):
        check_gguf(tmp_path / "other.gguf")
