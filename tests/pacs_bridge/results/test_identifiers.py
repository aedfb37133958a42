"""The names of results."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from pacs_bridge.results.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    frame_of_reference_uid,
    is_ours,
    named_uid,
    result_uid,
    tracking_uid,
)
from pacs_bridge.results.testing import PROVENANCE, ct_header, ct_headers, stack_of


@given(st.lists(st.text(), min_size=1))
def test_every_name_is_a_valid_uid_and_the_same_each_time(parts: list[str]) -> None:
    uid = named_uid(*parts)
    assert UID(uid).is_valid
    assert uid == named_uid(*parts)


def test_everything_that_changes_a_result_changes_its_uid() -> None:
    variants = [
        result_uid(PROVENANCE, "1.2", "d", "sr", 1),
        result_uid(PROVENANCE, "1.3", "d", "sr", 1),
        result_uid(PROVENANCE, "1.2", "e", "sr", 1),
        result_uid(PROVENANCE, "1.2", "d", "seg", 1),
        result_uid(PROVENANCE, "1.2", "d", "sr", 2),
        result_uid(replace(PROVENANCE, code_version="9"), "1.2", "d", "sr", 1),
        result_uid(replace(PROVENANCE, detector_versions={"hemorrhage": "9"}), "1.2", "d", "sr", 1),
        result_uid(replace(PROVENANCE, weights_hash="w"), "1.2", "d", "sr", 1),
        result_uid(replace(PROVENANCE, settings_hash="s"), "1.2", "d", "sr", 1),
    ]
    assert len(variants) == len(set(variants))


def test_the_order_in_which_detectors_are_listed_changes_no_uid() -> None:
    turned = replace(PROVENANCE, detector_versions=dict(reversed(list(PROVENANCE.detector_versions.items()))))
    assert result_uid(PROVENANCE, "1.2", "d", "sr", 1) == result_uid(turned, "1.2", "d", "sr", 1)


def test_a_finding_keeps_its_tracking_uid_when_only_settings_or_versions_change() -> None:
    assert tracking_uid("1.2", "d", "hemorrhage", 1) == tracking_uid("1.2", "d", "hemorrhage", 1)
    assert tracking_uid("1.2", "d", "hemorrhage", 1) != tracking_uid("1.2", "d", "hemorrhage", 2)


def test_a_missing_frame_of_reference_is_derived_from_the_series() -> None:
    bare = stack_of(ct_headers(FrameOfReferenceUID=None))
    other = stack_of(ct_headers(FrameOfReferenceUID=None, SeriesInstanceUID="2.25.5"))
    assert "2.25.4001" == frame_of_reference_uid(stack_of(ct_headers()))
    assert frame_of_reference_uid(bare) == frame_of_reference_uid(replace(bare, stack=2))
    assert frame_of_reference_uid(bare) != frame_of_reference_uid(other)


def test_what_ctriage_made_is_recognised_by_file_meta_or_by_manufacturer() -> None:
    by_meta = Dataset()
    by_meta.file_meta = FileMetaDataset()
    by_meta.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    by_maker = Dataset()
    by_maker.Manufacturer = "ctriage"
    assert is_ours(by_meta)
    assert is_ours(by_maker)
    assert not is_ours(ct_header(0))
    assert not is_ours(Dataset())
