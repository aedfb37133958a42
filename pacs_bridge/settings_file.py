"""Where are the settings read from, and how is a mistake in them explained?"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from pacs_bridge.settings import Settings, SettingsError, Tls

SETTINGS_FILE = Path("ctriage.toml")
ENVIRONMENT_PREFIX = "CTRIAGE_"


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
    return settings.model_copy(
        update={"state_dir": folder / settings.state_dir.expanduser(), "tls": _beside(file, settings.tls)}
    )


def _beside(file: Path | None, tls: Tls) -> Tls:
    """Let relative paths of certificates lie beside the settings file."""
    folder = file.absolute().parent if file else Path.cwd()
    named = {name: path for name, path in tls if isinstance(path, Path)}
    return tls.model_copy(update={name: folder / path.expanduser() for name, path in named.items()})


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
