"""Metrics, baselines, statistics and the report."""
