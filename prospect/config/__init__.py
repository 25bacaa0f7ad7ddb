"""What a user may configure, checked where it is composed."""
