"""Numbers that are not finite and updates that teach nothing have a defined end, whatever the algorithm."""

import json

import pytest
import torch
from toy import toy_evaluator, toy_model, toy_rows

from prewrite.cli.main import main
from prewrite.errors import TaskModelError, TrainingError
from prewrite.run_folder import RunFolder
from prewrite.scoring.rewards import TaskReward
from prewrite.train.algorithms import ALGORITHMS
from prewrite.train.whitening import whiten
from toy_cli import train_flags

pytestmark = pytest.mark.usefixtures("one_thread")
each = pytest.mark.parametrize("algorithm", list(ALGORITHMS))


def toy_trainer(algorithm, log_dir, **settings):
    evaluator = toy_evaluator()
    defaults = {
        "train_dataset": toy_rows(), "reward": TaskReward(evaluator, guards=()), "max_steps": 5, "seed": 0,
        "per_device_train_batch_size": 8, "examples_per_rewrite": 2, "learning_rate": 3e-3,
        ("response_length" if algorithm == "ppo" else "max_completion_length"): 6,
        ("kl_coef" if algorithm == "ppo" else "beta"): 0.0,
    }  # fmt: skip
    return ALGORITHMS[algorithm].trainer_class()(
        toy_model(0), evaluator, log_dir=str(log_dir), **(defaults | settings)
    )


def graded_by(estimate):
    """A reward whose task part is `estimate` whatever the rewrite."""
    return TaskReward(
        toy_evaluator(), mode="model", guards=(), reward_model=lambda rewrites, instruction: [estimate] * len(rewrites)
    )


def rows(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights(trainer):
    return torch.cat([tensor.detach().flatten().clone() for tensor in trainer.model.parameters()])


def spoil_gradients(trainer, updates):
    """Make a gradient no number in these updates; they count from 1."""
    parameter = next(tensor for tensor in trainer.model.parameters() if tensor.requires_grad)
    parameter.register_hook(lambda grad: grad * float("nan") if trainer.updates + 1 in updates else grad)


@each
def test_a_step_whose_gradient_is_no_number_is_left_out_and_counted(tmp_path, algorithm):
    after = []
    trainer = toy_trainer(algorithm, tmp_path, progress=lambda step, metrics: after.append(weights(trainer)))
    spoil_gradients(trainer, {2, 4})
    trainer.train()
    assert torch.equal(after[0], after[1]) and torch.equal(after[2], after[3])
    assert not torch.equal(after[1], after[2]) and not torch.equal(after[3], after[4])
    skipped = [row.get("update/skipped") for row in rows(tmp_path)]
    assert skipped == [None, 2.0, None, 2.0, None]  # both passes over the rewrites
    assert all(weights(trainer).isfinite())


@each
def test_three_such_updates_in_a_row_end_training_with_a_checkpoint_and_the_cause(tmp_path, algorithm):
    trainer = toy_trainer(algorithm, tmp_path, max_steps=9, save_steps=100)
    before = weights(trainer)
    spoil_gradients(trainer, range(9))
    with pytest.raises(
        TrainingError, match=r"a gradient was not finite in each of the last 3 updates, up to update 3,"
    ):
        trainer.train()
    assert trainer.run_folder.newest_checkpoint().name == "step-00003"
    assert torch.equal(weights(trainer), before) and len(rows(tmp_path)) == 3


@each
def test_a_run_that_was_stopped_among_such_updates_ends_where_it_would_have_ended(tmp_path, algorithm):
    straight = toy_trainer(algorithm, tmp_path, save_steps=1)
    spoil_gradients(straight, {1, 2, 3})
    with pytest.raises(TrainingError, match="up to update 3"):
        straight.train()
    resumed = toy_trainer(algorithm, tmp_path, save_steps=1)
    spoil_gradients(resumed, {3, 4, 5})
    with pytest.raises(TrainingError, match="up to update 3"):
        resumed.train(resume_from_checkpoint=RunFolder(tmp_path).checkpoint(2))


@each
def test_a_policy_that_computes_no_numbers_ends_training_before_anything_is_asked(tmp_path, algorithm):
    trainer = toy_trainer(algorithm, tmp_path)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"update 1: a log-probability of the (rewriter|reference) is not finite"):
        trainer.train()
    assert not trainer.run_folder.checkpoints_by_step() and not (tmp_path / "metrics.jsonl").exists()


@each
def test_an_update_that_breaks_the_weights_is_not_saved(tmp_path, algorithm):
    trainer = toy_trainer(algorithm, tmp_path, learning_rate=1e38, save_steps=1, max_grad_norm=0.0)
    with pytest.raises(TrainingError, match=r"update \d made weights of the rewriter that are not finite|no rewrite"):
        trainer.train()
    for folder in trainer.run_folder.checkpoints_by_step().values():
        assert folder.name < f"step-{trainer.updates:05d}" or all(weights(trainer).isfinite())


