"""Does the conformance statement say what is negotiated and answered?"""

import re
from collections.abc import Iterator
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import AE, build_context
from typer.testing import CliRunner

from pacs_bridge.cli import app
from pacs_bridge.conformance import statement
from pacs_bridge.conformance_page import Drawing, Grid, Section, as_html, as_markdown
from pacs_bridge.negotiation import PROCEDURE_STEP, STORAGE_COMMITMENT, is_storage
from pacs_bridge.settings import Caller, Destination, Forward, Listener, Retention, Settings
from pacs_bridge.store_status import StoreStatus

ON = date(2026, 1, 2)
CALLER = Caller(ae_title="CT01", address="10.1.2.3", commitment="own")
PACS = Destination(name="pacs", ae_title="PACS", host="pacs.hospital", port=4242, iocm=True, commitment=True)
FULL = Settings(
    listener=Listener(ae_title="BRIDGE", host="0.0.0.0", port=104, maximum_associations=17),
    caller=(CALLER,),
    destination=(PACS,),
    forward=(Forward(to="pacs"),),
    retention=Retention(days=90),
)
SOP_CLASSES = tuple(uid for uid, entry in UID_dictionary.items() if entry[1] in ("SOP Class", "Meta SOP Class"))


def text_of(settings: Settings) -> str:
    return as_markdown(statement(settings, version="1.2.3", on=ON))


def grids(section: Section) -> Iterator[Grid]:
    yield from (block for block in section.blocks if isinstance(block, Grid))
    for part in section.parts:
        yield from grids(part)


def accepted_by(settings: Settings) -> dict[str, set[str]]:
    """Return the transfer syntaxes by abstract syntax that the statement says are accepted."""
    told: dict[str, set[str]] = {}
    for grid in grids(statement(settings, version="1", on=ON)):
        if grid.title == "Accepted presentation contexts":
            for _, uid, syntaxes, _, _ in grid.rows:
                told.setdefault(str(uid), set()).update(str(syntaxes).split(", "))
    return told


def test_every_class_the_statement_accepts_is_accepted_by_a_listener(bridge: Any, listen: Any) -> None:
    listener = listen(bridge)
    storage = [uid for uid in accepted_by(Settings()) if re.fullmatch(r"[0-9.]+", uid) and is_storage(uid)]
    taken = set()
    for start in range(0, len(storage), 128):
        contexts = [build_context(uid) for uid in storage[start : start + 128]]
        association = AE(ae_title="CT01").associate("127.0.0.1", listener.port, contexts, ae_title="CTRIAGE")
        taken |= {str(each.abstract_syntax) for each in association.accepted_contexts}
        association.release()
    assert len(storage) > 150
    assert set(storage) == taken


@pytest.mark.parametrize("status", StoreStatus)
def test_every_status_of_a_store_stands_in_the_statement(status: StoreStatus) -> None:
    assert f"| 0x{status.value:04X} |" in text_of(Settings())


def statuses_in(module: str) -> set[str]:
    """Return the four-digit codes to which a module gives names."""
    source = (Path(__file__).parents[2] / "pacs_bridge" / module).read_text()
    return set(re.findall(r"^ *[A-Z_]+(?:: Final)? = (0x[0-9A-F]{4})$", source, re.MULTILINE))


@pytest.mark.parametrize(
    "module", ["store_status.py", "front_desk.py", "procedure_steps.py", "commitment.py", "commitment_service.py"]
)
def test_every_status_that_the_code_names_stands_in_the_statement(module: str) -> None:
    named = statuses_in(module)
    assert named
    assert set() == {code for code in named if f"| {code} |" not in text_of(FULL)}


def test_services_are_told_only_where_they_are_offered() -> None:
    assert {PROCEDURE_STEP} == {PROCEDURE_STEP, STORAGE_COMMITMENT} & set(accepted_by(Settings()))
    assert STORAGE_COMMITMENT in accepted_by(FULL)


