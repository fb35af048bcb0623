"""Reads what `ttsolve "Make 24 from 4, 7, 8, 8"` printed; fails when no line is a right answer."""

import sys

from ttsolve.arithmetic import NotArithmetic, leaves, parse, value


def right(line: str) -> bool:
    try:
        node = parse(line.strip())
    except NotArithmetic:
        return False
    return value(node) == 24 and sorted(leaves(node)) == [4, 7, 8, 8]


answers = [line.strip() for line in sys.stdin if right(line)]
print("right:", *answers or ["nothing"])
sys.exit(not answers)
