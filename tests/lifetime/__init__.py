"""Compiled models over a long life, run for long by ``python -m tests.lifetime``: threads, forecasts by the thousand, memory."""
