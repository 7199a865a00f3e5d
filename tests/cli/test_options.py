"""Flags, YAML and help, all made from the settings' fields."""

import sys
from argparse import ArgumentParser

import pytest

from prewrite.cli.main import COMMANDS, main
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
    assert "--lora-rank" not in settings and 10 <= len(settings) <= 17
    headings = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "positional arguments:",
        "options:",
        "data:",
        "task model:",
        "rewriter:",
        "training:",
        "choice:",
        "output:",
    ]


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
        (["cache", "info", "rows.jsonl"], "prewrite cache does not know what 'rows.jsonl' is"),
    ],
)
def test_what_was_mistyped_is_named_with_what_was_meant(words, told, capsys):
    assert main(words) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "search", "eval"])
@pytest.mark.parametrize(
    "words",
    [
        ["nofile.jsonl", "--seed", "1"],
        ["--seed", "1", "nofile.jsonl"],
        ["--data", "nofile.jsonl", "--seed", "1"],
        ["--no-cache", "nofile.jsonl"],
    ],
)
def test_data_may_stand_without_its_flag(command, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, *words]) == 2
    assert "nofile.jsonl does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_takes_version_and_quiet(command, capsys):
    shown = help_of(capsys, command, "--help")
    assert "-V, --version" in shown and "-q, --quiet" in shown


RESULTS = ("ask", "cache", "compare", "demo", "doctor", "eval", "explain", "load", "report", "rewrite", "search",
           "train", "train-reward", "warm-start")  # fmt: skip


@pytest.mark.parametrize("command", RESULTS)
def test_every_command_that_prints_a_result_prints_json(command, capsys):
    assert "--json" in flags_in(help_of(capsys, command, "--help"))


def test_a_version_is_told_behind_a_command_too(capsys):
    assert main(["cache", "info", "-V"]) == 0
    assert capsys.readouterr().out.startswith("prewrite ")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_flags(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS) and "--learning-rate" in script


def test_a_completion_without_shtab_names_the_pip_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'prewrite[completion]'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "load"])
def test_a_task_model_may_stand_behind_its_flag(command, toy, capsys):
    assert main([command, "--task-model", f"hf:{toy / 'model'}", "--json"]) == 0
    assert str(toy / "model") in capsys.readouterr().out
    assert main(["load"]) == 2
    assert "no task model" in capsys.readouterr().err


def test_quiet_leaves_warnings_and_the_result(toy, capsys):
    flags = ["search", str(toy / "rows.jsonl"), "--task-model", f"hf:{toy / 'model'}", "--rewriter", "none"]
    flags += ["--fidelity-model", "none", "--search-calls", "60", "--no-cache", "--overwrite", "--output-dir"]
    assert main([*flags, str(toy / "loud")]) == 0
    assert "Search: up to" in capsys.readouterr().err
    assert main([*flags, str(toy / "quiet"), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert "Search: up to" not in printed.err and "Test, 8 rows" in printed.out
    assert "rows and prompts stay in this process" in printed.err  # where data go is always said
