"""The nightly loop: import new photos, train a challenger, and promote it only if it is better."""
