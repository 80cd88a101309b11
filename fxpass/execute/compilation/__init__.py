"""What a part is compiled as: for which inputs, by what, and with which of its results outside of the compiled code."""
