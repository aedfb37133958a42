"""Does each destination that takes rejection notes hear, once, of exactly what it holds of earlier versions?"""

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from pacs_bridge.deliveries import DELIVER, REJECT, DeliverHandler
from pacs_bridge.handlers import DERIVE
from pacs_bridge.ledger import KeptObject
from pacs_bridge.rejections import RejectHandler
from pacs_bridge.settings import Destination, Outputs
from scheduler.errors import Transient
from scheduler.job import Job, Status
from scheduler.worker import Nothing, Task
from tests.pacs_bridge.house import STUDY, House, MakeHouse, house_slice

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
PICTURES = Outputs(mpr=True, mip=False, render=False)


def peer(name: str = "pacs", *, iocm: bool = True, **more: Any) -> Destination:
    return Destination(name=name, ae_title=name.upper(), host="127.0.0.1", port=1, iocm=iocm, **more)


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    return make_house(destination=(peer(),))


def versions(house: House, count: int) -> None:
    """Make this many versions: each comes of a series with a finding that the ones before lack."""
    for number in range(1, count + 1):
        house.receive(number, hot=True)
        house.complete(number)
        version = house.triage(final=True)
        assert version is not None
        assert number == version.version


def delivery(house: House, version: int, group: str = "flags", name: str = "pacs") -> Job | None:
    found = [
        job
        for job in house.jobs(DELIVER + name)
        if (job.payload["version"], job.payload["group"]) == (version, group) and job.status is Status.READY
    ]
    return found[0] if found else None


def arrive(house: House, version: int, group: str = "flags", name: str = "pacs") -> bool:
    """Deliver one group of a version to a peer that takes everything; says whether there was anything to deliver."""
    waiting = delivery(house, version, group, name)
    if waiting is None:
        return False
    (job,) = house.desk.queue.claim([waiting.kind], house.clock.now, 30, lambda _w, _r: [waiting]).started
    handler = DeliverHandler(desk=house.desk)
    task = handler.prepare(job)
    with house.database.transaction() as connection:
        if isinstance(task, Task):
            handler.commit(job, None, connection)
        house.desk.queue.finish(job)
    return isinstance(task, Task)


def brought(house: House, job: Job) -> list[KeptObject]:
    """Return what a delivery would hand over."""
    task = DeliverHandler(desk=house.desk).prepare(job)
    assert isinstance(task, Task)
    objects: Any = task.args[1]
    return list(objects)


def notes(house: House, *kept_with: int) -> list[KeptObject]:
    return [each for version in kept_with for each in house.kept(version) if each.kind == "rejection"]


def document(house: House, note: KeptObject) -> Dataset:
    return pydicom.dcmread(house.desk.objects_dir / note.path)


def listed(house: House, note: KeptObject) -> set[str]:
    def uids() -> Iterator[str]:
        for study in document(house, note).CurrentRequestedProcedureEvidenceSequence:
            for series in study.ReferencedSeriesSequence:
                yield from (str(each.ReferencedSOPInstanceUID) for each in series.ReferencedSOPSequence)

    return set(uids())


def results(house: House, *kept_with: int, but: tuple[str, ...] = ("rejection",)) -> set[str]:
    return {o.sop_instance_uid for version in kept_with for o in house.kept(version) if o.kind not in but}


def test_a_note_lists_every_result_of_the_version_before_that_was_sent_and_no_image(house: House) -> None:
    versions(house, 2)
    assert arrive(house, 1)
    assert arrive(house, 2)
    house.run(REJECT)
    (note,) = notes(house, 2)
    assert {"sr", "seg", "key_objects"} == {each.kind for each in house.kept(1)}
    assert results(house, 1) == listed(house, note)
    images = {f"{STUDY}.{number}.{n}" for number in (1, 2) for n in range(1, 5)}
    assert set() == images & listed(house, note)


def test_the_note_follows_the_flags_of_the_new_version_and_precedes_nothing(house: House) -> None:
    versions(house, 2)
    arrive(house, 1)
    house.run(REJECT)
    assert ([], None) == (notes(house, 2), delivery(house, 2, "rejection"))
    arrive(house, 2)
    house.run(REJECT)
    waiting = delivery(house, 2, "rejection")
    assert waiting is not None
    assert notes(house, 2) == brought(house, waiting)


def test_a_peer_that_never_had_the_old_version_gets_no_note(house: House) -> None:
    versions(house, 2)
    arrive(house, 2)
    assert not arrive(house, 1)
    house.run(REJECT)
    assert [] == notes(house, 1, 2)
    assert [Status.DONE] == [job.status for job in house.jobs(REJECT)]


def test_without_iocm_there_is_no_note(make_house: MakeHouse) -> None:
    house = make_house(destination=(peer(iocm=False),))
    versions(house, 2)
    arrive(house, 1)
    arrive(house, 2)
    assert [] == house.jobs(REJECT)


