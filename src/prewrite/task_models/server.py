"""One request to a model server over HTTP: its JSON, or the failure by kind.

Both backends of servers stand on this, so a status, a Retry-After, an error inside a 200, a proxy or a key means the
same on each. The vendors' own clients are as thin over httpx, but drop fields, raise errors of their own kinds, and
read keys, proxies and waiting times each in its own way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prewrite.errors import ConfigError, MissingDependencyError, TaskModelError
from prewrite.task_models.addresses import client_options
from prewrite.task_models.replies import ServerError, error_in, words_in
from prewrite.task_models.retry import AttemptFailed, NoAccess, NotFound, Refused, seconds_to_wait

if TYPE_CHECKING:
    import httpx

_LOADING = re.compile(
    r"\bloading\b|\bbeing loaded|\bnot (yet |been )?(loaded|ready)|start(ing|s) up|warming|initiali[sz]ing|cold start",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|maximum context|prompt (is )?too long|too many (input )?tokens"
    r"|reduce the length|exceeds? (the )?(available|model's|maximum) (context|length|input)",
    re.IGNORECASE,
)
_NO_ROOM = re.compile(r"max_(completion_|output_)?tokens\b.*\breached", re.IGNORECASE)  # thinking models of OpenAI
_OF_CONTENT = re.compile(r"moderation|flagged|content[ _-]?(policy|filter)|safety|harmful", re.IGNORECASE)
_NO_CREDIT = re.compile(r"insufficient[ _](quota|balance|credits?|funds)|exceeded your current quota|billing", re.I)
_NO_MEMORY = re.compile(r"requires more system memory", re.IGNORECASE)
_MAY_PASS = (408, 409, 423, 424, 425, 429, 499)
"""Of 4xx, those that are asked again."""


class Connection:
    """How to reach one server: address, headers, proxy and certificates, all checked at once.

    Args:
        address: a URL.
        key_variable: the environment variable that may hold the key.
        backend: its name, for the line that installs httpx.

    Raises `ConfigError` or `MissingDependencyError` that names the setting.
    """

    def __init__(self, address: str, *, key_variable: str, backend: str):
        try:
            import httpx  # noqa: F401
        except ImportError:
            raise MissingDependencyError(f"the {backend} backend needs `pip install 'prewrite[{backend}]'`") from None
        self.address, self.key_variable = address, key_variable
        self.has_key = read_key(key_variable) is not None
        self._options = client_options(address)

    def open(self, timeout: float) -> httpx.AsyncClient:
        """A client, made inside the event loop that it belongs to. The key is read here and kept by it alone."""
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        headers = {"Accept": "application/json", "User-Agent": "prewrite"}
        if key := read_key(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        return httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, **self._options)

    async def fetch(self, client: httpx.AsyncClient, url: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that `url` answers, to a POST of `body` or to a GET.

        Failures that may pass become `AttemptFailed`; others `Refused`, `NotFound`, `NoAccess` or `TaskModelError`.
        """
        import httpx

        try:
            response = await (client.get(url) if body is None else client.post(url, json=dict(body)))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if "CERTIFICATE" in str(error):
                raise TaskModelError(
                    f"{self.address} shows a certificate that is not trusted here ({error}); name the file of its "
                    "certificate authority in SSL_CERT_FILE"
                ) from None
            raise AttemptFailed(f"no connection ({_short(error)})", billed=False) from None
        except httpx.ProxyError as error:
            raise AttemptFailed(f"the proxy does not connect ({_short(error)})", billed=False) from None
        except httpx.TimeoutException:
            raise AttemptFailed("timed out", billed=True) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise AttemptFailed(f"connection dropped ({_short(error)})", billed=True) from None
        return self._read(response)

    def _read(self, response: httpx.Response) -> Any:
        if response.is_redirect:
            raise TaskModelError(
                f"{response.url} answers with a redirect to {response.headers.get('location', 'nowhere')}; no row is "
                "sent there: give that address if it is the right one"
            )
        try:
            body = response.json()
        except (ValueError, RecursionError):  # also a number of thousands of digits
            body = response.text
        told = error_in(body)
        if response.is_error:
            found = told or ServerError(response.status_code, words_in(body))
            raise self._failure(found._replace(status=response.status_code), response.headers)
        if told is not None:
            raise self._failure(told, response.headers)
        if isinstance(body, str):
            if re.search(r"^data:", body, re.MULTILINE):
                raise TaskModelError(f"{self.address} streams its answers although asked not to; use another server")
            raise AttemptFailed(f"the answer is not JSON ({words_in(body)[:80]!r})", billed=True)
        return body

    def _failure(self, told: ServerError, headers: Mapping[str, str]) -> Exception:
        status, said = told.status, f"{told.code} {told.words}"
        text = f"HTTP {status}" + (f": {told.words}" if told.words else "")
        if status == 402 or (status in (403, 429) and _NO_CREDIT.search(said)):
            return NoAccess(f"{text}. The account has no credit left")
        if _NO_MEMORY.search(said):
            return TaskModelError(f"{self.address}: {text}")
        if _TOO_LONG.search(said) and status != 429:
            return Refused(text, too_long=True)
        if status == 400 and _NO_ROOM.search(said):
            return Refused(text, cut=True)
        if status == 403 and _OF_CONTENT.search(said):
            return Refused(text)
        if status in (401, 403):
            what = "does not hold such a key" if self.has_key else "is not set"
            remedy = f"Set {self.key_variable} to a key that may use this model"
            return NoAccess(f"{text}. {remedy}: {self.key_variable} {what}")
        if status in (404, 410, 501):
            return NotFound(text)
        if 400 <= status < 500 and status not in _MAY_PASS:
            return Refused(text, parameter=told.parameter)
        loading = status == 503 and bool(_LOADING.search(said))
        wait = seconds_to_wait(headers)
        return AttemptFailed(text, billed=status not in (429, 503), retry_after=wait, status=status, loading=loading)


def named_field(error: Refused, fields: Sequence[str]) -> str | None:
    """The field of a request that a refusal names as its reason; None if it names none of `fields`."""
    if error.too_long or error.cut:
        return None
    named = error.parameter.rpartition(".")[2]
    if named in fields:
        return named
    spelled = {name: re.escape(name).replace("_", "[ _]") for name in fields}
    places = {name: re.search(rf"(?<!\w){word}(?!\w)", str(error), re.IGNORECASE) for name, word in spelled.items()}
    found = {name: place.start() for name, place in places.items() if place}
    return min(found, key=lambda name: found[name], default=None)


def read_key(variable: str) -> str | None:
    """The key that an environment variable holds; None without one.

    Raises `ConfigError` that names the variable, and never its value, for what no key holds: white space, line ends,
    control characters and characters beyond ASCII.
    """
    key = os.environ.get(variable)
    if not key:
        return None
    for what, found in (
        ("a line end", "\n" in key or "\r" in key),
        ("white space", any(character.isspace() for character in key)),
        ("a character that is not ASCII", not key.isascii()),
        ("a control character", not key.isprintable()),
    ):
        if found:
            raise ConfigError(f"{variable} holds {what}, which no key does; set it to the key alone")
    return key


def _short(error: Exception) -> str:
    first = str(error).splitlines()[:1]
    return first[0] if first else type(error).__name__
