"""One finding about a printed number, equation or sentence: the row that every check hands out."""

import re
from dataclasses import asdict, dataclass

from papers_check.papers import PAPERS as ALL_PAPERS

KINDS = ("claim", "arithmetic", "duplicate", "swap", "missing", "conflict", "literature", "gap", "reference")
PAPERS = (*ALL_PAPERS, "both")
SEVERITIES = ("high", "medium", "low", "note")  # worst first


@dataclass(frozen=True)
class Finding:
    """What is printed, what can be computed instead, and how much hangs on it."""

    id: str  # stable and unique: <paper>-<kind>-<short words>
    kind: str
    paper: str
    where: str  # "Table 4", "Eq. 6"
    quote: str  # the printed words or cells, verbatim
    computed: str
    verdict: str
    severity: str
    explanation: str  # one or two sentences that can be verified by hand

    def __post_init__(self):
        for value, allowed in ((self.kind, KINDS), (self.paper, PAPERS), (self.severity, SEVERITIES)):
            if value not in allowed:
                raise ValueError(f"{self.id}: {value!r} is none of {', '.join(allowed)}")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id) or not self.id.startswith(f"{self.paper}-{self.kind}-"):
            raise ValueError(f"{self.id!r} is not a slug that starts with {self.paper}-{self.kind}-")
        if empty := [name for name, value in asdict(self).items() if not value.strip()]:
            raise ValueError(f"{self.id}: {', '.join(empty)} left empty")

    def row(self) -> dict[str, str]:
        return asdict(self)


def by_severity(findings):
    """Worst first, then by kind, paper and id."""

    def key(finding: Finding) -> tuple:
        place = KINDS.index(finding.kind), PAPERS.index(finding.paper)
        return SEVERITIES.index(finding.severity), *place, finding.id

    return sorted(findings, key=key)
