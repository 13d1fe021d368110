"""From the received instances to an outcome, its report and its alert: the whole chain on one screen."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy.exc import SQLAlchemyError

from triage.core.b_values import remarks
from triage.core.dataset import parse
from triage.core.diffusion import InstanceHeader, header_from_json
from triage.core.finding import Finding, Outcome
from triage.core.lifecycle import ReportState
from triage.core.preprocess import preprocess
from triage.core.report import build_report, from_bytes, to_bytes
from triage.core.volume import DwiVolume, NotDiffusion, Reason, Rejection, VolumePlan, assemble, choose
from triage.edges.engine import step
from triage.edges.store import Assessment, BuiltReport, Conclusion, FollowUps
from triage.errors import HeaderError, origin
from triage.flow.alert import alert_workflow_id, notice_workflow_id, tell_amended
from triage.flow.deliver import deliver_workflow_id
from triage.flow.gather import as_the_operator_states
from triage.flow.line import Line

_log = logging.getLogger(__name__)


async def analyse(line: Line, series_id: int, after_instance_id: int, because: str) -> None:
    """Workflow: judge the instances received so far, then deliver the report and raise the alert."""
    follow_ups = await step(assess, line, series_id, after_instance_id, because)
    if follow_ups.alert_id is not None:
        workflow_id = alert_workflow_id(follow_ups.alert_id)
        await line.engine.start_child("alert", workflow_id, follow_ups.alert_id)
        if follow_ups.is_amended:
            await step(tell_amended, line, follow_ups.alert_id)
    if follow_ups.report_id is not None:
        await line.engine.start_child(
            "deliver", deliver_workflow_id(follow_ups.report_id), follow_ups.report_id
        )
    if follow_ups.refused_result_id is not None and line.on_call.technologists:
        workflow_id = notice_workflow_id(follow_ups.refused_result_id)
        await line.engine.start_child("tell_technologist", workflow_id, follow_ups.refused_result_id)


def assess(line: Line, series_id: int, after_instance_id: int, because: str) -> FollowUps:
    """Judge the series and keep the outcome with its report and its alert. Safe to run again."""
    assessment = line.store.begin_assessment(series_id, after_instance_id, line.now(), because)
    stored = line.store.headers_after(series_id, 0, up_to=assessment.up_to_instance_id)
    headers = as_the_operator_states(line, series_id, (header_from_json(header) for _, header in stored))
    try:
        judgement = judge(line, assessment, headers)
    except (OSError, SQLAlchemyError):
        # The disk or the database: no property of the series. The step is tried again.
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, the series must end in an outcome that is shown
        _log.error("assessment_failed series=%d reason=%s", series_id, origin(error))
        judgement = _unjudged(
            line, headers, Rejection(Reason.INFERENCE_FAILED, f"internal error: {type(error).__name__}")
        )
    if _is_only_gone(line, assessment, judgement):
        _log.info("series_left series=%d", series_id)
        line.store.leave(assessment, line.now(), "images came after the others had been deleted here")
        return FollowUps()
    if isinstance(judgement, NotDiffusion):
        _log.info("series_ignored series=%d", series_id)
        line.store.ignore(assessment, line.now(), judgement.detail)
        return FollowUps()
    return _conclude(line, assessment, judgement, remarks(headers))


def _is_only_gone(line: Line, assessment: Assessment, judgement: "Judgement | NotDiffusion") -> bool:
    """Whether there is nothing to judge but what retention deleted: the earlier result must stand."""
    return (
        isinstance(judgement, Judgement)
        and isinstance(judgement.outcome, Rejection)
        and judgement.outcome.reason is Reason.UNREADABLE
        and line.store.was_freed(assessment.series_id)
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome, and what it was reached on: the volume and the headers of its sources."""

    outcome: Outcome
    plan: VolumePlan | None
    evidence: Sequence[Dataset]


def judge(line: Line, assessment: Assessment, headers: Sequence[InstanceHeader]) -> Judgement | NotDiffusion:
    """headers -> volume -> network input -> probability -> finding; a Rejection wherever that ends early."""
    dicom = line.config.dicom
    plan = choose(headers, b_window=dicom.b_window)
    match plan:
        case NotDiffusion():
            return plan
        case Rejection():
            return _unjudged(line, headers, plan)
    sources = _read_sources(line, plan.source_sop_instance_uids)
    if isinstance(sources, Rejection):
        return _unjudged(line, headers, sources)
    volume = assemble(plan, sources, limit_bytes=dicom.series_limit_bytes)
    evidence = [_without_pixels(source) for source in sources.values()]
    match volume:
        case Rejection():
            return Judgement(volume, plan, evidence)
        case DwiVolume():
            return Judgement(_infer(line, assessment, volume), plan, evidence)


def _infer(line: Line, assessment: Assessment, volume: DwiVolume) -> Outcome:
    prepared = preprocess(volume, line.model.spec.preprocessing)
    try:
        line.shelf.put(assessment.result_id, volume, prepared.slice_positions)
    except OSError as error:
        # Only the page's pictures: no reason to keep an outcome back.
        _log.error("volume_not_kept series=%d reason=%s", assessment.series_id, error.strerror)
    try:
        probability = line.model.probability(prepared.input_ZYX)
    except (RuntimeError, ValueError) as error:
        return Rejection(Reason.INFERENCE_FAILED, f"the network gave no answer: {type(error).__name__}")
    return Finding(probability, line.threshold)


