"""The endpoint by the real client of OpenAI, and the page's requests by plain HTTP."""

import json
import time

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
openai = pytest.importorskip("openai", reason="the openai client is not installed")

from serve.served import BEST, INSTRUCTION, ROWS, ScriptedRewriter, SlowTaskModel, searches, serving  # noqa: E402

SEARCH = {"instruction": INSTRUCTION, "rows": ROWS, "task": "classification", "task_model": "scripted"}


@pytest.fixture(scope="module")
def address():
    with serving(searches()) as url:
        yield url


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=20) as made:
        yield made


def user(text):
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]


def events(response):
    return [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line]


def test_the_client_lists_the_rewriter(client):
    assert [model.id for model in client.models.list()] == ["toy"]


def test_the_reply_is_the_likeliest_rewrite_and_further_choices_are_samples(client):
    reply = client.chat.completions.create(model="toy", messages=user(INSTRUCTION), n=3)
    assert [choice.message.content for choice in reply.choices] == [f"Please {INSTRUCTION}", BEST, BEST]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 4 + 7 + 7)
    sampled = client.chat.completions.create(model="toy", messages=user(INSTRUCTION), temperature=0.7)
    assert sampled.choices[0].message.content == BEST


def test_a_stream_holds_the_same_text_and_the_usage_on_request(client):
    parts = list(
        client.chat.completions.create(
            model="toy", messages=user("sort\n the  mail"), stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == "Please sort\n the  mail" and parts[-2].choices[0].finish_reason == "stop"
    assert parts[-1].usage.total_tokens == 3 + 4


def test_a_rewrite_that_is_empty_is_the_instruction_and_a_seed_is_the_samples_own():
    rewriter = ScriptedRewriter(["", "x"])
    with serving(searches(rewriter=rewriter)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        parts = [{"type": "text", "text": INSTRUCTION}]
        reply = client.chat.completions.create(
            model="toy", messages=[{"role": "user", "content": parts}], temperature=1, n=2, seed=7
        )
    assert [choice.message.content for choice in reply.choices] == [INSTRUCTION, "x"] and rewriter.seeds == [7]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"model": "gpt"}, "the model here is 'toy'"),
        ({"n": 0}, "n is 0; it must be a whole number from 1 to 16"),
        ({"stop": ["x"]}, 'stop is ["x"]; a rewriter cannot do that'),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is"),
        ({"temperature": 3}, "temperature is 3"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no text of the user"),
        ({"messages": user("  ")}, "the instruction is empty"),
        ({"messages": user("a" * 9_000)}, "9,000 characters"),
    ],
)
def test_what_a_rewriter_cannot_do_is_refused_by_name(client, more, told):
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(**{"model": "toy", "messages": user(INSTRUCTION), **more})
    assert refused.value.status_code == (404 if "model" in more else 400) and told in refused.value.message


def test_fields_that_ask_for_nothing_are_taken(client):
    reply = client.chat.completions.create(
        model="toy",
        messages=user(INSTRUCTION),
        top_p=1,
        presence_penalty=0,
        response_format={"type": "text"},
        user="u",
        max_tokens=50,
    )
    assert reply.choices[0].message.content == f"Please {INSTRUCTION}"


def test_pages_of_other_sites_and_other_names_get_nothing(address):
    host = address.removeprefix("http://")
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": host, "Origin": "null"}):
        for path in ("/", "/about", "/v1/models"):
            assert httpx.get(address + path, headers=headers).status_code == 403
        assert httpx.post(f"{address}/search", json=SEARCH, headers=headers).status_code == 403
    found = httpx.get(f"{address}/", headers={"Origin": address})
    assert found.status_code == 200 and "script-src 'self'" in found.headers["content-security-policy"]
    assert found.headers["x-content-type-options"] == "nosniff" and found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/search", "/v1/chat/completions"])
