"""Engines: what samples and scores, one external runtime a file."""
