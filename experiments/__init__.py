"""Experiments on questions without a published answer, each with its command."""
