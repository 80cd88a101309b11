"""Dynamo, taught to guard on positions."""
