"""The engine of Prospect."""
