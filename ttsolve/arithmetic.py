"""Arithmetic expressions over numbers: a bounded parser, exact values, and a canonical form.

Knows + - * / and parentheses, nothing else: no powers, no implied products, no names. Text is
bounded in length and depth, so that a hostile answer costs no more than an honest one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 400  # characters
MAX_DEPTH = 32  # parentheses within parentheses

_TOKEN = re.compile(r" *([0-9]+(?:\.[0-9]+)?|\.[0-9]+|[-+*/()])")


class NotArithmetic(ValueError):
    """The text is not an arithmetic expression, or is too long or too deep to be read as one."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms with their signs, +1 or -1; no term is itself a sum."""

    terms: tuple[tuple[int, Node], ...]


@dataclass(frozen=True, slots=True)
class Product:
    """Factors with their exponents, +1 or -1; no factor is itself a product."""

    factors: tuple[tuple[int, Node], ...]


Node = Fraction | Sum | Product


def parse(text: str) -> Node:
    """Read an expression.

    Raises:
        NotArithmetic: when the text is anything else, or beyond the bounds.
    """
    if len(text) > MAX_LENGTH:
        raise NotArithmetic(f"an expression has at most {MAX_LENGTH} characters, not {len(text)}")
    parser = _Parser(list(_tokens(text)))
    node = parser.sum()
    if parser.ahead:
        raise NotArithmetic(f"unexpected {parser.ahead!r}")
    return node


def leaves(node: Node) -> list[Fraction]:
    """The numbers of an expression, from left to right."""
    if isinstance(node, Fraction):
        return [node]
    return [leaf for _, part in _parts(node) for leaf in leaves(part)]


def value(node: Node) -> Fraction:
    """The exact value.

    Raises:
        ZeroDivisionError: when the expression divides by zero.
    """
    if isinstance(node, Fraction):
        return node
    if isinstance(node, Sum):
        return sum((sign * value(term) for sign, term in node.terms), Fraction(0))
    result = Fraction(1)
    for exponent, factor in node.factors:
        result = result * value(factor) if exponent > 0 else result / value(factor)
    return result


def canonical(node: Node) -> str:
    """A text that is equal for expressions which differ only in order and grouping.

    `2 * (3 + 4)` and `(4 + 3) * 2` are one, and so are `9 - (3 - 1)` and `1 + 9 - 3`; but `4 * 6`
    and `3 * 8` are two, as are `4 * 6` and `4 * 6 * 1`.
    """
    if isinstance(node, Fraction):
        return f"{node.numerator}:{node.denominator}"
    marks = {1: "+", -1: "-"} if isinstance(node, Sum) else {1: "*", -1: "/"}
    return "(" + "".join(sorted(marks[s] + canonical(part) for s, part in _parts(node))) + ")"


def _parts(node: Sum | Product) -> tuple[tuple[int, Node], ...]:
    return node.terms if isinstance(node, Sum) else node.factors


def _tokens(text: str) -> Iterator[str]:
    text, at = text.strip(" "), 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotArithmetic(f"unexpected {text[at]!r}")
        yield match[1]
        at = match.end()


class _Parser:
    """Recursive descent: a sum of products of numbers and parentheses."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def ahead(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def sum(self) -> Node:
        terms = list(_spread(1, self.product(), Sum))
        while self.ahead in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            terms += _spread(sign, self.product(), Sum)
        return terms[0][1] if len(terms) == 1 and terms[0][0] > 0 else Sum(tuple(terms))

    def product(self) -> Node:
        factors = list(_spread(1, self.factor(), Product))
        while self.ahead in ("*", "/"):
            exponent = 1 if self._take() == "*" else -1
            factors += _spread(exponent, self.factor(), Product)
        return factors[0][1] if len(factors) == 1 else Product(tuple(factors))

    def factor(self) -> Node:
        token = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotArithmetic(f"parentheses are at most {MAX_DEPTH} deep")
        if token == "-":
            node = _negative(self.factor())
        elif token == "(":
            node = self.sum()
            if self._take() != ")":
                raise NotArithmetic("a parenthesis is not closed")
        elif token and token not in "+*/)":
            node = Fraction(token)
        else:
            raise NotArithmetic(f"unexpected {token!r}" if token else "unexpected end")
        self._depth -= 1
        return node

    def _take(self) -> str:
        token = self.ahead
        self._at += 1
        return token


def _negative(node: Node) -> Node:
    return -node if isinstance(node, Fraction) else Sum(tuple(_spread(-1, node, Sum)))


def _has_value(node: Node) -> bool:
    try:
        value(node)
    except ZeroDivisionError:
        return False
    return True


def _spread(sign: int, node: Node, kind: type[Sum] | type[Product]) -> Iterator[tuple[int, Node]]:
    """The node as parts of a larger one: a - (b - c) is a - b + c, a / (b / c) is a / b * c.

    A divisor without a value stays whole: with c = 0, a / b * c would have one.
    """
    if isinstance(node, kind) and (kind is Sum or sign > 0 or _has_value(node)):
        yield from ((sign * own, part) for own, part in _parts(node))
    elif kind is Sum and isinstance(node, Fraction) and node < 0:
        yield -sign, -node
    else:
        yield sign, node