def test_bodies_that_are_too_long_or_no_json_are_refused(address, path):
    assert httpx.post(address + path, json={"rows": "x" * 1_000_001}).status_code == 413
    assert httpx.post(address + path, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    assert httpx.post(address + path, json=[1]).status_code == 400
    assert (
        httpx.post(address + path, content=json.dumps(SEARCH), headers={"Content-Type": "text/plain"}).status_code
        == 400
    )
    assert httpx.get(f"{address}/../../etc/passwd").status_code == 404


def test_a_search_tells_every_prompt_while_it_runs_and_chooses_the_best(address):
    with httpx.stream("POST", f"{address}/search", json=SEARCH, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = events(response)
    assert [event["event"] for event in found[:3]] == ["start", "wordings", "prompt"]
    prompts = {event["prompt"]: event for event in found if event["event"] == "prompt"}
    assert prompts[0]["text"].startswith(INSTRUCTION) and "{input}" in prompts[0]["text"]
    done = found[-1]
    assert done["event"] == "done" and done["calls"] <= found[1]["most_calls"] <= 600
    assert done["scores"] == {"initial": 0.5, "chosen": 1.0} and prompts[done["chosen"]]["score"] == 1.0
    assert BEST in prompts[done["chosen"]]["text"]


def test_rows_of_csv_are_read_and_twelve_or_more_give_worked_examples(address):
    rows = "input,output\n" + "".join(f"win {n},spam\nhello {n},ham\n" for n in range(9))
    with httpx.stream("POST", f"{address}/search", json={**SEARCH, "rows": rows}, timeout=30) as response:
        found = events(response)
    assert (found[0]["rows"], found[0]["exemplar_rows"]) == (12, 6) and found[-1]["event"] == "done"
    assert any("win" in event["text"] for event in found if event["event"] == "prompt")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"rows": ""}, "there are no rows"),
        ({"task": "poetry"}, "task must be one of classification, qa, math"),
        ({"task_model": "other"}, "task_model must be one of scripted"),
        ({"instruction": None}, "the instruction is empty"),
    ],
)
def test_a_search_without_what_it_needs_is_refused(address, more, told):
    answer = httpx.post(f"{address}/search", json={**SEARCH, **more})
    assert answer.status_code == 400 and told in answer.json()["error"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('{"input": "a", "output": "b"}\n{"input": "a"}', "the pasted rows, line 2, field 'output'"),
        ('{"input": "a", "output": "b"}', "1 rows were pasted; a search here takes 4 to 500"),
        ("a;b\n1;2\n", "no column"),
    ],
)
def test_bad_rows_are_named_by_line_and_field(address, rows, told):
    with httpx.stream("POST", f"{address}/search", json={**SEARCH, "rows": rows}) as response:
        (error,) = events(response)
    assert error["event"] == "error" and told in error["message"] and "/tmp" not in error["message"]


def test_there_is_one_search_at_a_time_and_it_ends_when_its_client_leaves():
    model = SlowTaskModel(seconds=0.05)
    with serving(searches(task_model=model, calls=2_000)) as url:
        with httpx.stream("POST", f"{url}/search", json=SEARCH, timeout=30) as response:
            lines = response.iter_lines()
            while "prompt" not in json.loads(next(lines).removeprefix("data: ") or "{}"):
                pass
            assert httpx.post(f"{url}/search", json=SEARCH).status_code == 409
        asked = model.calls
        deadline = time.monotonic() + 10
        while httpx.post(f"{url}/search", json={**SEARCH, "rows": "x"}).status_code == 409:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert model.calls <= asked + 3
        with httpx.stream("POST", f"{url}/search", json=SEARCH, timeout=60) as response:
            assert events(response)[-1]["event"] == "done"


def test_a_server_that_ends_ends_its_search():
    model = SlowTaskModel(seconds=0.05)
    with serving(searches(task_model=model)) as url:
        stream = httpx.stream("POST", f"{url}/search", json=SEARCH, timeout=30)
        response = stream.__enter__()
        lines = response.iter_lines()
        while "prompt" not in json.loads(next(lines).removeprefix("data: ") or "{}"):
            pass
    assert [line for line in lines if "done" in line] == []
    asked = model.calls
    time.sleep(0.2)
    assert model.calls == asked
    stream.__exit__(None, None, None)
