"""Does a real listener accept what the table says, and nothing else?"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import AE, build_context

from pacs_bridge.listener import Listener
from pacs_bridge.negotiation import (
    PROCEDURE_STEP,
    STORAGE_COMMITMENT,
    VERIFICATION,
    is_storage,
    services_of,
    storage_classes,
    supported_contexts,
    syntax_of_choice,
)
from pacs_bridge.reception import listener_options
from pacs_bridge.settings import Caller, Commitment, Destination, Settings

IMPLICIT = "1.2.840.10008.1.2"
PRIVATE = "1.3.12.2.1107.5.9.1"
SYNTAXES = tuple(uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax")
SOP_CLASSES = tuple(uid for uid, entry in UID_dictionary.items() if entry[1] in ("SOP Class", "Meta SOP Class"))
BY_NAME = {VERIFICATION, PROCEDURE_STEP, STORAGE_COMMITMENT}
Proposal = tuple[str, tuple[str, ...]]


def accepted(port: int, proposals: Sequence[Proposal]) -> Iterator[tuple[str, str]]:
    """Propose contexts, 128 an association, and yield (abstract syntax, transfer syntax) of those that are accepted."""
    left = iter(proposals)
    while chunk := list(islice(left, 128)):
        entity = AE(ae_title="CT01")
        contexts = [build_context(uid, list(syntaxes)) for uid, syntaxes in chunk]
        association = entity.associate("127.0.0.1", port, contexts=contexts, ae_title="CTRIAGE")
        for context in association.accepted_contexts:
            yield str(context.abstract_syntax), str(context.transfer_syntax[0])
        association.release()


def test_every_class_that_is_taken_for_storage_is_accepted_and_no_other(bridge: Any, listen: Any) -> None:
    proposals = [(uid, (IMPLICIT,)) for uid in (*SOP_CLASSES, PRIVATE) if uid not in BY_NAME]
    taken = {uid for uid, _ in accepted(listen(bridge).port, proposals)}
    assert {uid for uid, _ in proposals if is_storage(uid)} == taken


def test_storage_is_accepted_in_whichever_standard_transfer_syntax_comes_first(bridge: Any, listen: Any) -> None:
    ct_image = "1.2.840.10008.5.1.4.1.1.2"
    syntaxes = [uid for uid in SYNTAXES if not uid.startswith("1.2.840.10008.1.2.6.") and not UID(uid).is_private]
    proposals = [(ct_image, (syntax, IMPLICIT)) for syntax in syntaxes]
    assert [(ct_image, syntax) for syntax in syntaxes] == list(accepted(listen(bridge).port, proposals))


def test_a_private_transfer_syntax_is_accepted_only_where_no_standard_one_is_proposed(bridge: Any, listen: Any) -> None:
    ct_image, private = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.113619.5.2"
    proposals = [(ct_image, (private, IMPLICIT)), (ct_image, (private,)), (ct_image, (IMPLICIT, private))]
    taken = [syntax for _, syntax in accepted(listen(bridge).port, proposals)]
    assert [IMPLICIT, private, IMPLICIT] == taken


def test_a_syntax_that_is_no_data_set_is_the_last_choice() -> None:
    assert IMPLICIT == syntax_of_choice(["1.2.840.10008.1.2.6.2", "1.2.3.4", IMPLICIT])
    assert "1.2.840.10008.1.2.4.999" == syntax_of_choice(["1.2.3.4", "1.2.840.10008.1.2.4.999", IMPLICIT])


def test_verification_is_accepted_in_the_syntaxes_of_the_table_and_in_no_other(bridge: Any, listen: Any) -> None:
    (table,) = supported_contexts(())
    proposals = [(VERIFICATION, (syntax,)) for syntax in SYNTAXES]
    taken = [syntax for _, syntax in accepted(listen(bridge).port, proposals)]
    assert set(table.transfer_syntaxes) <= set(taken)


@pytest.mark.parametrize("commitment", ["off", "own"])
def test_services_are_accepted_by_name_and_syntax_as_the_settings_offer_them(
    bridge: Any, commitment: Commitment
) -> None:
    settings = Settings(caller=(_caller(commitment),))
    options = replace(listener_options(settings), port=0, processes=0)
    listener = Listener(options, bridge.desk(), bridge.archive.files)
    listener.start()
    try:
        assert listener.port is not None
        proposals = [(uid, (syntax,)) for uid in sorted(BY_NAME) for syntax in SYNTAXES]
        taken = set(accepted(listener.port, proposals))
    finally:
        listener.stop()
    table = supported_contexts(services_of(settings))
    assert {(each.sop_class_uid, syntax) for each in table for syntax in each.transfer_syntaxes} == taken


@pytest.mark.parametrize(
    "uid",
    ["1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.38.1", "1.2.840.10008.1.3.10"],
    ids=["query", "hanging protocol", "DICOMDIR"],
)
def test_what_is_no_image_of_a_study_is_no_storage(uid: str) -> None:
    assert not is_storage(uid)


def test_every_storage_class_known_by_name_is_storage() -> None:
    assert all(map(is_storage, storage_classes()))


def test_commitment_is_offered_only_where_somebody_commits() -> None:
    assert (PROCEDURE_STEP,) == services_of(Settings())
    assert (PROCEDURE_STEP,) == services_of(Settings(caller=(_caller("off"),)))
    assert STORAGE_COMMITMENT in services_of(Settings(caller=(_caller("own"),)))
    pacs = Destination(name="pacs", ae_title="PACS", host="pacs", port=104, commitment=True)
    assert STORAGE_COMMITMENT in services_of(Settings(destination=(pacs,)))


def _caller(commitment: Commitment) -> Caller:
    return Caller(ae_title="CT01", address="10.0.0.1", commitment=commitment)
