"""GRPO and RLOO on the toy of examples/toy.py: they learn, resume, stop, log, and handle groups that tie."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig
from toy import INSTRUCTION, toy_evaluator, toy_model, toy_rows

from prewrite.data import PRewriteDataset
from prewrite.errors import ConfigError, MissingDependencyError, RunFolderError
from prewrite.rewriter.meta_prompts import build_meta_prompt
from prewrite.rewriter.policy import PolicyWithValueHead
from prewrite.rewriter.rewriter import Rewriter, query_ids
from prewrite.run_folder import RunFolder
from prewrite.scoring.evaluator import Evaluator
from prewrite.scoring.rewards import TaskReward
from prewrite.task_models.scripted import ScriptedTaskModel
from prewrite.train.algorithms import ALGORITHMS
from prewrite.train.grading import Grader
from prewrite.train.group_reward import GroupReward
from prewrite.train.trl_group import trl_prompt
from prewrite.types import RewriteExample

pytestmark = pytest.mark.usefixtures("one_thread")
both = pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
NAMES = ["solve the task", "answer now", "think carefully please"]


def toy_group_trainer(algorithm, log_dir, *, seed=0, **settings):
    evaluator = toy_evaluator()
    defaults = {
        "train_dataset": toy_rows(), "reward": TaskReward(evaluator, guards=()), "max_steps": 20, "seed": seed,
        "per_device_train_batch_size": 32, "num_iterations": 2, "examples_per_rewrite": 2, "beta": 0.0,
        "max_completion_length": 6, "learning_rate": 3e-3,
    }  # fmt: skip
    return ALGORITHMS[algorithm].trainer_class()(
        toy_model(seed), evaluator, log_dir=str(log_dir), **(defaults | settings)
    )


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(path):
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows(path)]


def parameters(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.named_parameters() if tensor.requires_grad}


@both
def test_a_rewriter_learns_the_word_that_pays(tmp_path, algorithm):
    trainer = toy_group_trainer(algorithm, tmp_path, beta=0.005)
    trainer.train()
    rewards = [row["reward/mean"] for row in rows(tmp_path / "metrics.jsonl")]
    assert len(rewards) == trainer.updates == 20  # of two optimiser steps each
    assert trainer.state.global_step == 40
    assert rewards[0] < 0.7
    assert sum(rewards[-5:]) / 5 > 0.9


@both
def test_a_seed_is_one_run_whatever_the_process_did_before(tmp_path, algorithm, monkeypatch):
    model = toy_model(0)
    monkeypatch.setitem(globals(), "toy_model", lambda seed: copy.deepcopy(model))
    runs = {}
    for name, seed, before in (("one", 0, 1), ("again", 0, 2), ("other", 1, 1)):
        torch.manual_seed(before)
        lora = LoraConfig(r=4, target_modules="all-linear")  # its first weights are drawn at random
        toy_group_trainer(algorithm, tmp_path / name, seed=seed, max_steps=2, lora=lora).train()
        runs[name] = untimed(tmp_path / name / "metrics.jsonl")
    assert runs["one"] == runs["again"] != runs["other"]


@both
def test_stop_and_resume_gives_the_parameters_of_a_straight_run(tmp_path, algorithm):
    settings = {
        "max_steps": 4, "save_steps": 2, "eval_steps": 2, "dev_dataset": toy_rows(4), "beta": 0.05, "target_kl": 1.0,
        "lora": LoraConfig(r=4, target_modules="all-linear"), "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
    }  # fmt: skip
    straight = toy_group_trainer(algorithm, tmp_path / "straight", **copy.deepcopy(settings))
    straight.train()

    first = toy_group_trainer(algorithm, tmp_path / "resumed", **copy.deepcopy(settings))
    first.progress = lambda step, metrics: setattr(first, "stop_requested", step >= 1)
    first.train()
    assert first.updates == 2  # asked to stop after the first update was logged: the second one ends the run
    torch.manual_seed(12345)  # whatever the process did in between must not matter
    second = toy_group_trainer(algorithm, tmp_path / "resumed", **copy.deepcopy(settings))
    second.train(resume_from_checkpoint=RunFolder(tmp_path / "resumed").newest_checkpoint())

    left, right = parameters(straight), parameters(second)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert second.kl_controller.coefficient == straight.kl_controller.coefficient != 0.05
    assert untimed(tmp_path / "straight/metrics.jsonl") == untimed(tmp_path / "resumed/metrics.jsonl")
    assert [row["step"] for row in rows(tmp_path / "resumed/rollouts.jsonl")] == sorted(list(range(1, 5)) * 16)


@both
@pytest.mark.parametrize("setting", [{}, {"gradient_checkpointing": True}], ids=["our passes", "TRL's"])
def test_dropout_is_off_in_every_pass_so_an_update_that_learns_nothing_clips_nothing(tmp_path, algorithm, setting):
    lora = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.5, init_lora_weights=False)
    trainer = toy_group_trainer(algorithm, tmp_path, max_steps=2, lora=lora, learning_rate=1e-9, **setting)
    trainer.train()
    assert [row["ppo/clip_fraction"] for row in rows(tmp_path / "metrics.jsonl")] == [0.0, 0.0]


@both
def test_the_run_folder_has_the_keys_of_a_ppo_run(tmp_path, algorithm):
    trainer = toy_group_trainer(algorithm, tmp_path, max_steps=2, eval_steps=1, dev_dataset=toy_rows(4))
    assert trainer.train()["dev/score"] in (0.0, 1.0)
    before, *updates = rows(tmp_path / "metrics.jsonl")
    assert before.keys() == {"step", "dev/score"} and before["step"] == 0
    for row in updates:
        for key in ("step", "reward/mean", "reward/std", "reward/task", "score/mean", "kl/mean", "kl/coefficient",
                    "entropy/mean", "completion/tokens", "lr", "loss/policy", "groups/tied", "dev/score",
                    "time/rollout", "time/score", "time/update", "time/dev"):  # fmt: skip
            assert key in row, key
    rollout = rows(tmp_path / "rollouts.jsonl")[0]
    assert rollout.keys() == {
        "step", "instruction", "completion", "rewrite", "reward", "parts", "kl", "score", "fidelity", "guards",
    }  # fmt: skip
    assert [row["step"] for row in rows(tmp_path / "rewrites.jsonl")] == [0, 1, 2]


@both
def test_the_reference_is_the_model_before_training(tmp_path, algorithm):
    cases = {"full": {}, "lora": {"lora": LoraConfig(r=4, target_modules="all-linear")}, "free": {"beta": 0.0}}
    for name, settings in cases.items():
        trainer = toy_group_trainer(algorithm, tmp_path / name, max_steps=2, **({"beta": 0.02} | settings))
        trainer.train()
        kl = [row["kl/mean"] for row in rows(tmp_path / name / "metrics.jsonl")]
        assert abs(kl[0]) < 1e-5 and abs(kl[-1]) > 1e-4, name


@both
def test_a_run_that_its_patience_ended_does_no_further_update_when_resumed(tmp_path, algorithm):
    settings = {"max_steps": 20, "eval_steps": 1, "patience": 1, "dev_dataset": toy_rows(4), "learning_rate": 1e-9}
    straight = toy_group_trainer(algorithm, tmp_path, **settings)
    straight.train()
    logged = (tmp_path / "rollouts.jsonl").read_bytes()
    resumed = toy_group_trainer(algorithm, tmp_path, **settings)
    resumed.train(resume_from_checkpoint=RunFolder(tmp_path).newest_checkpoint())
    assert resumed.updates == straight.updates == 1
    assert (tmp_path / "rollouts.jsonl").read_bytes() == logged
    left, right = parameters(straight), parameters(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)


@both
def test_the_best_policy_on_dev_is_restored_and_patience_ends_training(tmp_path, algorithm):
    trainer = toy_group_trainer(algorithm, tmp_path, max_steps=50, eval_steps=1, patience=3, dev_dataset=toy_rows(4))
    trainer.train()
    assert trainer.updates == trainer.dev.best_step + 3 < 50
    best = max(rows(tmp_path / "rewrites.jsonl"), key=lambda row: row["score"])
    assert best["step"] == trainer.dev.best_step
    assert trainer.rewriter().greedy(INSTRUCTION) == best["rewrite"]


def test_every_instruction_of_a_step_has_a_group_scored_on_the_same_examples(tmp_path):
    data = PRewriteDataset.from_examples(
        [RewriteExample(name, f"question {n}", "yes", task="qa") for name in NAMES for n in range(6)]
    )
    asked = []

    class Recording(TaskReward):
        def __call__(self, rewrites, instruction, examples, *, step=0, refused_too=True):
            asked.append((instruction, list(rewrites), [example.input for example in examples]))
            return super().__call__(rewrites, instruction, examples, step=step)

    reward = Recording(toy_evaluator(), guards=())
    trainer = toy_group_trainer(
        "grpo", tmp_path, train_dataset=data, reward=reward, max_steps=2, instructions_per_step=2,
        per_device_train_batch_size=8, gradient_accumulation_steps=2, resample_ties=False,
    )  # fmt: skip
    trainer.train()
    assert len(asked) == 4  # one call per instruction and update
    for step in (0, 1):
        first, second = asked[2 * step : 2 * step + 2]
        assert first[0] != second[0]
        mine = [r for r in rows(tmp_path / "rollouts.jsonl") if r["step"] == step + 1]
        assert len(mine) == 16
        for name, texts, inputs in (first, second):
            group = [row["rewrite"] for row in mine if row["instruction"] == name]
            assert len(group) == 8 and set(group) == set(texts) and len(texts) == len(set(texts))
            assert len(inputs) == 2


def graded_by(answers, *, count=2, rows=8):
    """A group reward whose task model answers by `answers(rewrite, number of the question)`."""

    def task_model(prompt):
        rewrite, question = prompt.split("\n\n")[0], prompt.split("question ")[1].split()[0]
        return "yes" if answers(rewrite, int(question)) else "no"

    data = PRewriteDataset.from_examples(
        [RewriteExample(INSTRUCTION, f"question {n}", "yes", task="qa") for n in range(rows)]
    )
    reward = TaskReward(Evaluator(ScriptedTaskModel(task_model)), guards=())
    return GroupReward(Grader(reward, data.by_instruction(), count=count, seed=0))


def test_a_group_that_ties_is_graded_again_on_other_examples():
    seen = []
    group = graded_by(lambda rewrite, question: seen.append(question) or True)
    group(["a", "b"], [INSTRUCTION] * 2, step=1)
    drawn = set(seen[:2])  # the first draw
    assert len(drawn) == 2 and drawn.isdisjoint(seen[4:]) and len(seen) == 8

    # "a" is right everywhere, "b" on the first draw alone: (1 + 0) / 2.
    group = graded_by(lambda rewrite, question: rewrite == "a" or question in drawn)
    scored = group(["a", "b", "a"], [INSTRUCTION] * 3, step=1)
    assert [result.reward.total for result in scored.graded] == [1.0, 0.5, 1.0]
    assert [result.scores for result in scored.graded[:2]] == [(1.0,) * 4, (1.0, 1.0, 0.0, 0.0)]
    assert (scored.tied, scored.resampled) == (0, 1)


def test_a_group_that_other_examples_cannot_tell_apart_is_counted():
    group = graded_by(lambda rewrite, question: False)
    assert group(["a", "b"], [INSTRUCTION] * 2, step=1)[1:] == (1, 1)  # still tied
    assert group(["a", "a"], [INSTRUCTION] * 2, step=1)[1:] == (1, 0)  # one rewrite
    whole = graded_by(lambda rewrite, question: False, count=8)
    assert whole(["a", "b"], [INSTRUCTION] * 2, step=1)[1:] == (1, 0)  # no other examples
    differing = graded_by(lambda rewrite, question: rewrite == "a")
    assert differing(["a", "b"], [INSTRUCTION] * 2, step=1)[1:] == (0, 0)


class Doubting(ScriptedTaskModel):
    """Finds the gold answer likelier by a nat under "a", but on the questions that it was asked first."""

    capabilities = ScriptedTaskModel.capabilities | {"target_logprobs"}

    def __init__(self):
        super().__init__(lambda prompt: "yes")
        self.first: set[str] = set()

    def target_logprobs(self, prompts, targets):
        questions = [prompt.split("question ")[1].split()[0] for prompt in prompts]
        self.first = self.first or set(questions)
        known = zip(prompts, questions, strict=True)
        return [-1.0 + (prompt.startswith("a") and question not in self.first) for prompt, question in known]


def test_a_tied_group_of_an_open_task_is_graded_again_though_no_answer_is_written():
    data = PRewriteDataset.from_examples(
        [RewriteExample(INSTRUCTION, f"question {n}", "yes", task="qa") for n in range(8)]
    )
    reward = TaskReward(Evaluator(Doubting()), mode="soft", guards=())
    group = GroupReward(Grader(reward, data.by_instruction(), count=2, seed=0))
    scored = group(["a", "b"], [INSTRUCTION] * 2, step=1)
    assert (scored.tied, scored.resampled) == (0, 1)
    assert [result.reward.total for result in scored.graded] == [0.75, 0.5]  # (0.5 + 1) / 2


@both
def test_tied_groups_are_counted_in_the_metrics_and_move_nothing(tmp_path, algorithm):
    evaluator = Evaluator(ScriptedTaskModel(lambda prompt: "no"))
    trainer = toy_group_trainer(algorithm, tmp_path, max_steps=2, reward=TaskReward(evaluator, guards=()))
    before = parameters(trainer)
    trainer.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in parameters(trainer).items())
    assert [(row["groups/tied"], row["groups/resampled"]) for row in rows(tmp_path / "metrics.jsonl")] == [(1, 1)] * 2


def chat_tokenizer():
    _, tokenizer = toy_model()
    tokenizer.chat_template = (
        "{% for m in messages %}<unk> {{ m['content'] }} <eos> {% endfor %}"
        "{% if add_generation_prompt %}answer {% if enable_thinking is defined %}now{% endif %}{% endif %}"
    )
    return tokenizer


def tokenizer_that_begins_with_eos():
    from tokenizers.processors import TemplateProcessing

    _, tokenizer = toy_model()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 1)])
    return tokenizer


@both
@pytest.mark.parametrize("make", [lambda: toy_model()[1], chat_tokenizer, tokenizer_that_begins_with_eos])
def test_the_policy_sees_the_tokens_that_it_will_be_asked_with(tmp_path, monkeypatch, algorithm, make):
    model, tokenizer = toy_model()[0], make()
    evaluator = toy_evaluator()
    trainer = ALGORITHMS[algorithm].trainer_class()(
        (model, tokenizer), evaluator, log_dir=tmp_path, train_dataset=toy_rows(), max_steps=1, num_iterations=1,
        reward=TaskReward(evaluator, guards=()), per_device_train_batch_size=4, max_completion_length=4,
    )  # fmt: skip
    seen = []
    sample = PolicyWithValueHead.sample
    monkeypatch.setattr(
        PolicyWithValueHead,
        "sample",
        lambda self, prompts, **kw: (seen.append(prompts), sample(self, prompts, **kw))[1],
    )
    trainer.train()
    (prompts,) = seen
    assert prompts.ids.tolist() == [query_ids(build_meta_prompt(INSTRUCTION), tokenizer)]
    assert prompts.rows.tolist() == [0] * 4


@both
def test_an_instruction_may_bring_its_own_meta_prompt(tmp_path, algorithm):
    own = RewriteExample("think", "question", "yes", task="qa", template="carefully {instruction} now")
    data = PRewriteDataset.from_examples([*toy_rows(4), own])
    trainer = toy_group_trainer(algorithm, tmp_path, max_steps=1, instructions_per_step=2, train_dataset=data)
    queries = [build_meta_prompt(INSTRUCTION), "carefully think now"]
    assert set(trainer.train_dataset["prompt"]) == {trl_prompt(query, toy_model()[1]) for query in queries}
    assert trainer.rewriter().settings.query("think") == queries[1]


def test_a_chat_template_gets_messages_and_no_template_gets_text():
    assert trl_prompt(INSTRUCTION, chat_tokenizer())[0]["role"] == "user"
    assert isinstance(trl_prompt(INSTRUCTION, toy_model()[1]), str)


@both
@pytest.mark.parametrize("setting", [{}, {"gradient_checkpointing": True}], ids=["our sampling", "TRL's"])
def test_every_declared_end_ends_a_completion(tmp_path, monkeypatch, algorithm, setting):
    model, tokenizer = toy_model()
    model.generation_config.eos_token_id = [1, 10]  # "now" ends a completion too
    monkeypatch.setitem(globals(), "toy_model", lambda seed: (model, tokenizer))
    trainer = toy_group_trainer(algorithm, tmp_path, max_steps=1, num_iterations=1, **setting)
    seen = []
    (reward,) = trainer.reward_funcs  # what TRL hands over is what it learns from
    trainer.reward_funcs[0] = lambda **given: (seen.append(given["completion_ids"]), reward(**given))[1]
    trainer.train()
    (completions,) = seen
    assert any(10 in ids for ids in completions)
    assert all(10 not in ids[:-1] for ids in completions)
    endless = sum(ids[-1] not in (0, 1, 10) for ids in completions) / len(completions)
    # TRL takes a sampled pad, 0, for an end as well.
    assert trainer.state.log_history[0]["completions/clipped_ratio"] == pytest.approx(endless)
    assert not any("now" in row["completion"].split() for row in rows(tmp_path / "rollouts.jsonl"))
    assert not any("now" in text.split() for text in trainer.rewriter().sample_rewrites(INSTRUCTION, 64, seed=0))


def test_a_saved_rewriter_writes_what_the_trained_one_wrote(tmp_path):
    model, tokenizer = toy_model()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    evaluator = toy_evaluator()
    trainer = ALGORITHMS["grpo"].trainer_class()(
        str(tmp_path / "base"), evaluator, log_dir=tmp_path / "run", train_dataset=toy_rows(), max_steps=3,
        reward=TaskReward(evaluator, guards=()), lora=LoraConfig(r=4, target_modules="all-linear"),
        max_completion_length=6, per_device_train_batch_size=16, learning_rate=1e-2,
    )  # fmt: skip
    trainer.train()
    loaded = Rewriter.load(trainer.save_rewriter())
    assert loaded.greedy(INSTRUCTION) == trainer.rewriter().greedy(INSTRUCTION)
    assert loaded.sample_rewrites(INSTRUCTION, 4, seed=1) == trainer.rewriter().sample_rewrites(INSTRUCTION, 4, seed=1)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"learning_rat": 1.0}, "learning_rat"),
        ({"num_generations": 4}, "follows from"),
        ({"per_device_train_batch_size": 1}, "two or more"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_a_setting_that_cannot_work_is_named(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        toy_group_trainer("grpo", tmp_path, **setting)


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path):
    folder = tmp_path / "checkpoints/step-00001"
    folder.mkdir(parents=True)
    (folder / "trainer.json").write_text("{}")
    with pytest.raises(RunFolderError, match="--algorithm"):
        toy_group_trainer("grpo", tmp_path).train(resume_from_checkpoint=folder)


def trl_has_ppo():
    import trl

    return "PPOTrainer" in dir(trl)


@pytest.mark.slow
@pytest.mark.skipif(trl_has_ppo(), reason="this TRL has PPO")
def test_ppo_on_a_trl_without_it_says_so_in_one_line_before_anything_is_written(tmp_path):
    with pytest.raises(MissingDependencyError, match=r"trl==0\.25"):
        import prewrite.train.ppo  # noqa: F401
    command = [sys.executable, "-m", "prewrite.cli.main", "train", "--dataset", "demo", "--algorithm", "ppo"]
    ended = subprocess.run([*command, "--output_dir", str(tmp_path / "run")], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "has no PPOTrainer" in ended.stderr and "grpo" in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()
