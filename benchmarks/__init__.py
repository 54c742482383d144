"""What is measured, and how. `make bench` and `make bench-learning` run these; nothing here is a test."""
