"""A contract for import-linter: some modules may import only what is listed, and what is their own.

import-linter's own contracts forbid by name; a rule for code nobody has written yet has to allow by name.
Patterns are module names: ``*`` stands for one part, a trailing ``.**`` for the module and all below it.
"""

from __future__ import annotations

import re
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class ImportsOnly(Contract):
    """``sources`` may import ``allowed`` modules of this project, and those that share ``own_parts`` leading parts.

    With ``also_indirectly``, what they import must keep to the same rule, however long the chain.
    A pattern that matches nothing is no error: the rule waits for the module it speaks of.
    """

    type_name = "imports_only"

    sources = fields.ListField(subfield=fields.StringField())
    allowed = fields.ListField(subfield=fields.StringField(), required=False)
    own_parts = fields.IntegerField()
    also_indirectly = fields.BooleanField(required=False, default=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        options: Any = self
        chains = broken_chains(
            graph, options.sources, options.allowed or [], options.own_parts, options.also_indirectly
        )
        return ContractCheck(kept=not chains, metadata={"chains": chains})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for chain in check.metadata["chains"]:
            output.print_error(f"- {' -> '.join(chain)}", bold=False)


def broken_chains(
    graph: ImportGraph, sources: list[str], allowed: list[str], own_parts: int, also_indirectly: bool
) -> list[tuple[str, ...]]:
    """The shortest chain of imports to each module that a source must not reach."""
    may_import = re.compile("|".join(map(_regex, allowed)) or r"(?!)")
    is_source = re.compile("|".join(map(_regex, sources)))
    broken = []
    for module in sorted(filter(is_source.fullmatch, graph.modules)):
        own = module.split(".")[:own_parts]
        reached = (graph.find_upstream_modules if also_indirectly else graph.find_modules_directly_imported_by)(module)
        for target in sorted(reached):
            if target.split(".")[:own_parts] == own or may_import.fullmatch(target):
                continue
            broken.append(tuple(graph.find_shortest_chain(module, target) or (module, target)))
    return broken


def _regex(pattern: str) -> str:
    if pattern.endswith(".**"):
        return _regex(pattern[:-3]) + r"(\..+)?"
    return r"\.".join("[^.]+" if part == "*" else re.escape(part) for part in pattern.split("."))
