"""The words of the results."""

import string

from pacs_bridge.results.texts import TEXTS, say, say_known
from pipeline.model import NOT_A_MEDICAL_DEVICE


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_stands_in_both_languages_with_the_same_places() -> None:
    for entry in TEXTS.values():
        assert {"en", "es"} == set(entry)
        assert places(entry["en"]) == places(entry["es"])


def test_the_disclaimer_fits_a_long_string_and_a_character_set_of_spanish() -> None:
    assert NOT_A_MEDICAL_DEVICE == say("disclaimer", "en")
    for entry in TEXTS.values():
        assert entry["es"].encode("latin-1")
    assert all(len(text) <= 64 for text in TEXTS["disclaimer"].values())


def test_no_text_calls_a_study_normal_or_a_finding_absent() -> None:
    for entry in TEXTS.values():
        for text in entry.values():
            assert not {"normal", "absent", "ausente", "negative", "negativo"} & set(text.lower().split())


def test_a_word_of_a_plug_in_is_said_as_it_is() -> None:
    assert "fractura" == say_known("kind", "fracture", "es")
    assert "nodule" == say_known("kind", "nodule", "es")
