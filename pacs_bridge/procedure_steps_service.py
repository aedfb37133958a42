"""The MPPS service: procedure steps as scanners report them, kept in a table, their lists handed to the arrival."""

import json
import sqlite3
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from pacs_bridge.arrival import ExpectedInstances
from pacs_bridge.instance import is_uid
from pacs_bridge.procedure_steps import (
    PerformedSeries,
    ProcedureStep,
    StepAnswer,
    StepRefused,
    attributes_of,
    changed,
    created,
    lists_of,
)
from pacs_bridge.services import ServiceAnswer, ServiceRequest
from scheduler.database import Database, migrate, statements

KEPT_FOR: Final = timedelta(days=30)
_log = structlog.get_logger()


class ProcedureSteps:
    """Answers N-CREATE and N-SET on procedure steps. Threads may share it."""

    def __init__(
        self, database: Database, *, declare: Callable[[ExpectedInstances], None], now: Callable[[], datetime]
    ) -> None:
        """Bring the table up to date; ``declare`` keeps a list for good, and is told it again when it had no end."""
        self._database = database
        self._declare = declare
        self._now = now
        self._lock = threading.Lock()
        migrate(database, "pacs_bridge", "sql/migrations")
        self._sql = statements("pacs_bridge", "sql/procedure_steps.sql")

    def __call__(self, request: ServiceRequest) -> ServiceAnswer:
        """Follow one request; Success means that what it says is on the disk."""
        try:
            with self._lock:
                return self._followed(request)
        except StepRefused as refused:
            status, reason = refused.status, refused.reason
        except (sqlite3.OperationalError, OSError) as problem:
            status, reason = StepAnswer.NO_RESOURCES, str(problem)
        _log.warning("procedure_step_refused", caller=request.calling_ae, status=f"0x{status:04X}", reason=reason)
        return ServiceAnswer(status=status)

    def step(self, sop_instance_uid: str) -> ProcedureStep | None:
        """Return a step as it stands; None where there is none of this name."""
        row = self._found(sop_instance_uid)
        return None if row is None else _read_back(json.loads(row["said"]))

    def _found(self, sop_instance_uid: str) -> sqlite3.Row | None:
        with self._database.read() as connection:
            found = connection.execute(self._sql["step"], {"sop_instance_uid": sop_instance_uid}).fetchone()
        return found if isinstance(found, sqlite3.Row) else None

    def _followed(self, request: ServiceRequest) -> ServiceAnswer:
        if request.kind == "n_create":
            return self._create(request)
        if request.kind == "n_set":
            return self._set(request)
        raise StepRefused(StepAnswer.NO_SUCH_OPERATION, f"{request.kind} is not for procedure steps")

    def _create(self, request: ServiceRequest) -> ServiceAnswer:
        name = request.sop_instance_uid or f"2.25.{uuid.uuid4().int}"
        if not is_uid(name):
            raise StepRefused(StepAnswer.INVALID_INSTANCE, "the SOP Instance UID is none")
        step = created(attributes_of(request.dataset, request.transfer_syntax))
        with self._database.transaction() as connection:
            connection.execute(self._sql["forget"], {"before": (self._now() - KEPT_FOR).isoformat()})
            row = {**self._row(name, step), "calling_ae": request.calling_ae}
            if connection.execute(self._sql["add"], row).fetchone() is None:
                raise StepRefused(StepAnswer.DUPLICATE, "there is a step of this SOP Instance UID")
        return ServiceAnswer(status=StepAnswer.SUCCESS, sop_instance_uid=name)

    def _set(self, request: ServiceRequest) -> ServiceAnswer:
        row = self._found(request.sop_instance_uid)
        if row is None:
            raise StepRefused(StepAnswer.UNKNOWN_INSTANCE, "there is no step of this SOP Instance UID")
        if row["calling_ae"] != request.calling_ae:
            raise StepRefused(
                StepAnswer.NOT_AUTHORISED, "the step was created under another AE title: set it under that"
            )
        before = _read_back(json.loads(row["said"]))
        after = changed(before, attributes_of(request.dataset, request.transfer_syntax))
        # The lists first: when we end between the two, the scanner's next try tells them again, which does no harm.
        for each in lists_of(after, self._now()):
            self._declare(each)
        with self._database.transaction() as connection:
            connection.execute(self._sql["change"], self._row(request.sop_instance_uid, after))
        if after.status != before.status:
            _log.info("procedure_step_ended", caller=request.calling_ae, status=after.status, series=len(after.series))
        return ServiceAnswer(status=StepAnswer.SUCCESS, sop_instance_uid=request.sop_instance_uid)

    def _row(self, name: str, step: ProcedureStep) -> dict[str, Any]:
        said = json.dumps(asdict(step), default=sorted)  # sets of names, in order
        return {"sop_instance_uid": name, "status": step.status, "said": said, "at": self._now().isoformat()}


def _read_back(said: dict[str, Any]) -> ProcedureStep:
    series = tuple(
        PerformedSeries(
            series_instance_uid=each["series_instance_uid"],
            images=frozenset(each["images"]),
            others=frozenset(each["others"]),
        )
        for each in said["series"]
    )
    return ProcedureStep(**{**said, "studies": tuple(said["studies"]), "series": series})
