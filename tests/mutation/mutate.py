"""The mutants of a file: copies of it with one small fault each, made by mutmut's operators."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst
import libcst.matchers as m
from mutmut.mutation import mutators

NONE_FOR_VALUE = mutators.operator_assignment
OF_ARGUMENTS = mutators.operator_arg_removal
OF_STRINGS = mutators.operator_string
# Types, decorators, and arguments that only check that lengths are equal.
PASSED_OVER = (
    m.Annotation()
    | m.Decorator()
    | m.FunctionDef(decorators=[m.Decorator(m.Name("overload"))])
    | m.Subscript(value=m.Name("Literal"))
    | m.Call(func=m.Name("len") | m.Name("isinstance"))
    | m.Arg(keyword=m.Name("strict"))
)


def mutants_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield the mutants of a file's source: the changed line, before and after, and all of it."""
    module = cst.parse_module(source)
    faults = _Faults()
    module.visit(faults)
    for node, wrong in faults.found:
        code = module.deep_replace(node, wrong).code
        lines = zip(source.splitlines(), code.splitlines(), strict=False)
        before, after = next(pair for pair in lines if len({*pair}) > 1)
        yield f"{before.strip()} => {after.strip()}", code


class _Faults(cst.CSTVisitor):
    """Collects the nodes of a module with faulty replacements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []
        self.raises = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, PASSED_OVER):
            return False
        self.raises += isinstance(node, cst.Raise)
        for kind, operator in mutators.mutation_operators:
            if isinstance(node, kind) and operator is not NONE_FOR_VALUE:
                self.found += [(node, wrong) for wrong in self._kept(operator, node)]
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        self.raises -= isinstance(node, cst.Raise)

    def _kept(self, operator: object, node: cst.CSTNode) -> list[cst.CSTNode]:
        wrong = list(operator(node))
        if operator is OF_STRINGS:
            return [] if self.raises else wrong[:1]
        if operator is not OF_ARGUMENTS or len(node.args) < 2:
            return wrong
        # Of several arguments drop the last or one with a name: any other fault fails at once.
        optional = [i for i, arg in enumerate(node.args) if arg.keyword or arg is node.args[-1]]
        return [
            node.with_changes(args=[*node.args[:i], *node.args[i + 1 :]])
            for i in optional
            if not m.matches(node.args[i], PASSED_OVER) and not node.args[i].star
        ]
