"""The policy's shortcuts change no number: every one is held to the plain computation on full sequences."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

from families import FAMILIES, model_of_family  # noqa: E402
from prewrite.errors import ConfigError  # noqa: E402
from prewrite.lm import llama, sampling, trunk  # noqa: E402
from prewrite.lm.embedded import find_gguf  # noqa: E402
from prewrite.lm.linear import Projection  # noqa: E402
from prewrite.lm.llama import has_bf16  # noqa: E402
from prewrite.lm.loading import load_causal_lm  # noqa: E402
from prewrite.lm.lora import computes  # noqa: E402
from prewrite.lm.packing import Completions, pad_prompts  # noqa: E402
from prewrite.rewriter.policy import PolicyWithValueHead, ValueHead  # noqa: E402
from prewrite.rewriter.starter import load_base  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
EOS, PAD = 1, 0
TOKENS = {"pad_token_id": PAD, "bos_token_id": EOS, "eos_token_id": EOS}
SHAPE = {
    "vocab_size": 29, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": True, "initializer_range": 0.4,
}  # fmt: skip
PROMPTS = [[3, 9, 4, 7, 7, 12], [5, 6, 8, 20]]  # different lengths: the second is left-padded
ROWS = [0, 0, 0, 1, 1, 0]


def base_model(kind: str = "llama"):
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    if kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE)).eval()
        for layer in model.model.layers:  # fresh biases are 0, which would hide a lost one
            torch.nn.init.normal_(layer.self_attn.q_proj.bias)
            torch.nn.init.normal_(layer.self_attn.v_proj.bias)
        return model
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)).eval()


def policy_of(kind: str = "llama", *, lora: bool = True, targets="all-linear") -> PolicyWithValueHead:
    model = base_model(kind)
    if lora:
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets)
        model = peft.get_peft_model(model, config).eval()
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # fresh adapters are 0, which would hide a lost one
                torch.nn.init.normal_(parameter, std=0.1)
    head = ValueHead(SHAPE["hidden_size"])
    torch.nn.init.normal_(head.score.weight)
    return PolicyWithValueHead(model, head)


def completions_of(lengths=(5, 3, 6, 1, 4, 2), width=6) -> Completions:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(2, SHAPE["vocab_size"], (len(lengths), width), generator=generator)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return Completions(ids.masked_fill(~mask, PAD), mask)


def plain_stats(policy, completions, *, temperature=1.0):
    """Log-probabilities and values from one full, unpadded sequence at a time."""
    model = policy.policy
    logprobs = torch.zeros(completions.ids.shape)
    values, entropy = torch.zeros_like(logprobs), torch.zeros_like(logprobs)
    rows = []
    for row, prompt in enumerate(ROWS):
        tokens = completions.ids[row][completions.mask[row]].tolist()
        ids = torch.tensor([PROMPTS[prompt] + tokens])
        output = model(input_ids=ids, output_hidden_states=True)
        start = len(PROMPTS[prompt]) - 1
        log_softmax = (output.logits[0, start:-1] / temperature).log_softmax(-1)
        picked = log_softmax.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        value = policy.value_model(output.hidden_states[-1][0, start:-1]).squeeze(-1)
        rows.append((picked, value, -(log_softmax.exp() * log_softmax).sum(-1)))
    pad = lambda parts: torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)  # noqa: E731
    logprobs, values, entropy = (pad(list(parts)) for parts in zip(*rows, strict=True))
    return logprobs, values, entropy


def gradients(policy, loss) -> dict:
    policy.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def weighted(logprobs, values, mask):
    """A loss that treats every token differently, so that a misplaced gradient shows."""
    weights = torch.linspace(-1, 2, mask.numel()).view(mask.shape)
    return ((weights * logprobs + weights.cos() * values) * mask).sum()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_shared_prompts_give_the_numbers_and_gradients_of_full_sequences(kind, lora):
    policy, completions = policy_of(kind, lora=lora), completions_of()
    assert computes(policy.language_model) == lora  # else this tests the same path twice
    prompts = pad_prompts(PROMPTS, ROWS, PAD, "cpu")
    stats = policy(prompts, completions, temperature=0.7)
    logprobs, values, entropy = plain_stats(policy, completions, temperature=0.7)
    mask = completions.mask
    assert torch.allclose(stats.logprobs, logprobs, atol=1e-5)
    assert torch.allclose(stats.values[mask], values[mask], atol=1e-5)
    assert torch.allclose(stats.entropy, entropy, atol=1e-5)

    ours = gradients(policy, weighted(stats.logprobs, stats.values, mask))
    plain = gradients(policy, weighted(*plain_stats(policy, completions, temperature=0.7)[:2], mask))
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item())), name


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["gate_proj", "down_proj"], ["o_proj"]])
def test_adapters_on_some_projections_get_the_gradients_of_full_sequences(targets):
    policy, completions = policy_of(targets=targets), completions_of()
    stats = policy(pad_prompts(PROMPTS, ROWS, PAD, "cpu"), completions)
    ours = gradients(policy, weighted(stats.logprobs, stats.values, completions.mask))
    plain = gradients(policy, weighted(*plain_stats(policy, completions)[:2], completions.mask))
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        assert torch.allclose(ours[name], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item())), name


def test_the_reference_is_the_model_without_its_adapter():
    policy, completions = policy_of(), completions_of()
    prompts = pad_prompts(PROMPTS, ROWS, PAD, "cpu")
    with torch.no_grad():
        reference = policy(prompts, completions, use_adapter=False)
        without = PolicyWithValueHead(base_model(), policy.value_model)(prompts, completions)
        assert torch.allclose(reference.logprobs, without.logprobs, atol=1e-5)
        assert not torch.allclose(reference.logprobs, policy(prompts, completions).logprobs, atol=1e-2)


def test_one_token_completions_need_no_pass_after_the_prompt():
    policy, completions = policy_of(), completions_of(lengths=(1,) * 6, width=1)
    stats = policy(pad_prompts(PROMPTS, ROWS, PAD, "cpu"), completions)
    assert torch.allclose(stats.logprobs, plain_stats(policy, completions)[0], atol=1e-5)


# ---- bf16 ----


needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU does not multiply bf16")
in_bf16 = pytest.mark.parametrize("way", ["autocast", pytest.param("weights", marks=needs_bf16)])


def two_precisions(policy, way):
    """`policy` in fp32 and then in bf16, by autocast or by bf16 weights; their values are bf16's in both."""
    for name, parameter in policy.policy.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16().float()
    yield policy, nullcontext()
    if way == "weights":
        for name, parameter in policy.policy.named_parameters():
            if "lora_" not in name:
                parameter.data = parameter.data.bfloat16()
        assert computes(policy.language_model)
    yield policy, torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast")


