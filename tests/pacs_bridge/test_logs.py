"""Logs: one line an event, and nothing that names a patient."""

import io
import json
import logging
import warnings
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
    logging.captureWarnings(capture=False)  # where another test left it on
    logs.configure(form="json", stream=text)
    yield text
    logging.captureWarnings(capture=False)
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


@pytest.mark.parametrize(
    "uid", ["1.2.840.113619.2", "1.3.12.2.1107", "2.16.840.1.5", "1.2.84011", "1.2.392.200036", "1.2.84011.7", "2.25.7"]
)
@pytest.mark.parametrize("around", ["{}", "CT.{}.dcm", "value for VR UI: '{}'.", "it is {}. Then", "/x/{}/v1"])
def test_short_uids_are_withheld_wherever_they_stand(uid: str, around: str) -> None:
    assert around.format("(withheld)") == logs.without_uids(around.format(uid))


@pytest.mark.parametrize(
    "text", ["1.2.840.10008.5.1.4.1.1.2", "1.2.3.4:11112", "192.168.1.20", "numpy 1.26.4", "took 1.23456 s", "0.5.1"]
)
def test_what_is_no_ones_uid_stays_readable(text: str) -> None:
    assert text == logs.without_uids(text)


# pytest turns warnings into errors, which would keep them from the log.
@pytest.mark.filterwarnings("always:Invalid value")
def test_warnings_go_the_same_way_without_their_uids(stream: io.StringIO) -> None:
    warnings.warn_explicit(f"Invalid value for VR UI: '{UID}'", UserWarning, "valuerep.py", 1)
    (event,) = lines(stream)
    assert ("warning", True) == (event["level"], "for VR UI: '(withheld)'" in event["event"])


def test_tracebacks_and_the_standard_library_are_scrubbed_too(stream: io.StringIO) -> None:
    broken = ValueError(f"broken instance {UID}")
    logging.getLogger("elsewhere").error("failed for %s", UID, exc_info=broken)
    assert UID not in stream.getvalue()
    assert "broken instance (withheld)" in lines(stream)[0]["exception"]
