"""Intervals for rates and means whose unit is a prompt."""
