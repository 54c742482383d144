"""How raw files are read: text tables, JSON and Parquet, streamed, with errors that name file, row and value."""
