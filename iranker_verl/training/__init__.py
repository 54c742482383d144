"""What verl needs and no more: agent loop, its manager and worker, step-level credit, trainer, entry point."""
