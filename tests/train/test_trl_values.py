"""Values of TRL's settings: what TRL declares and takes passes, everything else is refused with its name."""

import dataclasses

import pytest
from trl import GRPOConfig, RLOOConfig

from prewrite.errors import ConfigError
from prewrite.train.trl_values import check_values


@pytest.mark.parametrize("kind", [GRPOConfig, RLOOConfig])
def test_all_defaults_of_trl_pass(kind):
    defaults = {
        field.name: field.default_factory() if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(kind)
        if field.init and field.name != "output_dir" and not field.name.startswith(("hub_", "push_to_hub", "trackio_"))
    }
    assert len(defaults) > 100
    check_values(kind, defaults)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1),  # a whole number where numbers go
        ("lr_scheduler_type", "cosine"),
        ("optim", "adafactor"),
        ("scale_rewards", False),  # beside what TRL declares, as its help says
        ("scale_rewards", "batch"),
        ("delta", None),
        ("generation_kwargs", {"stop_strings": ["."]}),
        ("logging_steps", 0.5),
        ("report_to", ["tensorboard"]),
    ],
)
def test_what_trl_takes_passes(name, value):
    check_values(GRPOConfig, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("learning_rate", "abc", "a finite number"),
        ("learning_rate", 0, "above 0"),
        ("beta", float("nan"), "a finite number"),
        ("beta", True, "a finite number"),
        ("warmup_steps", -1, "at least 0"),
        ("adam_beta2", 1.0, "at least 0 and below 1"),
        ("top_p", 1.5, "from 0 to 1"),
        ("max_grad_norm", -0.5, "at least 0"),
        ("generation_kwargs", "abc", "`key: value` lines or null"),
        ("vllm_mode", 3, "text"),
        ("lr_scheduler_type", None, "one of linear, cosine"),
        ("importance_sampling_level", "word", "one of sequence, token"),
        ("report_to", 5, "null or text or a list"),
    ],
)
def test_what_it_cannot_be_is_told_with_name_value_and_rule(name, value, rule):
    with pytest.raises(ConfigError) as found:
        check_values(GRPOConfig, {name: value})
    assert f"trl_overrides: {name} is {value!r}; it must be {rule}" in str(found.value)
