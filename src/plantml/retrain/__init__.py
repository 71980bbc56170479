"""The nightly loop: new photos in, a challenger trained, judged, and put into service only if it is better."""
