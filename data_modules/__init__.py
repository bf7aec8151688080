"""Everything about data: hospital files in, a checked cohort, and the batches that training reads."""
