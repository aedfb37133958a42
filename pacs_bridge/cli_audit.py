"""``ctriage audit``: is the trail whole, and what does it say? What it shows names patients; it was asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pacs_bridge.cli_options import AsJson, Config, ExitStatus, Set, settings_from, told_apart

if TYPE_CHECKING:
    from pacs_bridge.audit_chain import Link, Record, Verdict
    from pacs_bridge.settings import Settings

audit = typer.Typer(help="The trail of who sent, who received and who was refused.", no_args_is_help=True)

Head = Annotated[
    str | None,
    typer.Option("--head", metavar="NUMBER:HASH", help="A head noted earlier; the trail must still lead through it."),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], help="Local time; only later."
    ),
]
AsXml = Annotated[bool, typer.Option("--xml", help="Print XML messages, one a line, for an audit record repository.")]
Study = Annotated[str | None, typer.Option("--study", metavar="KEY", help="Only one study, by its key or its UID.")]


@audit.command()
def verify(
    head: Head = None,
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Walk along the whole chain: status 0 where it holds, 1 where it does not, with each line that is wrong.

    Prints the head, number and hash of the last record. Note it elsewhere: who can write all files of this machine
    could write the trail anew, but not so that it leads through a head noted before.
    """
    from pacs_bridge.audit_chain import verify as walk
    from pacs_bridge.audit_trail import folder_of, read_key, read_lines
    from pacs_bridge.terminal import print_json

    noted = _noted(head)
    folder = folder_of(settings_from(config, overrides))
    with told_apart(), _readable(folder):
        verdict = walk(read_lines(folder), read_key(folder), noted=noted)
    if as_json:
        print_json(_as_json(verdict))
    else:
        _print_verdict(verdict)
    raise typer.Exit(ExitStatus.OK if verdict.intact else ExitStatus.FAILED)


