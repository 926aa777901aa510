"""Networks behind HTTP, by the Open Inference Protocol."""
