"""Answers sampled from a policy, and the file they are kept in."""