def test_a_first_version_rejects_nothing(house: House) -> None:
    versions(house, 1)
    arrive(house, 1)
    assert [] == house.jobs(REJECT)


def test_a_version_that_was_skipped_is_not_listed_and_those_before_it_are(house: House) -> None:
    versions(house, 3)
    assert arrive(house, 1)
    assert arrive(house, 3)
    assert not arrive(house, 2)
    house.run(REJECT)
    (note,) = notes(house, 2, 3)
    assert results(house, 1) == listed(house, note)


def test_each_version_is_rejected_by_one_note(house: House) -> None:
    versions(house, 1)
    for number in (2, 3):
        arrive(house, number - 1)
        house.receive(number, hot=True)
        house.complete(number)
        house.triage(final=True)
        arrive(house, number)
        house.run(REJECT)
    first, second = notes(house, 2, 3)
    assert (results(house, 1), results(house, 2)) == (listed(house, first), listed(house, second))
    assert first.sop_instance_uid != second.sop_instance_uid


def test_two_peers_each_hear_of_what_they_hold(make_house: MakeHouse) -> None:
    house = make_house(destination=(peer("one", send=("sr",)), peer("two"), peer("three", iocm=False), peer("four")))
    versions(house, 2)
    for name in ("one", "two", "three"):
        arrive(house, 1, name=name)
    for name in ("one", "two", "three", "four"):
        arrive(house, 2, name=name)
    house.run(REJECT)
    found = {frozenset(listed(house, note)) for note in notes(house, 2)}
    (sr,) = (each.sop_instance_uid for each in house.kept(1) if each.kind == "sr")
    assert {frozenset({sr}), frozenset(results(house, 1))} == found
    for name in ("one", "two"):
        waiting = delivery(house, 2, "rejection", name)
        assert waiting is not None
        (sent,) = brought(house, waiting)
        assert ({sr} if name == "one" else results(house, 1)) == listed(house, sent)
    assert {"deliver:one", "deliver:two"} == {j.kind for j in house.jobs(DELIVER) if j.payload["group"] == "rejection"}


def test_pictures_that_were_sent_are_listed_and_those_of_the_new_version_come_after(make_house: MakeHouse) -> None:
    house = make_house(destination=(peer(send=("sr", "mpr")),), outputs=PICTURES)
    versions(house, 1)
    house.run(DERIVE)
    arrive(house, 1)
    arrive(house, 1, "pictures")
    house.receive(2, hot=True)
    house.complete(2)
    house.triage(final=True)
    arrive(house, 2)
    house.run(REJECT)
    (note,) = notes(house, 2)
    assert {o.sop_instance_uid for o in house.kept(1) if o.kind in ("sr", "mpr")} == listed(house, note)
    assert 3 < len(listed(house, note))


def test_pictures_that_overtake_the_new_flags_void_nothing_yet(make_house: MakeHouse) -> None:
    house = make_house(destination=(peer(send=("sr", "mpr")),), outputs=PICTURES)
    versions(house, 2)
    arrive(house, 1)
    house.run(DERIVE)
    assert arrive(house, 2, "pictures")
    assert [] == house.jobs(REJECT)
    arrive(house, 2)
    house.run(REJECT)
    assert 1 == len(notes(house, 2))


def test_a_peer_for_which_the_new_version_has_nothing_hears_that_the_old_one_is_void(make_house: MakeHouse) -> None:
    house = make_house(destination=(peer("late", send=("seg",)), peer("pacs", send=("seg",))))
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    arrive(house, 1)
    blind = make_house("blind", destination=(peer("late", send=("seg",)), peer("pacs", send=("seg",))))
    blind.triage(final=True)
    assert [] == [each for each in blind.kept(2) if each.kind == "seg"]
    blind.run(REJECT)
    (note,) = notes(blind, 2)
    (seg,) = (each for each in blind.kept(1) if each.kind == "seg")
    assert {seg.sop_instance_uid} == listed(blind, note)
    assert not arrive(blind, 1, name="late")  # nor is it sent the finding that no longer stands


def test_a_note_is_built_once_and_a_second_try_of_its_delivery_sends_the_same(house: House) -> None:
    versions(house, 2)
    arrive(house, 1)
    arrive(house, 2)
    house.run(REJECT)
    (note,) = notes(house, 2)
    house.run(DELIVER + "pacs")  # nobody listens there
    (job,) = [j for j in house.jobs(DELIVER) if j.payload["group"] == "rejection"]
    assert (Status.READY, 1) == (job.status, job.attempt)
    house.clock.now += timedelta(hours=1)
    house.run(REJECT)
    assert [note] == notes(house, 2)
    assert arrive(house, 2, "rejection")
    assert [note] == notes(house, 2)


