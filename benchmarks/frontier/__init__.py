"""Accuracy at equal measured latency: halpc with and without recovery, its floor, its ceiling, and other tools."""
