"""Quantization: recipes, the quantized model (`QuantSpec`), post-training and quantization-aware."""
