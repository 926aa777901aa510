"""Loop IR to CUDA C; knows nothing of operators."""
