"""Ten thousand prompts through a proxy that spoils a tenth of the answers, and runs that are killed half-way."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from prewrite.task_models.cache import AnswerCache
from prewrite.task_models.ollama import OllamaTaskModel
from prewrite.task_models.openai import OpenAITaskModel
from prewrite.task_models.registry import wrap_task_model
from prewrite.task_models.retry import RetryPolicy
from servers.fault_proxy import FAULTS, FaultProxy
from servers.http_server import HTTPServer
from servers.ollama_server import OllamaApp
from servers.openai_server import OpenAIApp, answer_to

# A server that is down for a moment must not use up a request's attempts on a fast machine.
PATIENT = RetryPolicy(attempts=12, first_delay=0.02, longest_delay=0.5)


@pytest.fixture
def cache(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    yield cache
    cache.close()


def test_10_000_prompts_through_faults_of_every_kind_are_all_answered_once(cache):
    app = OpenAIApp()
    prompts = [f"prompt number {number}" for number in range(10_000)]
    with FaultProxy(app, share=0, slow_seconds=0.05) as proxy:
        backend = OpenAITaskModel(
            "toy", address=f"{proxy.url}/v1", concurrency=16, prompts_per_request=8, timeout=10, retry=PATIENT
        )
        backend.load()
        proxy.share = 0.1
        before = len(app.asked)
        counted = wrap_task_model(backend, cache=cache)
        answers = counted.generate(prompts)
        backend.close()
    assert answers == [answer_to(prompt) for prompt in prompts]
    assert cache.info().entries == 10_000
    assert set(proxy.faults) == set(FAULTS)
    usage = counted.usage
    assert (usage.prompts, usage.cache_hits) == (10_000, 0)
    assert usage.calls == 10_000 + usage.retries
    # Every answer that the server wrote was asked for by a counted call; refused and 429 and 500 never reached it.
    assert 10_000 <= len(app.asked) - before <= usage.calls
    # latency and slow_drip are slow, not failed: each other spoiled request of eight prompts was sent again
    spoiled = sum(count for kind, count in proxy.faults.items() if kind not in ("latency", "slow_drip"))
    assert usage.retries >= 8 * spoiled * 0.95


def test_ollama_answers_through_the_same_faults(cache):
    app = OllamaApp()
    prompts = [f"prompt {number}" for number in range(1_000)]
    with FaultProxy(app, share=0, slow_seconds=0.05) as proxy:
        backend = OllamaTaskModel("smollm2:135m", address=proxy.url, concurrency=16, timeout=10, retry=PATIENT)
        backend.load()
        proxy.share = 0.1
        counted = wrap_task_model(backend, cache=cache)
        answers = counted.generate(prompts)
        backend.close()
    assert answers == [f"{prompt} " for prompt in prompts]
    assert cache.info().entries == 1_000 and set(proxy.faults) == set(FAULTS)
    assert counted.usage.calls == 1_000 + counted.usage.retries and counted.usage.retries > 50


def test_a_slow_drip_longer_than_the_timeout_is_cut_off_and_asked_again():
    with FaultProxy(OpenAIApp(), share=0, slow_seconds=30, faults=("slow_drip",)) as proxy:
        backend = OpenAITaskModel("toy", address=f"{proxy.url}/v1", timeout=0.5, retry=PATIENT, concurrency=8)
        backend.load()
        proxy.share = 0.5
        prompts = [f"p{number}" for number in range(16)]
        assert backend.generate(prompts) == [answer_to(prompt) for prompt in prompts]
        backend.close()


RUN = textwrap.dedent(
    """
    import sys
    from prewrite.task_models.cache import AnswerCache
    from prewrite.task_models.openai import OpenAITaskModel
    from prewrite.task_models.registry import wrap_task_model

    backend = OpenAITaskModel("toy", address=sys.argv[1], concurrency=4, prompts_per_request=1)
    counted = wrap_task_model(backend, cache=AnswerCache(sys.argv[2]))
    answers = counted.generate([f"prompt {number}" for number in range(1000)])
    print(len(answers), counted.usage.cache_hits, counted.usage.calls)
    """
)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_after_kill_9_only_the_missing_prompts_are_sent(cache):
    app = OpenAIApp(answer_seconds=0.002)
    with HTTPServer(app) as server:
        command = [sys.executable, "-c", RUN, f"{server.url}/v1", str(cache.path)]
        environment = os.environ | {"OPENAI_API_KEY": ""}
        first = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 120
        while cache.info().entries < 300 and time.monotonic() < deadline:
            time.sleep(0.02)
        first.kill()
        first.wait()
        kept = cache.info().entries
        assert 300 <= kept < 1000
        sent_first = [prompt for prompt in app.asked if prompt.startswith("prompt")]
        assert len(sent_first) <= kept + 4  # at most what was open was lost
        app.asked.clear()
        told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout
        sent_again = [prompt for prompt in app.asked if prompt.startswith("prompt")]
    assert told.split() == ["1000", str(kept), str(1000 - kept)]
    assert len(sent_again) == len(set(sent_again)) == 1000 - kept
