"""Pages for this machine alone: where their servers listen, and which requests they answer."""

from __future__ import annotations

from prewrite.errors import ConfigError

HOST = "127.0.0.1"


def why_refused(host: str, origin: str | None) -> str | None:
    """Why a request is not answered, by its headers `Host` and `Origin`; None for one that may be."""
    name = host.rsplit(":", 1)[0]
    if name not in (HOST, "localhost"):  # a foreign name that resolves to loopback is another site's page
        return f"open http://{HOST}, not {name!r}"
    if origin is not None and origin != f"http://{host}":  # so is what asks from elsewhere
        return f"this page answers only to itself, not to {origin!r}"
    return None


def port_error(port: int, error: Exception) -> ConfigError:
    """What a port that cannot be listened at is reported as."""
    return ConfigError(f"port {port} cannot be used on {HOST} ({error}); choose another, or 0 for a free one")
