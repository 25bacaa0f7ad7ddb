"""What processes tell each other: alone here, and by two threads' worth of processes."""
