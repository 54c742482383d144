"""What the tasks of each scenario are made of, whatever format the raw data came in."""
