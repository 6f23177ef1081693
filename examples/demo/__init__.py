"""The demo: two promotions, one refusal and three roll-backs on a real cluster."""
