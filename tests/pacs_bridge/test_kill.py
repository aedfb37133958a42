"""Is everything that was answered Success still there after the process was killed?"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context

from pacs_bridge.arrival import SeriesComplete
from pacs_bridge.transport import SOCKET_HANDLERS

EXPLICIT = "1.2.840.10008.1.2.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SERVE = """
import sys, threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from pacs_bridge.archive import Archive
from pacs_bridge.arrival import Limits
from pacs_bridge.front_desk import ReceptionDesk
from pacs_bridge.intake import Consequences, Intake
from pacs_bridge.listener import Listener
from pacs_bridge.reception import admission_of, listener_options
from pacs_bridge.settings import Settings
from scheduler.database import Database
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    database = Database(folder / "ctriage.db")
    archive = Archive(folder, database, free_space_floor_bytes=0)
    consequences = Consequences(on_instruction=lambda _: None)
    intake = Intake(archive, database, consequences=consequences, is_ours=lambda _: False, limits=Limits())
    settings = Settings(state_dir=folder)
    now = lambda: datetime.now(UTC)
    desk = ReceptionDesk(admission_of(settings), intake, services={}, audit=lambda _: None, now=now)
    listener = Listener(replace(listener_options(settings), port=0, processes=int(sys.argv[2])), desk, archive.files)
    listener.start()
    print(listener.port, flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_what_was_acknowledged_survives_kill_9_and_the_rest_may_be_sent_again(
    make_bridge: Any, make_slice: Any, tmp_path: Path, processes: int
) -> None:
    program = tmp_path / "serve.py"
    program.write_text(SERVE)
    command = [sys.executable, str(program), str(tmp_path), str(processes)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    ) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        association = AE(ae_title="CT01").associate(
            "127.0.0.1",
            port,
            contexts=[build_context(CT_IMAGE, EXPLICIT)],
            ae_title="CTRIAGE",
            evt_handlers=SOCKET_HANDLERS,
        )
        statuses = [association.send_c_store(make_slice(n)).Status for n in range(1, 6)]
        half = b"\x04\x00" + (100_000).to_bytes(4, "big") + bytes(5000)
        association.dul.socket.socket.sendall(half)
        service.kill()
    association.abort()
    bridge = make_bridge()
    kept = bridge.archive.instances_of("1.2.3", "1.2.3.4")
    assert [0] * 5 == statuses
    assert [f"1.2.3.4.{n}" for n in range(1, 6)] == [each.facts.sop_instance_uid for each in kept]
    assert all(each.path.stat().st_size == each.size_bytes for each in kept)
    assert list((tmp_path / "archive" / "incoming").iterdir()) == []
    bridge.clock.advance(60)
    bridge.intake.tick()
    assert [5] == [each.instances for each in bridge.instructions if isinstance(each, SeriesComplete)]
