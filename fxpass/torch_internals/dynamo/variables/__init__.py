"""Dynamo variables for the numbers that a frame is given, or that its tensors hold."""