def test_a_note_is_no_result_and_is_rejected_by_no_later_one(house: House) -> None:
    versions(house, 2)
    arrive(house, 1)
    arrive(house, 2)
    house.run(REJECT)
    arrive(house, 2, "rejection")
    house.receive(3, hot=True)
    house.complete(3)
    house.triage(final=True)
    arrive(house, 3)
    house.run(REJECT)
    (second,) = notes(house, 3)
    assert results(house, 2) == listed(house, second)


def test_a_note_is_delivered_though_a_still_newer_version_has_arrived(house: House) -> None:
    versions(house, 2)
    arrive(house, 1)
    arrive(house, 2)
    house.run(REJECT)
    house.receive(3, hot=True)
    house.complete(3)
    house.triage(final=True)
    arrive(house, 3)
    assert arrive(house, 2, "rejection")


def test_a_note_waits_with_everything_else_while_two_patients_stand_under_one_study(house: House) -> None:
    versions(house, 2)
    arrive(house, 1)
    arrive(house, 2)
    house.take_in(house_slice(house.make_slice, 1, 9, hot=False, PatientID="P2"))
    house.run(REJECT)
    (job,) = [j for j in house.jobs(DELIVER) if j.payload["group"] == "rejection"]
    assert Status.HELD is job.status
    with pytest.raises(Transient, match="two patient IDs"):
        DeliverHandler(desk=house.desk).prepare(job)


def test_folders_hold_no_notes_and_the_settings_cannot_select_them(house: House) -> None:
    versions(house, 2)
    arrive(house, 1)
    arrive(house, 2)
    house.run(REJECT, DELIVER + "results")
    folder = house.desk.settings.state_dir / "results"
    names = {path.name for path in folder.rglob("*.dcm")}
    assert {"sr.dcm", "seg.dcm", "key_objects.dcm"} <= names
    assert set() == {name for name in names if "rejection" in name}
    with pytest.raises(ValueError, match="rejection"):
        peer(send=("rejection",))


def test_a_note_on_a_report_that_names_no_image_still_speaks_of_the_patient(house: House) -> None:
    house.receive(1, hot=True)
    house.complete(1)
    house.triage()
    arrive(house, 1)
    house.receive(2)
    house.complete(2)
    for each in house.desk.archive.instances_of(STUDY, f"{STUDY}.2"):
        each.path.write_bytes(b"rotten")
    version = house.triage()
    assert version is not None
    arrive(house, 2)
    house.run(REJECT)
    (note,) = notes(house, 2)
    assert "Doe^Jane" == document(house, note).PatientName


def test_a_destination_that_left_the_settings_is_waited_for(house: House, make_house: MakeHouse) -> None:
    versions(house, 2)
    arrive(house, 1)
    arrive(house, 2)
    without = make_house()
    without.run(REJECT)
    (job,) = without.jobs(REJECT)
    assert (Status.READY, True) == (job.status, "not in the settings" in (job.reason or ""))


def test_a_note_whose_triage_version_is_unknown_is_nothing(house: House) -> None:
    job = house.job(REJECT, version=7, destination="pacs")
    assert isinstance(RejectHandler(desk=house.desk).prepare(job), Nothing)


# ---- a peer that breaks off -----------------------------------------------------------------------------------------


@pytest.fixture
def refusing() -> Iterator[Any]:
    """Return a PACS on loopback that takes everything but the SOP classes in its ``refused``."""
    classes: set[str] = {SEGMENTATION}

    def answer(event: Any) -> int:
        return 0xA700 if str(event.request.AffectedSOPClassUID) in classes else 0x0000

    entity = AE(ae_title="PACS")
    for sop_class in (SEGMENTATION, KEY_OBJECTS, COMPREHENSIVE_3D_SR):
        entity.add_supported_context(sop_class)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    yield SimpleNamespace(port=server.server_address[1], refused=classes)
    server.shutdown()


def test_what_a_peer_took_before_it_broke_off_is_rejected_though_the_rest_never_came(
    make_house: MakeHouse, refusing: Any
) -> None:
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=refusing.port, iocm=True)
    house = make_house(destination=(pacs,))
    versions(house, 1)
    house.run(DELIVER + "pacs")
    waiting = delivery(house, 1)
    assert waiting is not None  # to be tried again: one of three was refused
    refusing.refused.clear()
    house.receive(2, hot=True)
    house.complete(2)
    house.triage(final=True)
    house.run(DELIVER + "pacs")  # version 2; the next try of version 1 is not due yet
    house.clock.now += timedelta(hours=1)
    house.run(DELIVER + "pacs", REJECT)
    assert Status.DONE is house.desk.queue.job(waiting.key).status
    (note,) = notes(house, 2)
    taken = {each.sop_instance_uid for each in house.kept(1) if each.kind != "seg"}
    assert (2, taken) == (len(taken), listed(house, note))
    assert Status.DONE is next(j for j in house.jobs(DELIVER) if j.payload["group"] == "rejection").status
