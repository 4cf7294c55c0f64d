"""The custom resource definitions, written from the models that parse the resources."""

from embedfleet_operator.crds.kinds import KINDS, LISTS, RULES, Kind, definition

__all__ = ["KINDS", "LISTS", "RULES", "Kind", "definition"]
