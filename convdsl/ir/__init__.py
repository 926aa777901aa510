"""The graph of operators, and what an operator is."""
