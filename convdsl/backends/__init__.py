"""Printers of kernels. They know nothing of operators."""
