"""Exports as transformers 4.57 reads them: made here, checked there by ``make older``."""
