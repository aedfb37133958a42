"""What does the report say, as a content tree of TID 1500 (PS3.16)?"""

from collections import Counter
from collections.abc import Iterable, Sequence

import highdicom as hd
import numpy as np
from highdicom.sr import RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from pacs_bridge.results import codes
from pacs_bridge.results.context import Context
from pacs_bridge.results.frames import by_instance
from pacs_bridge.results.identifiers import (
    DEVICE_UID,
    MANUFACTURER,
    MODEL_NAME,
    named_uid,
    stated_frame_of_reference_uid,
)
from pacs_bridge.results.regions import Placed, center_on_key_slice
from pacs_bridge.results.seg import segmentation_uid
from pacs_bridge.results.sources import badly_written_attributes, has_undeclared_latin
from pacs_bridge.results.texts import Language, say, say_known
from pipeline.model import Code, DetectorRun, ExaminedStack, Measurement, Report
from pipeline.picture_texts import translated

_CONTAINS = RelationshipTypeValues.CONTAINS


def content_tree(
    context: Context, report: Report, findings: Sequence[Placed], notes: Sequence[str] = ()
) -> hd.sr.ContainerContentItem:
    """Return the root container: who looked, what was found, what was not detected, what was not read."""
    root = hd.sr.ContainerContentItem(name=codes.REPORT, template_id="1500")
    root.ContentSequence = hd.sr.ContentSequence()
    language = codes.language_concept(context.language)
    root.ContentSequence.extend(hd.sr.LanguageOfContentItemAndDescendants(language))
    root.ContentSequence.extend(hd.sr.ObservationContext(observer_device_context=device_observer()))
    root.ContentSequence.append(
        hd.sr.CodeContentItem(codes.PROCEDURE_REPORTED, codes.CT, RelationshipTypeValues.HAS_CONCEPT_MOD)
    )
    groups = [_finding_group(placed, report, context.language) for placed in findings]
    groups += _groups_without_findings(report, context.language)
    if groups:
        root.ContentSequence.append(_container(codes.IMAGING_MEASUREMENTS, [group[0] for group in groups]))
    root.ContentSequence.append(_container(codes.QUALITATIVE_EVALUATIONS, _evaluations(context, report, notes)))
    return root


