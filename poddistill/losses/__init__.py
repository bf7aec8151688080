"""Losses, their schedules, and who is compared with whom."""
