"""What runs and comparisons look like to a reader."""
