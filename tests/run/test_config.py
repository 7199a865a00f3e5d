"""Settings: what a field says is what flags, YAML and Python hold to."""

import ast
from pathlib import Path

import pytest

from prewrite.errors import ConfigError
from prewrite.run.config import ChoiceConfig, SearchConfig, TaskConfig, TrainConfig
from prewrite.run.option import options_of
from prewrite.train.algorithms import ALGORITHMS, SHARED_SETTINGS

SOURCE = Path(__file__).resolve().parents[2] / "src" / "prewrite"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_steps": 0}, "max_steps is 0; it must be above 0"),
        ({"patience": -1}, "patience is -1; it must be at least 0"),
        ({"min_fidelity": 1.5}, r"min_fidelity is 1\.5; it must be in \[0, 1\]"),
        ({"practical_delta": 1}, r"practical_delta is 1\.0; it must be below 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"rewrites_per_step": 1}, "rewrites_per_step is 1; it must be at least 2"),
        ({"num_candidates": 0}, "num_candidates is 0; it must be at least 1"),
        ({"max_steps": "many"}, "max_steps is 'many'; it must be a whole number"),
        ({"max_steps": True}, "max_steps is True; it must be a whole number"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; it must be a number"),
        ({"lora": "maybe"}, "lora is 'maybe'; it must be true or false"),
        ({"strategy": "T"}, "strategy 'T' is unknown; choose one of I, S"),
        ({"guards": ["drift", "kind"]}, "guard 'kind' is unknown; choose from .*drift"),
        ({"task_model_options": "chat"}, "task_model_options is 'chat'; it must be `key: value` lines"),
        ({"task_model": "gpt"}, "task model 'gpt' is not BACKEND:MODEL"),
        ({"max_usd": 1}, "give --prices"),
        ({"target_kl": 1, "kl_coef": 0}, r"target_kl is 1\.0 with kl_coef 0\.0; both must be above 0 to adapt"),
    ],
)
def test_a_value_out_of_bounds_is_an_error_in_python_too(values, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("files", "missing"), [([], "adapter_config.json"), (["adapter_config.json"], "adapter_model.safetensors")]
)
def test_a_warm_start_that_is_no_adapter_is_refused_with_what_it_lacks(tmp_path, files, missing):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"is no adapter folder: it has no {missing}; give auto, none, or a folder"):
        TrainConfig(warm_start=str(tmp_path))
    with pytest.raises(ConfigError, match="warm_start 'atuo' is no adapter folder"):
        TrainConfig(warm_start="atuo")


def test_a_value_is_read_as_the_type_of_its_field():
    config = TrainConfig(dataset="demo", learning_rate="5e-6", max_steps=3.0, guards="none", target_kl="none")
    assert (config.dataset, config.learning_rate, config.guards, config.target_kl) == (["demo"], 5e-6, [], None)
    assert config.max_steps == 3 and isinstance(config.max_steps, int)


def test_the_task_model_goes_by_one_name():
    assert TaskConfig(task_model="embedded").task_model == TaskConfig(task_model="demo").task_model == "hf:embedded"
    assert TaskConfig(task_model="ollama:gemma3:4b").task_model == "ollama:gemma3:4b"


def test_a_setting_belongs_to_the_group_of_its_class():
    groups = {option.name: option.group for option in options_of(TrainConfig)}
    assert [groups[name] for name in ("dataset", "task_model", "race", "base_model", "max_steps", "resume")] == [
        "data",
        "task model",
        "choice",
        "rewriter",
        "training",
        "output",
    ]
    assert {option.name for option in options_of(ChoiceConfig)} < set(groups)


def test_every_setting_is_read_by_somebody():
    read = {*SHARED_SETTINGS, *(name for algorithm in ALGORITHMS.values() for name in algorithm.own_settings)}
    for room in ("run", "cli"):
        for file in (SOURCE / room).glob("*.py"):
            if file.name != "config.py":
                nodes = ast.walk(ast.parse(file.read_text()))
                read |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert [option.name for option in options_of(TrainConfig) if option.name not in read] == []


@pytest.mark.parametrize(
    ("settings", "rewriter"),
    [
        ({"search_calls": 2499}, "none"),
        ({"search_calls": 2500}, "embedded"),
        ({"search_calls": 400, "parts": ["instruction", "offsets"]}, "embedded"),
        ({"search_calls": 400, "rewriter": "embedded"}, "embedded"),
        ({"search_calls": 9000, "rewriter": "none"}, "none"),
    ],
)
def test_a_search_asks_for_wordings_where_its_calls_allow_it_or_it_is_told_to(settings, rewriter):
    assert SearchConfig(dataset=["demo"], **settings).rewriter == rewriter
