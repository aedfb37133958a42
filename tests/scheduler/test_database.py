"""One file, a connection per thread, transactions that join, migrations that run once."""

import gc
import sqlite3
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scheduler.database import Database, migrate, statements
from scheduler.errors import SchedulerError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "test.db")
    with database.transaction() as connection:
        connection.execute("create table seen (word text not null)")
    yield database
    database.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "made_up_package"
    (folder / "migrations").mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop("made_up_package", None)


def words(database: Database) -> list[str]:
    with database.read() as connection:
        return [row["word"] for row in connection.execute("select word from seen order by rowid")]


def write(database: Database, word: str, *, error: Exception | None = None) -> None:
    with database.transaction() as connection:
        connection.execute("insert into seen values (?)", (word,))
        if error is not None:
            raise error


def test_the_file_is_durable_and_checks_foreign_keys(database: Database) -> None:
    with database.read() as connection:
        pragmas = [connection.execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        assert connection.execute("pragma foreign_keys").fetchone()[0] == 1
    full = 2
    assert ["wal", full] == pragmas


def test_an_exception_rolls_the_transaction_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        write(database, "lost", error=ZeroDivisionError())
    write(database, "kept")
    assert words(database) == ["kept"]


def test_a_nested_transaction_joins_the_outer_one(database: Database) -> None:
    def outer() -> None:
        with database.transaction():
            write(database, "inner")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outer()
    assert words(database) == []


def test_an_inner_failure_that_the_outer_survives_undoes_only_the_inner(database: Database) -> None:
    with database.transaction():
        write(database, "before")
        with pytest.raises(ZeroDivisionError):
            write(database, "inner", error=ZeroDivisionError())
        write(database, "after")
    assert words(database) == ["before", "after"]


def test_another_thread_sees_nothing_before_the_commit(database: Database) -> None:
    with ThreadPoolExecutor(1) as other, database.transaction() as connection:
        connection.execute("insert into seen values ('early')")
        assert other.submit(words, database).result() == []
        assert words(database) == ["early"]


def test_threads_that_write_at_once_wait_for_each_other(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write(database, str(number)), range(80)))
    assert {str(number) for number in range(80)} == set(words(database))


def test_a_thread_that_ends_closes_its_connection(database: Database) -> None:
    seen: list[sqlite3.Connection] = []

    def read() -> None:
        with database.read() as connection:
            seen.append(connection)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        seen[0].execute("select 1")


def test_a_closed_database_refuses_work(database: Database) -> None:
    database.close()
    with pytest.raises(SchedulerError, match="closed"):
        words(database)


def test_statements_are_found_by_their_names(package: Path) -> None:
    (package / "some.sql").write_text("-- what this is\n-- name: one\nselect 1\n\n-- name: two\n-- why\nselect 2\n")
    assert statements("made_up_package", "some.sql") == {"one": "select 1", "two": "-- why\nselect 2"}


def test_two_statements_of_one_name_are_refused(package: Path) -> None:
    (package / "twice.sql").write_text("-- name: one\nselect 1\n-- name: one\nselect 2\n")
    with pytest.raises(SchedulerError, match="one name"):
        statements("made_up_package", "twice.sql")


def test_each_migration_is_applied_once_and_in_order(database: Database, package: Path) -> None:
    (package / "migrations" / "002_b.sql").write_text("insert into seen values ('second; really');\n")
    (package / "migrations" / "001_a.sql").write_text("-- reason\ninsert into seen\nvalues ('first');\n")
    migrate(database, "made_up_package", "migrations")
    migrate(database, "made_up_package", "migrations")
    (package / "migrations" / "003_c.sql").write_text("insert into seen values ('third');")
    migrate(database, "made_up_package", "migrations")
    assert words(database) == ["first", "second; really", "third"]


def test_a_migration_that_fails_leaves_nothing(database: Database, package: Path) -> None:
    (package / "migrations" / "001_a.sql").write_text("insert into seen values ('first');\n")
    (package / "migrations" / "002_b.sql").write_text("insert into seen values ('second');\ninsert into nosuch;\n")
    with pytest.raises(sqlite3.OperationalError):
        migrate(database, "made_up_package", "migrations")
    assert words(database) == []


def test_a_file_newer_than_the_code_is_refused(database: Database, package: Path) -> None:
    migration = package / "migrations" / "001_a.sql"
    migration.write_text("insert into seen values ('first');\n")
    migrate(database, "made_up_package", "migrations")
    migration.unlink()
    with pytest.raises(SchedulerError, match="newer"):
        migrate(database, "made_up_package", "migrations")


def test_a_migration_without_its_last_semicolon_is_refused(database: Database, package: Path) -> None:
    (package / "migrations" / "001_a.sql").write_text("insert into seen values ('first')")
    with pytest.raises(SchedulerError, match="semicolon"):
        migrate(database, "made_up_package", "migrations")
