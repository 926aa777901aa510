"""Networks from elsewhere and back: ONNX in both directions, PyTorch source, `.cnn` text."""
