"""Processes and devices: who am I, how many are we, and the few things that processes tell each other."""

from prospect.parallel.launch import launch
from prospect.parallel.world import World

__all__ = ["World", "launch"]
