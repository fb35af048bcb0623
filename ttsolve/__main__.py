"""`python -m ttsolve` is `ttsolve`."""

from ttsolve.cli import main

main()
