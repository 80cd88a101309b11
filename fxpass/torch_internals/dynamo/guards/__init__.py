"""Sources of our own, and the guards that Dynamo makes on them."""
