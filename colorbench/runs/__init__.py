"""The run folder: its record, its cells (one per model and seed), what is done and what is missing."""
