"""How long changes of each class took: measured where they are made, told before the next one."""

from __future__ import annotations

from datetime import datetime

from embedfleet.rendering.plan import Impact, Plan
from embedfleet_operator.crds.status import Change, FleetStatus, Truth

__all__ = ["timed", "told"]


def timed(
    previous: FleetStatus, plan: Plan, progressing: Truth, now: datetime
) -> tuple[Change | None, tuple[Change, ...] | None]:
    """Note when a change begins, and how long it took once nothing is on its way any more.

    Returns:
        What goes on, and the last change of each class.
    """
    changing, last = previous.changing, previous.last_changes
    if plan.impact is not Impact.NO_CHANGE:
        # Another change on top of one is one longer change, of the graver class.
        impact = max(plan.impact, _impact(changing))
        began = changing.began if changing else now.replace(microsecond=0)
        return Change(impact=impact.label, began=began), last
    if changing is None or progressing is not Truth.FALSE:
        return changing, last
    done = changing.model_copy(update={"seconds": round((now - changing.began).total_seconds())})
    others = [each for each in last or () if each.impact != done.impact]
    return None, tuple(sorted((*others, done), key=lambda each: each.impact))


def told(plan: Plan, status: FleetStatus) -> str:
    """Write a plan, and how long a change of its gravest class took the last time."""
    return plan.told({c.impact: c.seconds for c in status.last_changes or () if c.seconds})


def _impact(change: Change | None) -> Impact:
    labels = {each.label: each for each in Impact}
    return labels.get(change.impact, Impact.NO_CHANGE) if change else Impact.NO_CHANGE
