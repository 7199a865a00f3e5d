"""When requests are sent again, when a run stops, and that no more are open than allowed."""

import asyncio
import threading
import time

import pytest

from prewrite.errors import TaskModelError
from prewrite.task_models.pool import CONNECTIONS_PER_CLIENT, RequestPool
from prewrite.task_models.retry import AttemptFailed, Breaker, Refused, RetryPolicy

QUICK = RetryPolicy(attempts=4, first_delay=0.001)


@pytest.fixture
def make_pool():
    pools = []

    async def close(client):
        pass

    def make(concurrency=4, timeout=5.0, retry=QUICK):
        pool = RequestPool(
            "the server at http://127.0.0.1:1",
            "Start it.",
            make_client=lambda: "client",
            close_client=close,
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def jobs(count):
    return [[row] for row in range(count)]


def test_every_job_is_answered_once_with_no_more_open_than_allowed(make_pool):
    state = {"open": 0, "most": 0}

    async def send(client, job):
        state["open"] += 1
        state["most"] = max(state["most"], state["open"])
        await asyncio.sleep(0.001)
        state["open"] -= 1
        return job[0] * 2

    results = {job[0]: result for job, result in make_pool(concurrency=7).run(jobs(200), send)}
    assert results == {row: row * 2 for row in range(200)}
    assert state["most"] == 7


def test_a_client_serves_few_connections_and_all_are_closed_at_the_end():
    made, closed, users = [], [], {}

    async def close(client):
        closed.append(client)

    def make():
        made.append(object())
        return made[-1]

    pool = RequestPool(
        "the server at http://127.0.0.1:1", "Start it.", make_client=make, close_client=close, concurrency=100,
        timeout=60.0, retry=QUICK,
    )  # fmt: skip
    all_open = asyncio.Event()

    async def send(client, job):
        users.setdefault(id(client), set()).add(job[0])
        if sum(map(len, users.values())) == 100:
            all_open.set()
        await all_open.wait()  # a hundred requests are open before the first is answered
        return job[0]

    assert {result for _, result in pool.run(jobs(100), send)} == set(range(100))
    pool.close()
    assert max(map(len, users.values())) <= CONNECTIONS_PER_CLIENT
    assert len(made) == -(-100 // CONNECTIONS_PER_CLIENT) and set(closed) == set(made)


def test_results_arrive_while_later_ones_are_still_out(make_pool):
    gate = threading.Event()

    async def send(client, job):
        if job[0] == 1:
            while not gate.is_set():
                await asyncio.sleep(0.01)
        return job[0]

    arriving = make_pool(concurrency=1).run(jobs(2), send)
    assert next(arriving)[1] == 0
    gate.set()
    assert next(arriving)[1] == 1


def test_a_failed_attempt_is_sent_again_and_told_about(make_pool):
    sent, told = [], []

    async def send(client, job):
        sent.append(job[0])
        if sent.count(job[0]) < 3:
            raise AttemptFailed("HTTP 500", billed=True)
        return job[0]

    pool = make_pool()
    results = list(pool.run(jobs(3), send, failed=lambda job, billed: told.append((job[0], billed))))
    assert sorted(job[0] for job, _ in results) == [0, 1, 2]
    assert len(sent) == 9 and sorted(told) == [(0, True)] * 2 + [(1, True)] * 2 + [(2, True)] * 2


def test_a_refusal_is_not_sent_again_and_names_the_server(make_pool):
    sent = []

    async def send(client, job):
        sent.append(job[0])
        raise Refused("HTTP 400: prompt too long")

    with pytest.raises(TaskModelError, match=r"the server at http://127.0.0.1:1 refused: HTTP 400: prompt too long"):
        list(make_pool(concurrency=1).run(jobs(5), send))
    assert sent == [0]


def test_attempts_run_out_with_the_last_error_and_the_remedy(make_pool):
    async def send(client, job):
        raise AttemptFailed("HTTP 503: busy", billed=False)

    with pytest.raises(
        TaskModelError, match=r"failed 4 times on one request; last error: HTTP 503: busy\. Start it\."
    ):
        list(make_pool().run(jobs(1), send))


def test_answers_under_way_when_a_run_stops_are_still_handed_over(make_pool):
    async def send(client, job):
        if job[0] == 0:
            raise Refused("HTTP 400")
        await asyncio.sleep(0.05)
        return job[0]

    arrived = []
    with pytest.raises(TaskModelError):
        for job, _ in make_pool(concurrency=3).run(jobs(100), send):
            arrived.append(job[0])
    assert sorted(arrived) == [1, 2]


def test_an_attempt_that_takes_too_long_is_cut_off(make_pool):
    slow = [True]

    async def send(client, job):
        if slow.pop() if slow else False:
            await asyncio.sleep(60)
        return "answer"

    assert [result for _, result in make_pool(timeout=0.1).run(jobs(1), send)] == ["answer"]


def test_a_closed_run_leaves_nothing_open(make_pool):
    state = {"open": 0}

    async def send(client, job):
        state["open"] += 1
        try:
            await asyncio.sleep(0 if not job[0] else 60)
        finally:
            state["open"] -= 1
        return job[0]

    arriving = make_pool(concurrency=5).run(jobs(50), send)
    next(arriving)
    arriving.close()
    deadline = time.monotonic() + 10
    while state["open"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state["open"] == 0


def test_it_works_under_a_running_event_loop_as_in_jupyter(make_pool):
    async def send(client, job):
        return job[0]

    async def cell():
        return [result for _, result in make_pool().run(jobs(3), send)]

    assert sorted(asyncio.run(cell())) == [0, 1, 2]


def test_delays_double_with_jitter_and_a_servers_own_wait_is_kept():
    policy = RetryPolicy(first_delay=1, longest_delay=10)
    for failures, ceiling in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (9, 10)):
        delays = [policy.delay(failures, None) for _ in range(50)]
        assert ceiling / 2 <= min(delays) <= max(delays) <= ceiling and len(set(delays)) > 1
    assert 7 <= policy.delay(1, 7) <= 8


def test_the_breaker_needs_failures_in_a_row_that_span_some_time():
    now = [0.0]
    policy = RetryPolicy(breaker_failures=3, breaker_seconds=10)
    breaker = Breaker("the server at URL", "Start it.", policy, clock=lambda: now[0])
    failure = AttemptFailed("no connection", billed=False)
    for _ in range(40):
        breaker.failure(failure)  # one outage fails all open connections at once
    now[0] = 9
    breaker.failure(failure)
    breaker.success()
    breaker.failure(failure)
    now[0] = 30
    breaker.failure(failure)
    with pytest.raises(
        TaskModelError, match=r"URL failed 3 times in a row over 21 s; last error: no connection\. Start it"
    ):
        breaker.failure(failure)


def test_a_server_that_asks_for_too_long_a_wait_stops_the_run():
    breaker = Breaker("the server at URL", "", RetryPolicy())
    with pytest.raises(TaskModelError, match="asks to wait 3600 s"):
        breaker.failure(AttemptFailed("HTTP 429", billed=False, retry_after=3600))
