"""What every stage trains with: the run folder, reproducible epochs, scores, progress."""
