"""Who is sent to, and how long is waited for whom?"""

import ssl
from dataclasses import dataclass, field
from typing import Final

CONNECTION_TIMEOUT_S: Final = 10.0
ACSE_TIMEOUT_S: Final = 30.0
RESPONSE_TIMEOUT_S: Final = 120.0
SLOWEST_BYTES_PER_S: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to send to; with ``tls`` over TLS, where its certificate must name ``tls_name`` (None: the host)."""

    ae_title: str
    host: str
    port: int
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)
    tls_name: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Write it as people do."""
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """How long to wait: for a connection, for negotiation and release, and for a peer that says or takes nothing.

    An object besides has to pass at ``slowest_bytes_per_s`` or faster, so that nobody holds a lane by a byte a minute.
    """

    connection_s: float = CONNECTION_TIMEOUT_S
    acse_s: float = ACSE_TIMEOUT_S
    response_s: float = RESPONSE_TIMEOUT_S
    slowest_bytes_per_s: float = SLOWEST_BYTES_PER_S

    def for_object(self, size_bytes: int) -> float:
        """Return how many seconds an object may take on the wire."""
        return self.response_s + size_bytes / self.slowest_bytes_per_s