def test_what_is_asked_of_peers_is_told_where_the_settings_have_it_asked() -> None:
    query = "| Study Root Query/Retrieve Information Model - FIND | 1.2.840.10008.5.1.4.1.2.2.1 | SCU |"
    assert (True, False) == (query in text_of(FULL), query in text_of(Settings()))
    asking = Settings(destination=(PACS.model_copy(update={"commitment": True}),))
    assert "| Storage Commitment Push Model | 1.2.840.10008.1.20.1 | SCU, SCP |" in text_of(asking)
    assert "| Verification | 1.2.840.10008.1.1 | SCU, SCP |" in text_of(Settings())


def test_the_statement_speaks_of_the_settings_in_force() -> None:
    text = text_of(FULL)
    for told in (
        "BRIDGE",
        "0.0.0.0:104",
        "| as acceptor, in all | 17 |",
        "CT01",
        "10.1.2.3",
        "pacs.hospital",
        "90 days",
    ):
        assert told in text


def test_the_statement_without_callers_says_who_is_let_in() -> None:
    assert "Only senders on this machine are let in" in text_of(Settings())


@pytest.mark.parametrize(
    "heading",
    [
        "1 Conformance Statement Overview",
        "3.1 Implementation Model",
        "3.1.1 Application Data Flow",
        "3.1.2 Functional Definition of AEs",
        "3.1.3 Sequencing of Real-World Activities",
        "3.2 AE Specifications",
        "3.2.1.1 SOP Classes",
        "3.2.1.2 Association Policies",
        "3.2.1.3 Association Initiation Policy",
        "3.2.1.4 Association Acceptance Policy",
        "3.3 Network Interfaces",
        "3.4 Configuration",
        "4 Media Interchange",
        "5 Support of Character Sets",
        "6.1 Security Profiles",
        "7.1 IOD Contents",
        "7.2 Data Dictionary of Private Attributes",
    ],
)
def test_the_structure_is_that_of_the_standard(heading: str) -> None:
    assert re.search(rf"^#+ {re.escape(heading)}$", text_of(FULL), re.MULTILINE)


def test_the_same_settings_give_the_same_statement() -> None:
    assert text_of(FULL) == text_of(FULL)


class Tags(HTMLParser):
    """Notes which elements are left open."""

    VOID: ClassVar = {"meta", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.closed_wrongly: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.closed_wrongly.append(tag)


def test_the_html_is_whole_and_hostile_names_stay_text() -> None:
    hostile = Settings(destination=(PACS.model_copy(update={"host": "<script>alert(1)</script>"}),))
    tags, page = Tags(), as_html(statement(hostile, version="1", on=ON))
    tags.feed(page)
    assert ([], []) == (tags.open, tags.closed_wrongly)
    assert "<script>" not in page


def test_a_page_keeps_bars_in_cells_and_lines_in_drawings() -> None:
    page = Section(title="T", parts=[Section(title="P", blocks=[
        Grid(title="G", columns=("a", "b"), rows=[("x|y", 1)]), Drawing(lines=("a -> b",)), "text",
    ])])  # fmt: skip
    expected = "# T\n\n## 1 P\n\n**G**\n\n| a | b |\n| --- | --- |\n| x\\|y | 1 |\n\n```\na -> b\n```\n\ntext\n"
    assert expected == as_markdown(page)


def test_the_command_writes_the_page_where_it_is_told_to(tmp_path: Path) -> None:
    out, settings = tmp_path / "statement.html", tmp_path / "ctriage.toml"
    settings.write_text('[listener]\nae_title = "BRIDGE"\n')
    done = CliRunner().invoke(app, ["conformance", "--config", str(settings), "--format", "html", "--out", str(out)])
    assert (0, True) == (done.exit_code, "BRIDGE" in out.read_text())
    printed = CliRunner().invoke(app, ["conformance", "--config", str(settings)])
    assert printed.stdout.startswith("# DICOM Conformance Statement: ctriage")
    nowhere = CliRunner().invoke(app, ["conformance", "--config", str(settings), "--out", str(tmp_path / "no" / "x")])
    assert (1, "") == (nowhere.exit_code, nowhere.stdout)
