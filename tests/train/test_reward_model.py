"""The learned reward model on the toy of examples/toy.py: it learns a planted preference, saves, and spares calls."""

import json
from importlib import metadata

import numpy as np
import pytest
from toy import INSTRUCTION, WORDS, toy_evaluator, toy_model, toy_rows, toy_trainer

from prewrite.cli.main import main
from prewrite.errors import ConfigError, RunFolderError
from prewrite.report import build_report
from prewrite.run_folder import RunFolder
from prewrite.scoring.rewards import TaskReward
from prewrite.train.records import estimate_metrics
from prewrite.train.reward_data import Group, fit_scale, pairwise_accuracy, preferences, read_groups, split_updates
from prewrite.train.reward_model import LearnedReward, train_reward_model
from run_fixture import make_run

pytestmark = pytest.mark.usefixtures("one_thread")
needs_ppo = pytest.mark.skipif(not metadata.version("trl").startswith("0.25."), reason="this TRL has no PPO")


def planted(rewrite):
    """What the synthetic rollouts earn: "step" is worth 0.5 and "carefully" 0.25."""
    return 0.5 * ("step" in rewrite.split()) + 0.25 * ("carefully" in rewrite.split())


def make_rollouts(path, *, updates=25, per_update=12, seed=0, score=0.0, **config):
    """A run folder whose rollouts earn `planted`, and a share of their update's own."""
    run = RunFolder.create(path)
    run.write_json(run.config, {"config": {"reward_mode": "auto", "task_model": "scripted", **config}})
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, updates + 1):
        luck = rng.normal(0, 0.1)  # of the update's examples
        for _ in range(per_update):
            rewrite = " ".join(rng.choice(WORDS[3:], size=4))
            rows.append(
                {"step": step, "instruction": INSTRUCTION, "rewrite": rewrite, "reward": 0.0, "score": score,
                 "parts": {"task": planted(rewrite) + luck}, "guards": {}}
            )  # fmt: skip
    run.append(run.rollouts, rows)
    return path


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "model"
    for part in toy_model():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def learned(toy_folder, tmp_path_factory):
    """A reward model made by the command."""
    run = make_rollouts(tmp_path_factory.mktemp("runs") / "scored")
    flags = ["--base-model", toy_folder, "--epochs", "4", "--learning_rate", "2e-2"]
    assert main(["train-reward", "--run", str(run), *flags]) == 0
    return run / "reward_model"


def test_it_learns_a_planted_preference(learned):
    model = LearnedReward.load(learned)
    found = model.settings.held_out
    assert found["pairwise_accuracy"] > 0.9 and found["pearson"] > 0.8 and found["spearman"] > 0.7
    assert found["updates"] == 5 and found["rewrites"] == 60  # a fifth of 25 updates of 12
    assert found["error"] < found["error_of_mean"]
    good, bad = model(["think step by step carefully", "answer the task now"], INSTRUCTION)
    assert good - bad == pytest.approx(0.75, abs=0.25)
    assert model.settings.reward_mode == "auto" and model.settings.task_model == "scripted"


def test_a_saved_reward_model_estimates_what_the_trained_one_did(toy_folder, tmp_path):
    trained = train_reward_model(
        [make_rollouts(tmp_path / "run")], base_model=toy_folder, epochs=1, learning_rate=2e-2
    )
    trained.save(tmp_path / "saved")
    loaded = LearnedReward.load(tmp_path / "saved")
    texts = ["step by step", "now", "think carefully please", ""]
    assert loaded(texts, INSTRUCTION) == trained(texts, INSTRUCTION)
    assert loaded.settings == trained.settings
    assert loaded(texts, "another instruction")  # no intercept of its own
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_pairs_come_from_one_update_and_differ_by_the_gap():
    group = Group("run", 1, "a", {"w": 0.1, "x": 0.5, "y": 0.45, "z": 0.5})
    assert [(pair.better, pair.worse) for pair in preferences(group, 0.1)] == [("x", "w"), ("z", "w"), ("y", "w")]
    assert ("x", "z") not in {(pair.better, pair.worse) for pair in preferences(group, 0.0)}


def test_the_scale_ignores_what_an_update_adds_to_all_its_grades():
    # grade = 2 r + 0.1 in the first update, 2 r + 0.5 in the second, whose r are lower: pooled, the slope would be off
    groups = [Group("run", 1, "a", {"x": 2.1, "y": 4.1}), Group("run", 2, "a", {"x": 0.5, "y": 2.5})]
    outputs = [np.array([1.0, 2.0]), np.array([0.0, 1.0])]
    slope, intercepts, other = fit_scale(groups, outputs)
    assert slope == pytest.approx(2.0)
    assert intercepts == {"a": pytest.approx(0.3)} and other == pytest.approx(0.3)  # (0.1 + 0.5) / 2
    assert pairwise_accuracy(groups, outputs, 0.1) == 1.0
    assert pairwise_accuracy(groups, [-outputs[0], np.zeros(2)], 0.1) == 0.25  # a wrong pair and a tie


