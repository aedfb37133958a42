"""Which instances does a document rest on?"""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from pacs_bridge.results.part10 import reference


def evidence_sequence(headers: Sequence[Dataset]) -> list[Dataset]:
    """Return a Hierarchical SOP Instance Reference (PS3.3 C.17.2.1) naming each header once."""
    tree: dict[str, dict[str, dict[str, Dataset]]] = {}
    for header in headers:
        series = tree.setdefault(str(header.StudyInstanceUID), {}).setdefault(str(header.SeriesInstanceUID), {})
        series[str(header.SOPInstanceUID)] = header
    return [_study(uid, series) for uid, series in tree.items()]


def _study(uid: str, series: dict[str, dict[str, Dataset]]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = uid
    item.ReferencedSeriesSequence = [_series(name, instances) for name, instances in series.items()]
    return item


def _series(uid: str, instances: dict[str, Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedSOPSequence = [reference(header) for header in instances.values()]
    return item
