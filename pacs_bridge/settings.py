"""What may be set, where it is read from, and how a mistake is explained: one frozen value, read once, passed on."""

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from pacs_bridge.errors import BridgeError
from pipeline.model import ObjectKind, Priority, SurfaceTissue, TurnPreset

SETTINGS_FILE = Path("ctriage.toml")
ENVIRONMENT_PREFIX = "CTRIAGE_"
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
    try:
        return str(ip_address(text))
    except ValueError as not_an_address:
        raise ValueError(f"{text!r} is no IP address") from not_an_address


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


def _not_built(what: str, keep: object) -> AfterValidator:
    """Refuse every value but ``keep``: accepting what is not carried out would be a silent lie."""

    def check(value: object) -> object:
        if value != keep:
            shown = str(keep).lower() if isinstance(keep, bool) else json.dumps(keep)
            raise ValueError(f"{what}, so this version refuses to start with it; set it to {shown} or leave it out")
        return value

    return AfterValidator(check)


_AeTitle = Annotated[str, AfterValidator(_ae_title)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_AE_TITLE = "1 to 16 plain ASCII characters, no backslash"
_PORT = "a number from 1 to 65535"
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
    port: _Port = Field(default=11112, description=_PORT)


class Arrival(_Table):
    """When a series counts as complete."""

    quiet_s: float = Field(
        default=60.0, gt=0, le=86400, description="seconds without a new image, more than 0 and up to 86400"
    )


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
    address: Annotated[str, AfterValidator(_address)] = Field(description="the sender's IP address")
    port: int = Field(default=0, ge=0, le=65535, description="where the sender listens itself, 0: it does not")
    commitment: Annotated[str, _not_built("storage commitment is not built yet", "off")] = Field(
        default="off", description='"off"'
    )


class Destination(_Table):
    """A peer that results are sent to. With none named they stay in state_dir/results."""

    name: Annotated[str, AfterValidator(_destination_name)] = Field(
        description="a name of up to 32 letters, digits, dots, dashes or underscores"
    )
    ae_title: _AeTitle = Field(description=_AE_TITLE)
    host: str = Field(min_length=1, description="a host name or IP address")
    port: _Port = Field(description=_PORT)
    tls: Annotated[bool, _not_built("TLS to destinations is not built yet", keep=False)] = Field(
        default=False, description="false"
    )
    send: tuple[ObjectKind, ...] = Field(default=FLAGS_FIRST, description=_KINDS)
    iocm: Annotated[bool, _not_built("rejection notes (IOCM) are not built yet", keep=False)] = Field(
        default=False, description="false"
    )


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
    workers: Workers = Field(default=Workers(), description="a table")
    outputs: Outputs = Field(default=Outputs(), description="a table")
    detectors: Detectors = Field(default=Detectors(), description="a table")
    caller: tuple[Caller, ...] = Field(default=(), description="any number of [[caller]] tables")
    destination: tuple[Destination, ...] = Field(default=(), description="any number of [[destination]] tables")
    priority_rule: tuple[PriorityRule, ...] = Field(default=(), description="any number of [[priority_rule]] tables")

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Settings":
        names = [destination.name.casefold() for destination in self.destination]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two [[destination]] tables are named {', '.join(twice)}; give each its own name")
        return self

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


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """What one place says, and how that place is called in messages."""

    name: str
    content: Mapping[str, Any]


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings: ``overrides`` (the command line), the environment, ``config`` or ./ctriage.toml, defaults.

    A relative ``state_dir`` lies in the settings file's folder when it stands there or is the default, in the current
    folder when it comes from the command line or the environment. Raises SettingsError with every problem found.
    """
    file = _settings_file(config)
    in_file = _from_file(file) if file else {}
    layers = [
        _Layer(name="command line", content=overrides or {}),
        _Layer(name="environment", content=_from_environment()),
        _Layer(name=str(file or "defaults"), content=in_file),
    ]
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(merged, layer.content)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as refused:
        raise SettingsError(tuple(_explain(error, layers) for error in refused.errors())) from refused
    above_file = any("state_dir" in layer.content for layer in layers[:2])
    folder = file.absolute().parent if file and not above_file else Path.cwd()
    return settings.model_copy(update={"state_dir": folder / settings.state_dir.expanduser()})


def _settings_file(config: Path | None) -> Path | None:
    if config is None:
        return SETTINGS_FILE if SETTINGS_FILE.is_file() else None
    if not config.is_file():
        raise SettingsError((f"{config}: there is no such settings file; give --config the path of an existing one",))
    return config


def _from_file(file: Path) -> dict[str, Any]:
    """Parse TOML; a byte order mark, as Windows editors write it, is passed over."""
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as unreadable:
        raise SettingsError((f"{file}: cannot be read: {unreadable.strerror}; check its permissions",)) from unreadable
    except UnicodeDecodeError as not_text:
        raise SettingsError((f"{file}: is not UTF-8 text; save it as UTF-8",)) from not_text
    except tomllib.TOMLDecodeError as not_toml:
        raise SettingsError((f"{file}: is not valid TOML: {not_toml}; correct that line",)) from not_toml


class _Environment(BaseSettings, Settings):
    """The same keys, told to pydantic-settings; never built, only asked for its variables."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="forbid"
    )


