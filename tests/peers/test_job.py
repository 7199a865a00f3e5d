"""A job and a result come back from their files as they were, and every arm's answers are read in one way."""

import sys

import pytest
from benchmarks.peers.job import (
    MARK,
    GappedMessage,
    Job,
    Result,
    filled,
    gapped,
    read_job,
    read_result,
    run_program,
    write_job,
    write_result,
)

JOB = Job(
    "Tell the mood.",
    ("positive", "negative"),
    "classification",
    (("{x} é", ("positive",)),),
    (("b", ("negative", "bad")),),
    "http://127.0.0.1:1/v1",
    100,
    3,
    "capo",
    "bare",
)


def test_a_job_and_a_result_come_back_from_their_files(tmp_path):
    write_job(JOB, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == JOB
    result = Result(
        gapped([{"role": "user", "content": f"a {MARK} b {MARK}"}]), (), changed=True, notes={"accepted": 1}, crash="x"
    )
    write_result(result, tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result


def test_the_input_fills_every_gap_and_nothing_else_even_where_it_looks_like_one():
    messages = gapped([{"role": "system", "content": "{input}"}, {"role": "user", "content": f"{MARK}, {MARK}!"}])
    assert messages == (GappedMessage("system", ("{input}",)), GappedMessage("user", ("", ", ", "!")))
    assert filled(messages, "{input}") == [
        {"role": "system", "content": "{input}"},
        {"role": "user", "content": "{input}, {input}!"},
    ]


@pytest.mark.parametrize(
    ("output", "score"),
    [
        ("Positive.", 1.0),
        ("[[ ## answer ## ]]\npositive\n\n[[ ## completed", 1.0),
        ("It is not negative, and not positive either", 0.0),  # names the answer, and answers with none
        ("negative", 0.0),
    ],
)
def test_an_answer_is_right_where_it_is_the_label_not_where_it_holds_it(output, score):
    assert JOB.read(output, "a", ("positive",))[1] == score


def test_a_program_that_crashes_leaves_the_initial_prompt_and_says_why(tmp_path, monkeypatch, capsys):
    def search(job):
        raise KeyError(f"no {job.variant}")

    write_job(JOB, tmp_path / "job.json")
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "job.json"), str(tmp_path / "result.json")])
    run_program(search)
    result = read_result(tmp_path / "result.json")
    assert result.crash == "KeyError: 'no capo'" and not result.changed
    assert filled(result.messages, "I")[0]["content"] == "Tell the mood.\n\nInput: I\nOutput:"
    assert "KeyError" in capsys.readouterr().err
