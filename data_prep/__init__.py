"""From raw files to ranking tasks in Parquet: one module a raw format, and the embedded world."""
