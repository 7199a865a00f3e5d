"""Where servers are: how addresses are written, the proxy and certificates on the way, and whether data stay here."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from prewrite.errors import ConfigError, MissingDependencyError

OPENAI_ADDRESS = "https://api.openai.com/v1"
OLLAMA_ADDRESS = "http://127.0.0.1:11434"
OLLAMA_PORT = 11434


def server_address(text: str, *, setting: str) -> str:
    """`text` as the URL of a server, without a slash at its end.

    Raises `ConfigError` that names `setting` unless it is `http://HOST...` or `https://HOST...` and holds no user
    name, password or query: keys come from the environment.
    """
    text = text.strip()
    if not text.lower().startswith(("http://", "https://")):
        raise ConfigError(f"{setting} is {text!r}; an address begins with http:// or https://, e.g. http://{text}")
    url = _split(text, setting)
    if not url.hostname:
        raise ConfigError(f"{setting} is {text!r}, which names no host; write e.g. http://127.0.0.1:8000/v1")
    if url.username is not None or url.query or url.fragment:
        raise ConfigError(
            f"{setting} holds a user name, password, query or fragment; put the key into OPENAI_API_KEY or "
            "OLLAMA_API_KEY instead"
        )
    return f"{url.scheme}://{url.netloc}{url.path}".rstrip("/")


def openai_address(model: str, address: str | None) -> str:
    """The address given, else OPENAI_BASE_URL, else OpenAI's own. Raises `ConfigError` for one without http(s)://."""
    if address:
        return server_address(address, setting="the address of the openai task model")
    check_no_address("openai", model)
    from_environment = os.environ.get("OPENAI_BASE_URL")
    return server_address(from_environment, setting="OPENAI_BASE_URL") if from_environment else OPENAI_ADDRESS


def ollama_address(model: str, address: str | None) -> str:
    """The address given, else OLLAMA_HOST, else the default one."""
    if address:
        return ollama_url(address, setting="the address of the ollama task model")
    check_no_address("ollama", model)
    return ollama_url(os.environ.get("OLLAMA_HOST") or OLLAMA_ADDRESS)


def check_no_address(backend: str, model: str) -> None:
    """Raise `ConfigError` if a model's name ends in `@` and what may be meant as an address, without its scheme."""
    name, at, address = model.rpartition("@")
    if at and name:
        raise ConfigError(
            f"task model {backend}:{model}: is {address!r} an address? One begins with http:// or https://, e.g. "
            f"{backend}:{name}@http://{address}. Where it is part of the model's name, add the server's address: "
            f"{backend}:{model}@https://HOST/v1"
        )


def ollama_url(text: str, *, setting: str = "OLLAMA_HOST") -> str:
    """A URL for what OLLAMA_HOST may be: `HOST`, `:PORT`, `HOST:PORT/PATH`, `[IPV6]`, URLs, as the official clients.

    Without a scheme the port is 11434, with one that of the scheme. An address that only a server can listen on, such
    as 0.0.0.0, is called on this machine.
    """
    text = text.strip().strip("'\"").strip()
    scheme, _, rest = text.rpartition("://")
    port = {"http": 80, "https": 443}.get(scheme.lower(), OLLAMA_PORT)
    if scheme.lower() not in ("", "http", "https"):
        raise ConfigError(f"{setting} is {text!r}; its scheme is http or https")
    if rest.count(":") > 1 and not rest.startswith("["):  # a bare IPv6 address
        host, slash, path = rest.partition("/")
        rest = f"[{host}]{slash}{path}"
    url = _split(f"{scheme or 'http'}://{rest}", setting)
    if url.username is not None:
        raise ConfigError(f"{setting} holds a user name or password; put the key into OLLAMA_API_KEY instead")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(url.hostname or "", url.hostname or "127.0.0.1")
    host = f"[{host}]" if ":" in host else host
    path = url.path.strip("/")
    return f"{url.scheme.lower()}://{host}:{url.port or port}" + (f"/{path}" if path else "")


def is_here(address: str) -> bool:
    """Whether a server is on this machine."""
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(address: str) -> bool:
    """Whether a server is on this machine or, by its name or number, in a network of one's own."""
    host = (urlsplit(address).hostname or "").lower()
    if is_here(address) or ("." not in host.strip(".") and ":" not in host):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host.endswith((".local", ".lan", ".internal", ".home", ".home.arpa"))


