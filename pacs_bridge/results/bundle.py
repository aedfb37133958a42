"""Which DICOM objects does a Report become?"""

from collections.abc import Sequence

from pacs_bridge.results.context import Context
from pacs_bridge.results.derived import Reformat, build_derived_series
from pacs_bridge.results.key_objects import build_key_objects
from pacs_bridge.results.regions import place
from pacs_bridge.results.secondary_capture import Capture, build_captures
from pacs_bridge.results.seg import build_segmentations
from pacs_bridge.results.sr import build_report_document
from pipeline.model import Report, ResultObject


def build_flags(context: Context, report: Report) -> list[ResultObject]:
    """Build what must not wait for pictures: the SR, and SEG and key objects where there are findings.

    Pure: the same arguments give the same bytes. Raises MissingHeaders.
    """
    findings = place(context, report)
    return [
        build_report_document(context, report, findings),
        *build_segmentations(context, report, findings),
        *build_key_objects(context, report, findings),
    ]


def build_pictures(
    context: Context, report: Report, *, planes: Sequence[Reformat] = (), captures: Sequence[Capture] = ()
) -> list[ResultObject]:
    """Build derived CT series (one for each Reformat) and Secondary Captures. Pure, as ``build_flags``.

    A Reformat's place in ``planes`` and a Capture's among its kind give them their UIDs: keep the order.
    """
    series = [build_derived_series(context, report, reformat, n) for n, reformat in enumerate(planes, start=1)]
    return [image for images in series for image in images] + build_captures(context, report, captures)
