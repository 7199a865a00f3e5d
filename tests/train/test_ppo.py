"""The trainer on the toy of examples/toy.py: it learns, resumes, stops, and logs what happened."""

import copy
import json

import peft
import pytest
import torch
import toy
from peft import LoraConfig
from toy import INSTRUCTION, toy_evaluator, toy_model, toy_rows, toy_trainer

from prewrite.data import PRewriteDataset
from prewrite.errors import ConfigError, RunFolderError, TaskModelError
from prewrite.lm.packing import Completions
from prewrite.rewriter.policy import TokenStats
from prewrite.rewriter.rewriter import Rewriter, query_ids
from prewrite.run_folder import RunFolder
from prewrite.scoring.rewards import Graded, TaskReward
from prewrite.train.kl import KLController
from prewrite.train.ppo import PRewritePPOTrainer, RolloutBatch
from prewrite.types import Reward, RewriteExample

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(path):
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows(path)]


@pytest.mark.parametrize("seed", range(5))
def test_a_rewriter_learns_the_word_that_pays(tmp_path, seed):
    trainer = toy_trainer(str(tmp_path), seed=seed, max_steps=25)
    trainer.train()
    rewards = [row["reward/mean"] for row in rows(tmp_path / "metrics.jsonl")]
    assert rewards[0] < 0.7
    assert sum(rewards[-5:]) / 5 > 0.9


def test_full_finetuning_keeps_a_frozen_reference_and_lora_uses_the_disabled_adapter(tmp_path):
    full = toy_trainer(str(tmp_path / "full"), max_steps=3)
    full.train()
    lora = toy_trainer(str(tmp_path / "lora"), max_steps=3, lora=LoraConfig(r=4, target_modules="all-linear"))
    lora.train()
    assert full.ref_model is not None and lora.ref_model is None
    for name in ("full", "lora"):
        kl = [row["kl/mean"] for row in rows(tmp_path / name / "metrics.jsonl")]
        assert abs(kl[0]) < 1e-5  # before the first step the policy is the reference
        assert abs(kl[-1]) > 1e-4


def test_the_first_epoch_has_ratio_one(tmp_path):
    trainer = toy_trainer(str(tmp_path), max_steps=1, num_ppo_epochs=1)
    assert trainer.train()["ppo/ratio"] == pytest.approx(1.0, abs=1e-6)


def model_with_dropout():
    """The toy's model with dropout in attention, as models can be configured."""
    model, tokenizer = toy_model()
    config = copy.deepcopy(model.config)
    config.attention_dropout = 0.5
    torch.manual_seed(0)
    return type(model)(config), tokenizer


@pytest.fixture(params=["full", "lora"])
def dropout(request, monkeypatch):
    """Trainers on a model with dropout, and perhaps an adapter with more of it whose effect is not 0 at the start."""
    monkeypatch.setattr(toy, "toy_model", lambda seed: model_with_dropout())
    adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.5, init_lora_weights=False)
    return {"lora": None if request.param == "full" else adapter}


def test_dropout_is_off_in_every_pass_so_the_first_ratio_is_one(tmp_path, dropout):
    trainer = toy_trainer(str(tmp_path), max_steps=1, num_ppo_epochs=1, **dropout)
    assert trainer.train()["ppo/ratio"] == pytest.approx(1.0, abs=1e-6)


def test_with_dropout_too_stop_and_resume_gives_the_numbers_of_a_straight_run(tmp_path, dropout):
    settings = {"max_steps": 4, "eval_steps": 1, "dev_dataset": toy_rows(4), **dropout}
    toy_trainer(str(tmp_path / "straight"), **copy.deepcopy(settings)).train()
    first = toy_trainer(str(tmp_path / "resumed"), **copy.deepcopy(settings))
    first.progress = lambda step, metrics: setattr(first, "stop_requested", step >= 2)
    first.train()
    second = toy_trainer(str(tmp_path / "resumed"), **copy.deepcopy(settings))
    second.train(resume_from_checkpoint=RunFolder(tmp_path / "resumed").newest_checkpoint())
    assert untimed(tmp_path / "straight/metrics.jsonl") == untimed(tmp_path / "resumed/metrics.jsonl")


