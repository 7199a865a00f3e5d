"""Which GGUF files OpenVINO GenAI reads right, and a copy in F16 of those that it would not.

Its reader turns the minimum of Q4_1 and Q4_K blocks into an integer zero point, which moves log-probabilities by up to
2 nats without a word; other types, architectures and tokenizers fail late or are read with a guessed rule. So a file
is checked before it is loaded. In F16 the weights of a quantised file are kept to half precision.

    python -m prewrite.lm.gguf MODEL-Q4_K_M.gguf MODEL-F16.gguf
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prewrite.errors import ConfigError, MissingDependencyError

ARCHITECTURES = ("llama", "qwen2", "qwen3")
PRE_TOKENIZERS = ("smollm", "qwen2")
"""Rules for splitting text that the reader knows; it reads any other file with a default, in silence."""
MATRIX_TYPES = ("F16", "Q8_0", "Q4_0", "Q6_K")
"""Weight types that it reads without loss."""

_CHECKED = ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise MissingDependencyError("the openvino backend needs `pip install 'prewrite[openvino]'`") from None
    return gguf


def check_gguf(path: Path) -> None:
    """Raise `ConfigError` with the remedy for a GGUF file that OpenVINO GenAI would refuse or read wrong."""
    reader = _open(path)
    field = {name: entry.contents() for name, entry in reader.fields.items() if name in _CHECKED}
    if (architecture := field.get("general.architecture")) not in ARCHITECTURES:
        raise ConfigError(
            f"{path}: OpenVINO GenAI reads the architectures {', '.join(ARCHITECTURES)}, this is {architecture!r}; "
            "use another backend, such as hf or ollama"
        )
    model, pre = field.get("tokenizer.ggml.model"), field.get("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ConfigError(
            f"{path}: OpenVINO GenAI knows the tokenizers {', '.join(PRE_TOKENIZERS)}; this one ({model!r}, {pre!r}) "
            "would be split by a guessed rule; use another backend, such as hf or ollama"
        )
    matrices = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}
    if wrong := sorted(matrices - set(MATRIX_TYPES)):
        raise ConfigError(
            f"{path}: weights in {', '.join(wrong)}, which OpenVINO GenAI reads with loss or not at all (without "
            f"loss: {', '.join(MATRIX_TYPES)}); make an F16 copy: "
            f"`python -m prewrite.lm.gguf {path.name} {path.stem}-F16.gguf`"
        )


def context_length(path: Path) -> int | None:
    """How many tokens the model in a GGUF file reads at once; None if the file does not say."""
    fields = _open(path).fields
    length = fields.get(f"{fields['general.architecture'].contents()}.context_length")
    return None if length is None else int(length.contents())


def copy_as_f16(source: Path, target: Path) -> None:
    """Write `source` with every matrix in F16 and all else kept; two bytes per weight, in memory and on disk."""
    import numpy as np

    gguf = _gguf()
    reader = _open(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = entry.types[0]
        inner = entry.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, entry.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        # One-dimensional weights (norms) stay in F32: there they cost nothing.
        writer.add_tensor(tensor.name, values.astype(np.float16 if len(tensor.shape) > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; the openvino backend takes a .gguf file, or 'embedded'")
    try:
        return _gguf().GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:  # the package reads past the end of a cut one
        raise ConfigError(f"{path} is not a GGUF file ({error}); download it again") from None


if __name__ == "__main__":
    copy_as_f16(Path(sys.argv[1]), Path(sys.argv[2]))
    check_gguf(Path(sys.argv[2]))
