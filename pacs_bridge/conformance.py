"""What does ctriage, with these settings, claim to conform to? Its DICOM conformance statement (PS3.2, Annex A)."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Final

from pynetdicom import DEFAULT_TRANSFER_SYNTAXES

from pacs_bridge.conformance_objects import COMMON, CREATED, WHERE_KNOWN, CreatedObject
from pacs_bridge.conformance_page import Block, Drawing, Grid, Section
from pacs_bridge.conformance_services import (
    C_ECHO_ANSWERS,
    C_STORE_ANSWERS,
    C_STORE_REPLIES,
    COMMITMENT_REASONS,
    N_ANSWERS,
    ToldStatus,
)
from pacs_bridge.forward_reconcile import STUDY_ROOT_FIND
from pacs_bridge.negotiation import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PROCEDURE_STEP,
    STORAGE_COMMITMENT,
    VERIFICATION,
    SupportedContext,
    class_name,
    services_of,
    storage_classes,
    supported_contexts,
)
from pacs_bridge.results.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_bridge.settings import Destination, Settings
from pipeline.model import KeptKind

NOT_A_DEVICE: Final = "Not a medical device; for research and triage support."
_ANY_SYNTAX: Final = "any: the first one proposed"
_CONTEXT: Final = ("abstract syntax", "UID", "transfer syntaxes", "role", "extended negotiation")
_STATUS: Final = ("further meaning", "status", "when")
_FLOW: Final = (
    "  scanner, PACS --C-STORE, MPPS, commitment-->  +---------+",
    "                                                | ctriage | --C-STORE (results, forwarded images)--> PACS, peers",
    "  callers       <--N-EVENT-REPORT-------------  +---------+ --commitment request-->  <--N-EVENT-REPORT--",
)


def statement(settings: Settings, *, version: str, on: date) -> Section:
    """Return the conformance statement of ctriage ``version`` with these settings; pure."""
    return Section(
        title=f"DICOM Conformance Statement: ctriage {version}",
        blocks=[f"Made on {on.isoformat()} from the settings in force. {NOT_A_DEVICE}"],
        parts=[
            _overview(settings),
            _introduction(version, on),
            _networking(settings),
            Section(title="Media Interchange", blocks=["Media interchange is not supported."]),
            _character_sets(),
            _security(settings),
            _annexes(settings),
        ],
    )


# ---- overview -------------------------------------------------------------------------------------------------------


def _overview(settings: Settings) -> Section:
    text = (
        "ctriage receives images, analyses CT series for findings that cannot wait, and sends its results (structured "
        "reports, segmentations, key images, derived series) and, where told to, the images themselves to others."
    )
    grid = Grid(
        title="Network services",
        columns=("SOP class", "user of service (SCU)", "provider of service (SCP)"),
        rows=list(_services(settings)),
    )
    return Section(title="Conformance Statement Overview", blocks=[text, grid])


def _services(settings: Settings) -> Iterator[tuple[str, str, str]]:
    yield "Verification", "Yes", "Yes"
    yield "every storage class of PS3.4, B.5, and private ones", "Yes" if settings.forward else "see below", "Yes"
    for sop_class in dict.fromkeys(told.sop_class_uid for told in _sent(settings)):
        yield class_name(sop_class), "Yes", "Yes"
    offered = services_of(settings)
    yield "Modality Performed Procedure Step", "No", _yes(PROCEDURE_STEP in offered)
    asks = any(destination.commitment for destination in settings.destination)
    commits = any(settings.commitment_of(caller) != "off" for caller in settings.caller)
    yield "Storage Commitment Push Model", _yes(asks), _yes(commits)
    if settings.forward:
        yield class_name(STUDY_ROOT_FIND), "Yes", "No"


def _sent(settings: Settings) -> list[CreatedObject]:
    wanted = {kind for destination in settings.destination for kind in _kinds_for(destination)}
    return [told for told in CREATED if wanted & set(told.kinds)]


def _kinds_for(destination: Destination) -> set[KeptKind]:
    """Return the kinds of results that a destination gets, rejection notes where it wants them."""
    rejections: tuple[KeptKind, ...] = ("rejection",) if destination.iocm else ()
    return {*destination.send, *rejections}


def _introduction(version: str, on: date) -> Section:
    return Section(
        title="Introduction",
        parts=[
            Section(
                title="Revision History",
                blocks=[Grid(title="Revisions", columns=("version", "date"), rows=[(version, on.isoformat())])],
            ),
            Section(
                title="Audience, Remarks, Terms and Abbreviations",
                blocks=[
                    "For those who connect ctriage with scanners, archives and viewers, and know DICOM. A statement of "
                    "conformance does not replace a test of the connection. AE: Application Entity; SCU, SCP: user and "
                    "provider of a service; MPPS: Modality Performed Procedure Step; SOP: Service-Object Pair; KO: key "
                    "object selection; SR: structured report; IOCM: imaging object change management (IHE)."
                ],
            ),
            Section(title="References", blocks=["DICOM PS3.1 to PS3.22, the edition current in 2025."]),
        ],
    )


# ---- networking -----------------------------------------------------------------------------------------------------


def _networking(settings: Settings) -> Section:
    return Section(
        title="Networking",
        parts=[
            Section(title="Implementation Model", parts=_implementation_model()),
            Section(title="AE Specifications", parts=[_ae(settings)]),
            _interfaces(settings),
            _configuration(settings),
        ],
    )


def _implementation_model() -> list[Section]:
    functions = (
        "One Application Entity receives and sends. It accepts instances, keeps them as they came, tells when a series "
        "is complete (procedure steps and commitment requests that list its images, counts in headers, contiguous "
        "slices, a quiet period), analyses it, builds result objects once and delivers them to each destination, which "
        "has a queue of its own and is tried again by itself."
    )
    sequence = (
        "Storage comes before analysis, and the report before the pictures. Images that come late make a new version "
        "of the report, which names the one it supersedes; destinations with `iocm` get a rejection note for the old."
    )
    return [
        Section(title="Application Data Flow", blocks=[Drawing(lines=_FLOW)]),
        Section(title="Functional Definition of AEs", blocks=[functions]),
        Section(title="Sequencing of Real-World Activities", blocks=[sequence]),
    ]


def _ae(settings: Settings) -> Section:
    return Section(
        title=f"{settings.listener.ae_title}",
        parts=[
            _sop_classes(settings),
            Section(title="Association Policies", parts=_policies(settings)),
            Section(title="Association Initiation Policy", parts=list(_initiated(settings))),
            _acceptance(settings),
        ],
    )


def _sop_classes(settings: Settings) -> Section:
    sent = {told.sop_class_uid for told in _sent(settings)}
    asks = any(destination.commitment for destination in settings.destination)
    ours = {VERIFICATION, *((STORAGE_COMMITMENT,) if asks else ())}
    rows = [
        (each.name, each.sop_class_uid, "SCU, SCP" if each.sop_class_uid in ours else "SCP")
        for each in supported_contexts(services_of(settings))
    ]
    if settings.forward:
        rows.append((class_name(STUDY_ROOT_FIND), STUDY_ROOT_FIND, "SCU"))
    for uid in storage_classes():
        rows.append((class_name(uid), uid, "SCU, SCP" if settings.forward or uid in sent else "SCP"))
    grid = Grid(title="SOP classes", columns=("SOP class", "UID", "role"), rows=rows)
    text = "This AE provides Standard Conformance to the following SOP Classes."
    also = "Instances of private SOP classes, and of storage classes that are not known yet, are kept likewise."
    return Section(title="SOP Classes", blocks=[text, grid, also])


def _policies(settings: Settings) -> list[Section]:
    listener = settings.listener
    general = [
        ("application context", "1.2.840.10008.3.1.1.1"),
        ("maximum PDU size received", f"{listener.maximum_pdu_kb * 1024} bytes"),
        ("largest instance", f"{listener.maximum_instance_mb} MB"),
        ("idle associations are aborted after", f"{listener.idle_s:g} s"),
    ]
    numbers = [("as acceptor, in all", listener.maximum_associations)]
    numbers += [(f"as initiator, to {each.name}", each.associations) for each in settings.destination]
    identity = [
        ("implementation class UID", IMPLEMENTATION_CLASS_UID),
        ("implementation version name", IMPLEMENTATION_VERSION_NAME),
    ]
    limits = ("what", "value")
    return [
        Section(title="General", blocks=[Grid(title="General", columns=limits, rows=general)]),
        Section(title="Number of Associations", blocks=[Grid(title="At once", columns=limits, rows=numbers)]),
        Section(title="Asynchronous Nature", blocks=["One outstanding operation at a time; no window is negotiated."]),
        Section(
            title="Implementation Identifying Information",
            blocks=[
                Grid(title="Identity", columns=limits, rows=identity),
                "They stand in the file meta information of result objects; on associations the toolkit (pynetdicom) "
                "names itself.",
            ],
        ),
    ]


def _initiated(settings: Settings) -> Iterator[Section]:
    for destination in settings.destination:
        yield _sends_to(settings, destination)
    if not settings.destination:
        yield Section(title="Send", blocks=["No destination is set: no association is initiated for results."])
    if any(settings.commitment_of(caller) != "off" for caller in settings.caller):
        yield _reports()
    if settings.forward:
        text = "`ctriage forward reconcile` asks a destination which images it holds, when a person asks for it."
        yield Section(title="Reconcile", blocks=[text, _proposed(STUDY_ROOT_FIND, _PLAIN)])
    text = "`ctriage check` sends C-ECHO to each destination when a person asks for it."
    yield Section(
        title="Check", blocks=[text, _proposed(VERIFICATION, ", ".join(map(class_name, DEFAULT_TRANSFER_SYNTAXES)))]
    )


def _proposed(sop_class: str, syntaxes: str) -> Grid:
    rows = [(class_name(sop_class), sop_class, syntaxes, "SCU", "none")]
    return Grid(title="Proposed presentation contexts", columns=_CONTEXT, rows=rows)


def _sends_to(settings: Settings, peer: Destination) -> Section:
    forwards = [rule for rule in settings.forward if rule.to == peer.name]
    rows: list[tuple[str, ...]] = [
        (class_name(told.sop_class_uid), told.sop_class_uid, _PLAIN, "SCU", "none")
        for told in CREATED
        if set(told.kinds) & _kinds_for(peer)
    ]
    if forwards:
        rows.append(("the class of each image", "as received", f"as received; {_PLAIN}", "SCU", "none"))
    if peer.commitment:
        rows.append((class_name(STORAGE_COMMITMENT), STORAGE_COMMITMENT, class_name(IMPLICIT_LITTLE), "SCU", "none"))
    text = (
        f"Results of the kinds {', '.join(peer.send)} go to `{peer.ae_title}` at {peer.host}:{peer.port}"
        f"{' over TLS' if peer.tls else ''} when a report is committed"
        f"{', and images by ' + str(len(forwards)) + ' rule(s) of the settings' if forwards else ''}. Each pair of SOP "
        "class and transfer syntax is proposed in a presentation context of its own; what a peer does not take as it "
        "is is decoded for it."
    )
    return Section(
        title=f"Send to {peer.name}",
        blocks=[
            text,
            Grid(title="Proposed presentation contexts", columns=_CONTEXT, rows=list(dict.fromkeys(rows))),
            _statuses("What follows from the status of a C-STORE response", C_STORE_REPLIES),
            f"What was sent is delivered when the peer has {'committed to it' if peer.commitment else 'answered'}.",
        ],
    )


def _reports() -> Section:
    rows = [
        (
            class_name(STORAGE_COMMITMENT),
            STORAGE_COMMITMENT,
            class_name(IMPLICIT_LITTLE),
            "SCP",
            "SCP/SCU role selection",
        )
    ]
    return Section(
        title="Report a commitment",
        blocks=[
            "The outcome of a storage commitment request is reported on the association it came over while that is "
            "open, else on a new one to the caller's port, also after a restart.",
            Grid(title="Proposed presentation contexts", columns=_CONTEXT, rows=rows),
        ],
    )


def _acceptance(settings: Settings) -> Section:
    contexts = supported_contexts(services_of(settings))
    parts = [_receive(settings)]
    parts += [_service(each) for each in contexts]
    return Section(title="Association Acceptance Policy", blocks=list(_callers(settings)), parts=parts)


def _callers(settings: Settings) -> Iterator[Block]:
    if not settings.caller:
        yield "Only senders on this machine are let in: no caller is named in the settings."
    else:
        rows = [(each.ae_title, each.address, _yes(each.tls), settings.commitment_of(each)) for each in settings.caller]
        yield Grid(title="Callers let in", columns=("AE title", "address", "TLS only", "commitment"), rows=rows)
    yield Grid(title="Association rejection", columns=("reason", "result, source, reason", "when"), rows=_REJECTIONS)


def _receive(settings: Settings) -> Section:
    rows = [(class_name(uid), uid, _ANY_SYNTAX, "SCP", "none") for uid in storage_classes()]
    rows.append(("private storage classes, and those not known yet", "any", _ANY_SYNTAX, "SCP", "none"))
    text = (
        "Level 2 storage (PS3.4, B.4.1): every attribute, standard or private, is kept, byte for byte, in the transfer "
        "syntax of the sender. Nothing is coerced. What was received is kept until the rules of retention remove it: "
        f"{_retention(settings)}"
    )
    return Section(
        title="Receive (Storage)",
        blocks=[
            text,
            Grid(title="Accepted presentation contexts", columns=_CONTEXT, rows=rows),
            _statuses("C-STORE response statuses", C_STORE_ANSWERS),
        ],
    )


def _retention(settings: Settings) -> str:
    days, below = settings.retention.days, settings.retention.below_free_mb
    rules = [f"{days:g} days after the last image"] if days else []
    rules += [f"when less than {below} MB are free, the oldest first"] if below else []
    return f"delivered studies go {' and '.join(rules)}." if rules else "none is set, it is kept for good."


def _service(context: SupportedContext) -> Section:
    syntaxes = ", ".join(map(class_name, context.transfer_syntaxes))
    roles = "SCP" if not context.scp else "SCP; SCU after role selection"
    role_selection = "SCP/SCU role selection" if context.scp else "none"
    row = (context.name, context.sop_class_uid, syntaxes, roles, role_selection)
    grid = Grid(title="Accepted presentation contexts", columns=_CONTEXT, rows=[row])
    return Section(title=context.name, blocks=[grid, *_answers(context.sop_class_uid)])


def _answers(sop_class: str) -> Iterator[Block]:
    if sop_class == VERIFICATION:
        yield _statuses("C-ECHO response statuses", C_ECHO_ANSWERS)
    else:
        yield _statuses("Response statuses", N_ANSWERS[sop_class])
    if sop_class == PROCEDURE_STEP:
        yield "N-CREATE and N-SET are supported. A step tells which images its series have: evidence of completeness."
    if sop_class == STORAGE_COMMITMENT:
        yield (
            "N-ACTION type 1 is supported. N-EVENT-REPORT of type 1 tells that all instances are committed to, of type "
            "2 which are not, each with its reason. Commitment `relay` succeeds when each destination that commits and "
            "that the instance is forwarded to has committed to it (all that commit, where it is forwarded to none); "
            "`own` promises that this archive keeps it, and retention never removes it."
        )
        yield _statuses("Failure reasons (0008,1197)", COMMITMENT_REASONS)


def _interfaces(settings: Settings) -> Section:
    listener = settings.listener
    rows = [("DICOM", f"{listener.host}:{listener.port}")] if listener.port else []
    rows += [("DICOM over TLS", f"{listener.host}:{listener.tls_port}")] if listener.tls_port else []
    return Section(
        title="Network Interfaces",
        blocks=[
            "DICOM Upper Layer over TCP/IP, IPv4 and IPv6, on whatever network the operating system offers.",
            Grid(title="Listens on", columns=("what", "address"), rows=rows),
        ],
    )


def _configuration(settings: Settings) -> Section:
    rows = [(each.name, each.ae_title, each.host, each.port, _yes(each.tls)) for each in settings.destination]
    remote = Grid(title="Remote AEs", columns=("name", "AE title", "host", "port", "TLS"), rows=rows)
    arrival = settings.arrival
    parameters = [
        ("quiet period", f"{arrival.quiet_s:g} s"),
        ("wait for announced images", f"{arrival.declared_s:g} s"),
        ("free space kept", f"{settings.disk.free_mb} MB"),
        ("language of results", settings.language),
        ("forwarding rules", len(settings.forward)),
    ]
    return Section(
        title="Configuration",
        blocks=[
            "Everything is set in one file (TOML), in the environment or on the command line; see docs/SETTINGS.md.",
            remote,
            Grid(title="Parameters", columns=("what", "value"), rows=parameters),
        ],
    )


# ---- the rest -------------------------------------------------------------------------------------------------------


def _character_sets() -> Section:
    text = (
        "Every character set is kept as it came. Results carry the source's Specific Character Set where it can hold "
        "the result's own text, else ISO_IR 192 (UTF-8). Undeclared text that is not ASCII is read as ISO_IR 100."
    )
    return Section(title="Support of Character Sets", blocks=[text])


def _security(settings: Settings) -> Section:
    tls = (
        "Secure transport connections of PS3.15, B.12 (BCP 195): TLS 1.2 and newer" if _has_tls(settings) else "No TLS"
    )
    mutual = "; callers must show a certificate" if settings.tls.mutual and settings.listener.tls_port else ""
    return Section(
        title="Security",
        parts=[
            Section(title="Security Profiles", blocks=[f"{tls}{mutual}. Audit messages of PS3.15, A.5 are kept."]),
            Section(
                title="Association Level Security",
                blocks=["A caller is let in by its AE title and its address together, and must call this AE by name."],
            ),
            Section(
                title="Application Level Security",
                blocks=["Files belong to the service's user alone. Logs name studies by keyed hashes."],
            ),
        ],
    )


def _has_tls(settings: Settings) -> bool:
    return bool(settings.listener.tls_port) or any(destination.tls for destination in settings.destination)


def _annexes(settings: Settings) -> Section:
    created = Section(
        title="Created SOP Instances",
        blocks=[
            _attributes("In every object", COMMON.items()),
            f"Where the source holds it: {', '.join(WHERE_KNOWN)}.",
        ],
        parts=[_object(told, settings) for told in CREATED],
    )
    used = (
        "CT images are read by geometry (Image Position and Orientation (Patient), Pixel Spacing, Rows, Columns), by "
        "pixel description and rescaling, by Series Instance UID, Acquisition Number and Instance Number. Attributes "
        "that are missing or contradict each other make a series not analysed; it is kept and forwarded all the same."
    )
    codes = "SNOMED CT and DCM codes; private ones under 99CTRIAGE. Templates TID 1500, 1411, 4019 and 2010."
    return Section(
        title="Annexes",
        parts=[
            Section(
                title="IOD Contents", parts=[created, Section(title="Usage of Received Attributes", blocks=[used])]
            ),
            Section(title="Data Dictionary of Private Attributes", blocks=["No private attributes are created."]),
            Section(title="Coded Terminology and Templates", blocks=[codes]),
            Section(title="Grayscale Image Consistency", blocks=["Not supported: nothing is displayed."]),
            Section(title="Standard Extended, Specialized and Private SOP Classes", blocks=["None are created."]),
            Section(
                title="Private Transfer Syntaxes",
                blocks=["None are used; one is accepted for storage only where no standard one is proposed with it."],
            ),
        ],
    )


def _object(told: CreatedObject, settings: Settings) -> Section:
    places = [each.name for each in settings.destination if set(told.kinds) & _kinds_for(each)]
    sent = f"sent to {', '.join(places)}" if places else "kept here, sent nowhere"
    text = f"{class_name(told.sop_class_uid)} ({told.sop_class_uid}); kinds: {', '.join(told.kinds)}; {sent}."
    return Section(title=told.name, blocks=[text, _attributes("Its own", told.own.items())])


def _attributes(title: str, told: Iterable[tuple[str, str]]) -> Grid:
    return Grid(title=title, columns=("attribute", "value"), rows=list(told))


def _statuses(title: str, told: Sequence[ToldStatus]) -> Grid:
    return Grid(title=title, columns=_STATUS, rows=[each.row for each in told])


_PLAIN: Final = f"{class_name(EXPLICIT_LITTLE)}, {class_name(IMPLICIT_LITTLE)}"
_REJECTIONS: Final = (
    ("calling AE title not recognized", "1 (permanent), 1 (user), 3", "caller or address not in the settings"),
    ("called AE title not recognized", "1 (permanent), 1 (user), 7", "this AE was called by another title"),
    ("no reason given", "1 (permanent), 1 (user), 1", "the caller is let in over TLS only, and spoke none"),
    ("local limit exceeded", "2 (transient), 3 (presentation), 2", "too many associations are open"),
)


def _yes(holds: bool) -> str:  # noqa: FBT001 -- the value that is told
    return "Yes" if holds else "No"
