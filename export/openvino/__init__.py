"""OpenVINO's IR, read from our ONNX, with the same integers."""
