"""Is prepared data what it should be? Leaks, positions, and any Parquet file row by row."""
