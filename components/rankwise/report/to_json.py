"""``report.json``: the facts, and beside them everything that follows from them and that the page shows."""

from __future__ import annotations

import json

from rankwise.report.analysis import Analysis
from rankwise.report.codec import encode
from rankwise.report.facts import SearchFacts, facts_to_dict


def to_json(facts: SearchFacts, analysis: Analysis) -> str:
    """The report as JSON text: ``{"facts": …, "analysis": …}``.

    ``facts`` can be read back with :func:`rankwise.report.facts.facts_from_json`; ``analysis`` is for programs that
    do not want to compute it again, and is never read back.
    """
    document = {"facts": facts_to_dict(facts), "analysis": encode(analysis)}
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
