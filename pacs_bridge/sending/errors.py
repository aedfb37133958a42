"""What can go wrong on the wire while objects are sent. `send_files` turns each into Transient."""

from dataclasses import dataclass

from pacs_bridge.errors import BridgeError


@dataclass(eq=False)
class BrokenOff(BridgeError):
    """The peer ended the association or the connection before it answered."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class TooSlow(BridgeError):
    """A time limit passed."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class Unreadable(BridgeError):
    """A file that cannot be read, or ends before its end; where part of it was sent, the association cannot go on."""

    reason: str

    def __str__(self) -> str:
        return f"a file cannot be read: {self.reason}"
