"""How pages look that people read: the report, the data card. One style sheet, and figures that take its colours."""
