"""What may be set? One frozen value, read once (``settings_file.py``) and passed on."""

import hashlib
import json
import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pacs_bridge.errors import BridgeError
from pipeline.model import ObjectKind, Priority, SurfaceTissue, TurnPreset

FLAGS_FIRST: tuple[ObjectKind, ...] = ("sr", "seg", "key_objects")


@dataclass(eq=False)
class SettingsError(BridgeError):
    """Settings that cannot be used; each problem says where, which key, what is wrong and the remedy."""

    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.problems)


# ---- kinds of values ------------------------------------------------------------------------------------------------


def _ae_title(text: str) -> str:
    """PS3.5 6.2: at most 16 characters, no backslash or control character, not only spaces."""
    title = text.strip(" ")
    if not 1 <= len(title) <= 16 or re.search(r"[^\x20-\x7e]|\\", title):
        raise ValueError(f"{text!r} is no AE title")
    return title


def _address(text: str) -> str:
    """Take one address, or a network such as 10.1.2.0/24."""
    try:
        network = ip_network(text)
    except ValueError as not_an_address:
        raise ValueError(f"{text!r} is no IP address or network") from not_an_address
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _destination_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", text):
        raise ValueError(f"{text!r} is no destination name")
    if text.casefold() == "results":
        raise ValueError("results is the folder in state_dir that always gets everything; choose another name")
    return text


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(values) != len(set(values)):
        raise ValueError("one thing is named twice; name each once")
    return values


def _voxel_mm(size_mm: float) -> float:
    if size_mm != 0 and not 0.2 <= size_mm <= 10:
        raise ValueError("voxels of this size are of no use")
    return size_mm


def _quoted(choice: Any) -> str:
    return ", ".join(f'"{each}"' for each in get_args(choice))


