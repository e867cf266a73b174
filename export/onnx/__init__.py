"""ONNX files: float, quantized, and what ONNX Runtime makes of them."""