def way_to(address: str) -> str:
    """Where data for `address` go, in words: the host, and the proxy on the way."""
    here = " (a server on this machine)" if is_here(address) else ""
    near = " (a server in your network)" if not here and is_private(address) else ""
    proxy = proxy_for(address)
    through = f", through the proxy {urlsplit(proxy).hostname}" if proxy else ""
    return f"{address}{here or near}{through}"


def client_options(address: str) -> dict[str, Any]:
    """Options of an httpx client for `address`: the proxy and the certificates that the environment names.

    Raises `ConfigError` or `MissingDependencyError` that names the variable where they cannot be used.
    """
    proxy = proxy_for(address)
    secure = address.startswith("https:") or (proxy or "").startswith("https:")
    cafile, capath = _certificates()
    verify = ssl.create_default_context(cafile=cafile, capath=capath) if secure else False
    return {"proxy": proxy, "verify": verify, "trust_env": False}


def proxy_for(address: str) -> str | None:
    """The proxy between here and `address`; None for none.

    HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are used unless NO_PROXY names the host: by name, with its subdomains, by
    address, by network (`10.0.0.0/8`), with or without a port, or `*`.
    """
    url = urlsplit(address)
    told: Mapping[str, str] = getproxies()  # on Windows and macOS also the system's settings
    kind = url.scheme if told.get(url.scheme) else "all"
    proxy = told.get(kind, "").strip()
    if not proxy or any(_names(entry, url) for entry in told.get("no", "").replace(",", " ").split()):
        return None
    variable = next((name for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY") if os.environ.get(name)), "the proxy")
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = proxy.split("://")[0].lower()
    instead = f"unset it, or add {url.hostname} to NO_PROXY to go without"
    if scheme not in ("http", "https", "socks5", "socks5h"):
        raise ConfigError(f"{variable} is {proxy!r}; a proxy is http, https, socks5 or socks5h; {instead}")
    if scheme.startswith("socks5") and importlib.util.find_spec("socksio") is None:
        raise MissingDependencyError(
            f"{variable} is a SOCKS proxy, which needs `pip install 'httpx[socks]'`; {instead}"
        )
    if not _split(proxy, variable).hostname:
        raise ConfigError(f"{variable} is {proxy!r}, which names no host; {instead}")
    return proxy


def _names(entry: str, url: SplitResult) -> bool:
    """Whether an entry of NO_PROXY names the host of `url`."""
    host, entry = (url.hostname or "").lower(), entry.lower().rpartition("://")[2]
    if entry == "*":
        return True
    try:
        network, address = (
            ipaddress.ip_network(re.sub(r"^\[(.*)\](/\d+)?$", r"\1\2", entry), strict=False),
            ipaddress.ip_address(host),
        )
        return address in network
    except ValueError:
        pass  # the entry or the host is a name
    name, _, port = entry.rpartition(":")
    if port.isdigit() and (name.endswith("]") or ":" not in name):
        given = url.port or {"http": 80, "https": 443}[url.scheme]
        return int(port) == given and _names(name, url)
    entry = entry.removeprefix("*").strip(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _certificates() -> tuple[str | None, str | None]:
    """(file, folder) of the trusted certificates: SSL_CERT_FILE and SSL_CERT_DIR where set, else those of certifi."""
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    for variable, path, there in (
        ("SSL_CERT_FILE", file, file and os.path.isfile(file)),
        ("SSL_CERT_DIR", folder, folder and os.path.isdir(folder)),
    ):
        if path and not there:
            raise ConfigError(f"{variable} is {path!r}, which is not there; correct it or unset it")
    if file:
        try:
            ssl.create_default_context(cafile=file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"SSL_CERT_FILE is {file!r}, which holds no PEM certificates ({error})") from None
    if not file and not folder:
        import certifi

        file = certifi.where()
    return file, folder


def _split(text: str, setting: str) -> SplitResult:
    try:
        if any(map(str.isspace, text)):
            raise ValueError("white space in it")
        url = urlsplit(text)
        if url.port == 0:
            raise ValueError("port 0")
        if ":" in (url.hostname or ""):
            ipaddress.ip_address(str(url.hostname).partition("%")[0])
    except ValueError as error:
        raise ConfigError(f"{setting} is {text!r}, which is no address ({error})") from None
    return url