def device_observer() -> hd.sr.ObserverContext:
    """Return ctriage as the observer (TID 1004)."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=DEVICE_UID, name=MANUFACTURER, manufacturer_name=MANUFACTURER, model_name=MODEL_NAME
    )
    return hd.sr.ObserverContext(codes.dcm("121007", "Device"), device)


def _container(name: hd.sr.CodedConcept, items: Iterable[Dataset]) -> hd.sr.ContainerContentItem:
    container = hd.sr.ContainerContentItem(name=name, relationship_type=_CONTAINS)
    container.ContentSequence = hd.sr.ContentSequence(list(items))
    return container


def _text(name: hd.sr.CodedConcept, value: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(name, value, _CONTAINS)


# A finding: TID 1411 with a referenced segment, or TID 1501 where its region does not lie on acquired slices


def _finding_group(placed: Placed, report: Report, language: Language) -> hd.sr.ContentSequence:
    version = report.provenance.detector_versions.get(placed.finding.detector, report.provenance.code_version)
    shared = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=placed.tracking_uid, identifier=placed.tracking_id),
        "finding_type": codes.concept(placed.finding.code),
        "finding_category": codes.MORPHOLOGICALLY_ABNORMAL,
        "algorithm_id": _algorithm(placed.finding.detector, version, report),
        "measurements": _measurements(placed),
    }
    group = _on_segment(placed, report, shared) if placed.segment else _without_segment(placed, shared)
    group[0].ContentSequence.extend([*_center(placed), *_remarks(placed, report, language)])
    return group


def _on_segment(placed: Placed, report: Report, shared: dict[str, object]) -> hd.sr.ContentSequence:
    assert placed.segmentation is not None
    series = hd.sr.SourceSeriesForSegmentation(placed.finding.series_instance_uid)
    segment = hd.sr.ReferencedSegment(
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=segmentation_uid(report, placed.segmentation),
        segment_number=placed.segment,
        source_series=series,
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)


def _without_segment(placed: Placed, shared: dict[str, object]) -> hd.sr.ContentSequence:
    slices = [placed.named(k) for k in range(len(placed.names))]
    images = [
        hd.sr.SourceImageForMeasurementGroup(str(name.SOPClassUID), str(name.SOPInstanceUID), _numbers(frames))
        for name, frames in by_instance(slices)
    ]
    return hd.sr.MeasurementsAndQualitativeEvaluations(source_images=images or None, **shared)


def _numbers(frames: Sequence[int | None]) -> list[int] | None:
    """Return frame numbers as highdicom takes them; None where the instance is one image."""
    return sorted(frame for frame in frames if frame) or None


def _algorithm(name: str, version: str, report: Report) -> hd.sr.AlgorithmIdentification:
    marks = {"settings": report.provenance.settings_hash, "weights": report.provenance.weights_hash}
    parameters = [f"{mark}={value}" for mark, value in marks.items() if value]
    return hd.sr.AlgorithmIdentification(name, version, parameters or None, manufacturer=MANUFACTURER)


def _measurements(placed: Placed) -> list[hd.sr.Measurement]:
    finding = placed.finding
    values = [hd.sr.Measurement(codes.CERTAINTY, round(100 * finding.probability, 2), codes.PERCENT)]
    if finding.volume_ml is not None:
        values.append(hd.sr.Measurement(codes.VOLUME, round(finding.volume_ml, 3), codes.MILLILITRE))
    written = {(value.name.scheme_designator, value.name.value) for value in values}
    extras = [m for m in finding.measurements if (m.name.scheme, m.name.value) not in written]
    return values + [_measurement(extra) for extra in extras]


def _measurement(extra: Measurement) -> hd.sr.Measurement:
    return hd.sr.Measurement(codes.concept(extra.name), round(extra.value, 4), codes.concept(extra.unit))


def _center(placed: Placed) -> list[Dataset]:
    """Point at the finding's centre: in space where its stack states a frame of reference, else on its key slice."""
    frame = stated_frame_of_reference_uid(placed.stack) if placed.stack is not None else None
    if frame:
        point = np.array([placed.finding.centroid_lps_mm], dtype=np.float64)
        return [hd.sr.Scoord3DContentItem(codes.CENTER, "POINT", point, frame, relationship_type=_CONTAINS)]
    if placed.key_slice is None:
        return []
    point = np.array([center_on_key_slice(placed)])
    item = hd.sr.ScoordContentItem(codes.CENTER, "POINT", point, relationship_type=_CONTAINS)
    name, number = placed.named(placed.key_slice)
    selected = RelationshipTypeValues.SELECTED_FROM
    image = hd.sr.ImageContentItem(
        codes.SOURCE, str(name.SOPClassUID), str(name.SOPInstanceUID), _numbers([number]), relationship_type=selected
    )
    item.ContentSequence = hd.sr.ContentSequence([image])
    return [item]


def _remarks(placed: Placed, report: Report, language: Language) -> list[Dataset]:
    finding = placed.finding
    items = [_text(codes.SUBTYPE, say_known("subtype", finding.subtype, language))] if finding.subtype else []
    stacks = {(s.series_instance_uid, s.stack): s for s in report.examined}
    named = [stack_name(stacks[key], language) for key in finding.also_seen_in if key in stacks]
    if named:
        items.append(_text(codes.ALSO_SEEN, say("line.also_seen", language, stacks="; ".join(named))))
    return items


# A detector that ran and found nothing: TID 1501 with a qualitative evaluation, never "absent" or "normal"


def _groups_without_findings(report: Report, language: Language) -> list[hd.sr.ContentSequence]:
    return [
        _not_detected(report, stack, run, kind, language)
        for stack in report.examined
        for run in stack.detectors
        if run.status == "ran"
        for kind in run.looks_for
        if not _was_found(report, stack, run, kind)
    ]


def _was_found(report: Report, stack: ExaminedStack, run: DetectorRun, kind: str) -> bool:
    here = (stack.series_instance_uid, stack.stack)
    return any(
        finding.detector == run.name
        and finding.kind == kind
        and here in ((finding.series_instance_uid, finding.stack), *finding.also_seen_in)
        for finding in report.findings
    )


