"""Images of one series, encoded once but for what varies, against pydicom's own encoding of each."""

from dataclasses import replace
from io import BytesIO

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from pacs_bridge.results.alike import Alike, item, long_element, text_element
from pacs_bridge.results.part10 import written
from pacs_bridge.results.source_images import EncodedSources, source_images
from pacs_bridge.results.testing import context_of, ct_headers, stack_of
from pipeline.model import ExaminedStack

NUMBER, SOURCES, PIXELS = 0x00200013, 0x00082112, 0x7FE00010

uids = st.from_regex(r"2\.25\.[1-9][0-9]{0,38}", fullmatch=True)


def image(uid: str, number: int, sources: list[str], pixels: bytes) -> Dataset:
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = uid
    made.PatientName = "Núñez^Ana"
    made.SourceImageSequence = [reference(each) for each in sources]
    made.InstanceNumber = number
    made.Rows = 1
    made.add_new("PixelData", "OW", pixels)
    return made


def reference(uid: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID = CTImageStorage
    made.ReferencedSOPInstanceUID = uid
    return made


@settings(max_examples=40)
@given(uids, st.integers(1, 99_999), st.lists(uids, max_size=4), st.binary(max_size=9).map(lambda some: some + some))
def test_a_file_is_what_pydicom_writes_byte_for_byte(uid: str, number: int, named: list[str], pixels: bytes) -> None:
    items = [item(text_element(0x00081150, "UI", CTImageStorage), text_element(0x00081155, "UI", u)) for u in named]
    file = Alike(image("1.2.3", 1, [], b""), (NUMBER, SOURCES, PIXELS)).file(
        uid,
        {
            NUMBER: (text_element(NUMBER, "IS", str(number)),),
            SOURCES: long_element(SOURCES, "SQ", *items),
            PIXELS: long_element(PIXELS, "OW", memoryview(pixels)),
        },
    )
    assert written(image(uid, number, named, pixels)) == file


def encoded(stack: ExaminedStack, headers: list[Dataset], *spans: tuple[int, int]) -> list[list[Dataset]]:
    sources = EncodedSources(context_of(headers), stack)
    files = [BytesIO(b"".join(sources.element(span))) for span in spans]
    return [list(pydicom.dcmread(file, force=True).SourceImageSequence) for file in files]


def test_encoded_sources_are_those_of_each_span_and_none_that_has_no_name() -> None:
    headers = ct_headers()
    del headers[3].SOPClassUID
    stack, spans = stack_of(headers), ((2, 5), (0, 8), (0, 8), (4, 6))
    expected = [source_images(context_of(headers), stack, span) for span in spans]
    assert [2, 7, 7, 2] == [len(each) for each in expected]
    assert expected == encoded(stack, headers, *spans)


def test_encoded_sources_name_frames_by_their_numbers() -> None:
    headers = ct_headers()
    one, two = (str(header.SOPInstanceUID) for header in headers[:2])
    stack = replace(stack_of(headers), instances=(one,) * 4 + (two,) * 4, frames=(1, 2, 3, 4, 4, 3, 2, 1))
    spans = ((2, 5), (0, 8))
    expected = [source_images(context_of(headers), stack, span) for span in spans]
    assert expected == encoded(stack, headers, *spans)
    assert [3, 4] == expected[0][0].ReferencedFrameNumber
