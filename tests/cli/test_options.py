"""Flags, YAML and help, all made from the settings' fields."""

from argparse import ArgumentParser

import pytest

from prewrite.cli.main import main
from prewrite.cli.options import add_options, build_config
from prewrite.run.config import TaskConfig, TrainConfig
from prewrite.run.option import options_of


def read(*words, config=TrainConfig, **given):
    parser = ArgumentParser()
    add_options(parser, config)
    return build_config(config, parser.parse_args(words), **given)


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([*words])
    assert stop.value.code == 0
    return capsys.readouterr().out


def flags_in(text):
    return {line.split()[0] for line in text.splitlines() if line.startswith("  --")}


def test_yaml_gives_settings_and_flags_win(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: rows.jsonl\nmax-steps: 7\nlearning_rate: 5e-6\nguards: [drift]\n")
    built = read("--config", str(file), "--max_steps", "3")
    assert (built.dataset, built.max_steps, built.learning_rate, built.guards) == (["rows.jsonl"], 3, 5e-6, ["drift"])


def test_underscores_dashes_and_aliases_are_the_same_flag():
    assert read("--data", "a", "--dataset", "b").dataset == ["a", "b"]
    assert read("--num-generations", "4") == read("--rewrites_per_step", "4") == read("--rewrites-per-step", "4")
    assert read("--no-hold-out-test", "--strategy", "S") == read("--no_hold_out_test", "--strategy", "S")


def test_the_older_pair_of_flags_names_the_same_task_model(tmp_path):
    assert read("--task_backend", "ollama", "--task_model", "gemma3:4b").task_model == "ollama:gemma3:4b"
    file = tmp_path / "run.yaml"
    file.write_text("task_backend: hf\ntask_model: org/name\n")
    assert read("--config", str(file), config=TaskConfig).task_model == "hf:org/name"
    assert not hasattr(TaskConfig(), "task_backend")


def test_an_unknown_task_backend_is_named(capsys):
    assert main(["train", "--data", "x.jsonl", "--task-backend", "tf", "--task-model", "m"]) == 2
    assert "'tf:m' is not BACKEND:MODEL with a backend of hf, ollama" in capsys.readouterr().err


def test_help_shows_the_settings_that_people_set_under_their_headings(capsys):
    shown = help_of(capsys, "train", "--help")
    settings = flags_in(shown) - {"--config", "--help-all"}
    assert {"--dataset", "--task-model", "--base-model", "--max-steps", "--strategy", "--output-dir"} <= settings
    assert "--lora-rank" not in settings and 10 <= len(settings) <= 16
    headings = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["options:", "data:", "task model:", "rewriter:", "training:", "choice:", "output:"]


def test_help_all_shows_every_setting_but_those_for_yaml_alone(capsys):
    shown = flags_in(help_of(capsys, "train", "--help-all"))
    missing = [
        option.name
        for option in options_of(TrainConfig)
        if not {f"--{name.replace('_', '-')}" for name in (option.name, f"no_{option.name}")} & shown
    ]
    assert missing == ["trl_overrides"]


def test_the_demo_tells_its_own_defaults(capsys):
    shown = help_of(capsys, "demo", "--help")
    assert "updates (default: 9)" in shown and "(default: runs/demo)" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian", "--data", "x"], "'trian' is no command; did you mean train?"),
        (
            ["train", "--learning-rte", "1"],
            "no flag of prewrite train; did you mean --learning-rate?",
        ),
        (["eval", "--wth=a"], "did you mean --with?"),
        (["train", "rows.jsonl"], "prewrite train does not know what 'rows.jsonl' is"),
    ],
)
def test_what_was_mistyped_is_named_with_what_was_meant(words, told, capsys):
    assert main(words) == 2
    assert told in capsys.readouterr().err
