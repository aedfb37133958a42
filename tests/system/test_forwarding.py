"""Do images that the whole service was told to pass on arrive as they came, whenever it is killed with -9?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.service import ReceivingPacs, Service, wait_until
from pacs_bridge.cli import app
from pacs_bridge.part10 import read_file

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
Moment = Callable[[Service, ReceivingPacs], bool]


def standing(service: Service) -> tuple[int, int, int]:
    """Return how many images are pending, sent and refused."""
    rows = service.status()["forwards"]
    pending, sent, refused = (sum(row[name] for row in rows) for name in ("pending", "sent", "refused"))
    return pending, sent, refused


MOMENTS: dict[str, tuple[Moment, bool]] = {
    "a batch is under way": (lambda s, _: any(row["state"] == "running" for row in s.status()["forwards"]), True),
    "some have arrived": (lambda _, p: len(p.of_class(CT_IMAGE)) > 2, False),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_image_arrives_as_it_came_when_the_service_is_killed(
    moment: str, make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, tilted_head: list[Path]
) -> None:
    is_there, closed = MOMENTS[moment]
    if closed:
        pacs.gate.clear()
    service: Service = make_service(destination=[to_pacs(pacs, send=[])], forward=[{"to": "pacs", "modality": "CT"}])
    send(service, tilted_head).raise_failure()
    wait_until(lambda: is_there(service, pacs), within_s=60, what=moment)
    service.kill()
    pacs.gate.set()
    service.start()
    wait_until(lambda: standing(service) == (0, len(tilted_head), 0), within_s=60, what="every image passed on")
    came = {read_file(path).sop_instance_uid: path.read_bytes()[read_file(path).offset :] for path in tilted_head}
    assert came == {each.sop_instance_uid: each.dataset for each in pacs.of_class(CT_IMAGE)}
    assert {each.transfer_syntax for each in pacs.arrived} == {read_file(path).transfer_syntax for path in tilted_head}


def test_a_study_with_a_finding_is_passed_on_once_that_is_known(
    make_service: Any, pacs: ReceivingPacs, to_pacs: Any, send: Any, tmp_path: Path
) -> None:
    phantom = CliRunner().invoke(app, ["phantom", "head-bleed", "--out", str(tmp_path / "head")])
    assert phantom.exit_code == 0, phantom.output
    files = sorted((tmp_path / "head").rglob("*.dcm"))
    rules = [{"to": "pacs", "finding": "hemorrhage"}, {"to": "pacs", "finding": "fracture", "modality": "MR"}]
    service: Service = make_service(destination=[to_pacs(pacs, send=["sr"])], forward=rules)
    send(service, files).raise_failure()
    wait_until(lambda: standing(service) == (0, len(files), 0), within_s=120, what="the study passed on")
    assert len(files) == len({each.sop_instance_uid for each in pacs.of_class(CT_IMAGE)})
