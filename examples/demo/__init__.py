"""The demo: one promotion, one refusal and three roll-backs on a real cluster."""
