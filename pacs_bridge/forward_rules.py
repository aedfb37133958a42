"""Which instances go to which destinations? Pure: rules and facts in, names of destinations out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pacs_bridge.settings import Forward, Settings
from pipeline.model import Priority

ANY_FINDING: Final = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardFacts:
    """What rules ask about an instance: ``caller`` sent it, ``descriptions`` are its study's and its series'."""

    caller: str
    modality: str
    descriptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a committed version of a study's Report says that rules may ask about."""

    findings: frozenset[str]
    priority: Priority | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRules:
    """The rules of the settings in order, and the AE title of each destination, by its name."""

    rules: tuple[Forward, ...]
    ae_titles: Mapping[str, str]

    @property
    def ask_for_verdicts(self) -> bool:
        """Say whether a Report can set anything off."""
        return any(_needs_verdict(rule) for rule in self.rules)

    def destinations(self, facts: ForwardFacts, verdicts: Sequence[Verdict] = ()) -> tuple[str, ...]:
        """Name each destination once, in the order of the rules, but never the one that sent the instance.

        ``verdicts`` are those of all versions: a study that was promised to somebody goes there whole, also where a
        later version takes the finding back.
        """
        caller = facts.caller.strip()
        chosen = (rule.to for rule in self.rules if _matches(rule, facts, verdicts))
        return tuple(dict.fromkeys(name for name in chosen if self.ae_titles[name].strip() != caller))


def rules_of(settings: Settings) -> ForwardRules:
    """Take the rules and the names they lead to from the settings."""
    return ForwardRules(rules=settings.forward, ae_titles={each.name: each.ae_title for each in settings.destination})


def _matches(rule: Forward, facts: ForwardFacts, verdicts: Sequence[Verdict]) -> bool:
    return _is_of(rule, facts) and (not _needs_verdict(rule) or any(_agrees(rule, verdict) for verdict in verdicts))


def _is_of(rule: Forward, facts: ForwardFacts) -> bool:
    return (
        (rule.caller is None or rule.caller == facts.caller.strip())
        and (rule.modality is None or rule.modality.casefold() == facts.modality.strip().casefold())
        and (rule.description is None or _is_part_of(rule.description, facts.descriptions))
    )


def _is_part_of(part: str, descriptions: Sequence[str]) -> bool:
    return any(part.casefold() in description.casefold() for description in descriptions)


def _needs_verdict(rule: Forward) -> bool:
    return rule.finding is not None or rule.priority is not None


def _agrees(rule: Forward, verdict: Verdict) -> bool:
    has_finding = rule.finding is None or _has(verdict.findings, rule.finding)
    return has_finding and (rule.priority is None or rule.priority is verdict.priority)


def _has(findings: frozenset[str], wanted: str) -> bool:
    if wanted.casefold() == ANY_FINDING:
        return bool(findings)
    return wanted.casefold() in {kind.casefold() for kind in findings}
