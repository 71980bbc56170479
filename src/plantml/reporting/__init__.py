"""Charts, Markdown tables and HTML pages."""
