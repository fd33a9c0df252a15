"""Threads, order, shutdown and failures of one run."""

from ape_stream.pipeline.pipeline import Outcome, Pipeline, Policy

__all__ = ["Outcome", "Pipeline", "Policy"]
