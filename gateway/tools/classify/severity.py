"""Rates the harm that one call of a tool can do, by its subject and its reach (PURE).

Severity is independent of the risk class: a Write on permissions is a Medium risk of high severity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from gateway.tools.classify.lexicon import MANY, Category, words


class Severity(StrEnum):
    """The harm that one call can do, from least to most."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


LEVELS = tuple(Severity)
#: The severity of each category before its subjects are looked at, and the reason.
BASE: dict[Category, tuple[Severity, str]] = {
    Category.READ: (Severity.LOW, "it changes nothing"),
    Category.OTHER: (Severity.MEDIUM, "its effect is unknown"),
    Category.WRITE: (Severity.MEDIUM, "its changes are usually reversible"),
    Category.EXECUTE: (
        Severity.HIGH,
        "its effect depends on the arguments and goes beyond the call",
    ),
    Category.DESTRUCTIVE: (Severity.HIGH, "it may remove something for good"),
    Category.FINANCIAL: (Severity.HIGH, "it moves money or makes a financial commitment"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A subject that a tool may touch, and the least severity of reading, changing and destroying it."""

    name: str
    words: frozenset[str]
    reading: Severity
    changing: Severity
    destroying: Severity


SUBJECTS = (
    Subject(
        name="identity and permissions",
        words=words(
            "iam policy policies role roles permission permissions privilege privileges acl acls rbac grant grants"
            " user users group member members membership account accounts principal identity identities sso saml"
            " oauth oidc mfa admin owner ownership access collaborator collaborators team teams firewall"
        ),
        reading=Severity.LOW,
        changing=Severity.HIGH,
        destroying=Severity.CRITICAL,
    ),
    Subject(
        name="secrets",
        words=words(
            "env environ dotenv secret secrets credential credentials password passwords apikey vault keyvault"
            " passphrase keypair"
        ),
        reading=Severity.HIGH,
        changing=Severity.HIGH,
        destroying=Severity.CRITICAL,
    ),
    Subject(
        name="keys, tokens and certificates",
        words=words("token tokens certificate certificates ssh kms key keys private"),
        reading=Severity.MEDIUM,
        changing=Severity.HIGH,
        destroying=Severity.CRITICAL,
    ),
    Subject(
        name="money",
        words=words(
            "payment payments refund refunds payout payouts invoice invoices billing charge charges transfer wallet"
            " bank balance trade order orders subscription subscriptions price prices coupon funds withdrawal"
        ),
        reading=Severity.LOW,
        changing=Severity.HIGH,
        destroying=Severity.HIGH,
    ),
    Subject(
        name="production data or systems",
        words=words(
            "production prod database databases db table tables cluster clusters bucket buckets volume volumes disk"
            " storage backup backups collection dataset datastore namespace server servers instance instances vm"
            " node nodes droplet index stack infrastructure resource resources container schema topic queue domain"
            " broker brokers queues dns zone network vpc tenant organization org project repository repo workspace"
        ),
        reading=Severity.LOW,
        changing=Severity.MEDIUM,
        destroying=Severity.CRITICAL,
    ),
    Subject(
        name="outgoing messages",
        words=words(
            "email emails mail sms message messages tweet post posts comment reply publish broadcast send notify"
            " notification notifications invite whatsapp slack dm call webhook"
        ),
        reading=Severity.LOW,
        changing=Severity.MEDIUM,
        destroying=Severity.HIGH,
    ),
    Subject(
        name="code or its execution",
        words=words(
            "code merge push commit deploy deployment pipeline workflow workflows script release branch function"
            " lambda terraform helm kubectl yaml manifest eval exec shell command terminal sql hook hooks"
        ),
        reading=Severity.LOW,
        changing=Severity.HIGH,
        destroying=Severity.HIGH,
    ),
    Subject(
        name="personal data",
        words=words(
            "patient patients medical health inbox contact contacts conversation conversations personal passport"
        ),
        reading=Severity.MEDIUM,
        changing=Severity.MEDIUM,
        destroying=Severity.HIGH,
    ),
)

#: Parameters that carry many items.
MANY_IDS = words("ids names items records emails recipients users keys paths uris arns entities targets")


def rank(severity: Severity) -> int:
    """Return the position of a severity in `LEVELS`."""
    return LEVELS.index(severity)


def quote_words(found: Iterable[str]) -> str:
    """Return words in quotes, separated by commas, without repetitions."""
    return ", ".join(f'"{word}"' for word in dict.fromkeys(found))


def assess(category: Category, name_words: Collection[str], params: Collection[str]) -> tuple[Severity, str]:
    """Rate a tool by its category, the words of its name, and its parameters; returns severity and evidence."""
    level, why = BASE[category]
    for subject in SUBJECTS:
        seen = [word for word in name_words if word in subject.words]
        least = _least_severity(subject, category)
        if seen and rank(least) > rank(level):
            level, why = least, f"it touches {subject.name} ({quote_words(seen)})"
    many = next((word for word in name_words if word in MANY), None) or next(
        (word for word in params if word in MANY_IDS), None
    )
    if many and category is not Category.READ:
        level, why = LEVELS[min(rank(level) + 1, 3)], f'{why}; it affects many items at once ("{many}")'
    return level, f"Severity is {level}: {why}."


def _least_severity(subject: Subject, category: Category) -> Severity:
    if category is Category.READ:
        return subject.reading
    return subject.destroying if category in (Category.DESTRUCTIVE, Category.FINANCIAL) else subject.changing