def test_the_last_fifth_of_the_updates_of_each_run_is_held_out(tmp_path):
    groups = read_groups(RunFolder(make_rollouts(tmp_path / "a", updates=10)))
    groups += read_groups(RunFolder(make_rollouts(tmp_path / "b", updates=4)))
    early, late = split_updates(groups)
    assert [group.step for group in late] == [9, 10, 4]
    assert len(early) == 11


def test_grades_that_rest_on_no_answers_are_learned_from_too(tmp_path):
    # `soft` on an open task scores the gold answer, so no answer is written and there is no score
    groups = read_groups(RunFolder(make_rollouts(tmp_path / "run", updates=3, score=None, reward_mode="soft")))
    assert [group.step for group in groups] == [1, 2, 3]


def test_an_estimate_that_does_not_say_whether_it_is_a_grade_is_no_grade(tmp_path):
    run = RunFolder(make_rollouts(tmp_path / "run", updates=1, per_update=1))
    run.append(run.rollouts, [row | {"estimate": 0.5} for row in run.read_rows(run.rollouts)])
    with pytest.raises(RunFolderError, match="was changed or is of another version"):
        read_groups(run)


class Counting:
    """A reward model that counts what it is asked, and prefers long rewrites."""

    def __init__(self):
        self.asked = 0

    def __call__(self, rewrites, instruction):
        self.asked += 1
        return [0.1 * len(rewrite.split()) for rewrite in rewrites]


@needs_ppo
def test_the_task_model_grades_every_nth_update_alone(tmp_path):
    evaluator, model = toy_evaluator(), Counting()
    prompts = []
    answer = evaluator.task_model.answer
    evaluator.task_model.answer = lambda prompt: prompts.append(trainer.state.global_step + 1) or answer(prompt)
    reward = TaskReward(evaluator, guards=(), mode="model", reward_model=model, real_every=3)
    trainer = toy_trainer(str(tmp_path), reward=reward, max_steps=7)
    trainer.train()
    assert set(prompts) == {3, 6} and model.asked == 7
    rows = list(RunFolder.read_rows(tmp_path / "rollouts.jsonl"))
    assert {row["step"] for row in rows if row["score"] is not None} == {3, 6}
    for row in rows:
        assert row["estimate"] == pytest.approx(0.1 * len(row["rewrite"].split()))
        graded = row["score"] is not None
        assert row["parts"]["task"] == (row["score"] if graded else row["estimate"])
    logged = [row["step"] for row in RunFolder.read_rows(tmp_path / "metrics.jsonl") if "reward_model/error" in row]
    assert logged == [3, 6]


@needs_ppo
def test_a_resumed_run_keeps_the_schedule(tmp_path):

    def trainer(name):
        evaluator = toy_evaluator()
        reward = TaskReward(evaluator, guards=(), mode="model", reward_model=Counting(), real_every=2)
        return toy_trainer(str(tmp_path / name), reward=reward, max_steps=5, save_steps=3)

    trainer("straight").train()
    first = trainer("resumed")
    first.progress = lambda step, metrics: setattr(first, "stop_requested", step >= 3)
    first.train()
    trainer("resumed").train(resume_from_checkpoint=RunFolder(tmp_path / "resumed").newest_checkpoint())
    straight, resumed = (list(RunFolder.read_rows(tmp_path / n / "rollouts.jsonl")) for n in ("straight", "resumed"))
    assert straight == resumed
    assert {row["step"] for row in resumed if row["score"] is not None} == {2, 4}


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_grpo_and_rloo_keep_the_schedule_and_grade_no_tied_estimates_again(tmp_path, algorithm):
    from prewrite.train.algorithms import ALGORITHMS

    evaluator = toy_evaluator()
    reward = TaskReward(evaluator, guards=(), mode="model", reward_model=lambda r, _: [0.5] * len(r), real_every=2)
    trainer = ALGORITHMS[algorithm].trainer_class()(
        toy_model(), evaluator, log_dir=str(tmp_path), train_dataset=toy_rows(), reward=reward, max_steps=4,
        per_device_train_batch_size=8, num_iterations=1, examples_per_rewrite=2, max_completion_length=6,
    )  # fmt: skip
    trainer.train()
    rows = list(RunFolder.read_rows(tmp_path / "rollouts.jsonl"))
    assert {row["step"] for row in rows if row["score"] is not None} == {2, 4}
    metrics = list(RunFolder.read_rows(tmp_path / "metrics.jsonl"))
    assert [row["groups/resampled"] for row in metrics if row["step"] % 2] == [0.0, 0.0]
    assert "reward_model/rank" not in metrics[1]  # estimates that are all equal have no order