def _from_environment() -> Mapping[str, Any]:
    mistyped = [name for name in os.environ if _is_mistyped(name.upper())]
    if mistyped:
        known = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields]
        raise SettingsError(tuple(f"environment: {name}: {_nearest(name.upper(), known)}" for name in mistyped))
    try:
        return EnvSettingsSource(_Environment)()
    except UnreadableVariable as unreadable:
        raise SettingsError(
            (f'environment: {unreadable}; lists and tables are written as JSON, such as \'[{{"name": "pacs"}}]\'',)
        ) from unreadable


def _is_mistyped(name: str) -> bool:
    """Say whether a variable means a setting and misses it; others share the prefix: Kubernetes sets CTRIAGE_PORT."""
    top, nested, _ = name.removeprefix(ENVIRONMENT_PREFIX).partition("__")
    known = [field.upper() for field in Settings.model_fields]
    if not name.startswith(ENVIRONMENT_PREFIX) or top in known:
        return False
    return bool(nested or difflib.get_close_matches(top, known, n=1, cutoff=0.75))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


# ---- explaining -----------------------------------------------------------------------------------------------------

_Place = Sequence[int | str]


def _explain(error: ErrorDetails, layers: Sequence[_Layer]) -> str:
    """Tell one mistake: where it stands, which key, what is wrong, what to do."""
    place = error["loc"]
    where = f"{_origin(place, layers)}: {_written(place)}" if place else _origin(("destination",), layers)
    if error["type"] == "extra_forbidden":
        return f"{where}: {_nearest(_written(place), (*Settings.model_fields, *setting_keys()))}"
    problem = error["msg"].removeprefix("Value error, ")
    field = _field_at(place)
    remedy = f"; allowed: {field.description}" if field and field.description and "; " not in problem else ""
    shown = f" = {error['input']!r}" if isinstance(error["input"], str | int | float) else ""
    return f"{where}{shown}: {problem}{remedy}"


def _origin(place: _Place, layers: Sequence[_Layer]) -> str:
    """Name the uppermost layer that reaches deepest to ``place`` (a missing key is its table's problem)."""
    return max(layers, key=lambda layer: _depth(place, layer.content)).name


def _depth(place: _Place, content: Any) -> int:
    for depth, part in enumerate(place):
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return depth
    return len(place)


def _written(place: _Place) -> str:
    """Write a place as people do: ``listener.port``, ``destination 2: port``."""
    text = ""
    for part in place:
        text += f" {part + 1}:" if isinstance(part, int) else (f" {part}" if text.endswith(":") else f".{part}")
    return text.lstrip(".").removesuffix(":")


def _nearest(written: str, known: Sequence[str]) -> str:
    plain = re.sub(r" \d+: ", ".", written)
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
    same_end = [key for key in known if key.rsplit(".")[-1] == plain.rsplit(".")[-1]]
    near = close[0] if close else next(iter(same_end), "")
    return f"no such setting; did you mean {near}?" if near else f"no such setting; known are {', '.join(known)}"


def setting_keys() -> tuple[str, ...]:
    """List every key that may be set, with its table: ``listener.port``, ``destination.name``."""
    return tuple(_keys_of(Settings))


def setting_at(key: str) -> FieldInfo:
    """Return what is known of a key such as ``listener.port``. Raises KeyError."""
    field = _field_at(key.split("."))
    if field is None or key not in setting_keys():
        raise KeyError(key)
    return field


def _keys_of(table: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in table.model_fields.items():
        inner = _table_of(field)
        if inner is None:
            yield prefix + name
        else:
            yield from _keys_of(inner, f"{prefix}{name}.")


def _table_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the table that a field is, or is a list of."""
    kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
    tables = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return tables[0] if tables else None


def _field_at(place: _Place) -> FieldInfo | None:
    table: type[BaseModel] | None = Settings
    field = None
    for part in place:
        if isinstance(part, int):
            continue
        if table is None or part not in table.model_fields:
            return field
        field = table.model_fields[part]
        table = _table_of(field)
    return field
