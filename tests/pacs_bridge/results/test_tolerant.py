"""Badly written values in source headers."""

from pydicom.dataset import Dataset

from pacs_bridge.results.sources import badly_written_attributes, copy_patient_and_study
from pacs_bridge.results.testing import ct_header, reread, write_badly
from pacs_bridge.results.tolerant import badly_written, element_of, value_of


def test_what_is_none_of_its_type_reads_as_absent_and_is_named() -> None:
    header = ct_header(0)
    write_badly(header, "PatientSize", "1,75")
    write_badly(header, "KVP", "nan")
    write_badly(header, "AcquisitionNumber", "1.5")
    write_badly(header, "WindowCenter", "40\\40,5")
    write_badly(header, "Rows", "x")
    for keyword in ("PatientSize", "KVP", "AcquisitionNumber", "WindowCenter", "Rows"):
        assert element_of(header, keyword) is None
        assert {keyword} == badly_written(header, keyword)
    assert "Doe^Jane" == value_of(header, "PatientName")
    assert set() == badly_written(header, "PatientName") | badly_written(header, "PatientWeight")


def test_a_badly_written_value_within_a_sequence_takes_only_itself_away() -> None:
    item = Dataset()
    item.CodeValue = "70450"
    write_badly(item, "PatientSize", "1,75")
    header = ct_header(0, ProcedureCodeSequence=[item])
    copy_patient_and_study(header, target := Dataset())
    assert "70450" == target.ProcedureCodeSequence[0].CodeValue
    assert "PatientSize" not in target.ProcedureCodeSequence[0]
    assert ["PatientSize"] == badly_written_attributes(header, [header])


def test_a_header_from_a_file_is_read_as_tolerantly() -> None:
    header = ct_header(0)
    write_badly(header, "PatientWeight", "70,5 kg")
    header = reread(header)
    assert ["PatientWeight"] == badly_written_attributes(header, [header])
