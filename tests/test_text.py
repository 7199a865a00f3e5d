import pytest

from prewrite.errors import ConfigError
from prewrite.scoring.templates import TASK_TEMPLATE, TASK_TEMPLATES, check_task_template, get_task_template
from prewrite.text import fill


def test_fill_puts_each_value_into_its_slot():
    assert fill(TASK_TEMPLATE, {"instruction": "Add.", "input": "1 2"}) == "Add.\n\nInput: 1 2\nOutput:"


def test_a_value_with_braces_is_not_read_as_a_slot():
    filled = fill("{instruction}|{input}", {"instruction": "Say {input} twice {x} {0} {", "input": "{instruction}"})
    assert filled == "Say {input} twice {x} {0} {|{instruction}"


def test_braces_that_are_no_slots_stay():
    assert fill('Reply {"label": x} {} to {input}', {"input": "a\\1"}) == 'Reply {"label": x} {} to a\\1'


def test_a_slot_that_occurs_twice_is_filled_twice_and_an_unused_value_is_left_out():
    assert fill("{a}{a}", {"a": "1", "b": "2"}) == "11"
    assert fill("{a}", {}) == "{a}"


def test_a_required_slot_must_be_in_the_template_and_have_a_value():
    with pytest.raises(ConfigError, match=r"no slot \{input\}"):
        fill("{instruction}", {"instruction": "x", "input": "y"}, required=["input"])
    with pytest.raises(ConfigError, match=r"needs a value for \{input\}"):
        fill("{input}", {"instruction": "x"}, required=["input"])


@pytest.mark.parametrize("name", TASK_TEMPLATES)
def test_every_built_in_template_holds_both_slots(name):
    check_task_template(get_task_template(name))


@pytest.mark.parametrize(("template", "missing"), [("{instruction}:", "input"), ("{input}", "instruction")])
def test_a_task_template_without_a_slot_is_refused_with_the_remedy(template, missing):
    with pytest.raises(ConfigError, match=rf"no slot \{{{missing}\}}.*agnews"):
        get_task_template(template)
