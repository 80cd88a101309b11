"""The dialect of graphs that all passes speak."""