@each
@pytest.mark.parametrize("estimate", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_ends_training_and_is_named_with_its_part(tmp_path, algorithm, estimate):
    trainer = toy_trainer(algorithm, tmp_path, reward=graded_by(estimate))
    with pytest.raises(
        TrainingError, match=rf"update 1: the reward of the rewrite .* is {estimate} in its part 'task"
    ):
        trainer.train()


@each
@pytest.mark.parametrize("estimate", [0.0, -1e6])
def test_rewards_that_are_all_the_same_move_nothing(tmp_path, algorithm, estimate):
    trainer = toy_trainer(algorithm, tmp_path, reward=graded_by(estimate), max_steps=4)
    before = weights(trainer)
    trainer.train()
    assert len(rows(tmp_path)) == 4 and all(weights(trainer).isfinite())
    if estimate == 0:
        assert torch.equal(weights(trainer), before)


@pytest.mark.parametrize("value", [0.1, 1.0, -3e5, 1e9])
def test_equal_values_are_whitened_to_about_nothing(value):
    from accelerate import Accelerator

    values, mask = torch.full((4, 3), value), torch.ones(4, 3, dtype=torch.bool)
    found = whiten(values, mask, torch.zeros(4, dtype=torch.long), 1, Accelerator(cpu=True))
    assert found.isfinite().all() and found.abs().max() < 0.1


@each
def test_three_updates_without_a_rewrite_end_training_with_a_checkpoint(tmp_path, algorithm, monkeypatch):
    module = "ppo" if algorithm == "ppo" else "grpo"
    monkeypatch.setattr(f"prewrite.train.{module}.extract_rewrite", lambda text: "")
    trainer = toy_trainer(algorithm, tmp_path, max_steps=9, save_steps=100)
    with pytest.raises(TrainingError, match=r"no rewrite in the last 3 updates, up to update 3: a completion is '"):
        trainer.train()
    assert trainer.run_folder.newest_checkpoint().name == "step-00003"
    assert {row["rewrite"] for row in rows(tmp_path, "rollouts.jsonl")} == {""}


@each
def test_a_metric_that_fails_in_training_stops_with_a_checkpoint_and_the_run_goes_on_when_it_is_mended(
    toy, tmp_path, capsys, algorithm
):
    (tmp_path / f"grading_{algorithm}.py").write_text(
        "from pathlib import Path\n\n"
        "def grade(prediction, targets):\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        "    trained, mended = folder / 'run' / 'checkpoints', folder / 'mended'\n"
        "    return targets[9] if trained.exists() and not mended.exists() else float(prediction in targets)\n"
    )
    metric = f"{tmp_path}/grading_{algorithm}.py:grade"
    flags = train_flags(toy, tmp_path / "run", "--metric", metric, "--save_steps", "1", "--algorithm", algorithm)
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert f"metric '{metric}' raised IndexError: tuple index out of range" in error
    assert f"grading_{algorithm}.py, line 6) for the prediction " in error
    assert "Saved: " in error and "step-00001" in error and "Go on with: prewrite train --resume" in error
    assert "Traceback" not in error
    (tmp_path / "mended").touch()
    assert main([*flags, "--resume"]) == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 1, 2]


@each
@pytest.mark.parametrize("fails_at", [1, 4])
def test_a_task_model_that_fails_in_an_update_leaves_the_one_before_and_the_run_ends_as_if_nothing_had_been(
    tmp_path, algorithm, fails_at
):
    straight = toy_trainer(algorithm, tmp_path / "straight", save_steps=100)
    straight.train()
    evaluator = toy_evaluator()
    answer = evaluator.task_model.answer
    settings = {"reward": TaskReward(evaluator, guards=()), "save_steps": 100}
    failed = toy_trainer(algorithm, tmp_path / "failed", **settings)

    def failing(prompt):
        if failed.updates == fails_at:
            raise TaskModelError("the server is gone")
        return answer(prompt)

    evaluator.task_model.answer = failing
    with pytest.raises(TaskModelError, match="gone"):
        failed.train()
    saved = failed.run_folder.newest_checkpoint()
    assert saved.name == f"step-{fails_at:05d}"
    evaluator.task_model.answer = answer
    torch.manual_seed(99)  # another process draws other numbers before it goes on
    resumed = toy_trainer(algorithm, tmp_path / "failed", **settings)
    resumed.train(resume_from_checkpoint=saved)
    assert rows(tmp_path / "failed", "rollouts.jsonl") == rows(tmp_path / "straight", "rollouts.jsonl")
    assert torch.equal(weights(resumed), weights(straight))
