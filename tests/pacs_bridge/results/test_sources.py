"""Patient and study text on its way into results."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from pacs_bridge.results.bundle import build_flags
from pacs_bridge.results.errors import MissingHeaders
from pacs_bridge.results.regions import slice_indices
from pacs_bridge.results.sources import SourceHeaders, copy_lossy_history, has_undeclared_latin, settle_character_set
from pacs_bridge.results.testing import blob, context_of, ct_headers, report_of, reread, stack_of
from pacs_bridge.results.texts import Language
from reconstruction.headers import Header

NAME = "Muñoz Peña^José Ángel"


def spoken_in(character_set: str | list[str] | None, **changes: Any) -> list[Dataset]:
    """Write headers in a character set, read them again; None: Latin-1 bytes that nothing declares."""
    headers = ct_headers(**{"PatientName": NAME, "SpecificCharacterSet": character_set or "ISO_IR 100"} | changes)
    read = [reread(header) for header in headers]
    if character_set is None:
        for header in read:
            del header.SpecificCharacterSet
    return [bytes_again(header) for header in read]


def bytes_again(header: Dataset) -> Dataset:
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, header)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def results_of(headers: list[Dataset], language: Language) -> list[Dataset]:
    stack = stack_of(headers)
    report = report_of([stack], [blob(stack, (4, 30, 20))])
    return [pydicom.dcmread(BytesIO(o.part10)) for o in build_flags(context_of(headers, language=language), report)]


def raw(dataset: Dataset, keyword: str) -> bytes:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    value = dataset.get_item(tag).value
    assert isinstance(value, bytes)
    return value


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize(
    ("declared", "expected"), [("ISO_IR 100", "ISO_IR 100"), ("ISO_IR 192", "ISO_IR 192"), (None, "ISO_IR 100")]
)
def test_two_surnames_with_ñ_survive_byte_for_byte(declared: str | None, expected: str, language: Language) -> None:
    headers = spoken_in(declared)
    before = raw(headers[0], "PatientName")
    results = results_of(headers, language)
    assert ["SR", "SEG", "KO"] == [result.Modality for result in results]
    for result in results:
        assert before == raw(result, "PatientName")
        assert expected == result.SpecificCharacterSet
        assert NAME == str(result.PatientName)


@pytest.mark.parametrize(
    "declared", [["", "ISO 2022 IR 100"], ["ISO 2022 IR 6", "ISO 2022 IR 100"], "ISO 2022 IR 100", "ISO_IR 101"]
)
def test_other_character_sets_end_in_utf_8_where_they_cannot_carry_the_result(declared: str | list[str]) -> None:
    name = "Muñoz^José" if declared != "ISO_IR 101" else "Wałęsa^Lech"
    for result in results_of(spoken_in(declared, PatientName=name), "es"):
        assert name == str(result.PatientName)
        if declared != "ISO_IR 101":
            assert "ISO_IR 192" == result.SpecificCharacterSet


def test_a_japanese_name_with_code_extensions_survives() -> None:
    headers = spoken_in(["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    for result in results_of(headers, "es"):
        assert "ISO_IR 192" == result.SpecificCharacterSet
        assert "山田^太郎" == result.PatientName.ideographic


def test_plain_ascii_needs_no_character_set_in_english_and_utf_8_in_spanish() -> None:
    headers = [reread(header) for header in ct_headers()]
    assert "SpecificCharacterSet" not in results_of(headers, "en")[0]
    assert "ISO_IR 192" == results_of(headers, "es")[0].SpecificCharacterSet


def test_undeclared_latin_is_noticed_only_where_it_is() -> None:
    assert has_undeclared_latin(spoken_in(None)[0])
    assert not has_undeclared_latin(spoken_in("ISO_IR 100")[0])
    assert not has_undeclared_latin(spoken_in(None, PatientName="Doe^Jane")[0])


def test_text_in_nested_sequences_is_decoded_too() -> None:
    item = Dataset()
    item.PatientID = "año"
    headers = spoken_in("ISO_IR 100", OtherPatientIDsSequence=[item])
    result = results_of(headers, "es")[0]
    assert "año" == result.OtherPatientIDsSequence[0].PatientID


def test_missing_type_2_attributes_are_present_and_empty() -> None:
    headers = ct_headers(StudyID=None, PatientSex=None, AccessionNumber=None, ReferringPhysicianName=None)
    for result in results_of(headers, "en"):
        for keyword in ("StudyID", "PatientSex", "AccessionNumber", "ReferringPhysicianName"):
            assert not result[keyword].value


def test_values_that_break_the_rules_travel_as_they_are() -> None:
    with pydicom.config.disable_value_validation():
        headers = [reread(h) for h in ct_headers(PatientSex="male", StudyDate="2026.11.21", PatientAge="56")]
    for result in results_of(headers, "en"):
        assert ("male", "2026.11.21", "56") == (result.PatientSex, result.StudyDate, result.PatientAge)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="latin-1", categories=["L"]), min_size=1, max_size=30))
def test_what_latin_1_can_carry_stays_in_latin_1(name: str) -> None:
    source = Dataset()
    source.SpecificCharacterSet = "ISO_IR 100"
    target = Dataset()
    target.PatientName = name
    settle_character_set(target, source)
    assert "ISO_IR 100" == target.SpecificCharacterSet


def test_lossy_compression_anywhere_in_the_source_is_inherited() -> None:
    headers = ct_headers()
    headers[3].LossyImageCompression = "01"
    headers[3].LossyImageCompressionRatio = "10.5"
    headers[3].LossyImageCompressionMethod = "ISO_10918_1"
    target = Dataset()
    copy_lossy_history(headers, target)
    assert ("01", "ISO_10918_1") == (target.LossyImageCompression, target.LossyImageCompressionMethod)
    copy_lossy_history(headers[:3], plain := Dataset())
    assert "00" == plain.LossyImageCompression


def test_headers_that_the_report_names_must_be_there() -> None:
    headers = ct_headers()
    report = report_of([stack_of(headers)])
    with pytest.raises(MissingHeaders, match="1 instances"):
        build_flags(context_of(headers[1:]), report)


class Counted(Mapping[str, Dataset]):
    """Data sets that note which of them were asked for."""

    def __init__(self, headers: list[Dataset]) -> None:
        self.datasets = {str(header.SOPInstanceUID): header for header in headers}
        self.asked: set[str] = set()

    def __getitem__(self, uid: str) -> Dataset:
        self.asked.add(uid)
        return self.datasets[uid]

    def __contains__(self, uid: object) -> bool:
        return uid in self.datasets

    def __iter__(self) -> Iterator[str]:
        return iter(self.datasets)

    def __len__(self) -> int:
        return len(self.datasets)


def test_flags_read_the_speaker_and_the_slices_with_findings_and_no_others() -> None:
    headers = ct_headers(count=40)
    datasets = Counted(headers)
    names = {uid: Header.from_dataset(header, "") for uid, header in datasets.datasets.items()}
    stack = stack_of(headers)
    report = report_of([stack], [blob(stack, (20, 30, 20))])
    shown = {stack.instances[k] for k in slice_indices(report.findings[0])}
    sources = SourceHeaders(datasets=datasets, headers=names)
    lazily = build_flags(context_of(headers, sources=sources), report)
    assert {stack.instances[0], *shown} == datasets.asked
    assert [o.part10 for o in build_flags(context_of(headers), report)] == [o.part10 for o in lazily]


def test_where_nobody_can_speak_the_report_leaves_with_the_names_alone() -> None:
    headers = ct_headers()
    names = {str(header.SOPInstanceUID): Header.from_dataset(header, "") for header in headers}
    sources = SourceHeaders(datasets={}, headers=names)
    (document,) = build_flags(context_of(headers, sources=sources), report_of([stack_of(headers)]))
    assert headers[0].StudyInstanceUID == pydicom.dcmread(BytesIO(document.part10)).StudyInstanceUID