def test_guards_apply_to_estimates_and_the_mode_of_real_updates_is_the_trained_one():
    reward = TaskReward(
        toy_evaluator(), mode="model", reward_model=Counting(), real_every=4, real_mode="length", guards=["drift"]
    )
    examples = list(toy_rows(2))
    estimated = reward(["a poem of the sea"], INSTRUCTION, examples, step=3)[0]
    assert estimated.scores == () and estimated.estimate == estimated.reward.parts["task"] == pytest.approx(0.5)
    assert estimated.reward.parts["guard/drift"] < 0 and estimated.reward.total < 0.5
    real = reward(["a poem of the sea"], INSTRUCTION, examples, step=4)[0]
    assert real.reward.parts["task"] == pytest.approx(-2 / 3) and len(real.scores) == 2  # 5 words against 3
    with pytest.raises(ConfigError, match="real_mode"):
        TaskReward(toy_evaluator(), mode="model", reward_model=Counting(), real_mode="model")
    with pytest.raises(ConfigError, match="real_every"):
        TaskReward(toy_evaluator(), mode="model", reward_model=Counting(), real_every=0)


def test_error_and_rank_of_estimates_are_taken_over_distinct_rewrites():
    def row(rewrite, estimate, grade, real=True):
        return {"instruction": "a", "rewrite": rewrite, "estimate": estimate, "real": real, "parts": {"task": grade}}

    rows = [row("x", 0.5, 0.7), row("x", 0.5, 0.7), row("y", 0.6, 0.5), row("z", 0.9, 0.9)]
    # |0.5 - 0.7|, |0.6 - 0.5|, 0 -> mean 0.1; ranks 1 2 3 against 2 1 3 -> 1 - 6 * 2 / (3 * 8) = 0.5
    assert estimate_metrics(rows) == {
        "reward_model/error": pytest.approx(0.1),
        "reward_model/rank": pytest.approx(0.5),
    }
    assert estimate_metrics([row("x", 0.5, 0.5, real=False)]) == {}


def test_a_run_trains_with_a_reward_model_from_the_command_line(learned, toy_folder, tmp_path):
    data = tmp_path / "rows.jsonl"
    rows = [
        {"instruction": INSTRUCTION, "input": f"{word} {n}", "output": word, "task": "classification"}
        for n in range(20)
        for word in ("step", "now")
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [
        "--data", str(data), "--output_dir", str(tmp_path / "run"), "--base_model", toy_folder, "--task_model",
        f"hf:{toy_folder}", "--max_steps", "4", "--rewrites_per_step", "4", "--examples_per_rewrite", "3",
        "--response_length", "6", "--dev_examples", "6", "--no_cache", "--fidelity_model", "none",
        "--algorithm", "grpo", "--reward_mode", "model", "--reward_model", str(learned), "--real_every", "2",
    ]  # fmt: skip
    assert main(["train", *flags]) == 0
    rollouts = list(RunFolder.read_rows(tmp_path / "run" / "rollouts.jsonl"))
    assert not any(row["real"] or row["score"] is not None for row in rollouts if row["step"] in (1, 3))
    assert all("estimate" in row for row in rollouts)
    groups = read_groups(RunFolder(tmp_path / "run"))
    assert [group.step for group in groups] == [2, 4]  # estimates are nothing to learn from
    graded = {(row["step"], row["rewrite"]) for row in rollouts if row["real"]}
    assert {(group.step, rewrite) for group in groups for rewrite in group.grades} == graded


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, ["not a run folder"]),
        (lambda path: make_rollouts(path, updates=0), ["no scored rollouts"]),
        (lambda path: make_rollouts(path, updates=2, per_update=3), ["too few rollouts", "20 and 5"]),
        (lambda path: (make_rollouts(path) / "rollouts.jsonl").write_text('{"step": 1}\n'), ["rollouts.jsonl"]),
    ],
)
def test_runs_that_teach_nothing_exit_with_2_and_say_why(toy_folder, tmp_path, capsys, make, words):
    make(tmp_path / "run")
    assert main(["train-reward", "--run", str(tmp_path / "run"), "--base_model", toy_folder]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    for word in words:
        assert word in message
    assert not (tmp_path / "run" / "reward_model").exists()


def test_a_preference_that_turns_round_at_last_makes_no_reward_model(toy_folder, tmp_path):
    run = RunFolder(make_rollouts(tmp_path / "run", updates=10))
    rows = list(run.read_rows(run.rollouts))
    for row in rows:
        row["parts"]["task"] = planted(row["rewrite"]) * (1 if row["step"] <= 8 else -1)
    run.rollouts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RunFolderError, match="does not order held-out rewrites"):
        train_reward_model([run.path], base_model=toy_folder, epochs=5, learning_rate=1e-2)