def lora_gradients(policy, loss) -> torch.Tensor:
    found = gradients(policy, loss)
    return torch.cat([found[name].flatten() for name in sorted(found) if "lora_" in name])


@in_bf16
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_bf16_gradients_point_where_fp32_gradients_point(kind, way):
    completions, prompts = completions_of(), pad_prompts(PROMPTS, ROWS, PAD, "cpu")
    found, logprobs = [], []
    for policy, precision in two_precisions(policy_of(kind), way):
        with precision:
            stats = policy(prompts, completions)
        found.append(lora_gradients(policy, weighted(stats.logprobs, stats.values, completions.mask)))
        logprobs.append(stats.logprobs.detach())
    assert torch.cosine_similarity(*found, dim=0) >= 0.99
    assert 0 < (logprobs[0] - logprobs[1]).abs().mean() < 0.05


@pytest.mark.slow
@pytest.mark.skipif(find_gguf() is None, reason="the embedded model is not installed")
@in_bf16
def test_bf16_gradients_of_the_embedded_model_point_where_fp32_gradients_point(way):
    model, tokenizer = load_base("embedded", dtype="float32")
    model = peft.get_peft_model(model.cpu(), peft.LoraConfig(r=8, target_modules="all-linear")).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    prompt = tokenizer("Rewrite the instruction: tell the topic of the article.")["input_ids"]
    answer = tokenizer(" Which topic is the article about? Answer in one word.")["input_ids"]
    ids = torch.tensor([answer, answer[::-1]])
    completions = Completions(ids, torch.ones_like(ids, dtype=torch.bool))
    advantages, found = torch.tensor([[1.0], [-0.7]]), []
    for policy, precision in two_precisions(PolicyWithValueHead(model, ValueHead(model.config.hidden_size)), way):
        with precision:
            stats = policy(pad_prompts([prompt], [0, 0], tokenizer.pad_token_id, "cpu"), completions)
        found.append(lora_gradients(policy, (advantages * stats.logprobs).mean()))
    assert torch.cosine_similarity(*found, dim=0) >= 0.99


