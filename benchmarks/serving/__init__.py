"""How much the inference server costs, gains and holds; ratios measured in one run."""
