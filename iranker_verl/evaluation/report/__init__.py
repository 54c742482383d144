"""The report of a run: figures, tables and one page, drawn from the files of the run folder and from nothing else."""