@needs_bf16
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_bf16_sampling_scores_its_tokens_nearly_as_fp32_does(kind):
    prompts = pad_prompts(PROMPTS, ROWS * 4, PAD, "cpu")
    (exact, _), (policy, _) = ((copy.deepcopy(p), c) for p, c in two_precisions(policy_of(kind), "weights"))
    given = settings(temperature=1.0, generator=torch.Generator().manual_seed(4))
    sampled = sampling.sample(policy.language_model, policy.value_model, prompts, **given)
    completions = Completions(sampled.ids, sampled.mask)
    with torch.no_grad():
        expected = exact(prompts, completions).logprobs
    assert 0 < (sampled.logprobs - expected).abs().mean() < 0.05
    assert policy.sample_scored(prompts, **given)[1] is None  # PPO's ratios want `forward`'s own numbers


@needs_bf16
def test_what_bf16_weights_cannot_hold_of_an_adapter_is_not_lost():
    model = peft.get_peft_model(base_model(), peft.LoraConfig(r=1, lora_alpha=1, target_modules=["down_proj"]))
    model.get_base_model().to(torch.bfloat16)
    projection = model.get_base_model().model.layers[0].mlp.down_proj
    signs = torch.ones(SHAPE["intermediate_size"]).index_fill(0, torch.arange(0, SHAPE["intermediate_size"], 2), -1.0)
    projection.base_layer.weight.data[:] = signs.bfloat16()
    projection.lora_A["default"].weight.data[:] = 2.0**-10  # a step between bf16 numbers near 1 is 2^-7
    projection.lora_B["default"].weight.data[:] = 1.0
    for linear in (llama.Llama(model.get_base_model()).layers[0].down, Projection([projection]).linear()):
        out = linear(torch.ones(1, SHAPE["intermediate_size"], dtype=torch.bfloat16))
        assert torch.allclose(out.float(), torch.tensor(SHAPE["intermediate_size"] * 2.0**-10), rtol=0.02)


# ---- sampling ----


@pytest.fixture(params=["fast", "transformers"])
def engine(request, monkeypatch):
    """Run a test with each of the two engines of `sampling.sample`."""
    if request.param == "transformers":
        monkeypatch.setattr(trunk, "runs_fast", lambda model: False)
    return request.param


