"""What can go wrong at the edges: between a peer's bytes and the archive, and between the archive and a peer."""

from dataclasses import dataclass


class BridgeError(Exception):
    """Base of everything this package raises on purpose; its text names no patient."""


@dataclass(eq=False)
class CannotUnderstand(BridgeError):
    """Bytes that are no data set we may keep under a name; a C-STORE of them ends with 0xC000."""

    reason: str

    def __str__(self) -> str:
        return f"the data set cannot be understood: {self.reason}; send it again, or look at the sender"


@dataclass(eq=False)
class BrokenProtocol(BridgeError):
    """Bytes on an association that DICOM's rules do not allow there; the association is aborted."""

    reason: str

    def __str__(self) -> str:
        return f"the peer does not keep to DICOM's upper layer protocol: {self.reason}"


@dataclass(eq=False)
class StorageFull(BridgeError):
    """The disk takes no more; a C-STORE ends with 0xA700, and the sender tries again later."""

    free_bytes: int

    def __str__(self) -> str:
        left = "nothing" if not self.free_bytes else f"{self.free_bytes // 2**20} MiB"
        return f"the archive's disk is full ({left} above the free space it must keep): free some, or add a disk"


@dataclass(eq=False)
class UnknownStudy(BridgeError):
    """A study key or Study Instance UID the index does not hold."""

    study: str

    def __str__(self) -> str:
        return f"the archive holds no study {self.study}: `ctriage status` lists those it holds"


@dataclass(eq=False)
class UnknownConflict(BridgeError):
    """No open conflict has this number."""

    conflict_id: int

    def __str__(self) -> str:
        return f"no open conflict has the number {self.conflict_id}: `ctriage status` lists the open ones"


@dataclass(eq=False)
class AlreadyServing(BridgeError):
    """Another service works on the same state_dir; two would do everything twice."""

    state_dir: str

    def __str__(self) -> str:
        return f"another ctriage serves from {self.state_dir}: stop it, or set state_dir to another folder"


@dataclass(eq=False)
class CannotTranscode(BridgeError):
    """An object that cannot be written in another transfer syntax without loss: who takes only that cannot get it."""

    reason: str

    def __str__(self) -> str:
        return f"it cannot be written in a transfer syntax that the peer takes: {self.reason}"
