"""ttsolve: answers reasoning problems with a local language model and test-time compute."""

__version__ = "0.1.0"
