"""The openvino backend: which files it refuses, and, where it is installed, that its scores are those of hf."""

import numpy as np
import pytest

from prewrite.errors import ConfigError, NoAnswerError
from prewrite.lm.embedded import find_gguf
from prewrite.lm.gguf import check_gguf, context_length, copy_as_f16
from prewrite.lm.prefix import batches, group_by_prefix

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


def test_rows_that_begin_alike_are_grouped_and_the_kept_tokens_never_shared():
    same = [1, 2, 3, 4]
    groups = group_by_prefix([[*same, 5], [*same, 6], [9, 9], [*same, 7], same], [1, 1, 1, 1, 1])
    assert [(group.rows, group.shared) for group in groups] == [([4, 0, 1, 3], 3), ([2], 0)]
    assert group_by_prefix([[*same, 5], [*same, 6]], [3, 1])[0].shared == 2
    assert group_by_prefix([], []) == []


def test_the_order_of_the_prompts_does_not_matter():
    inputs_first = [[*text, *rewrite] for rewrite in ([7], [8], [9]) for text in ([1, 2, 3], [4, 5, 6])]
    groups = group_by_prefix(inputs_first, [1] * 6)
    assert [(group.rows, group.shared) for group in groups] == [([0, 2, 4], 3), ([1, 3, 5], 3)]


def test_a_short_match_does_not_spoil_a_long_one():
    # joining row 2 would save 1 token and cost rows 0 and 1 four each
    groups = group_by_prefix([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7], [1, 8, 8]], [1, 1, 1])
    assert [(group.rows, group.shared) for group in groups] == [([0, 1], 5), ([2], 0)]


def test_batches_stay_within_their_padded_size():
    parts = list(batches([0, 1, 2, 3, 4], [3, 1, 2, 8, 2], 6))
    assert parts == [[1, 2, 4], [0], [3]]  # 3 x 2 = 6; 2 x 8 > 6; a row longer than the limit goes alone


@pytest.fixture(scope="module")
def exact():
    """(openvino, hf): the embedded model on both, in fp32, with a given setting of chat."""
    pytest.importorskip("openvino_genai")
    pytest.importorskip("torch")
    if find_gguf() is None:
        pytest.skip("the embedded model is not installed")
    from prewrite.task_models.hf import HFTaskModel
    from prewrite.task_models.openvino import OpenVINOTaskModel

    def load(chat):
        settings = {"chat": chat, "max_new_tokens": 12}
        return OpenVINOTaskModel(precision="f32", **settings), HFTaskModel(dtype="float32", **settings)

    return load


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_answers_are_those_of_hf_and_do_not_depend_on_company_in_f32(exact, chat):
    prompts = [
        f"Is it positive or negative?\n\nInput: a {word} film\nOutput:" for word in ("good", "bad", "rather dull")
    ]
    labels, targets = ("positive", "negative", "not so bad"), ("positive", "rather bad", "x")
    vino, hf = exact(chat)
    scores = vino.label_logprobs(prompts, labels)
    assert np.allclose(scores, hf.label_logprobs(prompts, labels), atol=0.05)
    assert np.allclose(vino.target_logprobs(prompts, targets), hf.target_logprobs(prompts, targets), atol=0.05)
    assert np.allclose(vino.label_logprobs(prompts[:1], labels), scores[:1], atol=1e-3)
    assert vino.generate(["The capital of France is"]) == hf.generate(["The capital of France is"])
    assert vino.prompt_tokens(prompts) == hf.prompt_tokens(prompts)
    assert vino.text_tokens(labels) == hf.text_tokens(labels)


@pytest.mark.slow
def test_a_prompt_that_is_longer_than_the_context_is_an_error(exact):
    vino, _ = exact(False)
    with pytest.raises(NoAnswerError, match=r"prompt 2 of 2, 'a a a.*8,\d\d\d tokens and .* more than the 8,192 that"):
        vino.label_logprobs(["short", "a " * 8200], ("positive", "negative"))