def settings(**given):
    return {"max_new_tokens": 12, "end_ids": (EOS,), "pad_token_id": PAD} | given


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_greedy_is_what_transformers_generates(engine, kind, lora):
    policy = policy_of(kind, lora=lora)
    completions = policy.sample(pad_prompts(PROMPTS, ROWS, PAD, "cpu"), temperature=0.0, **settings())
    for row, prompt in enumerate(ROWS):
        generated = policy.policy.generate(
            input_ids=torch.tensor([PROMPTS[prompt]]), attention_mask=torch.ones(1, len(PROMPTS[prompt])).long(),
            do_sample=False, max_new_tokens=12, eos_token_id=EOS, pad_token_id=PAD,
        )  # fmt: skip
        expected = generated[0, len(PROMPTS[prompt]) :].tolist()
        assert completions.ids[row][completions.mask[row]].tolist() == expected


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_tokens_follow_the_softmax(engine, temperature):
    policy, count = policy_of(), 3000
    prompts = pad_prompts([PROMPTS[0]], [0] * count, PAD, "cpu")
    generator = torch.Generator().manual_seed(3)
    sampled = policy.sample(prompts, temperature=temperature, generator=generator, **settings(max_new_tokens=1))
    with torch.no_grad():
        logits = policy.policy(torch.tensor([PROMPTS[0]])).logits[0, -1]
    expected = count * (logits / temperature).softmax(-1).numpy().astype(float)
    found = np.bincount(sampled.ids[:, 0].numpy(), minlength=len(expected)).astype(float)
    rare = expected < 5  # as one cell, as the test's approximation asks
    expected = np.append(expected[~rare], expected[rare].sum())
    found = np.append(found[~rare], found[rare].sum())
    statistic = ((found - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    degrees = len(expected) - 1
    assert degrees >= 3
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5  # mean and 4 standard deviations of chi-square


def ending_policy():
    """A policy that ends often, so that rows leave the batch at different steps."""
    policy = policy_of()
    policy.language_model.model.embed_tokens.weight.data[EOS] *= 1.5
    return policy


@pytest.fixture(params=["one prompt", "two prompts"])
def shared_prompts(request):
    """24 rows that go on from one prompt, whose keys and values they share, or from two, which are copied."""
    one = request.param == "one prompt"
    return pad_prompts(PROMPTS[:1] if one else PROMPTS, [0] * 24 if one else ROWS * 4, PAD, "cpu")


def test_rows_that_end_early_change_no_other_row(engine, shared_prompts, monkeypatch):
    prompts = shared_prompts
    policy, results = ending_policy(), []
    for shrink in (1.0, 0.0):  # rows leave at once; rows never leave
        monkeypatch.setattr(sampling, "SHRINK", shrink)
        generator = torch.Generator().manual_seed(4)
        results.append(policy.sample(prompts, generator=generator, **settings()))
    lengths = results[0].mask.sum(1)
    assert len(set(lengths.tolist())) > 3  # else nothing was dropped
    assert torch.equal(results[0].ids, results[1].ids)
    assert torch.equal(results[0].mask, results[1].mask)


def test_a_completion_keeps_its_end_and_nothing_after_it(engine):
    generator = torch.Generator().manual_seed(4)
    completions = ending_policy().sample(pad_prompts(PROMPTS, ROWS * 4, PAD, "cpu"), generator=generator, **settings())
    for ids, mask in zip(completions.ids, completions.mask, strict=True):
        row = ids[mask].tolist()
        assert EOS not in row[:-1]
        assert row[-1] == EOS or len(row) == 12
        assert set(ids[~mask].tolist()) <= {PAD}


def test_each_declared_end_ends_a_completion(engine):
    ends = (EOS, 3, 7)
    prompts = pad_prompts(PROMPTS, ROWS * 4, PAD, "cpu")
    generator = torch.Generator().manual_seed(4)
    rows = ending_policy().sample(prompts, generator=generator, **settings(end_ids=ends)).token_lists()
    assert {row[-1] for row in rows} > set(ends)  # some rows run to the limit
    for row in rows:
        assert not set(row[:-1]) & set(ends)
        assert row[-1] in ends or len(row) == 12


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampling_scores_its_tokens_as_the_forward_pass_does(shared_prompts, temperature):
    policy, prompts = ending_policy(), shared_prompts
    generator = torch.Generator().manual_seed(4)
    completions, stats = policy.sample_scored(prompts, temperature=temperature, generator=generator, **settings())
    with torch.no_grad():
        forward = policy(prompts, completions, temperature=temperature)
    lengths = completions.mask.sum(1)
    assert completions.ids.shape[1] == min(int(lengths.max()) + 1, 12)
    assert torch.allclose(stats.logprobs, forward.logprobs, atol=1e-5)
    assert torch.allclose(stats.entropy, forward.entropy, atol=1e-5)
    known = torch.arange(completions.ids.shape[1]) <= lengths[:, None]  # and the state after the end
    assert torch.allclose(stats.values[known], forward.values[known], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_score_and_sample_as_they_do_in_transformers(family):
    model, completions = model_of_family(family, **SHAPE, **TOKENS), completions_of()
    policy = PolicyWithValueHead(model, ValueHead.of(model))
    prompts = pad_prompts(PROMPTS, ROWS, PAD, "cpu")
    logprobs, _, entropy = plain_stats(policy, completions, temperature=0.7)
    stats = policy(prompts, completions, temperature=0.7)
    assert torch.allclose(stats.logprobs, logprobs, atol=1e-4)
    assert torch.allclose(stats.entropy, entropy, atol=1e-4)
    settings = {"max_new_tokens": 5, "end_ids": (), "pad_token_id": PAD, "temperature": 0.7}
    seeded = torch.Generator().manual_seed(0)
    sampled = sampling.sample(model, policy.value_model, prompts, **settings, generator=seeded)
    again = policy(prompts, Completions(sampled.ids, sampled.mask), temperature=0.7)
    assert torch.allclose(again.logprobs, sampled.logprobs, atol=1e-4)


def test_a_family_whose_logits_are_not_known_is_refused(tmp_path, monkeypatch):
    model_of_family("granite", **SHAPE, **TOKENS).save_pretrained(tmp_path)
    assert load_causal_lm(str(tmp_path), torch.float32).config.model_type == "granite"
    monkeypatch.setattr(trunk, "logits_of", lambda model, states: model.lm_head(states))  # as if Granite were unknown
    with pytest.raises(ConfigError, match="'granite', makes logits"):
        load_causal_lm(str(tmp_path), torch.float32)
