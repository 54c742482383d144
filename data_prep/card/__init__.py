"""What is in a prepared folder: numbers, figures, and a data card that is one HTML file."""
