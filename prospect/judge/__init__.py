"""Judging answers: two samples side by side, a judge, and a ledger of every reply that was paid for."""
