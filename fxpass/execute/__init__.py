"""From a rewritten graph to a callable: cut, compile the parts, run them in order."""
