"""What Dynamo leaves to Python, and what goes on behind a graph break."""
