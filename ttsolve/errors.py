"""The exceptions of ttsolve. Each message is one sentence that names the problem and the remedy.

TtsolveError                 exit code 1
├── UsageError               exit code 2: what the user typed or passed in cannot be used
│   ├── PairError            a pair's folder or pair.toml is wrong
│   ├── ModelError           a model file is missing, damaged or of the wrong kind
│   ├── ProblemTooLong       the problem does not fit into the generator's context
│   └── MissingExtra         an optional dependency is not installed
└── StorageError             a file could not be written (no space, no permission)
"""


class TtsolveError(Exception):
    """Anything ttsolve itself reports to the user."""

    exit_code = 1


class UsageError(TtsolveError):
    """What the user typed or passed in cannot be used."""

    exit_code = 2


class PairError(UsageError):
    """A pair's folder or its pair.toml is wrong."""


class ModelError(UsageError):
    """A model file is missing, damaged, or of the wrong kind."""


class ProblemTooLong(UsageError):
    """The problem does not fit into the generator's context."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


class StorageError(TtsolveError):
    """A file could not be written."""