def _conclude(line: Line, assessment: Assessment, judgement: Judgement, said: Sequence[str]) -> FollowUps:
    outcome, plan, spec = judgement.outcome, judgement.plan, line.model.spec
    at = line.now()
    follow_ups = line.store.conclude(
        assessment,
        Conclusion(
            sources_sha256=_digest(judgement),
            category=outcome.category.value if isinstance(outcome, Finding) else None,
            probability=outcome.probability if isinstance(outcome, Finding) else None,
            threshold=line.threshold,
            reason=outcome.reason.value if isinstance(outcome, Rejection) else None,
            detail=outcome.detail if isinstance(outcome, Rejection) else None,
            b_value=plan.b_value if plan else None,
            volume_kind=plan.kind.value if plan else None,
            slices=plan.slice_count if plan else None,
            spacing_mm=json.dumps(plan.spacing_mm) if plan else None,
            model_name=spec.name,
            model_version=spec.version,
            model_sha256=spec.sha256,
            model_status=spec.status,
        ),
        report=_build_report(line, assessment, judgement, at),
        urgent=isinstance(outcome, Finding) and outcome.category.is_urgent,
        at=at,
        note="; ".join([_note(outcome), *said]),
    )
    _log.info("series_concluded series=%d outcome=%s", assessment.series_id, _note(outcome))
    return follow_ups


def _build_report(
    line: Line, assessment: Assessment, judgement: Judgement, at: datetime
) -> BuiltReport | None:
    """The report with its UID minted, or None where the source headers do not allow one.

    The outcome and the alert must not wait for a report that can never be built.
    """
    previous = line.store.newest_report(assessment.series_id)
    sop_instance_uid = generate_uid()
    try:
        report = build_report(
            evidence=judgement.evidence,
            outcome=judgement.outcome,
            model=line.model.spec,
            sop_instance_uid=sop_instance_uid,
            series_instance_uid=generate_uid(),
            device_uid=line.device_uid,
            created_at=at.astimezone(),
            predecessor=None if previous is None else from_bytes(previous.dicom),
        )
        content = to_bytes(report)
    except Exception as error:  # noqa: BLE001 - any malformed attribute of a source header can end here
        _log.error("report_not_built series=%d reason=%s", assessment.series_id, origin(error))
        return None
    state = ReportState.PENDING if line.config.pacs.address else ReportState.NONE
    return BuiltReport(sop_instance_uid, content, state)


def _note(outcome: Outcome) -> str:
    match outcome:
        case Finding():
            return f"{outcome.category.value} probability {outcome.probability:.2f}"
        case Rejection():
            return f"not assessed: {outcome.reason.value}"


def _digest(judgement: Judgement) -> str:
    """What the outcome rests on. The same sources give the same outcome; a rejection is part of it."""
    outcome = judgement.outcome
    why = (outcome.reason.value, outcome.detail) if isinstance(outcome, Rejection) else ()
    uids = judgement.plan.source_sop_instance_uids if judgement.plan else ()
    return hashlib.sha256("\n".join([*why, *uids]).encode()).hexdigest()


def _unjudged(line: Line, headers: Sequence[InstanceHeader], rejection: Rejection) -> Judgement:
    """A rejection before any volume was chosen: the report refers to every image of the series."""
    uids = tuple(header.sop_instance_uid for header in headers if header.frames)
    kept = _read_back(line, uids or tuple(header.sop_instance_uid for header in headers))
    evidence = []
    for _, content in kept:
        with contextlib.suppress(HeaderError):
            evidence.append(parse(content, with_pixels=False))
    return Judgement(rejection, None, evidence)


def _read_sources(line: Line, sop_instance_uids: Sequence[str]) -> dict[str, Dataset] | Rejection:
    """The data sets with their pixels, by SOP Instance UID, or why they cannot all be had."""
    sources: dict[str, Dataset] = {}
    limit_bytes, size_bytes = line.config.dicom.series_limit_bytes, 0
    for uid, content in _read_back(line, sop_instance_uids):
        size_bytes += len(content)
        if size_bytes > limit_bytes:
            return Rejection(Reason.UNREADABLE, f"its images exceed {limit_bytes >> 20} MiB")
        try:
            sources[uid] = parse(content, with_pixels=True, limit_bytes=limit_bytes)
        except HeaderError as error:
            return Rejection(Reason.UNREADABLE, str(error))
    if len(sources) == len(sop_instance_uids):
        return sources
    found = f"{len(sources)} of {len(sop_instance_uids)} images could be read back from disk"
    return Rejection(Reason.UNREADABLE, found)


def _read_back(line: Line, sop_instance_uids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """UID and bytes of the instances that can be read back from the inbox."""
    for uid, sha256 in line.store.contents(sop_instance_uids).items():
        try:
            yield uid, line.inbox.read(sha256)
        except OSError as error:
            _log.error("instance_not_readable reason=%s", error.strerror)


def _without_pixels(dataset: Dataset) -> Dataset:
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            del dataset[keyword]
    return dataset
