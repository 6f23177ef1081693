"""An engine that has pictures made by an OpenAI-compatible images API elsewhere."""