@audit.command()
def show(
    since: Since = None,
    study: Study = None,
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
    as_xml: AsXml = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Show what the trail says, the oldest first; with --json or --xml as DICOM audit messages (PS3.15, A.5)."""
    from pacs_bridge.audit_trail import folder_of
    from pacs_bridge.audit_xml import as_xml as written
    from pacs_bridge.terminal import print_json, print_table

    settings = settings_from(config, overrides)
    with told_apart(), _readable(folder_of(settings)):
        records = list(_chosen(settings, since, study))
    if as_xml:
        for each in records:
            typer.echo(written(each.message))
        return
    if as_json:
        print_json({"records": [{"number": each.link.number, **each.message} for each in records]})
        return
    columns = ("number", "at", "what", "with whom", "study", "patient", "images", "outcome")
    print_table("audit trail", columns, [_row(each) for each in records])


def _noted(head: str | None) -> "Link | None":
    from pacs_bridge.audit_chain import link_of

    try:
        return None if head is None else link_of(head)
    except ValueError:
        raise typer.BadParameter(f"--head {head}: write it as `ctriage audit verify` prints it, NUMBER:HASH") from None


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Turn what hinders reading into a message: the trail is for the service's user alone."""
    from pacs_bridge.terminal import complain

    try:
        yield
    except OSError as refused:
        complain(f"{folder}: {(refused.strerror or str(refused)).lower()}; run this as the user who runs the service")
        raise typer.Exit(ExitStatus.FAILED) from refused


# ---- verify ---------------------------------------------------------------------------------------------------------


def _as_json(verdict: "Verdict") -> dict[str, Any]:
    return {
        "intact": verdict.intact,
        "records": verdict.records,
        "first": verdict.first and verdict.first.number,
        "head": verdict.head and str(verdict.head),
        "breaks": [{"place": each.place, "what": each.what} for each in verdict.breaks],
        "torn": list(verdict.tears),
    }


def _print_verdict(verdict: "Verdict") -> None:
    from pacs_bridge.terminal import print_table

    if verdict.tears:
        typer.echo(f"Torn by power cuts, and answered for by the record after: {', '.join(verdict.tears)}")
    if verdict.breaks:
        print_table("the chain is broken", ("where", "what"), [(each.place, each.what) for each in verdict.breaks])
    if verdict.head:
        holds = "holds" if verdict.intact else "is broken"
        typer.echo(f"{verdict.records} records; the chain {holds}. Head: {verdict.head}")
    else:
        typer.echo("There is no record.")


# ---- show -----------------------------------------------------------------------------------------------------------


def _chosen(settings: "Settings", since: datetime | None, study: str | None) -> Iterator["Record"]:
    from pacs_bridge.audit_chain import opened
    from pacs_bridge.audit_trail import folder_of, read_key, read_lines

    key = read_key(folder_of(settings))
    names = {study, _uid_of(settings.database, study)} if study else set[str | None]()
    for line in read_lines(folder_of(settings)):
        record = opened(line.content, key)
        if record is None or (since and _at(record) < since.astimezone()):
            continue
        if not names or names & {*_ids(record, "110180"), *_study_keys(record)}:
            yield record


def _uid_of(database: Path, key: str) -> str | None:
    """Look a study's UID up in the index; None where it does not know the key, or is not there."""
    from pacs_bridge.errors import BridgeError
    from pacs_bridge.status import read_status

    try:
        (study,) = read_status(database, key)["studies"]
    except (BridgeError, ValueError):
        return None
    return str(study["study_instance_uid"])


def _at(record: "Record") -> datetime:
    return datetime.fromisoformat(record.message["EventIdentification"]["EventDateTime"])


def _ids(record: "Record", code: str) -> list[str]:
    objects = record.message["ParticipantObjectIdentification"]
    return [
        str(each["ParticipantObjectID"]) for each in objects if each["ParticipantObjectIDTypeCode"]["csd-code"] == code
    ]


def _study_keys(record: "Record") -> list[str]:
    objects = record.message["ParticipantObjectIdentification"]
    studies = (each for each in objects if each["ParticipantObjectIDTypeCode"]["csd-code"] == "110180")
    return [name for each in studies if (name := str(each["ParticipantObjectName"]))]


def _row(record: "Record") -> Sequence[object]:
    event = record.message["EventIdentification"]
    kinds = [kind["originalText"] for kind in event.get("EventTypeCode", ())]
    others = record.message["ActiveParticipant"][1:]
    return (
        record.link.number,
        f"{_at(record).astimezone():%Y-%m-%d %H:%M:%S}",
        ": ".join([event["EventID"]["originalText"], *kinds]),
        ", ".join(_named(each) for each in others) or None,
        ", ".join(_study_keys(record) or _ids(record, "110180")) or None,
        ", ".join(_ids(record, "2")) or None,
        _images(record) or None,
        "; ".join([event.get("EventOutcomeDescription", _outcome(event)), *_decided(record)]),
    )


def _outcome(event: dict[str, Any]) -> str:
    return "ok" if event["EventOutcomeIndicator"] == "0" else "failed"


def _decided(record: "Record") -> Iterator[str]:
    """Say what was decided about a study, by a person or by a rule."""
    for each in record.message["ParticipantObjectIdentification"]:
        if each["ParticipantObjectIDTypeCode"]["csd-code"] == "110180":
            yield from (f"{detail['type']}: {detail['value']}" for detail in each.get("ParticipantObjectDetail", ()))


_WAYS: Final = {"110153": "from ", "110152": "to "}
"""By role of the other side in a transfer: Source, Destination."""


def _named(participant: dict[str, Any]) -> str:
    name, address = participant["UserID"], participant.get("NetworkAccessPointID")
    way = next((_WAYS.get(role["csd-code"], "") for role in participant.get("RoleIDCode", ())), "")
    return way + (f"{name}@{address}" if address and address != name else str(name))


def _images(record: "Record") -> int:
    objects = record.message["ParticipantObjectIdentification"]
    classes = (each.get("ParticipantObjectDescription", {}).get("SOPClass", ()) for each in objects)
    return sum(int(each["NumberOfInstances"]) for of_one in classes for each in of_one)
