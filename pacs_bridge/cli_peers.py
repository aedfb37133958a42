"""``ctriage send`` and ``ctriage check``: talking to peers by hand, and seeing whether they would answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pacs_bridge.cli_options import AsJson, Config, ExitStatus, Paths, Set, settings_from

if TYPE_CHECKING:
    from pacs_bridge.send import Peer
    from pacs_bridge.settings import Settings

Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS, with the certificates that the settings name.")]
To = Annotated[str, typer.Option("--to", metavar="AET@HOST:PORT", help="The peer to send to.")]


def send(
    paths: Paths,
    to: To,
    tls: Tls = False,  # noqa: FBT002 -- a flag of the command line
    config: Config = None,
    overrides: Set = None,
) -> None:
    """Send DICOM files, or all of those in folders, to a peer as they are."""
    from pacs_bridge.send import send_files
    from pacs_bridge.terminal import complain, progress_bar

    settings = settings_from(config, overrides)
    peer, calling_ae = peer_named(to), settings.listener.ae_title
    if tls:
        peer = _secured(peer, settings)
    files = list(dicom_files(paths))
    with progress_bar() as progress:
        done = iter(range(1, len(files) + 1))
        result = send_files(
            files, peer, calling_ae=calling_ae, progress=lambda _: progress("sending", next(done), len(files))
        )
    for failure in result.failures:
        complain(f"{failure.path}: {failure.problem.reason}")
    typer.echo(f"{len(result.sent)} of {len(files)} files sent to {peer}")
    raise typer.Exit(ExitStatus.FAILED if result.failures or not files else ExitStatus.OK)


def _secured(peer: "Peer", settings: "Settings") -> "Peer":
    from pacs_bridge.settings import SettingsError
    from pacs_bridge.terminal import complain
    from pacs_bridge.tls import client_context

    try:
        return replace(peer, tls=client_context(settings.tls, now=datetime.now(UTC)))
    except SettingsError as wrong:
        complain(str(wrong))
        raise typer.Exit(ExitStatus.USAGE) from wrong


def peer_named(text: str) -> "Peer":
    """Read AET@HOST:PORT; an IPv6 address stands in brackets."""
    from pacs_bridge.send import Peer

    ae_title, at, address = text.partition("@")
    host, colon, port = address.rpartition(":")
    if not (ae_title and at and host and colon and port.isdecimal() and 1 <= int(port) <= 65535):
        raise typer.BadParameter(f"--to {text}: write it as AET@HOST:PORT, such as ORTHANC@127.0.0.1:4242")
    return Peer(ae_title=ae_title, host=host.strip("[]"), port=int(port))


def dicom_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files named, whatever they are, and of folders those that say they are DICOM (PS3.10 7.1)."""
    for path in paths:
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.is_file() and _says_dicom(file))
        else:
            yield path


def _says_dicom(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"


def check(
    here: Annotated[bool, typer.Option("--here", help="Only this machine, no peer.")] = False,  # noqa: FBT002
    config: Config = None,
    overrides: Set = None,
    as_json: AsJson = False,  # noqa: FBT002 -- a flag of the command line
) -> None:
    """Look at settings, disk, peers and libraries: what would fail, and the remedy."""
    from pacs_bridge import check as look
    from pacs_bridge.terminal import print_json, print_table

    settings = settings_from(config, overrides)
    checks = look.check_here(settings) if here else look.run_checks(settings)
    if as_json:
        print_json(look.as_json(checks))
    else:
        rows = [(each.name, each.level, each.detail, each.remedy) for each in checks]
        print_table("ctriage check", ("what", "level", "found", "remedy"), rows)
    raise typer.Exit(ExitStatus.FAILED if look.would_fail(checks) else ExitStatus.OK)
