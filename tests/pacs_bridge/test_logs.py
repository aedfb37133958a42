"""Logs: one line an event, and nothing that names a patient."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from pacs_bridge import logs

UID = "1.2.826.0.1.3680043.8.498.5501"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Log into a text, and put logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    text = io.StringIO()
    logs.configure(form="json", stream=text)
    yield text
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_event_is_one_json_line_with_level_and_aware_time(stream: io.StringIO) -> None:
    structlog.get_logger().info("instance_stored", study_key="0123456789ab", images=3)
    (event,) = lines(stream)
    assert ("instance_stored", "info", 3) == (event["event"], event["level"], event["images"])
    assert event["timestamp"].endswith("Z")


def test_uids_and_identifying_keys_are_withheld(stream: io.StringIO) -> None:
    structlog.get_logger().warning("odd", patient_id="PID7", accession_number="A1", note=f"series {UID} and 2.25.123")
    assert not any(secret in stream.getvalue() for secret in ("PID7", "A1", UID, "2.25.123"))


def test_transfer_syntaxes_and_addresses_stay_readable(stream: io.StringIO) -> None:
    structlog.get_logger().info("refused", syntax="1.2.840.10008.1.2.4.50", address="10.1.2.3")
    assert ("1.2.840.10008.1.2.4.50", "10.1.2.3") == (lines(stream)[0]["syntax"], lines(stream)[0]["address"])


def test_tracebacks_and_the_standard_library_are_scrubbed_too(stream: io.StringIO) -> None:
    broken = ValueError(f"broken instance {UID}")
    logging.getLogger("elsewhere").error("failed for %s", UID, exc_info=broken)
    assert UID not in stream.getvalue()
    assert "broken instance (withheld)" in lines(stream)[0]["exception"]
