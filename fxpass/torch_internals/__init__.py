"""The boundary: what kvfix uses of torch that is not public, and what it replaces there."""
