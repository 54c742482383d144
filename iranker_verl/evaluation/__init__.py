"""Metrics, rivals, statistics and the report."""