_AeTitle = Annotated[str, AfterValidator(_ae_title)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_PortOrNone = Annotated[int, Field(ge=0, le=65535)]
Commitment = Literal["off", "relay", "own"]
_AE_TITLE = "1 to 16 plain ASCII characters, no backslash"
_PORT = "a number from 1 to 65535"
_PORT_OR_NONE = "a number from 1 to 65535, 0: none"
_KINDS = f"a list of {_quoted(ObjectKind)}"


class _Table(BaseModel):
    """A table of the settings: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- the tables; each description says what is allowed and becomes the remedy in messages and the text of the docs ---


class Listener(_Table):
    """Where scanners and the PACS send to."""

    ae_title: _AeTitle = Field(default="CTRIAGE", description=_AE_TITLE)
    host: str = Field(
        default="127.0.0.1", min_length=1, description='an address of this machine, "0.0.0.0" for all of them'
    )
    port: _PortOrNone = Field(default=11112, description=_PORT_OR_NONE)
    tls_port: _PortOrNone = Field(default=0, description=_PORT_OR_NONE)
    processes: int = Field(default=2, ge=1, le=16, description="receiver processes on the port, 1 to 16")
    maximum_associations: int = Field(default=64, ge=1, le=1000, description="open at once, 1 to 1000")
    maximum_pdu_kb: int = Field(default=256, ge=16, le=8192, description="kilobytes of one message part, 16 to 8192")
    maximum_instance_mb: int = Field(default=4096, ge=1, le=65536, description="megabytes of one object, 1 to 65536")
    idle_s: float = Field(
        default=120.0,
        ge=1,
        le=86400,
        description="seconds without a word from a sender, 1 to 86400; then it is cut off",
    )
    slowest_kb_per_s: float = Field(
        default=4.0, ge=0, le=100000, description="kilobytes a second; who sends an object slower is cut off, 0: nobody"
    )


class Arrival(_Table):
    """When a series counts as complete."""

    quiet_s: float = Field(
        default=60.0, gt=0, le=86400, description="seconds without a new image, more than 0 and up to 86400"
    )
    settle_s: float = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="seconds after the last release where a series came over several associations, up to 3600",
    )
    declared_s: float = Field(
        default=600.0,
        gt=0,
        le=86400,
        description="seconds to wait for images that the scanner has announced, more than 0 and up to 86400",
    )


class Tls(_Table):
    """Certificates for associations that nobody else may read: for `listener.tls_port` and destinations with tls."""

    certificate: Path | None = Field(default=None, description="a PEM file: our certificate, with its chain")
    private_key: Path | None = Field(default=None, description="a PEM file: the key of our certificate, not encrypted")
    authorities: Path | None = Field(default=None, description="a PEM file: who vouches for the peers' certificates")
    mutual: bool = Field(
        default=True, description="true or false: callers must show a certificate of these authorities"
    )


class Disk(_Table):
    """How much of the disk is left free."""

    free_mb: int = Field(
        default=512, ge=16, description="megabytes, 16 or more; images that would leave less free are refused (0xA700)"
    )


class Retention(_Table):
    """When images are removed: never what is not delivered yet, what was committed to a sender, or what is in doubt."""

    days: float = Field(default=0.0, ge=0, description="days after the last image of a delivered study, 0: never")
    below_free_mb: int = Field(
        default=0, ge=0, description="megabytes: with less free, the oldest delivered studies go, 0: never"
    )


class Audit(_Table):
    """The trail of who sent, who received and who was refused, in state_dir/audit."""

    days: float = Field(default=0.0, ge=0, description="days to keep it, 0: for ever")


class Workers(_Table):
    """How much of the machine is used."""

    processes: int = Field(default=2, ge=1, le=256, description="worker processes, 1 to 256")
    memory_mb: int = Field(default=0, ge=0, description="megabytes all jobs together may use, 0: from the machine")


class Outputs(_Table):
    """Which pictures are made beside the flags."""

    mpr: bool = Field(default=True, description="true or false: coronal and sagittal series")
    mpr_thickness_mm: float = Field(default=3.0, gt=0, le=100, description="millimetres, more than 0 and up to 100")
    mpr_step_mm: float = Field(default=3.0, gt=0, le=100, description="millimetres, more than 0 and up to 100")
    mip: bool = Field(default=True, description="true or false: maximum intensity projections")
    render: bool = Field(default=True, description="true or false: 3D renderings of the bone")
    isotropic: bool = Field(default=False, description="true or false: an axial series of cubic voxels")
    isotropic_mm: Annotated[float, AfterValidator(_voxel_mm)] = Field(
        default=1.0, description="millimetres from 0.2 to 10, 0: as fine as the series allows"
    )
    surfaces: Annotated[tuple[SurfaceTissue, ...], AfterValidator(_each_once)] = Field(
        default=(),
        description=f"a list of {_quoted(SurfaceTissue)}: models for 3D printing (STL inside a DICOM object)",
    )
    turn: Annotated[tuple[TurnPreset, ...], AfterValidator(_each_once)] = Field(
        default=(), description=f"a list of {_quoted(TurnPreset)}: renderings that turn round the patient"
    )
    turn_frames: int = Field(default=36, ge=4, le=360, description="4 to 360: frames of a whole turn")


class Detectors(_Table):
    """Which detectors look; nothing is switched on by being installed."""

    enabled: tuple[str, ...] = Field(
        default=("hemorrhage", "skull_fracture"), description="a list of names of installed detectors"
    )


class Caller(_Table):
    """A sender that is let in. With none named, only senders on this machine are."""

    ae_title: _AeTitle = Field(description=_AE_TITLE)
    address: Annotated[str, AfterValidator(_address)] = Field(
        description="the sender's IP address, or a network such as 10.1.2.0/24"
    )
    port: _PortOrNone = Field(default=0, description="where the sender listens itself, 0: it does not")
    tls: bool = Field(default=False, description="true or false: let it in over TLS only")
    commitment: Commitment | None = Field(
        default=None,
        description='"off", "relay" (what all that are to keep it have committed to) or "own" (kept here for good); '
        "not set: relay where a destination offers it, else off",
    )


class Destination(_Table):
    """A peer that results are sent to. With none named they stay in state_dir/results."""

    name: Annotated[str, AfterValidator(_destination_name)] = Field(
        description="a name of up to 32 letters, digits, dots, dashes or underscores"
    )
    ae_title: _AeTitle = Field(description=_AE_TITLE)
    host: str = Field(min_length=1, description="a host name or IP address")
    port: _Port = Field(description=_PORT)
    tls: bool = Field(default=False, description="true or false: speak TLS to it")
    send: tuple[ObjectKind, ...] = Field(default=FLAGS_FIRST, description=_KINDS)
    iocm: bool = Field(default=False, description="true or false: send rejection notes for results that are superseded")
    commitment: bool = Field(
        default=False, description="true or false: what it was sent counts as delivered when it has committed to it"
    )
    associations: int = Field(default=2, ge=1, le=16, description="associations to it at once, 1 to 16")
    throttle_mb_per_s: float = Field(default=0.0, ge=0, description="megabytes a second at most, 0: no limit")


class Forward(_Table):
    """Images that are passed on as they came. Every condition that is given must hold; without any, all are."""

    to: str = Field(min_length=1, description="the name of a destination")
    caller: _AeTitle | None = Field(default=None, description="the sender's AE title")
    modality: str | None = Field(default=None, min_length=1, description="Modality, such as CT")
    description: str | None = Field(
        default=None, min_length=1, description="a part of the study's or series' description, in any case"
    )
    finding: str | None = Field(default=None, min_length=1, description='a kind of finding, or "any"')
    priority: Priority | None = Field(default=None, description='"stat", "urgent" or "routine", as analysed')


class PriorityRule(_Table):
    """How soon a study is processed, before anything is known about it; the first rule that matches decides."""

    priority: Priority = Field(description='"stat", "urgent" or "routine"')
    caller: _AeTitle | None = Field(default=None, description="the sender's AE title")
    body_part: str | None = Field(default=None, min_length=1, description="Body Part Examined, in any case")
    description: str | None = Field(
        default=None, min_length=1, description="a part of the study's or series' description, in any case"
    )

    @model_validator(mode="after")
    def _has_a_condition(self) -> "PriorityRule":
        if self.caller is None and self.body_part is None and self.description is None:
            raise ValueError("a rule without caller, body_part or description would match every study; give one")
        return self

    def matches(self, *, caller: str, body_part: str, description: str) -> bool:
        """Say whether every condition of this rule holds."""
        return (
            (self.caller is None or self.caller == caller.strip())
            and (self.body_part is None or self.body_part.casefold() == body_part.strip().casefold())
            and (self.description is None or self.description.casefold() in description.casefold())
        )


class Settings(_Table):
    """Everything that may be set. Built without arguments it holds the defaults, which run as they are."""

    state_dir: Path = Field(
        default=Path("ctriage-state"), description="a folder for the archive, index, queue and results"
    )
    language: Literal["en", "es"] = Field(default="en", description='"en" or "es"')
    listener: Listener = Field(default=Listener(), description="a table")
    arrival: Arrival = Field(default=Arrival(), description="a table")
    tls: Tls = Field(default=Tls(), description="a table")
    disk: Disk = Field(default=Disk(), description="a table")
    retention: Retention = Field(default=Retention(), description="a table")
    audit: Audit = Field(default=Audit(), description="a table")
    workers: Workers = Field(default=Workers(), description="a table")
    outputs: Outputs = Field(default=Outputs(), description="a table")
    detectors: Detectors = Field(default=Detectors(), description="a table")
    caller: tuple[Caller, ...] = Field(default=(), description="any number of [[caller]] tables")
    destination: tuple[Destination, ...] = Field(default=(), description="any number of [[destination]] tables")
    forward: tuple[Forward, ...] = Field(default=(), description="any number of [[forward]] tables")
    priority_rule: tuple[PriorityRule, ...] = Field(default=(), description="any number of [[priority_rule]] tables")

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Settings":
        names = [destination.name.casefold() for destination in self.destination]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two [[destination]] tables are named {', '.join(twice)}; give each its own name")
        return self

    @model_validator(mode="after")
    def _forwards_have_a_destination(self) -> "Settings":
        named = {destination.name for destination in self.destination}
        unknown = sorted({forward.to for forward in self.forward} - named)
        if unknown:
            raise ValueError(f"[[forward]] goes to {', '.join(unknown)}; add a [[destination]] of that name")
        return self

    @model_validator(mode="after")
    def _commitment_has_a_keeper(self) -> "Settings":
        relayed = [caller.ae_title for caller in self.caller if caller.commitment == "relay"]
        if relayed and not any(destination.commitment for destination in self.destination):
            raise ValueError(f"commitment of {', '.join(relayed)} is to be relayed; give a [[destination]] commitment")
        return self

    @model_validator(mode="after")
    def _listens_somewhere(self) -> "Settings":
        if self.listener.port == self.listener.tls_port:
            raise ValueError("listener.port and listener.tls_port are the same; give one of them another number")
        return self

    @model_validator(mode="after")
    def _tls_has_what_it_needs(self) -> "Settings":
        ours = self.tls.certificate and self.tls.private_key
        if self.listener.tls_port and not (ours and (self.tls.authorities or not self.tls.mutual)):
            raise ValueError("listener.tls_port needs tls.certificate, tls.private_key and tls.authorities; give them")
        if any(destination.tls for destination in self.destination) and not self.tls.authorities:
            raise ValueError("a destination with tls needs tls.authorities; give it")
        return self

    def commitment_of(self, caller: Caller) -> Commitment:
        """Return what a caller's storage commitment requests get: relayed where a destination offers it, else off."""
        offered = any(destination.commitment for destination in self.destination)
        return caller.commitment or ("relay" if offered else "off")

    @property
    def database(self) -> Path:
        """Where the index, the queue and the reports lie: one SQLite file."""
        return self.state_dir / "ctriage.sqlite"

    def content_hash(self) -> str:
        """Hash the settings that change what results contain, and only those: pictures, detectors, language."""
        content = self.model_dump(mode="json", include={"outputs", "detectors", "language"})
        content["detectors"]["enabled"] = sorted(content["detectors"]["enabled"])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def first_priority(self, *, caller: str, body_part: str, description: str) -> Priority:
        """Return the priority of the first rule that matches, ROUTINE when none does."""
        for rule in self.priority_rule:
            if rule.matches(caller=caller, body_part=body_part, description=description):
                return rule.priority
        return Priority.ROUTINE
