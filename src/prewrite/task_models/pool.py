"""Sends requests to one server: a fixed number open at a time, retried, results as they come.

The event loop runs in a thread of its own, so the synchronous methods of a backend work in scripts, in threads and
under a running loop such as Jupyter's. A worker takes its next job only when its last result has been taken (and so
is in the cache): 10,000 prompts make no more tasks or sockets than 10, and a killed run loses at most one result a
worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from prewrite.errors import ConfigError
from prewrite.task_models.retry import AttemptFailed, Breaker, NoAccess, NotFound, Refused, RetryPolicy

logger = logging.getLogger(__name__)
LOADING_DELAY, LOADING_NEWS = 2.0, 15.0
"""Seconds between two questions to a server that is loading its model, and between two lines that say so."""

CONNECTIONS_PER_CLIENT = 16
"""An httpx client looks through all of its connections at each request and each answer: with a thousand in one, that
is where the time goes. A worker keeps to its client."""

Client = TypeVar("Client")
Result = TypeVar("Result")
Job = Sequence[int]
"""Rows of a batch that travel in one request."""


class RequestPool(Generic[Client]):
    """Open connections to one server.

    Args:
        server: its address, for messages.
        remedy: a sentence that says what to do when it fails.
        make_client: makes an async client; called inside the loop, since clients belong to one. Each is used for up
            to `CONNECTIONS_PER_CLIENT` requests at a time.
        close_client: closes one.
        concurrency: most requests open at a time, at least 1.
        timeout: seconds that one attempt may take in all, however slowly its bytes drip.
    """

    def __init__(
        self,
        server: str,
        remedy: str,
        *,
        make_client: Callable[[], Client],
        close_client: Callable[[Client], Awaitable[object]],
        concurrency: int,
        timeout: float,
        retry: RetryPolicy,
    ):
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; it must be at least 1")
        if timeout <= 0:
            raise ConfigError(f"timeout is {timeout}; it must be more than 0 seconds")
        self.server, self.remedy = server, remedy
        self.concurrency, self.timeout, self.retry = concurrency, timeout, retry
        self._make_client, self._close_client = make_client, close_client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: list[Client] = []
        self._pid = 0
        self._next_news = 0.0
        self._lock = threading.Lock()

    def call(self, send: Callable[[Client], Coroutine[Any, Any, Result]], *, timeout: float | None = None) -> Result:
        """One request outside any batch, such as a probe; fewer attempts, so that a wrong address shows at once.

        HTTP 500 counts as a refusal here: a server that breaks down on a small request does so again.
        """

        async def one(client: Client, job: Job) -> Result:
            try:
                return await send(client)
            except AttemptFailed as error:
                if error.status == 500:
                    raise Refused(*error.args) from None
                raise

        retry = replace(self.retry, attempts=min(4, self.retry.attempts))
        return next(result for _, result in self.run([[0]], one, timeout=timeout, retry=retry))

    def run(
        self,
        jobs: Sequence[Job],
        send: Callable[[Client, Job], Coroutine[Any, Any, Result]],
        *,
        sending: Callable[[Job], None] = lambda job: None,
        failed: Callable[[Job, bool], None] = lambda job, billed: None,
        refused: Callable[[Refused], Result] | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Iterator[tuple[Job, Result]]:
        """Results as they arrive, in any order; a job of several rows may come in parts.

        `send` raises `AttemptFailed` to be tried again. A job of several rows that is `Refused` is sent again row by
        row, since one of them may be the reason; `refused` makes the result of a row that is. Any other error, and a
        refusal without `refused`, stops the run: no further job is begun, those under way are let finish and are
        yielded, then the error is raised.
        """
        loop = self._start()
        arrived: queue.SimpleQueue[tuple[Job, Result, asyncio.Event] | None] = queue.SimpleQueue()

        async def attempt(client: Client, job: Job) -> Result:
            seconds = timeout or self.timeout
            try:
                return await asyncio.wait_for(send(client, job), seconds)
            except asyncio.TimeoutError:
                raise AttemptFailed(f"no answer within {seconds:g} s", billed=True) from None

        async def hand_over(job: Job, result: Result) -> None:
            if gone.is_set():  # `wait_for` lost the cancellation, as it does where the answer comes at that moment
                raise asyncio.CancelledError
            taken = asyncio.Event()
            arrived.put((job, result, taken))
            await taken.wait()

        async def work() -> None:
            try:
                await self._work(jobs, attempt, retry or self.retry, sending, failed, refused, hand_over)
            finally:
                ended.set()
                arrived.put(None)

        gone, ended = threading.Event(), threading.Event()
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            while True:
                try:
                    item = arrived.get(timeout=1)  # a wait without end cannot be interrupted on Windows
                except queue.Empty:
                    continue
                if item is None:
                    break
                job, result, taken = item
                yield job, result
                loop.call_soon_threadsafe(taken.set)
            future.result()
        except (Refused, NoAccess) as error:
            error.args = (f"{self.server} refused: {error}",)
            raise
        finally:
            if not future.done():
                gone.set()
                future.cancel()
                ended.wait(timeout=5)  # else the requests that are still open would be cut off when Python ends

    def close(self) -> None:
        """Close the connections and end the thread; the next use starts them again."""
        with self._lock:
            if self._loop is not None and self._pid == os.getpid():
                asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=10)
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():  # a forked child has no such thread
                self._loop, self._clients, self._pid = asyncio.new_event_loop(), [], os.getpid()
                threading.Thread(target=_serve, args=(self._loop,), name="prewrite-requests", daemon=True).start()
            return self._loop

    async def _close(self) -> None:
        abandoned = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in abandoned:
            task.cancel()
        await asyncio.gather(*abandoned, return_exceptions=True)
        while self._clients:
            await self._close_client(self._clients.pop())

    def _tell_loading(self, waited: float, limit: float) -> None:
        """Say every few seconds that the server is loading its model."""
        if waited >= self._next_news or not waited:
            logger.warning("%s is loading its model: %.0f s so far, waiting up to %.0f s", self.server, waited, limit)
            self._next_news = waited + LOADING_NEWS

    async def _work(
        self,
        jobs: Sequence[Job],
        send: Callable[[Client, Job], Coroutine[Any, Any, Result]],
        retry: RetryPolicy,
        sending: Callable[[Job], None],
        failed: Callable[[Job, bool], None],
        refused: Callable[[Refused], Result] | None,
        hand_over: Callable[[Job, Result], Awaitable[None]],
    ) -> None:
        number = min(self.concurrency, len(jobs))
        while len(self._clients) * CONNECTIONS_PER_CLIENT < number:
            self._clients.append(self._make_client())
        clients, waiting, stop = list(self._clients), iter(jobs), asyncio.Event()
        breaker = Breaker(self.server, self.remedy, retry)

        async def attempts(job: Job, client: Client) -> None:
            failures = 0
            while not stop.is_set():
                sending(job)
                try:
                    result = await send(client, job)
                except AttemptFailed as error:
                    failed(job, error.billed)
                    if error.loading:
                        delay = min(error.retry_after or LOADING_DELAY, LOADING_NEWS)
                        self._tell_loading(breaker.loading(error), retry.loading_seconds)
                    else:
                        failures += 1
                        breaker.failure(error)
                        if failures == retry.attempts:
                            raise breaker.exhausted(error) from error
                        delay = retry.delay(failures, error.retry_after)
                    await _stopped_within(stop, delay)
                except Refused as error:
                    if refused is None or isinstance(error, NotFound):
                        raise
                    if len(job) > 1:
                        failed(job, False)
                        for row in job:
                            await attempts([row], client)
                    else:
                        await hand_over(job, refused(error))
                    return
                else:
                    breaker.success()
                    await hand_over(job, result)
                    return

        async def worker(client: Client) -> None:
            for job in waiting:
                if stop.is_set():
                    return
                try:
                    await attempts(job, client)
                except BaseException:
                    stop.set()
                    raise

        workers = [asyncio.create_task(worker(clients[at % len(clients)])) for at in range(number)]
        try:
            outcomes = await asyncio.gather(*workers, return_exceptions=True)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


async def _stopped_within(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until the run stops."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