def _not_detected(
    report: Report, stack: ExaminedStack, run: DetectorRun, kind: str, language: Language
) -> hd.sr.ContentSequence:
    place = (report.study_instance_uid, report.study_digest, stack.series_instance_uid, str(stack.stack))
    uid = named_uid("not detected", *place, run.name, kind)
    identifier = f"{run.name} {kind}: {stack_name(stack, language)}"
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
        algorithm_id=_algorithm(run.name, run.version, report),
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(codes.kind_concept(kind), codes.NOT_DETECTED)],
    )
    said = {
        "kind": say_known("kind", kind, language),
        "detector": run.name,
        "version": run.version,
        "stack": stack_name(stack, language),
    }
    group[0].ContentSequence.append(_text(codes.COMMENT, say("line.not_detected", language, **said)))
    return group


def stack_name(stack: ExaminedStack, language: Language) -> str:
    """Return how people call a stack: series number, description, stack."""
    number = "-" if stack.series_number is None else stack.series_number
    name = f' "{stack.series_description}"' if stack.series_description else ""
    return say("stack", language, number=number, name=name, stack=stack.stack)


# The study as a whole: status, priority, what was not read and why, changes, notes


def _evaluations(context: Context, report: Report, notes: Sequence[str]) -> list[Dataset]:
    language = context.language
    status = codes.concept(_status_code("status", report.status.value, language))
    urgency = report.priority.value if report.priority else "unknown"
    priority = codes.concept(_status_code("priority", urgency, language))
    return [
        _text(codes.COMMENT, say("disclaimer", language)),
        hd.sr.CodeContentItem(codes.STUDY_STATUS, status, _CONTAINS),
        hd.sr.CodeContentItem(codes.PRIORITY, priority, _CONTAINS),
        *(_text(codes.NOT_ANALYSED, line) for line in not_analysed_lines(report, language)),
        *(_text(codes.CHANGES, line) for line in _change_lines(report, language)),
        *(_text(codes.COMMENT, line) for line in [*_note_lines(context, report), *notes]),
    ]


def _status_code(question: str, answer: str, language: Language) -> Code:
    return Code(scheme=codes.PRIVATE, value=answer.upper(), meaning=say(f"{question}.{answer}", language))


def not_analysed_lines(report: Report, language: Language) -> list[str]:
    """Return a line for each stack that no detector read and for each detector that did not read one, with reasons."""
    lines = []
    for stack in report.examined:
        if not stack.analysed:
            lines.append(_stack_line(stack, language))
        lines += [_run_line(stack, run, language) for run in stack.detectors if run.status != "ran"]
    return lines


def _stack_line(stack: ExaminedStack, language: Language) -> str:
    reason = translated(stack.reason, language) if stack.reason else say("no_reason", language)
    role = say(f"role.{stack.role.value}", language)
    return say("line.not_analysed", language, stack=stack_name(stack, language), role=role, reason=reason)


def _run_line(stack: ExaminedStack, run: DetectorRun, language: Language) -> str:
    return say(
        "line.run",
        language,
        kinds=", ".join(say_known("kind", kind, language) for kind in run.looks_for),
        detector=run.name,
        status=say(f"run.{run.status}", language),
        stack=stack_name(stack, language),
        reason=translated(run.reason, language) if run.reason else say("no_reason", language),
    )


def _change_lines(report: Report, language: Language) -> list[str]:
    if report.supersedes_digest is None and not report.changes:
        return []
    return [say("line.replaces", language, version=report.version), *(translated(c, language) for c in report.changes)]


def _stack_notes(stack: ExaminedStack, language: Language) -> list[str]:
    name = stack_name(stack, language)
    notes = [f"{name}: {translated(note, language)}" for note in stack.notes]
    if stack.working_grid is not None:
        distance = f"{stack.working_grid.max_distance_to_slice_mm:.2f}"
        notes.append(say("line.grid", language, stack=name, distance=distance))
    if stack.gaps_mm and stack.nominal_step_mm is not None:
        gaps = ", ".join(f"{gap:.2f} (×{count})" for gap, count in sorted(Counter(stack.gaps_mm).items()))
        notes.append(say("line.gaps", language, stack=name, gaps=gaps, step=f"{stack.nominal_step_mm:.2f}"))
    return notes


def _note_lines(context: Context, report: Report) -> list[str]:
    language = context.language
    notes = [line for stack in report.examined for line in _stack_notes(stack, language)]
    speaker = context.sources.speaker(report)
    if has_undeclared_latin(speaker):
        notes.append(say("note.undeclared_latin", language))
    if names := badly_written_attributes(speaker, context.sources.carried(report)):
        notes.append(say("note.badly_written", language, names=", ".join(names)))
    return [*(translated(note, language) for note in report.notes), *notes]
