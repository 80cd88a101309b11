"""Sizes: which become symbols, which are fixed, and those of buffers and windows of our own."""