def test_a_seed_is_one_run_whatever_the_process_did_before(tmp_path, monkeypatch):
    model = toy_model(0)
    monkeypatch.setattr(toy, "toy_model", lambda seed: copy.deepcopy(model))
    runs = {}
    for name, seed, before in (("one", 0, 1), ("again", 0, 2), ("other", 1, 1)):
        torch.manual_seed(before)
        lora = LoraConfig(r=4, target_modules="all-linear")  # its first weights are drawn at random
        toy_trainer(str(tmp_path / name), seed=seed, max_steps=2, lora=lora).train()
        runs[name] = untimed(tmp_path / name / "metrics.jsonl")
    assert runs["one"] == runs["again"] != runs["other"]


def test_stop_and_resume_gives_the_numbers_of_a_straight_run(tmp_path):
    settings = {"save_steps": 3, "eval_steps": 2, "dev_dataset": toy_rows(4), "kl_coef": 0.05, "target_kl": 1.0}
    straight = toy_trainer(str(tmp_path / "straight"), max_steps=6, **settings)
    straight.train()

    first = toy_trainer(str(tmp_path / "resumed"), max_steps=6, **settings)
    first.progress = lambda step, metrics: setattr(first, "stop_requested", step >= 3)
    first.train()
    torch.manual_seed(12345)  # whatever the process did in between must not matter
    second = toy_trainer(str(tmp_path / "resumed"), max_steps=6, **settings)
    second.train(resume_from_checkpoint=RunFolder(tmp_path / "resumed").newest_checkpoint())

    for (name, a), (_, b) in zip(straight.model.named_parameters(), second.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert second.kl_controller.coefficient == straight.kl_controller.coefficient
    assert untimed(tmp_path / "straight/metrics.jsonl") == untimed(tmp_path / "resumed/metrics.jsonl")
    assert [row["step"] for row in rows(tmp_path / "resumed/rollouts.jsonl")] == sorted(list(range(1, 7)) * 32)


def test_a_run_that_its_patience_ended_does_no_further_update_when_resumed(tmp_path):
    settings = {"max_steps": 20, "eval_steps": 1, "patience": 1, "dev_dataset": toy_rows(4), "learning_rate": 1e-9}
    straight = toy_trainer(str(tmp_path), **settings)
    straight.train()
    logged = (tmp_path / "rollouts.jsonl").read_bytes()
    resumed = toy_trainer(str(tmp_path), **settings)
    resumed.train(resume_from_checkpoint=RunFolder(tmp_path).newest_checkpoint())
    assert resumed.updates == straight.updates == 1
    assert (tmp_path / "rollouts.jsonl").read_bytes() == logged
    assert all(map(torch.equal, resumed.model.parameters(), straight.model.parameters()))


def test_the_best_policy_on_dev_is_restored(tmp_path):
    trainer = toy_trainer(str(tmp_path), max_steps=10, eval_steps=1, dev_dataset=toy_rows(4))
    trainer.train()
    evaluations = rows(tmp_path / "rewrites.jsonl")
    best = max(evaluations, key=lambda row: row["score"])
    assert trainer.rewriter().greedy(INSTRUCTION) == best["rewrite"]
    assert best["step"] == trainer.dev.best_step


def test_training_ends_when_dev_stops_improving(tmp_path):
    trainer = toy_trainer(str(tmp_path), max_steps=50, eval_steps=1, patience=3, dev_dataset=toy_rows(4))
    trainer.train()
    assert trainer.state.global_step == trainer.dev.best_step + 3 < 50


def test_rewrites_of_an_instruction_are_scored_on_the_same_examples_and_each_text_once(tmp_path):
    asked = []

    class Recording(TaskReward):
        def __call__(self, rewrites, instruction, examples, *, step=0, refused_too=True):
            asked.append((list(rewrites), [example.input for example in examples]))
            return super().__call__(rewrites, instruction, examples, step=step)

    toy_trainer(str(tmp_path), max_steps=2, reward=Recording(toy_evaluator(), guards=())).train()
    assert len(asked) == 2  # one call per update: there is one instruction
    for rewrites, inputs in asked:
        assert len(rewrites) == len(set(rewrites))
        assert len(inputs) == 2
    assert asked[0][1] != asked[1][1]


def test_micro_batches_and_the_whole_batch_give_the_same_losses(tmp_path):
    settings = {"max_steps": 2, "num_ppo_epochs": 1}
    whole = toy_trainer(str(tmp_path / "whole"), **settings).train()
    parts = toy_trainer(
        str(tmp_path / "parts"), per_device_train_batch_size=8, gradient_accumulation_steps=4, **settings
    ).train()
    for name in ("loss/policy", "loss/value", "ppo/ratio", "reward/mean", "kl/mean"):
        assert parts[name] == pytest.approx(whole[name], abs=1e-5), name


def test_mini_batches_take_one_optimiser_step_each(tmp_path):
    trainer = toy_trainer(str(tmp_path), max_steps=1, num_ppo_epochs=2, num_mini_batches=4)
    steps = []
    inner = trainer.optimizer.step
    trainer.optimizer.step = lambda *args, **kwargs: (steps.append(1), inner(*args, **kwargs))
    trainer.train()
    assert len(steps) == 8  # 2 epochs x 4 mini-batches


def test_several_instructions_share_a_batch(tmp_path):
    names = ["solve the task", "answer now", "think carefully please"]
    data = PRewriteDataset.from_examples(
        [RewriteExample(name, f"question {n}", "yes", task="qa") for name in names for n in range(3)]
    )
    trainer = toy_trainer(str(tmp_path), train_dataset=data, max_steps=2, instructions_per_step=3)
    trainer.train()
    assert {row["instruction"] for row in rows(tmp_path / "rollouts.jsonl")} == set(names)


def test_a_saved_rewriter_writes_what_the_trained_one_wrote(tmp_path):
    model, tokenizer = toy_model()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    evaluator = toy_evaluator()
    trainer = PRewritePPOTrainer(
        str(tmp_path / "base"), evaluator, log_dir=tmp_path / "run", train_dataset=toy_rows(), max_steps=3,
        reward=TaskReward(evaluator, guards=()), lora=LoraConfig(r=4, target_modules="all-linear"),
        response_length=6, per_device_train_batch_size=16, learning_rate=1e-2,
    )  # fmt: skip
    trainer.train()
    folder = trainer.save_rewriter()
    loaded = Rewriter.load(folder)
    assert loaded.greedy(INSTRUCTION) == trainer.rewriter().greedy(INSTRUCTION)
    assert loaded.sample_rewrites(INSTRUCTION, 4, seed=1) == trainer.rewriter().sample_rewrites(INSTRUCTION, 4, seed=1)


@pytest.mark.parametrize("ends", [True, False])
def test_a_tokenizer_without_a_pad_token_pads_with_the_end_or_is_one_message(ends, tmp_path):
    model, tokenizer = toy_model()
    tokenizer.pad_token = None
    evaluator = toy_evaluator()
    given = {
        "log_dir": tmp_path, "train_dataset": toy_rows(), "max_steps": 1, "response_length": 6,
        "per_device_train_batch_size": 4, "reward": TaskReward(evaluator, guards=()),
    }  # fmt: skip
    if ends:
        PRewritePPOTrainer((model, tokenizer), evaluator, **given).train()
        assert tokenizer.pad_token == tokenizer.eos_token
        assert len(rows(tmp_path / "rollouts.jsonl")) == 4
    else:
        tokenizer.eos_token = None
        with pytest.raises(ConfigError, match="neither a pad token nor an end of sequence"):
            PRewritePPOTrainer((model, tokenizer), evaluator, **given)


def test_the_first_designs_call_works_as_it_stands(toy, tmp_path, caplog):
    trainer = PRewritePPOTrainer(
        base_model=str(toy / "model"), evaluator=toy_evaluator(), meta_family="generic", log_dir=tmp_path / "PRewrite",
        learning_rate=5e-6, per_device_train_batch_size=1, gradient_accumulation_steps=1, num_ppo_epochs=1,
        kl_coef=0.02, seed=42, max_steps=2, response_length=6,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"write trainer\.train\(rows\), or PRewritePPOTrainer\(\.\.\., train_dat"):
        trainer.train()
    rows = [{"instruction": INSTRUCTION, "input": f"question {n}", "output": "yes", "task": "qa"} for n in range(4)]
    trainer.train(rows)
    assert "an update of one rewrite cannot learn" in caplog.text
    assert trainer.updates == 2 and trainer.args.temperature == 0.7  # a small model's, as on the command line
    assert trainer.model.policy.peft_config["default"].r == 16
    assert trainer.reward.fidelity is not None and trainer.reward.fidelity([INSTRUCTION], INSTRUCTION) == [1.0]
    assert Rewriter.load(tmp_path / "PRewrite").greedy(INSTRUCTION) == trainer.rewriter().greedy(INSTRUCTION)
    with pytest.raises(ConfigError, match="give it once"):
        trainer.train(rows)


def test_a_named_model_starts_from_the_command_lines_adapter_and_a_loaded_one_as_it_is(toy, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("prewrite.train.trainer.adapter_for", lambda *given: asked.append(given))
    given = {"evaluator": toy_evaluator(), "train_dataset": toy_rows(), "max_steps": 1, "fidelity_model": None}
    PRewritePPOTrainer(str(toy / "model"), log_dir=tmp_path / "auto", **given)
    PRewritePPOTrainer(str(toy / "model"), log_dir=tmp_path / "none", warm_start=None, lora=None, **given)
    assert asked == [("auto", str(toy / "model"), "generic"), ("none", str(toy / "model"), "generic")]
    trainer = PRewritePPOTrainer(toy_model(), log_dir=tmp_path / "loaded", **given)
    assert len(asked) == 2 and not trainer.is_peft_model and trainer.args.temperature == 1.0


def test_the_rewriter_is_saved_unless_training_was_stopped(tmp_path):
    trainer = toy_trainer(str(tmp_path / "whole"), max_steps=2)
    trainer.train()
    assert (tmp_path / "whole" / "rewriter" / "rewriter.json").is_file()
    trainer = toy_trainer(str(tmp_path / "stopped"), max_steps=2, progress=lambda *_: setattr(trainer, STOP, True))
    trainer.train()
    assert trainer.updates == 1 and not (tmp_path / "stopped" / "rewriter").exists()


STOP = "stop_requested"


def test_saving_a_rewriter_asks_no_hub_about_its_base_model(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(peft.utils.save_and_load, "check_file_exists_on_hf_hub", lambda *args: asked.append(args))
    trainer = toy_trainer(str(tmp_path), max_steps=1, lora=LoraConfig(r=4, target_modules="all-linear"))
    folder = trainer.save_rewriter()
    assert {file.name for file in (folder / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert asked == []


def test_meta_prompts_come_from_a_file_and_from_rows_and_a_saved_rewriter_has_them_in_itself(tmp_path):
    model, tokenizer = toy_model()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    file = tmp_path / "meta.txt"
    file.write_text("answer {instruction} please")
    own = RewriteExample("think", "question", "yes", task="qa", template="carefully {instruction} now")
    evaluator = toy_evaluator()
    trainer = PRewritePPOTrainer(
        str(tmp_path / "base"), evaluator, str(file), tmp_path / "run", max_steps=1, instructions_per_step=2,
        train_dataset=PRewriteDataset.from_examples([*toy_rows(4), own]), per_device_train_batch_size=4,
        reward=TaskReward(evaluator, guards=()), response_length=4,
    )  # fmt: skip
    prompts = trainer.rollout(1).prompts
    asked = {tuple(ids[mask == 1].tolist()) for ids, mask in zip(prompts.ids, prompts.mask, strict=True)}
    queries = ["answer solve the task please", "carefully think now"]
    assert asked == {tuple(query_ids(query, tokenizer)) for query in queries}

    folder = trainer.save_rewriter()
    file.unlink()
    settings = Rewriter.load(folder).settings
    assert [settings.query(INSTRUCTION), settings.query("think")] == queries
    (folder / "rewriter.json").write_text('{"base_model": "x", "colour": "red"}')
    with pytest.raises(RunFolderError, match=r"rewriter\.json was changed"):
        Rewriter.load(folder)


def model_with_two_ends():
    """The toy's model, which also ends at "now" (token 10), as its generation config says."""
    model, tokenizer = toy_model()
    model.generation_config.eos_token_id = [1, 10]
    return model, tokenizer


def test_every_declared_end_ends_a_completion_in_training_and_in_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "toy_model", lambda seed: model_with_two_ends())
    trainer = toy_trainer(str(tmp_path), max_steps=1, lora=LoraConfig(r=4, target_modules="all-linear"))
    completions = trainer.rollout(1).completions.token_lists()
    assert any(10 in row for row in completions)
    assert all(10 not in row[:-1] for row in completions)
    trainer.train()
    assert not any("now" in row["completion"].split() for row in rows(tmp_path / "rollouts.jsonl"))
    assert not any("now" in text.split() for text in trainer.rewriter().sample_rewrites(INSTRUCTION, 64, seed=0))


def test_a_rewriter_finetuned_in_full_keeps_its_ends_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "toy_model", lambda seed: model_with_two_ends())
    trainer = toy_trainer(str(tmp_path), max_steps=1)
    trainer.train()
    assert Rewriter.load(trainer.save_rewriter()).end_ids == (1, 10)


def test_only_a_completion_without_an_end_pays_the_penalty_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "toy_model", lambda seed: model_with_two_ends())
    trainer = toy_trainer(str(tmp_path), max_steps=1, missing_eos_penalty=1.0, kl_coef=0.0)
    ids = torch.tensor([[3, 1, 0], [3, 10, 0], [3, 4, 5]])
    zeros = torch.zeros(3, 3)
    batch = RolloutBatch(
        [INSTRUCTION] * 3, [""] * 3, [""] * 3, trainer.rollout(1).prompts, Completions(ids, ids != 0),
        TokenStats(zeros, zeros, zeros), zeros,
    )  # fmt: skip
    estimates = trainer.advantages(batch, [Graded(Reward(0.0, {"task": 0.0}), ())] * 3)
    assert estimates.returns[:, 0].tolist() == [0.0, 0.0, -1.0]


def test_an_unknown_setting_is_named_and_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="learning_rat"):
        toy_trainer(str(tmp_path / "run"), learning_rat=1.0)
    assert not (tmp_path / "run").exists()


def test_the_entropy_bonus_pays_each_token_its_surprise(tmp_path):
    plain = toy_trainer(str(tmp_path / "plain"), max_steps=1, kl_coef=0.0)
    paid = toy_trainer(str(tmp_path / "paid"), max_steps=1, kl_coef=0.0, entropy_coef=0.5)
    batch = plain.rollout(1)
    batch.old.values.zero_()
    graded = plain.score(batch, 1)
    returns = [trainer.advantages(batch, graded).returns for trainer in (plain, paid)]
    surprise = -(batch.old.logprobs * batch.completions.mask)
    still_to_come = surprise.flip(1).cumsum(1).flip(1)
    bonus = (returns[1] - returns[0]) * batch.completions.mask
    assert torch.allclose(bonus, 0.5 * still_to_come * batch.completions.mask, atol=1e-5)


def test_adaptive_kl_moves_towards_its_target():
    controller = KLController(0.1, target=2.0)
    controller.update(4.0)  # error 1.0, clipped to 0.2
    assert controller.coefficient == pytest.approx(0.12)
    controller.update(1.9)  # error -0.05
    assert controller.coefficient == pytest.approx(0.12 * 0.95)
    with pytest.raises(ConfigError, match="target_kl"):
        KLController(0.0, target=1.0)


def test_a_failing_task_model_leaves_a_checkpoint_of_the_last_update_and_no_score(tmp_path):
    evaluator = toy_evaluator()
    answer = evaluator.task_model.answer
    trainer = toy_trainer(str(tmp_path), max_steps=5, save_steps=100, reward=TaskReward(evaluator, guards=()))

    def failing(prompt):
        if trainer.state.global_step == 3:
            raise TaskModelError("the server is gone")
        return answer(prompt)

    evaluator.task_model.answer = failing
    with pytest.raises(TaskModelError, match="gone"):
        trainer.train()
    assert RunFolder(tmp_path).newest_checkpoint().name == "step-00003"
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    evaluator.task_model.answer = answer
    again = toy_trainer(str(tmp_path), max_steps=5)
    again.train(resume_from_checkpoint=RunFolder(tmp_path).newest_checkpoint())
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
