"""The papers' experiments on the shipped networks, one command each."""
