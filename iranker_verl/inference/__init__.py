"""Ranking with a trained model: vLLM in process, and the loop that keeps it busy."""
