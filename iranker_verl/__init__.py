"""IRanker on veRL: one LLM ranks anything by iterative elimination, trained with verl. Importing it imports nothing heavy."""

__version__ = "0.1.0"
