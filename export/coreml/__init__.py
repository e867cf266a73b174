"""Core ML packages, their reference evaluator, and the Swift package around them."""
