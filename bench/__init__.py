"""Benchmarks: Prospect beside its peers on the same rows, model and order; see docs/performance.md."""
