"""Compiled models over a long life, as ``python -m tests.lifetime`` runs them: threads, many forecasts, memory."""
