"""What the soak looks at: the time after the warm-up, and the questions about rows."""

import json

import pytest

from reliability.soak import Sample, growth, questions_in


def test_growth_compares_the_end_with_the_time_after_the_warm_up():
    samples = [Sample(float(second), 100.0 + min(second, 20), 9 if second == 50 else 5) for second in range(101)]
    before, after = growth(samples)
    assert (before.memory, before.files) == (120.0, 5)  # loading is over after the first fifth
    assert (after.memory, after.files) == (120.0, 5)
    leaking = [Sample(found.seconds, 100.0 + found.seconds, 5) for found in samples]
    assert [part.memory for part in growth(leaking)] == [140.0, 200.0]


@pytest.mark.parametrize(
    ("path", "fields", "count"),
    [
        ("/v1/completions", {"prompt": ["solve\n\nstep 3", "solve\n\nnow 12"]}, 2),
        ("/v1/completions", {"prompt": "solve\n\nstep 3"}, 1),
        ("/v1/completions", {"prompt": [17, 4, 9]}, 1),  # one prompt as token ids
        ("/v1/completions", {"prompt": [[17, 4], [9]]}, 2),
        ("/v1/completions", {"prompt": ["one two", "three"]}, 0),  # what the server can do
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "step 3"}]}, 1),
        ("/v1/models", {}, 0),
    ],
)
def test_questions_about_rows_are_counted_and_others_are_not(path, fields, count):
    assert questions_in(path, json.dumps(fields).encode()) == count
