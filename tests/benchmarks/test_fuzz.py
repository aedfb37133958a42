"""Do short runs of the fuzzer find nothing, does the same seed make the same inputs, and would a crash be told?"""

import json
from random import Random
from typing import Any

import pytest

from benchmarks import fuzz, fuzz_seeds
from benchmarks.__main__ import main
from benchmarks.fuzz_mutations import mutated
from benchmarks.fuzz_seeds import Seed


def test_nothing_crashes_hangs_or_grows_in_a_short_run(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["fuzz", "--json", "--size", "toy", "--inputs", "3000", "--seed", "5"])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [] == printed.get("violations", [])
    assert (0, "fuzz") == (status, printed["name"])
    assert printed["figures"]["inputs"] >= 3000
    rows = {row["target"]: row for row in printed["rows"] if "target" in row}
    assert {"intake", "p_data", "answer", "socket"} == set(rows)
    for row in rows.values():  # inputs that are all taken, or all refused, would show nothing
        assert min(row["taken"], row["refused"]) > 0.1 * (row["taken"] + row["refused"])


def test_every_seed_of_the_corpus_is_taken_as_it_is_but_those_that_are_none() -> None:
    meant = [seed for seed in fuzz_seeds.datasets() if any(seed.content)]
    assert {"taken"} == {fuzz.read_dataset(seed) for seed in meant}
    assert ["taken", "refused"] == [fuzz.read_stream(fuzz_seeds.streams()[at]) for at in (2, 3)]
    assert 2 == [fuzz.read_stream(stream) for stream in fuzz_seeds.streams()].count("refused")
    assert ["taken", "refused"] == [fuzz.read_answers(fuzz_seeds.answers()[at]) for at in (2, -1)]


def test_an_input_follows_from_its_seed_and_number_alone() -> None:
    target = fuzz.targets()["intake"]
    assert target.make(Random("1 intake 7")) == target.make(Random("1 intake 7"))
    assert target.make(Random("1 intake 7")) != target.make(Random("2 intake 7"))


def test_inputs_are_changed() -> None:
    seeds = fuzz_seeds.streams()
    same = sum(mutated(seeds, seeds[0], Random(number)) == seeds[0] for number in range(300))
    assert same < 30


def test_a_crash_is_a_violation_that_names_its_input() -> None:
    def crash(_: Any) -> fuzz.Outcome:
        raise IndexError("out of range")

    fuzzing = fuzz.Fuzzing(seed=1, targets={"one": fuzz.Target(make=lambda _: b"\1\2", read=crash)})
    fuzzing.feed("one", 1)
    (violation,) = fuzzing.violations
    assert "one, seed 1, input 0 (2 bytes, 0102...): IndexError: out of range" == violation
    assert 1 == fuzzing.figures()["crashes"]


def test_a_reader_that_does_not_end_is_stopped_and_told() -> None:
    def endless(_: Any) -> fuzz.Outcome:
        while True:
            pass

    target = fuzz.Target(make=lambda _: b"", read=endless)
    fuzzing = fuzz.Fuzzing(seed=1, targets={"one": target}, hung_s=0.2)
    fuzzing.feed("one", 1)
    (violation,) = fuzzing.violations
    assert violation.endswith("did not end within 0.2 s")


def test_what_is_slow_is_told() -> None:
    fuzzing = fuzz.Fuzzing(seed=1, targets=fuzz.targets(), slow_s=-1.0)
    fuzzing.feed("intake", 1)
    assert 1 == fuzzing.figures()["slow"]


def test_the_bombs_are_small() -> None:
    assert all(isinstance(bomb, Seed) and len(bomb.content) < 4 * 2**20 for bomb in fuzz_seeds.bombs())
