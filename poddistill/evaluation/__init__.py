"""Evaluation of prediction files: accuracy with its uncertainty, paired comparison, report."""