def test_runs_graded_in_different_ways_do_not_mix(tmp_path, capsys):
    a, b = make_rollouts(tmp_path / "a"), make_rollouts(tmp_path / "b", reward_mode="soft")
    assert main(["train-reward", "--run", str(a), "--run", str(b)]) == 2
    assert "auto by scripted" in (message := capsys.readouterr().err) and "soft by scripted" in message


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--run", "a", "--epochs", "0"], "--epochs is 0; it must be above 0"),
        (["--run", "a", "--pairs-per-update", "0"], "--pairs_per_update is 0; it must be above 0"),
        (["--run", "a", "--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["--run", "a", "b"], "'a' is not a run folder"),
        ([], "no runs: give the folder of a run that trained"),
    ],
)
def test_settings_of_a_reward_model_that_cannot_work_are_named(capsys, flags, told):
    assert main(["train-reward", *flags]) == 2
    assert told in capsys.readouterr().err


def test_folders_that_are_no_reward_model_exit_with_2(learned, tmp_path, capsys):
    flags = ["train", "--data", "demo", "--output_dir", str(tmp_path / "run"), "--reward_mode", "model"]
    assert main([*flags, "--reward_model", str(tmp_path)]) == 2
    assert "train-reward" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main(["train-reward", "--run", str(learned.parent)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["train-reward", "--run", str(learned.parent), "--output_dir", str(learned.parent)]) == 2
    assert "is no reward model" in capsys.readouterr().err

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "reward_model.json").write_text('{"slope": 1.0}')
    with pytest.raises(RunFolderError, match="another version"):
        LearnedReward.load(broken)
    (broken / "reward_model.json").write_text((learned / "reward_model.json").read_text())
    with pytest.raises(RunFolderError, match="adapter_model"):
        LearnedReward.load(broken)


HOSTILE = "<script>alert(1)</script> {{ 7*7 }} </section>"


def test_the_report_shows_estimates_beside_grades_and_escapes_them(tmp_path):
    plain = make_run(tmp_path / "plain", updates=3, finished=False)
    assert "Reward model" not in build_report(plain).read_text(encoding="utf-8")

    path = make_run(tmp_path / "run", updates=3, finished=False)
    rows = [
        {"step": 3, "instruction": "a", "rewrite": rewrite, "reward": 0.0, "score": None, "estimate": estimate,
         "real": real, "parts": {"task": grade}, "guards": {}}
        for rewrite, estimate, grade, real in (
            (HOSTILE, 0.9, 0.1, True), ("fair", 0.5, 0.45, True), ("never asked", 0.7, 0.7, False),
        )
    ]  # fmt: skip
    RunFolder.append(path / "rollouts.jsonl", rows)
    RunFolder.append(path / "metrics.jsonl", [{"step": 4, "reward_model/error": 0.425, "reward_model/rank": 1.0}])
    page = build_report(path).read_text(encoding="utf-8")
    section = page.split("<h2>Reward model</h2>")[1].split("</section>")[0]
    assert "&lt;script&gt;alert(1)" in section and "<script>alert" not in page and "49" not in section
    assert section.index("alert(1)") < section.index("fair") and "never asked" not in section
    assert "0.425" in section and "1.00" in section and section.count("<circle") == 2
    assert "Reward model" in (path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("estimate", ["NaN", '"high"', "true"])
def test_a_broken_estimate_is_named_with_its_line(tmp_path, estimate):
    path = make_run(tmp_path / "run", updates=1, per_update=1, finished=False)
    with (path / "rollouts.jsonl").open("a", encoding="utf-8") as file:
        file.write(
            f'{{"step": 1, "rewrite": "x", "reward": 0, "score": 1, "estimate": {estimate}, "parts": {{"task": 1}}}}\n'
        )
    with pytest.raises(RunFolderError, match=r"rollouts\.jsonl:2"):
        build_report(path)
