"""What crosses the fields of a route, in CEL."""

from __future__ import annotations

from typing import Final

from embedfleet_operator.crds.model_rules import alias_rule
from embedfleet_operator.crds.schema import Rule, unique

__all__ = ["ROUTE_RULES"]

_LAST_RULE: Final = "self.rules[size(self.rules) - 1]"
_LAST_STAGE: Final = "self.cascade[size(self.cascade) - 1]"

ROUTE_RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "Conditions": (
        Rule(
            ".tiers",
            "size(self.tiers) > 0 || has(self.minTokens) || has(self.maxTokens) || has(self.load)",
            "a condition is needed. Set tiers, minTokens, maxTokens or load, or leave out when.",
        ),
        Rule(
            ".maxTokens",
            "!has(self.minTokens) || !has(self.maxTokens) || self.minTokens <= self.maxTokens",
            "must be at least minTokens. Raise it or lower minTokens.",
            "self.maxTokens",
        ),
    ),
    "RouteRule": (
        Rule(
            ".targets",
            "(size(self.targets) > 0) != (size(self.cascade) > 0)",
            "a rule needs either targets or a cascade. Set one of the two.",
        ),
        Rule(
            ".cascade",
            unique("self.cascade", ".model"),
            "a model is named twice in this rule. Remove one of the two.",
        ),
        Rule(
            ".shadow.model",
            "!has(self.shadow) || (self.targets.all(t, t.model != self.shadow.model)"
            " && self.cascade.all(s, s.model != self.shadow.model))",
            "answers in this rule already. Choose another.",
            "self.shadow.model",
        ),
        Rule(
            ".cascade",
            "size(self.cascade) != 1",
            "a cascade has at least 2 stages. Add one, or make the model a target.",
        ),
        Rule(
            ".cascade",
            f"size(self.cascade) == 0 || !has({_LAST_STAGE}.keep)",
            "keep has no meaning in the last stage. Leave it out.",
        ),
        Rule(
            ".cascade",
            "[0, 1, 2].all(i, i >= size(self.cascade) - 1 || has(self.cascade[i].keep))",
            "keep is needed in every stage but the last. Set it.",
        ),
        Rule(
            ".cascade",
            "[1, 2].all(i, i >= size(self.cascade) - 1 || !has(self.cascade[i].keep)"
            " || !has(self.cascade[i - 1].keep)"
            " || self.cascade[i].keep < self.cascade[i - 1].keep)",
            "keep must be below the stage before. Lower it.",
        ),
    ),
    "ModelRouteSpec": (
        alias_rule(),
        Rule(
            ".rules",
            unique("self.rules", ".name"),
            "a name is that of an earlier rule. Rename one of the two.",
        ),
        Rule(
            ".rules",
            f"self.rules.filter(r, !has(r.when)).size() <= (has({_LAST_RULE}.when) ? 0 : 1)",
            "only the last rule fits every request. Set when, or move the rule to the end.",
        ),
        Rule(
            ".rules",
            f"!has({_LAST_RULE}.when)",
            "the last rule must fit every request. Leave out when, or add a rule without it.",
        ),
        Rule(
            ".rules",
            "self.targetKind != 'Embedder' || self.rules.all(r, size(r.cascade) == 0)",
            "cascade: only rerankers narrow down. Use targets: vectors of two models do not"
            " compare.",
        ),
        Rule(
            ".mixedContracts",
            "!self.mixedContracts || self.targetKind != 'Reranker'",
            "has no meaning for rerankers. Leave it out.",
        ),
    ),
}
