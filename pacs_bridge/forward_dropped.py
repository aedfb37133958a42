"""What becomes of what waits for a destination that the settings do not name any more? A person gives it up.

Nothing does so by itself: the name may be missing by mistake, and is then taken up again at the next start.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from pacs_bridge.beside_service import opened
from pacs_bridge.commitment_jobs import COMMIT
from pacs_bridge.deliveries import DELIVER
from pacs_bridge.forward_jobs import FORWARD
from scheduler.database import statements
from scheduler.sqlite_queue import SqliteQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """How many images are not passed on any more, and how many jobs (results, images, questions) are not run."""

    images: int
    jobs: int


def drop(database: Path, destination: str) -> Dropped:
    """Give up what a destination has not got, so that it keeps no study from being removed. What it got stays noted.

    To be asked only for a destination that the settings do not name. A job that runs is left alone. Raises NoState.
    """
    with opened(database) as service:
        queue = SqliteQueue(service)
        with service.transaction() as connection:
            images = connection.execute(_sql("give_up"), {"destination": destination}).fetchall()
            keys = _waiting(connection, destination)
            for key in keys:
                queue.cancel(key, f"given up: destination {destination} is not in the settings any more")
    return Dropped(images=len(images), jobs=len(keys))


def _waiting(connection: Connection, destination: str) -> list[str]:
    kinds = json.dumps([kind + destination for kind in (DELIVER, FORWARD, COMMIT)])
    return [str(row["key"]) for row in connection.execute(_sql("jobs_to"), {"kinds": kinds}).fetchall()]


def _sql(statement: str) -> str:
    return statements("pacs_bridge", "sql/forwards.sql")[statement]
