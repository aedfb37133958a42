"""Settings: where they come from, what is refused, and whether the message helps."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.settings import (
    Destination,
    Outputs,
    PriorityRule,
    Settings,
    SettingsError,
)
from pacs_bridge.settings_file import load_settings, setting_keys
from pipeline.model import PictureOptions, Priority


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start each test in an empty folder and with an environment of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("CTRIAGE_")]:
        monkeypatch.delenv(name)
    return tmp_path


def written(folder: Path, text: str, name: str = "site.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def complaint(text: str, folder: Path) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(written(folder, text))
    return str(refused.value)


def test_the_defaults_are_those_of_the_design_and_run_as_they_are(tmp_path: Path) -> None:
    settings = load_settings()
    assert tmp_path / "ctriage-state" == settings.state_dir
    assert ("CTRIAGE", "127.0.0.1", 11112) == (
        settings.listener.ae_title,
        settings.listener.host,
        settings.listener.port,
    )
    assert (60, 2, 0) == (settings.arrival.quiet_s, settings.workers.processes, settings.workers.memory_mb)
    assert ("hemorrhage", "skull_fracture") == settings.detectors.enabled
    assert () == settings.destination


def test_what_the_outputs_say_is_what_pictures_are_asked_for(tmp_path: Path) -> None:
    text = '[outputs]\nisotropic = true\nisotropic_mm = 0\nsurfaces = ["skin"]\nturn = ["brain", "bone"]'
    outputs = load_settings(written(tmp_path, text)).outputs
    assert PictureOptions() == PictureOptions(**Settings().outputs.model_dump())
    wanted = PictureOptions(isotropic=True, isotropic_mm=0, surfaces=("skin",), turn=("brain", "bone"))
    assert wanted == PictureOptions(**outputs.model_dump())


def test_command_line_beats_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, 'language = "es"\n[listener]\nport = 1\nhost = "0.0.0.0"\nae_title = "FILE"')
    monkeypatch.setenv("CTRIAGE_LISTENER__PORT", "2")
    monkeypatch.setenv("CTRIAGE_LISTENER__AE_TITLE", "ENV")
    settings = load_settings(file, {"listener": {"port": 3}})
    assert ("es", 3, "ENV", "0.0.0.0") == (
        settings.language,
        settings.listener.port,
        settings.listener.ae_title,
        settings.listener.host,
    )


def test_a_settings_file_in_the_folder_is_read_unless_another_is_named(tmp_path: Path) -> None:
    written(tmp_path, "[arrival]\nquiet_s = 5", "ctriage.toml")
    other = written(tmp_path, "[arrival]\nquiet_s = 7", "other.toml")
    assert (5, 7) == (load_settings().arrival.quiet_s, load_settings(other).arrival.quiet_s)


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRIAGE_CALLER", json.dumps([{"ae_title": "CT01", "address": "10.1.2.3"}]))
    monkeypatch.setenv("CTRIAGE_DETECTORS__ENABLED", '["hemorrhage"]')
    settings = load_settings()
    assert ("CT01", "10.1.2.3", None) == (
        settings.caller[0].ae_title,
        settings.caller[0].address,
        settings.caller[0].commitment,
    )
    assert ("hemorrhage",) == settings.detectors.enabled


def test_a_broken_list_in_the_environment_says_how_lists_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRIAGE_CALLER", "CT01")
    with pytest.raises(SettingsError, match=r"environment.*caller.*as JSON"):
        load_settings()


@pytest.mark.parametrize("text", ["", 'state_dir = "ctriage-state"'])
def test_a_relative_state_dir_lies_beside_the_settings_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc").mkdir()
    settings = load_settings(written(tmp_path / "etc", text))
    assert tmp_path / "etc" / "ctriage-state" == settings.state_dir


def test_a_relative_state_dir_of_the_command_line_lies_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = written(tmp_path / "etc", 'state_dir = "a"')
    assert tmp_path / "b" == load_settings(file, {"state_dir": "b"}).state_dir


@pytest.mark.parametrize(
    ("text", "file_key_and_help"),
    [
        ("[listener]\nprot = 1", ("site.toml", "listener.prot", "did you mean listener.port")),
        ("langage = 'en'", ("site.toml", "langage", "did you mean language")),
        ("[arival]\nquiet_s = 1", ("site.toml", "arival", "did you mean arrival")),
        ("quiet_s = 1", ("site.toml", "quiet_s", "did you mean arrival.quiet_s")),
        ("[listener]\nport = 70000", ("listener.port = 70000", "1 to 65535")),
        ("[listener]\nport = -1", ("listener.port = -1", "1 to 65535")),
        ("language = 'fr'", ("language = 'fr'", '"en" or "es"')),
        ("[listener]\nae_title = 'SEVENTEEN LETTERS'", ("listener.ae_title", "is no AE title", "16")),
        ("[listener]\nae_title = 'A\\B'", ("listener.ae_title", "no backslash")),
        ("[[caller]]\nae_title = 'CT01'\naddress = 'ct01'", ("caller 1: address", "no IP address")),
        ("[[caller]]\naddress = '10.0.0.1'", ("site.toml", "caller 1: ae_title", "required")),
        ("[outputs]\nmpr_step_mm = 0", ("outputs.mpr_step_mm", "more than 0")),
        ("[outputs]\nisotropic_mm = 0.1", ("outputs.isotropic_mm = 0.1", "from 0.2 to 10")),
        ("[outputs]\nisotropic_mm = nan", ("outputs.isotropic_mm", "from 0.2 to 10")),
        ('[outputs]\nsurfaces = ["bone", "liver"]', ("outputs.surfaces", '"bone", "skin"')),
        ('[outputs]\nturn = ["bone", "bone"]', ("outputs.turn", "name each once")),
        ("listener = 3", ("listener", "table")),
        ("a = \n", ("site.toml", "not valid TOML", "line 1")),
        ("[[priority_rule]]\npriority = 'stat'", ("priority_rule 1", "would match every study")),
    ],
)
def test_a_mistake_is_told_with_file_key_and_remedy(
    tmp_path: Path, text: str, file_key_and_help: tuple[str, ...]
) -> None:
    message = complaint(text, tmp_path)
    assert [] == [part for part in file_key_and_help if part not in message]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("tls = true", "a destination with tls needs tls.authorities"),
        ('send = ["sr", "pdf"]', "send 2"),
        ('name = "../x"', "no destination name"),
        ('name = "results"', "choose another name"),
    ],
)
def test_a_destination_that_could_not_be_honoured_is_refused(tmp_path: Path, key: str, words: str) -> None:
    table = {"name": '"pacs"', "ae_title": '"ORTHANC"', "host": '"127.0.0.1"', "port": "4242"}
    name, _, value = key.partition(" = ")
    lines = [f"{each} = {given}" for each, given in (table | {name: value}).items()]
    assert words in complaint("\n".join(["[[destination]]", *lines]), tmp_path)


def test_commitment_cannot_be_relayed_where_no_destination_offers_it(tmp_path: Path) -> None:
    text = "[[caller]]\nae_title = 'CT01'\naddress = '10.1.2.3'\ncommitment = 'relay'"
    assert "commitment of CT01 is to be relayed; give a [[destination]] commitment" in complaint(text, tmp_path)


@pytest.mark.parametrize(("offered", "expected"), [("true", "relay"), ("false", "off")])
def test_commitment_is_relayed_where_a_destination_offers_it(tmp_path: Path, offered: str, expected: str) -> None:
    file = tmp_path / "site.toml"
    peer = f'[[destination]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 104\ncommitment = {offered}\n'
    file.write_text(f"{peer}[[caller]]\nae_title = 'CT01'\naddress = '10.1.2.0/24'\n")
    settings = load_settings(file)
    assert expected == settings.commitment_of(settings.caller[0])


def test_images_are_forwarded_only_to_a_destination_that_is_named(tmp_path: Path) -> None:
    assert "[[forward]] goes to pacs; add a [[destination]]" in complaint("[[forward]]\nto = 'pacs'", tmp_path)


def test_certificates_lie_beside_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("[tls]\ncertificate = 'own.pem'\nprivate_key = '/etc/own.key'\n")
    tls = load_settings(file).tls
    assert (tmp_path / "own.pem", Path("/etc/own.key"), None) == (tls.certificate, tls.private_key, tls.authorities)


def test_a_tls_port_without_certificates_is_refused(tmp_path: Path) -> None:
    assert "listener.tls_port needs tls.certificate" in complaint("[listener]\ntls_port = 2762", tmp_path)


def test_two_destinations_of_one_name_are_refused(tmp_path: Path) -> None:
    one = '[[destination]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 104\n'
    assert "two [[destination]] tables are named pacs" in complaint(one + one.replace("pacs", "PACS"), tmp_path)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    assert 2 == len(complaint("langage = 'en'\n[listener]\nport = -1", tmp_path).splitlines())


@pytest.mark.parametrize("name", ["CTRIAGE_LISTENR__PORT", "CTRIAGE_CALER", "ctriage_langage"])
def test_a_mistyped_variable_of_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=rf"{name}.*did you mean CTRIAGE_"):
        load_settings()


@pytest.mark.parametrize("name", ["CTRIAGE_PORT", "CTRIAGE_SERVICE_HOST", "CTRIAGE_TEST_DATA"])
def test_variables_that_only_share_the_prefix_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert Settings().listener == load_settings().listener


def test_a_settings_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SettingsError, match="there is no such settings file"):
        load_settings(Path("nowhere.toml"))


def test_a_byte_order_mark_as_windows_editors_write_it_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "windows.toml"
    file.write_bytes('language = "es"\r\n'.encode("utf-8-sig"))
    assert "es" == load_settings(file).language


def test_only_settings_that_change_results_change_the_content_hash(tmp_path: Path) -> None:
    peer = Destination(name="pacs", ae_title="A", host="h", port=1)
    plain = Settings()
    assert plain.content_hash() == Settings(state_dir=tmp_path, destination=(peer,)).content_hash()
    assert plain.content_hash() != Settings(language="es").content_hash()
    assert plain.content_hash() != Settings(outputs=Outputs(mip=False)).content_hash()
    assert plain.content_hash() == Settings(outputs=Outputs(mpr_step_mm=3)).content_hash()


def test_the_first_priority_rule_that_matches_decides() -> None:
    rules = (
        PriorityRule(priority=Priority.ROUTINE, description="follow-up"),
        PriorityRule(priority=Priority.STAT, caller="CT_ER", body_part="head"),
    )
    settings = Settings(priority_rule=rules)
    assert Priority.STAT is settings.first_priority(caller="CT_ER", body_part="HEAD", description="Stroke")
    assert Priority.ROUTINE is settings.first_priority(caller="CT_ER", body_part="HEAD", description="Follow-Up 3")
    assert Priority.ROUTINE is settings.first_priority(caller="CT02", body_part="HEAD", description="")


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=1))
def test_an_ae_title_is_taken_exactly_when_it_has_at_most_16_characters(title: str) -> None:
    rule = {"priority": "stat", "caller": title}
    if len(title) <= 16:
        assert title == PriorityRule.model_validate(rule).caller
    else:
        with pytest.raises(ValueError, match="AE title"):
            PriorityRule.model_validate(rule)


def test_every_key_has_a_text_that_says_what_is_allowed() -> None:
    assert "listener.port" in setting_keys()
    for table in Settings.model_fields.values():
        assert table.description
