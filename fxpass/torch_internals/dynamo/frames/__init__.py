"""What Dynamo compiles now, frame by frame, and what has been seen of each frame before."""
