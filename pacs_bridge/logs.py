"""How are events told to people and machines: lines on standard error, without anything that names a patient.

Set up once per process by whoever owns the process (the command line, a worker's start), never at import.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

Form = Literal["json", "console"]
Event = MutableMapping[str, Any]

WITHHELD = "(withheld)"
_IDENTIFYING = frozenset(
    {
        "patient_id",
        "patient_name",
        "patient_birth_date",
        "accession_number",
        "study_instance_uid",
        "series_instance_uid",
        "sop_instance_uid",
        "frame_of_reference_uid",
    }
)
# A UID: five parts or more, or three or four with one longer than an address or a version has. Not the standard's own
# root: its UIDs name classes and syntaxes, not people. Scanners name files "CT.<UID>.dcm", sentences end after one.
_UID = re.compile(
    r"(?<!\d)(?<!\d\.)(?!1\.2\.840\.10008\.)"
    r"(?:2\.25\.\d+|[0-2](?:\.\d+){4,}|[0-2](?:\.\d+){1,2}\.\d{4,}(?:\.\d+)*)(?!\d)"
)


def configure(*, form: Form | None = None, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's events, warnings too, to ``stream`` (standard error), one line each.

    ``form`` None: for people on a terminal, JSON lines otherwise.
    """
    stream = stream or sys.stderr
    chosen = form or ("console" if stream.isatty() else "json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_last(chosen, stream)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)  # pydicom's warnings quote values
    logging.getLogger("pynetdicom").setLevel(logging.ERROR)  # its lower levels print data sets
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def without_identifiers(_logger: object, _method: str, event: Event) -> Event:
    """Withhold values under identifying keys, and UIDs wherever they stand; a study is its ``study_key`` here."""
    for key, value in event.items():
        if key in _IDENTIFYING:
            event[key] = WITHHELD
        elif not key.startswith("_"):
            event[key] = _scrubbed(value)
    return event


def without_uids(text: str) -> str:
    """Withhold the UIDs in a text; addresses, versions and the standard's own UIDs stay readable."""
    return _UID.sub(WITHHELD, text)


def _scrubbed(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_uids(value if isinstance(value, str) else str(value))


def _shared() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _last(form: Form, stream: TextIO) -> list[structlog.typing.Processor]:
    """Scrub after the traceback has become text: exceptions name UIDs too."""
    rest: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, without_identifiers]
    if form == "json":
        return [*rest, structlog.processors.JSONRenderer(ensure_ascii=False)]
    plain = structlog.dev.plain_traceback  # rich's would print local variables, and those hold headers
    return [*rest, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
