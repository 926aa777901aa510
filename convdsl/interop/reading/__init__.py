"""How an ONNX file becomes a graph: what rules see of a node, and what is known while reading."""
